"""What a page shows: numbers as they are written, and the card of a verdict."""

import inspect
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from atelier import verdicts
from atelier.claims import Amendment, Claim, Comparison, Least
from atelier.evaluation.intervals import Interval, t_interval
from atelier.evidence import groups_needed
from atelier.report.answers import Answer, answer, evidence, paper
from atelier.report.cards import CHANGE, STARTS, P, card, cost, heading, widened
from atelier.report.items import Data, Metric, Table, coded, significant
from atelier.report.plan import plan
from atelier.studies import STUDIES
from atelier.verdicts import Evidence, Verdict

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


def test_a_formulas_code_is_whole_and_folded() -> None:
    def less(a: int, b: int) -> bool:
        """``a < b`` (eq. 1).

        More of it."""
        return a < b

    shown = BeautifulSoup(coded(less), "html.parser")
    summary, code = shown.select_one("details > summary"), shown.select_one("details > pre")
    assert summary is not None
    assert summary.text.endswith("less a < b (eq. 1).")
    assert code is not None
    assert code.text == inspect.getsource(less).rstrip()


@pytest.mark.parametrize("study", STUDIES)
def test_every_studys_formulas_name_what_they_are(study: str) -> None:
    listed = import_module(f"atelier.studies.{study}.formulas").FORMULAS
    assert len(set(listed)) == len(listed) >= 4
    assert all(len(coded(each).partition("</summary>")[0].partition("</code> ")[2]) > 20 for each in listed)


VALUES = {("fd", "a@1/4"): 1 + EVEN, ("fd", "b@1/4"): 2 + EVEN, ("fd", "untuned@1/4"): 2 - EVEN}


def card_of(values: dict[tuple[str, str], np.ndarray] = VALUES, **changes: object) -> tuple[Claim, Verdict, Table]:
    claim = Claim(study="one", reach="direction", says="a < b & c", paper="<p>", rule="r", parts=PARTS)
    claim = claim.model_copy(update=changes)
    (verdict,) = verdicts.decide({"A1": claim}, Evidence(values, {}, {}, {}))
    return claim, verdict, card(claim, verdict, [20, 30, 20][: len(verdict.findings)], "intervals over repeats")


def test_a_card_has_a_row_a_part_and_its_numbers() -> None:
    _, _, table = card_of()
    named = [f"Fréchet distance to real works at guidance 4: {name} against untuned" for name in "abc"]
    assert list(table.frame.index) == named
    below, same, lost = (table.frame.loc[name] for name in named)
    assert below[CHANGE].startswith("-1 (-1.0")
    assert (below["would matter"], below["part"]) == ("", "supported")
    supported, reverse = below[P].split(" / ")  # no effect of some size was asked for, so that none can be not seen
    assert 0 < float(supported) < 1e-3
    assert reverse == "1"
    assert (same["rule"], same["would matter"], same["part"]) == ("same", "0.5", "supported")
    assert (lost[CHANGE], lost[P], lost["part"]) == ("not measured", "", "")
    assert table.name == "claim_A1"
    assert table.caption.startswith("Claim A1: intervals over repeats; n = 20, 30 a cell.")
    assert {name: metric.n for name, metric in table.metrics.items()} == {
        "claim/A1/1": 20, "claim/A1/1/detectable": 20, "claim/A1/2": 30, "claim/A1/2/detectable": 30,
    }  # fmt: skip


def test_a_cards_p_values_are_named_by_what_they_say_and_adjusted_as_the_verdict_uses_them() -> None:
    rough = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    parts = [PARTS[0].model_copy(update={"least": Least(points=2.0)})] * 2
    _, verdict, table = card_of({("fd", "a@1/4"): 2.6 + rough, ("fd", "untuned@1/4"): 2 + 0 * rough}, parts=parts)
    row, compared = table.frame.iloc[0], verdict.findings[0].compared
    assert compared is not None
    assert P == "p supported / reversed / not seen"
    # that all hold needs no adjustment; of the others Holm, of two
    wanted = (compared.supported_p, 2 * compared.reversed_p, 2 * compared.not_seen_p)
    assert row[P] == " / ".join(f"{p:.2g}" for p in wanted)
    assert row["all parts together"] == "{1:+.3g} to {2:+.3g}".format(*widened(compared.interval, 2))
    assert "no verdict rests on it" in table.caption
    assert "intersection-union" in table.caption
    assert not {"p", "adjusted", "adjusted p"} & set(table.frame.columns)


