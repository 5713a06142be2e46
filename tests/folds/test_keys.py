"""The layout of the keys: order, parsing back, and words for people."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream.events.envelope import Sent
from millstream.projections import keys

INT64 = st.integers(-(2**63), 2**63 - 1)
RUN_IDS = st.text("ab.-/", min_size=1, max_size=5)


@given(st.lists(st.tuples(INT64, RUN_IDS, st.text("xy", max_size=3))))
def test_timers_are_ordered_by_time_then_run_and_come_back(timers: list[tuple[int, str, str]]) -> None:
    made = sorted(keys.timer_key(*timer) for timer in timers)
    assert [keys.parse_timer(key) for key in made] == sorted(timers)


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(0, 9), st.integers(0, 9))))
def test_outputs_are_ordered_as_the_journal_is_and_come_back(outputs: list[tuple[int, int, int, int]]) -> None:
    made = sorted(keys.outbox_key(Sent(*output)) for output in outputs)
    assert [keys.parse_outbox(key) for key in made] == sorted(outputs)


@given(RUN_IDS, RUN_IDS)
def test_the_rows_of_one_run_are_never_among_those_of_another(one: str, other: str) -> None:
    if one != other:
        assert not (keys.run_prefix(other) + b"h").startswith(keys.run_prefix(one))


def test_the_end_of_a_prefix_is_above_all_that_begin_with_it() -> None:
    assert keys.after(b"t") == b"u"
    assert keys.after(b"t\xff\xff") == b"u"
    assert keys.after(b"\xff") is None
    assert keys.after(b"") is None


def test_every_kind_of_row_has_words() -> None:
    described = {
        keys.run_prefix("a/b") + keys.HEAD: "head of run 'a/b'",
        keys.run_prefix("a") + keys.ITEM + keys.pack_position(7): "item 7 of run 'a'",
        keys.answer_key("a", "c-1"): "answer to command 'c-1' of run 'a'",
        keys.outbox_key(Sent(4, 255, 3, 1)): "output 1 of record 3 in epoch 4 (claim 00000000000000ff)",
        keys.timer_key(-5, "a", "close"): "timer 'close' of run 'a', due at -5",
        keys.tombstone_key("a"): "tombstone of run 'a'",
        keys.plan_key("a"): "unfinished plan of run 'a'",
        keys.FENCE_KEY: "the fence",
        keys.TIME_KEY: "the partition's time",
        b"?": "key b'?'",
    }
    assert {key: keys.describe(key) for key in described} == described
