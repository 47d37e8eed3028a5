"""Load and validate world/params.yaml, the parameters of the embedded world."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from atelier.params import Count, Machine, Optimisation, Positive, Section, Share, read, validated


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
    prompts_per_picture: Positive
    optimisation: Optimisation


class Autoencoder(Section):
    corpus: Corpus
    optimisation: Optimisation


class Decoder(Section):
    perceptual: Annotated[float, Field(ge=0.0)]
    adversarial: Annotated[float, Field(ge=0.0)]
    optimisation: Optimisation


class Denoiser(Section):
    corpus: Corpus
    prompts_per_picture: Positive
    empty_prompts: Share
    optimisation: Optimisation


class Conversion(Section):
    rank: Positive
    optimisation: Optimisation


class Shipped(Section):
    """The pictures that studies read, with the painter's seed, so that they can be painted again."""

    corpus: Corpus
    seed: Count


class Report(Section):
    """Numbers of pictures for the quality bars."""

    held_out: Corpus
    linear_code: Corpus  # pictures that the linear baseline is fitted to
    samples: Annotated[int, Field(ge=4)]  # number of photographs, and of works
    guidance: Annotated[float, Field(ge=1.0)]
    steps: Positive
    batch: Positive
    control: Optimisation  # full fine-tuning on the shipped works


class World(Section):
    seed: Annotated[int, Field(ge=0)]
    machine: Machine
    size: Annotated[int, Field(ge=32, le=256, multiple_of=8)]
    preset: Literal["tiny", "embedded"]
    seen: Annotated[list[str], Field(min_length=1)]  # artists whose works the base is trained on
    trunk: Trunk
    evaluator: Evaluator
    autoencoder: Autoencoder
    decoder: Decoder
    denoiser: Denoiser
    conversion: Conversion
    shipped: Shipped
    report: Report


def load(path: Path) -> World:
    """Load and validate the world's parameters."""
    return validated(World, read(path), str(path))
