"""Stage ``measures``: every model's pictures against held-out works, one pseudo-value a measure and group of repeats.

It fills ``build/measures/art_finetuning.csv``, which two notebooks and the verdicts read, and ``styles.csv``: how far
one style of real works is from another, so that a distance has something to be compared with.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from atelier import judges, machine, params, paths
from atelier.claims import Values
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.latents import decode, encode_pictures
from atelier.diagnosis import CARRIED
from atelier.evidence import FloatArray, pseudo_values, t_interval
from atelier.metrics import (
    alignment,
    frechet_distance,
    haar_statistics,
    kernel_distance,
    mean_power_spectrum,
    mean_residual_spectrum,
    nearest,
    precision_recall_density_coverage,
    spectrum_distance,
    spectrum_slope,
)
from atelier.metrics.summary import SLOPE_LOW
from atelier.metrics.wavelets import Bands, bands, distance_from_bands, haar_packets
from atelier.models import base
from atelier.models.evaluator import Evaluator
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN, at_level, read
from atelier.training.base import spread

OUT, STYLES = paths.MEASURES / "art_finetuning.csv", paths.MEASURES / "styles.csv"
REAL, RECONSTRUCTED = "training works", "reconstructed held-out works"  # reference rows
SIMPLE = ("fd", "kid", "pr", "psd")  # measures of small sets: one style against another, some artists' works
PARTS = 5  # of a style's works: groups, where there are no repeats
NEIGHBOURS = 5
SMALL = 16  # px: pictures that are compared with the training works by pixels
RARE = 0.01  # share of held-out works that lie as near to a training work as what is called a near copy

ATTRIBUTES = {"subject": "subject", "style": "art_style", "emotion": "emotion"}  # measure -> the evaluator's name of it


class Group(NamedTuple):
    """What measures need of one group of pictures. Features are the evaluator's; without one, Haar statistics."""

    n: int
    features: FloatArray  # (n, d)
    haar: FloatArray  # (n, d)
    packets: FloatArray  # (256, n, d)
    small: FloatArray  # (n, 3 SMALL^2)
    spectrum: FloatArray  # mean, (h, w)
    residual: FloatArray  # mean, (h, w)
    shares: dict[str, FloatArray]  # measure -> a number a picture, NaN where it does not apply


class Reference(NamedTuple):
    """Held-out works, the training works, and how near the former come to the latter at the rarest."""

    held_out: Group
    bands: Bands  # of its packets, once for all
    training: Group
    near: dict[str, float]  # "features", "small" -> distance


