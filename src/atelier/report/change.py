"""One comparison in words and numbers that need no knowledge of the code."""

import math
from typing import NamedTuple

from atelier.claims import Comparison, path_of
from atelier.evaluation.intervals import Interval
from atelier.params import Params, read
from atelier.report import naming
from atelier.report.words import plain
from atelier.verdicts import Evidence, baseline, compared

IN_SHORT = "in_short.yaml"  # beside a study's claims
LOGARITHMS = {
    " (log10)": 10.0,
    " (log2)": 2.0,
    " (ln)": math.e,
}  # in measures' names: a change of one is said as a factor


class Change(NamedTuple):
    """What changed, against what, and by how much."""

    measure: str
    changed: str
    reference: str  # "" where a measure is compared with nothing
    interval: Interval
    before: float | None  # the reference's value; None of nothing
    base: float | None  # of the logarithm that the measure is; None where it is none

    @property
    def subject(self) -> str:
        """The measure and both sides."""
        return f"{self.measure}, {self.changed}{f' against {self.reference}' if self.reference else ''}"

    @property
    def numbers(self) -> str:
        """``308 against 324 (-15.5, 95 % interval -66.2 to +35.1)``; of nothing, the value alone."""
        if self.before is None:
            return f"{self.by} ({self.spread})"
        return f"{self.size(self.after)} against {self.size(self.before)} ({self.by}, {self.spread})"

    @property
    def after(self) -> float:
        """The changed side's value."""
        return (self.before or 0.0) + self.interval.mean

    @property
    def by(self) -> str:
        """The change; of a logarithm, a factor."""
        mean = self.interval.mean
        return shown(mean, "+") if self.base is None else f"{self.size(mean)} times"

    @property
    def spread(self) -> str:
        """``bare``, and what it is."""
        return f"{'' if self._equal else '95 % interval '}{self.bare}"

    @property
    def bare(self) -> str:
        """The change's interval, or that all groups are the same."""
        low, high, groups = self.interval[1:]
        if self._equal:
            return f"the same in all {groups} groups"
        if self.base is None:
            return f"{shown(low, '+')} to {shown(high, '+')}"
        return f"{self.size(low)} to {self.size(high)} times"

    @property
    def _equal(self) -> bool:
        return self.interval.low == self.interval.high

    @property
    def verb(self) -> str:
        """Whether it falls, rises, or neither is clear."""
        low, high = self.interval.low, self.interval.high
        return "falls" if high < 0 else "rises" if low > 0 else "shows no clear change"

    def size(self, value: float) -> str:
        """A value, without the logarithm."""
        return shown(value) if self.base is None else shown(self.base**value)


def change(study: str, part: Comparison, evidence: Evidence) -> Change | None:
    """A comparison of measured cells; None where one of them was not measured."""
    result = compared(part, evidence)
    if result is None:
        return None
    measure, changed, reference = naming.comparison(study, part)
    name, base = next(((name, base) for name, base in LOGARITHMS.items() if name in measure), ("", None))
    before = baseline(part, evidence) if reference else None
    return Change(measure.replace(name, ""), changed, reference, result.interval, before, base)


def moved(study: str, evidence: Evidence, measure: str, changed: str, reference: str) -> str:
    """``falls from 324 to 308 (-15.5, -20 to -11)``: the change and its 95 % interval; "" where not measured.

    ``shows no clear change`` where the interval has 0; beside nothing, what it is.
    """
    made = change(study, Comparison(measure=measure, changed=[changed], reference=[reference], rule="below"), evidence)
    if made is None or made.before is None:
        return "" if made is None else f"is {made.by} ({made.bare})"
    seen = " from" if made.verb in ("falls", "rises") else ","
    return f"{made.verb}{seen} {made.size(made.before)} to {made.size(made.after)} ({made.by}, {made.bare})"


def in_short(study: str, evidence: Evidence, params: Params) -> str:
    """What a study found in one sentence, from its ``in_short.yaml``; "" without one, or where nothing was measured.

    ``{params.SECTION.NAME}`` in its words is a parameter. Raises ValueError for a file that is no YAML.
    """
    path = path_of(study).with_name(IN_SHORT)
    changes = read(path) if path.is_file() else {}
    said = [
        f"{text.format(params=params)} {numbers}"
        for text, (measure, changed, reference) in changes.items()
        if (numbers := moved(study, evidence, measure, changed, reference))
    ]
    joined = "; ".join(said)
    return f"{joined[0].upper()}{joined[1:]}." if joined else ""


def shown(number: float, sign: str = "") -> str:
    """Three significant digits with a true minus; ``sign="+"``: of a change."""
    return plain(f"{number:{sign}.3g}").replace("-", "−")
