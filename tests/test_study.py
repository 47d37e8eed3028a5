"""What a notebook keeps: numbers with their intervals, and verdicts that cite the claim's words."""

import json
from pathlib import Path

import numpy as np
import pytest

from atelier import claims, params
from atelier.claims import Claim, Part
from atelier.study import Study

SMOKE = params.load(Path(__file__).parents[1] / "profiles" / "smoke.yaml")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return Study("one", SMOKE)


def test_a_card_shows_the_verdict_and_keeps_its_numbers(study: Study) -> None:
    shown, lost = (
        Part(measure="fd", changed=[f"{name}@1/4"], reference=["untuned@1/4"], rule="below") for name in ("a", "b")
    )
    claim = Claim(study="one", reach="direction", says="a < b & c", paper="p", rule="r", parts=[shown, lost])
    even = np.linspace(-0.01, 0.01, 5)
    values = {("fd", "a@1/4"): 1 + even, ("fd", "untuned@1/4"): 2 - even}
    (verdict,) = claims.decide({"A1": claim}, values, {})
    study.judge(claim, verdict, 20)
    study.finish([])
    content = json.loads((study.folder / "metrics.json").read_text())
    assert content["verdicts"] == {
        "A1": {"verdict": "undecided", "reason": "not measured: fd of b@1/4", "claim": claim.digest}
    }
    kept = content["metrics"]["claim/A1/1"]
    assert kept["value"] == pytest.approx(-1)
    assert (kept["n"], kept["repeats"]) == (20, 5)
    assert kept["low"] < -1 < kept["high"] < 0
    assert content["metrics"]["claim/A1/1/detectable"]["value"] > 0
    assert "claim/A1/2" not in content["metrics"]


def test_a_page_without_claims_has_no_verdicts(study: Study) -> None:
    study.finish([])
    assert "verdicts" not in json.loads((study.folder / "metrics.json").read_text())
