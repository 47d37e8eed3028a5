"""What AVX2 costs where the processor has more: `python benchmarks/instructions.py`.

Libraries choose their instructions as they load, so each is measured in a separate process.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

REPEATS = 5
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}


def seconds(step: Callable[[], object]) -> float:
    """Median of some repeats, after two to warm up."""
    step(), step()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure() -> dict[str, float]:
    """One training step of the autoencoder (16 pictures) and of the denoiser (64 latents)."""
    from atelier import machine

    machine.settle(2)
    import torch

    from atelier.models import base

    pipeline = base.build("embedded", 64, ["a boat"], seed=1)
    vae, unet = pipeline.vae.to(memory_format=torch.channels_last), pipeline.unet
    pictures = torch.randn(16, 3, 64, 64).to(memory_format=torch.channels_last)
    latents, times, words = torch.randn(64, 8, 8, 8), torch.randint(1000, (64,)), torch.randn(64, base.MAX_TOKENS, 128)

    def autoencoder() -> None:
        vae.decode(vae.encode(pictures).latent_dist.mean).sample.square().mean().backward()

    def denoiser() -> None:
        unet(latents, times, words).sample.square().mean().backward()

    return {"autoencoder": seconds(autoencoder), "denoiser": seconds(denoiser)}


def main() -> None:
    """Both in turn, and their ratio."""
    results = {}
    for name in ("AVX2", "widest"):
        environment = os.environ | (AVX2 if name == "AVX2" else {})
        command = [sys.executable, __file__, "measure"]
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        results[name] = json.loads(printed.splitlines()[-1])
    for part, slow in results["AVX2"].items():
        fast = results["widest"][part]
        print(f"{part}: AVX2 {slow:.3f} s, widest {fast:.3f} s, ratio {fast / slow:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure()))
    else:
        main()
