"""Noise held-out works half-way and denoise them with a variant: their layout stays, and the painter's masks hold.

Works, noise and prompts are the same for every variant. Works that are not painted have no mask, so that a note is all
that is left of them.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import machine, scratch
from atelier.data.images import to_pixels
from atelier.files import check_seal, reading, write_text
from atelier.models.latents import encode_pictures, encode_prompts
from atelier.params import Params
from atelier.sampling.conditions import LATENTS, PICTURES, white_noise
from atelier.sampling.sampler import decoded, settled
from atelier.sampling.store import write
from atelier.studies.pixel_space.params import Config
from atelier.studies.pixel_space.pictures import HELD_OUT, held_out_prompts, masks, pictures, split
from atelier.studies.pixel_space.variant import inputs_of, key_of, load
from atelier.workspace import Workspace, replacing

ABSENT = "absent.txt"
NOISE = "restored"  # names the noise


def write_restored(params: Params, workspace: Workspace, variant: str, seed: int) -> None:
    """Write one variant's restored works of one seed to ``build/restored/pixel_space/VARIANT/SEED``."""
    config = Config.of(params)
    out = restored_at(workspace, variant, seed)
    inputs = inputs_of(params, workspace, variant, seed)
    if masks(params, split(workspace, HELD_OUT).head(1)) is None:
        with replacing(out) as part:
            write_text(part / ABSENT, "held-out works are not painted, so that there is no mask of their subjects\n")
        return
    key = key_of(params, variant) | {"restored": config.restored, "strength": config.strength}
    run = scratch.of_stage(params, workspace, __name__, out, inputs, **key)
    table = held_out_prompts(params, workspace, config.restored, seed)

    def save(path: Path) -> None:
        pipeline = settled(load(params, workspace, variant, seed), machine.accelerator(params.machine).device)
        works = pictures(params, workspace, held_out(workspace, table)).load()
        latents, made = restored(params, pipeline, table, works)
        save_file({LATENTS: latents.contiguous(), PICTURES: made.contiguous()}, path)

    file = scratch.part(run, "restored", ".safetensors", save)
    with reading(file):
        made = load_file(file)
    with replacing(out) as part:
        write(made[PICTURES], made[LATENTS], table, part)
    scratch.discard(run)


def restored_at(workspace: Workspace, variant: str, seed: int) -> Path:
    """The folder of one variant's restored works of one seed."""
    return workspace.build / "restored" / Config.STUDY / variant / str(seed)


def is_restored(folder: Path) -> bool:
    """Whether the stage restored works there. Raises ValueError for a damaged folder."""
    return not (check_seal(folder) / ABSENT).is_file()


def held_out(workspace: Workspace, table: pd.DataFrame) -> pd.DataFrame:
    """The held-out works whose prompts a table has, in its order."""
    works = split(workspace, HELD_OUT).set_index("path", drop=False)
    return works.loc[table["path"]].reset_index(drop=True)


def restored(
    params: Params, pipeline: StableDiffusionPipeline, table: pd.DataFrame, works: Tensor
) -> tuple[Tensor, Tensor]:
    """Last latents (n, c, h, w), and their pictures (n, 3, h, w) uint8, of works that were noised to ``strength``."""
    config, accelerator = Config.of(params), machine.accelerator(params.machine)
    z0, noise = encode_pictures(pipeline.vae, works).mean, white_noise(params, NOISE)(pipeline, table)
    taken = max(1, round(config.strength * params.sampling.steps))
    words, empty = encode_prompts(pipeline, list(table["prompt"])), encode_prompts(pipeline, [""])
    parts, batch = [], params.sampling.batch
    finish = partial(
        denoised, pipeline, empty=empty, guidance=config.guidance, steps=params.sampling.steps, taken=taken
    )
    with accelerator.autocast():
        for first in range(0, len(z0), batch):
            rows = [min(row, len(z0) - 1) for row in range(first, first + batch)]  # every batch is full
            parts.append(finish(z0[rows], noise[rows], words[rows])[: len(z0) - first])
        latents = torch.cat(parts)
        return latents, to_pixels(decoded(pipeline.vae, latents, batch))


@torch.no_grad()
def denoised(
    pipeline: StableDiffusionPipeline,
    z0: Tensor,
    noise: Tensor,
    words: Tensor,
    *,
    empty: Tensor,
    guidance: float,
    steps: int,
    taken: int,
) -> Tensor:
    """Latents (n, c, h, w) after the last ``taken`` of ``steps`` sampler's steps, from ``z0`` noised to the first.

    As ``last_latents`` samples, from a later step: with classifier-free guidance, without chance.
    """
    scheduler, unet, device = pipeline.scheduler, pipeline.unet, pipeline.device
    scheduler.set_timesteps(steps, device=device)
    times = scheduler.timesteps[-taken:]
    z = scheduler.add_noise(z0, noise, times[:1].cpu().expand(len(z0))).to(device, unet.dtype)
    both = torch.cat([empty.expand_as(words), words]).to(device, unet.dtype)
    for time in times:
        unconditional, conditional = unet(torch.cat([z, z]), time, both).sample.chunk(2)
        z = scheduler.step(unconditional + guidance * (conditional - unconditional), time, z).prev_sample
    return z.float().cpu()
