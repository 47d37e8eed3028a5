"""Make one machine give the same bits twice.

Bits depend on the processor, its instruction set, the number of threads and the libraries' versions: ``fingerprint``
names them. ``settle`` fixes the threads; it must run before torch is imported for the first time. The widest
instructions are used: AVX2 alone costs 9 to 46 % of the speed and did not make two makers' processors agree.
Threads that wait spin for microseconds, then sleep: with OpenMP's default, longer spin a training step took up to
twenty times as long beside another process on the same cores.

A stage may run as several processes, ``ranks``, which ``accelerate launch`` or ``notebook_launcher`` starts. The main
one, rank 0, writes. What they agree on goes through a group of its own on the CPU, whatever accelerator there is; in a
second one a thread of each exchanges a number every second, so that the death of one ends all, whatever they do.
"""

import hashlib
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.params import Machine

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

ENVIRONMENT = {
    "GOMP_SPINCOUNT": "20000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",  # it says at every start that torchvision, which nothing here needs, is missing
}

SEVERAL = "several"  # what a stage's module says of itself as PROCESSES, if several can share it
WAIT = timedelta(hours=1)  # for gradients of a rank that is alive; the longest is while the main one writes or looks
LONG = timedelta(days=30)  # for a rank that paints or measures its share
PULSE, GRACE = 1.0, 3.0  # seconds between signs of life, and for the main thread to see by itself that one is missing
PATIENCE = 10.0  # seconds for the main rank to print what all have raised
LOST = "another process of this job has ended, so this one ends, too; started again, it goes on from what is kept"


def settle_children(threads: int) -> None:
    """Fix the threads of processes started from here: notebooks' kernels."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def settle(threads: int) -> None:
    """Fix the threads of this process and its children, and make torch deterministic."""
    settle_children(threads)
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # filling costs time, and what is read has always been written first; the module is not in torch's type stubs
    vars(torch.utils)["deterministic"].fill_uninitialized_memory = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # MKL chooses the kernels of its vector mathematics at the first call. Where two threads make that call at once, one
    # of them gets others in some processes, an ulp apart: so it is made here, of so few elements that one thread does.
    torch.exp(torch.zeros(64))


def accelerator(machine: Machine) -> "Accelerator":
    """The device and precision of params.yaml; ValueError for 'cuda' where there is none. Ranks meet here."""
    import torch
    from accelerate import Accelerator

    if machine.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("machine.device: 'cuda' is set and there is no such device")
    join(on_cpu(machine))
    mixed = {"fp32": "no", "bf16": "bf16"}[machine.precision]
    return Accelerator(cpu=on_cpu(machine), mixed_precision=mixed)


def on_cpu(machine: Machine) -> bool:
    """Whether Accelerate is told to use the CPU: several ranks without a GPU would each believe to be alone."""
    import torch

    return machine.device == "cpu" or (ranks() > 1 and not torch.cuda.is_available())


# ------------------------------------------------------------------------------------------------ ranks


def ranks() -> int:
    """How many processes run this stage together, as their launcher tells them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, from 0."""
    if ranks() == 1:
        return 0
    if "RANK" not in os.environ:  # Accelerate's launcher of forks tells torch alone
        from torch import distributed

        os.environ["RANK"] = str(distributed.get_rank())
    return int(os.environ["RANK"])


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


class Left(BaseException):
    """What is left of the stage is the main rank's."""


class _Together:
    """What ranks have together while they run: two groups on the CPU, and the thread that watches the others."""

    agreeing: Any = None
    watching: threading.Thread | None = None
    done = threading.Event()  # this rank has finished its stage
    noticed = threading.Event()  # its main thread knows that another one has died


def join(cpu: bool) -> None:
    """Meet the other ranks, once; from then on the death of one ends this process. Nothing in a process alone.

    ``cpu``: exchange tensors on the CPU. Raises ValueError where Accelerate finds another number of them than the
    launcher told, and where they do not reach each other.
    """
    if ranks() == 1 or _Together.agreeing is not None:
        return
    rank()  # known to all that ask the environment
    from accelerate import PartialState
    from torch import distributed

    try:
        state = PartialState(cpu=cpu, timeout=WAIT)
        if state.num_processes != ranks():
            raise ValueError(f"WORLD_SIZE is {ranks()}, and Accelerate finds {state.num_processes}; use its launcher")
        _Together.agreeing, watched = (distributed.new_group(backend="gloo", timeout=LONG) for _ in range(2))
    except RuntimeError as fault:
        said = str(fault).partition("\n")[0]
        raise ValueError(f"process {rank()} of {ranks()} does not reach the others: {said}") from fault
    _Together.watching = threading.Thread(target=_watch, args=[watched], daemon=True)
    _Together.watching.start()


