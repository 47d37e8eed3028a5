"""Denoising errors of the base and of tuned models, on pictures they learnt and on others of the same law, by level.

The law is that of accepted pictures by the deterministic solver. Pictures that a model has not learnt are another
training seed's, of other prompts; with one seed alone they are of the stochastic solver's candidates.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine
from atelier.diffusion import noise_estimate, noised
from atelier.files import check_seal
from atelier.models.adapters import tuned
from atelier.models.latents import encode_prompts
from atelier.params import Params
from atelier.sampling.trajectories import level
from atelier.seeds import torch_generator
from atelier.studies.shaping import candidates, select
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.trade_off import log_slope, noise_only_error, relative_gap, slope
from atelier.training import denoiser
from atelier.workspace import Workspace

Networks = Callable[[str, int], Any]  # (variant, training seed) -> its denoiser
HELD_OUT, LEARNT = "held out", "learnt"
BASE, NOISE_ONLY = "base", "noise only"


class Share(Protocol):
    """A group's share of a training seed's pictures."""

    @property
    def seed(self) -> int: ...

    def numbers(self, n: int, most: int) -> list[int]: ...


def swept(config: Config) -> list[str]:
    """Variants that differ in the level alone: accepted by the first rule, deterministic, target x_I, first round."""
    first = next(iter(config.rules))
    fits = {"method": "accepted", "solver": "ode", "target": "x_I", "round": 1, "learning_rate": None}
    return [
        name
        for name in config.names
        if (config.trainings[name].rule or first) == first
        and all(getattr(config.trainings[name], key) == value for key, value in fits.items())
    ]


def tuned_network(pipeline: StableDiffusionPipeline, folder: Path) -> Any:
    """A copy of a pipeline's denoiser with the adapter in ``folder`` merged into it; the pipeline stays as it is."""
    changed = copy.copy(pipeline)
    changed.unet = copy.deepcopy(pipeline.unet)
    return tuned(changed, check_seal(folder)).unet.requires_grad_(False)


def tuned_networks(pipeline: StableDiffusionPipeline, workspace: Workspace) -> Networks:
    """Each variant's denoiser by name and training seed; one seed's denoisers are kept, since its groups share them."""
    kept: dict[tuple[str, int], Any] = {}

    def network(name: str, seed: int) -> Any:
        if any(other != seed for _, other in kept):
            kept.clear()
        if (name, seed) not in kept:
            kept[name, seed] = tuned_network(pipeline, workspace.adapter(Config.STUDY, name, seed))
        return kept[name, seed]

    return network


# ------------------------------------------------------------------------------------------------ errors


def errors_of(
    params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline, network: Networks, part: Share
) -> pd.DataFrame:
    """Mean squared errors of predicted noise, an element: t, pictures, model, error, n.

    ``pictures``: held out or learnt; ``model``: a variant, the base, or the noise-only predictor.
    """
    config, most = Config.of(params), Config.of(params).inspected.pictures // len(params.protocol.groups)
    names = swept(config)
    networks = {BASE: pipeline.unet}
    networks |= {name: network(name, part.seed) for name in names}
    rows = []
    for kind in (HELD_OUT, LEARNT) if names else ():
        z0, table = accepted(params, workspace, part, names[0], kind, most)
        words = encode_prompts(pipeline, table["prompt"].tolist())
        seeds = [(params.seed, config.STUDY, "error", kind, part.seed, int(number)) for number in table["number"]]
        eps = torch.stack([torch.randn(z0.shape[1:], generator=torch_generator(*seed)) for seed in seeds])
        for t in times(config.inspected.times, pipeline):
            errors = at_level(params, pipeline, networks, z0, eps, words, t)
            rows += [{"t": t, "pictures": kind, "model": name, "error": x, "n": len(z0)} for name, x in errors.items()]
    return pd.DataFrame(rows, columns=["t", "pictures", "model", "error", "n"])


