"""A folder for an unfinished run, named by a hash of everything that determines it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import atelier
from atelier.machine import fingerprint
from atelier.paths import SCRATCH

# whatever of the library a training run passes through: changed code must not continue an old run
CODE = ("data", "models", "methods", "training", "diffusion.py", "machine.py", "seeds.py")


def code_hash() -> str:
    """Hash of the library's sources that a training run passes through."""
    root = Path(atelier.__file__).parent
    files = sorted(
        path for part in CODE for path in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def folder(name: str, **determinants: Any) -> Path:
    """``.scratch/NAME-HASH`` for a run that these determine (JSON-able), with the library's code and the machine."""
    text = json.dumps({"code": code_hash(), "machine": fingerprint(), **determinants}, sort_keys=True)
    return SCRATCH / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def discard(path: Path) -> None:
    """The run's result has been written: what was kept for a resumption can go."""
    shutil.rmtree(path, ignore_errors=True)
