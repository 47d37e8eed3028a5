"""What a page shows: numbers as they are written, and the card of a verdict."""

import numpy as np
import pandas as pd
import pytest

from atelier import claims
from atelier.claims import Claim, Comparison, Evidence
from atelier.evaluation.intervals import Interval
from atelier.report.cards import card, heading
from atelier.report.items import Data, Metric, Table, significant

PARTS = [
    Comparison(measure="fd", changed=[f"{name}@1/4"], reference=["untuned@1/4"], rule=rule, margin=margin)
    for name, rule, margin in (("a", "below", 0.0), ("b", "same", 0.5), ("c", "below", 0.0))
]
EVEN = np.linspace(-0.01, 0.01, 5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.00"),
        (-12.345, "-12.3"),
        (1234.5, "1230"),
        (0.00012345, "0.000123"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1.2345e-7, "1.23e-07"),
        (3.2e8, "3.20e+08"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_a_number_is_recorded_with_its_interval_and_to_ten_digits() -> None:
    assert Metric(Interval(1 / 3, 0.25, 0.5, 5), 20, "dB").entry() == {
        "value": 0.3333333333, "low": 0.25, "high": 0.5, "n": 20, "repeats": 5, "unit": "dB",
    }  # fmt: skip
    assert Metric(2, 7).entry() == {"value": 2.0, "low": None, "high": None, "n": 7, "repeats": 0, "unit": "1"}
    assert Metric(float("nan"), 7).entry()["value"] is None


def test_a_table_keeps_its_index_and_data_does_not() -> None:
    frame = pd.DataFrame({"name": ["x"], "fd": [2 / 3]}, index=["row"])
    assert Table("t", frame, "").csv() == ",name,fd\nrow,x,0.6666666667\n"
    assert Data("t", frame).csv() == "name,fd\nx,0.6666666666666666\n"


def card_of(**changes: object) -> tuple[Claim, claims.Verdict, Table]:
    claim = Claim(study="one", reach="direction", says="a < b & c", paper="<p>", rule="r", parts=PARTS)
    claim = claim.model_copy(update=changes)
    values = {("fd", "a@1/4"): 1 + EVEN, ("fd", "b@1/4"): 2 + EVEN, ("fd", "untuned@1/4"): 2 - EVEN}
    (verdict,) = claims.decide({"A1": claim}, Evidence(values, {}, {}, {}))
    return claim, verdict, card(claim, verdict, [20, 30, 20], "intervals over repeats")


def test_a_card_has_a_row_a_part_and_its_numbers() -> None:
    _, _, table = card_of()
    assert list(table.frame.index) == [part.name for part in PARTS]
    below, same, lost = (table.frame.loc[part.name] for part in PARTS)
    assert (below["change"], below["margin"], below["part"]) == ("-1", "", "supported")
    assert below["95 % interval"].startswith("-1.0")
    assert (same["rule"], same["margin"], same["part"]) == ("same", "0.5", "supported")
    assert (lost["change"], lost["95 % interval"], lost["part"]) == ("not measured", "", "")
    assert table.name == "claim_A1"
    assert table.caption == "Claim A1: intervals over repeats; n = 20, 30 a cell."
    assert {name: metric.n for name, metric in table.metrics.items()} == {
        "claim/A1/1": 20, "claim/A1/1/detectable": 20, "claim/A1/2": 30, "claim/A1/2/detectable": 30,
    }  # fmt: skip


def test_a_cards_heading_is_escaped_and_gives_a_reason_where_there_is_one() -> None:
    claim, verdict, _ = card_of()
    assert heading(claim, verdict).split("<br>") == [
        "<b>A1: a &lt; b &amp; c</b>",
        "Verdict: <b>undecided</b> (not measured: fd of c@1/4)",
        "The paper: &lt;p&gt;",
        "The rule, written beforehand: r",
    ]
    claim, verdict, _ = card_of(parts=PARTS[:1] * 3)
    assert "Verdict: <b>supported</b><br>" in heading(claim, verdict)


def test_a_card_counts_every_comparison() -> None:
    claim, verdict, _ = card_of()
    with pytest.raises(ValueError, match="shorter"):
        card(claim, verdict, [20], "intervals over repeats")


def test_counts_and_what_intervals_are_over_are_a_claims_or_all_claims() -> None:
    _, verdict, _ = card_of()
    evidence = Evidence({}, {}, {"": 7, "A2": 9}, {"": "all", "A1": "this"})
    assert evidence.counts_of(verdict) == [7, 7, 7]
    assert (evidence.over_of("A1"), evidence.over_of("A2")) == ("this", "all")
    assert evidence._replace(counts={"A1": [1, 2, 3]}).counts_of(verdict) == [1, 2, 3]
