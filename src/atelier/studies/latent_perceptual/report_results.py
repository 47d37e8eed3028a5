"""What the page of the latent perceptual loss shows, as its stages measured it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.evaluation.tables import read_rows
from atelier.files import check_seal, read_json, read_table, reading
from atelier.models import base
from atelier.models.autoencoders import decoder_stages
from atelier.models.latents import decode, unscaled
from atelier.params import STARTS, WHITE, Params
from atelier.report import naming, starts, words
from atelier.report.browser import Browsed, Cell, Values, by_path
from atelier.sampling import store
from atelier.studies.latent_perceptual import features, measure
from atelier.studies.latent_perceptual.params import MAIN, PLAIN, Config, PostTraining, protocol_of, seeds_of, untuned
from atelier.studies.latent_perceptual.pictures import HELD_OUT, kind_of, main_sources, sources
from atelier.studies.latent_perceptual.sample import all_conditions, location_of
from atelier.workspace import Workspace

REWEIGHTED = "reweighted"  # the control: squared error of latents in place of the loss
INSPECTED = 8  # inspected pictures in a row of a contact sheet
CLEAN = "the latent"  # decoded as it is
INTERVALS = "95 % intervals, not adjusted for their number"


@dataclass(frozen=True)
class Results:
    """What was trained and measured. A cell is a variant, what it began with, or a variant sampled in another way."""

    params: Params
    config: Config
    latent_side: int
    kind: str  # of pictures that are learnt and painted: painted photographs, the data's photographs, or works
    n_held_out: Mapping[str, int]  # pictures that measures compare with: of photographs, of works
    weights: Mapping[str, Sequence[float | None]]  # of the term beside the denoiser's, by variant, one a training seed
    history: pd.DataFrame  # losses of all variants, with columns ``variant`` and ``training_seed``
    rows: pd.DataFrame  # measures of all cells, and of decoder features
    spectra: pd.DataFrame  # mean power by rings: one row per cell and group, held-out pictures, the rings' frequency
    losses: pd.DataFrame  # the base's estimates before training: by picture and noise level, each stage's loss
    gradients: pd.DataFrame  # cosines between gradients before training: by batch and pair of losses
    outliers: pd.DataFrame  # of feature maps, by group of pictures and stage
    interpolated: pd.DataFrame  # latents made smaller and larger again: by picture, method and factor
    maps: Sequence[Tensor]  # features of a few clean latents, by stage: (n, c, h, w)
    decoded: Mapping[str, Tensor]  # the same latents decoded, (n, 3, h, w): ``CLEAN``, and after each interpolation
    browsed: Browsed  # pictures of the base and of every main variant of photographs, from both starts
    post_trainings: pd.DataFrame  # the paper's table 2
    parameterisations: pd.DataFrame  # the paper's table 3, by measure

    @property
    def noun(self) -> str:
        """What the main variants learn: photographs, or works where there are none."""
        return prepare.WORKS if self.kind == prepare.WORKS else prepare.PHOTOGRAPHS

    def of(self, variant: str) -> str:
        """What a variant learns: photographs or works."""
        return prepare.WORKS if self.config.trainings[variant].of == prepare.WORKS else self.noun

    @property
    def of_photographs(self) -> list[str]:
        """Variants of the main tables."""
        return [name for name in self.config.names if self.of(name) == self.noun]

    @property
    def of_works(self) -> list[str]:
        """Variants of the second table."""
        return [name for name in self.config.names if self.of(name) != self.noun]

    @property
    def n(self) -> int:
        """Pictures a cell of a variant that is trained from all seeds."""
        return len(self.params.protocol.all_repeats) * self.config.pictures

    @cached_property
    def _counts(self) -> Mapping[tuple[str, str], int]:
        return dict(zip(zip(self.rows["measure"], self.rows["cell"], strict=True), self.rows["n"], strict=True))

    def n_of(self, cell: str, measure: str = "fd") -> int:
        """Pictures that a measure of a cell was taken of."""
        return int(self._counts[measure, cell])

    @property
    def groups(self) -> int:
        return len(self.params.protocol.groups)

    @property
    def n_inspected(self) -> int:
        """Held-out pictures whose features were inspected."""
        return len(self.interpolated.drop_duplicates(["group", "picture"]))

    @property
    def main(self) -> PostTraining | None:
        """The training with the loss as the paper has it, where the profile has one."""
        return self.config.trainings.get(MAIN)

    @property
    def compares(self) -> bool:
        """Whether the profile trains with the loss and without."""
        return {PLAIN, MAIN} <= set(self.config.trainings)

    @property
    def compared(self) -> list[str]:
        """The main variants: without the loss, with it, and the control."""
        return [name for name in (PLAIN, MAIN, REWEIGHTED) if name in self.config.trainings]

    @cached_property
    def generated(self) -> set[str]:
        """The cells that pictures were generated for."""
        return {condition.cell for condition in all_conditions(self.params)}

    @cached_property
    def values(self) -> tables.Values:
        """Pseudo-values by measure and cell, one per group: variants of fewer seeds have fewer."""
        return {key: row[np.isfinite(row)] for key, row in tables.values(self.rows).items()}

    @cached_property
    def resolutions(self) -> tables.Resolutions:
        """The smallest possible change of a group's value, where a table has a column for each group of all seeds."""
        steps = tables.resolutions(self.rows)
        groups = max(len(row) for row in self.values.values())
        scale = {key: 1.0 if key[0] in tables.STEPS else len(self.values[key]) / groups for key in steps}
        return {key: step * scale[key] for key, step in steps.items()}

    @cached_property
    def whole(self) -> Mapping[tuple[str, str], float]:
        """Measures of all pictures of a cell together, by measure and cell."""
        return dict(zip(zip(self.rows["measure"], self.rows["cell"], strict=True), self.rows["whole"], strict=True))

    def interval(self, measure: str, cell: str) -> Interval:
        """A measure over groups; KeyError where it was not measured."""
        return t_interval(self.values[measure, cell].tolist())

    def change(self, measure: str, cell: str, reference: str) -> Interval:
        """Of a cell less the reference, group by group."""
        return t_interval((self.values[measure, cell] - self.values[measure, reference]).tolist())

    def counted(self, variants: Sequence[str], pictures: int | None = None) -> str:
        """n of these variants' pictures, for a caption; ``pictures``: of a repeat, if not the section's number."""
        each = self.config.pictures if pictures is None else pictures
        sizes = {}
        for name in variants:
            fewer = protocol_of(self.params, name)
            n = len(fewer.protocol.all_repeats) * each
            sizes[n] = words.pictures(fewer, n, "row")
        against = " and ".join(
            f"{self.n_held_out[kind]} held-out {kind}" for kind in dict.fromkeys(map(self.of, variants))
        )
        said = f"{', or '.join(sizes.values())}, against {against}"
        return f"{said}; same prompts and noise; guidance {self.config.guidance:g}"

    @property
    def pictures_counted(self) -> str:
        """n of the main variants' pictures, for a caption."""
        return self.counted(self.compared or self.of_photographs)

    @property
    def inspected_counted(self) -> str:
        """n of inspected pictures, for a caption."""
        return f"n = {self.n_inspected} held-out {self.noun} in {self.groups} groups"


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left, and decode a few inspected pictures."""
    config, pipeline = Config.of(params), base.load(check_seal(workspace.base))
    measures, papers = workspace.measures, workspace.papers
    vae, sources = pipeline.vae.requires_grad_(False), measure.all_sources(params, workspace)
    generated, spectra = measure.load(measures)
    losses = read_rows(measures / features.LOSSES)
    latents = next(features.inspected(params, workspace, pipeline)).z0[:INSPECTED]
    with torch.no_grad():
        maps = decoder_stages(vae, unscaled(vae, latents), len(stage_columns(losses)))
    return Results(
        params=params,
        config=config,
        latent_side=params.data.size // pipeline.vae_scale_factor,
        kind=kind_of(workspace),
        n_held_out={kind: len(each.split(HELD_OUT)) for kind, each in sources.items()},
        weights=weights(params, workspace),
        history=histories(params, workspace),
        rows=pd.concat([generated, features.rows(params, measures)], ignore_index=True),
        spectra=spectra,
        losses=losses,
        gradients=read_rows(measures / features.GRADIENTS),
        outliers=read_rows(measures / features.OUTLIERS),
        interpolated=read_rows(measures / features.INTERPOLATED),
        maps=maps,
        decoded=decoded(vae, latents),
        browsed=browsed(params, workspace),
        post_trainings=read_table(papers / "berrada2024_post_training.csv"),
        parameterisations=read_table(papers / "berrada2024_parameterisations.csv", ("measure",)).set_index("measure"),
    )


def weights(params: Params, workspace: Workspace) -> dict[str, list[float | None]]:
    """Weights of the term beside the denoiser's, one a training seed; None for plain variants."""
    config = Config.of(params)
    cards = {
        name: [check_seal(workspace.adapter(config.STUDY, name, seed)) / "card.json" for seed in seeds_of(params, name)]
        for name in config.names
    }
    return {name: [_weight(card) for card in listed] for name, listed in cards.items()}


