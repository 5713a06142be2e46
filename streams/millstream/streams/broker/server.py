"""Run one Kafka process on one data folder: start, stop, and what can go wrong with either.

A `Broker` is ready when it has answered a metadata request with itself in the
answer. The folder remembers the process (`broker.json`: id and start time), so
that a later program can find it, and never takes somebody else's for it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from millstream.events.errors import BrokerFailed, FolderInUse, PortTaken
from millstream.streams.broker.config import log_properties, server_properties
from millstream.streams.broker.jars import Progress, class_path
from millstream.streams.broker.java import HEAP_MB, java_command, java_environment
from millstream.streams.broker.probe import ask
from millstream.streams.broker.processes import free_port, listener_on, port_is_free, started_at

DEFAULT_PORT = 9092
DEFAULT_DATA = Path(".millstream/broker")
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
# The cluster id is made by us, so that the folder has it before Kafka has run: 16 bytes in URL-safe base 64.
CLUSTER_ID_BYTES = 16
_POLL_S = 0.05


class Running(msgspec.Struct, frozen=True):
    """A broker process of ours: what `broker.json` holds."""

    pid: int
    started: str
    port: int

    @property
    def address(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"


def find(data: Path) -> Running | None:
    """The live broker of this folder, or None. A process that merely got the same id doesn't count."""
    try:
        running = msgspec.json.decode((data / "broker.json").read_bytes(), type=Running)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None
    return running if started_at(running.pid) == running.started else None


