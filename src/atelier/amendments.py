"""``python -m atelier.amendments``: what the amended rules say of the results that prompted them, and of the new ones.

``docs/amendments/first_results.csv`` has each part's change and interval as the profile ``study`` first gave them. The
rules alone are changed here: the measures are the old ones, as are the margins that were measured.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from atelier import claims, verdicts
from atelier.claims import Claim, Comparison
from atelier.evidence import LEVEL, Compared, compare
from atelier.files import read_json, read_table
from atelier.studies import STUDIES
from atelier.world.report import markdown

FIRST = Path("docs/amendments/first_results.csv")
GROUPS = 5  # training seeds of these results
COLUMNS = ("claim", "verdict", "measure", "changed", "reference", "rule", "change", "low", "high", "margin", "baseline")
PENDING = "not run yet"


def groups_of(change: float, low: float, high: float) -> list[float]:
    """Differences, one per group, that have this mean and 95 % interval; a test of them gives the p-value."""
    shape = np.linspace(-1.0, 1.0, GROUPS)
    shape /= shape.std(ddof=1)
    error = (high - low) / 2 / stats.t.ppf(0.975, GROUPS - 1)
    return (change + shape * error * GROUPS**0.5).tolist()


def compared(part: Comparison, row: Mapping[Any, Any]) -> Compared | None:
    """A part's test on a first result; None where the margin was a share of something that was not published."""
    margin, baseline, least = row["margin"], row["baseline"], part.least
    if np.isnan(margin):
        margin = part.share * baseline if part.share else 0.0
    if not part.directed and not margin > 0:
        return None
    effect = 0.0 if least is None or least.of else least.points or least.share * abs(baseline)
    differences = groups_of(row["change"], row["low"], row["high"])
    return compare(differences, part.rule, margin, least=float(np.nan_to_num(effect)))


def by_rule_alone(claim: Claim, rows: pd.DataFrame) -> str:
    """The amended rule's verdict on a claim's first results."""
    results = [compared(part, row) for part, row in zip(claim.every_part, rows.to_dict("records"), strict=True)]
    return verdicts.statements(claim, results).called(LEVEL)


def published(results: Path) -> dict[str, str]:
    """The verdicts of the profile ``study``'s pages, of claims in their present words."""
    made = {}
    for study in STUDIES:
        path = results / "study" / study / "metrics.json"
        for name, cited in (read_json(path).get("verdicts", {}) if path.is_file() else {}).items():
            made[name] = (cited["claim"], cited["verdict"])
    known = claims.load_all()
    return {name: verdict for name, (digest, verdict) in made.items() if digest == known[name].digest}


def table(first: Path, results: Path) -> pd.DataFrame:
    """One row per amended claim: the old verdict, the new rule's on the old results, and that on the new ones."""
    rows, final = read_table(first, COLUMNS), published(results)
    listed = {
        name: {
            "first verdict": claim.amended.before,
            "by the new rule alone": by_rule_alone(claim, rows[rows["claim"] == name]),
            "on new seeds": final.get(name, PENDING),
        }
        for name, claim in claims.load_all().items()
        if claim.amended
    }
    return pd.DataFrame(listed).T.rename_axis("claim").reset_index()


def main() -> None:
    print(markdown(table(FIRST, Path("results"))), end="")


if __name__ == "__main__":
    main()
