"""Measure light and colour of every condition's pictures, their distances, and the effect of first latents.

``signal_leak.csv`` has one pseudo-value per measure, condition and group of repeats, for verdicts;
``signal_leak_spectrum.csv`` has the mean square of natural latents' coefficients by frequency and channel.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from scipy.stats import wasserstein_distance
from torch import Tensor

from atelier import machine, scratch
from atelier.claims import Comparison
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation import judges
from atelier.evaluation.groups import (
    MEASURES,
    SMALL,
    Group,
    Reference,
    group,
    measured,
    pooled,
    pseudo_rows,
    reference_alone,
    simple,
)
from atelier.evaluation.intervals import FloatArray
from atelier.evaluation.tables import combined, read_rows, write_rows
from atelier.files import check_seal
from atelier.methods.signal_leak import FrequencyLeak, first_step, frequency_snr, low_components, lowest_frequencies
from atelier.methods.signal_leak import load as load_leak
from atelier.metrics import kernel_distance
from atelier.metrics.features import opponent_colours
from atelier.models import base
from atelier.models.latents import decode
from atelier.params import Params
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import read, read_latents
from atelier.seeds import evenly
from atelier.studies.signal_leak.fit import BY_HAND, encoded, natural, training_pictures
from atelier.studies.signal_leak.params import FLOW, Config
from atelier.studies.signal_leak.sample import (
    COLOURS,
    LIGHTS,
    NATURAL,
    Condition,
    all_conditions,
    colours_location,
    first_steps,
    location_of,
)
from atelier.studies.signal_leak.styles import with_styles
from atelier.workspace import Workspace

OUT, SPECTRUM = "signal_leak.csv", "signal_leak_spectrum.csv"  # in the folder of measures
MOST = 4096  # maximum number of real pictures used as a reference; limited by memory at 512 px
LIGHT = ("luminance", "contrast", "red_green", "yellow_blue")
REAL, RETURNED = "real", "returned"  # reference rows: training pictures, and their reconstructions
FIXED = [("nothing", "slope", 0.0), ("nothing", "obeys", 0.0), ("ideal", "rank", 1.0)]  # cells of fixed values
LOWEST, MEDIAN = "lowest-frequency", "median-frequency"
MIRRORED, LIGHT_GAP = "white-mirrored", "bright-less-dark"


class Lit(NamedTuple):
    """Light of pictures, one row each: ``LIGHT``, and the means of their latents' channels."""

    light: FloatArray  # (n, 4)
    channels: FloatArray  # (n, c)


def light(pictures: Tensor | Pictures) -> FloatArray:
    """(n, 4) from uint8 pictures: mean luminance, its deviation over pixels, and two mean opponent colours."""
    rows = []
    for batch in in_memory(pictures).batches():
        opponent = opponent_colours(batch.double().numpy() / 255)
        opponent[:, 0] /= 3**0.5  # so that luminance is in [0, 1]
        means = opponent.mean(axis=(2, 3))
        rows.append(np.column_stack([means[:, 0], opponent[:, 0].std(axis=(1, 2)), means[:, 1:]]))
    return np.concatenate(rows)


