"""The page of shaping: its tables, figures and sentences, and the evidence of its verdicts.

Each theme has its module; the page and its tests take all of them from here.
"""

from atelier import claims
from atelier.report import words
from atelier.studies.shaping.params import UNTUNED
from atelier.studies.shaping.report_arms import (
    browser,
    measures,
    other_rewards,
    policy,
    price,
    rewards,
    rounds,
    samplers,
)
from atelier.studies.shaping.report_flow import noise_law, operations, round_trips
from atelier.studies.shaping.report_law import accepted, laws
from atelier.studies.shaping.report_levels import bias_and_variance, level_chosen, ranks
from atelier.studies.shaping.report_load import load
from atelier.studies.shaping.report_paper import paper
from atelier.studies.shaping.report_reasons import answer
from atelier.studies.shaping.report_results import GRAFT, NOTHING, REWARD, Results
from atelier.verdicts import Evidence

__all__ = [
    "Results",
    "accepted",
    "answer",
    "bias_and_variance",
    "browser",
    "evidence",
    "headline",
    "laws",
    "level_chosen",
    "load",
    "measures",
    "noise_law",
    "operations",
    "other_rewards",
    "paper",
    "policy",
    "price",
    "ranks",
    "rewards",
    "round_trips",
    "rounds",
    "samplers",
]


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    cells = [cell for cell in (UNTUNED, GRAFT, "pgraft-50") if (REWARD, cell) in results.measured]
    flows = [cell for cell in ("flow-8", "flow-8-inc") if {("fd_rec", cell), ("flops", cell)} <= set(results.measured)]
    return [*(f"{REWARD}/{cell}" for cell in cells), *(f"fd_rec/{cell}" for cell in flows)]


def evidence(results: Results) -> Evidence:
    """What the verdicts need."""
    known = claims.load(results.config.STUDY)
    seeds = words.seeds(results.params)
    return Evidence(
        values=results.values,
        resolutions={},
        counts={"": results.n} | {name: counts(results, claim) for name, claim in known.items()},
        over={"": f"intervals over {results.groups} groups of repeats, {seeds}"},
    )


def counts(results: Results, claim: claims.Claim) -> list[int]:
    """n of each of a claim's comparisons: the fewest pictures, or samples, of its cells."""
    listed = []
    for part in claim.every_part:
        cells = [cell for cell in part.cells if cell != NOTHING and results.has(part.measure, cell)]
        listed.append(min((results.n_of(part.measure, cell) for cell in cells), default=results.n))
    return listed
