"""What a profile's data and base are, by names, sizes and configurations; and what stands in for what is missing."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from atelier.data import layout
from atelier.files import FileFault, read_json, reading
from atelier.params import Given, Params
from atelier.preflight import base_folder
from atelier.workspace import Workspace

ARTEMIS = 80_031  # works that the ArtEmis release annotates (Achlioptas et al. 2021)
PART_CONFIGS = {"unet": "unet/config.json", "vae": "vae/config.json", "text": "text_encoder/config.json"}
TOKENIZER = "tokenizer/tokenizer_config.json"
# what stabilityai/stable-diffusion-2-1-base published; the hub's copies have the same configurations
STABLE_DIFFUSION_21: dict[str, dict[str, Any]] = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "sample_size": 768,
        "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
    },
    "text": {
        "vocab_size": 49408,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "max_position_embeddings": 77,
    },
}


class Shapes(NamedTuple):
    """A base's configurations, how many tokens a prompt has, and where that is from."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    tokens: int
    source: str


def shapes(params: Params, workspace: Workspace) -> Shapes:
    """The base's, or Stable Diffusion 2.1's where it is not here. Raises ValueError for a damaged configuration."""
    folder = base_folder(params, workspace) or _fetched(params)
    if folder is not None and all((folder / name).is_file() for name in PART_CONFIGS.values()):
        configs = {part: read_json(folder / name) for part, name in PART_CONFIGS.items()}
        stated = read_json(folder / TOKENIZER).get("model_max_length") if (folder / TOKENIZER).is_file() else None
        longest = int(configs["text"].get("max_position_embeddings", 77))
        tokens = min(stated, longest) if isinstance(stated, int) else longest
        return Shapes(configs["unet"], configs["vae"], configs["text"], tokens, f"the base in {folder}")
    if params.base.source == "train" and not params.base.location:
        return _preset(params)
    known = STABLE_DIFFUSION_21
    lacking = "not fetched yet" if params.base.source == "hub" else "not here"
    source = f"Stable Diffusion 2.1-base, as it was published; {params.base.location or 'the base'} is {lacking}"
    return Shapes(known["unet"], known["vae"], known["text"], 77, source)


def _fetched(params: Params) -> Path | None:
    """The folder of a hub's base that an earlier run has fetched."""
    if params.base.source != "hub":
        return None
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(params.base.location or "", PART_CONFIGS["unet"], revision=params.base.revision)
    return Path(file).parent.parent if isinstance(file, str) else None


def _preset(params: Params) -> Shapes:
    """A base that the pipeline trains from nothing; its vocabulary depends on texts, its costs hardly do."""
    from atelier.models import base

    preset = params.base.train.preset
    made = base.build(preset, params.data.size, ["a picture"], seed=0)
    parts = (dict(made.unet.config), dict(made.vae.config), made.text_encoder.config.to_dict())
    return Shapes(*parts, made.tokenizer.model_max_length, f"the preset '{preset}', which the pipeline trains")


def given(params: Params, workspace: Workspace, channels: int) -> tuple[Given, str]:
    """How many pictures the data has, and where that is from."""
    folder = workspace.named(params.data.folder)
    try:
        source, works = layout.works(folder)
        said = f"{sum(works.values()):,} works in {source}"
    except ValueError:  # said among what is missing
        works = {"": ARTEMIS}
        said = f"ArtEmis' {ARTEMIS:,} works, for none are here"
        for section in params.sections():  # a style that a study names has a share of them, as WikiArt's 27 have
            works |= dict.fromkeys(section.named_styles().values(), ARTEMIS // 27)
        works[""] = ARTEMIS - sum(n for style, n in works.items() if style)
    return Given(works, _photographs(folder), params.data.split, channels), said


def _photographs(folder: Path) -> int:
    """Photographs of a data folder, by names."""
    try:
        if (inside := folder / layout.PHOTOGRAPHS).is_dir():
            return sum(path.suffix.lower() in layout.SUFFIXES for path in inside.rglob("*"))
        archive = folder / f"{layout.PHOTOGRAPHS}.zip"
        with reading(archive, "not a readable ZIP archive"), zipfile.ZipFile(archive) as packed:
            return sum(Path(name).suffix.lower() in layout.SUFFIXES for name in packed.namelist())
    except (OSError, FileFault):
        return 0
