"""Fine-tune any diffusers text-to-image pipeline towards a reward by accepted samples (Anil et al. 2025).

``graft`` samples candidates, scores them, accepts some, and trains an adapter on what was accepted: at all levels of
noise, or (``level`` below 1) on states of accepted trajectories, down to which alone the adapter then samples
(``two_parts``). Everything is kept in one folder as it is made, candidates as shards of safetensors: killed at any
moment and called again with equal arguments, it goes on where it was.
"""

import inspect
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import scratch
from atelier.data.checks import check_number, check_texts, check_whole, number_row
from atelier.data.images import to_pixels
from atelier.files import read_json, reading, write_json, write_table
from atelier.methods.rejection import Kept
from atelier.models.adapters import WEIGHTS
from atelier.models.stored import tensor_digest
from atelier.params import Optimisation
from atelier.sampling.prompted import Prompted
from atelier.sampling.sampler import decoded
from atelier.sampling.trajectories import (
    Level,
    Solver,
    denoiser_of,
    predicts,
    settled_grid,
    trajectories,
)
from atelier.sampling.trajectories import (
    level as level_of,
)
from atelier.seeds import torch_generator
from atelier.training.accepted import Learnt, accepted_task, empty_prompts
from atelier.training.loop import fit
from atelier.training.lora import CARD, add_adapter, save_adapter

# (pictures (b, 3, h, w) uint8, their prompts) -> a finite number each: a list, array or tensor (b,)
Reward = Callable[[Tensor, Sequence[str]], Any]
PLAN, CANDIDATES, TRAINING, HISTORY = "plan.json", "candidates", "training", "history.csv"
LAST, STATE = "last", "state"
BYTES = 4  # of a stored number


class Cost(NamedTuple):
    """What a run will take, known before it begins."""

    pictures: int  # candidates that are sampled and scored
    calls: int  # of the denoiser, one picture each, for candidates
    samples: int  # that training learns: updates times batch
    disk: int  # bytes of candidates

    def __str__(self) -> str:
        return (
            f"{self.pictures} candidates in {self.calls} calls of the denoiser, a picture each; "
            f"{self.samples} samples in training; {self.disk / 2**20:.1f} MiB on disk"
        )


class Grafted(NamedTuple):
    """What a run leaves: its adapter's folder, the level that it samples down to (None: all steps), and rewards."""

    folder: Path
    level: Level | None
    candidates: int
    accepted: int
    reward: float  # mean of candidates
    accepted_reward: float


class Plan(NamedTuple):
    """All that decides a run's result, beside the pipeline, the reward and the rule."""

    prompts: Sequence[str]
    each: int
    solver: Solver
    share: float  # of the steps that the adapter takes
    size: int
    rank: int
    seed: int
    optimisation: Optimisation

    @property
    def candidate_prompts(self) -> list[str]:
        """The prompt of every candidate."""
        return [text for text in self.prompts for _ in range(self.each)]


