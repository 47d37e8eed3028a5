"""The noise corrector: a small U-Net that a prompt steers as it does the denoiser, from N(0, I) to inverted noise.

It predicts the velocity of `atelier.methods.inverse_noise.noise_path`. Its last layer starts at zero: an untrained one
corrects nothing.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from atelier.files import check_output
from atelier.models.checked import CONFIG, check_denoiser_fits, load_part
from atelier.seeds import seed_of

TIMES = 1000  # theta = pi/2 is shown to the network as this time
MOST_GROUPS, MOST_HEADS = 16, 4


def build(denoiser: UNet2DConditionModel, width: int, seed: int) -> UNet2DConditionModel:
    """A corrector of the noise that ``denoiser`` starts from, of ``width`` channels at two resolutions."""
    config = denoiser.config
    torch.manual_seed(seed_of(seed, "noise corrector"))
    network = UNet2DConditionModel(
        sample_size=config.sample_size,
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        block_out_channels=(width, width),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=math.gcd(width, MOST_HEADS),  # of diffusers: the number of heads
        norm_num_groups=math.gcd(width, MOST_GROUPS),
    )
    nn.init.zeros_(network.conv_out.weight)
    nn.init.zeros_(network.conv_out.bias)
    return network


def load(folder: Path, denoiser: UNet2DConditionModel) -> UNet2DConditionModel:
    """Load a trained corrector. Raises ValueError for one that does not fit the denoiser."""
    check_output(folder)
    network = load_part(folder / "unet", UNet2DConditionModel)
    check_denoiser_fits(network.config, denoiser, folder / "unet" / CONFIG)
    return network.eval()


def time_of(theta: Tensor | float) -> Tensor:
    """What the network is shown of theta."""
    return torch.as_tensor(theta, dtype=torch.float32) * (2 * TIMES / math.pi)


def velocity(network: UNet2DConditionModel, words: Tensor) -> Callable[[Tensor, float], Tensor]:
    """The network as ``methods.inverse_noise.corrected`` takes it, for prompts' embeddings (n, tokens, width)."""

    def called(x: Tensor, theta: float) -> Tensor:
        output: Tensor = network(x, time_of(theta).to(x.device), words).sample
        return output

    return called
