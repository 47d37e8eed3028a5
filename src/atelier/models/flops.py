"""Floating-point operations of a call, by torch's counter and by hand: two for each multiplication with its addition.

Convolutions and products of matrices are counted, as in ``torch.utils.flop_counter``; the rest is less than a hundredth
of a U-Net's.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

TIME_WIDTH = 4  # of a time's embedding, in channels of the first block
ATTENTION, FEED_FORWARD = 4, 12  # multiplications of width^2 a token: projections of self-attention; GEGLU and back


def counted(call: Callable[[], Any]) -> int:
    """Operations of a call, by torch's counter; attention as products of matrices: not all its kernels are known."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def of_unet(unet: UNet2DConditionModel, side: int, tokens: int) -> int:
    """Operations of one picture's forward pass, by torch's counter: latents of ``side``, a prompt of ``tokens``."""
    config, first = unet.config, next(unet.parameters())
    z = torch.zeros(1, config.in_channels, side, side, device=first.device, dtype=first.dtype)
    words = torch.zeros(1, tokens, config.cross_attention_dim, device=first.device, dtype=first.dtype)
    return counted(lambda: unet(z, torch.ones(1, device=first.device), words))


def of_unet_by_hand(config: Mapping[str, Any], side: int, tokens: int) -> int:
    """The same from the configuration alone, layer by layer, of blocks with and without cross-attention."""
    return 2 * sum(_products(config, side, tokens))


def _products(config: Mapping[str, Any], side: int, tokens: int) -> Iterator[int]:
    """Multiplications of each part of a U-Net."""
    channels, layers, last = config["block_out_channels"], config["layers_per_block"], len(config["block_out_channels"])
    time, words, width = TIME_WIDTH * channels[0], config["cross_attention_dim"], channels[0]

    def layer(before: int, after: int, pixels: int, attends: bool) -> int:
        made = _resnet(before, after, time, pixels)
        return made + (_transformer(after, words, pixels, tokens) if attends else 0)

    yield channels[0] * time + time**2
    yield 9 * (config["in_channels"] + config["out_channels"]) * channels[0] * side**2
    skips = [width]
    for number, (kind, wide) in enumerate(zip(config["down_block_types"], channels, strict=True), start=1):
        for _ in range(layers):
            yield layer(width, wide, side**2, "CrossAttn" in kind)
            width = wide
            skips.append(width)
        if number < last:
            side //= 2
            yield 9 * width**2 * side**2
            skips.append(width)
    yield layer(width, width, side**2, "CrossAttn" in config["mid_block_type"]) + _resnet(width, width, time, side**2)
    for number, (kind, wide) in enumerate(zip(config["up_block_types"], channels[::-1], strict=True), start=1):
        for _ in range(layers + 1):
            yield layer(width + skips.pop(), wide, side**2, "CrossAttn" in kind)
            width = wide
        if number < last:
            side *= 2
            yield 9 * width**2 * side**2


def _resnet(before: int, after: int, time: int, pixels: int) -> int:
    """Two 3x3 convolutions, the time's projection, and a 1x1 convolution where the number of channels changes."""
    shortcut = before * after * pixels if before != after else 0
    return 9 * (before + after) * after * pixels + time * after + shortcut


def _transformer(width: int, words: int, pixels: int, tokens: int) -> int:
    """Projections in and out, self-attention, cross-attention and feed-forward; a product of each pair of tokens."""
    of_pixels = (2 + ATTENTION + FEED_FORWARD) * width**2 * pixels + 2 * width * pixels**2
    return of_pixels + 2 * width**2 * pixels + 2 * width * words * tokens + 2 * width * pixels * tokens
