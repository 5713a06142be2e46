"""Which changes of a schema old data and old readers can bear: Avro's rules, over plain schema JSON. Pure.

Every change is looked at twice: a new reader of old data, and an old reader of new
data. Each problem is one text that names record, field and rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.events.avro_types import collect_names, default_fits, type_name
from millstream.events.schema_files import Schema

_WIDENINGS = {
    ("int", "long"), ("int", "float"), ("int", "double"),
    ("long", "float"), ("long", "double"),
    ("float", "double"),
}  # fmt: skip
_EITHER_WAY = {("string", "bytes"), ("bytes", "string")}


def check_evolution(old: Schema, new: Schema, *, widening: bool) -> list[str]:
    """The problems of going from `old` to `new`, two versions of one record; an empty list: it can be borne.

    widening: whether int may become long, and so on up to double. New readers can always read that, old
    ones can't; it is right where old readers stop at a newer version anyway, as on the journal.
    """
    return list(dict.fromkeys(_Pair(old, new, widening).problems()))


class _Pair:
    def __init__(self, old: Schema, new: Schema, widening: bool) -> None:
        self.old, self.new, self.widening = old, new, widening
        self.old_named: dict[str, Schema] = {}
        self.new_named: dict[str, Schema] = {}
        collect_names(old, self.old_named)
        collect_names(new, self.new_named)
        self.seen: set[str] = set()

    def problems(self) -> Iterator[str]:
        yield from self.types(self.old, self.new, type_name(self.new).rpartition(".")[2])

    def types(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        """Problems between two types of the same place. `where`: record and field, for the text."""
        old, new = self.full(old, self.old_named), self.full(new, self.new_named)
        if isinstance(old, list) or isinstance(new, list):
            yield from self.unions(old, new, where)
            return
        old_kind, new_kind = _kind(old), _kind(new)
        if old_kind != new_kind:
            yield from self.changed(old_kind, new_kind, where)
            return
        if _logical(old) != _logical(new):
            yield f"{where}: logical type changed from {_logical(old)} to {_logical(new)}: old data would be read as other values"
        if old_kind in ("record", "enum", "fixed"):
            yield from self.named(old, new, old_kind, where)
        elif old_kind == "array":
            yield from self.types(old["items"], new["items"], f"{where}[]")
        elif old_kind == "map":
            yield from self.types(old["values"], new["values"], f"{where}{{}}")

    def full(self, node: Schema, named: dict[str, Schema]) -> Schema:
        if isinstance(node, str):
            return named.get(node, node)
        if isinstance(node, dict) and not isinstance(node.get("type", ""), str):
            return self.full(node["type"], named)
        return node

    def changed(self, old: str, new: str, where: str) -> Iterator[str]:
        if (old, new) in _EITHER_WAY or (self.widening and (old, new) in _WIDENINGS):
            return
        if (old, new) in _WIDENINGS:
            yield f"{where}: type widened from {old} to {new}: old readers can't read the new data"
        elif (new, old) in _WIDENINGS:
            yield f"{where}: type narrowed from {old} to {new}: new readers can't read the old data"
        else:
            yield f"{where}: type changed from {old} to {new}: neither is readable as the other"

    def named(self, old: Schema, new: Schema, kind: str, where: str) -> Iterator[str]:
        if old["name"] != new["name"] and old["name"] not in new.get("aliases", ()):
            yield f"{where}: type renamed from {old['name']} to {new['name']}: readers find types by name"
            return
        if new["name"] in self.seen:
            return
        self.seen.add(new["name"])
        if kind == "record":
            yield from self.records(old, new)
        elif kind == "enum":
            yield from self.enums(old, new, where)
        elif old["size"] != new["size"]:
            yield f"{where}: size of {new['name']} changed from {old['size']} to {new['size']} bytes"

    def enums(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        for symbol in old["symbols"]:
            if symbol not in new["symbols"]:
                yield f"{where}: enum symbol {symbol!r} removed: new readers can't read old data that has it"
        for symbol in new["symbols"]:
            if symbol not in old["symbols"] and "default" not in old:
                yield (
                    f"{where}: enum symbol {symbol!r} added to an enum without a default:"
                    f" old readers can't read new data that has it"
                )

    def records(self, old: Schema, new: Schema) -> Iterator[str]:
        record = new["name"].rpartition(".")[2]
        before = {field["name"]: field for field in old["fields"]}
        after = {field["name"]: field for field in new["fields"]}
        added = [name for name in after if name not in before]
        removed = [name for name in before if name not in after]
        for gone, come in renamed(old, new, removed, added):
            yield f"{record}.{gone}: field renamed to {come!r}: readers find fields by name; add a field with a default instead"
            removed.remove(gone)
            added.remove(come)
        for name in added:
            if "default" not in after[name]:
                yield f"{record}.{name}: field added without default: new readers can't read old data"
            elif not default_is_right(after[name], self.new_named):
                yield f"{record}.{name}: the default {after[name]['default']!r} isn't of the field's type{_first(after[name])}"
        for name in removed:
            if "default" not in before[name]:
                yield f"{record}.{name}: field removed that has no default: old readers can't read new data"
        for name in before:
            if name in after:
                yield from self.types(before[name]["type"], after[name]["type"], f"{record}.{name}")

    def unions(self, old: Schema, new: Schema, where: str) -> Iterator[str]:
        if not isinstance(old, list) or not isinstance(new, list):
            yield f"{where}: type changed from {type_name(old)} to {type_name(new)}: it can't become a union or stop being one"
            return
        before, after = [type_name(b) for b in old], [type_name(b) for b in new]
        for name in before:
            if name not in after:
                yield f"{where}: union branch {name} removed: new readers can't read old data that has it"
        for name in after:
            if name not in before:
                yield f"{where}: union branch {name} added: old readers can't read new data that has it"
        if sorted(before) == sorted(after) and before != after:
            yield (
                f"{where}: union reordered from {', '.join(before)} to {', '.join(after)}:"
                f" a default belongs to the first branch, and would be of another type"
            )
        for branch in old:
            if type_name(branch) in after:
                yield from self.types(branch, new[after.index(type_name(branch))], where)


def renamed(old: Schema, new: Schema, removed: list[str], added: list[str]) -> list[tuple[str, str]]:
    """Pairs of a field that went and one that came which are meant as one: by alias, or same place and type."""
    pairs = []
    for i, field in enumerate(new["fields"]):
        if field["name"] not in added or ("default" in field and not field.get("aliases")):
            continue
        there = old["fields"][i] if i < len(old["fields"]) else None
        for name in removed:
            same_place = there is not None and there["name"] == name and there["type"] == field["type"]
            if name in field.get("aliases", ()) or same_place:
                pairs.append((name, field["name"]))
                break
    return pairs


def default_is_right(field: Schema, named: dict[str, Schema]) -> bool:
    """Whether the default can be read: a union's belongs to its first branch; bytes are code points 0 to 255."""
    return _right(field["type"], field["default"], named)


