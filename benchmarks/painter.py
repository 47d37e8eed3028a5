"""How fast the painter paints: ``python benchmarks/painter.py``. Timings are printed, never stored."""

from time import perf_counter

from atelier.data.painter import STYLES, paint_corpus, paint_photograph, paint_work


def rate(workers: int, pictures: int = 400) -> float:
    """Pictures a second, works and photographs in halves, processes' start included."""
    start = perf_counter()
    paint_corpus(pictures // 2, pictures // 2, seed=0, size=64, workers=workers)
    return pictures / (perf_counter() - start)


def main() -> None:
    """Print rates for one and two processes, and the cost of each style."""
    paint_work(0, 0)
    for workers in (1, 2):
        print(f"{workers} process(es): {rate(workers):6.1f} pictures/s")
    for style in STYLES:
        start = perf_counter()
        for index in range(30):
            paint_work(0, index, style=style)
        print(f"{style:24s} {(perf_counter() - start) / 30 * 1e3:5.1f} ms a work")
    start = perf_counter()
    for index in range(30):
        paint_photograph(0, index)
    print(f"{'Photograph':24s} {(perf_counter() - start) / 30 * 1e3:5.1f} ms")


if __name__ == "__main__":
    main()
