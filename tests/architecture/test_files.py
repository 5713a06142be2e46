"""What is tracked can be published: no place of a machine in it, every link leads somewhere, every command is one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from millstream.streams.cli.main import app
from tests.architecture.tree import ROOT, files, pages, text_of

DOT = "[.]"
"""Spelt so that this file holds none of what it looks for."""

PLACES = {
    "a home folder": r"(?<![\w.<])/(?:home|Users|root)/\w+|\b[A-Z]:\\Users\\",
    "a temporary folder": r"(?<![\w.])/(?:tmp|var/tmp|private|scratch)/\w",
    "a package registry": DOT.join(("pypi", "org"))
    + "|"
    + DOT.join(("pythonhosted", "org"))
    + "|art[i]factory|--(?:extra-)?inde[x]-url|--trusted-hos[t]",
    "a jar repository": DOT.join(("repo1?", "maven")) + "|" + DOT.join(("maven", "apache", "org")),
}
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:docs|tests|examples)/[\w./-]+)`")
VERB = re.compile(r"(?:^|[`$(] ?|: )millstream ([a-z]+)", re.MULTILINE)
TARGET = re.compile(r"(?:^|[`(] ?|: )make ([a-z]+)", re.MULTILINE)


def own_places() -> set[str]:
    """This checkout, this environment and this user's home, where they are more than one folder deep."""
    found = {str(ROOT), sys.prefix, os.path.expanduser("~")}
    return {place for place in found if len(Path(place).parts) > 2}


@pytest.mark.parametrize("what", PLACES)
def test_no_file_names(what: str) -> None:
    pattern = re.compile(PLACES[what])
    found = [
        f"{path}: {match[0]}"
        for path in files()
        if (text := text_of(path))
        for match in [pattern.search(text)]
        if match
    ]
    assert not found, f"{what} is named in {found}"


def test_no_file_names_a_place_of_this_machine() -> None:
    found = [
        f"{path}: {place}" for path in files() if (text := text_of(path)) for place in own_places() if place in text
    ]
    assert not found


def test_every_link_of_the_documentation_leads_to_a_file() -> None:
    dead = []
    for page in pages():
        for target in LINK.findall(text_of(page) or ""):
            if not target.startswith(("http://", "https://", "#")):
                place = (ROOT / page.parent / target.partition("#")[0]).resolve()
                if not place.exists() or ROOT not in place.parents:
                    dead.append(f"{page}: {target}")
    assert not dead


def test_every_file_and_folder_that_the_documentation_names_is_there() -> None:
    missing = [f"{page}: {name}" for page in pages() for name in NAMED.findall(text_of(page) or "") if not there(name)]
    assert not missing


def there(name: str) -> bool:
    """Whether git has this file, or a file in this folder; an ellipsis stands for anything."""
    wanted = name.rstrip("/").partition("…")[0].partition("...")[0]
    return any(str(path) == wanted or str(path).startswith(wanted.rstrip("/") + "/") for path in files())


def test_every_verb_that_the_documentation_types_is_one() -> None:
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    unknown = {verb for page in pages() for verb in VERB.findall(text_of(page) or "")} - verbs
    assert not unknown, f"the command line has {sorted(verbs)}"


def test_the_readme_lists_every_verb() -> None:
    readme = text_of(Path("README.md")) or ""
    hidden = {name for name, command in typer.main.get_command(app).commands.items() if command.hidden}  # type: ignore[attr-defined]
    verbs = set(typer.main.get_command(app).commands) - hidden  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `millstream ([a-z]+)`", readme, re.MULTILINE)) == verbs


def targets() -> dict[str, str | None]:
    """The targets for people in the Makefile, with what help says of each."""
    makefile = (ROOT / "Makefile").read_text()
    phony = " ".join(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)).split()
    said = dict(re.findall(r"^([a-z]+):.*?## +(.+)$", makefile, re.MULTILINE))
    return {name: said.get(name) for name in phony}


def test_make_help_tells_of_every_target_and_of_no_other() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = dict(re.findall(r"^ +make (\w+) +(.+)$", told.stdout, re.MULTILINE))
    assert listed == targets()


def test_every_target_that_the_documentation_types_is_one() -> None:
    asked = {target for page in pages() for target in TARGET.findall(text_of(page) or "")}
    assert asked <= set(targets())
    assert {"demo", "test"} <= asked


def test_the_changelog_has_a_place_for_what_is_not_released_yet() -> None:
    changelog = text_of(Path("CHANGELOG.md")) or ""
    assert re.search(r"^## Unreleased$", changelog, re.MULTILINE)
    parts = set(re.findall(r"^### (.+)$", changelog, re.MULTILINE))
    assert parts <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_index_of_decisions_lists_every_page_by_its_title() -> None:
    folder = Path("docs/decisions")
    listed = {
        name: title
        for title, name in re.findall(r"\[(.+?)\]\((\d{4}-[\w-]+\.md)\)", text_of(folder / "README.md") or "")
    }
    decided = [path for path in files() if path.parent == folder and path.name != "README.md"]
    titles = {path.name: (text_of(path) or "").partition("\n")[0] for path in decided}
    assert {name: f"# {int(name[:4])}. {title}" for name, title in listed.items()} == titles
