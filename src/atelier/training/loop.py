"""The training loop of all studies: stateless order, exact resume, atomic checkpoints.

A run that is killed at any moment and restarted with the same key gives the same bytes as an uninterrupted one (same
machine, fp32): order, noise, timesteps and dropout are functions of (seed, sample, epoch) or (seed, step), so the only
state is the parameters, the optimiser's moments and the averages.

Several processes (``machine.ranks``) share each step's batch and average the gradients of what is trained, and nothing
else; each takes the same optimiser step, and the main one alone writes. Up to the rounding of sums that is what one
process computes, and each goes on from the other's checkpoints.
"""

import math
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from atelier import machine
from atelier.files import filling
from atelier.params import Optimisation
from atelier.seeds import seed_of
from atelier.training import checkpoints
from atelier.training.averages import Average, Averages, started
from atelier.training.order import Turn, share, turns

LOG_POINTS = 100  # rows of history per run


@dataclass(frozen=True)
class Task:
    """A training task: named parameters, the samples' names, and a function from a batch to loss terms (summed).

    Terms without a graph are recorded and teach nothing. ``means``: whether each term is a mean over the batch's
    samples, so that several processes can share a batch.
    """

    trainable: dict[str, nn.Parameter]
    samples: Sequence[str]
    losses: Callable[[Sequence[Turn]], dict[str, Tensor]]
    means: bool = False


@dataclass(frozen=True)
class Watch:
    """What is looked at before the first step and at each checkpoint, and which of it ends the training there.

    ``look`` is a function of the parameters alone, so that a resumed run sees what an uninterrupted one sees.
    """

    look: Callable[[], dict[str, float]]
    enough: Callable[[dict[str, float]], bool]
    rows: list[dict[str, float]] = field(default_factory=list)  # filled: step, and what was seen there

    def see(self, step: int) -> None:
        """Look, and have all processes see what the main one sees, so that they end alike."""
        seen = self.look()
        self.rows.append({"step": step, **dict(zip(seen, machine.of_main(list(seen.values())), strict=True))})

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
    machine.join(accelerator.device.type == "cpu")
    _check_shared(task, settings)
    names = sorted(task.trainable)
    parameters = [task.trainable[name] for name in names]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay
    )
    ema, beside = started(task.trainable, names, settings.ema, averages or {})
    kept = [*([ema] if ema else []), *beside]
    log = Log(settings)
    first = _resumed(scratch, seed, task.trainable, optimiser, kept, names, log, watch)
    if machine.ranks() > 1:
        machine.check_folder(scratch)
        total = torch.stack([parameter.detach().double().abs().sum().cpu() for parameter in parameters]).sum()
        machine.check_alike(f"{scratch}: its checkpoint, or what is trained,", [first, float(total)])
    if watch and not watch.rows:
        watch.see(0)
    done = first
    bar: Any = {"unit": "step", "file": sys.stderr, "mininterval": 2.0, "disable": not machine.is_main()}
    with _journal(scratch) as journal, tqdm(total=settings.steps, initial=first, **bar) as progress:
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
                seen = {"watched": watch.rows} if watch else {}
                if machine.is_main():
                    state = _state(task.trainable, optimiser, kept, names)
                    checkpoints.save(scratch, done, state, {"seed": seed, **log.notes(), **seen})
    log.end(done)
    for name, value in (ema.values if ema else {}).items():
        task.trainable[name].data.copy_(value)
    if machine.is_main():
        print(f"trained steps {first} to {done}: first executed {first}, executed here {done - first}")
    machine.wait()
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
    part, chance = share(batch, machine.rank(), machine.ranks()), _chance(accelerator.device)
    with accelerator.autocast():
        terms = task.losses(part)
    accelerator.backward(torch.stack([term.float() for term in terms.values()]).sum())
    if machine.ranks() > 1:
        _check_chance(chance, _chance(accelerator.device))
        terms = _averaged(terms, parameters, len(part) / len(batch))
    norm = accelerator.clip_grad_norm_(parameters, settings.clip)
    # the only synchronisation with the device in a step; before the update, because after the last step a non-finite
    # parameter would not show in any loss
    *numbers, length = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()]).tolist()
    values = dict(zip(terms, numbers, strict=True))
    if not math.isfinite(sum(numbers)) or not math.isfinite(length):
        shown = {**values, "gradient's norm": length} if math.isfinite(sum(numbers)) else values
        fault = FloatingPointError(_not_finite(step, shown, [task.samples[turn.sample] for turn in batch]))
        raise machine.alike(fault)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return values


def _check_shared(task: Task, settings: Optimisation) -> None:
    """Raise ValueError where several processes cannot share a task's batches, and learn what one learns."""
    if machine.ranks() == 1:
        return
    if settings.batch < machine.ranks():
        fault = f"a batch of {settings.batch} is too small for {machine.ranks()} processes; start at most so many"
        raise machine.alike(ValueError(fault))
    if not task.means:
        fault = "this training's loss is no mean over its samples, so that processes cannot share a batch; start one"
        raise machine.alike(ValueError(fault))


def _chance(device: torch.device) -> Sequence[Tensor]:
    """The states of what a model would draw from; none where one process draws for the whole batch."""
    if machine.ranks() == 1:
        return ()
    return (torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else []))


def _check_chance(before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
    """Raise ValueError where a model has drawn: processes would draw alike, and none what one does for its batch."""
    if not all(torch.equal(one, other) for one, other in zip(before, after, strict=True)):
        fault = "this training's model draws at random (dropout), so that processes cannot share a batch; start one"
        raise machine.alike(ValueError(fault))


def _averaged(terms: dict[str, Tensor], parameters: Sequence[nn.Parameter], weight: float) -> dict[str, Tensor]:
    """Loss terms and, in place, gradients summed over processes, times ``weight``, a share's part of the batch.

    One exchange: gradients, how many have each parameter's, and terms are one row of numbers.
    """
    absent = machine.added([float(parameter.grad is None) for parameter in parameters])
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
    values = torch.stack([term.detach().float() for term in terms.values()])
    row = torch.cat([*(each.flatten() for each in gradients), values]).mul_(weight)
    machine.add_up(row)
    *summed, values = row.split([*(each.numel() for each in gradients), len(terms)])
    for parameter, gradient, total, count in zip(parameters, gradients, summed, absent, strict=True):
        parameter.grad = None if count == machine.ranks() else gradient.copy_(total.view(gradient.shape))
    return dict(zip(terms, values, strict=True))


@contextmanager
def _journal(scratch: Path) -> Iterator[TextIO]:
    """A line a step, by the main process."""
    with filling(scratch), (scratch / "journal" if machine.is_main() else Path(os.devnull)).open("a") as journal:
        yield journal


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
