"""Trained adapters put into a pipeline; nothing pickled is read."""

from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from atelier.models.base import scheduler_of
from atelier.training.art_finetuning import WEIGHTS


def load_adapter(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Put a trained adapter into a pipeline; without the two flags diffusers would look for a pickle or on the hub."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: holds no {WEIGHTS}")
    try:
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS, use_safetensors=True, local_files_only=True)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS}: not a readable adapter: {' '.join(str(error).split())}") from None


def converted(pipeline: StableDiffusionPipeline, folder: Path) -> StableDiffusionPipeline:
    """``pipeline`` with a conversion (``training.conversion``) merged into its denoiser, and that one's scheduler."""
    load_adapter(pipeline, folder)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    pipeline.scheduler = scheduler_of(folder)
    return pipeline
