"""A sampler that costs nothing: every picture is a grey of its prompt."""

import zlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from atelier.sampling import conditions as sampling


def shade(text: str) -> int:
    return zlib.crc32(text.encode()) % 256


def paint_shades(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every picture becomes a grey of its prompt; the guidance scale of each time that the sampler is called."""
    calls: list[float] = []

    def shaded(
        _: object, prompts: list[str], latents: Tensor, *, guidance: float, steps: int, batch: int
    ) -> Iterator[Tensor]:
        calls.append(guidance)
        assert len(prompts) == len(latents)
        shades = torch.tensor([shade(text) / 127.5 - 1 for text in prompts])
        yield from shades.view(-1, 1, 1, 1).expand(latents.shape).split(batch)

    monkeypatch.setattr(sampling, "last_latents", shaded)
    monkeypatch.setattr(sampling, "decoded", lambda vae, latents, batch: latents[:, :1].expand(-1, 3, -1, -1))
    return calls
