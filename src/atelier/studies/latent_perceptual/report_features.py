"""What the loss sees before anything is trained: stages, gradients, outliers, interpolated latents."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from atelier.evaluation.intervals import FloatArray, Interval, t_interval
from atelier.methods.latent_perceptual import (
    MASKED_FROM,
    Options,
    depth_weights,
    outlier_mask,
    stage_losses,
    threshold,
)
from atelier.params import Norm
from atelier.report import figures, words
from atelier.report.items import Figure, Metric, Table, Text
from atelier.studies.latent_perceptual.features import (
    DEEP,
    FACTORS,
    FAR,
    PAIRS,
    PAPER_TAU,
    REVERSALS,
)
from atelier.studies.latent_perceptual.report_results import CLEAN, INTERVALS, Results, by_group, stage_columns

PREMISE = (1.5, 2.7)  # ratio of two stages' losses that is called a doubling
ORANGE = (255, 159, 0)  # of masked elements
WHITE_MAPS = 1000
REVERSAL_LABELS = {
    ("reversed", PAIRS): "pairs alike in latent error (within 30 %) whose order changes when decoded",
    ("reversal", REVERSALS[0]): "bicubic by 1.3: farther as a latent, nearer as a picture than bilinear by 2",
    ("reversal", REVERSALS[1]): "nearest: farther as a latent, nearer as a picture than bilinear by as much: mean",
}

# ---------------------------------------------------------------------------------------------- stages


def stages(results: Results) -> Table:
    """Each stage's loss without its weight, on the steps that count, and its ratio to the stage before."""
    losses, ratios, sides = _stage_losses(results), _ratios(results), _sides(results)
    rows, metrics = {}, {}
    for (name, values), side, weight in zip(losses.items(), sides, depth_weights(sides), strict=True):
        interval = t_interval(values.tolist())
        rows[name.removeprefix("stage")] = {
            "side (px)": f"{side}",
            "weight": f"{weight:g}",
            "loss": words.unsigned(interval),
            "over the stage before": words.unsigned(ratios[name], ".2f") if name in ratios else "",
        }
        metrics[f"stage/{name}"] = Metric(interval, results.n_inspected)
    metrics |= {f"stage/{name}/ratio": Metric(ratios[name], results.n_inspected) for name in _doublings(results)}
    caption = (
        f"Sigma up to {threshold(PAPER_TAU, results.latent_side):g}; the premise: {_premise()} where the side doubles; "
        f"{INTERVALS}; {results.inspected_counted}."
    )
    return Table("stages", pd.DataFrame(rows).T.rename_axis("stage"), caption, metrics)


def premise(results: Results) -> Text:
    """In how many stages the premise behind the weights holds."""
    low, high = PREMISE
    ratios, doublings = _ratios(results), _doublings(results)
    held = sum(low <= ratios[name].mean <= high for name in doublings)
    return Text(
        f"The premise behind the weights: where the side doubles, the loss is {_premise()} times as large "
        f"in {held} of {len(doublings)} stages."
    )


def _premise() -> str:
    return f"{PREMISE[0]:g} to {PREMISE[1]:g}"


def _counted(results: Results) -> pd.DataFrame:
    """Losses on the steps that count with the paper's threshold."""
    return results.losses[results.losses["sigma"] <= threshold(PAPER_TAU, results.latent_side)]


def _sides(results: Results) -> list[int]:
    return [features.shape[-1] for features in results.maps]


def _stage_losses(results: Results) -> dict[str, FloatArray]:
    """Mean losses by stage, one value per group of pictures."""
    counted = _counted(results)
    return {name: counted.groupby("group")[name].mean().to_numpy() for name in stage_columns(counted)}


def _ratios(results: Results) -> dict[str, Interval]:
    """Each stage's loss over that of the stage before; none of the first."""
    losses = _stage_losses(results)
    names = list(losses)
    pairs = zip(names[1:], names, strict=False)
    return {name: t_interval((losses[name] / losses[before]).tolist()) for name, before in pairs}


def _doublings(results: Results) -> list[str]:
    """Stages with twice the side of the stage before."""
    names, sides = stage_columns(results.losses), _sides(results)
    pairs = zip(names[1:], sides[1:], sides, strict=False)
    return [name for name, side, before in pairs if side == 2 * before]


