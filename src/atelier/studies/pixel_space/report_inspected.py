"""Both forms of the pixel loss before any training: their gradients by noise level, and what decoders make of noise."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from atelier.evaluation.intervals import t_interval
from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.studies.pixel_space.report_results import INTERVALS, Results

FORMS = {
    "latent": "latents (eq. 1)",
    "noisy": "noisy form (eq. 2)",
    "clean": "clean form (eq. 8)",
}
WANTED = 5.0  # times that the ratio of norms grows at least, for claim E5


def figure_seven(results: Results) -> list[Item]:
    """The paper's figure 7 redrawn, as pictures and as norms of gradients by noise level."""
    shown: list[Item] = []
    if results.decoded:
        caption = (
            "One held-out work by noise level, t above: decoded as it is (what eq. 2 compares with), and the base's "
            "clean estimate decoded (eq. 8). Decoders never saw the former; the latter loses detail as noise grows."
        )
        columns = [f"t = {t}" for t in results.decoded_at]
        shown.append(Figure("decoded", figures.contact_sheet(results.decoded, columns, 0.68), caption))
    return [*shown, _norms(results)]


def _norms(results: Results) -> Figure:
    """log10 of each form's gradient norm with respect to the denoiser's output, by noise level."""
    rows, metrics = [], {}
    for _, row in results.gradients.iterrows():
        values = row.filter(regex=r"^group\d+$").dropna().to_numpy(dtype=np.float64)
        interval = t_interval(np.log10(values).tolist())
        name, t = str(row["form"]), int(row["t"])
        rows.append({"t": t, "form": FORMS.get(name, name), "norm": interval.mean, "norm_low": interval.low,
                     "norm_high": interval.high})  # fmt: skip
        metrics[f"gradient/{name}/{t}"] = Metric(interval, int(row["n"]))
    label = {"norm": "log10 of the gradient's norm"}
    figure = figures.curves(pd.DataFrame(rows), label, "t", "form", "step t of the schedule (more is noisier)")
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))  # not a number for each of many levels
    n = ", ".join(str(n) for n in sorted(set(results.gradients["n"])))
    caption = (
        "Norm of each loss's gradient with respect to the denoiser's output, before training, on held-out works' "
        f"latents; {INTERVALS}; n = {n} works a point."
    )
    return Figure("gradients", figure, caption, metrics)


def ratio(results: Results) -> Text:
    """By how many times the ratio of both forms' norms grows from the cleanest to the noisiest tenth of steps."""
    if not results.has("log_form_ratio", "noisiest", "cleanest"):
        return Text("The ratio of both forms' gradients was not measured.")
    change = results.change("log_form_ratio", "noisiest", "cleanest")
    times, low, high = (10**each for each in change[:3])
    return Text(
        f"From the cleanest tenth of steps to the noisiest, the clean form's gradient grows {times:.3g} times "
        f"({low:.3g} to {high:.3g}) as much as the noisy form's; E5 requires more than {WANTED:g}.",
        {"form_ratio": Metric(change, results.n_of("log_form_ratio", "noisiest"), "log10")},
    )


def round_trips(results: Results) -> Table | Text:
    """How much of a noisy latent's variance is left when it is decoded and encoded again."""
    cells = _levels(results)
    if not cells:
        return Text("No round trip was measured.")
    rows, metrics = {}, {}
    for cell in cells:
        interval = results.interval("round_trip", cell)
        rows[cell.removeprefix("t-")] = {"variance explained": words.unsigned(interval, ".3g")}
        metrics[f"round_trip/{cell}"] = Metric(interval, results.n_of("round_trip", cell))
    caption = (
        "Share of the variance of z_t that is explained by z_t decoded and encoded again; 1: the autoencoder returns "
        f"noisy latents, below 0: it is worse than their mean; {INTERVALS}; n = "
        f"{results.n_of('round_trip', cells[0])} works."
    )
    return Table("round_trips", pd.DataFrame(rows).T.rename_axis("t"), caption, metrics)


def _levels(results: Results) -> Sequence[str]:
    cells = {cell for measure, cell in results.values if measure == "round_trip" and cell.startswith("t-")}
    return sorted(cells, key=lambda cell: int(cell.removeprefix("t-")))
