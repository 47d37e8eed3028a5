"""Pictures after post-training: contact sheets, measures, changes by the loss, spectra."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from atelier.evaluation.intervals import FloatArray, Interval
from atelier.evaluation.tables import REAL, RECONSTRUCTED
from atelier.report import figures
from atelier.report.items import Figure, Item, Metric, Table
from atelier.studies.latent_perceptual.measure import PLAIN
from atelier.studies.latent_perceptual.report_results import INTERVALS, Results, change_text
from atelier.studies.latent_perceptual.sample import AGAIN, untuned

MEASURES = ("fd", "kid", "precision", "recall", "density", "coverage", "clip", "pr", "psd", "style", "subject")
CHANGES = ("fd", "precision", "recall", "coverage", "clip")
BANDS = {
    "high": "error of log10 power above 0.29 cycles a pixel",
    "middle": "error from 0.15 to 0.29",
    "low": "error below 0.15",
    "top": "log10 power above 0.29, over real",
    "bottom": "log10 power up to 2 cycles a picture, over real",
}


def pictures(results: Results) -> Figure:
    """The first pictures of a repeat: of every variant, and of what plain ones began with."""
    rows = {}
    for name in results.config.variants:
        if untuned(name) in results.generated:
            rows[f"before: {results.config.trainings[name].kind}"] = results.first_pictures[untuned(name)]
        rows[name] = results.first_pictures[name]
    caption = (
        f"Prompts of held-out works, guidance {results.config.guidance:g}, {results.params.sampling.steps} steps; "
        "a column is a prompt and its noise."
    )
    return Figure("pictures", figures.contact_sheet(rows, scale=0.68), caption)


# ---------------------------------------------------------------------------------------------- measures


def measures(results: Results) -> Table:
    """Every measure of every variant, with reference rows of real works."""
    measured = [name for name in MEASURES if (name, results.config.variants[0]) in results.values]
    rows: dict[str, dict[str, float]] = {}
    metrics: dict[str, Metric] = {}
    for cell in _cells(results):
        names = [name for name in measured if (name, cell) in results.values]
        rows[cell] = {name: results.whole[name, cell] for name in names}
        rows[cell]["fd less bias"] = results.interval("fd", cell).mean
        metrics |= {f"{name}/{cell}": Metric(results.interval(name, cell), results.n) for name in names}
    caption = (
        "Against held-out works, of all pictures of a row at once; fd on the evaluator's features; "
        f"{results.pictures_counted}. *untuned-X*: what X begins with; *again*: plain under other noise. "
        "*fd less bias*: the mean of pseudo-values, from which the bias of few pictures is taken; all changes below "
        "are of such means, for each measure, and not differences of the other columns. "
        "Lower is nearer for fd, kid, pr and psd."
    )
    columns = ["fd", "fd less bias", *measured[1:]]
    return Table("measures", pd.DataFrame(rows).T.rename_axis("pictures")[columns], caption, metrics)


def _cells(results: Results) -> list[str]:
    """Real works, then variants, each plain one after what it began with, and plain under different noise."""
    pairs = [(untuned(name), name) for name in results.config.variants]
    generated = [cell for pair in pairs for cell in pair if cell in results.generated]
    return [REAL, RECONSTRUCTED, *generated, *([AGAIN] if AGAIN in results.generated else [])]


# ---------------------------------------------------------------------------------------------- changes


def changes(results: Results) -> list[Item]:
    """Each variant against the plain one of its kind and age, as a figure and a table; nothing without a pair."""
    pairs = _pairs(results)
    if not pairs:
        return []
    metrics = {
        f"change/fd/{name}": Metric(results.change("fd", name, reference), results.n)
        for name, reference in pairs.items()
    }
    rows = {
        name: {"against": reference}
        | {
            measure: change_text(results.change(measure, name, reference), 2)
            for measure in CHANGES
            if (measure, name) in results.values
        }
        for name, reference in pairs.items()
    }
    caption = f"Changes; {INTERVALS}; *alike*: the same in each group; {results.pictures_counted}."
    frame = pd.DataFrame(rows).T.rename_axis("variant").fillna("")
    return [_change_figure(results, pairs), Table("changes", frame, caption, metrics)]


def _pairs(results: Results) -> dict[str, str]:
    """Variants and the plain ones that they are compared with."""
    pairs = {name: results.config.plain_of(name) for name in results.config.variants}
    return {name: reference for name, reference in pairs.items() if reference is not None and reference != name}


def _change_figure(results: Results, pairs: Mapping[str, str]) -> Figure:
    """Changes of fd in per cent of the plain variant's, and what noise alone changes."""
    rows = {name: _per_cent(results, name, reference) for name, reference in pairs.items()}
    if AGAIN in results.generated:
        rows["plain, other noise"] = _per_cent(results, AGAIN, PLAIN)
    caption = (
        "Change of fd against plain of the same kind and age, in per cent of its fd less bias; "
        f"{INTERVALS}; {results.pictures_counted}."
    )
    return Figure("changes", figures.dots(pd.DataFrame(rows).T, "change of fd (% of plain's)", 0.0), caption)


