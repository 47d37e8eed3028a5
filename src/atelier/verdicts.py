"""Decide claims from a study's measurements, each by itself; then over all claims of a profile."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from atelier.claims import Claim, Comparison
from atelier.evaluation.intervals import FloatArray
from atelier.evaluation.tables import Resolutions, Values
from atelier.evidence import LEVEL, SAME, Compared, benjamini_hochberg, compare, holm, some_hold

SUPPORTED, REVERSED, NOT_SEEN, UNDECIDED = "supported", "reversed", "not seen", "undecided"
CANNOT_TELL, BROKEN, UNMET = "instrument cannot tell", "measurement broken", "condition not met"
DECIDED = (SUPPORTED, REVERSED, NOT_SEEN)
NO_VERDICT = (CANNOT_TELL, BROKEN, UNMET)  # whatever the numbers of a claim's parts are
SMALL = "smaller than matters"  # said of an effect that is there
OTHER_NOISE = "a model's pictures differ from its own under other noise"
NO_CONTROL = "the positive control, which must show first, does not"
FULL = "the measure is saturated, its floor nearly as high"
SATURATED = 0.8  # share of the reference's value that a measure's floor may have


class Evidence(NamedTuple):
    """A study's measurements, as its verdicts need them."""

    values: Values
    resolutions: Resolutions
    counts: Mapping[str, int | Sequence[int]]  # n by claim, one number or one per comparison; "": all other claims
    over: Mapping[str, str]  # what the intervals are taken over, by claim; "": all other claims
    null_comparisons: Sequence[Comparison] = ()  # under other noise: if one differs, no claim is decided
    floors: Mapping[str, float] = {}  # measure -> the value that no model gets below

    def counts_of(self, verdict: "Verdict") -> list[int]:
        """n of each of a verdict's comparisons."""
        n = self.counts.get(verdict.claim, self.counts.get("", 0))
        return [n] * len(verdict.findings) if isinstance(n, int) else list(n)

    def over_of(self, claim: str) -> str:
        """What a claim's intervals are taken over."""
        return self.over.get(claim, self.over[""])


class Statements(NamedTuple):
    """p-values of what may be said of a claim: of effects two-sided, of equivalence by two one-sided tests."""

    supported: float = 1.0
    reversed: float = 1.0
    not_seen: float = 1.0

    def p_of(self, verdict: str) -> float:
        """The p-value of the statement that a verdict makes; the least of all where it makes none."""
        return dict(zip(DECIDED, self, strict=True)).get(verdict, min(self))

    def called(self, cutoff: float) -> str:
        """The first statement whose p-value is at most ``cutoff``; undecided where none is."""
        holding = (name for name, p in zip(DECIDED, self, strict=True) if p <= cutoff)
        return next(holding, UNDECIDED)


class Finding(NamedTuple):
    """A part and its result; ``compared`` is None where one of its cells was not measured.

    ``adjusted``: its p-values as the claim's verdict uses them: for ``supported`` no adjustment is needed, as all parts
    must hold (Berger 1982); for the other verdicts they are adjusted within the claim (Holm).
    """

    part: Comparison
    compared: Compared | None
    adjusted: Statements
    saturated: bool = False
    corrected: Compared | None = None  # the same from first latents with the signal leak; None of one between starts

    @property
    def verdict(self) -> str:
        """What may be said of the part; "" where it was not measured."""
        if self.compared is None:
            return ""
        return CANNOT_TELL if self.saturated else self.adjusted.called(LEVEL)

    @property
    def is_small(self) -> bool:
        """Whether there is an effect, and the 95 % interval lies inside plus and minus what would matter."""
        there = self.verdict in (SUPPORTED, REVERSED)
        return there and self.compared is not None and self.compared.smaller_p <= LEVEL

    @property
    def said(self) -> str:
        """Its verdict, and whether the effect is smaller than what would matter."""
        return f"{self.verdict}, {SMALL}" if self.is_small else self.verdict

    @property
    def starts_disagree(self) -> bool:
        """Whether both starts have an effect, and in opposite directions."""
        both = [each.interval for each in (self.compared, self.corrected) if each is not None]
        return len(both) == 2 and (both[0].low > 0 > both[1].high or both[1].low > 0 > both[0].high)


