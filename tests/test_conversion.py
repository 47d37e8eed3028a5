"""Another kind of prediction from the same base: what was trained is what paints."""

import logging
from pathlib import Path

import pytest
import torch

from atelier.models import base
from atelier.models.adapters import converted
from atelier.sampling.sampler import with_ddim
from atelier.training.conversion import KINDS, add_conversion, save_conversion, scheduler_for

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversion_that_is_loaded_is_the_one_that_was_trained(
    kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Every layer of it: diffusers once dropped the attention's part of a mixed file without an error."""
    pipeline = base.build("tiny", 64, ["a boat"], seed=1)
    base.save(pipeline, tmp_path / "base", {})
    torch.manual_seed(0)
    for parameter in add_conversion(pipeline.unet, rank=2, seed=1).values():
        parameter.data.normal_(0, 0.1)
    x, t, words = torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), torch.randn(2, base.MAX_TOKENS, 32)
    with torch.no_grad():
        trained = pipeline.unet(x, t, words).sample
    save_conversion(pipeline, kind, tmp_path / "conversion", {"made": "here"})
    with caplog.at_level(logging.WARNING):
        loaded = with_ddim(converted(base.load(tmp_path / "base"), tmp_path / "conversion"))
    with torch.no_grad():
        torch.testing.assert_close(loaded.unet(x, t, words).sample, trained, rtol=0, atol=2e-3)  # half precision
    assert loaded.scheduler.config.prediction_type == kind
    assert not [warning for warning in recwarn if "inconsistency" in str(warning.message)]


def test_every_layer_is_adapted() -> None:
    unet = base.build("tiny", 64, ["a boat"], seed=1).unet
    layers = sum(isinstance(part, torch.nn.Conv2d | torch.nn.Linear) for part in unet.modules())
    assert len(add_conversion(unet, rank=2, seed=1)) == 2 * layers


def test_a_flow_starts_at_pure_noise_and_ends_at_the_picture() -> None:
    scheduler = scheduler_for("flow_prediction", base.build("tiny", 64, ["a"], seed=1).scheduler)
    scheduler.set_timesteps(8)
    assert float(scheduler.init_noise_sigma) == 1.0
    assert float(scheduler.sigmas[0]) == pytest.approx(1.0, abs=2e-3)
    assert float(scheduler.sigmas[-1]) == 0.0
    z0, eps = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    x = eps
    for t in scheduler.timesteps:  # a velocity that is known: the straight path is walked without error
        x = scheduler.step(eps - z0, t, x).prev_sample
    torch.testing.assert_close(x, z0, rtol=0, atol=5e-3)


def test_another_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="not to 'sample'"):
        scheduler_for("sample", base.build("tiny", 64, ["a"], seed=1).scheduler)
