"""Make one machine give the same bits twice, and machines of one family agree.

Bits depend on the number of threads and on the widest instructions a library finds. ``settle`` fixes both; it must run
before torch is imported for the first time. Restricting oneDNN, MKL and ATen to AVX2 costs about a fifth of the speed.
Threads that wait spin for microseconds, then sleep: with OpenMP's own, longer spin a training step took up to twenty
times as long beside another process on the same cores.
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
}
COMMON_INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}


def settle_children(threads: int, common: bool = True) -> None:
    """Fix threads and instruction sets for processes started from here: notebooks' kernels."""
    for name, value in (ENVIRONMENT | (COMMON_INSTRUCTIONS if common else {})).items():
        os.environ.setdefault(name, value)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def settle(threads: int, common: bool = True) -> None:
    """Fix threads and instruction sets for this process and its children.

    Without ``common``, the widest instructions of this processor: for what is made once and shipped.
    """
    settle_children(threads, common)
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
    """The device and precision asked for; a CUDA device that is asked for and absent is refused."""
    import torch
    from accelerate import Accelerator

    if machine.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("machine.device: 'cuda' was asked for and none is found")
    mixed = {"fp32": "no", "bf16": "bf16"}[machine.precision]
    return Accelerator(cpu=machine.device == "cpu", mixed_precision=mixed)


def fingerprint() -> str:
    """What a machine's bits are known to depend on: processor, accelerator, and the versions of what computes."""
    from importlib.metadata import version

    import torch

    packages = ("torch", "numpy", "diffusers", "transformers", "peft", "matplotlib", "pillow")
    parts = [
        _processor(),
        platform.system(),
        torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator",
        f"python-{platform.python_version()}",
        *(f"{name}-{version(name)}" for name in packages),
    ]
    return ", ".join(parts)


def _processor() -> str:
    """Architecture and, where Linux tells it, who made it: what libraries choose their kernels by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    makers = [line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")]
    return " ".join([platform.machine(), *makers[:1]])
