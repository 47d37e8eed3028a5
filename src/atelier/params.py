"""Load and validate ``params.yaml``: types, ranges, and unknown keys, for which the nearest known one is suggested.

The shared sections are here; each study's section is in ``atelier.studies.STUDY.params``. No heavy library is imported,
so that a mistyped parameter is refused at once.
"""

import difflib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, Node

from atelier.files import ECHO, FileFault, printable, reading, shown
from atelier.studies import STUDIES

BYTES = 2**15  # of a parameter file; the largest profile has a third of it
VALUES, DEPTH = 10_000, 20  # in a file, aliases written out
LINES = 20  # of faults that are listed
PIXELS = 2**31  # in a batch: 26 GB of float32
HUB_ID = r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?"  # NAME or OWNER/NAME
SITUATED = ("build", "results", ".scratch", ".git", ".dvc")  # the pipeline's folders


def _plain(text: str) -> str:
    """ValueError for a text with control characters, which no path, prompt or message should hold."""
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


def _file_name(text: str) -> str:
    """ValueError for a name that would leave its folder, or that reads as a part of a cell's name."""
    if text in (".", "..") or set(text) & set("/\\@+"):
        raise ValueError("expected a plain name without '/', '\\', '@' or '+'")
    return text


def _apart(path: str) -> str:
    """ValueError for a path in a folder that the pipeline fills and deletes."""
    parts = Path(os.path.normpath(path)).parts
    if not parts or parts[0] in SITUATED:
        raise ValueError("expected a path apart from the pipeline's")
    return path


def _as_named(value: float) -> float:
    """ValueError for a number that folders and cells, named after six digits of it, would take for another."""
    if float(f"{value:g}") != value:
        raise ValueError(f"more digits than a folder's name keeps, {value:g}")
    return value


# The upper bounds are far above any use; they stop a slip of the keyboard before it fills the memory or the disk.
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Positive = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
TrainingSeed = Annotated[int, Field(ge=0, lt=2**31)]  # pictures are numbered from it
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Rank = Annotated[int, Field(ge=1, le=4096)]  # of an adapter
Pictures = Annotated[int, Field(ge=2, le=100_000)]  # of one repeat and condition
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]  # of a term of a loss
Named = AfterValidator(_as_named)
Guidance = Annotated[float, Field(ge=1.0, le=1000.0), Named]
Level = Annotated[int, Field(ge=0, le=2)]  # of a prompt: 0 description | 1 + style, artist | 2 + emotion and why
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_plain)]
Words = Annotated[Text, Field(min_length=1)]
FilePath = Words  # relative to the folder of params.yaml, or absolute
KeptPath = Annotated[FilePath, AfterValidator(_apart)]  # of what the user keeps
StyleName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain), AfterValidator(_file_name)]
Scope = Literal["upsamplers", "up_blocks", "decoder"]
Norm = Literal["predicted", "target", "separate", "unit", "lpips"]
DepthWeights = Literal["inverse", "printed", "equal"]
Mask = Literal["predicted", "target", "both", "none"]
Schema = TypeVar("Schema", bound=BaseModel)
WHITE, CORRECTED = "white", "corrected"  # first latents: noise alone, or with the signal that training leaves in it
STARTS = (WHITE, CORRECTED)  # the first decides, as it is the papers'
TRUNK_FILES = ("trunk", "heads")  # file names written by ``atelier.models.trunk``
FIELD_FILES: dict[str, tuple[str, ...]] = {  # what a folder that ``field_judges`` names must hold; of a file, nothing
    "inception": (),
    "clip": ("config.json", "model.safetensors", "tokenizer.json"),
    "dinov2": ("config.json", "model.safetensors"),
}
FIELD_MAIN = ("inception", "dinov2")  # those whose features may stand for the evaluator's, the first that is named


