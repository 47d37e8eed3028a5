"""Parameters of the study of pixel-space post-training (anonymous ICLR submission)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from atelier.params import (
    CORRECTED,
    STARTS,
    WHITE,
    BatchSize,
    Count,
    FilePath,
    Given,
    Guidance,
    Name,
    Optimisation,
    Params,
    Pictures,
    Positive,
    Rank,
    Sampled,
    Section,
    StudySection,
    StyleName,
    Trained,
    TrainingSeed,
    Work,
    names_once,
    subset_once,
)

UNTUNED = "untuned"
# cells that are measured of the data, the base and the loss, whatever the variants
DERIVED = {"nothing", "real", "returned", "real-returned", "noisiest", "cleanest", "t-250", "t-500", "t-750"}
# variants whose pictures are compared pair by pair, beside each with the base's
PAIRED = (
    ("both", "latent"),
    ("both", "pixel"),
    ("both", "both-clean"),
    ("both", "latent-longer"),
    ("simpo-both", "dpo-latent"),
    ("simpo-both", "simpo-latent"),
    ("dpo-both", "dpo-latent"),
)
FEWEST = 8  # works of a painted set
UNSEEN = 200  # held-out works, at most, that judges of defects are tried on
Beta = Annotated[float, Field(gt=0.0, le=1e9)]


class Curated(Section):
    """Works of one style painted for this study alone, of which the best are learnt; 0 and 0: the data's works."""

    painted: Count  # that trainings choose from
    kept: Positive  # the best by the judge that chooses, then by fit to the style
    held_out: Count  # whose prompts are painted, and that measures compare with

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Curated":
        if (self.painted, self.held_out) != (0, 0):
            if min(self.painted, self.held_out) < FEWEST:
                raise ValueError(f"painted: expected at least {FEWEST} of both, or 0 and 0")
            if self.kept > self.painted:
                raise ValueError(f"kept: {self.kept} of {self.painted} painted ones")
        return self


class Candidates(Section):
    """Pictures by the base, of which the best and the worst of each prompt are a pair of preferences."""

    prompts: Positive
    each: Annotated[int, Field(ge=2, le=100)]  # candidates a prompt
    guidance: Guidance


class JudgeTraining(Section):
    """Judges of defects trained for the data and the base at hand: works of the training split, and how."""

    works: Annotated[int, Field(ge=8, le=100_000)]  # at most; all are in memory
    side: Annotated[int, Field(ge=0, le=1024, multiple_of=8)]  # px of the window of a work that is learnt; 0: all of it
    optimisation: Optimisation

    @property
    def unseen(self) -> int:
        """Held-out works, at most, on which pairs are put in order."""
        return min(self.works, UNSEEN)


class PostTraining(Section):
    """One post-training: what it learns from, and in which space."""

    method: Literal["supervised", "dpo", "simpo", "ipo", "hinge"]
    terms: Literal["latent", "pixel", "both"]
    decoded: Literal["noisy", "clean"] = "noisy"  # eq. 2, or the clean estimate, eq. 8
    noise: Literal["shared", "separate"] = "shared"  # of a pair's winner and loser; the timestep is one
    kind: Literal["base", "v_prediction"] = "base"
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5  # of both terms: the pixel term's, of the gradients' norms
    longer: Annotated[float, Field(ge=1.0, le=1000.0)] = 1.0  # factor on the number of steps
    steps: Positive | None = None  # instead of the optimisation's

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "PostTraining":
        fields = type(self).model_fields.items()  # not `model_fields_set`: a notebook sets all
        named = {name for name, field in fields if getattr(self, name) != field.default}
        if self.terms != "both" and "share" in named:
            raise ValueError(f"share: of two terms, this is {self.terms} alone")
        if self.terms == "latent" and "decoded" in named:
            raise ValueError("decoded: of the pixel term, this is latent alone")
        if self.method == "supervised" and "noise" in named:
            raise ValueError("noise: of pairs of preferences, this is supervised")
        return self

    @property
    def refers(self) -> bool:
        """Whether the loss compares with the denoiser without its adapter."""
        return self.method in ("dpo", "ipo", "hinge")


