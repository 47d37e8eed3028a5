"""The page of the signal leak: what its stages measured as tables, figures and evidence for its claims.

Each theme has its module; the page and its tests take all of them from here.
"""

from atelier.evaluation import tables
from atelier.report import words
from atelier.studies.signal_leak import measure
from atelier.studies.signal_leak.report_colour import by_hand, colour_response, mean_colour, response
from atelier.studies.signal_leak.report_first_step import (
    deficit,
    deficits,
    first_inputs,
    fitted_to,
    perfect_slope,
    slopes,
    snr,
    survives,
)
from atelier.studies.signal_leak.report_light import (
    browser,
    diversity,
    luminance,
    natural_sheet,
    prompted_light,
    spread,
)
from atelier.studies.signal_leak.report_results import Results, load
from atelier.studies.signal_leak.report_styles import (
    pixel_models,
    shifts,
    style_browser,
    style_distances,
    style_sheet,
    target_changes,
    targets,
)
from atelier.studies.signal_leak.sample import COLOURS
from atelier.verdicts import Evidence

__all__ = [
    "Results",
    "browser",
    "by_hand",
    "colour_response",
    "deficit",
    "deficits",
    "diversity",
    "evidence",
    "first_inputs",
    "fitted_to",
    "headline",
    "load",
    "luminance",
    "mean_colour",
    "natural_sheet",
    "perfect_slope",
    "pixel_models",
    "prompted_light",
    "response",
    "shifts",
    "slopes",
    "snr",
    "spread",
    "style_browser",
    "style_distances",
    "style_sheet",
    "survives",
    "target_changes",
    "targets",
]


def evidence(results: Results) -> Evidence:
    """What the verdicts are decided by; the base with new noise must not differ from the base."""
    protocol = results.params.protocol
    return Evidence(
        values=results.values,
        resolutions={**tables.resolutions(results.table), ("rank", COLOURS): rank_step(len(results.config.values))},
        counts={"": results.n},
        over={"": f"intervals over {len(protocol.groups)} groups of repeats, {words.seeds(results.params)}"},
        null_comparisons=measure.null_comparisons(),
    )


def rank_step(values: int) -> float:
    """The least change of a rank correlation of so many values: two neighbours exchanged (Spearman 1904)."""
    return 12 / (values * (values**2 - 1))


def headline(results: Results) -> list[str]:
    """How varied brightness is from white noise and with both leaks, and whether colour obeys."""
    return ["luminance_ratio/white", "luminance_ratio/pixel", "luminance_ratio/low-3", "colour/obeys"]
