"""The page of prompts at three levels: its tables and figures, and the evidence of its verdicts."""

from itertools import pairwise

import pandas as pd

from atelier.data.prompts import LEVELS, prompt
from atelier.evaluation import tables
from atelier.files import read_table
from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.sampling.store import UNTUNED
from atelier.studies.prompt_enrichment.collect import SHOWN
from atelier.studies.prompt_enrichment.report_results import COMPARED, Results, evidence, load

__all__ = ["Results", "evidence", "load"]

POSTER = "sickert2025_prompts.csv"  # in the folder of papers
DISTANCES = ["fd", "kid", "fd_haar", "fwd", "pr", "psd", "psd10"]
ATTRIBUTES = ["subject", "style", "emotion", "precision", "recall", "density", "coverage", "clip"]
RELATIVE = ("fd", "kid", "fwd", "pr")  # in per cent; PSD, which comes near zero, is not
DECODER = f"{UNTUNED}-decoder"  # the untuned model's latents through a retuned decoder
BY_ARTIST = ("fd", "kid", "pr", "style")


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    return [f"fd/{UNTUNED}/level-{level}/guidance-{results.low:g}" for level in results.levels]


def prompts(results: Results) -> Text:
    """One work's prompt at each level: of the first work that a viewer annotated, where there is one."""
    works = results.works
    annotated = works[[len(emotions) > 0 for emotions in works["emotions"]]]
    first = (annotated if len(annotated) else works).iloc[0]
    return Text("\n".join(f"level {level}: {prompt(first, level, 0)}" for level in LEVELS))


def sheets(results: Results) -> list[Figure]:
    """Unpicked pictures of every model and level, at the lowest and the highest guidance scale."""
    return [_sheet(results, guidance) for guidance in (results.low, results.high)]


def _sheet(results: Results, guidance: float) -> Figure:
    columns = min(SHOWN, results.params.protocol.pictures)
    rows = {
        f"{model}, level {level}": results.generated(model, level, guidance)[:columns]
        for model in results.models
        for level in results.levels
    }
    caption = f"Unpicked, guidance {guidance:g}: one row per model and level; columns share work and first latent."
    return Figure(f"sheet_{guidance:g}", figures.contact_sheet(rows), caption)


# ----------------------------------------------------------------------------------------------- distances


def guidance(results: Results) -> list[Figure]:
    """Distances over guidance by prompt level, a figure a model; records every measure."""
    return [_guidance(results, model) for model in results.models]


def _guidance(results: Results, model: str) -> Figure:
    rows = results.rows[results.rows["model"] == model].sort_values("level")
    rows = rows.assign(prompts=[f"level {level}" for level in rows["level"]])
    curves = tables.wide(rows, words.AXES, ("prompts", "guidance"))
    metrics = {
        f"{measure}/{model}/level-{level}/guidance-{scale:g}": Metric(interval, results.n)
        for measure, level, scale, interval in zip(
            *(rows[column] for column in ("measure", "level", "guidance", "interval")), strict=True
        )
    }
    drawn = figures.curves(curves, words.AXES, "guidance", "prompts", "guidance scale")
    caption = f"{model}: distance to art by prompt level, 95 % intervals; {results.count}."
    return Figure(f"guidance_{model}", drawn, caption, metrics)


def distances(results: Results) -> Table:
    """Distances of every model, level and guidance scale."""
    return Table("distances", results.cells[DISTANCES], f"Distances, bias taken off; {results.count}.")


def attributes(results: Results) -> Table:
    """What the evaluator sees, and neighbourhood measures; without an evaluator, the latter alone."""
    wholes = results.wholes
    caption = f"Shares seen by the evaluator, and where the sets lie. All repeats at once; {results.count}."
    return Table("others", wholes[[name for name in ATTRIBUTES if name in wholes]], caption)


