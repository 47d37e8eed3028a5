"""Keep a readable copy of DVC's locks, and put it back where a kill has destroyed one.

DVC writes a lock in place, after each stage. Between stages every lock is whole, so that a copy is kept as a stage
starts. A copy that is put back lacks at most the last stage, whose outputs come from DVC's run cache. The file in which
DVC notes what running commands read and write is written in place, too; a damaged one is removed, as it notes nothing
that outlives them.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from atelier.files import read_bytes, remove, write_whole

RUNNING = Path(".dvc") / "tmp" / "rwlock"  # what running commands of DVC read and write
SETTLED = 0.2  # seconds after which a file that another command was writing is whole
KEPT = Path(".scratch") / "locks"  # below the repository's folder


def locks(root: Path = Path()) -> Iterator[Path]:
    """All locks of the pipeline, relative to ``root``."""
    for path in (root / "dvc.lock", *sorted(root.glob("pipelines/*/dvc.lock"))):
        if path.is_file():
            yield path.relative_to(root)


def stages(data: bytes) -> Mapping[str, Any] | None:
    """The stages of a lock's content; None where it is no lock."""
    try:
        content = YAML(typ="safe").load(data.decode())
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    known = content.get("stages") if isinstance(content, dict) else None
    return known if isinstance(known, dict) and all(isinstance(stage, dict) for stage in known.values()) else None


def of_stage(stage: str) -> Path:
    """The lock that holds a stage, by the name that DVC gives it: ``pipelines/STUDY/dvc.yaml:NAME``, or ``NAME``."""
    file, named, _ = stage.rpartition(":")
    return Path(file if named else "dvc.yaml").with_suffix(".lock")


def keep(root: Path = Path(), only: Path | None = None) -> None:
    """Copy each lock that has changed and is whole, or ``only`` one. Called while DVC does not write it.

    So it is of its own lock as a stage starts; beside it another study's DVC may be writing another.
    """
    for name in locks(root):
        if only not in (None, name):
            continue
        data, kept = read_bytes(root / name), root / KEPT / name
        if (not kept.is_file() or read_bytes(kept) != data) and stages(data) is not None:
            write_whole(kept, data)


def put_back(root: Path = Path()) -> list[Path]:
    """Replace each damaged lock by its kept copy; returns their names."""
    mended = []
    for name in locks(root):
        kept = root / KEPT / name
        if kept.is_file() and damaged(read_bytes(root / name), read_bytes(kept)):
            write_whole(root / name, read_bytes(kept))
            mended.append(name)
    return mended


def remove_cut(root: Path = Path()) -> bool:
    """Remove a damaged note of what DVC's running commands read and write, which stops every later one."""
    path = root / RUNNING
    for wait in (SETTLED, 0.0):
        if not path.is_file() or _is_json(read_bytes(path)):
            return False
        time.sleep(wait)
    remove(path)
    return True


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def damaged(data: bytes, kept: bytes) -> bool:
    """Whether a lock was cut while it was written: unreadable, or its last stages are missing or incomplete.

    Another revision's lock is not: it differs from the kept one in more than its end.
    """
    now, before = stages(data), stages(kept)
    if now is None or before is None:
        return before is not None
    names, known = list(now), list(before)
    if names != known[: len(names)]:
        return False
    return len(names) < len(known) or any(before[name].keys() - now[name].keys() for name in names[-1:])
