"""``python benchmarks/home.py [PAGE]``: what the front page loads before a reader acts, and when it is painted.

In headless Chromium from disk, at 1200 x 900 px, each time in a browser that has seen nothing. PAGE is
``results/index.html`` if none is named.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import browser  # noqa: E402

TIMES = 5
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def opened(path: Path) -> tuple[set[Path], float, float]:
    """The files that a page asks for until it is loaded; milliseconds to its first paint and until it is loaded."""
    with tempfile.TemporaryDirectory() as own, browser.chromium(Path(own) / "browser") as tab:
        page = tab()
        page.screen(1200, 900)
        page.open(path.as_uri())
        painted = float(page.until(PAINTED))
        loaded = float(page.ask("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        files = {Path(unquote(urlsplit(address).path)) for address in page.requests if address.startswith("file:")}
    return files, painted, loaded


def main(path: Path) -> None:
    rounds = [opened(path.resolve()) for _ in range(TIMES)]
    files = set.union(*(files for files, _, _ in rounds))
    size = sum(file.stat().st_size for file in files)
    print(f"{path}: {len(files)} files, {size / 1e6:.2f} MB before a reader acts")
    for name, times in (("first paint", [each[1] for each in rounds]), ("loaded", [each[2] for each in rounds])):
        middle, fastest, slowest = (of(times) / 1000 for of in (statistics.median, min, max))
        print(f"{name}: {middle:.2f} s, median of {TIMES} ({fastest:.2f} to {slowest:.2f})")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main(Path(*sys.argv[1:]) if len(sys.argv) > 1 else ROOT / "results" / "index.html")
