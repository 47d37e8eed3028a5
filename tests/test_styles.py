"""Styles against each other: of noise with known slopes, and of real paintings where there are some."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from atelier.evaluation.styles import main, styles_against_the_rest


def noise(slope: float, n: int, seed: int) -> torch.Tensor:
    """Pictures (n, 3, 64, 64) in [0, 1] whose power falls as f ** slope."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij"))
    radius[0, 0] = 1.0
    waves = np.fft.fft2(rng.normal(size=(n, 64, 64))) * radius ** (slope / 2)
    waves[:, 0, 0] = 0.0
    fields = np.fft.ifft2(waves).real
    return torch.from_numpy(0.5 + 0.1 * fields / fields.std()).unsqueeze(1).expand(-1, 3, -1, -1)


def test_known_slopes_come_out_and_apart() -> None:
    pictures = torch.cat([noise(-1.5, 40, 0), noise(-2.5, 40, 1)])
    table = styles_against_the_rest(pictures, pd.Series(["rough"] * 40 + ["smooth"] * 40))
    assert list(table["n"]) == [40, 40]
    np.testing.assert_allclose(table["slope"], [-1.5, -2.5], atol=0.05)
    np.testing.assert_allclose(table["PSD"], 1.0, atol=0.1)
    assert table.loc["rough", "PR"] == pytest.approx(table.loc["smooth", "PR"], rel=1e-12)


def test_one_style_has_no_rest() -> None:
    with pytest.raises(ValueError, match="at least two"):
        styles_against_the_rest(noise(-2, 4, 0), pd.Series(["only"] * 4))


@pytest.mark.long
@pytest.mark.skipif("ATELIER_REAL_INPUTS" not in os.environ, reason="ATELIER_REAL_INPUTS is unset: no real paintings")
def test_real_paintings_go_through_loader_prompts_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(Path(os.environ["ATELIER_REAL_INPUTS"]) / "paintings" / "wikiart")]) == 0
    said = capsys.readouterr().out
    print(said)
    assert "2738 works" in said
    for style in ("Baroque", "Cubism", "Fauvism", "Impressionism", "Pointillism", "Ukiyo_e"):
        line = next(line for line in said.splitlines() if line.startswith(style))
        n, rest, slope, *_ = map(float, line.split()[1:])
        assert n + rest == 2738
        # paintings have slopes of about -2 (Koch, Denzler and Redies 2010); none is near white or Brownian^2 noise
        assert -3.5 < slope < -1.0
