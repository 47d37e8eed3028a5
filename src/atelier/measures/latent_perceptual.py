"""Stage ``latent_perceptual-measure``: every post-training's pictures against held-out works, a pseudo-value a group.

It fills ``build/measures/latent_perceptual.csv``, and ``latent_perceptual_spectra.csv``, the mean power spectra by
rings that the page draws.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import judges, machine, params, paths
from atelier.claims import Part
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.latents import decode, encode_pictures
from atelier.diffusion import clean_estimate, noised
from atelier.evidence import FloatArray
from atelier.measures.art_finetuning import REAL, RECONSTRUCTED, dealt
from atelier.measures.decoder_features import FIXED as FEATURES_FIXED
from atelier.measures.decoder_features import Seen, fixed_rows, last_step_under, noise_of, seen
from atelier.measures.decoder_features import cells as feature_cells
from atelier.measures.sets import Group, Reference, all_measures, groups_of, measured, pooled, pseudo_rows, reference_of
from atelier.measures.tables import combined
from atelier.metrics import frechet_distance, log_power_error, log_power_ratios, radial_power
from atelier.models import base
from atelier.params import Params
from atelier.sampling.latent_perceptual import AGAIN, Arm, arms, averaged, in_steps, place_of
from atelier.sampling.store import read
from atelier.training import denoiser
from atelier.training.latent_perceptual import STUDY, tuned_pipeline

OUT, SPECTRA = paths.MEASURES / f"{STUDY}.csv", paths.MEASURES / f"{STUDY}_spectra.csv"
PLAIN, MAIN = "plain", "lpl"  # the two that claims compare
LOW, HIGH = 0.15, 0.29  # cycles a pixel: 75 and 150 cycles of the paper's 512 px pictures
LOWEST = 2.0  # cycles a picture
PROBED = 4  # noise levels at which estimates of averages are compared
HALF_LIVES = 6  # that the rule of claim C10 chooses from
FIXED = {"nothing": "fd"}  # a gain of nothing


def in_bands(reference: Reference, made: Group) -> dict[str, float]:
    """Every measure, and the spectrum in bands: errors of log power, and what power the ends have more than real."""
    real, own = reference.held_out.spectrum, made.spectrum
    side = min(real.shape)
    return {
        **all_measures(reference, made),
        "high": log_power_error(real, own, HIGH * side),
        "middle": log_power_error(real, own, LOW * side, HIGH * side),
        "low": log_power_error(real, own, 0.0, LOW * side),
        "top": float(log_power_ratios(real, own, HIGH * side).mean()),
        "bottom": float(log_power_ratios(real, own, 0.0, LOWEST).mean()),
    }


def age(asked: Params, variant: str) -> str:
    """The name of the cell of a plain variant's gain, among plain ones of other ages."""
    return f"gain-after-{asked.latent_perceptual.trainings[variant].before}"


def ages(asked: Params) -> dict[str, tuple[str, str]]:
    """Pairs of variants, with the loss and without, alike but for how long they were trained before: by cell."""
    study, wanted = asked.latent_perceptual, asked.latent_perceptual.trainings.get(MAIN)
    found = {}
    for name, training in study.trainings.items():
        if wanted and training == wanted.model_copy(update={"before": training.before}):
            plain = study.plain_of(name)
            assert plain is not None  # params refuses it
            found[age(asked, name)] = (plain, name)
    return found


def nearest_average(asked: Params, variant: str, parts: Mapping[str, Sequence[Group]], real: Group) -> pd.DataFrame:
    """log2 of the half-life whose pictures are nearest to real ones, by each group's own pictures; a row.

    Not a pseudo-value: the place of a minimum jumps. All averages of a group have as many pictures, so that what few
    pictures add to a distance is alike.
    """
    study = asked.latent_perceptual

    def best(some: Sequence[int]) -> float:
        own = [pooled([parts[averaged(variant, each)][at] for at in some]).features for each in study.averages]
        return math.log2(study.averages[int(np.argmin([frechet_distance(real.features, each) for each in own]))])

    groups = range(len(asked.art_finetuning.groups))
    n = sum(each.n for each in parts[averaged(variant, study.averages[0])])
    columns = {f"group{at}": best([at]) for at in groups}
    return pd.DataFrame([{"measure": "log_half_life", "cell": variant, "n": n, "whole": best(list(groups)), **columns}])


