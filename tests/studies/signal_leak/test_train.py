"""Models of the study of the signal leak: what they learn from, and the schedule that each keeps."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from atelier.methods.signal_leak import first_step
from atelier.models import base
from atelier.params import Params
from atelier.studies.signal_leak import fit, train
from atelier.studies.signal_leak.params import Config, LeakModel
from atelier.training import conversion
from atelier.workspace import Workspace


def test_models_learn_their_lesson(workspace: Workspace) -> None:
    works, kind = fit.training_pictures(workspace.manifests, "Mosaic")
    assert kind == "works"
    assert set(works["art_style"]) == {"Mosaic"}
    assert set(works["split"]) == {"train"}
    photographs, kind = fit.training_pictures(workspace.manifests, None)
    assert kind == "photographs"
    assert set(photographs["split"]) == {"train"}
    with pytest.raises(ValueError, match="no work of Rococo"):
        fit.training_pictures(workspace.manifests, "Rococo")


def test_schedules_are_those_that_parameters_name(workspace: Workspace) -> None:
    scheduler = base.load(workspace.base).scheduler
    stable = train.scheduler_for(LeakModel(betas=[0.00085, 0.012]), scheduler)
    assert first_step(stable, 50).alpha == pytest.approx(0.0759967, abs=1e-6)
    nothing = train.scheduler_for(LeakModel(zero_snr=True), scheduler)
    assert nothing.config.prediction_type == "v_prediction"
    assert first_step(nothing, 50).alpha == 0.0
    assert int(first_step(nothing, 50).time) == 999
    assert train.scheduler_for(LeakModel(style="Mosaic"), scheduler) is scheduler


def test_zero_snr_needs_the_conversion_of_a_shipped_base(params: Params, workspace: Workspace) -> None:
    shipped = params.model_copy(update={"base": params.base.model_copy(update={"source": "shipped"})})
    folder = re.escape(str(workspace.root / "data" / "conversions"))
    with pytest.raises(ValueError, match=f"zero_snr needs the shipped base's conversion, {folder}"):
        train.start(shipped, workspace, LeakModel(zero_snr=True))


@pytest.mark.parametrize(
    ("model", "kind"), [(LeakModel(zero_snr=True), "v_prediction"), (LeakModel(flow=True), "flow_prediction")]
)
def test_other_bases_learn_what_holds_no_signal_from_noise_prediction(
    params: Params, workspace: Workspace, model: LeakModel, kind: str
) -> None:
    """All of the adapter is trained for it; the first step of what comes back holds none."""
    name = "flow" if model.flow else "zero-snr"
    config = Config.of(params).model_copy(update={"models": {name: model}, "trained": [name]})
    params = params.model_copy(update={"signal_leak": config})
    train.main(params, workspace, name, "0")
    scheduler = train.tuned_pipeline(params, workspace, name, 0).scheduler
    assert scheduler.config.prediction_type == kind
    assert first_step(scheduler, 5).alpha <= 0.0010001  # diffusers' flow begins at a thousandth of the picture
    history = pd.read_csv(workspace.adapter("signal_leak", name, 0) / "history.csv")
    assert history["denoising"].notna().all()


def test_a_trained_model_comes_back_with_its_schedule(trained: Params, workspace: Workspace) -> None:
    plain = base.load(workspace.base)
    for name in ("mosaic", "sd-betas"):
        pipeline = train.tuned_pipeline(trained, workspace, name, 0)
        changed = [
            key
            for key, value in pipeline.unet.state_dict().items()
            if not torch.equal(value, plain.unet.state_dict()[key])
        ]
        assert changed
        # a style is learnt by attention alone, another schedule by every layer
        assert all(".to_" in key for key in changed) == (name == "mosaic")
    assert pipeline.scheduler.config.beta_end == 0.012
    with pytest.raises(ValueError, match=r"signal_leak\.models: no variant 'rococo', there are mosaic, sd-betas"):
        train.main(trained, workspace, "rococo", "0")
    with pytest.raises(ValueError, match=r"training_seeds: 7 is not one of \[0, 1\]"):
        train.main(trained, workspace, "mosaic", "7")


def test_a_base_that_predicts_v_learns_zero_terminal_snr(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = base.load

    def predicting_v(folder: Path) -> object:
        pipeline = load(folder)
        pipeline.scheduler = conversion.scheduler_for("v_prediction", pipeline.scheduler)
        return pipeline

    monkeypatch.setattr(base, "load", predicting_v)
    config = Config.of(params).model_copy(
        update={"models": {"nothing": LeakModel(zero_snr=True)}, "trained": ["nothing"]}
    )
    params = params.model_copy(update={"signal_leak": config})
    train.main(params, workspace, "nothing", "0")
    pipeline = train.tuned_pipeline(params, workspace, "nothing", 0)
    assert first_step(pipeline.scheduler, 5).alpha == 0.0
    history = pd.read_csv(workspace.adapter("signal_leak", "nothing", 0) / "history.csv")
    assert history["denoising"].notna().all()
