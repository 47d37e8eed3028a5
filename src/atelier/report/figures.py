"""What the notebooks draw: one style for the whole repository, colour-blind safe, legible when printed."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator
from torch import Tensor
from torch.nn.functional import avg_pool2d

from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation.intervals import t_interval
from atelier.metrics import spectra

# Okabe and Ito's colours tell apart for all common kinds of colour blindness; markers repeat what colour says
PALETTE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 8.0  # inches; text of 9 pt stays legible at a page's width
DPI = 110  # pixels per inch
LABEL = 30  # letters in a line beside a contact sheet
GAP = 3  # px between pictures of a contact sheet

STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "atelier",
}


def set_style() -> None:
    """The repository's look, for this process."""
    matplotlib.rcdefaults()  # a user's matplotlibrc must not change a page
    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
    sns.set_palette(PALETTE)


def contact_sheet(rows: Mapping[str, Tensor | Pictures], columns: Sequence[str] = (), scale: float = 0.75) -> Figure:
    """Unchanged pictures in a grid: one row per label, (n, 3, h, w) uint8; ``columns`` are the titles above.

    Pixels are repeated or averaged by a whole number, so that a picture's side comes near ``scale`` inches, and each
    pixel of the grid is one of the figure: no interpolation blurs what is compared.
    """
    shown = {label: each.load() if isinstance(each, Pictures) else each for label, each in rows.items()}
    tiles = {label: _sized(pictures, scale) for label, pictures in shown.items()}
    height, width = (max(tile.shape[side] for tile in tiles.values()) + GAP for side in (1, 2))
    widest = max(map(len, tiles.values()))
    grid = np.full((len(tiles) * height, widest * width, 3), 255, dtype=np.uint8)
    for line, tile in enumerate(tiles.values()):
        for index, picture in enumerate(tile):
            top, left = line * height, index * width
            grid[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    titles = [textwrap.fill(name, round(16 * scale), break_long_words=False) for name in columns[:widest]]
    return _labelled(grid, list(tiles), titles, height, width)


def _sized(pictures: Tensor, scale: float) -> np.ndarray:
    """Pictures (n, h, w, 3) uint8, enlarged by repeated pixels or reduced by averaged ones; RGB also where grey."""
    x = pictures.expand(-1, 3, -1, -1)
    side, target = x.shape[-1], scale * DPI
    if (halvings := round(math.log2(side / target))) > 0:  # a power of two divides a side, a multiple of 8
        x = avg_pool2d(x.float(), 2**halvings).round().to(x.dtype)
    up = max(1, round(target / side))
    return x.permute(0, 2, 3, 1).repeat_interleave(up, 1).repeat_interleave(up, 2).numpy()


def _labelled(grid: np.ndarray, labels: Sequence[str], titles: Sequence[str], height: int, width: int) -> Figure:
    """A figure of a grid's pixels with labels at the left of its rows and titles above its columns."""
    figure = plt.figure(dpi=DPI, layout="none")
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]

    def written(text: str, size: float, **aligned: str) -> Text:
        return figure.text(0, 0, text, fontsize=size, **aligned)  # type: ignore[arg-type]

    lines = [textwrap.fill(label, LABEL, drop_whitespace=False) for label in labels]
    names = [written(line, 8, ha="right", va="center") for line in lines]
    above = [written(title, 7, ha="center", va="bottom") for title in titles]
    boxes = [[text.get_window_extent(renderer) for text in texts] for texts in (names, above)]
    left = math.ceil(max(box.width for box in boxes[0])) + 2 * GAP
    top = math.ceil(max((box.height for box in boxes[1]), default=0)) + 2 * GAP
    full_width, full_height = left + grid.shape[1], top + grid.shape[0]
    figure.set_size_inches(full_width / DPI, full_height / DPI)
    axes = figure.add_axes((left / full_width, 0, grid.shape[1] / full_width, grid.shape[0] / full_height))
    axes.imshow(grid, interpolation="none", aspect="auto")
    axes.set_axis_off()
    for line, name in enumerate(names):
        name.set_position(((left - GAP) / full_width, 1 - (top + line * height + (height - GAP) / 2) / full_height))
    for index, title in enumerate(above):
        title.set_position(((left + index * width + (width - GAP) / 2) / full_width, 1 - (top - GAP) / full_height))
    return figure


