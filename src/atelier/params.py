"""Load and validate ``params.yaml``: types, ranges, and unknown keys, for which the nearest known one is suggested.

The shared sections are here; each study's section is in ``atelier.studies.STUDY.params``. No heavy library is imported,
so that a mistyped parameter is refused at once.
"""

import difflib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from ruamel.yaml import YAML, YAMLError

from atelier.studies import STUDIES

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Guidance = Annotated[float, Field(ge=1.0)]
Level = Annotated[int, Field(ge=0, le=2)]  # of a prompt: 0 description | 1 + style, artist | 2 + emotion and why
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Scope = Literal["upsamplers", "up_blocks", "decoder"]
Norm = Literal["predicted", "target", "separate", "unit", "lpips"]
DepthWeights = Literal["inverse", "printed", "equal"]
Mask = Literal["predicted", "target", "both", "none"]
Schema = TypeVar("Schema", bound=BaseModel)
TRUNK_FILES = ("trunk", "heads")  # file names written by ``atelier.models.trunk``


class Section(BaseModel):
    """Every key must be known and have the exact type: YAML's 4 is not '4', and 'yes' is not true."""

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
    unseen_styles: list[str]  # the autoencoder is trained on works of these styles, the denoiser is not
    prompts_per_picture: Positive
    empty_prompts: Share
    shift: Annotated[int, Field(ge=0, le=7)]  # pixels by which the autoencoder's pictures are shifted; its grid has 8
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


class Prompts(Section):
    level: Level
    per_work: Positive  # prompts per work that trainings draw from


class Protocol(Section):
    """Settings that all studies share so that their numbers are comparable."""

    training_seeds: Annotated[list[Count], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=2)]
    pictures: Annotated[int, Field(ge=2)]  # per repeat, model and guidance scale
    guidance: Annotated[list[Guidance], Field(min_length=1)]
    prompts: Prompts

    @model_validator(mode="after")
    def _repeats_have_seeds(self) -> "Protocol":
        if len(set(self.guidance)) != len(self.guidance):
            raise ValueError("guidance: a scale is listed twice")
        if len(set(self.training_seeds)) != len(self.training_seeds):
            raise ValueError("training_seeds: a seed is listed twice")
        if self.repeats % len(self.training_seeds):
            raise ValueError(f"repeats: {self.repeats} cannot be shared by {len(self.training_seeds)} training seeds")
        return self

    def seed_of_repeat(self, repeat: int) -> int:
        """The training seed of the models that paint a repeat; repeats cycle through the seeds."""
        return self.training_seeds[repeat % len(self.training_seeds)]

    @property
    def groups(self) -> list[list[int]]:
        """Repeats grouped by training seed, or each repeat by itself where there is only one seed."""
        seeds = len(self.training_seeds)
        if seeds == 1:
            return [[repeat] for repeat in range(self.repeats)]
        return [list(range(first, self.repeats, seeds)) for first in range(seeds)]


class Perceptual(Section):
    """A perceptual network (the embedded world's ``trunk`` or an ImageNet network) and its two weight files."""

    network: Literal["trunk", "squeeze", "alex", "vgg"]
    weights: Annotated[str, Field(min_length=1)]
    heads: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _trunk_as_it_is_shipped(self) -> "Perceptual":
        files = [Path(self.weights), Path(self.heads)]
        if self.network == "trunk" and files != [files[0].parent / f"{name}.safetensors" for name in TRUNK_FILES]:
            raise ValueError(f"weights: of 'trunk', with heads, {' and '.join(TRUNK_FILES)}.safetensors of one folder")
        return self