def graft(
    pipeline: Any,
    reward: Reward,
    prompts: Sequence[str],
    folder: str | Path,
    *,
    each: int = 16,  # candidates a prompt
    rule: Kept | None = None,  # None: the best tenth of each prompt's
    level: float = 1.0,  # share of the steps, from noise, that the adapter takes; 1: GRAFT
    steps: int = 50,
    guidance: float = 7.5,
    eta: float = 0.0,  # of DDIM: 0 deterministic, 1 DDPM's noise
    batch: int = 8,
    size: int | None = None,  # px; None: the denoiser's size
    rank: int = 16,
    updates: int = 500,
    learning_rate: float = 1e-4,
    checkpoint_every: int = 50,
    seed: int = 0,
    tell: Callable[[str], Any] = print,
) -> Grafted:
    """Train an adapter for ``reward``; the pipeline has it afterwards, and so has ``folder``, in diffusers' format.

    The cost is printed before anything is computed. Of target ``x_I``; with a deterministic sampler its law is GRAFT's,
    with a stochastic one a softer one (``methods.partial``). ValueError for a folder of another run, for a pipeline
    that has an adapter already, and for rewards that are not finite.
    """
    folder, network = Path(folder), denoiser_of(pipeline)
    check_texts(prompts, "prompts")
    size = size or int(network.config.sample_size) * pipeline.vae_scale_factor
    every = min(check_whole(checkpoint_every, "checkpoint_every"), check_whole(updates, "updates"))
    optimisation = Optimisation(
        steps=updates, batch=batch, learning_rate=learning_rate, decay="cosine", warmup=min(20, updates // 10),
        beta2=0.999, weight_decay=0.0, clip=1.0, ema=0.0, checkpoint_every=every,
    )  # fmt: skip
    solver = Solver(check_number(guidance, "guidance", least=0), steps, check_whole(batch, "batch"), eta)
    plan = Plan(list(prompts), check_whole(each, "each", least=2), solver, level, size, rank, seed, optimisation)
    kept = Kept.top_k(max(1, round(each / 10)), each) if rule is None else rule
    if getattr(network, "peft_config", None):
        raise ValueError(f"{type(pipeline).__name__}: the denoiser has an adapter already; merge or remove it")
    if eta and "eta" not in inspect.signature(type(pipeline).__call__).parameters:
        raise ValueError(f"eta: {type(pipeline).__name__} takes none")
    place = None if level == 1.0 else level_of(pipeline.scheduler, steps, level)
    tell(f"graft: {cost(pipeline, plan)}")
    _same_run(folder, network, plan, kept)
    shards = _candidates(pipeline, plan, place, folder)
    rewards = [_rewards(pipeline, reward, plan, number, shard) for number, shard in enumerate(shards)]
    for row in rewards:
        kept = kept.updated(row)
    numbers = kept.accepted().tolist()
    if not numbers:
        raise ValueError(f"rule: none of {kept.seen} candidates is accepted")
    everything = torch.cat([torch.tensor(row) for row in rewards])
    means = float(everything.mean()), float(everything[numbers].mean())
    tell(f"graft: {len(numbers)} of {kept.seen} candidates accepted, mean reward {means[1]:.4g} of {means[0]:.4g}")
    _train(pipeline, plan, place, shards, numbers, folder)
    return Grafted(folder, place, kept.seen, len(numbers), *means)


def cost(pipeline: Any, plan: Plan) -> Cost:
    """What a run takes, from its plan alone."""
    calls = len(settled_grid(pipeline.scheduler, plan.solver.steps).timesteps) * (2 if plan.solver.guidance > 1 else 1)
    pictures, states = len(plan.candidate_prompts), 1 if plan.share == 1.0 else 2
    stored = math.prod(_shape(pipeline, plan)) * states * BYTES + 3 * plan.size**2
    samples = plan.optimisation.steps * plan.optimisation.batch
    return Cost(pictures, pictures * calls, samples, pictures * stored)


def two_parts(pipeline: Any, level: Level | None) -> Callable[..., dict[str, Any]] | None:
    """``callback_on_step_end`` of a grafted pipeline: its adapter takes the steps down to the level, the base the rest.

    The adapter is on again after the last step, so that the next call begins with it. None where it takes all steps.
    """
    if level is None:
        return None
    network, number = denoiser_of(pipeline), level.number
    network.enable_adapters()

    def after(called: Any, step: int, _: Any, given: dict[str, Any]) -> dict[str, Any]:
        if step + 1 == number:
            network.disable_adapters()
        if step + 1 >= called.num_timesteps:
            network.enable_adapters()
        return given

    return after


# ------------------------------------------------------------------------------------------------ a run's parts


def _same_run(folder: Path, network: Any, plan: Plan, kept: Kept) -> None:
    """Write what decides the run, or compare it with what an earlier process has written."""
    wanted = {
        "model": tensor_digest(dict(network.state_dict())),
        "rule": [kept.least if math.isfinite(kept.least) else None, kept.k, kept.m],
        **plan._asdict(),
        "optimisation": plan.optimisation.model_dump(mode="json"),
    }
    wanted = json.loads(json.dumps(wanted))
    if not (folder / PLAN).is_file():
        write_json(folder / PLAN, wanted)
        return
    earlier = read_json(folder / PLAN)
    if odd := sorted(name for name in wanted if earlier.get(name) != wanted[name]):
        raise ValueError(f"{folder}: holds a run with other {', '.join(odd)}; take another folder")


def _shape(pipeline: Any, plan: Plan) -> tuple[int, int, int]:
    side = plan.size // pipeline.vae_scale_factor
    return denoiser_of(pipeline).config.in_channels, side, side


def _noise(pipeline: Any, plan: Plan, rows: range) -> Tensor:
    shape = _shape(pipeline, plan)
    return torch.stack([torch.randn(shape, generator=torch_generator(plan.seed, "graft", row)) for row in rows])


def _candidates(pipeline: Any, plan: Plan, place: Level | None, folder: Path) -> list[Path]:
    """Shards of candidates: last states, states at the level, and pictures."""
    prompts, keep = plan.candidate_prompts, [place.number] if place else []

    def paint(rows: range, path: Path) -> None:
        texts, seeds = [prompts[row] for row in rows], [(plan.seed, "graft", row) for row in rows]
        (trajectory,) = trajectories(pipeline, texts, _noise(pipeline, plan, rows), seeds, plan.solver, keep=keep)
        pictures = to_pixels(decoded(pipeline.vae, trajectory.last, plan.solver.batch))
        tensors = {LAST: trajectory.last.contiguous(), "pictures": pictures.contiguous()}
        if place is not None:
            tensors[STATE] = trajectory.kept[place.number].contiguous()
        save_file(tensors, path)

    batch, out = plan.solver.batch, folder / CANDIDATES
    firsts = range(0, len(prompts), batch)
    return [
        scratch.part(
            out, f"{first:08d}", ".safetensors", partial(paint, range(first, min(first + batch, len(prompts))))
        )
        for first in firsts
    ]


def _rewards(pipeline: Any, reward: Reward, plan: Plan, number: int, shard: Path) -> list[float]:
    """A shard's rewards, which may be dear: they are kept, too."""
    first = number * plan.solver.batch

    def judge(path: Path) -> None:
        pictures = _tensor(shard, "pictures")
        values = reward(pictures, plan.candidate_prompts[first : first + len(pictures)])
        values = values.detach().cpu() if isinstance(values, Tensor) else values
        row = number_row(values, "reward")
        if len(row) != len(pictures) or not all(map(math.isfinite, row)):
            raise ValueError(f"reward: expected {len(pictures)} finite numbers, one a picture, got others")
        path.write_text(json.dumps(row.tolist()))

    path = scratch.part(shard.parent, shard.stem, ".json", judge)
    with reading(path, "not readable as rewards"):
        row: list[float] = json.loads(path.read_text())
    return row


def _train(
    pipeline: Any, plan: Plan, place: Level | None, shards: Sequence[Path], numbers: Sequence[int], folder: Path
) -> None:
    """Train the adapter and write it, or fill it from what an earlier process has written."""
    network = denoiser_of(pipeline)
    prefix = "unet" if network is getattr(pipeline, "unet", None) else "transformer"
    trainable = add_adapter(network, plan.rank, plan.seed)
    if (folder / CARD).is_file():
        with reading(folder / WEIGHTS, "not a readable adapter"):
            state = {name.removeprefix(f"{prefix}."): value for name, value in load_file(folder / WEIGHTS).items()}
            set_peft_model_state_dict(network, state)
        scratch.discard(folder / TRAINING)
        return
    states = _picked(shards, LAST if place is None else STATE, numbers, plan.solver.batch)
    names = [f"candidate-{number}" for number in numbers]
    learnt = Learnt(states, names)
    if place is not None:
        learnt = Learnt(states * place.factor, names, place.t, place.alpha, place.s)
    task = accepted_task(
        Prompted.of(pipeline, plan.prompts, states).call(network, [number // plan.each for number in numbers]),
        trainable,
        pipeline.scheduler,
        learnt,
        empty_share=empty_prompts(plan.solver.guidance),
        seed=plan.seed,
        device=pipeline.device,
        kind=predicts(pipeline.scheduler),
    )
    accelerator = Accelerator(cpu=pipeline.device.type == "cpu", mixed_precision="no")
    history = fit(task, plan.optimisation, seed=plan.seed, scratch=folder / TRAINING, accelerator=accelerator)
    write_table(folder / HISTORY, history)
    facts = place._asdict() if place else None
    save_adapter(network, folder, {"level": facts, "rank": plan.rank, "accepted": len(numbers)}, prefix)
    scratch.discard(folder / TRAINING)


def _picked(shards: Sequence[Path], name: str, numbers: Sequence[int], batch: int) -> Tensor:
    """Rows of a tensor in shards of equal size, of which one at a time is read."""
    wanted: dict[int, list[int]] = {}
    for number in numbers:  # ascending
        wanted.setdefault(number // batch, []).append(number % batch)
    return torch.cat([_tensor(shards[shard], name)[rows] for shard, rows in wanted.items()])


def _tensor(path: Path, name: str) -> Tensor:
    with reading(path, "not readable as candidates"), safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor
