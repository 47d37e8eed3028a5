"""Pictures compared two by two, as the paper compares them: who wins, beside its voters, and whether wins add up."""

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pandas as pd

from atelier.evaluation.defects import OUTCOMES, net_error
from atelier.evaluation.intervals import FloatArray, Interval, t_interval
from atelier.params import WHITE
from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.studies.pixel_space.params import UNTUNED, against, corrected
from atelier.studies.pixel_space.report_results import (
    BASELINE,
    DEFECTS,
    FIT,
    INTERVALS,
    Results,
    dotted,
    points,
)

VOTERS = 600  # prompts of each of the paper's comparisons, the majority of at least five raters each
QUESTIONS = {DEFECTS: ("flaws", "fewer defects"), FIT: ("appeal", "nearer to the style")}


def head_to_head(results: Results) -> list[Item]:
    """Win, tie and lose of each pair of cells, from both starts, beside the paper's votes; nothing without a pair."""
    if not results.pair_cells:
        return []
    rows, metrics = {}, {}
    for a, b in results.pair_cells:
        row: dict[str, str] = {}
        for measure, (_, label) in QUESTIONS.items():
            row |= _compared(results, a, b, measure, label)
            for start in (against(a, b), corrected(against(a, b))):
                if results.has(f"net_{measure}", start):
                    net = points(results.interval(f"net_{measure}", start))
                    metrics[f"net/{measure}/{start}"] = Metric(net, results.n_of(f"net_{measure}", start), "points")
        rows[f"{a} over {b}"] = row | _paper(results, a, b)
    caption = (
        "Win / tie / lose in per cent; a difference that mirroring a picture makes as well (95 % quantile) is a tie. "
        f"Wins less losses in points, {INTERVALS}; {results.paired}. The paper's: votes of people on {VOTERS} "
        "prompts, flaws beside defects, appeal beside style; its models in brackets."
    )
    table = Table("head_to_head", pd.DataFrame(rows).T.rename_axis("pair").fillna(""), caption, metrics)
    return [_net_figure(results), table]


def _compared(results: Results, a: str, b: str, measure: str, label: str) -> dict[str, str]:
    cell = against(a, b)
    if not results.has(f"net_{measure}", cell):
        return {}
    shares = [points(results.interval(f"{outcome}_{measure}", cell)) for outcome in OUTCOMES]
    row = {label: " / ".join(f"{share.mean:.3g}" for share in shares)}
    row[f"{label}, wins less losses"] = words.signed(points(results.interval(f"net_{measure}", cell)))
    if results.has(f"net_{measure}", corrected(cell)):
        row[f"{label}, corrected start"] = words.signed(points(results.interval(f"net_{measure}", corrected(cell))))
    return row


def _paper(results: Results, a: str, b: str) -> dict[str, str]:
    """The paper's votes on a pair, each model once: tables 5 and 6 repeat rows of 1 and 3."""
    mine = votes_on(results, a, b)
    return {
        f"paper, {question}": "; ".join(f"{_votes(row, question)} ({row['model']})" for _, row in mine.iterrows())
        for question, _ in QUESTIONS.values()
        if len(mine)
    }


def votes_on(results: Results, a: str, b: str) -> pd.DataFrame:
    """The paper's rows on a pair, the first of each model."""
    known, other = results.votes, BASELINE if b == UNTUNED else b
    return known[(known["a"] == a) & (known["b"] == other)].drop_duplicates("model")


def _votes(row: pd.Series, question: str) -> str:
    return " / ".join(f"{row[f'{question}_{outcome}']:.1f}" for outcome in OUTCOMES)


def _net_figure(results: Results) -> Figure:
    """Wins less losses on defects of the pairs that the paper has, too (or of all), and its voters' on flaws."""
    listed = []
    pairs = [pair for pair in results.pair_cells if len(votes_on(results, *pair))]
    for a, b in pairs or results.pair_cells:
        starts = {"white noise": against(a, b), "corrected start": corrected(against(a, b))}
        for start, cell in starts.items():
            if results.has(f"net_{DEFECTS}", cell):
                listed.append((f"{a} over {b}", start, points(results.interval(f"net_{DEFECTS}", cell))))
        for _, row in votes_on(results, a, b).iterrows():
            listed.append((f"{a} over {b}", f"paper: {row['model']}", net_votes(row, "flaws")))
    caption = (
        f"Pairs with fewer defects less pairs with more, {results.paired}, {INTERVALS}; *paper*: its voters on flaws, "
        f"n = {VOTERS}, intervals from the votes."
    )
    return Figure("head_to_head", figures.dots(dotted(listed), "wins less losses (points)", 0.0), caption)


