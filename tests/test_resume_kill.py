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
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

STEPS, EVERY = 24, 5  # as in conftest's params.yaml
MOMENTS = random.Random(2025).sample(range(EVERY + 1, STEPS - 3), 3)  # steps done when the signal is sent

# the process kills itself while the second checkpoint is being written, or renamed
SUICIDE = """
import os, signal, sys
from atelier import machine, params
machine.settle(params.load("params.yaml").machine.threads)
from atelier import cli
from atelier.training import checkpoints

owner, name, half = {"save_file": (checkpoints, "save_file", True), "replace": (checkpoints.os, "replace", False)}[
    sys.argv[1]
]
real, calls = getattr(owner, name), []

def deadly(*arguments):
    if not half and "step-" not in str(arguments[1]):  # a file within the checkpoint
        return real(*arguments)
    calls.append(arguments)
    if len(calls) == 2:
        if half:
            real(*arguments)
            os.truncate(arguments[1], 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(owner, name, deadly)
sys.exit(cli.main(sys.argv[2:]))
"""


class Run(NamedTuple):
    """A training, where it leaves what, and its weights."""

    study: str
    variant: str
    folder: str
    weights: str
    seed: str = "0"
    before: int = 0  # steps of a first phase, which has its own journal

    @property
    def arguments(self) -> list[str]:
        return [self.study, "train", self.variant, self.seed]


ADAPTER = Run("art_finetuning", "mixed", "build/adapters/art_finetuning/mixed/0", "pytorch_lora_weights.safetensors")
DECODER = Run("vae_decoder", "all", "build/decoders/all/0", "vae/diffusion_pytorch_model.safetensors")
PERCEPTUAL = Run(
    "latent_perceptual",
    "older-lpl",
    "build/adapters/latent_perceptual/older-lpl/1",
    "unet/diffusion_pytorch_model.safetensors",
    seed="1",
    before=3,
)
OTHER_SEED = PERCEPTUAL._replace(folder="build/adapters/latent_perceptual/older-lpl/0", seed="0")


def result(folder: Path, run: Run) -> dict[str, str]:
    """The hashes of everything that a training leaves."""
    out = folder / run.folder
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def journals(folder: Path, run: Run) -> list[Path]:
    # not `**`: it would look into a checkpoint's folder, which is renamed meanwhile
    patterns = (f".scratch/{run.study}-{run.variant}-{run.seed}-*/{part}journal" for part in ("", "before/"))
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def steps_done(folder: Path, run: Run) -> int:
    return sum(path.read_bytes().count(b"\n") for path in journals(folder, run))