class Section(BaseModel):
    """Every key must be known and have the exact type: YAML's 4 is not '4', and 'yes' is not true."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Machine(Section):
    threads: Annotated[int, Field(ge=1, le=1024)]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]


class Data(Section):
    folder: FilePath
    annotations: bool
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=8)]
    split: Literal["75/25", "85/5/10"]
    bad_share: Share

    @model_validator(mode="after")
    def _folder_apart(self) -> "Data":
        parts = Path(os.path.normpath(self.folder)).parts
        if not parts or parts[0] in SITUATED:
            raise ValueError(f"folder: expected one apart from the pipeline's, got {shown(self.folder)}")
        return self


class Optimisation(Section):
    steps: Positive
    batch: BatchSize
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    decay: Literal["cosine", "constant"]
    warmup: Count
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1000.0)]
    clip: Annotated[float, Field(gt=0.0, le=1e9)]
    ema: Annotated[float, Field(ge=0.0, le=1e9)]
    checkpoint_every: Positive


class BaseTraining(Section):
    preset: Literal["tiny", "embedded", "paintings"]
    photographs: Count
    works: Count
    # of works that the denoiser is not trained on, while the autoencoder is
    unseen_styles: Annotated[list[StyleName], Field(max_length=1000)]
    prompts_per_picture: Annotated[int, Field(ge=1, le=1000)]
    empty_prompts: Share
    shift: Annotated[int, Field(ge=0, le=7)]  # pixels by which the autoencoder's pictures are shifted; its grid has 8
    autoencoder: Optimisation
    denoiser: Optimisation


class Base(Section):
    source: Literal["shipped", "hub", "folder", "train"]
    location: Text | None
    revision: Text | None
    train: BaseTraining

    @model_validator(mode="after")
    def _located(self) -> "Base":
        if self.source in ("hub", "folder") and not self.location:
            raise ValueError(f"location: source '{self.source}' needs one")
        if self.source == "hub" and not self.revision:
            raise ValueError("revision: source 'hub' needs one, so that the same weights are fetched next year")
        if self.source == "hub" and not re.fullmatch(
            r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?", self.location or "", re.ASCII
        ):
            raise ValueError(f"location: source 'hub' needs an id, OWNER/NAME, got {shown(self.location)}")
        return self


class Sampling(Section):
    steps: Annotated[int, Field(ge=1, le=1000)]
    batch: BatchSize


class Prompts(Section):
    level: Level
    per_work: Annotated[int, Field(ge=1, le=1000)]  # prompts per work that trainings draw from


class Protocol(Section):
    """Settings that all studies share so that their numbers are comparable."""

    training_seeds: Annotated[list[TrainingSeed], Field(min_length=1, max_length=1000)]
    repeats: Annotated[int, Field(ge=1, le=1000)]  # of sampling, per training seed
    pictures: Pictures  # per repeat, model and guidance scale
    guidance: Annotated[list[Guidance], Field(min_length=1, max_length=100)]
    prompts: Prompts

    @model_validator(mode="after")
    def _repeats_have_seeds(self) -> "Protocol":
        if len(set(self.guidance)) != len(self.guidance):
            raise ValueError("guidance: a scale is listed twice")
        if len(set(self.training_seeds)) != len(self.training_seeds):
            raise ValueError("training_seeds: a seed is listed twice")
        if len(self.groups) < 2:
            raise ValueError("repeats: one training seed needs two or more, because intervals are over them")
        return self

    def training_seed(self, text: str) -> int:
        """One of the training seeds, from the command line. Raises ValueError for anything else."""
        if not text.isdecimal():
            raise ValueError(f"a training seed is a whole number, got '{text}'")
        self.check_seed(int(text))
        return int(text)

    def check_seed(self, seed: int) -> None:
        """Raise ValueError for what is none of the training seeds."""
        if seed not in self.training_seeds:
            raise ValueError(f"protocol.training_seeds: {seed} is not one of {self.training_seeds}")

    def repeats_of(self, seed: int) -> list[int]:
        """The numbers of a training seed's repeats, the same whatever other seeds there are."""
        return list(range(seed * self.repeats, (seed + 1) * self.repeats))

    def seed_of_repeat(self, repeat: int) -> int:
        """The training seed of the models that paint a repeat."""
        return repeat // self.repeats

    @property
    def all_repeats(self) -> list[int]:
        """The numbers of all training seeds' repeats."""
        return [repeat for seed in self.training_seeds for repeat in self.repeats_of(seed)]

    @property
    def groups(self) -> list[list[int]]:
        """Repeats grouped by training seed, or each repeat by itself where there is only one seed."""
        if len(self.training_seeds) == 1:
            return [[repeat] for repeat in self.all_repeats]
        return [self.repeats_of(seed) for seed in self.training_seeds]


