"""The training loop of all studies: stateless order, exact resume, atomic checkpoints.

A run that is killed at any moment and restarted with the same key gives the same bytes as an uninterrupted one (same
machine, fp32): order, noise, timesteps and dropout are functions of (seed, sample, epoch) or (seed, step), so the only
state is the parameters, the optimiser's moments and the averages.
"""

import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from atelier.files import filling
from atelier.params import Optimisation
from atelier.seeds import seed_of
from atelier.training import checkpoints
from atelier.training.averages import Average, Averages, started
from atelier.training.order import Turn, turns

LOG_POINTS = 100  # rows of history per run


@dataclass(frozen=True)
class Task:
    """A training task: named parameters, the samples' names, and a function from a batch to loss terms (summed).

    Terms without a graph are recorded and teach nothing.
    """

    trainable: dict[str, nn.Parameter]
    samples: Sequence[str]
    losses: Callable[[Sequence[Turn]], dict[str, Tensor]]


@dataclass(frozen=True)
class Watch:
    """What is looked at before the first step and at each checkpoint, and which of it ends the training there.

    ``look`` is a function of the parameters alone, so that a resumed run sees what an uninterrupted one sees.
    """

    look: Callable[[], dict[str, float]]
    enough: Callable[[dict[str, float]], bool]
    rows: list[dict[str, float]] = field(default_factory=list)  # filled: step, and what was seen there

    def see(self, step: int) -> None:
        self.rows.append({"step": step, **self.look()})

    @property
    def stopped(self) -> int | None:
        """The step at which the training ended because what was seen there was enough."""
        return int(self.rows[-1]["step"]) if self.rows and self.enough(self.rows[-1]) else None


def learning_rate(settings: Optimisation, step: int) -> float:
    """Linear warm-up, then constant or a cosine decay to 1/30."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.decay == "constant":
        return settings.learning_rate * warm
    done = min(1.0, step / max(1, settings.steps))
    return settings.learning_rate * warm * (1 / 30 + (1 - 1 / 30) * 0.5 * (1 + math.cos(math.pi * done)))


def fit(
    task: Task,
    settings: Optimisation,
    *,
    seed: int,
    scratch: Path,
    accelerator: Accelerator,
    averages: Averages | None = None,
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Train ``task`` in place and return its history, one row per logging interval.

    ``averages``: a dictionary per half-life, filled with additional averages; that of ``settings.ema`` replaces the
    parameters. ``watch``: may end the training at a checkpoint; its rows are filled. ``scratch``: this run's folder,
    named by everything that determines the run (`scratch.folder`); the caller discards it once the result has been
    written.
    """
    if accelerator.num_processes != 1:
        raise ValueError(f"training runs in one process, this is one of {accelerator.num_processes}")
    names = sorted(task.trainable)
    parameters = [task.trainable[name] for name in names]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay
    )
    ema, beside = started(task.trainable, names, settings.ema, averages or {})
    kept = [*([ema] if ema else []), *beside]
    log = Log(settings)
    first = _resumed(scratch, seed, task.trainable, optimiser, kept, names, log, watch)
    if watch and not watch.rows:
        watch.see(0)
    done = first
    progress = tqdm(total=settings.steps, initial=first, unit="step", file=sys.stderr, mininterval=2.0)
    with filling(scratch), (scratch / "journal").open("a") as journal:
        for step in range(first, settings.steps):
            if watch and watch.stopped is not None:
                break
            terms = _step(task, settings, optimiser, parameters, accelerator, seed, step)
            for average in kept:
                average.update(task.trainable, step)
            log.add(step, terms)
            print(step, file=journal, flush=True)
            progress.update()
            progress.set_postfix_str(_speed(progress, settings.batch, accelerator.device), refresh=False)
            done = step + 1
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                if watch:
                    watch.see(done)
                state = _state(task.trainable, optimiser, kept, names)
                seen = {"watched": watch.rows} if watch else {}
                checkpoints.save(scratch, done, state, {"seed": seed, **log.notes(), **seen})
    progress.close()
    log.end(done)
    for name, value in (ema.values if ema else {}).items():
        task.trainable[name].data.copy_(value)
    print(f"trained steps {first} to {done}: first executed {first}, executed here {done - first}")
    return pd.DataFrame(log.history)


