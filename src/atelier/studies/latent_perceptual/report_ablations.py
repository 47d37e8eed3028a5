"""Ablations of the loss, and its gain by sampling steps, averages and age; the paper's numbers beside ours."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atelier.evaluation.intervals import Interval, t_interval
from atelier.report import figures, words
from atelier.report.items import Figure, Metric, Table
from atelier.studies.latent_perceptual.measure import ages
from atelier.studies.latent_perceptual.params import MAIN, PLAIN, averaged, in_steps
from atelier.studies.latent_perceptual.report_results import INTERVALS, Results, change_text

GRIDS = {"depth": "stages of the decoder", "tau": "threshold, at a latent of 64", "share": "share of the whole loss"}
SINGLE = ("norm", "depth_weights", "mask", "depth")  # settings of which the table of ablations has one changed
KINDS = {"epsilon": "base", "v_prediction": "v_prediction", "flow_prediction": "flow_prediction"}  # the paper's: ours

Rows = dict[str, dict[str, str]]
Metrics = dict[str, Metric]

# ---------------------------------------------------------------------------------------------- ablations


def _varied(results: Results, setting: str, main: str) -> dict[str, Any]:
    """A variant with the loss and the variants that differ from it in one setting alone: its values by variant."""
    wanted = results.config.trainings.get(main)
    if wanted is None:
        return {}
    values = {name: getattr(training, setting) for name, training in results.config.trainings.items()}
    alike = {name: wanted.model_copy(update={setting: value}) for name, value in values.items()}
    return {name: value for name, value in values.items() if results.config.trainings[name] == alike[name]}


def changed_alone(results: Results) -> dict[str, tuple[str, Any]]:
    """Variants that change one of ``SINGLE``: the setting and its value."""
    main = results.config.ablated[1]
    changed = {
        name: (setting, value)
        for setting in SINGLE
        for name, value in _varied(results, setting, main).items()
        if name != main
    }
    return {name: changed[name] for name in results.config.trainings if name in changed}


def ablation_curves(results: Results) -> list[Figure]:
    """Change of fd by the loss against each setting that the profile trains three values of."""
    if not results.compares:
        return []
    shown = []
    for setting, label in GRIDS.items():
        varied = _varied(results, setting, results.config.ablated[1])
        numeric = {value: name for name, value in varied.items() if isinstance(value, int | float)}
        if len(numeric) >= 3:
            shown.append(_ablation_curve(results, setting, label, {float(x): numeric[x] for x in sorted(numeric)}))
    return shown


def _ablation_curve(results: Results, setting: str, label: str, variants: Mapping[float, str]) -> Figure:
    plain, _ = results.config.ablated
    changes = {value: results.change("fd", name, plain) for value, name in variants.items()}
    best = min(changes, key=lambda value: changes[value].mean)
    figure = _against_log(list(changes), {"change by the loss": list(changes.values())}, "fd less plain's", label)
    figure.axes[0].axhline(0.0, color="0.6", linewidth=0.8, linestyle=":")
    caption = (
        f"Change of fd against {plain}, which is the dotted line; smallest for {best:g}; 95 % intervals; "
        f"{results.counted([*variants.values()])}."
    )
    return Figure(f"ablation_{setting}", figure, caption)


def _against_log(values: Sequence[float], lines: Mapping[str, Sequence[Interval]], ylabel: str, xlabel: str) -> Any:
    """Intervals of fd against a logarithmic axis, one line per name."""
    rows = [
        {"position": float(np.log2(value)), "line": name, "fd": y.mean, "fd_low": y.low, "fd_high": y.high}
        for name, intervals in lines.items()
        for value, y in zip(values, intervals, strict=True)
    ]
    figure = figures.curves(pd.DataFrame(rows), {"fd": ylabel}, "position", "line", xlabel)
    figure.axes[0].set_xticks(np.log2(values), [f"{value:g}" for value in values])
    return figure


def ablations(results: Results) -> list[Table]:
    """Change of fd where one setting differs; nothing where the profile trains no such variant."""
    changed = changed_alone(results)
    if not changed:
        return []
    plain, main = results.config.ablated
    rows: Rows = {}
    metrics: Metrics = {}
    for name, (setting, value) in changed.items():
        interval = results.change("fd", name, main)
        rows[name] = {
            "changed": f"{setting}: {value}",
            f"fd less {main}'s": change_text(interval),
            f"fd less {plain}'s": change_text(results.change("fd", name, plain)),
        }
        metrics[f"ablation/fd/{name}"] = Metric(interval, results.n_of(name))
    caption = (
        f"From white noise. Above 0: worse than {main}, or than {plain}; {INTERVALS}; {results.counted([*changed])}."
    )
    return [Table("ablations", pd.DataFrame(rows).T.rename_axis("variant"), caption, metrics)]


# ---------------------------------------------------------------------------------------------- steps, averages, ages


def _followed(results: Results) -> list[str]:
    return [name for name in (PLAIN, MAIN) if name in results.config.followed]


def followed_curves(results: Results) -> list[Figure]:
    """fd with the loss and without, by sampling steps and by half-life of an average."""
    config = results.config
    curves = [
        _followed_curve(results, "steps", config.steps, in_steps, "steps of the sampler (DDIM)"),
        _followed_curve(results, "averages", config.averages, averaged, "half-life of the average (steps)"),
    ]
    return [figure for figure in curves if figure is not None]


def _followed_curve(
    results: Results, name: str, values: Sequence[Any], cell: Callable[[str, Any], str], label: str
) -> Figure | None:
    """None with fewer than two values."""
    variants = _followed(results)
    if len(values) < 2 or not variants:
        return None
    lines = {variant: [results.interval("fd", cell(variant, value)) for value in values] for variant in variants}
    ticks = ", ".join(f"{value:g}" for value in values)
    number = results.config.pictures_in_steps if name == "steps" else None
    counted = results.counted(variants, number)
    caption = f"fd less bias by {label}: {ticks}; 95 % intervals; {counted}."
    return Figure(name, _against_log(values, lines, "fd", label), caption)


def gains(results: Results) -> list[Table]:
    """What the loss takes off the plain variant's distance, and how steady the last steps were."""
    rows: Rows = {}
    metrics: Metrics = {}
    for build in (_gains_by_steps, _gains_by_age, _averages, _unsteadiness_ratio):
        more, numbers = build(results)
        rows |= more
        metrics |= numbers
    if not rows:
        return []
    aged = [name for pair in ages(results.params).values() for name in pair]
    in_steps_counted = results.counted(results.compared, results.config.pictures_in_steps)
    caption = (
        f"{INTERVALS}; by steps of the sampler: {in_steps_counted}; by steps trained before: {results.counted(aged)}; "
        f"squared distances of estimates: {results.inspected_counted}."
    )
    return [Table("gains", pd.DataFrame(rows).T.rename_axis("what").fillna(""), caption, metrics)]


