"""Ways to compute the same step of an adapter, on the embedded denoiser: ``python benchmarks/lora_ways.py [REPEATS]``.

Forward and backward of 16 latents with adapters of rank 8, one thread; all ways in turn. Medians of the processor's
seconds, which other processes disturb less than the clock's, and the loss, which is the same for all.
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from atelier import machine

machine.settle(1)

import torch  # noqa: E402
from diffusers import UNet2DConditionModel  # noqa: E402
from peft.tuners.lora.layer import Linear  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402

from atelier.models.checked import load_part  # noqa: E402
from atelier.training.lora import add_adapter  # noqa: E402

UNET = Path(__file__).parents[1] / "data" / "base" / "unet"
BATCH, RANK, TOKENS = 16, 8, 56


def summed(layer: Any, x: Tensor) -> Tensor:
    """The adapter's sum inside its last product."""
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    made = layer.base_layer(x)
    return torch.addmm(made.flatten(0, -2), functional.linear(x, down).flatten(0, -2), up.t()).view_as(made)


def merged(layer: Any, x: Tensor) -> Tensor:
    """The adapter added to the weights, then one product."""
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return functional.linear(x, torch.addmm(layer.base_layer.weight, up, down), layer.base_layer.bias)


def denoiser(
    layer_of: Callable[[Any, Tensor], Tensor] | None = None, channels_last: bool = False, adapters: bool = True
) -> UNet2DConditionModel:
    unet = load_part(UNET, UNet2DConditionModel).requires_grad_(False)
    if adapters:
        add_adapter(unet, RANK, 5)
    if channels_last:
        unet.to(memory_format=torch.channels_last)
    for layer in unet.modules():
        if layer_of and isinstance(layer, Linear):
            layer.forward = partial(layer_of, layer)  # type: ignore[method-assign]
    return unet


def main(repeats: int) -> None:
    torch.manual_seed(0)
    math = partial(sdpa_kernel, SDPBackend.MATH)
    ways: dict[str, tuple[UNet2DConditionModel, Callable[[], AbstractContextManager[Any]]]] = {
        "as it is": (denoiser(), nullcontext),
        "channels last": (denoiser(channels_last=True), nullcontext),
        "the adapter's sum inside its last product": (denoiser(summed), nullcontext),
        "channels last, and that": (denoiser(summed, channels_last=True), nullcontext),
        "the adapter added to the weights, one product": (denoiser(merged), nullcontext),
        "channels last, and that one": (denoiser(merged, channels_last=True), nullcontext),
        "attention by its formula, not fused": (denoiser(), math),
        "no adapters, gradients to the input": (denoiser(adapters=False), nullcontext),
    }
    channels, width = ways["as it is"][0].config.in_channels, ways["as it is"][0].config.cross_attention_dim
    latents, times = torch.randn(BATCH, channels, 8, 8), torch.randint(1000, (BATCH,))
    words = torch.randn(BATCH, TOKENS, width)
    found: dict[str, list[float]] = {name: [] for name in ways}
    losses = {}
    for repeat in range(repeats + 1):  # the first does not count
        for name, (unet, context) in ways.items():
            z = latents.clone().requires_grad_(name.startswith("no adapters"))
            began = time.process_time()
            with context():
                loss = unet(z, times, words).sample.square().mean()
                loss.backward()
            took = time.process_time() - began
            losses[name] = loss.item()
            unet.zero_grad()
            if repeat:
                found[name].append(took)
    print("| | s of the processor | | loss |\n|---|---|---|---|")
    whole = statistics.median(found["as it is"])
    for name, values in found.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.3f} | {median / whole - 1:+.0%} | {losses[name]:.6f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6)
