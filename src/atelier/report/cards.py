"""The card of a verdict: the claim, its rule, and the numbers that decided it."""

import html
from collections.abc import Sequence

import pandas as pd
from scipy import stats

from atelier.claims import FINDING, Claim
from atelier.evaluation.intervals import Interval
from atelier.evidence import LEVEL, Compared
from atelier.report import naming
from atelier.report.answers import paper
from atelier.report.items import Data, Metric, Table
from atelier.report.plan import needed
from atelier.verdicts import DECIDED, NO_VERDICT, SUPPORTED, UNDECIDED, Evidence, Finding, Verdict, by_group

STARTS = (
    "The starts disagree: from white noise and from first latents with the signal leak the effects are opposite. What "
    "is seen from white noise is then a change of what the model makes of the missing leak."
)

WRITTEN = "The rule, written before these pictures were made"
AFTER = "The rule, written when the first results had shown a like effect, and before these pictures were made"
ADJUSTED = (
    "All parts together: the interval widened so that all of this card's may be read at once (Bonferroni); no verdict "
    "rests on it. A claim of which all parts must hold is supported by the largest p of supported, unadjusted "
    "(intersection-union test); those of reversed and not seen are adjusted over the parts (Holm)."
)
ONE_SIDED = (
    "Of same, at least and at most p of supported is one-sided, of same the larger of two such (90 % interval); every "
    "other p is two-sided."
)
CHANGE, P = "change (95 % interval)", f"p {' / '.join(DECIDED)}"
GROUPS = ("part", "comparison", "rule", "group", "changed", "reference", "margin", "least", "difference", "resolution")


def card(claim: Claim, verdict: Verdict, counts: Sequence[int], over: str) -> Table:
    """A verdict's comparisons as a table; ``counts``: n of each, ``over``: what their intervals are over."""
    rows: list[dict[str, object]] = []
    metrics = {}
    for number, (finding, n) in enumerate(zip(verdict.findings, counts, strict=True), 1):
        row: dict[str, object] = {"no.": number, "rule": finding.part.rule, CHANGE: "not measured"}
        if (compared := finding.compared) is not None:
            row |= _numbers(finding, compared, verdict)
            metrics[f"claim/{verdict.claim}/{number}"] = Metric(compared.interval, n)
            metrics[f"claim/{verdict.claim}/{number}/detectable"] = Metric(compared.detectable, n)
        rows.append(row)
    listed = ", ".join(dict.fromkeys(str(metric.n) for metric in metrics.values())) or "0"
    kind = "Finding" if verdict.claim.startswith(FINDING) else "Claim"
    caption = f"{kind} {verdict.claim}: {over}; n = {listed} a cell. {ADJUSTED}"
    if any(not finding.part.directed for finding in verdict.findings):
        caption += f" {ONE_SIDED}"
    names = [naming.sentence(claim.study, finding.part) for finding in verdict.findings]
    return Table(f"claim_{verdict.claim}", pd.DataFrame(rows, index=names).fillna(""), caption, metrics)


def groups(claim: str, findings: Sequence[Finding], evidence: Evidence) -> Data:
    """What a reader needs to recompute each part: its values, group by group, and what it was tested against."""
    rows = [
        {
            "part": number,
            "comparison": finding.part.name,
            "rule": finding.part.rule,
            "group": group,
            "changed": changed,
            "reference": reference,
            "margin": margin,
            "least": least,
            "difference": changed - reference,
            "resolution": values.resolution,
        }
        for number, finding in enumerate(findings, 1)
        if (values := by_group(finding.part, evidence)) is not None
        for group, (changed, reference, margin, least) in enumerate(zip(*values[:4], strict=True))
    ]
    return Data(f"claim_{claim}_groups", pd.DataFrame(rows, columns=GROUPS))


def _numbers(finding: Finding, compared: Compared, verdict: Verdict) -> dict[str, object]:
    """A part's row: its change and intervals, what would matter and be seen, p-values, and the other start."""
    matters, parts = max(compared.margin, compared.least), len(verdict.findings)
    row: dict[str, object] = {
        CHANGE: _changed(compared.interval),
        "all parts together": _interval(widened(compared.interval, parts)),
        "would matter": f"{matters:.3g}" if matters else "",
        "detectable": f"{compared.detectable:.3g}",
    }
    shown = DECIDED if _may_be_unseen(finding, compared) else DECIDED[:-1]
    row[P] = " / ".join(f"{p:.2g}" for p, _ in zip(finding.adjusted, shown, strict=False))
    row["part"] = _said(finding, verdict)
    if notes := [note for note in (_conditional(finding, verdict.findings), _equal(compared)) if note]:
        row["note"] = "; ".join(notes)
    if (corrected := finding.corrected) is not None:
        row["corrected start"] = _changed(corrected.interval)
    return row


