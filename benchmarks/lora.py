"""A step of LoRA fine-tuning on the embedded world, ours and that of diffusers' example: ``python benchmarks/lora.py``.

Both train an adapter of ``data/base`` from the same start, on the same pictures, prompts, noise and times, with batch
and optimiser of ``profiles/embedded.yaml``. Between two steps of ours, one of the example: whatever else runs on the
machine slows both. Printed are their losses' largest difference, medians of seconds by the clock and of the processor,
and where a step's time goes. ``--operators``: our step by operator, from torch's profiler. ``--dry``: a few steps, to
see that it runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atelier import machine

machine.settle(2)

import lora_example as example  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook  # noqa: E402

from atelier import params  # noqa: E402
from atelier.data.images import save_picture  # noqa: E402
from atelier.data.painter import paint_corpus  # noqa: E402
from atelier.data.prompts import painted_row, prompt  # noqa: E402
from atelier.models import base  # noqa: E402
from atelier.studies.art_finetuning.params import Config  # noqa: E402
from atelier.training import caches, denoiser  # noqa: E402
from atelier.training.loop import Task, fit  # noqa: E402
from atelier.training.lora import add_adapter  # noqa: E402
from atelier.training.order import Turn, turns  # noqa: E402

ROOT = Path(__file__).parents[1]
WARM = 2  # first steps that do not count
SEED, PROMPTS, RANK = 5, 2, 8


class Laps:
    """Seconds of the processor of each part of each step, and of steps also by the clock."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.clock: list[float] = []
        self.processor: list[float] = []
        self.running = False

    def begin(self) -> None:
        self.running = True
        self.began, self.worked = time.perf_counter(), time.process_time()
        self.last = self.worked

    def __call__(self, part: str) -> None:
        if not self.running:
            return
        now = time.process_time()
        self.parts[part].append(now - self.last)
        self.last = now

    def end(self) -> None:
        self.running = False
        self.clock.append(time.perf_counter() - self.began)
        self.processor.append(time.process_time() - self.worked)


