"""Training: what was chosen to learn from, settings, errors over steps, and where a training stopped."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from atelier.evaluation.intervals import t_interval
from atelier.report import figures, words
from atelier.report.items import DIGITS, Data, Figure, Item, Metric, Table, Text
from atelier.studies.pixel_space.params import PostTraining
from atelier.studies.pixel_space.report_results import INTERVALS, Results

SMOOTHING = "running means over a twelfth of a run"
ACCURACY, WINNER, LOSER = "accuracy", "winner", "loser"  # columns of a preference training's history
TERMS = {"latent": "error of the noise in latents", "pixel": "error of decoded pictures, not weighted"}


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
        f"gradients' norms at the start, which sets its weight once; beta {config.beta:g} and SimPO's margin "
        f"{config.margin:g} of mean errors. A preference training stops where the winners' error is {config.most:g} "
        "times the base's; *stopped*: at which steps, of how many seeds. Weight: mean over training seeds."
    )
    return Table("variants", frame.rename_axis("variant").fillna(""), caption)


def _settings(results: Results, name: str) -> dict[str, str]:
    training, cards = results.config.trainings[name], results.cards[name]
    row = {"method": training.method, "terms": training.terms, "predicts": _predicts(training)}
    if training.terms != "latent":
        row["decoded"] = {"noisy": "at the noise level", "clean": "the clean estimate"}[training.decoded]
    if training.terms == "both":
        row |= {"share": f"{training.share:g}", "weight": f"{np.mean([card['weight'] for card in cards]):.3g}"}
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
        f"*latent-longer* makes {longer.longer:.3g} times the steps of *latent*, which is about what *both* takes by "
        "the clock"
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
    """Errors of supervised variants; of preferences the implicit accuracy, and both errors over the base's."""
    preference = [name for name in results.config.variants if results.config.trainings[name].method != "supervised"]
    supervised = [name for name in results.config.variants if name not in preference]
    about = f"training seed {results.params.protocol.training_seeds[0]}; {SMOOTHING}"
    drawn = [
        *((name, label, supervised) for name, label in TERMS.items()),
        (ACCURACY, "share of pairs in the right order", preference),
        (WINNER, "winners' error over the base's", preference),
        (LOSER, "losers' error over the base's", preference),
    ]
    shown = []
    for column, label, names in drawn:
        table = _first_seed(results)
        table = table[table["variant"].isin(names)]
        table = table.dropna(subset=column) if column in table else table[:0]
        if len(table):
            figure = figures.training_curves(table, column, "variant", label)
            shown.append(Figure(f"history_{column}", figure, f"{label[:1].upper()}{label[1:]}; {about}."))
    return shown


def winner_errors(results: Results) -> Table | Text:
    """The winners' and losers' errors at the end, over those of the base: what E2's verdict needs."""
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
        f"{INTERVALS}; n = {n} draws. E2 has no verdict unless it is shown to be at most 20 %; training stops at "
        f"{most:.3g} %."
    )
    return Table("winner_errors", pd.DataFrame(rows).T.rename_axis("variant"), caption, metrics)
