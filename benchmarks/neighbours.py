"""What nearest neighbours cost in memory and time: precision, recall, density and coverage of n and n samples.

``python benchmarks/neighbours.py [--n 12000] [--d 2048]``; minutes at these numbers. The most memory is that beyond the
features, as Python and numpy allocate it; the docstrings say that it is one block of 1024 x n distances, and an eighth.
"""

import argparse
import time
import tracemalloc

from atelier import machine

machine.settle(2)

import numpy as np  # noqa: E402

from atelier.metrics import precision_recall_density_coverage  # noqa: E402
from atelier.metrics.neighbours import BLOCK  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=12_000)
    parser.add_argument("--d", type=int, default=2048)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    real, generated = (rng.normal(size=(options.n, options.d)) for _ in range(2))
    tracemalloc.start()
    start = time.perf_counter()
    precision_recall_density_coverage(real, generated)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    sizes = {
        "features of one set": real.nbytes,
        "a block of distances": BLOCK * options.n * 8,
        "all pairs": options.n**2 * 8,
        "most memory beyond the features": peak,
    }
    print(f"n = {options.n}, d = {options.d}: {seconds:.0f} s")
    for name, size in sizes.items():
        print(f"{name:34}{size / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
