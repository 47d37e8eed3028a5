"""Inception v3 as FID has it (Heusel et al. 2017): TensorFlow's network of 2015-12-05, to its last pooling.

Structure, resize and parameter names are as in torch-fidelity and pytorch-fid (Apache 2.0), whose published file of
weights is read as it is. Neither package can be imported without torchvision. ImageNet's Inception of torchvision has
the same names and shapes but for its classifier, and other poolings: its file is refused.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from atelier.data.checks import check_picture_tensor
from atelier.files import reading
from atelier.models.stored import checked_tensors, file_digest

SIDE, FEATURES, CLASSES = 299, 2048, 1008
CLASSIFIER = {"fc.weight": (CLASSES, FEATURES), "fc.bias": (CLASSES,)}  # read, to tell the file apart; not used
COUNTER = ".num_batches_tracked"  # of batch norms; in some copies of the file
DIGEST = re.compile(r"-([0-9a-f]{8})\.pth")  # of a file, at the end of its name, as PyTorch's hub has it


class Step(NamedTuple):
    """One convolution of a branch: the end of its name, channels after it, kernel (height, width), stride."""

    name: str
    after: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


ONE, THREE, FIVE, ROW, COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
Branch = Sequence[Step | tuple[Step, Step]]  # a pair: two convolutions of the same input, side by side


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU. Strides leave the border out, as TensorFlow's "valid"; else the size is kept."""

    def __init__(self, before: int, after: int, kernel: tuple[int, int], stride: int = 1, keep: bool = True) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if keep and stride == 1 else 0
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Mixed(nn.Module):
    """Branches of convolutions and one of a pooling, joined along channels.

    ``pool``: ``average`` (without the padding in the mean, as in TensorFlow) or ``max``, then ``pooled`` channels by a
    convolution; ``halve``: maxima of every second place, without one.
    """

    def __init__(self, before: int, branches: Sequence[Branch], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.branches, self.pool = branches, pool
        for branch in branches:
            width = before
            for step in branch:
                pair = (step,) if isinstance(step, Step) else step
                for each in pair:
                    self.add_module(each.name, Convolution(width, each.after, each.kernel, each.stride))
                width = sum(each.after for each in pair)
        if pooled:
            self.branch_pool = Convolution(before, pooled, ONE)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(self._along(branch, x) for branch in self.branches), self._pooled(x)], 1)

    def _along(self, branch: Branch, x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, Step):
                x = self.get_submodule(step.name)(x)
            else:
                x = torch.cat([self.get_submodule(each.name)(x) for each in step], 1)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "halve":
            return max_pool2d(x, 3, 2)
        average = self.pool == "average"
        around = avg_pool2d(x, 3, 1, 1, count_include_pad=False) if average else max_pool2d(x, 3, 1, 1)
        return self.branch_pool(around)


def _mixed_35(before: int, pooled: int) -> Mixed:
    """At 35 x 35."""
    five = [Step("branch5x5_1", 48), Step("branch5x5_2", 64, FIVE)]
    double = [Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, THREE), Step("branch3x3dbl_3", 96, THREE)]
    return Mixed(before, [[Step("branch1x1", 64)], five, double], "average", pooled)


def _to_17(before: int) -> Mixed:
    double = [Step("branch3x3dbl_1", 64), Step("branch3x3dbl_2", 96, THREE), Step("branch3x3dbl_3", 96, THREE, 2)]
    return Mixed(before, [[Step("branch3x3", 384, THREE, 2)], double], "halve")


def _mixed_17(width: int) -> Mixed:
    """At 17 x 17; ``width``: channels between rows and columns."""
    seven = [Step("branch7x7_1", width), Step("branch7x7_2", width, ROW), Step("branch7x7_3", 192, COLUMN)]
    kernels = (ONE, COLUMN, ROW, COLUMN, ROW)
    widths = (width, width, width, width, 192)
    double = [Step(f"branch7x7dbl_{n}", *each) for n, each in enumerate(zip(widths, kernels, strict=True), start=1)]
    return Mixed(768, [[Step("branch1x1", 192)], seven, double], "average", 192)


