"""The page of the latent perceptual loss: its tables, figures and sentences, and the evidence of its verdicts.

Each theme has its module; the page and its tests take all of them from here.
"""

from atelier.claims import Evidence
from atelier.evaluation import tables
from atelier.report import words
from atelier.studies.latent_perceptual import measure
from atelier.studies.latent_perceptual.report_ablations import (
    ablation_curves,
    ablations,
    followed_curves,
    gains,
    paper_post_training,
    side_by_side,
)
from atelier.studies.latent_perceptual.report_features import (
    deep_maps,
    direction,
    gradients,
    interpolated,
    interpolations,
    outlier_maps,
    outliers,
    premise,
    reversals,
    shifted,
    stages,
)
from atelier.studies.latent_perceptual.report_pictures import bands, changes, measures, pictures, spectra
from atelier.studies.latent_perceptual.report_reasons import effect, reasons
from atelier.studies.latent_perceptual.report_results import Results, load
from atelier.studies.latent_perceptual.report_training import curves, history, variants

__all__ = [
    "Results",
    "ablation_curves",
    "ablations",
    "bands",
    "changes",
    "curves",
    "direction",
    "effect",
    "evidence",
    "followed_curves",
    "gains",
    "gradients",
    "headline",
    "history",
    "interpolated",
    "interpolations",
    "load",
    "measures",
    "outlier_maps",
    "outliers",
    "paper_post_training",
    "pictures",
    "premise",
    "reasons",
    "reversals",
    "shifted",
    "side_by_side",
    "spectra",
    "stages",
    "variants",
]


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    return [*(f"fd/{name}" for name in results.compared), "direction/cosine"]


def evidence(results: Results) -> Evidence:
    """What the verdicts need; C11 is decided on inspected works, C12 on their feature maps and on pictures."""
    seeds, groups = words.seeds(results.params), results.groups
    return Evidence(
        values=results.values,
        resolutions=tables.resolutions(results.rows),
        counts={"": results.n, "C11": results.n_inspected, "C12": [deep_maps(results), results.n]},
        over={
            "": f"intervals over {groups} groups of repeats, {seeds}",
            "C11": f"intervals over {groups} groups of held-out works",
        },
        null_comparisons=measure.null_comparisons(),
    )
