"""Break one rule at a time: a search that can't fail proves nothing."""

from dataclasses import fields

import pytest

from tests.models.explorer import Kind, explore
from tests.models.rules import PROTOCOL, Rules
from tests.models.run import main
from tests.models.scenarios import BROKEN, SMALL, Broken, model_of


def switches_changed(rules: Rules) -> set[str]:
    return {field.name for field in fields(Rules) if getattr(rules, field.name) != getattr(PROTOCOL, field.name)}


@pytest.mark.parametrize("row", BROKEN, ids=lambda row: row.rule)
def test_a_broken_rule_is_caught(row: Broken) -> None:
    result = explore(model_of(SMALL[row.bounds], row.rules))
    assert result.violation is not None, f"without '{row.rule}', nothing is found: {result}"
    assert result.violation.kind == row.kind, str(result)
    assert result.trace or result.afterwards, "a violation comes with the steps that lead to it"


def test_every_rule_is_broken_somewhere() -> None:
    broken = set().union(*(switches_changed(row.rules) for row in BROKEN))
    assert broken == {field.name for field in fields(Rules)}


def test_every_kind_of_violation_is_met_but_the_false_alarm() -> None:
    # No switch makes an owner stop on a whole log; that it never does is what the searches show.
    assert {row.kind for row in BROKEN} == set(Kind) - {Kind.FALSE_ALARM}


def test_one_switch_breaks_one_rule_except_where_two_rules_cover_each_other() -> None:
    pairs = {row.rule for row in BROKEN if len(switches_changed(row.rules)) != 1}
    assert pairs == {
        "proof is the expected offset, and no id is made of offsets",
        "a signal has an id",
    }


def test_a_trace_is_printed_as_numbered_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trace", "one batch is in flight"]) == 0
    printed = capsys.readouterr().out
    assert "1. A sends claim 0" in printed
    assert "hole in the numbers" in printed