class Reason(NamedTuple):
    """Why there is no verdict: in a few words, and what that is said of."""

    says: str
    part: Comparison | None = None
    missing: Sequence[tuple[str, str]] = ()  # measures and cells


class Verdict(NamedTuple):
    claim: str
    verdict: str
    reason: Reason | None  # None where there is a verdict, or where the tests are inconclusive
    findings: list[Finding]
    statements: Statements = Statements()

    @property
    def holding(self) -> int:
        """How many of its parts are supported."""
        return sum(finding.verdict == SUPPORTED for finding in self.findings)

    @property
    def small(self) -> tuple[int, int]:
        """Of the parts that say what the verdict says: how many effects are smaller than what matters; of how many."""
        saying = [finding for finding in self.findings if finding.verdict == self.verdict]
        return sum(finding.is_small for finding in saying), len(saying)

    @property
    def said(self) -> str:
        """The verdict, and whether all its effects are smaller than what would matter."""
        small, saying = self.small
        return f"{self.verdict}, {SMALL}" if small and small == saying else self.verdict

    @property
    def is_tested(self) -> bool:
        """Whether there was anything to test: measurements that are not broken, conditions that hold."""
        tried = any(finding.compared is not None for finding in self.findings)
        return tried and self.verdict not in NO_VERDICT

    def entry(self) -> dict[str, float] | None:
        """The p-values of its statements for ``metrics.json``; None where nothing was tested."""
        listed = {name: float(f"{p:.6g}") for name, p in zip(DECIDED, self.statements, strict=True)}
        return listed if self.is_tested else None


def statements_of(entry: Mapping[str, float]) -> Statements:
    """What ``Verdict.entry`` wrote."""
    return Statements(*(entry[name] for name in DECIDED))


def decide(claims: Mapping[str, Claim], evidence: Evidence) -> list[Verdict]:
    """Decide each of a study's claims by itself, from its measurements."""
    broken = differing(evidence)
    return [_decided(name, claim, evidence, broken) for name, claim in claims.items()]


def differing(evidence: Evidence) -> Comparison | None:
    """The first comparison of a model with itself under other noise that differs (Bonferroni); None if none does."""
    nulls = [(part, compared(part, evidence)) for part in evidence.null_comparisons]
    differ = (
        part for part, result in nulls if result and min(result.supported_p, result.reversed_p) <= LEVEL / len(nulls)
    )
    return next(differ, None)


def _decided(name: str, claim: Claim, evidence: Evidence, broken: Comparison | None) -> Verdict:
    findings = _findings(claim, evidence)
    if broken:
        return Verdict(name, BROKEN, Reason(OTHER_NOISE, broken), findings)
    if reason := _control_fails(claim, evidence):
        return Verdict(name, CANNOT_TELL, reason, findings)
    if reason := _unmet(claim, evidence):
        return Verdict(name, UNMET, reason, findings)
    made = statements(claim, [None if finding.saturated else finding.compared for finding in findings])
    verdict = made.called(LEVEL)
    if verdict != UNDECIDED:
        return Verdict(name, verdict, None, findings, made)
    saturated = next((finding.part for finding in findings if finding.saturated), None)
    if saturated:  # other parts might still have spoken against the claim
        return Verdict(name, CANNOT_TELL, Reason(FULL, saturated), findings)
    needed = {(part.measure, cell) for part in claim.every_part for cell in part.cells}
    missing = sorted(needed - set(evidence.values))
    reason = Reason("not measured", missing=missing) if missing or not claim.parts else None
    return Verdict(name, UNDECIDED, reason, findings, made)