def test_a_caption_says_which_p_values_are_one_sided_where_a_card_has_some() -> None:
    said = "Of same, at least and at most p of supported is one-sided"
    assert said in card_of(parts=PARTS)[2].caption
    assert said not in card_of(parts=PARTS[:1])[2].caption


@pytest.mark.parametrize("without", [verdicts.CANNOT_TELL, verdicts.BROKEN])
def test_where_a_claim_has_no_verdict_its_parts_have_none(without: str) -> None:
    control = PARTS[0] if without == verdicts.BROKEN else PARTS[0].model_copy(update={"rule": "above"})
    claim = Claim(study="one", reach="direction", says="", paper="<p>", rule="", parts=PARTS, control=control)
    null = [PARTS[0]] if without == verdicts.BROKEN else []
    (verdict,) = verdicts.decide({"A1": claim}, Evidence(VALUES, {}, {}, {}, null))
    assert verdict.verdict == without
    frame = card(claim, verdict, [20] * 3, "").frame
    assert frame["part"].tolist() == [f"no verdict: {without} [its numbers alone: supported]"] * 2 + [""]
    why = (
        "No verdict, because what must show here does not (the positive control: Fréchet distance to real works at "
        "guidance 4, a against untuned: −1 (95 % interval −1.02 to −0.98))"
        if without == verdicts.CANNOT_TELL
        else "No verdict on this page, because a model's pictures differ from its own under other noise (Fréchet "
        "distance to real works at guidance 4, a against untuned: −1 (95 % interval −1.02 to −0.98))"
    )
    assert why in answered(claim, verdict, 2.0, 2.0, None).sentence


def test_a_control_that_was_not_measured_is_no_control_that_fails() -> None:
    control = PARTS[0].model_copy(update={"changed": ["never painted"]})
    claim = Claim(study="one", reach="direction", says="", paper="<p>", rule="", parts=PARTS, control=control)
    (verdict,) = verdicts.decide({"A1": claim}, Evidence(VALUES, {}, {}, {}))
    assert (verdict.verdict, verdict.control_fails) == (verdicts.CANNOT_TELL, False)
    assert "the control was not measured: FD of never painted" in answered(claim, verdict, 2.0, 2.0, None).sentence


def test_a_card_says_where_all_groups_are_the_same_and_what_its_p_values_rest_on() -> None:
    """As D5's ranks are, all 1, and C11's shares may be."""
    part = PARTS[0].model_copy(update={"rule": "at least", "margin": 0.1})
    claim = Claim(study="one", reach="direction", says="", paper="", rule="", parts=[part])
    values = {("fd", "a@1/4"): np.ones(5), ("fd", "untuned@1/4"): np.ones(5)}

    def note(step: float) -> str:
        (verdict,) = verdicts.decide({"A1": claim}, Evidence(values, {("fd", "a@1/4"): step}, {}, {}))
        return str(card(claim, verdict, [20], "").frame["note"].iloc[0])

    assert note(0.05) == "the same in every group: its resolution, 0.05, stands for the scatter"
    assert note(0.0) == "the same in every group: no scatter, so p is 0 or 1 by the mean alone"
    assert "note" not in card_of()[2].frame.columns


