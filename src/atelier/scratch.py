"""Partial results of unfinished stages, in folders named by a hash of everything that determines the result.

A killed stage resumes from its folder. Files are complete or absent: written under another name, then renamed.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from atelier.closure import code_hash
from atelier.files import SEAL, check_seal, read_bytes, reading, remove, write_whole, writing
from atelier.machine import fingerprint
from atelier.params import Params
from atelier.workspace import Workspace, replacing


def folder(scratch: Path, entry: str, name: str, **key: Any) -> Path:
    """``NAME-HASH`` in the folder of scratch, hashed from ``key`` (JSON-able), the code and the machine.

    ``entry``: the module that the run starts in; a change to it or to its imports starts a new run.
    """
    text = json.dumps({"code": code_hash(entry), "machine": fingerprint(), **key}, sort_keys=True)
    return scratch / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def of_stage(params: Params, workspace: Workspace, entry: str, out: Path, inputs: Sequence[Path], **key: Any) -> Path:
    """The scratch folder of a stage that writes ``out`` from input files, folders and the shared parameters."""
    shared = params.model_dump(mode="json", include=set(Params.model_fields))
    name = "-".join(out.relative_to(workspace.build).with_suffix("").parts)
    return folder(workspace.scratch, entry, name, inputs=digest(workspace.root, *inputs), shared=shared, **key)


def discard(run: Path) -> None:
    """Delete a run's folder, once its result has been written."""
    shutil.rmtree(run, ignore_errors=True)


def digest(root: Path, *paths: Path) -> str:
    """SHA-256 of files, and of all files in folders, with their names; what is below ``root`` is named from there.

    Seals are left out: what they say of the other files is no input.
    """
    total = hashlib.sha256()
    for path in paths:
        for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            if file.name == SEAL:
                continue
            content = _file_digest(file)
            name = file.relative_to(root) if file.is_relative_to(root) else file
            total.update(f"{name.as_posix()}\0{content}\0".encode())
    return total.hexdigest()


def path(run: Path, name: str, suffix: str) -> Path:
    """Path of one part of a run."""
    return run / f"{quote(name, safe='@+,')}{suffix}"


def part(run: Path, name: str, suffix: str, write: Callable[[Path], None]) -> Path:
    """A file of a run; calls ``write`` unless an earlier process has finished it."""
    target = path(run, name, suffix)
    if not is_whole(target):
        with writing(target) as unfinished:
            write(unfinished)
            write_whole(_checksum(target), _file_digest(unfinished).encode())
    return target


def folder_part(run: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of a run; calls ``fill`` unless an earlier process has finished it."""
    target = path(run, name, "")
    try:
        return check_seal(target)
    except ValueError as fault:
        if target.exists():
            print(f"{fault}; it is made again", file=sys.stderr)
    with replacing(target) as unfinished:
        fill(unfinished)
    return target


def is_whole(target: Path) -> bool:
    """Whether an earlier process has finished a file of a run; a damaged one is deleted, and a line says so."""
    if not target.is_file():
        return False
    note = _checksum(target)
    if note.is_file() and read_bytes(note) == _file_digest(target).encode():
        return True
    print(f"{target}: damaged: its content is not what was written; it is made again", file=sys.stderr)
    remove(target)
    return False


def _checksum(target: Path) -> Path:
    """The file beside a run's file that holds its SHA-256."""
    return target.with_name(f"{target.name}.sha256")


def _file_digest(file: Path) -> str:
    with reading(file), file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def table(run: Path, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table of a run; calls ``make`` unless an earlier process has finished it. Values are stored exactly."""
    return read(part(run, name, ".parquet", lambda path: make().to_parquet(path)))


def read(path: Path) -> pd.DataFrame:
    """Read a table of a run."""
    with reading(path), path.open("rb") as file:  # of a folder pandas would read all files
        return pd.read_parquet(file)