class Config(StudySection):
    STUDY: ClassVar[str] = "pixel_space"

    style: StyleName | None  # that all variants learn, paint and are measured in; None: the data's works of every style
    judges: FilePath | None  # of defects: a folder with ``choosing`` and ``measuring``; None: they are trained
    judge_training: JudgeTraining | None  # where no folder has them
    curated: Curated
    candidates: Candidates
    variants: Annotated[list[Name], Field(min_length=1)]
    ablations: list[Name]  # variants that are trained from fewer seeds
    ablation_seeds: list[TrainingSeed]
    trainings: dict[Name, PostTraining]
    rank: Rank  # of adapters on every layer; without them the denoiser is its own reference
    crop: Count  # latent elements per side that are decoded; 0: whole pictures
    slices: BatchSize  # pictures that are decoded at once
    beta: Beta  # of losses with a reference, of mean errors
    simpo_beta: Beta  # of the loss without one, whose gaps are of the pairs' errors alone
    margin: Annotated[float, Field(ge=0.0, le=1e6)]  # SimPO's gamma
    most: Annotated[float, Field(gt=1.0, le=1e6)]  # of the winners' error, over the base's: beyond it training stops
    supervised: Optimisation
    preference: Optimisation
    guidance: Guidance
    pictures: Pictures  # per repeat and variant
    restored: Pictures  # held-out works per repeat that are noised and denoised, to keep their layout
    strength: Annotated[float, Field(gt=0.0, lt=1.0)]  # of that noise, as a share of the sampler's steps
    inspected: Pictures  # works on whose latents both forms of the loss are compared
    sitting: Annotated[int, Field(ge=1, le=1000)]  # pairs that people are shown at a time

    @model_validator(mode="after")
    def _variants_are_trainings(self) -> "Config":
        names_once("variants", self.names, self.trainings, "trainings, with ablations,")
        made = {corrected(name) for name in [UNTUNED, *self.trainings]} | {against(*pair) for pair in self.compared}
        if taken := ({UNTUNED} | DERIVED | made) & set(self.trainings):
            raise ValueError(f"trainings: '{sorted(taken)[0]}' names something else in this study")
        return self

    @model_validator(mode="after")
    def _judges_come_from_somewhere(self) -> "Config":
        if (self.judges is None) == (self.judge_training is None):
            raise ValueError("judges: expected a folder that has them, or judge_training, and null for the other")
        return self

    def check(self, params: Params) -> None:
        if self.crop * 8 > params.data.size:
            raise ValueError(f"pixel_space.crop: {self.crop} is more than a latent's side")
        if self.judge_training and self.judge_training.side > params.data.size:
            raise ValueError(f"pixel_space.judge_training.side: more than the pictures' {params.data.size} px")
        if self.curated.painted and self.style is None:
            raise ValueError("pixel_space.style: expected one of the painter's, because works are painted in it")
        if self.curated.painted and self.curated.kept < (groups := len(params.protocol.groups)):
            raise ValueError(f"pixel_space.curated.kept: {self.curated.kept}, fewer than {groups} groups of repeats")
        if self.ablations:
            seeds = params.protocol.training_seeds
            subset_once("pixel_space.ablation_seeds", self.ablation_seeds, seeds)
            if len(self.ablation_seeds) < min(2, len(seeds)):
                raise ValueError("pixel_space.ablation_seeds: expected two or more, because intervals are over them")

    def named_styles(self) -> dict[str, str]:
        return {} if self.style is None else {"style": self.style}

    def fewest(self, params: Params) -> int:
        """Works that both splits must have: one for each group of repeats, and two, of which there is a distance."""
        return 2 if self.curated.painted else max(2, len(params.protocol.groups))

    def named_files(self) -> dict[str, list[str]]:
        if self.judges is None:
            return {}
        return {"judges": [f"{self.judges}/{role}/judge.safetensors" for role in ("choosing", "measuring")]}

    def samples(self, params: Params) -> int:
        repeats = {name: len(protocol_of(params, name).protocol.all_repeats) for name in self.names}
        repeats[UNTUNED] = len(params.protocol.all_repeats)
        return sum(n * (len(self.starts(name)) * self.pictures + self.restored) for name, n in repeats.items())

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        of_style = given.all_works if self.style is None else given.works.get(self.style, 0)
        test = self.curated.held_out or given.held_out(of_style)
        kept = min(self.curated.kept, self.curated.painted or given.training(of_style))
        steps, inspected = params.sampling.steps, self.inspected * len(params.protocol.groups)
        match stage:
            case "judges":
                if (settings := self.judge_training) is None:
                    return Work()
                of_each = (min(settings.works, given.training(given.all_works)), settings.unseen)
                return Work(encoded=sum(of_each), decoded=sum(of_each), measured=sum(of_each))
            case "choose":
                drawn = self.candidates
                made = Sampled(drawn.prompts * drawn.each, steps, drawn.guidance > 1, states=0)  # pairs' latents alone
                prompts = kept * params.protocol.prompts.per_work
                return Work(sampled=(made,), encoded=kept + test, decoded=test, prompts=prompts, cached=kept)
            case "train":
                return Work(trained=(self._trained(named[0]),))
            case "sample":
                repeats = params.protocol.repeats
                starts = STARTS if named[0] == UNTUNED else self.starts(named[0])
                painted = Sampled(len(starts) * repeats * self.pictures, steps, self.guidance > 1)
                restored = Sampled(repeats * self.restored, max(1, round(self.strength * steps)))
                return Work(sampled=(painted, restored), encoded=restored.pictures)
            case "inspect":
                # 20 levels, in each of which two forms decode twice, once with a gradient; three round trips
                decoded = (20 * 2 * 4 + 3) * inspected
                return Work(encoded=4 * inspected, prompts=inspected, denoised=20 * inspected, decoded=decoded)
            case "measure":
                return Work(measured=self.samples(params))
        return None

    def _trained(self, name: str) -> Trained:
        training, settings = self.trainings[name], self.optimisation_of(name)
        pair = 1 if training.method == "supervised" else 2
        learnt = Trained("denoiser", settings.steps, settings.batch * pair, self.rank, everywhere=True)
        decoded = 0.0 if training.terms == "latent" else 1.0
        return learnt._replace(unlearnt=int(training.refers), decoded=decoded, slices=self.slices)

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        if measure == "winner_error":
            return cell == "nothing" or (cell in self.trainings and self.trainings[cell].method != "supervised")
        cells = {UNTUNED: [WHITE, CORRECTED]} | {name: self.starts(name) for name in self.names}
        cells |= {against(*pair): self.starts(pair[0]) for pair in self.compared}
        return cell in DERIVED | cells.keys() | {corrected(name) for name in cells if CORRECTED in cells[name]}

    @property
    def compared(self) -> list[tuple[str, str]]:
        """What is compared pair by pair: each training with the base, and variants with each other."""
        with_base = [(name, UNTUNED) for name in self.names]
        return with_base + [pair for pair in PAIRED if set(pair) <= set(self.variants)]

    @property
    def names(self) -> list[str]:
        """All trainings, ablations last."""
        return [*self.variants, *self.ablations]

    def optimisation_of(self, name: str) -> Optimisation:
        """A training's optimisation, with its own number of steps."""
        training = self.trainings[name]
        base = self.supervised if training.method == "supervised" else self.preference
        steps = round((training.steps or base.steps) * training.longer)
        return base.model_copy(update={"steps": steps})

    def starts(self, name: str) -> list[str]:
        """First latents that a variant paints from: white noise alone for ablations."""
        return [WHITE] if name in self.ablations else [WHITE, CORRECTED]


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


def corrected(cell: str) -> str:
    """A cell's pictures from noise with the leak of training pictures."""
    return f"{cell}-{CORRECTED}"


def against(changed: str, reference: str) -> str:
    """The cell of what is measured pair by pair of two others' pictures."""
    return f"{changed}-over-{reference}"
