"""The papers' claims (``studies/STUDY/claims.yaml``) and the comparisons that decide them.

Beside them stand findings, which were seen here first and which no paper claims: named N and a number, of the same
form, and counted apart.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from atelier.params import CORRECTED, Section, read, validated
from atelier.studies import STUDIES

FINDING = "N"  # first letter of findings' names; claims have their paper's, A to F


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


class Least(Section):
    """The least effect that matters: a share of a cell's measure, or a number in the measure's units.

    From the paper alone: half of the smallest relative change that it reports for the measure; where it reports none,
    5 % of the baseline's value (distances), 2 points (shares), 0.05 (log10 power).
    """

    share: Annotated[float, Field(ge=0.0)] = 0.0
    of: Annotated[list[Cell], Field(max_length=100)] = Field(default_factory=list)  # empty: the reference
    points: Annotated[float, Field(ge=0.0)] = 0.0

    @model_validator(mode="after")
    def _one_number(self) -> "Least":
        if bool(self.share) == bool(self.points):
            raise ValueError("least: expected either a share or points")
        return self


class Comparison(Section):
    """One comparison: ``changed`` minus ``reference``, each the mean of its cells."""

    measure: str
    changed: Cells
    reference: Cells
    rule: Literal["below", "above", "same", "at least", "at most"]
    margin: Annotated[float, Field(ge=0.0)] = 0.0
    share: Annotated[float, Field(ge=0.0)] = 0.0  # the margin as a share of the reference's measure
    half_gain: Difference | None = None  # margin: half of the decrease from ``reference`` to ``changed``
    quarter_gain: Difference | None = None  # margin: a quarter of it
    least: Least | None = None  # of below and above

    @model_validator(mode="after")
    def _one_margin(self) -> "Comparison":
        measured = [one for one in (self.half_gain, self.quarter_gain) if one is not None]
        margins = bool(self.margin) + bool(self.share) + len(measured)
        if margins > 1:
            raise ValueError("margin: with share, half_gain and quarter_gain more than one is given")
        if not self.directed and not margins:
            raise ValueError(f"margin: '{self.rule}' needs one")
        if not self.directed and self.least is not None:
            raise ValueError(f"least: '{self.rule}' has a margin and no least effect")
        return self

    @property
    def directed(self) -> bool:
        """Whether the rule asks for an effect in one direction."""
        return self.rule in ("below", "above")

    @property
    def differences(self) -> list[Difference]:
        """What sets the margin, where it is measured."""
        return [of for of in (self.half_gain, self.quarter_gain) if of is not None]

    @property
    def cells(self) -> list[str]:
        others = [cell for of in self.differences for cell in (*of.changed, *of.reference)]
        return [*self.changed, *self.reference, *others, *(self.least.of if self.least else [])]

    @property
    def name(self) -> str:
        return f"{self.measure.upper()} of {' + '.join(self.changed)} against {' + '.join(self.reference)}"

    @property
    def between_starts(self) -> bool:
        """Whether it compares starts itself, so that there is no other start to take it from."""
        return any(cell.endswith(CORRECTED) for cell in self.cells)

    def at_corrected_start(self) -> "Comparison":
        """The same comparison of pictures from first latents with the signal leak."""

        def moved(node: object) -> object:
            if isinstance(node, Mapping):
                return {
                    key: [corrected(cell) for cell in value] if key in ("changed", "reference", "of") else moved(value)
                    for key, value in node.items()
                }
            return node

        return Comparison.model_validate(moved(self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)))


def corrected(cell: str) -> str:
    """The name of a cell's pictures from first latents with the signal leak."""
    return f"{cell}/{CORRECTED}" if "@" in cell else f"{cell}-{CORRECTED}"


class Amendment(Section):
    """A change of a rule after a first result: when, why, and the verdict that the old rule gave on that result."""

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    reason: str
    before: str  # that verdict, of the profile study


class Claim(Section):
    study: str
    reach: Literal["mechanism", "direction", "proxy"]
    says: str
    paper: str
    rule: str
    control: Comparison | None = None
    conditions: list[Comparison] = Field(default_factory=list)  # each must hold, or else there is no verdict
    parts: Annotated[list[Comparison], Field(default_factory=list)]
    enough: Annotated[int, Field(ge=1)] | None = None  # how many parts must hold; None: all
    any_of: list[Comparison] = Field(default_factory=list)  # further parts, of which at least one must hold
    amended: Amendment | None = None
    note: str = (
        ""  # what the card's answer must add; it judges nothing, so results that cite the claim stay as they are
    )

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "Claim":
        if self.enough is not None and self.enough > len(self.parts):
            raise ValueError(f"enough: {self.enough} of {len(self.parts)} parts")
        return self

    @property
    def every_part(self) -> list[Comparison]:
        return [*self.parts, *self.any_of]

    @property
    def every_comparison(self) -> list[Comparison]:
        """Its parts, and what must hold before they decide anything."""
        return [*self.every_part, *self.conditions, *([self.control] if self.control else [])]

    @property
    def digest(self) -> str:
        """Hash cited by results: it changes with any word of this claim but its note, and not with other claims."""
        said = self.model_dump(mode="json", exclude_defaults=True, exclude={"note"})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class Claims(Section):
    claims: dict[Annotated[str, Field(pattern=r"^[A-FN][0-9]+$")], Claim]


def path_of(study: str) -> Path:
    """The file of a study's claims."""
    return Path(__file__).parent / "studies" / study / "claims.yaml"


def load(study: str) -> dict[str, Claim]:
    """Load the papers' claims of a study by name; empty if it has no file. Raises ValueError, one line per error."""
    return {name: claim for name, claim in _written(study).items() if not name.startswith(FINDING)}


def findings(study: str) -> dict[str, Claim]:
    """Load a study's findings, which no paper claims, by name; as ``load``."""
    return {name: claim for name, claim in _written(study).items() if name.startswith(FINDING)}


def _written(study: str) -> dict[str, Claim]:
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
    """Load all studies' claims by name: the papers' alone."""
    return {name: claim for study in STUDIES for name, claim in load(study).items()}


def cells_of(claims: Mapping[str, Claim]) -> set[str]:
    """All cells that the claims compare."""
    comparisons = [each for claim in claims.values() for each in claim.every_comparison]
    return {cell for comparison in comparisons for cell in comparison.cells}
