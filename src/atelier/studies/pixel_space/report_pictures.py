"""Pictures after post-training: beside each other, measures, changes, defects by kind, both starts, the sweep."""

from collections.abc import Sequence

import pandas as pd

from atelier.evaluation.groups import FURTHER_DISTANCES, FURTHER_SHARES
from atelier.evaluation.intervals import Interval
from atelier.report import figures, words
from atelier.report.browser import on_sheets
from atelier.report.items import Browser, Figure, Item, Metric, Table, Text
from atelier.studies.pixel_space.measure import LEARNT_RETURNED, REAL, RETURNED
from atelier.studies.pixel_space.params import UNTUNED, PostTraining, corrected
from atelier.studies.pixel_space.report_results import BASELINE, DEFECTS, INTERVALS, Results, dotted, points, scaled

MEASURES = (
    *("defects", "high", "high_rec", "top", "fit", "style", "subject", "clip", "fd", "fd_rec", "kd"),
    *("precision", "recall", "density", "coverage", "pr_rec", "psd_rec"),
    *("clipscore", *FURTHER_DISTANCES, *FURTHER_SHARES),
)
SHOWN = (UNTUNED, "latent", "pixel", "both", "dpo-latent", "simpo-both")  # of whom defects are drawn
CHANGES = {  # measure -> its name, and the factor of its units
    "defects": ("defect score", 1.0),
    "high_rec": ("error of log10 power above half Nyquist", 1.0),
    "top": ("log10 power there over real", 1.0),
    "fit": ("log-probability of the style", 1.0),
    "style": ("style as prompted (points)", 100.0),
    "subject": ("subject as prompted (points)", 100.0),
}
AGAINST = (  # changed, reference
    ("latent", UNTUNED),
    *(("both", reference) for reference in ("latent", "pixel", "both-clean", "latent-longer")),
    ("pixel", "latent"),
    ("both-v", "latent-v"),
    ("dpo-latent", UNTUNED),
    *((f"dpo-{terms}", "dpo-latent") for terms in ("pixel", "both")),
    ("simpo-latent", "dpo-latent"),
    *((f"simpo-{terms}", "simpo-latent") for terms in ("pixel", "both")),
    ("simpo-both", "dpo-latent"),
)
READ = (
    "Of all pictures of a row at once; *real*: the works that are learnt, *returned*: held-out ones, reconstructed, "
    "*real-returned*: those that are learnt, reconstructed. The floor of a distance to works is *returned*, of one to "
    "reconstructed works (*_rec*) *real-returned*: both have passed through the decoder. "
    "*defects*: the measuring judge's score, the sum of six strengths; *high*: error of log10 power above half the "
    "Nyquist frequency, in either direction, *high_rec* against reconstructed works; *top*: log10 power there over "
    "real, with its sign; *fit*: mean log-probability of the style. "
    "Lower is nearer for high, fd, kd, pr and psd."
)


def browser(results: Results) -> Browser:
    """Pictures of every main variant beside the base's."""
    said = f"{results.params.sampling.steps} steps; down a column the prompt and the noise are the same."
    return on_sheets("browser", results.browsed, said)


# ---------------------------------------------------------------------------------------------- measures


def measures(results: Results) -> list[Table]:
    """Every measure of every cell, from white noise and from the corrected start."""
    white, read = results.cells(), f"{results.counted}; {words.features(results.params)}. {READ}"
    shown = [_measures(results, "measures", [*_works(results), *white], f"From white noise; {read}")]
    moved = [corrected(cell) for cell in white if results.has(DEFECTS, corrected(cell))]
    if moved:
        caption = f"From noise with the leak of training works; {read}"
        shown.append(_measures(results, "measures_corrected", moved, caption))
    return shown


def _works(results: Results) -> list[str]:
    """Rows of works: learnt ones, held-out ones reconstructed, and learnt ones reconstructed."""
    return [cell for cell in (REAL, RETURNED, LEARNT_RETURNED) if results.has(DEFECTS, cell)]


