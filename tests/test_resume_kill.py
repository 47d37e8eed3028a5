"""Real processes, really killed: started again, a training ends with the bytes of one that was left alone."""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

VARIANT, STEPS, EVERY = "mixed", 24, 5  # as in conftest's params.yaml
TRAIN = ["-m", "atelier", "train", VARIANT, "0"]
MOMENTS = random.Random(2025).sample(range(EVERY + 1, STEPS - 3), 3)  # steps done when the signal is sent

# the process kills itself while the second checkpoint is being written, or renamed
SUICIDE = """
import os, signal, sys
from atelier import machine, params
machine.settle(params.load().machine.threads)
from atelier import __main__ as command
from atelier.training import checkpoints

owner, name, half = {"save_file": (checkpoints, "save_file", True), "replace": (checkpoints.os, "replace", False)}[
    sys.argv[1]
]
real, calls = getattr(owner, name), []

def deadly(*arguments):
    calls.append(arguments)
    if len(calls) == 2:
        if half:
            real(*arguments)
            os.truncate(arguments[1], 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(owner, name, deadly)
command.main(["train", sys.argv[2], "0"])
"""


def result(folder: Path) -> dict[str, str]:
    """The hashes of everything that a training leaves."""
    out = folder / "build/adapters/art_finetuning" / VARIANT / "0"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f".scratch/art_finetuning-{VARIANT}-*/journal"))


def steps_done(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in journals(folder))


def finish(folder: Path, run_python) -> tuple[int, int, dict[str, str]]:
    """Run to the end: the first step executed, how many were, and what came out."""
    done = run_python(*TRAIN, cwd=folder)
    assert done.returncode == 0, done.stderr
    told = re.search(rf"trained steps (\d+) to {STEPS}: first executed (\d+), executed here (\d+)", done.stdout)
    assert told is not None, done.stdout
    assert not journals(folder)  # a finished run keeps nothing
    return int(told[2]), int(told[3]), result(folder)


@pytest.fixture(scope="module")
def undisturbed(tiny_world: Path, run_python) -> dict[str, str]:
    shutil.rmtree(tiny_world / ".scratch", ignore_errors=True)
    first, executed, hashes = finish(tiny_world, run_python)
    assert (first, executed) == (0, STEPS)
    assert set(hashes) == {"card.json", "history.csv", "pytorch_lora_weights.safetensors"}
    return hashes


@pytest.fixture
def fresh(tiny_world: Path) -> Path:
    shutil.rmtree(tiny_world / ".scratch", ignore_errors=True)
    shutil.rmtree(tiny_world / "build/adapters", ignore_errors=True)
    return tiny_world


def kill_after(folder: Path, steps: int) -> int:
    """Start a training, kill -9 it once so many steps are done, and return how many were when it died."""
    process = subprocess.Popen(
        [sys.executable, *TRAIN],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while steps_done(folder) < steps and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    return steps_done(folder)


def compare(kind: str, before: int, ended: tuple[int, int, dict[str, str]], undisturbed: dict[str, str]) -> None:
    first, executed, hashes = ended
    print(
        f"\nkilled {kind}: {before} steps done; then first executed {first}, in all {before + executed} "
        f"(allowed {STEPS + EVERY}); weights {hashes['pytorch_lora_weights.safetensors'][:16]}, "
        f"undisturbed {undisturbed['pytorch_lora_weights.safetensors'][:16]}"
    )
    assert first > 0
    assert first % EVERY == 0
    assert executed == STEPS - first
    assert before + executed <= STEPS + EVERY
    assert hashes == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_training(fresh: Path, undisturbed: dict[str, str], run_python, moment: int) -> None:
    before = kill_after(fresh, moment)
    compare(f"at step {moment}", before, finish(fresh, run_python), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["save_file", "replace"])
def test_killed_while_writing_a_checkpoint(fresh: Path, undisturbed: dict[str, str], run_python, where: str) -> None:
    died = run_python("-c", SUICIDE, where, VARIANT, cwd=fresh)
    assert died.returncode == -signal.SIGKILL, died.stderr
    left = sorted(path.name for path in journals(fresh)[0].parent.iterdir())
    assert left == ["journal", "part-00000010", "step-00000005"]
    before = steps_done(fresh)
    assert before == 2 * EVERY
    compare(f"in {where} of the second checkpoint", before, finish(fresh, run_python), undisturbed)
