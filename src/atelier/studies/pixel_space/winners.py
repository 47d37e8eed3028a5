"""The denoising error of preferred pictures, before and after preference tuning: what the loss may pay with."""

from functools import cache

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine
from atelier.diffusion import noise_estimate, noised
from atelier.params import Params
from atelier.seeds import torch_generator
from atelier.studies.pixel_space.params import Config, protocol_of
from atelier.studies.pixel_space.pictures import Pairs, pairs
from atelier.studies.pixel_space.train import start, tuned_pipeline
from atelier.training import denoiser
from atelier.workspace import Workspace

DRAWS = 4  # of noise and step for each winner
BATCH = 32


def winner_errors(params: Params, workspace: Workspace, variant: str) -> pd.DataFrame:
    """The row ``winner_error`` of a variant: its error over that of what it began with, less 1, for each group."""
    config, protocol = Config.of(params), protocol_of(params, variant).protocol
    preferred, device = pairs(workspace), machine.accelerator(params.machine).device
    before = start(params, workspace, config.trainings[variant]).to(device)
    tuned = cache(lambda seed: tuned_pipeline(params, workspace, variant, seed).to(device))
    values = []
    for repeats in protocol.groups:
        after = tuned(protocol.seed_of_repeat(repeats[0]))
        made, base = (mean_error(params, pipeline, preferred, repeats[0]) for pipeline in (after, before))
        values.append(made / base - 1)
    columns = {f"group{group}": value for group, value in enumerate(values)}
    whole = float(np.mean(values))
    return pd.DataFrame(
        [{"measure": "winner_error", "cell": variant, "n": len(preferred.winner), "whole": whole, **columns}]
    )


@torch.no_grad()
def mean_error(params: Params, pipeline: StableDiffusionPipeline, preferred: Pairs, repeat: int) -> float:
    """Mean squared error of the noise in winners, over ``DRAWS`` of step and noise each, named by a repeat."""
    alphas, sigmas, times = denoiser.path(pipeline.scheduler)
    kind, device = pipeline.scheduler.config.prediction_type, pipeline.device
    t, eps = draws(params, preferred.winner, len(alphas), repeat)
    z0, words = preferred.winner.repeat(DRAWS, 1, 1, 1), preferred.embeddings.repeat(DRAWS, 1, 1)
    total = 0.0
    for rows in torch.arange(len(t)).split(BATCH):
        alpha, s = (level[t[rows]].view(-1, 1, 1, 1) for level in (alphas, sigmas))
        zt = noised(z0[rows], eps[rows], alpha, s)
        with machine.accelerator(params.machine).autocast():
            output = pipeline.unet(*(x.to(device) for x in (zt, times[t[rows]], words[rows]))).sample.float().cpu()
        total += float((noise_estimate(kind, zt, output, alpha, s) - eps[rows]).square().mean((1, 2, 3)).sum())
    return total / len(t)


def draws(params: Params, latents: Tensor, steps: int, repeat: int) -> tuple[Tensor, Tensor]:
    """Steps (DRAWS n,) and noise (DRAWS n, c, h, w), the same for every model; all of a draw's winners first."""
    t, eps = [], []
    for draw in range(DRAWS):
        for pair in range(len(latents)):
            generator = torch_generator(params.seed, Config.STUDY, "winner", repeat, draw, pair)
            t.append(torch.randint(steps, (), generator=generator))
            eps.append(torch.randn(latents.shape[1:], generator=generator))
    return torch.stack(t), torch.stack(eps)
