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
