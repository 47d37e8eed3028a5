"""Kills at random moments of the whole pipeline, signals, and unusual surroundings of one stage."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from tests.harness.attacks import Attack

import smoke_clone
from conftest import STAGES, TINY

KILLS, SIGNALS, SURROUNDINGS = "kills", "signals", "surroundings"
NUMBER = 50  # of kills
MARK = "ATELIER_HARNESS_MARK"


def attacks(seed: int) -> Iterator[Attack]:
    """Kills one after the other in one copy, then a run to the end, whose outputs must be the undisturbed run's."""
    chance = random.Random(seed)
    for number in range(NUMBER):
        yield Attack(
            KILLS, f"kill {number}", partial(_interrupted, signal.SIGKILL, chance.uniform(3, 12), chance.random())
        )
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        for number in range(2):
            after, victim = chance.uniform(4, 9), chance.random()
            yield Attack(SIGNALS, f"{name} {number}", partial(_interrupted, getattr(signal, name), after, victim))
    yield Attack(KILLS, "the run after all kills leaves what an undisturbed run leaves", _finished)
    for name, environment in ENVIRONMENTS.items():
        yield Attack(SURROUNDINGS, name, partial(_in_surroundings, environment, "plain"))
    for name in ("with spaces", "émigré ünïcode", 'quote\'s "and" $dollar', "-dash", "a" * 120):
        yield Attack(SURROUNDINGS, f"a folder called {name[:20]!r}", partial(_in_surroundings, {}, name))
    yield Attack(SURROUNDINGS, "standard output is closed", _closed_output)


# ---- kills


@cache
def undisturbed() -> Path:
    """A copy of the working tree in which the smoke profile has run to its end."""
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-smoke-"))
    smoke_clone.copied(folder)
    smoke_clone.checked(folder, "git", "add", "--all")
    smoke_clone.checked(folder, *smoke_clone.COMMIT, "as it is")
    shutil.copytree(folder, disturbed(), symlinks=True, dirs_exist_ok=True)
    smoke_clone.repro(folder)
    return folder


@cache
def disturbed() -> Path:
    """A copy that is only ever interrupted; removed and made again when a run has come to its end."""
    return Path(tempfile.mkdtemp(prefix="atelier-harness-killed-"))


def started(folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        MARK: str(folder),
    }
    command = [*smoke_clone.WARM, "dvc", "repro", "--quiet"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def alive(folder: Path) -> list[int]:
    """Processes that were started for a folder and have not ended."""
    mark, numbers = f"{MARK}={folder}".encode(), []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and mark in (process / "environ").read_bytes():
                    numbers.append(int(process.name))
            except OSError:  # it has ended
                continue
    return sorted(numbers)


def _interrupted(number: signal.Signals, after: float, victim: float, folder: Path) -> str:
    """Start the pipeline, send a signal to one of its processes after some seconds, and see all of them end."""
    undisturbed()
    running = started(disturbed())
    time.sleep(after)
    processes = alive(disturbed())
    if processes:
        chosen = running.pid if number != signal.SIGKILL else processes[int(victim * len(processes))]
        os.kill(chosen, number)
    until = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < until:
        # a stage that was killed ends the run by itself; anything else is ended here, as a user would
        time.sleep(0.1)
    if running.poll() is None:
        running.terminate()
        return "the run did not end"
    while (left := alive(disturbed())) and time.monotonic() < until:
        time.sleep(0.1)
    return f"still running: {left}" if left else ""


def _finished(folder: Path) -> str:
    one, two = undisturbed(), disturbed()
    done = subprocess.run([*smoke_clone.WARM, "dvc", "repro", "--quiet"], cwd=two, env={
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(two / "src"),
    }, capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr[-300:]}"
    names = ["dvc.lock", *(path.relative_to(one).as_posix() for path in one.glob("pipelines/*/dvc.lock"))]
    different = [name for name in names if (one / name).read_bytes() != (two / name).read_bytes()]
    pages = [path.relative_to(one).as_posix() for path in (one / "build" / "site").rglob("*") if path.is_file()]
    different += [name for name in pages if (one / name).read_bytes() != (two / name).read_bytes()]
    return f"differ: {', '.join(different[:5])}" if different else ""


# ---- surroundings

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
    painted = STAGES[: STAGES.index("from atelier.models import trunk")]
    subprocess.run([sys.executable, "-c", painted], cwd=folder, check=True, capture_output=True)
    return folder


@cache
def expected() -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-expected-"))
    return _prepared(folder, {})


def _prepared(folder: Path, environment: Mapping[str, str | None]) -> bytes:
    shutil.copytree(tiny() / "data", folder / "data")
    shutil.copyfile(tiny() / "params.yaml", folder / "params.yaml")
    (folder / "hostile").write_text("text.usetex: True\nfigure.dpi: 7\nno.such.key: 1\n")
    changed = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), **environment}
    kept = {key: value for key, value in changed.items() if value is not None}
    command = [sys.executable, "-m", "atelier", "prepare"]
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    return (folder / "build" / "manifests" / "works.parquet").read_bytes()


def _in_surroundings(environment: Mapping[str, str | None], name: str, folder: Path) -> str:
    (folder / name).mkdir()
    return "" if _prepared(folder / name, environment) == expected() else "another manifest"


def _closed_output(folder: Path) -> str:
    """``python -m atelier check | true``."""
    shutil.copyfile(tiny() / "params.yaml", folder / "params.yaml")
    shutil.copytree(tiny() / "data", folder / "data")
    code = f"{sys.executable} -m atelier prepare | true"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(["sh", "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    return f"a traceback: {done.stderr[-300:]}" if "Traceback" in done.stderr else ""
