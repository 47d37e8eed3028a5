"""The card of a verdict: the claim, its rule, and the numbers that decided it."""

import html
from collections.abc import Sequence

import pandas as pd

from atelier.claims import Claim, Verdict
from atelier.report.items import Metric, Table


def card(claim: Claim, verdict: Verdict, counts: Sequence[int], over: str) -> Table:
    """A verdict's comparisons as a table; ``counts``: n of each, ``over``: what their intervals are over."""
    rows, metrics = {}, {}
    for number, (finding, n) in enumerate(zip(verdict.findings, counts, strict=True), 1):
        row: dict[str, object] = {"rule": finding.part.rule, "change": "not measured"}
        if (compared := finding.compared) is not None:
            low, high = compared.interval.low, compared.interval.high
            row |= {
                "change": f"{compared.interval.mean:+.3g}",
                "95 % interval": f"{low:+.3g} to {high:+.3g}",
                "margin": f"{compared.margin:.3g}" if compared.margin else "",
                "detectable": f"{compared.detectable:.3g}",
                "part": finding.verdict,
            }
            metrics[f"claim/{verdict.claim}/{number}"] = Metric(compared.interval, n)
            metrics[f"claim/{verdict.claim}/{number}/detectable"] = Metric(compared.detectable, n)
        rows[finding.part.name] = row
    listed = ", ".join(str(count) for count in dict.fromkeys(counts))
    caption = f"Claim {verdict.claim}: {over}; n = {listed} a cell."
    return Table(f"claim_{verdict.claim}", pd.DataFrame(rows).T.fillna(""), caption, metrics)


def heading(claim: Claim, verdict: Verdict) -> str:
    """The claim, its verdict, the paper's numbers and the rule, as HTML."""
    reason = f" ({html.escape(verdict.reason)})" if verdict.reason else ""
    lines = [
        f"<b>{verdict.claim}: {html.escape(claim.says)}</b>",
        f"Verdict: <b>{verdict.verdict}</b>{reason}",
        f"The paper: {html.escape(claim.paper)}",
        f"The rule, written beforehand: {html.escape(claim.rule)}",
    ]
    return "<br>".join(lines)
