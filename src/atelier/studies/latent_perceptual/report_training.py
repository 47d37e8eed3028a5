"""Training of the variants: their settings, and the losses over steps."""

import numpy as np
import pandas as pd

from atelier.methods.latent_perceptual import threshold
from atelier.report import figures, words
from atelier.report.items import DIGITS, Data, Figure, Table
from atelier.studies.latent_perceptual.features import PAPER_TAU
from atelier.studies.latent_perceptual.loss import TERM
from atelier.studies.latent_perceptual.report_results import Results

SETTINGS = {  # that a loss uses, of the settings that the table lists
    "plain": ("kind", "loss"),
    "reweighted": ("kind", "loss", "tau", "share"),
    "perceptual": ("kind", "loss", "depth", "norm", "depth_weights", "mask", "tau", "share"),
}
SMOOTHING = "running means over a twelfth of a run"


def variants(results: Results) -> Table:
    """Settings of each variant, and the share that the loss had of the whole."""
    frame = pd.DataFrame({name: _settings(results, name) for name in results.config.names}).T
    what = "the whole denoiser" if results.config.rank is None else f"adapters of rank {results.config.rank}"
    sigma = threshold(PAPER_TAU, results.latent_side)
    caption = (
        f"Trained: {what}, on {results.kind}; batches of {results.config.optimisation.batch}; tau = {PAPER_TAU:g} "
        f"counts steps up to sigma = {sigma:g} here. Share over the whole run, and weight: means over a variant's "
        f"training seeds, at most {words.seeds(results.params)}."
    )
    return Table("variants", frame.rename_axis("variant").fillna(""), caption)


def _settings(results: Results, variant: str) -> dict[str, str]:
    training = results.config.trainings[variant]
    used = SETTINGS[training.loss]
    row = {name: str(getattr(training, name)) if name in used else "" for name in SETTINGS["perceptual"]}
    if training.loss != "plain":
        losses = results.history[results.history["variant"] == variant][["denoising", TERM]].dropna().mean()
        weights = [weight for weight in results.weights[variant] if weight is not None]
        row |= {"measured share": f"{losses[TERM] / losses.sum():.2f}", "weight": f"{np.mean(weights):.3g}"}
    before = f"{training.before} + " if training.before else ""
    row["steps"] = before + str(results.config.steps_of(variant))
    if len(results.params.protocol.training_seeds) > 1:
        row["seeds"] = str(len(results.weights[variant]))
    return row | ({"learns": results.of(variant)} if results.of_works else {})


def history(results: Results) -> Data:
    """Losses of the first training seed, one row per variant and step."""
    table = _first_seed(results).drop(columns="training_seed")
    columns = ["variant", "step", *(name for name in table if name not in ("variant", "step"))]
    numbers = {str(name): _written(table[name]) for name in table.select_dtypes("float")}
    return Data("history", table.assign(**numbers)[columns])


def _first_seed(results: Results) -> pd.DataFrame:
    history = results.history
    return history[history["training_seed"] == results.params.protocol.training_seeds[0]]


def _written(numbers: pd.Series) -> list[str]:
    return [f"{number:.{DIGITS}g}" if number == number else "" for number in numbers]


def curves(results: Results) -> list[Figure]:
    """Denoising error of the main variants, and the term beside it where one has it."""
    table = _first_seed(results)
    table = table[table["variant"].isin(results.compared)]
    caption = (
        f"Denoising error, training seed {results.params.protocol.training_seeds[0]}; {SMOOTHING}. "
        "Pictures, noise and steps are the same for all variants, so that the lines nearly coincide."
    )
    denoising = figures.training_curves(table, "denoising", "variant", "squared error")
    shown = [Figure("history", denoising, caption)]
    with_term = table.dropna(subset=TERM) if TERM in table else table[:0]
    if len(with_term):
        term = figures.training_curves(with_term, TERM, "variant", "weighted term")
        shown.append(Figure("history_term", term, f"The term beside it, times its weight; {SMOOTHING}."))
    return shown