def _watch(group: Any) -> None:
    """Exchange signs of life until all ranks have finished; end this process where one of them cannot any more."""
    import torch
    from torch import distributed

    finished = torch.zeros(1)
    try:
        while finished.item() < ranks():
            time.sleep(PULSE)
            finished.fill_(float(_Together.done.is_set()))
            distributed.all_reduce(finished, group=group)
    except RuntimeError:  # its connection is closed
        time.sleep(GRACE)
        if _Together.noticed.is_set():
            time.sleep(GRACE)
        else:
            print(f"\n{LOST}" if is_main() else LOST, file=sys.stderr, flush=True)  # the main one may show progress
        os._exit(1)


@contextmanager
def _others() -> Iterator[None]:
    """Around what needs the other ranks: ValueError in place of what the backends say when one has died."""
    try:
        yield
    except RuntimeError as fault:
        _Together.noticed.set()
        raise ValueError(LOST) from fault


def finish() -> None:
    """Wait until all ranks have finished the stage, and part; nothing in a process alone."""
    if _Together.watching is None:
        return
    from torch import distributed

    _Together.done.set()
    _Together.watching.join()
    distributed.destroy_process_group()
    _Together.agreeing = _Together.watching = None
    _Together.done.clear()


def leave_to_main() -> None:
    """Wait for all ranks; those but the main one end the stage here, with ``Left``."""
    wait()
    if not is_main():
        raise Left


def alike(fault: Exception) -> BaseException:
    """To be raised for what all ranks find alike: the fault in the main one, which says it; the others end silently."""
    if is_main():
        return fault
    _Together.noticed.set()
    time.sleep(PATIENCE)  # a launcher ends all others, the main one among them, once one has ended
    return SystemExit(1)


def wait() -> None:
    """Wait for all ranks."""
    of_main([0.0])


def of_main(values: Sequence[float]) -> list[float]:
    """The main rank's numbers, as many as each other rank has; they wait for it."""
    return added(values if is_main() else [0.0] * len(values))


def check_alike(what: str, values: Sequence[float]) -> None:
    """Raise ValueError, which begins with ``what``, where ranks differ in one of these numbers. All wait for all."""
    means = [each / ranks() for each in added(values)]
    differ = added([float(any(abs(a - b) > 1e-9 * (1 + abs(b)) for a, b in zip(values, means, strict=True)))])
    if differ[0]:
        fault = f"{what} differ between processes; do all see the same files, on machines of one kind?"
        raise alike(ValueError(fault))


def check_folder(folder: Path) -> None:
    """Raise ValueError where ranks would keep unfinished work in different folders, named by what determines it."""
    name = hashlib.sha256("/".join(folder.parts[-2:]).encode()).hexdigest()  # elsewhere on another machine
    check_alike(f"{folder}: the folders of unfinished work", [int(name[:12], 16)])


def added(values: Sequence[float]) -> list[float]:
    """Sums over ranks of as many numbers each, float64; all wait for all."""
    if ranks() == 1:
        return list(values)
    import torch
    from torch import distributed

    total = torch.tensor(values, dtype=torch.float64)
    with _others():
        distributed.all_reduce(total, group=_Together.agreeing)
    sums: list[float] = total.tolist()
    return sums


def add_up(values: "Tensor") -> None:
    """Sum a tensor over ranks, in place, on its device; a GPU's goes on without the CPU's waiting."""
    from torch import distributed

    with _others():
        distributed.all_reduce(values)


def fingerprint() -> str:
    """What a machine's bits are known to depend on: processor, accelerator, and the versions of what computes."""
    from importlib.metadata import version

    import torch

    packages = ("torch", "numpy", "diffusers", "transformers", "peft", "matplotlib", "pillow")
    parts = [
        _processor(),
        torch.backends.cpu.get_cpu_capability(),
        platform.system(),
        torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator",
        f"python-{platform.python_version()}",
        *(f"{name}-{version(name)}" for name in packages),
    ]
    return ", ".join(parts)


def _processor() -> str:
    """Architecture and, where Linux tells it, maker, family and model: what libraries choose their kernels by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    names = [known[key] for key in ("vendor_id", "model name") if key in known]
    numbers = [f"{key} {known[key]}" for key in ("cpu family", "model") if key in known]
    return " ".join([platform.machine(), *names, *numbers])