def stop_running(running: Running, data: Path, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop a broker that some other program has started. Raises `BrokerFailed` if it doesn't end in time."""
    _signal(running.pid, signal.SIGTERM)
    _until(
        lambda: started_at(running.pid) != running.started,
        timeout_s,
        lambda: _did_not_stop(running.pid, data),
    )
    (data / "broker.json").unlink(missing_ok=True)


class Broker:
    """One Kafka on one folder. `port` None: a free one is taken at the first start and kept after that.

    java_options: more for the Java process, before ours.
    """

    def __init__(
        self, data: Path, port: int | None = None, *, heap_mb: int = HEAP_MB, java_options: Sequence[str] = ()
    ) -> None:
        self.data = Path(data).absolute()
        self._port = port
        self._heap_mb = heap_mb
        self._java_options = list(java_options)
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    def __repr__(self) -> str:
        return f"Broker({str(self.data)!r}, port={self._port})"

    @property
    def port(self) -> int:
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, progress: Progress | None = None) -> None:
        """Fetch Kafka if need be, start it, and return when it answers.

        Raises `FolderInUse` where a broker of ours runs on this folder already, `PortTaken` where
        somebody listens on the port, `BrokerFailed` with the end of its log for everything else.
        """
        tell = progress or (lambda what, done, total: None)
        running = find(self.data)
        if running:
            raise FolderInUse(
                f"a broker already runs on {str(self.data)!r}: process {running.pid},"
                f" address {running.address}. Use that one, or stop it:"
                f" `millstream broker stop --data {self.data}`."
            )
        self._refuse_taken_port()
        jars = class_path(tell)
        self._prepare_folder()
        if not (self.data / "kafka" / "meta.properties").exists():
            tell("formatting", 0, 0)
            self._format(jars)
        tell("starting", 0, 0)
        self._launch(jars)
        self._wait_until_ready()

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask it to end and wait until it has. Does nothing where it doesn't run."""
        if self._process is None:
            return
        if self._paused:
            self.resume()
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise _did_not_stop(self._process.pid, self.data) from None
        self._forget()

    def detach(self) -> None:
        """Leave it running: this object forgets it, `find` and `stop_running` go on knowing it."""
        if self._process is not None:
            # It isn't ours to wait for any more; without this the interpreter warns at its end.
            self._process.returncode = 0
            self._process = None

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); the folder stays as it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def pause(self) -> None:
        """Stop its clock (SIGSTOP): sockets stay open and nothing answers."""
        assert self.pid is not None, "a broker that doesn't run can't be paused"
        os.kill(self.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        if self._process is not None:
            _signal(self._process.pid, signal.SIGCONT)
        self._paused = False

    def log_tail(self, lines: int = 25) -> str:
        """The end of what it said last."""
        return _log_tail(self.data, lines)

    def _refuse_taken_port(self) -> None:
        if self._port is None or port_is_free(self._port):
            return
        answer = ask(self._port, timeout_s=0.5)
        holder = listener_on(self._port) or "somebody"
        what = f", a Kafka with cluster id {answer.cluster_id!r}" if answer else ""
        raise PortTaken(
            f"port {self._port} on 127.0.0.1 is taken: {holder} listens there{what}. Nothing was started."
            f" Choose another port with --port"
            + (f", or use it as it is: kafka://127.0.0.1:{self._port}." if answer else ".")
        )

    def _prepare_folder(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            (self.data / "server.properties").write_text(
                server_properties(data=self.data / "kafka", port=self.port, controller_port=free_port())
            )
            (self.data / "log4j2.properties").write_text(log_properties(file=self.data / "broker.log"))
        except OSError as err:
            raise BrokerFailed(
                f"the broker's folder {str(self.data)!r} can't be written: {err}. Choose another with --data."
            ) from err

    def _format(self, jars: list[Path]) -> None:
        tool = java_command(jars, "kafka.tools.StorageTool", heap_mb=128, options=["-XX:TieredStopAtLevel=1"])
        what = ["format", "--ignore-formatted", "-t", _new_cluster_id()]
        done = subprocess.run(
            [*tool, *what, "-c", str(self.data / "server.properties")],
            env=java_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerFailed(
                f"Kafka could not format {str(self.data / 'kafka')!r} (exit {done.returncode}):\n"
                f"{(done.stdout + done.stderr)[-3000:].strip()}"
            )

    def _launch(self, jars: list[Path]) -> None:
        options = [*self._java_options, f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}"]
        command = java_command(jars, "kafka.Kafka", heap_mb=self._heap_mb, options=options)
        with open(self.data / "java.out", "wb") as out:
            self._process = subprocess.Popen(
                [*command, str(self.data / "server.properties")],
                env=java_environment(),
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C in a terminal is ours to pass on, after what we run has ended.
                start_new_session=True,
            )
        self._paused = False
        running = Running(self._process.pid, started_at(self._process.pid) or "", self.port)
        part = self.data / "broker.json.part"
        part.write_bytes(msgspec.json.encode(running))
        part.replace(self.data / "broker.json")

    def _wait_until_ready(self) -> None:
        process = self._process
        assert process is not None

        def ready() -> bool:
            if process.poll() is not None:
                raise self._died(process.returncode)
            answer = ask(self.port)
            return answer is not None and answer.brokers > 0

        try:
            _until(ready, READY_TIMEOUT_S, self._not_ready)
        except BaseException:
            self.kill()
            raise

    def _died(self, code: int) -> BrokerFailed:
        if not port_is_free(self.port):
            return PortTaken(
                f"port {self.port} on 127.0.0.1 was taken while Kafka started:"
                f" {listener_on(self.port) or 'somebody'} listens there. Choose another port with --port."
            )
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit {code}"
        return BrokerFailed(f"Kafka {how} while starting on {str(self.data)!r}. The end of its log:\n{self.log_tail()}")

    def _not_ready(self) -> BrokerFailed:
        return BrokerFailed(
            f"Kafka did not answer on port {self.port} within {READY_TIMEOUT_S:.0f} s and was stopped."
            f" The end of its log:\n{self.log_tail()}"
        )

    def _forget(self) -> None:
        self._process = None
        self._paused = False
        (self.data / "broker.json").unlink(missing_ok=True)


def _new_cluster_id() -> str:
    text = base64.urlsafe_b64encode(secrets.token_bytes(CLUSTER_ID_BYTES)).rstrip(b"=").decode()
    # A leading dash would be read as an option by Kafka's tool.
    return "m" + text[1:] if text.startswith("-") else text


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _until(holds: Callable[[], bool], timeout_s: float, error: Callable[[], Exception]) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise error()
        time.sleep(_POLL_S)


def _did_not_stop(pid: int, data: Path) -> BrokerFailed:
    return BrokerFailed(
        f"Kafka (process {pid}) was asked to end and still runs. Nothing is lost by killing it:"
        f" `kill -9 {pid}`; it recovers at its next start. The end of its log:\n{_log_tail(data, 15)}"
    )


def _log_tail(data: Path, lines: int) -> str:
    texts = []
    for name in ("java.out", "broker.log"):
        try:
            texts += (data / name).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            continue
    return "\n".join(texts) or "(it has said nothing)"