def spread_measures(real: Lit, made: Lit) -> dict[str, float]:
    """Means, log ratios of variances over pictures to real pictures' variances, and distances of distributions.

    A spread is such a log ratio: 0 as varied as real pictures, negative less varied. It is signed, because
    pseudo-values of an absolute value mislead near 0. Ratios are of standard deviations. Channels and colours are
    averaged; channels' distances are in standard deviations of real pictures.
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
    """Mean red, green and blue, 0 to 1, of the outer eighth of pictures, which is mostly background."""
    maps = made.small.mean(axis=0).reshape(3, SMALL, SMALL)
    edge = np.ones((SMALL, SMALL), dtype=bool)
    edge[SMALL // 8 : -SMALL // 8, SMALL // 8 : -SMALL // 8] = False
    return maps[:, edge].mean(axis=1)


def together(parts: Sequence[Lit]) -> Lit:
    return Lit(*(np.concatenate(of) for of in zip(*parts, strict=True)))


class References(NamedTuple):
    """References of all conditions.

    ``by_topic``: held-out pictures of each topic with at least two. ``lit``: the light of all natural pictures, because
    a spread needs many (leaks are fitted to some of them). ``scale``: mean and standard deviation of training pictures'
    Haar statistics, to weight them equally.
    """

    by_topic: dict[str, Reference]
    lit: Lit
    truth: pd.DataFrame
    scale: tuple[FloatArray, FloatArray]


def references(params: Params, workspace: Workspace, by: judges.Judges) -> References:
    vae, manifests = load_vae(params, workspace), workspace.manifests
    works = prepare.works(manifests).table
    table, kind = natural(prepare.photographs(manifests).table, works)
    known = pd.concat([prepare.with_truth(each, manifests) for each in (works, table)])
    truth = known.drop_duplicates("path").set_index("path")
    table = table.iloc[evenly(len(table), MOST)].reset_index(drop=True)
    pictures = prepare.pictures(table, params.data, workspace, kind)
    latents = encoded(params, workspace, vae, table, kind)
    lit = Lit(light(pictures), np.concatenate([channel_means(z) for z in latents]))
    held_out = {NATURAL: pictures[(table["split"] == "test").to_numpy()]}
    for name, style in Config.of(params).styles.items():
        held_out_works = works[(works["art_style"] == style) & (works["split"] == "test")]
        held_out[name] = prepare.pictures(held_out_works, params.data, workspace)
    by_topic = {name: reference_alone(group(of, by)) for name, of in held_out.items() if len(of) >= 2}
    art_works = works.query("split == 'train'")
    art = prepare.pictures(art_works.iloc[evenly(len(art_works), MOST)], params.data, workspace)
    haar = pooled([group(each, judges.Judges()) for each in (pictures, art)]).haar
    return References(by_topic, lit, truth, (haar.mean(axis=0), haar.std(axis=0) + 1e-12))


def load_vae(params: Params, workspace: Workspace) -> AutoencoderKL:
    """The base's autoencoder, on the device."""
    return base.load(check_seal(workspace.base)).vae.to(machine.accelerator(params.machine).device)


def channel_means(latents: Tensor) -> FloatArray:
    means: FloatArray = latents.mean((2, 3)).double().numpy()
    return means


def rows_of(
    topic: str, pictures: Tensor | Pictures, latents: Tensor, table: pd.DataFrame, groups: Sequence[Sequence[int]],
    against: References, by: judges.Judges,
) -> pd.DataFrame:  # fmt: skip
    """One row per measure of pictures in groups; ``table``: repeat, prompt and path per picture ("" for no prompt)."""
    parts: list[Group] = []
    lit: list[Lit] = []
    pictures = in_memory(pictures)
    for repeats in groups:
        indices = table["repeat"].isin(repeats).to_numpy().nonzero()[0]
        rows = table.iloc[indices]
        prompted = (rows["prompt"] != "").all() and (rows["path"] != "").all()
        wanted = against.truth.loc[rows["path"]] if prompted else None
        parts.append(group(pictures[indices], by, list(rows["prompt"]), wanted))
        lit.append(Lit(light(pictures[indices]), channel_means(latents[indices])))
    tables = [pd.DataFrame()]
    if topic in against.by_topic:
        mean, deviation = against.scale

        def distances(reference: Reference, made: Group) -> dict[str, float]:
            real, ours = ((each.haar - mean) / deviation for each in (reference.held_out, made))
            # unlike a Frechet distance, unbiased for few held-out works
            haar = {"kd_haar": kernel_distance(real, ours), "fd_haar": MEASURES["fd_haar"](reference, made)}
            apart = np.linalg.norm(border_colour(reference.held_out) - border_colour(made))
            return haar | {"background": float(apart)} | simple(reference, made)

        tables.append(measured(against.by_topic[topic], parts, distances))
    if topic in (NATURAL, *LIGHTS):

        def spreads(chosen: list[int]) -> dict[str, float]:
            return spread_measures(against.lit, together([lit[index] for index in chosen]))

        tables.append(pseudo_rows(spreads, len(groups), len(pictures)))
    return pd.concat(tables, ignore_index=True)


def condition_rows(
    params: Params, samples: Path, condition: Condition, against: References, by: judges.Judges
) -> pd.DataFrame:
    folders = location_of(params, condition).folders(samples, params.protocol.training_seeds)
    (pictures, table), latents, groups = read(folders), read_latents(folders), params.protocol.groups
    return rows_of(condition.topic, pictures, latents, table, groups, against, by).assign(cell=condition.name)


def reference_rows(params: Params, workspace: Workspace, against: References, by: judges.Judges) -> pd.DataFrame:
    """Reference rows: training pictures of each kind, and their reconstructions."""
    vae = load_vae(params, workspace)
    groups, tables = params.protocol.groups, []
    for name in (NATURAL, *Config.of(params).styles):
        table, kind = training_pictures(workspace.manifests, Config.of(params).styles.get(name))
        repeats = params.protocol.all_repeats
        most = Config.of(params).pictures * len(repeats)  # as many pictures as a condition has
        table = table.iloc[evenly(len(table), min(len(table), most))].reset_index(drop=True)
        latents = torch.cat(list(encoded(params, workspace, vae, table, kind)))
        real = prepare.pictures(table, params.data, workspace, kind)
        sets: dict[str, Tensor | Pictures] = {REAL: real, RETURNED: to_pixels(decode(vae, latents))}
        of_repeat = np.resize(repeats, len(table))
        listed = pd.DataFrame({"repeat": of_repeat, "prompt": "", "path": ""})
        for label, pictures in sets.items():
            cell = label if name == NATURAL else f"{label}-{name}"
            tables.append(rows_of(name, pictures, latents, listed, groups, against, by).assign(cell=cell))
    return pd.concat(tables, ignore_index=True)


