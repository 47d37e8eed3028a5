"""Where sampling starts: from white noise, as the papers do, or from noise with the signal that training leaves in it.

A denoiser is trained on first latents that still carry some of a picture's lowest frequencies, and samples from ones
that do not. What that does to pictures is larger than most changes of a denoiser, so that every study looks from both.
Stage ``starts`` fits the leak (Everaert et al. 2024, section 3.2, N = 3) to training pictures of each kind.
"""

from pathlib import Path

import pandas as pd
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine
from atelier.data import prepare
from atelier.files import check_seal
from atelier.methods import signal_leak
from atelier.methods.signal_leak import FrequencyLeak, initial_latents
from atelier.models import base
from atelier.models.encoded import encoded
from atelier.params import CORRECTED, WHITE, Params
from atelier.sampling.conditions import Start, seeds_of, white_noise
from atelier.seeds import torch_generator
from atelier.workspace import Workspace, replacing

FREQUENCIES = 3  # the paper's N


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/starts``: the leak of works, and of photographs where the data has some."""
    vae = base.load(check_seal(workspace.base)).vae.to(machine.accelerator(params.machine).device)
    made_from = base.fingerprint(workspace.base)
    manifests = {prepare.WORKS: prepare.works, prepare.PHOTOGRAPHS: prepare.photographs}
    with replacing(workspace.starts) as part:
        for kind, manifest in manifests.items():
            table = manifest(workspace.manifests).table.query("split == 'train'").reset_index(drop=True)
            if len(table) > 1:
                leak = FrequencyLeak.fit(encoded(params, workspace, vae, table, kind), FREQUENCIES)
                signal_leak.save(leak, part / f"{kind}.safetensors", {"base": made_from, "pictures": kind})
                print(f"{kind}: leak of {FREQUENCIES} frequencies fitted to {leak.n} pictures")


def load(folder: Path, kind: str) -> FrequencyLeak:
    """The leak of ``works`` or ``photographs``. Raises ValueError for a damaged or missing one."""
    leak, _ = signal_leak.load(check_seal(folder) / f"{kind}.safetensors")
    assert isinstance(leak, FrequencyLeak)
    return leak


def fitted(folder: Path, kind: str) -> bool:
    """Whether there were enough pictures of a kind to fit a leak to."""
    return (check_seal(folder) / f"{kind}.safetensors").is_file()


def started(params: Params, start: str, leak: FrequencyLeak, *names: str | int) -> Start:
    """First latents of one of both starts; both have the same white noise, seeded by ``names``, repeat and place."""
    if start == WHITE:
        return white_noise(params, *names)
    if start != CORRECTED:
        raise ValueError(f"start: expected {WHITE} or {CORRECTED}, got '{start}'")

    def latents(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        generators = [torch_generator(*seed) for seed in seeds_of(rows, params.seed, *names)]
        return initial_latents(leak, pipeline.scheduler, len(generators), generators, params.sampling.steps)

    return latents
