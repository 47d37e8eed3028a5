"""Stage ``decoder_features-measure``: what the latent perceptual loss sees of the base, before anything is trained.

On held-out works: each decoder stage's share of the loss and its direction by noise level, gradients of the loss and of
squared error at the parameters, outliers of feature maps, and latents made smaller and larger again. A table each; a
group's works are its own.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor
from torch.nn.functional import interpolate

from atelier import machine, paths
from atelier.data import prepare
from atelier.data.images import to_model_range, to_pixels
from atelier.data.latents import decode, encode_pictures, encode_prompts, unscaled
from atelier.data.prompts import prompt
from atelier.diffusion import clean_estimate, noised
from atelier.evidence import FloatArray
from atelier.methods.latent_perceptual import (
    MASKED_FROM,
    depth_weights,
    outlier_mask,
    stage_losses,
    statistics,
    threshold,
)
from atelier.models import base
from atelier.models.autoencoders import decoder_stages
from atelier.params import Params
from atelier.sampling.sampler import settled
from atelier.seeds import torch_generator
from atelier.training import denoiser
from atelier.training.base import spread
from atelier.training.denoiser import Denoised
from atelier.training.latent_perceptual import STUDY, Job, gated, latent_error
from atelier.training.order import picks
from atelier.training.vae_decoder import teacher

LOSSES, GRADIENTS, OUTLIERS, INTERPOLATED = (
    paths.MEASURES / f"decoder_features_{name}.csv" for name in ("losses", "gradients", "outliers", "interpolated")
)
PAPER_TAU = 4.0
LEVELS = 8  # noise levels of all steps at which estimates are looked at
BATCHES = 4  # of a group, whose gradients are compared
BATCH = 32
FAR = 10.0  # standard deviations of the rest of a map
METHODS, FACTORS = ("nearest", "bilinear", "bicubic"), (1.3, 2.0, 3.0)  # the paper's figure 12
ALIKE = 0.3  # latent errors within so much of each other are called alike
DEEP, PAIRS = "deep-maps", "pairs"
REVERSALS = ("bicubic", "nearest")  # the paper's two: bicubic by 1.3 over bilinear by 2, nearest over bilinear
# cells to compare others with: measure by cell
FIXED = {"one-percent": "outliers", "fifth": "reversed", "half": "reversal"}
VALUES = {"one-percent": 0.01, "fifth": 0.2, "half": 0.5}


class Seen(NamedTuple):
    """Some works of one group: their rows, latents (n, c, h, w) and prompts' embeddings."""

    group: int
    works: pd.DataFrame
    z0: Tensor
    words: Tensor


def last_step_under(alphas: Tensor, sigmas: Tensor, side: int, tau: float = PAPER_TAU) -> int:
    """The noisiest training step whose noise-to-signal ratio is under the threshold."""
    return int((sigmas <= threshold(tau, side) * alphas).nonzero().max())


def seen(asked: Params, pipeline: StableDiffusionPipeline) -> Iterator[Seen]:
    """Held-out works a group, evenly of all styles; no work twice while there are enough."""
    study, groups = asked.latent_perceptual, len(asked.art_finetuning.groups)
    table = prepare.works().table.query("split == 'test'").reset_index(drop=True)
    chosen = spread(len(table), min(study.looked_at * groups, len(table)))
    for group in range(groups):
        works = table.iloc[chosen[group::groups]].reset_index(drop=True)
        texts = [prompt(row, asked.art_finetuning.prompt_level, 0) for row in works.to_dict("records")]
        z0 = encode_pictures(pipeline.vae, prepare.pictures(works, asked.data)).mean
        yield Seen(group, works, z0, encode_prompts(pipeline, texts))


def noise_of(some: Seen, purpose: str) -> Tensor:
    """White noise of a work's own, in the shape of its latent."""
    names = some.works["path"]
    return torch.stack([torch.randn(some.z0.shape[1:], generator=torch_generator(STUDY, purpose, x)) for x in names])


