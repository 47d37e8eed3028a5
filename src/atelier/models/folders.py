"""A model's folder by its names, without torch: its files of weights, and what to do with what is no such folder.

Weights of a part are one file or shards with an index; folders may hold them in several variants, of which one is read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atelier.files import printable, read_json, shown

INDEX = "model_index.json"  # the file that makes a folder a diffusers pipeline
PIPELINE = "StableDiffusionPipeline"
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
PARTS = (*STEMS, "tokenizer", "scheduler")  # folders that a pipeline is loaded from
VARIANTS = (None, "fp16", "bf16")  # in the order in which they are preferred
SINGLE = (".safetensors", ".ckpt", ".pt", ".pth")  # of checkpoints in one file
CONVERT = f"diffusers.{PIPELINE}.from_single_file(FILE).save_pretrained(FOLDER)"
ELSEWHERE = "functions of tensors and of any pipeline take it: docs/models.md"
# why studies cannot have a pipeline of another class
REFUSED = {
    "StableDiffusionXLPipeline": f"studies tell a denoiser one text encoder's words, and this one has two; {ELSEWHERE}",
    "StableDiffusion3Pipeline": "its denoiser is no U-Net",
    "FluxPipeline": "its denoiser is no U-Net",
    "StableDiffusionInpaintPipeline": "its denoiser is given a mask, too; take the model that it was made from",
}


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The files of a part's weights that are read: one, or an index and its shards; ValueError where there are none."""
    for variant in VARIANTS:
        single, index = folder / _named(stem, variant), folder / _index_named(stem, variant)
        if index.is_file() and single.is_file():
            raise ValueError(f"{single}: {index.name} lists other files of the same weights; remove one of them")
        if single.is_file():
            return [single]
        if index.is_file():
            return [index, *(folder / name for name in sorted(set(weight_map(index).values())))]
    expected, held = folder / _named(stem, None), _held(folder)
    raise ValueError(f"{expected}: no such file; weights are read from safetensors only{held}")


def has_weights(folder: Path) -> bool:
    """Whether all parts of a pipeline's folder have weights, of any variant."""
    try:
        return all(path.is_file() for part, stem in STEMS.items() for path in weight_files(folder / part, stem))
    except ValueError:
        return False


def variant_of(folder: Path, stem: str) -> str | None:
    """The variant of the weights that are read, as libraries call it; ValueError as ``weight_files``."""
    first = weight_files(folder, stem)[0].name
    return next(variant for variant in VARIANTS if first in (_named(stem, variant), _index_named(stem, variant)))


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> its file in the index's folder. ValueError for anything else."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{index}: weight_map: expected the file of each tensor")
    for name in sorted(set(map(str, listed.values()))):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index}: weight_map: {shown(name)} is no safetensors file of this folder")
    return {str(tensor): str(name) for tensor, name in listed.items()}


def model_files(folder: Path) -> list[Path]:
    """What determines a model: weights and configurations, of a pipeline only those that are read, sorted."""
    files = (path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".txt"))
    kept = (path for path in files if path.name != "card.json")
    return sorted(_of_pipeline(folder, kept) if (folder / INDEX).is_file() else kept)


def _of_pipeline(folder: Path, files: Iterator[Path]) -> Iterator[Path]:
    """Without single-file checkpoints, parts that are not loaded, and other variants of weights."""
    read = {path for part, stem in STEMS.items() if (folder / part).is_dir()
            for path in weight_files(folder / part, stem)}  # fmt: skip
    for path in files:
        part = path.relative_to(folder).parts[0]
        of_weights = path.suffix == ".safetensors" or ".safetensors.index." in path.name
        if path == folder / INDEX or path in read or (part in PARTS and path.parent != folder and not of_weights):
            yield path


def single_file(path: Path) -> str | None:
    """What to do with a checkpoint that is one file, or lies in a folder that holds nothing else; None: it is none."""
    files = [path] if path.is_file() else sorted(each for each in path.glob("*") if each.is_file())
    found = next((each for each in files if each.suffix in SINGLE), None)
    if found is None or (path / INDEX).is_file():
        return None
    pickled = "" if found.suffix == ".safetensors" else ", and a pickle, which is never read here"
    return f"{found}: a checkpoint in one file{pickled}; once say {CONVERT}, then name that folder"


def wrong_class(index: Path, content: dict[str, Any]) -> str | None:
    """Why a pipeline of this index is refused; None: it is of the class that studies are for."""
    named = content.get("_class_name")
    if named == PIPELINE:
        return None
    why = REFUSED.get(named) if isinstance(named, str) else None
    return f"{index}: _class_name: expected {PIPELINE}, got {shown(named)}{f': {why}' if why else ''}"


def _named(stem: str, variant: str | None) -> str:
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def _index_named(stem: str, variant: str | None) -> str:
    return f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"


def _held(folder: Path) -> str:
    """What a folder has instead of weights that are read."""
    suffixes = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".msgpack", ".h5")
    others = sorted(path.name for path in folder.glob("*") if path.suffix in suffixes)
    return f"; it holds {', '.join(map(printable, others[:3]))}" if others else ""