def shifted(results: Results) -> Table:
    """The loss where predicted features are scaled and shifted: separate statistics cannot see it."""
    rows, metrics = {}, {}
    norms: tuple[Norm, ...] = ("separate", "predicted")
    for norm in norms:
        changed = [2 * features + 1 for features in results.maps]
        losses = stage_losses(results.maps, changed, results.params.data.size, Options(norm=norm))
        rows[norm] = {f"stage {number}": f"{loss.mean():.2g}" for number, loss in enumerate(losses, 1)}
        metrics[f"shifted/{norm}"] = Metric(max(float(loss.mean()) for loss in losses), len(results.maps[0]))
    caption = (
        f"The loss where predicted features are 2 phi + 1, phi those of {len(results.maps[0])} held-out "
        f"{results.noun}: with separate statistics, which cannot see the change, and with shared ones."
    )
    return Table("shifted", pd.DataFrame(rows).T.rename_axis("statistics"), caption, metrics)


# ---------------------------------------------------------------------------------------------- gradients


def direction(results: Results) -> Figure:
    """Cosine of the loss's gradient with squared error's, and the weighted loss, by noise level."""
    rows = []
    for step, level in results.losses.groupby("t"):
        row: dict[str, object] = {"t": step, "of": "the base's estimates"}
        for name in ("cosine", "loss"):
            interval = by_group(level, name)
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    axes = {"cosine": "cosine of gradients", "loss": "weighted loss"}
    caption = (
        f"By training step (0: clean); steps up to {int(_counted(results)['t'].max())} of these count at tau = "
        f"{PAPER_TAU:g}; 95 % intervals; {results.inspected_counted}."
    )
    figure = figures.curves(pd.DataFrame(rows), axes, "t", "of", "training step")
    metrics = {"direction/cosine": Metric(direction_cosine(results), results.n_inspected)}
    return Figure("direction", figure, caption, metrics)


def direction_cosine(results: Results) -> Interval:
    """Cosine of the loss's gradient with squared error's, on the steps that count."""
    return by_group(_counted(results), "cosine")


def gradient_cosines(results: Results) -> dict[tuple[str, str], Interval]:
    """Cosines between gradients with respect to the trained parameters, by pair of losses."""
    table = results.gradients
    pairs = table[["of", "against"]].drop_duplicates().itertuples(index=False, name=None)
    return {
        (loss, reference): by_group(table[(table["of"] == loss) & (table["against"] == reference)], "cosine")
        for loss, reference in pairs
    }


def gradient_batches(results: Results) -> int:
    """Batches whose gradients every pair of losses was compared on."""
    return int(results.gradients.groupby(["of", "against"]).size().min())


def gradients(results: Results) -> list[Table]:
    """Cosines between gradients, before training; nothing where no variant has the loss."""
    cosines = gradient_cosines(results)
    if not cosines:
        return []
    sizes = results.gradients.groupby(["of", "against"]).size()
    metrics = {
        f"gradient/{loss}/{reference}": Metric(interval, int(sizes[loss, reference]))
        for (loss, reference), interval in cosines.items()
    }
    rows = {pair: {"cosine": words.unsigned(interval, ".2f")} for pair, interval in cosines.items()}
    caption = (
        f"Gradients at the trained parameters, before training; 95 % intervals; n = {gradient_batches(results)} "
        f"batches of {results.config.optimisation.batch}."
    )
    frame = pd.DataFrame(rows).T.rename_axis(["gradient of", "with that of"])
    return [Table("gradients", frame, caption, metrics)]


# ---------------------------------------------------------------------------------------------- outliers


def outliers(results: Results) -> Table:
    """Feature maps with masked patches and with values far from the rest, by stage."""
    sums = results.outliers.groupby(["stage", "down"])[["maps", "masked", "far"]].sum().reset_index()
    farthest = results.outliers.groupby("stage")["farthest"].max()
    rows = {
        str(row["stage"]): {
            "side over the picture's": f"1/{row['down']:g}",
            "maps": f"{row['maps']:.0f}",
            "with a masked patch (%)": f"{100 * row['masked'] / row['maps']:.2f}",
            f"{WHITE_MAPS:,} of white noise (%)": f"{_masked_noise(results, row['down']):.1f}",
            f"beyond {FAR:g} deviations (%)": f"{100 * row['far'] / row['maps']:.2f}",
            "farthest (deviations)": f"{farthest[row['stage']]:.1f}",
        }
        for row in sums.to_dict("records")
    }
    caption = (
        f"Outliers; the loss masks stages with 1/{MASKED_FROM} of the picture's side and more, "
        f"and leaves the others whole; {results.inspected_counted}."
    )
    metrics = {"outliers/deep": Metric(results.interval("outliers", DEEP), deep_maps(results))}
    return Table("outliers", pd.DataFrame(rows).T.rename_axis("stage"), caption, metrics)


