"""Parameters of the study of prompts at three levels (Sickert et al. 2025)."""

from typing import Annotated, ClassVar

from pydantic import Field

from atelier.params import (
    STARTS,
    Given,
    Level,
    Name,
    Params,
    StudySection,
    Work,
    guided_alike,
    parts_of,
    subset_once,
)

TUNED_BY = "art_finetuning"  # the study whose models paint from these prompts
CONTROL = "full-mixed"  # its positive control, the whole denoiser tuned


class Config(StudySection):
    """Tuned models that also paint from prompts of other levels, as the untuned base does."""

    STUDY: ClassVar[str] = "prompt_enrichment"

    models: Annotated[list[Name], Field(min_length=1)]
    levels: Annotated[list[Level], Field(min_length=1)]

    def check(self, params: Params) -> None:
        subset_once("prompt_enrichment.models", self.models, list(params.section(TUNED_BY).adapters))
        if params.protocol.prompts.level in self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError("prompt_enrichment.levels: expected other levels than the protocol's, each once")

    def samples(self, params: Params) -> int:
        protocol = params.protocol
        each = len(protocol.all_repeats) * protocol.pictures * len(protocol.guidance) * len(STARTS)
        return each * len(self.levels) * (1 + len(self.models))

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        protocol = params.protocol
        seed = protocol.repeats * protocol.pictures * len(self.levels)
        match stage:
            case "sample":
                return Work(sampled=guided_alike(params, seed))
            case "measure":
                return Work(measured=len(protocol.guidance) * len(STARTS) * len(protocol.training_seeds) * seed)
            case "collect":
                return Work()
        return None

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        model, _, level, guidance = parts_of(cell)
        if guidance not in [f"{scale:g}" for scale in params.protocol.guidance]:
            return False
        if level == params.protocol.prompts.level:
            return model in ("untuned", *params.section(TUNED_BY).variants)
        return model in ("untuned", "untuned-decoder", *self.models) and level in self.levels
