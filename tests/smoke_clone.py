"""One run of the smoke profile in a temporary copy of the working tree, shared by all tests and all workers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parent.parent
WARM = (sys.executable, "-m", "atelier.warm")  # as `make repro` does
COMMIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m")
STAGE = re.compile(r"Running stage '([^']+)'")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A finished command in a copy, with the copy's library."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def checked(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = run(folder, *command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def repro(folder: Path, *arguments: str, below: Sequence[str] = WARM) -> list[str]:
    """The stages that ran, in order, without their pipeline file; a failure shows what the pipeline printed."""
    printed = checked(folder, *below, "dvc", "repro", *arguments).stdout
    return [name.rpartition(":")[2] for name in STAGE.findall(printed)]


def copied(folder: Path) -> None:
    """The working tree as it would be committed, in a repository by itself, with the smoke profile and the data."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for lock in [folder / "dvc.lock", *folder.glob("pipelines/*/dvc.lock")]:
        lock.unlink(missing_ok=True)
    shutil.copyfile(folder / "profiles" / "smoke.yaml", folder / "params.yaml")
    checked(folder, "git", "init", "--quiet")
    checked(folder, "dvc", "pull", "--quiet", "data")


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The copy in which the smoke profile has run once; not to be written to."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder, ready = shared / "smoke", shared / "smoke.ready"
    with FileLock(shared / "smoke.lock"):
        if not ready.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            copied(folder)
            ran = repro(folder)
            assert {"check", "prepare", "base", "reference", "site"} <= set(ran)
            checked(folder, "git", "add", "--all")
            checked(folder, *COMMIT, "smoke")
            ready.write_text("\n".join(ran))
    return folder


@pytest.fixture(scope="module")
def clone(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run for one file's tests to change."""
    folder = tmp_path_factory.mktemp("clone") / "atelier"
    shutil.copytree(smoke_run, folder, symlinks=True)
    return folder
