"""The answer first: one sentence a claim, which the numbers write."""

from collections.abc import Callable, Sequence

from atelier.report import words
from atelier.report.items import Text
from atelier.studies.shaping.params import UNTUNED
from atelier.studies.shaping.report_law import LEAST_P
from atelier.studies.shaping.report_results import (
    CHOSEN,
    DECIDING,
    GRAFT,
    LEVELS,
    REWARD,
    SOLVERS,
    Results,
    direction_text,
    scaled,
)

CHANGES = ("falls", "rises", "is not seen to change")
KNOWN = (
    "Of the paper only the abstract's page was at hand: the training loss of P-GRAFT, the laws by sampler and what a "
    "rule accepts are derived here; that variance grows with noise, that nearer noise is easier to learn, and "
    "algorithms 2 and 6 are second-hand, from public reviews and notes. Wherever rewards stand, so does their sampler."
)

ARMS = (  # of the whole study
    *(GRAFT, "pgraft-25", "pgraft-50", "pgraft-75", "pgraft-50-x0", f"{GRAFT}-sde", "pgraft-50-sde"),
    *("best-of-4", "best-of-16", "plain", "policy", f"{GRAFT}-2", f"{GRAFT}-3"),
)


def answer(results: Results) -> Text:
    """One sentence for each of F1 to F4, what is second-hand, and which arms are left out."""
    sentences: Sequence[Callable[[Results], str]] = (_f1, _f2, _f3, _f4)
    lines = [f"F{number}. {sentence(results)}" for number, sentence in enumerate(sentences, 1)]
    missing = [name for name in ARMS if name not in results.config.names]
    lines += [KNOWN, *([f"Left out in this profile: {', '.join(missing)}."] if missing else [])]
    return Text("\n".join(lines))


def _lacking(what: str) -> str:
    return f"Not seen in this profile, which does not measure {what}."


def _f1(results: Results) -> str:
    """Whether accepted samples have the exact law, and how much of the shift the tuned model takes over."""
    parts = []
    if len(results.law):
        low = results.law.iloc[int(results.law["p"].argmin())]
        n = int((results.law["p"] <= LEAST_P).sum())
        parts.append(
            f"Of {len(results.law)} tests of accepted samples against their exact law {n} fail at p = {LEAST_P:g} "
            f"(least p {low['p']:.2g}, {low['rule']}, {SOLVERS[low['solver']]})"
        )
    if results.has(REWARD, GRAFT, UNTUNED):
        change = results.change(REWARD, GRAFT, UNTUNED)
        said = (
            f"GRAFT's mean reward ({results.config.reward}) on held-out prompts {direction_text(change, *CHANGES)}, "
            f"{words.signed(change)} beside the base's, both {SOLVERS['ode']}"
        )
        if (control := results.control_of(GRAFT)) is not None and results.has(REWARD, control):
            selected = results.change(REWARD, GRAFT, control)
            said += f", and {words.signed(selected)} beside {control}, which nobody selected for"
        if results.has("shift_share", GRAFT):
            share = scaled(results.interval("shift_share", GRAFT), 100.0)
            said += f": {words.unsigned(share, '.3g')} % of what the law predicts of the candidates"
        parts.append(said)
    return f"{'. '.join(parts)}." if parts else _lacking("GRAFT")


def _f2(results: Results) -> str:
    """Whether the level that half of the prompts chose beats GRAFT on the other, by the deterministic sampler."""
    if results.chosen is None or not results.has(DECIDING, CHOSEN, GRAFT):
        return _lacking("P-GRAFT beside GRAFT")
    change = results.change(DECIDING, CHOSEN, GRAFT)
    ends = ("has less reward than", "has more reward than", "is not told by its reward from")
    said = (
        f"{results.chosen}, chosen on one half of the prompts, {direction_text(change, *ends)} GRAFT on the other "
        f"({words.signed(change)}), both {SOLVERS['ode']}, under which they aim at one law"
    )
    pair = ("pgraft-50-sde", f"{GRAFT}-sde")
    if results.has(REWARD, *pair):
        other = results.change(REWARD, *pair)
        said += f"; {pair[0]} {direction_text(other, *ends)} {pair[1]} ({words.signed(other)}), both {SOLVERS['sde']}"
    return f"{said}. The policy-gradient rival is shown, and decides nothing."


def _f3(results: Results) -> str:
    """How the variance and the gap go with noise, and which level has the most reward."""
    parts = []
    at = results.steps("variance")
    if len(at) > 1:
        means = [results.interval("variance", cell).mean for cell in at.values()]
        rank = results.interval("variance_rank", LEVELS).mean if results.has("variance_rank", LEVELS) else float("nan")
        parts.append(
            f"the reward's variance given x_t goes from {means[0]:.3g} of the prompt's at t = {min(at)} to "
            f"{means[-1]:.3g} at t = {max(at)} (rank correlation {rank:.3g}; rest sampled anew, {SOLVERS['sde']})"
        )
    if results.has("gap_slope", GRAFT):
        slope = results.interval("gap_slope", GRAFT)
        verb = direction_text(slope, *CHANGES)
        parts.append(
            f"the gap of learning {verb} with t ({words.signed(slope)} of log10 over the schedule; "
            "weak evidence, as it falls for any denoiser)"
        )
    names = [name for name in (*results.partial, GRAFT) if results.has(REWARD, name)]
    if len(names) > 1:
        best = max(names, key=lambda name: results.interval(REWARD, name).mean)
        parts.append(f"of {', '.join(names)} {best} has the most reward, {SOLVERS['ode']}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if parts else _lacking("levels of noise")


def _f4(results: Results) -> str:
    """FD of 8 corrected steps beside 16 and 8 plain ones and the longer training, and their operations."""
    if not results.has("fd_rec", "flow-8-inc", "flow-16", "flow-8"):
        return _lacking("a flow with corrected noise")
    parts = []
    for cell, said in (("flow-16", "16 steps without"), ("flow-8", "8 without"), ("flow-8-longer", "8 trained longer")):
        if results.has("fd_rec", cell):
            change = results.change("fd_rec", "flow-8-inc", cell)
            verb = direction_text(change, "below", "above", "not told from")
            parts.append(f"{verb} that of {said} ({words.signed(change)})")
    text = f"FD of 8 Euler steps with corrected noise is {', '.join(parts)}"
    if results.has("flops", "flow-8-inc", "flow-16"):
        mine, other = (results.interval("flops", cell).mean for cell in ("flow-8-inc", "flow-16"))
        text += f", at {mine / other:.3g} times the operations of 16"
    return f"{text}."
