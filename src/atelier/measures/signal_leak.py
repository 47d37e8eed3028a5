"""Stage ``signal_leak-measure``: light and colour of every arm's pictures, their distances, what first latents decide.

It fills ``build/measures/signal_leak.csv``, a pseudo-value a measure, arm and group of repeats, for verdicts; and
``signal_leak_spectrum.csv``, the mean square of natural latents' coefficients by frequency.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import wasserstein_distance
from torch import Tensor

from atelier import judges, machine, params, paths
from atelier.data import prepare
from atelier.data.latents import encode_pictures
from atelier.evidence import FloatArray
from atelier.measures.sets import Group, Reference, group, measured, pseudo_rows, reference_alone, simple
from atelier.methods.signal_leak import FrequencyLeak, first_step, frequency_snr, low_components, lowest_frequencies
from atelier.methods.signal_leak import load as load_leak
from atelier.metrics.features import opponent_colours
from atelier.models import base
from atelier.models.evaluator import Evaluator
from atelier.sampling.sampler import with_ddim
from atelier.sampling.signal_leak import COLOURS, FIRST_STEPS, NATURAL, Arm, arms
from atelier.sampling.store import read, read_latents
from atelier.training.leaks import BY_HAND, STUDY, lessons, natural

OUT, SPECTRUM = paths.MEASURES / "signal_leak.csv", paths.MEASURES / "signal_leak_spectrum.csv"
LIGHT = ("luminance", "contrast", "red_green", "yellow_blue")


class Lit(NamedTuple):
    """Light of one group's pictures, a row each: ``LIGHT``, then the means of their latents' channels."""

    light: FloatArray  # (n, 4)
    channels: FloatArray  # (n, c)


def light(pictures: Tensor) -> FloatArray:
    """Mean luminance, its standard deviation over pixels, and two mean opponent colours, (n, 4), of uint8 pictures."""
    opponent = opponent_colours(pictures.double().numpy() / 255)
    opponent[:, 0] /= 3**0.5  # of grey from 0 to 1
    means = opponent.mean(axis=(2, 3))
    return np.column_stack([means[:, 0], opponent[:, 0].std(axis=(1, 2)), means[:, 1:]])


def spread_measures(real: Lit, made: Lit) -> dict[str, float]:
    """How far variances over pictures are from the real ones', as |log ratio|; means, and distances of distributions.

    0: as varied as real pictures, whichever the direction.
    """
    ratios = np.log(made.light.var(axis=0, ddof=1) / real.light.var(axis=0, ddof=1))
    channels = np.log(made.channels.var(axis=0, ddof=1) / real.channels.var(axis=0, ddof=1))
    return {
        "luminance": float(made.light[:, 0].mean()),
        "luminance_ratio": float(np.exp(ratios[0] / 2)),  # of standard deviations
        "luminance_spread": abs(float(ratios[0])),
        "contrast_spread": abs(float(ratios[1])),
        "colour_spread": float(np.abs(ratios[2:]).mean()),
        "channel_spread": float(np.abs(channels).mean()),
        "channel_ratio": float(np.exp(channels.mean() / 2)),
        "luminance_w1": float(wasserstein_distance(real.light[:, 0], made.light[:, 0])),
    }


def together(parts: Sequence[Lit]) -> Lit:
    return Lit(*(np.concatenate(of) for of in zip(*parts, strict=True)))


class References(NamedTuple):
    """What arms are measured against: by what they were asked for, and the light of what is natural."""

    by_asked: dict[str, Reference]
    lit: Lit
    truth: pd.DataFrame


def references(asked: params.Params, model: Evaluator | None) -> References:
    """Held-out works of a style. Of what is natural all pictures: a spread needs many; leaks know a part of them."""
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    works = prepare.works().table
    table, kind = natural(prepare.photographs().table, works)
    pictures = prepare.pictures(table, asked.data, kind)
    lit = Lit(light(pictures), encode_pictures(vae, pictures).mean.mean((2, 3)).double().numpy())
    found = {NATURAL: reference_alone(group(pictures, model))}
    for name, style in asked.signal_leak.styles.items():
        own = works[(works["art_style"] == style) & (works["split"] == "test")]
        if len(own) >= 2:  # of fewer nothing is measured
            found[name] = reference_alone(group(prepare.pictures(own, asked.data), model))
    truth = pd.concat([prepare.with_truth(each) for each in (works, table)]).drop_duplicates("path").set_index("path")
    return References(found, lit, truth)


def arm_rows(asked: params.Params, arm: Arm, against: References, model: Evaluator | None) -> pd.DataFrame:
    """A row a measure of one arm."""
    guidance, groups = asked.signal_leak.guidance, asked.art_finetuning.groups
    pictures, table = read(STUDY, arm.name, guidance)
    means = read_latents(STUDY, arm.name, guidance).mean((2, 3)).double().numpy()
    parts: list[Group] = []
    lit: list[Lit] = []
    for repeats in groups:
        those = table["repeat"].isin(repeats).to_numpy().nonzero()[0]
        rows = table.iloc[those]
        wanted = against.truth.loc[rows["path"]] if (rows["path"] != "").all() else None
        parts.append(group(pictures[those], model, list(rows["prompt"]), wanted))
        lit.append(Lit(light(pictures[those]), means[those]))
    found = [pd.DataFrame()]
    if arm.asked in against.by_asked:
        found.append(measured(against.by_asked[arm.asked], parts, simple))
    if arm.asked not in asked.signal_leak.styles:
        found.append(
            pseudo_rows(
                lambda some: spread_measures(against.lit, together([lit[at] for at in some])),
                len(groups),
                len(pictures),
            )
        )
    return pd.concat(found, ignore_index=True).assign(cell=arm.name)


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
    means = read_latents(STUDY, COLOURS, guidance).mean((2, 3)).numpy()
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
    """Cells to compare others with: ``nothing`` depends on nothing, ``ideal`` is in perfect order."""
    columns = ["whole", *(f"group{at}" for at in range(len(asked.art_finetuning.groups)))]
    known = [("nothing", "slope", 0.0), ("nothing", "obeys", 0.0), ("ideal", "rank", 1.0)]
    rows = [{"cell": cell, "measure": name, "n": 0, **dict.fromkeys(columns, x)} for cell, name, x in known]
    return pd.DataFrame(rows)


def spectrum(asked: params.Params) -> pd.DataFrame:
    """Mean squares of natural training pictures' latents by frequency, over channels; a value a group of pictures."""
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    table, kind = lessons(asked, None)
    z = encode_pictures(vae, prepare.pictures(table, asked.data, kind)).mean.double().numpy()
    height, width = z.shape[2:]
    frequencies, groups = lowest_frequencies(height, width, height * width), len(asked.art_finetuning.groups)
    squares = low_components(z, frequencies) ** 2  # (n, N, c)
    columns = {f"group{at}": squares[at::groups].mean(axis=(0, 2)) for at in range(groups)}
    named = {"u": [u for u, _ in frequencies], "v": [v for _, v in frequencies]}
    return pd.DataFrame({**named, "n": len(z), "whole": squares.mean(axis=(0, 2)), **columns})