def _step(
    task: Task,
    settings: Optimisation,
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    accelerator: Accelerator,
    seed: int,
    step: int,
) -> dict[str, float]:
    """One optimiser step; returns its loss terms. FloatingPointError, with the batch's names, if one is not finite."""
    batch = turns(seed, step, settings.batch, len(task.samples))
    torch.manual_seed(seed_of(seed, "step", step))  # what the model draws (dropout) depends on the step only
    with accelerator.autocast():
        terms = task.losses(batch)
    accelerator.backward(torch.stack([term.float() for term in terms.values()]).sum())
    norm = accelerator.clip_grad_norm_(parameters, settings.clip)
    # the only synchronisation with the device in a step; before the update, because after the last step a non-finite
    # parameter would not show in any loss
    *numbers, length = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()]).tolist()
    values = dict(zip(terms, numbers, strict=True))
    if not math.isfinite(sum(numbers)) or not math.isfinite(length):
        shown = {**values, "gradient's norm": length} if math.isfinite(sum(numbers)) else values
        raise FloatingPointError(_not_finite(step, shown, [task.samples[turn.sample] for turn in batch]))
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return values


class Log:
    """A run's history: means of loss terms over logging intervals."""

    def __init__(self, settings: Optimisation) -> None:
        self.settings = settings
        self.every = max(1, settings.steps // LOG_POINTS)
        self.history: list[dict[str, float]] = []
        self.running: dict[str, float] = {}

    def add(self, step: int, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            self.running[name] = self.running.get(name, 0.0) + value
        if (step + 1) % self.every == 0:
            self.end(step + 1)

    def end(self, done: int) -> None:
        """Close an interval after this many steps, if one is open."""
        if self.running:
            steps = (done - 1) % self.every + 1
            row = {name: total / steps for name, total in self.running.items()}
            self.history.append({"step": done, "learning_rate": learning_rate(self.settings, done - 1), **row})
            self.running = {}

    def notes(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"history": self.history, "running": self.running}


def _resumed(
    scratch: Path,
    seed: int,
    trainable: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    kept: Sequence[Average],
    names: list[str],
    log: Log,
    watch: Watch | None,
) -> int:
    """Restore the newest checkpoint, if there is one; returns the first step to execute."""
    checkpoint = checkpoints.load(scratch)
    if checkpoint is None:
        return 0
    tensors, notes = checkpoint
    if notes["seed"] != seed:
        raise ValueError(f"{scratch}: the checkpoint belongs to seed {notes['seed']}, not {seed}")
    _restore(tensors, trainable, optimiser, kept, names)
    log.history, log.running = notes["history"], notes["running"]
    if watch:
        watch.rows[:] = notes["watched"]
    return int(notes["step"])


def _state(
    trainable: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    kept: Sequence[Average],
    names: list[str],
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {f"parameter/{name}": trainable[name] for name in names}
    for name in names:
        for key, value in optimiser.state[trainable[name]].items():
            state[f"{key}/{name}"] = value
    for average in kept:
        state |= average.state()
    return state


def _restore(
    tensors: dict[str, Tensor],
    trainable: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    kept: Sequence[Average],
    names: list[str],
) -> None:
    """Restore a checkpoint's tensors; KeyError for a missing one."""
    with torch.no_grad():
        for name in names:
            parameter = trainable[name]
            parameter.copy_(tensors[f"parameter/{name}"])
            optimiser.state[parameter] = {
                "step": tensors[f"step/{name}"],
                # with the parameter's memory layout: kernels, and so bits, depend on it
                "exp_avg": torch.empty_like(parameter).copy_(tensors[f"exp_avg/{name}"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"exp_avg_sq/{name}"]),
            }
        for average in kept:
            average.restore(tensors)


def _not_finite(step: int, terms: dict[str, float], names: list[str]) -> str:
    values = ", ".join(f"{name}={value:g}" for name, value in terms.items())
    return f"step {step}: the loss is not finite ({values}); batch: {', '.join(names)}"


def _speed(progress: tqdm, batch: int, device: torch.device) -> str:
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**30
    else:
        # kilobytes on Linux, bytes on macOS
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if os.uname().sysname == "Linux" else 2**30
        )
    return f"{(progress.format_dict['rate'] or 0.0) * batch:.0f} img/s, {memory:.1f} GiB"
