"""Inverse noise correction: round trips, the law of inverted noise, and distance against operations a picture."""

import re

import pandas as pd
from matplotlib import pyplot as plt

from atelier.report import figures, words
from atelier.report.items import Figure, Item, Metric, Table, Text
from atelier.studies.shaping.report_results import INTERVALS, Results, scaled

KINDS = {"": "without correction", "-inc": "with correction", "-longer": "trained longer, without"}
FLOW = re.compile(r"^flow-(?P<steps>\d+)(?P<kind>-inc|-longer)?$")
LEAST = 1e-3  # of the relative error of round trips, in 99 % of samples
TESTED = {  # measure -> its name, and significant digits
    "noise_mean": ("mean", 3),
    "noise_variance": ("variance", 3),
    "noise_p_mean": ("p of the mean", 2),
    "noise_p_covariance": ("p of the covariance", 2),
    "noise_p_length": ("p of the length", 2),
    "noise_p_normal": ("p of normality, least of all", 2),
    "noise_not_normal": ("not normal", 3),
}
SHOWN = ("fd_rec", "fd", "recall", "precision", "near_features", "near_pixels")


def cells(results: Results, measure: str = "fd_rec") -> list[tuple[int, str, str]]:
    """Main steps, kind and cell of each flow that has a measure, by kind and then by steps."""
    known = [(match, cell) for name, cell in results.measured if name == measure and (match := FLOW.match(cell))]
    listed = [(int(match["steps"]), match["kind"] or "", cell) for match, cell in known]
    return sorted(listed, key=lambda each: (list(KINDS).index(each[1]), each[0]))


def round_trips(results: Results) -> Table | Text:
    """Errors of both round trips, and how fast fixed points converge, by main steps."""
    rows, metrics = {}, {}
    for steps, _, cell in cells(results, "round_trip_data"):
        row = {"steps": str(steps)}
        for name, label in (
            ("round_trip_data", "data, noise, data"),
            ("round_trip_noise", "noise, data, noise"),
            ("convergence", "contraction over its estimate"),
        ):
            if results.has(name, cell):
                row[label] = words.unsigned(results.interval(name, cell), ".2g")
                metrics[f"{name}/{cell}"] = Metric(results.interval(name, cell), results.n_of(name, cell))
        rows[cell] = row
    if not rows:
        return Text("This profile inverts no flow.")
    n = results.n_of("round_trip_data", next(iter(rows)))
    caption = (
        "Relative errors that 99 % of samples stay below, float32, Euler sampler, guidance 1 in both directions, "
        f"training works alone; F4 asks for {LEAST:g} of both. *contraction*: by which the fixed point's differences "
        "shrink over what is estimated beforehand, where that is below 1; F4 asks for at most 1.2. "
        f"{INTERVALS}; n = {n} works."
    )
    return Table("round_trips", pd.DataFrame(rows).T.rename_axis("flow").fillna(""), caption, metrics)


def noise_law(results: Results) -> list[Item]:
    """How inverted noise differs from N(0, I): tests of all directions together, and direction by direction."""
    rows, metrics = {}, {}
    for steps, _, cell in cells(results, "noise_p_mean"):
        row = {"steps": str(steps)}
        for name, (label, digits) in TESTED.items():
            if results.has(name, cell):
                value = results.interval(name, cell).mean  # the same in every group
                row[label] = f"{value:.{digits}g}"
                metrics[f"{name}/{cell}"] = Metric(value, results.n_of(name, cell))
        rows[cell] = row
    if not rows:
        return [Text("The law of inverted noise was not tested in this profile.")]
    n = results.n_of("noise_p_mean", next(iter(rows)))
    caption = (
        f"Noise of training works by exact inversion against N(0, I), in orthonormal cosine waves; n = {n} works; "
        "float32, guidance 1. *mean*: its square, a direction; *not normal*: share of directions with p below 0.01 "
        "(Shapiro and Wilk), of which N(0, I) has 0.01."
    )
    table = Table("noise_law", pd.DataFrame(rows).T.rename_axis("flow").fillna(""), caption, metrics)
    return [table, *_directions(results), *_nearer(results)]


