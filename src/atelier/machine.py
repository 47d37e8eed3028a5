"""Make one machine give the same bits twice.

Bits depend on the processor, its instruction set, the number of threads and the libraries' versions: ``fingerprint``
names them. ``settle`` fixes the threads; it must run before torch is imported for the first time. The widest
instructions are used: AVX2 alone costs 9 to 46 % of the speed and did not make two makers' processors agree.
Threads that wait spin for microseconds, then sleep: with OpenMP's default, longer spin a training step took up to
twenty times as long beside another process on the same cores.
"""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.params import Machine

if TYPE_CHECKING:
    from accelerate import Accelerator

ENVIRONMENT = {
    "GOMP_SPINCOUNT": "20000",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",  # it says at every start that torchvision, which nothing here needs, is missing
}


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
    """The device and precision of params.yaml; ValueError for 'cuda' where there is none."""
    import torch
    from accelerate import Accelerator

    if machine.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("machine.device: 'cuda' is set and there is no such device")
    mixed = {"fp32": "no", "bf16": "bf16"}[machine.precision]
    return Accelerator(cpu=machine.device == "cpu", mixed_precision=mixed)


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
