"""DINOv2 (Oquab et al. 2023), transformers' ``Dinov2Model``, from a local folder: a feature space of distances."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import Dinov2Model

from atelier.data.checks import check_picture_tensor
from atelier.files import shown
from atelier.models import vision
from atelier.models.checked import CONFIG

SIDE = 224  # px, as in Stein et al. 2023; the network's own 518 would cost five times as much
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Dinov2(nn.Module):
    """Pictures (n, 3, h, w) uint8 to the class token after the last layer's norm, (n, d)."""

    def __init__(self, network: Dinov2Model) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures are resized to 224 x 224, oblong ones squeezed. ValueError for anything but RGB uint8."""
        check_picture_tensor(pictures, "pictures", ("uint8",))
        x = vision.normalised(vision.resized(pictures, SIDE, SIDE), MEAN, STD)
        return self.network(pixel_values=x).last_hidden_state[:, 0]


def load(folder: Path) -> Dinov2:
    """The frozen float32 network of a folder. Raises ValueError, one line that names the file, as ``vision.load``."""
    network = vision.load(folder, Dinov2Model)
    patch: Any = network.config.patch_size
    if type(patch) is not int or SIDE % patch:
        raise ValueError(f"{folder / CONFIG}: patch_size: expected a divisor of {SIDE}, got {shown(patch)}")
    return Dinov2(network).eval()
