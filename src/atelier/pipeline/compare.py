"""``python -m atelier.pipeline.compare``: compare the pages that the pipeline built with the published ones.

On the same kind of machine bytes must be equal. On others every value must lie inside the published interval, or within
``TOLERANCE`` of the published value, and every verdict must be equal; differences are listed.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from atelier import params
from atelier.cli import exit_code
from atelier.files import copy, read_bytes, read_json, read_text
from atelier.machine import fingerprint
from atelier.workspace import Workspace

TOLERANCE = 0.02
ROUNDING = 1e-9  # what is smaller is a zero, whatever rounding makes of it
MACHINE = "machine.txt"
SHOWN = 12  # lines of metrics that disagree, and of files that differ
ONE_ONLY = "in one of them only"
NOT_COMPARED = (MACHINE, ".lock")  # names or suffixes of files that depend on machine and time


class Difference(NamedTuple):
    """A metric's published value and its new value."""

    name: str
    published: float
    made: float
    agrees: bool

    @property
    def relative(self) -> float:
        """The difference as a share of the larger value; infinite where one has none."""
        share = abs(self.made - self.published) / max(abs(self.made), abs(self.published))
        return math.inf if math.isnan(share) else share

    @property
    def fault(self) -> str:
        return f"{self.name}: published {self.published:g}, made {self.made:g}"


class Comparison(NamedTuple):
    """The result of comparing two folders of pages."""

    files: int
    different: list[str]  # files that are missing, surplus or not byte for byte equal
    metrics: int
    differences: list[Difference]  # metrics whose values differ
    faults: list[str]  # metrics in one folder only, values that disagree, verdicts that differ

    def lines(self) -> list[str]:
        """The faults to print: every verdict that differs; then metrics, the largest deviations first."""
        apart = sorted((each for each in self.differences if not each.agrees), key=lambda each: -each.relative)
        listed = [each.fault for each in apart]
        listed += [fault for fault in self.faults if fault.endswith(ONE_ONLY)]
        return [*(fault for fault in self.faults if fault not in set(listed)), *first(listed)]

    def paragraph(self, published: Path, made: Path, same_machine: bool) -> str:
        """Summarise the comparison in one paragraph."""
        where = "this kind of machine" if same_machine else "another kind of machine"
        lines = [f"{made} against {published}, published from {where}:"]
        lines.append(f"{self.files - len(self.different)} of {self.files} files are equal byte for byte;")
        within = self.metrics - sum(not each.agrees for each in self.differences)
        lines.append(f"{within} of {self.metrics} metrics lie in their interval or within {TOLERANCE:.0%};")
        verdicts = [fault for fault in self.faults if "verdict" in fault]
        lines.append("all verdicts are equal." if not verdicts else f"verdicts that differ: {len(verdicts)}.")
        if self.differences:
            largest = max(self.differences, key=lambda each: each.relative)
            lines.append(
                f"The largest difference is {largest.relative:.2g} of {largest.name}: "
                f"{largest.published:.4g} published, {largest.made:.4g} here."
            )
        lines.append(f"Read {made / 'index.html'}; `make results` publishes it.")
        return " ".join(lines)


def first(listed: Sequence[str]) -> list[str]:
    """The first ``SHOWN`` lines, and how many more there are."""
    more = len(listed) - SHOWN
    return [*listed[:SHOWN], *([f"and {more} more"] if more > 0 else [])]


def files(folder: Path) -> dict[str, bytes]:
    """The contents of all compared files by relative name."""
    return {
        path.relative_to(folder).as_posix(): read_bytes(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(NOT_COMPARED)
    }


def compare(published: Path, made: Path) -> Comparison:
    """Compare two folders of pages, file by file and metric by metric."""
    before, after = files(published), files(made)
    different = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    metrics, differences, faults = 0, [], []
    for study in sorted({path.parent.name for folder in (published, made) for path in folder.glob("*/metrics.json")}):
        old, new = (_content(folder / study / "metrics.json") for folder in (published, made))
        metrics += len(old["metrics"] | new["metrics"])
        odd = sorted(old["metrics"].keys() ^ new["metrics"].keys())
        faults += [f"{study}: {name}: {ONE_ONLY}" for name in odd]
        for difference in _differences(study, old["metrics"], new["metrics"]):
            differences.append(difference)
            if not difference.agrees:
                faults.append(difference.fault)
        for judged in ("verdicts", "findings"):
            faults += list(_other_verdicts(study, old.get(judged, {}), new.get(judged, {})))
    return Comparison(len(before | after), different, metrics, differences, faults)


def _content(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {"metrics": {}}


def _differences(study: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    for name in sorted(old.keys() & new.keys()):
        published, made = old[name]["value"], new[name]["value"]
        if published == made:
            continue
        agrees = published is not None and made is not None and _agree(old[name], made)
        nan = math.nan
        yield Difference(
            f"{study}: {name}", nan if published is None else published, nan if made is None else made, agrees
        )


def _agree(published: dict[str, float | None], made: float) -> bool:
    value, low, high = published["value"], published["low"], published["high"]
    assert value is not None
    if math.isclose(value, made, rel_tol=TOLERANCE, abs_tol=ROUNDING):
        return True
    return low is not None and high is not None and low <= made <= high


def _other_verdicts(study: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for claim in sorted(old.keys() | new.keys()):
        before, after = (verdicts.get(claim, {}).get("verdict", "none") for verdicts in (old, new))
        if before != after:
            yield f"{study}: {claim}: verdict '{before}' published, '{after}' made"


def same_machine(published: Path) -> bool:
    """Whether pages were published from a machine like this one."""
    return read_text(published / MACHINE).strip() == fingerprint()


def in_a_clone(published: Path) -> Comparison:
    """Run the whole pipeline in a fresh clone and compare what it built."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Workspace(Path(folder) / "atelier")
        subprocess.run(["git", "clone", "--quiet", "--local", ".", str(clone.root)], check=True)
        copy(published / "params.yaml", clone.params_file)
        # the clone's library, not the installed one of the checkout
        environment = {**os.environ, "PYTHONPATH": str(clone.root / "src")}
        for command in (["dvc", "pull", "--quiet", "data"], ["dvc", "repro", "--quiet"]):
            if code := subprocess.run(command, cwd=clone.root, env=environment).returncode:
                raise ValueError(f"{clone.root}: '{' '.join(command)}' failed with exit code {code}")
        return compare(published, clone.site)


def run(arguments: list[str]) -> int:
    """Parse the command line and compare; 1 where a clone differs."""
    parser = argparse.ArgumentParser(prog="python -m atelier.pipeline.compare", description=__doc__)
    parser.add_argument("--clone", action="store_true", help="run the pipeline in a fresh clone first")
    options, workspace = parser.parse_args(arguments), Workspace()
    published, site = workspace.results / params.load(workspace.params_file).profile, workspace.site
    if not (published / MACHINE).is_file():
        print(f"{published}: nothing is published for this profile; read {site / 'index.html'}")
        return 0
    comparison = in_a_clone(published) if options.clone else compare(published, site)
    print(comparison.paragraph(published, site, same_machine(published)))
    exact = options.clone and same_machine(published)
    faults = first(comparison.different) if exact else comparison.lines()
    for fault in faults:
        print(f"differs: {fault}", file=sys.stderr)
    return 1 if options.clone and faults else 0


def main(arguments: list[str] | None = None) -> int:
    return exit_code(run, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    raise SystemExit(main())