class Perceptual(Section):
    """A perceptual network (the embedded world's ``trunk`` or an ImageNet network) and its two weight files."""

    network: Literal["trunk", "squeeze", "alex", "vgg"]
    weights: FilePath
    heads: FilePath

    @model_validator(mode="after")
    def _trunk_as_it_is_shipped(self) -> "Perceptual":
        files = [Path(self.weights), Path(self.heads)]
        if self.network == "trunk" and files != [files[0].parent / f"{name}.safetensors" for name in TRUNK_FILES]:
            raise ValueError(f"weights: of 'trunk', with heads, {' and '.join(TRUNK_FILES)}.safetensors of one folder")
        return self


class FieldJudges(Section):
    """Networks of the field's own measures (``evaluation.field``), none of which any other stage needs; null: none.

    ``inception``: a file of weights; ``clip``, ``dinov2``: folders in transformers' format.
    """

    inception: KeptPath | None
    clip: KeptPath | None
    dinov2: KeptPath | None

    @property
    def main(self) -> str | None:
        """The network whose features distances compare in place of the evaluator's; None: no other."""
        return next((name for name in FIELD_MAIN if getattr(self, name) is not None), None)

    def named_files(self) -> dict[str, list[str]]:
        """Files that the section names: key -> files that must exist below the project's folder."""
        named = {key: getattr(self, key) for key in FIELD_FILES}
        return {
            key: [(Path(path) / file).as_posix() for file in FIELD_FILES[key]] or [path]
            for key, path in named.items()
            if path is not None
        }