def finish(folder: Path, run_python, run: Run) -> tuple[int, int, dict[str, str]]:
    """Run to the end: the first step executed, how many were, and what came out."""
    done = run_python("-m", "atelier", *run.arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    told = re.findall(rf"trained steps \d+ to {STEPS}: first executed (\d+), executed here (\d+)", done.stdout)
    assert len(told) == 1, done.stdout
    assert not journals(folder, run)  # a finished run keeps nothing
    return int(told[0][0]), int(told[0][1]), result(folder, run)


@pytest.fixture(scope="module")
def undisturbed(tiny_world: Path, run_python) -> Callable[[Run], dict[str, str]]:
    """What a run leaves that nobody kills."""

    @cache
    def hashes_of(run: Run) -> dict[str, str]:
        shutil.rmtree(tiny_world / ".scratch", ignore_errors=True)
        first, executed, hashes = finish(tiny_world, run_python, run)
        assert (first, executed) == (0, STEPS)
        assert {"card.json", "history.csv", Path(run.weights).name} <= {Path(name).name for name in hashes}
        shutil.rmtree(tiny_world / run.folder)
        return hashes

    return hashes_of


@pytest.fixture
def fresh(tiny_world: Path) -> Path:
    shutil.rmtree(tiny_world / ".scratch", ignore_errors=True)
    for run in (ADAPTER, DECODER, PERCEPTUAL, OTHER_SEED):
        shutil.rmtree(tiny_world / run.folder, ignore_errors=True)
    return tiny_world


def kill_after(folder: Path, steps: int, run: Run) -> int:
    """Start a training, kill -9 it once so many steps are done, and return how many were when it died."""
    process = subprocess.Popen(
        [sys.executable, "-m", "atelier", *run.arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    while steps_done(folder, run) < steps and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    done = steps_done(folder, run)
    assert done >= steps, "it did not come so far in time"
    return done


def compare(run: Run, kind: str, before: int, ended: tuple[int, int, dict[str, str]], expected: dict[str, str]) -> None:
    first, executed, hashes = ended
    allowed = run.before + STEPS + EVERY
    print(
        f"\n{run.study} killed {kind}: {before} steps done; then first executed {first}, in all {before + executed} "
        f"(allowed {allowed}); weights {hashes[run.weights][:16]}, undisturbed {expected[run.weights][:16]}"
    )
    assert first > 0
    assert first % EVERY == 0
    assert executed == STEPS - first
    assert before + executed <= allowed
    assert hashes == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("run", "moment"),
    [*((ADAPTER, moment) for moment in MOMENTS), (DECODER, MOMENTS[0]), (PERCEPTUAL, PERCEPTUAL.before + MOMENTS[0])],
)
def test_killed_while_training(fresh: Path, undisturbed, run_python, run: Run, moment: int) -> None:
    expected = undisturbed(run)
    before = kill_after(fresh, moment, run)
    compare(run, f"at step {moment}", before, finish(fresh, run_python, run), expected)


@pytest.mark.long
@pytest.mark.parametrize("moment", [1, PERCEPTUAL.before])
def test_killed_in_the_first_of_two_phases(fresh: Path, undisturbed, run_python, moment: int) -> None:
    """Or while the second's loss is weighed; a first phase this short has no checkpoint but its last."""
    expected = undisturbed(PERCEPTUAL)
    before = kill_after(fresh, moment, PERCEPTUAL)
    assert moment <= before <= PERCEPTUAL.before
    first, executed, hashes = finish(fresh, run_python, PERCEPTUAL)
    print(f"\nkilled after {before} of the first phase's {PERCEPTUAL.before} steps: {hashes == expected}")
    assert (first, executed) == (0, STEPS)
    assert hashes == expected


@pytest.mark.long
def test_killed_in_one_seed_the_other_is_as_it_was(fresh: Path, undisturbed, run_python) -> None:
    """Whole, or killed itself and not yet started again: neither takes the other's checkpoints for its own."""
    expected = {run: undisturbed(run) for run in (OTHER_SEED, PERCEPTUAL)}
    assert expected[OTHER_SEED] != expected[PERCEPTUAL]
    before = kill_after(fresh, PERCEPTUAL.before + MOMENTS[1], OTHER_SEED)
    ended = kill_after(fresh, PERCEPTUAL.before + MOMENTS[0], PERCEPTUAL)
    assert steps_done(fresh, OTHER_SEED) == before
    compare(PERCEPTUAL, "beside another seed", ended, finish(fresh, run_python, PERCEPTUAL), expected[PERCEPTUAL])
    compare(OTHER_SEED, "before another seed", before, finish(fresh, run_python, OTHER_SEED), expected[OTHER_SEED])
    assert result(fresh, PERCEPTUAL) == expected[PERCEPTUAL]


@pytest.mark.long
@pytest.mark.parametrize(("run", "where"), [(ADAPTER, "save_file"), (ADAPTER, "replace"), (DECODER, "save_file")])
def test_killed_while_writing_a_checkpoint(fresh: Path, undisturbed, run_python, run: Run, where: str) -> None:
    expected = undisturbed(run)
    died = run_python("-c", SUICIDE, where, *run.arguments, cwd=fresh)
    assert died.returncode == -signal.SIGKILL, died.stderr
    left = sorted(path.name for path in journals(fresh, run)[0].parent.iterdir())
    assert left == ["journal", "part-00000010", "step-00000005"]
    before = steps_done(fresh, run)
    assert before == 2 * EVERY
    compare(run, f"in {where} of the second checkpoint", before, finish(fresh, run_python, run), expected)
