"""Retuning a decoder on whole pictures and on crops: speed, memory, and what comes of as many pictures seen.

``python benchmarks/decoder.py [--pictures 4800]`` where the pipeline has run (build/base and manifests). Each
row is a process of its own: pictures a second (whole or cut, as they come), the most memory beyond what was held before
the first step, then PSNR and perceptual distance (through the embedded trunk) of held-out works.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from atelier import machine

machine.settle(2)

import torch  # noqa: E402

from atelier import params  # noqa: E402
from atelier.data import prepare  # noqa: E402
from atelier.data.images import to_model_range, to_pixels  # noqa: E402
from atelier.methods.perceptual import LPIPS  # noqa: E402
from atelier.metrics.reconstruction import psnr  # noqa: E402
from atelier.models import base  # noqa: E402
from atelier.models.autoencoders import decoder_parameters  # noqa: E402
from atelier.models.latents import Latents, encode_pictures  # noqa: E402
from atelier.sampling.sampler import decoded  # noqa: E402
from atelier.studies.vae_decoder import train as vae_decoder  # noqa: E402
from atelier.studies.vae_decoder.params import Config, LossWeights  # noqa: E402
from atelier.training.loop import fit  # noqa: E402
from atelier.workspace import Workspace  # noqa: E402

ROWS = {  # name: crop in pixels, checkpointing, batch
    "whole": (0, False, 16),
    "whole, checkpointing": (0, True, 16),
    "crops of 32 px": (32, False, 16),
    "crops of 32 px, larger batch": (32, False, 64),
    "crops of 32 px, checkpointing, larger batch": (32, True, 64),
}


def held() -> float:
    """The most memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def now() -> float:
    """What this process holds, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def one(crop: int, checkpointing: bool, batch: int, pictures: int) -> dict[str, float]:
    workspace = Workspace()
    config, works = params.load(workspace.params_file), prepare.works(workspace.manifests).table
    known = prepare.pictures(works[works["split"] == "train"], config.data, workspace)
    held_out = prepare.pictures(works[works["split"] == "test"], config.data, workspace).load()
    vae = base.load(workspace.base).vae
    latents, tested = Latents(*encode_pictures(vae, known)), encode_pictures(vae, held_out).mean
    lpips = LPIPS.from_folder(Path("data/trunk"))
    if checkpointing:
        vae.enable_gradient_checkpointing()
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.1, ffl=1.0)
    names = list(works.loc[works["split"] == "train", "path"])
    trainable = decoder_parameters(vae, weights.scope)
    task = vae_decoder.task(
        vae,
        trainable,
        weights,
        lpips,
        vae_decoder.Pairs(latents, known, names),
        crop=crop,
        seed=1,
        device=torch.device("cpu"),
    )
    steps = pictures // batch
    settings = Config.of(config).optimisation.model_copy(
        update={"steps": steps, "batch": batch, "warmup": steps // 10, "checkpoint_every": steps, "ema": 0.0}
    )
    before, start = now(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fit(task, settings, seed=1, scratch=Path(folder), accelerator=machine.accelerator(config.machine))
    seconds = time.perf_counter() - start
    memory = held() - before
    vae.eval()
    made = to_pixels(decoded(vae, tested, 32))
    with torch.no_grad():
        distance = torch.cat([lpips(to_model_range(a), to_model_range(b)) for a, b in
                              zip(made.split(32), held_out.split(32), strict=True)])  # fmt: skip
    return {
        "pictures a second": steps * batch / seconds,
        "MiB": memory,
        "PSNR": psnr(held_out / 255, made / 255),
        "LPIPS": float(distance.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=4800)
    parser.add_argument("--row", nargs=3, type=int, help="crop, checkpointing, batch: this row alone, as JSON")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(one(options.row[0], bool(options.row[1]), options.row[2], options.pictures)))
        return
    for name, (crop, checkpointing, batch) in ROWS.items():
        command = [sys.executable, __file__, "--pictures", str(options.pictures), "--row", str(crop)]
        done = subprocess.run(
            [*command, str(int(checkpointing)), str(batch)], check=True, stdout=subprocess.PIPE, text=True
        )
        values = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{name:44} batch {batch:3}  " + "  ".join(f"{key} {value:.4g}" for key, value in values.items()),
            flush=True,
        )


if __name__ == "__main__":
    main()
