"""What was asked: params.yaml, read in one place, typed, in range; an unknown key is refused, the nearest offered.

Nothing heavy is imported here, so that a mistyped parameter is refused before anything starts.
"""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from atelier.paths import PARAMS

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Schema = TypeVar("Schema", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
TRUNK_FILES = ("trunk", "heads")  # as ``atelier.models.trunk`` names them


class Section(BaseModel):
    """Every key must be known and of its type: YAML's 4 is not '4', and 'yes' is not true."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Machine(Section):
    threads: Positive
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]


class Data(Section):
    folder: Annotated[str, Field(min_length=1)]
    annotations: bool
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=8)]
    split: Literal["75/25", "85/5/10"]
    bad_share: Share


class Optimisation(Section):
    steps: Positive
    batch: Positive
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    decay: Literal["cosine", "constant"]
    warmup: Count
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0)]
    clip: Annotated[float, Field(gt=0.0)]
    ema: Annotated[float, Field(ge=0.0)]
    checkpoint_every: Positive


class BaseTraining(Section):
    preset: Literal["tiny", "embedded", "paintings"]
    photographs: Count
    works: Count
    unseen_styles: list[str]  # of works: the autoencoder learns them, the denoiser does not
    prompts_per_picture: Positive
    empty_prompts: Share
    moved: Annotated[int, Field(ge=0, le=7)]  # pixels by which the autoencoder's pictures are moved: its grid is of 8
    autoencoder: Optimisation
    denoiser: Optimisation


class Base(Section):
    source: Literal["shipped", "hub", "folder", "train"]
    location: str | None
    revision: str | None
    train: BaseTraining

    @model_validator(mode="after")
    def _located(self) -> "Base":
        if self.source in ("hub", "folder") and not self.location:
            raise ValueError(f"location: source '{self.source}' needs one")
        if self.source == "hub" and not self.revision:
            raise ValueError("revision: source 'hub' needs one, so that the same weights are fetched next year")
        return self


class Sampling(Section):
    steps: Annotated[int, Field(ge=1, le=1000)]
    batch: Positive


class BaseModelStudy(Section):
    pictures: Annotated[int, Field(ge=2)]
    guidance: Annotated[list[Annotated[float, Field(ge=1.0)]], Field(min_length=1)]
    measured_at: float

    @model_validator(mode="after")
    def _measured_at_one_of_them(self) -> "BaseModelStudy":
        if len(set(self.guidance)) != len(self.guidance):
            raise ValueError("guidance: a scale stands twice")
        if self.measured_at not in self.guidance:
            raise ValueError(f"measured_at: expected one of guidance's scales, got {self.measured_at!r}")
        return self


class Adapter(Section):
    rank: Positive | None  # None: the whole denoiser, not an adapter
    empty_prompts: Share
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None  # instead of the optimisation's


class ArtFinetuning(Section):
    prompt_level: Annotated[int, Field(ge=0, le=2)]
    prompts_per_work: Positive
    variants: Annotated[list[Name], Field(min_length=1)]
    adapters: dict[Name, Adapter]
    optimisation: Optimisation
    training_seeds: Annotated[list[Count], Field(min_length=1)]
    guidance: Annotated[list[Annotated[float, Field(ge=1.0)]], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=2)]
    pictures: Annotated[int, Field(ge=2)]
    diagnosed: list[Name]  # variants whose errors and first latents are looked into

    @model_validator(mode="after")
    def _variants_are_adapters(self) -> "ArtFinetuning":
        if sorted(self.variants) != sorted(self.adapters):
            odd = sorted(set(self.variants) ^ set(self.adapters)) or "one named twice"
            raise ValueError(f"variants: must name each of the adapters once, differs in {odd}")
        if taken := {"untuned", "untuned-again"} & set(self.adapters):
            raise ValueError(f"adapters: '{taken.pop()}' is what the model without an adapter is called")
        if len(set(self.guidance)) != len(self.guidance):
            raise ValueError("guidance: a scale stands twice")
        if len(set(self.training_seeds)) != len(self.training_seeds):
            raise ValueError("training_seeds: a seed stands twice")
        if self.repeats % len(self.training_seeds):
            raise ValueError(f"repeats: {self.repeats} cannot be shared by {len(self.training_seeds)} training seeds")
        if not set(self.diagnosed) <= set(self.variants) or len(set(self.diagnosed)) != len(self.diagnosed):
            raise ValueError(f"diagnosed: expected some of {', '.join(self.variants)}, each once")
        return self

    def seed_of_repeat(self, repeat: int) -> int:
        """The training seed whose models paint a repeat: each repeat has its own where there are as many."""
        return self.training_seeds[repeat % len(self.training_seeds)]

    @property
    def groups(self) -> list[list[int]]:
        """Repeats that vary together, over which intervals are: by training seed, or each where there is one seed."""
        if len(self.training_seeds) == 1:
            return [[repeat] for repeat in range(self.repeats)]
        return [list(range(at, self.repeats, len(self.training_seeds))) for at in range(len(self.training_seeds))]


class PromptEnrichment(Section):
    """Tuned models of art_finetuning that, as the untuned one, also paint from other prompts; all else is as there."""

    models: Annotated[list[Name], Field(min_length=1)]
    levels: Annotated[list[Annotated[int, Field(ge=0, le=2)]], Field(min_length=1)]


Scope = Literal["upsamplers", "up_blocks", "decoder"]


class LossWeights(Section):
    """One retuning of the decoder: what of it learns, from which loss."""

    scope: Scope
    mse: Annotated[float, Field(ge=0.0)]
    lpips: Annotated[float, Field(ge=0.0)]
    ffl: Annotated[float, Field(ge=0.0)]

    @model_validator(mode="after")
    def _learns_from_something(self) -> "LossWeights":
        if not self.mse + self.lpips + self.ffl:
            raise ValueError("mse: with lpips and ffl it is zero: nothing to learn from")
        return self


class Perceptual(Section):
    """A perceptual network, the embedded world's ``trunk`` or one of ImageNet's, and the files of its two parts."""

    network: Literal["trunk", "squeeze", "alex", "vgg"]
    weights: Annotated[str, Field(min_length=1)]
    heads: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _trunk_as_it_is_shipped(self) -> "Perceptual":
        places = [Path(self.weights), Path(self.heads)]
        if self.network == "trunk" and places != [places[0].parent / f"{name}.safetensors" for name in TRUNK_FILES]:
            raise ValueError(f"weights: of 'trunk', with heads, {' and '.join(TRUNK_FILES)}.safetensors of one folder")
        return self


class VaeDecoder(Section):
    variants: Annotated[list[Name], Field(min_length=1)]
    decoders: dict[Name, LossWeights]
    perceptual: Perceptual  # of the loss
    crop: Annotated[int, Field(ge=0, multiple_of=8)]  # px; 0: whole pictures
    checkpointing: bool
    optimisation: Optimisation
    models: Annotated[list[Name], Field(min_length=1)]  # of art_finetuning: whose pictures are decoded again
    guidance: Annotated[list[Annotated[float, Field(ge=1.0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _variants_are_decoders(self) -> "VaeDecoder":
        if sorted(self.variants) != sorted(self.decoders):
            odd = sorted(set(self.variants) ^ set(self.decoders)) or "one named twice"
            raise ValueError(f"variants: must name each of the decoders once, differs in {odd}")
        if "original" in self.decoders:
            raise ValueError("decoders: 'original' is what the decoder that was not retuned is called")
        return self


Norm = Literal["predicted", "target", "separate", "unit", "lpips"]
DepthWeights = Literal["inverse", "printed", "equal"]
Mask = Literal["predicted", "target", "both", "none"]


class PostTraining(Section):
    """One post-training: of a denoiser of which kind, with which loss beside its own, and for how long."""

    loss: Literal["plain", "perceptual", "reweighted"]  # reweighted: squared error of latents on the same steps
    kind: Literal["base", "v_prediction", "flow_prediction"] = "base"
    depth: Literal[1, 2, 3, 4, 5, "pixels"] = 5  # stages of the decoder, or the finished picture, which is never cut
    norm: Norm = "predicted"
    depth_weights: DepthWeights = "inverse"
    mask: Mask = "predicted"
    tau: Annotated[float, Field(gt=0.0)] = 4.0  # noise-to-signal ratio up to which it counts, at a latent of 64
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # of the whole loss, at the start
    before: Count = 0  # steps of plain post-training before
    longer: Annotated[float, Field(ge=1.0)] = 1.0  # times the steps


class LatentPerceptual(Section):
    variants: Annotated[list[Name], Field(min_length=1)]
    trainings: dict[Name, PostTraining]
    rank: Positive  # of adapters on every layer
    crop: Count  # latent elements a side that features behind the middle block are cut to; 0: whole
    slices: Positive  # pictures at a time through the decoder
    optimisation: Optimisation
    guidance: Annotated[float, Field(ge=1.0)]
    pictures: Annotated[int, Field(ge=2)]  # a repeat of art_finetuning and variant
    followed: list[Name]  # variants whose averages are kept, and which are painted in other numbers of steps, too
    averages: list[Annotated[float, Field(gt=0.0)]]  # half-lives in steps
    steps: list[Annotated[int, Field(ge=1, le=1000)]]  # of the sampler
    looked_at: Annotated[int, Field(ge=2)]  # held-out works a group of repeats whose features are looked at

    @model_validator(mode="after")
    def _variants_are_trainings(self) -> "LatentPerceptual":
        if sorted(self.variants) != sorted(self.trainings):
            odd = sorted(set(self.variants) ^ set(self.trainings)) or "one named twice"
            raise ValueError(f"variants: must name each of the trainings once, differs in {odd}")
        if taken := {"untuned", "again", "real", "returned"} & set(self.trainings):
            raise ValueError(f"trainings: '{sorted(taken)[0]}' names something else in this study")
        if not set(self.followed) <= set(self.variants) or len(set(self.followed)) != len(self.followed):
            raise ValueError(f"followed: expected some of {', '.join(self.variants)}, each once")
        if len(set(self.averages)) != len(self.averages):
            raise ValueError("averages: a half-life stands twice")
        if len(set(self.steps)) != len(self.steps):
            raise ValueError("steps: a number stands twice")
        for name, training in self.trainings.items():
            if training.loss != "plain" and self.plain_of(name) is None:
                raise ValueError(f"trainings.{name}: nothing to compare it with, no plain one of its kind and before")
        return self

    def plain_of(self, name: str) -> str | None:
        """The variant with no loss but its own that ``name`` is held against: of its kind, after as long a training."""
        own = self.trainings[name]
        for other, training in self.trainings.items():
            if (training.loss, training.kind, training.before, training.longer) == ("plain", own.kind, own.before, 1.0):
                return other
        return None


# arms and leaks of the signal leak's study that no model or style may be called
RESERVED = {"white", "again", "offset", "pixel", "dark", "bright", "real", "returned", "flow", "colours", "natural"}


class LeakModel(Section):
    """A denoiser tuned for this study: to one style of works, or to photographs noised by another schedule."""

    style: str | None = None
    betas: Annotated[list[Annotated[float, Field(gt=0.0, lt=1.0)]], Field(min_length=2, max_length=2)] | None = None
    zero_snr: bool = False  # nothing of a picture is left at the last step

    @model_validator(mode="after")
    def _one_lesson(self) -> "LeakModel":
        if sum([self.style is not None, self.betas is not None, self.zero_snr]) != 1:
            raise ValueError("style: with betas and zero_snr exactly one says what is learnt")
        if self.betas is not None and self.betas[0] > self.betas[1]:
            raise ValueError(f"betas: expected a schedule's first and last, got {self.betas}")
        return self


class SignalLeak(Section):
    trained: list[Name]
    models: dict[Name, LeakModel]
    rank: Positive
    optimisation: Optimisation
    styles: Annotated[dict[Name, Annotated[str, Field(min_length=1)]], Field(min_length=1)]  # asked for in words
    guidance: Annotated[float, Field(ge=1.0)]
    pictures: Annotated[int, Field(ge=2)]  # a repeat and arm
    frequencies: Annotated[list[Positive], Field(min_length=1)]
    targets: list[Annotated[int, Field(ge=2)]]  # pictures of a style that a leak is fitted to, beside all of them
    offset: Annotated[float, Field(gt=0.0)]  # of offset noise, in standard deviations
    values: Annotated[list[float], Field(min_length=2)]  # of a channel's mean, in its standard deviations
    each_value: Positive  # pictures of a repeat, channel and value
    dark: Annotated[str, Field(min_length=1)]  # words for little light, and for much
    bright: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _models_are_trained(self) -> "SignalLeak":
        if sorted(self.trained) != sorted(self.models):
            odd = sorted(set(self.trained) ^ set(self.models)) or "one named twice"
            raise ValueError(f"trained: must name each of the models once, differs in {odd}")
        for name, model in self.models.items():
            if model.style is not None and self.styles.get(name) != model.style:
                raise ValueError(f"models.{name}: the style '{model.style}' is none of styles under this name")
        if taken := RESERVED & {*self.models, *self.styles}:
            raise ValueError(f"models: '{sorted(taken)[0]}' names something else in this study")
        if not {1, 3} <= set(self.frequencies) or len(set(self.frequencies)) != len(self.frequencies):
            raise ValueError("frequencies: 1 and the paper's 3 must be among them, each once")
        return self


class Params(Section):
    profile: Literal["smoke", "embedded", "study", "paintings", "paper"]
    seed: Annotated[int, Field(ge=0)]
    machine: Machine
    data: Data
    base: Base
    sampling: Sampling
    base_model: BaseModelStudy
    art_finetuning: ArtFinetuning
    prompt_enrichment: PromptEnrichment
    vae_decoder: VaeDecoder
    signal_leak: SignalLeak
    latent_perceptual: LatentPerceptual

    @model_validator(mode="after")
    def _enriches_what_is_there(self) -> "Params":
        own, other = self.prompt_enrichment, self.art_finetuning
        if not set(own.models) <= set(other.adapters) or len(set(own.models)) != len(own.models):
            raise ValueError(f"prompt_enrichment.models: expected some of {', '.join(other.adapters)}, each once")
        if other.prompt_level in own.levels or len(set(own.levels)) != len(own.levels):
            raise ValueError("prompt_enrichment.levels: expected other levels than art_finetuning's, each once")
        return self

    @model_validator(mode="after")
    def _decodes_what_is_there(self) -> "Params":
        own, other = self.vae_decoder, self.art_finetuning
        if not set(own.models) <= {"untuned", *other.adapters} or len(set(own.models)) != len(own.models):
            raise ValueError(f"vae_decoder.models: expected some of untuned, {', '.join(other.adapters)}, each once")
        if not set(own.guidance) <= set(other.guidance) or len(set(own.guidance)) != len(own.guidance):
            raise ValueError(f"vae_decoder.guidance: expected some of {other.guidance}, each once")
        if own.crop > self.data.size:
            raise ValueError(f"vae_decoder.crop: {own.crop} px is more than the pictures' {self.data.size}")
        return self

    @model_validator(mode="after")
    def _crops_what_is_there(self) -> "Params":
        if self.latent_perceptual.crop * 8 > self.data.size:
            raise ValueError(f"latent_perceptual.crop: {self.latent_perceptual.crop} is more than a latent's side")
        return self


def load(path: Path = PARAMS) -> Params:
    """Read and check a parameter file. Raises ValueError, one line a fault: file, key, what was expected."""
    return check(read(path), str(path))


def overridden(sections: dict[str, Any], path: Path = PARAMS) -> Params:
    """Params of a file with some of its top-level entries replaced, checked as a whole."""
    return check({**read(path), **sections}, str(path))


def read(path: Path) -> dict[str, Any]:
    """A parameter file as it stands, unchecked. Raises ValueError where it is no YAML mapping."""
    try:
        content = YAML(typ="safe").load(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; copy one of profiles/") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of parameters")
    return content


def check(content: dict[str, Any], name: str) -> Params:
    """Params from a mapping; ``name`` stands in the refusal."""
    return checked(Params, content, name)


def checked(schema: type[Schema], content: dict[str, Any], name: str) -> Schema:
    """A mapping as ``schema``, or ValueError with one line a fault."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ValueError("\n".join(_line(schema, name, fault) for fault in error.errors())) from None


def _line(schema: type[BaseModel], name: str, fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _siblings(schema, fault["loc"][:-1]), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"{name}: {where}: unknown parameter{hint}"
    if fault["type"] == "missing":
        return f"{name}: {where}: missing"
    if fault["type"] == "value_error":
        return f"{name}: {where}.{fault['ctx']['error']}"
    return f"{name}: {where}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _siblings(section: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The known keys beside a place in the tree of sections."""
    parts = iter(location)
    for part in parts:
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a name of the user's own, as in adapters
        kinds = [annotation, *get_args(annotation)]
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)


def main(arguments: list[str]) -> int:
    """``python -m atelier.params [FILE]``: check params.yaml; where it is right, say so in FILE too, for stages."""
    try:
        asked = load()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    said = f"{PARAMS}: every parameter is known, typed and in range"
    for target in map(Path, arguments):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(said + "\n")
    print(f"{said}; profile {asked.profile}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
