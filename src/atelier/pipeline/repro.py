"""``python -m atelier.pipeline.repro``: ``dvc repro`` of everything, several studies at once where cores are free.

First what all studies share; then each study by a ``dvc repro`` of its own, those that read each other's files one
after the other; last ``dvc repro`` itself, which has only the site to do. The results are those of ``dvc repro`` alone.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from atelier import lifetime
from atelier.cli import exit_code
from atelier.files import reading
from atelier.params import Machine, load
from atelier.planning.stages import stages
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
        _in_turn([*DVC, *(name for name in pipeline(workspace.root / "dvc.yaml") if name != SITE)])
        counted = [stage.pipeline for stage in stages(params.model_dump(mode="json"), workspace)]
        together = sorted(groups(workspace), key=lambda names: -sum(map(counted.count, names)))
        _at_once([[*DVC, *(f"pipelines/{name}/dvc.yaml" for name in names)] for names in together], at_once)
    _in_turn([*DVC])


def most_at_once(machine: Machine) -> int:
    """How many stages the cores hold; one where a GPU would be shared."""
    if machine.device != "cpu" and any(path.exists() for path in GPUS):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // machine.threads)


def pipeline(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The stages of a pipeline's file by name, those with a matrix as what they do for each member."""
    with reading(path, "not a pipeline"):
        listed = YAML(typ="safe", pure=True).load(path.read_bytes())["stages"]
        return {name: {**stage, **stage.get("do", {})} for name, stage in listed.items()}


def groups(workspace: Workspace) -> list[list[str]]:
    """Studies that can run beside each other, those that read each other's files in one list."""
    made, read = {}, {}
    for path in sorted(workspace.pipelines.glob("*/dvc.yaml")):
        listed = pipeline(path).values()
        made[path.parent.name] = {name for stage in listed for out in stage.get("outs", []) for name in _named(out)}
        read[path.parent.name] = {name for stage in listed for name in stage.get("deps", [])}
    joined = [[name] for name in made]
    for reader, names in read.items():
        for maker, outs in made.items():
            if reader != maker and _meet(names, outs):
                one, other = (next(group for group in joined if name in group) for name in (reader, maker))
                if one is not other:
                    one.extend(other)
                    joined.remove(other)
    return [sorted(group) for group in joined]


def _named(out: str | Mapping[str, Any]) -> Iterable[str]:
    return [out] if isinstance(out, str) else out


def _meet(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether a path of one lies in a path of the other; what a matrix fills in is left open."""
    plain = [[f"{path.partition('${')[0].rstrip('/')}/" for path in paths] for paths in (one, other)]
    return any(a.startswith(b) or b.startswith(a) for a in plain[0] for b in plain[1])


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
