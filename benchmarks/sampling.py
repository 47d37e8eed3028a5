"""What a step of sampling and a decoding cost, by the layout of the convolutions: ``python benchmarks/sampling.py``."""

import time
from collections.abc import Callable
from pathlib import Path

from atelier import machine

machine.settle(2)

import torch  # noqa: E402

from atelier.models import base  # noqa: E402
from atelier.models.latents import decode  # noqa: E402

BATCH, REPEATS = 64, 10


def seconds(call: Callable[[], object]) -> float:
    """The median of repeats, after one that does not count."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[REPEATS // 2]


def main() -> None:
    pipeline = base.load(Path("data/base"))
    latents = torch.randn(BATCH, pipeline.unet.config.in_channels, 8, 8)
    words = torch.randn(BATCH, 56, pipeline.text_encoder.config.hidden_size)
    with torch.no_grad():
        for name, layout in {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}.items():
            for part in (pipeline.unet, pipeline.vae):
                part.to(memory_format=layout)
            step = seconds(lambda: pipeline.unet(latents, torch.tensor(500), words))
            decoding = seconds(lambda: decode(pipeline.vae, latents[:32]))
            print(
                f"{name:14} denoiser, batch {BATCH}: {1000 * step:.0f} ms; decoder, batch 32: {1000 * decoding:.0f} ms"
            )


if __name__ == "__main__":
    main()
