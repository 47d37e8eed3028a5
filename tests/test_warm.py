"""Stages as copies of one process that has loaded their libraries."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

TRAIN = [sys.executable, "-m", "atelier", "art_finetuning", "train", "mixed", "0"]
OUT = Path("build/adapters/art_finetuning/mixed/0")


@pytest.fixture
def fresh(tiny_world: Path) -> Path:
    for folder in (".scratch", OUT):
        shutil.rmtree(tiny_world / folder, ignore_errors=True)
    return tiny_world


def trained(folder: Path) -> dict[str, str]:
    files = sorted(path for path in (folder / OUT).rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def journal(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob(".scratch/art_finetuning-mixed-0-*/journal"))


@pytest.mark.long
def test_a_copy_leaves_what_a_process_leaves(fresh: Path, run_python) -> None:
    assert run_python(*TRAIN[1:], cwd=fresh).returncode == 0
    alone = trained(fresh)
    shutil.rmtree(fresh / OUT)
    done = run_python("-m", "atelier.warm", *TRAIN, cwd=fresh)
    assert done.returncode == 0, done.stderr
    assert "trained steps 0 to" in done.stdout  # said by the copy, on the stream of the one that asked
    assert trained(fresh) == alone
    assert alone


@pytest.mark.long
def test_refusals_and_exit_codes_come_through(tiny_world: Path, run_python) -> None:
    refused = ["-m", "atelier.warm", sys.executable, "-m", "atelier", "latent", "train"]
    done = run_python(*refused, cwd=tiny_world, LONG="x" * 100_000)  # an environment of more than one packet
    assert done.returncode == 1
    assert "usage: python -m atelier" in done.stderr
    done = run_python("-m", "atelier.warm", sys.executable, "-c", "raise SystemExit(7)", cwd=tiny_world)
    assert done.returncode == 7


def test_what_cannot_start_is_one_line(tiny_world: Path, tmp_path: Path, run_python) -> None:
    for folder, command, said in (
        (tiny_world, [], "usage: python -m atelier.warm COMMAND ..."),
        (tmp_path, ["true"], "params.yaml"),
    ):
        done = run_python("-m", "atelier.warm", *command, cwd=folder)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_server_that_is_gone_is_one_line(tiny_world: Path, tmp_path: Path, run_python) -> None:
    done = run_python("-m", "atelier", "prepare", cwd=tiny_world, ATELIER_WARM=str(tmp_path / "socket"))
    assert done.returncode == 1
    assert "atelier.warm does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_a_copy_ends_with_the_one_that_asked(fresh: Path) -> None:
    """The command starts a training, and is told by its number to kill it: what goes on would write on."""
    code = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); input()"
    server = subprocess.Popen(
        [sys.executable, "-m", "atelier.warm", sys.executable, "-c", code, *TRAIN],
        cwd=fresh,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    asker = int(server.stdout.readline())
    until = time.monotonic() + 120
    while journal(fresh).count(b"\n") < 3 and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(asker, signal.SIGKILL)
    time.sleep(0.5)
    done = journal(fresh)
    time.sleep(1)
    assert done.count(b"\n") >= 3
    assert journal(fresh) == done
    assert not trained(fresh)
    server.communicate("\n", timeout=30)
    assert server.returncode == 0


# ---- the end of processes

# what DVC does: a stage through a shell that does not become the stage
LIKE_DVC = """
import os, subprocess, sys
os.environ["DVC_STAGE"] = "stage"
print(os.getpid(), flush=True)
subprocess.call(["/bin/sh", "-c", " ".join(sys.argv[1:]) + "; true"])
"""


def alive(mark: str) -> set[int]:
    """Processes whose environment holds this mark."""
    numbers = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # a fork of the warm server has the server's environment here
                if mark.encode() in (folder / "environ").read_bytes() and "Z" not in state(folder):
                    numbers.add(int(folder.name))
            except OSError:  # it has ended
                continue
    return numbers


def state(folder: Path) -> str:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "alone"])
@pytest.mark.parametrize(
    ("victim", "number"),
    [("server", signal.SIGKILL), ("server", signal.SIGTERM), ("command", signal.SIGKILL), ("command", signal.SIGTERM)],
)
def test_nothing_outlives_the_one_that_started_it(
    fresh: Path, tmp_path: Path, warm: bool, victim: str, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", LIKE_DVC, *TRAIN]
    mark = f"MARK={tmp_path.name}-{os.getpid()}"
    (folder := tmp_path / "sockets").mkdir()
    started = subprocess.Popen(
        [sys.executable, "-m", "atelier.warm", *command] if warm else command,
        cwd=fresh,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder), "MARK": mark.partition("=")[2]},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    below = int(started.stdout.readline())
    until = time.monotonic() + 120
    while journal(fresh).count(b"\n") < 3 and time.monotonic() < until:
        time.sleep(0.001)
    os.kill(started.pid if victim == "server" else below, number)
    started.wait(timeout=30)
    until = time.monotonic() + 10
    while (left := alive(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert left == set()
    assert not trained(fresh)
    if not (victim == "server" and number == signal.SIGKILL):
        assert list(folder.glob("atelier-warm-*")) == []


# as DVC may, where the exception comes in a finaliser, which loses it
LOSES_IT = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: lost.append(True))
lost = []
print(os.getpid(), flush=True)
while not lost:
    time.sleep(0.01)
print(subprocess.call(sys.argv[1:]), flush=True)
while True:
    time.sleep(0.01)
"""


@pytest.mark.long
def test_a_lost_interrupt_starts_no_stage_and_ends_the_command(fresh: Path) -> None:
    started = in_session([sys.executable, "-c", LOSES_IT, *TRAIN], fresh, signal.SIG_DFL)
    assert started.stdout is not None
    below = int(started.stdout.readline())
    os.killpg(started.pid, signal.SIGINT)
    assert int(started.stdout.readline()) == 130
    assert started.wait(timeout=30) == 130
    assert not Path(f"/proc/{below}").exists()
    assert not trained(fresh)


@pytest.mark.long
def test_an_interrupt_that_is_ignored_from_the_start_interrupts_nothing(fresh: Path) -> None:
    """As in a shell's background."""
    started = in_session(TRAIN, fresh, signal.SIG_IGN)
    until = time.monotonic() + 120
    while journal(fresh).count(b"\n") < 3 and started.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(timeout=120) == 0
    assert trained(fresh)


def in_session(command: list[str], folder: Path, handled: signal.Handlers) -> subprocess.Popen[str]:
    """Start the server in a session of its own, as a terminal does; ``handled``: what Ctrl-C does at first."""
    return subprocess.Popen(
        [sys.executable, "-m", "atelier.warm", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, handled),
    )


@pytest.mark.long
def test_folders_of_killed_servers_are_removed_by_the_next(tiny_world: Path, tmp_path: Path, run_python) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for number, kept in ((dead.pid, False), (os.getpid(), True)):
        (tmp_path / f"atelier-warm-{number}-x").mkdir()
        run_python("-m", "atelier.warm", "true", cwd=tiny_world, TMPDIR=str(tmp_path))
        assert (tmp_path / f"atelier-warm-{number}-x").exists() == kept


@pytest.mark.long
def test_where_no_socket_can_be_made_stages_run_by_themselves(fresh: Path, tmp_path: Path, run_python) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    done = run_python("-m", "atelier.warm", *TRAIN, cwd=fresh, TMPDIR=str(deep))
    assert done.returncode == 0, done.stderr
    assert "stages import their libraries themselves" in done.stderr
    assert trained(fresh)
