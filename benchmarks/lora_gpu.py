"""LoRA of a denoiser shaped as Stable Diffusion 2.1's, 512 px: ours, by switch, and diffusers' example on one GPU.

``python benchmarks/lora_gpu.py > table.md``: a Markdown table, a row as it is measured, in some 8 minutes on an H200.
Weights are random, pictures JPEGs of noise of 512 px: a step takes as long with others. Of the example: as it stands,
in half precision as its documentation starts it, and with readers beside it, which it does not have by default. Of
ours: ``training.loop`` as ``machine.precision: bf16`` runs it, then with switches added one by one, then variations.
``--dry``: the same rows, tiny, three steps each, on the CPU in about a minute. What fails is a row that says why.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from atelier import machine

machine.settle(2)

import lora_example as example  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from diffusers.models.attention_processor import AttnProcessor  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

from atelier.models import base  # noqa: E402
from atelier.params import Optimisation  # noqa: E402
from atelier.planning.given import STABLE_DIFFUSION_21  # noqa: E402
from atelier.training import caches, denoiser  # noqa: E402
from atelier.training.loop import fit  # noqa: E402
from atelier.training.lora import add_adapter  # noqa: E402
from atelier.training.order import Turn, turns  # noqa: E402

SEED, RANK = 5, 4  # the rank is the example's default
PROMPTS = [["a boat on a lake at dusk, oil on canvas, and it makes me feel calm because the water is still"]]
SMALL: dict[str, dict[str, Any]] = {  # of --dry, instead of published sizes
    "unet": {
        "sample_size": 8,
        "block_out_channels": [32, 64, 64, 64],
        "layers_per_block": 1,
        "attention_head_dim": [1, 2, 2, 2],
        "cross_attention_dim": 64,
    },
    "vae": {"sample_size": 64, "block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
    "text": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}


class Switches(NamedTuple):
    """How our loop runs. ``any_algorithm``: not only those that give the same bits twice; cuDNN tries several."""

    precision: str = "bf16"
    half_frozen: bool = False
    channels_last: bool = False
    fused: bool = False
    any_algorithm: bool = False
    compiled: bool = False
    attention: bool = True
    checkpointing: bool = False
    times_batch: int = 1


FASTEST = Switches(half_frozen=True, channels_last=True, fused=True, any_algorithm=True)
OURS = {
    "ours, `machine.precision: bf16`": Switches(),
    "+ frozen weights in bf16": Switches(half_frozen=True),
    "+ channels last": Switches(half_frozen=True, channels_last=True),
    "+ fused AdamW": Switches(half_frozen=True, channels_last=True, fused=True),
    "+ any algorithm (bits differ)": FASTEST,
    "... with four times the batch": FASTEST._replace(times_batch=4),
    "... with gradient checkpointing": FASTEST._replace(checkpointing=True),
    "... without SDPA": FASTEST._replace(attention=False),
    "... with `torch.compile`": FASTEST._replace(compiled=True),
    "ours, `machine.precision: fp32`": Switches(precision="no"),
}


class Bench(NamedTuple):
    """What all rows share."""

    device: torch.device
    files: list[Path]
    size: int
    batch: int
    steps: int  # that count
    warm: int  # first steps that do not
    small: bool

    @property
    def taken(self) -> int:
        """All steps: what lies between two of them is what is measured."""
        return self.warm + self.steps + 1

    @property
    def order(self) -> list[list[Turn]]:
        return [turns(SEED, step, self.batch, len(self.files)) for step in range(self.taken)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if options.dry:
        machine.settle(1)
    elif not torch.cuda.is_available():
        parser.error("there is no GPU here; --dry runs the rows, tiny, on the CPU")
    device = torch.device("cpu" if options.dry else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        size, batch, steps, warm = (64, 2, 1, 1) if options.dry else (512, options.batch, options.steps, 3)
        files = noise(Path(folder), 2 * batch, size)
        table(Bench(device, files, size, batch, steps, warm, options.dry), Path(folder))


def noise(folder: Path, number: int, size: int) -> list[Path]:
    """JPEGs of smooth noise."""
    drawn = np.random.default_rng(SEED).integers(0, 256, (number, size // 8, size // 8, 3), dtype=np.uint8)
    files = [folder / f"{index}.jpg" for index in range(number)]
    for file, pixels in zip(files, drawn, strict=True):
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(file, quality=92)
    return files


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)


def built(bench: Bench) -> StableDiffusionPipeline:
    """Random weights of these shapes, float32, on the device."""
    configs = {part: values | (SMALL[part] if bench.small else {}) for part, values in STABLE_DIFFUSION_21.items()}
    tokenizer = base.train_tokenizer(PROMPTS[0], 600)
    tokenizer.model_max_length = configs["text"]["max_position_embeddings"]
    torch.manual_seed(SEED)
    with torch.device(bench.device):
        return StableDiffusionPipeline(
            vae=AutoencoderKL.from_config(configs["vae"]),
            text_encoder=CLIPTextModel(CLIPTextConfig(**configs["text"])),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel.from_config(configs["unet"]),
            scheduler=scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def table(bench: Bench, folder: Path) -> None:
    """Print all rows, each as it is measured."""
    card = "CPU, dry" if bench.small else torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}, {bench.size} px, batch {bench.batch}, rank {RANK}, "
          f"median of {bench.steps} steps\n")  # fmt: skip
    print("| | pictures/s | to the example | to it in bf16 | GiB at most |\n|---|---|---|---|---|", flush=True)
    found: dict[str, float] = {}
    for words, run in rows(bench, folder).items():
        began = time.perf_counter()
        try:
            speed, peak = run()
        except (RuntimeError, ValueError, TypeError) as fault:  # of a switch that does not run here, or does not fit
            print(f"| {words} | {type(fault).__name__}: {str(fault).splitlines()[0][:90]} | | | |", flush=True)
            continue
        finally:
            gc.collect()
            if not bench.small:
                torch.cuda.empty_cache()
        found[words] = speed
        ratios = [
            f"{speed / found[other]:.2f}" if other in found else "" for other in ("example, fp32", "example, bf16")
        ]
        print(f"| {words} | {speed:.1f} | {' | '.join(ratios)} | {peak:.1f} |", flush=True)
        print(f"{words}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


Run = Callable[[], tuple[float, float]]  # pictures a second, GiB


def rows(bench: Bench, folder: Path) -> dict[str, Run]:
    kinds = {"example, fp32": ("no", 0), "example, fp16": ("fp16", 0), "example, bf16": ("bf16", 0),
             "example, bf16, 8 readers": ("bf16", 2 if bench.small else 8)}  # fmt: skip
    theirs: dict[str, Run] = {
        words: partial(of_example, bench, *kind)
        for words, kind in kinds.items()
        if not (bench.small and "fp16" in words)
    }
    cache = cached(bench)
    return theirs | {
        words: partial(of_ours, bench, switches, cache, folder / str(number))
        for number, (words, switches) in enumerate(OURS.items())
    }


def cached(bench: Bench) -> caches.Cache:
    """What the stage ``cache`` writes: half precision."""
    pipeline = built(bench)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in bench.files])
    return caches.encoded(pipeline, pixels, PROMPTS * len(bench.files))


def accelerator(bench: Bench, precision: str) -> Accelerator:
    """A new one: Accelerate keeps the first one's precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=bench.small, mixed_precision=precision)