def side_by_side(results: Results) -> Table:
    """The change from one level to the next, the poster's and ours; only ours at scales the poster has not."""
    table = read_table(results.workspace.papers / POSTER, ("level", "guidance")).set_index(["level", "guidance"])
    poster = table[["fid", "pr", "psd"]].set_axis(list(COMPARED), axis=1)
    sources = {"paper": dict(poster.iterrows()), "here": dict(results.cells.loc[UNTUNED].iterrows())}
    steps = {}
    for scale in results.params.protocol.guidance:
        for before, after in pairwise(results.levels):
            steps[f"level {before} to {after}", scale] = {
                f"{measure.upper()} {name}": _step(rows[before, scale][measure], rows[after, scale][measure], measure)
                for measure in COMPARED
                for name, rows in sources.items()
                if (after, scale) in rows
            }
    frame = pd.DataFrame(steps).T.rename_axis(["step", "guidance"])
    return Table("side_by_side", frame, f"FD and PR in per cent, PSD as it is; paper: FID; here: {results.count}.")


def _step(before: float, after: float, measure: str) -> float:
    """A change in per cent; of PSD, a difference."""
    return after - before if measure == "psd" else 100 * (after / before - 1)


def interventions(results: Results) -> Table:
    """Tuning the denoiser, better prompts and the tuned decoder, each against the untuned model with least words.

    Without a row of the decoder where its study has not measured it.
    """
    rows = {}
    for scale in (results.low, results.high):
        start = dict(results.cells.iterrows())[UNTUNED, results.levels[0], scale]
        for name, changed in _interventions(results, scale).items():
            rows[name, scale] = {
                measure.upper(): _step(start[measure], changed[measure], measure) for measure in (*RELATIVE, "psd")
            }
    frame = pd.DataFrame(rows).T.rename_axis(["intervention", "guidance"])
    base = f"the untuned model with level-{results.levels[0]} prompts"
    return Table("interventions", frame, f"Change against {base} in per cent (PSD as it is); {results.count}.")


def _interventions(results: Results, scale: float) -> dict[str, pd.Series]:
    """Each intervention's measures at one guidance scale."""
    cells, (first, *others) = dict(results.cells.iterrows()), results.levels
    changed = {f"{model}, level {first}": cells[model, first, scale] for model in results.config.models}
    changed |= {f"{UNTUNED}, level {level}": cells[UNTUNED, level, scale] for level in others}
    decoded = f"{DECODER}@{first}/{scale:g}"
    if ("fd", decoded) in results.values:
        changed["tuned decoder"] = pd.Series(
            {measure: results.values[measure, decoded].mean() for measure in (*RELATIVE, "psd")}
        )
    return changed


# ------------------------------------------------------------------------------------------------- reasons


def parts_of_fd(results: Results) -> Table:
    """The untuned model's FD between means and between covariances, with precision and recall."""
    wholes = results.wholes
    neighbourhoods = wholes[[name for name in ("precision", "recall") if name in wholes]]
    frame = results.cells[["fd", "fd_mean", "fd_spread"]].join(neighbourhoods).loc[[UNTUNED]]
    return Table("parts_of_fd", frame, f"Untuned; FD, its parts, precision, recall; {results.count}.")


def acquaintance(results: Results) -> Item:
    """What style and artist in the prompt change for works by known and by unknown artists.

    A sentence where the data does not name the artists that the base knows, or has too few pictures of either kind.
    """
    least, level, rows = results.levels[0], results.params.protocol.prompts.level, {}
    for word in ("known", "unknown"):
        for scale in results.params.protocol.guidance:
            for measure in BY_ARTIST:
                before, after = (f"{UNTUNED}-{word}@{end}/{scale:g}" for end in (least, level))
                if {(measure, before), (measure, after)} <= set(results.values):
                    interval = results.change(measure, after, before)
                    ends = {"change": interval.mean, "low": interval.low, "high": interval.high}
                    rows[f"artists {word}", measure.upper(), scale] = ends
    if not rows:
        return Text("whose names this base learnt is not known, or there are too few pictures of either kind")
    n = results.table.loc[results.table["cell"].str.contains("known@"), "n"]
    caption = (
        f"Untuned, level {level} less level {least}, 95 % intervals over groups of unequal size; "
        f"n = {n.min()} to {n.max()} pictures a cell, {words.seeds(results.params)}."
    )
    frame = pd.DataFrame(rows).T.rename_axis(["works by", "measure", "guidance"])
    return Table("acquaintance", frame, caption)
