"""Variants beside each other: pictures, reward and its price, samplers, the policy-gradient rival, rounds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from atelier.evaluation.groups import FURTHER_DISTANCES, FURTHER_SHARES
from atelier.evaluation.intervals import Interval
from atelier.report import figures, naming, words
from atelier.report.browser import on_sheets
from atelier.report.items import Browser, Figure, Item, Metric, Table, Text
from atelier.studies.shaping.params import UNTUNED, UNTUNED_SDE, Shaping, corrected
from atelier.studies.shaping.report_results import (
    CONTROL,
    GRAFT,
    INTERVALS,
    REWARD,
    SOLVERS,
    Results,
    scaled,
)

MEASURES = (
    *(
        "fd",
        "fd_rec",
        "kd",
        "precision",
        "recall",
        "density",
        "coverage",
        "fd_base",
        "recall_base",
        "kl",
        "kl_paths",
        "kl_aimed",
        "subject",
        "style",
        "clip",
    ),
    *("pr_rec", "psd_rec", "near_features", "near_pixels"),
    *("clipscore", *FURTHER_DISTANCES, *FURTHER_SHARES),
)
PRICE = {  # measure -> its name, and the factor of its units
    "fd_rec": ("FD", 1.0),
    "recall": ("recall of works (points)", 100.0),
    "recall_base": ("recall of the base's (%)", 100.0),
    "kl": ("KL, lower bound (nats)", 1.0),
    "kl_paths": ("KL of stochastic paths (nats)", 1.0),
    "subject": ("subject as asked (points)", 100.0),
    "style": ("style as asked (points)", 100.0),
}
READ = (
    "*fd_rec*: Fréchet distance to reconstructed works; *recall*: share of works "
    "that are near a picture, diversity; *recall_base*: "
    "share of the base's pictures that are. KL divergence to the base is not known: *kl* is a lower bound of it, from "
    "rewards alone, of the pictures in this row, where they are not too few; *kl_paths* is that of trajectories "
    "up to the last step with noise, both by the stochastic sampler: an upper bound for pictures by that sampler, "
    "except where a tuned model takes a last step without noise, as GRAFT of a flow does: there for the states before "
    "that step alone; and none for pictures by the deterministic sampler; "
    "*kl_aimed* is that of the rule's law, at which training aims."
)


def browser(results: Results) -> Browser:
    """Pictures of every variant beside the base's by the deterministic sampler."""
    said = (
        f"{results.config.steps} steps; down a column the prompt and the first noise are the same, and the stochastic "
    )
    return on_sheets("browser", results.browsed, f"{said}sampler adds noise at every step.")


def _labelled(results: Results, cell: str) -> str:
    short = {SOLVERS["ode"]: "ODE", SOLVERS["sde"]: "SDE"}[results.solver_of(cell)]
    return f"{naming.label(results.config.STUDY, cell)} ({short})"


# ---------------------------------------------------------------------------------------------- reward and its price


def rewards(results: Results) -> list[Item]:
    """Mean reward on held-out prompts by arm from both starts, and the table of what it costs."""
    listed = []
    for cell in results.cells():
        for start, name in {"white noise": cell, "corrected start": corrected(cell)}.items():
            if results.has(REWARD, name):
                listed.append((_labelled(results, cell), start, results.interval(REWARD, name)))
    caption = f"Mean reward ({results.config.reward}) on held-out prompts; {INTERVALS}; {results.counted}."
    figure = Figure("rewards", figures.dots(dotted(listed), f"mean reward ({results.config.reward})"), caption)
    return [figure, *_control(results), *_arms(results)]


def _control(results: Results) -> list[Text]:
    """What learning alone has changed, where the control is not the base by more than its interval; else nothing."""
    base = results.base_of(CONTROL) if results.has(REWARD, CONTROL) else ""
    moved = []
    for measure, label in {REWARD: "mean reward", "fd_rec": "FD", "recall": "recall"}.items():
        if results.has(measure, CONTROL, base):
            change = results.change(measure, CONTROL, base)
            if change.low > 0 or change.high < 0:
                moved.append(f"{label} {words.signed(change)}")
    if not moved:
        return []
    return [
        Text(
            f"{CONTROL}, which learns as many candidates that nobody selected, is not what the base is: "
            f"{', '.join(moved)} beside the base, {results.solver_of(CONTROL)}. As much of any change beside the base "
            f"is training's; what selection did is a change beside {CONTROL}."
        )
    ]


