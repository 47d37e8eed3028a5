"""Latents of a manifest's pictures, batch by batch."""

from collections.abc import Iterator

import pandas as pd
from diffusers import AutoencoderKL
from torch import Tensor

from atelier.data import prepare
from atelier.models.latents import encode_pictures
from atelier.params import Params
from atelier.workspace import Workspace

AT_A_TIME = 256  # pictures in memory at once


def encoded(
    params: Params, workspace: Workspace, vae: AutoencoderKL, table: pd.DataFrame, kind: str
) -> Iterator[Tensor]:
    """Mean latents (b, c, h, w) of a manifest's pictures; ``kind``: works or photographs."""
    for start in range(0, len(table), AT_A_TIME):
        part = table.iloc[start : start + AT_A_TIME].reset_index(drop=True)
        yield encode_pictures(vae, prepare.pictures(part, params.data, workspace, kind)).mean
