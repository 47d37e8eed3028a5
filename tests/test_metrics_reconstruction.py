"""PSNR against its definition; the linear code against an SVD of the patches."""

import math

import numpy as np
import pytest
import torch

from atelier.metrics.reconstruction import linear_patch_code, psnr


def test_psnr_of_a_known_error() -> None:
    real = torch.full((2, 3, 8, 8), 0.5)
    assert psnr(real, real + 0.1) == pytest.approx(20.0, abs=1e-5)
    assert psnr(real, real) == math.inf


def test_linear_code_is_the_best_projection_of_patches() -> None:
    pictures = torch.rand(6, 3, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coded = linear_patch_code(pictures, pictures, 5)
    rows = np.stack(
        [
            pictures[n, :, y : y + 8, x : x + 8].numpy().ravel()
            for n in range(6)
            for y in range(0, 16, 8)
            for x in range(0, 24, 8)
        ]
    )
    lost = (np.linalg.svd(rows - rows.mean(0), compute_uv=False)[5:] ** 2).sum()
    assert float((pictures - coded).square().sum()) == pytest.approx(lost, rel=1e-10)


def test_all_coefficients_lose_nothing() -> None:
    pictures = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(linear_patch_code(pictures, pictures, 192), pictures.double(), rtol=0, atol=1e-9)


def test_sides_that_patches_do_not_fill_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        linear_patch_code(torch.rand(2, 3, 12, 16), torch.rand(2, 3, 12, 16), 4)


def test_a_reconstruction_may_leave_the_range_a_little_and_the_pictures_may_not() -> None:
    """A linear code overshoots; pictures in [-1, 1] or 0..255 are another range."""
    pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    coded = linear_patch_code(pictures, pictures, 4)
    assert math.isfinite(psnr(pictures, 1.3 * coded - 0.15))
    for other in (2 * pictures - 1, 255 * pictures):
        with pytest.raises(ValueError, match="reconstructed: expected floats in"):
            psnr(pictures, other)
        with pytest.raises(ValueError, match="real: expected floats in"):
            psnr(other, pictures)
