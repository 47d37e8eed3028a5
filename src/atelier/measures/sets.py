"""Sets of pictures in groups: what measures need of each, the measures themselves, and a pseudo-value a group."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor
from torch.nn.functional import avg_pool2d

from atelier.evidence import FloatArray, pseudo_values
from atelier.metrics import (
    Moments,
    alignment,
    frechet_distance_from_moments,
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
from atelier.models.evaluator import Evaluator

SIMPLE = ("fd", "kid", "pr", "psd")  # measures of small sets: one style against another, some artists' works
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
    features: Moments  # of its features, once for all, and of its Haar statistics
    haar: Moments
    bands: Bands  # of its packets
    training: Group
    near: dict[str, float]  # "features", "small" -> distance


def group(
    pictures: Tensor, model: Evaluator | None, prompts: Sequence[str] = (), wanted: pd.DataFrame | None = None
) -> Group:
    """Reduce pictures (n, 3, h, w) uint8; ``prompts`` and ``wanted`` (subject, art_style, emotion), a row each."""
    x = pictures / 255
    looked = [] if model is None else alignment.look(model, x)
    shares: dict[str, FloatArray] = {}
    if model is not None and wanted is not None:
        seen = alignment.attributes_of(model, looked)
        shares["clip"] = alignment.clip_scores_of(model, looked, prompts)
        for measure, attribute in ATTRIBUTES.items():
            asked = wanted[attribute].to_numpy()
            known = np.isin(asked, model.classes[attribute])
            shares[measure] = np.where(known, seen[attribute].idxmax(axis=1).to_numpy() == asked, np.nan)
    haar = haar_statistics(x)
    return Group(
        n=len(x),
        features=haar if model is None else alignment.features_of(looked),
        haar=haar,
        packets=haar_packets(x),
        small=avg_pool2d(x, x.shape[-1] // SMALL).flatten(1).double().numpy(),
        spectrum=mean_power_spectrum(x),
        residual=mean_residual_spectrum(x),
        shares=shares,
    )


def groups_of(
    pictures: Tensor,
    listed: pd.DataFrame,
    groups: Sequence[Sequence[int]],
    model: Evaluator | None,
    truth: pd.DataFrame,
) -> list[Group]:
    """A cell's pictures by groups of repeats; ``listed`` has a row each, ``truth`` what is asked for by path."""
    found = []
    for repeats in groups:
        those = listed["repeat"].isin(repeats).to_numpy()
        rows = listed[those]
        found.append(group(pictures[those.nonzero()[0]], model, list(rows["prompt"]), truth.loc[rows["path"]]))
    return found


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
    "fd": lambda real, made: frechet_distance_from_moments(real.features, Moments().update(made.features)),
    "fd_mean": lambda real, made: mean_distance(real.held_out, made),
    "fd_spread": lambda real, made: MEASURES["fd"](real, made) - mean_distance(real.held_out, made),
    "kid": lambda real, made: kernel_distance(real.held_out.features, made.features),
    "fd_haar": lambda real, made: frechet_distance_from_moments(real.haar, Moments().update(made.haar)),
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
    """Each measure of all groups together (``whole``) and its pseudo-values, a column a group."""
    n = sum(each.n for each in groups)
    return pseudo_rows(lambda some: measures(reference, pooled([groups[at] for at in some])), len(groups), n)


def pseudo_rows(measures: Callable[[list[int]], dict[str, float]], groups: int, n: int) -> pd.DataFrame:
    """A row a measure: of all groups, and its pseudo-values. ``measures`` gives all of them, of some of the groups.

    What needs more pictures than there are without one of the groups is left out.
    """
    of = cache(lambda some: measures(list(some)))
    every = tuple(range(groups))
    known = set.intersection(*(set(of(tuple(at for at in every if at != left_out))) for left_out in every))
    rows = []
    for name, whole in of(every).items():
        if name in known:
            found = pseudo_values(lambda some, name=name: of(tuple(some))[name], groups)  # type: ignore[misc]
            columns = {f"group{at}": value for at, value in enumerate(found)}
            rows.append({"measure": name, "n": n, "whole": whole, **columns})
    return pd.DataFrame(rows)


def reference_of(held_out: Tensor, training: Tensor, model: Evaluator | None) -> Reference:
    """The held-out works that all is measured against, and the training works that may have been copied."""
    groups = group(held_out, model), group(training, model)
    near = {
        space: float(np.quantile(nearest(*(getattr(each, space) for each in groups))[1], RARE))
        for space in ("features", "small")
    }
    return reference_alone(groups[0])._replace(training=groups[1], near=near)


def reference_alone(works: Group) -> Reference:
    """Works that ``simple`` measures against."""
    moments = Moments().update(works.features), Moments().update(works.haar)
    return Reference(works, *moments, bands(works.packets), works, {})
