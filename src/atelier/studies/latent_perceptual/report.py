"""The page of the latent perceptual loss: its tables, figures and sentences, and the evidence of its verdicts.

Each theme has its module; the page and its tests take all of them from here.
"""

from atelier import claims
from atelier.studies.latent_perceptual import measure
from atelier.studies.latent_perceptual.measure import real_cells
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
from atelier.studies.latent_perceptual.report_pictures import (
    bands,
    browser,
    changes,
    measures,
    on_works,
    spectra,
)
from atelier.studies.latent_perceptual.report_reasons import answer, effect, reasons
from atelier.studies.latent_perceptual.report_results import Results, load
from atelier.studies.latent_perceptual.report_training import curves, history, variants
from atelier.verdicts import Evidence

__all__ = [
    "Results",
    "ablation_curves",
    "ablations",
    "answer",
    "bands",
    "browser",
    "changes",
    "curves",
    "direction",
    "effect",
    "evidence",
    "floors",
    "followed_curves",
    "gains",
    "gradients",
    "headline",
    "history",
    "interpolated",
    "interpolations",
    "load",
    "measures",
    "on_works",
    "outlier_maps",
    "outliers",
    "paper_post_training",
    "premise",
    "reasons",
    "reversals",
    "shifted",
    "side_by_side",
    "spectra",
    "stages",
    "variants",
]

DISTANCES = (
    "kd",
    *(f"{name}{end}" for name in ("fd", "pr", "psd", "high", "middle", "low") for end in ("", "_rec")),
)


def headline(results: Results) -> list[str]:
    """What the index page shows."""
    return [*(f"fd/{name}" for name in results.compared), "direction/cosine"]


def evidence(results: Results) -> Evidence:
    """What the verdicts need: each claim with the n and the groups of the cells that it compares."""
    known = claims.load(results.config.STUDY)
    return Evidence(
        values=results.values,
        resolutions=results.resolutions,
        counts={"": results.n} | {name: counts(results, claim) for name, claim in known.items()},
        over={"": _over(results, results.groups)} | {name: over(results, name, claim) for name, claim in known.items()},
        null_comparisons=measure.null_comparisons(),
        floors=floors(results),
    )


def counts(results: Results, claim: claims.Claim) -> list[int]:
    """n of each of a claim's comparisons: the fewest pictures, or inspected ones, of its cells; of maps, maps."""
    listed = []
    for part in claim.every_part:
        known = [results.n_of(cell, part.measure) for cell in part.cells if (part.measure, cell) in results.values]
        measured = [n for n in known if n]  # a fixed value was measured of nothing
        listed.append(deep_maps(results) if part.measure == "outliers" else min(measured, default=results.n))
    return listed


def over(results: Results, name: str, claim: claims.Claim) -> str:
    """What a claim's intervals are over: groups of repeats, or of inspected pictures."""
    if name == "C11":
        return f"intervals over {results.groups} groups of held-out {results.noun}"
    part = claim.every_part[-1]  # C12: its second part is of generated pictures
    known = [results.values[part.measure, cell] for cell in part.cells if (part.measure, cell) in results.values]
    return _over(results, min(map(len, known), default=results.groups))


def _over(results: Results, groups: int) -> str:
    trained = groups if len(results.params.protocol.training_seeds) > 1 else 1
    return f"intervals over {groups} groups of repeats, {trained} training seed{'s' * (trained > 1)}"


def floors(results: Results) -> dict[str, float]:
    """The value of each distance below which no denoiser gets, because its pictures pass through this decoder.

    Against real pictures: of held-out ones reconstructed; against reconstructed ones: of the training split
    reconstructed.
    """
    _, held_out, training = real_cells(results.noun)
    cells = {name: training if name.endswith("_rec") else held_out for name in DISTANCES}
    return {name: results.interval(name, cell).mean for name, cell in cells.items() if (name, cell) in results.values}
