"""The page of fine-tuning on art: its tables and figures, and the evidence of its verdicts."""

from functools import partial
from pathlib import Path

import pandas as pd

from atelier.data import prepare
from atelier.data.pictures import Pictures
from atelier.evaluation import judges, tables
from atelier.evaluation.groups import FURTHER_DISTANCES, FURTHER_SHARES, NEIGHBOURHOODS, SIMPLE, group
from atelier.files import read_table
from atelier.metrics import nearest
from atelier.metrics.summary import SLOPE_LOW
from atelier.params import CORRECTED, STARTS, WHITE
from atelier.report import figures, naming, starts, words
from atelier.report.browser import Browsed, Cell, Values, by_path, on_sheets
from atelier.report.change import moved
from atelier.report.items import Browser, Data, Figure, Item, Metric, Table, Text
from atelier.sampling import store
from atelier.sampling.store import UNTUNED
from atelier.studies.art_finetuning.report_reasons import (
    CHANGED_BY_START,
    by_start,
    disagreements,
    errors,
    parts_of_fd,
    reached,
    slope_over_guidance,
)
from atelier.studies.art_finetuning.report_results import COMPARED, STUDY, Results, evidence, floors, load

__all__ = [
    "Results", "by_start", "disagreements", "errors", "evidence", "floors", "load", "parts_of_fd",
    "reached", "slope_over_guidance",
]  # fmt: skip

POSTER = "sickert2025_finetuning.csv"  # in the folder of papers
POSTER_BLOCKS = ("-", "A", "B")  # untuned, rank 4 and rank 8 without decoder tuning
DISTANCES = ["fd", "fd_rec", "kd", "fd_haar", "fwd", "pr", "pr_rec", "psd", "psd_rec", "psd10"]
HIGHER_IS_BETTER = [*NEIGHBOURHOODS, "clip", "clipscore", "subject", "style", "emotion", *FURTHER_SHARES]
GAP = ["fd", "fd_rec", "kd", "fwd", "pr", "pr_rec"]
CONTROL = "full-mixed"  # the whole denoiser tuned
NEAREST_OF = (UNTUNED, "rank8-mixed", CONTROL)
NEIGHBOURS = 10  # nearest works a row


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    return [*(f"fd/{name}/guidance-{results.low:g}" for name in (UNTUNED, *results.highest_rank)), CHANGED_BY_START]


def one_start(results: Results) -> str:
    """What N1 does not compare: how far an adapter came from white noise, and both from the same corrected start."""
    adapter, low = "rank8-unconditional", f"@1/{results.low:g}"
    beside = partial(moved, STUDY, evidence(results), "fd")
    ways = {
        "from white noise": beside(f"{adapter}{low}", f"{UNTUNED}{low}"),
        "from a corrected start for both": beside(f"{adapter}{low}/{CORRECTED}", f"{UNTUNED}{low}/{CORRECTED}"),
    }
    said = f"Adapters learnt for {results.config.optimisation.steps} steps."
    shown = "; ".join(f"{way} the distance {text}" for way, text in ways.items() if text)
    return f"{said} Rank 8 without captions beside the untuned base: {shown}." if shown else said


# ------------------------------------------------------------------------------------ pictures and training


def browser(results: Results) -> Browser:
    """Every model's pictures beside the untuned base's, at the ends of guidance, from both starts."""
    params, workspace = results.params, results.workspace
    seeds = params.protocol.training_seeds

    def cells(model: str) -> dict[Values, Cell]:
        located = {
            (f"{scale:g}", starts.NAMES[start]): store.Location(STUDY, model, scale, start)
            for scale in dict.fromkeys((results.low, results.high))
            for start in STARTS
        }
        return {values: store.read(each.folders(workspace.samples, seeds)) for values, each in located.items()}

    browsed = Browsed(
        ["guidance", "first latent"],
        {naming.model(STUDY, model): cells(model) for model in results.models},
        "the real work",
        by_path(results.works, partial(prepare.pictures, data=params.data, workspace=workspace)),
    )
    return on_sheets("browser", browsed, "Down a column the prompt and the noise are the same.")


def losses(results: Results) -> Table:
    """Training loss at the beginning and at the end."""
    progress = results.history["step"] / results.config.optimisation.steps
    stages = {"first fifth": results.history[progress <= 0.2], "last fifth": results.history[progress > 0.8]}
    means = {name: rows.groupby("variant", sort=False)["denoising"].mean() for name, rows in stages.items()}
    caption = (
        f"Training loss, means of the first and last fifth of the steps, {words.seeds(results.params)}. Compare down a "
        "regime, not across: with and without captions are different problems."
    )
    return Table("losses", pd.DataFrame(means), caption)


