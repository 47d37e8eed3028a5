"""The defect judge's training: pictures with planted defects, and how strong each is.

A picture has several defects, one or none. Half of the pictures went through the base's autoencoder before, whose own
traces are in every picture that a study makes and are no defect.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atelier.models.defect_judge import DefectJudge
from atelier.seeds import torch_generator
from atelier.training.defects import planted
from atelier.training.loop import Task
from atelier.training.order import Turn

PRESENT = 0.35  # share of views that have a defect, for each defect by itself


class View(NamedTuple):
    """All random numbers of one sample's turn."""

    returned: bool  # whether the picture that the autoencoder returned is seen
    flip: bool
    strengths: Tensor  # (defects,)
    chance: Tensor  # (3, s, s)


def view(seed: int, name: str, epoch: int, defects: int, size: int) -> View:
    """A function of (seed, sample, epoch)."""
    generator = torch_generator(seed, "defects", name, epoch)
    present, amount = torch.rand((2, defects), generator=generator)
    returned, flip = (torch.rand(2, generator=generator) < 0.5).tolist()
    strengths = torch.where(present < PRESENT, amount, 0.0)
    return View(returned, flip, strengths, torch.randn(3, size, size, generator=generator))


def task(
    judge: DefectJudge, pictures: Tensor, returned: Tensor, names: Sequence[str], seed: int, device: torch.device
) -> Task:
    """Train ``judge`` on ``pictures`` (n, 3, s, s) uint8 and what the autoencoder ``returned`` of them, alike."""
    if pictures.shape != returned.shape:
        raise ValueError(f"returned: expected the shape {tuple(pictures.shape)}, got {tuple(returned.shape)}")
    judge.to(device).requires_grad_(True).train()
    size = pictures.shape[-1]

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        views = [view(seed, names[turn.sample], turn.epoch, len(judge.defects), size) for turn in batch]
        shown = torch.stack(
            [_seen(pictures, returned, turn.sample, each) for turn, each in zip(batch, views, strict=True)]
        )
        strengths = torch.stack([one.strengths for one in views])
        chance = torch.stack([one.chance for one in views])
        seen = judge(planted(shown / 255, strengths, chance, judge.defects).to(device))
        return {"strengths": (seen - strengths.to(device)).square().mean()}

    return Task(trainable=dict(judge.named_parameters()), samples=names, losses=losses)


def _seen(pictures: Tensor, returned: Tensor, sample: int, one: View) -> Tensor:
    picture = (returned if one.returned else pictures)[sample].float()
    return picture.flip(2) if one.flip else picture
