"""Settled processes compute the same bits."""

import subprocess
import sys

import pytest

FIRST_AND_LATER = """
from atelier import machine
machine.settle(2)
import torch
x = torch.linspace(-20, 2, 16384)  # enough for two threads
assert torch.equal(torch.exp(x), torch.exp(x))
"""


@pytest.mark.long
def test_the_first_exponential_of_a_process_is_every_later_one() -> None:
    """Without the call in `settle` some processes differ, so that several are started."""
    for _ in range(8):
        subprocess.run([sys.executable, "-c", FIRST_AND_LATER], check=True)
