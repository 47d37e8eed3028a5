"""What a stage takes of memory at most, on worlds of as many pictures as asked for; a test and a benchmark share it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from conftest import TINY, python
from linked import linked

SIZE = 64
STYLES = ("Mosaic", "Expressionism")
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives back what is freed: a peak is of what lives
MEASURED = """
import resource, sys
from atelier.cli import main
from atelier.data import pictures
pictures.LITTLE = 2**20  # bytes: nothing is kept because it is little
status = main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""
# in an order in which they can run; not "vae_decoder reconstruct", whose wavelet fits of each style in each group grow
# until there are 48 works (64 px) and no further: by 9 % from 75 works to 300
STAGES = (
    "prepare",
    "cache",
    "starts",
    "reference",
    "vae_decoder train mse 0",
    "vae_decoder train mse 1",
    "art_finetuning sample untuned 0",
    "art_finetuning sample untuned 1",
    "art_finetuning measure untuned",
)
PARAMS = {  # one variant; as many generated pictures as there are works in the smaller split
    r"annotations: true": "annotations: false",
    r"source: train\n  location: null": "source: folder\n  location: base",
    r"sampling: \{steps: 2": "sampling: {steps: 1",
    r"variants: \[mse, all\]": "variants: [mse]",
    r"    all: \{scope.*\n": "",
    r"optimisation: \{steps: 24": "optimisation: {steps: 2",
}


def world(folder: Path, tiny_world: Path, pictures: int) -> Path:
    """A folder of works that differ, beside a tiny base and trunk."""
    workspace = linked(folder, tiny_world, ["data/trunk", "data/defects"])
    shutil.copytree(tiny_world / "build" / "base", folder / "base")
    (folder / "base" / "SHA256SUMS").unlink()
    random = np.random.default_rng(0)
    for number in range(pictures):
        path = folder / "data" / "wikiart" / STYLES[number % 2] / f"some-one_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (SIZE // 8, SIZE // 8, 3), np.uint8)
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(path)
    text = TINY
    for old, new in {**PARAMS, r"pictures: 3\n  guidance": f"pictures: {pictures // 8}\n  guidance"}.items():
        text, count = re.subn(old, new, text)
        assert count, old
    (folder / "params.yaml").write_text(text)
    return workspace.root


def peaks(root: Path, timeout: float | None = 300) -> Iterator[tuple[str, float]]:
    """Each stage, and the MiB that it takes at most, as it ends; no stage may take longer than ``timeout`` seconds."""
    for stage in ("prepare", "judges", "base", *(stage for stage in STAGES if stage != "prepare")):
        done = python("-c", MEASURED, *stage.split(), cwd=root, timeout=timeout, **ENVIRONMENT)
        if done.returncode:
            raise RuntimeError(f"{stage}: {done.stderr[-2000:]}")
        yield stage, int(re.findall(r"peak (\d+)", done.stdout)[-1]) / 1024
