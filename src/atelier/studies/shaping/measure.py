"""Measure every cell's pictures: rewards on held-out prompts, distances and diversity, text fit, bounds on divergence.

Rewards are the ones that selected candidates; the evaluator, which rewarded none, says what a picture shows.
``reward_choosing`` and ``reward_deciding`` are means over two halves of the held-out works: a level that one half
chooses is judged by the other. Flows are measured by ``flow_measure``, noise levels and laws by ``inspect``.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from atelier import scratch
from atelier.data.checks import FloatArray
from atelier.evaluation import judges, tables
from atelier.evaluation import reference as references
from atelier.evaluation.cells import real_rows, truth_of_works
from atelier.evaluation.groups import (
    NEIGHBOURS,
    Group,
    Reference,
    all_measures,
    groups_of,
    pooled,
    pseudo_rows,
)
from atelier.evaluation.tables import read_rows, write_rows
from atelier.metrics import frechet_distance, precision_recall_density_coverage
from atelier.params import Params
from atelier.sampling.store import read
from atelier.studies.shaping import candidates, flow_measure, inspect, prompts, rewards, select
from atelier.studies.shaping.inspect import HISTOGRAM, LAW, LEVELS
from atelier.studies.shaping.law import Rule, Threshold, TopK, divergence_at_least, divergence_of
from atelier.studies.shaping.law_tables import as_measures
from atelier.studies.shaping.params import UNTUNED, UNTUNED_SDE, Config, corrected
from atelier.studies.shaping.rewards import Judged
from atelier.studies.shaping.sample import Condition, all_conditions, location_of
from atelier.workspace import Workspace

OUT = f"{Config.STUDY}.csv"  # in the folder of measures
REWARD, CHOOSING, DECIDING = "reward", "reward_choosing", "reward_deciding"
FEWEST = 20  # rewards of a half: of fewer the logarithm of a mean is a guess, and no bound
BASES = {"ode": UNTUNED, "sde": UNTUNED_SDE}  # by solver


def main(params: Params, workspace: Workspace) -> None:
    """Write all of the study's tables to ``build/measures``, the slowest last."""
    flow_measure.write(params, workspace)
    write(params, workspace)
    inspect.write(params, workspace)


