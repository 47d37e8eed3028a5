"""End a process with the one that started it, so that nothing goes on computing or writing after a kill.

DVC starts a stage through a shell, and a killed DVC leaves both behind. A stage therefore watches its ancestors up to
DVC; what ``atelier.warm`` starts is bound to it by the kernel, where the kernel can (Linux).
"""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

# environment variables: set by DVC for every stage; the socket of the server of ``atelier.warm``
STAGE, ADDRESS = "DVC_STAGE", "ATELIER_WARM"
SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh")
INTERVAL = 0.5  # seconds between checks
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies; nothing where the kernel is not Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def end_with_stage() -> None:
    """Exit when the DVC that started this process, or the shell between the two, dies. Nothing outside of DVC."""
    if STAGE in os.environ:
        threading.Thread(target=_watch, args=[ancestors()], daemon=True).start()


def ancestors() -> list[int]:
    """The parent of this process, and the parent's parent where the parent is a shell; innermost first."""
    parent = os.getppid()
    above = _parent_of(parent) if _name_of(parent) in SHELLS else None
    return [parent] if above is None else [parent, above]


def _watch(expected: list[int]) -> None:
    while ancestors() == expected:
        time.sleep(INTERVAL)
    print("the process that started this one has ended, so it ends, too", file=sys.stderr, flush=True)
    os._exit(1)


def is_alive(process: int) -> bool:
    """Whether a process of this number is running on this machine."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:  # the process has ended, or the system has no /proc
        return ""


def _parent_of(process: int) -> int | None:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])  # a name in parentheses may hold anything
