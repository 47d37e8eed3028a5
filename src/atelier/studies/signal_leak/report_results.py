"""What the stages of the signal leak study measured, as its tables and figures read it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from diffusers import AutoencoderKL
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from atelier.data import prepare
from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.evaluation.tables import read_rows
from atelier.files import check_seal
from atelier.methods.signal_leak import FirstStep, FrequencyLeak, Leak, first_step
from atelier.models import base
from atelier.params import Params
from atelier.report import words
from atelier.report.items import Metric
from atelier.sampling import store
from atelier.sampling.sampler import with_ddim
from atelier.studies.signal_leak import fit, measure, sample
from atelier.studies.signal_leak.params import Config
from atelier.studies.signal_leak.styles import with_styles
from atelier.workspace import Workspace


@dataclass(frozen=True)
class Results:
    """Measures, leaks and picture lists of one run, and what decodes a latent."""

    params: Params
    workspace: Workspace  # whose pictures are read when a figure needs them
    table: pd.DataFrame  # measures: one row per measure and condition, one pseudo-value per group of repeats
    spectrum: pd.DataFrame  # mean squares of training latents by frequency and channel
    first_steps: pd.DataFrame  # means of first latents and of the denoiser's first estimates
    colours: pd.DataFrame  # pictures with a channel's mean set by hand: value set, mean made, mean colour
    leaks: Mapping[str, Leak]
    works: pd.DataFrame  # the manifest of works, all splits
    natural: pd.DataFrame  # the manifest of photographs, or of works where there are none
    kind: str  # of natural pictures: "photographs" or "works"
    scheduler: SchedulerMixin  # the base's
    vae: AutoencoderKL

    @cached_property
    def config(self) -> Config:
        return Config.of(self.params)

    @cached_property
    def values(self) -> tables.Values:
        return tables.values(self.table)

    @property
    def n(self) -> int:
        """Pictures of a condition."""
        return len(self.params.protocol.all_repeats) * self.config.pictures

    @cached_property
    def training(self) -> pd.DataFrame:
        """The natural pictures that leaks are fitted to."""
        return self.natural.query("split == 'train'").reset_index(drop=True)

    @property
    def step(self) -> FirstStep:
        """The first step that the sampler takes."""
        return first_step(self.scheduler, self.params.sampling.steps)

    @property
    def mean_leak(self) -> FrequencyLeak:
        """The leak with N = 1: the mean of each channel, jointly Gaussian."""
        leak = self.leaks[fit.BY_HAND]
        assert isinstance(leak, FrequencyLeak)
        return leak

    def interval(self, measured: str, cell: str) -> Interval:
        """A measure's interval over groups of repeats."""
        return t_interval(self.values[measured, cell].tolist())

    def difference(self, measured: str, cell: str, reference: str) -> Interval:
        """The interval of a measure's paired differences, cell less reference."""
        return t_interval((self.values[measured, cell] - self.values[measured, reference]).tolist())

    def metric(self, value: float | Interval) -> Metric:
        """A number measured on the pictures of one condition."""
        return Metric(value, self.n)

    def pictures(self, cell: str, count: int) -> Tensor:
        """The first pictures of a condition's first repeat, (count, 3, h, w) uint8, unselected."""
        located = sample.location_of(self.params, sample.condition_of(self.params, cell))
        made, listed = store.read([located.folder(self.workspace.samples, self.params.protocol.training_seeds[0])])
        rows = listed[(listed["repeat"] == listed["repeat"].min()) & (listed["place"] < count)]
        return made[rows.sort_values("place").index.to_list()].load()


def load(params: Params, workspace: Workspace) -> Results:
    """Everything that the study's page shows, from its stages' outputs."""
    params = with_styles(params, workspace)
    works = prepare.works(workspace.manifests).table
    natural, kind = fit.natural(prepare.photographs(workspace.manifests).table, works)
    pipeline = with_ddim(base.load(check_seal(workspace.base)))
    return Results(
        params=params,
        workspace=workspace,
        table=measure.load(workspace.measures),
        spectrum=read_rows(workspace.measures / measure.SPECTRUM),
        first_steps=sample.first_steps(params, workspace.samples),
        colours=measure.colours(params, workspace),
        leaks=fit.load_all(workspace.leaks, Config.of(params).frequencies),
        works=works,
        natural=natural,
        kind=kind,
        scheduler=pipeline.scheduler,
        vae=pipeline.vae,
    )


def of_natural(config: Config) -> list[str]:
    """Models that are trained on natural pictures, for another schedule, and not on a style."""
    return [name for name in config.trained if config.models[name].style is None]


def of_styles(config: Config) -> list[str]:
    """Models that are tuned to a style."""
    return [name for name in config.trained if config.models[name].style is not None]


def measured_of(results: Results, measures: Iterable[str], cells: Iterable[str]) -> list[str]:
    """The measures that any of the cells has: without an evaluator, a few are missing."""
    listed = list(cells)
    return [name for name in measures if any((name, cell) in results.values for cell in listed)]


def whole(results: Results, measures: Iterable[str], cell: str) -> dict[str, float]:
    """A cell's measures of all its pictures at once, where it has them."""
    of_cell = results.table[results.table["cell"] == cell].set_index("measure")["whole"]
    return {name: float(of_cell[name]) for name in measures if name in of_cell}


def count(results: Results) -> str:
    """How many pictures a condition has, for captions."""
    return words.pictures(results.params, results.n, "condition")


def conditions(results: Results) -> str:
    """``count``, and what all conditions share, for captions."""
    return f"{count(results)}, same prompts and noise; guidance {results.config.guidance:g}"
