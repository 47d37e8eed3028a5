"""Styles: a pixel leak with tuned and untuned denoisers, how few works it needs, and what it holds."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.evaluation.intervals import Interval
from atelier.methods.signal_leak import PixelLeak
from atelier.models.latents import decode
from atelier.report import figures, naming, words
from atelier.report.browser import Browsed, by_path, on_sheets
from atelier.report.items import Browser, Figure, Table, Text
from atelier.sampling import store
from atelier.studies.signal_leak.fit import ALL
from atelier.studies.signal_leak.measure import REAL, RETURNED
from atelier.studies.signal_leak.report_results import (
    Results,
    conditions,
    measured_of,
    of_styles,
    whole,
)
from atelier.studies.signal_leak.sample import condition_of, location_of
from atelier.studies.signal_leak.styles import HELD_OUT, TRAINING

COLUMNS = 8  # pictures a row of the sheet
TILES = 120  # of the browser of one style
CHANGE = "change of kd_haar"
STYLE = ["kd_haar", "kd", "fd_haar", "background", "style", "subject", "clip"]
UNMEASURED = Text("no style has the held-out works that a distance needs: nothing is measured here")


def style_sheet(results: Results) -> Figure | Text:
    """Pictures of every style: untuned with leak, words or both, and tuned without and with the leak."""
    if not results.config.styles:
        return Text(f"No style has {TRAINING} training and {HELD_OUT} held-out works: styles are left out.")
    rows: dict[str, Tensor] = {}
    for name in results.config.styles:
        cells = [f"plain-{name}+leak", f"words-{name}", f"words-{name}+leak"]
        cells += [f"tuned-{name}", f"tuned-{name}+leak"] if name in results.config.trained else []
        rows |= {cell: results.pictures(cell, COLUMNS) for cell in cells}
    caption = f"Unselected; guidance {results.config.guidance:g}; one column per prompt within a style."
    return Figure("styles", figures.contact_sheet(naming.rows(results.config.STUDY, rows), scale=0.62), caption)


def style_browser(results: Results) -> Browser | Text:
    """Pictures of one style with and without a leak beside those with its name alone: a tuned one, if there is one."""
    named = [*of_styles(results.config), *results.config.styles]
    if not results.config.styles:
        return Text("no style is shown side by side")
    name, params, workspace = named[0], results.params, results.workspace
    style = results.config.styles[name].replace("_", " ")
    cells = {f"words-{name}": f"the word {style}", f"words-{name}+leak": f"the word {style} and the leak"}
    cells |= {f"plain-{name}+leak": "the leak alone"}
    if name in results.config.trained:
        cells |= {f"tuned-{name}": f"tuned to {style}", f"tuned-{name}+leak": f"tuned to {style}, and the leak"}
        cells |= {f"tuned-{name}+leak-{n}": f"tuned, a leak of {n} works" for n in results.config.targets}
    guidance, seeds = (f"{results.config.guidance:g}",), params.protocol.training_seeds
    located = {cell: location_of(params, condition_of(params, cell)) for cell in cells}
    browsed = Browsed(
        ["guidance"],
        {cells[cell]: {guidance: store.read(each.folders(workspace.samples, seeds))} for cell, each in located.items()},
        "the real work",
        by_path(results.works, partial(prepare.pictures, data=params.data, workspace=workspace)),
    )
    return on_sheets("style_browser", browsed, "Down a column the work and the noise are the same.", TILES)


def _held_out(results: Results, style: str) -> int:
    return int(((results.works["art_style"] == style) & (results.works["split"] == "test")).sum())


def _compared(results: Results, name: str) -> dict[str, tuple[str, str | None]]:
    """A style's rows by label: the cell, and the one without a leak that it is compared with."""
    rows: dict[str, tuple[str, str | None]] = {
        "real works, training split": (f"{REAL}-{name}", None),
        "these, through the decoder": (f"{RETURNED}-{name}", None),
        "untuned, leak alone": (f"plain-{name}+leak", None),
        "untuned, words": (f"words-{name}", None),
        "untuned, words and leak": (f"words-{name}+leak", f"words-{name}"),
    }
    if name in results.config.trained:
        rows["tuned"] = (f"tuned-{name}", None)
        rows["tuned and leak"] = (f"tuned-{name}+leak", f"tuned-{name}")
    return rows


