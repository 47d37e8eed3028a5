"""A verdict's parts as a forest plot: each part's change with its interval, in units of what would matter."""

import textwrap
from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from atelier.claims import Claim
from atelier.report import naming
from atelier.report.figures import PALETTE
from atelier.verdicts import SUPPORTED, Finding, Verdict

CAPTION = (
    "{}: each part's change and its 95 % interval, n as in the table. Filled dots are parts that hold; shaded is what "
    "is smaller than what would matter. Parts without such a size are drawn in units of half their interval."
)
WIDTH = 3.6  # inches: read on a telephone, and beside a table
LINE, LINES = 50, 3  # letters of a label's line, and lines
ROW = 0.26, 0.13  # inches of a part, and of a line of its label


def forest(claim: Claim, verdict: Verdict) -> Figure | None:
    """Each part's change and its 95 % interval, in units of what would matter; None where no part was measured.

    A part without such a unit (an effect of any size counts) is drawn in units of half its interval, so that its sign
    shows. A filled dot is a part that holds.
    """
    drawn = [finding for finding in verdict.findings if finding.compared is not None]
    if not drawn:
        return None
    said = [_wrapped(label) for label in labels(claim, drawn)]
    tall = ROW[0] + ROW[1] * max(label.count("\n") + 1 for label in said)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.6 + tall * len(drawn)))
    axis.axvspan(-1, 1, color=PALETTE[7], alpha=0.18, linewidth=0)
    axis.axvline(0, color="black", linewidth=0.8)
    for row, (finding, label) in enumerate(zip(drawn, said, strict=True)):
        mean, low, high = _scaled(finding)
        holds = PALETTE[5] if finding.verdict == SUPPORTED else "white"
        axis.plot([low, high], [row, row], color=PALETTE[5], linewidth=2, solid_capstyle="butt")
        axis.plot([mean], [row], "o", color=PALETTE[5], markerfacecolor=holds, markersize=6)
        axis.text(
            0.01, row - 0.16, label, transform=axis.get_yaxis_transform(), va="bottom", fontsize=7, in_layout=False
        )
    axis.set_xscale("symlog", linthresh=1.0)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_yticks([])
    axis.set_ylim(len(drawn) - 0.7, -0.9)
    axis.set_xlabel("change, in units of what would matter", fontsize=8)
    axis.tick_params(labelsize=7.5)
    return figure


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, LINE, max_lines=LINES, placeholder=" …"))


def _scaled(finding: Finding) -> tuple[float, float, float]:
    """A part's mean change and interval, in units of what would matter, or of half its interval."""
    compared = finding.compared
    assert compared is not None
    mean, low, high, _ = compared.interval
    unit = max(compared.margin, compared.least) or (high - low) / 2 or 1.0
    return mean / unit, low / unit, high / unit


def labels(claim: Claim, findings: Sequence[Finding]) -> list[str]:
    """What each part compares, in a line; what all have in common is left out."""
    rows = [naming.comparison(claim.study, finding.part) for finding in findings]
    varies = [len(set(column)) > 1 for column in zip(*rows, strict=True)]
    kept = varies if any(varies) else [True, True, False]
    return ["; ".join(said for said, keep in zip(row, kept, strict=True) if keep) for row in rows]
