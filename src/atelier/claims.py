"""The papers' claims (``claims.yaml``), each with the comparisons that decide it, and their verdicts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from atelier.evidence import LEVEL, Compared, FloatArray, compare, holm, some_hold, t_interval
from atelier.params import Section, checked, read

PATH = Path("claims.yaml")

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
CANNOT_TELL, BROKEN = "instrument cannot tell", "measurement broken"

# MODEL@LEVEL/GUIDANCE, MODEL+DECODER@LEVEL/GUIDANCE, or a decoder alone: held-out works that went through it
Cell = Annotated[str, Field(pattern=r"^[a-z0-9-]+(\+[a-z0-9-]+)?(@[012]/[0-9.]+)?$")]
Cells = Annotated[list[Cell], Field(min_length=1)]
Values = Mapping[tuple[str, str], FloatArray]  # (measure, cell) -> pseudo-values, one a group
Grains = Mapping[tuple[str, str], float]  # (measure, cell) -> the least change of a group's value, where there is one


class Difference(Section):
    """A difference of cells that sets the margin of another one."""

    changed: Cells
    reference: Cells


class Part(Section):
    """One comparison: ``changed`` less ``reference``, each the mean of its cells."""

    measure: str
    changed: Cells
    reference: Cells
    rule: Literal["below", "above", "same", "at least", "at most", "not below"]
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    share: Annotated[float, Field(ge=0.0)] = 0.0  # a margin as a share of the reference's measure
    half_gain: Difference | None = None  # half of what ``changed`` gained on ``reference``, downwards
    quarter_gain: Difference | None = None  # a quarter of it
    floor: Difference | None = None  # what chance makes of equals (a model under other noise): half its interval

    @model_validator(mode="after")
    def _one_margin(self) -> "Part":
        measured = [one for one in (self.half_gain, self.quarter_gain, self.floor) if one is not None]
        given = bool(self.margin) + bool(self.share) + len(measured)
        if given > 1:
            raise ValueError("margin: with share, half_gain, quarter_gain and floor more than one is given")
        if self.rule in ("same", "at least", "at most") and not given:
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
    control: Part | None = None
    parts: Annotated[list[Part], Field(default_factory=list)]
    enough: Annotated[int, Field(ge=1)] | None = None  # parts that must hold; without it all
    any_of: list[Part] = Field(default_factory=list)  # further parts, of which one must hold

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "Claim":
        if self.enough is not None and self.enough > len(self.parts):
            raise ValueError(f"enough: {self.enough} of {len(self.parts)} parts")
        return self

    @property
    def every_part(self) -> list[Part]:
        return [*self.parts, *self.any_of]

    @property
    def digest(self) -> str:
        """What results cite: it changes with any word of the claim, and not with what other claims may say."""
        said = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class Claims(Section):
    claims: dict[Annotated[str, Field(pattern=r"^[A-F][0-9]+$")], Claim]


class Finding(NamedTuple):
    """A part and what was found; ``compared`` is None where one of its cells was not measured."""

    part: Part
    compared: Compared | None
    verdict: str  # of the part, its p-values adjusted within the claim


class Verdict(NamedTuple):
    claim: str
    verdict: str
    reason: str  # why there is none; "" where there is one, or where the numbers are undecided
    findings: list[Finding]


def load(path: Path = PATH) -> dict[str, Claim]:
    """All claims by name. Raises ValueError, one line a fault."""
    return checked(Claims, {"claims": read(path)}, str(path)).claims


def decide(claims: Mapping[str, Claim], values: Values, grains: Grains, itself: Sequence[Part] = ()) -> list[Verdict]:
    """Verdicts of a study's claims from what it measured, and how finely.

    ``itself``: comparisons of a model with itself under other noise; where one is called different, nothing is decided.
    p-values are adjusted within each claim, then those of the claims over the study (Holm, both).
    """
    selves = {part.name: _compared(part, values, grains) for part in itself}
    differ = [name for name, found in selves.items() if found and _either_way(found) <= LEVEL / len(selves)]
    findings = {name: [_compared(part, values, grains) for part in claim.every_part] for name, claim in claims.items()}
    supported = {name: _adjusted(found, "supported_p") for name, found in findings.items()}
    contradicted = {name: _adjusted(found, "contradicted_p") for name, found in findings.items()}
    whole = dict(zip(claims, holm([_holds(claims[name], findings[name]) for name in claims]), strict=True))
    broken = dict(zip(claims, holm([_fails(claims[name], findings[name]) for name in claims]), strict=True))
    verdicts = []
    for name, claim in claims.items():
        verdict, reason = UNDECIDED, ""
        control = _compared(claim.control, values, grains) if claim.control else None
        needed = {(part.measure, cell) for part in claim.every_part for cell in part.cells}
        missing = sorted(f"{measure} of {cell}" for measure, cell in needed - set(values))
        if differ:
            verdict, reason = BROKEN, differ[0]
        elif claim.control and (control is None or control.supported_p > LEVEL):
            verdict, reason = CANNOT_TELL, f"the control does not show: {claim.control.name}"
        elif broken[name] <= LEVEL:
            verdict = CONTRADICTED
        elif whole[name] <= LEVEL:  # a part that was not measured does not hold
            verdict = SUPPORTED
        elif missing or not claim.parts:
            reason = f"not measured: {', '.join(missing) or 'any part'}"
        rows = [
            Finding(part, found, _called(yes, no) if found else "")
            for part, found, yes, no in zip(
                claim.every_part, findings[name], supported[name], contradicted[name], strict=True
            )
        ]
        verdicts.append(Verdict(name, verdict, reason, rows))
    return verdicts


def differences(part: Part, values: Values) -> FloatArray:
    """Changed less reference, one a group; KeyError for a cell that was not measured."""
    return _mean(part.measure, part.changed, values) - _mean(part.measure, part.reference, values)


def _compared(part: Part, values: Values, grains: Grains) -> Compared | None:
    if any((part.measure, cell) not in values for cell in part.cells):
        return None
    found = differences(part, values).tolist()
    grain = max(grains.get((part.measure, cell), 0.0) for cell in part.cells)
    if part.rule == "not below":
        below = compare(found, "below", grain=grain)
        return below._replace(supported_p=float(below.supported_p <= LEVEL), contradicted_p=below.supported_p)
    if not part.share and part.half_gain is None and part.quarter_gain is None and part.floor is None:
        return compare(found, part.rule, part.margin, grain)
    room = _margin(part, values)
    if room.mean() <= 0:  # nothing was gained, or there is nothing to take a share of: no margin, no verdict
        return compare(found, "below")._replace(supported_p=1.0, contradicted_p=1.0)
    return compare(found, part.rule, room.tolist(), grain)


def _margin(part: Part, values: Values) -> FloatArray:
    """A margin that was itself measured, a value a group."""
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


def _adjusted(found: Sequence[Compared | None], which: str) -> list[float]:
    """Holm's p-values of a claim's parts; 1 for those that were not measured."""
    return holm(_plain(found, which))


def _holds(claim: Claim, found: Sequence[Compared | None]) -> float:
    """A claim's p-value. All parts must hold, so that the largest adjusted one speaks; or some must, whichever.

    Where one of others must hold, too, the larger of both p-values.
    """
    parts, others = found[: len(claim.parts)], found[len(claim.parts) :]
    if claim.enough is None:
        holds = max(_adjusted(parts, "supported_p"), default=1.0)
    else:
        holds = some_hold(_plain(parts, "supported_p"), claim.enough)
    return max(holds, some_hold(_plain(others, "supported_p"), 1)) if others else holds


def _fails(claim: Claim, found: Sequence[Compared | None]) -> float:
    """One contradicted part is enough where all must hold; where some must, so many that too few are left."""
    parts, others = found[: len(claim.parts)], found[len(claim.parts) :]
    if claim.enough is None:
        fails = min(_adjusted(parts, "contradicted_p"), default=1.0)
    else:
        fails = some_hold(_plain(parts, "contradicted_p"), len(parts) - claim.enough + 1)
    # either way is enough, so that both are paid for
    return min(1.0, 2 * min(fails, max(_plain(others, "contradicted_p")))) if others else fails


def _plain(found: Sequence[Compared | None], which: str) -> list[float]:
    return [getattr(each, which) if each else 1.0 for each in found]


def _either_way(found: Compared) -> float:
    return min(found.supported_p, found.contradicted_p)


def _called(supported_p: float, contradicted_p: float) -> str:
    if contradicted_p <= LEVEL:
        return CONTRADICTED
    return SUPPORTED if supported_p <= LEVEL else UNDECIDED
