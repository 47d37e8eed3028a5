"""Stage ``signal_leak-measure``: light and colour of every arm's pictures, their distances, what first latents decide.

It fills ``build/measures/signal_leak.csv``, a pseudo-value a measure, arm and group of repeats, for verdicts; and
``signal_leak_spectrum.csv``, the mean square of natural latents' coefficients by frequency and channel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from atelier import judges, machine, params, paths
from atelier.claims import Part
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.latents import decode
from atelier.evidence import FloatArray
from atelier.measures.sets import (
    MEASURES,
    SMALL,
    Group,
    Reference,
    group,
    measured,
    pseudo_rows,
    reference_alone,
    simple,
)
from atelier.measures.tables import combined
from atelier.methods.signal_leak import FrequencyLeak, first_step, frequency_snr, low_components, lowest_frequencies
from atelier.methods.signal_leak import load as load_leak
from atelier.metrics import kernel_distance
from atelier.metrics.features import opponent_colours
from atelier.models import base
from atelier.models.evaluator import Evaluator
from atelier.sampling.sampler import with_ddim
from atelier.sampling.signal_leak import COLOURS, FIRST_STEPS, LIGHTS, NATURAL, Arm, arms, scale_of
from atelier.sampling.store import read, read_latents
from atelier.training.base import spread
from atelier.training.leaks import BY_HAND, STUDY, encoded, lessons, natural

OUT, SPECTRUM = paths.MEASURES / "signal_leak.csv", paths.MEASURES / "signal_leak_spectrum.csv"
MOST = 4096  # real pictures of a kind that others are held against: as many as memory has room for at 512 px
LIGHT = ("luminance", "contrast", "red_green", "yellow_blue")
REAL, RETURNED = "real", "returned"  # reference rows: training pictures, and through the decoder
FIXED = [("nothing", "slope", 0.0), ("nothing", "obeys", 0.0), ("ideal", "rank", 1.0)]  # cells to compare others with
LOWEST, MEDIAN = "lowest-frequency", "median-frequency"
MIRRORED, LIGHT_GAP = "white-mirrored", "bright-less-dark"


class Lit(NamedTuple):
    """Light of some pictures, a row each: ``LIGHT``, then the means of their latents' channels."""

    light: FloatArray  # (n, 4)
    channels: FloatArray  # (n, c)


def light(pictures: Tensor) -> FloatArray:
    """Mean luminance, its standard deviation over pixels, and two mean opponent colours, (n, 4), of uint8 pictures."""
    opponent = opponent_colours(pictures.double().numpy() / 255)
    opponent[:, 0] /= 3**0.5  # of grey from 0 to 1
    means = opponent.mean(axis=(2, 3))
    return np.column_stack([means[:, 0], opponent[:, 0].std(axis=(1, 2)), means[:, 1:]])


def spread_measures(real: Lit, made: Lit) -> dict[str, float]:
    """Means; variances over pictures against the real ones', as log ratio; distances of distributions.

    A spread of 0: as varied as real pictures; below: less. It has its sign, because pseudo-values of an absolute value
    mislead where it is near 0. Ratios are of standard deviations. Of several channels or colours: means of all these;
    channels' distances in standard deviations of real ones.
    """
    ratios = np.log(made.light.var(axis=0, ddof=1) / real.light.var(axis=0, ddof=1))
    channels = np.log(made.channels.var(axis=0, ddof=1) / real.channels.var(axis=0, ddof=1))
    apart = [wasserstein_distance(a, b) for a, b in zip(real.light.T, made.light.T, strict=True)]
    deviation = real.channels.std(axis=0, ddof=1)
    channels_apart = [
        wasserstein_distance(a, b)
        for a, b in zip((real.channels / deviation).T, (made.channels / deviation).T, strict=True)
    ]
    return {
        "luminance": float(made.light[:, 0].mean()),
        "contrast": float(made.light[:, 1].mean()),
        "luminance_ratio": float(np.exp(ratios[0] / 2)),
        "contrast_ratio": float(np.exp(ratios[1] / 2)),
        "channel_ratio": float(np.exp(channels.mean() / 2)),
        "luminance_spread": float(ratios[0]),
        "contrast_spread": float(ratios[1]),
        "colour_spread": float(ratios[2:].mean()),
        "channel_spread": float(channels.mean()),
        "luminance_w1": float(apart[0]),
        "contrast_w1": float(apart[1]),
        "colour_w1": float(np.mean(apart[2:])),
        "channel_w1": float(np.mean(channels_apart)),
    }


