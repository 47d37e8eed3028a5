"""Why comparisons come out as they do: errors on held-out works, both starts, parts of FD."""

from itertools import product

import pandas as pd

from atelier.evaluation import tables
from atelier.evaluation.intervals import t_interval
from atelier.params import CORRECTED, STARTS, WHITE
from atelier.report import figures, starts, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.studies.art_finetuning.report_results import COMPARED, Results

SHARE = "share between means"
BY_START = ("fd", "fd_mean", "fd_rec", "pr", "pr_rec", "psd", "psd_rec")
FIRST_LATENT = "first latent, untuned"
CHANGED_BY_START = "change/fd/first-latent"  # the metric of that row


def errors(results: Results) -> Item:
    """Change of the error on held-out works against the untuned model, by timestep; records each."""
    groups = results.errors.filter(regex=r"^group\d+$")
    rows, metrics = [], {}
    for name in results.config.diagnosed:
        change = 100 * (groups.loc[name] / groups.loc[UNTUNED] - 1)
        for timestep, values in change.iterrows():
            interval = t_interval(values.tolist())
            ends = {"error": interval.mean, "error_low": interval.low, "error_high": interval.high}
            rows.append({"model": name, "timestep": timestep, **ends})
            metrics[f"held-out error/{name}/timestep-{timestep}"] = Metric(interval, results.held_out, "%")
    if not rows:
        return Text("No variant is named in art_finetuning.diagnosed, so that none was examined.")
    axes = {"error": "change of error (%)"}
    drawn = figures.curves(pd.DataFrame(rows), axes, "timestep", "model", "timestep")
    count = f"n = {results.held_out} held-out works in {groups.shape[1]} groups, {words.seeds(results.params)}"
    caption = f"Error of tuned models on held-out works against the untuned one's, 95 % intervals; {count}."
    return Figure("errors", drawn, caption, metrics)


def by_start(results: Results) -> Table:
    """What the first latent alone changes, and what other noise and tuning change from each start; records FD."""
    once = results.cell(UNTUNED)
    pairs = {(FIRST_LATENT, f"{CORRECTED} less {WHITE}"): (starts.from_start(once, CORRECTED), once)}
    for model, start in product([UNTUNED_AGAIN, *results.config.variants], STARTS):
        pairs[model, start] = (results.cell(model, None, start), results.cell(UNTUNED, None, start))
    changes = {
        label: {measure: results.change(measure, *ends) for measure in BY_START if (measure, ends[0]) in results.values}
        for label, ends in pairs.items()
    }
    frame = pd.DataFrame(
        {label: {name.upper(): words.plus_minus(each) for name, each in row.items()} for label, row in changes.items()}
    )
    metrics = {
        f"change/fd/{changed}/{start}": Metric(row["fd"], results.n)
        for (changed, start), row in changes.items()
        if "fd" in row
    }
    metrics[CHANGED_BY_START] = metrics.pop(f"change/fd/{FIRST_LATENT}/{CORRECTED} less {WHITE}")
    caption = f"Changes against the untuned model at guidance {results.low:g} ± half of the 95 % interval; below zero: "
    caption += f"nearer to art; {results.count}."
    return Table("by_start", frame.T.rename_axis(["changed", "start"]), caption, metrics)


def reached(results: Results, control: str) -> Text:
    """How far the positive control comes in this many steps, from both starts, and what follows for adapters."""
    if control not in results.config.variants:
        return Text("No positive control: this profile tunes no whole denoiser.")
    optimisation, measure = results.config.optimisation, "fd_rec"
    changes = {}
    for start in STARTS:
        ends = results.cell(control, None, start), results.cell(UNTUNED, None, start)
        changes[start] = results.change(measure, *ends), float(results.values[measure, ends[1]].mean())
    said = "; ".join(
        f"from {starts.NAMES[start]} by {words.signed(change)} of {before:.3g}"
        for start, (change, before) in changes.items()
    )
    shows = changes[WHITE][0].high < 0
    follows = (
        "So tuning of this length shows in this measure, and what adapters do can be judged by it."
        if shows
        else "So tuning of this length does not show in this measure, whatever is tuned: of adapters, which change "
        "less, it says nothing, and claims that rest on it have no verdict."
    )
    text = (
        f"Tuning the whole denoiser for {optimisation.steps} steps of {optimisation.batch} pictures changes the "
        f"Fréchet distance to reconstructed works at guidance {results.low:g} {said} ({results.count}). {follows}"
    )
    metrics = {
        starts.from_start(f"change/{measure}/{control}", start): Metric(each[0], results.n)
        for start, each in changes.items()
    }
    return Text(text, metrics)


def disagreements(results: Results) -> Text:
    """Where tuning's changes have opposite signs at the two starts."""
    pairs = [
        (results.cell(name, scale), results.cell(UNTUNED, scale))
        for name in results.config.variants
        for scale in results.params.protocol.guidance
    ]
    return starts.disagreements(results.values, pairs, [*COMPARED, *starts.RECONSTRUCTED])


def parts_of_fd(results: Results) -> Table:
    """FD between means and between covariances, with precision and recall where they were measured."""
    wholes = results.wholes
    neighbourhoods = wholes[[name for name in ("precision", "recall") if name in wholes]]
    frame = results.cells[["fd", "fd_mean", "fd_spread"]]
    frame = frame.assign(**{SHARE: frame["fd_mean"] / frame["fd"]}).join(neighbourhoods)
    caption = f"FD, its two parts, the share of it between the means, precision and recall; {results.count}."
    return Table("parts_of_fd", frame, caption)


def slope_over_guidance(results: Results) -> Table:
    """Rank correlation of PSD with guidance, of every model and prompt level at hand."""
    scales = len(results.params.protocol.guidance)
    caption = f"Rank correlation of PSD with guidance over {scales} scales, of all repeats together. {results.count}."
    return Table("slope_over_guidance", tables.rank_correlations(results.table, "psd").to_frame("correlation"), caption)
