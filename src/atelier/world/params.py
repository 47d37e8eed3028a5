"""Load and validate world/params.yaml, the parameters of the embedded world."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from atelier.params import (
    BatchSize,
    Count,
    Guidance,
    Machine,
    Name,
    Optimisation,
    Rank,
    Section,
    Seed,
    Share,
    StyleName,
    Weight,
    read,
    validated,
)


class Corpus(Section):
    """Numbers of pictures painted for one network."""

    photographs: Count
    works: Count


class Trunk(Section):
    corpus: Corpus
    optimisation: Optimisation
    heads: Optimisation


class Evaluator(Section):
    corpus: Corpus
    prompts_per_picture: Annotated[int, Field(ge=1, le=1000)]
    optimisation: Optimisation


class Autoencoder(Section):
    corpus: Corpus
    optimisation: Optimisation


class Decoder(Section):
    perceptual: Weight
    adversarial: Weight
    optimisation: Optimisation


class Denoiser(Section):
    corpus: Corpus
    prompts_per_picture: Annotated[int, Field(ge=1, le=1000)]
    empty_prompts: Share
    prediction: Literal["epsilon", "v_prediction"]
    min_snr: Annotated[float, Field(gt=0, le=1000)] | None  # gamma of the loss's weights; None: all weigh the same
    optimisation: Optimisation


class Changed(Section):
    """What differs from the preset's sizes; None: nothing."""

    latent: Annotated[int, Field(ge=1, le=64)] | None = None
    channels: Annotated[list[Annotated[int, Field(ge=16, le=2048, multiple_of=16)]], Field(min_length=1)] | None = None
    layers: Annotated[int, Field(ge=1, le=8)] | None = None  # a block of the denoiser


class Pilot(Section):
    """A base that is trained for a short while, to see what a longer training would gain."""

    changed: Changed = Changed()
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    min_snr: Annotated[float, Field(gt=0, le=1000)] | None = None
    autoencoder: bool = False  # whether it is trained, too; else the shipped one


class Pilots(Section):
    autoencoder: Annotated[int, Field(ge=1)]  # steps, of the encoder and of the decoder alone
    denoiser: Annotated[int, Field(ge=1)]  # steps
    leak: Annotated[int, Field(ge=2)]  # photographs that the corrected first latents are fitted to
    variants: dict[Name, Pilot]


class Defects(Section):
    """Two judges of planted defects, alike but for kind and seed."""

    corpus: Corpus
    optimisation: Optimisation


class Conversion(Section):
    rank: Rank
    optimisation: Optimisation


class Shipped(Section):
    """The pictures that studies read, with the painter's seed, so that they can be painted again."""

    corpus: Corpus
    seed: Seed


class Report(Section):
    """Numbers of pictures for the quality bars."""

    held_out: Corpus
    linear_code: Corpus  # pictures that the linear baseline is fitted to
    samples: Annotated[int, Field(ge=4, le=100_000)]  # number of photographs, and of works
    guidance: Guidance
    steps: Annotated[int, Field(ge=1, le=1000)]
    batch: BatchSize
    control: Optimisation  # full fine-tuning on the shipped works


class World(Section):
    seed: Seed
    machine: Machine
    size: Annotated[int, Field(ge=32, le=256, multiple_of=8)]
    preset: Literal["tiny", "embedded"]
    changed: Changed
    seen: Annotated[list[StyleName], Field(min_length=1, max_length=1000)]  # artists whose works the base is trained on
    trunk: Trunk
    evaluator: Evaluator
    autoencoder: Autoencoder
    decoder: Decoder
    denoiser: Denoiser
    conversion: Conversion
    defects: Defects
    shipped: Shipped
    report: Report
    pilots: Pilots

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """Changes to the preset, by part."""
        sizes = {"channels": self.changed.channels, "layers": self.changed.layers}
        unet = {name: value for name, value in sizes.items() if value is not None}
        return {"unet": unet, "autoencoder": {} if self.changed.latent is None else {"latent": self.changed.latent}}


def load(path: Path) -> World:
    """Load and validate the world's parameters."""
    return validated(World, read(path), str(path))
