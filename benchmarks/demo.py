"""``python benchmarks/demo.py FOLDER``: seconds to the first and the next pictures of a demo page in headless Chromium.

FOLDER is what ``python -m atelier demo FOLDER`` wrote. The page compares: each change of the seed paints two pictures,
with leak and without. Seconds are those of the page's own clock, from the click on; beside them how long the processor
worked for the page's main thread: what is left to wait for where a second core is free.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import browser  # noqa: E402

SEEDS = range(2, 12)
WAIT = 600.0  # seconds, on a machine that does much else


def processor(page: browser.Page) -> float:
    """Seconds that the processor has worked for the page's main thread."""
    metrics = page.call("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "ThreadTime"))


def main(folder: Path) -> None:
    browser.PATIENCE = WAIT
    with (
        browser.served(folder) as address,
        tempfile.TemporaryDirectory() as own,
        browser.chromium(Path(own) / "b") as tab,
    ):
        page = tab()
        page.screen(1200, 900)
        page.open(f"{address}/")
        page.until("!document.querySelector('#start').hidden")
        page.call("Performance.enable")
        began = processor(page)
        page.ask("document.querySelector('#load').click()")
        first = page.until("Number(document.body.dataset.first)")
        loaded = processor(page)
        pictures, rounds = [], []
        for seed in SEEDS:
            page.ask("document.querySelector('#another').click()")
            page.until(f"JSON.parse(document.body.dataset.painted).seed === {seed}")
            pictures.append(float(page.ask("document.body.dataset.seconds")))
            rounds.append(float(page.ask("document.body.dataset.round")))
        worked = (processor(page) - loaded) / (2 * len(rounds))
        steps = page.ask("document.querySelector('#status').textContent")
    print(f"load averages {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; the page says: {steps}")
    print(f"from the click to the first picture: {first:.2f} s; main thread, to the second: {loaded - began:.2f} s")
    print(f"each next: {statistics.median(pictures):.2f} s a picture (median of {2 * len(pictures)}), ", end="")
    print(f"main thread {worked:.2f} s; {statistics.median(rounds):.2f} s for both (slowest {max(rounds):.2f} s)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