def _arms(results: Results) -> list[Table]:
    """One table a start of each variant's reward and its price."""
    shown = []
    for suffix, start, move in (("", "white noise", str), ("_corrected", "the corrected start", corrected)):
        cells = [move(cell) for cell in results.cells() if results.has(REWARD, move(cell))]
        rows: dict[str, dict[str, str]] = {}
        metrics: dict[str, Metric] = {}
        for cell in cells:
            rows[cell], known = _arm(results, cell)
            metrics |= known
        if rows:
            caption = (
                f"From {start}. Change: against the base by the same sampler; beside {CONTROL}: what selection did, of "
                f"arms by its sampler and of as many updates; {INTERVALS}; {results.counted}. {READ}"
            )
            frame = pd.DataFrame(rows).T.rename_axis("pictures").fillna("")
            shown.append(Table(f"arms{suffix}", frame, caption, metrics))
    return shown


def _arm(results: Results, cell: str) -> tuple[dict[str, str], dict[str, Metric]]:
    """A variant's sampler, reward, and what changes of reward, distance and diversity against its sampler's base."""
    base, row = results.base_of(cell), {"sampler": results.solver_of(cell)}
    row["reward"] = words.plus_minus(results.interval(REWARD, cell), "")
    metrics = {f"{REWARD}/{cell}": Metric(results.interval(REWARD, cell), results.n_of(REWARD, cell))}
    if cell != base and results.has(REWARD, base):
        change = results.change(REWARD, cell, base)
        row["reward, change"] = words.signed(change)
        metrics[f"change/{REWARD}/{cell}"] = Metric(change, results.n_of(REWARD, cell))
    if (control := results.control_of(cell)) is not None and results.has(REWARD, cell, control):
        selected = results.change(REWARD, cell, control)
        row[f"reward, beside {CONTROL}"] = words.signed(selected)
        metrics[f"selected/{REWARD}/{cell}"] = Metric(selected, results.n_of(REWARD, cell))
    if results.has("shift_share", cell):
        share = scaled(results.interval("shift_share", cell), 100.0)
        row["of the predicted (%)"] = words.unsigned(share, ".3g")
        metrics[f"shift_share/{cell}"] = Metric(share, results.n_of("shift_share", cell), "%")
    for measure, (label, factor) in PRICE.items():
        if cell != base and results.has(measure, cell, base):
            change = scaled(results.change(measure, cell, base), factor)
            row[f"{label}, change"] = words.signed(change)
            metrics[f"change/{measure}/{cell}"] = Metric(change, results.n_of(measure, cell))
        elif cell != base and results.has(measure, cell):
            row[label] = words.plus_minus(scaled(results.interval(measure, cell), factor), "")
            metrics[f"{measure}/{cell}"] = Metric(results.interval(measure, cell), results.n_of(measure, cell))
    return row, metrics


def price(results: Results) -> list[Item]:
    """Reward against distance and against diversity, a point a variant; nothing where neither was measured."""
    known = [name for name in ("fd_rec", "recall") if results.cells(name)]
    if not known:
        return []
    figure, axes = plt.subplots(1, len(known), figsize=(figures.WIDTH, 3.6), squeeze=False)
    for axis, measure in zip(axes[0], known, strict=True):
        for at, cell in enumerate(cell for cell in results.cells() if results.has(measure, cell)):
            x, y = results.interval(measure, cell), results.interval(REWARD, cell)
            sde = results.solver_of(cell) == SOLVERS["sde"]
            axis.errorbar(
                x.mean, y.mean, xerr=x.high - x.mean, yerr=y.high - y.mean, elinewidth=0.6, markersize=5, linestyle="",
                marker=figures.MARKERS[at % len(figures.MARKERS)], color=figures.PALETTE[at % len(figures.PALETTE)],
                fillstyle="none" if sde else "full", label=cell,
            )  # fmt: skip
        axis.set(xlabel={"fd_rec": "FD to reconstructed works", "recall": "recall"}[measure], ylabel="mean reward")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)
    caption = (
        f"Reward and its price by variant, from white noise; hollow: stochastic sampler; {INTERVALS}; "
        f"{results.counted}."
    )
    return [Figure("price", figure, caption)]