def _measures(results: Results, name: str, cells: Sequence[str], caption: str) -> Table:
    measured = [each for each in MEASURES if any(results.has(each, cell) for cell in cells)]
    rows: dict[str, dict[str, float]] = {}
    metrics: dict[str, Metric] = {}
    for cell in cells:
        names = [each for each in measured if results.has(each, cell)]
        rows[cell] = {each: results.whole[each, cell] for each in names}
        metrics |= {f"{each}/{cell}": Metric(results.interval(each, cell), results.n_of(each, cell)) for each in names}
    return Table(name, pd.DataFrame(rows).T.rename_axis("pictures")[measured], caption, metrics)


def changes(results: Results) -> list[Table]:
    """What each variant changes of the one that it is compared with, from both starts; nothing without a pair."""
    pairs = [pair for pair in AGAINST if results.has(DEFECTS, *pair)]
    shown = []
    for name, start, move in (("changes", "white noise", str), ("changes_corrected", "the corrected start", corrected)):
        moved = [(move(a), move(b)) for a, b in pairs if results.has(DEFECTS, move(a), move(b))]
        if moved:
            shown.append(_changes(results, name, moved, f"Changes, from {start}; {INTERVALS}; {results.counted}."))
    return shown


def _changes(results: Results, name: str, pairs: Sequence[tuple[str, str]], caption: str) -> Table:
    rows, metrics = {}, {}
    for changed, reference in pairs:
        row = {}
        for measure, (label, factor) in CHANGES.items():
            if results.has(measure, changed, reference):
                change = scaled(results.change(measure, changed, reference), factor)
                row[label] = words.signed(change)
                metrics[f"change/{measure}/{changed}/{reference}"] = Metric(change, results.n_of(measure, changed))
        rows[f"{changed} less {reference}"] = row
    return Table(name, pd.DataFrame(rows).T.rename_axis("variants").fillna(""), caption, metrics)


# ---------------------------------------------------------------------------------------------- defects by kind


def defects(results: Results) -> list[Item]:
    """The measuring judge's strength of each defect, by cell; nothing where it says nothing of single ones."""
    cells = [*_works(results), *results.cells()]
    names = [name.removeprefix("defect_") for name in _single(results)]
    if not names:
        return []
    rows: dict[str, dict[str, str]] = {}
    metrics: dict[str, Metric] = {}
    for cell in cells:
        known = {
            name: results.interval(f"defect_{name}", cell) for name in names if results.has(f"defect_{name}", cell)
        }
        rows[cell] = {name: words.plus_minus(interval, "") for name, interval in known.items()}
        rows[cell]["all"] = words.plus_minus(results.interval(DEFECTS, cell), "")
        metrics |= {
            f"defect/{name}/{cell}": Metric(interval, results.n_of(f"defect_{name}", cell))
            for name, interval in known.items()
        }
    caption = (
        "Mean strength of each planted kind of defect, 0 to 1, as the measuring judge sees it, and their sum; from "
        f"white noise; {INTERVALS}; {results.counted}."
    )
    frame = pd.DataFrame(rows).T.rename_axis("pictures").fillna("")[[*names, "all"]]
    table = Table("defects", frame, caption, metrics)
    return [_defect_figure(results, [cell for cell in SHOWN if cell in cells], names), table]


def _single(results: Results) -> list[str]:
    """The measures of single defects."""
    return list(dict.fromkeys(name for name, _ in results.values if name.startswith("defect_")))


def _defect_figure(results: Results, cells: Sequence[str], names: Sequence[str]) -> Figure:
    """Each defect's strength for the base and the main variants."""
    listed = [
        (name, cell, results.interval(f"defect_{name}", cell))
        for name in names
        for cell in cells
        if results.has(f"defect_{name}", cell)
    ]
    figure = figures.dots(dotted(listed), "mean strength of the defect (0 to 1)")
    return Figure("defects", figure, f"By defect, from white noise; {INTERVALS}; {results.counted}.")


# ---------------------------------------------------------------------------------------------- subject and background


