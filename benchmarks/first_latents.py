"""What a leak costs: the time of first latents with one over the time of sampling the same batch.

``python benchmarks/first_latents.py`` with the shipped base and the steps of params.yaml. Each time is the median of
repeats.
"""

import time
from collections.abc import Callable

from atelier import machine

machine.settle(2)

import torch  # noqa: E402

from atelier import params  # noqa: E402
from atelier.methods.signal_leak import FrequencyLeak, PixelLeak, initial_latents  # noqa: E402
from atelier.models import base  # noqa: E402
from atelier.sampling.sampler import sample, settled, with_ddim  # noqa: E402
from atelier.workspace import Workspace  # noqa: E402

REPEATS = 5


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
    workspace = Workspace()
    steps = params.load(workspace.params_file).sampling.steps
    pipeline = settled(with_ddim(base.load(workspace.named("data/base"))), torch.device("cpu"))
    channels, side = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    latents = torch.randn(200, channels, side, side, generator=torch.Generator().manual_seed(1))
    leaks = {"pixel": PixelLeak.fit([latents]), "N = 3": FrequencyLeak.fit([latents], 3)}
    for n in (1, 32):
        noise = torch.randn(n, channels, side, side)
        sampling = seconds(
            lambda n=n, noise=noise: sample(  # type: ignore[misc]
                pipeline, ["a boat"] * n, noise, guidance=4.0, steps=steps, batch=n
            )
        )
        print(f"sampling {n:2} of {8 * side} px, {steps} steps with guidance: {1000 * sampling:.0f} ms")
        for name, leak in leaks.items():
            for kind, generators in {
                "one generator": torch.Generator().manual_seed(1),
                "one a picture": [torch.Generator().manual_seed(at) for at in range(n)],
            }.items():
                first = seconds(
                    lambda n=n, leak=leak, generators=generators: initial_latents(  # type: ignore[misc]
                        leak, pipeline.scheduler, n, generators, steps
                    )
                )
                print(f"  {name:6} {kind:14} {1000 * first:6.2f} ms, {100 * first / sampling:.2f} % of sampling")


if __name__ == "__main__":
    main()
