"""``make verify``: run the pipeline in a fresh clone and hold its pages against the published ones.

On a machine with the published results' fingerprint every byte must agree. Elsewhere every metric must agree within
`TOLERANCE` of its own size, or lie in the published interval; bits are not expected to.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from atelier import params
from atelier.machine import fingerprint
from atelier.paths import RESULTS, SITE

TOLERANCE = 0.25
NOT_COMPARED = ("machine.txt", "dvc.lock")


def files(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in NOT_COMPARED
    }


def differing(published: Path, made: Path) -> list[str]:
    """Names of files that are missing, surplus or not byte for byte equal."""
    ours, theirs = files(published), files(made)
    return [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]


def disagreeing(published: Path, made: Path) -> Iterator[str]:
    """Metrics that are missing, or off by more than the tolerance and outside the published interval."""
    for path in sorted(published.glob("*/metrics.json")):
        ours = json.loads(path.read_text())["metrics"]
        made_here = made / path.relative_to(published)
        theirs = json.loads(made_here.read_text())["metrics"] if made_here.is_file() else {}
        for name in sorted(ours | theirs):
            if name not in ours or name not in theirs:
                yield f"{path.parent.name}: {name}: only in one of them"
            elif not _agree(ours[name], theirs[name]):
                yield f"{path.parent.name}: {name}: published {ours[name]['value']}, made {theirs[name]['value']}"


def _agree(published: dict[str, float | None], made: dict[str, float | None]) -> bool:
    ours, theirs, low, high = published["value"], made["value"], published["low"], published["high"]
    if ours is None or theirs is None:  # not a number, here or there
        return ours is theirs
    if math.isclose(ours, theirs, rel_tol=TOLERANCE):
        return True
    return low is not None and high is not None and low <= theirs <= high


def main() -> int:
    profile = params.load().profile
    published = RESULTS / profile
    if not (published / "machine.txt").is_file():
        print(f"{published}: nothing is published for profile {profile}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "atelier"
        subprocess.run(["git", "clone", "--quiet", "--local", ".", str(clone)], check=True)
        (clone / "params.yaml").write_bytes((published / "params.yaml").read_bytes())
        # the clone's own library, not the checkout's that is installed
        environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
        for command in (["dvc", "pull", "--quiet", "data"], ["dvc", "repro", "--quiet"]):
            subprocess.run(command, cwd=clone, env=environment, check=True)
        same_machine = (published / "machine.txt").read_text().strip() == fingerprint()
        faults = differing(published, clone / SITE) if same_machine else list(disagreeing(published, clone / SITE))
        exact, loose = f"{len(files(published))} files, byte for byte", f"metrics within {TOLERANCE:.0%}"
        compared = exact if same_machine else loose
    for fault in faults:
        print(f"differs: {fault}", file=sys.stderr)
    print(f"{published}: {compared}: {'all agree' if not faults else f'{len(faults)} differ'}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
