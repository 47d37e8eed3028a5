"""Write files whole, seal folders and tables with checksums, and name the file that is damaged.

What the pipeline writes is sealed: a folder has a file ``SHA256SUMS`` (``sha256sum -c SHA256SUMS`` verifies it), a JSON
file a key ``sha256``, and a table of measures a checksum in its header (``evaluation.tables``).
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

SEAL = "SHA256SUMS"
OUTPUTS = "build"  # the folder of a workspace in which every folder is sealed
LINE = re.compile(r"\\?[0-9a-f]{64}  (?P<name>[^\n]+)")  # one of coreutils' format


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary file, sync, rename. On an OSError (full disk) the old file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise OSError(fault.errno, f"not written: {fault.strerror}", str(path)) from fault


def write_seal(folder: Path) -> None:
    """Sync every file below ``folder`` to disk and write their checksums to ``SHA256SUMS``, replacing an older one."""
    lines = []
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        lines.append(_line(folder, path))
    write_whole(folder / SEAL, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def check_seal(folder: Path, only: Collection[Path] | None = None) -> Path:
    """Compare a folder that the pipeline wrote with its ``SHA256SUMS``; returns ``folder``.

    ``only``: compare these files and no others, in a folder too large to be read for a few. Each file is read once per
    process. Raises ValueError, one line, for a folder without checksums, and for a file that is missing, changed, or
    not listed.
    """
    expected = _expected(folder)
    paths = {_escaped(folder, path): path for path in (_files(folder) if only is None else only)}
    missing = sorted(expected.keys() - paths.keys()) if only is None else []
    if missing:
        raise ValueError(f"{folder / missing[0]}: missing, {folder / SEAL} lists it; make the folder again")
    for name, path in paths.items():
        shown = folder / name  # on one line, whatever the file's name
        if name not in expected:
            raise ValueError(f"{shown}: not listed in {folder / SEAL}, so the pipeline did not write it; remove it")
        if not path.is_file():
            raise ValueError(f"{shown}: missing, {folder / SEAL} lists it; make the folder again")
        if _line(folder, path) != expected[name]:
            raise ValueError(f"{shown}: damaged: its content is not what was written; make the folder again")
    return folder


def check_output(path: Path) -> None:
    """Check the seal of the folder that ``path`` lies in, if the pipeline wrote it: the nearest sealed one in a build.

    For loaders that also read folders that a user brings, which have no seal.
    """
    above = path.absolute()
    while OUTPUTS in above.parts[:-1]:
        if (above / SEAL).is_file():
            check_seal(above)
            return
        above = above.parent


def _expected(folder: Path) -> dict[str, str]:
    """The lines of a folder's seal, by the name in them."""
    path = folder / SEAL
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; the stage that writes it has not run")
    try:
        text = path.read_bytes().decode(errors="surrogateescape")
    except OSError:
        raise ValueError(f"{path}: missing, so {folder} may be damaged or unfinished; make it again") from None
    lines = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{path}: damaged: line {number} is no checksum; make the folder again")
        lines[match["name"]] = line
    if not text.endswith("\n") and text:
        raise ValueError(f"{path}: damaged: its last line is cut off; make the folder again")
    return lines


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder but its seal, in a fixed order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SEAL)


def _line(folder: Path, path: Path) -> str:
    """A file's line in coreutils' format, in which a backslash at the start says that the name is escaped."""
    name, status = _escaped(folder, path), path.stat()
    digest = _digest(path, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    return f"{chr(92) if chr(92) in name else ''}{digest}  {name}"


def _escaped(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    for character, code in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r")):
        name = name.replace(character, code)
    return name


@cache
def _digest(path: Path, *state: int) -> str:
    """SHA-256 of a file in this state, which a change of the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
