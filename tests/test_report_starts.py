"""What pages say of both starts of sampling, and which measures they call saturated; on numbers made up by hand."""

import numpy as np
import pandas as pd
import pytest

from atelier.evaluation import tables
from atelier.evaluation.tables import REAL, RECONSTRUCTED, RECONSTRUCTED_TRAINING
from atelier.params import CORRECTED, WHITE
from atelier.report import sensitivity, starts

UNTUNED = {WHITE: "untuned@1/4", CORRECTED: "untuned@1/4/corrected"}


def values(numbers: dict[str, dict[str, float]], spread: float = 0.0) -> tables.Values:
    """Three pseudo-values around each number; ``numbers``: measure -> cell -> value."""
    around = np.array([-spread, 0.0, spread])
    return {(measure, cell): value + around for measure, row in numbers.items() for cell, value in row.items()}


def pair(white: float, corrected: float) -> dict[str, float]:
    """The untuned model at 100, and a tuned one that changes it by so much from either start."""
    return {
        "untuned@1/4": 100.0, "untuned@1/4/corrected": 100.0,
        "tuned@1/4": 100.0 + white, "tuned@1/4/corrected": 100.0 + corrected,
    }  # fmt: skip


PAIRS = [("tuned@1/4", "untuned@1/4")]


def test_opposite_signs_are_named_with_their_numbers_and_the_part_of_fd_that_turns() -> None:
    measured = values({"fd": pair(3, -12), "fd_mean": pair(8, -2), "fd_spread": pair(-5, -10), "pr": pair(-1, -2)})
    lines = starts.disagreements(measured, PAIRS, ["fd", "pr"]).text.splitlines()
    assert lines[0] == "1 of 2 changes have opposite signs at the two starts:"
    assert lines[1].strip().startswith("FD of tuned@1/4 against untuned@1/4: +3 (+3 to +3) from white noise, ")
    assert lines[1].endswith(", -12 (-12 to -12) from the corrected start.")
    assert "between the means: +8 (+8 to +8) from white noise, -2 (-2 to -2)" in lines[2]
    assert "between the covariances: -5" in lines[3]
    assert lines[4].strip() == "what turns: means"
    assert "Verdicts follow white noise" in lines[5]


@pytest.mark.parametrize(("white", "corrected"), [(-3.0, -12.0), (3.0, 12.0), (0.0, -12.0)])
def test_signs_that_agree_or_are_none_are_not_named(white: float, corrected: float) -> None:
    text = starts.disagreements(values({"fd": pair(white, corrected)}), PAIRS, ["fd"]).text
    assert text == "None of 1 changes (FD) have opposite signs at the two starts with both intervals clear of zero."


def test_an_interval_that_holds_zero_is_no_disagreement() -> None:
    measured = dict(values({"fd": pair(3, -12)}))
    measured["fd", "tuned@1/4"] = measured["fd", "tuned@1/4"] + np.array([-4.0, 0.0, 4.0])
    assert starts.disagreements(measured, PAIRS, ["fd"]).text.startswith("None of 1")


def test_what_was_measured_at_one_start_only_is_not_compared() -> None:
    row = {cell: value for cell, value in pair(3, -12).items() if cell != "tuned@1/4/corrected"}
    assert starts.changes(values({"fd": row}), PAIRS, ["fd"]) == []


def test_the_other_measures_have_no_parts() -> None:
    text = starts.disagreements(values({"pr_rec": pair(-3, 12)}), PAIRS, ["pr_rec"]).text
    assert "PR_REC of tuned@1/4" in text
    assert "what turns" not in text
    assert "absolute difference" not in text
    slopes = starts.disagreements(values({"psd_rec": pair(-3, 12)}), PAIRS, ["psd_rec"]).text
    assert "PSD is an absolute difference" in slopes


def test_rows_are_pivoted_with_white_noise_first() -> None:
    cells = ["a@1/4", "a@1/4/corrected", "a@1/16", "a@1/16/corrected"]
    rows = [
        {"measure": "fd", "n": 6, "whole": 0.0, "group0": number, "group1": number, "cell": cell}
        for number, cell in enumerate(cells)
    ]
    frame = starts.pivoted(tables.intervals(pd.DataFrame(rows)), ["model", "guidance"], "value")
    assert list(frame.index) == [("a", 4.0, WHITE), ("a", 4.0, CORRECTED), ("a", 16.0, WHITE), ("a", 16.0, CORRECTED)]
    assert frame["fd"].tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------------------------------------------- sensitivity

# PR is the decoder's fingerprint: reconstructions are as far as the untuned model; against them it is free
NUMBERS = {
    "pr": {REAL: 3.0, RECONSTRUCTED: 24.0, RECONSTRUCTED_TRAINING: 25.0, "untuned@1/4": 26.0},
    "pr_rec": {REAL: 24.0, RECONSTRUCTED: 0.0, RECONSTRUCTED_TRAINING: 3.0, "untuned@1/4": 9.0},
    "fd": {REAL: 7.0, RECONSTRUCTED: 28.0, "untuned@1/4": 116.0, "untuned@1/4/corrected": 34.0},
    "precision": {REAL: 0.9, RECONSTRUCTED: 0.9, "untuned@1/4": 0.5},
}


def test_the_floor_of_a_denoiser_is_what_its_decoder_adds() -> None:
    floors = sensitivity.floors(values(NUMBERS, 1.0), sensitivity.OF_DENOISERS)
    assert floors == {"pr": 24.0, "pr_rec": 3.0, "fd": 28.0}  # no share, for which more is better


def test_the_floor_of_a_decoder_is_that_of_other_works() -> None:
    floors = sensitivity.floors(values(NUMBERS), sensitivity.OF_DECODERS)
    assert floors == {"pr": 3.0, "pr_rec": 3.0, "fd": 7.0}


def test_a_measure_is_saturated_where_its_floor_is_most_of_the_untuned_distance() -> None:
    table = sensitivity.table(values(NUMBERS, 2.0), [("untuned", UNTUNED)], sensitivity.OF_DENOISERS, "n = 6")
    frame = table.frame
    assert list(frame.index) == ["FD", "PR", "PR_REC"]
    assert frame["saturated", WHITE].to_dict() == {"FD": "no", "PR": "yes", "PR_REC": "no"}
    assert frame.loc["FD", ("saturated", CORRECTED)] == "yes"  # 28 of 34
    assert frame.loc["PR", ("saturated", CORRECTED)] == ""  # not measured there
    assert frame.loc["PR", ("untuned", WHITE)] == pytest.approx(26)
    assert table.caption.endswith("; n = 6.")


def test_four_fifths_are_not_more_than_four_fifths() -> None:
    frame = pd.DataFrame({("untuned", WHITE): [10.0, 10.0]}, index=["a", "b"])
    found = sensitivity.sensitivity(frame, [8.0, 8.1], "untuned")
    assert found["saturated", WHITE].tolist() == ["no", "yes"]


def test_a_start_that_was_not_measured_has_no_column() -> None:
    white = {key: value for key, value in NUMBERS["fd"].items() if "corrected" not in key}
    frame = sensitivity.table(values({"fd": white}), [("untuned", UNTUNED)], sensitivity.OF_DENOISERS, "n = 6").frame
    assert [name for name in frame if name[0] in ("untuned", "saturated")] == [("untuned", WHITE), ("saturated", WHITE)]
