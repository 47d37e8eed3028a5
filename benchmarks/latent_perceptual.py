"""What a loss on decoder features costs a training step, beside the same step with the squared error alone.

``python benchmarks/latent_perceptual.py [--steps 20] [--device cuda]`` needs nothing but the package: weights and
latents are random, for speed does not depend on them. Each row is two processes. One makes each step twice, with and
without the loss, so that a busy machine slows both: median time, median ratio, and on a CPU the ratio of processor
time, which other processes change less. The other tells the most memory, its ratio to that without the loss, and how
much came after what was held before the first step.
``--steps 5 --batch 16`` shows that it works, and no more. ``--big``: the same for a denoiser and an autoencoder of
Stable Diffusion's size, 512 px, bf16, on CUDA. ``--gradients``: how a loss on crops changes the gradient; with the
pipeline's base and corpus. ``--hours profiles/study.yaml``: what the study's trainings and pictures take by that
profile, from the times of a plain step, of one with the loss, and of a picture, here and now.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from atelier import machine

machine.settle(2)

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: E402
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from atelier import params  # noqa: E402
from atelier.diffusion import STABLE_DIFFUSION_BETAS, clean_estimate  # noqa: E402
from atelier.evaluation.intervals import t_interval  # noqa: E402
from atelier.methods.latent_perceptual import latent_perceptual_loss, threshold  # noqa: E402
from atelier.models import base  # noqa: E402
from atelier.models.autoencoders import decoder_stages  # noqa: E402
from atelier.models.latents import Latents, unscaled  # noqa: E402
from atelier.sampling.sampler import first_latents, sample, settled, with_ddim  # noqa: E402
from atelier.studies.latent_perceptual.loss import TERM, gated, perceptual  # noqa: E402
from atelier.studies.latent_perceptual.params import Config, PostTraining, protocol_of  # noqa: E402
from atelier.studies.latent_perceptual.pictures import folder  # noqa: E402
from atelier.studies.latent_perceptual.sample import all_conditions  # noqa: E402
from atelier.studies.latent_perceptual.train import PostTrainingSetup  # noqa: E402
from atelier.training import denoiser  # noqa: E402
from atelier.training.denoiser import Denoised, Examples, Extra  # noqa: E402
from atelier.training.loop import Task  # noqa: E402
from atelier.training.lora import add_adapter  # noqa: E402
from atelier.training.order import turns  # noqa: E402
from atelier.workspace import Workspace  # noqa: E402

PAPER = PostTraining(loss="perceptual")
WARM_UP, SEED = 3, 1
PROMPT = "a boat on the sea"
NAMES = [f"work {at}" for at in range(256)]


class Row(NamedTuple):
    """What the loss looks at, and how; ``crop``: share of a latent's side, 0 for the whole."""

    depth: int = 5
    tau: float = PAPER.tau
    slices: int = 16
    crop: float = 0.0


CROPS = {"1/2": 0.5, "3/8": 0.375}
PLAIN, NAIVE, DEFAULT = "squared error alone", "naive: all decoded, one graph, targets in it", "depth 5"
ROWS = {
    PLAIN: None,
    NAIVE: None,
    **{f"depth {depth}": Row(depth) for depth in range(1, 6)},
    **{f"depth {depth}, no threshold": Row(depth, tau=1e9) for depth in range(1, 6)},
    **{f"depth 5, crops of {label} of a side": Row(crop=crop) for label, crop in CROPS.items()},
    "depth 5, slices of 4": Row(slices=4),
}