def test_a_part_whose_margin_is_an_effect_that_is_not_supported_is_judged_and_says_so() -> None:
    """A5: emotions add nothing within half of what the style brought; did the style bring anything?"""
    gain = {"changed": ["one@1/4"], "reference": ["none@1/4"]}
    asked = [
        {"measure": "fd", **gain, "rule": "below"},
        {"measure": "fd", "changed": ["two@1/4"], "reference": ["one@1/4"], "rule": "same", "half_gain": gain},
        {"measure": "pr", "changed": ["two@1/4"], "reference": ["one@1/4"], "rule": "same", "half_gain": gain},
    ]
    parts = [Comparison.model_validate(part) for part in asked]
    said = "judged although part 1 is not supported, on which its meaning rests"

    def notes(gained: float, parts: list[Comparison] = parts) -> list[str]:
        rough = 2 * gained * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[::-1]
        of = {"none": 2 + EVEN, "one": 2 - gained + rough, "two": 2 - gained + rough + EVEN}
        values = {(measure, f"{name}@1/4"): row for measure in ("fd", "pr") for name, row in of.items()}
        frame = card_of(values, parts=parts)[2].frame
        return frame["note"].tolist() if "note" in frame else []

    assert notes(1.0) == ["", said, said]  # the gain is no more than its scatter
    values = {**VALUES, ("fd", "none@1/4"): 4 + EVEN, ("fd", "one@1/4"): 2 - EVEN, ("fd", "two@1/4"): 2 + EVEN}
    assert "note" not in card_of(values, parts=parts[:2])[2].frame  # the gain is supported
    assert notes(1.0, parts[1:]) == []  # no part of the claim is of that gain
    mirrored = parts[0].model_copy(update={"changed": ["none@1/4"], "reference": ["one@1/4"], "rule": "above"})
    assert notes(1.0, [mirrored, parts[1]]) == ["", said]
    assert notes(-1.0, parts[1:2]) == ["not judged: what its margin is a share of is not above 0"]


def test_an_adjusted_interval_is_bonferronis() -> None:
    values = [1.0, 2.0, 4.0, 3.0, 2.5]
    interval, wide = t_interval(values), t_interval(values, 1 - 0.05 / 3)
    assert widened(interval, 3) == pytest.approx(wide)
    assert widened(interval, 1) == pytest.approx(interval)


def test_a_card_shows_both_starts_and_a_heading_says_where_they_disagree() -> None:
    both = {**VALUES, ("fd", "untuned@1/4/corrected"): 2 - EVEN, ("fd", "a@1/4/corrected"): 3 + EVEN}
    claim, verdict, table = card_of(both, parts=PARTS[:1])
    assert table.frame["corrected start"].iloc[0].startswith("+1 (+0.9")
    assert STARTS in heading(claim, verdict, "")
    assert STARTS not in heading(*card_of()[:2], "")


def test_a_cards_heading_is_escaped_and_gives_a_reason_where_there_is_one() -> None:
    claim, verdict, _ = card_of()
    assert heading(claim, verdict, "<answer>").split("<br>") == [
        "<b>A1: a &lt; b &amp; c</b>",
        "Verdict by itself: <b>undecided</b> (not measured: fd of c@1/4)",
        "&lt;answer&gt;",
        "The paper: &lt;p&gt;.",
        "The rule, written before these pictures were made: r",
    ]
    amended = Amendment(date="2026-01-02", reason="Why.", before="undecided")
    claim, verdict, _ = card_of(parts=PARTS[:1] * 3, amended=amended)
    assert "Verdict by itself: <b>supported</b><br>" in heading(claim, verdict, "")
    assert heading(claim, verdict, "").endswith("<br>Amended 2026-01-02; first verdict: undecided. Why.")


def answered(claim: Claim, verdict: Verdict, *baselines: float | None) -> Answer:
    return answer(claim, verdict, baselines, [20, 30, 20][: len(baselines)])


