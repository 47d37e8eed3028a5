"""The network of perceptual losses; metrics never use it (they use ``models.evaluator``).

Plain convolutions and ReLU, as VGG, without normalisation, so that a picture's features do not depend on the batch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atelier.models import stored
from atelier.models.checked import check_sizes
from atelier.seeds import seed_of

CHANNELS = (24, 48, 96, 128)  # one per stage, at 64, 32, 16 and 8 px
TENSORS, HEADS, CONFIG, CARD = "trunk.safetensors", "heads.safetensors", "config.json", "card.json"


class Trunk(nn.Module):
    """Pictures (n, 3, h, w) in [-1, 1] to one feature map per stage: (n, c_l, h / 2^l, w / 2^l), l = 0, 1, ..."""

    def __init__(self, channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.stages = nn.ModuleList(
            _stage(before, after, first=before == 3) for before, after in zip((3, *channels), channels, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """ValueError for sides that the poolings leave nothing of."""
        smallest = 2 ** (len(self.stages) - 1)
        if min(x.shape[-2:]) < smallest:
            raise ValueError(f"pictures: expected sides of at least {smallest} px, got shape {tuple(x.shape)}")
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _stage(before: int, after: int, first: bool) -> nn.Sequential:
    """2x pooling (except in the first stage), then two convolutions."""
    pool = [] if first else [nn.MaxPool2d(2)]
    convolutions = (nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1))
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(*pool, convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU())


def build(seed: int) -> Trunk:
    """A trunk with random weights."""
    torch.manual_seed(seed_of(seed, "trunk"))
    return Trunk()


def save(trunk: Trunk, weights: Sequence[Tensor], folder: Path, card: Mapping[str, Any]) -> None:
    """Write the trunk (float16) and its LPIPS weights, (c_l,) per stage, under LPIPS v0.1's names (float32)."""
    if [tuple(weight.shape) for weight in weights] != [(c,) for c in trunk.channels]:
        raise ValueError(f"expected weights (c,) for channels {trunk.channels}")
    if any(bool((weight < 0).any()) for weight in weights):
        raise ValueError("the weights of a distance must not be negative")
    stored.save_tensors(trunk.state_dict(), folder / TENSORS, torch.float16)
    heads = {_head(stage): weight.view(1, -1, 1, 1) for stage, weight in enumerate(weights)}
    stored.save_tensors(heads, folder / HEADS, torch.float32)
    stored.save_json({"channels": list(trunk.channels)}, folder / CONFIG)
    stored.save_json(card, folder / CARD)


def load(folder: Path) -> tuple[Trunk, list[Tensor]]:
    """Load the frozen trunk and its LPIPS weights (c_l,); ValueError for a folder without them."""
    config = stored.load_json(folder / CONFIG)
    check_sizes(config, folder / CONFIG)
    channels = config.get("channels")
    # type() and not isinstance(): True is an int
    if not isinstance(channels, list) or not channels or any(type(c) is not int or c < 1 for c in channels):
        raise ValueError(f"{folder / CONFIG}: channels: expected positive numbers, got {channels!r}")
    with torch.device("meta"):
        trunk = Trunk(channels)
    stored.restore(trunk, folder / TENSORS)
    shapes = {_head(stage): (1, c, 1, 1) for stage, c in enumerate(channels)}
    heads = stored.load_tensors(folder / HEADS, shapes)
    for name, head in heads.items():
        if (head < 0).any():
            raise ValueError(f"{folder / HEADS}: '{name}' has negative weights")
    return trunk.requires_grad_(False).eval(), [heads[name].flatten() for name in shapes]


def _head(stage: int) -> str:
    return f"lin{stage}.model.1.weight"