class Params(Section):
    """``params.yaml``: the shared sections. ``schema`` adds each study's section, ``StudySection.of`` returns it."""

    profile: Literal["smoke", "embedded", "own", "study", "paintings", "paper"]
    seed: Annotated[int, Field(ge=0)]
    machine: Machine
    data: Data
    base: Base
    sampling: Sampling
    perceptual: Perceptual  # the network of perceptual losses and distances of decoded pictures
    protocol: Protocol

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "Params":
        for section in self.sections():
            section.check(self)
        return self

    def section(self, study: str) -> Any:
        """A study's section by name, for a study that uses another one's outputs."""
        return getattr(self, study)

    def sections(self) -> Iterator["StudySection"]:
        """Each study's section."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return (value for value in values if isinstance(value, StudySection))


class StudySection(Section):
    """One study's section of ``params.yaml``, under the study's name."""

    STUDY: ClassVar[str]

    @classmethod
    def of(cls, params: Params) -> Self:
        """This study's section."""
        section = getattr(params, cls.STUDY)
        assert isinstance(section, cls)
        return section

    def check(self, params: Params) -> None:
        """Raise ValueError, ``STUDY.key: ...``, where the section conflicts with the rest of the parameters."""

    def named_styles(self) -> dict[str, str]:
        """Styles that the section names: key -> style. The data must have works of each in both splits."""
        return {}

    def samples(self, params: Params) -> int:
        """About how many pictures the study samples, for an estimate of the disk that they take."""
        return 0

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        """Whether the study has a measure of a cell; of those that its claims compare."""
        return True


def parts_of(cell: str) -> tuple[str, str, int | None, str | None]:
    """Model, decoder (""), level and guidance of ``MODEL[+DECODER][@LEVEL/GUIDANCE]``."""
    name, _, protocol = cell.partition("@")
    model, _, decoder = name.partition("+")
    level, _, guidance = protocol.partition("/")
    return model, decoder, int(level) if level else None, guidance or None


def names_once(key: str, listed: list[str], known: dict[str, Any], of: str) -> None:
    """Raise ValueError unless ``listed`` names each of ``known`` exactly once."""
    if sorted(listed) != sorted(known):
        odd = sorted(set(listed) ^ set(known)) or "one named twice"
        raise ValueError(f"{key}: must name each of the {of} once, differs in {odd}")


def subset_once(key: str, listed: list[Any], known: list[Any]) -> None:
    """Raise ValueError unless ``listed`` is a subset of ``known``, each once."""
    if not set(listed) <= set(known) or len(set(listed)) != len(listed):
        raise ValueError(f"{key}: expected a subset of {', '.join(map(str, known))}, each once")


@cache
def schema() -> type[Params]:
    """``Params`` with a section for every study, from ``atelier.studies.STUDY.params.Config``."""
    sections: dict[str, Any] = {name: (import_module(f"atelier.studies.{name}.params").Config, ...) for name in STUDIES}
    model: type[Params] = create_model("Params", __base__=Params, **sections)
    return model


def load(path: str | Path) -> Params:
    """Load and validate a parameter file. Raises ValueError, one line per error: file, key, what was expected."""
    return check(read(path), str(path))


def with_sections(sections: dict[str, Any], path: str | Path) -> Params:
    """Load a parameter file with some top-level entries replaced, and validate the result."""
    return check({**read(path), **sections}, str(path))


def read(path: str | Path) -> dict[str, Any]:
    """Read a parameter file without validating it. Raises ValueError if it is not a YAML mapping."""
    try:
        content = YAML(typ="safe", pure=True).load(Path(path))
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
    """Validate a mapping as parameters; ``name`` is the file name in error messages."""
    return validated(schema(), content, name)


def validated(model: type[Schema], content: dict[str, Any], name: str) -> Schema:
    """Validate a mapping as ``model``. Raises ValueError, one line per error."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError("\n".join(_line(model, name, fault) for fault in error.errors())) from None


def _line(model: type[BaseModel], name: str, fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _siblings(model, fault["loc"][:-1]), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"{name}: {where}: unknown parameter{hint}"
    if fault["type"] == "missing":
        return f"{name}: {where}: missing"
    if fault["type"] == "value_error":
        return f"{name}: {'.'.join(filter(None, [where, str(fault['ctx']['error'])]))}"
    return f"{name}: {where}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _siblings(section: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The known keys beside a location in the tree of sections."""
    parts = iter(location)
    for part in parts:
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a key chosen by the user, as in adapters
        kinds = [annotation, *get_args(annotation)]
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)
