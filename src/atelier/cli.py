"""``python -m atelier STUDY STAGE ...``: run one stage of the pipeline, one process each.

A study's stage is the function ``main(params, workspace, ...)`` of ``atelier.studies.STUDY.STAGE``; ``SHARED`` lists
the stages that belong to no single study. The workspace is the folder that the command runs in.
"""

import gc
import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from atelier import lifetime, locks, machine, params
from atelier.studies import STUDIES
from atelier.workspace import Workspace

SHARED = {
    "prepare": "atelier.data.prepare",
    "judges": "atelier.evaluation.judges",
    "base": "atelier.training.base",
    "cache": "atelier.training.caches",
    "reference": "atelier.evaluation.reference",
}
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
USAGE = f"""usage: python -m atelier
  STUDY STAGE ...          a stage of {" | ".join(STUDIES)}
  {" | ".join(SHARED)}
  page STUDY               execute a study's notebook and render it
  check [FILE]             validate params.yaml, and record that in FILE
  kernel CONNECTION_FILE   a notebook's kernel, started as Jupyter does"""


def run(arguments: list[str]) -> None:
    """Run one stage. Raises ValueError for an unknown stage or wrong arguments."""
    workspace = Workspace()
    if lifetime.STAGE in os.environ:
        locks.keep(workspace.root)
    match arguments:
        case ["check", *targets]:
            check(workspace, targets)
        case ["kernel", connection, *settings]:
            machine.settle(params.load(workspace.params_file).machine.threads)
            from ipykernel import kernelapp

            kernelapp.launch_new_instance(["-f", connection, *settings])
        case ["page", study]:
            from atelier.pipeline import run as pages  # without torch: only the kernel computes

            pages.main(params.load(workspace.params_file), workspace, study)
        case [stage, *rest] if stage in SHARED:
            start(workspace, SHARED[stage], f"python -m atelier {stage}", rest)
        case [study, stage, *rest] if study in STUDIES and has_stage(study, stage):
            start(workspace, f"atelier.studies.{study}.{stage}", f"python -m atelier {study} {stage}", rest)
        case _:
            raise ValueError(USAGE)


def has_stage(study: str, stage: str) -> bool:
    """Whether a study has a module with this name."""
    return stage.isidentifier() and (Path(__file__).parent / "studies" / study / f"{stage}.py").is_file()


def start(workspace: Workspace, module: str, command: str, arguments: list[str]) -> None:
    """Import a module and call its ``main`` with the parameters, the workspace and these arguments."""
    config = params.load(workspace.params_file)
    machine.settle(config.machine.threads)  # before the module is imported: libraries read the environment as they load
    main = getattr(load(module), "main", None)
    if main is None:
        raise ValueError(f"{command}: no stage\n{USAGE}")
    try:
        inspect.signature(main).bind(config, workspace, *arguments)
    except TypeError:
        names = [name.upper() for name in list(inspect.signature(main).parameters)[2:]]
        raise ValueError(f"usage: {' '.join([command, *names])}") from None
    main(config, workspace, *arguments)


def load(module: str) -> ModuleType:
    """Import a module with garbage collection switched off.

    Collection frees nothing during imports and takes two of six seconds, here and at exit (`benchmarks/loading.py`).
    """
    gc.disable()
    imported = import_module(module)
    gc.freeze()
    gc.enable()
    return imported


def check_locks(workspace: Workspace) -> None:
    """Put back what a kill has cut, and keep a copy of what is whole."""
    for name in locks.put_back(workspace.root):
        print(f"{name}: cut off as it was written; put back as it was before the last stage", file=sys.stderr)
    locks.keep(workspace.root)


def check(workspace: Workspace, targets: list[str]) -> None:
    """Validate params.yaml and write a confirmation to each target, for stages to depend on."""
    check_locks(workspace)
    config = params.load(workspace.params_file)
    from atelier import preflight

    if faults := preflight.faults(config, workspace):
        raise ValueError("\n".join(f"{workspace.params_file}: {fault}" for fault in faults))
    message = f"{workspace.params_file}: every parameter is known, typed and in range"
    for target in map(Path, targets):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(message + "\n")
    print(f"{message}; profile {config.profile}")
    if lacking := preflight.undecided(config):
        listed = ", ".join(f"{name} ({cells[0]}{', ...' if len(cells) > 1 else ''})" for name, cells in lacking.items())
        print(f"claims without a verdict, because the profile does not measure their cells: {listed}")


def exit_code(run: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Run an entry point: expected errors print one line on stderr and return 1, others raise."""
    from safetensors import SafetensorError

    try:
        run(arguments)
    except (ValueError, OSError, FloatingPointError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def main(arguments: list[str]) -> int:
    return exit_code(run, arguments)