class Params(Section):
    """``params.yaml``: the shared sections. ``schema`` adds each study's section, ``StudySection.of`` returns it."""

    # made: scripts/made_paper.py
    profile: Literal["smoke", "embedded", "own", "study", "paintings", "paper", "paper-lite", "made"]
    seed: Seed
    machine: Machine
    data: Data
    base: Base
    sampling: Sampling
    perceptual: Perceptual  # the network of perceptual losses and distances of decoded pictures
    field_judges: FieldJudges  # networks of FID, KID, CLIPScore, FD on DINOv2
    protocol: Protocol

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "Params":
        faults = list(oversized(self.model_dump(), self.data.size))
        for section in self.sections():
            try:
                section.check(self)
            except ValueError as fault:
                faults.append(str(fault))
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def section(self, study: str) -> Any:
        """A study's section by name, for a study that uses another one's outputs."""
        return getattr(self, study)

    def sections(self) -> Iterator["StudySection"]:
        """Each study's section."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return (value for value in values if isinstance(value, StudySection))


# ------------------------------------------------------------------------------------------------ what a stage computes


class Given(NamedTuple):
    """What data and base have, as far as the work of a stage depends on it."""

    works: Mapping[str, int]  # style -> pictures
    photographs: int
    split: str  # as in ``data.split``
    channels: int  # of a latent

    def training(self, pictures: int) -> int:
        """About how many of so many pictures are trained on."""
        return round(pictures * int(self.split.split("/")[0]) / 100)

    def held_out(self, pictures: int) -> int:
        """About how many of so many pictures are held out."""
        return round(pictures * int(self.split.split("/")[-1]) / 100)

    @property
    def all_works(self) -> int:
        return sum(self.works.values())


class Sampled(NamedTuple):
    """Pictures that are sampled and decoded; ``states``: latents written with each, 0: nothing of it is written."""

    pictures: int
    steps: int
    guided: bool = True  # two calls of the denoiser a step
    states: int = 1


class Trained(NamedTuple):
    """A training of ``steps`` of ``batch`` samples, of a part as a whole or of an adapter of ``rank``."""

    part: Literal["denoiser", "decoder", "autoencoder", "corrector"]
    steps: int
    batch: int
    rank: int | None = None  # None: no adapter, the part itself learns
    everywhere: bool = False  # an adapter on all layers, or on attention alone
    unlearnt: int = 0  # further calls of the part a sample, without a graph
    decoded: float = 0.0  # samples a sample that a loss decodes twice, once with a graph
    slices: int = 1  # samples whose decoding has a graph at once
    side: int = 0  # px a side that a decoder learns from; 0: whole pictures
    checkpointing: bool = False
    width: int = 0  # channels of a corrector
    keeps: int = 1  # sets of parameters that are written: averages, too


class Work(NamedTuple):
    """What a stage computes with networks, in pictures; numpy's work on ``measured`` pictures beside it."""

    sampled: tuple[Sampled, ...] = ()
    trained: tuple[Trained, ...] = ()
    denoised: int = 0  # further calls of the denoiser, of one picture each
    decoded: int = 0  # beside the sampled ones
    encoded: int = 0
    prompts: int = 0  # beside the sampled ones
    measured: int = 0
    cached: int = 0  # pictures whose latents' moments are written, with an embedding of each of ``prompts``
    exact: bool = False  # in full precision whatever the profile's


def guided_alike(params: "Params", pictures: int) -> tuple[Sampled, ...]:
    """So many pictures at each of the protocol's guidance scales and from both starts."""
    steps = params.sampling.steps
    return tuple(Sampled(len(STARTS) * pictures, steps, scale > 1) for scale in params.protocol.guidance)


# ------------------------------------------------------------------------------------------------ all sections


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

    def fewest(self, params: Params) -> int:
        """How many works of each of ``named_styles`` a split must have."""
        return 2

    def named_files(self) -> dict[str, list[str]]:
        """Files and folders that the section names: key -> files that must exist below the project's folder."""
        return {}

    def samples(self, params: Params) -> int:
        """About how many pictures the study samples, for an estimate of the disk that they take."""
        return 0

    def work(self, params: Params, given: Given, stage: str, *named: str) -> Work | None:
        """What ``python -m atelier STUDY STAGE NAMED...`` computes; None: the study does not say."""
        return None

    def measures(self, params: Params, measure: str, cell: str) -> bool:
        """Whether the study has a measure of a cell, among the measures that its claims compare."""
        return True


def parts_of(cell: str) -> tuple[str, str, int | None, str | None]:
    """Model, decoder (""), level and guidance of ``MODEL[+DECODER][@LEVEL/GUIDANCE[/corrected]]``."""
    name, _, protocol = cell.partition("@")
    model, _, decoder = name.partition("+")
    level, _, guidance = protocol.removesuffix(f"/{CORRECTED}").partition("/")
    return model, decoder, int(level) if level else None, guidance or None


def cell_name(model: str, level: int, guidance: float, start: str = WHITE) -> str:
    """The name of a cell in tables and claims: MODEL@LEVEL/GUIDANCE, or MODEL@LEVEL/GUIDANCE/corrected."""
    return f"{model}@{level}/{guidance:g}" + ("" if start == WHITE else f"/{start}")


