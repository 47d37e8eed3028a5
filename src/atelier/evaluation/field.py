"""Measures as the field prints them: FID and KID, CLIPScore, FD on DINOv2, by the networks of ``field_judges``.

A judge turns pictures (n, 3, h, w) uint8 into features (n, d). A Frechet distance is called ``fid``, and a kernel
distance ``kid``, on Inception's features only; docs/field_metrics.md says how they compare with papers' numbers.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from atelier.data.checks import (
    BATCH,
    FloatArray,
    Samples,
    came,
    check_choice,
    check_picture_tensor,
    check_texts,
    check_whole,
    feature_matrix,
)
from atelier.metrics import (
    Moments,
    frechet_distance_from_moments,
    kernel_distance,
    precision_recall_density_coverage,
    subset_kernel_distance,
)
from atelier.models import clip, dinov2, inception
from atelier.models.clip import Clip
from atelier.params import FieldJudges
from atelier.seeds import seed_of

INCEPTION = "inception"
LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    INCEPTION: inception.load,
    "clip": clip.load,
    "dinov2": dinov2.load,
}
KEPT = 10_000  # pictures whose features are kept for distances that no moments suffice for: 80 MB of Inception's
SPARE = KEPT // 4  # more of them before some are dropped, which copies all
SUBSET = 1000  # pictures in one of KID's subsets
NEIGHBOURS = 5  # of precision and recall, as in Stein et al. 2023


class Judge(NamedTuple):
    """A network that pictures are measured with, and its name in ``field_judges``."""

    name: str
    network: nn.Module  # pictures (n, 3, h, w) uint8 -> (n, d)


class Convention(NamedTuple):
    """A form of CLIPScore: ``factor max(cos, 0)`` of a picture and of ``prefix`` with its prompt."""

    factor: float
    prefix: str


CONVENTIONS = {
    "clipscore": Convention(2.5, "A photo depicts "),  # Hessel et al. 2021, on ViT-B/32
    "clip_score_100": Convention(100.0, ""),  # torchmetrics, and most papers on text to image
}


def load(name: str, path: Path, device: str | torch.device = "cpu") -> Judge:
    """A judge from its local file or folder; ValueError, one line, for an unknown name or for other weights."""
    check_choice(name, "judge", LOADERS)
    return Judge(name, LOADERS[name](path).to(device))


def judges(config: FieldJudges, root: Path, device: str | torch.device = "cpu") -> dict[str, Judge]:
    """The judges that ``field_judges`` names; paths are relative to ``root``, or absolute. ValueError as ``load``."""
    named = {name: getattr(config, name) for name in LOADERS}
    return {name: load(name, root / path, device) for name, path in named.items() if path is not None}


@torch.no_grad()
def features(judge: Judge, pictures: Tensor) -> FloatArray:
    """A judge's features (n, d) of pictures (n, 3, h, w) uint8, on any device; 32 at a time, so only they are held.

    Computed in the network's float32, returned as float64. Raises ValueError for floats and other shapes.
    """
    check_picture_tensor(pictures, "pictures", ("uint8",))
    device = next(judge.network.parameters()).device
    batches = (judge.network(batch.to(device)) for batch in pictures.split(BATCH))
    return np.concatenate([batch.double().cpu().numpy() for batch in batches])


@torch.no_grad()
def clip_scores(network: Clip, pictures: Tensor, prompts: Sequence[str], convention: str) -> FloatArray:
    """CLIPScore of each picture and its prompt, (n,) float64, by one of ``CONVENTIONS``.

    Pictures are (n, 3, h, w) uint8. Raises ValueError for floats, other shapes, another number of prompts and an
    unknown convention; TypeError for prompts that are no sequence of texts.
    """
    check_picture_tensor(pictures, "pictures", ("uint8",))
    check_texts(prompts, "prompts")
    check_choice(convention, "convention", CONVENTIONS)
    if len(pictures) != len(prompts):
        raise ValueError(f"each picture needs one prompt: {len(pictures)} pictures, {len(prompts)} prompts")
    factor, prefix = CONVENTIONS[convention]
    device, scores = next(network.parameters()).device, []
    for start in range(0, len(prompts), BATCH):
        seen = network(pictures[start : start + BATCH].to(device)).double()
        read = network.texts([prefix + prompt for prompt in prompts[start : start + BATCH]]).double()
        scores.append(factor * cosine_similarity(seen, read).clamp(min=0))
    return torch.cat(scores).cpu().numpy()


# ------------------------------------------------------------------------------------------------ sets of pictures


class Rows(NamedTuple):
    """Features of some pictures."""

    keys: np.ndarray  # (k,) int64; of more pictures than are kept, the ones with the smallest keys stay
    numbers: np.ndarray  # (k,) int64, the pictures' numbers
    features: np.ndarray  # (k, d) float32, in which networks compute


@dataclasses.dataclass
class Collected:
    """What is kept of a set of pictures as they come, in batches and on several machines: memory does not grow with n.

    The moments are of all pictures. Rows are of all up to ``KEPT``; of more, of as many, drawn at random by the
    pictures' numbers alone, so that neither batches nor shards change which.
    """

    judge: str
    moments: Moments = dataclasses.field(default_factory=Moments)
    parts: list[Rows] = dataclasses.field(default_factory=list)

    def update(self, features: Samples, first: int) -> Self:
        """Add a batch's features (b, d), of the pictures numbered from ``first`` on; returns self.

        Raises ValueError as ``feature_matrix`` does, and for features of another d.
        """
        rows, first = feature_matrix(features), check_whole(first, "first", least=0)
        numbers = np.arange(first, first + len(rows))
        self.moments.update(rows)
        self._add(Rows(np.array([seed_of("field", int(each)) for each in numbers]), numbers, rows.astype(np.float32)))
        return self

    def merge(self, added: "Collected") -> Self:
        """Add another set, such as a shard's; returns self.

        Raises ValueError for another judge's features and for pictures of the same numbers, TypeError for what is no
        ``Collected``.
        """
        _check_collected(added, "added")
        if added.judge != self.judge:
            raise ValueError(f"added: features of {added.judge} do not join features of {self.judge}")
        here, there = (_numbers(each.parts) for each in (self, added))
        both = np.intersect1d(here, there)
        if len(both):
            raise ValueError(
                f"added: picture {int(both[0])} is in both sets; number each shard's from its own place on"
            )
        self.moments.merge(added.moments)
        for part in added.parts:
            self._add(part)
        return self

    @property
    def features(self) -> FloatArray:
        """The rows that are kept, (min(n, KEPT), d) float64, in the order of the pictures' numbers."""
        if not self.parts:
            return np.zeros((0, 0))
        kept = _kept(self.parts)
        return kept.features[np.argsort(kept.numbers)].astype(np.float64)

    def _add(self, part: Rows) -> None:
        self.parts.append(part)
        if sum(len(each.keys) for each in self.parts) > KEPT + SPARE:
            self.parts = [_kept(self.parts)]


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _numbers(parts: Sequence[Rows]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *(part.numbers for part in parts)])