# ------------------------------------------------------------------------------------------------ the loss by noise


def losses_of(asked: Params, pipeline: StableDiffusionPipeline, some: Seen) -> pd.DataFrame:
    """By work and noise level: each stage's loss, latent error, and the cosine of their gradients at the estimate.

    The gradient of squared error at an estimate points away from the clean latent; the loss's may point elsewhere.
    """
    place, vae = machine.accelerator(asked.machine), pipeline.vae
    alphas, sigmas, times = denoiser.path(pipeline.scheduler)
    kind, depth = pipeline.scheduler.config.prediction_type, 1 + len(vae.decoder.up_blocks)
    eps = noise_of(some, "look")
    rows = []
    for start in range(0, len(eps), BATCH):
        own = slice(start, start + BATCH)
        z0 = some.z0[own].to(place.device)
        with torch.no_grad():
            targets = decoder_stages(vae, unscaled(vae, z0), depth)  # the same at every level
        for level in range(LEVELS):
            t = (2 * level + 1) * len(alphas) // (2 * LEVELS)
            zt = noised(some.z0[own], eps[own], alphas[t], sigmas[t])
            with torch.no_grad(), place.autocast():
                given = (zt.to(place.device), times[t].to(place.device), some.words[own].to(place.device))
                output = pipeline.unet(*given).sample.float().cpu()
            estimate = clean_estimate(kind, zt, output, alphas[t], sigmas[t]).to(place.device)
            estimate.requires_grad_(True)
            predictions = decoder_stages(vae, unscaled(vae, estimate), depth)
            stages = stage_losses(targets, predictions, asked.data.size)
            weights = depth_weights([each.shape[-1] for each in predictions])
            whole = sum(weight * loss for weight, loss in zip(weights, stages, strict=True))
            assert isinstance(whole, Tensor)
            (gradient,) = torch.autograd.grad(whole.sum(), estimate)
            away = (estimate.detach() - z0).flatten(1)
            cosine = torch.cosine_similarity(gradient.flatten(1), away)
            told = {f"stage{at}": loss.detach().tolist() for at, loss in enumerate(stages, 1)}
            told |= {"loss": whole.detach().tolist(), "cosine": cosine.tolist()}
            told["latent_error"] = away.square().mean(1).tolist()
            rows.append(pd.DataFrame({"group": some.group, "t": t, "sigma": float(sigmas[t] / alphas[t]), **told}))
    return pd.concat(rows).sort_values("t", kind="stable", ignore_index=True)


# ------------------------------------------------------------------------------------------------ gradients


def gradients(asked: Params) -> pd.DataFrame:
    """Cosines between gradients at the parameters, of batches of the main variant's own training, before it begins.

    Of the loss, and of latent error on the same steps, with that of the denoiser's own error, and of the two; a group's
    batches are of its training seed. Nothing where the study has no such variant.
    """
    found = [pd.DataFrame({"group": [], "batch": [], "of": [], "against": [], "cosine": []})]
    main = next((name for name, one in asked.latent_perceptual.trainings.items() if one.loss == "perceptual"), None)
    seeds = [asked.art_finetuning.seed_of_repeat(repeats[0]) for repeats in asked.art_finetuning.groups]
    for seed in dict.fromkeys(seeds) if main else ():
        assert main is not None
        job = Job(asked, main, seed)
        found += [angles(job, group) for group, own in enumerate(seeds) if own == seed]
    return pd.concat(found, ignore_index=True)


