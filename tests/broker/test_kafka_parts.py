"""The pure parts of the Kafka adapter, and what it does with settings and secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.record.util import calc_crc32c

from millstream.events.errors import BadAddress, BatchTooLarge, TopicSettingsUnsafe
from millstream.events.logs.kafka import KafkaLog
from millstream.events.logs.kafka_cursor import Cursor
from millstream.events.logs.kafka_group import share
from millstream.events.logs.kafka_producer import WIRE_BYTES_MAX, build
from millstream.events.logs.kafka_topics import compare_settings, settings_of
from millstream.events.logs.port import Record, TopicPartition, TopicSpec
from millstream.streams.broker.jars import _drop_torn

JOURNAL = TopicSpec("journal", 16)


def test_several_brokers_mean_two_copies_in_sync_and_no_unclean_leader() -> None:
    assert settings_of(JOURNAL, 3) == {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2",
        "unclean.leader.election.enable": "false",
    }
    assert "min.insync.replicas" not in settings_of(JOURNAL, 1)


@pytest.mark.parametrize(
    ("setting", "found", "expected"),
    [
        ("retention.ms", "604800000", "-1"),
        ("retention.bytes", "1073741824", "-1"),
        ("cleanup.policy", "compact,delete", "delete"),
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("min.insync.replicas", "1", "2"),
        ("unclean.leader.election.enable", "true", "false"),
        ("max.message.bytes", "65536", "at least 1048576"),
    ],
)
def test_a_setting_in_force_that_would_eat_the_log_is_named_with_expected_and_found(
    setting: str, found: str, expected: str
) -> None:
    good: dict[str, str | None] = {**settings_of(JOURNAL, 3), "max.message.bytes": "1048588"}
    compare_settings(JOURNAL, good, brokers=3)
    with pytest.raises(TopicSettingsUnsafe, match=rf"'journal' has .* {setting} = '{found}', expected '{expected}'"):
        compare_settings(JOURNAL, {**good, setting: found}, brokers=3)


def test_a_batch_over_the_wire_limit_is_refused_and_no_record_is_dropped_silently() -> None:
    small = [Record(b"v" * 20)] * 100
    assert build("t", small).size() < WIRE_BYTES_MAX
    with pytest.raises(BatchTooLarge, match=r"40,000 records .* Nothing was written"):
        build("t", [Record(b"v" * 20)] * 40_000)


def test_a_header_name_that_is_not_utf_8_does_not_stop_its_partition() -> None:
    records = [Record(b"a"), Record(None, b"\xff\x00", [("XX", b"1"), ("XX", None), ("é", b"")]), Record(b"c")]
    builder = build("t", records)
    builder.set_producer_state(1, 0, 0)
    batch = bytearray(bytes(builder.build()).replace(b"XX", b"\xffX"))
    batch[17:21] = calc_crc32c(memoryview(batch)[21:]).to_bytes(4, "big")
    cursor = Cursor(TopicPartition("t", 0), 1)
    cursor.add(bytes(batch))
    got = cursor.take(1) + cursor.take(10)
    assert [(r.offset, r.key, r.value, r.headers) for r in got] == [
        (1, b"\xff\x00", None, (("\\xffX", b"1"), ("\\xffX", None), ("é", b""))),
        (2, None, b"c", ()),
    ]
    assert (cursor.position, cursor.bytes_ahead, cursor.take(1)) == (3, 0, [])


def test_sharing_goes_by_instance_id_so_that_new_member_ids_move_nothing() -> None:
    partitions = [TopicPartition("t", p) for p in range(6)]
    before = share({"m1": ("a", frozenset("t"), frozenset()), "m2": ("b", frozenset("t"), frozenset())}, partitions)
    held = {"a": frozenset(before["m1"]), "b": frozenset(before["m2"])}
    after = share({"n9": ("a", frozenset("t"), held["a"]), "n1": ("b", frozenset("t"), held["b"])}, partitions)
    assert (after["n9"], after["n1"]) == (before["m1"], before["m2"])


def test_secrets_are_shown_nowhere() -> None:
    log = KafkaLog(
        "127.0.0.1:1",
        settings={
            "security.protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "u",
            "sasl_plain_password": "hunter2",
        },
    )
    assert "hunter2" not in f"{log!r} {log._settings!r} {log._settings}"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"security_protocoll": "SSL"}, "'security_protocoll' isn't known. There are:"),
        ({"security_protocol": "TLS"}, "'TLS' isn't known"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u"},
            "sasl_plain_password",
        ),
        ({"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"}, "TLS files can't be used.*ssl_cafile"),
        ({"append_timeout_s": "soon"}, "'append_timeout_s' is no number"),
    ],
)
def test_a_setting_that_can_not_be_used_is_refused_by_name(settings: dict[str, str], text: str) -> None:
    with pytest.raises(BadAddress, match=text):
        KafkaLog("127.0.0.1:1", settings=settings)


def test_what_a_killed_fetch_left_half_written_is_fetched_again(tmp_path: Path) -> None:
    jar, pom, good = tmp_path / "a" / "x.jar", tmp_path / "a" / "x.pom", tmp_path / "b.pom"
    jar.parent.mkdir()
    jar.write_bytes(b"PK\x03\x04 half a jar")
    pom.write_text("<project><name>half")
    good.write_text("<project/>")
    _drop_torn(tmp_path)
    assert [p.name for p in tmp_path.rglob("*.*") if p.is_file()] == ["b.pom"]
