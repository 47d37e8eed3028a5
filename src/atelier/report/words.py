"""Phrases of captions that several pages share: seeds, pictures, and intervals in words."""

from atelier.evaluation.intervals import Interval
from atelier.params import Params


def seeds(params: Params) -> str:
    """How many seeds trained the models: ``5 training seeds``."""
    n = len(params.protocol.training_seeds)
    return f"{n} training seed" + "s" * (n > 1)


def pictures(params: Params, n: int | None = None, unit: str = "cell") -> str:
    """``n = 480 pictures a cell in 5 repeats, 5 training seeds``; without ``n``, the protocol's number."""
    protocol = params.protocol
    n = len(protocol.all_repeats) * protocol.pictures if n is None else n
    return f"n = {n} pictures a {unit} in {len(protocol.all_repeats)} repeats, {seeds(params)}"


def against_works(params: Params, works: int, n: int | None = None) -> str:
    """``pictures``, and how many held-out works they are measured against."""
    return f"{pictures(params, n)}, against {works} held-out works"


def features(params: Params) -> str:
    """Whose features ``fd`` and ``kd`` compare."""
    main = params.field_judges.main
    if main is None:
        return "fd and kd on the evaluator's features (Haar statistics without one), so neither FID nor KID"
    return (
        "fd is FID and kd is KID, on Inception's features" if main == "inception" else f"fd and kd on {main}'s features"
    )


def plus_minus(interval: Interval, sign: str = "+") -> str:
    """``+1.23 ± 0.45``, half of the interval; ``sign=""`` for a value that is not a change: ``1.23 ± 0.45``."""
    return f"{plain(f'{interval.mean:{sign}.3g}')} ± {plain(f'{interval.high - interval.mean:.2g}')}"


def signed(interval: Interval, spec: str = ".3g") -> str:
    """A change and its interval, ``+1.23 (+0.78 to +1.68)``; ``spec``: the numbers' format."""
    mean, low, high = (plain(f"{value:+{spec}}") for value in (interval.mean, interval.low, interval.high))
    return f"{mean} ({low} to {high})"


def unsigned(interval: Interval, spec: str = ".3f") -> str:
    """A value and its interval, ``1.230 (0.780 to 1.680)``."""
    return f"{interval.mean:{spec}} ({interval.low:{spec}} to {interval.high:{spec}})"


def plain(number: str) -> str:
    """A formatted number without the exponent that .3g gives to thousands: ``-1.82e+03`` is ``-1820``."""
    if "e+" not in number or abs(float(number)) >= 1e7:
        return number
    return f"{float(number):{'+' if number[0] == '+' else ''}.0f}"
