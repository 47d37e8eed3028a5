"""Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (LPIPS)."""

from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from atelier.models import imagenet
from atelier.models import trunk as trunks

EPS = 1e-10  # added to a norm, as LPIPS does: where all channels are 0 the direction is 0 too


def directions(features: Tensor) -> Tensor:
    """Feature vectors at unit length over channels, (n, c, h, w) -> the same shape.

    A zero vector stays zero and passes a zero gradient on; the root of a sum of squares would pass NaN.
    """
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPS)


def perceptual_distance(features: Sequence[Tensor], others: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Eq. 1: weighted squared distance of unit feature vectors, mean over places, summed over stages; -> (n,).

    ``features``, ``others``: a stage's activations (n, c_l, h_l, w_l) each; ``weights``: (c_l,) each, non-negative for
    a distance. Same float dtype throughout. Raises ValueError where the stages do not match.
    """
    if not len(features) == len(others) == len(weights) > 0:
        raise ValueError(f"stages do not match: {len(features)}, {len(others)}, and {len(weights)} of weights")
    stages = []
    for stage, (one, other, weight) in enumerate(zip(features, others, weights, strict=True)):
        if one.shape != other.shape or one.ndim != 4 or weight.shape != one.shape[1:2]:
            shapes = ", ".join(str(tuple(part.shape)) for part in (one, other, weight))
            raise ValueError(f"stage {stage}: expected (n, c, h, w) twice and weights (c,), got {shapes}")
        squared = (directions(one) - directions(other)).square()
        stages.append(squared.mean((2, 3)) @ weight)
    return torch.stack(stages).sum(0)


class LPIPS(nn.Module):
    """The distance through one trunk, frozen: two batches (n, 3, h, w) in [-1, 1] to (n,).

    ``trunk`` gives a feature map a stage, ``weights`` are (c_l,) each.
    """

    def __init__(self, trunk: nn.Module, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)

    @classmethod
    def from_files(cls, trunk: imagenet.Name, trunk_weights: Path, head_weights: Path) -> Self:
        """LPIPS v0.1 on ``squeeze``, ``alex`` or ``vgg``; ValueError, one line, for files that do not hold them."""
        return cls(imagenet.load_trunk(trunk, trunk_weights), imagenet.load_heads(trunk, head_weights))

    @classmethod
    def from_packages(cls, trunk: imagenet.Name) -> Self:
        """The same from torchvision's weights and lpips's heads, where both are installed; else ModuleNotFoundError."""
        names = {"squeeze": "squeezenet1_1", "alex": "alexnet", "vgg": "vgg16"}
        network = getattr(import_module("torchvision.models"), names[trunk])(weights="IMAGENET1K_V1")
        state = {f"features.{key}": value for key, value in network.features.state_dict().items()}
        heads = Path(str(files("lpips") / "weights" / "v0.1" / f"{trunk}.pth"))
        last = max(imagenet.TAPS[trunk])  # vgg and alex end in a pooling layer, which has no parameters
        state = {key: value for key, value in state.items() if int(key.split(".")[1]) <= last}
        filled = imagenet.fill(imagenet.Trunk(trunk), state, "torchvision")
        return cls(filled, imagenet.load_heads(trunk, heads))

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The embedded world's: its trunk and that one's weights."""
        return cls(*trunks.load(folder))

    def forward(self, pictures: Tensor, others: Tensor) -> Tensor:
        return perceptual_distance(self.trunk(pictures), self.trunk(others), list(self.weights))