def relative_gains(asked: Params, parts: Mapping[str, Sequence[Group]], real: Group) -> pd.DataFrame:
    """What the loss takes off the plain one's distance, as a share of that, by how long both were trained before."""
    found = [pd.DataFrame()]
    for cell, (plain, own) in ages(asked).items():

        def gain(some: list[int], plain: str = plain, own: str = own) -> dict[str, float]:
            without, with_it = (
                frechet_distance(real.features, pooled([parts[name][at] for at in some]).features)
                for name in (plain, own)
            )
            return {"relative_gain": 1 - with_it / without}

        n = sum(each.n for each in parts[own])
        found.append(pseudo_rows(gain, len(parts[own]), n).assign(cell=cell))
    return pd.concat(found, ignore_index=True)


def gains_by_steps(asked: Params, table: pd.DataFrame) -> pd.DataFrame:
    """The loss's gain of Frechet distance in each number of sampling steps."""
    study = asked.latent_perceptual
    rows = [
        combined(table, "fd", {in_steps(PLAIN, n): 1.0, in_steps(MAIN, n): -1.0}, "fd", f"gain-in-{n}")
        for n in (study.steps if {PLAIN, MAIN} <= set(study.followed) else [])
    ]
    return pd.concat([pd.DataFrame(), *rows], ignore_index=True)


@torch.no_grad()
def unsteadiness(asked: Params) -> pd.DataFrame:
    """How far one-step clean estimates of the last parameters lie from those of their shortest average.

    Mean squared difference over held-out works at ``PROBED`` noise levels under the threshold, a value a group: what
    the last few steps did. A long average would tell how far the whole training went.
    """
    study, place = asked.latent_perceptual, machine.accelerator(asked.machine)
    looked = list(seen(asked, base.load(paths.BASE).to(place.device)))
    n, found = sum(len(some.works) for some in looked), []
    for variant in study.followed:
        values = []
        for some, repeats in zip(looked, asked.art_finetuning.groups, strict=True):
            seed = asked.art_finetuning.seed_of_repeat(repeats[0])
            which = [tuned_pipeline(asked, variant, seed, each) for each in (None, min(study.averages))]
            last, average = (estimates(asked, pipeline.to(place.device), some) for pipeline in which)
            values.append(float((last - average).square().mean()))
        columns = {f"group{at}": value for at, value in enumerate(values)}
        found.append({"measure": "unsteadiness", "cell": variant, "n": n, "whole": float(np.mean(values)), **columns})
    return pd.DataFrame(found)


def estimates(asked: Params, pipeline: StableDiffusionPipeline, some: Seen) -> Tensor:
    """One-step clean estimates (PROBED, n, c, h, w) of works, at noise levels under the paper's threshold."""
    place, z0 = machine.accelerator(asked.machine), some.z0
    alphas, sigmas, times = denoiser.path(pipeline.scheduler)
    kind = pipeline.scheduler.config.prediction_type
    eps = noise_of(some, "probe")
    last = last_step_under(alphas, sigmas, z0.shape[-1])
    found = []
    for level in range(PROBED):
        t = (2 * level + 1) * last // (2 * PROBED)
        zt = noised(z0, eps, alphas[t], sigmas[t])
        with place.autocast():
            output = pipeline.unet(zt.to(place.device), times[t].to(place.device), some.words.to(place.device)).sample
        found.append(clean_estimate(kind, zt, output.float().cpu(), alphas[t], sigmas[t]))
    return torch.stack(found)


