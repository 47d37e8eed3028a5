"""Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (LPIPS)."""

from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from atelier.data.checks import came, check_picture_tensor, check_tensor, in_full_precision, is_tensor
from atelier.models import imagenet
from atelier.models import trunk as trunks
from atelier.params import Perceptual

EPS = 1e-10  # added to a norm, as in LPIPS, so that a zero vector has direction 0


def directions(features: Tensor) -> Tensor:
    """Feature vectors at unit length over channels, (n, c, h, w) -> the same shape; half precision in float32.

    A zero vector stays zero and has a zero gradient; a plain root of the sum of squares would have gradient NaN.
    Raises ValueError for integers and other shapes.
    """
    check_tensor(features, "features", "(n, c, h, w)")
    features = in_full_precision(features)  # EPS is 0 in float16, in which a zero vector's direction would be NaN
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPS)


def perceptual_distance(features: Sequence[Tensor], others: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Eq. 1: weighted squared distance of unit feature vectors, mean over positions, summed over stages; -> (n,).

    ``features``, ``others``: activations (n, c_l, h_l, w_l) per stage; ``weights``: (c_l,) per stage, non-negative for
    a distance. Computed in the features' float type, half precision in float32, also under autocast. Values are not
    checked: NaN gives NaN. Raises ValueError for stages that do not match, and for integers.
    """
    if not len(features) == len(others) == len(weights) > 0:
        raise ValueError(f"stages do not match: {len(features)}, {len(others)}, and {len(weights)} of weights")
    stages = []
    for stage, (first, second, weight) in enumerate(zip(features, others, weights, strict=True)):
        for name, part, axes in _named(stage, first, second, weight):
            if not is_tensor(part):
                raise TypeError(f"{name}: expected a tensor {axes}, got {came(part)}")
        if first.shape != second.shape or first.ndim != 4 or weight.shape != first.shape[1:2]:
            shapes = ", ".join(str(tuple(part.shape)) for part in (first, second, weight))
            raise ValueError(f"stage {stage}: expected (n, c, h, w) twice and weights (c,), got {shapes}")
        for name, part, axes in _named(stage, first, second, weight):
            check_tensor(part, name, axes)
        with torch.autocast(first.device.type, enabled=False):
            squared = (directions(first) - directions(second)).square()
            stages.append(squared.mean((2, 3)) @ in_full_precision(weight).to(squared.dtype))
    return torch.stack(stages).sum(0)


def _named(stage: int, first: Tensor, second: Tensor, weight: Tensor) -> list[tuple[str, Tensor, str]]:
    """A stage's tensors with the names and axes that a refusal gives them."""
    maps = [(f"{name}[{stage}]", part, "(n, c, h, w)") for name, part in (("features", first), ("others", second))]
    return [*maps, (f"weights[{stage}]", weight, "(c,)")]


class LPIPS(nn.Module):
    """The distance with one frozen trunk: two batches (n, 3, h, w) in [-1, 1] to (n,).

    Floats of one shape; that they are in [-1, 1] is not checked, so that nothing waits for a device. ``trunk`` returns
    one feature map per stage; ``weights`` are (c_l,) per stage.
    """

    def __init__(self, trunk: nn.Module, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False).eval()
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=False) for weight in weights)

    @classmethod
    def from_files(cls, trunk: imagenet.Name, trunk_weights: Path, head_weights: Path) -> Self:
        """LPIPS v0.1 with ``squeeze``, ``alex`` or ``vgg``; ValueError for files without these weights."""
        return cls(imagenet.load_trunk(trunk, trunk_weights), imagenet.load_heads(trunk, head_weights))

    @classmethod
    def from_packages(cls, trunk: imagenet.Name) -> Self:
        """The same from the installed torchvision and lpips packages; ModuleNotFoundError without them."""
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
        """LPIPS with the embedded world's trunk and its weights."""
        return cls(*trunks.load(folder))

    @classmethod
    def from_params(cls, config: Perceptual, root: Path) -> Self:
        """The network named by ``perceptual`` in params.yaml, from local files below ``root``, or absolute ones."""
        weights, heads = root / config.weights, root / config.heads
        if config.network == "trunk":
            return cls.from_folder(weights.parent)
        return cls.from_files(config.network, weights, heads)

    def forward(self, pictures: Tensor, others: Tensor) -> Tensor:
        """Distances (n,). Raises ValueError for integers, RGBA, grey, channels last, and shapes that differ."""
        check_picture_tensor(pictures, "pictures")
        check_picture_tensor(others, "others")
        if pictures.shape != others.shape:
            shapes = f"{tuple(pictures.shape)} and {tuple(others.shape)}"
            raise ValueError(f"pictures, others: expected two batches of one shape, got {shapes}")
        kind = self.weights[0].dtype  # half precision outside autocast as well
        return perceptual_distance(self.trunk(pictures.to(kind)), self.trunk(others.to(kind)), list(self.weights))
