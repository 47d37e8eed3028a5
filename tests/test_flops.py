"""Operations by torch's counter, against multiplications counted by hand."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from atelier.models import base, flops, noise_corrector

SD_LIKE = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 2,
    "use_linear_projection": True,  # as Stable Diffusion 2
}


def test_a_convolution_and_a_linear_layer_are_two_operations_a_multiplication() -> None:
    convolution, linear = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(7, 11)
    assert flops.counted(lambda: convolution(torch.zeros(2, 3, 8, 8))) == 2 * 2 * 3 * 5 * 9 * 64
    assert flops.counted(lambda: linear(torch.zeros(4, 6, 7))) == 2 * 4 * 6 * 7 * 11


def test_attention_is_counted_as_two_products() -> None:
    q, k = torch.zeros(1, 2, 10, 4), torch.zeros(1, 2, 6, 4)
    assert flops.counted(lambda: nn.functional.scaled_dot_product_attention(q, k, k)) == 2 * 2 * (2 * 10 * 6 * 4)


@pytest.mark.parametrize("tokens", [5, 56])
@pytest.mark.parametrize("kind", ["tiny", "embedded", "corrector", "like Stable Diffusion 2"])
def test_a_u_nets_count_is_that_by_hand(kind: str, tokens: int) -> None:
    """Within 2 %, as asked; layer by layer they agree to the last operation."""
    unet = u_net(kind)
    counted, by_hand = flops.of_unet(unet, 8, tokens), flops.of_unet_by_hand(unet.config, 8, tokens)
    assert counted == pytest.approx(by_hand, rel=0.02)
    assert counted == by_hand


def u_net(kind: str) -> UNet2DConditionModel:
    if kind in base.PRESETS:
        recipe = base.PRESETS[kind]
        return base._unet(8, recipe["autoencoder"]["latent"], recipe["text"]["width"], **recipe["unet"])
    if kind == "corrector":
        return noise_corrector.build(base._unet(8, 4, 32, (16, 32), 4, 8), 24, seed=0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=48, norm_num_groups=8, **SD_LIKE
    )
