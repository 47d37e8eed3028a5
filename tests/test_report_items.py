"""What a page shows: numbers as they are written, and the card of a verdict."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from atelier import claims, verdicts
from atelier.claims import Amendment, Claim, Comparison, Least, path_of
from atelier.evaluation.intervals import Interval, t_interval
from atelier.evaluation.tables import Values
from atelier.evidence import groups_needed
from atelier.params import load, read
from atelier.report import naming
from atelier.report.answers import Answer, answer, paper, reason
from atelier.report.cards import CHANGE, STARTS, P, card, cost, heading, widened
from atelier.report.change import in_short, moved
from atelier.report.forest import forest
from atelier.report.items import Data, Metric, Table, coded, significant
from atelier.report.plan import plan
from atelier.studies import STUDIES
from atelier.verdicts import Evidence, Verdict

ROOT = Path(__file__).parents[1]
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


def evidence_of(values: Values, null: Sequence[Comparison] = (), **floors: float) -> Evidence:
    return Evidence(values, {}, {"": 20}, {"": "intervals over repeats"}, null, floors)


def card_of(values: dict[tuple[str, str], np.ndarray] = VALUES, **changes: object) -> tuple[Claim, Verdict, Table]:
    claim = Claim(study="one", reach="direction", says="a < b & c", paper="<p>", rule="r", parts=PARTS)
    claim = claim.model_copy(update=changes)
    (verdict,) = verdicts.decide({"A1": claim}, evidence_of(values))
    return claim, verdict, card(claim, verdict, ([20, 30, 20] * 4)[: len(verdict.findings)], "intervals over repeats")


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
def test_where_a_claim_has_no_verdict_its_parts_have_none_and_its_answer_says_which_check_fails(without: str) -> None:
    control = PARTS[0] if without == verdicts.BROKEN else PARTS[0].model_copy(update={"rule": "above"})
    claim = Claim(study="one", reach="direction", says="", paper="<p>", rule="", parts=PARTS, control=control)
    given = evidence_of(VALUES, [PARTS[0]] if without == verdicts.BROKEN else [])
    (verdict,) = verdicts.decide({"A1": claim}, given)
    assert verdict.verdict == without
    frame = card(claim, verdict, [20] * 3, "").frame
    assert frame["part"].tolist() == [f"no verdict: {without} [its numbers alone: supported]"] * 2 + [""]
    numbers = FALL.rstrip(".")
    why = {
        verdicts.CANNOT_TELL: f"{verdicts.NO_CONTROL} ({numbers}, where it should be higher)",
        verdicts.BROKEN: f"{verdicts.OTHER_NOISE} ({numbers}, where it should be the same)",
    }[without]
    sentence = answer(claim, verdict, given).sentence
    assert sentence == f"No verdict: {why}. What was measured decides nothing: {numbers}."


def test_a_check_that_was_not_measured_is_none_that_fails() -> None:
    lost = PARTS[0].model_copy(update={"changed": ["never-painted"]})
    claim = Claim(study="one", reach="direction", says="", paper="<p>", rule="", parts=PARTS, control=lost)
    said = "the positive control was not measured (Fréchet distance to real works: never painted against untuned at "
    assert said in answered(claim, verdicts.decide({"A1": claim}, evidence_of(VALUES))[0]).sentence
    unmet = claim.model_copy(update={"control": None, "conditions": [lost]})
    said = "No verdict: a condition was not measured (Fréchet distance"
    assert answered(unmet, verdicts.decide({"A1": unmet}, evidence_of(VALUES))[0]).sentence.startswith(said)


def test_a_condition_that_does_not_hold_is_said_with_its_numbers() -> None:
    rough = PARTS[0].model_copy(update={"rule": "at most", "margin": 0.5, "reference": ["nothing"]})
    values = {**VALUES, ("fd", "nothing"): 0 * EVEN}
    verdict = card_of(values, conditions=[rough])[1]
    assert reason("one", verdict, evidence_of(values)) == (
        "a condition is not shown to hold (Fréchet distance to real works, a at guidance 4: +1 (95 % interval +0.99 to "
        "+1.01), where it should be at most 0.5)"
    )


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
    assert STARTS in heading(claim, verdict, "", "")
    assert STARTS not in heading(*card_of()[:2], "", "")


def test_a_cards_heading_is_escaped_and_gives_a_reason_where_there_is_one() -> None:
    claim, verdict, _ = card_of()
    assert heading(claim, verdict, reason("one", verdict, evidence_of(VALUES)), "<answer>").split("<br>") == [
        "<b>A1: a &lt; b &amp; c</b>",
        "Verdict by itself: <b>undecided</b> (not measured: Fréchet distance to real works of c at guidance 4)",
        "&lt;answer&gt;",
        "The paper: &lt;p&gt;.",
        "The rule, written before these pictures were made: r",
    ]
    amended = Amendment(date="2026-01-02", reason="Why.", before="undecided")
    claim, verdict, _ = card_of(parts=PARTS[:1] * 3, amended=amended)
    assert "Verdict by itself: <b>supported</b><br>" in heading(claim, verdict, "", "")
    assert heading(claim, verdict, "", "").endswith("<br>Amended 2026-01-02; first verdict: undecided. Why.")


def test_of_much_that_was_not_measured_a_few_are_named() -> None:
    parts = [PARTS[0].model_copy(update={"changed": [f"{name}@1/4"]}) for name in "vwxyz"]
    _, verdict, _ = card_of(parts=parts)
    said = reason("one", verdict, evidence_of(VALUES))
    assert said.startswith("not measured: Fréchet distance to real works of v at guidance 4, Fréchet")
    assert said.endswith(" of x at guidance 4 and 2 more")


def answered(claim: Claim, verdict: Verdict, values: Values = VALUES) -> Answer:
    return answer(claim, verdict, evidence_of(values))


def said_of(values: Values = VALUES, **changes: object) -> str:
    """The sentence of a claim."""
    claim, verdict, _ = card_of(values, **changes)
    return answered(claim, verdict, values).sentence


FALL = (
    "Fréchet distance to real works at guidance 4, a against untuned: 1 against 2 (−1, 95 % interval −1.02 to −0.98)."
)


def test_the_answer_says_what_changed_by_how_much_what_was_claimed_and_how_many_parts_hold() -> None:
    claim, verdict, _ = card_of(parts=PARTS[:2])
    answer = answered(claim, verdict)
    assert answer.sentence == f"{FALL} Claimed: lower. 2 of 2 parts hold."
    assert answer.entry() == {
        "measure": "Fréchet distance to real works at guidance 4", "changed": "a", "reference": "untuned", "n": 20,
        "change": -1.0, "low": pytest.approx(-1.02, abs=1e-3), "high": pytest.approx(-0.98, abs=1e-3), "before": 2.0,
    }  # fmt: skip
    assert said_of().endswith("Claimed: lower. 2 of 3 parts hold; 1 not measured.")
    assert said_of(parts=PARTS[:1]) == f"{FALL} Claimed: lower."
    claim, verdict, _ = card_of({}, parts=PARTS[:1])
    assert answered(claim, verdict, {}).sentence == "Nothing of it was measured here."
    assert answered(claim, verdict, {}).entry() == {}


def test_the_answer_is_of_the_part_that_says_what_the_verdict_says() -> None:
    away = PARTS[0].model_copy(update={"rule": "above"})
    assert said_of(parts=[PARTS[1], away]) == (
        f"{FALL} Claimed: higher; it is the other way round. 1 of 2 parts holds; 1 the other way round."
    )
    # E2: one part undecided, the other there and smaller than what would matter, so that the claim is not seen
    rough = {**VALUES, ("fd", "c@1/4"): 2 + 50 * np.array([1, -1, 0.5, -0.5, 0]), ("fd", "untuned@1/4"): 2 - EVEN}
    little = PARTS[0].model_copy(update={"least": Least(points=3.0)})
    said = said_of(rough, parts=[PARTS[2], little])
    there = "Claimed: lower; it is there, and smaller than the 3 that would matter"
    assert said == f"{FALL} {there}. 1 of 2 parts holds; 1 undecided."


def test_the_answer_says_what_keeps_a_part_from_holding() -> None:
    least = {"least": Least(points=0.5)}
    up = PARTS[0].model_copy(update={"rule": "above", **least})
    rough, still = np.linspace(-1.0, 1.0, 5), {("fd", "untuned@1/4"): 2 + 0 * EVEN}
    assert said_of({("fd", "a@1/4"): 2 + EVEN, **still}, parts=[up]).endswith(
        "Claimed: higher; the 0.5 that would matter is excluded."
    )
    assert said_of({("fd", "a@1/4"): 2 + rough, **still}, parts=[up]).endswith(
        "Claimed: higher; the 0.5 that would matter is neither shown nor excluded."
    )
    five = PARTS[0].model_copy(update={"margin": 1.5})  # E5: it falls, and by less than the rule asks for
    assert said_of(parts=[five]).endswith("Claimed: lower by more than 1.5; it is there, and smaller than that.")
    # A5: against the claim by itself, and not among ten
    little = PARTS[0].model_copy(update={"least": Least(points=0.01)})
    against = {("fd", "a@1/4"): 2.6 + 0.6 * rough, **still}
    claim, verdict, _ = card_of(against, parts=[little] * 10)
    compared = verdict.findings[0].compared
    assert compared is not None
    alone, among = (f"(p = {p:.3g})" for p in (compared.reversed_p, 10 * compared.reversed_p))
    assert answered(claim, verdict, against).sentence.endswith(
        f"Claimed: lower; by itself this part speaks against it {alone}, as one of 10 it may be chance {among}. "
        "0 of 10 parts hold; 10 undecided."
    )
    same = {("fd", "a@1/4"): 2 + 0 * EVEN, **still}
    at_least = PARTS[0].model_copy(update={"rule": "at least", "margin": 0.1})
    few = Evidence(same, {("fd", "a@1/4"): 0.5}, {"": 20}, {"": ""})
    claim = card_of(same, parts=[at_least])[0]
    (verdict,) = verdicts.decide({"A1": claim}, few)
    said = answer(claim, verdict, few).sentence
    assert ": 2 against 2 (+0, the same in all 5 groups). Claimed: at most 0.1 lower; " in said
    assert said.endswith("; 5 equal groups are too few to show that.")


def test_a_saturated_part_says_that_its_measure_cannot_tell() -> None:
    claim = card_of(parts=PARTS[:1])[0]
    given = evidence_of(VALUES, fd=1.9)
    (verdict,) = verdicts.decide({"A1": claim}, given)
    assert answer(claim, verdict, given).sentence.startswith(f"No verdict: {verdicts.FULL} (Fréchet distance")
    both = claim.model_copy(update={"parts": [PARTS[0].model_copy(update={"rule": "above"}), PARTS[0]]})
    (verdict,) = verdicts.decide({"A1": both}, given)
    assert answer(both, verdict, given).sentence.endswith("1 the other way round; 1 cannot be told.")


def test_exceptions_to_a_claim_that_is_supported_are_named() -> None:
    parts = [PARTS[0], PARTS[0].model_copy(update={"measure": "high/Cubism"})]
    values = {**VALUES, ("high/Cubism", "a@1/4"): 3 + EVEN, ("high/Cubism", "untuned@1/4"): 2 + EVEN}
    said = said_of(values, parts=parts, enough=1)
    assert said.endswith(
        "1 of 2 parts holds, of which 1 must; 1 the other way round (error of high frequencies (Cubism) at guidance 4)."
    )


def test_a_logarithm_is_said_as_values_and_a_factor() -> None:
    part = PARTS[0].model_copy(update={"measure": "top", "least": Least(points=0.3)})
    values = {("top", "a@1/4"): EVEN, ("top", "untuned@1/4"): 1 + 0 * EVEN}
    said = said_of(values, parts=[part])
    assert ": 1 against 10 (0.1 times, 95 % interval 0.0978 to 0.102 times)." in said
    small = {("top", "a@1/4"): 0.9 + EVEN, ("top", "untuned@1/4"): 1 + 0 * EVEN}
    assert said_of(small, parts=[part]).endswith("smaller than the 0.501 times that would matter.")


def test_a_change_in_words_for_the_front_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {**VALUES, ("fd", "nothing"): 0 * EVEN, ("fd", "c@1/4"): 2 + 50 * EVEN}
    given = evidence_of(values)
    assert moved("one", given, "fd", "a@1/4", "untuned@1/4") == "falls from 2 to 1 (−1, −1.02 to −0.98)"
    assert moved("one", given, "fd", "untuned@1/4", "a@1/4").startswith("rises from 1 to 2 (+1, ")
    assert moved("one", given, "fd", "c@1/4", "untuned@1/4").startswith("shows no clear change, 2 to 2 (")
    assert moved("one", given, "fd", "a@1/4", "nothing") == "is +1 (+0.99 to +1.01)"
    assert moved("one", given, "fd", "never@1/4", "untuned@1/4") == ""
    params = load(ROOT / "profiles" / "smoke.yaml")
    (tmp_path / "in_short.yaml").write_text(
        "at seed {params.seed} it: [fd, a@1/4, untuned@1/4]\nlost: [fd, never@1/4, untuned@1/4]\n"
        "back: [fd, untuned@1/4, a@1/4]\n"
    )
    monkeypatch.setattr("atelier.report.change.path_of", lambda study: tmp_path / "claims.yaml")
    assert in_short("one", given, params) == (
        f"At seed {params.seed} it falls from 2 to 1 (−1, −1.02 to −0.98); back rises from 1 to 2 (+1, +0.98 to +1.02)."
    )
    (tmp_path / "in_short.yaml").unlink()
    assert in_short("one", given, params) == ""


@pytest.mark.parametrize("study", [study for study in STUDIES if study != "base_model"])
def test_every_study_of_a_paper_has_a_sentence_of_cells_that_its_claims_compare(study: str) -> None:
    """Each change is of such cells in a measure that has a name, and its words name parameters that there are."""
    changes = read(path_of(study).with_name("in_short.yaml"))
    every = [
        part for claim in (claims.load(study) | claims.findings(study)).values() for part in claim.every_comparison
    ]
    cells = {"nothing", *(cell for part in every for cell in part.cells)}
    params = load(ROOT / "profiles" / "study.yaml")
    for text, (measure, changed, reference) in changes.items():
        assert "{" not in text.format(params=params)
        assert naming.measure(measure) != measure.replace("_", " ") or measure in ("recall", "precision")
        assert {changed, reference} <= cells


def test_what_the_paper_says_ends_in_a_note_where_there_is_one() -> None:
    claim, _, _ = card_of(note="here, of a small one")
    assert paper(claim, "A1") == "The paper: <p>. Here, of a small one."
    assert paper(claim.model_copy(update={"paper": "no paper claims it", "note": ""}), "N1") == "No paper claims it."


def test_a_forest_plot_has_a_line_a_part_that_was_measured_and_there_is_none_where_none_was() -> None:
    claim, verdict, _ = card_of()
    figure = forest(claim, verdict)
    assert figure is not None
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["a", "b"]  # all else is the same in both
    intervals = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    compared = [finding.compared.interval for finding in verdict.findings[:2] if finding.compared is not None]
    np.testing.assert_allclose(intervals[1], np.array(compared[1][1:3]) / 0.5)  # in units of its margin
    assert np.ptp(intervals[0]) == pytest.approx(2.0)  # an effect of any size: half its interval is the unit
    assert forest(*card_of({}, parts=PARTS[:1])[:2]) is None


def test_a_card_says_where_an_effect_is_smaller_than_what_would_matter() -> None:
    small = PARTS[0].model_copy(update={"least": Least(points=3.0)})  # it falls by 1
    claim, verdict, table = card_of(parts=[small])
    assert table.frame["part"].tolist() == ["supported, smaller than matters"]
    assert "<b>supported, smaller than matters</b>" in heading(claim, verdict, "", "")
    assert answered(claim, verdict).sentence.endswith("it is there, and smaller than the 3 that would matter.")
    claim, verdict, table = card_of(parts=[PARTS[0], small])
    assert table.frame["part"].tolist() == ["supported", "supported, smaller than matters"]  # of one name
    assert "<b>supported</b>" in heading(claim, verdict, "", "")
    claim, verdict, _ = card_of(parts=[small.model_copy(update={"rule": "above"})])
    assert "<b>reversed, smaller than matters</b>" in heading(claim, verdict, "", "")
    assert "it is there the other way round, and smaller" in answered(claim, verdict).sentence
    assert "smaller than" not in said_of(parts=PARTS[:1])


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
    row = plan("art_finetuning", [verdict]).frame.loc["A1.1"]
    assert row["scatter"] == pytest.approx(rough.std(ddof=1))
    assert (row["groups"], row["groups needed"], row["times this run"]) == (5, str(groups), groups / 5)
    near = part.model_copy(update={"rule": "same", "margin": 0.5, "least": None})  # D2: at the limit, and well measured
    claim, verdict, _ = card_of({("fd", "a@1/4"): 0.5 + 0.1 * rough, ("fd", "untuned@1/4"): 0 * rough}, parts=[near])
    assert cost(claim, verdict).endswith(
        "a against untuned: what is seen is near the limit, 0.5; more groups only narrow its interval"
    )
    assert cost(*card_of(parts=PARTS[:1])[:2]) == ""


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
