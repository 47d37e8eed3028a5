"""The base model: any Stable Diffusion pipeline folder or id, and presets for the embedded one.

All code treats the two alike. Only safetensors are read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import logging as diffusers_logging
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from atelier.diffusion import resolution_matched_betas
from atelier.files import check_output, filling, read_json, reading, write_json
from atelier.models.checked import read_part
from atelier.models.checked_pipeline import check_pipeline, check_scheduler
from atelier.models.folders import INDEX, model_files
from atelier.seeds import seed_of

for library in (diffusers_logging, transformers_logging):
    library.disable_progress_bar()  # of loading, which takes a moment

DOWNSAMPLING = 8  # pixels per latent element; four autoencoder blocks
MAX_TOKENS = 56
# Standard deviation of the denoiser's latents. Their channels are principal components, one of which holds most of the
# brightness; with 1, its mean is larger than the first noise of an 8x8 latent, and all samples come out grey.
LATENT_STD = 0.5
WHEREABOUTS = ("_name_or_path", "is_local", "local_files_only")  # of where a model was loaded from
# of what wrote a configuration, and from where; numbers' type is in the weights themselves
WRITERS = (*WHEREABOUTS, "_commit_hash", "_diffusers_version", "backend", "dtype", "name_or_path",
           "special_tokens_map_file", "tokenizer_file", "torch_dtype", "transformers_version")  # fmt: skip

# What differs between presets; the rest is in the functions below.
PRESETS: dict[str, dict[str, Any]] = {
    # 1 MB, for tests: all parts, minimal sizes
    "tiny": {
        "autoencoder": {"channels": (16, 16, 16, 16), "groups": 4, "latent": 4},
        "unet": {"channels": (16, 32), "heads": 4, "groups": 8},
        "text": {"width": 32, "layers": 1, "heads": 2, "vocabulary": 700},
    },
    # 10 million parameters, for two CPU cores; eight latent channels because four lose a style's texture
    "embedded": {
        "autoencoder": {"channels": (32, 32, 64, 128), "groups": 8, "latent": 8},
        "unet": {"channels": (96, 160), "heads": 4, "groups": 16},
        "text": {"width": 128, "layers": 2, "heads": 4, "vocabulary": 2000},
    },
    # sixteen latent channels, because real paintings have more detail than the painter's
    "paintings": {
        "autoencoder": {"channels": (32, 32, 64, 128), "groups": 8, "latent": 16},
        "unet": {"channels": (96, 160), "heads": 4, "groups": 16},
        "text": {"width": 128, "layers": 2, "heads": 4, "vocabulary": 2000},
    },
}

Changes = Mapping[str, Mapping[str, Any]]
NOTHING_ELSE: Changes = {}


def build(
    preset: str,
    size: int,
    texts: Sequence[str],
    seed: int,
    vae: AutoencoderKL | None = None,
    changes: Changes = NOTHING_ELSE,
) -> StableDiffusionPipeline:
    """A pipeline with random weights for pictures of ``size`` px; its tokenizer is trained on ``texts``.

    ``vae``: a trained autoencoder of this preset; ``changes`` to the preset, by part.
    """
    recipe = recipe_of(preset, changes)
    vae = vae or build_autoencoder(preset, size, seed, changes)
    vae.register_to_config(scaling_factor=LATENT_STD)
    torch.manual_seed(seed_of(seed, "base", preset))
    tokenizer = train_tokenizer(texts, recipe["text"]["vocabulary"])
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=_text_encoder(tokenizer, **recipe["text"]),
        tokenizer=tokenizer,
        unet=_unet(size // DOWNSAMPLING, recipe["autoencoder"]["latent"], recipe["text"]["width"], **recipe["unet"]),
        scheduler=_scheduler(size // DOWNSAMPLING),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def recipe_of(preset: str, changes: Changes) -> dict[str, dict[str, Any]]:
    """A preset's sizes, with changes."""
    return {part: {**sizes, **changes.get(part, {})} for part, sizes in PRESETS[preset].items()}


def build_autoencoder(preset: str, size: int, seed: int, changes: Changes = NOTHING_ELSE) -> AutoencoderKL:
    """The autoencoder of a preset, with random weights."""
    torch.manual_seed(seed_of(seed, "autoencoder", preset))
    return _autoencoder(size, **recipe_of(preset, changes)["autoencoder"])


def _autoencoder(size: int, channels: tuple[int, ...], groups: int, latent: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        latent_channels=latent,
        norm_num_groups=groups,
        mid_block_add_attention=False,
        sample_size=size,
        # one factor for all channels, set in ``build``; per-channel statistics are folded into the 1x1 convolutions
        scaling_factor=1.0,
    )