def _gains_by_steps(results: Results) -> tuple[Rows, Metrics]:
    cells = {steps: f"gain-in-{steps}" for steps in results.config.steps}
    intervals = {n: results.interval("fd", cell) for n, cell in cells.items() if ("fd", cell) in results.values}
    rows = {f"in {n} steps": {"gain of fd": change_text(interval)} for n, interval in intervals.items()}
    return rows, {f"gain/steps/{n}": Metric(interval, results.n_of(cells[n])) for n, interval in intervals.items()}


def _gains_by_age(results: Results) -> tuple[Rows, Metrics]:
    intervals = {cell: results.interval("relative_gain", cell) for cell in ages(results.params)}
    labels = {cell: cell.replace("gain-", "").replace("-", " ") + " steps" for cell in intervals}
    rows = {labels[cell]: {"gain, share of plain's fd": change_text(interval)} for cell, interval in intervals.items()}
    return rows, {
        f"gain/{cell}": Metric(interval, results.n_of(cell, "relative_gain")) for cell, interval in intervals.items()
    }


def _averages(results: Results) -> tuple[Rows, Metrics]:
    """Distance of the last parameters' estimates from their average's, and the best half-life."""
    rows: Rows = {}
    metrics: Metrics = {}
    for name in _followed(results):
        if ("unsteadiness", name) in results.values:
            interval = results.interval("unsteadiness", name)
            metrics[f"unsteadiness/{name}"] = Metric(interval, results.config.inspected * results.groups)
            rows[f"{name}: what the last steps did to estimates"] = {
                "mean squared distance": words.unsigned(interval, ".3g")
            }
        if ("log_half_life", name) in results.values:
            half_life = change_text(results.interval("log_half_life", name), 2)
            rows[f"{name}: best half-life, log2"] = {"log2 of steps": half_life}
    return rows, metrics


def _unsteadiness_ratio(results: Results) -> tuple[Rows, Metrics]:
    if len(_followed(results)) < 2 or ("unsteadiness", MAIN) not in results.values:
        return {}, {}
    ratio = results.values["unsteadiness", MAIN] / results.values["unsteadiness", PLAIN]
    interval = t_interval(np.log2(ratio).tolist())
    text = f"{words.unsigned(interval, '.2f')}, log2"
    rows = {"with the loss over without": {"mean squared distance": text}}
    return rows, {"unsteadiness/ratio": Metric(interval, results.n_inspected)}


# ---------------------------------------------------------------------------------------------- the paper


def paper_post_training(results: Results) -> Table:
    """The paper's post-trainings, with the change of FID."""
    table = results.post_trainings
    change = 100 * (table["fid_with"] / table["fid_without"] - 1)
    frame = table.assign(**{"change (%)": change}).set_index(["data", "resolution"]).drop(columns="steps")
    return Table("paper_post_training", frame, "The paper's table 2.")


def side_by_side(results: Results) -> Table:
    """The paper's three parameterisations, without and with the loss, beside ours."""
    by_kind = {kind: name for name, kind in _varied(results, "kind", MAIN).items()}
    rows = {
        (kind, "fd" if measure == "fid" else measure): _beside(results, kind, measure, by_kind.get(here))
        for kind, here in KINDS.items()
        for measure in results.parameterisations.index
    }
    caption = f"The paper's table 3, without and with the loss, beside ours (fd less bias); {results.pictures_counted}."
    frame = pd.DataFrame(rows).T.rename_axis(["predicts", "measure"]).fillna("not trained")
    return Table("side_by_side", frame, caption)


def _beside(results: Results, kind: str, measure: str, variant: str | None) -> dict[str, str]:
    """One measure of the paper's and ours, where the variant of this kind was measured."""
    without, with_loss = results.parameterisations.loc[measure, [kind, f"{kind}_with"]]
    row = {"paper": f"{without:g} to {with_loss:g}"}
    ours = "fd" if measure == "fid" else measure
    plain = results.config.plain_of(variant) if variant is not None else None
    if variant is None or plain is None or (ours, variant) not in results.values:
        return row
    cells = (plain, variant)
    values = [results.interval(ours, cell).mean if ours == "fd" else results.whole[ours, cell] for cell in cells]
    change = change_text(results.change(ours, variant, plain), 2)
    return row | {"ours": f"{values[0]:.3g} to {values[1]:.3g}", "our change": change}
