"""Both forms of the loss on decoded latents, before any training: their gradients by noise level, and round trips.

The paper's figure 7 shows that decoded clean estimates are blurred at large steps; here the gradients' norms, with
respect to the denoiser's output, of the form at the noise level at hand (eq. 2), of the form of the clean estimate
(eq. 8), and of the error of latents (eq. 1). Of held-out works; each group of repeats has others.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier import machine, scratch
from atelier.data.prompts import prompt
from atelier.diffusion import clean_estimate, noise_estimate, noised
from atelier.evaluation.sharing import rows_of_groups
from atelier.evaluation.tables import write_rows
from atelier.files import check_seal
from atelier.methods.pixel_space import clean_pixel_loss, pixel_loss
from atelier.models import base
from atelier.models.latents import encode_pictures, encode_prompts, unscaled
from atelier.params import Params
from atelier.sampling.sampler import settled
from atelier.seeds import torch_generator
from atelier.studies.pixel_space.params import Config
from atelier.studies.pixel_space.pictures import HELD_OUT, LEVEL, folder, pictures, split
from atelier.training import denoiser
from atelier.workspace import Workspace

GRADIENTS, OUT = f"{Config.STUDY}_gradients.csv", f"{Config.STUDY}_inspected.csv"  # in the folder of measures
LATENT, NOISY, CLEAN = "latent", "noisy", "clean"
LEVELS = 20  # noise levels, at the middles of equal parts of all steps: two in each tenth
PART = 10  # the noisiest and the cleanest tenth
TRIPS = (250, 500, 750)  # of 1000 steps
BATCH = 16


class Inspected(NamedTuple):
    """A group's works: latents and noise (n, c, h, w), and prompts' embeddings."""

    z0: Tensor
    eps: Tensor
    words: Tensor


def main(params: Params, workspace: Workspace) -> None:
    """Write the table of gradients' norms, and the rows of measures that claims use."""
    config = Config.of(params)
    inputs = [workspace.base, workspace.manifests, folder(workspace)]
    settings = {"style": config.style, "inspected": config.inspected}
    run = scratch.of_stage(params, workspace, __name__, workspace.measures / OUT, inputs, **settings)
    pipeline = settled(base.load(check_seal(workspace.base)), machine.accelerator(params.machine).device)
    pipeline.vae.requires_grad_(False)
    pipeline.unet.requires_grad_(False)
    norms, trips = [], []
    for group, sample in enumerate(inspected(params, workspace, pipeline)):
        norms.append(scratch.table(run, f"norms {group}", partial(norms_of, params, pipeline, sample)))
        trips.append(scratch.table(run, f"trips {group}", partial(trips_of, pipeline, sample)))
    write_rows(curves(norms), workspace.measures / GRADIENTS, numbers="%.9g")
    write_rows(pd.concat([ratios(norms), round_trips(trips)], ignore_index=True), workspace.measures / OUT)
    scratch.discard(run)


def inspected(params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline) -> Iterator[Inspected]:
    """Held-out works per group, evenly from all; none is used twice."""
    groups, table = len(params.protocol.groups), split(workspace, HELD_OUT)
    for chosen in rows_of_groups(len(table), Config.of(params).inspected, groups):
        rows = table.iloc[chosen].reset_index(drop=True)
        texts = [prompt(row, LEVEL, 0) for row in rows.to_dict("records")]
        z0 = encode_pictures(pipeline.vae, pictures(params, workspace, rows)).mean
        noise = [torch_generator(params.seed, Config.STUDY, "inspect", name) for name in rows["path"]]
        eps = torch.stack([torch.randn(z0.shape[1:], generator=each) for each in noise])
        yield Inspected(z0, eps, encode_prompts(pipeline, texts))


# ------------------------------------------------------------------------------------------------ gradients


def norms_of(params: Params, pipeline: StableDiffusionPipeline, sample: Inspected) -> pd.DataFrame:
    """By picture and noise level: the norm of each form's gradient with respect to the denoiser's output."""
    accelerate, scheduler = machine.accelerator(params.machine), pipeline.scheduler
    alphas, sigmas, times = denoiser.path(scheduler)
    tables = []
    for level in range(LEVELS):
        t = (2 * level + 1) * len(alphas) // (2 * LEVELS)
        for rows in torch.arange(len(sample.z0)).split(BATCH):
            z0, eps, words = (x[rows].to(accelerate.device) for x in sample)
            alpha, s = alphas[t].to(accelerate.device), sigmas[t].to(accelerate.device)
            zt = noised(z0, eps, alpha, s)
            with torch.no_grad(), accelerate.autocast():
                output = pipeline.unet(zt, times[t].to(accelerate.device), words).sample.float()
            kind = scheduler.config.prediction_type
            norms = {
                name: norm.tolist() for name, norm in gradient_norms(pipeline.vae, kind, z0, eps, output, alpha, s)
            }
            tables.append(pd.DataFrame({"t": t, "picture": rows.tolist(), **norms}))
    return pd.concat(tables, ignore_index=True)