def _kept(parts: Sequence[Rows]) -> Rows:
    """The ``KEPT`` rows of the smallest keys."""
    rows = _joined(parts)
    if len(rows.keys) <= KEPT:
        return rows
    chosen = np.argpartition(rows.keys, KEPT)[:KEPT]
    return Rows(*(array[chosen] for array in rows))


def collect(judge: Judge, batches: Iterable[Tensor], first: int = 0) -> Collected:
    """A judge's features of pictures that come in batches (b, 3, h, w) uint8, numbered from ``first`` on.

    Raises ValueError as ``features`` does, and for no batch at all.
    """
    first = check_whole(first, "first", least=0)
    collected = Collected(judge.name)
    for batch in batches:
        collected.update(features(judge, batch), first + collected.moments.count)
    if collected.moments.count == 0:
        raise ValueError("batches: expected at least one batch of pictures, got none")
    return collected


def distances(real: Collected, generated: Collected) -> dict[str, float]:
    """Distances of two sets of pictures, at least six each, by name.

    ``fid`` (of other judges ``fd_JUDGE``), of all pictures; of the kept ones ``kid`` (``kd_JUDGE``), unbiased over all
    pairs, ``kid_mean`` and ``kid_std`` over subsets of 1,000 where there are as many, and ``precision_JUDGE``,
    ``recall_JUDGE``, of 5 neighbours. Raises ValueError for different judges or too few pictures, TypeError for what is
    no ``Collected``.
    """
    _check_collected(real, "real")
    _check_collected(generated, "generated")
    if real.judge != generated.judge:
        raise ValueError(f"real pictures were seen by {real.judge}, generated ones by {generated.judge}")
    judge = real.judge
    frechet, kernel = ("fid", "kid") if judge == INCEPTION else (f"fd_{judge}", f"kd_{judge}")
    if min(real.moments.count, generated.moments.count) <= NEIGHBOURS:
        counts = f"{real.moments.count} and {generated.moments.count}"
        raise ValueError(f"real, generated: expected at least {NEIGHBOURS + 1} pictures each, got {counts}")
    x, y = real.features, generated.features
    values = {frechet: frechet_distance_from_moments(real.moments, generated.moments), kernel: kernel_distance(x, y)}
    if min(len(x), len(y)) >= SUBSET:
        values[f"{kernel}_mean"], values[f"{kernel}_std"] = subset_kernel_distance(x, y, size=SUBSET)
    near = precision_recall_density_coverage(x, y, NEIGHBOURS)
    return values | {f"{name}_{judge}": near[name] for name in ("precision", "recall")}


def _check_collected(value: object, name: str) -> None:
    if not isinstance(value, Collected):
        raise TypeError(f"{name}: expected Collected, got {came(value)}")
