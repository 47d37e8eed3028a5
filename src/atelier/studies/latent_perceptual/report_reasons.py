"""Sentences that the numbers write: whether the loss helps, and what each control says about why."""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

from atelier.evaluation.intervals import t_interval
from atelier.evidence import LEVEL, detectable_difference
from atelier.report import words
from atelier.report.items import Metric, Metrics, Text
from atelier.studies.latent_perceptual.params import AGAIN, MAIN, PLAIN, corrected, untuned
from atelier.studies.latent_perceptual.report_ablations import changed_alone
from atelier.studies.latent_perceptual.report_features import direction_cosine, gradient_batches, gradient_cosines
from atelier.studies.latent_perceptual.report_pictures import per_cent
from atelier.studies.latent_perceptual.report_results import REWEIGHTED, Results, change_text

PROTOCOL = 500  # pictures a row that Frechet distances need to separate models
LONGER, SEPARATE = "plain-longer", "separate"
NOTHING = "This profile does not train with the loss and without: there is nothing to compare."
EFFECT = ("lowers fd", "raises fd", "is not seen to change fd")


class Experiment(NamedTuple):
    """What one control shows: sentences, reasons for no gain, and numbers for ``metrics.json``."""

    lines: Sequence[str] = ()
    reasons: Sequence[str] = ()
    metrics: Metrics = MappingProxyType({})


def _sentence(results: Results, cell: str, reference: str, endings: Sequence[str]) -> str:
    """The ending for a change of fd below 0, above it, or neither; and its interval."""
    interval = results.change("fd", cell, reference)
    below, above, neither = endings
    ending = below if interval.high < 0 else above if interval.low > 0 else neither
    return f"{ending} ({change_text(interval)})."


def answer(results: Results) -> Text:
    """Five sentences: does the loss help, by how much, which part of it does, at what price, and how sure is that."""
    if not results.compares:
        return Text(NOTHING)
    parts = (_whether, _how_much, _which_part, _price, _certainty)
    lines = [f"{number}. {part(results)}" for number, part in enumerate(parts, 1)]
    share = per_cent(results, MAIN, PLAIN)
    return Text("\n".join(lines), {"answer/fd_per_cent": Metric(share, results.n, "%")})


def _whether(results: Results) -> str:
    """The main effect from both starts."""
    text = f"On {results.kind}, from white noise, the loss {_sentence(results, MAIN, PLAIN, EFFECT)}"
    pair = (corrected(MAIN), corrected(PLAIN))
    if not all(("fd", cell) in results.values for cell in pair):
        return text
    return f"{text[:-1]}; from noise with the leak it {_sentence(results, *pair, EFFECT)}"


def _how_much(results: Results) -> str:
    """The main effect beside the paper's, and what it does to precision, recall and the highest frequencies."""
    table = results.post_trainings
    paper = 100 * (table["fid_with"] / table["fid_without"] - 1)
    beside = {"precision": "precision", "recall": "recall", "top": "log10 power above 0.29 cycles a pixel"}
    others = [
        f"{label} changes by {change_text(results.change(measure, MAIN, PLAIN), 2)}"
        for measure, label in beside.items()
        if {(measure, MAIN), (measure, PLAIN)} <= set(results.values)
    ]
    share = change_text(per_cent(results, MAIN, PLAIN), 2)
    text = f"That is {share} % of plain's fd, where the paper has {paper.min():+.3g} to {paper.max():+.3g} % of FID"
    return "; ".join([text, ", ".join(others)] if others else [text]) + "."


def _which_part(results: Results) -> str:
    """What weights alone do, and what the decoder's features add."""
    if REWEIGHTED not in results.config.trainings:
        return "Which part of it does that is not known here: this profile has no control that changes weights alone."
    weights = _sentence(results, REWEIGHTED, PLAIN, EFFECT)[:-1]
    features = _sentence(results, MAIN, REWEIGHTED, ("lowers it further", "raises it", "is not seen to add to that"))
    return f"More weight on little noise, without a decoder, {weights}; what the decoder sees beside {features}"


def _price(results: Results) -> str:
    """The loss against plain training for as long by the clock."""
    if LONGER not in results.config.trainings:
        return "What that costs is not measured here: this profile has no plain training for as long by the clock."
    steps = f"plain training makes {results.config.trainings[LONGER].longer:g} times the steps"
    endings = ("and the loss is better than that", "and the loss is worse than that", "which the loss is not told from")
    return f"In the time that it takes, {steps}, {_sentence(results, MAIN, LONGER, endings)}"


def _certainty(results: Results) -> str:
    """What the intervals are over, what they could have shown, and what other noise alone changes."""
    differences = results.values["fd", MAIN] - results.values["fd", PLAIN]
    least, scale = detectable_difference(differences, LEVEL / 2), results.interval("fd", PLAIN).mean
    noise = change_text(results.change("fd", AGAIN, PLAIN), 2)
    return (
        f"Intervals are of 95 %, over {results.groups} groups of {results.n // results.groups} pictures, "
        f"{words.seeds(results.params)}: with this scatter four of five such studies would find a change of "
        f"{least:.2g} ({100 * least / scale:.2g} % of plain's fd); other noise alone changes it by {noise}."
    )


