"""Measure properties of the latent perceptual loss on the base, before any training.

On held-out photographs: each decoder stage's share of the loss and its direction by noise level, gradients of the loss
and of squared error at the parameters, outliers of feature maps, and latents resized down and up again. One table each;
each group has different pictures.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor
from torch.nn.functional import interpolate

from atelier import machine, scratch
from atelier.data.images import to_model_range, to_pixels
from atelier.diffusion import clean_estimate, noised
from atelier.evaluation.intervals import FloatArray
from atelier.evaluation.sharing import rows_of_groups
from atelier.evaluation.tables import read_rows, write_rows
from atelier.files import check_seal
from atelier.methods.latent_perceptual import (
    MASKED_FROM,
    depth_weights,
    outlier_mask,
    stage_losses,
    statistics,
    threshold,
)
from atelier.methods.perceptual import LPIPS
from atelier.models import base
from atelier.models.autoencoders import decoder_stages
from atelier.models.latents import decode, encode_pictures, encode_prompts, unscaled
from atelier.params import Params
from atelier.sampling.sampler import settled
from atelier.seeds import torch_generator
from atelier.studies.latent_perceptual.loss import TERM, gated, latent_error
from atelier.studies.latent_perceptual.params import Config
from atelier.studies.latent_perceptual.pictures import HELD_OUT, folder, main_sources
from atelier.studies.latent_perceptual.train import PostTrainingSetup
from atelier.training import denoiser
from atelier.training.denoiser import Denoised
from atelier.training.order import turns
from atelier.workspace import Workspace

LOSSES, GRADIENTS, OUTLIERS, INTERPOLATED = (  # in the folder of measures
    f"decoder_features_{name}.csv" for name in ("losses", "gradients", "outliers", "interpolated")
)
PAPER_TAU = 4.0
LEVELS = 8  # noise levels, over all steps, at which estimates are inspected
BATCHES = 4  # per group, for comparing gradients
BATCH = 32
FAR = 10.0  # threshold for far outliers, in standard deviations of the rest of a map
METHODS, FACTORS = ("nearest", "bilinear", "bicubic"), (1.3, 2.0, 3.0)  # the paper's figure 12
ALIKE = 0.3  # latent errors that differ by less than this share count as alike
DEEP, PAIRS = "deep-maps", "pairs"
REVERSALS = ("bicubic", "nearest")  # the paper's two: bicubic by 1.3 over bilinear by 2, nearest over bilinear
# cells of fixed values, for claims: measure by cell
FIXED = {"one-percent": "outliers", "fifth": "reversed", "half": "reversal"}
VALUES = {"one-percent": 0.01, "fifth": 0.2, "half": 0.5}


class Inspected(NamedTuple):
    """A group's inspected pictures: their rows, latents (n, c, h, w) and prompts' embeddings."""

    group: int
    table: pd.DataFrame
    z0: Tensor
    words: Tensor


def last_step_under(alphas: Tensor, sigmas: Tensor, side: int, tau: float = PAPER_TAU) -> int:
    """The noisiest training step whose noise-to-signal ratio is under the threshold."""
    return int((sigmas <= threshold(tau, side) * alphas).nonzero().max())


def inspected(params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline) -> Iterator[Inspected]:
    """Held-out pictures per group, evenly from all; none is used twice."""
    study, groups = Config.of(params), len(params.protocol.groups)
    source = main_sources(params, workspace)
    table = source.split(HELD_OUT)
    for group, chosen in enumerate(rows_of_groups(len(table), study.inspected, groups)):
        rows = table.iloc[chosen].reset_index(drop=True)
        texts = [source.prompt(row, 0) for row in rows.to_dict("records")]
        z0 = encode_pictures(pipeline.vae, source.pictures(rows)).mean
        yield Inspected(group, rows, z0, encode_prompts(pipeline, texts))


def noise_of(sample: Inspected, purpose: str) -> Tensor:
    """White noise in the shape of the latents, seeded by each picture's path."""
    names = sample.table["path"]
    return torch.stack(
        [torch.randn(sample.z0.shape[1:], generator=torch_generator(Config.STUDY, purpose, x)) for x in names]
    )


