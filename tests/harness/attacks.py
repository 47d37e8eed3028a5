"""What an attack is, how one is judged, and the table of all."""

import contextlib
import io
import os
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SLOW = 10.0  # seconds that a refusal may take
LINES = 20  # of a refusal, which may list several faults


class Attack(NamedTuple):
    """``run`` gets an empty folder and returns "" if the attack held, else what happened."""

    group: str
    name: str
    run: Callable[[Path], str]


class Outcome(NamedTuple):
    attack: Attack
    failure: str  # "": it held


def judged(attack: Attack) -> Outcome:
    """Run an attack in a temporary folder; whatever it raises is a failure."""
    with tempfile.TemporaryDirectory(prefix="atelier-harness-") as folder:
        inside = Path(folder) / "inside"  # what is written beside it left it
        inside.mkdir()
        try:
            failure = attack.run(inside)
        except Exception as error:
            failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} at {_where(error)}"
    return Outcome(attack, failure)


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def refused(call: Callable[[], object], *names: str) -> str:
    """Hold if ``call`` raises ValueError or OSError with few short lines, one of which contains one of ``names``."""
    start = time.monotonic()
    try:
        call()
    except (ValueError, OSError) as error:
        return _bad_refusal(str(error), names) or _too_slow(start)
    return "accepted"


def stage(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and standard error of ``python -m atelier ARGUMENTS`` in a folder, in this process."""
    from atelier import cli

    said = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(list(arguments))
    finally:
        os.chdir(before)
    return code, said.getvalue()


def stage_refused(folder: Path, arguments: Sequence[str], *names: str) -> str:
    """Hold if a stage ends with 1 and one line, or a few, that contain one of ``names``."""
    start = time.monotonic()
    code, said = stage(folder, arguments)
    if code == 0:
        return "accepted"
    return _bad_refusal(said, names) or _too_slow(start)


def _bad_refusal(said: str, names: Sequence[str]) -> str:
    lines = said.strip().splitlines()
    if not lines or len(lines) > LINES:
        return f"{len(lines)} lines: {said[:200]!r}"
    if "Traceback" in said:
        return f"a traceback: {lines[-1][:200]}"
    if max(map(len, lines)) > 600:
        return f"a line of {max(map(len, lines))} letters"
    if any(ord(letter) < 32 and letter != "\n" for letter in said):
        return f"control characters: {said[:200]!r}"
    if names and not any(name in said for name in names):
        return f"names none of {', '.join(names)}: {said[:200]!r}"
    return ""


def _too_slow(start: float) -> str:
    seconds = time.monotonic() - start
    return f"{seconds:.0f} s" if seconds > SLOW else ""


def table(outcomes: Iterable[Outcome]) -> str:
    """A Markdown table: group, tried, held, and the failed by name."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.attack.group, []).append(outcome)
    lines = ["| group | tried | held | failed |", "|---|---|---|---|"]
    for name, members in groups.items():
        failed = [outcome.attack.name for outcome in members if outcome.failure]
        lines.append(f"| {name} | {len(members)} | {len(members) - len(failed)} | {', '.join(failed)} |")
    return "\n".join(lines)


def sampled(attacks: Sequence[Attack], share: float, seed: int) -> Iterator[Attack]:
    """A share of the attacks of each group, at least three, chosen by the seed."""
    chance = random.Random(seed)
    for group in dict.fromkeys(attack.group for attack in attacks):
        members = [attack for attack in attacks if attack.group == group]
        yield from chance.sample(members, min(len(members), max(3, round(share * len(members)))))
