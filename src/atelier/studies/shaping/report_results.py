"""What the page of shaping shows, as its stages measured it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from atelier.evaluation import tables
from atelier.evaluation.intervals import FloatArray, Interval, t_interval
from atelier.params import CORRECTED, Params
from atelier.report import words
from atelier.report.browser import Browsed
from atelier.studies.shaping.params import UNTUNED, UNTUNED_SDE, Config, corrected

PAPER = "anil2026.csv"  # in the folder of papers
NOTHING = "nothing"  # a cell with 0 in every measure, that differences are compared with
GRAFT, CHOSEN = "graft", "pgraft-chosen"  # the latter: of the level that one half of the prompts chose
CONTROL = "plain"  # learns as many candidates, whatever their reward
LEVELS = "levels"  # the cell of measures over all levels at once
REWARD, CHOOSING, DECIDING = "reward", "reward_choosing", "reward_deciding"  # of all prompts, and of two halves
INTERVALS = "95 % intervals over groups, not adjusted for their number"
SOLVERS = {"ode": "deterministic (eta = 0)", "sde": "stochastic (eta = 1)"}


@dataclass(frozen=True)
class Results:
    """What was chosen, trained and measured. A cell is a variant, the base, a flow, or a level of noise ``t-T``."""

    params: Params
    config: Config
    rows: pd.DataFrame  # measures: measure, cell, n, whole, and one column a group
    law: pd.DataFrame  # of accepted samples: rule, solver, k, m, judges, candidates, n, statistic, dof, p
    histogram: pd.DataFrame  # of their rewards: rule, solver, low, high, observed, expected
    cards: Mapping[str, Sequence[Mapping[str, Any]]]  # of trainings, by variant, one a training seed
    browsed: Browsed  # pictures of the base, by both samplers, and of every variant
    noise: pd.DataFrame  # law of inverted noise by direction: k, variance, p_normal, and others
    parts: pd.DataFrame  # operations of each part of a flow's sampling: part, counted, by_hand
    paper: pd.DataFrame  # task, dataset, measure, value, rank, source

    @property
    def groups(self) -> int:
        return len(self.params.protocol.groups)

    @property
    def n(self) -> int:
        """Pictures a cell."""
        return len(self.params.protocol.all_repeats) * self.config.pictures

    @cached_property
    def measured(self) -> tables.Values:
        """What the tables hold, by measure and cell, one value a group."""
        return {key: row[np.isfinite(row)] for key, row in tables.values(self.rows).items()}

    @cached_property
    def whole(self) -> Mapping[tuple[str, str], float]:
        """Measures of all pictures of a cell together."""
        return dict(zip(zip(self.rows["measure"], self.rows["cell"], strict=True), self.rows["whole"], strict=True))

    @cached_property
    def _counts(self) -> Mapping[tuple[str, str], int]:
        return dict(zip(zip(self.rows["measure"], self.rows["cell"], strict=True), self.rows["n"], strict=True))

    def n_of(self, measure: str, cell: str) -> int:
        """Pictures that a measure of a cell was taken of; of what was derived, all of a cell's."""
        return int(self._counts.get((measure, cell), self.n))

    def has(self, measure: str, *cells: str) -> bool:
        """Whether a measure of each of these cells is known, measured or derived."""
        return all((measure, cell) in self.values for cell in cells)

    def interval(self, measure: str, cell: str) -> Interval:
        """A measure over groups; KeyError where it is not known."""
        return t_interval(self.values[measure, cell].tolist())

    def change(self, measure: str, cell: str, reference: str) -> Interval:
        """Of a cell less the reference, group by group."""
        return t_interval((self.values[measure, cell] - self.values[measure, reference]).tolist())

    def cells(self, measure: str = REWARD) -> list[str]:
        """The base and all variants that have a measure, from white noise."""
        return [cell for cell in (UNTUNED, UNTUNED_SDE, *self.config.names) if (measure, cell) in self.measured]

    # ------------------------------------------------------------------------------------------ derived values

    @cached_property
    def values(self) -> tables.Values:
        """All values, and the values that verdicts need and no stage measures; ``nothing`` is 0 in every measure."""
        known = {**self.measured, **self._chosen(), **self._noise()}
        groups = {measure: len(row) for (measure, _), row in known.items()}
        fixed = {
            (measure, cell): np.zeros(n) for measure, n in groups.items() for cell in (NOTHING, corrected(NOTHING))
        }
        return {**fixed, **known}

    @property
    def partial(self) -> list[str]:
        """P-GRAFT by the deterministic sampler, target x_I, one a level, from few steps of the adapter to many."""
        first = next(iter(self.config.rules))
        levels = {
            name: training.level
            for name, training in self.config.trainings.items()
            if name in self.config.variants
            and (training.method, training.solver, training.target) == ("accepted", "ode", "x_I")
            and training.level < 1
            and training.rule in (None, first)
        }
        return sorted(levels, key=lambda name: levels[name])

    @cached_property
    def chosen(self) -> str | None:
        """The P-GRAFT variant of most reward on the half of the prompts that chooses; None without one."""
        known = [name for name in self.partial if (CHOOSING, name) in self.measured]
        return max(known, key=lambda name: float(self.measured[CHOOSING, name].mean()), default=None)

    def _chosen(self) -> dict[tuple[str, str], FloatArray]:
        """The chosen level's values, from both starts."""
        if self.chosen is None:
            return {}
        mine = {CHOSEN: self.chosen, corrected(CHOSEN): corrected(self.chosen)}
        return {
            (measure, name): row
            for name, cell in mine.items()
            for (measure, other), row in self.measured.items()
            if other == cell
        }

    def steps(self, measure: str, of: str = "") -> dict[int, str]:
        """Timesteps at which a measure was taken, rising, and the cells; ``of``: a variant, whose cells begin so."""
        start = f"{of}-t-" if of else "t-"
        known = [cell for name, cell in self.measured if name == measure and cell.startswith(start)]
        return {int(cell.removeprefix(start)): cell for cell in sorted(known, key=lambda x: int(x.rpartition("-")[2]))}

    def _noise(self) -> dict[tuple[str, str], FloatArray]:
        """p of inverted noise against N(0, I): the lesser of mean's and covariance's, times two (Bonferroni)."""
        cells = {cell for name, cell in self.measured if name == "noise_p_mean"}
        return {
            ("noise_p", cell): np.minimum(
                1.0, 2 * np.minimum(self.measured["noise_p_mean", cell], self.measured["noise_p_covariance", cell])
            )
            for cell in cells
            if ("noise_p_covariance", cell) in self.measured
        }

    def solver_of(self, cell: str) -> str:
        """The sampler of a cell's candidates and pictures, in words."""
        plain = cell.removesuffix(f"-{CORRECTED}")
        if plain in (UNTUNED, UNTUNED_SDE):
            return SOLVERS["ode" if plain == UNTUNED else "sde"]
        plain = self.chosen or plain if plain == CHOSEN else plain
        return SOLVERS[self.config.trainings[plain].solver]

    def base_of(self, cell: str) -> str:
        """The base's pictures by the sampler of a cell, from its start."""
        plain = cell.removesuffix(f"-{CORRECTED}")
        base = UNTUNED if self.solver_of(cell) == SOLVERS["ode"] else UNTUNED_SDE
        return base if plain == cell else corrected(base)

    def control_of(self, cell: str) -> str | None:
        """The control's pictures from a cell's start; None for a cell of another sampler, and of more updates."""
        name = cell.removesuffix(f"-{CORRECTED}")
        mine, control = self.config.trainings.get(name), self.config.trainings.get(CONTROL)
        if mine is None or control is None or name == CONTROL or (mine.solver, mine.round) != (control.solver, 1):
            return None
        return CONTROL if name == cell else corrected(CONTROL)

    @property
    def counted(self) -> str:
        """n of a cell's pictures, and what they were painted with, for a caption."""
        return (
            f"{words.pictures(self.params, self.n, 'row')}; same prompts and noise; guidance "
            f"{self.config.guidance:g}, {self.config.steps} steps"
        )


def scaled(interval: Interval, factor: float) -> Interval:
    """An interval in other units."""
    ends = sorted((interval.low * factor, interval.high * factor))
    return Interval(interval.mean * factor, ends[0], ends[1], interval.n)


def direction_text(interval: Interval, below: str, above: str, neither: str) -> str:
    """What an interval says of a change's direction."""
    return below if interval.high < 0 else above if interval.low > 0 else neither