def _control_fails(claim: Claim, evidence: Evidence) -> Reason | None:
    """Why an effect that must show, if any does, was not seen; None where it was, and of a claim without one."""
    if claim.control is None:
        return None
    control = compared(claim.control, evidence)
    if control is None:
        return Reason("the positive control was not measured", claim.control)
    return Reason(NO_CONTROL, claim.control) if control.supported_p > LEVEL else None


def _unmet(claim: Claim, evidence: Evidence) -> Reason | None:
    """The first condition that does not hold, or that was not measured; None where all hold."""
    for condition in claim.conditions:
        result = compared(condition, evidence)
        if result is None:
            return Reason("a condition was not measured", condition)
        if result.supported_p > LEVEL:
            return Reason("a condition is not shown to hold", condition)
    return None


def _findings(claim: Claim, evidence: Evidence) -> list[Finding]:
    results = [compared(part, evidence) for part in claim.every_part]
    reverse, not_seen = (holm(_plain(results, which)) for which in ("reversed_p", "not_seen_p"))
    return [
        Finding(
            part,
            result,
            Statements(result.supported_p, reverse[index], not_seen[index]) if result else Statements(),
            result is not None and is_saturated(part, evidence),
            None if part.between_starts else compared(part.at_corrected_start(), evidence),
        )
        for index, (part, result) in enumerate(zip(claim.every_part, results, strict=True))
    ]


def baseline(part: Comparison, evidence: Evidence) -> float | None:
    """What a comparison's reference has of its measure; None where it was not measured."""
    if any((part.measure, cell) not in evidence.values for cell in part.reference):
        return None
    return float(_mean(part.measure, part.reference, evidence.values).mean())


def is_saturated(part: Comparison, evidence: Evidence) -> bool:
    """Whether a distance cannot tell models apart: its floor is over four fifths of what it is for the reference.

    A rise is seen however near the floor it begins; that a distance does not fall, or stays, cannot be.
    """
    floor = evidence.floors.get(part.measure)
    if floor is None or part.rule == "above":
        return False
    return floor > SATURATED * float(_mean(part.measure, part.reference, evidence.values).mean())


def statements(claim: Claim, results: Sequence[Compared | None]) -> Statements:
    """A claim's p-values; a part without a result (not measured, or saturated) says nothing.

    supported: all parts hold, by the largest p-value (an intersection-union test, Berger 1982), or ``enough`` of them.
    reversed, not seen: of one part, adjusted over all (Holm), or of so many that too few are left. With ``any_of``, of
    which one must hold too, there are two ways to fail, so a Bonferroni factor of 2.
    """
    parts, others = results[: len(claim.parts)], results[len(claim.parts) :]
    supported = _plain(parts, "supported_p")
    holds = max(supported, default=1.0) if claim.enough is None else some_hold(supported, claim.enough)
    if others:
        holds = max(holds, some_hold(_plain(others, "supported_p"), 1))
    return Statements(holds, _fails(claim, parts, others, "reversed_p"), _fails(claim, parts, others, "not_seen_p"))


def _fails(claim: Claim, parts: Sequence[Compared | None], others: Sequence[Compared | None], which: str) -> float:
    if claim.enough is None:
        fails = min(holm(_plain(parts, which)), default=1.0)
    else:
        fails = some_hold(_plain(parts, which), len(parts) - claim.enough + 1)
    return min(1.0, 2 * min(fails, max(_plain(others, which)))) if others else fails


def _plain(results: Sequence[Compared | None], which: str) -> list[float]:
    return [getattr(each, which) if each else 1.0 for each in results]


# ---- over all claims of a profile


class Overall(NamedTuple):
    """A claim's verdict among a profile's claims, and the q-value of that statement; of the strongest if undecided."""

    q: float
    verdict: str


