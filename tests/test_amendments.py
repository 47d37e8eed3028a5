"""The table of amendments is what its command prints, and rules changed before the runs that they judge."""

import re
import subprocess
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from atelier import amendments, claims
from atelier.files import read_json
from atelier.studies import STUDIES
from atelier.world.report import markdown

ROOT = Path(__file__).parent.parent


def test_the_table_in_the_docs_is_the_commands() -> None:
    table = markdown(amendments.table(ROOT / amendments.FIRST, ROOT / "results"))
    assert table in (ROOT / "docs" / "claims.md").read_text()


@pytest.mark.parametrize(("change", "low", "high"), [(71.6, 22.2, 121.0), (-0.076, -0.172, 0.02)])
def test_groups_with_a_published_interval_have_its_t_test(change: float, low: float, high: float) -> None:
    groups = amendments.groups_of(change, low, high)
    interval = stats.ttest_1samp(groups, 0).confidence_interval()
    assert np.mean(groups) == pytest.approx(change)
    assert interval.high - interval.low == pytest.approx(high - low)


def test_every_claim_of_before_is_amended_once() -> None:
    """E1 to E6 and F1 to F4 were written by the rules as they are."""
    plain = {name for name, claim in claims.load_all().items() if claim.parts and not claim.amended}
    assert plain == {*claims.load("pixel_space"), *claims.load("shaping")}


def test_results_that_cite_a_claim_are_of_runs_after_its_amendment() -> None:
    """Compares git's dates: that of the words, and that of the results that cite them."""
    for study in STUDIES:
        path = ROOT / "results" / "study" / study / "metrics.json"
        cited = read_json(path).get("verdicts", {}) if path.is_file() else {}
        for name, claim in claims.load(study).items():
            if claim.amended and cited.get(name, {}).get("claim") == claim.digest:
                assert committed(path) >= date.fromisoformat(claim.amended.date), name
                assert changed_first(claims.path_of(study), path), name


def committed(path: Path) -> date:
    return date.fromisoformat(git("log", "-1", "--format=%as", "--", str(path)) or date.today().isoformat())


def changed_first(one: Path, two: Path) -> bool:
    """Whether a file's last change was committed before another's, or with it."""
    times = [git("log", "-1", "--format=%ct", "--", str(path)) for path in (one, two)]
    return not all(times) or int(times[0]) <= int(times[1])


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if re.fullmatch(r"[\d-]+", done.stdout.strip()) else ""