def deep_maps(results: Results) -> int:
    """Feature maps of the stages that the loss masks."""
    return int(results.outliers.loc[results.outliers["down"] <= MASKED_FROM, "maps"].sum())


def _masked_noise(results: Results, down: float) -> float:
    """Share of white maps of a stage's side in which the mask finds something, in per cent."""
    side = round(results.params.data.size / down)
    generator = torch.Generator().manual_seed(results.params.seed)
    white = torch.randn(1, WHITE_MAPS, side, side, generator=generator)
    return 100 * (~outlier_mask(white, down)).any(3).any(2).float().mean().item()


def outlier_maps(results: Results) -> Figure:
    """The channel with most masked elements of each deep stage, with these in orange."""
    rows = {"decoded": results.decoded[CLEAN]}
    for stage, features in enumerate(results.maps, 1):
        down = results.params.data.size / features.shape[-1]
        if down <= MASKED_FROM:
            valid = outlier_mask(features, down)
            channel = int((~valid).sum((0, 2, 3)).argmax())
            rows[f"stage {stage}, channel {channel}"] = _marked(features[:, channel], valid[:, channel])
    caption = (
        "The channel with most masked places of each deep stage, masked places in orange; "
        f"first {results.noun} of a group."
    )
    return Figure("outlier_maps", figures.contact_sheet(rows), caption)


def _marked(features: Tensor, valid: Tensor) -> Tensor:
    """One channel's maps (n, h, w) as grey pictures (n, 3, h, w) uint8, masked elements in orange."""
    low, high = features.amin((1, 2), keepdim=True), features.amax((1, 2), keepdim=True)
    grey = (255 * (features - low) / (high - low).clamp(min=1e-6)).round().to(torch.uint8)
    orange = torch.tensor(ORANGE, dtype=torch.uint8)[:, None, None]
    return torch.where(valid[:, None], grey[:, None], orange)


# ---------------------------------------------------------------------------------------------- interpolated latents


def interpolated(results: Results) -> Table:
    """Squared error of interpolated latents, and perceptual distance of what is decoded."""
    columns = {"squared error of latents": "latent_error", "perceptual distance": "distance"}
    side, rows = results.latent_side, {}
    table = results.interpolated
    for method, factor in table[["method", "factor"]].drop_duplicates().itertuples(index=False, name=None):
        part = table[(table["method"] == method) & (table["factor"] == factor)]
        index = (method, f"{factor:g}", f"{side / round(side / factor):.2f}")
        rows[index] = {label: words.unsigned(by_group(part, name)) for label, name in columns.items()}
    caption = (
        f"Means and 95 % intervals; LPIPS through `{results.params.perceptual.network}`; a latent has {side} elements "
        f"a side, so that factors are near the paper's; {results.inspected_counted}."
    )
    frame = pd.DataFrame(rows).T.rename_axis(["method", "the paper's factor", "here"])
    return Table("interpolated", frame, caption)


def interpolations(results: Results) -> Figure:
    """The decoded pictures of a few latents."""
    caption = f"Decoded; first {results.noun} of a group, unpicked."
    return Figure("interpolations", figures.contact_sheet(results.decoded), caption)


def reversals(results: Results) -> Table:
    """Shares of pictures in which latent error and perceptual distance rank interpolations differently."""
    rows, metrics = {}, {}
    for (measure, cell), label in REVERSAL_LABELS.items():
        if (measure, cell) in results.values:
            interval = results.interval(measure, cell)
            rows[label] = {"share of pictures": words.unsigned(interval, ".2f")}
            metrics[f"{measure}/{cell}"] = Metric(interval, results.n_inspected)
    for factor in FACTORS:
        rows[f"nearest, by {factor:g}"] = {"share of pictures": f"{_nearest_reversed(results, factor):.2f}"}
    caption = f"Shares, 95 % intervals; {results.inspected_counted}."
    return Table("reversals", pd.DataFrame(rows).T.rename_axis("what"), caption, metrics)


def _nearest_reversed(results: Results, factor: float) -> float:
    """Share of pictures farther as a latent and nearer as a picture by nearest than by bilinear interpolation."""
    table = results.interpolated[results.interpolated["factor"] == factor]
    nearest, bilinear = (
        table[table["method"] == method].set_index(["group", "picture"]) for method in ("nearest", "bilinear")
    )
    farther = nearest["latent_error"] > bilinear["latent_error"]
    nearer = nearest["distance"] < bilinear["distance"]
    return float(np.mean(farther & nearer))