def net_votes(row: pd.Series, question: str) -> Interval:
    """Wins less losses of one of the paper's rows, in points, with the interval that its number of prompts gives."""
    win, lose = (row[f"{question}_{outcome}"] / 100 for outcome in ("win", "lose"))
    half = 1.96 * net_error(win, lose, VOTERS)
    return points(Interval(win - lose, win - lose - half, win - lose + half, VOTERS))


def paper(results: Results) -> Table:
    """All rows of the paper's tables 1 to 6, with the wins less losses and intervals that follow from them."""
    rows = []
    for _, row in results.votes.iterrows():
        name = row["a"] if isinstance(row["a"], str) else "(label lost)"
        line = {"table": row["table"], "model": row["model"], "A": name, "B": row["b"], "label": row["label"]}
        for question in ("flaws", "appeal"):
            line[question] = _votes(row, question)
            line[f"{question}, wins less losses"] = words.signed(net_votes(row, question))
        rows.append(line | {f"alignment of {side.upper()}": row[f"alignment_{side}"] for side in ("a", "b")})
    caption = (
        "The paper's numbers: A wins / tie / B wins in per cent. Wins less losses in points with the interval of "
        f"{VOTERS} prompts, which the paper does not give; of appeal there may be fewer, as raters had to reject pairs "
        "of one photo-realistic and one stylised picture. *inferred*: a row whose label is lost, known by "
        "what the text says of its numbers; *lost*: one of which it says nothing. For three pairs tables 5 and 6 give "
        "other numbers of appeal than 1 and 3."
    )
    return Table("paper", pd.DataFrame(rows).set_index("table"), caption)


# ---------------------------------------------------------------------------------------------- transitivity


def transitivity(results: Results) -> list[Item]:
    """A matrix of wins less losses, and the triples whose comparisons do not add up; nothing without a pair."""
    nets = _nets(results)
    if not nets:
        return []
    names = [name for name in (UNTUNED, *results.config.variants) if any(name in pair for pair in nets)]
    table = pd.DataFrame(index=names, columns=names, dtype=float)
    for (a, b), values in nets.items():
        table.loc[a, b] = values.mean()
    figure = figures.matrix(table, "wins less losses (points)", "over", "pictures of")
    caption = f"Wins less losses on defects of a row's pictures over a column's, in points; {results.paired}."
    return [Figure("transitivity", figure, caption), _triples(results, nets)]


def _nets(results: Results) -> dict[tuple[str, str], FloatArray]:
    """Wins less losses on defects in points, by pair in either order, one value a group."""
    every = results.every_pair
    table = every[(every["measure"] == DEFECTS) & (every["start"] == WHITE) & (every["group"].astype(str) != "whole")]
    known: dict[tuple[str, str], FloatArray] = {}
    for (a, b), rows in table.groupby(["A", "B"], sort=False):
        values = 100 * (rows["win"] - rows["lose"]).to_numpy(dtype=np.float64)
        known |= {(str(a), str(b)): values, (str(b), str(a)): -values}
    return known


def _triples(results: Results, nets: Mapping[tuple[str, str], FloatArray]) -> Text:
    """Whether who wins by more against a third wins directly, too, where both intervals exclude 0."""
    names = sorted({name for pair in nets for name in pair})
    clear, odd = 0, []
    for a, b, c in permutations(names, 3):
        if not {(a, b), (a, c), (b, c)} <= set(nets):
            continue
        direct, apart = (_sign(each) for each in (nets[a, b], nets[a, c] - nets[b, c]))
        if direct > 0 and apart:
            clear += 1
            odd += [f"{a} over {b}, against {c}"] if apart < 0 else []
    ours = (
        f"Of {clear} triples whose intervals exclude 0, {len(odd)} do not add up{': ' if odd else ''}{'; '.join(odd)}."
    )
    table = results.votes.query("model == 'LDM1.5'").set_index(["a", "b"])
    both, latent = (float(table["flaws_win"].loc[(name, BASELINE)]) for name in ("both", "latent"))
    win, lose = (float(table[f"flaws_{outcome}"].loc[("both", "latent")]) for outcome in ("win", "lose"))
    return Text(
        f"{ours} In the paper's LDM1.5 both terms win {win:.1f} % against latents alone and lose "
        f"{lose:.1f} %, but win less often against the base, {both:.1f} against {latent:.1f} %."
    )


def _sign(values: FloatArray) -> int:
    """+1 or -1 where the interval of a group's values excludes 0."""
    interval = t_interval(values.tolist())
    return int(interval.low > 0) - int(interval.high < 0)
