"""Pipelines in the shapes of models that people have, with few channels and random weights; folders as published."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from atelier.models import base

PROMPTS = ["a red boat", "a blue house"]
FOR_STUDIES = ("1.5", "2.1", "2.1-v")  # Stable Diffusion; 2.1: epsilon, 512 px; 2.1-v: v, 768 px
ALL = (*FOR_STUDIES, "XL")
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
ALIKE = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4}
SCHEDULERS = {
    "1.5": PNDMScheduler(**SCHEDULE, skip_prk_steps=True),
    "2.1": PNDMScheduler(**SCHEDULE, skip_prk_steps=True),
    "2.1-v": DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"),
    "XL": EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
}
CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"
# of each denoiser: heads by block as one number or many, linear projections, where attention is, what else it is told
DENOISERS: dict[str, dict[str, Any]] = {
    "1.5": {"attention_head_dim": 2, "blocks": [CROSS, CROSS, CROSS, PLAIN]},
    "2.1": {"attention_head_dim": [1, 2, 2, 2], "use_linear_projection": True, "blocks": [CROSS, CROSS, CROSS, PLAIN]},
    "XL": {
        "attention_head_dim": [1, 2, 2], "use_linear_projection": True, "blocks": [PLAIN, CROSS, CROSS],
        "transformer_layers_per_block": [1, 1, 2], "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    },
}  # fmt: skip
DENOISERS["2.1-v"] = {**DENOISERS["2.1"], "upcast_attention": True}


def text_of(words: Any) -> CLIPTextConfig:
    """The smallest text encoder of a tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=16, max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip


def pipeline_of(name: str) -> Any:
    """A pipeline for 64 px in the shape of one of ``ALL``."""
    words = base.train_tokenizer(PROMPTS, 700)
    torch.manual_seed(25)
    text = text_of(words)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025 if name == "XL" else 0.18215,
    )  # fmt: skip
    encoder, scheduler = CLIPTextModel(text), type(SCHEDULERS[name]).from_config(SCHEDULERS[name].config)
    if name == "XL":
        other = CLIPTextModelWithProjection(text)
        made: Any = StableDiffusionXLPipeline(vae, encoder, other, words, words, denoiser(name), scheduler)
    else:
        made = StableDiffusionPipeline(
            vae, encoder, words, denoiser(name), scheduler, None, None, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    return made


def denoiser(name: str) -> UNet2DConditionModel:
    settings = dict(DENOISERS[name])
    blocks = settings.pop("blocks")
    return UNet2DConditionModel(
        **ALIKE, **settings, block_out_channels=(8, 16, 16, 16)[: len(blocks)],
        cross_attention_dim=32 if name == "XL" else 16,
        down_block_types=tuple(block.format("Down") for block in blocks),
        up_block_types=tuple(block.format("Up") for block in reversed(blocks)),
    )  # fmt: skip


def published(name: str, folder: Path, **options: Any) -> Path:
    """A folder as repositories have it: an older tokenizer's files, a checker that is listed, an old library's name.

    ``options``: of ``save_pretrained``, such as ``variant``.
    """
    made = pipeline_of(name)
    made.save_pretrained(folder, **options)
    for words in folder.glob("tokenizer*"):
        content = json.loads((words / "tokenizer.json").read_text())["model"]
        (words / "tokenizer.json").unlink()
        (words / "vocab.json").write_text(json.dumps(content["vocab"]))
        merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in content["merges"])
        (words / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
        change(words / "tokenizer_config.json", name_or_path="./clip_ViT_L_14_text_tokenizer/", backend=None)
    listed = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    }
    change(folder / "model_index.json", _diffusers_version="0.6.0", **({} if name == "XL" else listed))
    return folder


def change(file: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    content = {key: value for key, value in json.loads(file.read_text()).items() if key not in values}
    content |= {key: value for key, value in values.items() if value is not None}
    file.write_text(json.dumps(content))
