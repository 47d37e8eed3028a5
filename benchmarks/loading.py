"""What a stage's process costs before it computes: python benchmarks/loading.py"""

import statistics
import subprocess
import sys
import time

REPEATS = 5
WAYS = {
    "as python does": "from atelier.models import base",
    "garbage left alone": "from atelier.__main__ import load_libraries; load_libraries()",
}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(REPEATS):
        for name, code in WAYS.items():
            times[name].append(seconds(code))
    for name, found in times.items():
        print(f"{name:20} {statistics.median(found):.2f} s from start to end, median of {REPEATS}")


if __name__ == "__main__":
    main()
