"""Pictures after post-training: beside each other, measures, changes by the loss, spectra."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from atelier.data import prepare
from atelier.evaluation.groups import FURTHER_DISTANCES, FURTHER_SHARES
from atelier.evaluation.intervals import FloatArray, Interval
from atelier.report import figures, words
from atelier.report.browser import on_sheets
from atelier.report.items import Browser, Figure, Item, Metric, Table
from atelier.studies.latent_perceptual.measure import real_cells
from atelier.studies.latent_perceptual.params import AGAIN, PLAIN, again, corrected, untuned
from atelier.studies.latent_perceptual.report_results import INTERVALS, Results, change_text

MEASURES = (
    *("fd", "fd_mean", "fd_rec", "kd", "precision", "recall", "density", "coverage", "clip", "pr", "pr_rec"),
    *("psd", "psd_rec", "style", "subject", "clipscore", *FURTHER_DISTANCES, *FURTHER_SHARES),
)
CHANGES = ("fd", "precision", "recall", "coverage", "clip")
BANDS = {
    "high": "error of log10 power above 0.29 cycles a pixel",
    "middle": "error from 0.15 to 0.29",
    "low": "error below 0.15",
    "top": "log10 power above 0.29, over real",
    "bottom": "log10 power up to 2 cycles a picture, over real",
}


def browser(results: Results) -> Browser:
    """Pictures of every main variant beside the base's."""
    said = f"{results.params.sampling.steps} steps; down a column the prompt and the noise are the same."
    return on_sheets("browser", results.browsed, said)


# ---------------------------------------------------------------------------------------------- measures

READ = (
    "Of all pictures of a row at once. *untuned-X*: what X begins with; *again*: plain "
    "under other noise. *fd less bias*: the mean of pseudo-values, from which the bias of few pictures is taken; all "
    "changes are of such means, for each measure, and not differences of the other columns. "
    "Lower is nearer for fd, kd, pr and psd."
)


def measures(results: Results) -> list[Table]:
    """Every measure of every variant from white noise, and of the main ones from the corrected start."""
    variants = results.of_photographs
    seen = words.features(results.params)
    white = [*_real(results, results.noun), *_cells(results, variants)]
    shown = [_measures(results, "measures", white, f"From white noise; {results.counted(variants)}; {seen}. {READ}")]
    main = [corrected(cell) for cell in _cells(results, results.compared)]
    cells = [cell for cell in main if cell in results.generated]
    if cells:
        caption = f"From noise with the leak of training {results.noun}; {results.pictures_counted}; {seen}. {READ}"
        shown.append(_measures(results, "measures_corrected", cells, caption))
    return shown


def _measures(results: Results, name: str, cells: Sequence[str], caption: str) -> Table:
    """A table of every measure that any of these cells has."""
    measured = [name for name in MEASURES if any((name, cell) in results.values for cell in cells)]
    rows: dict[str, dict[str, float]] = {}
    metrics: dict[str, Metric] = {}
    for cell in cells:
        names = [name for name in measured if (name, cell) in results.values]
        rows[cell] = {name: results.whole[name, cell] for name in names}
        rows[cell]["fd less bias"] = results.interval("fd", cell).mean
        metrics |= {f"{name}/{cell}": Metric(results.interval(name, cell), results.n_of(cell, name)) for name in names}
    columns = ["fd", "fd less bias", *measured[1:]]
    return Table(name, pd.DataFrame(rows).T.rename_axis("pictures")[columns], caption, metrics)


def _real(results: Results, kind: str) -> list[str]:
    """Reference rows: the training split, and both splits reconstructed."""
    return [cell for cell in real_cells(kind) if ("fd", cell) in results.values]


def _cells(results: Results, variants: Sequence[str]) -> list[str]:
    """Variants from white noise, each plain one after what it began with, and plain ones under different noise."""
    pairs = [cell for name in variants for cell in (untuned(name), name)]
    return [cell for cell in (*pairs, *map(again, variants)) if cell in results.generated]


# ---------------------------------------------------------------------------------------------- changes


def changes(results: Results) -> list[Item]:
    """Each variant against the plain one of its kind and age, as a figure and a table; nothing without a pair."""
    pairs = _pairs(results, results.of_photographs)
    if not pairs:
        return []
    return [_change_figure(results, pairs), _changes(results, "changes", pairs)]