def _conditional(finding: Finding, findings: Sequence[Finding]) -> str:
    """That what sets a part's margin is not above 0, or is not supported where the claim has a part of it; or "".

    Of the same measure, or, where the claim has no part of that, of any: "nothing more is gained" means little where
    nothing was.
    """
    part = finding.part
    if not part.directed and finding.compared is not None and not finding.compared.margin:
        return "not judged: what its margin is a share of is not above 0"
    ends = [{tuple(gain.changed), tuple(gain.reference)} for gain in part.differences]
    effects = {
        number: each
        for number, each in enumerate(findings, 1)
        if each.part.directed and {tuple(each.part.changed), tuple(each.part.reference)} in ends
    }
    same = {number: each for number, each in effects.items() if each.part.measure == part.measure}
    unmet = [str(number) for number, each in (same or effects).items() if each.verdict != SUPPORTED]
    which = f"part {unmet[0]} is" if len(unmet) == 1 else f"parts {' and '.join(unmet)} are"
    return f"judged although {which} not supported, on which its meaning rests" if unmet else ""


def _equal(compared: Compared) -> str:
    """That groups do not scatter, and what its p-values rest on in that case; "" where they do."""
    if compared.equal is None:
        return ""
    resolution = f"its resolution, {compared.equal:.3g}, stands for the scatter"
    return (
        f"the same in every group: {resolution if compared.equal else 'no scatter, so p is 0 or 1 by the mean alone'}"
    )


def _may_be_unseen(finding: Finding, compared: Compared) -> bool:
    """Whether its rule needs an effect of some size, so that the absence of one can be stated."""
    return finding.part.directed and max(compared.margin, compared.least) > 0


def _said(finding: Finding, verdict: Verdict) -> str:
    """A part's verdict; in brackets where the claim can have none, whatever the numbers of its parts are."""
    if verdict.verdict not in NO_VERDICT:
        return finding.said
    return f"no verdict: {verdict.verdict} [its numbers alone: {finding.said}]"


def widened(interval: Interval, parts: int, level: float = LEVEL) -> Interval:
    """The same interval at the level at which ``parts`` of them hold together (Bonferroni)."""
    quantiles = [stats.t.ppf(1 - each / 2, interval.n - 1) for each in (level / max(1, parts), level)]
    half = (interval.high - interval.low) / 2 * float(quantiles[0] / quantiles[1])
    return Interval(interval.mean, interval.mean - half, interval.mean + half, interval.n)


def _changed(interval: Interval) -> str:
    return f"{interval.mean:+.3g} ({_interval(interval)})"


def _interval(interval: Interval) -> str:
    return f"{interval.low:+.3g} to {interval.high:+.3g}"


def heading(claim: Claim, verdict: Verdict, reason: str, sentence: str) -> str:
    """The claim, its verdict and why, the answer, what the paper says, the rule and its amendment, as HTML."""
    because = f" ({html.escape(reason)})" if reason else ""
    lines = [
        f"<b>{verdict.claim}: {html.escape(claim.says)}</b>",
        f"Verdict by itself: <b>{verdict.said}</b>{because}",
        html.escape(sentence),
        html.escape(paper(claim, verdict.claim)),
        f"{AFTER if verdict.claim.startswith(FINDING) else WRITTEN}: {html.escape(claim.rule)}",
    ]
    if claim.amended:
        said = f"Amended {claim.amended.date}; first verdict: {claim.amended.before}. {claim.amended.reason}"
        lines.append(html.escape(said))
    if any(finding.starts_disagree for finding in verdict.findings):
        lines.append(STARTS)
    return "<br>".join(lines)


def cost(claim: Claim, verdict: Verdict) -> str:
    """What an undecided verdict would take: groups of repeats, per part that is undecided; "" where it is decided."""
    if verdict.verdict != UNDECIDED:
        return ""
    lines = []
    for finding in verdict.findings:
        compared = finding.compared
        if (
            compared is not None
            and finding.verdict == UNDECIDED
            and (groups := needed(compared, finding.part.directed))
        ):
            matters = max(compared.margin, compared.least)
            said, n = naming.sentence(claim.study, finding.part), compared.interval.n
            if groups > n:
                seen = f"{matters:.3g} would matter and {compared.detectable:.3g} would be seen"
                lines.append(f"{said}: {seen}, so {groups} groups in place of {n}")
            else:
                lines.append(
                    f"{said}: what is seen is near the limit, {matters:.3g}; more groups only narrow its interval"
                )
    return "; ".join(lines)
