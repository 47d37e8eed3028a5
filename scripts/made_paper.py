"""The profile ``paper`` without its models and data: a made folder, and every stage of every study in it, on a CPU.

    python scripts/made_paper.py FOLDER          # make it, run it to the pages, print minutes by study
    python scripts/made_paper.py FOLDER --make   # make it alone

What is made has the structure of Stable Diffusion 2.1-base and of ArtEmis, and random weights: what it paints is noise,
and its pages say nothing of art. They say that the profile runs to its end, and on what files. Pictures are 200 of the
folder ``paintings`` in ``ATELIER_REAL_INPUTS``, or painted where that is not set. Parameters are those of
``profiles/paper.yaml`` with other files (``WHERE``) and numbers (``SHRUNK``).
"""

import argparse
import copy
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, Dinov2Config, Dinov2Model

from atelier.cli import TIMINGS, exit_code
from atelier.data.annotations import COLUMNS, EMOTIONS
from atelier.data.layout import ANNOTATIONS
from atelier.data.painter import paint_corpus
from atelier.lifetime import end_with_parent
from atelier.models import imagenet, inception
from atelier.models.base import train_tokenizer
from atelier.seeds import evenly

ROOT = Path(__file__).parent.parent
INPUTS = "ATELIER_REAL_INPUTS"  # names a folder that has ``paintings``, in WikiArt's layout
# the styles that ``paper`` names, and those of the paintings at hand whose works stand in for them
STYLES = {
    "Ukiyo_e": "Ukiyo_e",
    "Minimalism": "Cubism",
    "Expressionism": "Impressionism",
    "Pointillism": "Pointillism",
}
EACH, SAID = 50, 3  # works of a style; annotations of a work
SIZE = 256  # px
TOKENS = 77  # of a prompt, as CLIP has it
LPIPS: imagenet.Name = "squeeze"  # the smallest of the three; VGG takes forty times as long

OTHERS = (  # below ``data``
    *("base/model_index.json", "trunk/config.json", "trunk/trunk.safetensors", "trunk/heads.safetensors"),
    *("evaluator/config.json", "evaluator/evaluator.safetensors", "report/bars.json"),
    *(f"defects/{role}/{name}" for role in ("choosing", "measuring") for name in ("config.json", "judge.safetensors")),
    *(f"conversions/{kind}/pytorch_lora_weights.safetensors" for kind in ("flow_prediction", "v_prediction")),
)

# ------------------------------------------------------------------------------------------------ the base

UNET: dict[str, Any] = {  # Stable Diffusion 2.1's structure, with a tenth of its channels
    "sample_size": SIZE // 8,
    "block_out_channels": [32, 64, 128, 128],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "attention_head_dim": [1, 2, 4, 4],
    "cross_attention_dim": 48,
    "layers_per_block": 2,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "sample_size": SIZE,
    "block_out_channels": [8, 16, 16, 16],
    "norm_num_groups": 8,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,  # two in the real one
    "latent_channels": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "max_position_embeddings": TOKENS,
}
SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.8.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def base(folder: Path) -> CLIPTokenizer:
    """A narrow base with random weights, file by file as Stable Diffusion 2.1-base has them; returns its tokenizer."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([sentence(random.Random(number)) for number in range(200)], vocabulary=700)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = CLIPTextConfig(**TEXT, vocab_size=len(tokenizer), **{f"{name}_token_id": n for name, n in words.items()})
    UNet2DConditionModel(**UNET).save_pretrained(folder / "unet")
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    PNDMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
    for part in ("tokenizer", "feature_extractor"):
        (folder / part).mkdir()
    written(folder / "tokenizer/vocab.json", model["vocab"])
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "tokenizer/merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    special = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "unk", "pad")}
    written(folder / "tokenizer/special_tokens_map.json", special)
    named = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, **special}
    written(folder / "tokenizer/tokenizer_config.json", named)
    written(folder / "feature_extractor/preprocessor_config.json", {"crop_size": 224, "size": 224, "do_resize": True})
    written(folder / "model_index.json", INDEX)
    return tokenizer


def written(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------------ pictures and captions


def pictures(folder: Path) -> None:
    """``EACH`` works of each style in WikiArt's layout, and a table of what is said of them as ArtEmis has it."""
    works = {style: list(_works(folder / "wikiart" / style, *of)) for style, of in _sources()}
    with (folder / ANNOTATIONS).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for style, names in works.items():
            for name in names:
                drawn = random.Random(name)
                said = [(style, name, drawn.choice(EMOTIONS), sentence(drawn), SAID) for _ in range(SAID)]
                table.writerows(said)


def _sources() -> Iterator[tuple[str, tuple[list[Path], int]]]:
    """Each style, with the files of works at hand and a number of its own."""
    inputs = os.environ.get(INPUTS)
    for number, (style, stand_in) in enumerate(STYLES.items()):
        at_hand = sorted((Path(inputs) / "paintings" / "wikiart" / stand_in).iterdir()) if inputs else []
        yield style, (at_hand, number)
    print(
        f"pictures: {EACH} a style, {', '.join(STYLES.values())}" if inputs else f"{INPUTS} is not set: painted works"
    )