def _weight(card: Path) -> Any:
    """The weight of the loss in a training, null where the training is plain."""
    with reading(card):
        return read_json(card)["weight"]


def histories(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Losses of every variant and training seed."""
    study = Config.STUDY
    runs = [
        read_table(check_seal(workspace.adapter(study, name, seed)) / "history.csv").assign(
            variant=name, training_seed=seed
        )
        for name in Config.of(params).names
        for seed in seeds_of(params, name)
    ]
    return pd.concat(runs, ignore_index=True)


def stage_columns(losses: pd.DataFrame) -> list[str]:
    """The columns of each decoder stage's loss."""
    return [name for name in map(str, losses) if name.startswith("stage")]


def decoded(vae: AutoencoderKL, latents: Tensor) -> dict[str, Tensor]:
    """Pictures of latents as they are, and made smaller by two factors and larger again."""
    pictures = {CLEAN: to_pixels(decode(vae, latents))}
    for method in features.METHODS:
        for factor in features.FACTORS[:2]:
            pictures[f"{method}, {factor:g}"] = to_pixels(decode(vae, features.resized(latents, method, factor)))
    return pictures


def browsed(params: Params, workspace: Workspace) -> Browsed:
    """Pictures of what the first plain variant began with and of main variants that learn what it learns, by start."""
    config, source = Config.of(params), main_sources(params, workspace)
    painted = {(arm.name, arm.start): arm for arm in all_conditions(params)}
    alike = [name for name in config.variants if sources(params, workspace, config.trainings[name]).kind == source.kind]

    def cells(name: str) -> dict[Values, Cell]:
        arms = [painted[name, start] for start in STARTS if (name, start) in painted]
        return {
            (f"{config.guidance:g}", starts.NAMES[arm.start]): store.read(
                location_of(params, arm).folders(workspace.samples, seeds_of(params, arm.variant))
            )
            for arm in arms
        }

    shown = [name for name in (untuned(PLAIN), *alike) if (name, WHITE) in painted]
    real = prepare.WORKS if source.kind == prepare.WORKS else prepare.PHOTOGRAPHS
    return Browsed(
        ["guidance", "first latent"],
        {naming.model(config.STUDY, name): cells(name) for name in shown},
        f"the real {real.removesuffix('s')}",
        by_path(source.split(HELD_OUT), source.pictures),
    )


def by_group(frame: pd.DataFrame, column: str) -> Interval:
    """A column's mean, its interval over groups."""
    return t_interval(frame.groupby("group")[column].mean().tolist())


def change_text(interval: Interval, digits: int = 3) -> str:
    """A change and its interval in words, ``+1.2 (+0.7 to +1.7)``; ``alike``: the same in every group."""
    rounded = (round(number, 9) + 0.0 for number in interval[:3])  # no remains of rounding, and no -0
    mean, low, high = (f"{float(f'{number:.{digits}g}'):+g}" for number in rounded)
    return f"{mean} ({low} to {high})" if low != high else f"{mean} (alike)"
