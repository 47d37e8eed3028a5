"""Flipped bytes, cuts and exchanged files in every kind of output, read again by what reads it in the pipeline."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from tests.harness.attacks import Attack, stage, stage_refused

from conftest import STAGES, TINY

GROUP = "damage"
FURTHER = """
from atelier.cli import main
for stage in (["train", "mixed", "0"], ["train", "mixed", "1"], ["sample", "mixed", "0"], ["sample", "mixed", "1"],
              ["sample", "untuned", "0"], ["sample", "untuned", "1"],
              ["measure", "mixed"], ["measure", "untuned"]):
    assert main(["art_finetuning", *stage]) == 0
assert main(["signal_leak", "fit"]) == 0
for training in (["vae_decoder", "train", "mse"], ["vae_decoder", "train", "all"],
                 ["signal_leak", "train", "mosaic"], ["signal_leak", "train", "sd-betas"]):
    assert all(main([*training, seed]) == 0 for seed in ("0", "1"))
for stage in (["rewards"], ["convert"], ["untuned", "0"]):
    assert main(["shaping", *stage]) == 0
"""
EACH = 5  # flips of every kind of output


class Output(NamedTuple):
    """Files that a stage wrote, and the arguments of one that reads them."""

    files: str  # a pattern below build/
    reader: tuple[str, ...]


OUTPUTS = {
    "manifests": Output("manifests/*.parquet", ("cache",)),
    "a base's weights": Output("base/*/*.safetensors", ("cache",)),
    "a base's configurations": Output("base/*/*.json", ("cache",)),
    "a cache": Output("cache/*.safetensors", ("art_finetuning", "train", "mixed", "0")),
    "a reference": Output("reference/*", ("art_finetuning", "measure", "mixed")),
    "an adapter": Output("adapters/art_finetuning/mixed/0/*", ("art_finetuning", "sample", "mixed", "0")),
    "samples": Output("samples/art_finetuning/mixed/0/guidance-4/*.png", ("art_finetuning", "measure", "mixed")),
    "latents of samples": Output(
        "samples/art_finetuning/mixed/0/guidance-4/*.safetensors", ("vae_decoder", "measure", "mixed")
    ),
    "lists of samples": Output("samples/art_finetuning/mixed/0/*/*.csv", ("art_finetuning", "measure", "mixed")),
    "leaks": Output("leaks/*.safetensors", ("signal_leak", "sample", "untuned", "0")),
    "curated works": Output("corpus/pixel_space/*", ("pixel_space", "train", "latent", "0")),
    "probes": Output("shaping/rewards/probes/*", ("shaping", "untuned", "0")),
    "a flow": Output("shaping/flow/base/*.safetensors", ("shaping", "untuned", "0")),
    "candidates": Output("shaping/candidates/0/ode/*", ("shaping", "variant", "graft", "0")),
}


def attacks(seed: int) -> Iterator[Attack]:
    """All attacks on outputs."""
    chance = random.Random(seed)
    yield Attack(GROUP, "nothing is damaged", undamaged)
    for kind, output in OUTPUTS.items():
        for number in range(EACH):
            yield Attack(GROUP, f"{kind}: flipped byte {number}", partial(_damaged, output, _flip, chance.random()))
        yield Attack(GROUP, f"{kind}: cut", partial(_damaged, output, _cut, chance.random()))
        yield Attack(GROUP, f"{kind}: emptied", partial(_damaged, output, _empty, chance.random()))
        yield Attack(GROUP, f"{kind}: removed", partial(_damaged, output, _remove, chance.random()))
        yield Attack(GROUP, f"{kind}: two exchanged", partial(_damaged, output, _exchange, chance.random()))


@cache
def world() -> Path:
    """A folder in which the stages of the tiny world have run."""
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-world-"))
    (folder / "params.yaml").write_text(TINY)
    for code in (STAGES, FURTHER):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
    return folder


Change = Callable[[Path, list[Path], float], None]


def _flip(path: Path, others: list[Path], at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << int(at * 1000) % 8
    path.write_bytes(data)


def _cut(path: Path, others: list[Path], at: float) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def _empty(path: Path, others: list[Path], at: float) -> None:
    path.write_bytes(b"")


def _remove(path: Path, others: list[Path], at: float) -> None:
    path.unlink()


def _exchange(path: Path, others: list[Path], at: float) -> None:
    other = next((each for each in others if each.read_bytes() != path.read_bytes()), None)
    if other is None:  # there is one file of the kind: its content gives way to a seal's
        path.write_bytes(b"0" * 64 + b"  x\n")
        return
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def _damaged(output: Output, change: Change, at: float, folder: Path) -> str:
    copy = Path(shutil.copytree(world(), folder / "world", symlinks=True))
    files = sorted((copy / "build").glob(output.files))
    if not files:
        return f"no file matches {output.files}"
    path = files[int(at * len(files))]
    change(path, files, at)
    return stage_refused(copy, output.reader, path.name, output.files.split("/")[0])


def undamaged(folder: Path) -> str:
    """Every reader works where nothing is damaged, so that refusals mean something."""
    copy = Path(shutil.copytree(world(), folder / "world", symlinks=True))
    for output in OUTPUTS.values():
        code, said = stage(copy, output.reader)
        if code:
            return f"{' '.join(output.reader)}: {said[:200]}"
    return ""