# ------------------------------------------------------------------------------------------------ the loss by noise


def losses_of(params: Params, pipeline: StableDiffusionPipeline, sample: Inspected) -> pd.DataFrame:
    """By picture and noise level: each stage's loss, latent error, and the cosine of their gradients at the estimate.

    The gradient of squared error at an estimate points away from the clean latent; that of the loss need not.
    """
    accelerate, vae = machine.accelerator(params.machine), pipeline.vae
    alphas, sigmas, times = denoiser.path(pipeline.scheduler)
    kind, depth = pipeline.scheduler.config.prediction_type, 1 + len(vae.decoder.up_blocks)
    eps = noise_of(sample, "look")
    rows = []
    for start in range(0, len(eps), BATCH):
        batch = slice(start, start + BATCH)
        z0 = sample.z0[batch].to(accelerate.device)
        with torch.no_grad():
            targets = decoder_stages(vae, unscaled(vae, z0), depth)  # the same at every level
        for level in range(LEVELS):
            t = (2 * level + 1) * len(alphas) // (2 * LEVELS)
            zt = noised(sample.z0[batch], eps[batch], alphas[t], sigmas[t])
            with torch.no_grad(), accelerate.autocast():
                inputs = (
                    zt.to(accelerate.device),
                    times[t].to(accelerate.device),
                    sample.words[batch].to(accelerate.device),
                )
                output = pipeline.unet(*inputs).sample.float().cpu()
            estimate = clean_estimate(kind, zt, output, alphas[t], sigmas[t]).to(accelerate.device)
            estimate.requires_grad_(True)
            predictions = decoder_stages(vae, unscaled(vae, estimate), depth)
            stages = stage_losses(targets, predictions, params.data.size)
            weights = depth_weights([each.shape[-1] for each in predictions])
            whole = sum(weight * loss for weight, loss in zip(weights, stages, strict=True))
            assert isinstance(whole, Tensor)
            (gradient,) = torch.autograd.grad(whole.sum(), estimate)
            away = (estimate.detach() - z0).flatten(1)
            cosine = torch.cosine_similarity(gradient.flatten(1), away)
            columns = {f"stage{number}": loss.detach().tolist() for number, loss in enumerate(stages, 1)}
            columns |= {"loss": whole.detach().tolist(), "cosine": cosine.tolist()}
            columns["latent_error"] = away.square().mean(1).tolist()
            rows.append(pd.DataFrame({"group": sample.group, "t": t, "sigma": float(sigmas[t] / alphas[t]), **columns}))
    return pd.concat(rows).sort_values("t", kind="stable", ignore_index=True)


# ------------------------------------------------------------------------------------------------ gradients


