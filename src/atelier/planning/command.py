"""``python -m atelier plan [FILE] [--seconds N | --card NAME]``: what a profile lacks and costs, what cannot fit."""

import resource
import shutil
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from atelier import machine, params, preflight
from atelier.params import Params
from atelier.planning import given as givens
from atelier.planning import stages, table
from atelier.planning.stages import SHARED
from atelier.planning.table import GIBIBYTE, Priced, Row
from atelier.planning.work import Group, groups
from atelier.workspace import Workspace

USAGE = "usage: python -m atelier plan [FILE] [--seconds N | --card NAME]"
COLUMNS = 120  # of a terminal
SECONDS = 10.0  # of calibration
NODE = 8  # cards of a usual node, where one is named


class Options(NamedTuple):
    """``seconds`` of calibration, 0: none, None: ten where nothing is missing; ``card``: a published one instead."""

    file: Path
    seconds: float | None
    card: str | None


def main(workspace: Workspace, arguments: Sequence[str]) -> None:
    """Print the plan. Raises ValueError, one line each, for what is missing, wrong, or does not fit."""
    options = parsed(workspace, arguments)
    content, config = params.read(options.file), params.load(options.file)
    faults = preflight.faults(config, workspace)
    counts = options.card is not None or (options.seconds != 0 if not faults else bool(options.seconds))
    began = time.process_time()
    shapes = givens.shapes(config, workspace)
    given, pictures = givens.given(config, workspace, int(shapes.vae.get("latent_channels", 4)))
    listed = groups(config, given, stages.stages(content, workspace))
    begins = f"profile {config.profile} of {options.file}: {pictures}; shapes of {shapes.source}"
    print(textwrap.fill(begins, COLUMNS, subsequent_indent="  "))
    rows, refused = [Row(group, None) for group in listed], []
    if counts:
        machine.settle(config.machine.threads)
        price = Prices(config, shapes, options, began)
        rows = [Row(group, price.of(group)) for group in listed]
        refused = list(price.refused(rows, workspace))
        print(textwrap.fill(price.words, COLUMNS, subsequent_indent="  "))
    print("\n".join(table.lines(rows)))
    lines = [*notes(config, listed, counts), *(price.idle(rows) if counts else [])]
    print("\n".join(textwrap.fill(line, COLUMNS, subsequent_indent="  ") for line in lines))
    if said := [f"{options.file}: {fault}" for fault in (*faults, *refused)]:
        raise ValueError("\n".join(said))


def parsed(workspace: Workspace, arguments: Sequence[str]) -> Options:
    """The command line's options. Raises ValueError with the usage for others."""
    waiting, files, values = list(arguments), list[Path](), dict[str, str]()
    while waiting:
        word = waiting.pop(0)
        if word in ("--seconds", "--card") and waiting and not values:
            values[word] = waiting.pop(0)
        elif word.startswith("-") or files:
            raise ValueError(USAGE)
        else:
            files.append(Path(word))
    file = files[0] if files else workspace.params_file
    try:
        seconds = float(values["--seconds"]) if "--seconds" in values else None
    except ValueError:
        raise ValueError(USAGE) from None
    if seconds is not None and not 0 <= seconds <= 3600:
        raise ValueError(f"--seconds: expected 0 to 3600, got {values['--seconds']}")
    return Options(file, seconds, values.get("--card"))


def notes(config: Params, listed: Sequence[Group], counted: bool) -> Iterator[str]:
    """What the table does not say: what it leaves out, what is fetched, and which claims stay open."""
    yield "calls: of the denoiser, a picture each; measured: pictures that measures read, in no hours of this table"
    if counted:
        yield "VRAM and RAM: GiB of the largest stage of a kind; disk: GiB, once (twice where DVC's cache copies)"
    else:
        yield "operations, hours and memory are counted with --seconds N (on the device at hand) or --card NAME"
    for group in listed:
        if group.silent:
            yield f"{group.kind}: {group.silent} not counted: the study's params.py does not say what they compute"
    if config.base.source == "hub":
        at = f"{config.base.location} at {(config.base.revision or '')[:12]}"
        yield f"base: {at} is downloaded unless the hub's cache has it; its size is not known here"
    if lacking := preflight.undecided(config):
        shown = ", ".join(f"{name} ({cells[0]}{', ...' if len(cells) > 1 else ''})" for name, cells in lacking.items())
        yield f"claims without a verdict, because the profile does not measure their cells: {shown}"


