"""A network that sees how strong each of some defects is in a picture; of two kinds, so that one can check the other.

It judges pictures that a study made, and never teaches: what chooses pictures to learn from is another one, of another
kind and seed. Its first layers keep a picture's resolution, because some defects are of two px.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from atelier.data.checks import check_choice
from atelier.models import stored
from atelier.models.checked import check_sizes
from atelier.seeds import seed_of

Kind = Literal["plain", "residual"]
WIDTHS: Mapping[Kind, tuple[int, ...]] = {"plain": (24, 40, 56), "residual": (20, 32, 48, 64)}  # halved in between
GROUPS = 4
EPS = 1e-4  # added to a variance before its root
TENSORS, CONFIG, CARD = "judge.safetensors", "config.json", "card.json"


class Residual(nn.Module):
    """Two convolutions with group normalisation and a shortcut, (n, c, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class DefectJudge(nn.Module):
    """Pictures (n, 3, h, w) in [0, 1] to strengths (n, defects) in [0, 1]; ``defects``: their names, in this order."""

    def __init__(self, kind: Kind, defects: Sequence[str]) -> None:
        super().__init__()
        self.kind, self.defects, widths = kind, tuple(defects), WIDTHS[kind]
        self.stages = nn.ModuleList(
            _stage(kind, before, after) for before, after in zip((3, *widths), widths, strict=False)
        )
        self.head = nn.Sequential(nn.LayerNorm(2 * sum(widths)), nn.Linear(2 * sum(widths), len(self.defects)))

    def forward(self, pictures: Tensor) -> Tensor:
        """The mean and the deviation of every stage's maps are seen, because some defects are of texture alone."""
        x, seen = pictures * 4 - 2, []
        for number, stage in enumerate(self.stages):
            x = stage(avg_pool2d(x, 2) if number else x)
            spread, mean = torch.var_mean(x, (2, 3))
            seen += [mean, (spread + EPS).sqrt()]
        return self.head(torch.cat(seen, 1)).sigmoid()

    @torch.no_grad()
    def score(self, pictures: Tensor, batch: int = 64) -> Tensor:
        """How defective pictures (n, 3, h, w) in [0, 1] are, (n,): the sum of their defects' strengths."""
        return torch.cat([self(part).sum(1) for part in pictures.split(batch)])


def _stage(kind: Kind, before: int, after: int) -> nn.Sequential:
    first = nn.Conv2d(before, after, 3, padding=1)
    if kind == "residual":
        return nn.Sequential(first, Residual(after))
    convolutions = (first, nn.Conv2d(after, after, 3, padding=1))
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU())


def build(kind: Kind, defects: Sequence[str], seed: int) -> DefectJudge:
    """A judge with random weights."""
    check_choice(kind, "kind", get_args(Kind))
    torch.manual_seed(seed_of(seed, "defect judge", kind))
    return DefectJudge(kind, defects)


def save(judge: DefectJudge, folder: Path, card: Mapping[str, Any]) -> None:
    """Write weights (float16), what the network is, and a card; equal weights give equal bytes."""
    stored.save_tensors(judge.state_dict(), folder / TENSORS, torch.float16)
    stored.save_json({"kind": judge.kind, "defects": list(judge.defects)}, folder / CONFIG)
    stored.save_json(card, folder / CARD)


def load(folder: Path) -> DefectJudge:
    """Load a frozen judge; ValueError for a folder without one."""
    config = stored.load_json(folder / CONFIG)
    check_sizes(config, folder / CONFIG)
    kind: Any = config.get("kind")
    defects = config.get("defects")
    if kind not in get_args(Kind):
        raise ValueError(f"{folder / CONFIG}: kind: expected one of {', '.join(get_args(Kind))}, got {kind!r}")
    if not isinstance(defects, list) or not defects or not all(isinstance(name, str) for name in defects):
        raise ValueError(f"{folder / CONFIG}: defects: expected names, got {defects!r}")
    with torch.device("meta"):
        judge = DefectJudge(kind, defects)
    stored.restore(judge, folder / TENSORS)
    return judge.requires_grad_(False).eval()
