"""The trunk's training: first classification from every stage, then the weights of its perceptual distance.

The heads are LPIPS's (Zhang et al. 2018), fitted without human judgements: of two distortions of one kind, the stronger
must have the larger distance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy

from atelier.data.checks import square_side
from atelier.data.images import to_model_range
from atelier.methods.perceptual import perceptual_distance
from atelier.models.trunk import Trunk
from atelier.seeds import seed_of, torch_generator
from atelier.training.distortions import FAMILIES, distorted, sampled
from atelier.training.loop import Task
from atelier.training.order import Turn

ATTRIBUTES = ("subject", "art_style", "artist", "light", "emotion")
SHIFT = 4  # px
NOISE = 0.02  # on pictures in [-1, 1]; no blur, because texture shows the style
EPS, NORM_EPS = 1e-4, 1e-5  # added to a variance before its root; added to a variance as in ``batch_norm``
RATIO = 2.0  # maximum ratio of the two strengths compared

Distance = Callable[[Tensor, Tensor], Tensor]  # two batches (n, 3, h, w) in [-1, 1] -> (n,)


def task(
    trunk: Trunk,
    pictures: Tensor,
    records: Sequence[Mapping[str, Any]],
    seed: int,
    device: torch.device,
) -> Task:
    """Train ``trunk`` on ``pictures`` (n, 3, s, s) uint8 and their truth; call ``fold`` afterwards.

    Linear heads predict all attributes from each stage's mean and deviation per channel, so that shallow stages learn
    texture too. The heads, and batch normalisation for faster training, are used in training only.
    """
    trunk.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to torch's stubs
    trunk.requires_grad_(True).train()
    names = [str(record["painting"]) for record in records]
    classes = {name: sorted({str(record[name]) for record in records}) for name in ATTRIBUTES}
    labels = {
        name: torch.tensor([known.index(str(record[name])) for record in records]).to(device)
        for name, known in classes.items()
    }
    torch.manual_seed(seed_of(seed, "heads"))
    widths = [len(known) for known in classes.values()]
    heads = nn.ModuleList(
        nn.Sequential(nn.BatchNorm1d(2 * c, affine=False, track_running_stats=False), nn.Linear(2 * c, sum(widths)))
        for c in trunk.channels
    ).to(device)
    norms = _norms(trunk, device)

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        shown = _moved(pictures[chosen], seed, [names[index] for index in chosen], [turn.epoch for turn in batch])
        x = shown.to(device, memory_format=torch.channels_last)
        terms = {}
        for index, stage in enumerate(trunk.stages):
            for name, layer in stage.named_children():
                x = layer(x)
                if isinstance(layer, nn.Conv2d):
                    x = batch_norm(x, None, None, *_of(norms, index, name), training=True)
            spread, mean = torch.var_mean(x, (2, 3))
            outputs = heads[index](torch.cat([mean, (spread + EPS).sqrt()], 1)).split(widths, 1)
            terms[f"stage{index}"] = torch.stack(
                [cross_entropy(out, labels[name][chosen]) for name, out in zip(classes, outputs, strict=True)]
            ).mean()
        return terms

    temporary = {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
    return Task(trainable=dict(trunk.named_parameters()) | norms | temporary, samples=names, losses=losses)


def _norms(trunk: Trunk, device: torch.device) -> dict[str, nn.Parameter]:
    """A gain and an offset for each convolution's channels, named by stage and layer."""
    return {
        f"norms.{index}.{name}.{kind}": nn.Parameter(torch.full((layer.out_channels,), start, device=device))
        for index, stage in enumerate(trunk.stages)
        for name, layer in stage.named_children()
        if isinstance(layer, nn.Conv2d)
        for kind, start in (("gain", 1.0), ("offset", 0.0))
    }


def _of(norms: Mapping[str, Tensor], stage: int, name: str) -> tuple[Tensor, Tensor]:
    return norms[f"norms.{stage}.{name}.gain"], norms[f"norms.{stage}.{name}.offset"]


@torch.no_grad()
def fold(trunk: Trunk, learnt: Task, pictures: Tensor) -> None:
    """Fold batch normalisation, with the statistics of ``pictures`` (n, 3, s, s) uint8, into the convolutions.

    The result is a plain stack, whose features of a picture do not depend on the batch.
    """
    x = to_model_range(pictures).to(next(trunk.parameters()).device)
    for index, stage in enumerate(trunk.stages):
        for name, layer in stage.named_children():
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                gain, offset = _of(learnt.trainable, index, name)
                variance, mean = torch.var_mean(layer(x), (0, 2, 3), correction=0)
                scale = gain / (variance + NORM_EPS).sqrt()
                layer.weight *= scale[:, None, None, None]
                layer.bias.copy_((layer.bias - mean) * scale + offset)
            x = layer(x)
    trunk.requires_grad_(False).eval()


