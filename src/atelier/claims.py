"""The papers' claims (``studies/STUDY/claims.yaml``), the comparisons that decide them, and their verdicts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from atelier.evaluation.intervals import FloatArray, t_interval
from atelier.evaluation.tables import Resolutions, Values
from atelier.evidence import LEVEL, Compared, compare, holm, some_hold
from atelier.params import Section, read, validated
from atelier.studies import STUDIES

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
CANNOT_TELL, BROKEN = "instrument cannot tell", "measurement broken"


def _as_measured(cell: str) -> str:
    """ValueError for a cell whose guidance is not written as in the names of what was measured: 4 and not 4.0."""
    guidance = cell.removesuffix("/corrected").partition("/")[2]
    if guidance and f"{float(guidance):g}" != guidance:
        raise ValueError(f"expected guidance written as {float(guidance):g}")
    return cell


# MODEL[+DECODER]@LEVEL/GUIDANCE, from white noise; the same /corrected; or a decoder alone, applied to held-out works
Cell = Annotated[
    str,
    Field(pattern=r"^[a-z0-9-]+(\+[a-z0-9-]+)?(@[012]/[0-9]+(\.[0-9]+)?(/corrected)?)?$"),
    AfterValidator(_as_measured),
]
Cells = Annotated[list[Cell], Field(min_length=1)]


class Difference(Section):
    """A difference between cells that sets another comparison's margin."""

    changed: Cells
    reference: Cells


class Comparison(Section):
    """One comparison: ``changed`` minus ``reference``, each the mean of its cells."""

    measure: str
    changed: Cells
    reference: Cells
    rule: Literal["below", "above", "same", "at least", "at most", "not below"]
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    share: Annotated[float, Field(ge=0.0)] = 0.0  # the margin as a share of the reference's measure
    half_gain: Difference | None = None  # margin: half of the decrease from ``reference`` to ``changed``
    quarter_gain: Difference | None = None  # margin: a quarter of it
    floor: Difference | None = None  # margin: half the interval of a null difference (a model under other noise)

    @model_validator(mode="after")
    def _one_margin(self) -> "Comparison":
        measured = [one for one in (self.half_gain, self.quarter_gain, self.floor) if one is not None]
        margins = bool(self.margin) + bool(self.share) + len(measured)
        if margins > 1:
            raise ValueError("margin: with share, half_gain, quarter_gain and floor more than one is given")
        if self.rule in ("same", "at least", "at most") and not margins:
            raise ValueError(f"margin: '{self.rule}' needs one")
        return self

    @property
    def cells(self) -> list[str]:
        others = [of for of in (self.half_gain, self.quarter_gain, self.floor) if of is not None]
        return [*self.changed, *self.reference, *(cell for of in others for cell in (*of.changed, *of.reference))]

    @property
    def name(self) -> str:
        return f"{self.measure.upper()} of {' + '.join(self.changed)} against {' + '.join(self.reference)}"


class Claim(Section):
    study: str
    reach: Literal["mechanism", "direction", "proxy"]
    says: str
    paper: str
    rule: str
    control: Comparison | None = None
    parts: Annotated[list[Comparison], Field(default_factory=list)]
    enough: Annotated[int, Field(ge=1)] | None = None  # how many parts must hold; None: all
    any_of: list[Comparison] = Field(default_factory=list)  # further parts, of which at least one must hold

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "Claim":
        if self.enough is not None and self.enough > len(self.parts):
            raise ValueError(f"enough: {self.enough} of {len(self.parts)} parts")
        return self

    @property
    def every_part(self) -> list[Comparison]:
        return [*self.parts, *self.any_of]

    @property
    def digest(self) -> str:
        """Hash cited by results: it changes with any word of this claim, and not with other claims."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class Claims(Section):
    claims: dict[Annotated[str, Field(pattern=r"^[A-F][0-9]+$")], Claim]


class Evidence(NamedTuple):
    """A study's measurements, as its verdicts need them."""

    values: Values
    resolutions: Resolutions
    counts: Mapping[str, int | Sequence[int]]  # n by claim, one number or one per comparison; "": all other claims
    over: Mapping[str, str]  # what the intervals are taken over, by claim; "": all other claims
    null_comparisons: Sequence["Comparison"] = ()  # under other noise: if one differs, no claim is decided

    def counts_of(self, verdict: "Verdict") -> list[int]:
        """n of each of a verdict's comparisons."""
        n = self.counts.get(verdict.claim, self.counts.get("", 0))
        return [n] * len(verdict.findings) if isinstance(n, int) else list(n)

    def over_of(self, claim: str) -> str:
        """What a claim's intervals are taken over."""
        return self.over.get(claim, self.over[""])