class Parts(NamedTuple):
    """What a step is made with; ``tokens`` of a prompt."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: SchedulerMixin
    trainable: dict[str, nn.Parameter]
    tokens: int


def embedded() -> Parts:
    """The embedded base as the study trains it: the whole denoiser."""
    pipeline = base.build("embedded", 64, [PROMPT], SEED)
    trainable = dict(pipeline.unet.named_parameters())
    return Parts(pipeline.unet, pipeline.vae, pipeline.scheduler, trainable, base.MAX_TOKENS)


def stable_diffusion() -> Parts:
    """Stable Diffusion 2.1 in shape, 865 million parameters, and an adapter on its attention."""
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=1024,
        attention_head_dim=(5, 10, 20, 20),  # diffusers' name; they are numbers of heads
        use_linear_projection=True,
    )
    channels = (128, 256, 512, 512)
    vae = AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    start, end = STABLE_DIFFUSION_BETAS
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=start, beta_end=end)
    return Parts(unet, vae, scheduler, add_adapter(unet, 8, SEED), 77)


def naive(parts: Parts) -> Extra:
    """The loss as it is first written: every sample, the whole batch at once, gradients of targets kept and dropped."""

    def term(step: Denoised) -> dict[str, Tensor]:
        zt, alpha, s, z0 = (each.to(step.output.device) for each in (step.zt, step.alpha, step.s, step.z0))
        estimates = clean_estimate(parts.scheduler.config.prediction_type, zt, step.output, alpha, s)
        targets = decoder_stages(parts.vae, unscaled(parts.vae, z0.requires_grad_()), 5)
        stages = decoder_stages(parts.vae, unscaled(parts.vae, estimates), 5)
        return {TERM: latent_perceptual_loss(targets, stages, stages[-1].shape[-1]).mean()}

    return term


def extra_of(name: str, parts: Parts) -> Extra | None:
    """A row's loss beside the squared error."""
    if name == NAIVE:
        return naive(parts)
    if (row := ROWS[name]) is None:
        return None
    crop = round(parts.unet.config.sample_size * row.crop)
    compare = perceptual(parts.vae, PAPER.model_copy(update={"depth": row.depth}), crop, NAMES, SEED)
    return gated(compare, parts.scheduler.config.prediction_type, row.tau, row.slices)


class Taken(NamedTuple):
    """Seconds of a step: by the clock, and of the processor's."""

    clock: float
    processor: float


def step_of(task: Task, place: Accelerator, batch: int) -> Callable[[int], Taken]:
    """A training step as the loop makes it, by its number, which tells how long it took."""
    parameters = list(task.trainable.values())
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)

    def step(number: int) -> Taken:
        start, processor = time.perf_counter(), time.process_time()
        with place.autocast():
            terms = task.losses(turns(SEED, number, batch, len(NAMES)))
        place.backward(torch.stack(list(terms.values())).sum())
        float(place.clip_grad_norm_(parameters, 1.0))  # waits for the device
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if place.device.type == "cuda":
            torch.cuda.synchronize()
        return Taken(time.perf_counter() - start, time.process_time() - processor)

    return step


def held(place: Accelerator) -> float:
    """What this process holds, MiB."""
    if place.device.type == "cuda":
        return torch.cuda.memory_allocated() / 2**20
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def most_held(place: Accelerator) -> float:
    """The most memory of this process so far, MiB."""
    if place.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stepping(parts: Parts, extra: Extra | None, place: Accelerator, batch: int) -> Callable[[int], Taken]:
    """A step of these parts, with a loss beside the squared error or without, on random latents."""
    config = parts.unet.config
    generator = torch.Generator().manual_seed(SEED)
    latents = torch.randn(len(NAMES), config.in_channels, config.sample_size, config.sample_size, generator=generator)
    words = torch.randn(batch, parts.tokens, config.cross_attention_dim, generator=generator)
    task = denoiser.task(
        parts.unet,
        parts.trainable,
        parts.scheduler,
        Examples(Latents(0.5 * latents, torch.full_like(latents, 0.05)), NAMES, 1, lambda *chosen: words),
        empty_share=0.0,
        seed=SEED,
        device=place.device,
        extra=extra,
    )
    return step_of(task, place, batch)


def placed(big: bool, place: Accelerator) -> Parts:
    """The parts on their device; the decoder is frozen."""
    parts = stable_diffusion() if big else embedded()
    parts.unet.to(place.device)
    parts.vae.to(place.device, memory_format=torch.channels_last).requires_grad_(False).eval()
    return parts


