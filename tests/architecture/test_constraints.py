"""`constraints.txt` names an exact version of everything that `make` installs, and every one fits `pyproject.toml`."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.tree import ROOT


def pins() -> dict[str, str]:
    """Canonical name -> version."""
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines())}


def lines() -> list[str]:
    text = (ROOT / "constraints.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def wanted(*extras: str) -> list[Requirement]:
    """What the project asks for itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    asked = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in asked if requirement.name != project["name"]]


def test_each_line_is_a_name_and_an_exact_version() -> None:
    odd = [line for line in lines() if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.!+]+", line)]
    assert not odd, f"{odd}: a constraint is NAME==VERSION, without addresses, markers or comments"


def test_the_lines_are_sorted_and_no_name_occurs_twice() -> None:
    assert lines() == sorted(lines(), key=str.upper)
    assert len(pins()) == len(lines())


@pytest.mark.parametrize("requirement", wanted("broker", "dev"), ids=lambda requirement: requirement.name)
def test_what_pyproject_asks_for_is_pinned_to_a_version_that_it_accepts(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement} has no line in constraints.txt"
    assert requirement.specifier.contains(version, prereleases=True), f"{version} is not {requirement}"


def test_what_those_ask_for_in_turn_is_pinned_too() -> None:
    needed = {canonicalize_name(requirement.name) for requirement in needs(wanted("broker", "dev"))}
    assert not needed - set(pins()), f"no line in constraints.txt for {sorted(needed - set(pins()))}"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the list is made on Python 3.11; later ones need a little less"
)
def test_nothing_is_pinned_that_nobody_needs() -> None:
    needed = {canonicalize_name(requirement.name) for requirement in needs(wanted("broker", "dev"))}
    assert not set(pins()) - needed, f"nobody asks for {sorted(set(pins()) - needed)}"


def needs(asked: list[Requirement]) -> list[Requirement]:
    """Everything that these bring along here, by what is installed. Fails where something isn't installed."""
    seen: dict[tuple[str, str], Requirement] = {}
    todo = [(requirement, extra) for requirement in asked for extra in ("", *requirement.extras)]
    while todo:
        requirement, extra = todo.pop()
        key = (canonicalize_name(requirement.name), extra)
        if key in seen or (requirement.marker is not None and not requirement.marker.evaluate()):
            continue
        seen[key] = requirement
        todo += [(found, more) for found in brought(requirement.name, extra) for more in ("", *found.extras)]
    return list(seen.values())


def brought(name: str, extra: str) -> list[Requirement]:
    try:
        texts = distribution(name).requires or []
    except PackageNotFoundError:
        raise AssertionError(
            f"{name} isn't installed in {sys.prefix}: pip install -c constraints.txt -e '.[dev]'"
        ) from None
    found = []
    for requirement in map(Requirement, texts):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            requirement.marker = None
            found.append(requirement)
    return found