def _per_cent(results: Results, cell: str, reference: str) -> dict[str, float]:
    change, scale = results.change("fd", cell, reference), results.interval("fd", reference).mean
    return {"value": 100 * change.mean / scale, "low": 100 * change.low / scale, "high": 100 * change.high / scale}


# ---------------------------------------------------------------------------------------------- frequencies


def spectra(results: Results) -> list[Figure]:
    """Power of the main variants over held-out works' power, and over the plain variant's."""
    frequency, real = (_rings(results, cell)[0] for cell in ("frequency", "held-out"))
    rings = {cell: _rings(results, cell) for cell in _drawn(results)}
    caption = f"Power over held-out works'; 95 % intervals over groups; {results.pictures_counted}."
    over_real = figures.spectral_ratios({cell: list(power / real) for cell, power in rings.items()}, frequency)
    shown = [Figure("spectra", over_real, caption)]
    over_plain = {name: list(rings[name] / rings[PLAIN]) for name in _compared_with_plain(results)}
    if over_plain:
        figure = figures.spectral_ratios(over_plain, frequency)
        figure.axes[0].set_yscale("linear")
        figure.axes[0].set_ylabel("power over plain's power")
        caption = f"Power over that of *plain*, group by group; 95 % intervals over groups; {results.pictures_counted}."
        shown.append(Figure("spectra_over_plain", figure, caption))
    return shown


def _rings(results: Results, cell: str) -> FloatArray:
    """Mean power by rings, (groups, rings), without the mean."""
    table = results.spectra[results.spectra["cell"] == cell].sort_values("group")
    power: FloatArray = table.filter(like="ring").to_numpy(dtype=np.float64)[:, 1:]
    return power


def _drawn(results: Results) -> list[str]:
    """The base and the main variants."""
    return [cell for cell in (untuned(PLAIN), *results.compared) if cell in results.generated]


def _compared_with_plain(results: Results) -> list[str]:
    return [name for name in results.compared if name != PLAIN] if PLAIN in results.compared else []


def bands(results: Results) -> Table:
    """Errors and excess of log power by band of frequencies, and what each main variant changes of plain's."""
    changed = _compared_with_plain(results)
    rows: dict[str, dict[str, str]] = {}
    metrics: dict[str, Metric] = {}
    for band, label in BANDS.items():
        rows[label] = {cell: f"{results.interval(band, cell).mean:.3f}" for cell in _drawn(results)}
        intervals: dict[str, Interval] = {name: results.change(band, name, PLAIN) for name in changed}
        rows[label] |= {f"{name} less plain": change_text(interval, 2) for name, interval in intervals.items()}
        metrics |= {f"change/{band}/{name}": Metric(interval, results.n) for name, interval in intervals.items()}
    caption = f"{INTERVALS}; {results.pictures_counted}."
    return Table("bands", pd.DataFrame(rows).T.rename_axis("band"), caption, metrics)
