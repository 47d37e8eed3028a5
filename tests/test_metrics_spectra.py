"""Spectra: slopes of exact power laws, closed forms of residuals, streaming, refusals."""

import numpy as np
import pytest

from atelier.metrics import (
    log_power_error,
)


def power_law(exponent: float, n: int = 100, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """(n, 1, h, w) in [0, 1]: white noise filtered to power f^-exponent, one scale for the set, no mean but 0.5."""
    generator = np.random.default_rng(seed)
    axis = np.fft.fftshift(np.fft.fftfreq(64)) * 64
    ring = np.round(np.hypot(*np.meshgrid(axis, axis)))
    above = 16.5  # between two rings
    assert log_power_error(real, real, above) == 0.0
    assert log_power_error(real, np.where(ring > 16, 10 * real, real), above) == pytest.approx(1.0)
    assert log_power_error(real, np.where(ring > 16, real / 10, real), above) == pytest.approx(1.0)
    assert log_power_error(real, np.where(ring <= 16, 10 * real, real), above) == pytest.approx(0.0)
    assert log_power_error(real, np.where(ring > 24, 100 * real, real), above) == pytest.approx(2 * 8 / 16)
    with pytest.raises(ValueError, match="no power above 33 cycles"):
        log_power_error(real, real, 33)
    with pytest.raises(ValueError, match="no power above 16 cycles"):
        log_power_error(real, np.where(ring == 20, 0.0, real), 16)
    with pytest.raises(ValueError, match="64"):
        log_power_error(real, real[:32, :32], 8)