class Finding(NamedTuple):
    """A part and its result; ``compared`` is None where one of its cells was not measured."""

    part: Comparison
    compared: Compared | None
    verdict: str  # for the part, with p-values adjusted within the claim


class Verdict(NamedTuple):
    claim: str
    verdict: str
    reason: str  # why there is no verdict; "" where there is one, or where the tests are inconclusive
    findings: list[Finding]


def path_of(study: str) -> Path:
    """The file of a study's claims."""
    return Path(__file__).parent / "studies" / study / "claims.yaml"


def load(study: str) -> dict[str, Claim]:
    """Load a study's claims by name; empty if it has no file. Raises ValueError, one line per error."""
    path = path_of(study)
    if not path.is_file():
        return {}
    name = f"{study}/{path.name}"
    claims = validated(Claims, {"claims": read(path)}, name).claims
    if odd := [key for key, claim in claims.items() if claim.study != study]:
        raise ValueError(
            f"{study}/{path.name}: claim {odd[0]} is of the study '{claims[odd[0]].study}', not of '{study}'"
        )
    return claims


def load_all() -> dict[str, Claim]:
    """Load all studies' claims by name."""
    return {name: claim for study in STUDIES for name, claim in load(study).items()}


def cells_of(claims: Mapping[str, Claim]) -> set[str]:
    """All cells that the claims compare."""
    controls = [claim.control for claim in claims.values() if claim.control]
    comparisons = [part for claim in claims.values() for part in claim.every_part] + controls
    return {cell for comparison in comparisons for cell in comparison.cells}


def decide(claims: Mapping[str, Claim], evidence: Evidence) -> list[Verdict]:
    """Decide a study's claims from its measurements.

    p-values are adjusted within each claim, then over the study's claims (Holm, both).
    """
    values, resolutions = evidence.values, evidence.resolutions
    null_results = {part.name: _compared(part, values, resolutions) for part in evidence.null_comparisons}
    differ = [
        name for name, result in null_results.items() if result and _either_way(result) <= LEVEL / len(null_results)
    ]
    findings = {
        name: [_compared(part, values, resolutions) for part in claim.every_part] for name, claim in claims.items()
    }
    supported = {name: _adjusted(results, "supported_p") for name, results in findings.items()}
    contradicted = {name: _adjusted(results, "contradicted_p") for name, results in findings.items()}
    whole = dict(zip(claims, holm([_holds(claims[name], findings[name]) for name in claims]), strict=True))
    broken = dict(zip(claims, holm([_fails(claims[name], findings[name]) for name in claims]), strict=True))
    verdicts = []
    for name, claim in claims.items():
        verdict, reason = UNDECIDED, ""
        control = _compared(claim.control, values, resolutions) if claim.control else None
        needed = {(part.measure, cell) for part in claim.every_part for cell in part.cells}
        missing = sorted(f"{measure} of {cell}" for measure, cell in needed - set(values))
        if differ:
            verdict, reason = BROKEN, differ[0]
        elif claim.control and (control is None or control.supported_p > LEVEL):
            verdict, reason = CANNOT_TELL, f"the control does not show: {claim.control.name}"
        elif broken[name] <= LEVEL:
            verdict = CONTRADICTED
        elif whole[name] <= LEVEL:  # a part that was not measured counts as not holding
            verdict = SUPPORTED
        elif missing or not claim.parts:
            reason = f"not measured: {', '.join(missing) or 'any part'}"
        rows = [
            Finding(part, result, _called(yes, no) if result else "")
            for part, result, yes, no in zip(
                claim.every_part, findings[name], supported[name], contradicted[name], strict=True
            )
        ]
        verdicts.append(Verdict(name, verdict, reason, rows))
    return verdicts


