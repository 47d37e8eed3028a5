"""Parameters of the study of the latent perceptual loss (Berrada Ifriqi et al. 2024)."""

import math
import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from atelier.params import (
    CORRECTED,
    WHITE,
    BatchSize,
    Count,
    DepthWeights,
    Given,
    Guidance,
    Mask,
    Name,
    Named,
    Norm,
    Optimisation,
    Params,
    Pictures,
    Positive,
    Rank,
    Sampled,
    Section,
    StudySection,
    Trained,
    TrainingSeed,
    Work,
    names_once,
    subset_once,
)

PLAIN, MAIN = "plain", "lpl"  # the two variants that claims compare
SHORT_PLAIN, SHORT_MAIN = "plain-short", "lpl-short"  # the same where ablations have fewer steps or seeds
# cells that are measured of the base, its features and the data, whatever the variants
DERIVED = {"bicubic", "deep-maps", "fifth", "half", "nearest", "nothing", "one-percent", "pairs"}
FEWEST = 8  # photographs of a painted set
HALF_LIVES = 6  # of averages, that claim C10 needs


def _typed(value: object) -> object:
    """ValueError for what Python takes for a whole number: true is equal to 1, and so is 1.0."""
    if isinstance(value, bool | float):
        raise ValueError("input should be 1, 2, 3, 4, 5 or 'pixels'")
    return value


Depth = Annotated[Literal[1, 2, 3, 4, 5, "pixels"], BeforeValidator(_typed)]
HalfLife = Annotated[float, Field(ge=0.001, le=1e5), Named]  # of an average of parameters, in steps


class Corpus(Section):
    """Photographs painted for this study alone; none: the data's photographs, or its works where it has none."""

    photographs: Count  # that trainings learn from
    held_out: Count  # that measures compare with

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Corpus":
        if (self.photographs, self.held_out) != (0, 0) and min(self.photographs, self.held_out) < FEWEST:
            raise ValueError(f"photographs: expected at least {FEWEST} of both, or 0 and 0")
        return self


class PostTraining(Section):
    """One post-training: its pictures, the kind of denoiser, the loss added to the denoising loss, the duration."""

    loss: Literal["plain", "perceptual", "reweighted"]  # reweighted: squared error of latents on the same steps
    of: Literal["photographs", "works"] = "photographs"
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
    steps: Positive | None = None  # instead of the optimisation's


