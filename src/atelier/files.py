"""Read and write files such that whatever is wrong with one is a single line that begins with its path.

``reading`` stands around whatever opens and parses a file, ``writing`` around whatever makes one, ``filling`` around
what writes a folder's files under names that it chooses. A test holds all modules to that.

What the pipeline writes is sealed: a folder has a file ``SHA256SUMS`` (``sha256sum -c SHA256SUMS`` verifies it), a JSON
file a key ``sha256``, and a table of measures a checksum in its header (``evaluation.tables``).
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.lifetime import is_alive

if TYPE_CHECKING:
    import pandas as pd

ENDING = (Exception, KeyboardInterrupt, SystemExit)  # after which there is time to clear up
ECHO = 80  # letters of a value that a message repeats
UNREAD = "cannot be read"
REASON = 200  # letters of a library's message
SEAL = "SHA256SUMS"
OUTPUTS = "build"  # the folder of a workspace in which every folder is sealed
LINE = re.compile(r"\\?[0-9a-f]{64}  (?P<name>[^\n]+)")  # one of coreutils' format


class FileFault(OSError, ValueError):
    """A file that cannot be read or written, in one line, ``PATH: what is wrong``; ``errno`` where a call failed."""


@contextmanager
def reading(path: Path, refusal: str = "") -> Iterator[None]:
    """Around the reading of one file or folder: FileFault in place of any fault, so the block should do no more.

    ``refusal``: what the line says before the reason, such as "not a notebook". A FileFault, and a ValueError that
    names ``path`` already, pass as they are.
    """
    try:
        mode = path.stat().st_mode  # also where a library would look for a missing folder on the internet
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would block
            raise ValueError("no regular file")
        yield
    except FileFault:
        raise
    except Exception as fault:
        if isinstance(fault, ValueError) and str(path) in str(fault):
            raise
        raise fault_of(path, fault, refusal or UNREAD) from fault


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Around what writes below ``folder``, which is made: FileFault where it cannot be written, other faults pass."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except FileFault:
        raise
    except Exception as fault:
        if not _is_of_disk(fault):
            raise
        named = getattr(fault, "filename", None)
        raise fault_of(Path(os.fsdecode(named)) if isinstance(named, str | bytes) else folder, fault) from fault


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield the path of an unfinished file beside ``path``, which it replaces when the block ends, synced to disk.

    On a fault the old file stays and the unfinished one is removed; FileFault where it cannot be written, other faults
    pass. Its folder is made.
    """
    part = path.with_name(f".{path.name}.{_writer()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except ENDING as fault:
        _remove(part)
        if not isinstance(fault, FileFault) and _is_of_disk(fault):
            raise fault_of(path, fault) from fault
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary file, sync, rename. On a fault (full disk) the old file stays."""
    with writing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, atomically."""
    write_whole(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_table(path: Path, table: "pd.DataFrame", **options: Any) -> None:
    """Write a table without its index as CSV, atomically; ``options`` are passed to pandas' ``to_csv``."""
    with writing(path) as part:
        table.to_csv(part, index=False, **options)


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes, atomically."""
    write_whole(target, read_bytes(source))


def copy_folder(source: Path, target: Path) -> None:
    """Copy all files of a folder into another, which may exist."""
    with filling(target):
        shutil.copytree(source, target, dirs_exist_ok=True)


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    with filling(path.parent):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """A file's bytes."""
    with reading(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """A file's text, which must be UTF-8."""
    with reading(path):
        return path.read_text(encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; FileFault for anything else."""
    text = read_text(path)
    with reading(path, "not JSON"):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise FileFault(f"{path}: expected a JSON object")
    return content


def read_table(path: Path, columns: Sequence[str] = (), whole: bool = True, **options: Any) -> "pd.DataFrame":
    """A CSV that has at least ``columns``; ``options`` are passed to pandas' ``read_csv``.

    ``whole``: the file must end with a newline, as whatever ``write_table`` wrote does, so that one cut in mid-row is
    refused.
    """
    with reading(path, "not a CSV"):
        data = path.read_bytes()
        if whole and data and not data.endswith(b"\n"):
            raise ValueError("it is cut off in mid-row")
    return parse_table(path, data, columns, **options)


def parse_table(path: Path, data: bytes, columns: Sequence[str] = (), **options: Any) -> "pd.DataFrame":
    """The table in a file's bytes, as in ``read_table``."""
    import io

    import pandas as pd

    with reading(path, "not a CSV"):
        table = pd.read_csv(io.BytesIO(data), **options)
    if missing := [name for name in columns if name not in table]:
        raise FileFault(f"{path}: columns missing: {', '.join(missing)}")
    return table


def write_seal(folder: Path) -> None:
    """Sync every file below ``folder`` to disk and write their checksums to ``SHA256SUMS``, replacing an older one."""
    lines = []
    for path in _files(folder):
        with filling(path.parent), path.open("rb") as file:
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


def shown(value: object) -> str:
    """A value as a message repeats it: printable and cut to a readable length."""
    text = printable(repr(value))
    return text if len(text) <= ECHO else f"{text[: ECHO - 1]}…"


def printable(text: str) -> str:
    """Text with its control characters, line ends and undecodable bytes escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def of_system(fault: OSError) -> str:
    """What the system said of a failed call, without its number."""
    number = _number(fault)
    return os.strerror(number) if number else fault.strerror or str(fault) or type(fault).__name__


def fault_of(path: Path, fault: BaseException, refusal: str = "not written") -> FileFault:
    """The line of a fault."""
    number = _number(fault)
    why = reason(fault) if number is None else os.strerror(number)
    named = FileFault(printable(f"{path}: {refusal} ({why})" if refusal == UNREAD else f"{path}: {refusal}: {why}"))
    named.errno = number
    return named


def _number(fault: BaseException) -> int | None:
    """The system's number of a fault; safetensors, written in Rust, has it in its message only."""
    if isinstance(fault, OSError) and fault.errno is not None:
        return fault.errno
    if isinstance(fault, FileNotFoundError):
        return errno.ENOENT
    # only messages of input and output end like this
    match = re.search(r"\(os error (\d+)\)", str(fault)) if type(fault).__module__ != "builtins" else None
    return int(match[1]) if match else None


def _is_of_disk(fault: BaseException) -> bool:
    """Whether a file could not be written, and nothing else is wrong."""
    return _number(fault) is not None or type(fault).__name__ == "SafetensorError"


def reason(fault: BaseException) -> str:
    """Why a file's content was refused, in words."""
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    if isinstance(fault, MemoryError):
        return "too large for this machine's memory"
    if isinstance(fault, UnicodeDecodeError):
        return f"byte 0x{fault.object[fault.start]:02x} at {fault.start} is not UTF-8"
    if isinstance(fault, KeyError):
        return f"it lacks {shown(fault.args[0] if fault.args else '')}"
    if isinstance(fault, EOFError):
        return "it ends too early"
    text = printable(" ".join(str(fault).split())) or type(fault).__name__
    return text if len(text) <= REASON else f"{text[: REASON - 1]}…"


def _writer() -> str:
    """What an unfinished file is named by: the process, or its rank among several, which may be on other machines."""
    return f"rank-{os.environ.get('RANK', '0')}" if os.environ.get("WORLD_SIZE", "1") != "1" else str(os.getpid())


@cache
def _sweep(folder: Path) -> None:
    """Remove the unfinished files that killed processes have left in a folder; once per process."""
    for part in folder.glob(".*.part"):
        number = part.name.removesuffix(".part").rpartition(".")[2]
        if part.is_file() and number.isdecimal() and not is_alive(int(number)):
            _remove(part)


def _remove(part: Path) -> None:
    """Remove an unfinished file; where even that fails, the fault before it is the one to report."""
    with suppress(OSError):
        part.unlink(missing_ok=True)


def _expected(folder: Path) -> dict[str, str]:
    """The lines of a folder's seal, by the name in them."""
    path = folder / SEAL
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; the stage that writes it has not run")
    if not path.is_file():
        raise ValueError(f"{path}: missing, so {folder} may be damaged or unfinished; make it again")
    text = read_bytes(path).decode(errors="surrogateescape")
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
    name = _escaped(folder, path)
    with reading(path):
        status = path.stat()
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
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