def other_rewards(results: Results) -> list[Table]:
    """All rewards of all variants: what else the one that is trained for moves; nothing where none was measured."""
    names = [each for each in results.config.rewards if results.cells(f"reward_{each}")]
    if not names:
        return []
    rows, metrics = {}, {}
    for cell in results.cells():
        row = {"sampler": results.solver_of(cell)}
        for name in names:
            if results.has(f"reward_{name}", cell):
                interval = results.interval(f"reward_{name}", cell)
                row[name] = words.plus_minus(interval, "")
                metrics[f"reward_{name}/{cell}"] = Metric(interval, results.n_of(f"reward_{name}", cell))
        rows[cell] = row
    caption = (
        f"Rewards by name; trained for: {results.config.reward}. subject and style: probability by a probe on the "
        f"trunk's features, which is not the network that measures; from white noise; {INTERVALS}; {results.counted}."
    )
    return [Table("other_rewards", pd.DataFrame(rows).T.rename_axis("pictures").fillna(""), caption, metrics)]


def measures(results: Results) -> list[Table]:
    """Every measure of every cell, from white noise and from the corrected start."""
    shown = []
    for name, move in (("measures", str), ("measures_corrected", corrected)):
        cells = [move(cell) for cell in results.cells() if results.has(REWARD, move(cell))]
        measured = [each for each in (REWARD, *MEASURES) if any((each, cell) in results.measured for cell in cells)]
        rows: dict[str, dict[str, object]] = {}
        metrics: dict[str, Metric] = {}
        for cell in cells:
            known = [each for each in measured if (each, cell) in results.measured]
            rows[cell] = {"sampler": results.solver_of(cell), **{each: results.whole[each, cell] for each in known}}
            metrics |= {
                f"{each}/{cell}": Metric(results.interval(each, cell), results.n_of(each, cell)) for each in known
            }
        if rows:
            frame = pd.DataFrame(rows).T.rename_axis("pictures")
            frame[measured] = frame[measured].astype(float)
            shown.append(Table(name, frame, f"Of all pictures of a row at once; {results.counted}. {READ}", metrics))
    return shown


# ---------------------------------------------------------------------------------------------- samplers


def samplers(results: Results) -> Table | Text:
    """GRAFT and P-GRAFT by both samplers, each against GRAFT by the same, beside what their exact laws say."""
    aims = {"ode": {"x_I": "the same law", "x_0": "another law"}, "sde": {"x_I": "a softer law", "x_0": "a softer law"}}
    rows, metrics = {}, {}
    for cell in results.cells():
        training = results.config.trainings.get(cell)
        if training is None or training.method != "accepted" or training.round > 1 or training.rule is not None:
            continue
        graft = GRAFT if training.solver == "ode" else f"{GRAFT}-sde"
        row = {"sampler": SOLVERS[training.solver], "adapter on": f"{100 * training.level:g} % of the steps"}
        row["target"] = "x_0 (GRAFT)" if training.level == 1 else training.target
        row["reward"] = words.plus_minus(results.interval(REWARD, cell), "")
        if training.level < 1:
            row["aims, beside GRAFT, at"] = aims[training.solver][training.target]
            if results.has(REWARD, graft):
                change = results.change(REWARD, cell, graft)
                row["reward less GRAFT's by this sampler"] = words.signed(change)
                metrics[f"against_graft/{cell}"] = Metric(change, results.n_of(REWARD, cell))
        rows[cell] = row
    if not rows:
        return Text("This profile trains neither GRAFT nor P-GRAFT.")
    caption = f"{_equal(results)} From white noise; {INTERVALS}; {results.counted}."
    return Table("samplers", pd.DataFrame(rows).T.rename_axis("variant").fillna(""), caption, metrics)


def _equal(results: Results) -> str:
    """What all variants have alike."""
    config = results.config
    return (
        f"All learn from {config.candidates.prompts} prompts with {config.candidates.each} candidates each and the "
        f"same rule, in {config.optimisation.steps} updates of {config.optimisation.batch}, adapters of rank "
        f"{config.rank} on every layer. By the deterministic sampler GRAFT and P-GRAFT (x_I) aim at one law, "
        "so that a difference is one of learning."
    )


# ---------------------------------------------------------------------------------------------- rival, rounds


