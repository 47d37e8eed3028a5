"""What noise hides of the reward, what is left to learn by level, how far tuned models go, and the accepted law.

Rewards given a state: states of the base's stochastic candidates at the kept levels, and their first noise, are each
continued several times with eta = 1. The rest: ``learning``, ``continued.path_divergence`` and ``law``.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, scratch
from atelier.data.images import to_pixels
from atelier.evaluation.tables import write_rows
from atelier.params import Params
from atelier.sampling.sampler import decoded, first_latents, settled
from atelier.sampling.trajectories import Solver, settled_grid
from atelier.seeds import evenly
from atelier.studies.shaping import candidates, rewards, shaped
from atelier.studies.shaping.continued import continued, path_divergence
from atelier.studies.shaping.law_tables import chi_squares, histograms
from atelier.studies.shaping.learning import Networks, errors_of, gap_rows, tuned_networks
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.prompts import held_out
from atelier.studies.shaping.rewards import Judged
from atelier.studies.shaping.trade_off import rank_with, variance_given, variance_of
from atelier.workspace import Workspace

LEVELS = f"{Config.STUDY}_levels.csv"  # in the folder of measures, as the two below
LAW, HISTOGRAM = f"{Config.STUDY}_law.csv", f"{Config.STUDY}_law_rewards.csv"
RANK_CELL = "levels"


class Part(NamedTuple):
    """A group of repeats: its training seed, and which of the groups of that seed it is."""

    seed: int
    place: int
    among: int

    def numbers(self, n: int, most: int) -> list[int]:
        """Numbers below n that are this group's, at most ``most``, evenly; one at least, another's where n is small."""
        mine = range(n)[self.place :: self.among] or [self.place % n]
        return [mine[number] for number in evenly(len(mine), max(1, most))]


def write(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/shaping_levels.csv``, and of the accepted law its tests and histograms."""
    config = Config.of(params)
    inputs = [
        *shaped.inputs(params, workspace),
        workspace.manifests,
        rewards.folder(workspace),
        workspace.adapters / config.STUDY,
    ]
    inputs.append(workspace.build / config.STUDY / "candidates")
    run = scratch.of_stage(
        params, workspace, __name__, workspace.measures / LEVELS, inputs, config=config.model_dump(mode="json")
    )
    pipeline = settled(shaped.load(params, workspace), machine.accelerator(params.machine).device)
    judged = rewards.rewards_of(params, workspace)
    network = tuned_networks(pipeline, workspace)
    seen: dict[str, list[pd.DataFrame]] = {"variance": [], "errors": [], "paths": []}
    for number, part in enumerate(parts(params)):
        made = {
            "variance": partial(rewards_given, params, workspace, pipeline, judged, part),
            "errors": partial(errors_of, params, workspace, pipeline, network, part),
            "paths": partial(paths, params, workspace, pipeline, network, part),
        }
        for name, make in made.items():
            seen[name].append(scratch.table(run, f"{name} {number}", make))
    rows = [variance_rows(config, seen["variance"]), gap_rows(params, pipeline, seen["errors"])]
    write_rows(pd.concat([*rows, path_rows(seen["paths"])], ignore_index=True), workspace.measures / LEVELS)
    tables = {solver: rewards_by_prompt(params, workspace, solver) for solver in candidates.SOLVERS}
    write_rows(chi_squares(config, tables, params.seed), workspace.measures / LAW)
    write_rows(histograms(config, tables, params.seed), workspace.measures / HISTOGRAM)
    scratch.discard(run)


def parts(params: Params) -> list[Part]:
    """Every group's part; groups of one training seed share its candidates out."""
    seeds = [params.protocol.seed_of_repeat(repeats[0]) for repeats in params.protocol.groups]
    return [Part(seed, seeds[:number].count(seed), seeds.count(seed)) for number, seed in enumerate(seeds)]


def rewards_by_prompt(params: Params, workspace: Workspace, solver: str) -> np.ndarray:
    """Rewards that are trained for of all seeds' candidates by one solver, (prompts, each)."""
    each = Config.of(params).candidates.each
    seeds = params.protocol.training_seeds
    tables = [candidates.listed(candidates.folder(workspace, seed, solver)) for seed in seeds]
    return np.concatenate([table["reward"].to_numpy(np.float64).reshape(-1, each) for table in tables])


# ------------------------------------------------------------------------------------------------ variance