def slopes(table: pd.DataFrame, x: str, y: str) -> FloatArray:
    """Least-squares slope of y on x within each channel, (c,)."""
    centred = table[[x, y]] - table.groupby("channel")[[x, y]].transform("mean")
    both, square = (centred[name] * centred[x] for name in (y, x))
    result: FloatArray = (both.groupby(table["channel"]).sum() / square.groupby(table["channel"]).sum()).to_numpy()
    return result


def first_step_rows(params: Params, samples: Path) -> pd.DataFrame:
    """Median slope over channels of the mean estimated at the first step, on the first latent's mean.

    ``MODEL-shuffled``: on the mean of another first latent of the same repeat, as a null control.
    """
    table, groups, collected = first_steps(params, samples), params.protocol.groups, []
    for model, rows in table.groupby("model", sort=False):
        others = rows.groupby(["channel", "repeat"])["first"].transform(lambda means: np.roll(means, 1))
        for cell, paired in {f"{model}": rows, f"{model}-shuffled": rows.assign(first=others)}.items():

            def measure(chosen: list[int], paired: pd.DataFrame = paired) -> dict[str, float]:
                selected = paired[paired["repeat"].isin([repeat for index in chosen for repeat in groups[index]])]
                return {"slope": float(np.median(slopes(selected, "first", "estimated")))}

            n = int((rows["channel"] == 0).sum())
            collected.append(pseudo_rows(measure, len(groups), n).assign(cell=cell))
    return pd.concat(collected, ignore_index=True)


def colours(params: Params, workspace: Workspace) -> pd.DataFrame:
    """For pictures with a channel's mean set: value set, resulting mean (both in standard deviations), and colour."""
    folders = colours_location(params).folders(workspace.samples, params.protocol.training_seeds)
    (pictures, table), means = read(folders), channel_means(read_latents(folders))
    red, green, blue = torch.cat([(batch.double() / 255).mean((2, 3)) for batch in pictures.batches()]).numpy().T
    channel = table["channel"].to_numpy()
    leak, _ = load_leak(check_seal(workspace.leaks) / f"{BY_HAND}.safetensors")
    assert isinstance(leak, FrequencyLeak)
    spread = leak.low_covariance.diagonal() ** 0.5 / np.prod(leak.rest.mean.shape[1:]) ** 0.5  # of means
    made = means[np.arange(len(table)), channel] / spread[channel]
    return table.assign(made=made, red=red, green=green, blue=blue)


