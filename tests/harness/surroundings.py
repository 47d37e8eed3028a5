"""Unusual surroundings of one stage: environment, names of folders, closed streams, full and read-only disks."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from tests.harness.attacks import Attack

from conftest import PAINTED, TINY

SURROUNDINGS = "surroundings"


def attacks(seed: int) -> Iterator[Attack]:
    for name, environment in ENVIRONMENTS.items():
        yield Attack(SURROUNDINGS, name, partial(_in_surroundings, environment, "plain"))
    for name in ("with spaces", "émigré ünïcode", 'quote\'s "and" $dollar', "-dash", "a" * 120):
        yield Attack(SURROUNDINGS, f"a folder called {name[:20]!r}", partial(_in_surroundings, {}, name))
    yield Attack(SURROUNDINGS, "standard output is closed", _closed_output)
    if not can_mount():
        print("not tried: disks (only root may mount one)", file=sys.stderr)
        return
    for size in (0, 4, 8):
        yield Attack(SURROUNDINGS, f"a disk with {size} KiB left", partial(_on_full_disk, size))
    yield Attack(SURROUNDINGS, "a disk that cannot be written to", _on_read_only_disk)
    yield Attack(SURROUNDINGS, "a full temporary folder", _with_full_temporary_folder)


ENVIRONMENTS: dict[str, Mapping[str, str | None]] = {
    "HOME is unset": {"HOME": None},
    "HOME is nowhere": {"HOME": "/nowhere"},
    "LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "no locale": {"LANG": None, "LC_ALL": None},
    "an unknown locale": {"LC_ALL": "xx_YY.UTF-8"},
    "a temporary folder that is nowhere": {"TMPDIR": "/nowhere"},
    "a matplotlibrc of another's": {"MATPLOTLIBRC": "hostile"},
    "warnings are errors": {"PYTHONWARNINGS": "default"},
    "an unknown time zone": {"TZ": "Nowhere/Else"},
    "no PATH": {"PATH": ""},
}


@cache
def tiny() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-tiny-"))
    (folder / "params.yaml").write_text(TINY)
    subprocess.run([sys.executable, "-c", PAINTED], cwd=folder, check=True, capture_output=True)
    return folder


@cache
def expected() -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-expected-"))
    return _prepared(folder, {})


def _prepared(folder: Path, environment: Mapping[str, str | None]) -> bytes:
    _fill(folder)
    (folder / "hostile").write_text("text.usetex: True\nfigure.dpi: 7\nno.such.key: 1\n")
    done = _prepare(folder, environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    return _manifest(folder)


def _fill(folder: Path) -> None:
    shutil.copytree(tiny() / "data", folder / "data")
    shutil.copyfile(tiny() / "params.yaml", folder / "params.yaml")


def _manifest(folder: Path) -> bytes:
    return (folder / "build" / "manifests" / "works.parquet").read_bytes()


def _prepare(folder: Path, environment: Mapping[str, str | None]) -> "subprocess.CompletedProcess[str]":
    changed = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), **environment}
    kept = {key: value for key, value in changed.items() if value is not None}
    command = [sys.executable, "-m", "atelier", "prepare"]
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, encoding="utf-8")


def _in_surroundings(environment: Mapping[str, str | None], name: str, folder: Path) -> str:
    (folder / name).mkdir()
    return "" if _prepared(folder / name, environment) == expected() else "another manifest"


def _closed_output(folder: Path) -> str:
    """``python -m atelier prepare | true``."""
    _fill(folder)
    code = f"{sys.executable} -m atelier prepare | true"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(["sh", "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    return f"a traceback: {done.stderr[-300:]}" if "Traceback" in done.stderr else ""


# ---- disks


@cache
def can_mount() -> bool:
    with tempfile.TemporaryDirectory(prefix="atelier-harness-") as folder:
        try:
            with disk(Path(folder), 100):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` KiB in memory, mounted on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, capture_output=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)


def _on_full_disk(left: int, folder: Path) -> str:
    """Refused in one line that names a file; once there is space, the result is what it is elsewhere."""
    with disk(folder, 100_000):
        _fill(folder)
        status = os.statvfs(folder)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize // 1024
        _remount(folder, f"size={used + left}k")
        return _refused(folder, "No space left") or _succeeds_after(folder, "size=100000k")


def _on_read_only_disk(folder: Path) -> str:
    with disk(folder, 100_000):
        _fill(folder)
        _remount(folder, "ro")
        return _refused(folder, "Read-only") or _succeeds_after(folder, "rw")


def _refused(folder: Path, reason: str) -> str:
    done = _prepare(folder, {})
    lines = done.stderr.strip().splitlines()
    if done.returncode == 0:
        return "accepted"
    return "" if len(lines) == 1 and reason in lines[0] and "build" in lines[0] else f"said {done.stderr[-300:]!r}"


def _succeeds_after(folder: Path, options: str) -> str:
    _remount(folder, options)
    done = _prepare(folder, {})
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-300:]}"
    left = [path.name for path in (folder / "build").rglob(".*")]
    return f"left: {', '.join(left)}" if left else "" if _manifest(folder) == expected() else "another manifest"


def _with_full_temporary_folder(folder: Path) -> str:
    (folder / "plain").mkdir()
    (folder / "temporary").mkdir()
    with disk(folder / "temporary", 4):
        (folder / "temporary" / "full").write_bytes(b"0" * 4096)
        return "" if _prepared(folder / "plain", {"TMPDIR": str(folder / "temporary")}) == expected() else "other"