def _to_8(before: int) -> Mixed:
    three = [Step("branch3x3_1", 192), Step("branch3x3_2", 320, THREE, 2)]
    seven = [Step("branch7x7x3_1", 192), Step("branch7x7x3_2", 192, ROW), Step("branch7x7x3_3", 192, COLUMN)]
    return Mixed(before, [three, [*seven, Step("branch7x7x3_4", 192, THREE, 2)]], "halve")


def _mixed_8(before: int, pool: str) -> Mixed:
    """At 8 x 8. The last one pools maxima: probably an oversight of 2015, kept because FID is what it is."""
    three: Branch = [Step("branch3x3_1", 384), (Step("branch3x3_2a", 384, (1, 3)), Step("branch3x3_2b", 384, (3, 1)))]
    double = [Step("branch3x3dbl_1", 448), Step("branch3x3dbl_2", 384, THREE)]
    pair = (Step("branch3x3dbl_3a", 384, (1, 3)), Step("branch3x3dbl_3b", 384, (3, 1)))
    return Mixed(before, [[Step("branch1x1", 320)], three, [*double, pair]], pool, 192)


class Inception(nn.Module):
    """Pictures (n, 3, h, w) uint8 of any size to features (n, 2048), pool3, which are never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, THREE, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, THREE, keep=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, THREE)
        self.Conv2d_3b_1x1 = Convolution(64, 80, ONE)
        self.Conv2d_4a_3x3 = Convolution(80, 192, THREE, keep=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _mixed_35(192, 32), _mixed_35(256, 64), _mixed_35(288, 64)
        self.Mixed_6a, self.Mixed_6b = _to_17(288), _mixed_17(128)
        self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _mixed_17(160), _mixed_17(160), _mixed_17(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = _to_8(768), _mixed_8(1280, "average"), _mixed_8(2048, "max")

    def forward(self, pictures: Tensor) -> Tensor:
        """ValueError for anything but RGB pictures in uint8."""
        check_picture_tensor(pictures, "pictures", ("uint8",))
        x = (_resized(pictures.to(self.Conv2d_1a_3x3.conv.weight.dtype)) - 128) / 128
        x = max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):  # in the order in which they were added
                x = block(x)
        return x.mean((2, 3))


def _resized(pictures: Tensor) -> Tensor:
    """Floats (n, 3, h, w) to (n, 3, 299, 299) as TensorFlow 1 resizes: bilinear, corner to corner, no antialias.

    Element i lies at i h / 299, where none of PyTorch's own bilinear modes puts it (docs/field_metrics.md).
    """
    rows, columns = (_places(side, pictures) for side in pictures.shape[-2:])
    top, bottom = (pictures[:, :, row] for row in rows[:2])
    upper, lower = (part[..., columns[0]] for part in (top, bottom))
    upper = upper + (top[..., columns[1]] - upper) * columns[2]
    lower = lower + (bottom[..., columns[1]] - lower) * columns[2]
    return upper + (lower - upper) * rows[2][:, None]


def _places(side: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of the 299 elements along one side: the elements before and after it, and how far it is from the first.

    In float32 whatever the pictures have: half precision does not count to 512 by eighths.
    """
    place = torch.arange(SIDE, dtype=torch.float32, device=like.device) * torch.tensor(side / SIDE)
    before = place.long()
    return before, (before + 1).clamp(max=side - 1), (place - before).to(like.dtype)


def load(path: Path) -> Inception:
    """The frozen network in float32, from the published ``pt_inception-2015-12-05-6726825d.pth`` or as safetensors.

    Raises ValueError, one line, for a file whose tensors are not exactly the published ones' names and shapes, are not
    floats, or not finite; and for a file whose content is not what the digest in its name says.
    """
    network = Inception()
    state = network.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if not name.endswith(COUNTER)} | CLASSIFIER
    tensors = checked_tensors(_read(path), shapes, path)
    network.load_state_dict({name: value for name, value in tensors.items() if name not in CLASSIFIER})
    return network.requires_grad_(False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, without counters; a pickle is opened as tensors alone, and once its digest is right."""
    with reading(path, "not readable as weights"):
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            if (named := DIGEST.search(path.name)) and not file_digest(path).startswith(named[1]):
                raise ValueError("its content is not what the digest in its name says; fetch it again")
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("expected tensors by name")
    return {str(name): value for name, value in state.items() if not str(name).endswith(COUNTER)}
