"""Start several processes of one job by hand, as launchers do; and the task that they train in tests."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from atelier.params import Optimisation
from atelier.training.loop import Task
from atelier.training.order import Turn

STEPS, SAMPLES, SEED = 20, 12, 3
ASKED = Optimisation(
    steps=STEPS, batch=5, learning_rate=0.02, decay="constant", warmup=3, beta2=0.99, weight_decay=0.01, clip=0.5,
    ema=3.0, checkpoint_every=5,
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What a launcher tells a process of one machine."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    return {
        **os.environ,
        **{name: str(value) for name, value in told.items()},
        "MASTER_ADDR": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }


def start(*arguments: str, cwd: Path, ranks: int = 2) -> list[subprocess.Popen[str]]:
    """The processes of one job, in the order of their ranks."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=environment(rank, ranks, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def finished(processes: Sequence[subprocess.Popen[str]], seconds: float = 250) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    told = [process.communicate(timeout=seconds) for process in processes]
    return [(process.returncode, *said) for process, said in zip(processes, told, strict=True)]


def regression(dtype: torch.dtype) -> Task:
    """A convolution laid out channels last, a frozen map before it, and a parameter that only sample 0 uses: it has a
    gradient in one share of a batch, or in none."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    frozen, pictures, wanted = drawn(3, 3), drawn(SAMPLES, 3, 6, 6), drawn(SAMPLES, 4, 6, 6)
    model = nn.Conv2d(3, 4, 3, padding=1).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(drawn(*parameter.shape))
    model.to(memory_format=torch.channels_last)
    seldom = nn.Parameter(drawn(1))

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        made = model(torch.einsum("ij,njhw->nihw", frozen, pictures[chosen]))
        terms = {"fit": (made - wanted[chosen]).square().mean(), "size": made.abs().mean()}
        if 0 in chosen:
            terms["size"] = terms["size"] + seldom.sum().square() * chosen.count(0) / len(chosen)
        return terms

    trainable = {**dict(model.named_parameters()), "seldom": seldom}
    return Task(trainable, [f"work-{i}" for i in range(SAMPLES)], losses, means=True)