def _works(folder: Path, at_hand: list[Path], number: int) -> Iterator[str]:
    """Write works, and yield their names without endings."""
    folder.mkdir(parents=True)
    if at_hand:
        for row in evenly(len(at_hand), EACH):
            shutil.copyfile(at_hand[row], folder / at_hand[row].name)
            yield at_hand[row].stem
        return
    painted, _, _ = paint_corpus(EACH, 0, seed=number, size=64, workers=1)
    for row, picture in enumerate(painted):
        name = f"painter-{row % 7}_work-{row}"
        Image.fromarray(np.ascontiguousarray(picture)).resize((SIZE, SIZE)).save(folder / f"{name}.png")
        yield name


def sentence(drawn: random.Random) -> str:
    """What somebody might have said of a picture."""
    seen = drawn.choice(
        ["the boat", "the woman", "the sea", "the red roof", "the old man", "the empty square", "the bridge"]
    )
    why = drawn.choice(["looks calm", "is far away", "reminds me of home", "seems about to move", "is bright at noon"])
    return f"{seen} {why} and the {drawn.choice(['blue', 'yellow', 'dark', 'pale'])} colours make me think of rain"


# ------------------------------------------------------------------------------------------------ judges


def judges(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """Networks of losses and measures with random weights, in the formats that ``paper`` names."""
    folder.mkdir()
    torch.manual_seed(1)
    save_file(named(imagenet.Trunk(LPIPS)), folder / "lpips.safetensors")
    heads = {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) / c for n, c in enumerate(imagenet.CHANNELS[LPIPS])}
    save_file(heads, folder / "heads.safetensors")
    seen = {name: torch.zeros(shape) for name, shape in inception.CLASSIFIER.items()}
    save_file(named(inception.Inception()) | seen, folder / "inception.safetensors")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**small, **words, "vocab_size": len(tokenizer), "max_position_embeddings": TOKENS}
    clip = CLIPConfig(text_config=text, vision_config={**small, "image_size": 64, "patch_size": 16}, projection_dim=32)
    CLIPModel(clip).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=14)
    ).save_pretrained(folder / "dinov2")


def named(network: nn.Module) -> dict[str, Tensor]:
    """A network's tensors without counters, as published files have them."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def other_world(folder: Path) -> None:
    """Names of the embedded world's networks without their content: a stage that reads one here fails."""
    for name in OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not of this base\n")


# ------------------------------------------------------------------------------------------------ parameters

# what is changed of ``profiles/paper.yaml``, key by key; a key that it does not have is refused
WHERE: dict[str, Any] = {  # where the made folder has what the profile names, and that it is made for a processor
    "profile": "made",  # which its pages say
    "machine.threads": 1,
    "machine.device": "cpu",
    "machine.precision": "fp32",
    "data.size": SIZE,
    "base.source": "folder",
    "base.location": "sd",
    "base.revision": None,
    "perceptual.network": LPIPS,
    "perceptual.weights": "weights/lpips.safetensors",
    "perceptual.heads": "weights/heads.safetensors",
    "field_judges.inception": "weights/inception.safetensors",
    "field_judges.clip": "weights/clip",
    "field_judges.dinov2": "weights/dinov2",
}
SHRUNK: dict[str, Any] = {  # numbers; every training is SHORT
    "sampling.steps": 2,
    "sampling.batch": 4,
    "protocol.training_seeds": [0],
    "protocol.repeats": 2,
    "protocol.pictures": 2,
    "protocol.guidance": [4.0, 16.0],
    "base_model.pictures": 4,
    "vae_decoder.crop": 64,
    "vae_decoder.models": ["untuned", "rank8-mixed"],
    "vae_decoder.guidance": [4.0],
    "signal_leak.pictures": 2,
    "signal_leak.frequencies": [1, 3],
    "signal_leak.targets": [7],
    "signal_leak.values": [-1.0, 1.0],
    "signal_leak.each_value": 1,
    "latent_perceptual.ablation_seeds": [],
    "latent_perceptual.pictures": 2,
    "latent_perceptual.averages": [1, 2],
    "latent_perceptual.steps": [1, 3],
    "latent_perceptual.pictures_in_steps": 2,
    "latent_perceptual.inspected": 2,
    "pixel_space.judge_training.works": 8,
    "pixel_space.judge_training.side": 64,
    "pixel_space.curated.kept": 16,
    "pixel_space.candidates.prompts": 3,
    "pixel_space.candidates.each": 2,
    "pixel_space.pictures": 2,
    "pixel_space.restored": 2,
    "pixel_space.inspected": 2,
    "shaping.steps": 4,
    "shaping.candidates.prompts": 2,
    "shaping.candidates.each": 8,
    "shaping.rules.top-10": {"k": 1, "m": 8},
    "shaping.rules.best-of-16": {"k": 1, "m": 8},
    "shaping.policy.rounds": 2,
    "shaping.pictures": 2,
    "shaping.flow.conversion": 2,
    "shaping.flow.steps": [2],
    "shaping.flow.inverted": 4,
    "shaping.flow.iterations": 3,
    "shaping.flow.watched": 2,
    "shaping.flow.width": 8,
    "shaping.flow.pictures": 2,
    "shaping.inspected.states": 2,
    "shaping.inspected.each": 2,
    "shaping.inspected.pictures": 2,
    "shaping.inspected.times": 2,
}
KEPT = {  # variants, by the table that has them: each kind of loss, of method, of start and of schedule
    "art_finetuning.adapters": ["rank8-unconditional", "rank8-mixed", "full-mixed"],
    "vae_decoder.decoders": ["mse", "all"],
    "signal_leak.models": ["woodcut", "zero-snr", "flow"],
    "latent_perceptual.trainings": ["plain", "lpl", "reweighted"],
    "pixel_space.trainings": ["latent", "both", "dpo-both", "simpo-both"],
    "shaping.trainings": ["graft", "pgraft-50", "graft-sde", "plain", "policy", "graft-2"],
}
LISTS = ("variants", "ablations", "trained", "second", "third")  # that name them
SHORT = {"steps": 2, "batch": 2, "warmup": 1, "checkpoint_every": 2}  # of every optimisation


