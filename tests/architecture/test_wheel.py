"""What is published: the wheel holds all of it and nothing else, and works where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from tests.architecture.tree import PORTIONS, ROOT, files, modules

IMPORT_ALL = """
import importlib, pathlib, sys
home = pathlib.Path(sys.prefix).resolve()
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    assert home in pathlib.Path(module.__file__).resolve().parents, f"{name} comes from {module.__file__}"
import millstream
assert [str(home in pathlib.Path(p).resolve().parents) for p in millstream.__path__] == ["True"], millstream.__path__
print(len(sys.argv) - 1)
"""


class Built(NamedTuple):
    """The two archives that are published."""

    wheel: Path
    sdist: Path


class Installed(NamedTuple):
    """A new environment with the wheel in it. elsewhere: an empty folder to run from."""

    bin: Path
    elsewhere: Path

    def run(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "COLUMNS": "200", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [str(self.bin / command), *words],
            cwd=self.elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def build(source: Path, target: Path, *kinds: str) -> list[Path]:
    """Build from the folder `source` into `target`, without a network."""
    assert find_spec("hatchling"), f"{sys.executable} has no hatchling; it belongs to pyproject.toml's extra `dev`"
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-d", str(target)]
    for kind in kinds:
        command += ["-t", kind]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    return [next(target.glob({"wheel": "*.whl", "sdist": "*.tar.gz"}[kind])) for kind in kinds]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(*build(ROOT, tmp_path_factory.mktemp("dist"), "wheel", "sdist"))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The libraries are those of the running environment: a path file there isn't followed, so no checkout comes with them."""
    folder = tmp_path_factory.mktemp("new") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    put = subprocess.run(
        [*command, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(built.wheel)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert put.returncode == 0, put.stdout + put.stderr
    packages = next(folder.glob("lib/python*/site-packages"))
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
    return Installed(folder / "bin", tmp_path_factory.mktemp("elsewhere"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def published() -> set[str]:
    """What of the checkout belongs into the wheel, under the names that it has there."""
    return {str(PurePosixPath(*path.parts[1:])) for path in files() if path.parts[0] in PORTIONS}


def test_the_wheel_holds_every_file_of_the_four_folders_and_no_other(built: Built) -> None:
    ours = {name for name in names(built.wheel) if ".dist-info/" not in name}
    assert ours == published()


def test_the_wheel_has_schemas_and_says_that_it_is_typed(built: Built) -> None:
    held = names(built.wheel)
    assert {f"millstream/{portion}/py.typed" for portion in PORTIONS} <= held
    assert "millstream/events/schemas/Transition.v1.avsc" in held
    assert "millstream/__init__.py" not in held


def test_the_wheel_carries_the_licence_and_asks_for_nothing_that_only_developers_need(built: Built) -> None:
    held = names(built.wheel)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in held)
    with zipfile.ZipFile(built.wheel) as archive:
        metadata = message_from_string(archive.read(next(n for n in held if n.endswith("/METADATA"))).decode())
    needed = {line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {line.split("<")[0].split(">")[0] for line in needed} == {
        line.split("<")[0].split(">")[0] for line in wanted
    }


def test_the_sdist_makes_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = build(source, tmp_path / "dist", "wheel")[0]
    assert again.read_bytes() == built.wheel.read_bytes()


def test_the_sdist_has_no_tests_and_no_examples(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        tops = {PurePosixPath(name).parts[1] for name in archive.getnames()}
    made = {"PKG-INFO", ".gitignore"}
    assert tops - made == {*PORTIONS, "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}


def test_every_module_can_be_imported_from_the_wheel_alone(installed: Installed) -> None:
    every = sorted(name for name in modules() if not name.endswith(".__main__"))
    done = installed.run("python", "-P", "-I", "-c", IMPORT_ALL, *every)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(every))


def test_the_installed_command_shows_its_help_and_its_version(installed: Installed) -> None:
    done = installed.run("millstream", "--help")
    assert done.returncode == 0, done.stderr
    for verb in ("serve", "kernels", "broker", "publish", "tail", "history", "verify", "rebuild"):
        assert f" {verb} " in done.stdout
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert installed.run("millstream", "--version").stdout.strip() == f"millstream {version}"


def test_the_installed_command_reads_its_schemas_from_the_wheel(installed: Installed) -> None:
    source = "from millstream.events.codec import Codec; print(len(Codec().fingerprints) > 0)"
    done = installed.run("python", "-P", "-I", "-c", source)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
