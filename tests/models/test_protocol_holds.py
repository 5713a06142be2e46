"""With all rules on, no state within the bounds breaks a promise, and every calm run ends well."""

import pytest

from tests.models.explorer import explore
from tests.models.rules import PROTOCOL, Rules
from tests.models.scenarios import SMALL, model_of


@pytest.mark.parametrize("name", SMALL)
def test_the_protocol_holds_in_every_state_within_the_bounds(name: str) -> None:
    result = explore(model_of(SMALL[name], PROTOCOL))
    assert result.violation is None, str(result)
    assert result.exhausted, str(result)


@pytest.mark.parametrize("rules", [Rules(proof="no newer claim between"), Rules(output_id="offset")], ids=str)
def test_proof_by_the_expected_offset_and_ids_without_offsets_cover_each_other(rules: Rules) -> None:
    """Only both together give one output two ids (see `scenarios.BROKEN`); we keep both."""
    result = explore(model_of(SMALL["events landed twice"], rules))
    assert result.violation is None, str(result)
    assert result.exhausted, str(result)
