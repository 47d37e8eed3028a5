"""Conditions share noise and prompts, models their start; the denoiser's first step; colours set by hand."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier.methods.signal_leak import FrequencyLeak, first_step, low_components
from atelier.models import base
from atelier.params import Params
from atelier.sampling import conditions as sampling
from atelier.sampling import store
from atelier.sampling.conditions import seeds_of
from atelier.sampling.sampler import Seed, first_latents, with_ddim
from atelier.seeds import torch_generator
from atelier.studies.signal_leak import fit, sample
from atelier.studies.signal_leak.params import Config
from atelier.training import conversion
from atelier.workspace import Workspace
from tolerance import assert_close

STUDY = Config.STUDY


def seeds(params: Params, table: pd.DataFrame) -> list[Seed]:
    """Of the noise that all conditions share."""
    return seeds_of(table, params.seed, STUDY, "noise")


def test_conditions_of_the_same_topic_have_the_same_prompts_and_noise(params: Params, workspace: Workspace) -> None:
    conditions = {each.name: each for each in sample.all_conditions(params)}
    tables = {name: sample.prompts_of(params, workspace.manifests, each, 1) for name, each in conditions.items()}
    pd.testing.assert_frame_equal(tables["white"], tables["low-3"])
    pd.testing.assert_frame_equal(tables["tuned-mosaic"], tables["tuned-mosaic+leak-2"])
    assert not tables["words-mosaic"].equals(tables["tuned-mosaic"])
    assert all("Mosaic" in text for text in tables["words-mosaic"]["prompt"])
    assert not any("Mosaic" in text for text in tables["tuned-mosaic"]["prompt"])
    assert all(text.endswith("at night") for text in tables["dark"]["prompt"])
    subjects = [text.removesuffix(" at night") for text in tables["dark"]["prompt"]]
    assert subjects == [text.removesuffix(" at noon") for text in tables["bright"]["prompt"]]
    assert all(" " not in subject for subject in subjects)  # a bare subject: titles say what light there is
    pipeline, leaks = with_ddim(base.load(workspace.base)), fit.load_all(workspace.leaks)
    table = tables["white"]

    def latents_of(name: str) -> Tensor:
        return sample.start_of(params, conditions[name], leaks)(pipeline, table)

    white = latents_of("white")
    assert torch.equal(white, first_latents(pipeline, seeds(params, table), 64))
    assert not torch.equal(white, latents_of("again"))
    step = first_step(pipeline.scheduler, params.sampling.steps)
    generator = torch_generator(*seeds(params, table)[4])
    torch.randn(1, *white.shape[1:], generator=generator)
    expected = step.alpha * leaks["pixel"].sample(1, generator) + step.s * white[4:5]
    assert_close(latents_of("pixel")[4:5], expected, relative=0, absolute=1e-5)
    offset = latents_of("offset") - white
    assert_close(offset, offset[:, :, :1, :1].expand_as(offset), relative=1e-5)  # constant over each channel
    assert float(offset[..., 0, 0].std()) == pytest.approx(Config.of(params).offset, rel=0.5)


@pytest.mark.parametrize("enough", [True, False])
def test_repeats_share_no_prompt_where_there_are_enough(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    """Prompts follow one another over all repeats, and wrap around: a seed's are its own whatever other seeds ask."""
    n = len(params.protocol.all_repeats) * Config.of(params).pictures
    texts = [(f"prompt {number}", f"{number}.png") for number in range(n if enough else 5)]
    monkeypatch.setattr(sample, "texts_of", lambda *_: texts)
    asked = []
    for seed in params.protocol.training_seeds:
        alone = params.protocol.model_copy(update={"training_seeds": [seed]})
        both, one = (
            sample.prompts_of(each, workspace.manifests, sample.Condition("white", sample.NATURAL), seed)
            for each in (params, params.model_copy(update={"protocol": alone}))
        )
        pd.testing.assert_frame_equal(both, one)
        assert set(both["repeat"]) == set(params.protocol.repeats_of(seed))
        asked += list(zip(both["prompt"], both["path"], strict=True))
    assert asked == [texts[number % len(texts)] for number in range(n)]


