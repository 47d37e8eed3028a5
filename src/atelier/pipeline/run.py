"""``python -m atelier page STUDY``: execute a study's notebook with its parameters, clean and render it.

The only caller of papermill. Run it in the repository's root; results are in ``build/studies/STUDY``.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from atelier import lifetime, machine
from atelier.files import filling, remove, write_json, write_text
from atelier.params import Params
from atelier.pipeline import page, scrub
from atelier.workspace import MARK, Workspace


def run(study: str, params: Params, workspace: Workspace) -> None:
    """Execute ``notebooks/STUDY.ipynb`` and write the notebook and its page beside the files that it writes.

    Raises ValueError if the notebook is invalid, before a kernel starts, or if a cell fails; the partly executed
    notebook is then in ``build/failed``.
    """
    source = workspace.notebooks / f"{study}.ipynb"
    values = parameters(source, params)
    try:
        page.page(scrub.read(source), params.profile)  # find formulas that do not convert before the run
    except (ValueError, OSError) as error:
        raise ValueError(f"{source}: {error}") from None

    results, unfinished = workspace.studies / study, workspace.studies / f".{study}.ipynb"
    remove(results)
    with filling(results):  # which its cells write to
        pass
    failed = workspace.failed / source.name
    remove(failed)
    try:
        notebook = scrub.scrub(_executed(source, unfinished, values, params.machine.threads, params.profile))
        html = page.page(notebook, params.profile, results)
    except (ValueError, papermill.PapermillExecutionError, RuntimeError) as error:  # RuntimeError: a dead kernel
        with filling(failed.parent):
            unfinished.replace(failed)
        raise ValueError(f"{source}: {_reason(error)}; see {failed}") from None
    write_text(results / source.name, scrub.text(notebook))
    write_text(results / f"{study}.html", html)
    remove(unfinished)


def parameters(source: Path, params: Params) -> dict[str, Any]:
    """The sections of ``params.yaml`` that a notebook's parameters cell names, each with the default None.

    Raises ValueError unless there is exactly one such cell, and for unknown names or other defaults.
    """
    tagged = [cell for cell in scrub.read(source).cells if "parameters" in scrub.tags(cell)]
    if len(tagged) != 1:
        raise ValueError(f"{source}: {len(tagged)} cells are tagged 'parameters', expected exactly one")
    known = params.model_dump(mode="json")
    declared = papermill.inspect_notebook(str(source))
    if not declared:
        raise ValueError(f"{source}: the parameters cell names none")
    for name, about in declared.items():
        if name not in known:
            raise ValueError(f"{source}: parameter '{name}' is no section of params.yaml; there are {', '.join(known)}")
        if about["default"] != "None":
            raise ValueError(f"{source}: parameter '{name}' has the value {about['default']}, expected None")
    return {name: known[name] for name in declared}


def _executed(source: Path, target: Path, values: dict[str, Any], threads: int, profile: str) -> NotebookNode:
    machine.settle_children(threads)  # only children compute; importing torch here would take seconds
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {  # inherited by the kernel
            "PYTHONHASHSEED": "0",  # the order of sets of strings
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # silences a debugger warning
            "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one in the user's home
            "JUPYTER_RUNTIME_DIR": temporary,
            "IPYTHONDIR": temporary,  # no user start-up files
            MARK: "1",
        }
        if lifetime.ADDRESS in os.environ:  # start the kernel in the warm server, with libraries loaded
            kernel = Path(temporary) / "kernels" / "python3" / "kernel.json"
            argv = [sys.executable, "-m", "atelier", "kernel", "{connection_file}"]
            about = {"display_name": "Python 3", "language": "python", "interrupt_mode": "message"}  # no signals
            write_json(kernel, {"argv": argv, **about})
            os.environ["JUPYTER_PATH"] = temporary
        chosen = Path(temporary) / source.name
        write_text(chosen, scrub.text(scrub.of_profile(scrub.read(source), profile)))
        return papermill.execute_notebook(
            str(chosen),
            str(target),
            values,
            kernel_name="python3",
            progress_bar=False,
            log_output=True,
            record_timing=False,
            coalesce_streams=True,
        )


def _reason(error: Exception) -> str:
    if isinstance(error, DeadKernelError):
        return "the kernel died, often for lack of memory"
    if isinstance(error, papermill.PapermillExecutionError):
        first = next(line for line in error.source.splitlines() if line.strip() and not line.startswith("#"))
        # papermill's injected cell shifts the index by one
        return f"cell {error.cell_index} ({first.strip()}): {error.ename}: {' '.join(error.evalue.split())}"
    return str(error)


def main(params: Params, workspace: Workspace, study: str) -> None:
    """``python -m atelier page STUDY``."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    run(study, params, workspace)