def over_all(made: Mapping[str, Statements]) -> dict[str, Overall]:
    """Verdicts at a false discovery rate of 5 % over all claims (Benjamini and Hochberg 1995).

    A claim enters by its strongest statement; a false one counts, whichever it is. Claims without a test (no
    measurement, a control that does not show) are not among ``made``.
    """
    least = {name: min(each) for name, each in made.items()}
    q = dict(zip(least, benjamini_hochberg(list(least.values())), strict=True))
    cutoff = max((least[name] for name in least if q[name] <= LEVEL), default=-1.0)
    verdicts = {name: each.called(cutoff) for name, each in made.items()}
    return {name: Overall(_q(name, verdicts[name], made, least), verdicts[name]) for name in made}


def _q(name: str, verdict: str, made: Mapping[str, Statements], least: Mapping[str, float]) -> float:
    """The q-value of the statement that a verdict makes, among all claims' strongest."""
    entered = {**least, name: made[name].p_of(verdict)}
    return dict(zip(entered, benjamini_hochberg(list(entered.values())), strict=True))[name]


# ---- comparisons


class Groups(NamedTuple):
    """What a comparison is tested by, one value per group of pictures."""

    changed: FloatArray
    reference: FloatArray
    margins: FloatArray
    least: FloatArray  # the least effect that matters; 0 where the comparison has none
    resolution: float  # the smallest possible change of a group's value; 0 where none is known

    @property
    def differences(self) -> FloatArray:
        """Changed less reference; 0 where they are equal up to rounding, which is no scatter."""
        same = np.isclose(self.changed, self.reference, rtol=SAME, atol=0.0)
        return np.where(same, 0.0, self.changed - self.reference)


def by_group(part: Comparison, evidence: Evidence) -> Groups | None:
    """A comparison's values; None where one of its cells was not measured."""
    values = evidence.values
    if any((part.measure, cell) not in values for cell in part.cells):
        return None
    return Groups(
        changed=_mean(part.measure, part.changed, values),
        reference=_mean(part.measure, part.reference, values),
        margins=_margins(part, values),
        least=_least(part, values),
        resolution=max(evidence.resolutions.get((part.measure, cell), 0.0) for cell in part.cells),
    )


def compared(part: Comparison, evidence: Evidence) -> Compared | None:
    """Test one comparison; None where one of its cells was not measured."""
    groups = by_group(part, evidence)
    if groups is None:
        return None
    diffs, margins = groups.differences.tolist(), groups.margins
    if not part.directed and margins.mean() <= 0:  # no gain, or a reference of 0: no margin, so no verdict
        return compare(diffs, "below")._replace(supported_p=1.0, reversed_p=1.0, not_seen_p=1.0)
    return compare(diffs, part.rule, margins.tolist(), groups.resolution, groups.least.tolist())


def _margins(part: Comparison, values: Values) -> FloatArray:
    """A comparison's margin, one value per group."""
    if gain := part.half_gain or part.quarter_gain:
        share = 0.5 if part.half_gain else 0.25
        return share * _difference(part.measure, gain.reference, gain.changed, values)
    return part.margin + part.share * _mean(part.measure, part.reference, values)


def _least(part: Comparison, values: Values) -> FloatArray:
    """The least effect that matters, one value per group; 0 where the comparison has none."""
    least = part.least
    if least is None:
        return np.zeros(len(values[part.measure, part.changed[0]]))
    # group by group, because a mean that was itself measured would be taken for known
    baseline = _mean(part.measure, least.of or part.reference, values)
    return least.points + least.share * baseline * (1.0 if baseline.mean() >= 0 else -1.0)


def _difference(measure: str, changed: Sequence[str], reference: Sequence[str], values: Values) -> FloatArray:
    return _mean(measure, changed, values) - _mean(measure, reference, values)


def _mean(measure: str, cells: Sequence[str], values: Values) -> FloatArray:
    return np.mean([values[measure, cell] for cell in cells], axis=0)
