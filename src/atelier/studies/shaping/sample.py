"""Paint held-out works' prompts with the base and with every variant, from the same noise and from both starts.

A variant is sampled by the solver of its candidates; below level 1 its adapter takes the first steps and the base the
others. The base is painted by both solvers. Noise, at the start and at steps, depends on repeat and place alone, so
that pictures of two cells with one solver are pairs.
"""

from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor

from atelier import scratch
from atelier.data import prepare
from atelier.params import WHITE, Params
from atelier.sampling import conditions as sampling
from atelier.sampling import starts
from atelier.sampling.conditions import paint_conditions, seeds_of, write_conditions
from atelier.sampling.store import Location, guidance_folder
from atelier.sampling.trajectories import Solver, trajectories
from atelier.studies.shaping import shaped, train
from atelier.studies.shaping.candidates import SOLVERS
from atelier.studies.shaping.params import UNTUNED, UNTUNED_SDE, Config, corrected
from atelier.studies.shaping.prompts import held_out
from atelier.workspace import Workspace, replacing


class Condition(NamedTuple):
    """Pictures by one variant, or by the base (``UNTUNED``, ``UNTUNED_SDE``), from one start."""

    variant: str
    solver: str
    start: str = WHITE

    @property
    def cell(self) -> str:
        """The name of what is measured of it."""
        return self.variant if self.start == WHITE else corrected(self.variant)

    @property
    def model(self) -> str:
        """The folder of its pictures, which is that of a stage."""
        return UNTUNED if self.variant == UNTUNED_SDE else self.variant


def all_conditions(params: Params) -> list[Condition]:
    """All conditions, grouped by variant, the base first."""
    config = Config.of(params)
    variants = {UNTUNED: "ode", UNTUNED_SDE: "sde"} | {name: config.trainings[name].solver for name in config.names}
    return [Condition(name, solver, start) for name, solver in variants.items() for start in config.starts]


def write(params: Params, workspace: Workspace, variant: str, seed: int) -> None:
    """Write one variant's conditions, or the base's, of one seed to ``build/samples/shaping/VARIANT/SEED``."""
    config = Config.of(params)
    if variant != UNTUNED:
        train.check_seed(params, variant, seed)
    out = workspace.samples / config.STUDY / variant / str(seed)
    inputs = [workspace.starts, *shaped.inputs(params, workspace), workspace.manifests]
    inputs += [] if variant == UNTUNED else [workspace.adapter(config.STUDY, variant, seed)]
    described = [condition for condition in all_conditions(params) if condition.model == variant]
    key = config.model_dump(mode="json", include={"model", "rewards", "steps", "guidance", "pictures"})
    level = 1.0 if variant == UNTUNED else config.trainings[variant].level
    run = scratch.of_stage(params, workspace, __name__, out, inputs, conditions=described, level=level, **key)
    painted = {condition: listed(params, workspace, condition, seed) for condition in described}
    model, parts = load(params, workspace, variant, seed)
    for solver in sorted({condition.solver for condition in described}):
        how = Solver(config.guidance, config.steps, params.sampling.batch, SOLVERS[solver])

        def last(pipeline: Any, rows: pd.DataFrame, latents: Tensor, how: Solver = how) -> Tensor:
            seeds = seeds_of(rows, params.seed, "picture")
            (trajectory,) = trajectories(pipeline, rows["prompt"].tolist(), latents, seeds, how, parts=parts)
            return trajectory.last

        alike = [painted[condition] for condition in described if condition.solver == solver]
        paint_conditions(params, alike, lambda: model, run, last)
    with replacing(out) as part:
        write_conditions(list(painted.values()), run, part)
    scratch.discard(run)


def load(params: Params, workspace: Workspace, variant: str, seed: int) -> tuple[Any, Any]:
    """The pipeline of a variant and training seed, or the base's, and its two parts (or None)."""
    if variant in (UNTUNED, UNTUNED_SDE):
        return shaped.load(params, workspace), None
    return train.load(params, workspace, variant, seed)


def listed(params: Params, workspace: Workspace, condition: Condition, seed: int) -> sampling.Condition:
    """A condition as the library paints it: its folder, prompts, first latents, guidance and steps."""
    config = Config.of(params)
    steps = params.model_copy(update={"sampling": params.sampling.model_copy(update={"steps": config.steps})})
    return sampling.Condition(
        f"{condition.variant}/{guidance_folder(config.guidance, condition.start)}",
        held_out(params, workspace, seed),
        starts.started(steps, condition.start, starts.load(workspace.starts, prepare.WORKS), "picture"),
        config.guidance,
        config.steps,
    )


def location_of(params: Params, condition: Condition) -> Location:
    """Where a condition's pictures are stored."""
    config = Config.of(params)
    return Location(config.STUDY, condition.model, config.guidance, condition.start, condition.variant)
