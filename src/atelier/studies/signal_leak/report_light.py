"""Brightness and colour: how varied pictures are from each kind of first latent, and what the prompt says of light."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from atelier.data import prepare
from atelier.data.pictures import Pictures
from atelier.report import figures, words
from atelier.report.browser import Browsed, by_path, on_sheets
from atelier.report.items import Browser, Figure, Table
from atelier.sampling import store
from atelier.studies.signal_leak.measure import REAL, RETURNED, light
from atelier.studies.signal_leak.report_results import (
    Results,
    conditions,
    measured_of,
    of_natural,
    whole,
)
from atelier.studies.signal_leak.sample import LIGHTS, NATURAL, RANDOM, all_conditions, condition_of, location_of

COLUMNS = 10  # pictures a row of the sheet
TILES = 180  # of the browser of natural pictures; the style's has the others
FREQUENCY = f"low-{RANDOM}"  # the leak with the paper's N
RATIOS = {"luminance_ratio": "mean luminance", "contrast_ratio": "contrast", "channel_ratio": "latents' channel means"}
SPREADS = ["luminance_spread", "contrast_spread", "colour_spread", "channel_spread"]
DISTANCES = ["luminance_w1", "contrast_w1", "colour_w1", "channel_w1", "kd", "kd_haar", "fd"]
DIVERSITY = ["luminance", "contrast", *RATIOS, *SPREADS, *DISTANCES, "clip", "subject"]


def labels(results: Results) -> dict[str, str]:
    """Conditions with guidance and prompts for natural pictures -> what a reader calls them."""
    config = results.config
    names = {"white": "white noise", "again": "other white noise", "offset": f"offset noise {config.offset:g}"}
    names |= {"pixel": "pixel leak", **{f"low-{n}": f"frequency leak, N = {n}" for n in config.frequencies}}
    names |= {name: f"tuned: {name}" for name in of_natural(config)}
    guided = [
        condition.name
        for condition in all_conditions(results.params)
        if condition.topic == NATURAL and condition.guided
    ]
    return {name: names[name] for name in guided}


def _real(results: Results) -> Pictures:
    return prepare.pictures(results.natural, results.params.data, results.workspace, results.kind)


def _prompts(results: Results) -> int:
    return int(store.listed(_folders(results, "white"))["prompt"].nunique())


def _folders(results: Results, name: str) -> list[Path]:
    """Where a condition's pictures are."""
    params = results.params
    located = location_of(params, condition_of(params, name))
    return located.folders(results.workspace.samples, params.protocol.training_seeds)


def browser(results: Results) -> Browser:
    """Pictures from every kind of first latent beside those from white noise, and the real ones."""
    named = labels(results)  # of which "again" has other noise
    shown = [name for name in dict.fromkeys(("white", FREQUENCY, *named)) if name in named and name != "again"]
    guidance = (f"{results.config.guidance:g}",)
    read = partial(prepare.pictures, data=results.params.data, workspace=results.workspace, kind=results.kind)
    browsed = Browsed(
        ["guidance"],
        {named[name]: {guidance: store.read(_folders(results, name))} for name in shown},
        f"the real {results.kind.removesuffix('s')}",
        by_path(results.natural, read),
    )
    said = "Down a column the prompt and the noise are the same; what leaks into the first latent is not."
    return on_sheets("browser", browsed, said, TILES)


def natural_sheet(results: Results) -> Figure:
    """Real pictures, evenly chosen, above the pictures of every condition with the same prompts and noise."""
    count = len(results.natural)
    chosen = results.natural.iloc[np.linspace(0, count - 1, COLUMNS).astype(int)].reset_index(drop=True)
    rows = {results.kind: prepare.pictures(chosen, results.params.data, results.workspace, results.kind).load()}
    rows |= {label: results.pictures(name, COLUMNS) for name, label in labels(results).items()}
    caption = f"Guidance {results.config.guidance:g}; above: {results.kind}; below: the first of each, unselected."
    return Figure("natural", figures.contact_sheet(rows), caption)


def luminance(results: Results) -> Figure:
    """Distributions of pictures' mean luminance."""
    named = labels(results)
    lights = {results.kind: light(_real(results))[:, 0]}
    for name in ("white", "pixel", FREQUENCY):
        lights[named[name]] = light(store.read(_folders(results, name))[0])[:, 0]
    caption = f"Mean luminance of pictures; {conditions(results)}, {_prompts(results)} prompts; "
    caption += f"all {results.kind} for comparison."
    axis = "mean luminance of a picture (0 black, 1 white)"
    return Figure("luminance", figures.densities(lights, axis), caption)


def _with_real(results: Results) -> dict[str, str]:
    """``labels``, and above them the reference rows."""
    return {REAL: "training split", RETURNED: "these, decoded", **labels(results)}


def spread(results: Results) -> Figure:
    """Spreads over pictures as ratios to real pictures', with intervals."""
    rows = {}
    for number, (ratio, group) in enumerate(RATIOS.items()):
        for name, label in _with_real(results).items():
            interval = results.interval(ratio, name)
            row = {"value": interval.mean, "low": interval.low, "high": interval.high, "group": group}
            rows[label + number * " "] = row  # trailing spaces keep equal labels of several groups apart
    figure = figures.dots(pd.DataFrame(rows).T, f"spread over that of {results.kind}", 1.0)
    caption = f"Standard deviations over pictures, 95 % intervals; 1: as {results.kind}; {conditions(results)}."
    return Figure("spread", figure, caption)


def diversity(results: Results) -> Table:
    """Brightness, variety and distances of every condition, beside real pictures."""
    named = _with_real(results)
    measures = measured_of(results, DIVERSITY, named)
    rows = {label: whole(results, measures, name) for name, label in named.items()}
    metrics = {
        f"{measure}/{name}": results.metric(results.interval(measure, name))
        for name in named
        for measure in measures
        if (measure, name) in results.values
    }
    held_out = int((results.natural["split"] == "test").sum())
    caption = f"Ratios: of standard deviations to those of all {results.kind}; "
    caption += "spreads: log ratio of variances (0: as varied; below 0: less varied); w1: distance between "
    caption += "distributions, of channels in standard deviations; kd, kd_haar, fd: distances to "
    caption += f"{held_out} held-out {results.kind}, larger for fewer pictures; "
    caption += f"{conditions(results)}, {_prompts(results)} prompts; each row measured on all its pictures at once."
    return Table("diversity", pd.DataFrame(rows).T.rename_axis("pictures")[measures], caption, metrics)


def prompted_light(results: Results) -> Table:
    """Mean luminance of dark and bright prompts, from white noise and with a leak drawn at random."""
    rows, metrics = {}, {}
    for label, end in {"white noise": "", f"frequency leak, N = {RANDOM}": "+leak"}.items():
        dark, bright = (f"{light}{end}" for light in LIGHTS)
        gap = results.difference("luminance", bright, dark)
        rows[label] = {
            f"'{results.config.dark}'": f"{results.values['luminance', dark].mean():.3f}",
            f"'{results.config.bright}'": f"{results.values['luminance', bright].mean():.3f}",
            "difference": words.signed(gap, ".3f"),
        }
        metrics[f"light/difference{end}"] = results.metric(gap)
    caption = f"Mean luminance; 95 % intervals; {conditions(results)}."
    return Table("light", pd.DataFrame(rows).T.rename_axis("first latent"), caption, metrics)
