"""Statistics of groups of pictures, the measures computed from them, and a pseudo-value per group."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from atelier.data.checks import FloatArray, check_picture_tensor, square_side
from atelier.data.pictures import AT_A_TIME, Pictures, in_memory
from atelier.evaluation import field
from atelier.evaluation.intervals import pseudo_values
from atelier.evaluation.judges import Judges
from atelier.evaluation.sharing import rows_of_groups
from atelier.files import reading, writing
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
from atelier.metrics.wavelets import Bands, bands_of, distance_from_bands, joined
from atelier.params import FIELD_FILES

SIMPLE = ("fd", "kd", "pr", "psd")  # measures of small sets, such as one style's or a few artists' works
NEIGHBOURS = 5
WAVELETS = 128  # px: larger pictures are averaged to this for their wavelet packets; at 256, the paper's size, the
# covariances of one set take 1.2 GB and a distance half a minute, at 512 19 GB
SMALL = 16  # px: size at which pictures are compared with the training works pixel by pixel
RARE = 0.01  # share of held-out works nearer to a training work than the threshold for a near copy

ATTRIBUTES = {"subject": "subject", "style": "art_style", "emotion": "emotion"}  # measure -> the evaluator's attribute


class Group(NamedTuple):
    """Statistics of one group of pictures, a few kB each (16 kB more with Inception's features).

    Features are those of the field's network that ``field_judges`` names, else the evaluator's, else Haar statistics.
    """

    n: int
    features: FloatArray  # (n, d)
    haar: FloatArray  # (n, d)
    small: np.ndarray  # (n, 3 SMALL^2) float32
    spectrum: FloatArray  # mean, (h, w)
    residual: FloatArray  # mean, (h, w)
    bands: Bands | None  # of their wavelet packets; None: not kept
    per_picture: dict[str, FloatArray]  # measure -> one number per picture, NaN where it does not apply
    others: dict[str, FloatArray]  # features (n, d) of further networks of ``field_judges``, by name


ARRAYS = tuple(name for name in Group._fields if name not in ("n", "bands", "per_picture", "others"))


def restored(arrays: Mapping[str, FloatArray]) -> Group:
    """A group of some of its statistics, by name; the others are empty. ``features`` must be among them."""
    kept = {name: arrays.get(name, np.zeros((0, 0, 0))) for name in ARRAYS}
    return Group(n=len(arrays["features"]), bands=None, per_picture={}, others={}, **kept)


class Reconstructed(NamedTuple):
    """Held-out works that went once through the base's autoencoder, and so carry its decoder's fingerprint."""

    works: Group
    features: Moments  # of their features


class Reference(NamedTuple):
    """Held-out works, training works, and the distance between them below which a picture is a near copy."""

    held_out: Group
    features: Moments  # of the held-out works' features
    haar: Moments  # of their Haar statistics
    training: Group
    near: dict[str, float]  # "features", "small" -> distance
    reconstructed: Reconstructed | None = None  # None: nothing is measured against them
    others: Mapping[str, Moments] = MappingProxyType({})  # of the held-out works' further features


def group(
    pictures: Tensor | Pictures,
    by: Judges,
    prompts: Sequence[str] = (),
    wanted: pd.DataFrame | None = None,
) -> Group:
    """Reduce pictures (n, 3, s, s) uint8; ``prompts`` and ``wanted`` (subject, art_style, emotion): one row each.

    They are read ``AT_A_TIME``. Raises ValueError for none, floats, other shapes, oblong pictures, and a side below
    ``SMALL``.
    """
    parts: list[Group] = []
    fit: Bands | None = None  # joined as they come: one of them takes as much as the rest of a thousand pictures
    for number, batch in enumerate(in_memory(pictures).batches(AT_A_TIME)):
        rows = slice(number * AT_A_TIME, number * AT_A_TIME + len(batch))
        part = _reduced(batch, by, prompts[rows], None if wanted is None else wanted.iloc[rows])
        assert part.bands is not None
        fit = part.bands if fit is None else joined([fit, part.bands])
        parts.append(part._replace(bands=None))
    if not parts:
        raise ValueError("pictures: expected a non-empty (n, 3, h, w), got none")
    return pooled(parts)._replace(bands=fit)


def _reduced(pictures: Tensor, by: Judges, prompts: Sequence[str], wanted: pd.DataFrame | None) -> Group:
    """``group`` of a batch."""
    check_picture_tensor(pictures, "pictures", ("uint8",))
    side = square_side(pictures, "pictures")
    if side < SMALL:
        raise ValueError(f"pictures: expected sides of at least {SMALL} px, got {side}x{side}")
    x = pictures / 255
    per_picture: dict[str, FloatArray] = {}  # filled where there are a judge, prompts and the works' truth
    haar = features = haar_statistics(x)
    if (evaluator := by.evaluator) is not None:
        batches = alignment.look(evaluator, x)
        features = alignment.features_of(batches)
        if wanted is not None:
            predicted = alignment.attributes_of(evaluator, batches)
            per_picture["clip"] = alignment.clip_scores_of(evaluator, batches, prompts)
            for measure, attribute in ATTRIBUTES.items():
                names = wanted[attribute].to_numpy()
                known = np.isin(names, evaluator.classes[attribute])
                per_picture[measure] = np.where(known, predicted[attribute].idxmax(axis=1).to_numpy() == names, np.nan)
    if (clip := by.clip) is not None and len(prompts):
        scores = {name: field.clip_scores(clip, pictures, prompts, name) for name in field.CONVENTIONS}
        per_picture |= {"clipscore": scores["clipscore"], "clip": scores["clip_score_100"]}
    others = {name: field.features(judge, pictures) for name, judge in by.networks.items()}
    return Group(
        n=len(x),
        features=features if by.main is None else others.pop(by.main),
        haar=haar,
        small=avg_pool2d(x, side // SMALL).flatten(1).numpy(),  # float32: most of what is kept of a picture
        spectrum=mean_power_spectrum(x),
        residual=mean_residual_spectrum(x),
        bands=bands_of(x if side <= WAVELETS else adaptive_avg_pool2d(x, WAVELETS)),
        per_picture=per_picture,
        others=others,
    )


def groups_of(
    pictures: Tensor | Pictures,
    listed: pd.DataFrame,
    groups: Sequence[Sequence[int]],
    by: Judges,
    truth: pd.DataFrame,
) -> list[Group]:
    """Reduce a cell's pictures by groups of repeats; ``listed``: one row per picture, ``truth``: the works, by path."""
    reduced, pictures = [], in_memory(pictures)
    for repeats in groups:
        mask = listed["repeat"].isin(repeats).to_numpy()
        rows = listed[mask]
        reduced.append(group(pictures[mask], by, list(rows["prompt"]), truth.loc[rows["path"]]))
    return reduced


def pooled(groups: Sequence[Group]) -> Group:
    """Merge several groups into one."""
    if len(groups) == 1:
        return groups[0]
    n, fits = [each.n for each in groups], [each.bands for each in groups if each.bands is not None]
    return Group(
        n=sum(n),
        features=np.concatenate([each.features for each in groups]),
        haar=np.concatenate([each.haar for each in groups]),
        small=np.concatenate([each.small for each in groups]),
        spectrum=np.average([each.spectrum for each in groups], axis=0, weights=n),
        residual=np.average([each.residual for each in groups], axis=0, weights=n),
        bands=joined(fits) if len(fits) == len(groups) else None,
        per_picture={
            name: np.concatenate([each.per_picture[name] for each in groups]) for name in groups[0].per_picture
        },
        others={name: np.concatenate([each.others[name] for each in groups]) for name in groups[0].others},
    )


def slope_distance(real: Group, made: Group, low: int) -> float:
    return abs(spectrum_slope(real.spectrum, low) - spectrum_slope(made.spectrum, low))


def near_copies(reference: Reference, made: Group, space: str) -> float:
    """Share of pictures nearer to a training work than all but 1 % of the held-out works are."""
    _, distance = nearest(getattr(made, space), getattr(reference.training, space))
    return float((distance < reference.near[space]).mean())


def _bands(of: Group) -> Bands:
    if of.bands is None:
        raise ValueError("groups that were saved for later comparisons have no wavelet packets")
    return of.bands


def mean_distance(real: Group, made: Group) -> float:
    """The mean term of a Frechet distance; the rest of it is the covariance term."""
    return float(((real.features.mean(axis=0) - made.features.mean(axis=0)) ** 2).sum())


# Lower is better for all of these.
MEASURES: dict[str, Callable[[Reference, Group], float]] = {
    "fd": lambda real, made: frechet_distance_from_moments(real.features, Moments().update(made.features)),
    "fd_mean": lambda real, made: mean_distance(real.held_out, made),
    "fd_spread": lambda real, made: MEASURES["fd"](real, made) - mean_distance(real.held_out, made),
    "kd": lambda real, made: kernel_distance(real.held_out.features, made.features),
    "fd_haar": lambda real, made: frechet_distance_from_moments(real.haar, Moments().update(made.haar)),
    "fwd": lambda real, made: distance_from_bands(*(_bands(each) for each in (real.held_out, made))),
    "pr": lambda real, made: spectrum_distance(real.held_out.residual, made.residual),
    "psd": lambda real, made: slope_distance(real.held_out, made, SLOPE_LOW),
    "psd10": lambda real, made: slope_distance(real.held_out, made, 10),
    "near_features": lambda real, made: near_copies(real, made, "features"),
    "near_pixels": lambda real, made: near_copies(real, made, "small"),
}
# The same against reconstructed works: what a denoiser changes is not hidden by what every decoded picture has.
AGAINST_RECONSTRUCTED: dict[str, Callable[[Reconstructed, Group], float]] = {
    "fd_rec": lambda real, made: frechet_distance_from_moments(real.features, Moments().update(made.features)),
    "pr_rec": lambda real, made: spectrum_distance(real.works.residual, made.residual),
    "psd_rec": lambda real, made: slope_distance(real.works, made, SLOPE_LOW),
}
NEIGHBOURHOODS = ("precision", "recall", "density", "coverage")
# what is measured where ``field_judges`` names networks besides the one whose features ``fd`` and ``kd`` compare
FURTHER_DISTANCES = tuple(f"{measure}_{judge}" for judge in FIELD_FILES for measure in ("fd", "kd"))
FURTHER_SHARES = tuple(f"{measure}_{judge}" for judge in FIELD_FILES for measure in ("precision", "recall"))


def further_measures(reference: Reference, made: Group) -> dict[str, float]:
    """Distances, precision and recall by the further networks of ``field_judges``: ``fd_JUDGE``, ``kd_JUDGE``, ..."""
    values = {}
    for name in reference.others:
        real, ours = reference.held_out.others[name], made.others[name]
        values[f"fd_{name}"] = frechet_distance_from_moments(reference.others[name], Moments().update(ours))
        values[f"kd_{name}"] = kernel_distance(real, ours)
        if min(len(real), len(ours)) > NEIGHBOURS:
            near = precision_recall_density_coverage(real, ours, NEIGHBOURS)
            values |= {f"{measure}_{name}": near[measure] for measure in ("precision", "recall")}
    return values


def all_measures(reference: Reference, made: Group) -> dict[str, float]:
    """Compute every measure of one set."""
    values = {name: measure(reference, made) for name, measure in MEASURES.items()}
    if (reconstructed := reference.reconstructed) is not None:
        values |= {name: measure(reconstructed, made) for name, measure in AGAINST_RECONSTRUCTED.items()}
    values |= further_measures(reference, made)
    if min(made.n, reference.held_out.n) > NEIGHBOURS:
        values |= precision_recall_density_coverage(reference.held_out.features, made.features, NEIGHBOURS)
    return values | {name: float(np.nanmean(x)) for name, x in made.per_picture.items() if not np.isnan(x).all()}


def simple(reference: Reference, made: Group) -> dict[str, float]:
    """Compute the measures that suit small sets."""
    values = {name: MEASURES[name](reference, made) for name in SIMPLE}
    return values | {name: float(np.nanmean(x)) for name, x in made.per_picture.items() if not np.isnan(x).all()}


def measured(
    reference: Reference,
    groups: Sequence[Group],
    measures: Callable[[Reference, Group], dict[str, float]] = all_measures,
) -> pd.DataFrame:
    """Each measure of all groups together (``whole``) and its pseudo-values, one column per group."""
    n = sum(each.n for each in groups)
    return pseudo_rows(lambda chosen: measures(reference, pooled([groups[index] for index in chosen])), len(groups), n)


def pseudo_rows(measures: Callable[[list[int]], dict[str, float]], groups: int, n: int) -> pd.DataFrame:
    """One row per measure: its value over all groups, and its pseudo-values. ``measures`` maps group indices to values.

    A measure that cannot be computed with one group left out, for lack of pictures, is omitted.
    """
    of = cache(lambda chosen: measures(list(chosen)))
    every = tuple(range(groups))
    known = set.intersection(*(set(of(tuple(index for index in every if index != left_out))) for left_out in every))
    rows = []
    for name, whole in of(every).items():
        if name in known:
            values = pseudo_values(lambda chosen, name=name: of(tuple(chosen))[name], groups)  # type: ignore[misc]
            columns = {f"group{index}": value for index, value in enumerate(values)}
            rows.append({"measure": name, "n": n, "whole": whole, **columns})
    return pd.DataFrame(rows)


def reference_of(
    held_out: Tensor | Pictures, training: Tensor | Pictures, returned: Tensor | Pictures, by: Judges
) -> Reference:
    """Reduce the held-out works, the reference of every measure, and the training works, to detect copies.

    ``returned``: the held-out works, reconstructed.
    """
    groups = group(held_out, by), group(training, by)._replace(others={})
    near = {
        space: float(np.quantile(nearest(*(getattr(each, space) for each in groups))[1], RARE))
        for space in ("features", "small")
    }
    reconstructed = reconstructed_of(group(returned, by))
    return reference_alone(groups[0])._replace(training=groups[1], near=near, reconstructed=reconstructed)


def reference_alone(works: Group) -> Reference:
    """A reference from works alone."""
    moments = Moments().update(works.features), Moments().update(works.haar)
    others = {name: Moments().update(features) for name, features in works.others.items()}
    return Reference(works, *moments, works, {}, others=others)


def reconstructed_of(works: Group) -> Reconstructed:
    """A reference of reconstructed works."""
    return Reconstructed(works, Moments().update(works.features))


def spread_over_groups(pictures: Tensor | Pictures, each: int, groups: int, by: Judges) -> list[Group]:
    """Pictures reduced in groups as ``rows_of_groups`` shares them out."""
    pictures = in_memory(pictures)
    return [group(pictures[rows], by) for rows in rows_of_groups(len(pictures), each, groups)]


KEPT = ("features", "spectrum", "residual")  # the statistics kept for comparisons between finished cells


def save_groups(groups: Sequence[Group], path: Path) -> None:
    """Write ``KEPT`` of several groups, for comparisons of sixty conditions."""
    flat = {f"{number}/{name}": getattr(group, name) for number, group in enumerate(groups) for name in KEPT}
    with writing(path) as part:
        save_file({name: np.ascontiguousarray(array, dtype=np.float64) for name, array in flat.items()}, part)


def load_groups(path: Path) -> list[Group]:
    """Load what ``save_groups`` wrote; other statistics are empty."""
    with reading(path):
        flat = load_file(path)
        kept = [{name: flat[f"{number}/{name}"] for name in KEPT} for number in range(len(flat) // len(KEPT))]
        return [restored(arrays) for arrays in kept]