def snr_rows(asked: params.Params, found: pd.DataFrame) -> pd.DataFrame:
    """log10 of the SNR at the base's first step: of the lowest frequency, and the median of all."""
    step = first_step(with_ddim(base.load(paths.BASE)).scheduler, asked.sampling.steps)
    names = [name for name in found if str(name).startswith("group") or name == "whole"]
    snr = found[names].apply(lambda column: np.log10(frequency_snr(column.to_numpy(), step.alpha, step.s)))
    rows = pd.DataFrame([snr.iloc[0], snr.median()])
    return rows.assign(measure="log_snr", n=found["n"].iloc[0], cell=["lowest-frequency", "median-frequency"])


def measure_all(asked: params.Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of all measures, and the spectrum."""
    model = judges.evaluator()
    against, found = references(asked, model), spectrum(asked)
    rows = [arm_rows(asked, arm, against, model) for arm in arms(asked)]
    rows += [first_step_rows(asked), colour_rows(asked), snr_rows(asked, found), fixed_rows(asked)]
    return pd.concat(rows, ignore_index=True), found


def load() -> pd.DataFrame:
    """What the stage left of arms."""
    return pd.read_csv(OUT)


def main(asked: params.Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for table, target in zip(measure_all(asked), (OUT, SPECTRUM), strict=True):
        table.to_csv(target, index=False, float_format="%.12g")
