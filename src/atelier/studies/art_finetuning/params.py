"""Parameters of the study of fine-tuning on art (Sickert et al. 2025)."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from atelier.params import (
    STARTS,
    Given,
    Name,
    Optimisation,
    Params,
    Rank,
    Section,
    Share,
    StudySection,
    Trained,
    Work,
    guided_alike,
    names_once,
    parts_of,
    subset_once,
)


class Adapter(Section):
    rank: Rank | None  # None: the whole denoiser, not an adapter
    empty_prompts: Share
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None  # instead of the optimisation's


class Config(StudySection):
    STUDY: ClassVar[str] = "art_finetuning"

    variants: Annotated[list[Name], Field(min_length=1)]
    adapters: dict[Name, Adapter]
    optimisation: Optimisation
    diagnosed: list[Name]  # variants examined by the stage ``diagnose``

    @model_validator(mode="after")
    def _variants_are_adapters(self) -> "Config":
        names_once("variants", self.variants, self.adapters, "adapters")
        if taken := [name for name in self.adapters if name == "untuned" or name.startswith("untuned-")]:
            raise ValueError(f"adapters: '{taken[0]}' is what the model without an adapter is called")
        subset_once("diagnosed", self.diagnosed, self.variants)
        return self

    def samples(self, params: Params) -> int:
        protocol = params.protocol
        each = len(protocol.all_repeats) * protocol.pictures * len(protocol.guidance) * len(STARTS)
        return each * (2 + len(self.variants))

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        protocol, test = params.protocol, given.held_out(given.all_works)
        seed, sets = protocol.repeats * protocol.pictures, 2 if named[:1] == ("untuned",) else 1
        match stage:
            case "train":
                settings = self.optimisation
                return Work(
                    trained=(Trained("denoiser", settings.steps, settings.batch, self.adapters[named[0]].rank),)
                )
            case "sample":
                return Work(sampled=guided_alike(params, sets * seed))
            case "measure":
                cells = sets * len(protocol.guidance) * len(STARTS)
                return Work(measured=cells * len(protocol.training_seeds) * seed)
            case "styles":
                return Work(measured=given.all_works)
            case "diagnose":
                return Work(encoded=test, prompts=test, denoised=10 * test)  # at diagnose.LEVELS
        return None

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        model, _, level, guidance = parts_of(cell)
        known = model in (*self.variants, "untuned", "untuned-again") and level == params.protocol.prompts.level
        return known and guidance in [f"{scale:g}" for scale in params.protocol.guidance]
