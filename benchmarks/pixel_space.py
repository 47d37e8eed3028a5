"""What a loss in pixels costs a training step: in latents alone, on whole pictures, in slices, on crops.

``python benchmarks/pixel_space.py [--steps 20] [--batch 16] [--device cuda]`` prints one table,
in Markdown for docs/decisions.md. Each row is two processes of the study's supervised step, with an adapter of rank 8
on all layers. One makes each step twice, with the pixel term and without, so that a busy machine slows both: median
time, median ratio, and on a CPU the ratio of processor time, which other processes change less. The other measures the
most memory and its ratio to that without the term. Last, how much alike the pixel term's gradient and that of whole
pictures in one graph are: the mean cosine at the start, and its 95 % interval over batches. Weights are those of
``--base``, data/base, works are painted; where there is no base they are random, which changes no time, and cosines
then mean nothing.

Below it is what 512 px would cost a denoiser and an autoencoder of Stable Diffusion's size, counted in multiplications,
not timed. ``--steps 3 --batch 4`` shows that it works, and no more.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from atelier import machine

machine.settle(2)

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from atelier import params  # noqa: E402
from atelier.data.painter import paint_corpus  # noqa: E402
from atelier.data.prompts import painted_row, prompt  # noqa: E402
from atelier.evaluation.intervals import t_interval  # noqa: E402
from atelier.models import base  # noqa: E402
from atelier.studies.pixel_space.loss import PIXEL, Pixels, decoder, pixel_term  # noqa: E402
from atelier.training import denoiser  # noqa: E402
from atelier.training.caches import Cache, encoded  # noqa: E402
from atelier.training.conversion import add_conversion  # noqa: E402
from atelier.training.loop import Task  # noqa: E402
from atelier.training.order import turns  # noqa: E402

WARM_UP, SEED, RANK, WORKS = 3, 1, 8, 64
LATENT, WHOLE = "latent", "pixel: whole, one graph"


class Row(NamedTuple):
    """How pictures are decoded; ``slices``: parts of a batch, ``crop``: share of a latent's side, 1 for the whole."""

    slices: int = 1
    crop: float = 1.0


ROWS: dict[str, Row | None] = {
    LATENT: None,
    WHOLE: Row(),
    "pixel: whole, 2 slices": Row(2),
    "pixel: whole, 4 slices": Row(4),
    "pixel: whole, 16 slices": Row(16),
    "pixel: crops of 3/4 of a side": Row(crop=0.75),
    "pixel: crops of 1/2 of a side": Row(crop=0.5),
    "pixel: crops of 1/2 of a side, 4 slices": Row(4, 0.5),
    "pixel: crops of 1/4 of a side": Row(crop=0.25),
}
TIME, MEMORY, COSINE = 1.6, 1.3, 0.9  # the goal: at most, at most, at least


class Taken(NamedTuple):
    """Seconds of a step: by the clock, and of the processor's."""

    clock: float
    processor: float


class Bench(NamedTuple):
    """The denoiser and its examples on their device."""

    pipeline: StableDiffusionPipeline
    trainable: dict[str, torch.nn.Parameter]
    cache: Cache
    names: list[str]
    place: Accelerator
    batch: int

    def task(self, row: Row | None) -> Task:
        side = self.pipeline.unet.config.sample_size
        extra = None
        if row is not None:
            crop = 0 if row.crop == 1 else round(side * row.crop)
            kind, slices = self.pipeline.scheduler.config.prediction_type, max(1, self.batch // row.slices)
            extra = pixel_term(Pixels(decoder(self.pipeline.vae), kind, "noisy", crop, slices, SEED, self.names))
        return denoiser.task(
            self.pipeline.unet,
            self.trainable,
            self.pipeline.scheduler,
            self.cache.examples(self.names),
            empty_share=0.1,
            seed=SEED,
            device=self.place.device,
            extra=extra,
        )

    def step(self, row: Row | None) -> Callable[[int], Taken]:
        """A training step as the loop makes it, by its number, which tells how long it took."""
        task, parameters = self.task(row), list(self.trainable.values())
        optimiser = torch.optim.AdamW(parameters, lr=0.0)  # weights stay what they are

        def step(number: int) -> Taken:
            start, processor = time.perf_counter(), time.process_time()
            with self.place.autocast():
                terms = task.losses(turns(SEED, number, self.batch, len(self.names)))
            self.place.backward(torch.stack(list(terms.values())).sum())
            float(self.place.clip_grad_norm_(parameters, 1.0))  # waits for the device
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            return Taken(time.perf_counter() - start, time.process_time() - processor)

        return step

    def gradients(self, row: Row, steps: int) -> Iterator[Tensor]:
        """The pixel term's gradient of each batch, in one row."""
        task, parameters = self.task(row), list(self.trainable.values())
        for number in range(steps):
            with self.place.autocast():
                loss = task.losses(turns(SEED, number, self.batch, len(self.names)))[PIXEL]
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            yield torch.cat([part.flatten() for part in parts if part is not None])


def bench(folder: Path, place: Accelerator, batch: int) -> Bench:
    """The base, an adapter that has not learnt, and painted works."""
    pixels, records, captions = paint_corpus(WORKS, 0, SEED, 64, 1)
    texts = [prompt(painted_row(*pair), 1, 0) for pair in zip(records, captions, strict=True)]
    pipeline = base.load(folder) if folder.is_dir() else base.build("embedded", 64, texts, SEED)
    pipeline.to(place.device)
    pipeline.vae.to(memory_format=torch.channels_last)
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    cache = encoded(pipeline, pictures, [[text] for text in texts])
    trainable = add_conversion(pipeline.unet, RANK, SEED)
    return Bench(pipeline, trainable, cache, [str(record["painting"]) for record in records], place, batch)


def held(place: Accelerator) -> float:
    """The most memory of this process so far, MiB."""
    if place.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, what: str, made: Bench, steps: int) -> dict[str, float]:
    """A row's times and their ratios, with the cosine; or its memory."""
    row = ROWS[name]
    own = made.step(row)
    if what == "memory":
        for number in range(min(steps, 4)):
            own(number)
        return {"peak": held(made.place)}
    if row is None:
        alone = [own(number) for number in range(WARM_UP + steps)][WARM_UP:]
        return {"ms": 1000 * statistics.median(step.clock for step in alone), "clock": 1.0, "processor": 1.0}
    plain = made.step(None)
    pairs = [(plain(number), own(number)) for number in range(WARM_UP + steps)][WARM_UP:]
    rows = zip(made.gradients(Row(), steps), made.gradients(row, steps), strict=True)
    cosine = t_interval([float(torch.cosine_similarity(one, other, 0)) for one, other in rows])
    # medians: a sum would be that of its slowest step
    return {
        "ms": 1000 * statistics.median(step.clock for _, step in pairs),
        "clock": statistics.median(step.clock / alone.clock for alone, step in pairs),
        "processor": statistics.median(step.processor / alone.processor for alone, step in pairs),
        "cosine": cosine.mean,
        "low": cosine.low,
        "high": cosine.high,
    }


