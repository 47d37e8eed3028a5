"""The page of prompts at three levels: its tables and figures, and the evidence of its verdicts."""

from functools import partial
from itertools import pairwise, product

import pandas as pd

from atelier.data import prepare
from atelier.data.prompts import LEVELS, prompt
from atelier.evaluation import tables
from atelier.evaluation.groups import FURTHER_DISTANCES
from atelier.files import read_table
from atelier.params import CORRECTED, STARTS, WHITE, cell_name
from atelier.report import figures, naming, starts, words
from atelier.report.browser import Browsed, Values, by_path, on_sheets
from atelier.report.items import Browser, Figure, Item, Metric, Table, Text
from atelier.sampling.store import UNTUNED
from atelier.studies.prompt_enrichment.params import CONTROL
from atelier.studies.prompt_enrichment.report_results import COMPARED, Results, evidence, floors, load

__all__ = ["Results", "evidence", "floors", "load"]

POSTER = "sickert2025_prompts.csv"  # in the folder of papers
DISTANCES = ["fd", "fd_rec", "kd", "fd_haar", "fwd", "pr", "pr_rec", "psd", "psd_rec", "psd10"]
ATTRIBUTES = ["subject", "style", "emotion", "precision", "recall", "density", "coverage", "clip"]
RELATIVE = ("fd", "fd_rec", "kd", "fwd", "pr", "pr_rec")  # in per cent
SLOPES = ("psd", "psd_rec")  # which come near zero, as they are
DECODER = f"{UNTUNED}-decoder"  # the untuned model's latents through a retuned decoder
BY_ARTIST = ("fd", "kd", "pr", "style")
SHARE = "share between means"  # of FD
LABELS = {WHITE: "here", CORRECTED: "corrected"}  # of our numbers beside the poster's


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    return [f"fd/{UNTUNED}/level-{level}/guidance-{results.low:g}" for level in results.levels]


def prompts(results: Results) -> Text:
    """One work's prompt at each level: of the first work that a viewer annotated, where there is one."""
    works = results.works
    annotated = works[[len(emotions) > 0 for emotions in works["emotions"]]]
    first = (annotated if len(annotated) else works).iloc[0]
    return Text("\n".join(f"level {level}: {prompt(first, level, 0)}" for level in LEVELS))


def browser(results: Results) -> Browser:
    """Every model's pictures at every level beside the untuned base's from the fewest words."""
    settings: dict[Values, tuple[float, str]] = {
        (f"{scale:g}", starts.NAMES[start]): (scale, start)
        for scale in dict.fromkeys((results.low, results.high))
        for start in STARTS
    }
    variants = {
        f"{naming.model(results.config.STUDY, model)}, {naming.PROMPTS[str(level)]}": {
            values: results.painted(model, level, *setting) for values, setting in settings.items()
        }
        for model in results.models
        for level in results.levels
    }
    browsed = Browsed(
        ["guidance", "first latent"],
        variants,
        "the real work",
        by_path(results.works, partial(prepare.pictures, data=results.params.data, workspace=results.workspace)),
    )
    said = "Down a column the work and the noise are the same; a column is named by its plain description."
    return on_sheets("browser", browsed, said)


# ----------------------------------------------------------------------------------------------- distances


def guidance(results: Results) -> list[Figure]:
    """Distances over guidance by prompt level and start, a figure a model; records every measure."""
    return [_guidance(results, model) for model in results.models]


def _guidance(results: Results, model: str) -> Figure:
    rows = results.rows[results.rows["model"] == model].sort_values(["start", "level"], ascending=[False, True])
    named = zip(rows["level"], rows["start"], strict=True)
    rows = rows.assign(prompts=[f"level {level}, {starts.NAMES[start]}" for level, start in named])
    curves = tables.wide(rows, starts.AXES, ("prompts", "guidance"))
    metrics = {
        starts.from_start(f"{measure}/{model}/level-{level}/guidance-{scale:g}", start): Metric(interval, results.n)
        for measure, level, scale, start, interval in zip(
            *(rows[column] for column in ("measure", "level", "guidance", "start", "interval")), strict=True
        )
    }
    drawn = figures.curves(curves, starts.AXES, "guidance", "prompts", "guidance scale")
    caption = f"{model}: distance to art by prompt level and start, 95 % intervals; {results.count}."
    return Figure(f"guidance_{model}", drawn, caption, metrics)


def distances(results: Results) -> Table:
    """Distances of every model, level, guidance scale and start."""
    caption = f"Distances, bias taken off; {results.count}; {words.features(results.params)}."
    shown = [*DISTANCES, *(name for name in FURTHER_DISTANCES if name in results.cells)]
    return Table("distances", results.cells[shown], caption)


def sensitivity(results: Results) -> Table:
    """Distances of real works, of the untuned model and of the positive control, and which of them can tell."""
    return results.sensitivity(CONTROL, len(results.works))


