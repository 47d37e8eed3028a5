"""What votes come to: the paper's table, each rater's votes and habits, and how far raters agree."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from atelier.data.checks import FloatArray
from atelier.evaluation.intervals import Interval, wilson_interval
from atelier.evaluation.people.agreement import REJECT, alpha_interval, majority, net_interval, shares
from atelier.evaluation.people.sittings import QUESTIONS

WON = ("A wins", "tie", "B wins")
RATERS = (
    *("A", "B", "question", "rater", "pairs", *WON, "95 % of A - B", "left", "95 % of left"),
    *("repeated", "same", "95 % of same", "seconds"),
)
NOTE = """\
Per cent of pairs. A pair's answer is that of most raters, or a tie where no answer has most. A - B: wins less losses;
its standard error is sqrt((W + L - (W - L)^2) / n), its interval Student's over pairs. Rejected pairs, which at least
half of the raters call not comparable, are left out."""
NOTE_RATERS = """\
left: answers for the left less those for the right; sides are balanced, so 0 is expected whatever a rater likes.
repeated: pairs that came again the other way round; same: the share of them with the same answer."""
NOTE_AGREEMENT = """\
Krippendorff's alpha: 1 where raters agree, 0 as by chance; ordered: a tie lies between win and lose. Intervals are over
pairs."""


class Tables(NamedTuple):
    """What votes come to."""

    results: pd.DataFrame  # the paper's: one row per comparison and question
    raters: pd.DataFrame  # one row per comparison, question and rater
    agreement: pd.DataFrame  # one row per comparison and question; NaN of one rater


def tables(votes: pd.DataFrame) -> Tables:
    """The paper's table by majority over raters; each rater's table; and how far they agree.

    A rater's first vote on a pair counts; later ones, in the other order, say how far raters repeat themselves.
    """
    results, raters, agreement = [], [], []
    for (a, b, question), rows in _by_question(votes):
        named, first = {"A": a, "B": b, "question": question}, rows[~rows["again"]]
        results.append({**named, **_majority_row(first)})
        raters += [
            {**named, "rater": rater, **_rater_row(rater_rows)}
            for rater, rater_rows in rows.groupby("rater", sort=True)
        ]
        agreement.append({**named, **_agreement_row(first)})
    return Tables(*map(pd.DataFrame, (results, raters, agreement)))


def printed(results: Tables) -> str:
    """All tables as text, comparison by comparison, and what their columns mean."""
    several = results.agreement[results.agreement["raters"] > 1]
    shown = (_shown_results(results.results), _shown_raters(results.raters), _shown_agreement(several))
    texts = []
    for a, b in results.results[["A", "B"]].drop_duplicates().itertuples(index=False):
        texts.append(f"A: {a}, B: {b}")
        for table in shown:
            rows = table[(table["A"] == a) & (table["B"] == b)]
            texts += [rows.drop(columns=["A", "B"]).to_string(index=False)] if len(rows) else []
    notes = [NOTE, NOTE_RATERS, *([NOTE_AGREEMENT] if len(several) else [])]
    return "\n\n".join([*texts, "\n".join(notes)])


# ------------------------------------------------------------------------------------------------ counting


def _by_question(votes: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Votes by comparison, in their order, and by question, in the page's order; no pairs without a first vote."""
    for (a, b), compared in votes.groupby(["a", "b"], sort=False):
        for question in QUESTIONS:
            rows = compared[compared["question"] == question]
            if not rows["again"].all():
                yield (str(a), str(b), question), rows


def _majority_row(rows: pd.DataFrame) -> dict[str, Any]:
    decided = [majority(answers["vote"].tolist()) for _, answers in rows.groupby("unit", sort=True)]
    votes = [int(each) for each in decided if each != REJECT]
    return {
        "raters": rows["rater"].nunique(),
        "pairs": len(votes),
        **_percent(votes),
        "rejected": len(decided) - len(votes),
    }


