"""Parameters of the study of the latent perceptual loss (Berrada Ifriqi et al. 2024)."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from atelier.params import (
    BatchSize,
    Count,
    DepthWeights,
    Guidance,
    Mask,
    Name,
    Named,
    Norm,
    Optimisation,
    Params,
    Pictures,
    Rank,
    Section,
    StudySection,
    names_once,
    subset_once,
)

# cells that are measured of the base, its features and the data, whatever the variants
DERIVED = {"again", "bicubic", "deep-maps", "fifth", "half", "nearest", "nothing", "one-percent", "pairs"}


def _typed(value: object) -> object:
    """ValueError for what Python takes for a whole number: true is equal to 1, and so is 1.0."""
    if isinstance(value, bool | float):
        raise ValueError("input should be 1, 2, 3, 4, 5 or 'pixels'")
    return value


Depth = Annotated[Literal[1, 2, 3, 4, 5, "pixels"], BeforeValidator(_typed)]
HalfLife = Annotated[float, Field(ge=0.001, le=1e5), Named]  # of an average of parameters, in steps


class PostTraining(Section):
    """One post-training: the kind of denoiser, the loss added to the denoising loss, and the duration."""

    loss: Literal["plain", "perceptual", "reweighted"]  # reweighted: squared error of latents on the same steps
    kind: Literal["base", "v_prediction", "flow_prediction"] = "base"
    depth: Depth = 5  # stages of the decoder, or the decoded picture, which is never cropped
    norm: Norm = "predicted"
    depth_weights: DepthWeights = "inverse"
    mask: Mask = "predicted"
    tau: Annotated[float, Field(gt=0.0, le=1e6)] = (
        4.0  # noise-to-signal ratio up to which the loss counts, for a latent of 64
    )
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # share of the total loss at the start
    before: Count = 0  # steps of plain post-training before it
    longer: Annotated[float, Field(ge=1.0, le=1000.0)] = 1.0  # factor on the number of steps


class Config(StudySection):
    STUDY: ClassVar[str] = "latent_perceptual"

    variants: Annotated[list[Name], Field(min_length=1)]
    trainings: dict[Name, PostTraining]
    rank: Rank  # of adapters on every layer
    crop: Count  # latent elements per side to which the middle block's features are cropped; 0: no cropping
    slices: BatchSize  # batch size of decoding
    optimisation: Optimisation
    guidance: Guidance
    pictures: Pictures  # per repeat and variant
    followed: list[Name]  # variants that keep averages, and are also painted with other numbers of steps
    averages: Annotated[
        list[Annotated[float, Field(ge=0.001, le=1e5), Named]], Field(max_length=100)
    ]  # half-lives in steps
    steps: list[Annotated[int, Field(ge=1, le=1000)]]  # of the sampler
    inspected: Pictures  # held-out works per group of repeats for the stage ``features``

    @model_validator(mode="after")
    def _variants_are_trainings(self) -> "Config":
        names_once("variants", self.variants, self.trainings, "trainings")
        if taken := {"untuned", "again", "real", "returned"} & set(self.trainings):
            raise ValueError(f"trainings: '{sorted(taken)[0]}' names something else in this study")
        derived = {f"untuned-{name}" for name in self.trainings}
        derived |= {f"{name}-average-{each:g}" for name in self.followed for each in self.averages}
        derived |= {f"{name}-steps-{each}" for name in self.followed for each in self.steps}
        if taken := derived & set(self.trainings):
            raise ValueError(f"trainings: '{sorted(taken)[0]}' names pictures of another training")
        subset_once("followed", self.followed, self.variants)
        if len(set(self.averages)) != len(self.averages):
            raise ValueError("averages: a half-life is listed twice")
        if len(set(self.steps)) != len(self.steps):
            raise ValueError("steps: a number is listed twice")
        for name, training in self.trainings.items():
            if training.loss != "plain" and self.plain_of(name) is None:
                raise ValueError(f"trainings.{name}: nothing to compare it with, no plain one of its kind and before")
        return self

    def check(self, params: Params) -> None:
        if self.crop * 8 > params.data.size:
            raise ValueError(f"latent_perceptual.crop: {self.crop} is more than a latent's side")

    def samples(self, params: Params) -> int:
        sampled = (2 + len(self.variants) + len(self.followed) * len(self.steps)) * params.protocol.repeats
        return sampled * self.pictures

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        if measure == "log_half_life":
            return cell in self.followed
        if match := re.fullmatch(r"(.+)-steps-(\d+)", cell):
            return match[1] in self.followed and int(match[2]) in self.steps
        if cell.startswith("gain-"):
            return bool(self.followed)
        return cell in self.variants or cell in DERIVED

    def plain_of(self, name: str) -> str | None:
        """The baseline of ``name``: the plain variant of the same kind with equally many steps before."""
        changed = self.trainings[name]
        for baseline, training in self.trainings.items():
            if (training.loss, training.kind, training.before, training.longer) == (
                "plain",
                changed.kind,
                changed.before,
                1.0,
            ):
                return baseline
        return None
