"""Kafka's jars: fetched once from Maven Central, kept in a cache folder, offered as a class path.

The resolver is jgo's own in Python: neither `mvn` nor a Java is needed to fetch.
A finished fetch leaves `classpath.txt`; with it the next start asks nobody.
"""

from __future__ import annotations

import fcntl
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from millstream.events.errors import BrokerFailed

KAFKA_VERSION = "4.1.2"
# kafka-clients is named at the same version: left to itself the resolver picks an
# older one that something else asks for, and the broker dies with NoSuchMethodError.
ENDPOINT = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.25.1"
)

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, how many are done, of how many; 0 where that isn't known)."""

T = TypeVar("T")

_TRIES = 3
_PARALLEL = 6
_LIST = "classpath.txt"


def cache_folder() -> Path:
    """Where the jars of this Kafka version lie: below MILLSTREAM_CACHE, else the user's cache folder."""
    told = os.environ.get("MILLSTREAM_CACHE")
    base = Path(told) if told else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millstream"
    return base / f"kafka-{KAFKA_VERSION}"


def class_path(progress: Progress | None = None, *, folder: Path | None = None) -> list[Path]:
    """The jars of the broker, fetched if they aren't there. Raises `BrokerFailed` where they can't be had."""
    folder = folder or cache_folder()
    found = _listed(folder)
    if found:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder):
            return _listed(folder) or _fetch(folder, progress or (lambda what, done, total: None))
    except OSError as err:
        raise BrokerFailed(
            f"Kafka's jars can't be kept in {str(folder)!r}: {err}. Set MILLSTREAM_CACHE to a folder"
            f" that can be written, and start again."
        ) from err


def _listed(folder: Path) -> list[Path]:
    """The jars of a finished fetch, or nothing where one is missing."""
    try:
        jars = [folder / line for line in (folder / _LIST).read_text().splitlines() if line]
    except FileNotFoundError:
        return []
    return jars if all(jar.is_file() for jar in jars) else []


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with open(folder / "fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path, progress: Progress) -> list[Path]:
    repository = folder / "repository"
    _drop_torn(repository)
    try:
        jars = _resolve_and_download(repository, progress)
    except BrokerFailed:
        raise
    except Exception as err:
        raise BrokerFailed(
            f"Kafka {KAFKA_VERSION} could not be fetched from Maven Central: {type(err).__name__}: {err}."
            f" It is needed once, about 45 MB. Check the network or its proxy settings and start again;"
            f" what was fetched so far is kept in {str(folder)!r}."
        ) from err
    torn = [jar.name for jar in jars if not zipfile.is_zipfile(jar)]
    if torn:
        raise BrokerFailed(f"these jars arrived incomplete: {', '.join(torn)}. Start again; only they are fetched.")
    text = "".join(f"{jar.relative_to(folder)}\n" for jar in jars)
    part = folder / (_LIST + ".part")
    part.write_text(text)
    part.replace(folder / _LIST)
    return jars


def _drop_torn(repository: Path) -> None:
    """Delete what a killed fetch left half written: the resolver takes any file that is there for whole."""
    for jar in repository.rglob("*.jar"):
        if not zipfile.is_zipfile(jar):
            jar.unlink()
    for pom in repository.rglob("*.pom"):
        try:
            ElementTree.parse(pom)  # noqa: S314  the resolver parses the same file next
        except ElementTree.ParseError:
            pom.unlink()


def _resolve_and_download(repository: Path, progress: Progress) -> list[Path]:
    try:
        from jgo.maven import MavenContext, PythonResolver
        from jgo.parse import Endpoint
    except ImportError as err:
        raise BrokerFailed(
            "the local broker needs the packages of the extra `broker`, which aren't installed."
            " Install millstream[broker], or use a Kafka that runs elsewhere with --log kafka://HOST:PORT."
        ) from err

    read = 0

    @contextmanager
    def count_poms(name: str, size: int) -> Iterator[Callable[[int], None]]:
        nonlocal read
        if name.endswith(".pom"):
            read += 1
            progress("resolving Kafka", read, 0)
        yield lambda received: None

    context = MavenContext(
        resolver=PythonResolver(progress_callback=count_poms),
        repo_cache=repository,
        local_repos=[],
        timeout=60,
    )
    wanted = [
        context.create_dependency(replace(coordinate, scope=coordinate.scope or "compile"))
        for coordinate in Endpoint.parse(ENDPOINT).coordinates
    ]
    inputs, transitive = _patiently(lambda: context.resolver.resolve(wanted))
    artifacts = [dep.artifact for dep in [*inputs, *(d for d in transitive if d.scope in ("compile", "runtime"))]]
    progress("fetching jars", 0, len(artifacts))
    with ThreadPoolExecutor(_PARALLEL) as pool:
        jobs = [pool.submit(_patiently, artifact.resolve) for artifact in artifacts]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            progress("fetching jars", done, len(artifacts))
    return [Path(job.result()) for job in jobs]


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again after a failure: one request that is refused must not cost the hundred that were not."""
    for _ in range(_TRIES - 1):
        try:
            return ask()
        except Exception:  # noqa: BLE001, S112  the last try tells
            continue
    return ask()
