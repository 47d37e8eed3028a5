"""Parameters of the study of the retuned decoder (Sickert et al. 2025)."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from atelier.params import (
    STARTS,
    Given,
    Guidance,
    Name,
    Optimisation,
    Params,
    Scope,
    Section,
    StudySection,
    Trained,
    Weight,
    Work,
    names_once,
    parts_of,
    subset_once,
)

TUNED_BY = "art_finetuning"  # the study whose models' pictures are decoded again


class LossWeights(Section):
    """One retuning of the decoder: the part that is trained, and the weights of its loss."""

    scope: Scope
    mse: Weight
    lpips: Weight
    ffl: Weight

    @model_validator(mode="after")
    def _has_a_loss(self) -> "LossWeights":
        if not self.mse + self.lpips + self.ffl:
            raise ValueError("mse: with lpips and ffl it is zero: nothing to learn from")
        return self


class Config(StudySection):
    STUDY: ClassVar[str] = "vae_decoder"

    variants: Annotated[list[Name], Field(min_length=1)]
    decoders: dict[Name, LossWeights]
    crop: Annotated[int, Field(ge=0, le=1024, multiple_of=8)]  # px; 0: whole pictures
    checkpointing: bool
    optimisation: Optimisation
    models: Annotated[list[Name], Field(min_length=1)]  # models whose pictures are decoded again
    guidance: Annotated[list[Guidance], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _variants_are_decoders(self) -> "Config":
        names_once("variants", self.variants, self.decoders, "decoders")
        if "original" in self.decoders:
            raise ValueError("decoders: 'original' is what the decoder that was not retuned is called")
        return self

    def check(self, params: Params) -> None:
        subset_once("vae_decoder.models", self.models, ["untuned", *params.section(TUNED_BY).adapters])
        subset_once("vae_decoder.guidance", self.guidance, params.protocol.guidance)
        if self.crop > params.data.size:
            raise ValueError(f"vae_decoder.crop: {self.crop} px is more than the pictures' {params.data.size}")

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        protocol, settings, test = params.protocol, self.optimisation, given.held_out(given.all_works)
        match stage:
            case "train":
                learnt = Trained("decoder", settings.steps, settings.batch, side=self.crop)
                return Work(trained=(learnt._replace(checkpointing=self.checkpointing),))
            case "reconstruct":
                every = test * (1 + len(self.variants))
                return Work(encoded=every, decoded=every, measured=every)
            case "measure":
                cells = len(self.guidance) * len(STARTS) * (1 if named == ("plain-words",) else len(self.variants))
                made = cells * len(protocol.all_repeats) * protocol.pictures
                return Work(decoded=made, measured=made)
            case "collect":
                return Work()
        return None

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        model, decoder, _, guidance = parts_of(cell)
        if guidance is None:
            return model in ("original", *self.variants)
        scales = [f"{scale:g}" for scale in self.guidance]
        return model in self.models and decoder in ("", *self.variants) and guidance in scales