def policy(results: Results) -> list[Item]:
    """The policy-gradient rival beside GRAFT by the same sampler, and what was tuned of it; nothing without one."""
    rivals = [name for name, each in results.config.trainings.items() if each.method == "policy"]
    names = [name for name in (*rivals, f"{GRAFT}-sde", UNTUNED_SDE) if results.has(REWARD, name)]
    if not set(rivals) & set(names):
        return []
    rows = {name: _arm(results, name)[0] | _settings(results, name) for name in names}
    chosen = results.config.policy
    caption = (
        f"The rival (DDPO with clipping: advantages per prompt, at most {chosen.most:g} standard deviations, ratios "
        f"clipped at {chosen.clip:g}) beside GRAFT by the same sampler, which it needs, at equal samples and updates. "
        f"Change: against the base by that sampler; {INTERVALS}; {results.counted}. A small model does not decide "
        "whether GRAFT beats policy gradients."
    )
    table = Table("policy", pd.DataFrame(rows).T.rename_axis("variant").fillna(""), caption)
    return [table, _tuned(results, rivals)]


def _settings(results: Results, name: str) -> dict[str, str]:
    training: Shaping | None = results.config.trainings.get(name)
    if training is None:
        return {}
    rate = results.config.optimisation_of(name).learning_rate
    rounds = results.config.policy.rounds if training.method == "policy" else 1
    return {"learning rate": f"{rate:g}", "rounds of samples": str(rounds)}


def _tuned(results: Results, rivals: Sequence[str]) -> Text:
    """Among which settings the rival was chosen, and how the reward of its training samples went."""
    rates = sorted({results.config.optimisation_of(name).learning_rate for name in rivals})
    known = [name for name in rivals if results.has(REWARD, name)]
    best = max(known, key=lambda name: results.interval(REWARD, name).mean)
    if len(rates) > 1:
        said = (
            f"Of {len(rivals)} settings of the rival, learning rates {', '.join(f'{rate:g}' for rate in rates)}, "
            f"{best} has the most reward."
        )
    else:
        said = f"The rival has one setting here, learning rate {rates[0]:g}; the profile study tries three."
    seen = [card["rewards"] for card in results.cards.get(best, ()) if card["rewards"]]
    if not seen:
        return Text(said)
    first, last = (float(np.mean([each[at] for each in seen])) for at in (0, -1))
    return Text(
        f"{said} Mean reward of its own samples, from the first of {len(seen[0])} rounds to the last: {first:.3g} to "
        f"{last:.3g}, {SOLVERS['sde']}."
    )


def rounds(results: Results) -> list[Item]:
    """Reward, distance and recall over rounds of GRAFT; nothing without a second one."""
    names = {1: GRAFT, 2: f"{GRAFT}-2", 3: f"{GRAFT}-3"}
    listed = {0: UNTUNED} | {number: name for number, name in names.items() if results.has(REWARD, name)}
    measured = {
        name: label
        for name, label in {REWARD: "mean reward", "fd_rec": "FD to reconstructed works", "recall": "recall"}.items()
        if results.has(name, *listed.values())
    }
    if len(listed) < 3 or not measured:
        return []
    rows, metrics = [], {}
    for number, cell in listed.items():
        row: dict[str, float | str] = {"round": float(number), "method": "GRAFT"}
        for name in measured:
            interval = results.interval(name, cell)
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
            metrics[f"round/{name}/{number}"] = Metric(interval, results.n_of(name, cell))
        rows.append(row)
    figure = figures.curves(pd.DataFrame(rows), measured, "round", "method", "round (0: the base)")
    caption = (
        "Rounds of GRAFT: from the second on, candidates are by the model of the round before, equally many, and its "
        "adapter learns as many updates more; "
        f"{SOLVERS['ode']}; {INTERVALS}; {results.counted}."
    )
    return [Figure("rounds", figure, caption, metrics)]


def dotted(rows: Sequence[tuple[str, str, Interval]]) -> pd.DataFrame:
    """Rows (label, group, interval) as ``figures.dots`` draws them; a label stands at the first of its rows."""
    labels = [label if not at or rows[at - 1][0] != label else "" for at, (label, _, _) in enumerate(rows)]
    table = [{"group": group, "value": each.mean, "low": each.low, "high": each.high} for _, group, each in rows]
    return pd.DataFrame(table, index=labels)