def gradient_norms(
    vae: AutoencoderKL, kind: str, z0: Tensor, eps: Tensor, output: Tensor, alpha: Tensor, s: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Each form's name and the norm (n,) of its gradient with respect to a denoiser's ``output`` for these latents."""

    def decode(latents: Tensor) -> Tensor:
        return vae.decode(unscaled(vae, latents).to(vae.dtype)).sample

    zt = noised(z0, eps, alpha, s)
    output = output.detach().requires_grad_(True)
    forms = {
        LATENT: lambda: (noise_estimate(kind, zt, output, alpha, s) - eps).square().mean((1, 2, 3)),
        NOISY: lambda: pixel_loss(decode, z0, eps, noise_estimate(kind, zt, output, alpha, s), alpha, s),
        CLEAN: lambda: clean_pixel_loss(decode, z0, clean_estimate(kind, zt, output, alpha, s)),
    }
    for name, form in forms.items():
        (gradient,) = torch.autograd.grad(form().sum(), output)
        yield name, gradient.flatten(1).norm(dim=1).cpu()


def curves(norms: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean norm of each form at each level: t, form, n, whole, and one column for each group."""
    rows = []
    for t in norms[0]["t"].unique():
        at = [table[table["t"] == t] for table in norms]
        for form in (LATENT, NOISY, CLEAN):
            values = [float(table[form].mean()) for table in at]
            rows.append({"t": int(t), "form": form, **_columns(sum(map(len, at)), values)})
    return pd.DataFrame(rows)


def ratios(norms: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows ``log_form_ratio``: log10 of the clean form's norm over the noisy form's, at both ends of the steps.

    The mean of the logarithms of all pictures and levels of that tenth.
    """
    levels, ends = sorted(norms[0]["t"].unique()), LEVELS // PART
    rows = []
    for cell, chosen in (("noisiest", levels[-ends:]), ("cleanest", levels[:ends])):
        parts = [table[table["t"].isin(chosen)] for table in norms]
        values = [float(np.log10(part[CLEAN] / part[NOISY]).mean()) for part in parts]
        n = sum(part["picture"].nunique() for part in parts)
        rows.append({"measure": "log_form_ratio", "cell": cell, **_columns(n, values)})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ round trips


@torch.no_grad()
def trips_of(pipeline: StableDiffusionPipeline, sample: Inspected) -> pd.DataFrame:
    """Share of noisy latents' variance that is left of them, decoded and encoded again, at three steps."""
    alphas, sigmas, _ = denoiser.path(pipeline.scheduler)
    rows = []
    for trip in TRIPS:
        t = trip * len(alphas) // 1000
        zt = noised(sample.z0, sample.eps, alphas[t], sigmas[t])
        returned = torch.cat([round_trip(pipeline.vae, part) for part in zt.split(BATCH)])
        rows.append({"trip": trip, "n": len(zt), "explained": explained(zt, returned)})
    return pd.DataFrame(rows)


def round_trip(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents (n, c, h, w) decoded and encoded again, in the denoiser's units; pictures are not clipped."""
    pictures = vae.decode(unscaled(vae, latents.to(vae.device)).to(vae.dtype)).sample
    mean = vae.encode(pictures).latent_dist.mean
    return ((mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor).float().cpu()


def explained(wanted: Tensor, made: Tensor) -> float:
    """1 less the squared error over the variance about each channel's mean, of all latents (n, c, h, w)."""
    wanted, made = wanted.double(), made.double()
    spread = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    return float(1 - (wanted - made).square().sum() / spread)


def round_trips(trips: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows ``round_trip``, one cell for each step."""
    rows = []
    for place, trip in enumerate(TRIPS):
        values, n = ([table.iloc[place][name] for table in trips] for name in ("explained", "n"))
        rows.append({"measure": "round_trip", "cell": f"t-{trip}", **_columns(int(sum(n)), values)})
    return pd.DataFrame(rows)


def _columns(n: int, values: Sequence[float]) -> dict[str, float | int]:
    """A measure's columns: n, the groups' mean, and each group's value."""
    return {"n": n, "whole": float(np.mean(values)), **{f"group{group}": x for group, x in enumerate(values)}}