def _changes(results: Results, name: str, pairs: Mapping[str, str]) -> Table:
    """Changes from white noise, and changes of fd from the corrected start."""
    rows, metrics = {}, {}
    for changed, reference in pairs.items():
        known = [measure for measure in CHANGES if (measure, changed) in results.values]
        row = {measure: change_text(results.change(measure, changed, reference), 2) for measure in known}
        metrics[f"change/fd/{changed}"] = Metric(results.change("fd", changed, reference), results.n_of(changed))
        if ("fd", corrected(changed)) in results.values:
            interval = results.change("fd", corrected(changed), corrected(reference))
            row["fd, corrected start"] = change_text(interval, 2)
            metrics[f"change/fd/{corrected(changed)}"] = Metric(interval, results.n_of(changed))
        rows[changed] = {"against": reference} | row
    caption = (
        f"Changes, from white noise but for the last column; {INTERVALS}; *alike*: the same in each group; "
        f"{results.counted([*pairs])}."
    )
    return Table(name, pd.DataFrame(rows).T.rename_axis("variant").fillna(""), caption, metrics)


def _pairs(results: Results, variants: Sequence[str]) -> dict[str, str]:
    """Variants and the plain ones that they are compared with."""
    pairs = {name: results.config.plain_of(name) for name in variants}
    return {name: reference for name, reference in pairs.items() if reference is not None and reference != name}


def _change_figure(results: Results, pairs: Mapping[str, str]) -> Figure:
    """Changes of fd in per cent of the plain variant's, and what noise alone changes."""
    rows = {name: per_cent(results, name, reference) for name, reference in pairs.items()}
    if AGAIN in results.generated:
        rows["plain, other noise"] = per_cent(results, AGAIN, PLAIN)
    listed = {name: {"value": each.mean, "low": each.low, "high": each.high} for name, each in rows.items()}
    caption = (
        "Change of fd against plain of the same kind and age, from white noise, in per cent of its fd less bias; "
        f"{INTERVALS}; {results.counted([*pairs])}."
    )
    return Figure("changes", figures.dots(pd.DataFrame(listed).T, "change of fd (% of plain's)", 0.0), caption)


def per_cent(results: Results, cell: str, reference: str) -> Interval:
    """A change of fd in per cent of the reference's mean."""
    change, scale = results.change("fd", cell, reference), results.interval("fd", reference).mean
    return change._replace(mean=100 * change.mean / scale, low=100 * change.low / scale, high=100 * change.high / scale)


# ---------------------------------------------------------------------------------------------- works


def on_works(results: Results) -> list[Table]:
    """The same two tables of the variants that learn works; nothing where the profile trains none."""
    variants = results.of_works
    if not variants:
        return []
    white = _cells(results, variants)
    both = [cell for each in white for cell in (each, corrected(each)) if cell in results.generated]
    caption = f"Variants that learn works, from white noise and from the corrected start; {results.counted(variants)}. "
    cells = [*_real(results, prepare.WORKS), *both]
    shown = [_measures(results, "measures_works", cells, caption + READ)]
    pairs = _pairs(results, variants)
    return [*shown, _changes(results, "changes_works", pairs)] if pairs else shown


# ---------------------------------------------------------------------------------------------- frequencies


def spectra(results: Results) -> list[Figure]:
    """Power of the main variants over held-out pictures' power, and over the plain variant's."""
    frequency, real = (_rings(results, cell)[0] for cell in ("frequency", f"held-out {results.noun}"))
    rings = {cell: _rings(results, cell) for cell in _drawn(results)}
    caption = f"Power over held-out {results.noun}'; 95 % intervals over groups; {results.pictures_counted}."
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
        pairs = {name: (corrected(name), corrected(PLAIN)) for name in changed}
        rows[label] |= {
            f"{name} less plain, corrected": change_text(results.change(band, *pair), 2)
            for name, pair in pairs.items()
            if all((band, cell) in results.values for cell in pair)
        }
        metrics |= {f"change/{band}/{name}": Metric(interval, results.n) for name, interval in intervals.items()}
    caption = f"{INTERVALS}; {results.pictures_counted}."
    return Table("bands", pd.DataFrame(rows).T.rename_axis("band"), caption, metrics)