def history_rows(results: Results) -> Data:
    """The loss of every step, for ``dvc plots``."""
    return Data("history", results.history)


def history(results: Results) -> Figure:
    """Training loss against step, mean over training seeds."""
    optimisation = results.config.optimisation
    means = results.history.groupby(["variant", "step"], sort=False)["denoising"].mean().reset_index()
    drawn = figures.training_curves(means, "denoising", "variant", "mean squared error of the noise")
    steps = f"{optimisation.steps} steps of {optimisation.batch} pictures"
    return Figure("history", drawn, f"Training loss, {steps}, {words.seeds(results.params)}.")


# ----------------------------------------------------------------------------------------------- distances


def guidance(results: Results) -> list[Figure]:
    """Distances over guidance, with intervals, a figure a start."""
    drawn = []
    for start in STARTS:
        wide = tables.wide(results.rows[results.rows["start"] == start], starts.AXES)
        curves = figures.curves(wide, starts.AXES, "guidance", "model", "guidance scale")
        caption = f"Distance to art, {starts.NAMES[start]}, 95 % intervals; {results.count}."
        drawn.append(Figure(f"guidance_{start}", curves, caption))
    return drawn


def distances(results: Results) -> Table:
    """Distances of every model, guidance scale and start; records every measure of them."""
    metrics = {
        starts.from_start(f"{measure}/{model}/guidance-{scale:g}", start): Metric(interval, results.n)
        for measure, model, scale, start, interval in zip(
            *(results.rows[column] for column in ("measure", "model", "guidance", "start", "interval")), strict=True
        )
    }
    caption = f"Distances, bias taken off; {results.count}; {words.features(results.params)}. PR: "
    shown = [*DISTANCES, *(name for name in FURTHER_DISTANCES if name in results.cells)]
    return Table("distances", results.cells[shown], f"{caption}{results.residual_label}.", metrics)


def coverage(results: Results) -> Table:
    """Neighbourhood measures, and what the evaluator sees; without an evaluator, the former alone."""
    wholes = results.wholes
    caption = f"Higher is better; density is 1 where distributions are equal. All repeats at once; {results.count}."
    return Table("others", wholes[[name for name in HIGHER_IS_BETTER if name in wholes]], caption)


def sensitivity(results: Results) -> Table:
    """Distances of real works, of the untuned model and of the positive control, and which of them can tell."""
    return results.sensitivity(CONTROL, results.held_out)


def gap(results: Results) -> Table:
    """The share of the distance between the untuned model and other works that tuning closed.

    Real works, or reconstructed ones for a distance to reconstructed works.
    """
    cells, closed = dict(results.cells[GAP].iterrows()), {}
    ends = {name: tables.RECONSTRUCTED_TRAINING if name in starts.RECONSTRUCTED else tables.REAL for name in GAP}
    target = pd.Series({name: float(results.values[name, row].mean()) for name, row in ends.items()})
    for name in results.config.variants:
        for scale in (results.low, results.high):
            for start in STARTS:
                before, after = cells[UNTUNED, scale, start], cells[name, scale, start]
                closed[name, scale, start] = (before - after) / (before - target)
    caption = "Share of the gap between the untuned model and other works that tuning closed; 1 is all of it."
    metrics = {}
    if CONTROL in results.config.variants:
        for start in STARTS:
            share = closed[CONTROL, results.low, start]["fd"]
            metrics[starts.from_start(f"gap/fd/{CONTROL}", start)] = Metric(share, results.n)
    frame = pd.DataFrame(closed).T.rename_axis(["variant", "guidance", "start"])
    return Table("gap", frame, f"{caption} {results.count}.", metrics)


def between_styles(results: Results) -> list[Item]:
    """How far one style of works is from another; nothing where styles have too few works."""
    styles = results.styles
    if styles.empty:
        return []
    smallest = int(styles["n"].min())
    count = f"n from {smallest} works a half; bias of the measured half taken off, that of the reference left in"
    apart = styles.query("measure == 'fd'").pivot(index="style", columns="reference", values="value")
    digits = 0 if apart.to_numpy().max() > 100 else 2
    drawn = figures.matrix(apart, "FD", "reference works", "measured works", digits)
    same = styles["style"] == styles["reference"]
    within, between = (styles[rows].groupby("measure")["value"] for rows in (same, ~same))
    summary = {
        "other works of the same style": within.mean(),
        "works of another style": between.mean(),
        "the two nearest styles": between.min(),
        "the two farthest": between.max(),
    }
    return [
        Figure("styles", drawn, f"FD between halves of styles' works; {count}."),
        Table("between_styles", pd.DataFrame(summary).loc[list(SIMPLE)], f"Halves of styles' works; {count}."),
    ]


