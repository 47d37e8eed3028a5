"""Decode latents of models' pictures and of held-out works with retuned decoders."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import machine, paths
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.models import base
from atelier.models.autoencoders import load_like
from atelier.models.latents import encode_pictures
from atelier.params import Params
from atelier.sampling.sampler import decoded as pictures_of

REPAINTED = paths.SAMPLES / "repainted"  # held-out works reconstructed by each decoder
ORIGINAL, MAIN = "original", "all"  # the unchanged decoder; the one retuned with the complete loss, if it exists


def decoders(params: Params, name: str) -> dict[int, ModelMixin]:
    """Load a decoder for each training seed (the original is the same for all), in the memory layout of sampling."""
    seeds, device = params.protocol.training_seeds, machine.accelerator(params.machine).device
    vae = base.load(paths.BASE).vae.to(device, memory_format=torch.channels_last)
    if name == ORIGINAL:
        return dict.fromkeys(seeds, vae)
    return {
        seed: load_like(vae, paths.decoder(name, seed) / "vae").to(device, memory_format=torch.channels_last)
        for seed in seeds
    }


def decoded(params: Params, vaes: Mapping[int, ModelMixin], latents: Tensor, repeats: Sequence[int]) -> Tensor:
    """Decode last latents to (n, 3, h, w) uint8 as in sampling, each repeat with its training seed's decoder."""
    seeds = np.array([params.protocol.seed_of_repeat(repeat) for repeat in repeats])
    made: dict[int, Tensor] = {}
    for seed, vae in vaes.items():
        rows = (seeds == seed).nonzero()[0]
        with machine.accelerator(params.machine).autocast():
            made |= dict(zip(rows, to_pixels(pictures_of(vae, latents[rows], params.sampling.batch)), strict=True))
    return torch.stack([made[index] for index in range(len(latents))])


class Repainted(NamedTuple):
    """A group's held-out works and their reconstructions (n, 3, h, w) uint8, and each work's style."""

    works: Tensor
    made: Tensor
    styles: npt.NDArray[np.object_]

    def by_style(self) -> dict[str, "Repainted"]:
        """Split by style."""
        split = {}
        for style in sorted(set(self.styles)):
            rows = self.styles == style
            split[style] = Repainted(self.works[rows], self.made[rows], self.styles[rows])
        return split


def repaint(params: Params, name: str, path: Path) -> None:
    """Write held-out works reconstructed by one decoder, in table order; a group uses its first repeat's decoder.

    Latents come from the base's encoder, which retuning does not change.
    """
    groups, works = params.protocol.groups, prepare.pictures(held_out(), params.data)
    repeats = [groups[number % len(groups)][0] for number in range(len(works))]
    latents = encode_pictures(decoders(params, ORIGINAL)[params.protocol.training_seeds[0]], works).mean
    save_file({"pictures": decoded(params, decoders(params, name), latents, repeats)}, path)


def repainted(params: Params, names: Sequence[str], folder: Path = REPAINTED) -> Iterator[list[Repainted]]:
    """What ``repaint`` wrote: for each decoder, groups that take every k-th work, because works are sorted by style."""
    table, groups = held_out(), params.protocol.groups
    works, styles = prepare.pictures(table, params.data), table["art_style"].to_numpy()
    for name in names:
        made = load_file(folder / f"{name}.safetensors")["pictures"]
        if made.shape != works.shape:
            raise ValueError(f"{folder}: {len(made)} works went through '{name}', {len(works)} are held out")
        slices = [slice(first, None, len(groups)) for first in range(len(groups))]
        yield [Repainted(works[rows], made[rows], styles[rows]) for rows in slices]


def held_out() -> pd.DataFrame:
    """The held-out works' manifest."""
    return prepare.works().table.query("split == 'test'")