def _mean_spectrum(of: spectra.SpectrumMean, pictures: Tensor | Pictures) -> np.ndarray:
    """The mean over pictures (n, 3, h, w) uint8, which are read batch by batch."""
    for batch in in_memory(pictures).batches():
        of.update(batch / 255)
    return of.mean


def mean_power_spectrum(pictures: Tensor | Pictures) -> np.ndarray:
    """Mean grey power spectrum (h, w) of pictures (n, 3, h, w) uint8."""
    return _mean_spectrum(spectra.power_spectrum_mean(), pictures)


def radial_spectra(sets: Mapping[str, Tensor | Pictures], low: int) -> Figure:
    """Mean power against frequency, log-log: label -> pictures (n, 3, h, w) uint8; the fit starts at ``low``."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 3.4))
    for at, (label, pictures) in enumerate(sets.items()):
        spectrum = mean_power_spectrum(pictures)
        (frequency, power), slope = spectra.radial_power(spectrum), spectra.spectrum_slope(spectrum, low)
        axis.plot(
            frequency, power, color=PALETTE[at % len(PALETTE)], marker=MARKERS[at % len(MARKERS)], markersize=3,
            linewidth=1.2, label=f"{label} (n = {len(pictures)}, slope {slope:.2f})",
        )  # fmt: skip
    axis.axvline(low, color="0.6", linewidth=0.8, linestyle=":")
    _against_frequency(axis, frequency, "mean power of grey levels")
    axis.legend(fontsize=7.5)
    return figure


def _against_frequency(axis: Axes, frequency: np.ndarray, ylabel: str) -> None:
    """Both axes logarithmic, a tick an octave."""
    octaves = [2**power for power in range(int(np.log2(frequency[-1])) + 1)]
    axis.set(xscale="log", yscale="log", xlabel="frequency (cycles per picture)", ylabel=ylabel)
    axis.set_xticks(octaves, [str(tick) for tick in octaves])
    axis.minorticks_off()


def training_panels(history: pd.DataFrame, terms: Mapping[str, str]) -> Figure:
    """One panel per loss term, against step; ``terms`` maps a column of ``history`` to what stands above."""
    columns = min(2, len(terms))
    lines = -(-len(terms) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(WIDTH * 0.5 * columns, 2.3 * lines), squeeze=False)
    for axis, (name, title) in zip(axes.flat, terms.items(), strict=False):
        axis.plot(history["step"], _smoothed(history[name]), color=PALETTE[0], linewidth=1.2)
        axis.set(xlabel="step", title=title)
    for axis in list(axes.flat)[len(terms) :]:
        axis.set_axis_off()
    return figure


def _smoothed(values: pd.Series) -> pd.Series:
    """A running mean over a twelfth of them."""
    return values.rolling(max(1, len(values) // 12), min_periods=1, center=True).mean()


def training_curves(history: pd.DataFrame, value: str, group: str, label: str) -> Figure:
    """Loss against step, one line per ``group``."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 2.8))
    for at, (name, rows) in enumerate(history.groupby(group, sort=False)):
        smooth = _smoothed(rows[value])
        axis.plot(rows["step"], smooth, color=PALETTE[at % len(PALETTE)], linewidth=1.2, label=str(name))
    axis.set(xlabel="step", ylabel=label)
    figure.legend(loc="outside right upper", fontsize=7.5)
    return figure


