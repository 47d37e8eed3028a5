"""Parameters of shaping that no stage could carry out are refused; what the default profile leaves out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from atelier import claims, params
from atelier.studies.shaping.law import EXPECTED
from atelier.studies.shaping.params import DRAWS, Config
from atelier.studies.shaping.report_results import CHOSEN, LEVELS, NOTHING

PROFILES = Path(__file__).parents[3] / "profiles"
EMBEDDED, SMOKE = (Config.of(params.load(PROFILES / f"{name}.yaml")) for name in ("embedded", "smoke"))


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("flow", "inverted", 3, "greater than or equal to 4"),  # its law's tests need four
        ("flow", "watched", 0, "greater than 0|greater than or equal to 1"),
        ("optimisation", "steps", 1, "policy.rounds: 1 updates in 2 rounds"),  # a round without any
    ],
)
def test_what_no_stage_can_do_is_refused(section: str, key: str, value: int, says: str) -> None:
    content: Mapping[str, Any] = SMOKE.model_dump(mode="json")  # with every variant
    changed = {**content[section], key: value} | ({"checkpoint_every": 1, "warmup": 0} if key == "steps" else {})
    with pytest.raises(ValidationError, match=says):
        Config.model_validate({**content, section: changed})


def test_the_default_profile_has_the_pictures_of_every_claim() -> None:
    """Tests of the accepted law may have too few draws there, which the page then says."""
    known = {"untuned", "untuned-sde", *EMBEDDED.names, *EMBEDDED.flow.cells, CHOSEN, LEVELS, NOTHING}
    known |= {f"accepted-{rule}" for rule in EMBEDDED.rules}
    assert claims.cells_of(claims.load("shaping")) <= known


def test_too_few_prompts_leave_the_accepted_law_without_a_test() -> None:
    """One accepted candidate a prompt and training seed; a test needs two bins of them."""
    assert DRAWS == 2 * EXPECTED
    few, enough = (params.load(PROFILES / f"{name}.yaml") for name in ("embedded", "study"))
    assert not Config.of(few).measures(few, "law_p", "accepted-top-10")
    assert Config.of(few).measures(few, "reward", "graft")
    assert Config.of(enough).measures(enough, "law_p", "accepted-top-10")