def border_colour(made: Group) -> FloatArray:
    """Mean red, green and blue, 0 to 1, of the outer eighth of pictures: what lies behind their subjects."""
    maps = made.small.mean(axis=0).reshape(3, SMALL, SMALL)
    edge = np.ones((SMALL, SMALL), dtype=bool)
    edge[SMALL // 8 : -SMALL // 8, SMALL // 8 : -SMALL // 8] = False
    return maps[:, edge].mean(axis=1)


def together(parts: Sequence[Lit]) -> Lit:
    return Lit(*(np.concatenate(of) for of in zip(*parts, strict=True)))


class References(NamedTuple):
    """What arms are measured against.

    ``by_asked``: held-out pictures of what was asked for, where there are two or more. ``lit``: the light of all that
    is natural: a spread needs many (leaks know a part of them). ``scale``: mean and standard deviation of training
    pictures' Haar statistics, so that each counts alike.
    """

    by_asked: dict[str, Reference]
    lit: Lit
    truth: pd.DataFrame
    scale: tuple[FloatArray, FloatArray]


def references(asked: params.Params, model: Evaluator | None) -> References:
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    works = prepare.works().table
    table, kind = natural(prepare.photographs().table, works)
    truth = pd.concat([prepare.with_truth(each) for each in (works, table)]).drop_duplicates("path").set_index("path")
    table = table.iloc[spread(len(table), MOST)].reset_index(drop=True)
    pictures = prepare.pictures(table, asked.data, kind)
    lit = Lit(light(pictures), np.concatenate([channel_means(z) for z in encoded(asked, vae, table, kind)]))
    held_out = {NATURAL: pictures[(table["split"] == "test").to_numpy().nonzero()[0]]}
    for name, style in asked.signal_leak.styles.items():
        own = works[(works["art_style"] == style) & (works["split"] == "test")]
        held_out[name] = prepare.pictures(own, asked.data)
    found = {name: reference_alone(group(of, model)) for name, of in held_out.items() if len(of) >= 2}
    lessons_of_art = works.query("split == 'train'")
    art = prepare.pictures(lessons_of_art.iloc[spread(len(lessons_of_art), MOST)], asked.data)
    haar = group(torch.cat([pictures, art]), None).haar
    return References(found, lit, truth, (haar.mean(axis=0), haar.std(axis=0) + 1e-12))


def channel_means(latents: Tensor) -> FloatArray:
    found: FloatArray = latents.mean((2, 3)).double().numpy()
    return found


def rows_of(
    asked_for: str, pictures: Tensor, latents: Tensor, table: pd.DataFrame, groups: Sequence[Sequence[int]],
    against: References, model: Evaluator | None,
) -> pd.DataFrame:  # fmt: skip
    """A row a measure of pictures in groups; ``table``: repeat, prompt, path, a row each ("" for no prompt)."""
    parts: list[Group] = []
    lit: list[Lit] = []
    for repeats in groups:
        those = table["repeat"].isin(repeats).to_numpy().nonzero()[0]
        rows = table.iloc[those]
        asked_in_words = (rows["prompt"] != "").all() and (rows["path"] != "").all()
        wanted = against.truth.loc[rows["path"]] if asked_in_words else None
        parts.append(group(pictures[those], model, list(rows["prompt"]), wanted))
        lit.append(Lit(light(pictures[those]), channel_means(latents[those])))
    found = [pd.DataFrame()]
    if asked_for in against.by_asked:
        mean, deviation = against.scale

        def distances(reference: Reference, made: Group) -> dict[str, float]:
            real, ours = ((each.haar - mean) / deviation for each in (reference.held_out, made))
            # unbiased however few the held-out works of a style are, which a Frechet distance is not
            haar = {"kid_haar": kernel_distance(real, ours), "fd_haar": MEASURES["fd_haar"](reference, made)}
            apart = np.linalg.norm(border_colour(reference.held_out) - border_colour(made))
            return haar | {"background": float(apart)} | simple(reference, made)

        found.append(measured(against.by_asked[asked_for], parts, distances))
    if asked_for in (NATURAL, *LIGHTS):

        def spreads(some: list[int]) -> dict[str, float]:
            return spread_measures(against.lit, together([lit[at] for at in some]))

        found.append(pseudo_rows(spreads, len(groups), len(pictures)))
    return pd.concat(found, ignore_index=True)


def arm_rows(asked: params.Params, arm: Arm, against: References, model: Evaluator | None) -> pd.DataFrame:
    place = (STUDY, arm.name, scale_of(asked, arm))
    pictures, table = read(*place)
    groups = asked.art_finetuning.groups
    return rows_of(arm.asked, pictures, read_latents(*place), table, groups, against, model).assign(cell=arm.name)


def reference_rows(asked: params.Params, against: References, model: Evaluator | None) -> pd.DataFrame:
    """What real pictures measure: training ones of each kind, and the same through the decoder."""
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    groups, found = asked.art_finetuning.groups, []
    for name in (NATURAL, *asked.signal_leak.styles):
        table, kind = lessons(asked, asked.signal_leak.styles.get(name))
        most = asked.signal_leak.pictures * asked.art_finetuning.repeats  # as many as an arm has
        table = table.iloc[spread(len(table), min(len(table), most))].reset_index(drop=True)
        latents = torch.cat(list(encoded(asked, vae, table, kind)))
        sets = {REAL: prepare.pictures(table, asked.data, kind), RETURNED: to_pixels(decode(vae, latents))}
        listed = pd.DataFrame(
            {"repeat": np.arange(len(table)) % asked.art_finetuning.repeats, "prompt": "", "path": ""}
        )
        for label, pictures in sets.items():
            cell = label if name == NATURAL else f"{label}-{name}"
            found.append(rows_of(name, pictures, latents, listed, groups, against, model).assign(cell=cell))
    return pd.concat(found, ignore_index=True)


def slopes(table: pd.DataFrame, x: str, y: str) -> FloatArray:
    """Slope of y on x within each channel, (c,), by least squares."""
    centred = table[[x, y]] - table.groupby("channel")[[x, y]].transform("mean")
    both, square = (centred[name] * centred[x] for name in (y, x))
    found: FloatArray = (both.groupby(table["channel"]).sum() / square.groupby(table["channel"]).sum()).to_numpy()
    return found


def first_step_rows(asked: params.Params) -> pd.DataFrame:
    """Median slope over channels: of the mean that a model sees at its first step, on the first latent's own mean.

    ``MODEL-shuffled``: on the mean of another first latent of the same repeat, where there is nothing to find.
    """
    table, groups, found = pd.read_csv(paths.SAMPLES / STUDY / FIRST_STEPS), asked.art_finetuning.groups, []
    for model, rows in table.groupby("model", sort=False):
        others = rows.groupby(["channel", "repeat"])["first"].transform(lambda means: np.roll(means, 1))
        for cell, those in {f"{model}": rows, f"{model}-shuffled": rows.assign(first=others)}.items():

            def measure(some: list[int], those: pd.DataFrame = those) -> dict[str, float]:
                own = those[those["repeat"].isin([repeat for at in some for repeat in groups[at]])]
                return {"slope": float(np.median(slopes(own, "first", "said")))}

            n = int((rows["channel"] == 0).sum())
            found.append(pseudo_rows(measure, len(groups), n).assign(cell=cell))
    return pd.concat(found, ignore_index=True)


def colours(asked: params.Params) -> pd.DataFrame:
    """Of each picture with a channel's mean set by hand: value set, mean made (both in that mean's spread), colour."""
    guidance = asked.signal_leak.guidance
    pictures, table = read(STUDY, COLOURS, guidance)
    means = channel_means(read_latents(STUDY, COLOURS, guidance))
    red, green, blue = (pictures.double() / 255).mean((2, 3)).numpy().T
    channel = table["channel"].to_numpy()
    leak, _ = load_leak(paths.LEAKS / f"{BY_HAND}.safetensors")
    assert isinstance(leak, FrequencyLeak)
    spread = leak.low_covariance.diagonal() ** 0.5 / np.prod(leak.rest.mean.shape[1:]) ** 0.5  # of means
    made = means[np.arange(len(table)), channel] / spread[channel]
    return table.assign(made=made, red=red, green=green, blue=blue)


def colour_rows(asked: params.Params) -> pd.DataFrame:
    """Least slope and rank correlation over channels, of the mean made on the mean set."""
    table, groups = colours(asked), asked.art_finetuning.groups

    def measure(some: list[int]) -> dict[str, float]:
        own = table[table["repeat"].isin([repeat for at in some for repeat in groups[at]])]
        rows = own.groupby(["channel", "value"])["made"].mean().reset_index()  # prompts have their own colours
        ranks = [float(of["value"].corr(of["made"], method="spearman")) for _, of in rows.groupby("channel")]
        return {"obeys": float(slopes(rows, "value", "made").min()), "rank": min(ranks)}

    return pseudo_rows(measure, len(groups), len(table)).assign(cell=COLOURS)


def fixed_rows(asked: params.Params) -> pd.DataFrame:
    """``nothing`` depends on nothing, ``ideal`` is in perfect order."""
    columns = ["whole", *(f"group{at}" for at in range(len(asked.art_finetuning.groups)))]
    rows = [{"cell": cell, "measure": name, "n": 0, **dict.fromkeys(columns, value)} for cell, name, value in FIXED]
    return pd.DataFrame(rows)


def spectrum(asked: params.Params) -> pd.DataFrame:
    """Mean squares of natural training pictures' latents by frequency and channel; a value a group of pictures."""
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    groups = len(asked.art_finetuning.groups)
    n, sums = np.zeros(groups, int), None
    for batch in encoded(asked, vae, *lessons(asked, None)):
        z = batch.double().numpy()
        height, width = z.shape[2:]
        frequencies = lowest_frequencies(height, width, height * width)
        squares = low_components(z, frequencies) ** 2  # (b, N, c)
        sums = np.zeros((groups, *squares.shape[1:])) if sums is None else sums
        whose = (n.sum() + np.arange(len(z))) % groups  # dealt to in turn
        np.add.at(sums, whose, squares)
        n += np.bincount(whose, minlength=groups)
    assert sums is not None
    places = [(u, v, channel) for u, v in frequencies for channel in range(sums.shape[2])]
    columns = {f"group{at}": (sums[at] / n[at]).ravel() for at in range(groups)}
    found = pd.DataFrame(places, columns=["u", "v", "channel"])
    return found.assign(n=n.sum(), whole=(sums.sum(axis=0) / n.sum()).ravel(), **columns)


def snr_rows(asked: params.Params, found: pd.DataFrame) -> pd.DataFrame:
    """log10 of the SNR at the base's first step, mean over channels: of the lowest frequency, and the median of all."""
    step = first_step(with_ddim(base.load(paths.BASE)).scheduler, asked.sampling.steps)
    names = [name for name in found if str(name).startswith("group") or name == "whole"]
    mean = found.groupby(["u", "v"], sort=False)[names].mean()
    snr = mean.apply(lambda column: np.log10(frequency_snr(column.to_numpy(), step.alpha, step.s)))
    rows = pd.DataFrame([snr.iloc[0], snr.median()])
    return rows.assign(measure="log_snr", n=found["n"].iloc[0], cell=[LOWEST, MEDIAN])


def derived_rows(table: pd.DataFrame) -> pd.DataFrame:
    """White noise's spreads with the other sign, beyond which one is farther from real; brightness that words add."""
    rows = [combined(table, name, {"white": -1.0}, name, MIRRORED) for name in ("luminance_spread", "colour_spread")]
    rows += [
        combined(table, "luminance", {f"bright{end}": 1.0, f"dark{end}": -1.0}, "light_gap", f"{LIGHT_GAP}{end}")
        for end in ("", "+leak")
    ]
    return pd.concat(rows, ignore_index=True)


def cells(asked: params.Params) -> set[str]:
    """Every cell that is measured."""
    there = arms(asked)
    firsts = ["white", *(name for name, model in asked.signal_leak.models.items() if model.style is None)]
    firsts += ["flow"] if asked.base.source == "shipped" else []
    slopes_of = {name for model in firsts for name in (model, f"{model}-shuffled")}
    real = {
        f"{label}{name}" for label in (REAL, RETURNED) for name in ("", *(f"-{x}" for x in asked.signal_leak.styles))
    }
    derived = {MIRRORED, LIGHT_GAP, f"{LIGHT_GAP}+leak"} if {"white", *LIGHTS} <= {arm.name for arm in there} else set()
    fixed = {LOWEST, MEDIAN, COLOURS, *(cell for cell, _, _ in FIXED)}
    return {arm.name for arm in there} | slopes_of | real | derived | fixed


def itself() -> list[Part]:
    """The base against itself under other noise, in what claims compare it in."""
    return [
        Part(measure=measure, changed=["again"], reference=["white"], rule="below")
        for measure in ("kid", "kid_haar", "clip", "luminance_spread", "colour_spread")
    ]


def measure_all(asked: params.Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of all measures, and the spectrum."""
    model = judges.evaluator()
    against, found = references(asked, model), spectrum(asked)
    rows = [arm_rows(asked, arm, against, model) for arm in arms(asked)]
    rows += [reference_rows(asked, against, model), first_step_rows(asked), colour_rows(asked)]
    table = pd.concat([*rows, snr_rows(asked, found), fixed_rows(asked)], ignore_index=True)
    return pd.concat([table, derived_rows(table)], ignore_index=True), found


def load() -> pd.DataFrame:
    """What the stage left of arms."""
    return pd.read_csv(OUT)


def main(asked: params.Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for table, target in zip(measure_all(asked), (OUT, SPECTRUM), strict=True):
        table.to_csv(target, index=False, float_format="%.12g")