def names_once(key: str, listed: list[str], known: dict[str, Any], of: str) -> None:
    """Raise ValueError unless ``listed`` names each of ``known`` exactly once."""
    if sorted(listed) != sorted(known):
        odd = sorted(set(listed) ^ set(known)) or "one named twice"
        said = odd if isinstance(odd, str) else f"{odd[:5]}{' and others' if len(odd) > 5 else ''}"
        raise ValueError(f"{key}: must name each of the {of} once, differs in {said}")


def subset_once(key: str, listed: list[Any], known: list[Any]) -> None:
    """Raise ValueError unless ``listed`` is a subset of ``known``, each once."""
    if not set(listed) <= set(known) or len(set(listed)) != len(listed):
        raise ValueError(f"{key}: expected a subset of {', '.join(map(str, known[:LINES]))}, each once")


def oversized(content: Any, size: int, where: str = "") -> Iterator[str]:
    """A line for each ``batch`` in a tree of parameters whose pictures of ``size`` px do not fit into a memory."""
    for key, value in content.items() if isinstance(content, dict) else ():
        name = f"{where}.{key}" if where else str(key)
        if key == "batch" and value * size**2 > PIXELS:
            yield f"{name}: {value} pictures of {size} px are more than a machine's memory holds"
        yield from oversized(value, size, name)


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
    path = Path(path)
    try:
        with reading(path):
            if path.stat().st_size > BYTES:
                raise ValueError(f"more than {BYTES} bytes")
            data = path.read_bytes()
    except FileFault as fault:
        if fault.errno == errno.ENOENT:
            raise ValueError(f"{path}: no such file; copy one of profiles/") from None
        raise
    with reading(path, "not YAML"):
        text = data.decode("utf-8-sig")
        _refuse_bomb(_yaml().compose(text))
        content = _yaml().load(text)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of parameters")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ValueError(f"{path}: {shown(odd[0])}: a section's name is a text")
    return content


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = DEPTH
    return yaml


def _refuse_bomb(root: Node | None) -> None:
    """ValueError where aliases, written out, make a small file large; or where one names itself."""
    waiting, count = [root], 0
    while waiting:
        node, count = waiting.pop(), count + 1
        if count > VALUES:
            raise ValueError(f"more than {VALUES} values, each alias written out")
        if isinstance(node, CollectionNode):
            waiting += [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]


def check(content: dict[str, Any], name: str) -> Params:
    """Validate a mapping as parameters; ``name`` is the file name in error messages."""
    return validated(schema(), content, name)


def validated(model: type[Schema], content: dict[str, Any], name: str) -> Schema:
    """Validate a mapping as ``model``. Raises ValueError, one line per error."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [line for fault in error.errors() for line in _lines(model, name, fault)]
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"{name}: and {len(lines) - LINES + 1} other faults"]
    raise ValueError("\n".join(lines))


def _lines(model: type[BaseModel], name: str, fault: Any) -> list[str]:
    """A fault in words; several where a validator reports several."""
    where = ".".join(shown(part).strip("'") for part in fault["loc"] if part != "[key]")
    if fault["type"] == "extra_forbidden":
        last = str(fault["loc"][-1])[:ECHO]
        near = difflib.get_close_matches(last, _siblings(model, fault["loc"][:-1]), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return [f"{name}: {where}: unknown parameter{hint}"]
    if fault["type"] == "missing":
        return [f"{name}: {where}: missing"]
    if fault["type"] == "value_error" and not isinstance(fault["input"], BaseModel | dict):  # of one value
        return [f"{name}: {where}: {fault['ctx']['error']}, got {shown(fault['input'])}"]
    if fault["type"] == "value_error":  # of a section, which names the key
        said = printable_lines(str(fault["ctx"]["error"]))
        return [f"{name}: {'.'.join(filter(None, [where, line]))}" for line in said]
    return [f"{name}: {where}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {shown(fault['input'])}"]


def printable_lines(text: str) -> list[str]:
    return [printable(line) for line in text.split("\n")]


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