def _right(node: Schema, default: Any, named: dict[str, Schema]) -> bool:
    node = node[0] if isinstance(node, list) else node
    node = named.get(node, node) if isinstance(node, str) else node
    if not isinstance(node, str) and not isinstance(node["type"], str):
        return _right(node["type"], default, named)
    if not default_fits(node, default, {}):
        return False
    kind = _kind(node)
    if kind in ("bytes", "fixed"):
        return all(ord(c) < 256 for c in default) and (kind == "bytes" or len(default) == node["size"])
    if kind == "enum":
        return default in node["symbols"]
    if kind == "array":
        return all(_right(node["items"], item, named) for item in default)
    if kind == "map":
        return all(_right(node["values"], value, named) for value in default.values())
    if kind == "record":
        return all(
            _right(f["type"], default.get(f["name"], f.get("default")), named)
            for f in node["fields"]
            if f["name"] in default or "default" not in f
        )
    return True


def _first(field: Schema) -> str:
    if not isinstance(field["type"], list):
        return ""
    return f"; a union's default must be of its first branch, {type_name(field['type'][0])}"


def _kind(node: Schema) -> str:
    return node if isinstance(node, str) else str(node["type"])


def _logical(node: Schema) -> str | None:
    if not isinstance(node, dict) or "logicalType" not in node:
        return None
    details = [f"{key} {node[key]}" for key in ("precision", "scale") if key in node]
    return " ".join([node["logicalType"], *details])