def style_distances(results: Results) -> Table | Text:
    """Distances to held-out works of each style, with and without a leak; styles with too few works are left out."""
    measures = [*STYLE[:4], *measured_of(results, STYLE[4:], [f"words-{name}" for name in results.config.styles])]
    rows, metrics = {}, {}
    for name, wanted in results.config.styles.items():
        for label, (cell, reference) in _compared(results, name).items():
            if ("kd_haar", cell) not in results.values:
                continue
            row: dict[str, object] = {**whole(results, measures, cell), "held-out works": _held_out(results, wanted)}
            if reference:
                change = results.difference("kd_haar", cell, reference)
                row[CHANGE] = words.signed(change)
                metrics[f"kd_haar/{cell}/change"] = results.metric(change)
            rows[wanted, label] = row
    if not rows:
        return UNMEASURED
    caption = f"kd_haar, fd_haar: low-level features, no network; {words.features(results.params)}; background: "
    caption += "distance of the mean colours of pictures' borders; style, subject: share of pictures in which "
    caption += f"the evaluator recognises what the prompt names; {conditions(results)}."
    frame = pd.DataFrame(rows).T.rename_axis(["style", "arm"]).fillna("")
    return Table("style", frame, caption, metrics)


# ------------------------------------------------------------------------------------------------ how few works


class Target(NamedTuple):
    """A leak fitted to so many works of a style that a denoiser is tuned to, and what it changes."""

    name: str
    works: int
    cell: str
    change: Interval  # of kd_haar, by the leak


def _targets(results: Results) -> Iterator[Target]:
    """Every number of works of each tuned style, the last all of its training split."""
    for name in of_styles(results.config):
        if ("kd_haar", f"tuned-{name}") not in results.values:
            continue  # too few held-out works
        of_style = results.works["art_style"] == results.config.models[name].style
        every = int((of_style & (results.works["split"] == "train")).sum())
        cells = [(works, f"tuned-{name}+leak-{works}") for works in results.config.targets]
        for works, cell in [*cells, (every, f"tuned-{name}+leak")]:
            yield Target(name, works, cell, results.difference("kd_haar", cell, f"tuned-{name}"))


def _targets_caption(results: Results) -> str:
    caption = "Works that a leak is fitted to, the last all of a style's training split; 95 % intervals; "
    return f"{caption}{conditions(results)}."


def targets(results: Results) -> Table | Text:
    """Change of kd_haar by a leak of few works and of many."""
    rows, metrics = {}, {}
    for target in _targets(results):
        rows[target.name, target.works] = {CHANGE: words.signed(target.change)}
        metrics[f"kd_haar/{target.cell}/change"] = results.metric(target.change)
    if not rows:
        return UNMEASURED
    frame = pd.DataFrame(rows).T.rename_axis(["style", "works"])
    return Table("targets", frame, _targets_caption(results), metrics)


def target_changes(results: Results) -> Figure | Text:
    """The numbers of ``targets`` with their intervals."""
    rows = {
        f"{name}, {works} works": {"value": change.mean, "low": change.low, "high": change.high, "group": name}
        for name, works, _, change in _targets(results)
    }
    if not rows:
        return UNMEASURED
    figure = figures.dots(pd.DataFrame(rows).T, f"{CHANGE} by the leak", 0.0)
    return Figure("targets", figure, _targets_caption(results))


# ------------------------------------------------------------------------------------------------ pixel models


def _pixel_models(results: Results) -> dict[str, PixelLeak]:
    """The pixel model of every style of the data, of all its training works."""
    start = f"{ALL}-"
    leaks = {name.removeprefix(start): leak for name, leak in sorted(results.leaks.items()) if name.startswith(start)}
    return {name: leak for name, leak in leaks.items() if isinstance(leak, PixelLeak)}


def pixel_models(results: Results) -> Figure:
    """Styles' pixel models, decoded: mean, and one standard deviation less and more."""
    rows = {}
    for name, leak in _pixel_models(results).items():
        latents = np.stack([leak.mean - leak.std, leak.mean, leak.mean + leak.std])
        rows[name] = to_pixels(decode(results.vae, torch.from_numpy(latents).float()))
    figure = figures.contact_sheet(rows, ["mean - std", "mean", "mean + std"], scale=0.9)
    return Figure("maps", figure, "Pixel models of styles, decoded; n in the table.")


def shifts(results: Results) -> Table:
    """How far styles' pixel models lie from that of natural pictures."""
    reference = results.leaks["pixel"]
    assert isinstance(reference, PixelLeak)
    rows = {
        name: {
            "n": leak.n,
            "shift": float(((leak.mean - reference.mean) ** 2).mean() / (reference.std**2).mean()),
            "std over natural": float(leak.std.mean() / reference.std.mean()),
        }
        for name, leak in _pixel_models(results).items()
    }
    frame = pd.DataFrame(rows).T.sort_values("shift", ascending=False).rename_axis("style")
    return Table("shifts", frame, "Styles' pixel models; n: works each is fitted to.")