def curves(table: pd.DataFrame, measures: Mapping[str, str], x: str, group: str, xlabel: str) -> Figure:
    """One panel per measure: mean against ``x``, one line per ``group``, bars for 95 % intervals over repeats.

    ``table`` has columns x, group and, for each measure, NAME, NAME_low, NAME_high; ``measures`` maps NAME to its axis.
    """
    columns = min(2, len(measures))
    lines = -(-len(measures) // columns)
    size = (WIDTH if columns > 1 else WIDTH * 0.62, 2.7 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
    groups = list(dict.fromkeys(table[group]))
    for axis, (name, label) in zip(axes.flat, measures.items(), strict=False):
        for at, which in enumerate(groups):
            rows = table[table[group] == which].sort_values(x)
            # a little apart, or else the bars hide each other
            shift = (at - (len(groups) - 1) / 2) * 0.012 * float(np.ptp(table[x]) or 1.0)
            bars = np.abs(rows[[f"{name}_low", f"{name}_high"]].to_numpy().T - rows[name].to_numpy())
            axis.errorbar(
                rows[x] + shift, rows[name], yerr=bars, color=PALETTE[at % len(PALETTE)],
                marker=MARKERS[at % len(MARKERS)], markersize=4, linewidth=1.2, elinewidth=0.7, capsize=1.5,
                label=str(which),
            )  # fmt: skip
        axis.set(xlabel=xlabel, ylabel=label, xticks=sorted(set(table[x])))
    for axis in list(axes.flat)[len(measures) :]:
        axis.set_axis_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def dots(table: pd.DataFrame, xlabel: str, reference: float | None = None) -> Figure:
    """One row per label: value and 95 % interval (columns value, low, high), downwards; a line at a reference.

    A column ``group``, where there is one, gives colours and markers.
    """
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 0.24 * len(table) + 0.9))
    groups = list(dict.fromkeys(table["group"])) if "group" in table else [""]
    for at, which in enumerate(groups):
        mask = (table["group"] == which).to_numpy() if "group" in table else np.ones(len(table), dtype=bool)
        rows, places = table[mask], np.flatnonzero(mask)
        bars = np.abs(rows[["low", "high"]].to_numpy().T - rows["value"].to_numpy())
        axis.errorbar(
            rows["value"], places, xerr=bars, linestyle="", color=PALETTE[at % len(PALETTE)],
            marker=MARKERS[at % len(MARKERS)], markersize=4, elinewidth=0.8, capsize=1.5, label=which,
        )  # fmt: skip
    if reference is not None:
        axis.axvline(reference, color="0.6", linewidth=0.8, linestyle=":")
    axis.set(yticks=range(len(table)), yticklabels=list(table.index), xlabel=xlabel)
    axis.invert_yaxis()
    if len(groups) > 1:
        figure.legend(loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def densities(sets: Mapping[str, np.ndarray], xlabel: str) -> Figure:
    """Distributions of numbers a picture: label -> (n,); kernel estimates, and a tick a picture."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 3.0))
    styles = ("-", "--", "-.", ":")
    for at, (label, values) in enumerate(sets.items()):
        color = PALETTE[at % len(PALETTE)]
        sns.kdeplot(
            x=values, ax=axis, color=color, linestyle=styles[at % len(styles)], label=f"{label} (n = {len(values)})"
        )
        axis.plot(values, np.full(len(values), -0.02 * (at + 1)), "|", color=color, markersize=4, alpha=0.5,
                  transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
    axis.set(xlabel=xlabel, ylabel="density")
    axis.tick_params(axis="x", pad=4 + 2 * len(sets))
    axis.legend(fontsize=7.5)
    return figure


def snr_by_frequency(frequency: np.ndarray, sets: Mapping[str, np.ndarray]) -> Figure:
    """Signal-to-noise ratio against frequency (DCT, half cycles a latent), log: label -> one value per frequency."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 3.0))
    for at, (label, values) in enumerate(sets.items()):
        axis.plot(frequency, values, linestyle="", marker=MARKERS[at % len(MARKERS)], markersize=4,
                  color=PALETTE[at % len(PALETTE)], label=label)  # fmt: skip
    axis.axhline(1.0, color="0.6", linewidth=0.8, linestyle=":")
    axis.set(yscale="log", xlabel="frequency (half cycles a latent)", ylabel="signal over noise (power)")
    axis.legend(fontsize=7.5)
    return figure


def against_prediction(table: pd.DataFrame, xlabel: str, ylabel: str) -> Figure:
    """Measured (value, low, high) against ``predicted``, a label a row; on the line they agree."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.5, WIDTH * 0.42))
    for at, (label, row) in enumerate(table.iterrows()):
        axis.errorbar(row["predicted"], row["value"], yerr=[[row["value"] - row["low"]], [row["high"] - row["value"]]],
                      color=PALETTE[at % len(PALETTE)], marker=MARKERS[at % len(MARKERS)], markersize=5, capsize=2,
                      linestyle="", label=str(label))  # fmt: skip
    axis.plot([0, 1.2], [0, 1.2], color="0.6", linewidth=0.8, linestyle=":")
    axis.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.2), ylim=(0, None))
    axis.legend(fontsize=7.5)
    return figure


def spectral_ratios(ratios: Mapping[str, Sequence[np.ndarray]], frequency: np.ndarray) -> Figure:
    """Power of made over real pictures against frequency: label -> a ring curve a group; lines are geometric means.

    Shaded: 95 % intervals over groups.
    """
    figure, axis = plt.subplots(figsize=(WIDTH * 0.62, 3.0))
    for at, (label, curves_there) in enumerate(ratios.items()):
        rings = [t_interval(values.tolist()) for values in np.log10(np.stack(list(curves_there))).T]
        middle, low, high = (
            10 ** np.array([getattr(ring, name) for ring in rings]) for name in ("mean", "low", "high")
        )
        color = PALETTE[at % len(PALETTE)]
        axis.plot(frequency, middle, color=color, marker=MARKERS[at % len(MARKERS)], markersize=3, label=label)
        axis.fill_between(frequency, low, high, color=color, alpha=0.2, linewidth=0)
    axis.axhline(1.0, color="0.6", linewidth=0.8, linestyle=":")
    _against_frequency(axis, frequency, "power over the works' power")
    # less than a decade, often: more than its ends must bear a number
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.legend(fontsize=7.5)
    return figure


def matrix(table: pd.DataFrame, label: str, xlabel: str, ylabel: str, digits: int = 0) -> Figure:
    """A table's numbers as colours and in figures, rows downwards."""
    size = 0.62 * len(table) + 1.6
    figure, axis = plt.subplots(figsize=(min(WIDTH, size + 1.2), min(0.75 * WIDTH, 0.62 * size + 1)))
    sns.heatmap(
        table,
        annot=True,
        fmt=f".{digits}f",
        cmap="cividis",
        ax=axis,
        annot_kws={"fontsize": 7},
        cbar_kws={"label": label},
    )
    axis.grid(False)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.tick_params(labelsize=7.5)
    return figure


def residual_spectra(sets: Mapping[str, Tensor | Pictures]) -> Figure:
    """Mean residual power spectra as pictures, log scale, one colour bar; label -> pictures (n, 3, h, w) uint8."""
    means = {label: _mean_spectrum(spectra.residual_spectrum_mean(), pictures) for label, pictures in sets.items()}
    maps = {label: np.log10(mean + 1e-3) for label, mean in means.items()}
    least, most = min(float(m.min()) for m in maps.values()), max(float(m.max()) for m in maps.values())
    figure, axes = plt.subplots(1, len(maps), figsize=(2.1 * len(maps) + 0.8, 2.7), squeeze=False)
    for axis, (label, values) in zip(axes[0], maps.items(), strict=True):
        half = values.shape[0] / 2
        shown = axis.imshow(values, vmin=least, vmax=most, cmap="cividis", extent=(-half, half, half, -half))
        axis.set_title(f"{label}\nn = {len(sets[label])}", fontsize=8)
        axis.set_xlabel("cycles per picture", fontsize=7)
        axis.grid(False)
    figure.colorbar(shown, ax=axes[0].tolist(), label="log10 power (grey levels²)", shrink=0.8)
    return figure
