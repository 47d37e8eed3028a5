"""What a profile will need, checked before anything runs: files, folders, styles, disk, and cells of claims.

By names and sizes alone and without torch, so that it takes about a second for tens of thousands of pictures, too.
Stages check contents.
"""

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from atelier import claims
from atelier.data import layout
from atelier.files import ECHO, FileFault, printable, read_json, reading
from atelier.models.folders import INDEX, STEMS, single_file, weight_files, wrong_class
from atelier.params import Params
from atelier.workspace import Workspace

# a base's parts: what must be there beside weights, any of each group
PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "unet": (("config.json",),),
    "vae": (("config.json",),),
    "text_encoder": (("config.json",),),
    "tokenizer": (("tokenizer.json", "vocab.json"), ("tokenizer.json", "merges.txt")),
    "scheduler": (("scheduler_config.json",),),
}
HEADER = 10_000  # bytes, at most, of the first line of a table
DEVICES = ("nvidia0", "nvidiactl", "dxg", "kfd")  # in /dev, where a driver has an accelerator
GIGABYTE = 2**30


def faults(params: Params, workspace: Workspace) -> list[str]:
    """All that the profile needs and does not find, one line each."""
    return [each for part in (_works, _base, _weights, _machine, _disk) for each in part(params, workspace)]


def undecided(params: Params) -> dict[str, list[str]]:
    """Claims and findings that the profile cannot decide: name -> cells that no study of it measures."""
    lacking: dict[str, list[str]] = {}
    for section in params.sections():
        for name, claim in {**claims.load(section.STUDY), **claims.findings(section.STUDY)}.items():
            pairs = {(each.measure, cell) for each in claim.every_comparison for cell in each.cells}
            if missing := sorted(cell for measure, cell in pairs if not section.measures(params, measure, cell)):
                lacking[name] = missing
    return lacking


def _works(params: Params, workspace: Workspace) -> Iterator[str]:
    folder = workspace.named(params.data.folder)
    table = folder / layout.ANNOTATIONS
    if params.data.annotations and not table.is_file():
        yield f"data.annotations: {table} is missing; set it to false where there is none: prompts come from titles"
    elif params.data.annotations:
        yield from _columns(table)
    try:
        source, styles = layout.works(folder)
    except ValueError as error:
        yield str(error)
        return
    needed = fewest(params.data.split, len(params.protocol.groups))
    if (total := sum(styles.values())) < needed:
        yield f"data.folder: {source}: {total} pictures, at least {needed} are needed"
    for key, style, held_out in sorted(_named_styles(params)):
        needed = fewest(params.data.split, held_out)
        if style not in styles:
            yield f"{key}: {source} has no style '{style}'; there are {', '.join(styles)}"
        elif styles[style] < needed:
            of_it = f"{source} has {styles[style]} works of '{style}'"
            yield f"{key}: {of_it}, too few for both splits, which need {needed}"


def _named_styles(params: Params) -> set[tuple[str, str, int]]:
    """(key, style, works that must be held out) of all styles that parameters name."""
    named = {("base.train.unseen_styles", style, 2) for style in params.base.train.unseen_styles}
    for section in params.sections():
        needed = section.fewest(params)
        named |= {(f"{section.STUDY}.{key}", style, needed) for key, style in section.named_styles().items()}
    return named


def fewest(split: str, held_out: int) -> int:
    """Works of which a split (as in ``data.split``) leaves ``held_out`` on its smaller side, as a rule."""
    training = int(split.split("/")[0]) / 100
    return held_out * round(1 / min(training, 1 - training))