class Config(StudySection):
    STUDY: ClassVar[str] = "latent_perceptual"

    corpus: Corpus
    variants: Annotated[list[Name], Field(min_length=1)]
    ablations: list[Name]  # variants that are trained from fewer seeds
    ablation_seeds: list[TrainingSeed]
    trainings: dict[Name, PostTraining]
    rank: Rank | None  # of adapters on every layer; None: the whole denoiser
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
    pictures_in_steps: Pictures  # per repeat of a followed variant with another number of steps
    inspected: Pictures  # held-out pictures per group of repeats for the stage ``features``

    @model_validator(mode="after")
    def _variants_are_trainings(self) -> "Config":
        names_once("variants", self.names, self.trainings, "trainings, with ablations,")
        if taken := {"untuned", AGAIN, "real", "returned"} & set(self.trainings):
            raise ValueError(f"trainings: '{sorted(taken)[0]}' names something else in this study")
        derived = {made(name) for name in self.trainings for made in (untuned, again, corrected)}
        derived |= {averaged(name, each) for name in self.followed for each in self.averages}
        derived |= {in_steps(name, each) for name in self.followed for each in self.steps}
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
        if self.ablations:
            self._check_ablations(params)

    def _check_ablations(self, params: Params) -> None:
        """Ablations are compared group by group: with each other, and with nothing of other seeds."""
        key, seeds = "latent_perceptual.ablation_seeds", params.protocol.training_seeds
        subset_once(key, self.ablation_seeds, seeds)
        if self.ablation_seeds != [seed for seed in seeds if seed in self.ablation_seeds]:
            raise ValueError(f"{key}: expected in the order of protocol.training_seeds, {seeds}")
        if len(self.ablation_seeds) < min(2, len(seeds)):
            raise ValueError(f"{key}: expected two or more, because intervals are over them")
        with_loss = [name for name in self.ablations if self.trainings[name].loss != "plain"]
        if self.ablation_seeds != seeds and with_loss and not {SHORT_PLAIN, SHORT_MAIN} <= set(self.ablations):
            needed = f"{SHORT_PLAIN} and {SHORT_MAIN}"
            raise ValueError(f"latent_perceptual.ablations: of fewer seeds, they are compared with {needed}; name both")

    def samples(self, params: Params) -> int:
        total = 0
        for name in self.trainings:
            cells = len(self.starts(name)) * (1 + self.begins(name) + self.repeated(name))
            each = cells * self.pictures
            if name in self.followed:
                each += len(self.averages) * self.pictures + len(self.steps) * self.pictures_in_steps
            total += each * len(protocol_of(params, name).protocol.all_repeats)
        return total

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        train, test = (of(self._pictures(given)) for of in (given.training, given.held_out))
        inspected = self.inspected * len(params.protocol.groups)
        match stage:
            case "corpus" if given.photographs or self.corpus.photographs:
                return Work(encoded=train + test, decoded=test, prompts=train, cached=train)
            case "corpus":
                return Work()
            case "train":
                return Work(trained=(self._trained(named[0]),))
            case "sample":
                return Work(sampled=tuple(self._sampled(params, named[0])))
            case "features":
                # eight levels, each with estimates and gradients; nine interpolations and their target
                return Work(
                    encoded=inspected, prompts=inspected, denoised=8 * inspected, decoded=(8 * 3 + 10) * inspected
                )
            case "measure":
                return Work(encoded=train, decoded=train, measured=self.samples(params) + train + test)
        return None

    def _pictures(self, given: Given) -> int:
        """Photographs that the data has, or works in their place."""
        return given.photographs or given.all_works

    def _trained(self, name: str) -> Trained:
        training, settings = self.trainings[name], self.optimisation
        steps, keeps = training.before + self.steps_of(name), 1 + len(self.averages) * (name in self.followed)
        decoded = share_under(training.tau) * self.steps_of(name) / steps if training.loss == "perceptual" else 0.0
        learnt = Trained("denoiser", steps, settings.batch, self.rank, everywhere=True, keeps=keeps)
        return learnt._replace(decoded=decoded, slices=self.slices)

    def _sampled(self, params: Params, name: str) -> Iterator[Sampled]:
        """What a variant paints from one seed."""
        repeats, usual, guided = params.protocol.repeats, params.sampling.steps, self.guidance > 1
        models = len(self.starts(name)) * (1 + self.begins(name) + self.repeated(name))
        models += len(self.averages) if name in self.followed else 0
        yield Sampled(models * repeats * self.pictures, usual, guided)
        for steps in self.steps if name in self.followed else []:
            yield Sampled(repeats * self.pictures_in_steps, steps, guided)

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        if measure == "log_half_life":
            return cell in self.followed and len(self.averages) >= HALF_LIVES
        if match := re.fullmatch(r"(.+)-steps-(\d+)", cell):
            return match[1] in self.followed and int(match[2]) in self.steps
        if match := re.fullmatch(r"gain-in-(\d+)", cell):
            return {PLAIN, MAIN} <= set(self.followed) and int(match[1]) in self.steps
        if match := re.fullmatch(r"gain-after-(\d+)", cell):
            return int(match[1]) in self.ages
        of = {name: name for name in self.trainings}
        of |= {again(name): name for name in self.trainings if self.repeated(name)}
        of |= {untuned(name): name for name in self.trainings if self.begins(name)}
        of |= {corrected(made): name for made, name in of.items() if CORRECTED in self.starts(name)}
        return cell in of or cell in DERIVED

    def plain_of(self, name: str) -> str | None:
        """The baseline of ``name``: the plain variant of the same pictures, kind, steps, steps before and seeds."""
        changed = self.trainings[name]
        alike = {"of", "kind", "before", "steps"}
        for baseline in self.ablations if name in self.ablations else self.variants:
            training = self.trainings[baseline]
            if (training.loss, training.longer) == ("plain", 1.0) and all(
                getattr(training, setting) == getattr(changed, setting) for setting in alike
            ):
                return baseline
        return None

    @property
    def names(self) -> list[str]:
        """All trainings, ablations last."""
        return [*self.variants, *self.ablations]

    @property
    def ablated(self) -> tuple[str, str]:
        """The plain variant and the one with the loss that ablations are compared with: of as few steps and seeds."""
        short = {SHORT_PLAIN, SHORT_MAIN} <= set(self.trainings)
        return (SHORT_PLAIN, SHORT_MAIN) if short else (PLAIN, MAIN)

    @property
    def ages(self) -> dict[int, str]:
        """Variants that differ from the one with the loss in the steps trained before alone, by these steps."""
        wanted = self.trainings.get(self.ablated[1])
        return {
            training.before: name
            for name, training in self.trainings.items()
            if wanted and training == wanted.model_copy(update={"before": training.before})
        }

    def steps_of(self, name: str) -> int:
        """Steps of a variant's post-training, without the steps before it."""
        training = self.trainings[name]
        return round((training.steps or self.optimisation.steps) * training.longer)

    def starts(self, name: str) -> list[str]:
        """First latents that a variant paints from.

        White noise alone for a flow, because the leak is one of diffusion; and for ablations: white noise decides, and
        the other start is painted of what they are taken from.
        """
        flow = self.trainings[name].kind == "flow_prediction"
        return [WHITE] if flow or name in self.ablations else [WHITE, CORRECTED]

    def begins(self, name: str) -> bool:
        """Whether pictures of what a variant begins with are measured: once for each kind of pictures and denoiser."""
        training = self.trainings[name]
        alike = [
            each
            for each in self.names
            if (self.trainings[each].of, self.trainings[each].kind) == (training.of, training.kind)
            and self._is_baseline(each)
        ]
        return alike[:1] == [name]

    def repeated(self, name: str) -> bool:
        """Whether a variant is painted again with other noise, to estimate the effect of chance."""
        return self._is_baseline(name) and self.trainings[name].kind == "base"

    def _is_baseline(self, name: str) -> bool:
        return self.plain_of(name) == name and not self.trainings[name].before


