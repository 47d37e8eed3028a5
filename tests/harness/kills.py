"""Kills and signals at random moments of the whole pipeline, and inside writes of checkpoints and locks.

All strike one copy of the working tree, in which the smoke profile's pipeline is started again after each. Whenever it
comes to its end, its locks and its site must equal those of a copy that nothing disturbed; then it starts from nothing.
What an interrupted stage had finished must be there afterwards, and must not be made again.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML
from tests.harness.attacks import Attack

import smoke_clone
from atelier import cli, locks, warm

KILLS, SIGNALS = "kills", "signals"
ANYWHERE, WRITES = 10, 6  # kills at random moments; inside a checkpoint's and inside a lock's write
MARK = "ATELIER_HARNESS_MARK"
PATIENCE = 60.0  # seconds that all processes have to end
TRIES = 4  # runs in which the moment for a kill may come
STRUCK = "struck in {}"
TRAINED = re.compile(r"trained steps (\d+) to \d+")


class Run(NamedTuple):
    """A running pipeline, and what its copy held as it was started."""

    process: "subprocess.Popen[bytes]"
    log: Path
    step: int | None  # of the newest checkpoint of the training that was interrupted
    parts: Mapping[Path, int]  # finished parts of interrupted stages, and when they were written


def attacks(seed: int) -> Iterator[Attack]:
    chance = random.Random(seed)
    for kind in kinds():  # in whatever order the pipeline has them
        yield Attack(
            KILLS, f"in another stage {kind}", partial(_killed, partial(_in_new_kind, chance.random()), _stage)
        )
    for number in range(ANYWHERE):
        moment = partial(_after_stages, chance.randrange(3), chance.uniform(0, 1.5))
        yield Attack(KILLS, f"at random {number}", partial(_killed, moment, partial(_any, chance.random())))
    for number in range(WRITES):
        moment = partial(_in_checkpoint, chance.randrange(4))
        yield Attack(KILLS, f"inside a checkpoint's write {number}", partial(_killed, moment, _stage))
        yield Attack(KILLS, f"inside a lock's write {number}", partial(_killed, _in_lock, _pipeline))
    yield Attack(KILLS, "the run after all kills", _to_the_end)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        for number in range(2):
            moment = partial(_after_stages, chance.randrange(3), chance.uniform(0, 1.5))
            yield Attack(SIGNALS, f"{name} {number}", partial(_signalled, moment, getattr(signal, name)))
    yield Attack(SIGNALS, "the run after all signals", _to_the_end)
    yield Attack(SIGNALS, "two pipelines at once", _two_at_once)


@cache
def tally() -> Counter[str]:
    """What was interrupted, and what went on."""
    return Counter()


def summary() -> str:
    return "; ".join(f"{what} {number}" for what, number in sorted(tally().items()))


# ---- the two copies


@cache
def undisturbed() -> Path:
    """A copy of the working tree in which the smoke profile has run to its end."""
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-smoke-"))
    shutil.copytree(_unrun(), folder, symlinks=True, dirs_exist_ok=True)
    smoke_clone.repro(folder)
    return folder


@cache
def _unrun() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-clone-"))
    smoke_clone.copied(folder)
    smoke_clone.checked(folder, "git", "add", "--all")
    smoke_clone.checked(folder, *smoke_clone.COMMIT, "as it is")
    return folder


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="atelier-harness-killed-")) / "atelier"


def disturbed() -> Path:
    """The copy that is interrupted."""
    if not _folder().is_dir():
        shutil.copytree(_unrun(), _folder(), symlinks=True)
    return _folder()


def start() -> Run:
    folder = disturbed()
    log = folder.parent / "log.txt"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONUNBUFFERED": "1",
        MARK: str(folder),
    }
    step, parts = _newest_step(folder), _parts(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs and their children ignore it
    command = [*smoke_clone.WARM, "dvc", "repro"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that a signal to all of them is none to the harness
        )
    return Run(process, log, step, parts)


def _newest_step(folder: Path) -> int | None:
    steps = [int(path.name.rpartition("-")[2]) for path in folder.glob(".scratch/*/step-*")]
    return max(steps, default=None)


def _parts(folder: Path) -> dict[Path, int]:
    """Parts of interrupted stages whose checksum was written, and when."""
    checksums = folder.glob(".scratch/**/*.sha256")
    parts = (path.with_name(path.name.removesuffix(".sha256")) for path in checksums)
    return {part: part.stat().st_mtime_ns for part in parts if part.is_file()}


# ---- moments: each waits for one, and returns False if the run ended before it came


def _after_stages(number: int, seconds: float, run: Run) -> bool:
    """Some time after that many further stages have begun."""
    while len(_stages(run.log)) <= number:
        if run.process.poll() is not None:
            return False
        time.sleep(0.02)
    time.sleep(seconds)
    return run.process.poll() is None


def _in_new_kind(chance: float, run: Run) -> bool:
    """Within a stage of a kind that no kill has struck."""
    while run.process.poll() is None:
        stages = _stages(run.log)
        if stages and STRUCK.format(kind_of(stages[-1])) not in tally():
            time.sleep(chance * 0.8)
            return run.process.poll() is None
        time.sleep(0.01)
    return False


def _in_checkpoint(number: int, run: Run) -> bool:
    """As a checkpoint is being written, after that many others."""
    written: set[Path] = set()

    def is_there() -> bool:
        written.update(disturbed().glob(".scratch/*/part-*"))
        return len(written) > number

    return _comes(run, is_there)


def _in_lock(run: Run) -> bool:
    """When a lock has just been emptied to be written anew."""
    sizes: dict[Path, int] = {}

    def is_cut() -> bool:
        for path in (disturbed() / "dvc.lock", *disturbed().glob("pipelines/*/dvc.lock")):
            size = path.stat().st_size if path.is_file() else 0
            if size < sizes.get(path, 0):
                return True
            sizes[path] = size
        return False

    return _comes(run, is_cut)


def _comes(run: Run, condition: Callable[[], bool]) -> bool:
    while run.process.poll() is None:
        if condition():
            return True
        time.sleep(0.0005)
    return False


# ---- victims


def alive() -> list[int]:
    """Processes that were started for the copy and have not ended."""
    mark, numbers = f"{MARK}={_folder()}".encode(), []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and mark in (process / "environ").read_bytes().split(b"\0"):
                    numbers.append(int(process.name))
            except OSError:  # it has ended
                continue
    return sorted(numbers)


def _any(chance: float, run: Run) -> int:
    processes = alive() or [run.process.pid]
    return processes[int(chance * len(processes))]


def _children(run: Run) -> dict[int, str]:
    """The server's children and their commands: the pipeline, and a fork a stage."""
    number = run.process.pid
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}