def test_the_answer_says_what_changed_by_how_much_and_how_many_parts_hold() -> None:
    claim, verdict, _ = card_of(parts=PARTS[:2])
    said = answered(claim, verdict, 2.0, 2.0)
    assert said.sentence == (
        "Fréchet distance to real works at guidance 4, a against untuned: −1 (95 % interval −1.02 to −0.98; "
        "−50.0 % of the latter). 2 of 2 parts hold."
    )
    assert said.entry() == {
        "measure": "Fréchet distance to real works at guidance 4", "changed": "a", "reference": "untuned", "n": 20,
        "change": -1.0, "low": pytest.approx(-1.02, abs=1e-3), "high": pytest.approx(-0.98, abs=1e-3), "share": -0.5,
    }  # fmt: skip
    assert " of the latter" not in answered(claim, verdict, 1e-3, 1e-3).sentence  # a share of nearly nothing
    claim, verdict, _ = card_of()
    assert answered(claim, verdict, 2.0, 2.0, None).sentence.endswith("). 2 of 3 parts hold, 1 not measured.")
    claim, verdict, _ = card_of({}, parts=PARTS[:1])
    assert answered(claim, verdict, None).sentence == "Nothing of it was measured here."
    assert answered(claim, verdict, None).entry() == {}


def test_what_the_paper_says_ends_in_a_note_where_there_is_one() -> None:
    claim, _, _ = card_of(note="here, of a small one")
    assert paper(claim, "A1") == "The paper: <p>. Here, of a small one."
    assert paper(claim.model_copy(update={"paper": "no paper claims it", "note": ""}), "N1") == "No paper claims it."


def test_evidence_draws_a_line_a_part_that_was_measured_and_nothing_where_none_was() -> None:
    claim, verdict, _ = card_of()
    figure = evidence(claim, verdict)
    assert figure is not None
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]  # all else is the same in both
    intervals = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    compared = [finding.compared.interval for finding in verdict.findings[:2] if finding.compared is not None]
    np.testing.assert_allclose(intervals[1], np.array(compared[1][1:3]) / 0.5)  # in units of its margin
    assert np.ptp(intervals[0]) == pytest.approx(2.0)  # an effect of any size: half its interval is the unit
    assert evidence(*card_of({}, parts=PARTS[:1])[:2]) is None


def test_a_card_says_where_an_effect_is_smaller_than_what_would_matter() -> None:
    small = PARTS[0].model_copy(update={"least": Least(points=3.0)})  # it falls by 1
    claim, verdict, table = card_of(parts=[small])
    assert table.frame["part"].tolist() == ["supported, smaller than matters"]
    assert "<b>supported, smaller than matters</b>" in heading(claim, verdict, "")
    said = answered(claim, verdict, 2.0).sentence
    assert "−50.0 % of the latter); the effect is there and smaller than what would matter. 1 of 1" in said
    claim, verdict, table = card_of(parts=[PARTS[0], small])
    assert table.frame["part"].tolist() == ["supported", "supported, smaller than matters"]  # of one name
    assert "); in 1 of 2 parts the effect is there and smaller" in answered(claim, verdict, 2.0, 2.0).sentence
    claim, verdict, _ = card_of(parts=[small.model_copy(update={"rule": "above"})])
    assert "<b>reversed, smaller than matters</b>" in heading(claim, verdict, "")
    assert "smaller than" not in answered(*card_of(parts=PARTS[:1])[:2], 2.0).sentence


def test_an_undecided_claim_says_what_more_would_cost() -> None:
    rough = np.linspace(-1.0, 1.0, 5)
    part = PARTS[0].model_copy(update={"least": Least(points=0.5)})
    claim, verdict, _ = card_of({("fd", "a@1/4"): rough, ("fd", "untuned@1/4"): 0 * rough}, parts=[part])
    compared = verdict.findings[0].compared
    assert compared is not None
    assert verdict.verdict == "undecided"
    groups = groups_needed(0.5 + rough, 0.025)  # of the same scatter, with an effect that just matters
    assert cost(claim, verdict) == (
        "Fréchet distance to real works at guidance 4: a against untuned: 0.5 would matter and "
        f"{compared.detectable:.3g} would be seen, so {groups} groups in place of 5"
    )
    assert cost(*card_of(parts=PARTS[:1])[:2]) == ""
    row = plan("art_finetuning", [verdict]).frame.loc["A1.1"]
    assert row["scatter"] == pytest.approx(rough.std(ddof=1))
    assert (row["groups"], row["groups needed"], row["times this run"]) == (5, str(groups), groups / 5)


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
