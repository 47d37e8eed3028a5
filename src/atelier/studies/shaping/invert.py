"""Stage ``invert``: the noise that the flow base's Euler sampler makes training works of.

Training works alone are inverted. Beside their noise it says how well each step was solved, how far round trips from
data to noise and back, and from white noise to data and back, come from where they began, and how fast steps converge.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import machine, scratch
from atelier.files import check_seal, read_table, reading, write_table, writing
from atelier.methods.inverse_noise import Velocity, inverted, sampled
from atelier.params import Params
from atelier.sampling.sampler import settled
from atelier.seeds import evenly, torch_generator
from atelier.studies.shaping import convergence, flow_base
from atelier.studies.shaping.flow_base import BASE, INVERTED, Euler, exact, folder
from atelier.studies.shaping.params import Config
from atelier.training.caches import WORKS, Cache, read_cache, training_works
from atelier.workspace import Workspace, replacing

RELAXATION = 0.7  # of the fixed point: converges also at states at which eta v stretches by more than 1
TOLERANCE = 1e-6  # root mean square of a step's equation, at which a sample is taken as solved
FOLLOWED = 20  # iterations of them, at most
TABLE, CONVERGENCE = "works.csv", "convergence.csv"
COLUMNS = ("k", "step", "picture", "eta_l", "rate")


class Works(NamedTuple):
    """The training works that are inverted: names, latents, and every prompt's embeddings."""

    names: list[str]
    cache: Cache

    @property
    def words(self) -> Tensor:
        """Embeddings (n, tokens, width) of the prompt that a work is inverted with, its first."""
        return self.cache.condition(range(len(self.names)), [0] * len(self.names), [False] * len(self.names))

    def data(self, seed: int) -> Tensor:
        """A latent of each work (n, c, h, w), drawn from its posterior as in training."""
        noise = white(self.cache.latents.mean.shape[1:], seed, "posterior", self.names)
        return self.cache.latents.drawn(list(range(len(self.names))), noise)


def white(shape: torch.Size, seed: int, what: str, names: list[str]) -> Tensor:
    """White noise (n, *shape), each a function of the seed, what it is for and a name."""
    generators = [torch_generator(seed, Config.STUDY, what, name) for name in names]
    return torch.stack([torch.randn(shape, generator=each) for each in generators])


def works_of(params: Params, workspace: Workspace) -> Works:
    """Works of the training split, evenly over styles. Raises ValueError for a stale or damaged cache."""
    listed = training_works(params, workspace)
    cache = read_cache(workspace.cache / WORKS, listed.key)
    chosen = evenly(len(listed.names), Config.of(params).flow.inverted)
    return Works([listed.names[number] for number in chosen], cache.of(chosen))


# ------------------------------------------------------------------------------------------------ the stage


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/shaping/flow/inverted``."""
    config, works = Config.of(params).flow, works_of(params, workspace)
    out = folder(workspace) / INVERTED
    key = config.model_dump(mode="json", include={"steps", "inverted", "iterations", "shift", "watched"})
    run = scratch.of_stage(params, workspace, __name__, out, [workspace.cache, folder(workspace) / BASE], **key)
    pipeline = settled(flow_base.load(params, workspace), machine.accelerator(exact(params).machine).device)
    inversions = {k: noise_of(params, pipeline, works, k, run) for k in config.steps}
    watched = [
        scratch.table(run, f"{k} convergence", partial(_watched, pipeline, works, inversions[k], k, config.watched))
        for k in config.steps
    ]
    with replacing(out) as part:
        for k, tensors in inversions.items():
            with writing(part / f"{k}.safetensors") as file:
                save_file(tensors, file)
        write_table(part / TABLE, pd.DataFrame({"path": works.names}))
        write_table(part / CONVERGENCE, pd.concat(watched, ignore_index=True)[list(COLUMNS)])
    scratch.discard(run)
    print(f"{len(works.names)} training works inverted, in {', '.join(map(str, config.steps))} steps")


def noise_of(params: Params, pipeline: StableDiffusionPipeline, works: Works, k: int, run: Path) -> dict[str, Tensor]:
    """The works' noise for ``k`` steps and what is said of it, (n, ...) each; batches that are done are kept."""
    config, euler = Config.of(params).flow, Euler.of(pipeline, k)
    x, batch = works.data(params.seed), params.sampling.batch
    z, words = white(x.shape[1:], params.seed, "round trip", works.names), works.words

    def write(rows: slice, path: Path) -> None:
        data, noise, shown = (each[rows].to(pipeline.device) for each in (x, z, words))
        save_file(both_ways(euler.velocity(pipeline, shown), euler.times, data, noise, config.iterations), path)

    files = [
        scratch.part(run, f"{k}-{first}", ".safetensors", partial(write, slice(first, first + batch)))
        for first in range(0, len(x), batch)
    ]
    tensors = [_tensors(file) for file in files]
    return {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, "not readable as noise"):
        return load_file(path)


def both_ways(velocity: Velocity, times: Sequence[float], x: Tensor, z: Tensor, iterations: int) -> dict[str, Tensor]:
    """Data ``x`` to noise and back, and white noise ``z`` to data and back, (n, c, h, w) float32 each.

    ``round_trip_``: the relative error at the end, (n,); ``residual`` and ``bound``: (n, steps).
    """
    there = inverted(velocity, x, times, iterations, TOLERANCE, RELAXATION)
    again = inverted(velocity, sampled(velocity, z, times).contiguous(), times, iterations, TOLERANCE, RELAXATION)
    tensors = {
        "noise": there.z,
        "data": x,
        "residual": there.residual,
        "bound": there.bound,
        "round_trip_data": relative(sampled(velocity, there.z, times), x),
        "round_trip_noise": relative(again.z, z),
    }
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def relative(got: Tensor, expected: Tensor) -> Tensor:
    """``|got - expected| / |expected|`` of each sample, (n,)."""
    return (got - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)


def _watched(
    pipeline: StableDiffusionPipeline, works: Works, inversion: dict[str, Tensor], k: int, most: int
) -> pd.DataFrame:
    """How fast the iterations of a few works converge, step by step."""
    chosen, euler = evenly(len(works.names), most), Euler.of(pipeline, k)
    velocity = euler.velocity(pipeline, works.words[chosen].to(pipeline.device))
    noise = inversion["noise"][chosen].to(pipeline.device)
    return convergence.rates(velocity, noise, euler.times, FOLLOWED).assign(k=k)


# ------------------------------------------------------------------------------------------------ what is read


def load(workspace: Workspace, k: int) -> dict[str, Tensor]:
    """What ``noise_of`` gave for ``k`` steps. Raises ValueError for a damaged folder."""
    return _tensors(check_seal(folder(workspace) / INVERTED) / f"{k}.safetensors")


def load_convergence(workspace: Workspace) -> pd.DataFrame:
    """How fast steps converge: k, step, picture, eta_l, rate."""
    return read_table(check_seal(folder(workspace) / INVERTED) / CONVERGENCE, COLUMNS)