def gradients(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Cosines between gradients at the parameters, for the main variant's first training batches, before training.

    Between the denoising error, the loss, and latent error on the same steps; a group's batches use its training seed.
    Empty if the study has no perceptual variant.
    """
    tables = [pd.DataFrame({"group": [], "batch": [], "of": [], "against": [], "cosine": []})]
    config = Config.of(params)
    main = next((name for name in config.variants if config.trainings[name].loss == "perceptual"), None)
    seeds = [params.protocol.seed_of_repeat(repeats[0]) for repeats in params.protocol.groups]
    for seed in dict.fromkeys(seeds) if main else ():
        assert main is not None
        setup = PostTrainingSetup(params, workspace, main, seed)
        tables += [angles(setup, group) for group, group_seed in enumerate(seeds) if group_seed == seed]
    return pd.concat(tables, ignore_index=True)


def angles(setup: PostTrainingSetup, group: int) -> pd.DataFrame:
    """One group's cosines: one row per batch and pair."""
    parameters = list(setup.trainable.values())
    extras = {
        "perceptual": setup.extra(),
        "reweighted": gated(latent_error, setup.kind, setup.training.tau, setup.config.slices),
    }

    def both(step: Denoised) -> dict[str, Tensor]:
        return {name: extra(step)[TERM] for name, extra in extras.items()}

    rows = []
    for number in range(BATCHES):
        batch = turns(setup.seed, group * BATCHES + number, setup.config.optimisation.batch, len(setup.works.names))
        with setup.accelerator.autocast():
            terms = setup.task(setup.seed, both).losses(batch)
        if not terms["perceptual"].requires_grad:  # no sample under the threshold
            continue
        directions = {name: _flat(terms[name], parameters) for name in ("denoising", *extras)}
        for first, second in combinations(directions, 2):
            cosine = float(torch.cosine_similarity(directions[first], directions[second], dim=0))
            rows.append({"group": group, "batch": number, "of": second, "against": first, "cosine": cosine})
    return pd.DataFrame(rows)


def _flat(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    parts = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([each.double().flatten() for each in parts if each is not None])


# ------------------------------------------------------------------------------------------------ outliers


@torch.no_grad()
def outliers_of(vae: AutoencoderKL, sample: Inspected, side: int) -> pd.DataFrame:
    """By stage: the number of maps, of masked maps, and of maps with an outlier beyond ``FAR`` deviations of the rest.

    ``farthest``: the largest masked outlier, in such deviations.
    """
    rows = []
    for start in range(0, len(sample.z0), BATCH):
        z = sample.z0[start : start + BATCH].to(vae.device)
        for stage, features in enumerate(decoder_stages(vae, unscaled(vae, z), 1 + len(vae.decoder.up_blocks)), 1):
            down = side / features.shape[-1]
            valid = outlier_mask(features, down)
            mean, deviation = statistics(features, valid)
            far = torch.where(valid, 0, (features - mean).abs() / deviation).amax((2, 3))
            row = {"group": sample.group, "stage": stage, "down": down, "maps": far.numel()}
            masked = int((~valid).any(3).any(2).sum())
            rows.append({**row, "masked": masked, "far": int((far > FAR).sum()), "farthest": float(far.max())})
    table = pd.DataFrame(rows)
    how = {"maps": "sum", "masked": "sum", "far": "sum", "farthest": "max"}
    return table.groupby(["group", "stage", "down"]).agg(how).reset_index()


# ------------------------------------------------------------------------------------------------ interpolation


def resized(z: Tensor, method: str, factor: float) -> Tensor:
    """Resize a latent down by ``factor`` and back up (the paper's figure 12)."""
    small = [max(1, round(side / factor)) for side in z.shape[2:]]
    how = {} if method == "nearest" else {"align_corners": False}
    less = interpolate(z, small, mode=method, **how)
    return interpolate(less, list(z.shape[2:]), mode=method, **how)


def interpolated_of(params: Params, workspace: Workspace, vae: AutoencoderKL, sample: Inspected) -> pd.DataFrame:
    """By picture, method and factor: squared error of the latent, perceptual distance of the decoded picture."""
    accelerate = machine.accelerator(params.machine)
    network = LPIPS.from_params(params.perceptual, workspace.root).to(accelerate.device)
    whole = to_model_range(to_pixels(decode(vae, sample.z0)))
    rows = []
    for method in METHODS:
        for factor in FACTORS:
            z = resized(sample.z0, method, factor)
            made = to_model_range(to_pixels(decode(vae, z)))
            with torch.no_grad():
                pairs = zip(made.split(BATCH), whole.split(BATCH), strict=True)
                apart = torch.cat([network(*(x.to(accelerate.device) for x in pair)).cpu() for pair in pairs])
            error = (z - sample.z0).square().mean((1, 2, 3))
            columns = {"group": sample.group, "picture": range(len(z)), "method": method, "factor": factor}
            rows.append(pd.DataFrame({**columns, "latent_error": error.tolist(), "distance": apart.tolist()}))
    return pd.concat(rows, ignore_index=True)


def reversals(table: pd.DataFrame) -> dict[str, FloatArray]:
    """One value per picture: ``pairs``, the share of pairs alike in latent error whose order is reversed in distance;
    and whether each of the paper's two reversals occurs. NaN if a picture has none.
    """  # fmt: skip
    errors, distances = (
        table.pivot(index="picture", columns=["method", "factor"], values=name) for name in ("latent_error", "distance")
    )
    changed = np.zeros(len(errors))
    alike = np.zeros(len(errors))
    for first, second in combinations(errors.columns, 2):
        a, b = errors[first].to_numpy(), errors[second].to_numpy()
        near = np.abs(a - b) <= ALIKE * np.minimum(a, b)
        alike += near
        changed += near & ((a - b) * (distances[first] - distances[second]).to_numpy() < 0)

    def beats(first: tuple[str, float], second: tuple[str, float]) -> FloatArray:
        worse = (errors[first] > errors[second]).to_numpy()
        result: FloatArray = (worse & (distances[first] < distances[second]).to_numpy()).astype(float)
        return result

    return {
        PAIRS: np.divide(changed, alike, out=np.full(len(errors), math.nan), where=alike > 0),
        "bicubic": beats(("bicubic", FACTORS[0]), ("bilinear", FACTORS[1])),
        "nearest": np.mean([beats(("nearest", factor), ("bilinear", factor)) for factor in FACTORS], axis=0),
    }


# ------------------------------------------------------------------------------------------------ for verdicts


def rows(params: Params, measures: Path) -> pd.DataFrame:
    """The rows that claims use from these tables: one per measure and cell, with one value per group of pictures."""
    outliers, interpolated = read_rows(measures / OUTLIERS, ("down", "group")), read_rows(measures / INTERPOLATED)
    deep = outliers[outliers["down"] <= MASKED_FROM]
    shares = deep.groupby("group")[["far", "maps"]].sum()
    by_group = [reversals(each) for _, each in interpolated.groupby("group")]
    number = len(interpolated.drop_duplicates(["group", "picture"]))
    listed = [_row("outliers", DEEP, number, (shares["far"] / shares["maps"]).to_numpy())]  # over all maps
    for cell in (PAIRS, *REVERSALS):
        measure = "reversed" if cell == PAIRS else "reversal"
        values = [each[cell] for each in by_group]
        if all(np.isfinite(each).any() for each in values):
            listed.append(_row(measure, cell, number, np.array([np.nanmean(each) for each in values])))
    return pd.concat([pd.DataFrame(listed), fixed_rows(params, FIXED)], ignore_index=True)


def _row(measure: str, cell: str, n: int, values: FloatArray) -> dict[str, object]:
    columns = {f"group{group}": value for group, value in enumerate(values)}
    return {"measure": measure, "cell": cell, "n": n, "whole": float(np.mean(values)), **columns}


def fixed_rows(params: Params, fixed: dict[str, str]) -> pd.DataFrame:
    """Rows of cells with a fixed value: ``nothing`` is 0."""
    groups = len(params.protocol.groups)
    known = {cell: np.full(groups, VALUES.get(cell, 0.0)) for cell in fixed}
    return pd.DataFrame([_row(measure, cell, 0, known[cell]) for cell, measure in fixed.items()])


def cells(params: Params) -> set[str]:
    """All cells of ``rows``."""
    return {DEEP, PAIRS, *REVERSALS, *FIXED}


def main(params: Params, workspace: Workspace) -> None:
    """Write one table each of losses, gradients, outliers and interpolated latents."""
    config, measures = Config.of(params), workspace.measures
    inputs = [workspace.base, workspace.cache, workspace.manifests, folder(workspace)]
    settings = config.model_dump(mode="json")
    run = scratch.of_stage(params, workspace, __name__, measures / LOSSES, inputs, config=settings)
    pipeline = settled(base.load(check_seal(workspace.base)), machine.accelerator(params.machine).device)
    pipeline.vae.requires_grad_(False)
    samples = list(inspected(params, workspace, pipeline))
    of_pictures: dict[str, Callable[[Inspected], pd.DataFrame]] = {
        LOSSES: partial(losses_of, params, pipeline),
        OUTLIERS: partial(outliers_of, pipeline.vae, side=params.data.size),
        INTERPOLATED: partial(interpolated_of, params, workspace, pipeline.vae),
    }
    tables = {
        name: pd.concat([scratch.table(run, f"{name} {each.group}", partial(table, each)) for each in samples])
        for name, table in of_pictures.items()
    }
    tables[GRADIENTS] = scratch.table(run, GRADIENTS, partial(gradients, params, workspace))
    for name, table in tables.items():
        write_rows(table, measures / name, numbers="%.9g")
    scratch.discard(run)