def test_colours_set_by_hand_differ_in_that_channel_alone(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first latents, whatever the denoiser makes of them: without it they are the last ones, too."""

    def undisturbed(_: object, __: object, latents: Tensor, **how: object) -> Iterator[Tensor]:
        yield latents

    monkeypatch.setattr(sampling, "last_latents", undisturbed)
    leak = fit.load_all(workspace.leaks)["low-1"]
    assert isinstance(leak, FrequencyLeak)
    condition = sample.colours_condition(params, workspace.manifests, leak, 1)
    run = workspace.scratch / "run"
    sampling.paint_conditions(params, [condition], partial(sample.load, params, workspace, store.UNTUNED, 1), run)
    sampling.write_conditions([condition], run, workspace.samples / STUDY / store.UNTUNED / "1")
    folders = sample.colours_location(params).folders(workspace.samples, [1])
    listed, latents = store.listed(folders), store.read_latents(folders)
    means = low_components(latents.double().numpy(), [(0, 0)])[:, 0]
    plain = means[(listed["value"] == 0).to_numpy() & (listed["channel"] == 0).to_numpy()]
    step = first_step(with_ddim(base.load(workspace.base)).scheduler, params.sampling.steps)
    for channel in range(means.shape[1]):
        brighter = means[(listed["value"] == 1.0).to_numpy() & (listed["channel"] == channel).to_numpy()]
        expected = np.zeros(means.shape[1])
        expected[channel] = step.alpha * leak.low_covariance.diagonal()[channel] ** 0.5
        np.testing.assert_allclose(brighter - plain, np.broadcast_to(expected, brighter.shape), atol=1e-4)


# ------------------------------------------------------------------------------------------------ the first step


def test_first_estimates_of_a_model_that_knows(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """z0_hat of a denoiser that always says ``eps = z_T - alpha``, by hand, at the right picture and channel."""
    pipeline = with_ddim(base.load(workspace.base))
    step = first_step(pipeline.scheduler, params.sampling.steps)
    monkeypatch.setattr(pipeline.unet, "forward", lambda z, *_: SimpleNamespace(sample=z - step.alpha))
    table = sample.prompts_of(params, workspace.manifests, sample.Condition("white", sample.NATURAL), 0)
    estimates = sample.first_estimates(params, pipeline, table, "white")
    expected = (estimates["first"] - step.s * (estimates["first"] - step.alpha)) / step.alpha
    np.testing.assert_allclose(estimates["estimated"], expected, atol=1e-4)
    assert len(estimates) == len(table) * 4
    assert estimates.groupby(["repeat", "place"]).size().eq(4).all()
    z = first_latents(base.load(workspace.base), seeds(params, table), 64).mean((2, 3))
    row = estimates.query("repeat == 1 and place == 2 and channel == 3")
    assert float(row["first"].item()) == pytest.approx(float(z[Config.of(params).pictures + 2, 3]), abs=1e-6)


@pytest.mark.parametrize("kind", ["v_prediction", "flow_prediction"])
def test_first_estimates_are_of_what_the_denoiser_predicts(
    params: Params, workspace: Workspace, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denoiser that knows z0 and says exactly what its kind is to say gets z0 back."""
    pipeline = base.load(workspace.base)
    pipeline.scheduler = conversion.scheduler_for(kind, pipeline.scheduler)
    step = first_step(pipeline.scheduler, params.sampling.steps)
    table = sample.prompts_of(params, workspace.manifests, sample.Condition("white", sample.NATURAL), 0)
    table = table.iloc[: params.sampling.batch]
    z0 = torch.randn(len(table), 4, 8, 8, generator=torch_generator(5))

    def says(z: Tensor, *_: object) -> SimpleNamespace:
        eps = (z - step.alpha * z0) / step.s
        wanted = step.alpha * eps - step.s * z0 if kind == "v_prediction" else (z - z0) / step.s
        return SimpleNamespace(sample=wanted)

    monkeypatch.setattr(pipeline.unet, "forward", says)
    estimates = sample.first_estimates(params, pipeline, table, kind)
    np.testing.assert_allclose(estimates["estimated"], z0.mean((2, 3)).flatten(), atol=1e-4)


def test_a_flow_that_is_shipped_is_examined_too(
    params: Params, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter is made up here; what counts is that its first step is told as a flow's."""
    pipeline = base.load(workspace.base)
    conversion.add_conversion(pipeline.unet, 2, 1)
    conversion.save_conversion(pipeline, "flow_prediction", tmp_path / "flow", {})
    monkeypatch.setattr(sample, "FLOW", tmp_path / "flow")
    monkeypatch.setattr(sample, "all_conditions", lambda params: [sample.Condition("white", sample.NATURAL)])
    base_alone = Config.of(params).model_copy(update={"models": {}, "trained": []})
    shipped = params.base.model_copy(update={"source": "shipped"})
    sample.main(params.model_copy(update={"base": shipped, "signal_leak": base_alone}), workspace, "untuned", "1")
    firsts = pd.read_csv(workspace.samples / STUDY / "untuned" / "1" / sample.FIRST_STEPS)
    assert set(firsts["model"]) == {"white", "flow"}
    assert firsts["estimated"].notna().all()
    assert set(firsts["repeat"]) == set(params.protocol.repeats_of(1))


def test_models_and_seeds_that_parameters_do_not_name_are_refused(params: Params, workspace: Workspace) -> None:
    with pytest.raises(ValueError, match=r"signal_leak\.models: no 'pointillism'"):
        sample.main(params, workspace, "pointillism", "0")
    with pytest.raises(ValueError, match=r"protocol\.training_seeds: 2 is not one of \[0, 1\]"):
        sample.main(params, workspace, "untuned", "2")
