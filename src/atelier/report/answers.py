"""A verdict in one sentence: what changed, by how much, in words that need no knowledge of the code."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from atelier.claims import FINDING, Claim, Comparison
from atelier.evidence import LEVEL
from atelier.report import naming
from atelier.report.change import Change, change, shown
from atelier.report.forest import labels
from atelier.report.items import DIGITS
from atelier.verdicts import (
    BROKEN,
    CANNOT_TELL,
    NO_VERDICT,
    NOT_SEEN,
    REVERSED,
    SUPPORTED,
    UNDECIDED,
    Evidence,
    Finding,
    Verdict,
)

NAMED = 3  # exceptions, and cells that are not measured, that are named one by one
OTHERS = {  # parts that do not hold
    REVERSED: "the other way round",
    NOT_SEEN: "not seen",
    UNDECIDED: "undecided",
    CANNOT_TELL: "cannot be told",
    "": "not measured",
}


class Answer(NamedTuple):
    """The part that a verdict rests on, in words and numbers; None where nothing was measured."""

    sentence: str
    change: Change | None = None
    n: int = 0  # pictures a cell

    def entry(self) -> dict[str, Any]:
        """For ``metrics.json``: what other pages show of it."""
        if self.change is None:
            return {}
        mean, low, high, _ = self.change.interval
        numbers = {"change": mean, "low": low, "high": high, "before": self.change.before}
        rounded = {key: None if x is None else float(f"{x:.{DIGITS}g}") for key, x in numbers.items()}
        made = self.change
        return {"measure": made.measure, "changed": made.changed, "reference": made.reference, "n": self.n, **rounded}


def answer(claim: Claim, verdict: Verdict, evidence: Evidence) -> Answer:
    """The answer to a claim: why there is none, or the part that it rests on, what was claimed, and how many hold."""
    measured = [finding for finding in verdict.findings if finding.compared is not None]
    if not measured:
        return Answer("Nothing of it was measured here.")
    lead = _lead(verdict, measured)
    made = change(claim.study, lead.part, evidence)
    n = evidence.counts_of(verdict)[verdict.findings.index(lead)]
    assert made is not None
    assert lead.compared is not None
    numbers = f"{_capital(made.subject)}: {made.numbers}"
    if verdict.verdict in NO_VERDICT:
        why = reason(claim.study, verdict, evidence)
        return Answer(f"No verdict: {why}. What was measured decides nothing: {numbers}.", made, n)
    claimed = "; ".join(
        said for said in (_rule(lead.part, made, lead.compared.margin), _outcome(verdict, lead, made)) if said
    )
    sentences = (numbers, f"Claimed: {claimed}", _held(claim, verdict))
    return Answer(" ".join(f"{said}." for said in sentences if said), made, n)


def reason(study: str, verdict: Verdict, evidence: Evidence) -> str:
    """Why there is no verdict, with the numbers of what that is said of; "" where there is one."""
    why = verdict.reason
    if why is None or (why.part is None and not why.missing):
        return "" if why is None else why.says
    if why.part is None:
        cells = [f"{naming.measure(measure)} of {naming.cell(study, cell)}" for measure, cell in why.missing]
        more = f" and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
        return f"{why.says}: {', '.join(cells[:NAMED])}{more}"
    made = change(study, why.part, evidence)
    if made is None:
        return f"{why.says} ({naming.sentence(study, why.part)})"
    rule = "the same" if verdict.verdict == BROKEN else _rule(why.part, made, why.part.margin)
    return f"{why.says} ({made.subject}: {made.numbers}, where it should be {rule})"


def paper(claim: Claim, name: str) -> str:
    """What the paper says of a claim, and what must be said beside it; of a finding, that no paper does."""
    source = claim.paper if name.startswith(FINDING) else f"The paper: {claim.paper}"
    return " ".join(f"{_capital(said).rstrip('.')}." for said in (source, claim.note) if said)


def _size(part: Comparison, made: Change, value: float) -> str:
    """A difference that a part's rule speaks of; of logarithms, a factor."""
    falls = part.rule in ("below", "at least")
    return shown(value) if made.base is None else f"{made.size(-value if falls else value)} times"


