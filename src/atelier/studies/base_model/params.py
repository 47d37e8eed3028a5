"""Parameters of the study of the base model."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from atelier.params import STARTS, Given, Guidance, Params, Pictures, Sampled, StudySection, Work


class Config(StudySection):
    STUDY: ClassVar[str] = "base_model"

    pictures: Pictures
    guidance: Annotated[list[Guidance], Field(min_length=1, max_length=100)]
    measured_at: float

    @model_validator(mode="after")
    def _measured_at_a_scale(self) -> "Config":
        if len(set(self.guidance)) != len(self.guidance):
            raise ValueError("guidance: a scale is listed twice")
        if self.measured_at not in self.guidance:
            raise ValueError(f"measured_at: expected one of guidance's scales, got {self.measured_at!r}")
        return self

    def samples(self, params: Params) -> int:
        return 2 * self.pictures * len(STARTS)  # of works and of photographs; the sheets are small

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        if stage != "sample":
            return None
        steps = params.sampling.steps
        pictures = [min(self.pictures, given.held_out(n)) for n in (given.all_works, given.photographs)]
        painted = Sampled(len(STARTS) * sum(pictures), steps, self.measured_at > 1)
        sheets = 12 + len(given.works) + 9  # subjects, styles and emotions
        return Work(sampled=(painted, *(Sampled(sheets, steps, scale > 1) for scale in self.guidance)))
