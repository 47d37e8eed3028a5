"""What a stage's process costs before it computes: python benchmarks/loading.py"""

import os
import statistics
import subprocess
import sys
import time

from atelier.lifetime import ADDRESS

REPEATS = 5
REFUSED = [sys.executable, "-m", "atelier", "base", "surplus"]  # once everything is loaded
WAYS = {
    "as python does": [sys.executable, "-c", "from atelier.models import base"],
    "garbage left alone": REFUSED,
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    below = ADDRESS in os.environ
    ways = {"a copy": REFUSED} if below else WAYS
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, command in ways.items():
            times[name].append(seconds(command))
    for name, found in times.items():
        print(f"{name:20} {statistics.median(found):.2f} s from start to end, median of {REPEATS}", flush=True)
    if not below:
        subprocess.run([sys.executable, "-m", "atelier.warm", sys.executable, __file__], check=True)


if __name__ == "__main__":
    main()