def disagreements(results: Results) -> Text:
    """Where the steps between prompt levels have opposite signs at the two starts."""
    pairs = [
        (cell_name(model, after, scale), cell_name(model, before, scale))
        for model, (before, after), scale in product(
            results.models, pairwise(results.levels), results.params.protocol.guidance
        )
    ]
    return starts.disagreements(results.values, pairs, [*COMPARED, *starts.RECONSTRUCTED])


def attributes(results: Results) -> Table:
    """What the evaluator sees, and neighbourhood measures; without an evaluator, the latter alone."""
    wholes = results.wholes
    caption = f"Shares seen by the evaluator, and where the sets lie. All repeats at once; {results.count}."
    return Table("others", wholes[[name for name in ATTRIBUTES if name in wholes]], caption)


def side_by_side(results: Results) -> Table:
    """The change from one level to the next, the poster's and ours; only ours at scales the poster has not."""
    table = read_table(results.workspace.papers / POSTER, ("level", "guidance")).set_index(["level", "guidance"])
    poster = table[["fid", "pr", "psd"]].set_axis(list(COMPARED), axis=1)
    cells = results.cells.loc[UNTUNED]
    ours = {label: dict(cells.xs(start, level="start").iterrows()) for start, label in LABELS.items()}
    sources = {"paper": dict(poster.iterrows()), **ours}
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
    caption = f"FD and PR in per cent, PSD as it is; paper: FID; here, and corrected start: {results.count}."
    return Table("side_by_side", frame, caption)


def _step(before: float, after: float, measure: str) -> float:
    """A change in per cent; of PSD, a difference."""
    return after - before if measure in SLOPES else 100 * (after / before - 1)


def interventions(results: Results) -> Table:
    """Tuning the denoiser, better prompts and the tuned decoder, each against the untuned model with least words.

    Without a row of the decoder where its study has not measured it.
    """
    rows = {}
    for scale, start in product((results.low, results.high), STARTS):
        before = dict(results.cells.iterrows())[UNTUNED, results.levels[0], scale, start]
        for name, changed in _interventions(results, scale, start).items():
            rows[name, scale, start] = {
                measure.upper(): _step(before[measure], changed[measure], measure) for measure in (*RELATIVE, *SLOPES)
            }
    frame = pd.DataFrame(rows).T.rename_axis(["intervention", "guidance", "start"])
    base = f"the untuned model with level-{results.levels[0]} prompts"
    return Table("interventions", frame, f"Change against {base} in per cent (PSD as it is); {results.count}.")


def _interventions(results: Results, scale: float, start: str) -> dict[str, pd.Series]:
    """Each intervention's measures at one guidance scale and start."""
    cells, (first, *others) = dict(results.cells.iterrows()), results.levels
    changed = {f"{model}, level {first}": cells[model, first, scale, start] for model in results.config.models}
    changed |= {f"{UNTUNED}, level {level}": cells[UNTUNED, level, scale, start] for level in others}
    decoded = cell_name(DECODER, first, scale, start)
    if ("fd", decoded) in results.values:
        changed["tuned decoder"] = pd.Series(
            {measure: results.values[measure, decoded].mean() for measure in (*RELATIVE, *SLOPES)}
        )
    return changed


# ------------------------------------------------------------------------------------------------- reasons


def parts_of_fd(results: Results) -> Table:
    """The untuned model's FD between means and between covariances, with precision and recall."""
    wholes = results.wholes
    neighbourhoods = wholes[[name for name in ("precision", "recall") if name in wholes]]
    frame = results.cells[["fd", "fd_mean", "fd_spread"]]
    frame = frame.assign(**{SHARE: frame["fd_mean"] / frame["fd"]}).join(neighbourhoods).loc[[UNTUNED]]
    caption = f"Untuned; FD, its parts, the share of it between the means, precision, recall; {results.count}."
    return Table("parts_of_fd", frame, caption)


def acquaintance(results: Results) -> Item:
    """What style and artist in the prompt change for works by known and by unknown artists.

    A sentence where the data does not name the artists that the base knows, or has too few pictures of either kind.
    """
    least, level, rows = results.levels[0], results.params.protocol.prompts.level, {}
    cases = product(("known", "unknown"), results.params.protocol.guidance, STARTS, BY_ARTIST)
    for word, scale, start, measure in cases:
        before, after = (cell_name(f"{UNTUNED}-{word}", end, scale, start) for end in (least, level))
        if {(measure, before), (measure, after)} <= set(results.values):
            interval = results.change(measure, after, before)
            ends = {"change": interval.mean, "low": interval.low, "high": interval.high}
            rows[f"artists {word}", measure.upper(), scale, start] = ends
    if not rows:
        return Text("whose names this base learnt is not known, or there are too few pictures of either kind")
    n = results.table.loc[results.table["cell"].str.contains("known@"), "n"]
    caption = (
        f"Untuned, level {level} less level {least}, 95 % intervals over groups of unequal size; "
        f"n = {n.min()} to {n.max()} pictures a cell, {words.seeds(results.params)}."
    )
    frame = pd.DataFrame(rows).T.rename_axis(["works by", "measure", "guidance", "start"])
    return Table("acquaintance", frame, caption)