def differences(part: Comparison, values: Values) -> FloatArray:
    """Changed minus reference, one value per group; KeyError for a cell that was not measured."""
    return _mean(part.measure, part.changed, values) - _mean(part.measure, part.reference, values)


def _compared(part: Comparison, values: Values, resolutions: Resolutions) -> Compared | None:
    if any((part.measure, cell) not in values for cell in part.cells):
        return None
    diffs = differences(part, values).tolist()
    resolution = max(resolutions.get((part.measure, cell), 0.0) for cell in part.cells)
    if part.rule == "not below":
        below = compare(diffs, "below", resolution=resolution)
        return below._replace(supported_p=float(below.supported_p <= LEVEL), contradicted_p=below.supported_p)
    if not part.share and part.half_gain is None and part.quarter_gain is None and part.floor is None:
        return compare(diffs, part.rule, part.margin, resolution)
    margins = _margin(part, values)
    if margins.mean() <= 0:  # no gain, or a reference of 0: no margin, so no verdict
        return compare(diffs, "below")._replace(supported_p=1.0, contradicted_p=1.0)
    return compare(diffs, part.rule, margins.tolist(), resolution)


def _margin(part: Comparison, values: Values) -> FloatArray:
    """A margin that was itself measured, one value per group."""
    if part.floor is not None:
        chance = part.floor
        between = _mean(part.measure, chance.changed, values) - _mean(part.measure, chance.reference, values)
        interval = t_interval(between.tolist())
        return np.full(len(between), (interval.high - interval.low) / 2)
    gain = part.half_gain or part.quarter_gain
    if gain is None:
        return part.share * _mean(part.measure, part.reference, values)
    share = 0.5 if part.half_gain else 0.25
    return share * (_mean(part.measure, gain.reference, values) - _mean(part.measure, gain.changed, values))


def _mean(measure: str, cells: Sequence[str], values: Values) -> FloatArray:
    return np.mean([values[measure, cell] for cell in cells], axis=0)


def _adjusted(results: Sequence[Compared | None], which: str) -> list[float]:
    """Holm-adjusted p-values of a claim's parts; 1 for parts that were not measured."""
    return holm(_plain(results, which))


def _holds(claim: Claim, results: Sequence[Compared | None]) -> float:
    """A claim's p-value: the largest adjusted one if all parts must hold, else that of ``enough`` parts holding.

    With ``any_of``, of which one must hold too, the larger of the two p-values.
    """
    parts, others = results[: len(claim.parts)], results[len(claim.parts) :]
    if claim.enough is None:
        holds = max(_adjusted(parts, "supported_p"), default=1.0)
    else:
        holds = some_hold(_plain(parts, "supported_p"), claim.enough)
    return max(holds, some_hold(_plain(others, "supported_p"), 1)) if others else holds


def _fails(claim: Claim, results: Sequence[Compared | None]) -> float:
    """p-value of a claim failing: one part contradicted if all must hold, else so many that too few are left."""
    parts, others = results[: len(claim.parts)], results[len(claim.parts) :]
    if claim.enough is None:
        fails = min(_adjusted(parts, "contradicted_p"), default=1.0)
    else:
        fails = some_hold(_plain(parts, "contradicted_p"), len(parts) - claim.enough + 1)
    # two ways to fail, so a Bonferroni factor of 2
    return min(1.0, 2 * min(fails, max(_plain(others, "contradicted_p")))) if others else fails


def _plain(results: Sequence[Compared | None], which: str) -> list[float]:
    return [getattr(each, which) if each else 1.0 for each in results]


def _either_way(result: Compared) -> float:
    return min(result.supported_p, result.contradicted_p)


def _called(supported_p: float, contradicted_p: float) -> str:
    if contradicted_p <= LEVEL:
        return CONTRADICTED
    return SUPPORTED if supported_p <= LEVEL else UNDECIDED
