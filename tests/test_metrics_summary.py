"""The studies' distances are the public metrics, computed once a set."""

import pytest
import torch

from atelier import metrics
from atelier.metrics.summary import brightness_spread, distances, measure


def test_distances_are_the_public_functions() -> None:
    generator = torch.Generator().manual_seed(0)
    real, made = (torch.rand(n, 3, 64, 64, generator=generator) * scale for n, scale in ((9, 1.0), (7, 0.8)))
    found = distances(measure(real), measure(made))
    features = metrics.haar_statistics(real), metrics.haar_statistics(made)
    assert found.fd_haar == pytest.approx(metrics.frechet_distance(*features), rel=1e-12)
    assert found.kd_haar == pytest.approx(metrics.kernel_distance(*features), rel=1e-12)
    assert found.pr == pytest.approx(metrics.residual_spectrum_distance(real, made), rel=1e-12)
    assert found.psd == pytest.approx(metrics.power_spectrum_slope_distance(real, made, low=2), rel=1e-9)
    assert found.psd10 == pytest.approx(metrics.power_spectrum_slope_distance(real, made, low=10), rel=1e-9)


def test_brightness_spread_sees_levels_between_pictures_and_not_contrast_within() -> None:
    levels = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1, 1)
    chequers = 0.1 * (-1.0) ** torch.arange(8).view(1, 1, 1, 8)
    assert brightness_spread((levels + chequers).expand(3, 3, 8, 8)) == pytest.approx(0.2, rel=1e-6)
    with pytest.raises(ValueError, match="two pictures"):
        brightness_spread(torch.zeros(1, 3, 8, 8))