def share_under(tau: float) -> float:
    """The share of Stable Diffusion's 1000 steps with a noise-to-signal ratio of at most ``tau``.

    Schedules are matched to a latent's side as thresholds are, so that it is about that of every base.
    """
    first, last, left, under = math.sqrt(0.00085), math.sqrt(0.012), 1.0, 0
    for step in range(1000):
        left *= 1 - (first + (last - first) * step / 999) ** 2
        under += (1 - left) <= tau**2 * left
    return under / 1000


def protocol_of(params: Params, variant: str) -> Params:
    """``params`` with the seeds that a variant is trained from, alone."""
    config = Config.of(params)
    if variant not in config.ablations:
        return params
    fewer = params.protocol.model_copy(update={"training_seeds": config.ablation_seeds})
    return params.model_copy(update={"protocol": fewer})


def seeds_of(params: Params, variant: str) -> list[int]:
    """The seeds that a variant is trained from."""
    return protocol_of(params, variant).protocol.training_seeds


# ------------------------------------------------------------------------------------------------ names of cells

AGAIN = "again"  # the plain variant under other noise


def untuned(variant: str) -> str:
    """A variant's initial model."""
    return f"untuned-{variant}"


def again(variant: str) -> str:
    """A plain variant under other noise."""
    return AGAIN if variant == PLAIN else f"{AGAIN}-{variant}"


def corrected(cell: str) -> str:
    """A cell's pictures from noise with the leak of training pictures."""
    return f"{cell}-{CORRECTED}"


def in_steps(variant: str, steps: int) -> str:
    return f"{variant}-steps-{steps}"


def averaged(variant: str, half_life: float) -> str:
    return f"{variant}-average-{half_life:g}"