@contextmanager
def measured(bench: Bench, batch: int, stamps: Sequence[float], result: list[float]) -> Iterator[None]:
    """Around the steps: pictures a second, of the medians between stamps, and the most memory in GiB."""
    if not bench.small:
        torch.cuda.reset_peak_memory_stats()
    yield
    peak = 0.0 if bench.small else torch.cuda.max_memory_allocated() / 2**30
    took = [later - earlier for earlier, later in pairwise(stamps)][bench.warm :]
    result += [batch / statistics.median(took), peak]


def of_example(bench: Bench, precision: str, workers: int) -> tuple[float, float]:
    """The example, with torch's own defaults."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    pipeline = built(bench)
    stamps: list[float] = []
    result: list[float] = []
    steps = example.steps(
        pipeline,
        example.Captioned(bench.files, PROMPTS * len(bench.files), pipeline.tokenizer, bench.size),
        [[(turn.sample, 0) for turn in batch] for batch in bench.order],
        example.Settings(RANK, 1e-4, 0.999, 0.01, 1.0, bench.size, precision, workers=workers),
        accelerator(bench, precision),
        SEED,
    )
    with measured(bench, bench.batch, stamps, result):
        stamps += (time.perf_counter() for _ in steps)
    return result[0], result[1]


def of_ours(bench: Bench, switches: Switches, cache: caches.Cache, scratch: Path) -> tuple[float, float]:
    """`training.loop.fit` itself; switches are set from outside."""
    torch.use_deterministic_algorithms(not switches.any_algorithm)
    torch.backends.cudnn.benchmark = switches.any_algorithm
    torch.backends.cudnn.allow_tf32 = False
    unet = built(bench).unet.requires_grad_(False)
    if switches.half_frozen:
        unet.to(torch.bfloat16)
    if switches.channels_last:
        unet.to(memory_format=torch.channels_last)
    if not switches.attention:
        unet.set_attn_processor(AttnProcessor())
    trainable = add_adapter(unet, RANK, SEED)
    for parameter in trainable.values():
        parameter.data = parameter.data.float()
    if switches.checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    called = torch.compile(unet) if switches.compiled and not bench.small else unet
    names, batch = [file.name for file in bench.files], bench.batch * switches.times_batch
    task = denoiser.task(called, trainable, scheduler(), cache.examples(names),
                         empty_share=0.0, seed=SEED, device=bench.device)  # fmt: skip
    stamps: list[float] = []
    result: list[float] = []

    def losses(turn: Sequence[Turn]) -> dict[str, torch.Tensor]:
        stamps.append(time.perf_counter())
        return task.losses(turn)

    settings = Optimisation(steps=bench.taken, batch=batch, learning_rate=1e-4, decay="constant", warmup=0, beta2=0.999,
                            weight_decay=0.01, clip=1.0, ema=0.0, checkpoint_every=bench.taken)  # fmt: skip
    adam = partial(torch.optim.AdamW, fused=True) if switches.fused else torch.optim.AdamW
    with (
        measured(bench, batch, stamps, result),
        patch.object(torch.optim, "AdamW", adam),
        redirect_stdout(sys.stderr),  # the table is all that is printed
    ):
        fit(replace(task, losses=losses), settings, seed=SEED, scratch=scratch,
            accelerator=accelerator(bench, switches.precision))  # fmt: skip
    return result[0], result[1]


if __name__ == "__main__":
    main()
