"""Stage ``measures``: every model's pictures against held-out works, one pseudo-value a measure and group of repeats.

``python -m atelier.measures`` fills ``build/measures/art_finetuning.csv``, which two notebooks and the verdicts read.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from atelier import judges, machine, params, paths
from atelier.claims import Values
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.latents import decode, encode_pictures
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

OUT = paths.MEASURES / "art_finetuning.csv"
REAL, RECONSTRUCTED = "training works", "reconstructed held-out works"  # reference rows
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


# Lower is closer, and fewer copies are better.
MEASURES: dict[str, Callable[[Reference, Group], float]] = {
    "fd": lambda real, made: frechet_distance(real.held_out.features, made.features),
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


def measured(reference: Reference, groups: Sequence[Group]) -> pd.DataFrame:
    """Each measure of all groups together (``whole``) and its pseudo-values, a column a group.

    What needs more pictures than there are without one of the groups is left out.
    """

    @cache
    def of(some: tuple[int, ...]) -> dict[str, float]:
        return all_measures(reference, pooled([groups[at] for at in some]))

    every = tuple(range(len(groups)))
    known = set.intersection(*(set(of(tuple(at for at in every if at != left_out))) for left_out in every))
    rows = []
    for name, whole in of(every).items():
        if name in known:
            found = pseudo_values(lambda some, name=name: of(tuple(some))[name], len(groups))  # type: ignore[misc]
            columns = {f"group{at}": value for at, value in enumerate(found)}
            rows.append({"measure": name, "n": sum(each.n for each in groups), "whole": whole, **columns})
    return pd.DataFrame(rows)


def reference_of(asked: params.Params, model: Evaluator | None) -> Reference:
    """The held-out works that all is measured against, and the training works that may have been copied."""
    table = prepare.works().table
    held_out, training = (
        group(prepare.pictures(table[table["split"] == split], asked.data), model) for split in ("test", "train")
    )
    near = {
        space: float(np.quantile(nearest(getattr(held_out, space), getattr(training, space))[1], RARE))
        for space in ("features", "small")
    }
    return Reference(held_out, bands(held_out.packets), training, near)


def cells(asked: params.Params) -> dict[str, tuple[str, str, float]]:
    """Every cell MODEL@LEVEL/GUIDANCE, and where its pictures lie: study, folder, guidance."""
    study, own = asked.art_finetuning, asked.prompt_enrichment
    folders = {
        f"{model}@{study.prompt_level}": ("art_finetuning", model)
        for model in (UNTUNED, UNTUNED_AGAIN, *study.variants)
    }
    for model in (UNTUNED, *own.models):
        folders |= {f"{model}@{level}": ("prompt_enrichment", at_level(model, level)) for level in own.levels}
    return {f"{name}/{scale:g}": (*place, scale) for name, place in folders.items() for scale in study.guidance}


def measure_all(asked: params.Params) -> pd.DataFrame:
    """Reference rows, then every cell."""
    model = judges.evaluator()
    reference = reference_of(asked, model)
    table = prepare.with_truth(prepare.works().table).set_index("path")
    together = asked.art_finetuning.groups
    pictures_each = asked.art_finetuning.repeats * asked.art_finetuning.pictures // len(together)

    def reference_row(name: str, pictures: Tensor) -> pd.DataFrame:
        # as many as a cell has, or as many as there are: never a work twice; evenly, because they lie sorted by style
        n = min(pictures_each, len(pictures) // len(together)) * len(together)
        chosen = spread(len(pictures), n)
        parts = [group(pictures[chosen[at :: len(together)]], model) for at in range(len(together))]
        return measured(reference, parts).assign(cell=name)

    works = prepare.works().table
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    held_out = prepare.pictures(works.query("split == 'test'"), asked.data)
    returned = to_pixels(decode(vae, encode_pictures(vae, held_out).mean))
    found = [
        reference_row(REAL, prepare.pictures(works.query("split == 'train'"), asked.data)),
        reference_row(RECONSTRUCTED, returned),
    ]
    for cell, (study, folder, guidance) in tqdm(cells(asked).items(), unit="cell"):
        pictures, listed = read(study, folder, guidance)
        parts = []
        for repeats in together:
            those = listed["repeat"].isin(repeats).to_numpy()
            rows = listed[those]
            parts.append(group(pictures[those.nonzero()[0]], model, list(rows["prompt"]), table.loc[rows["path"]]))
        found.append(measured(reference, parts).assign(cell=cell))
    return pd.concat(found, ignore_index=True)


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
    """What the stage left."""
    return pd.read_csv(OUT)


def main() -> int:
    try:
        asked = params.load()
        machine.settle(asked.machine.threads)
        OUT.parent.mkdir(parents=True, exist_ok=True)
        measure_all(asked).to_csv(OUT, index=False, float_format="%.12g")
    except (ValueError, OSError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
