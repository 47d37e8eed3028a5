"""Decode latents of models' pictures and of held-out works with retuned decoders."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from atelier import machine
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, of_shards, write_shards
from atelier.files import check_seal
from atelier.models import base
from atelier.models.autoencoders import load_like
from atelier.models.latents import encode_pictures
from atelier.params import Params
from atelier.sampling.sampler import decoded as pictures_of
from atelier.workspace import Workspace

REPAINTED = "repainted"  # in the folder of samples: held-out works reconstructed by each decoder
ORIGINAL, MAIN = "original", "all"  # the unchanged decoder; the one retuned with the complete loss, if it exists


def decoders(params: Params, workspace: Workspace, name: str) -> dict[int, ModelMixin]:
    """Load a decoder for each training seed (the original is the same for all), in the memory layout of sampling."""
    seeds, device = params.protocol.training_seeds, machine.accelerator(params.machine).device
    vae = base.load(check_seal(workspace.base)).vae.to(device, memory_format=torch.channels_last)
    if name == ORIGINAL:
        return dict.fromkeys(seeds, vae)
    return {
        seed: load_like(vae, check_seal(workspace.decoder(name, seed)) / "vae").to(
            device, memory_format=torch.channels_last
        )
        for seed in seeds
    }


def decoded(params: Params, vaes: Mapping[int, ModelMixin], latents: Tensor, repeats: Sequence[int]) -> Tensor:
    """Decode last latents to (n, 3, h, w) uint8 as in sampling, each repeat with its training seed's decoder."""
    seeds = np.array([params.protocol.seed_of_repeat(repeat) for repeat in repeats])
    made: dict[int, Tensor] = {}
    for seed, vae in vaes.items():
        if not (rows := (seeds == seed).nonzero()[0]).size:
            continue
        with machine.accelerator(params.machine).autocast():
            made |= dict(zip(rows, to_pixels(pictures_of(vae, latents[rows], params.sampling.batch)), strict=True))
    return torch.stack([made[index] for index in range(len(latents))])


class Repainted(NamedTuple):
    """A group's held-out works and their reconstructions, and each work's style."""

    works: Pictures
    made: Pictures
    styles: npt.NDArray[np.object_]

    def by_style(self) -> dict[str, "Repainted"]:
        """Split by style."""
        split = {}
        for style in sorted(set(self.styles)):
            rows = self.styles == style
            split[style] = Repainted(self.works[rows], self.made[rows], self.styles[rows])
        return split


def repaint(params: Params, workspace: Workspace, name: str, folder: Path) -> None:
    """Write held-out works reconstructed by one decoder, in table order; a group uses its first repeat's decoder.

    Latents come from the base's encoder, which retuning does not change.
    """
    groups, first = params.protocol.groups, params.protocol.training_seeds[0]
    works = prepare.pictures(held_out(workspace.manifests), params.data, workspace)
    original, retuned = decoders(params, workspace, ORIGINAL)[first], decoders(params, workspace, name)

    def batches() -> Iterator[Tensor]:
        number = 0
        for batch in works.batches():
            repeats = [groups[at % len(groups)][0] for at in range(number, number + len(batch))]
            yield decoded(params, retuned, encode_pictures(original, batch).mean, repeats)
            number += len(batch)

    write_shards(batches(), folder, name)


def repainted(params: Params, workspace: Workspace, names: Sequence[str], folder: Path) -> Iterator[list[Repainted]]:
    """What ``repaint`` wrote to ``folder``: for each decoder, groups of every k-th work, for works come by style."""
    table, groups = held_out(workspace.manifests), params.protocol.groups
    works, styles = prepare.pictures(table, params.data, workspace), table["art_style"].to_numpy()
    for name in names:
        made = of_shards(folder, name)
        if len(made) != len(works):
            raise ValueError(f"{folder}: {len(made)} works went through '{name}', {len(works)} are held out")
        slices = [slice(first, None, len(groups)) for first in range(len(groups))]
        yield [Repainted(works[rows], made[rows], styles[rows]) for rows in slices]


def held_out(manifests: Path) -> pd.DataFrame:
    """The held-out works' manifest."""
    return prepare.works(manifests).table.query("split == 'test'")
