"""A fault planted in the sources turns its row of the harness's table red."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import smoke_clone

HOSTILE = "def _refuse_hostile(archive: Path, info: zipfile.ZipInfo, spelt: str) -> None:\n"
HEADERS = "def check_headers(tensors: Mapping[str, Header], shapes: Mapping[str, Shape], source: Path) -> None:\n"
SEALED = "def check_seal(folder: Path, only: Collection[Path] | None = None) -> Path:\n"
PREPARE = 'def main(params: Params, workspace: Workspace) -> None:\n    """Stage ``prepare``."""\n'
UNKNOWN = 'raise BadPicture(path, "neither a JPEG nor a PNG, or its header is cut off") from fault'
HOME = f'{PREPARE}    __import__("os").environ["HOME"]\n'
PUT_BACK = "write_whole(root / name, read_bytes(kept))"
# group of attacks, part of their names, source, what stands there and what is planted instead
PLANTED = {
    "a parameter of another type is accepted": ("parameters", "", "params.py", "strict=True", "strict=False"),
    "columns may be missing": ("tables", "", "files.py", "if missing := [name for", "if missing := [] and [name for"),
    "a decoder's own words": ("pictures", "", "data/images.py", UNKNOWN, "raise"),
    "members may leave their folder": ("archives and names", "", "data/members.py", HOSTILE, HOSTILE + "    return\n"),
    "tensors are not compared": ("weights", "", "models/headers.py", HEADERS, HEADERS + "    return\n"),
    "seals are not checked": ("damage", "", "files.py", SEALED, SEALED + "    return folder\n"),
    "a stage needs HOME": ("surroundings", "HOME", "data/prepare.py", PREPARE, HOME),
    "locks are not put back": ("kills", "a lock's write", "locks.py", PUT_BACK, "pass"),
    "a signal is ignored": ("signals", "SIGTERM", "warm.py", "ended.append(number)", "None"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_turns_its_row_red(fault: str, tmp_path: Path) -> None:
    group, name, source, old, new = PLANTED[fault]
    smoke_clone.copied(tmp_path)
    path = tmp_path / "src" / "atelier" / source
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    done = harness(tmp_path, "--group", group, "--name", name)
    assert done.returncode == 1, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith(f"| {group} |"))
    tried, held, failed = row.strip("| ").split(" | ")[1:]
    assert int(held) < int(tried)
    print(f"{fault}: {group}: {held} of {tried} held; failed: {failed[:200]}")


def harness(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = (sys.executable, "-m", "tests.harness", *arguments)
    return smoke_clone.run(folder, *command)