# ------------------------------------------------------------------------------------------------ 512 px


def counted() -> dict[str, float]:
    """Multiplications of one sample at 512 px, 10^12, by rows; on the device ``meta``, where nothing is computed."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20), use_linear_projection=True,
        )  # fmt: skip
        channels = (128, 256, 512, 512)
        vae = AutoencoderKL(
            block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2,
            up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, sample_size=512,
        )  # fmt: skip
        add_conversion(unet, RANK, SEED)
        unet.to("meta")
        vae.requires_grad_(False)
        z, words, t = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 1024), torch.empty(1)
        found = {LATENT: multiplied(lambda: unet(z, t, words).sample.sum().backward())}

        def decoded(side: int) -> None:
            part = torch.empty(1, 4, side, side, requires_grad=True)
            with torch.no_grad():
                vae.decode(part)  # the target
            vae.decode(part).sample.sum().backward()

        for name, row in ROWS.items():
            if row is not None and row.slices == 1:  # slices change no count
                side = round(64 * row.crop)
                found[name] = found[LATENT] + multiplied(lambda side=side: decoded(side))  # type: ignore[misc]
    return found


def multiplied(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2 / 1e12


# ------------------------------------------------------------------------------------------------ the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="that count, after the warm-up; batches of cosines")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--base", type=Path, default=Path("data/base"))
    parser.add_argument("--row", nargs=2, metavar=("NAME", "WHAT"), help="time or memory of this row alone, as JSON")
    options = parser.parse_args()
    try:
        place = machine.accelerator(params.Machine(threads=2, device=options.device, precision="fp32"))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if options.row:
        name, what = options.row
        print(json.dumps(measured(name, what, bench(options.base, place, options.batch), options.steps)))
        return
    weights = options.base if options.base.is_dir() else "random weights, cosines mean nothing"
    print(f"64 px, batch {options.batch}, fp32, {place.device}, {options.steps} steps, {weights}")
    print(
        "\n| | ms a step | ratio | of processor time | peak MiB | ratio | cosine, 95 % |\n|---|---|---|---|---|---|---|"
    )
    table: dict[str, dict[str, float]] = {}
    for name in ROWS:
        nothing = dict.fromkeys(("ms", "clock", "processor", "peak", "cosine", "low", "high"), float("nan"))
        found = table[name] = nothing
        for what in ("time", "memory"):
            command = [sys.executable, __file__, *sys.argv[1:], "--row", name, what]
            quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
            found |= json.loads(done.stdout.splitlines()[-1])
        found["memory"] = found["peak"] / table[LATENT]["peak"]
        line = "| {} | {ms:.0f} | {clock:.2f} | {processor:.2f} | {peak:.0f} | {memory:.2f} |"
        shown = "{cosine:.3f} ({low:.3f} to {high:.3f})".format(**found) if name != LATENT else ""
        print(f"{line.format(name, **found)} {shown} |", flush=True)
    met = [
        name
        for name, found in table.items()
        if found["clock"] <= TIME and found["memory"] <= MEMORY and found["cosine"] >= COSINE
    ]
    goal = f"at most {TIME} times the time and {MEMORY} times the memory, cosine at least {COSINE}"
    print(f"\n{goal}: {', '.join(met) or 'none'}")
    print("\n| one sample at 512 px, Stable Diffusion's size | 10^12 multiplications | ratio |\n|---|---|---|")
    counts = counted()
    for name, count in counts.items():
        print(f"| {name} | {count:.2f} | {count / counts[LATENT]:.2f} |")


if __name__ == "__main__":
    main()