def median(values: Sequence[float]) -> float:
    return statistics.median(values[WARM:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", type=Path, default=ROOT / "data" / "base")
    parser.add_argument("--operators", action="store_true")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if options.dry:
        options.steps, options.pictures = WARM + 2, 16
    machine.settle(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    config = params.load(ROOT / "profiles" / "embedded.yaml")
    optimisation = Config.of(config).optimisation.model_copy(
        update={"steps": options.steps + 1, "decay": "constant", "warmup": 0, "checkpoint_every": options.steps + 1}
    )
    size, batch = config.data.size, optimisation.batch
    pixels, records, painted = paint_corpus(options.pictures, 0, SEED, size, options.threads)
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    files = [folder / f"{number}.png" for number in range(len(pictures))]
    for picture, file in zip(pictures, files, strict=True):
        save_picture(picture, file)
    rows = [painted_row(*pair) for pair in zip(records, painted, strict=True)]
    captions = [[prompt(row, config.protocol.prompts.level, draw) for draw in range(PROMPTS)] for row in rows]
    names = [file.name for file in files]

    ours, theirs = base.load(options.base), base.load(options.base)
    began = time.process_time()
    cache = caches.encoded(ours, pictures, captions)
    cached = time.process_time() - began

    accelerator = Accelerator(cpu=True)
    order = [turns(SEED, step, batch, len(files)) for step in range(optimisation.steps)]
    shape, times = cache.latents.mean.shape[1:], len(ours.scheduler.betas)
    drawn = [[denoiser.draw(SEED, names[turn.sample], turn.epoch, shape, times, PROMPTS, 0.0) for turn in of_step]
             for of_step in order]  # fmt: skip
    laps, our_laps = Laps(), Laps()
    reference = example.steps(
        theirs,
        example.Captioned(files, captions, theirs.tokenizer, size),
        [[(turn.sample, draw.prompt) for turn, draw in zip(*pair, strict=True)]
         for pair in zip(order, drawn, strict=True)],
        example.Settings(RANK, optimisation.learning_rate, optimisation.beta2, optimisation.weight_decay,
                         optimisation.clip, size),
        Accelerator(cpu=True),
        SEED,
        [example.Drawn(torch.stack([d.posterior for d in of_step]), torch.stack([d.eps for d in of_step]),
                       torch.tensor([d.t for d in of_step])) for of_step in drawn],
        laps,
    )  # fmt: skip

    task = denoiser.task(
        ours.unet,
        add_adapter(ours.unet, RANK, SEED),
        ours.scheduler,
        cache.examples(names),
        empty_share=0.0,
        seed=SEED,
        device=accelerator.device,
    )
    found: list[tuple[float, float]] = []

    def losses(of_step: Sequence[Turn]) -> dict[str, torch.Tensor]:
        """Ours, after a step of the example that our clock does not count; called once a step, as it begins."""
        if found:
            our_laps("the rest of the loop")
            our_laps.end()
        laps.begin()
        wanted = next(reference)
        laps.end()
        our_laps.begin()
        terms = task.losses(of_step)
        our_laps("loss")
        found.append((terms["denoising"].item(), wanted))
        return terms

    watch(ours.unet, accelerator, our_laps)
    fit(replace(task, losses=losses), optimisation, seed=SEED, scratch=folder / "run", accelerator=accelerator)
    report(options, batch, laps, our_laps, found, cached)
    if options.operators:
        print_operators(task, optimisation.model_copy(update={"steps": 3 if options.dry else 10}), folder, accelerator)


def watch(unet: torch.nn.Module, accelerator: Accelerator, laps: Laps) -> None:
    """Have ``laps`` told of the parts of our step, which `training.loop` makes."""
    unet.register_forward_pre_hook(lambda *_: laps("draws, latents and embeddings"))
    unet.register_forward_hook(lambda *_: laps("forward"))
    clip = accelerator.clip_grad_norm_

    def clipped(*arguments: object) -> object:
        laps("backward")
        return clip(*arguments)

    accelerator.clip_grad_norm_ = clipped
    register_optimizer_step_pre_hook(lambda *_: laps("clipping and reading the loss"))
    register_optimizer_step_post_hook(lambda *_: laps("AdamW"))


def report(
    options: argparse.Namespace, batch: int, theirs: Laps, ours: Laps, found: list[tuple[float, float]], cached: float
) -> None:
    gap = max(abs(one - other) for one, other in found)
    print(f"{len(ours.clock) - WARM} steps of {batch} pictures in turn, threads: {options.threads}, "
          f"load: {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"largest difference of {len(found)} losses: {gap:.1e}, of {found[0][1]:.4f} to {found[-1][1]:.4f}")
    print("\n| | example | ours | ratio |\n|---|---|---|---|")
    for words, one, other in (
        ("seconds a step, by the clock", theirs.clock, ours.clock),
        ("seconds a step, of the processor", theirs.processor, ours.processor),
    ):
        print(f"| {words} | {median(one):.4f} | {median(other):.4f} | {median(one) / median(other):.2f} |")
    print(f"\nours encodes {options.pictures} pictures and their prompts once, in {cached:.1f} s of the processor")
    for name, laps in (("example", theirs), ("ours", ours)):
        print(f"\n| part of a step, {name} | ms of the processor | share |\n|---|---|---|")
        whole = sum(median(values) for values in laps.parts.values())
        for part, values in laps.parts.items():
            print(f"| {part} | {1000 * median(values):.1f} | {median(values) / whole:.1%} |")


def print_operators(task: Task, optimisation: params.Optimisation, folder: Path, accelerator: Accelerator) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        fit(task, optimisation, seed=SEED, scratch=folder / "profiled", accelerator=accelerator)
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in rows)
    print("\n| operator, ours | ms a step | calls a step | share |\n|---|---|---|---|")
    for row in rows[:25]:
        took = row.self_cpu_time_total
        print(f"| {row.key} | {took / 1000 / optimisation.steps:.1f} | {row.count / optimisation.steps:.0f} "
              f"| {took / whole:.1%} |")  # fmt: skip


if __name__ == "__main__":
    main()
