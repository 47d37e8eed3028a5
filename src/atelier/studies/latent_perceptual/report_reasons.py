"""Sentences that the numbers write: whether the loss helps, and what each control says about why."""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

from atelier.evaluation.intervals import t_interval
from atelier.report import words
from atelier.report.items import Metric, Metrics, Text
from atelier.studies.latent_perceptual.measure import MAIN, PLAIN
from atelier.studies.latent_perceptual.report_ablations import changed_alone
from atelier.studies.latent_perceptual.report_features import direction_cosine, gradient_batches, gradient_cosines
from atelier.studies.latent_perceptual.report_results import REWEIGHTED, Results, change_text
from atelier.studies.latent_perceptual.sample import AGAIN, untuned

PROTOCOL = 500  # pictures a row that Frechet distances need to separate models
LONGER, SEPARATE = "plain-longer", "separate"
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


def effect(results: Results) -> Text:
    """Whether the loss, and plain post-training alone, change the distance to held-out works."""
    if not results.compares:
        return Text("This profile does not train with the loss and without: there is nothing to compare.")
    base = untuned(PLAIN)
    tuned = results.change("fd", PLAIN, base)
    nearer = ("brings the base nearer", "takes the base away", "is not seen to change the base")
    lines = [
        f"The loss {_sentence(results, MAIN, PLAIN, EFFECT)}",
        f"Plain post-training {_sentence(results, PLAIN, base, nearer)}",
    ]
    if tuned.low <= 0 <= tuned.high:
        lines.append("So short a training says little about what the loss adds to a long one.")
    lines.append(f"Different noise alone changes plain's fd by {change_text(results.change('fd', AGAIN, PLAIN))}.")
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
    """Variants of the loss that do better than plain, or than the loss as the paper has it."""
    single = list(changed_alone(results))
    if not (results.compares and single):
        return Experiment()
    lines = [f"Of {len(single)} variants that change its statistics, weights, mask or depth:"]
    for reference in (PLAIN, MAIN):
        changes = {name: results.change("fd", name, reference) for name in single}
        better = [f"{name} ({change_text(change)})" for name, change in changes.items() if change.high < 0]
        lines.append(f"better than {reference}: {', '.join(better) or 'none'}.")
    shared_hurts = SEPARATE in single and results.change("fd", SEPARATE, MAIN).high < 0
    why = ["shared statistics, because with separate ones it does better, against the paper"] if shared_hurts else []
    return Experiment(lines, why)