class Prices:
    """Operations, hours, memory and disk of groups of stages, on one kind of card."""

    def __init__(self, config: Params, shapes: givens.Shapes, options: Options, began: float) -> None:
        from atelier.planning import costs, counting, speed

        self.config, self.cost = config, costs.cost
        half = config.machine.precision == "bf16"
        self.parts = counting.Parts(shapes, config.data.size, half)
        self.exact = counting.Parts(shapes, config.data.size, half=False) if half else self.parts
        # of a process: libraries are loaded; of the processor, so that what else runs here does not count
        self.start = time.process_time() - began
        self.libraries = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if options.card is not None:
            self.speed, self.cards, self.processor = (
                speed.published(options.card, config.machine.precision),
                NODE,
                False,
            )
        else:
            seconds = SECONDS if options.seconds is None else options.seconds
            self.speed = speed.measured(config, self.parts, seconds)
            self.cards, self.processor = speed.cards(config), not speed.cards(config)
        self.words = f"{self.speed.words}; a process starts in {self.start:.3g} s"
        self.machine = speed.machine_memory()

    def of(self, group: Group) -> Priced | None:
        if not group.works:
            return None
        prices = [self.cost(self.config, self.exact if each.exact else self.parts, each) for each in group.works]
        slower = [1 / self.speed.exact if each.exact else 1.0 for each in group.works]
        hours = [
            (self.seconds(each.operations) * factor + self.start) / 3600
            for each, factor in zip(prices, slower, strict=True)
        ]
        memory = max(each.memory for each in prices)
        held = self.libraries + 4 * sum(self.parts.weights.values()) * bool(memory)  # what is loaded before it moves
        ram = self.libraries + memory if self.processor else held
        return Priced(
            sum(each.operations.all for each in prices) / 1e15,
            sum(hours),
            max(hours),
            0.0 if self.processor else memory / GIBIBYTE,
            ram / GIBIBYTE,
            sum(each.disk for each in prices) / GIBIBYTE,
        )

    def seconds(self, operations: Sequence[float]) -> float:
        rates = (self.speed.denoised, self.speed.learnt, self.speed.decoded)
        return float(sum(flops / rate for flops, rate in zip(operations, rates, strict=True)))

    def refused(self, rows: Sequence[Row], workspace: Workspace) -> Iterator[str]:
        """What does not fit: a line a kind of stage, and one of the disk."""
        card, memory = self.speed.memory / GIBIBYTE, self.machine / GIBIBYTE
        for row in rows:
            if row.priced is None:
                continue
            key = " or ".join(self.batches(row.group))
            if row.priced.vram > card:
                yield f"{row.group.kind}: about {row.priced.vram:.3g} GiB of {card:.3g} on the card; lower {key}"
            if row.priced.ram > memory:
                yield f"{row.group.kind}: about {row.priced.ram:.3g} GiB of {memory:.3g} of memory; lower {key}"
        needed = sum(row.priced.disk for row in rows if row.priced)
        free = shutil.disk_usage(preflight.existing(workspace.build.absolute())).free / GIBIBYTE
        if needed > free:
            yield f"{workspace.build}: all stages write about {needed:.3g} GiB, {free:.3g} are free"

    def batches(self, group: Group) -> list[str]:
        """The parameters that lower a group's memory."""
        if not any(work.trained for work in group.works):
            return ["sampling.batch"]
        section = "base" if group.pipeline == SHARED else group.pipeline
        return [
            key
            for key in _batches(self.config.model_dump()[section], section)
            if any(f"{key}.".startswith(f"{read}.") for read in group.params)
        ]

    def idle(self, rows: Sequence[Row]) -> Iterator[str]:
        """Hours of wall, one stage after another and as many at a time as there are cards; and what is idle."""
        total = sum(row.priced.hours for row in rows if row.priced)
        longest = max((row.priced.longest for row in rows if row.priced), default=0.0)
        if self.processor:
            yield f"{table.short(total)} hours on this processor; no GPU is used"
            return
        yield f"{table.short(total)} GPU-hours; dvc repro runs one stage at a time: as many hours of wall"
        yield f"idle GPUs: {self.cards - 1} of {self.cards}, because a stage is one process on one GPU"
        if self.cards > 1:
            wall = max(longest, total / self.cards)
            yield f"a stage on each of {self.cards} GPUs at a time: at least {table.short(wall)} hours of wall"


def _batches(content: object, name: str) -> Iterator[str]:
    """Names of all parameters ``batch`` in a tree of them."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == "batch":
            yield f"{name}.{key}"
        yield from _batches(value, f"{name}.{key}")
