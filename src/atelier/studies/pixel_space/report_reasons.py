"""The answer first: one sentence a claim, which the numbers write."""

from collections.abc import Callable, Sequence

from atelier.evaluation.intervals import Interval, t_interval
from atelier.report import words
from atelier.report.items import Text
from atelier.studies.pixel_space.params import against, corrected
from atelier.studies.pixel_space.report_pairs import votes_on
from atelier.studies.pixel_space.report_results import DEFECTS, Results, points

OPEN = (
    "What pleases people is not measured here: `make ab` writes a page on which they compare pairs, and E1, E2 and E6 "
)
OPEN += "stay open in that part until their votes are in."
DOUBT = "The judge that measures defects did not pass its validation: what follows of defects decides nothing."


def answer(results: Results) -> Text:
    """One sentence for each of E1 to E6, what is open, and first whether scores of defects may be believed."""
    sentences: Sequence[Callable[[Results], str]] = (_e1, _e2, _e3, _e4, _e5, _e6)
    lines = [f"E{number}. {sentence(results)}" for number, sentence in enumerate(sentences, 1)]
    doubt = [] if results.is_validated else [DOUBT]
    return Text("\n".join([*doubt, *lines, OPEN]))


def _told(interval: Interval, below: str, above: str, neither: str) -> str:
    return below if interval.high < 0 else above if interval.low > 0 else neither


def _lacking(what: str) -> str:
    return f"Not seen in this profile, which does not measure {what}."


def _e1(results: Results) -> str:
    return _wins(results, "both", "latent", "Supervised, both terms")


def _e2(results: Results) -> str:
    said = _wins(results, "simpo-both", "dpo-latent", "By preference, both terms without a reference")
    known = [name for name in ("dpo-latent", "simpo-both") if results.has("winner_error", name)]
    rises = [f"{name} {words.signed(points(results.interval('winner_error', name)))} %" for name in known]
    return f"{said} Winners' denoising error changes by {', '.join(rises)}." if rises else said


def _wins(results: Results, a: str, b: str, who: str) -> str:
    """Who has fewer defects, beside the paper's voters, from both starts; and what happens above half Nyquist."""
    cell = against(a, b)
    if not results.has(f"net_{DEFECTS}", cell):
        return _lacking(cell)
    win, lose = (points(results.interval(f"{each}_{DEFECTS}", cell)).mean for each in ("win", "lose"))
    net = results.interval(f"net_{DEFECTS}", cell)
    ends = ("have more defects than", "have fewer defects than", "show no difference in defects from")
    paper = "; ".join(
        f"{row['flaws_win']:.1f} and {row['flaws_lose']:.1f} % in {row['model']}"
        for _, row in votes_on(results, a, b).iterrows()
    )
    text = (
        f"{who} {_told(net, *ends)} {b}: fewer in {win:.3g} % of pairs, more in {lose:.3g} %, wins less losses "
        f"{words.signed(points(net))} points{_moved(results, cell)}; the paper's voters: {paper}."
    )
    if not results.has("high_rec", a, b):
        return text
    change = results.change("high_rec", a, b)
    changes = _told(change, "falls", "rises", "shows no change")
    return f"{text} The error of log10 power above half Nyquist {changes}: {words.signed(change)}."


def _moved(results: Results, cell: str) -> str:
    """The same from the corrected start."""
    moved = corrected(cell)
    if not results.has(f"net_{DEFECTS}", moved):
        return ""
    return f", from the corrected start {words.signed(points(results.interval(f'net_{DEFECTS}', moved)))}"


def _e3(results: Results) -> str:
    pairs = {"supervised": ("both", "latent"), "by preference": ("simpo-both", "dpo-latent")}
    parts = []
    for how, pair in pairs.items():
        changes = [
            f"{name} {words.signed(points(results.change(name, *pair)))}"
            for name in ("subject", "style")
            if results.has(name, *pair)
        ]
        parts += [f"{how} {' and '.join(changes)}"] if changes else []
    if not parts:
        return _lacking("subjects and styles of these variants")
    return f"Pictures that match their prompt change by, in points: {'; '.join(parts)}; E3 allows 2 points less."


def _e4(results: Results) -> str:
    if not all(results.has(f"high_{where}", "latent", "pixel", "both") for where in ("inside", "outside")):
        return _lacking("subject and background of pixels alone")
    ends = ("falls", "rises", "shows no change")
    inside, outside = (results.change(f"high_{where}", "pixel", "latent") for where in ("inside", "outside"))
    back = results.change("high_outside", "both", "pixel")
    return (
        f"With pixels alone in place of latents, the error of log10 power above half Nyquist {_told(inside, *ends)} "
        f"in the subject, {words.signed(inside)}, and {_told(outside, *ends)} in the background, "
        f"{words.signed(outside)}; with both in place of pixels it {_told(back, *ends)} there, {words.signed(back)}."
    )


def _e5(results: Results) -> str:
    parts = []
    if results.has("log_form_ratio", "noisiest", "cleanest"):
        change = results.change("log_form_ratio", "noisiest", "cleanest")
        times, low, high = (10**each for each in change[:3])
        parts.append(
            "from the cleanest tenth of steps to the noisiest the clean form's gradient grows "
            f"{times:.3g} times ({low:.3g} to {high:.3g}) as much as the noisy form's"
        )
    if results.has("top", "both-clean", "both"):
        change = results.change("top", "both-clean", "both")
        less = _told(change, "less power", "more power", "no shown difference of power")
        parts.append(f"pictures after training with it have {less} above half Nyquist, {words.signed(change)} of log10")
    trips = [f"t-{t}" for t in (250, 500, 750) if results.has("round_trip", f"t-{t}")]
    if trips:
        shares = ", ".join(f"{results.interval('round_trip', each).mean:.3g} at {each[2:]}" for each in trips)
        parts.append(f"decoded and encoded again, noisy latents explain {shares} of their variance")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if parts else _lacking("either form")


def _e6(results: Results) -> str:
    cells = ("simpo-both", "simpo-latent", "dpo-both", "dpo-latent")
    if not results.has("fit", *cells):
        return _lacking("the pixel term with and without a reference")
    without, with_one = results.change("fit", *cells[:2]), results.change("fit", *cells[2:])
    interaction = interaction_of(results)
    defects = results.change(DEFECTS, "dpo-both", "dpo-latent")
    ends = ("below 0", "above 0", "not shown to differ from 0")
    return (
        f"The pixel term changes fit to the style (log-probability) without a reference by {words.signed(without)}, "
        f"with one by {words.signed(with_one)}; the difference is {_told(interaction, *ends)}, "
        f"{words.signed(interaction)}. With a reference it changes the defect score by {words.signed(defects)}."
    )


def interaction_of(results: Results) -> Interval:
    """The pixel term's effect on style fit without a reference, less its effect with one."""
    fit = {name: results.values["fit", name] for name in ("simpo-both", "simpo-latent", "dpo-both", "dpo-latent")}
    effects = fit["simpo-both"] - fit["simpo-latent"] - (fit["dpo-both"] - fit["dpo-latent"])
    return t_interval(effects.tolist())