def spectra(results: Results) -> Figure:
    """Mean power spectra of works, the untuned model and adapters of the highest rank."""
    caption = (
        f"Mean power spectra, guidance {results.high:g}, white noise; the slope is fitted right of the dotted line."
    )
    return Figure("spectra", figures.radial_spectra(_pictures_for_spectra(results), SLOPE_LOW), caption)


def residuals(results: Results) -> Figure:
    """Mean residual spectra of the same pictures."""
    caption = f"Mean residual spectra at guidance {results.high:g}, white noise; {results.residual_label}."
    return Figure("residuals", figures.residual_spectra(_pictures_for_spectra(results)), caption)


def _pictures_for_spectra(results: Results) -> dict[str, Pictures]:
    generated = {name: results.generated(name, results.high) for name in (UNTUNED, *results.highest_rank)}
    return {"works": results.real("test"), **generated}


# -------------------------------------------------------------------------------------------------- copies


def neighbours(results: Results) -> Figure:
    """The pictures nearest to a training work, above that work, by features and by pixels."""
    training, by = results.real("train"), judges.load(results.params, results.workspace)
    works, rows = group(training, by), {}
    for name in [name for name in NEAREST_OF if name in results.models]:
        pictures = results.generated(name, results.low)
        generated = group(pictures, by)
        for space, label in {"features": "features", "small": "pixels"}.items():
            index, distance = nearest(getattr(generated, space), getattr(works, space))
            first = distance.argsort(kind="stable")[: min(NEIGHBOURS, len(pictures))]
            rows[f"{naming.label(STUDY, name)}, by {label}"] = pictures[first].load()
            rows[f"nearest works to these, by {label}" + " " * len(rows)] = training[index[first]].load()
    caption = f"The pictures nearest to a training work at guidance {results.low:g}, white noise, and that work below "
    return Figure("neighbours", figures.contact_sheet(rows), f"{caption}each; nearest first.")


def near(results: Results) -> Table:
    """The share of near copies of every model."""
    frame = pd.DataFrame(results.cells[["near_features", "near_pixels"]].unstack("start", sort=False))
    return Table("near", frame, f"Share of near copies; {results.count}.")


# ----------------------------------------------------------------------------------------------- the paper


def side_by_side(results: Results) -> Item:
    """Relative changes against the untuned model, the poster's and ours; a sentence where no variant is on it."""
    poster, cells, rows = dict(_poster(results.workspace.papers).iterrows()), dict(results.cells.iterrows()), {}
    for name in results.config.variants:
        for scale in results.params.protocol.guidance:
            key = (_regime(results, name), results.config.adapters[name].rank, scale)
            if key not in poster:
                continue
            paper = poster[key] / poster["untuned", 0, scale] - 1
            ours = {start: cells[name, scale, start] / cells[UNTUNED, scale, start] - 1 for start in STARTS}
            sources = {"paper": paper, "here": ours[WHITE], "corrected": ours[CORRECTED]}
            rows[name, scale] = {
                f"{measure.upper()} {source}": 100 * change[measure]
                for measure in COMPARED
                for source, change in sources.items()
            }
    if not rows:
        return Text("none of these variants stands on the poster")
    caption = "Change against the untuned model in per cent; paper: FID; here, and corrected start: "
    caption += f"{results.count}."
    return Table("side_by_side", pd.DataFrame(rows).T.rename_axis(["variant", "guidance"]), caption)


def _poster(papers: Path) -> pd.DataFrame:
    """The poster's rows without decoder tuning, by regime, rank and guidance."""
    table = read_table(papers / POSTER, ("block", "regime", "rank", "guidance"))
    table = table[table["block"].isin(POSTER_BLOCKS)].set_index(["regime", "rank", "guidance"])
    return table[["fid", "pr", "psd"]].set_axis(list(COMPARED), axis=1)


def _regime(results: Results, variant: str) -> str:
    """The poster's name of a variant's captions."""
    return {1.0: "unconditional", 0.0: "conditional"}.get(results.config.adapters[variant].empty_prompts, "mixed")