def _stage(run: Run) -> int:
    """The fork that runs a stage, the newest: one that is done may still be ending; the server where there is none."""
    forks = [child for child, command in _children(run).items() if not _is_pipeline(command)]
    return max(forks, default=run.process.pid)


def _pipeline(run: Run) -> int:
    return next(child for child, command in _children(run).items() if _is_pipeline(command))


def _is_pipeline(command: str) -> bool:
    """Whether a process runs DVC; a fork's command is the server's."""
    return f"{os.sep}dvc\0" in command


# ---- attacks


def _killed(moment: Callable[[Run], bool], victim: Callable[[Run], int], folder: Path) -> str:
    """Start the pipeline, wait for the moment, kill one of its processes, and see all of them end."""
    return _interrupted(moment, lambda run: os.kill(victim(run), signal.SIGKILL), may_miss=True)


def _signalled(moment: Callable[[Run], bool], number: signal.Signals, folder: Path) -> str:
    """Send a signal to the command, or to all of its processes as a terminal does on Ctrl-C."""
    servers: list[int] = []

    def strike(run: Run) -> None:
        servers.append(run.process.pid)
        (os.killpg if number == signal.SIGINT else os.kill)(run.process.pid, number)

    failure = _interrupted(moment, strike)
    left = [path for server in servers for path in Path(tempfile.gettempdir()).glob(f"{warm.PREFIX}{server}-*")]
    return failure or (f"left: {left[0].name}" if left else "")


