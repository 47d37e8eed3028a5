"""The page of pixel-space post-training: its tables, figures and sentences, and the evidence of its verdicts.

Each theme has its module; the page and its tests take all of them from here.
"""

import numpy as np

from atelier import claims
from atelier.evaluation.tables import Values
from atelier.report import words
from atelier.studies.pixel_space.measure import LEARNT_RETURNED, RETURNED
from atelier.studies.pixel_space.params import UNTUNED, against, corrected
from atelier.studies.pixel_space.report_inspected import figure_seven, ratio, round_trips
from atelier.studies.pixel_space.report_judge import may_judge, validation
from atelier.studies.pixel_space.report_load import load
from atelier.studies.pixel_space.report_pairs import head_to_head, paper, transitivity
from atelier.studies.pixel_space.report_pictures import (
    browser,
    changes,
    defects,
    inside_outside,
    measures,
    style_and_subject,
    sweep,
)
from atelier.studies.pixel_space.report_reasons import answer
from atelier.studies.pixel_space.report_results import DEFECTS, NOTHING, Results
from atelier.studies.pixel_space.report_training import chosen, cost, curves, history, variants, winner_errors
from atelier.verdicts import Evidence

__all__ = [
    "Results",
    "answer",
    "browser",
    "changes",
    "chosen",
    "cost",
    "curves",
    "defects",
    "evidence",
    "figure_seven",
    "floors",
    "head_to_head",
    "headline",
    "history",
    "inside_outside",
    "load",
    "may_judge",
    "measures",
    "paper",
    "ratio",
    "round_trips",
    "style_and_subject",
    "sweep",
    "transitivity",
    "validation",
    "variants",
    "winner_errors",
]

DISTANCES = ("kd", *(f"{name}{end}" for name in ("fd", "pr", "psd", "high") for end in ("", "_rec")))
HEADLINE = (("both", "latent"), ("simpo-both", "dpo-latent"))


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    pairs = [f"net/{DEFECTS}/{against(*pair)}" for pair in HEADLINE if pair in results.pair_cells]
    return [*pairs, *(f"{DEFECTS}/{cell}" for cell in (UNTUNED, "latent", "both") if results.has(DEFECTS, cell))]


def evidence(results: Results) -> Evidence:
    """What the verdicts need; without the scores of a judge that was not shown to tell defects."""
    known = claims.load(results.config.STUDY)
    seeds = words.seeds(results.params)
    return Evidence(
        values=judged(results),
        resolutions=results.resolutions,
        counts={"": results.n} | {name: counts(results, claim) for name, claim in known.items()},
        over={"": f"intervals over {results.groups} groups of repeats, {seeds}"},
        floors=floors(results),
    )


def judged(results: Results) -> Values:
    """All values that a verdict may rest on; ``nothing`` has 0 in every measure, whichever the start."""
    measured = {key: row for key, row in results.values.items() if results.is_validated or "defect" not in key[0]}
    groups: dict[str, int] = {}
    for (measure, _), row in measured.items():
        groups[measure] = max(groups.get(measure, 0), len(row))
    fixed = {(measure, cell): np.zeros(n) for measure, n in groups.items() for cell in (NOTHING, corrected(NOTHING))}
    return fixed | measured


def counts(results: Results, claim: claims.Claim) -> list[int]:
    """n of each of a claim's comparisons: the fewest pictures, pairs or works of its cells."""
    listed = []
    for part in claim.every_part:
        known = [results.n_of(part.measure, cell) for cell in part.cells if results.has(part.measure, cell)]
        listed.append(min((n for n in known if n), default=results.n))  # a fixed value was measured of nothing
    return listed


def floors(results: Results) -> dict[str, float]:
    """The value of each distance below which no denoiser gets, because its pictures pass through this decoder.

    Against works: of held-out ones reconstructed; against reconstructed ones: of the learnt ones, reconstructed.
    """
    cells = {name: LEARNT_RETURNED if name.endswith("_rec") else RETURNED for name in DISTANCES}
    return {name: results.interval(name, cell).mean for name, cell in cells.items() if results.has(name, cell)}
