"""The loop of diffusers' ``examples/text_to_image/train_text_to_image_lora.py``, re-created for comparisons.

A step does what a step there does: pictures are opened, resized, cropped and normalised, and captions tokenised, as
they are needed; autoencoder and text encoder run in the loop; the rest is its noise, loss, clipping, AdamW, schedule.
Left out is what would only slow it down: the ``datasets`` library, trackers, checkpoints. Its defaults: no workers
beside the main process, no flips, a constant learning rate. Not its default: crops are central, as ours are.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params
from diffusers.utils import logging
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from atelier.seeds import seed_of

logging.set_verbosity_error()

Lap = Callable[[str], None]  # told at the end of each part of a step


class Drawn(NamedTuple):
    """What a step would draw, where it is given: noise of the posterior, noise to predict (b, c, h, w); times (b,)."""

    posterior: Tensor
    noise: Tensor
    times: Tensor


class Settings(NamedTuple):
    """``precision``: no | fp16 | bf16, Accelerate's mixed precision; frozen weights are of that type, too."""

    rank: int
    learning_rate: float
    beta2: float
    weight_decay: float
    clip: float
    size: int
    precision: str = "no"
    workers: int = 0  # processes that read pictures


class Captioned(Dataset):
    """Picture files with captions; an item is (number of the picture, number of its caption)."""

    def __init__(self, files: Sequence[Path], captions: Sequence[Sequence[str]], tokenizer: Any, size: int) -> None:
        self.files, self.captions, self.tokenizer, self.size = files, captions, tokenizer, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        picture, caption = item
        image = Image.open(self.files[picture]).convert("RGB")
        short = min(image.size)
        if short != self.size:
            sides = [round(side * self.size / short) for side in image.size]
            image = image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
        left, top = ((side - self.size) // 2 for side in image.size)
        image = image.crop((left, top, left + self.size, top + self.size))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        ids = self.tokenizer(
            self.captions[picture][caption],
            max_length=self.tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids[0]
        return {"pixel_values": pixels.sub_(0.5).div_(0.5), "input_ids": ids}


def collated(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    pixels = torch.stack([example["pixel_values"] for example in examples])
    return {
        "pixel_values": pixels.to(memory_format=torch.contiguous_format).float(),
        "input_ids": torch.stack([example["input_ids"] for example in examples]),
    }


def steps(
    pipeline: StableDiffusionPipeline,
    dataset: Captioned,
    batches: Sequence[Sequence[tuple[int, int]]],
    settings: Settings,
    accelerator: Accelerator,
    seed: int,
    draws: Sequence[Drawn] | None = None,
    lap: Lap = lambda part: None,
) -> Iterator[float]:
    """Train an adapter of the pipeline's denoiser; a step for each batch of items, yielding its loss.

    ``draws``: a step's random numbers, so that another loop's losses compare; None: drawn here.
    """
    unet, vae, text_encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    noise_scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    weight_dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[settings.precision]
    for part in (unet, vae, text_encoder):
        part.requires_grad_(False).to(accelerator.device, dtype=weight_dtype)
    torch.manual_seed(seed_of(seed, "adapter"))  # the start is that of `training.lora`
    unet.add_adapter(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    if settings.precision == "fp16":
        cast_training_params(unet, dtype=torch.float32)
    lora_layers = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        lora_layers,
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        eps=1e-8,
    )
    order = [list(batch) for batch in batches]
    loader = DataLoader(dataset, batch_sampler=order, collate_fn=collated, num_workers=settings.workers)
    schedule = get_scheduler("constant", optimizer=optimizer, num_training_steps=len(batches))
    unet, optimizer, loader, schedule = accelerator.prepare(unet, optimizer, loader, schedule)
    unet.train()
    for step, batch in enumerate(loader):
        lap("pictures and tokens")
        with accelerator.accumulate(unet):
            posterior = vae.encode(batch["pixel_values"].to(dtype=weight_dtype)).latent_dist
            if draws is None:
                latents = posterior.sample()
            else:
                latents = posterior.mean + posterior.std * draws[step].posterior.to(posterior.mean)
            latents = latents * vae.config.scaling_factor
            noise = torch.randn_like(latents) if draws is None else draws[step].noise.to(latents)
            if draws is None:
                times = torch.randint(0, noise_scheduler.config.num_train_timesteps, (len(latents),))
            else:
                times = draws[step].times
            times = times.to(latents.device).long()
            noisy = noise_scheduler.add_noise(latents, noise, times)
            lap("autoencoder")
            words = text_encoder(batch["input_ids"], return_dict=False)[0]
            lap("text encoder")
            kind = noise_scheduler.config.prediction_type
            target = noise if kind == "epsilon" else noise_scheduler.get_velocity(latents, noise, times)
            output = unet(noisy, times, words, return_dict=False)[0]
            loss = functional.mse_loss(output.float(), target.float(), reduction="mean")
            lap("forward")
            shown = accelerator.gather(loss.repeat(len(latents))).mean().item()
            accelerator.backward(loss)
            lap("backward")
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(lora_layers, settings.clip)
            lap("clipping")
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            lap("AdamW")
        yield shown
