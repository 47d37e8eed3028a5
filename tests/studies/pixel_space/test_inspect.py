"""Gradients of both forms of the loss on decoded latents, and round trips of noisy ones, are what formulas say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from atelier import params
from atelier.diffusion import scaled_linear_betas, signal_and_noise
from atelier.evaluation.tables import read_rows
from atelier.models import base
from atelier.studies.pixel_space import inspect as stage
from atelier.studies.pixel_space.params import Config
from atelier.workspace import Workspace

FACTOR = 0.5  # of the scale of latents


class Linear(nn.Module):
    """An autoencoder whose decoder is linear, in float64, and whose encoder is its inverse."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.mix = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0] * 2
        self.config = FrozenDict(scaling_factor=FACTOR, shift_factor=0.25)
        self.dtype, self.device = torch.float64, torch.device("cpu")

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.einsum("ij,njhw->nihw", self.mix, latents) + 1)

    def encode(self, pictures: Tensor) -> SimpleNamespace:
        mean = torch.einsum("ij,njhw->nihw", self.mix.inverse(), pictures - 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean))


@pytest.fixture
def latents() -> tuple[Tensor, Tensor, Tensor]:
    """Clean latents, noise, and a denoiser's output, (3, 4, 8, 8) float64."""
    drawn = torch.randn(3, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return drawn[0], drawn[1], drawn[1] + 0.3 * drawn[2]


@pytest.mark.parametrize("t", [10, 500, 990])
def test_the_clean_forms_gradient_is_the_noisy_ones_over_alpha_squared(
    latents: tuple[Tensor, Tensor, Tensor], t: int
) -> None:
    """Of a linear decoder D: 2 s^2 D'D (eps_hat - eps) / m, and the same over alpha^2; of latents 2 (...) / m."""
    alphas, sigmas = signal_and_noise(scaled_linear_betas(0.00085, 0.012))
    z0, eps, output = latents
    vae = Linear()
    norms = dict(stage.gradient_norms(vae, "epsilon", z0, eps, output, alphas[t], sigmas[t]))  # type: ignore[arg-type]
    metric = vae.mix.T @ vae.mix / FACTOR**2
    back = torch.einsum("ij,njhw->nihw", metric, output - eps).flatten(1).norm(dim=1)
    size = z0[0].numel()
    torch.testing.assert_close(norms["latent"], 2 / size * (output - eps).flatten(1).norm(dim=1))
    torch.testing.assert_close(norms["noisy"], 2 / size * sigmas[t] ** 2 * back)
    torch.testing.assert_close(norms["clean"], norms["noisy"] / alphas[t] ** 2)


def test_gradients_are_with_respect_to_what_the_denoiser_returns(latents: tuple[Tensor, Tensor, Tensor]) -> None:
    """eps_hat = s z_t + alpha v: all norms are alpha times those at the same noise."""
    alphas, sigmas = signal_and_noise(scaled_linear_betas(0.00085, 0.012))
    z0, eps, eps_hat = latents
    alpha, s = alphas[600], sigmas[600]
    v = (eps_hat - s * (alpha * z0 + s * eps)) / alpha
    vae: object = Linear()
    by_v = dict(stage.gradient_norms(vae, "v_prediction", z0, eps, v, alpha, s))  # type: ignore[arg-type]
    by_eps = dict(stage.gradient_norms(vae, "epsilon", z0, eps, eps_hat, alpha, s))  # type: ignore[arg-type]
    for name, norm in by_v.items():
        torch.testing.assert_close(norm, alpha * by_eps[name])


def test_a_round_trip_through_an_exact_autoencoder_loses_nothing(latents: tuple[Tensor, Tensor, Tensor]) -> None:
    z0, noise, _ = latents
    vae: object = Linear()
    returned = stage.round_trip(vae, z0)  # type: ignore[arg-type]
    torch.testing.assert_close(returned, z0.float(), rtol=0, atol=1e-5)
    assert stage.explained(z0, z0) == 1.0
    assert stage.explained(z0, z0.mean((0, 2, 3), keepdim=True).expand_as(z0)) == pytest.approx(0.0)
    spread = (z0 - z0.mean((0, 2, 3), keepdim=True)).square().mean()
    half = z0 + noise * (spread / 2).sqrt() / noise.square().mean().sqrt()
    assert stage.explained(z0, half) == pytest.approx(0.5)
    assert stage.explained(z0, -z0) < 0


def test_ratios_are_of_the_tenths_at_both_ends() -> None:
    """Two levels each; the mean of logarithms, so that neither pictures nor levels of large norms decide alone."""
    steps = [(2 * level + 1) * 25 for level in range(stage.LEVELS)]
    tables = []
    for group in range(2):
        rows = [
            {"t": t, "picture": picture, "latent": 1.0, "noisy": 2.0 + picture, "clean": (2.0 + picture) * 10**power}
            for t in steps
            for picture, power in ((0, (t > 900) * (1 + group)), (1, (t < 100) * -0.5))
        ]
        tables.append(pd.DataFrame(rows))
    found = stage.ratios(tables).set_index("cell")
    assert found.loc["noisiest", ["whole", "group0", "group1"]].tolist() == pytest.approx([0.75, 0.5, 1.0])
    assert found.loc["cleanest", ["whole", "group0", "group1"]].tolist() == pytest.approx([-0.25] * 3)
    assert found["n"].tolist() == [4, 4]
    curves = stage.curves(tables)
    assert curves["t"].nunique() == stage.LEVELS
    assert set(curves["form"]) == {"latent", "noisy", "clean"}
    assert curves.query("t == 25 and form == 'noisy'")["whole"].item() == pytest.approx(2.5)


def test_the_stage_leaves_curves_and_rows(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill it goes on where it was."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "curves", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.main(config, workspace)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "norms_of", killed)
        patch.setattr(stage, "trips_of", killed)
        stage.main(config, workspace)
    curves, rows = (read_rows(workspace.measures / name) for name in (stage.GRADIENTS, stage.OUT))
    assert len(curves) == 3 * stage.LEVELS
    assert (curves[["whole", "group0", "group1"]] > 0).all(axis=None)
    assert set(curves["n"]) == {2 * Config.of(config).inspected}
    wanted = [("log_form_ratio", "noisiest"), ("log_form_ratio", "cleanest")]
    wanted += [("round_trip", f"t-{t}") for t in (250, 500, 750)]
    assert list(rows[["measure", "cell"]].itertuples(index=False, name=None)) == wanted
    ratio = rows.set_index("cell")["whole"]
    assert ratio["noisiest"] > ratio["cleanest"]
    assert (rows.query("measure == 'round_trip'")["whole"] <= 1).all()
    assert not list(workspace.scratch.glob("measures-pixel_space_inspected*"))


def test_each_group_has_works_of_its_own(config: params.Params, workspace: Workspace) -> None:
    pipeline = base.load(workspace.base)
    first, second = stage.inspected(config, workspace, pipeline)
    assert len(first.z0) == len(second.z0) == len(first.words) == Config.of(config).inspected
    both = np.concatenate([first.z0.flatten(1).numpy(), second.z0.flatten(1).numpy()])
    assert len(np.unique(both, axis=0)) == len(both)
    again = next(iter(stage.inspected(config, workspace, pipeline)))
    torch.testing.assert_close(again.eps, first.eps, rtol=0, atol=0)