def group(
    pictures: Tensor, model: Evaluator | None, prompts: Sequence[str] = (), wanted: pd.DataFrame | None = None
) -> Group:
    """Reduce pictures (n, 3, h, w) uint8; ``prompts`` and ``wanted`` (subject, art_style, emotion), a row each."""
    x = pictures / 255
    shares: dict[str, FloatArray] = {}
    if model is not None and wanted is not None:
        seen = alignment.attributes(model, x)
        shares["clip"] = alignment.clip_scores(model, x, prompts)
        for measure, attribute in ATTRIBUTES.items():
            asked = wanted[attribute].to_numpy()
            known = np.isin(asked, model.classes[attribute])
            shares[measure] = np.where(known, seen[attribute].idxmax(axis=1).to_numpy() == asked, np.nan)
    haar = haar_statistics(x)
    return Group(
        n=len(x),
        features=haar if model is None else alignment.features(model, x),
        haar=haar,
        packets=haar_packets(x),
        small=avg_pool2d(x, x.shape[-1] // SMALL).flatten(1).double().numpy(),
        spectrum=mean_power_spectrum(x),
        residual=mean_residual_spectrum(x),
        shares=shares,
    )


def pooled(groups: Sequence[Group]) -> Group:
    """Several groups as one."""
    n = [each.n for each in groups]
    return Group(
        n=sum(n),
        features=np.concatenate([each.features for each in groups]),
        haar=np.concatenate([each.haar for each in groups]),
        packets=np.concatenate([each.packets for each in groups], axis=1),
        small=np.concatenate([each.small for each in groups]),
        spectrum=np.average([each.spectrum for each in groups], axis=0, weights=n),
        residual=np.average([each.residual for each in groups], axis=0, weights=n),
        shares={name: np.concatenate([each.shares[name] for each in groups]) for name in groups[0].shares},
    )


def slope_distance(real: Group, made: Group, low: int) -> float:
    return abs(spectrum_slope(real.spectrum, low) - spectrum_slope(made.spectrum, low))


def near_copies(reference: Reference, made: Group, space: str) -> float:
    """Share of pictures that lie nearer to a training work than all but one in a hundred held-out works do."""
    _, distance = nearest(getattr(made, space), getattr(reference.training, space))
    return float((distance < reference.near[space]).mean())


def mean_distance(real: Group, made: Group) -> float:
    """The part of a Frechet distance that lies between the means; the rest lies between the covariances."""
    return float(((real.features.mean(axis=0) - made.features.mean(axis=0)) ** 2).sum())


# Lower is closer, and fewer copies are better.
MEASURES: dict[str, Callable[[Reference, Group], float]] = {
    "fd": lambda real, made: frechet_distance(real.held_out.features, made.features),
    "fd_mean": lambda real, made: mean_distance(real.held_out, made),
    "fd_spread": lambda real, made: (
        frechet_distance(real.held_out.features, made.features) - mean_distance(real.held_out, made)
    ),
    "kid": lambda real, made: kernel_distance(real.held_out.features, made.features),
    "fd_haar": lambda real, made: frechet_distance(real.held_out.haar, made.haar),
    "fwd": lambda real, made: distance_from_bands(real.bands, bands(made.packets)),
    "pr": lambda real, made: spectrum_distance(real.held_out.residual, made.residual),
    "psd": lambda real, made: slope_distance(real.held_out, made, SLOPE_LOW),
    "psd10": lambda real, made: slope_distance(real.held_out, made, 10),
    "near_features": lambda real, made: near_copies(real, made, "features"),
    "near_pixels": lambda real, made: near_copies(real, made, "small"),
}
NEIGHBOURHOODS = ("precision", "recall", "density", "coverage")


def all_measures(reference: Reference, made: Group) -> dict[str, float]:
    """Every measure of one set."""
    found = {name: measure(reference, made) for name, measure in MEASURES.items()}
    if min(made.n, reference.held_out.n) > NEIGHBOURS:
        found |= precision_recall_density_coverage(reference.held_out.features, made.features, NEIGHBOURS)
    return found | {name: float(np.nanmean(x)) for name, x in made.shares.items() if not np.isnan(x).all()}


def simple(reference: Reference, made: Group) -> dict[str, float]:
    """The measures that small sets can have."""
    found = {name: MEASURES[name](reference, made) for name in SIMPLE}
    return found | {name: float(np.nanmean(x)) for name, x in made.shares.items() if not np.isnan(x).all()}


def measured(
    reference: Reference,
    groups: Sequence[Group],
    measures: Callable[[Reference, Group], dict[str, float]] = all_measures,
) -> pd.DataFrame:
    """Each measure of all groups together (``whole``) and its pseudo-values, a column a group.

    What needs more pictures than there are without one of the groups is left out.
    """

    @cache
    def of(some: tuple[int, ...]) -> dict[str, float]:
        return measures(reference, pooled([groups[at] for at in some]))

    every = tuple(range(len(groups)))
    known = set.intersection(*(set(of(tuple(at for at in every if at != left_out))) for left_out in every))
    rows = []
    for name, whole in of(every).items():
        if name in known:
            found = pseudo_values(lambda some, name=name: of(tuple(some))[name], len(groups))  # type: ignore[misc]
            columns = {f"group{at}": value for at, value in enumerate(found)}
            rows.append({"measure": name, "n": sum(each.n for each in groups), "whole": whole, **columns})
    return pd.DataFrame(rows)


def reference_of(held_out: Tensor, training: Tensor, model: Evaluator | None) -> Reference:
    """The held-out works that all is measured against, and the training works that may have been copied."""
    groups = group(held_out, model), group(training, model)
    near = {
        space: float(np.quantile(nearest(*(getattr(each, space) for each in groups))[1], RARE))
        for space in ("features", "small")
    }
    return Reference(groups[0], bands(groups[0].packets), groups[1], near)


def reference_alone(works: Group) -> Reference:
    """Works that ``simple`` measures against."""
    return Reference(works, bands(works.packets), works, {})


def by_acquaintance(
    asked: params.Params, held_out: Tensor, works: pd.DataFrame, model: Evaluator | None
) -> pd.DataFrame:
    """The untuned model at every prompt level, apart: works by artists whom it learnt by name, and by the others.

    ``works``: the rows of ``held_out``. Nothing where the data does not say whom its base knows, and of cells with
    fewer than two such pictures in a group.
    """
    known, artists = judges.known_artists(), works.set_index("path")["artist"]
    found = [pd.DataFrame()]
    for word, wanted in {"known": True, "unknown": False}.items() if known else ():
        those = works["artist"].isin(known).to_numpy() == wanted
        reference = reference_alone(group(held_out[those.nonzero()[0]], model))
        truth = prepare.with_truth(works[those]).set_index("path")
        for cell, place in cells(asked).items():
            if not cell.startswith(f"{UNTUNED}@"):
                continue
            pictures, listed = read(*place)
            of_them = artists.loc[listed["path"]].isin(known).to_numpy() == wanted
            chosen = [listed["repeat"].isin(repeats).to_numpy() & of_them for repeats in asked.art_finetuning.groups]
            if min(some.sum() for some in chosen) < 2:
                continue
            parts = [
                group(pictures[some.nonzero()[0]], model, list(rows["prompt"]), truth.loc[rows["path"]])
                for some, rows in ((some, listed[some]) for some in chosen)
            ]
            found.append(measured(reference, parts, simple).assign(cell=cell.replace("@", f"-{word}@")))
    return pd.concat(found, ignore_index=True)


def between_styles(works: Mapping[str, Tensor], model: Evaluator | None) -> pd.DataFrame:
    """How far each style's works are from each other's, and from other works of their own; a row a measure and pair.

    Half of each style's works are the reference and half are measured, so that no work is on both sides. A style with
    too few works for two groups of two is left out.
    """
    works = {style: pictures for style, pictures in works.items() if len(pictures) >= 8}
    # alternately, so that the halves are of the same artists where works lie sorted by them
    references = {style: reference_alone(group(pictures[::2], model)) for style, pictures in works.items()}
    found = [pd.DataFrame({name: [] for name in ("style", "reference", "measure", "n")})]
    for style, pictures in works.items():
        half = pictures[1::2]
        parts = min(PARTS, len(half) // 2)
        groups = [group(half[at::parts], model) for at in range(parts)]
        for other, reference in references.items():
            found.append(measured(reference, groups, simple).assign(style=style, reference=other))
    return pd.concat(found, ignore_index=True)


def cells(asked: params.Params) -> dict[str, tuple[str, str, float]]:
    """Every cell MODEL@LEVEL/GUIDANCE, and where its pictures lie: study, folder, guidance."""
    study, own = asked.art_finetuning, asked.prompt_enrichment
    folders = {
        f"{model}@{study.prompt_level}": ("art_finetuning", model)
        for model in (UNTUNED, UNTUNED_AGAIN, *study.variants)
    }
    for model in (UNTUNED, *own.models):
        folders |= {f"{model}@{level}": ("prompt_enrichment", at_level(model, level)) for level in own.levels}
    found = {f"{name}/{scale:g}": (*place, scale) for name, place in folders.items() for scale in study.guidance}
    least = min(study.guidance)
    for model in (UNTUNED, *study.diagnosed):
        found[f"{model}-{CARRIED}@{study.prompt_level}/{least:g}"] = (CARRIED, model, least)
    return found


def measure_all(asked: params.Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reference rows, then every cell; and one style against another."""
    model = judges.evaluator()
    works = prepare.works().table
    truth = prepare.with_truth(works).set_index("path")
    held_out, training = (prepare.pictures(works[works["split"] == split], asked.data) for split in ("test", "train"))
    reference = reference_of(held_out, training, model)
    together = asked.art_finetuning.groups
    pictures_each = asked.art_finetuning.repeats * asked.art_finetuning.pictures // len(together)

    def reference_row(name: str, pictures: Tensor) -> pd.DataFrame:
        # as many as a cell has, or as many as there are: never a work twice; evenly, because they lie sorted by style
        n = min(pictures_each, len(pictures) // len(together)) * len(together)
        chosen = spread(len(pictures), n)
        parts = [group(pictures[chosen[at :: len(together)]], model) for at in range(len(together))]
        return measured(reference, parts).assign(cell=name)

    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    returned = to_pixels(decode(vae, encode_pictures(vae, held_out).mean))
    found = [reference_row(REAL, training), reference_row(RECONSTRUCTED, returned)]
    for cell, (study, folder, guidance) in tqdm(cells(asked).items(), unit="cell"):
        pictures, listed = read(study, folder, guidance)
        parts = []
        for repeats in together:
            those = listed["repeat"].isin(repeats).to_numpy()
            rows = listed[those]
            parts.append(group(pictures[those.nonzero()[0]], model, list(rows["prompt"]), truth.loc[rows["path"]]))
        found.append(measured(reference, parts).assign(cell=cell))
    found.append(by_acquaintance(asked, held_out, works[works["split"] == "test"], model))
    everything = torch.cat([held_out, training])
    styles = pd.concat([works[works["split"] == split]["art_style"] for split in ("test", "train")]).to_numpy()
    by_style = {style: everything[(styles == style).nonzero()[0]] for style in sorted(set(styles))}
    return pd.concat(found, ignore_index=True), between_styles(by_style, model)


def values(table: pd.DataFrame) -> Values:
    """A table of measures as verdicts read it."""
    groups = table.filter(regex=r"^group\d+$").to_numpy()
    return dict(zip(zip(table["measure"], table["cell"], strict=True), groups, strict=True))


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """One row a measure and cell: its interval over groups, and what the cell's name says; guidance NaN where none."""
    named = table["cell"].str.extract(r"^(?P<model>.+)@(?P<level>\d)/(?P<guidance>[\d.]+)$")
    found = [t_interval(row.tolist()) for row in values(table).values()]
    return table[["cell", "measure", "n"]].assign(
        model=named["model"],
        level=named["level"].astype(float),
        guidance=named["guidance"].astype(float),
        interval=pd.Series(found, dtype=object),
        value=[each.mean for each in found],
        low=[each.low for each in found],
        high=[each.high for each in found],
    )


def wide(rows: pd.DataFrame, names: Iterable[str], by: Sequence[str] = ("model", "guidance")) -> pd.DataFrame:
    """``intervals`` as ``figures.curves`` wants them: NAME, NAME_low, NAME_high a measure, a row each of ``by``."""
    columns = {"value": "", "low": "_low", "high": "_high"}
    parts = [
        rows.pivot(index=list(by), columns="measure", values=value)[list(names)].add_suffix(suffix)
        for value, suffix in columns.items()
    ]
    order = rows[list(by)].drop_duplicates()
    return order.merge(pd.concat(parts, axis=1).reset_index(), on=list(by))


def rank_correlations(table: pd.DataFrame, measure: str) -> pd.Series:
    """Spearman's correlation of a measure of all repeats together with guidance, by model and level."""
    named = intervals(table).assign(whole=table["whole"]).query("measure == @measure and guidance == guidance")
    return named.groupby(["model", "level"], sort=False)[["guidance", "whole"]].apply(
        lambda rows: rows["guidance"].corr(rows["whole"], method="spearman")
    )


def load() -> pd.DataFrame:
    """What the stage left of the models."""
    return pd.read_csv(OUT)


def load_styles() -> pd.DataFrame:
    """What the stage left of the styles, with an interval over groups a row."""
    table = pd.read_csv(STYLES)
    groups = table.filter(regex=r"^group\d+$").to_numpy()
    found = [t_interval(row[np.isfinite(row)].tolist()) for row in groups]  # a small style has fewer groups
    shown = table[["style", "reference", "measure", "n"]]
    return shown.assign(value=[x.mean for x in found], low=[x.low for x in found], high=[x.high for x in found])


def main(asked: params.Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for table, target in zip(measure_all(asked), (OUT, STYLES), strict=True):
        table.to_csv(target, index=False, float_format="%.12g")