def write(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/shaping.csv``."""
    config = Config.of(params)
    inputs = [workspace.samples / config.STUDY, workspace.build / config.STUDY / "candidates"]
    inputs += [rewards.folder(workspace), workspace.reference, workspace.evaluator, workspace.manifests]
    out = workspace.measures / OUT
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    real, judged = references.load(workspace.reference), rewards.rewards_of(params, workspace)
    known: dict[str, list[Group]] = {}
    rows = []
    for condition in all_conditions(params):
        base = base_of(condition)
        if base == condition.cell:
            known[base] = painted(params, workspace, judged, condition)
        make = partial(cell_rows, params, workspace, judged, real, condition, known[base])
        rows.append(scratch.table(run, condition.cell, make).assign(cell=condition.cell))
    rows += real_rows(params, workspace, real, config.pictures)
    table = pd.concat(rows, ignore_index=True)
    write_rows(pd.concat([table, shift_rows(params, workspace, table)], ignore_index=True), out)
    scratch.discard(run)


# ------------------------------------------------------------------------------------------------ pictures


def base_of(condition: Condition) -> str:
    """The cell of the base's pictures by the same solver and from the same start."""
    base = BASES[condition.solver]
    return base if condition.cell == condition.variant else corrected(base)


def painted(params: Params, workspace: Workspace, judged: Mapping[str, Judged], condition: Condition) -> list[Group]:
    """A condition's pictures in groups of repeats, with their rewards among what each picture has."""
    seeds, groups = params.protocol.training_seeds, params.protocol.groups
    shown, listed = read(location_of(params, condition).folders(workspace.samples, seeds))
    truth = truth_of_works(workspace.manifests)
    rows = listed[["prompt", "path"]].join(truth[["subject", "art_style"]], on="path")
    chooses = listed["path"].isin(choosing(params, workspace)).to_numpy()
    scores = scores_of(judged, Config.of(params).reward, shown, rows, chooses)
    reduced = groups_of(shown, listed, groups, judges.load(params, workspace), truth)
    masks = [listed["repeat"].isin(repeats).to_numpy() for repeats in groups]
    return [
        part._replace(per_picture={**part.per_picture, **{name: values[mask] for name, values in scores.items()}})
        for part, mask in zip(reduced, masks, strict=True)
    ]


def choosing(params: Params, workspace: Workspace) -> set[str]:
    """Held-out works whose prompts choose a level."""
    return half_of(prompts.works(params, workspace, prompts.HELD_OUT)["path"])


def half_of(paths: Iterable[str]) -> set[str]:
    """Every other one in their order, which is by style, so that both halves have every style."""
    return set(sorted(set(paths))[::2])


def scores_of(
    judged: Mapping[str, Judged], main: str, shown: Any, rows: pd.DataFrame, chooses: FloatArray | Any
) -> dict[str, FloatArray]:
    """Every reward of pictures (n, 3, h, w) uint8; the one that is trained for also by halves, NaN in the other."""
    scores = {f"reward_{name}": reward(shown, rows) for name, reward in judged.items()}
    trained_for = scores[f"reward_{main}"]
    halves = {CHOOSING: np.where(chooses, trained_for, np.nan), DECIDING: np.where(chooses, np.nan, trained_for)}
    return {**scores, REWARD: trained_for, **halves}


def cell_rows(
    params: Params,
    workspace: Workspace,
    judged: Mapping[str, Judged],
    real: Reference,
    condition: Condition,
    base: Sequence[Group],
) -> pd.DataFrame:
    """Rows of a cell: all measures, rewards, and what is compared with the base's pictures of the same prompts."""
    is_base = base_of(condition) == condition.cell
    made = base if is_base else painted(params, workspace, judged, condition)

    def of(chosen: list[int]) -> dict[str, float]:
        group = pooled([made[number] for number in chosen])
        values = all_measures(real, group)
        return values if is_base else {**values, **against(pooled([base[number] for number in chosen]), group)}

    return pseudo_rows(of, len(made), sum(each.n for each in made))


def against(base: Group, made: Group) -> dict[str, float]:
    """What a model's pictures have lost of the base's: ``fd_base``, ``recall_base``, and ``kl``.

    ``recall_base``: the share of the base's pictures near one of the model's. ``kl``: a lower bound of the divergence
    (``law.divergence_at_least``) from rewards on both halves of the prompts, where they have ``FEWEST`` each.
    """
    values = {"fd_base": frechet_distance(base.features, made.features)}
    if min(base.n, made.n) > NEIGHBOURS:
        values["recall_base"] = precision_recall_density_coverage(base.features, made.features, NEIGHBOURS)["recall"]
    halves = [[_known(group.per_picture[name]) for name in (CHOOSING, DECIDING)] for group in (made, base)]
    if all(len(part) >= FEWEST for rows in halves for part in rows):
        values["kl"] = divergence_at_least(*halves)
    return values


def _known(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


# ------------------------------------------------------------------------------------------------ predictions


def shift_rows(params: Params, workspace: Workspace, table: pd.DataFrame) -> pd.DataFrame:
    """Of variants that learn what is accepted of the base's candidates: what their law predicts, a value a group.

    ``predicted_shift``: mean reward of accepted candidates less that of all, of the group's training seed.
    ``shift_share``: the reward on held-out prompts less the base's, over it; a whole path's law, by either solver, so
    P-GRAFT's softer one by the stochastic solver is held against GRAFT's. ``kl_aimed``: the divergence of the rule's
    law (``law.divergence_of``).
    """
    config, rows = Config.of(params), []
    rewarded = table[table["measure"] == REWARD].set_index("cell")
    values = {cell: row for (measure, cell), row in tables.values(table).items() if measure == REWARD}
    names = [name for name in config.names if (config.trainings[name].method, config.trainings[name].round) ==
             ("accepted", 1)]  # fmt: skip
    for name in names:
        predicted, refused = predicted_shifts(params, workspace, name)
        base = BASES[config.trainings[name].solver]
        whole, n = float(rewarded["whole"][name] - rewarded["whole"][base]), int(rewarded["n"][name])
        mean = float(np.mean(predicted))
        rows.append(_row("predicted_shift", name, n, mean, predicted))
        if min(predicted) > 0:  # else the rule accepts no better ones, and there is no share
            rows.append(_row("shift_share", name, n, whole / mean, (values[name] - values[base]) / predicted))
        aimed = divergence_of(law_of(config, name, refused))
        rows.append(_row("kl_aimed", name, n, aimed, np.full(len(predicted), aimed)))
    return pd.DataFrame(rows)


def predicted_shifts(params: Params, workspace: Workspace, name: str) -> tuple[FloatArray, float]:
    """Each group's predicted shift of mean reward, and the share of all candidates that the rule refuses."""
    config, protocol = Config.of(params), params.protocol
    by_seed, accepted, total = {}, 0, 0
    for seed in protocol.training_seeds:
        table = candidates.listed(candidates.folder(workspace, seed, config.trainings[name].solver))
        numbers = select.chosen(config.trainings[name], config.rule_of(name), table)
        by_seed[seed] = float(table["reward"].iloc[numbers].mean() - table["reward"].mean())
        accepted, total = accepted + len(numbers), total + len(table)
    shifts = np.array([by_seed[protocol.seed_of_repeat(repeats[0])] for repeats in protocol.groups])
    return shifts, 1 - accepted / total


def law_of(config: Config, name: str, refused: float) -> Rule:
    """A variant's rule as ``law`` has it; a threshold's level is the share of candidates below it."""
    rule = config.rule_of(name)
    return Threshold(min(max(refused, 1e-9), 1 - 1e-9)) if rule.k is None or rule.m is None else TopK(rule.k, rule.m)


def _row(measure: str, cell: str, n: int, whole: float, values: FloatArray) -> dict[str, Any]:
    groups = {f"group{number}": float(value) for number, value in enumerate(values)}
    return {"measure": measure, "cell": cell, "n": n, "whole": whole, **groups}


# ------------------------------------------------------------------------------------------------ for the page


class Measures(NamedTuple):
    """All rows of measures (of ``inspect`` too), tests of the accepted law, and histograms of its rewards."""

    rows: pd.DataFrame
    law: pd.DataFrame
    histogram: pd.DataFrame


def load(params: Params, measures: Path) -> Measures:
    """Load what ``measure`` and ``inspect`` wrote."""
    law, histogram = read_rows(measures / LAW), read_rows(measures / HISTOGRAM)
    rows = [read_rows(measures / OUT), read_rows(measures / LEVELS), as_measures(law, len(params.protocol.groups))]
    return Measures(pd.concat(rows, ignore_index=True), law, histogram)


def cells(params: Params) -> set[str]:
    """All cells of pictures."""
    return {condition.cell for condition in all_conditions(params)}
