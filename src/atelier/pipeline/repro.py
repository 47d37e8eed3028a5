"""``python -m atelier.pipeline.repro``: ``dvc repro`` of everything, several studies at once where cores are free.

First what all studies share; then each study by a command of its own, those that read each other's files by one; last
``dvc repro`` itself, which has only the site to do. The results are those of ``dvc repro`` alone.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

from atelier import lifetime
from atelier.cli import exit_code
from atelier.params import Machine, load
from atelier.planning.stages import SHARED, Stage, stages
from atelier.workspace import Workspace

DVC = ("dvc", "--wait-for-lock", "repro")
SITE = "site"  # the shared stage that comes after all studies
GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))  # where there is one, stages would share its memory
WAIT = 0.2  # seconds between checks of what has ended


def run(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m atelier.pipeline.repro", description=__doc__)
    parser.add_argument("--at-once", type=int, metavar="N", help="studies at a time; without it as many as cores allow")
    workspace = Workspace()
    params = load(workspace.params_file)
    wanted = parser.parse_args(arguments).at_once
    at_once = most_at_once(params.machine) if wanted is None else wanted
    if at_once < 1:
        raise ValueError(f"--at-once: expected at least 1, got {at_once}")
    if at_once > 1:
        listed = stages(params.model_dump(mode="json"), workspace)
        shared = [stage.name for stage in listed if stage.pipeline == SHARED and stage.name != SITE]
        together = sorted(groups(listed), key=len, reverse=True)
        _in_turn([*DVC, *shared])
        _at_once([[*DVC, "--single-item", *map(named, group)] for group in together], at_once)
    _in_turn([*DVC])


def most_at_once(machine: Machine) -> int:
    """How many stages the cores hold; one where a GPU would be shared."""
    if machine.device != "cpu" and any(path.exists() for path in GPUS):
        return 1
    return max(1, cores() // machine.threads)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(listed: Sequence[Stage]) -> list[list[Stage]]:
    """Stages of the studies: a list for what can run beside the others, each stage after those whose files it reads.

    Shared stages are in none: of those DVC lets one command at a time see whether there is something to do.
    """
    of_studies = [stage for stage in listed if stage.pipeline != SHARED]
    makers = {out: stage for stage in of_studies for out in stage.outs}
    before = {stage: {makers[out] for dep in stage.deps for out in makers if _meet(dep, out)} for stage in of_studies}
    group_of = {stage.pipeline: {stage.pipeline} for stage in of_studies}
    for stage, read in before.items():
        joined = set().union(*(group_of[each.pipeline] for each in (stage, *read)))
        group_of |= dict.fromkeys(joined, joined)
    ordered = list(TopologicalSorter(before).static_order())
    together = {tuple(sorted(studies)) for studies in group_of.values()}
    return [[stage for stage in ordered if stage.pipeline in studies] for studies in sorted(together)]


def named(stage: Stage) -> str:
    """What DVC calls a study's stage."""
    return f"pipelines/{stage.pipeline}/dvc.yaml:{stage.name}"


def _meet(one: str, other: str) -> bool:
    """Whether two paths are equal, or one is in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _bound() -> None:
    """In a command, before it starts: it gets SIGTERM when this process dies."""
    lifetime.end_with_parent(signal.SIGTERM)


def _in_turn(command: Sequence[str]) -> None:
    if code := subprocess.call(command, preexec_fn=_bound):
        raise SystemExit(code)


def _at_once(commands: Sequence[Sequence[str]], most: int) -> None:
    """Run commands, so many at a time. After one fails none is started; those that run come to their end."""
    waiting, running, failed = list(commands), list[subprocess.Popen[bytes]](), 0
    while running or (waiting and not failed):
        while waiting and len(running) < most and not failed:
            running.append(subprocess.Popen(waiting.pop(0), preexec_fn=_bound))
        time.sleep(WAIT)
        failed = next((code for each in running if (code := each.poll())), failed)
        running = [each for each in running if each.returncode is None]
    if failed:
        raise SystemExit(failed)


def main(arguments: list[str] | None = None) -> int:
    return exit_code(run, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    raise SystemExit(main())