def _moved(pictures: Tensor, seed: int, names: Sequence[str], epochs: Sequence[int]) -> Tensor:
    """Augment: uint8 (n, 3, s, s) to [-1, 1], randomly flipped and shifted, with a little noise."""
    size = square_side(pictures, "pictures")
    generators = [torch_generator(seed, "trunk", name, epoch) for name, epoch in zip(names, epochs, strict=True)]
    shift = torch.stack([torch.randint(-SHIFT, SHIFT + 1, (2,), generator=g) for g in generators])
    flip = torch.stack([torch.rand(1, generator=g) for g in generators]) < 0.5
    noise = torch.stack([torch.randn(3, size, size, generator=g) for g in generators])
    rows, columns = (shift[:, axis, None] + torch.arange(size) for axis in (0, 1))
    columns = torch.where(flip, size - 1 - columns, columns)
    return sampled(to_model_range(pictures), rows, columns, torch.zeros(len(pictures))) + NOISE * noise


class Comparison(NamedTuple):
    """One reference's two distortions of one family, the stronger second."""

    family: str
    strengths: tuple[float, float]
    chances: Tensor  # (2, 3, s, s)


def comparison(seed: int, name: str, epoch: int, size: int, family: str | None = None) -> Comparison:
    """A function of (seed, sample, epoch), and of the family if given."""
    generator = torch_generator(seed, "comparison", name, epoch, family or "any")
    drawn = list(FAMILIES)[int(torch.randint(len(FAMILIES), (), generator=generator))]
    stronger, ratio = torch.rand(2, generator=generator).tolist()
    strength = 0.1 + 0.9 * stronger
    chances = torch.randn(2, 3, size, size, generator=generator)
    return Comparison(family or drawn, (strength / RATIO**ratio, strength), chances)


def triplets(pictures: Tensor, comparisons: Sequence[Comparison]) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 references (n, 3, s, s) to references, weaker and stronger distortions, each in [-1, 1]."""
    references, families = pictures.float() / 255, [c.family for c in comparisons]
    strengths = torch.tensor([c.strengths for c in comparisons])
    chances = torch.stack([c.chances for c in comparisons])
    weaker, stronger = (distorted(references, families, strengths[:, index], chances[:, index]) for index in (0, 1))
    return 2 * references - 1, 2 * weaker - 1, 2 * stronger - 1


def heads_task(trunk: Trunk, pictures: Tensor, names: Sequence[str], seed: int, device: torch.device) -> Task:
    """Fit the roots of the LPIPS weights, ``root0``, ``root1``, ... (c_l,), on a frozen trunk; see ``weights_of``.

    The modelled probability that the stronger is judged farther is d_s / (d_s + d_w) (Luce 1959), which is invariant to
    scale, so that weights do not diverge.
    """
    size = square_side(pictures, "pictures")
    trunk.to(device).requires_grad_(False).eval()
    roots = {f"root{stage}": nn.Parameter(torch.ones(c, device=device)) for stage, c in enumerate(trunk.channels)}

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        comparisons = [comparison(seed, names[turn.sample], turn.epoch, size) for turn in batch]
        features = [trunk(shown.to(device)) for shown in triplets(pictures[chosen], comparisons)]
        weights = [root.square() for root in roots.values()]
        weaker, stronger = (perceptual_distance(features[0], maps, weights) + 1e-6 for maps in features[1:])
        return {"ranking": -(stronger / (weaker + stronger)).log().mean()}

    return Task(trainable=roots, samples=names, losses=losses)


def weights_of(task: Task, trunk: Trunk, pictures: Tensor) -> list[Tensor]:
    """The fitted weights (c_l,), scaled so that neighbours among pictures (n, 3, s, s) uint8 have mean distance 1."""
    weights = [task.trainable[f"root{stage}"].detach().cpu().square() for stage in range(len(trunk.channels))]
    shown = to_model_range(pictures)
    with torch.no_grad():
        unit = float(distance(trunk.cpu(), weights)(shown, shown.roll(1, 0)).mean())
    if not (math.isfinite(unit) and unit > 0):
        raise ValueError(f"no scale for a distance: different pictures are {unit:g} apart")
    return [weight / unit for weight in weights]


def distance(trunk: Trunk, weights: Sequence[Tensor]) -> Distance:
    """LPIPS with a trunk and its weights (c_l,)."""
    return lambda pictures, others: perceptual_distance(trunk(pictures), trunk(others), weights)


@torch.no_grad()
def two_afc(judged: Distance, pictures: Tensor, names: Sequence[str], seed: int) -> dict[str, float]:
    """Share of comparisons in which ``judged`` gives the stronger distortion the larger distance, by family and mean.

    One comparison per picture, uint8 (n, 3, s, s), and family; a tie counts half. Two-alternative forced choice, as in
    Zhang et al.
    """
    right, size = {}, square_side(pictures, "pictures")
    for family in FAMILIES:
        comparisons = [comparison(seed, name, 0, size, family) for name in names]
        references, weaker, stronger = triplets(pictures, comparisons)
        difference = judged(references, stronger) - judged(references, weaker)
        right[family] = float((0.5 + 0.5 * difference.sign()).mean())
    return {**right, "mean": sum(right.values()) / len(right)}
