"""What a profile will need, checked before anything runs: files, folders, styles, disk, and cells of claims.

By names and sizes alone and without torch, so that it takes about a second for tens of thousands of pictures, too.
Stages check contents.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from atelier import claims
from atelier.data import layout
from atelier.params import Params
from atelier.workspace import Workspace

MODEL = "model_index.json"  # the file that makes a folder a diffusers pipeline
FEWEST = 8  # works in all: of fewer, a split or a group of repeats is empty
GIGABYTE = 2**30


def faults(params: Params, workspace: Workspace) -> list[str]:
    """All that the profile needs and does not find, one line each."""
    return [each for part in (_works, _base, _weights, _disk) for each in part(params, workspace)]


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
    try:
        source, styles = layout.works(folder)
    except ValueError as error:
        yield str(error)
        return
    if (total := sum(styles.values())) < FEWEST:
        yield f"data.folder: {source}: {total} pictures, at least {FEWEST} are needed"
    for key, style in sorted(_named_styles(params)):
        if style not in styles:
            yield f"{key}: {source} has no style '{style}'; there are {', '.join(styles)}"
        elif styles[style] < fewest(params.data.split):
            yield f"{key}: {source} has {styles[style]} works of '{style}', too few for both splits"


def _named_styles(params: Params) -> set[tuple[str, str]]:
    """(key, style) of all styles that parameters name."""
    named = {("base.train.unseen_styles", style) for style in params.base.train.unseen_styles}
    for section in params.sections():
        named |= {(f"{section.STUDY}.{key}", style) for key, style in section.named_styles().items()}
    return named


def fewest(split: str) -> int:
    """Works of a style of which a split (as in ``data.split``) leaves some on both sides, as a rule."""
    training = int(split.split("/")[0]) / 100
    return 2 * round(1 / (1 - training))


def _base(params: Params, workspace: Workspace) -> Iterator[str]:
    source, location = params.base.source, params.base.location
    if source == "shipped":
        folder = workspace.named(params.data.folder) / "base"
        if not (folder / MODEL).is_file():
            yield f"base.source: 'shipped', but {folder} is no diffusers pipeline; name another by 'folder' or 'hub'"
    elif source != "hub" and location and not (workspace.named(location) / MODEL).is_file():
        yield f"base.location: {location} is no diffusers pipeline, it has no {MODEL}"


def _weights(params: Params, workspace: Workspace) -> Iterator[str]:
    for key in ("weights", "heads"):
        path = workspace.named(getattr(params.perceptual, key))
        if not path.is_file():
            yield f"perceptual.{key}: {path}: no such file"
    for section in params.sections():
        for key, names in section.named_files().items():
            for path in map(workspace.named, names):
                if not path.is_file():
                    yield f"{section.STUDY}.{key}: {path}: no such file"


def _disk(params: Params, workspace: Workspace) -> Iterator[str]:
    needed = sum(section.samples(params) for section in params.sections()) * params.data.size**2 * 3 / GIGABYTE
    free = shutil.disk_usage(_existing(workspace.build.absolute())).free / GIGABYTE
    if needed > free:
        yield f"{workspace.build}: samples will take {needed:.1f} GiB, {free:.1f} are free"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
