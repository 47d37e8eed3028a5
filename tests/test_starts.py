"""Both starts of sampling have the same white noise; the corrected one adds what training leaves in it."""

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler

from atelier import params as parameters
from atelier.data import prepare
from atelier.methods.signal_leak import FrequencyLeak, first_step
from atelier.models import base
from atelier.models.latents import encode_pictures
from atelier.params import CORRECTED, WHITE, Params
from atelier.sampling import starts
from atelier.sampling.held_out import held_out_table
from atelier.workspace import Workspace


@pytest.fixture
def params(workspace: Workspace) -> Params:
    workspace.starts.unlink()  # that of other tests
    return parameters.load(workspace.params_file)


def test_the_stage_fits_works_and_photographs(params: Params, workspace: Workspace) -> None:
    starts.main(params, workspace)
    table = prepare.works(workspace.manifests).table.query("split == 'train'").reset_index(drop=True)
    latents = encode_pictures(base.load(workspace.base).vae, prepare.pictures(table, params.data, workspace)).mean
    expected = FrequencyLeak.fit([latents], starts.FREQUENCIES)
    leak = starts.load(workspace.starts, prepare.WORKS)
    assert leak.n == len(table)
    assert leak.frequencies == expected.frequencies
    np.testing.assert_allclose(leak.low_mean, expected.low_mean, rtol=1e-6)
    photographs = prepare.photographs(workspace.manifests).table.query("split == 'train'")
    assert starts.load(workspace.starts, prepare.PHOTOGRAPHS).n == len(photographs)


def test_both_starts_have_the_same_noise(params: Params, workspace: Workspace) -> None:
    """Less ``s`` times the white noise, the corrected start is ``alpha`` times the leak that its generator drew."""
    starts.main(params, workspace)
    leak, pipeline = starts.load(workspace.starts, prepare.WORKS), base.load(workspace.base)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    rows = pd.concat([held_out_table(params, workspace.manifests, 1, 2, seed) for seed in (0, 1)], ignore_index=True)
    white, corrected = (starts.started(params, kind, leak, "picture")(pipeline, rows) for kind in (WHITE, CORRECTED))
    step = first_step(pipeline.scheduler, params.sampling.steps)
    rest = (corrected - step.s * white) / step.alpha
    deviations = (rest - torch.from_numpy(leak.rest.mean)) / torch.from_numpy(leak.rest.std)
    assert rest.shape == white.shape
    assert not torch.equal(white, corrected)
    # drawn from the fitted law: 8 channels of 64 elements of some pictures, whose deviations are of order one
    assert 0.3 < deviations.std() < 3


def test_an_unknown_start_is_refused(params: Params, workspace: Workspace) -> None:
    starts.main(params, workspace)
    with pytest.raises(ValueError, match="white or corrected, got 'pink'"):
        starts.started(params, "pink", starts.load(workspace.starts, prepare.WORKS), "picture")