def inside_outside(results: Results) -> list[Item]:
    """Error of the spectrum inside and outside the subject; nothing where no painter says where that is."""
    areas = {"high_inside": "inside the subject", "high_outside": "outside it"}
    cells = results.cells("high_inside")
    if not cells:
        return []
    rows: dict[str, dict[str, str]] = {}
    listed: list[tuple[str, str, Interval]] = []
    metrics: dict[str, Metric] = {}
    for cell in cells:
        known = {area: results.interval(measure, cell) for measure, area in areas.items() if results.has(measure, cell)}
        listed += [(cell, area, each) for area, each in known.items()]
        rows[cell] = {area: words.plus_minus(each, "") for area, each in known.items()}
        metrics |= {f"{name}/{cell}": Metric(results.interval(name, cell), results.n_of(name, cell)) for name in areas}
    caption = (
        "Error of log10 power above half the Nyquist frequency against the same works reconstructed; held-out works "
        f"noised by {100 * results.config.strength:.3g} % of the sampler's steps and denoised, so that the painter's "
        f"mask of the subject holds; {INTERVALS}; n = {results.n_of('high_inside', cells[0])} works a row."
    )
    figure = figures.dots(dotted(listed), "error of log10 power")
    table = Table("inside_outside", pd.DataFrame(rows).T.rename_axis("variant").fillna(""), caption, metrics)
    return [Figure("inside_outside", figure, caption), table]


# ---------------------------------------------------------------------------------------------- sweep of the share


def sweep(results: Results) -> list[Item]:
    """What the pixel term's share of the gradient changes; nothing without three shares."""
    shares = _shares(results)
    wanted = {"defects": "defect score", "high_rec": "error of log10 power", "fit": "log-probability of the style"}
    measured = {name: label for name, label in wanted.items() if results.has(name, *shares.values())}
    if len(shares) < 3 or not measured:
        return []
    rows, metrics = [], {}
    for share, cell in shares.items():
        row: dict[str, float | str] = {"share": 100 * share, "terms": "both", "variant": cell}
        for name in measured:
            interval = results.interval(name, cell)
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
            metrics[f"sweep/{name}/{cell}"] = Metric(interval, results.n_of(name, cell))
        rows.append(row)
    figure = figures.curves(pd.DataFrame(rows), measured, "share", "terms", "pixel term's share of the gradient (%)")
    seeds = len(results.config.ablation_seeds)
    caption = f"By the pixel term's share, {seeds} training seeds but for *both*; {INTERVALS}; {results.counted}."
    return [Figure("sweep", figure, caption, metrics)]


def _shares(results: Results) -> dict[float, str]:
    """Supervised variants of both terms that differ in their share alone, by share."""
    main = results.config.trainings.get("both")
    known: dict[float, str] = {}
    for name, training in results.config.trainings.items():
        if main and _but_for_its_share(training, main) and results.has(DEFECTS, name):
            known.setdefault(training.share, name)
    return dict(sorted(known.items()))


def _but_for_its_share(training: PostTraining, main: PostTraining) -> bool:
    return training.model_copy(update={"share": main.share}) == main


def style_and_subject(results: Results) -> Table | Text:
    """Shares of pictures whose subject and style are recognised as prompted, beside the paper's alignment."""
    cells = results.cells("subject")
    if not cells:
        return Text("The data has no evaluator that recognises subjects and styles.")
    rows, metrics = {}, {}
    for cell in cells:
        row = {}
        for name in ("subject", "style"):
            if results.has(name, cell):
                share = points(results.interval(name, cell))
                row[f"{name} as prompted (%)"] = words.unsigned(share, ".3g")
                metrics[f"asked/{name}/{cell}"] = Metric(share, results.n_of(name, cell), "%")
        row["paper's text alignment (%)"] = _alignment(results, cell)
        rows[cell] = row
    caption = f"From white noise, by the evaluator; {INTERVALS}; {results.counted}. The paper's: answers by people."
    return Table("asked", pd.DataFrame(rows).T.rename_axis("pictures").fillna(""), caption, metrics)


def _alignment(results: Results, cell: str) -> str:
    """What the paper has for a cell, by model."""
    name, listed = BASELINE if cell == UNTUNED else cell, dict[str, float]()
    for side in ("a", "b"):
        mine = results.votes[(results.votes[side] == name) & results.votes[f"alignment_{side}"].notna()]
        listed |= {
            f"{row['model']}, {row['training']}" if name == BASELINE else row["model"]: row[f"alignment_{side}"]
            for _, row in mine.iterrows()
        }
    return "; ".join(f"{value:.1f} ({model})" for model, value in listed.items())