def _interrupted(moment: Callable[[Run], bool], strike: Callable[[Run], None], may_miss: bool = False) -> str:
    """Start the pipeline, strike at a moment, see all of it end. ``may_miss``: what is struck may be done."""
    for _ in range(TRIES):
        run = start()
        if moment(run):
            break
        if failure := _ended(run) or _equal():
            return failure
        shutil.rmtree(disturbed())
    else:
        return "the moment did not come"
    try:
        strike(run)
    except ProcessLookupError:  # it had just ended
        tally()["too late"] += 1
    struck = len(_stages(run.log))
    if failure := _ended(run, struck=True):
        if not may_miss or len(_stages(run.log)) == struck:
            return failure
        tally()["too late"] += 1  # the pipeline went on until it was ended
        return ""
    stages = _stages(run.log)
    tally()[STRUCK.format(kind_of(stages[-1])) if stages else "struck before a stage"] += 1
    tally()["checkpoints half written"] += any(disturbed().glob(".scratch/*/part-*"))
    tally()["locks half written"] += any(_is_cut(name) for name in locks.locks(disturbed()))
    return ""


def _is_cut(name: Path) -> bool:
    kept = disturbed() / locks.KEPT / name
    return kept.is_file() and locks.damaged((disturbed() / name).read_bytes(), kept.read_bytes())


def _ended(run: Run, struck: bool = False) -> str:
    """Wait until no process is left; see that interrupted work went on."""
    until = time.monotonic() + (PATIENCE if struck else 20 * PATIENCE)
    remade = set()
    while (run.process.poll() is None or alive()) and time.monotonic() < until:
        remade |= {part.name for part, written in run.parts.items() if _written(part) not in (None, written)}
        time.sleep(0.1)
    if left := alive():
        commands = [Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")[-60:] for number in left]
        for number in left:
            os.kill(number, signal.SIGKILL)
        return f"still running: {'; '.join(commands)}"
    if not struck and run.process.returncode:
        return f"exit {run.process.returncode}: {run.log.read_text()[-300:]}"
    if remade:
        return f"made again: {', '.join(sorted(remade))}"
    tally()["finished parts that were kept"] += len(run.parts)
    first = TRAINED.search(run.log.read_text())
    if run.step is not None and first:
        if int(first[1]) < run.step:
            return f"a training with a checkpoint of step {run.step} began at {first[1]}"
        tally()["trainings continued"] += 1
    return ""


def _written(part: Path) -> int | None:
    return part.stat().st_mtime_ns if part.is_file() else None


def _to_the_end(folder: Path) -> str:
    undisturbed()
    return _ended(start()) or _equal()


def _two_at_once(folder: Path) -> str:
    """The second is refused or waits; what is written in the end is what one writes."""
    undisturbed()
    shutil.rmtree(disturbed())
    one = start()
    _after_stages(1, 0.2, one)
    second = subprocess.run(
        [*smoke_clone.WARM, "dvc", "repro"],
        cwd=disturbed(),
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    if "Traceback" in second.stderr:
        return f"a traceback: {second.stderr[-300:]}"
    return _ended(one) or _equal()


def _equal() -> str:
    """Locks and site are the undisturbed run's, and nothing unfinished is left."""
    one, two = undisturbed(), disturbed()
    names = ["dvc.lock", *(path.relative_to(one).as_posix() for path in one.glob("pipelines/*/dvc.lock"))]
    names += [path.relative_to(one).as_posix() for path in (one / "build" / "site").rglob("*") if path.is_file()]
    different = [name for name in names if not (two / name).is_file()]
    different += [
        name for name in names if name not in different and (one / name).read_bytes() != (two / name).read_bytes()
    ]
    left = [path for path in two.glob(".scratch/*") if path.name not in (locks.KEPT.name, cli.TIMINGS)]
    left += list(two.glob("build/**/.*.part"))
    tally()["whole runs compared"] += 1
    if different:
        return f"differ: {', '.join(different[:5])}"
    return f"left: {', '.join(path.name for path in left[:5])}" if left else ""


def _differ(one: Path, two: Path) -> bool:
    return one.read_bytes() != two.read_bytes()


def _stages(log: Path) -> list[str]:
    return smoke_clone.STAGE.findall(log.read_text(errors="replace"))


def kinds() -> list[str]:
    """The kinds of stages that the pipeline has."""
    files = [smoke_clone.ROOT / "dvc.yaml", *sorted(smoke_clone.ROOT.glob("pipelines/*/dvc.yaml"))]
    return [name for file in files for name in YAML(typ="safe").load(file)["stages"]]


def kind_of(stage: str) -> str:
    """A stage's name without the pipeline file and the variant."""
    return stage.rpartition(":")[2].partition("@")[0]
