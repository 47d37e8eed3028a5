"""A verdict in one sentence: what changed, by how much, in words that need no knowledge of the code."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from atelier.claims import FINDING, Claim
from atelier.evaluation.intervals import Interval
from atelier.report import naming
from atelier.report.figures import PALETTE, WIDTH
from atelier.report.items import DIGITS
from atelier.report.words import plain
from atelier.verdicts import NO_VERDICT, SUPPORTED, Finding, Verdict

OF_NOTHING = 10.0  # times a baseline; what changes by more had a baseline near 0, of which a share says nothing
CAPTION = (
    "{}: each part's change and its 95 % interval, n as in the table. Filled dots are parts that hold; shaded is what "
    "is smaller than what would matter. Parts without such a size are drawn in units of half their interval."
)
LABEL = 66  # letters


class Answer(NamedTuple):
    """The part that a verdict rests on, in words and numbers; the numbers are None where nothing was measured."""

    held: str  # how many parts hold
    measure: str = ""
    changed: str = ""
    reference: str = ""
    interval: Interval | None = None
    share: float | None = None  # of the reference's value
    n: int = 0  # pictures a cell
    small: str = ""

    @property
    def sentence(self) -> str:
        """What changed, and how many parts hold."""
        if self.interval is None:
            return "Nothing of it was measured here."
        share = "" if self.share is None else f"; {self.share:+.1%} of the latter".replace("-", "−").replace("%", " %")
        lead = f"{self.measure}, {self.changed} against {self.reference}"
        return f"{lead[0].upper()}{lead[1:]}: {_numbers(self.interval, share)}{self.small}. {self.held}."

    def entry(self) -> dict[str, Any]:
        """For ``metrics.json``: what other pages show of it."""
        if self.interval is None:
            return {}
        mean, low, high, _ = self.interval
        numbers = {"change": mean, "low": low, "high": high, "share": self.share}
        rounded = {key: None if x is None else float(f"{x:.{DIGITS}g}") for key, x in numbers.items()}
        return {"measure": self.measure, "changed": self.changed, "reference": self.reference, "n": self.n, **rounded}


def answer(claim: Claim, verdict: Verdict, baselines: Sequence[float | None], counts: Sequence[int]) -> Answer:
    """The answer to a claim; ``baselines``: values of its parts' references, ``counts``: pictures a cell of each."""
    measured = [index for index, finding in enumerate(verdict.findings) if finding.compared is not None]
    held = _held(claim, verdict, len(measured))
    if not measured:
        return Answer(held)
    lead = _lead(verdict, measured)
    finding, baseline = verdict.findings[lead], baselines[lead]
    assert finding.compared is not None
    interval = finding.compared.interval
    relative = interval.mean / abs(baseline) if baseline else float("inf")
    words = naming.comparison(claim.study, finding.part)
    return Answer(
        held, *words, interval, relative if abs(relative) < OF_NOTHING else None, counts[lead], _small(verdict)
    )


def _numbers(interval: Interval, share: str = "") -> str:
    """A change and its interval; ``share``: what else stands in the brackets."""
    mean, low, high = (plain(f"{number:+.3g}").replace("-", "−") for number in interval[:3])
    return f"{mean} (95 % interval {low} to {high}{share})"


def paper(claim: Claim, name: str) -> str:
    """What the paper says of a claim, and what must be said beside it; of a finding, that no paper does."""
    source = claim.paper if name.startswith(FINDING) else f"The paper: {claim.paper}"
    return " ".join(f"{said[0].upper()}{said[1:].rstrip('.')}." for said in (source, claim.note) if said)


def _held(claim: Claim, verdict: Verdict, measured: int) -> str:
    """How many parts hold, or why none is judged; parts that were not measured neither hold nor fail."""
    parts = len(verdict.findings)
    lacking = f", {parts - measured} not measured" if measured < parts else ""
    if verdict.verdict in NO_VERDICT:
        if claim.control is not None and verdict.control_fails and verdict.control is not None:
            measure, changed, reference = naming.comparison(claim.study, claim.control)
            shown = f"{measure}, {changed} against {reference}: {_numbers(verdict.control.interval)}"
            return f"No verdict, because what must show here does not (the positive control: {shown})"
        if verdict.null is not None:
            part, result = verdict.null
            measure, changed, reference = naming.comparison(claim.study, part)
            shown = f"{measure}, {changed} against {reference}: {_numbers(result.interval)}"
            return (
                f"No verdict on this page, because a model's pictures differ from its own under other noise ({shown})"
            )
        return f"No verdict, because {verdict.reason or verdict.verdict}{lacking}"
    return f"{verdict.holding} of {parts} parts hold{lacking}"


def _small(verdict: Verdict) -> str:
    """That effects are smaller than what would matter, of the parts that the verdict rests on; "" where none is."""
    small, saying = verdict.small
    where = "" if small == saying else f"in {small} of {saying} parts "
    return f"; {where}the effect is there and smaller than what would matter" if small else ""


def _lead(verdict: Verdict, measured: Sequence[int]) -> int:
    """The part that a verdict rests on: the first that fails as the verdict says, else the first."""
    failing = (index for index in measured if verdict.findings[index].verdict == verdict.verdict)
    return next(failing, measured[0])


def evidence(claim: Claim, verdict: Verdict) -> Figure | None:
    """Each part's change and its 95 % interval, in units of what would matter; None where no part was measured.

    A part without such a unit (an effect of any size counts) is drawn in units of half its interval, so that its sign
    shows. A filled dot is a part that holds.
    """
    shown = [finding for finding in verdict.findings if finding.compared is not None]
    if not shown:
        return None
    figure, axis = plt.subplots(figsize=(WIDTH, 0.8 + 0.44 * len(shown)))
    axis.axvspan(-1, 1, color=PALETTE[7], alpha=0.18, linewidth=0)
    axis.axvline(0, color="black", linewidth=0.8)
    for row, finding in enumerate(shown):
        mean, low, high = _scaled(finding)
        holds = PALETTE[5] if finding.verdict == SUPPORTED else "white"
        axis.plot([low, high], [row, row], color=PALETTE[5], linewidth=2, solid_capstyle="butt")
        axis.plot([mean], [row], "o", color=PALETTE[5], markerfacecolor=holds, markersize=6)
    axis.set_xscale("symlog", linthresh=1.0)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_yticks(range(len(shown)), _labels(claim, shown), fontsize=7.5)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel("change, in units of what would matter (shaded: less; logarithmic beyond)")
    return figure


def _scaled(finding: Finding) -> tuple[float, float, float]:
    """A part's mean change and interval, in units of what would matter, or of half its interval."""
    compared = finding.compared
    assert compared is not None
    mean, low, high, _ = compared.interval
    unit = max(compared.margin, compared.least) or (high - low) / 2 or 1.0
    return mean / unit, low / unit, high / unit


def _labels(claim: Claim, shown: Sequence[Finding]) -> list[str]:
    """What each part compares, in lines that are short enough for an axis; what all have in common is left out."""
    rows = [naming.comparison(claim.study, finding.part) for finding in shown]
    varies = [len(set(column)) > 1 for column in zip(*rows, strict=True)]
    kept = varies if any(varies) else [True, True, False]
    return [
        "\n".join(textwrap.shorten(said, LABEL, placeholder=" …") for said, keep in zip(row, kept, strict=True) if keep)
        for row in rows
    ]
