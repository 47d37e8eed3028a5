"""Why comparisons come out as they do: their power, errors on held-out works, carried means, parts of FD."""

import pandas as pd

from atelier import claims
from atelier.evaluation import tables
from atelier.evaluation.intervals import t_interval
from atelier.evidence import LEVEL, groups_needed
from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.sampling.store import UNTUNED
from atelier.studies.art_finetuning import diagnose
from atelier.studies.art_finetuning.report_results import STUDY, Results, evidence

CARRIED = ("fd", "kid", "fwd", "pr", "psd")


def power(results: Results) -> Item:
    """Comparisons that were not supported, and the number of groups that would find changes as large."""
    rows = {}
    for verdict in claims.decide(claims.load(STUDY), evidence(results)):
        for finding in verdict.findings:
            if finding.compared is None or finding.verdict == claims.SUPPORTED:
                continue
            change = claims.differences(finding.part, results.values)
            rows[verdict.claim, finding.part.name] = {
                "rule": finding.part.rule,
                "change": change.mean(),
                "detectable": finding.compared.detectable,
                "groups": len(change),
                "groups that would find it": groups_needed(change, LEVEL / 2),
            }
    if not rows:
        return Text("Every comparison that was measured was supported.")
    frame = pd.DataFrame(rows).T.infer_objects().rename_axis(["claim", "comparison"])
    caption = f"Comparisons that were not supported; {results.count}. –: more than 10,000, or none."
    return Table("power", frame, caption)


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


def carried(results: Results) -> Table:
    """What tuning changes from white noise, and from first latents that carry works' means."""
    white = {name: results.cell(name) for name in diagnose.models(results.params)}
    means = {name: diagnose.carried_cell(results.params, name) for name in white}
    pairs = {"works' means instead of white noise, untuned": (means[UNTUNED], white[UNTUNED])}
    for name in results.config.diagnosed:
        pairs[f"{name} instead of untuned, white noise"] = (white[name], white[UNTUNED])
        pairs[f"{name} instead of untuned, works' means"] = (means[name], means[UNTUNED])
    rows = {}
    for measure in CARRIED:
        for label, (changed, reference) in pairs.items():
            interval = results.change(measure, changed, reference)
            rows[measure.upper(), label] = {"change": interval.mean, "low": interval.low, "high": interval.high}
    caption = f"Changes at guidance {results.low:g} with 95 % intervals; below zero is nearer to art; {results.count}."
    return Table("carried", pd.DataFrame(rows).T.rename_axis(["measure", "changed"]), caption)


def parts_of_fd(results: Results) -> Table:
    """FD between means and between covariances, with precision and recall where they were measured."""
    wholes = results.wholes
    neighbourhoods = wholes[[name for name in ("precision", "recall") if name in wholes]]
    frame = results.cells[["fd", "fd_mean", "fd_spread"]].join(neighbourhoods)
    return Table("parts_of_fd", frame, f"FD, its two parts, precision and recall; {results.count}.")


def slope_over_guidance(results: Results) -> Table:
    """Rank correlation of PSD with guidance, of every model and prompt level at hand."""
    scales = len(results.params.protocol.guidance)
    caption = f"Rank correlation of PSD with guidance over {scales} scales, of all repeats together. {results.count}."
    return Table("slope_over_guidance", tables.rank_correlations(results.table, "psd").to_frame("correlation"), caption)