def fewer(parts: Sequence[Group]) -> list[Group]:
    """Groups without what only ``measured`` needs: sixty arms' wavelet packets do not go into memory."""
    nothing: FloatArray = np.zeros((0, 0, 0))
    return [each._replace(packets=nothing, small=nothing, haar=nothing) for each in parts]


def measure_all(asked: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of all measures, and spectra: a row a cell and group, a column a ring."""
    model, study = judges.evaluator(), asked.latent_perceptual
    works = prepare.works().table
    truth = prepare.with_truth(works).set_index("path")
    held_out, training = (prepare.pictures(works[works["split"] == split], asked.data) for split in ("test", "train"))
    reference, groups = reference_of(held_out, training, model), asked.art_finetuning.groups
    each = asked.art_finetuning.repeats * study.pictures // len(groups)
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    real = {REAL: training, RECONSTRUCTED: to_pixels(decode(vae, encode_pictures(vae, held_out).mean))}
    found, parts = [], {}
    for name, pictures in real.items():
        parts[name] = dealt(pictures, each, len(groups), model)
        found.append(measured(reference, parts[name], in_bands).assign(cell=name))
    for arm in arms(asked):
        pictures, listed = read(*place_of(arm, study.guidance))
        own = groups_of(pictures, listed, groups, model, truth)
        found.append(measured(reference, own, in_bands).assign(cell=arm.name))
        parts[arm.name] = fewer(own)
    if len(study.averages) >= HALF_LIVES:
        found += [nearest_average(asked, name, parts, reference.held_out) for name in study.followed]
    if study.followed and study.averages:
        found.append(unsteadiness(asked))
    found.append(relative_gains(asked, parts, reference.held_out))
    table = pd.concat(found, ignore_index=True)
    fixed = fixed_rows(asked, FIXED)
    return pd.concat([table, gains_by_steps(asked, table), fixed], ignore_index=True), spectra(reference, parts)


def spectra(reference: Reference, parts: Mapping[str, Sequence[Group]]) -> pd.DataFrame:
    """Mean power by rings: of held-out works, and of each cell's groups."""
    frequency, real = radial_power(reference.held_out.spectrum)
    rows = [{"cell": "frequency", "group": 0, **_ringed(frequency)}, {"cell": "held-out", "group": 0, **_ringed(real)}]
    for cell, own in parts.items():
        rows += [{"cell": cell, "group": at, **_ringed(radial_power(each.spectrum)[1])} for at, each in enumerate(own)]
    return pd.DataFrame(rows)


def _ringed(values: FloatArray) -> dict[str, float]:
    return {f"ring{at}": float(value) for at, value in enumerate(values)}


def cells(asked: Params) -> set[str]:
    """Every cell that is measured, decoder features' among them."""
    study = asked.latent_perceptual
    both = {PLAIN, MAIN} <= set(study.followed)
    gains = {f"gain-in-{n}" for n in study.steps} if both else set()
    derived = {*ages(asked), *gains, *FIXED, *FEATURES_FIXED, REAL, RECONSTRUCTED}
    return {arm.name for arm in arms(asked)} | derived | feature_cells(asked)


def itself() -> list[Part]:
    """The plain variant against itself under other noise, in what claims compare it in."""
    return [
        Part(measure=measure, changed=[AGAIN], reference=[PLAIN], rule="below")
        for measure in ("fd", "clip", "precision", "recall", "coverage", "high", "top")
    ]


def arm_of(asked: params.Params, name: str) -> Arm:
    """An arm by its name."""
    return next(arm for arm in arms(asked) if arm.name == name)


def load() -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the stage left: measures, and spectra."""
    return pd.read_csv(OUT), pd.read_csv(SPECTRA)


def main(asked: Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for table, target in zip(measure_all(asked), (OUT, SPECTRA), strict=True):
        table.to_csv(target, index=False, float_format="%.12g")