def times(number: int, pipeline: StableDiffusionPipeline) -> list[int]:
    """Training steps at the middles of equal parts of the schedule."""
    steps = len(denoiser.path(pipeline.scheduler)[0])
    return [(2 * place + 1) * steps // (2 * number) for place in range(number)]


def accepted(
    params: Params, workspace: Workspace, part: Share, name: str, kind: str, most: int
) -> tuple[Tensor, pd.DataFrame]:
    """Last states (n, c, h, w) and rows of accepted candidates: what a variant of the part's seed learns, or others."""
    config, seeds = Config.of(params), params.protocol.training_seeds
    seed, solver = part.seed, config.trainings[name].solver
    if kind == HELD_OUT and len(seeds) > 1:
        seed = seeds[(seeds.index(seed) + 1) % len(seeds)]
    elif kind == HELD_OUT:
        solver = "sde" if solver == "ode" else "ode"
    place = candidates.folder(workspace, seed, solver)
    table = candidates.listed(place)
    numbers = select.chosen(config.trainings[name], config.rule_of(name), table)
    numbers = numbers[part.numbers(len(numbers), most)]
    return candidates.tensors(place, candidates.LAST, numbers.tolist()), table.loc[numbers].reset_index(drop=True)


@torch.no_grad()
def at_level(
    params: Params,
    pipeline: StableDiffusionPipeline,
    networks: dict[str, Any],
    z0: Tensor,
    eps: Tensor,
    words: Tensor,
    t: int,
) -> dict[str, float]:
    """Each denoiser's mean squared error at one step, and that of the noise-only predictor."""
    place, kind = machine.accelerator(params.machine), pipeline.scheduler.config.prediction_type
    alphas, sigmas, steps = denoiser.path(pipeline.scheduler)
    alpha, s = alphas[t], sigmas[t]
    zt = noised(z0, eps, alpha, s)
    errors = {NOISE_ONLY: noise_only_error(zt.numpy(), eps.numpy())}
    for name, network in networks.items():
        outputs = []
        for rows in torch.arange(len(z0)).split(params.sampling.batch):
            given = (x.to(place.device) for x in (zt[rows], steps[t], words[rows]))
            with place.autocast():
                outputs.append(network(*given).sample.float().cpu())
        guess = noise_estimate(kind, zt, torch.cat(outputs), alpha, s)
        errors[name] = float((guess - eps).square().mean())
    return errors


# ------------------------------------------------------------------------------------------------ rows


def gap_rows(params: Params, pipeline: StableDiffusionPipeline, seen: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of what is left to learn, cell ``VARIANT-t-T``, a value a group; of P-GRAFT at the levels of its adapter.

    ``gap``: log10 of ``trade_off.relative_gap`` of held-out pictures, where it is above 0 in every group. ``error`` and
    ``error_learnt``: of held-out and of learnt pictures; ``error_share``: the first over the noise-only predictor's.
    ``excess``: how much more a model gained on learnt pictures than on others, both against the base, over the
    noise-only predictor's error. ``gap_slope``, ``error_share_slope`` and ``excess_slope``, cell VARIANT: by t as a
    share of the schedule.
    """
    config, (_, sigmas, _) = Config.of(params), denoiser.path(pipeline.scheduler)
    steps, rows = len(sigmas), []
    tables = [table.set_index(["t", "pictures", "model"]).sort_index() for table in seen if len(table)]
    for name in swept(config) if tables else ():
        share = config.trainings[name].level
        least = 0.0 if share == 1.0 else level(pipeline.scheduler, config.steps, share).t
        at = [t for t in tables[0].index.unique("t") if t >= least]
        n = int(sum(table.loc[(at[0], HELD_OUT, name), "n"] for table in tables)) if at else 0
        by_t = {t: [_at(table["error"], t, name, float(sigmas[t])) for table in tables] for t in at}
        for t, groups in by_t.items():
            for measure in groups[0]:
                values = [group[measure] for group in groups]
                if measure == "gap":
                    if min(values) <= 0:
                        continue
                    values = [float(np.log10(value)) for value in values]
                rows.append(_row(measure, f"{name}-t-{t}", n, values))
        shares = np.array(at) / steps
        for measure, by in (("gap", log_slope), ("error_share", slope), ("excess", slope)) if len(at) > 1 else ():
            slopes = [by(shares, [by_t[t][group][measure] for t in at]) for group in range(len(tables))]
            rows.append(_row(f"{measure}_slope", name, n, slopes))
    return pd.DataFrame(rows)


def _at(errors: pd.Series, t: int, name: str, s: float) -> dict[str, float]:
    """A group's numbers at one level."""
    held, learnt = ({model: float(errors[t, kind, model]) for model in (name, BASE, NOISE_ONLY)}
                    for kind in (HELD_OUT, LEARNT))  # fmt: skip
    excess = (held[name] - held[BASE]) - (learnt[name] - learnt[BASE])
    return {
        "gap": relative_gap(held[name], held[NOISE_ONLY], s),
        "error": held[name],
        "error_learnt": learnt[name],
        "error_share": held[name] / held[NOISE_ONLY],
        "excess": excess / held[NOISE_ONLY],
    }


def _row(measure: str, cell: str, n: int, values: Sequence[float]) -> dict[str, Any]:
    groups = {f"group{number}": value for number, value in enumerate(values)}
    return {"measure": measure, "cell": cell, "n": n, "whole": float(np.mean(values)), **groups}
