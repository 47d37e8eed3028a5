"""Parameters of the study of the signal leak (Everaert et al. 2024)."""

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from atelier.params import (
    Given,
    Guidance,
    Name,
    Named,
    Optimisation,
    Params,
    Pictures,
    Rank,
    Sampled,
    Section,
    StudySection,
    StyleName,
    Trained,
    Words,
    Work,
    names_once,
)

DERIVED = r"^(low|plain|words|tuned)-|-unguided$"  # what names of conditions are made of
Shift = Annotated[float, Field(ge=-1000.0, le=1000.0), Named]  # in standard deviations
# names of conditions and leaks, which models and styles must not use
RESERVED = {"white", "again", "offset", "pixel", "dark", "bright", "real", "returned", "colours", "natural"}
RESERVED |= {"untuned"}  # the base, where models are named
FLOW = "flow"  # the cell of a flow: of the one that came with a shipped base, or of a model of that name


class LeakModel(Section):
    """A denoiser tuned for this study: to one style of works, or to photographs with another noise schedule or path."""

    style: StyleName | None = None
    betas: Annotated[list[Annotated[float, Field(gt=0.0, lt=1.0)]], Field(min_length=2, max_length=2)] | None = None
    zero_snr: bool = False  # zero terminal SNR: no signal at the last step
    flow: bool = False  # the straight path from noise to picture, whose first step holds no signal

    @model_validator(mode="after")
    def _one_target(self) -> "LeakModel":
        if sum([self.style is not None, self.betas is not None, self.zero_snr, self.flow]) != 1:
            raise ValueError("style: with betas, zero_snr and flow exactly one says what is learnt")
        if self.betas is not None and self.betas[0] > self.betas[1]:
            raise ValueError(f"betas: expected a schedule's first and last, got {self.betas}")
        return self


class Config(StudySection):
    STUDY: ClassVar[str] = "signal_leak"

    trained: list[Name]
    models: dict[Name, LeakModel]
    rank: Rank
    optimisation: Optimisation
    styles: dict[Name, StyleName]  # named in prompts; {}: the data's largest (styles.py)
    guidance: Guidance
    pictures: Pictures  # per repeat and condition
    frequencies: Annotated[list[Annotated[int, Field(ge=1, le=128)]], Field(min_length=1)]
    targets: Annotated[
        list[Pictures], Field(max_length=100)
    ]  # numbers of pictures of a style to which further leaks are fitted
    offset: Annotated[float, Field(gt=0.0, le=1000.0)]  # standard deviation of offset noise
    values: Annotated[
        list[Shift], Field(min_length=2, max_length=100)
    ]  # values of a channel's mean, in standard deviations
    each_value: Annotated[int, Field(ge=1, le=100_000)]  # pictures per repeat, channel and value
    dark: Words  # words for dark and for bright pictures
    bright: Words

    @model_validator(mode="after")
    def _models_are_trained(self) -> "Config":
        names_once("trained", self.trained, self.models, "models")
        for name, model in self.models.items():
            if model.style is not None and self.styles.get(name) != model.style:
                raise ValueError(f"models.{name}: the style '{model.style}' is not the one of that name in styles")
        if taken := RESERVED & {*self.models, *self.styles}:
            raise ValueError(f"models: '{sorted(taken)[0]}' names something else in this study")
        flows = [name for name, model in self.models.items() if model.flow]
        if FLOW in self.styles or ((flows or FLOW in self.models) and flows != [FLOW]):
            raise ValueError(f"models: a flow is called '{FLOW}', and nothing else is")
        if derived := [name for name in (*self.models, *self.styles) if re.search(DERIVED, name)]:
            raise ValueError(f"models: '{derived[0]}' begins or ends as names of conditions do")
        if len({style.lower() for style in self.styles.values()}) != len(set(self.styles.values())):
            raise ValueError("styles: two differ in upper and lower case only, which some disks do not tell apart")
        for key in ("targets", "values"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise ValueError(f"{key}: a number is listed twice")
        if not {1, 3} <= set(self.frequencies) or len(set(self.frequencies)) != len(self.frequencies):
            raise ValueError("frequencies: 1 and the paper's 3 must be among them, each once")
        return self

    def named_styles(self) -> dict[str, str]:
        return {f"styles.{name}": style for name, style in self.styles.items()}

    def samples(self, params: Params) -> int:
        conditions = 10 + len(self.frequencies) + 3 * len(self.styles) + (2 + len(self.targets)) * len(self.models)
        return conditions * len(params.protocol.all_repeats) * self.pictures

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        natural = given.photographs or given.all_works
        train = given.training(natural)
        match stage:
            case "fit":
                styles = [given.training(given.works.get(style, 0)) for style in set(self.styles.values())]
                again = sum(min(n, works) for n in self.targets for works in styles)
                return Work(encoded=train + given.training(given.all_works) + again)
            case "train":
                model, settings = self.models[named[0]], self.optimisation
                works = min(4096, train)  # train.MOST
                if model.style is not None:
                    works = given.training(given.works.get(model.style, 0))
                everywhere = model.style is None
                learnt = Trained("denoiser", settings.steps, settings.batch, self.rank, everywhere=everywhere)
                return Work(trained=(learnt,), encoded=works, prompts=works)
            case "sample":
                return Work(sampled=tuple(self._sampled(params, given, named[0])))
            case "measure":
                most = min(4096, natural)  # measure.MOST
                again = (1 + len(self.styles)) * self.pictures * len(params.protocol.all_repeats)
                measured = self.samples(params) + most + again
                return Work(encoded=most + again + train, decoded=again, measured=measured)
        return None

    def _sampled(self, params: Params, given: Given, name: str) -> Iterator[Sampled]:
        """What a model paints from one seed: its conditions, with and without guidance, and colours set by hand."""
        repeats, steps, guided = params.protocol.repeats, params.sampling.steps, self.guidance > 1
        if name == "untuned":
            styles = len(self.styles) or min(3, len(given.works))  # styles.MOST
            with_guidance, without = 8 + len(self.frequencies) + 3 * styles, 1
            colours = given.channels * len(self.values) * min(self.each_value, self.pictures)
            yield Sampled(repeats * colours, steps, guided)
        elif self.models[name].style is None:
            with_guidance, without = 1, 1
        else:
            with_guidance, without = 2 + len(self.targets), 0
        yield Sampled(repeats * self.pictures * with_guidance, steps, guided)
        yield Sampled(repeats * self.pictures * without, steps, guided=False)

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        if match := re.fullmatch(r"low-(\d+)", cell):
            return int(match[1]) in self.frequencies
        if match := re.fullmatch(r"(words|plain|tuned)-(.+?)(\+leak(-(\d+))?)?", cell):
            known = {*self.trained} if match[1] == "tuned" else {*self.styles}
            return match[2] in known and (match[5] is None or int(match[5]) in self.targets)
        if cell == FLOW:
            return FLOW in self.models or params.base.source == "shipped"
        return cell != "zero-snr" or cell in self.models