def effect(results: Results) -> Text:
    """What plain post-training alone does to the distance to held-out pictures, and what so few pictures can show."""
    if not results.compares:
        return Text(NOTHING)
    base = untuned(PLAIN)
    tuned = results.change("fd", PLAIN, base)
    nearer = ("brings the base nearer", "takes the base away", "is not seen to change the base")
    lines = [f"Plain post-training {_sentence(results, PLAIN, base, nearer)}"]
    if tuned.low <= 0 <= tuned.high:
        lines.append("So short a training says little about what the loss adds to a long one.")
    if results.n < PROTOCOL:
        lines.append(f"{results.n} pictures a row are fewer than the {PROTOCOL} that Frechet distances need here.")
        lines.append("Their bias is removed; an effect smaller than a card's detectable effect is not seen.")
    return Text("\n".join(lines), {"change/fd/plain-from-untuned": Metric(tuned, results.n)})


def reasons(results: Results) -> Text:
    """What each control says, and their reasons where the loss brings no gain."""
    controls: Sequence[Callable[[Results], Experiment]] = (_weights, _directions, _time, _settings)
    experiments = [experiment for control in controls if (experiment := control(results)).lines]
    lines = [line for number, each in enumerate(experiments, 1) for line in _numbered(number, each.lines)]
    why = [reason for experiment in experiments for reason in experiment.reasons]
    if results.compares and why and results.change("fd", MAIN, PLAIN).high >= 0:
        lines += ["", f"No gain is seen; what these experiments point to: {'; '.join(why)}."]
    metrics = {name: metric for experiment in experiments for name, metric in experiment.metrics.items()}
    return Text("\n".join(lines), metrics)


def _numbered(number: int, lines: Sequence[str]) -> list[str]:
    return [f"{number}. {lines[0]}", *(f"   {line}" for line in lines[1:])]


def _weights(results: Results) -> Experiment:
    """The control: more weight on little noise, without a decoder."""
    if not (results.compares and REWEIGHTED in results.config.trainings):
        return Experiment()
    better = ("is better than that", "is worse than that", "is not distinguished from that")
    lines = [
        f"More weight on little noise, without a decoder, {_sentence(results, REWEIGHTED, PLAIN, EFFECT)}",
        f"The loss {_sentence(results, MAIN, REWEIGHTED, better)}",
    ]
    weights, beyond = results.change("fd", REWEIGHTED, PLAIN), results.change("fd", MAIN, REWEIGHTED)
    if beyond.low > 0:
        return Experiment(lines, ["features do harm beside their control"])
    if beyond.high >= 0 and weights.low > 0:
        return Experiment(lines, ["the weights alone do harm, and features are not seen to add to it"])
    return Experiment(lines)


def _directions(results: Results) -> Experiment:
    """Where gradients point before training."""
    cosines = gradient_cosines(results)
    lines = [
        f"Cosine of the loss with squared error at the estimate: {words.unsigned(direction_cosine(results), '.2f')}."
    ]
    lines += [
        f"Of {loss} with {reference} at the parameters: {words.unsigned(interval, '.2f')}."
        for (loss, reference), interval in cosines.items()
    ]
    pair = ("perceptual", REWEIGHTED)
    if not {(loss, "denoising") for loss in pair} <= set(cosines):
        return Experiment(lines)
    table = results.gradients[results.gradients["against"] == "denoising"].set_index("of")
    by_group = [table.loc[[loss]].groupby("group")["cosine"].mean() for loss in pair]
    apart = t_interval((by_group[0] - by_group[1]).tolist())
    where = "farther from" if apart.high < 0 else "nearer to" if apart.low > 0 else "not seen to be farther from"
    lines += [
        "Compared with its control, squared error on the same steps with the same share, the loss's gradient is",
        f"{where} the denoiser's own ({change_text(apart, 2)}).",
    ]
    why = ["its gradient turns from the denoiser's own more than its control's does"] if apart.high < 0 else []
    name = f"gradient/perceptual-less-{REWEIGHTED}/denoising"
    return Experiment(lines, why, {name: Metric(apart, gradient_batches(results))})


def _time(results: Results) -> Experiment:
    """Plain training for as long by the clock."""
    if not (results.compares and LONGER in results.config.trainings):
        return Experiment()
    longer = f"plain for {results.config.trainings[LONGER].longer:g} times the steps"
    endings = (f"is better than {longer}", f"is worse than {longer}", f"is not distinguished from {longer}")
    worse = results.change("fd", MAIN, LONGER).low > 0
    why = ["its time is better spent on plain steps"] if worse else []
    return Experiment([f"The loss {_sentence(results, MAIN, LONGER, endings)}"], why)


def _settings(results: Results) -> Experiment:
    """Variants of the loss that do better than plain, or than the loss as the paper has it, in as many steps."""
    single = list(changed_alone(results))
    if not (results.compares and single):
        return Experiment()
    lines = [f"Of {len(single)} variants that change its statistics, weights, mask or depth:"]
    _, main = results.config.ablated
    for reference in results.config.ablated:
        changes = {name: results.change("fd", name, reference) for name in single}
        better = [f"{name} ({change_text(change)})" for name, change in changes.items() if change.high < 0]
        lines.append(f"better than {reference}: {', '.join(better) or 'none'}.")
    shared_hurts = SEPARATE in single and results.change("fd", SEPARATE, main).high < 0
    why = ["shared statistics, because with separate ones it does better, against the paper"] if shared_hurts else []
    return Experiment(lines, why)
