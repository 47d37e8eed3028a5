"""The plan as it is printed: a line a kind of stage, sums by study and of all, in at most 120 columns."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from atelier.planning.work import Group

WIDTHS = {
    "stage": 21,
    "n": 4,
    "pictures": 8,
    "calls": 7,
    "steps": 7,
    "batch": 5,
    "decoded": 7,
    "encoded": 7,
    "measured": 8,
    "PFLOP": 7,
    "hours": 7,
    "VRAM": 6,
    "RAM": 6,
    "disk": 7,
}
SUFFIXES = ("", "k", "M", "G", "T", "P")
GIBIBYTE = 2**30
LEAST = 0.001  # that is written out


class Priced(NamedTuple):
    """What a kind of stage costs: PFLOP and hours of all of them, of the longest, GiB of the largest, GiB written."""

    flops: float
    hours: float
    longest: float
    vram: float
    ram: float
    disk: float


class Row(NamedTuple):
    """One kind of stage; ``priced``: None where nothing was counted."""

    group: Group
    priced: Priced | None


def short(value: float) -> str:
    """Three significant digits: 1.23k; a dash for nothing."""
    if value < LEAST:
        return f"<{LEAST:g}" if value else "-"
    power = 0
    while abs(float(f"{value:.3g}")) >= 1000 and power < len(SUFFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g}{SUFFIXES[power]}"


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table: a block a pipeline, with its sum, and the sum of all."""
    yield _line(dict(zip(WIDTHS, WIDTHS, strict=True)))
    for pipeline in dict.fromkeys(row.group.pipeline for row in rows):
        own = [row for row in rows if row.group.pipeline == pipeline]
        yield pipeline
        yield from (_line(_cells(f"  {_shown(row.group)}", [row])) for row in own)
        yield _line(_cells("  sum", own))
    yield _line(_cells("all", rows))


def _shown(group: Group) -> str:
    """A kind without its study's name, which stands above; a study's page has no other."""
    return "page" if group.kind == group.pipeline else group.kind.removeprefix(f"{group.pipeline}-")


def _cells(name: str, rows: Sequence[Row]) -> dict[str, str]:
    works = [work for row in rows for work in row.group.works]
    known = [row.priced for row in rows if row.priced is not None]
    trained = [each for work in works for each in work.trained]
    sampled = [each for work in works for each in work.sampled]
    cells = {
        "stage": name,
        "n": str(sum(row.group.number for row in rows)),
        "pictures": short(sum(each.pictures for each in sampled)),
        "calls": short(
            sum(each.pictures * each.steps * (1 + each.guided) for each in sampled) + sum(x.denoised for x in works)
        ),
        "steps": short(sum(each.steps for each in trained)),
        "batch": "/".join(sorted({str(each.batch) for each in trained}, key=int)) or "-",
        "decoded": short(sum(each.pictures for each in sampled) + sum(work.decoded for work in works)),
        "encoded": short(sum(work.encoded for work in works)),
        "measured": short(sum(work.measured for work in works)),
    }
    if len(cells["batch"]) > WIDTHS["batch"]:
        cells["batch"] = f"<={max(each.batch for each in trained)}"
    if any(row.group.silent for row in rows) and not works:
        return {key: value if key in ("stage", "n") else "?" for key, value in cells.items()}
    sums: dict[str, Callable[[Priced], float]] = {
        "PFLOP": lambda x: x.flops, "hours": lambda x: x.hours, "disk": lambda x: x.disk,
    }  # fmt: skip
    cells |= {key: short(sum(map(of, known))) for key, of in sums.items() if known}
    most: dict[str, Callable[[Priced], float]] = {"VRAM": lambda x: x.vram, "RAM": lambda x: x.ram}
    return cells | {key: short(max(map(of, known))) for key, of in most.items() if known}


def _line(cells: dict[str, str]) -> str:
    texts = [cells.get(key, "").ljust(width) if key == "stage" else cells.get(key, "").rjust(width)
             for key, width in WIDTHS.items()]  # fmt: skip
    return " ".join(texts).rstrip()
