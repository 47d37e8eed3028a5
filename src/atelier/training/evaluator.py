"""The evaluator's training: classify a picture's attributes, and match captions with pictures.

It is used on reconstructed and generated pictures, so training pictures are degraded likewise: blurred, coded, noisy.
Colours are not changed, because they show the emotion.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from atelier.data.checks import square_side
from atelier.models.base import prompt_ids
from atelier.models.evaluator import Evaluator, applies
from atelier.seeds import torch_generator
from atelier.training.distortions import coded, sampled
from atelier.training.loop import Task
from atelier.training.order import Turn

SPOILT = 0.35  # share of views to which each of the three degradations is applied, independently
SHIFT = 3  # px, to each side
BLUR = 1.3  # px
CODED = (2.5, 8.0)  # cosines kept, of 8 per axis
NOISE = 0.06  # standard deviation, relative to the range from black to white
CALIBRATION = 64  # pictures per batch; a smaller last batch would have the same weight
NONE = -100  # label of a missing attribute; ``cross_entropy`` ignores it


class View(NamedTuple):
    """All random numbers of one sample's turn."""

    flip: bool
    shift: Tensor  # (2,) px
    blur: float  # px
    kept: float  # cosines
    noise: Tensor  # (3, s, s)
    prompt: int


def view(seed: int, name: str, epoch: int, size: int, prompts: int) -> View:
    """A function of (seed, sample, epoch)."""
    generator = torch_generator(seed, "view", name, epoch)
    flip, spoilt_by, amount = torch.rand(7, generator=generator).split((1, 3, 3))
    blur, code, noise = torch.where(spoilt_by < SPOILT, amount, 0.0).tolist()
    return View(
        flip=bool(flip < 0.5),
        shift=torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator),
        blur=BLUR * blur,
        kept=CODED[1] - (CODED[1] - CODED[0]) * code,
        noise=NOISE * noise * torch.randn(3, size, size, generator=generator),
        prompt=int(torch.randint(prompts, (), generator=generator)),
    )


def apply_views(pictures: Tensor, views: Sequence[View]) -> Tensor:
    """Apply views to pictures (n, 3, s, s) in [0, 1]."""
    size = square_side(pictures, "pictures")
    shift = torch.stack([v.shift for v in views])[:, :, None] + torch.arange(size)  # (n, 2, s)
    flip = torch.tensor([v.flip for v in views])[:, None]
    columns = torch.where(flip, size - 1 - shift[:, 1], shift[:, 1])
    shifted = sampled(pictures, shift[:, 0], columns, torch.tensor([v.blur for v in views]))
    spoilt = coded(shifted, torch.tensor([v.kept for v in views])) + torch.stack([v.noise for v in views])
    return spoilt.clamp(0, 1)


def contrastive_loss(similarity: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, figure 3): scaled cosines (n, n), rows pictures, columns captions.

    ``same`` (n, n) bool: pairs of equal captions, which count as equally correct.
    """
    right = same / same.sum(1, keepdim=True)
    return (cross_entropy(similarity, right) + cross_entropy(similarity.T, right)) / 2


def attribute_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, mean over the samples that have the attribute; 0 if none has."""
    total = cross_entropy(logits, labels, reduction="sum", ignore_index=NONE)
    return total / (labels != NONE).sum().clamp_min(1)


def labels_of(records: Sequence[Mapping[str, Any]], attribute: str, classes: Sequence[str]) -> Tensor:
    """Class indices (n,), ``NONE`` where the attribute does not apply; ValueError for an unknown name."""
    number = {name: index for index, name in enumerate(classes)}
    labels = []
    for record in records:
        name = record[attribute]
        if applies(attribute, record) and name not in number:
            raise ValueError(f"{record['painting']}: {attribute}: expected one of {', '.join(classes)}, got {name!r}")
        labels.append(number[name] if applies(attribute, record) else NONE)
    return torch.tensor(labels)


def task(
    model: Evaluator,
    pictures: Tensor,
    records: Sequence[Mapping[str, Any]],
    prompts: Sequence[Sequence[str]],
    seed: int,
    device: torch.device,
) -> Task:
    """Train all of ``model`` on ``pictures`` (n, 3, 64, 64) uint8, their truth, and equally many prompts for each.

    Views depend on (seed, name, epoch). Call ``calibrate`` afterwards. ValueError for a class unknown to the model.
    """
    if not len(pictures) == len(records) == len(prompts):
        raise ValueError(f"{len(pictures)} pictures, {len(records)} records and {len(prompts)} rows of prompts")
    size = square_side(pictures, "pictures")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to torch's stubs
    model.requires_grad_(True).train()
    names = [str(record["painting"]) for record in records]
    labels = {name: labels_of(records, name, classes).to(device) for name, classes in model.classes.items()}
    ids = torch.stack([prompt_ids(model.tokenizer, row) for row in prompts])  # (n, prompts, length)

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        views = [view(seed, names[turn.sample], turn.epoch, size, ids.shape[1]) for turn in batch]
        spoilt = apply_views(pictures[chosen].float() / 255, views).to(device, memory_format=torch.channels_last)
        words = ids[chosen, [v.prompt for v in views]].to(device)
        features = model.features(spoilt)
        cosines = model.image_embedding(features) @ model.text_embedding(words).T
        same = (words[:, None] == words).all(-1)
        terms = {"captions": contrastive_loss(model.scale * cosines, same)}
        return terms | {name: attribute_loss(out, labels[name][chosen]) for name, out in model.logits(features).items()}

    return Task(trainable=dict(model.named_parameters()), samples=names, losses=losses)


@torch.no_grad()
def calibrate(model: Evaluator, pictures: Tensor, names: Sequence[str], seed: int) -> None:
    """Compute batch norm statistics for inference, from first views of pictures (n, 3, 64, 64) uint8.

    The loop averages parameters but not buffers, so the buffers after training do not fit the averaged weights.
    """
    size = square_side(pictures, "pictures")
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
    model.train()
    for start in range(0, len(pictures) - len(pictures) % CALIBRATION or len(pictures), CALIBRATION):
        chosen = slice(start, start + CALIBRATION)
        views = [view(seed, name, 0, size, 1) for name in names[chosen]]
        model.features(apply_views(pictures[chosen].float() / 255, views).to(model.log_scale.device))
    model.requires_grad_(False).eval()