def measured(name: str, what: str, big: bool, place: Accelerator, batch: int, steps: int) -> dict[str, float]:
    """A row's median time and ratio, or its memory."""
    parts = placed(big, place)
    own = stepping(parts, extra_of(name, parts), place, batch)
    if what == "memory":
        before = held(place)
        if place.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for number in range(min(steps, 4)):
            own(number)
        return {"peak": most_held(place), "more": most_held(place) - before}
    if name == PLAIN:
        alone = [own(number) for number in range(WARM_UP + steps)][WARM_UP:]
        return {"ms": 1000 * statistics.median(step.clock for step in alone), "clock": 1.0, "processor": 1.0}
    plain = stepping(parts, None, place, batch)
    pairs = [(plain(number), own(number)) for number in range(WARM_UP + steps)][WARM_UP:]
    # medians: a sum would be that of its slowest step
    return {
        "ms": 1000 * statistics.median(step.clock for _, step in pairs),
        "clock": statistics.median(step.clock / alone.clock for alone, step in pairs),
        "processor": statistics.median(step.processor / alone.processor for alone, step in pairs),
    }


def hours(profile: str, place: Accelerator, steps: int) -> None:
    """Print what a profile's trainings and pictures take of one core; two threads would wait for a busy machine."""
    torch.set_num_threads(1)
    config = params.load(profile)
    study, parts = Config.of(config), placed(False, place)
    losses = {"plain": None, "lpl": extra_of(DEFAULT, parts)}
    kinds = {name: stepping(parts, loss, place, study.optimisation.batch) for name, loss in losses.items()}
    each = {name: [step(number) for number in range(WARM_UP + steps)][WARM_UP:] for name, step in kinds.items()}
    each["pictures"] = [picture(config, place) for _ in range(3)]
    numbers = dict.fromkeys(each, 0.0)
    for name, training in study.trainings.items():
        seeds = len(protocol_of(config, name).protocol.training_seeds)
        numbers["plain"] += seeds * training.before
        numbers["lpl" if training.loss == "perceptual" else "plain"] += seeds * study.steps_of(name)
    for one in all_conditions(config):
        of_repeat = study.pictures if one.steps is None else study.pictures_in_steps
        share = (one.steps or config.sampling.steps) / config.sampling.steps
        numbers["pictures"] += share * of_repeat * len(protocol_of(config, one.variant).protocol.all_repeats)
    seconds = {name: statistics.median(each_one.processor for each_one in taken) for name, taken in each.items()}
    for name, taken in seconds.items():
        print(f"{name:9} {numbers[name]:9.0f} x {taken:6.3f} s of a core", flush=True)
    total = sum(numbers[name] * taken for name, taken in seconds.items()) / 3600
    print(f"{profile}: {total:.1f} core-hours, {total / 2:.1f} hours of two cores at best; measures not counted")
    print(f"a step with the loss takes {seconds['lpl'] / seconds['plain']:.2f} times a plain one's")


def picture(config: params.Params, place: Accelerator) -> Taken:
    """Seconds of a picture, in a full batch, by this profile's sampler."""
    pipeline = settled(with_ddim(base.build("embedded", config.data.size, [PROMPT], SEED)), place.device)
    pipeline.set_progress_bar_config(disable=True)
    batch, guidance = config.sampling.batch, Config.of(config).guidance
    latents = first_latents(pipeline, [(SEED, number) for number in range(batch)], config.data.size)
    start, processor = time.perf_counter(), time.process_time()
    sample(pipeline, [PROMPT] * batch, latents, guidance=guidance, steps=config.sampling.steps, batch=batch)
    return Taken((time.perf_counter() - start) / batch, (time.process_time() - processor) / batch)


