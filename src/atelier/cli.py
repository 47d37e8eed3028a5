"""``python -m atelier STUDY STAGE ...``: run one stage of the pipeline, one process each.

A study's stage is the function ``main(params, workspace, ...)`` of ``atelier.studies.STUDY.STAGE``; ``SHARED`` lists
the stages that belong to no single study. The workspace is the folder that the command runs in.
"""

import contextlib
import errno
import gc
import inspect
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

from atelier import lifetime, locks, machine, params
from atelier.files import FileFault, of_system, printable, write_text
from atelier.studies import STUDIES
from atelier.workspace import Workspace

SHARED = {
    "prepare": "atelier.data.prepare",
    "judges": "atelier.evaluation.judges",
    "base": "atelier.training.base",
    "cache": "atelier.training.caches",
    "starts": "atelier.sampling.starts",
    "reference": "atelier.evaluation.reference",
}
TIMINGS = "timings.csv"  # in the scratch folder
INTERRUPTED, BROKEN_PIPE = 130, 141  # exit codes after Ctrl-C and after a closed pipe, as shells have them
USAGE = f"""usage: python -m atelier
  STUDY STAGE ...          a stage of {" | ".join(STUDIES)}
  {" | ".join(SHARED)}
  page STUDY               execute a study's notebook and render it
  check [FILE]             validate params.yaml, and record that in FILE
  plan [FILE] ...          what a profile lacks and costs, without running it; --card NAME or --seconds N of calibration
  export FOLDER --format kohya|diffusers OUT   a trained adapter in the names of other programs
  demo OUT                 a page that paints with the base in the reader's browser
  kernel CONNECTION_FILE   a notebook's kernel, started as Jupyter does"""


def run(arguments: list[str]) -> None:
    """Run one stage. Raises ValueError for an unknown stage or wrong arguments."""
    workspace, began = Workspace(), time.monotonic()
    stage = os.environ.get(lifetime.STAGE) if machine.is_main() else None
    if stage:
        locks.keep(workspace.root, locks.of_stage(stage))
    _run(workspace, arguments)
    if stage:
        _took(workspace.scratch / TIMINGS, stage, time.monotonic() - began)


def _took(file: Path, stage: str, seconds: float) -> None:
    """Append how long a stage took (`benchmarks/hours.py`); a stage is done though this cannot be written."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as lines:
            lines.write(f"{stage},{seconds:.1f}\n")


def _run(workspace: Workspace, arguments: list[str]) -> None:
    """What the arguments name."""
    match arguments:
        case ["check" | "demo" | "export" | "kernel" | "page" as command, *_] if machine.ranks() > 1:
            raise alone(f"python -m atelier {command}")
        case ["check", *targets] if not any(target.startswith("-") for target in targets):
            check(workspace, targets)
        case ["kernel", connection, *settings]:
            machine.settle(params.load(workspace.params_file).machine.threads)
            from ipykernel import kernelapp

            kernelapp.launch_new_instance(["-f", connection, *settings])
        case ["plan", *rest]:
            from atelier.planning import command as planning

            planning.main(workspace, rest)
        case ["export", *rest]:
            from atelier.models import export

            export.main(rest)
        case ["demo", *rest]:
            from atelier.demo import export as demo

            demo.main(workspace, rest)
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
    """Import a module and call its ``main`` with the parameters, the workspace and these arguments.

    Raises ValueError where several processes are started for a stage that runs in one.
    """
    config = params.load(workspace.params_file)
    machine.settle(config.machine.threads)  # before the module is imported: libraries read the environment as they load
    stage = load(module)
    main = getattr(stage, "main", None)
    if main is None:
        raise ValueError(f"{command}: no stage\n{USAGE}")
    try:
        inspect.signature(main).bind(config, workspace, *arguments)
    except TypeError:
        names = [name.upper() for name in list(inspect.signature(main).parameters)[2:]]
        raise ValueError(f"usage: {' '.join([command, *names])}") from None
    if machine.ranks() == 1:
        main(config, workspace, *arguments)
    else:
        together(config, stage, command, partial(main, config, workspace, *arguments))


def together(config: params.Params, stage: ModuleType, command: str, main: Callable[[], None]) -> None:
    """Run a stage as one of several processes. Raises ValueError for one whose module does not say that it can."""
    if getattr(stage, "PROCESSES", None) != machine.SEVERAL:
        raise alone(command)
    machine.join(machine.on_cpu(config.machine))
    with contextlib.suppress(machine.Left):
        main()
    machine.finish()


def alone(command: str) -> BaseException:
    """To be raised where several processes are started for what runs in one."""
    said = f"{command}: has no use for {machine.ranks()} processes; start it by itself, without a launcher"
    return machine.alike(ValueError(said))


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
    if locks.remove_cut(workspace.root):
        print(f"{locks.RUNNING}: cut off as DVC wrote it; removed, DVC makes it anew", file=sys.stderr)
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
        write_text(target, message + "\n")
    print(f"{message}; profile {config.profile}")
    if lacking := preflight.undecided(config):
        listed = ", ".join(f"{name} ({cells[0]}{', ...' if len(cells) > 1 else ''})" for name, cells in lacking.items())
        print(f"claims without a verdict, because the profile does not measure their cells: {listed}")


def exit_code(run: Callable[[list[str]], int | None], arguments: list[str]) -> int:
    """Run an entry point, and return its exit code: 0 where it returns None.

    What a user can mend is one line on stderr, and 1; so is a lack of memory. Whatever else is raised is a bug, and is
    raised. A reader of the output that has gone (``| head``) ends the run silently.
    """
    try:
        code = run(arguments) or 0
        sys.stdout.flush()  # here: as Python exits, a full disk would be a warning only
        return code
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except Exception as error:
        line = explained(error, arguments)
        if line is None:
            raise
        _drop_output(only_full=True)
        say(line)
        return 1


def explained(error: Exception, arguments: list[str]) -> str | None:
    """The line for an error that a user can mend; None for a bug."""
    from safetensors import SafetensorError

    command = " ".join(["python -m atelier", *arguments[:2]])
    if out_of_memory(error):
        names = ["sampling.batch", "data.size"]
        if arguments[:1] and arguments[0] in STUDIES:
            names = [f"{arguments[0]}.optimisation.batch" if "train" in arguments[1:2] else "protocol.pictures", *names]
        elif arguments[:1] == ["base"]:
            names = ["base.train.denoiser.batch", "base.train.autoencoder.batch", *names]
        return f"{command}: out of memory; lower {', '.join(names)} in params.yaml, or take another machine.device"
    if isinstance(error, RecursionError):
        return f"{command}: something that it reads is nested too deeply"
    if isinstance(error, OSError) and not isinstance(error, FileFault) and error.errno is not None:
        # every file is named where it is opened: a full disk without a name is that of the output
        unnamed = "standard output" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF) else command
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else unnamed
        return f"{name}: {of_system(error)}"
    if isinstance(error, ValueError | OSError | FloatingPointError | SafetensorError):
        return str(error) or f"{command}: {type(error).__name__}"
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether this machine or its accelerator has too little memory; torch says so in words only."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "Storage size calculation overflowed")
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said


def say(text: str) -> None:
    """Print on stderr, line by line, without control characters; nothing where nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def _drop_output(only_full: bool = False) -> None:
    """Send what is still to be printed nowhere, so that Python does not complain as it exits.

    ``only_full``: only where it cannot be printed.
    """
    if only_full:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            return
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main(arguments: list[str]) -> int:
    return exit_code(run, arguments)