def _unet(
    side: int, latent: int, width: int, channels: tuple[int, ...], heads: int, groups: int, layers: int = 1
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=latent,
        out_channels=latent,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        cross_attention_dim=width,
        attention_head_dim=heads,  # in spite of its name, diffusers takes it as the number of heads
        norm_num_groups=groups,
    )


def _text_encoder(tokenizer: CLIPTokenizer, width: int, layers: int, heads: int, vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> CLIPTokenizer:
    """CLIP's byte-pair encoding trained on ``texts``; unknown words are split into bytes, as in CLIP."""
    if not texts:
        raise ValueError("a tokenizer needs at least one text to learn from")
    backend = CLIPTokenizer().backend_tokenizer
    letters = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        # listed explicitly, or their ids and the order of merges would depend on a hash map's order
        special_tokens=["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(sorted(texts), trainer)
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=MAX_TOKENS)  # type: ignore[arg-type]


def _scheduler(side: int) -> DDIMScheduler:
    start, end = resolution_matched_betas(side)
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=start,
        beta_end=end,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def fold_latent_statistics(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Normalise latent channels inside ``vae``: (z - mean) / std in the encoder, the inverse in the decoder.

    ``mean``, ``std`` (c,): of the posterior means over the training pictures, before folding.
    """
    c = len(mean)
    before, after = vae.quant_conv, vae.post_quant_conv
    with torch.no_grad():
        # the log variance changes by the square of the scale
        before.bias[c:] -= 2 * std.log()
        before.weight[:c] /= std[:, None, None, None]
        before.bias[:c] = (before.bias[:c] - mean) / std
        after.bias += after.weight[:, :, 0, 0] @ mean
        after.weight *= std[None, :, None, None]


def load(folder: Path) -> StableDiffusionPipeline:
    """Load a pipeline from a folder in the diffusers format, in float32; pickled weights are never read.

    Raises ValueError, one line that names the file, for a folder that ``checked_pipeline`` refuses, for values that are
    not finite, and for a folder of the pipeline's outputs that is damaged.
    """
    check_output(folder)
    parts: dict[str, Any] = {name: read_part(folder / name, kind) for name, kind in check_pipeline(folder).items()}
    with reading(folder, "not a readable pipeline"):  # the tokenizers package, in Rust, raises bare Exception
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            **parts,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,  # the checker's
            image_encoder=None,
            requires_safety_checker=False,
        )
    longest, positions = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if longest > positions or len(pipeline.tokenizer) > pipeline.text_encoder.config.vocab_size:
        words = f"{len(pipeline.tokenizer)} words, {longest} to a prompt"
        raise ValueError(f"{folder / 'tokenizer'}: {words}: more than the text encoder has embeddings for")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler_of(folder: Path) -> SchedulerMixin:
    """Load the scheduler of a pipeline's folder, of the class that its configuration names.

    Raises ValueError for a configuration out of range.
    """
    kind = check_scheduler(folder / "scheduler")
    with reading(folder / "scheduler", f"not a readable {kind.__name__}"):
        return kind.from_pretrained(folder / "scheduler")


def save(pipeline: StableDiffusionPipeline, folder: Path, card: dict[str, Any]) -> None:
    """Write a pipeline in the diffusers format and a card of its provenance; equal weights give equal bytes."""
    with filling(folder):
        pipeline.save_pretrained(folder, safe_serialization=True)
    for path in (folder / "model_index.json", *folder.glob("*/*config.json")):
        forget_whereabouts(path)
    write_json(folder / "card.json", card)


def forget_whereabouts(path: Path) -> None:
    """Remove the keys ``WHEREABOUTS`` from a configuration file, so that equal models have equal files."""
    content = read_json(path)
    if kept := {key: value for key, value in content.items() if key not in WHEREABOUTS}:
        write_json(path, kept)


def fingerprint(folder: Path) -> str:
    """Hash of a model folder's weights and configurations, including their names, without cards and tables.

    Of a pipeline: of the files that are loaded. Keys of configurations that tell what wrote them do not count, so that
    one model has one fingerprint on all machines. Raises ValueError for a folder without weights.
    """
    digest, files = hashlib.sha256(), model_files(folder)
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(f"{folder}: holds no safetensors")
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(_content_digest(path))
    return digest.hexdigest()


def _content_digest(path: Path) -> bytes:
    """SHA-256 of a file, of a configuration without the keys ``WRITERS``."""
    if path.name == INDEX or path.name.endswith("config.json"):
        kept = {key: value for key, value in read_json(path).items() if key not in WRITERS}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def prompt_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token ids (n, length), int64, padded and truncated to the tokenizer's length, as in the pipeline."""
    return tokenizer(
        list(texts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
