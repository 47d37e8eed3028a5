"""Load and validate world/params.yaml, the parameters of the embedded world."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from atelier.params import (
    BatchSize,
    Count,
    Guidance,
    Machine,
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
    seen: Annotated[list[StyleName], Field(min_length=1, max_length=1000)]  # artists whose works the base is trained on
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
