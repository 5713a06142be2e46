"""The broker as a process: who holds its port and folder, how it is found again, what it says when it can't start."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from millstream.events.errors import BrokerFailed, FolderInUse, PortTaken
from millstream.streams.broker.commands import app
from millstream.streams.broker.jars import class_path
from millstream.streams.broker.probe import ask
from millstream.streams.broker.processes import free_port, started_at
from millstream.streams.broker.server import Broker, Running, find

pytestmark = pytest.mark.broker


def test_a_broker_that_started_answers_with_itself_in_the_answer(own_broker: Broker) -> None:
    answer = ask(own_broker.port)
    assert answer is not None
    assert answer.brokers == 1
    assert len(answer.cluster_id) == 22
    assert own_broker.address == f"kafka://127.0.0.1:{own_broker.port}"


def test_a_second_broker_on_one_folder_is_refused_and_told_who_holds_it(own_broker: Broker) -> None:
    with pytest.raises(FolderInUse, match=rf"process {own_broker.pid}, address {own_broker.address}"):
        Broker(own_broker.data).start()


def test_a_port_that_a_broker_holds_is_refused_naming_it(own_broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=rf"port {own_broker.port} .* a Kafka with cluster id .*Nothing was started"):
        Broker(tmp_path, own_broker.port).start()


def test_a_port_that_somebody_else_holds_is_refused(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} on 127.0.0.1 is taken: .* listens there.*--port"):
            Broker(tmp_path, port).start()
    assert not list(tmp_path.iterdir())


def test_a_broker_is_found_by_its_folder_and_stopped_from_elsewhere(own_broker: Broker) -> None:
    data = ["--data", str(own_broker.data)]
    said = CliRunner().invoke(app, ["status", *data])
    assert (said.exit_code, own_broker.address in said.output) == (0, True)
    port = own_broker.port
    stopped = CliRunner().invoke(app, ["stop", *data])
    assert stopped.exit_code == 0, stopped.output
    assert own_broker.pid is None
    assert CliRunner().invoke(app, ["status", *data]).exit_code == 3
    assert CliRunner().invoke(app, ["stop", *data]).exit_code == 3
    cluster = _cluster_id(own_broker)
    own_broker.start()
    assert own_broker.port == port
    answer = ask(port)
    assert answer is not None
    assert answer.cluster_id == cluster


def _cluster_id(broker: Broker) -> str:
    lines = (broker.data / "kafka" / "meta.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["cluster.id"]


def test_a_process_that_merely_got_the_same_id_is_not_taken_for_a_broker(tmp_path: Path) -> None:
    me = Running(os.getpid(), "long ago", 9092)
    (tmp_path / "broker.json").write_bytes(msgspec.json.encode(me))
    assert find(tmp_path) is None
    assert started_at(os.getpid()) not in (None, "long ago")


def test_a_broker_that_can_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broker = Broker(tmp_path, free_port(), heap_mb=1)
    with pytest.raises(BrokerFailed, match=r"(?s)Kafka ended with exit 1 .* end of its log:.*heap"):
        broker.start()
    assert broker.pid is None
    assert find(tmp_path) is None


def test_jars_that_were_fetched_once_are_found_without_asking_anybody(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    told: list[str] = []
    jars = class_path(lambda what, done, total: told.append(what))
    assert any(jar.name.startswith("kafka-clients-4.1.2") for jar in jars)
    assert not told
