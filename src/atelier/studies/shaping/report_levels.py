"""Bias and variance by noise level: what a state tells of the reward, what a training learns, which level pays."""

import pandas as pd
from matplotlib import pyplot as plt

from atelier.evaluation.intervals import Interval
from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.studies.shaping.report_results import (
    CHOOSING,
    CHOSEN,
    DECIDING,
    GRAFT,
    INTERVALS,
    LEVELS,
    REWARD,
    SOLVERS,
    Results,
    direction_text,
)

MOST_TICKS = 6  # more would run into each other
WEAK = (
    "A gap that falls is weak evidence of learning ease: it says how much more than the noise there is to learn, and "
    "falls for any denoiser, the untuned base too, since noised data become normal."
)


def bias_and_variance(results: Results) -> list[Item]:
    """Three panels as far as they were measured: variance by t, gap of learning by t, reward by level; and a table."""
    panels = [(label, rows) for label, rows in (_variance(results), _gap(results), _by_level(results)) if rows]
    if not panels:
        return [Text("This profile does not look at noise levels.")]
    figure, axes = plt.subplots(1, len(panels), figsize=(figures.WIDTH, 2.9), squeeze=False)
    for axis, (labels, rows) in zip(axes[0], panels, strict=True):
        for at, (name, points) in enumerate(rows.items()):
            x, each = list(points), list(points.values())
            bars = [[one.mean - one.low for one in each], [one.high - one.mean for one in each]]
            axis.errorbar(
                x, [one.mean for one in each], yerr=bars, marker=figures.MARKERS[at % len(figures.MARKERS)],
                color=figures.PALETTE[at % len(figures.PALETTE)], markersize=4, linewidth=1.2, elinewidth=0.7,
                capsize=1.5, label=name,
            )  # fmt: skip
        ticks = sorted({x for points in rows.values() for x in points})
        axis.set(xlabel=labels[0], ylabel=labels[1])
        if len(ticks) < MOST_TICKS:
            axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        if len(rows) > 1:
            axis.legend(fontsize=6.5)
    return [Figure("levels", figure, _caption(results)), _table(results)]


Panel = tuple[tuple[str, str], dict[str, dict[float, Interval]]]


def _variance(results: Results) -> Panel:
    """Of the reward given x_t, over its variance among all."""
    points = {float(t): results.interval("variance", cell) for t, cell in results.steps("variance").items()}
    return ("step t", "Var(r | x_t) / Var(r)"), ({"rest sampled anew": points} if points else {})


def _gap(results: Results) -> Panel:
    """How far the noise-only predictor is behind on held-out pictures, by variant: what there is to learn."""
    shown = {}
    for name in results.config.names:
        if at := results.steps("gap", name):
            shown[name] = {float(t): results.interval("gap", cell) for t, cell in at.items()}
    return ("step t", "log10 of the gap of learning"), shown


def _by_level(results: Results) -> Panel:
    """Reward of P-GRAFT by the share of the steps that its adapter takes, GRAFT last."""
    names = {results.config.trainings[name].level: name for name in results.partial} | {1.0: GRAFT}
    points = {level: results.interval(REWARD, name) for level, name in names.items() if results.has(REWARD, name)}
    return ("share of steps with the adapter", "mean reward"), ({"deterministic": points} if len(points) > 1 else {})


def _caption(results: Results) -> str:
    config = results.config.inspected
    return (
        f"Left: variance of the reward ({results.config.reward}) given the state at a level, {config.each} "
        f"continuations of a state, {SOLVERS['sde']}, over that of the prompt's pictures. Middle: the gap of learning, "
        "log10 of (error of what knows noise alone less the tuned model's) / s_t^2, of the noise predicted in "
        f"accepted pictures that it did not learn (n = {config.pictures}; {_unlearnt(results)}); of P-GRAFT at its "
        "adapter's levels. "
        f"Right: reward on held-out prompts, {SOLVERS['ode']}; 1 is GRAFT. {INTERVALS}; {results.counted}."
    )


def _unlearnt(results: Results) -> str:
    """Which accepted pictures a model did not learn (``learning.accepted``)."""
    if len(results.params.protocol.training_seeds) > 1:
        return f"those of another training seed, {SOLVERS['ode']}"
    return f"with one training seed, of the same prompts, {SOLVERS['sde']}"


def _table(results: Results) -> Table:
    """The same numbers, by step of the schedule."""
    rows: dict[str, dict[str, str]] = {}
    metrics = {}
    for t, cell in results.steps("variance").items():
        rows.setdefault(str(t), {})["Var(r | x_t) / Var(r)"] = words.unsigned(results.interval("variance", cell), ".3g")
        metrics[f"variance/t-{t}"] = Metric(results.interval("variance", cell), results.n_of("variance", cell))
    for name in results.config.names:
        for t, cell in results.steps("gap", name).items():
            rows.setdefault(str(t), {})[f"gap of {name}"] = words.plus_minus(results.interval("gap", cell), "")
            metrics[f"gap/{name}/t-{t}"] = Metric(results.interval("gap", cell), results.n_of("gap", cell))
    frame = pd.DataFrame({t: rows[t] for t in sorted(rows, key=int)}).T.rename_axis("t").fillna("")
    caption = (
        f"By step t of the schedule (more is noisier). Variance: states, {SOLVERS['sde']}. Gaps: "
        f"of accepted pictures that were not learnt, {_unlearnt(results)}. {INTERVALS}."
    )
    return Table("levels", frame, caption, metrics)


def level_chosen(results: Results) -> Text:
    """Which level one half of the prompts chose, and what it gains over GRAFT on the other."""
    if results.chosen is None or not results.has(DECIDING, CHOSEN, GRAFT):
        return Text("This profile has no levels to choose from.")
    gains = {name: results.interval(CHOOSING, name).mean for name in results.partial if results.has(CHOOSING, name)}
    change = results.change(DECIDING, CHOSEN, GRAFT)
    listed = ", ".join(f"{name} {gain:.3g}" for name, gain in gains.items())
    text = (
        f"On the half of the prompts that chooses, mean rewards are {listed}: {results.chosen}. On the other half its "
        f"reward less GRAFT's is {words.signed(change)}, {SOLVERS['ode']}."
    )
    return Text(text, {"chosen_against_graft": Metric(change, results.n_of(DECIDING, results.chosen))})


def ranks(results: Results) -> Text:
    """How the variance and the gap go with t."""
    lines, metrics = [], {}
    at = results.steps("variance")
    if results.has("variance_rank", LEVELS):
        rank = results.interval("variance_rank", LEVELS)
        said = f"rank correlation {words.unsigned(rank, '.3g')}, {SOLVERS['sde']}"
        lines.append(f"Var(r | x_t) and t, over {len(at)} levels: {said}.")
        metrics["variance_rank"] = Metric(rank, results.n_of("variance_rank", LEVELS))
    if results.has("gap_slope", GRAFT):
        slope = results.interval("gap_slope", GRAFT)
        verb = direction_text(slope, "falls", "rises", "is not seen to change")
        lines.append(
            f"The gap of learning of GRAFT {verb} with t: slope over the schedule {words.signed(slope)}. {WEAK}"
        )
        metrics["gap_slope"] = Metric(slope, results.n_of("gap_slope", GRAFT))
    return Text("\n".join(lines) or "Neither variance nor gap was measured at two levels.", metrics)
