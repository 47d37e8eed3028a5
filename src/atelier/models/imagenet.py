"""The three ImageNet networks of LPIPS, with torchvision's parameter names; weights are read from local files only.

Each consists of ``features`` and the layers after which LPIPS reads them (Zhang et al. 2018, v0.1).
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from atelier.files import reading
from atelier.models.stored import checked_tensors

Name = Literal["squeeze", "alex", "vgg"]

# layers after which features are read, and their numbers of channels
TAPS: dict[str, tuple[int, ...]] = {
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
}
CHANNELS: dict[str, tuple[int, ...]] = {
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
}
# sides below which a pooling layer would leave nothing, px
SMALLEST: dict[str, int] = {"squeeze": 17, "alex": 31, "vgg": 16}
# exceptions that torch raises for damaged or malicious pickles, as experiments showed
_TORCH_FAULTS = (
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
# ImageNet's statistics for pictures in [-1, 1], rounded to three digits as in LPIPS
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Fire(nn.Module):
    """SqueezeNet's Fire module (Iandola et al. 2016, sec. 3.1): to few channels, then two parallel convolutions."""

    def __init__(self, before: int, squeezed: int, after: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, after // 2, 1)
        self.expand3x3 = nn.Conv2d(squeezed, after // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


class Trunk(nn.Module):
    """Pictures (n, 3, h, w) in [-1, 1] to the feature maps that LPIPS reads."""

    shift: Tensor
    scale: Tensor

    def __init__(self, name: Name) -> None:
        super().__init__()
        if name not in get_args(Name):
            raise ValueError(f"trunk: expected one of {', '.join(get_args(Name))}, got {name!r}")
        self.features = {"squeeze": _squeeze, "alex": _alex, "vgg": _vgg}[name]()
        self.taps, self.smallest = TAPS[name], SMALLEST[name]
        for key, values in {"shift": SHIFT, "scale": SCALE}.items():
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """ValueError for sides that the poolings leave nothing of."""
        if min(x.shape[-2:]) < self.smallest:
            raise ValueError(f"pictures: expected sides of at least {self.smallest} px, got shape {tuple(x.shape)}")
        x, features = (x - self.shift) / self.scale, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                features.append(x)
        return features


def _squeeze() -> nn.Sequential:
    """SqueezeNet 1.1."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 128),
        Fire(128, 16, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 256),
        Fire(256, 32, 256),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 384),
        Fire(384, 48, 384),
        Fire(384, 64, 512),
        Fire(512, 64, 512),
    )


def _alex() -> nn.Sequential:
    """AlexNet (Krizhevsky 2014), convolutions only."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg() -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman 2015), convolutions only, up to the last one's activation."""
    layers: list[nn.Module] = []
    before = 3
    for stage, (after, convolutions) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            before = after
    return nn.Sequential(*layers)


def load_trunk(name: Name, path: Path) -> Trunk:
    """Load a frozen float32 trunk from a file of torchvision's parameters; the classifier is ignored."""
    trunk = Trunk(name)
    state = {key: value for key, value in read_state(path).items() if key.startswith("features.")}
    return fill(trunk, state, path)


def load_heads(name: Name, path: Path) -> list[Tensor]:
    """Load LPIPS v0.1's weights, (c_l,) float32 per stage; ValueError for other or negative ones."""
    shapes = {f"lin{stage}.model.1.weight": (1, c, 1, 1) for stage, c in enumerate(CHANNELS[name])}
    heads = [head.flatten() for head in checked_tensors(read_state(path), shapes, path).values()]
    if any(bool((head < 0).any()) for head in heads):
        raise ValueError(f"{path}: the weights of a distance must not be negative")
    return heads


def fill(trunk: Trunk, state: Mapping[str, Tensor], source: object) -> Trunk:
    """Load parameters into ``trunk``, checking names and shapes, and freeze it."""
    shapes = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    trunk.load_state_dict(checked_tensors(state, shapes, source))
    return trunk.requires_grad_(False).eval()


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a ``.pth`` loaded with ``weights_only``; else ValueError."""
    with reading(path, "not readable as weights"):
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path}: not readable as weights: expected tensors by name")
    if not all(isinstance(value, Tensor) and value.is_floating_point() for value in state.values()):
        raise ValueError(f"{path}: not readable as weights: expected tensors of floats by name")
    return dict(state)