def _rule(part: Comparison, made: Change, margin: float) -> str:
    """What a part's rule asks for."""
    size, least, most = _size(part, made, margin), shown(-margin), shown(margin)
    if not made.reference:
        of_nothing = {"below": f"below {least}", "above": f"above {most}", "same": f"within {size} of 0"}
        return {**of_nothing, "at least": f"at least {least}", "at most": f"at most {most}"}[part.rule]
    more = f" by more than {size}" if margin else ""
    directed = {"below": f"lower{more}", "above": f"higher{more}", "same": f"alike, within {size}"}
    return {**directed, "at least": f"at most {size} lower", "at most": f"at most {size} higher"}[part.rule]


def _outcome(verdict: Verdict, lead: Finding, made: Change) -> str:
    """What keeps the part from holding, or makes little of it; "" where nothing does."""
    compared = lead.compared
    assert compared is not None
    around = " the other way round" if lead.verdict == REVERSED else ""
    bar = (
        f"the {_size(lead.part, made, compared.least)} that would matter"
        if compared.least > compared.margin
        else "that"
    )
    if lead.is_small:
        return f"it is there{around}, and smaller than {bar}"
    low, high = compared.interval.low, compared.interval.high
    if lead.verdict == NOT_SEEN and (low > 0 if lead.part.rule == "above" else high < 0):
        return f"it is there, and smaller than {bar}"
    if lead.verdict == UNDECIDED and compared.reversed_p <= LEVEL:
        alone, among = shown(compared.reversed_p), shown(lead.adjusted.reversed)
        parts = len(verdict.findings)
        return f"by itself this part speaks against it (p = {alone}), as one of {parts} it may be chance (p = {among})"
    if lead.verdict == UNDECIDED and compared.equal is not None:
        return f"{compared.interval.n} equal groups are too few to show that"
    return {
        REVERSED: "it is the other way round" if lead.part.directed else "it is not",
        NOT_SEEN: f"{bar} is excluded",
        CANNOT_TELL: "the measure cannot tell, since its floor is nearly as high",
        UNDECIDED: f"{bar} is neither shown nor excluded",
    }.get(lead.verdict, "")


def _held(claim: Claim, verdict: Verdict) -> str:
    """How many parts hold, and what of the others; "" of one part."""
    parts = len(verdict.findings)
    if parts == 1:
        return ""
    enough = f", of which {claim.enough} must" if claim.enough is not None else ""
    kinds = {kind: [each for each in verdict.findings if each.verdict == kind] for kind in OTHERS}
    rest = [_rest(claim, verdict, OTHERS[kind], these) for kind, these in kinds.items() if these]
    return "; ".join(
        [f"{verdict.holding} of {parts} parts {'holds' if verdict.holding == 1 else 'hold'}{enough}", *rest]
    )


def _rest(claim: Claim, verdict: Verdict, kind: str, findings: Sequence[Finding]) -> str:
    """How many parts do not hold in one way; of few exceptions to a claim that is supported, which."""
    if verdict.verdict != SUPPORTED or len(findings) > NAMED:
        return f"{len(findings)} {kind}"
    named = zip(verdict.findings, labels(claim, verdict.findings), strict=True)
    return f"{len(findings)} {kind} ({'; '.join(label for finding, label in named if finding in findings)})"


def _lead(verdict: Verdict, measured: Sequence[Finding]) -> Finding:
    """The part that a verdict rests on: the first that says what it says, else the one that says so most surely."""
    if verdict.verdict in NO_VERDICT:
        return measured[0]
    says = (finding for finding in measured if finding.verdict == verdict.verdict)
    return next(says, min(measured, key=lambda finding: finding.adjusted.p_of(verdict.verdict)))


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