def rewards_given(
    params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline, judged: dict[str, Judged], part: Part
) -> pd.DataFrame:
    """Rewards of continuations: t, state, draw, and of each reward its value and its variance over the prompt.

    Of a candidate of each of some prompts: from its first noise, and from its states at the kept levels.
    """
    config, place = Config.of(params), candidates.folder(workspace, part.seed, "sde")
    table = candidates.listed(place)
    names = [f"reward_{name}" for name in config.rewards]
    chosen = part.numbers(config.candidates.prompts, config.inspected.states // len(params.protocol.groups))
    numbers = [number * config.candidates.each for number in chosen]  # the first candidate of each prompt
    totals = table.groupby("set")[names].var(ddof=1).loc[chosen].reset_index(drop=True).add_prefix("total_")
    rows = table.loc[numbers].reset_index(drop=True)
    tables = []
    for step, states in states_of(params, workspace, pipeline, part, numbers):
        repeated = rows.index.repeat(config.inspected.each)
        repeated_rows = rows.loc[repeated].reset_index(drop=True)
        draws = np.tile(np.arange(config.inspected.each), len(rows))
        seeds = [
            (params.seed, config.STUDY, "continued", part.seed, step, int(number), int(draw))
            for number, draw in zip(repeated_rows["number"], draws, strict=True)
        ]
        how = Solver(config.guidance, config.steps, params.sampling.batch, candidates.SOLVERS["sde"])
        with machine.accelerator(params.machine).autocast():
            last = continued(pipeline, repeated_rows["prompt"].tolist(), states[repeated.to_numpy()], step, seeds, how)
            shown = to_pixels(decoded(pipeline.vae, last, params.sampling.batch))
        values = {name: judged[name.removeprefix("reward_")](shown, repeated_rows) for name in names}
        t = int(settled_grid(pipeline.scheduler, config.steps).timesteps[step])
        of_prompt = totals.loc[repeated].reset_index(drop=True)
        tables.append(pd.DataFrame({"t": t, "state": repeated, "draw": draws, **values}).join(of_prompt))
    return pd.concat(tables, ignore_index=True)


def states_of(
    params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline, part: Part, numbers: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """The step before which stochastic candidates stand, and their states: their first noise, then kept ones."""
    config, place = Config.of(params), candidates.folder(workspace, part.seed, "sde")
    names = (params.seed, config.STUDY, "candidates", part.seed)
    how = candidates.painting(params, candidates.listed(place), "sde", names)
    yield 0, first_latents(pipeline, [how.seeds[number] for number in numbers], params.data.size)
    for name, step in sorted(how.keep.items(), key=lambda item: item[1]):
        yield step, candidates.tensors(place, name, numbers)


def variance_rows(config: Config, seen: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of what is left of every reward's variance, by level; a value a group of states.

    ``variance``, of the reward that is trained for, and ``variance_NAME``, cell ``t-T``: the share of its prompt's
    variance. ``left_NAME``: the variance itself, with its interval over states. ``variance_rank``, cell ``levels`` or
    ``levels-NAME``: the rank correlation with t.
    """
    rows = []
    for name in config.rewards:
        column, shares = f"reward_{name}", []
        for t in sorted(seen[0]["t"].unique()):
            tables = [table[table["t"] == t] for table in seen]
            left = [_by_state(table, column) for table in tables]
            total = [table.groupby("state")[f"total_{column}"].first().to_numpy() for table in tables]
            whole = variance_of(np.concatenate(left), np.concatenate(total))
            every = float(np.concatenate(total).mean())  # of all prompts: a group's prompts may have hardly any
            shares.append([_share(variances, every) for variances in left])
            n, cell = whole.left.n, f"t-{t}"
            explained = 1 - whole.explained
            for measure in [f"variance_{name}", *(["variance"] if name == config.reward else [])]:
                rows.append({"measure": measure, "cell": cell, "n": n, "whole": explained, **_groups(shares[-1])})
            variances = [float(variance_given(each).mean()) for each in left]
            ends = {"low": whole.left.low, "high": whole.left.high}
            rows.append(
                {
                    "measure": f"left_{name}",
                    "cell": cell,
                    "n": n,
                    "whole": whole.left.mean,
                    **ends,
                    **_groups(variances),
                }
            )
        times = sorted(seen[0]["t"].unique())
        ranks = [rank_with(times, column_of) for column_of in np.array(shares).T]
        whole_rank = rank_with(times, np.array(shares).mean(1))
        for cell in [f"{RANK_CELL}-{name}", *([RANK_CELL] if name == config.reward else [])]:
            rows.append(
                {"measure": "variance_rank", "cell": cell, "n": len(times), "whole": whole_rank, **_groups(ranks)}
            )
    return pd.DataFrame(rows)


def _by_state(table: pd.DataFrame, column: str) -> np.ndarray:
    return table.pivot(index="state", columns="draw", values=column).to_numpy(np.float64)


def _share(rewards_of_states: np.ndarray, total: float) -> float:
    """The share of variance that is left; 0 where prompts' pictures have equal rewards, of which nothing is left."""
    return float(variance_given(rewards_of_states).mean()) / total if total > 0 else 0.0


def _groups(values: Sequence[float]) -> dict[str, float]:
    return {f"group{number}": float(value) for number, value in enumerate(values)}


# ------------------------------------------------------------------------------------------------ divergence


def paths(
    params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline, network: Networks, part: Part
) -> pd.DataFrame:
    """Nats between trajectories of each variant and the base's, eta = 1, of some held-out prompts: variant, nats."""
    config = Config.of(params)
    rows = held_out(params, workspace, part.seed)
    rows = rows.iloc[part.numbers(len(rows), config.inspected.states // len(params.protocol.groups))]
    seeds: list[Any] = [(params.seed, config.STUDY, "path", part.seed, place) for place in rows.index]
    noise = first_latents(pipeline, seeds, params.data.size)
    how = Solver(config.guidance, config.steps, params.sampling.batch, candidates.SOLVERS["sde"])
    tables = []
    for name in config.names:
        level = config.trainings[name].level
        number = None if level == 1.0 else config.number_of(level)
        tuned = network(name, part.seed)
        with machine.accelerator(params.machine).autocast(), torch.no_grad():
            nats = path_divergence(pipeline, tuned, rows["prompt"].tolist(), noise, seeds, how, number)
        tables.append(pd.DataFrame({"variant": name, "nats": nats.numpy()}))
    return pd.concat(tables, ignore_index=True)


def path_rows(seen: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows ``kl_paths``: each variant's ``path_divergence`` from the base, both sampled with eta = 1."""
    rows = []
    for name in seen[0]["variant"].unique():
        nats = [table.loc[table["variant"] == name, "nats"].to_numpy() for table in seen]
        whole = np.concatenate(nats)
        means = [float(each.mean()) for each in nats]
        rows.append({"measure": "kl_paths", "cell": name, "n": len(whole), "whole": whole.mean(), **_groups(means)})
    return pd.DataFrame(rows)