def _percent(votes: Sequence[int]) -> dict[str, float]:
    """Win, tie, lose, and net with its standard error and interval, in per cent."""
    counted, interval = shares(votes), net_interval(votes)
    values = {name: getattr(counted, name) for name in ("win", "tie", "lose", "net", "error")}
    return {name: 100 * value for name, value in {**values, "low": interval.low, "high": interval.high}.items()}


def _rater_row(rows: pd.DataFrame) -> dict[str, Any]:
    """One rater's votes on one question, their preference for the left, and how often they repeat themselves."""
    first = rows[~rows["again"] & (rows["vote"] != REJECT)]
    sides = rows["answer"].map({"left": 1, "tie": 0, "right": -1}).dropna().astype(int)
    left, same = net_interval(sides.tolist()), _repeated(rows)
    return {
        "pairs": len(first),
        **_percent(first["vote"].tolist()),
        "left": 100 * left.mean,
        "left_low": 100 * left.low,
        "left_high": 100 * left.high,
        "repeated": same.n,
        "same": 100 * same.mean,
        "same_low": 100 * same.low,
        "same_high": 100 * same.high,
        "seconds": rows["milliseconds"].median() / 1000,
    }


def _repeated(rows: pd.DataFrame) -> Interval:
    """The share of pairs shown again, the other way round, that get the same vote."""
    pairs = rows[rows["again"]].merge(rows[~rows["again"]], on=["rater", "unit", "sitting"])
    if pairs.empty:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    return wilson_interval(int((pairs["vote_x"] == pairs["vote_y"]).sum()), len(pairs))


def _agreement_row(rows: pd.DataFrame) -> dict[str, Any]:
    """How far raters agree on one question: on the answer, and on how far apart answers are."""
    comparable = rows[rows["vote"] != REJECT]
    wide: FloatArray = comparable.pivot_table(index="rater", columns="unit", values="vote", aggfunc="first").to_numpy(
        np.float64
    )
    both = {kind: alpha_interval(wide, kind) for kind in ("nominal", "interval")}
    return {
        "raters": len(wide),
        "pairs": both["nominal"].n,
        "alpha": both["nominal"].mean,
        "alpha_low": both["nominal"].low,
        "alpha_high": both["nominal"].high,
        "alpha_ordered": both["interval"].mean,
        "ordered_low": both["interval"].low,
        "ordered_high": both["interval"].high,
    }


# ------------------------------------------------------------------------------------------------ as text


def _shown_results(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        **_named_shares(table),
        **{"A - B": _number(table["net"]), "error": _number(table["error"]), "95 %": _ends(table, "")},
    )[["A", "B", "question", "raters", "pairs", *WON, "A - B", "error", "95 %", "rejected"]]


def _shown_raters(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        **_named_shares(table),
        **{
            "95 % of A - B": _ends(table, ""),
            "left": _number(table["left"]),
            "95 % of left": _ends(table, "left_"),
            "same": _number(table["same"]),
            "95 % of same": _ends(table, "same_"),
            "seconds": _number(table["seconds"]),
        },
    )[list(RATERS)]


def _shown_agreement(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(
        **{
            "alpha": _number(table["alpha"], 2),
            "95 %": _ends(table, "alpha_", 2),
            "ordered": _number(table["alpha_ordered"], 2),
            "95 % of ordered": _ends(table, "ordered_", 2),
        }
    )[["A", "B", "question", "raters", "pairs", "alpha", "95 %", "ordered", "95 % of ordered"]]


def _named_shares(table: pd.DataFrame) -> dict[str, pd.Series]:
    return {name: _number(table[column]) for name, column in zip(WON, ("win", "tie", "lose"), strict=True)}


def _number(column: pd.Series, digits: int = 1) -> pd.Series:
    texts = ["-" if pd.isna(value) else f"{value:.{digits}f}" for value in column]
    return pd.Series(texts, column.index, dtype=object)


def _ends(table: pd.DataFrame, prefix: str, digits: int = 1) -> pd.Series:
    low, high = (_number(table[f"{prefix}{end}"], digits) for end in ("low", "high"))
    return (low + " to " + high).where(low != "-", "-")