def cosines(steps: int) -> None:
    """Print how much alike gradients of the loss on crops and on whole pictures are."""
    workspace = Workspace()
    for path in (workspace.base, folder(workspace)):
        if not path.exists():
            raise SystemExit(f"{path}: not there; --gradients needs real weights: make repro")
    config = params.load(workspace.params_file)
    study = Config.of(config)
    variants = [name for name, training in study.trainings.items() if training.loss == "perceptual"]
    setup = PostTrainingSetup(config, workspace, variants[0], config.protocol.training_seeds[0])
    batch, side = study.optimisation.batch, setup.unet.config.sample_size

    def gradients(crop: int) -> Iterator[Tensor | None]:
        compare = perceptual(setup.vae, setup.training, crop, setup.works.names, setup.seed)
        task = setup.task(setup.seed, gated(compare, setup.kind, setup.training.tau, setup.config.slices))
        for number in range(steps):
            with setup.accelerator.autocast():
                loss = task.losses(turns(setup.seed, number, batch, len(setup.works.names)))[TERM]
            parts = torch.autograd.grad(loss, list(setup.trainable.values())) if loss.requires_grad else ()
            yield torch.cat([part.flatten() for part in parts]) if parts else None  # none was under the threshold

    whole = list(gradients(0))
    pairs: dict[str, Iterable[tuple[Tensor | None, Tensor | None]]] = {"whole, and the next batch's": pairwise(whole)}
    for crop in (round(side * share) for share in CROPS.values()):
        pairs[f"crops of {crop} of {side} elements, and whole"] = zip(whole, gradients(crop), strict=True)
    print(f"cosine of gradients at the start, '{variants[0]}', batches of {batch}: mean, 95 % interval")
    for label, compared in pairs.items():
        found = [float(torch.cosine_similarity(a, b, 0)) for a, b in compared if a is not None and b is not None]
        mean, low, high, n = t_interval(found)
        print(f"  {label:40} {mean:.3f} ({low:.3f} to {high:.3f}), n = {n}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="that count, after the warm-up; batches of --gradients")
    parser.add_argument("--batch", type=int, help="32, or 8 where big")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--big", action="store_true", help="Stable Diffusion's size; on CUDA alone")
    parser.add_argument("--gradients", action="store_true", help="cosines instead of times")
    parser.add_argument("--hours", metavar="PROFILE", help="what the study takes by this profile, instead of times")
    parser.add_argument("--row", nargs=2, metavar=("NAME", "WHAT"), help="time or memory of this row alone, as JSON")
    options = parser.parse_args()
    if options.gradients:
        cosines(options.steps)
        return
    precision: Literal["fp32", "bf16"] = "bf16" if options.big else "fp32"
    try:
        place = machine.accelerator(params.Machine(threads=2, device=options.device, precision=precision))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if options.hours:
        hours(options.hours, place, options.steps)
        return
    if options.big and place.device.type != "cuda":
        raise SystemExit(f"--big: 865 million parameters at 512 px need --device cuda, this is {place.device}")
    batch = options.batch or (8 if options.big else 32)
    if options.row:
        try:
            name, what = options.row
            print(json.dumps(measured(name, what, options.big, place, batch, options.steps)))
        except torch.cuda.OutOfMemoryError:
            print(json.dumps({}))  # a row of nan
        return
    side = 64 if options.big else 8
    betas = STABLE_DIFFUSION_BETAS if options.big else base.resolution_matched_betas(side)
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=betas[0], beta_end=betas[1])
    alphas, sigmas, _ = denoiser.path(scheduler)
    under = float((sigmas <= threshold(PAPER.tau, side) * alphas).float().mean())
    print(f"{8 * side} px, batch {batch}, {precision}, {place.device}: {under:.0%} of samples are under the threshold")
    print(f"{'':46} {'ms a step':>9} {'ratio':>6} {'of CPU':>7} {'peak MiB':>9} {'ratio':>6} {'MiB more':>9}")
    table: dict[str, dict[str, float]] = {}
    for name in ROWS:
        found = table[name] = dict.fromkeys(("ms", "clock", "processor", "peak", "more"), float("nan"))
        for what in ("time", "memory"):
            command = [sys.executable, __file__, *sys.argv[1:], "--row", name, what]
            quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
            found |= json.loads(done.stdout.splitlines()[-1])
        line = "{:46} {ms:9.0f} {clock:6.2f} {processor:7.2f} {peak:9.0f} {memory:6.2f} {more:9.0f}"
        print(line.format(name, **found, memory=found["peak"] / table[PLAIN]["peak"]), flush=True)
    print(f"equal by the clock: {table[DEFAULT]['clock']:.2f} times the steps")


if __name__ == "__main__":
    main()
