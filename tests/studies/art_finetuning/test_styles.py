"""How far one style of works is from another."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier.evaluation.judges import Judges
from atelier.metrics import frechet_distance, haar_statistics
from atelier.params import Params
from atelier.studies.art_finetuning import styles
from atelier.studies.art_finetuning.styles import between_styles
from atelier.workspace import Workspace


def pictures(n: int, seed: int) -> Tensor:
    """Coarse blobs, so that sets have a slope and differ from each other."""
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic", antialias=True)
    noise = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed + 1000))
    return ((0.8 * fine + 0.2 * noise).clamp(0, 1) * 255).to(torch.uint8)


def test_styles_lie_apart_and_halves_of_one_together() -> None:
    light = (pictures(40, 7).float() * 0.5 + 127).to(torch.uint8)
    works = {"Dark": pictures(40, 8) // 8, "Light": light, "Rare": pictures(7, 9)}
    rows = between_styles(works, Judges())
    assert set(rows["style"]) == set(rows["reference"]) == {"Dark", "Light"}  # of seven works no two groups of two
    assert (rows["n"] == 20).all()
    fd = rows[rows["measure"] == "fd"].set_index(["style", "reference"])["whole"]
    for style, reference in (("Dark", "Light"), ("Light", "Dark")):
        assert fd[style, reference] > 5 * fd[style, style] > 0
    light_half = haar_statistics(works["Light"][1::2] / 255)
    expected = frechet_distance(haar_statistics(works["Dark"][::2] / 255), light_half)
    assert fd["Light", "Dark"] == pytest.approx(expected)


def test_the_stage_leaves_an_interval_a_row(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small style has fewer groups, and its interval is over those."""
    rows = [
        {"style": "a", "reference": "a", "measure": "fd", "n": 10, "group0": 1.0, "group1": 3.0, "group2": np.nan},
        {"style": "a", "reference": "b", "measure": "fd", "n": 10, "group0": 2.0, "group1": 2.5, "group2": 3.0},
    ]
    monkeypatch.setattr(styles, "between_styles", lambda works, model: pd.DataFrame(rows))
    styles.main(config, workspace)
    table = styles.load(workspace.measures)
    assert table["value"].tolist() == [2.0, 2.5]
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()
