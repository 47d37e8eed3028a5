"""Load a trained adapter or denoiser into a pipeline; only safetensors are read."""

from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from atelier.files import check_output, reading, reason
from atelier.models.base import scheduler_of
from atelier.models.checked import CONFIG, check_denoiser_fits, load_part
from atelier.models.checked_adapter import check_adapter

WEIGHTS = "pytorch_lora_weights.safetensors"  # diffusers' default file name


def load_adapter(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Load an adapter; without the two flags diffusers would also accept a pickle, or look on the hub.

    Raises ValueError, one line, for a file that does not fit the pipeline (``checked_adapter``).
    """
    check_output(folder)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: holds no {WEIGHTS}")
    check_adapter(pipeline, folder / WEIGHTS)
    with reading(folder / WEIGHTS, "not a readable adapter"):  # PEFT may raise anything for what it does not expect
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS, use_safetensors=True, local_files_only=True)


def tuned(pipeline: StableDiffusionPipeline, folder: Path) -> StableDiffusionPipeline:
    """``pipeline`` with the trained denoiser in ``folder``, or with the adapter there merged into its denoiser.

    Raises ValueError, one line that names the file, for weights that do not fit the pipeline or are not finite.
    """
    if (folder / "unet").is_dir():
        try:
            check_output(folder)
            unet = load_part(folder / "unet", UNet2DConditionModel)
            check_denoiser_fits(unet.config, pipeline.unet, folder / "unet" / CONFIG)
        except ValueError as error:
            raise ValueError(f"{folder / 'unet'}: not a readable denoiser: {reason(error)}") from None
        pipeline.unet = unet
        return pipeline
    load_adapter(pipeline, folder)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline


def converted(pipeline: StableDiffusionPipeline, folder: Path) -> StableDiffusionPipeline:
    """``pipeline`` with a conversion (``training.conversion``) merged into its denoiser, and with its scheduler."""
    scheduler = scheduler_of(folder)
    pipeline = tuned(pipeline, folder)
    pipeline.scheduler = scheduler
    return pipeline