def colour_rows(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Smallest slope and rank correlation over channels, of the resulting mean on the mean set."""
    table, groups = colours(params, workspace), params.protocol.groups

    def measure(chosen: list[int]) -> dict[str, float]:
        selected = table[table["repeat"].isin([repeat for index in chosen for repeat in groups[index]])]
        rows = selected.groupby(["channel", "value"])["made"].mean().reset_index()  # mean over prompts
        ranks = [float(of["value"].corr(of["made"], method="spearman")) for _, of in rows.groupby("channel")]
        return {"obeys": float(slopes(rows, "value", "made").min()), "rank": min(ranks)}

    return pseudo_rows(measure, len(groups), len(table)).assign(cell=COLOURS)


def fixed_rows(params: Params) -> pd.DataFrame:
    """Rows with fixed values: ``nothing`` has no dependence, ``ideal`` a perfect rank correlation."""
    columns = ["whole", *(f"group{index}" for index in range(len(params.protocol.groups)))]
    rows = [{"cell": cell, "measure": name, "n": 0, **dict.fromkeys(columns, value)} for cell, name, value in FIXED]
    return pd.DataFrame(rows)


def spectrum(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Mean squares of natural training pictures' latents by frequency and channel; one value per group of pictures."""
    vae, groups = load_vae(params, workspace), len(params.protocol.groups)
    n, sums = np.zeros(groups, int), None
    for batch in encoded(params, workspace, vae, *training_pictures(workspace.manifests, None)):
        z = batch.double().numpy()
        height, width = z.shape[2:]
        frequencies = lowest_frequencies(height, width, height * width)
        squares = low_components(z, frequencies) ** 2  # (b, N, c)
        sums = np.zeros((groups, *squares.shape[1:])) if sums is None else sums
        group_of_picture = (n.sum() + np.arange(len(z))) % groups  # pictures are assigned to groups in turn
        np.add.at(sums, group_of_picture, squares)
        n += np.bincount(group_of_picture, minlength=groups)
    assert sums is not None
    indices = [(u, v, channel) for u, v in frequencies for channel in range(sums.shape[2])]
    columns = {f"group{index}": (sums[index] / n[index]).ravel() for index in range(groups)}
    table = pd.DataFrame(indices, columns=["u", "v", "channel"])
    return table.assign(n=n.sum(), whole=(sums.sum(axis=0) / n.sum()).ravel(), **columns)


def snr_rows(params: Params, workspace: Workspace, by_frequency: pd.DataFrame) -> pd.DataFrame:
    """log10 SNR at the base's first step, mean over channels: at the lowest frequency, and the median over all."""
    step = first_step(with_ddim(base.load(check_seal(workspace.base))).scheduler, params.sampling.steps)
    names = [name for name in by_frequency if str(name).startswith("group") or name == "whole"]
    mean = by_frequency.groupby(["u", "v"], sort=False)[names].mean()
    snr = mean.apply(lambda column: np.log10(frequency_snr(column.to_numpy(), step.alpha, step.s)))
    rows = pd.DataFrame([snr.iloc[0], snr.median()])
    return rows.assign(measure="log_snr", n=by_frequency["n"].iloc[0], cell=[LOWEST, MEDIAN])


def derived_rows(table: pd.DataFrame) -> pd.DataFrame:
    """White noise's spreads with opposite sign (larger is farther from real), and the brightness that words add."""
    rows = [combined(table, name, {"white": -1.0}, name, MIRRORED) for name in ("luminance_spread", "colour_spread")]
    rows += [
        combined(table, "luminance", {f"bright{end}": 1.0, f"dark{end}": -1.0}, "light_gap", f"{LIGHT_GAP}{end}")
        for end in ("", "+leak")
    ]
    return pd.concat(rows, ignore_index=True)


def cells(params: Params) -> set[str]:
    """All measured cells."""
    there = all_conditions(params)
    firsts = ["white", *(name for name, model in Config.of(params).models.items() if model.style is None)]
    firsts += [FLOW] if params.base.source == "shipped" and FLOW not in firsts else []
    slopes_of = {name for model in firsts for name in (model, f"{model}-shuffled")}
    real = {
        f"{label}{name}" for label in (REAL, RETURNED) for name in ("", *(f"-{x}" for x in Config.of(params).styles))
    }
    derived = (
        {MIRRORED, LIGHT_GAP, f"{LIGHT_GAP}+leak"}
        if {"white", *LIGHTS} <= {condition.name for condition in there}
        else set()
    )
    fixed = {LOWEST, MEDIAN, COLOURS, *(cell for cell, _, _ in FIXED)}
    return {condition.name for condition in there} | slopes_of | real | derived | fixed


def null_comparisons() -> list[Comparison]:
    """Null comparisons: the base against itself under other noise, in the claims' measures."""
    return [
        Comparison(measure=measure, changed=["again"], reference=["white"], rule="below")
        for measure in ("kd", "kd_haar", "clip", "luminance_spread", "colour_spread")
    ]


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/signal_leak.csv`` and ``signal_leak_spectrum.csv``."""
    params = with_styles(params, workspace)
    samples, out, config = workspace.samples, workspace.measures / OUT, Config.of(params)
    inputs = [samples / config.STUDY, workspace.base, workspace.leaks, workspace.evaluator, workspace.manifests]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    by = judges.load(params, workspace)
    against = references(params, workspace, by)
    by_frequency = scratch.table(run, "spectrum", partial(spectrum, params, workspace))
    rows = [
        scratch.table(run, condition.name, partial(condition_rows, params, samples, condition, against, by))
        for condition in all_conditions(params)
    ]
    rows.append(scratch.table(run, "references", partial(reference_rows, params, workspace, against, by)))
    rows += [first_step_rows(params, samples), colour_rows(params, workspace)]
    rows += [snr_rows(params, workspace, by_frequency), fixed_rows(params)]
    table = pd.concat(rows, ignore_index=True)
    write_rows(pd.concat([table, derived_rows(table)], ignore_index=True), out)
    write_rows(by_frequency, workspace.measures / SPECTRUM)
    scratch.discard(run)


def load(measures: Path) -> pd.DataFrame:
    """Load the rows of all conditions."""
    return read_rows(measures / OUT)
