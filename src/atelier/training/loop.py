"""The one training loop of all studies: stateless order, exact resume, atomic checkpoints.

Killed at any moment and started again with the same key, a run ends with the bytes of one never killed (one machine,
fp32): order, noise, timesteps and dropout are functions of (seed, sample, epoch) or (seed, step), so the parameters,
the optimiser's moments and the average are all the state there is.
"""

import math
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from atelier.params import Optimisation
from atelier.seeds import seed_of
from atelier.training import checkpoints
from atelier.training.order import Pick, picks

LOG_POINTS = 100  # rows of history a run


@dataclass(frozen=True)
class Task:
    """What is learnt: named parameters, the samples' names, and a batch's loss terms (scalars, to be summed)."""

    trainable: dict[str, nn.Parameter]
    samples: Sequence[str]
    losses: Callable[[Sequence[Pick]], dict[str, Tensor]]


def learning_rate(settings: Optimisation, step: int) -> float:
    """Linear warm-up, then a cosine to a thirtieth, or constant."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    if settings.decay == "constant":
        return settings.learning_rate * warm
    done = min(1.0, step / max(1, settings.steps))
    return settings.learning_rate * warm * (1 / 30 + (1 - 1 / 30) * 0.5 * (1 + math.cos(math.pi * done)))


Averages = Mapping[float, dict[str, Tensor]]  # half-life in steps -> parameters by name


def fit(
    task: Task,
    settings: Optimisation,
    *,
    seed: int,
    scratch: Path,
    accelerator: Accelerator,
    averages: Averages | None = None,
) -> pd.DataFrame:
    """Train ``task`` in place and return its history, one row a logging interval.

    ``averages``: half-lives and a dictionary each, to be filled with the averages of one run; unlike the one that
    ``settings.ema`` puts in the parameters' place these begin with the start and have no warm-up, so that they differ
    however short the run is.

    ``scratch`` is this run's own folder: named by everything that determines the run (`scratch.folder`), for the caller
    to discard once the result is safe.
    """
    if accelerator.num_processes != 1:
        raise ValueError(f"training runs in one process, this is one of {accelerator.num_processes}")
    names = sorted(task.trainable)
    parameters = [task.trainable[name] for name in names]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay
    )
    average = {name: task.trainable[name].detach().clone() for name in names} if settings.ema else {}
    for kept in (averages or {}).values():
        kept.update({name: task.trainable[name].detach().clone() for name in names})
    history: list[dict[str, float]] = []
    running: dict[str, float] = {}
    first = 0
    if (found := checkpoints.load(scratch)) is not None:
        tensors, notes = found
        if notes["seed"] != seed:
            raise ValueError(f"{scratch}: the checkpoint belongs to seed {notes['seed']}, not {seed}")
        _restore(tensors, task.trainable, optimiser, _all_averages(average, averages), names)
        first, history, running = notes["step"], notes["history"], notes["running"]
    scratch.mkdir(parents=True, exist_ok=True)
    every = max(1, settings.steps // LOG_POINTS)
    progress = tqdm(total=settings.steps, initial=first, unit="step", file=sys.stderr, mininterval=2.0)
    with (scratch / "journal").open("a") as journal:
        for step in range(first, settings.steps):
            batch = picks(seed, step, settings.batch, len(task.samples))
            # what the model itself may draw (dropout) depends on the step alone
            torch.manual_seed(seed_of(seed, "step", step))
            with accelerator.autocast():
                terms = task.losses(batch)
            loss = torch.stack([term.float() for term in terms.values()]).sum()
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(parameters, settings.clip)
            # the one wait for the device in a step; before what is not finite reaches the parameters: a last step's
            # would never show in a loss
            *values, length = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()]).tolist()
            told = dict(zip(terms, values, strict=True))
            if not math.isfinite(sum(values)):
                raise FloatingPointError(_not_finite(step, told, [task.samples[pick.sample] for pick in batch]))
            if not math.isfinite(length):
                told["gradient's norm"] = length
                raise FloatingPointError(_not_finite(step, told, [task.samples[pick.sample] for pick in batch]))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(settings, step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if average:  # shorter while the run is young
                _average(average, task.trainable, min(0.5 ** (1 / settings.ema), (1 + step) / (10 + step)))
            for half_life, kept in (averages or {}).items():
                _average(kept, task.trainable, 0.5 ** (1 / half_life))
            for name, value in told.items():
                running[name] = running.get(name, 0.0) + value
            done = step + 1
            if done % every == 0 or done == settings.steps:
                steps = (done - 1) % every + 1
                row = {name: total / steps for name, total in running.items()}
                history.append({"step": done, "learning_rate": learning_rate(settings, step), **row})
                running = {}
            print(step, file=journal, flush=True)
            progress.update()
            progress.set_postfix_str(_speed(progress, settings.batch, accelerator.device), refresh=False)
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                state = _state(task.trainable, optimiser, _all_averages(average, averages), names)
                checkpoints.save(scratch, done, state, {"seed": seed, "history": history, "running": running})
    progress.close()
    for name, value in average.items():
        task.trainable[name].data.copy_(value)
    print(f"trained steps {first} to {settings.steps}: first executed {first}, executed here {settings.steps - first}")
    return pd.DataFrame(history)


def _average(average: dict[str, Tensor], trainable: dict[str, nn.Parameter], keep: float) -> None:
    """A step of an exponential moving average that keeps so much of itself."""
    torch._foreach_lerp_(list(average.values()), [trainable[name].detach() for name in average], 1 - keep)


def _all_averages(average: dict[str, Tensor], averages: Averages | None) -> dict[str, dict[str, Tensor]]:
    """Every average by its name in a checkpoint."""
    return {"average": average, **{f"average-{half_life:g}": kept for half_life, kept in (averages or {}).items()}}


def _state(
    trainable: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    averages: dict[str, dict[str, Tensor]],
    names: list[str],
) -> dict[str, Tensor]:
    state = {f"parameter/{name}": trainable[name] for name in names}
    for name in names:
        for key, value in optimiser.state[trainable[name]].items():
            state[f"{key}/{name}"] = value
    return state | {f"{which}/{name}": value for which, kept in averages.items() for name, value in kept.items()}


def _restore(
    tensors: dict[str, Tensor],
    trainable: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    averages: dict[str, dict[str, Tensor]],
    names: list[str],
) -> None:
    """Put a checkpoint's tensors back; a missing one is a KeyError that names it."""
    with torch.no_grad():
        for name in names:
            parameter = trainable[name]
            parameter.copy_(tensors[f"parameter/{name}"])
            optimiser.state[parameter] = {
                "step": tensors[f"step/{name}"],
                # laid out as the parameter is, channels last or not: kernels, and so bits, depend on it
                "exp_avg": torch.empty_like(parameter).copy_(tensors[f"exp_avg/{name}"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"exp_avg_sq/{name}"]),
            }
        for which, kept in averages.items():
            for name, value in kept.items():
                value.copy_(tensors[f"{which}/{name}"])


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
