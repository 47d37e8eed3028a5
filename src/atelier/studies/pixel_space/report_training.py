"""Training: what was chosen to learn from, settings, errors over steps, and where a training stopped."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from atelier.evaluation.intervals import Interval, t_interval
from atelier.report import figures, words
from atelier.report.items import DIGITS, Data, Figure, Item, Metric, Table, Text
from atelier.studies.pixel_space.params import PostTraining
from atelier.studies.pixel_space.report_results import INTERVALS, Results
from atelier.studies.pixel_space.train import PROBED as DRAWN

SMOOTHING = "running means over a twelfth of a run"
TERMS = {  # columns of supervised trainings' histories: a curve's label, and what it is the error of
    "denoising": ("squared error", "of what the denoiser predicts"),
    "pixel": ("weighted squared error", "of decoded pictures"),
}
PROBED = {  # columns of what a preference training measures at regular steps
    "accuracy": "share of pairs in the right order",
    "winner": "winners' error over the base's",
    "loser": "losers' error over the base's",
}


def chosen(results: Results) -> list[Item]:
    """The best and the worst candidates of some prompts, and how far apart their scores are."""
    shown: list[Item] = []
    if results.first_pairs:
        caption = (
            f"What the base painted for the first prompts: the best and the worst of {results.config.candidates.each} "
            "candidates by the judge that chooses, then by fit to the style; a column is a prompt. Decoded from the "
            "latents that are learnt."
        )
        shown.append(Figure("pairs", figures.contact_sheet(results.first_pairs, scale=0.68), caption))
    return [*shown, _apart(results)]


def _apart(results: Results) -> Text:
    """How many pairs there are, and how much the choosing judge holds them apart."""
    gap = (results.pairs["loser_defects"] - results.pairs["winner_defects"]).to_numpy(dtype=np.float64)
    n = len(gap)
    text = (
        f"{n} pairs of preferences; the choosing judge's score of the worst is {gap.mean():.3g} above that of the "
        f"best on average ({np.quantile(gap, 0.1):.3g} to {np.quantile(gap, 0.9):.3g} in eight of ten pairs). "
        f"Supervised variants learn {results.n_learnt} works."
    )
    return Text(text, {"pairs/gap": Metric(float(gap.mean()), n)})


# ---------------------------------------------------------------------------------------------- settings


def variants(results: Results) -> Table:
    """Settings of each variant, the weight that its pixel term got, and where a training stopped."""
    frame = pd.DataFrame({name: _settings(results, name) for name in results.config.names}).T
    config = results.config
    caption = (
        f"Trained: adapters of rank {config.rank} on every layer. *share*: of the pixel term in the sum of both "
        f"gradients' norms at the start, which sets its weight once; beta {config.beta:g}, SimPO's "
        f"{config.simpo_beta:g} and its margin {config.margin:g} of mean errors. *units*: by which preferences "
        "multiply errors of pixels, so that they begin as large as those of latents. A preference training stops "
        f"where the winners' error is {config.most:g} times the base's; *stopped*: at which steps, of how many "
        "seeds. Weight and units: means over training seeds."
    )
    return Table("variants", frame.rename_axis("variant").fillna(""), caption)


def _settings(results: Results, name: str) -> dict[str, str]:
    training, cards = results.config.trainings[name], results.cards[name]
    row = {"method": training.method, "terms": training.terms, "predicts": _predicts(training)}
    if training.terms != "latent":
        row["decoded"] = {"noisy": "at the noise level", "clean": "the clean estimate"}[training.decoded]
    if training.terms == "both":
        row["share"] = f"{training.share:g}"
    for key, label in (("weight", "weight"), ("factor", "units")):
        if known := [float(card[key]) for card in cards if card[key] is not None]:
            row[label] = f"{np.mean(known):.3g}"
    row |= {"steps": str(results.config.optimisation_of(name).steps), "seeds": str(len(cards))}
    if training.method != "supervised":
        row["stopped"] = _stopped([card["stopped"] for card in cards])
    return row


def _predicts(training: PostTraining) -> str:
    return {"base": "as the base", "v_prediction": "v"}[training.kind]


def _stopped(steps: Sequence[int | None]) -> str:
    """``2 of 5, at 120 and 300``, or ``none``."""
    at = [str(step) for step in steps if step is not None]
    return f"{len(at)} of {len(steps)}, at {' and '.join(at)}" if at else "none"


def cost(results: Results) -> Text:
    """What a step with pixels costs, as far as a page can say it, beside what the paper says."""
    longer = results.config.trainings.get("latent-longer")
    ours = (
        f"*latent-longer* makes {longer.longer:.3g} times the steps of *latent*, to take as long by the clock as *both*"
        if longer
        else "This profile has no plain training for as long by the clock"
    )
    return Text(
        f"{ours}; time and memory of a step were measured once, outside of the pipeline (docs/decisions.md). The "
        "paper has no "
        'cost of a step: "Each experiment took 1-8 hours on 8 H100 GPUs to fine-tune one model."'
    )


# ---------------------------------------------------------------------------------------------- over steps


def history(results: Results) -> Data:
    """Errors of the first training seed, one row per variant and step."""
    table = _first_seed(results).drop(columns="training_seed")
    columns = ["variant", "step", *(name for name in table if name not in ("variant", "step"))]
    numbers = {str(name): _written(table[name]) for name in table.select_dtypes("float")}
    return Data("history", table.assign(**numbers)[columns])


def _written(numbers: pd.Series) -> list[str]:
    return [f"{number:.{DIGITS}g}" if number == number else "" for number in numbers]


def _first_seed(results: Results) -> pd.DataFrame:
    return results.history[results.history["training_seed"] == results.params.protocol.training_seeds[0]]


def curves(results: Results) -> list[Figure]:
    """Errors of supervised variants over steps; nothing of what the profile does not train."""
    table = _first_seed(results)
    supervised = [name for name in results.config.variants if results.config.trainings[name].method == "supervised"]
    table = table[table["variant"].isin(supervised)]
    seed, shown = results.params.protocol.training_seeds[0], []
    for column, (label, what) in TERMS.items():
        rows = table.dropna(subset=column) if column in table else table[:0]
        if len(rows):
            batch = results.config.supervised.batch
            caption = f"Supervised: {label} {what}; training seed {seed}; {SMOOTHING}; batches of {batch} works."
            shown.append(Figure(f"history_{column}", figures.training_curves(rows, column, "variant", label), caption))
    return [*shown, *_preferences(results)]


def _preferences(results: Results) -> list[Figure]:
    """Of preference trainings: pairs in order, winners' and losers' errors, on fixed draws at every checkpoint."""
    probes = results.probes[results.probes["variant"].isin(results.config.variants)]
    if probes.empty:
        return []
    rows = []
    for (variant, step), part in probes.groupby(["variant", "step"], sort=False):
        row: dict[str, object] = {"variant": variant, "step": step}
        for column in PROBED:
            interval = _over_seeds(part[column].tolist())
            row |= {column: interval.mean, f"{column}_low": interval.low, f"{column}_high": interval.high}
        rows.append(row)
    caption = (
        f"Preferences: latent errors on fixed draws of pairs, noise and steps; n = {DRAWN} a point and seed; means "
        f"over {words.seeds(results.params)}, fewer behind a step at which one stopped; 95 % intervals over seeds "
        "where there are two or more. A loss may fall while the winners' error rises over 1; training stops at "
        f"{results.config.most:g}."
    )
    figure = figures.curves(pd.DataFrame(rows), PROBED, "step", "variant", "step")
    for axis in figure.axes[: len(PROBED)]:
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))  # not a number for each of many checkpoints
    return [Figure("preferences", figure, caption)]


def _over_seeds(values: Sequence[float]) -> Interval:
    """A mean over seeds; of one seed, without an interval."""
    return t_interval(values) if len(values) > 1 else Interval(values[0], values[0], values[0], 1)


def winner_errors(results: Results) -> Table | Text:
    """The winners' error at the end, over that of the base: what E2's verdict needs."""
    cells = results.cells("winner_error")
    if not cells:
        return Text("This profile trains on no preferences.")
    rows, metrics = {}, {}
    for cell in cells:
        per_cent = t_interval((100 * results.values["winner_error", cell]).tolist())
        rows[cell] = {"winners' error, change (%)": words.signed(per_cent)}
        metrics[f"winner_error/{cell}"] = Metric(per_cent, results.n_of("winner_error", cell), "%")
    n = results.n_of("winner_error", cells[0])
    most = 100 * (results.config.most - 1)
    caption = (
        "Denoising error on the winners at the end of training, less the base's, on the same fixed draws; "
        f"{INTERVALS}; n = {n} winners. E2 has no verdict unless it is shown to be at most 20 %; training stops at "
        f"{most:.3g} %."
    )
    return Table("winner_errors", pd.DataFrame(rows).T.rename_axis("variant"), caption, metrics)