def angles(job: Job, group: int) -> pd.DataFrame:
    """One group's cosines: a row a batch and pair."""
    parameters = list(job.trainable.values())
    extras = {
        "perceptual": job.extra(),
        "reweighted": gated(latent_error, job.kind, job.training.tau, job.study.slices),
    }

    def both(step: Denoised) -> dict[str, Tensor]:
        return {name: extra(step)[STUDY] for name, extra in extras.items()}

    rows = []
    for at in range(BATCHES):
        batch = picks(job.seed, group * BATCHES + at, job.study.optimisation.batch, len(job.names))
        with job.place.autocast():
            terms = job.task(job.seed, both).losses(batch)
        if not terms["perceptual"].requires_grad:  # no sample under the threshold
            continue
        directions = {name: _flat(terms[name], parameters) for name in ("denoising", *extras)}
        for one, other in combinations(directions, 2):
            cosine = float(torch.cosine_similarity(directions[one], directions[other], dim=0))
            rows.append({"group": group, "batch": at, "of": other, "against": one, "cosine": cosine})
    return pd.DataFrame(rows)


def _flat(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    given = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([each.double().flatten() for each in given if each is not None])


# ------------------------------------------------------------------------------------------------ outliers


@torch.no_grad()
def outliers_of(vae: AutoencoderKL, some: Seen, side: int) -> pd.DataFrame:
    """By stage: maps, those with a masked patch, those whose patch lies beyond ``FAR`` deviations of the rest.

    ``farthest``: of any masked place, in such deviations.
    """
    rows = []
    for start in range(0, len(some.z0), BATCH):
        z = some.z0[start : start + BATCH].to(vae.device)
        for at, features in enumerate(decoder_stages(vae, unscaled(vae, z), 1 + len(vae.decoder.up_blocks)), 1):
            down = side / features.shape[-1]
            valid = outlier_mask(features, down)
            mean, deviation = statistics(features, valid)
            far = torch.where(valid, 0, (features - mean).abs() / deviation).amax((2, 3))
            row = {"group": some.group, "stage": at, "down": down, "maps": far.numel()}
            masked = int((~valid).any(3).any(2).sum())
            rows.append({**row, "masked": masked, "far": int((far > FAR).sum()), "farthest": float(far.max())})
    table = pd.DataFrame(rows)
    how = {"maps": "sum", "masked": "sum", "far": "sum", "farthest": "max"}
    return table.groupby(["group", "stage", "down"]).agg(how).reset_index()


# ------------------------------------------------------------------------------------------------ interpolation


def resized(z: Tensor, method: str, factor: float) -> Tensor:
    """A latent made smaller by ``factor`` and as large as before again (the paper's figure 12)."""
    small = [max(1, round(side / factor)) for side in z.shape[2:]]
    how = {} if method == "nearest" else {"align_corners": False}
    less = interpolate(z, small, mode=method, **how)
    return interpolate(less, list(z.shape[2:]), mode=method, **how)


def interpolated_of(asked: Params, vae: AutoencoderKL, some: Seen) -> pd.DataFrame:
    """By work, method and factor: squared error of the latent, perceptual distance of what is decoded of it."""
    place = machine.accelerator(asked.machine)
    network = teacher(asked.vae_decoder.perceptual).to(place.device)
    whole = to_model_range(to_pixels(decode(vae, some.z0)))
    rows = []
    for method in METHODS:
        for factor in FACTORS:
            z = resized(some.z0, method, factor)
            made = to_model_range(to_pixels(decode(vae, z)))
            with torch.no_grad():
                pairs = zip(made.split(BATCH), whole.split(BATCH), strict=True)
                apart = torch.cat([network(*(x.to(place.device) for x in pair)).cpu() for pair in pairs])
            error = (z - some.z0).square().mean((1, 2, 3))
            told = {"group": some.group, "work": range(len(z)), "method": method, "factor": factor}
            rows.append(pd.DataFrame({**told, "latent_error": error.tolist(), "distance": apart.tolist()}))
    return pd.concat(rows, ignore_index=True)


def reversals(table: pd.DataFrame) -> dict[str, FloatArray]:
    """Of interpolated works, a value a work: ``pairs``, the share of pairs alike in latent error whose order changes;
    and whether each of the paper's two reversals shows. NaN where a work has no such pair.
    """  # fmt: skip
    errors, distances = (
        table.pivot(index="work", columns=["method", "factor"], values=name) for name in ("latent_error", "distance")
    )
    changed = np.zeros(len(errors))
    alike = np.zeros(len(errors))
    for one, other in combinations(errors.columns, 2):
        a, b = errors[one].to_numpy(), errors[other].to_numpy()
        near = np.abs(a - b) <= ALIKE * np.minimum(a, b)
        alike += near
        changed += near & ((a - b) * (distances[one] - distances[other]).to_numpy() < 0)

    def beats(one: tuple[str, float], other: tuple[str, float]) -> FloatArray:
        worse = (errors[one] > errors[other]).to_numpy()
        found: FloatArray = (worse & (distances[one] < distances[other]).to_numpy()).astype(float)
        return found

    return {
        PAIRS: np.divide(changed, alike, out=np.full(len(errors), math.nan), where=alike > 0),
        "bicubic": beats(("bicubic", FACTORS[0]), ("bilinear", FACTORS[1])),
        "nearest": np.mean([beats(("nearest", factor), ("bilinear", factor)) for factor in FACTORS], axis=0),
    }


# ------------------------------------------------------------------------------------------------ for verdicts


def rows(asked: Params) -> pd.DataFrame:
    """What claims ask of these tables: a row a measure and cell, a value a group of works."""
    outliers, interpolated = pd.read_csv(OUTLIERS), pd.read_csv(INTERPOLATED)
    deep = outliers[outliers["down"] <= MASKED_FROM]
    shares = deep.groupby("group")[["far", "maps"]].sum()
    by_group = [reversals(own) for _, own in interpolated.groupby("group")]
    works = len(interpolated.drop_duplicates(["group", "work"]))
    found = [_row("outliers", DEEP, works, (shares["far"] / shares["maps"]).to_numpy())]  # of all maps of these works
    for cell in (PAIRS, *REVERSALS):
        measure = "reversed" if cell == PAIRS else "reversal"
        values = [own[cell] for own in by_group]
        if all(np.isfinite(own).any() for own in values):
            found.append(_row(measure, cell, works, np.array([np.nanmean(own) for own in values])))
    return pd.concat([pd.DataFrame(found), fixed_rows(asked, FIXED)], ignore_index=True)


def _row(measure: str, cell: str, n: int, values: FloatArray) -> dict[str, object]:
    columns = {f"group{at}": value for at, value in enumerate(values)}
    return {"measure": measure, "cell": cell, "n": n, "whole": float(np.mean(values)), **columns}


def fixed_rows(asked: Params, fixed: dict[str, str]) -> pd.DataFrame:
    """Cells of one known value: ``nothing`` is 0."""
    groups = len(asked.art_finetuning.groups)
    known = {cell: np.full(groups, VALUES.get(cell, 0.0)) for cell in fixed}
    return pd.DataFrame([_row(measure, cell, 0, known[cell]) for cell, measure in fixed.items()])


def cells(asked: Params) -> set[str]:
    """Every cell of ``rows``."""
    return {DEEP, PAIRS, *REVERSALS, *FIXED}


def main(asked: Params) -> None:
    paths.MEASURES.mkdir(parents=True, exist_ok=True)
    pipeline = settled(base.load(paths.BASE), machine.accelerator(asked.machine).device)
    pipeline.vae.requires_grad_(False)
    some = list(seen(asked, pipeline))
    tables = {
        LOSSES: pd.concat([losses_of(asked, pipeline, each) for each in some]),
        GRADIENTS: gradients(asked),
        OUTLIERS: pd.concat([outliers_of(pipeline.vae, each, asked.data.size) for each in some]),
        INTERPOLATED: pd.concat([interpolated_of(asked, pipeline.vae, each) for each in some]),
    }
    for target, table in tables.items():
        table.to_csv(target, index=False, float_format="%.9g")