def _directions(results: Results) -> list[Item]:
    """Variance of inverted noise by direction, sorted, and the p-value of each direction's normality."""
    table = results.noise
    if table.empty:
        return []
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.9), squeeze=False)
    for at, (k, rows) in enumerate(table.groupby("k", sort=True)):
        for axis, column in zip(axes[0], ("variance", "p_normal"), strict=True):
            values = rows[column].sort_values(ascending=column == "p_normal").reset_index(drop=True)
            axis.plot(
                values.index, values, marker=figures.MARKERS[at % len(figures.MARKERS)], markersize=2, linewidth=1.0,
                color=figures.PALETTE[at % len(figures.PALETTE)], label=f"{k} steps",
            )  # fmt: skip
    count = table.groupby("k").size().max()
    axes[0, 0].axhline(1.0, color="0.6", linewidth=0.8, linestyle=":")
    axes[0, 0].set(xlabel="direction, by variance", ylabel="variance (of N(0, I): 1)")
    axes[0, 1].plot([0, count - 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
    axes[0, 1].set(xlabel="direction, by p", ylabel="p that it is normal")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7.5)
    caption = (
        "Inverted noise by direction (cosine wave of a channel): variance, and p of normality; dotted: what N(0, I) "
        f"gives; {count} directions."
    )
    return [Figure("noise_law", figure, caption)]


def _nearer(results: Results) -> list[Item]:
    """Whether corrected noise is nearer to inverted noise than white noise is, and whether it copies any of it."""
    rows, metrics = {}, {}
    for steps, kind, cell in cells(results, "noise_distance"):
        row = {"steps": str(steps), "noise": "corrected" if kind == "-inc" else "white"}
        for name, label in (("noise_distance", "distance to inverted noise"), ("near_noise", "near copies (%)")):
            if results.has(name, cell):
                interval = scaled(results.interval(name, cell), 100.0 if name == "near_noise" else 1.0)
                row[label] = words.unsigned(interval, ".3g")
                metrics[f"{name}/{cell}"] = Metric(interval, results.n_of(name, cell))
        rows[cell] = row
    if not rows:
        return []
    caption = (
        "Distance: squared Wasserstein distance of two normal laws with the directions' moments, mean over directions. "
        "Near copies: share nearer to the noise of a training work than 99 % of as much white noise is (1 % by "
        f"chance). {INTERVALS}."
    )
    return [Table("noise_distance", pd.DataFrame(rows).T.rename_axis("flow").fillna(""), caption, metrics)]


def operations(results: Results) -> list[Item]:
    """Distance against operations a picture, as a figure and a table, with the share of copies of training works."""
    listed = [each for each in cells(results) if results.has("flops", each[2])]
    if not listed:
        return [Text("No flow's pictures were measured in this profile.")]
    figure, axis = plt.subplots(figsize=(figures.WIDTH * 0.62, 3.2))
    rows, metrics = {}, {}
    for at, (kind, label) in enumerate(KINDS.items()):
        mine = [(steps, cell) for steps, each, cell in listed if each == kind]
        points = [(results.interval("flops", cell).mean / 1e9, results.interval("fd_rec", cell)) for _, cell in mine]
        if points:
            bars = [[y.mean - y.low for _, y in points], [y.high - y.mean for _, y in points]]
            axis.errorbar([x for x, _ in points], [y.mean for _, y in points], yerr=bars, color=figures.PALETTE[at],
                          marker=figures.MARKERS[at], markersize=5, linewidth=1.2, elinewidth=0.7, capsize=1.5,
                          label=label)  # fmt: skip
        for steps, cell in mine:
            rows[cell] = {"steps": str(steps), "what": label, "GFLOPs a picture": _gflops(results, cell)}
            for measure in (name for name in SHOWN if results.has(name, cell)):
                rows[cell][measure] = words.plus_minus(results.interval(measure, cell), "")
                metrics[f"{measure}/{cell}"] = Metric(results.interval(measure, cell), results.n_of(measure, cell))
            flops = results.interval("flops", cell).mean
            metrics[f"flops/{cell}"] = Metric(flops, results.n_of("flops", cell), "FLOP")
    axis.set(xlabel="GFLOPs a picture", ylabel="FD to reconstructed works")
    axis.legend(fontsize=7.5)
    n = results.n_of("fd_rec", listed[0][2])
    caption = (
        "Operations a picture, from prompt to pixels, by torch's counter (multiplication and addition are two): text, "
        f"main steps, corrector, decoder. Euler sampler, guidance 1; {INTERVALS}; n = {n} pictures a row. *near*: "
        "share of pictures nearer to a training work than 99 % of the held-out works are."
    )
    frame = pd.DataFrame(rows).T.rename_axis("flow").fillna("")
    return [Figure("operations", figure, caption), Table("operations", frame, caption, metrics), *_parts(results)]


def _parts(results: Results) -> list[Item]:
    """Operations of each part once, counted, and for U-Nets by hand; nothing where none were counted."""
    table = results.parts
    if table.empty:
        return []
    frame = pd.DataFrame(
        {
            "counted (GFLOPs)": (table["counted"] / 1e9).to_numpy(),
            "by hand (GFLOPs)": (table["by_hand"] / 1e9).to_numpy(),
            "apart (%)": (100 * (table["counted"] / table["by_hand"] - 1)).to_numpy(),
        },
        index=pd.Index(table["part"], name="part"),
    )
    metrics = {f"operations/{row['part']}": Metric(float(row["counted"]), 1, "FLOP") for _, row in table.iterrows()}
    caption = "Operations of each part once, for one picture: by torch's counter, and of U-Nets by the sizes of layers."
    return [Table("operations_by_part", frame, caption, metrics)]


def _gflops(results: Results, cell: str) -> str:
    return f"{results.interval('flops', cell).mean / 1e9:.4g}"