def _columns(table: Path) -> Iterator[str]:
    """What the first line of the annotations says of their columns; no more of the file is read."""
    from atelier.data.annotations import COLUMNS  # here: it imports pandas

    try:
        with reading(table, "its first line is not readable"), table.open("rb") as file:
            line = file.readline(HEADER).decode("utf-8-sig")
            columns = Counter(next(csv.reader([line.strip("\r\n")]), []))
    except FileFault as fault:
        yield f"data.annotations: {fault}"
        return
    odd = {
        "missing": [name for name in COLUMNS if name not in columns],
        "doubled": [name for name, n in columns.items() if n > 1],
        "unknown": [name[:ECHO] for name in columns if name not in COLUMNS],
    }
    said = "; ".join(f"{what} {', '.join(names[:5])}" for what, names in odd.items() if names)
    if said:
        yield f"data.annotations: {table}: columns {printable(said)}; expected {','.join(COLUMNS)}"


def base_folder(params: Params, workspace: Workspace) -> Path | None:
    """The folder of the base that the profile begins with; None: it is fetched from the hub, or made from nothing."""
    source, location = params.base.source, params.base.location
    if source == "shipped":
        return workspace.named(params.data.folder) / "base"
    return workspace.named(location) if source != "hub" and location else None


def _base(params: Params, workspace: Workspace) -> Iterator[str]:
    folder, source = base_folder(params, workspace), params.base.source
    if folder is None:
        return
    key = "base.source" if source == "shipped" else "base.location"
    if said := _other_kind(folder):
        yield f"{key}: {said}"
        return
    if not (folder / INDEX).is_file():
        if source == "shipped":
            yield f"base.source: 'shipped', but {folder} is no diffusers pipeline; name another by 'folder' or 'hub'"
        else:
            yield f"base.location: {params.base.location} is no diffusers pipeline, it has no {INDEX}"
    if folder.is_dir():
        yield from (f"{key}: {fault}" for part in PARTS for fault in _part(folder / part))


def _other_kind(folder: Path) -> str | None:
    """The refusal of a checkpoint in one file, or of a pipeline that says it is of another class."""
    if not (folder / INDEX).is_file():
        return single_file(folder)
    with suppress(FileFault):  # what is no JSON is refused by the stage that loads it
        content = read_json(folder / INDEX)
        return wrong_class(folder / INDEX, content) if "_class_name" in content else None
    return None


def _part(folder: Path) -> Iterator[str]:
    """What one class of a pipeline's folder lacks, by names and sizes."""
    if not folder.is_dir():
        yield f"{folder}: no such folder"
        return
    for group in PARTS[folder.name]:
        there = [folder / name for name in group if (folder / name).is_file()]
        if not there:
            yield f"{folder}: holds no {' or '.join(group)}"
        yield from (f"{file}: empty" for file in there[:1] if not file.stat().st_size)
    if folder.name in STEMS:
        try:
            files = weight_files(folder, STEMS[folder.name])
        except ValueError as fault:
            yield str(fault)
            return
        for file in files:
            if not file.is_file() or not file.stat().st_size:
                yield f"{file}: {'empty' if file.is_file() else 'no such file'}"


def _machine(params: Params, workspace: Workspace) -> Iterator[str]:
    if params.machine.device == "cuda" and not any((Path("/dev") / name).exists() for name in DEVICES):
        yield "machine.device: 'cuda' is set and no accelerator is seen on this machine"


def _weights(params: Params, workspace: Workspace) -> Iterator[str]:
    for key in ("weights", "heads"):
        path = workspace.named(getattr(params.perceptual, key))
        if not path.is_file():
            yield f"perceptual.{key}: {path}: no such file"
    named = {
        f"{section.STUDY}.{key}": names for section in params.sections() for key, names in section.named_files().items()
    }
    named |= {f"field_judges.{key}": names for key, names in params.field_judges.named_files().items()}
    for key, names in named.items():
        for path in map(workspace.named, names):
            if not path.is_file():
                yield f"{key}: {path}: no such file"


def _disk(params: Params, workspace: Workspace) -> Iterator[str]:
    needed = sum(section.samples(params) for section in params.sections()) * params.data.size**2 * 3 / GIGABYTE
    free = shutil.disk_usage(existing(workspace.build.absolute())).free / GIGABYTE
    if needed > free:
        yield f"{workspace.build}: samples will take {needed:.1f} GiB, {free:.1f} are free"


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
