"""Load a trained adapter or denoiser into a pipeline; only safetensors are read."""

from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from atelier.files import reading
from atelier.models.base import scheduler_of

WEIGHTS = "pytorch_lora_weights.safetensors"  # diffusers' default file name


def load_adapter(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Load an adapter; without the two flags diffusers would also accept a pickle, or look on the hub."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: holds no {WEIGHTS}")
    with reading(folder / WEIGHTS, "not a readable adapter"):
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS, use_safetensors=True, local_files_only=True)


def tuned(pipeline: StableDiffusionPipeline, folder: Path) -> StableDiffusionPipeline:
    """``pipeline`` with the trained denoiser in ``folder``, or with the adapter there merged into its denoiser."""
    if (folder / "unet").is_dir():
        with reading(folder / "unet", "not a readable denoiser"):
            pipeline.unet = UNet2DConditionModel.from_pretrained(
                folder / "unet", use_safetensors=True, local_files_only=True
            )
        return pipeline
    load_adapter(pipeline, folder)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline


def converted(pipeline: StableDiffusionPipeline, folder: Path) -> StableDiffusionPipeline:
    """``pipeline`` with a conversion (``training.conversion``) merged into its denoiser, and with its scheduler."""
    pipeline = tuned(pipeline, folder)
    pipeline.scheduler = scheduler_of(folder)
    return pipeline
