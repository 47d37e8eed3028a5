"""How many groups of repeats each part of a page's claims and findings would take to be decided."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from atelier.evaluation.intervals import Interval
from atelier.evidence import LEVEL, POWER, Compared, groups_needed
from atelier.report import naming
from atelier.report.items import Table
from atelier.verdicts import Verdict

MOST = 10_000  # groups that are counted


def scatter_of(interval: Interval) -> float:
    """Standard deviation of the groups' differences, from their 95 % interval."""
    half = (interval.high - interval.low) / 2
    return half / float(stats.t.ppf(0.975, interval.n - 1)) * interval.n**0.5


def needed(compared: Compared, directed: bool) -> int | None:
    """Groups with which 80 % of studies see an effect that matters; None beyond ``MOST``, or without one."""
    scatter, matters = scatter_of(compared.interval), max(compared.margin, compared.least)
    if not scatter or not matters:
        return None
    shape = np.array([-0.5, 0.5]) * 2**0.5  # deviation 1
    return groups_needed(matters + scatter * shape, LEVEL / 2 if directed else LEVEL, most=MOST)


def plan(study: str, verdicts: Sequence[Verdict]) -> Table:
    """One row per measured part: scatter of its groups, what matters, what would be seen, and groups needed for it."""
    rows = {}
    for verdict in verdicts:
        for number, finding in enumerate(verdict.findings, 1):
            if (compared := finding.compared) is None:
                continue
            groups, wanted = compared.interval.n, needed(compared, finding.part.directed)
            rows[f"{verdict.claim}.{number}"] = {
                "comparison": naming.sentence(study, finding.part),
                "scatter": scatter_of(compared.interval),
                "would matter": max(compared.margin, compared.least) or np.nan,
                "detectable": compared.detectable,
                "groups": groups,
                "groups needed": "" if wanted is None else str(wanted),
                "times this run": np.nan if wanted is None else max(1.0, wanted / groups),
            }
    caption = (
        f"What deciding each part takes: groups of repeats with which an effect that matters is seen in {POWER:.0%} of "
        "studies, at the scatter here. Time grows with groups; only new seeds run."
    )
    return Table("plan", pd.DataFrame(rows).T.rename_axis("part"), caption)