def shrunk(paper: Mapping[str, Any]) -> dict[str, Any]:
    """The profile's parameters for the made folder: every number small, and few variants."""
    content = changed(shortened(paper), {**WHERE, **SHRUNK})
    for place, names in KEPT.items():
        study, table = place.split(".")
        section = content[study]
        section[table] = {name: section[table][name] for name in names}
        for key in set(LISTS) & set(section):
            section[key] = [name for name in section[key] if name in names]
    return content


def changed(content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other values, by keys like ``data.size``. Raises KeyError for a key that is not there."""
    copied = copy.deepcopy(dict(content))
    for key, value in values.items():
        *sections, last = key.split(".")
        place = reduce(getitem, sections, copied)
        if last not in place:
            raise KeyError(key)
        place[last] = value
    return copied


def shortened(section: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which every optimisation is ``SHORT``."""
    copied = {key: shortened(value) if isinstance(value, Mapping) else value for key, value in section.items()}
    return copied | SHORT if "checkpoint_every" in copied else copied


# ------------------------------------------------------------------------------------------------ the run


def tree(folder: Path) -> None:
    """The working tree as it would be committed, in a repository by itself, without results, locks and data."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        kept = not name.startswith(("results/", "data-store/")) and Path(name).name not in ("dvc.lock", "data.dvc")
        if kept and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def make(folder: Path) -> None:
    """All that ``paper`` names, and its parameters, shrunk. Raises ValueError for a folder that is not empty."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder}: expected a new folder")
    tree(folder)
    tokenizer = base(folder / "sd")
    judges(folder / "weights", tokenizer)
    pictures(folder / "wikiart")
    other_world(folder / "data")
    yaml = YAML()
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(shrunk(YAML(typ="safe").load(ROOT / "profiles/paper.yaml")), file)


def run(folder: Path) -> int:
    """Every stage, as ``make repro`` runs them; then minutes by study. Returns the pipeline's exit code."""
    environment = {**os.environ, "PYTHONPATH": str(folder.absolute() / "src"), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "atelier.warm", "dvc", "repro", "--keep-going"]
    bound = partial(end_with_parent, signal.SIGTERM)  # so that nothing goes on after a kill
    done = subprocess.run(command, cwd=folder, env=environment, preexec_fn=bound)
    seconds: dict[str, float] = {}
    timings = folder / ".scratch" / TIMINGS
    for line in timings.read_text().splitlines() if timings.is_file() else []:
        stage, _, took = line.rpartition(",")
        study = stage.split("/")[1] if stage.startswith("pipelines/") else "all studies"
        seconds[study] = seconds.get(study, 0.0) + float(took)
    print(
        "\n".join(f"{study:20}{took / 60:6.1f} min" for study, took in [*seconds.items(), ("", sum(seconds.values()))])
    )
    if not done.returncode:
        print(f"read {folder / 'build/site/index.html'}")
    return done.returncode


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="the profile paper, made and shrunk, to its pages")
    parser.add_argument("folder", type=Path, help="new; what is in it already is kept and run on")
    parser.add_argument("--make", action="store_true", help="without running it")
    asked = parser.parse_args(arguments)
    if not (asked.folder / "params.yaml").is_file():
        make(asked.folder)
    return 0 if asked.make else run(asked.folder)


if __name__ == "__main__":
    sys.exit(exit_code(main, sys.argv[1:]))
