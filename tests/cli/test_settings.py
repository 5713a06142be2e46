"""Where the log is: option, environment, nearest file, nearest folder, default; the strongest first."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.streams.cli.console import USAGE, exit_code
from millstream.streams.cli.settings import WrongSetting, find_folder, find_log, find_prefix


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MILLSTREAM_LOG", "MILLSTREAM_PREFIX", "MILLSTREAM_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "project" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_without_any_setting_it_is_the_folder_millstream_here(here: Path) -> None:
    assert find_log(None) == ("./.millstream", "default")


def test_the_nearest_folder_of_a_parent_is_taken(here: Path) -> None:
    (here.parent / ".millstream").mkdir()
    assert Path(find_log(None).value).resolve() == (here.parent / ".millstream").resolve()


def test_a_file_is_stronger_than_a_folder_and_its_path_counts_from_the_file(here: Path) -> None:
    (here / ".millstream").mkdir()
    (here.parent / "pyproject.toml").write_text('[tool.millstream]\nlog = "data/log"\nprefix = "shop"\n')
    assert Path(find_log(None).value).resolve() == (here.parent / "data/log").resolve()
    assert find_prefix(None).value == "shop"


def test_an_address_in_a_file_is_no_path(here: Path) -> None:
    (here / "millstream.toml").write_text('[tool.millstream]\nlog = "kafka://h:9092"\n')
    assert find_log(None).value == "kafka://h:9092"


def test_a_pyproject_without_our_table_is_passed_over(here: Path) -> None:
    (here / "pyproject.toml").write_text('[project]\nname = "x"\n')
    (here.parent / "millstream.toml").write_text('[tool.millstream]\nlog = "kafka://h:9092"\n')
    assert find_log(None).value == "kafka://h:9092"


def test_the_environment_is_stronger_than_a_file_and_the_option_than_both(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "millstream.toml").write_text('[tool.millstream]\nlog = "kafka://file:1"\n')
    monkeypatch.setenv("MILLSTREAM_LOG", "kafka://env:1")
    assert find_log(None) == ("kafka://env:1", "MILLSTREAM_LOG")
    assert find_log("kafka://option:1") == ("kafka://option:1", "--log")


@pytest.mark.parametrize("text", ["[tool.millstream\n", "[tool.millstream]\nlog = 7\n", "[tool]\nmillstream = 7\n"])
def test_a_file_that_cant_be_read_is_named(here: Path, text: str) -> None:
    (here / "millstream.toml").write_text(text)
    with pytest.raises(WrongSetting, match=r"millstream\.toml") as wrong:
        find_log(None)
    assert exit_code(wrong.value) == USAGE


def test_stores_lie_beside_an_embedded_log_and_apart_for_each_cluster_and_prefix(here: Path) -> None:
    assert find_folder(None, find_log("logs/a"), "shop") == Path("logs/a/server/shop")
    one, other = (find_folder(None, find_log(f"kafka://{h}:9092"), "shop") for h in ("a", "b"))
    assert one != other
    assert find_folder(Path("given"), find_log(None), "shop") == Path("given")
