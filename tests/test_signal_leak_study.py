"""The study of the signal leak: arms share noise and prompts, models their start; measures are what they say."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import claims, params, paths
from atelier.evidence import pseudo_values, t_interval
from atelier.measures import signal_leak as measures
from atelier.measures.sets import group
from atelier.methods import signal_leak as method
from atelier.methods.signal_leak import FrequencyLeak, first_step, low_components
from atelier.metrics import frechet_distance, kernel_distance
from atelier.models import base
from atelier.params import LeakModel
from atelier.sampling import signal_leak as stage
from atelier.sampling import store
from atelier.sampling.sampler import Sampled, first_latents, with_ddim
from atelier.seeds import torch_generator
from atelier.training import conversion, leaks
from atelier.training import signal_leak as training


@pytest.fixture
def asked(in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> params.Params:
    for name in ("ADAPTERS", "SAMPLES", "LEAKS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    stage.held_out.cache_clear()
    leaks.fit_all(params.load())
    return params.load()


@pytest.fixture
def trained(asked: params.Params) -> params.Params:
    for name in asked.signal_leak.trained:
        for seed in asked.art_finetuning.training_seeds:
            training.train(asked, name, seed)
    return asked


# ------------------------------------------------------------------------------------------------ training


def test_models_learn_their_lesson(asked: params.Params) -> None:
    works, kind = leaks.lessons(asked, "Mosaic")
    assert kind == "works"
    assert set(works["art_style"]) == {"Mosaic"}
    assert set(works["split"]) == {"train"}
    photographs, kind = leaks.lessons(asked, None)
    assert kind == "photographs"
    assert set(photographs["split"]) == {"train"}
    with pytest.raises(ValueError, match="no work of Rococo"):
        leaks.lessons(asked, "Rococo")


def test_schedules_are_those_asked_for(asked: params.Params) -> None:
    scheduler = base.load(paths.BASE).scheduler
    stable = training.scheduler_for(LeakModel(betas=[0.00085, 0.012]), scheduler)
    assert first_step(stable, 50).alpha == pytest.approx(0.0759967, abs=1e-6)
    nothing = training.scheduler_for(LeakModel(zero_snr=True), scheduler)
    assert nothing.config.prediction_type == "v_prediction"
    assert first_step(nothing, 50).alpha == 0.0
    assert int(first_step(nothing, 50).time) == 999
    assert training.scheduler_for(LeakModel(style="Mosaic"), scheduler) is scheduler


def test_zero_snr_needs_a_base_that_predicts_v(asked: params.Params) -> None:
    with pytest.raises(
        ValueError, match="zero_snr needs a base that predicts v, or a shipped one and data/conversions"
    ):
        training.start(asked, LeakModel(zero_snr=True))


def test_a_trained_model_comes_back_with_its_schedule(trained: params.Params) -> None:
    plain = base.load(paths.BASE)
    for name in ("mosaic", "sd-betas"):
        pipeline = training.tuned_pipeline(trained, name, 0)
        changed = [
            key
            for key, value in pipeline.unet.state_dict().items()
            if not torch.equal(value, plain.unet.state_dict()[key])
        ]
        assert changed
        # a style is learnt by attention alone, another schedule by every layer
        assert all(".to_" in key for key in changed) == (name == "mosaic")
    assert pipeline.scheduler.config.beta_end == 0.012
    with pytest.raises(ValueError, match="no model 'rococo'"):
        training.train(trained, "rococo", 0)
    with pytest.raises(ValueError, match="7 is none of them"):
        training.train(trained, "mosaic", 7)


# ------------------------------------------------------------------------------------------------ sampling


def test_what_claims_name_is_measured() -> None:
    """All of it in a study; of a short run, something of every claim."""
    root = Path(__file__).parents[1]
    study, short = (measures.cells(params.load(root / "profiles" / f"{name}.yaml")) for name in ("study", "embedded"))
    for name, claim in claims.load(root / "claims.yaml").items():
        if claim.study == "signal_leak":
            parts = [set(part.cells) for part in [*claim.parts, *([claim.control] if claim.control else [])]]
            assert set().union(*parts) <= study, name
            assert any(cells <= short for cells in parts), name
    assert {cell for part in measures.itself() for cell in part.cells} <= study & short


def test_arms_that_ask_for_the_same_have_the_same_prompts_and_noise(asked: params.Params) -> None:
    arms = {arm.name: arm for arm in stage.arms(asked)}
    tables = {name: stage.prompts_of(asked, arm) for name, arm in arms.items()}
    pd.testing.assert_frame_equal(tables["white"], tables["low-3"])
    pd.testing.assert_frame_equal(tables["tuned-mosaic"], tables["tuned-mosaic+leak-2"])
    assert not tables["words-mosaic"].equals(tables["tuned-mosaic"])
    assert all("Mosaic" in text for text in tables["words-mosaic"]["prompt"])
    assert not any("Mosaic" in text for text in tables["tuned-mosaic"]["prompt"])
    assert all(text.endswith("at night") for text in tables["dark"]["prompt"])
    subjects = [text.removesuffix(" at night") for text in tables["dark"]["prompt"]]
    assert subjects == [text.removesuffix(" at noon") for text in tables["bright"]["prompt"]]
    assert all(" " not in subject for subject in subjects)  # a bare subject: titles say what light there is
    first, second = (set(tables["white"].query("repeat == @repeat")["prompt"]) for repeat in (0, 1))
    assert not first & second
    pipeline = with_ddim(base.load(paths.BASE))
    known = leaks.load_all()
    table = tables["white"]
    white, again = (stage.latents_of(asked, arms[name], table, pipeline, known) for name in ("white", "again"))
    assert torch.equal(white, first_latents(pipeline, stage.seeds_of(asked, table), 64))
    assert not torch.equal(white, again)
    step = first_step(pipeline.scheduler, asked.sampling.steps)
    leaky = stage.latents_of(asked, arms["pixel"], table, pipeline, known)
    seeds = stage.seeds_of(asked, table)
    own = torch_generator(*seeds[4])
    torch.randn(1, *white.shape[1:], generator=own)
    expected = step.alpha * known["pixel"].sample(1, own) + step.s * white[4:5]
    torch.testing.assert_close(leaky[4:5], expected, rtol=0, atol=1e-5)
    offset = stage.latents_of(asked, arms["offset"], table, pipeline, known) - white
    assert torch.allclose(offset, offset[:, :, :1, :1].expand_as(offset), atol=1e-6)  # constant over each channel
    assert float(offset[..., 0, 0].std()) == pytest.approx(asked.signal_leak.offset, rel=0.5)


def test_leaks_are_of_training_pictures_and_say_which(asked: params.Params) -> None:
    known = leaks.load_all()
    assert known["pixel"].n == len(leaks.lessons(asked, None)[0])
    assert known["2-Mosaic"].n == 2
    for name, leak in known.items():
        again, provenance = method.load(paths.LEAKS / f"{name}.safetensors")
        assert again.n == leak.n == len(provenance["pictures"].splitlines())
    some, every = (
        set(method.load(paths.LEAKS / f"{name}.safetensors")[1]["pictures"].splitlines())
        for name in ("2-Mosaic", "all-Mosaic")
    )
    assert some < every
    assert every == set(leaks.lessons(asked, "Mosaic")[0]["path"])


def test_the_stages_paint_and_measure_all_of_it(trained: params.Params) -> None:
    stage.paint_all(trained)
    assert {stage.scale_of(trained, arm) for arm in stage.arms(trained)} == {1.0, trained.signal_leak.guidance}
    for arm in stage.arms(trained):
        guidance = stage.scale_of(trained, arm)
        pictures, listed = store.read("signal_leak", arm.name, guidance)
        latents = store.read_latents("signal_leak", arm.name, guidance)
        assert len(pictures) == len(listed) == len(latents) == trained.art_finetuning.repeats * 3
        pd.testing.assert_frame_equal(
            listed.sort_values(["repeat", "place"]).reset_index(drop=True),
            stage.prompts_of(trained, arm),
            check_dtype=False,
        )
    table, spectrum = measures.measure_all(trained)
    measured = set(zip(table["measure"], table["cell"], strict=True))
    wanted = [
        ("luminance_spread", "low-3"),
        ("fd_haar", "pixel"),
        ("slope", "white"),
        ("slope", "sd-betas-shuffled"),
        ("log_snr", "lowest-frequency"),
        ("obeys", "colours"),
        ("rank", "ideal"),
        ("luminance", "dark+leak"),
        ("luminance_spread", "white-mirrored"),
        ("light_gap", "bright-less-dark+leak"),
    ]
    for measure, cell in wanted:
        assert (measure, cell) in measured
    assert set(table["cell"]) <= measures.cells(trained)
    # styles of one held-out work are not measured here
    few = {arm.name for arm in stage.arms(trained) if arm.asked in trained.signal_leak.styles}
    assert measures.cells(trained) - set(table["cell"]) <= few | {
        "real-mosaic",
        "returned-mosaic",
        "real-expressionism",
        "returned-expressionism",
    }
    assert len(spectrum) == 64 * 4
    assert spectrum.groupby(["u", "v"], sort=False)["whole"].mean().idxmax() == (0, 0)


def test_colours_set_by_hand_differ_in_that_channel_alone(
    trained: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first latents, whatever the denoiser makes of them."""
    seen: list[Tensor] = []

    def noted(_: object, __: object, texts: list[str], latents: Tensor, guidance: float) -> Sampled:
        seen.append(latents)
        return Sampled(latents, torch.zeros(len(latents), 3, 64, 64))

    monkeypatch.setattr(stage, "painted_by", noted)
    leak = leaks.load_all()["low-1"]
    assert isinstance(leak, FrequencyLeak)
    stage.set_colours(trained, leak, paths.SAMPLES / "signal_leak" / stage.COLOURS / "guidance-4")
    listed = store.listed("signal_leak", stage.COLOURS, 4.0)
    means = low_components(seen[0].double().numpy(), [(0, 0)])[:, 0]
    plain = means[(listed["value"] == 0).to_numpy() & (listed["channel"] == 0).to_numpy()]
    step = first_step(with_ddim(base.load(paths.BASE)).scheduler, trained.sampling.steps)
    for channel in range(means.shape[1]):
        there = means[(listed["value"] == 1.0).to_numpy() & (listed["channel"] == channel).to_numpy()]
        expected = np.zeros(means.shape[1])
        expected[channel] = step.alpha * leak.low_covariance.diagonal()[channel] ** 0.5
        np.testing.assert_allclose(there - plain, np.broadcast_to(expected, there.shape), atol=1e-4)


# ------------------------------------------------------------------------------------------------ measures


def test_light_is_of_grey_and_of_colours() -> None:
    grey = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
    np.testing.assert_allclose(measures.light(grey), [[0.2 * 3**0.5 / 3**0.5, 0.0, 0.0, 0.0]], atol=1e-12)
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0, :4] = 255
    found = measures.light(red)[0]
    assert found[0] == pytest.approx(0.5 / 3)
    assert found[1] == pytest.approx(0.5 / 3)
    assert found[2] == pytest.approx(0.5 / 2**0.5)
    assert found[3] == pytest.approx(0.5 / 6**0.5)


def test_spreads_are_log_ratios_of_variances() -> None:
    rng = np.random.default_rng(1)
    real = measures.Lit(rng.normal(size=(50, 4)), rng.normal(size=(50, 3)))
    narrow = measures.Lit(real.light * [0.5, 1.0, 2.0, 1.0], real.channels * 0.25)
    found = measures.spread_measures(real, narrow)
    assert found["luminance_spread"] == pytest.approx(-2 * np.log(2))
    assert found["luminance_ratio"] == pytest.approx(0.5)
    assert found["contrast_spread"] == pytest.approx(0.0, abs=1e-12)
    assert found["colour_spread"] == pytest.approx(np.log(2))
    assert found["channel_ratio"] == pytest.approx(0.25)
    assert found["channel_spread"] == pytest.approx(-4 * np.log(2))
    assert [measures.spread_measures(real, real)[f"{name}_w1"] for name in ("luminance", "colour", "channel")] == [
        0
    ] * 3
    moved = real._replace(channels=real.channels + 0.5 * real.channels.std(axis=0, ddof=1))
    assert measures.spread_measures(real, moved)["channel_w1"] == pytest.approx(0.5)


def test_derived_rows_are_sums_of_others() -> None:
    rows = [
        {"measure": measure, "cell": cell, "n": n, "whole": value, "group0": value - 1, "group1": value + 1}
        for measure, cell, n, value in [
            ("luminance", "bright", 4, 0.7), ("luminance", "dark", 3, 0.4), ("luminance_spread", "white", 4, -2.0)]
    ]  # fmt: skip
    found = measures.derived_rows(pd.DataFrame(rows)).set_index(["measure", "cell"])
    assert list(found.index) == [("luminance_spread", "white-mirrored"), ("light_gap", "bright-less-dark")]
    assert found.loc[("luminance_spread", "white-mirrored"), ["whole", "group0", "group1"]].tolist() == [2.0, 3.0, 1.0]
    gap = found.loc[("light_gap", "bright-less-dark")]
    assert gap["n"] == 3
    np.testing.assert_allclose(gap[["whole", "group0", "group1"]].astype(float), [0.3, 0.3, 0.3])


def test_intervals_of_a_spread_cover_it_where_it_is_none() -> None:
    """The absolute value's did not: its pseudo-values have a kink where pictures vary as much as real ones."""
    rng, covered = np.random.default_rng(2), []
    real = measures.Lit(rng.normal(size=(2000, 4)), rng.normal(size=(2000, 2)))
    truth = float(np.log(1 / real.light[:, 0].var(ddof=1)))
    for _ in range(300):
        parts = [measures.Lit(rng.normal(size=(40, 4)), rng.normal(size=(40, 2))) for _ in range(5)]

        def spread(some: list[int], parts: list[measures.Lit] = parts) -> float:
            return measures.spread_measures(real, measures.together([parts[at] for at in some]))["luminance_spread"]

        found = t_interval(pseudo_values(spread, 5).tolist())
        covered.append(found.low <= truth <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.985


def test_backgrounds_are_the_outer_eighth() -> None:
    pictures = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pictures[:, :, 8:-8, 8:-8] = 255
    np.testing.assert_allclose(measures.border_colour(group(pictures, None)), 0.0, atol=1e-12)
    pictures[:, 0, :8] = 255
    red = 8 * 64 / (64 * 64 - 48 * 48)
    np.testing.assert_allclose(measures.border_colour(group(pictures, None)), [red, 0.0, 0.0], atol=1e-12)


def test_few_held_out_works_mislead_a_frechet_distance_and_no_kernel_distance() -> None:
    """Why style is decided by a kernel distance: pictures of the true law against ones that vary too little."""
    rng, gains = np.random.default_rng(1), {frechet_distance: [], kernel_distance: []}
    for _ in range(60):
        works, true = rng.normal(size=(25, 51)), rng.normal(size=(200, 51))
        narrow = 0.8 * rng.normal(size=(200, 51))
        for distance, found in gains.items():
            found.append(distance(works, narrow) - distance(works, true))
    assert max(gains[frechet_distance]) < 0
    kernel = np.array(gains[kernel_distance])
    assert kernel.mean() > 3 * kernel.std(ddof=1) / len(kernel) ** 0.5


def test_slopes_are_within_channels() -> None:
    rows = [{"channel": c, "x": x, "y": 3.0 * c + (c + 1) * x} for c in range(3) for x in (-1.0, 0.5, 2.0)]
    np.testing.assert_allclose(measures.slopes(pd.DataFrame(rows), "x", "y"), [1.0, 2.0, 3.0])


def test_first_estimates_of_a_model_that_knows(asked: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """z0_hat of a denoiser that always says ``eps = z_T - alpha``, by hand, at the right picture and channel."""
    pipeline = with_ddim(base.load(paths.BASE))
    step = first_step(pipeline.scheduler, asked.sampling.steps)

    said = lambda z, *_: type("Output", (), {"sample": z - step.alpha})  # noqa: E731
    monkeypatch.setattr(pipeline.unet, "forward", said)
    table = stage.prompts_of(asked, stage.Arm("white", stage.NATURAL))
    found = stage.first_estimates(asked, pipeline, table, "white")
    expected = (found["first"] - step.s * (found["first"] - step.alpha)) / step.alpha
    np.testing.assert_allclose(found["said"], expected, atol=1e-4)
    assert len(found) == len(table) * 4
    assert found.groupby(["repeat", "place"]).size().eq(4).all()
    z = first_latents(base.load(paths.BASE), stage.seeds_of(asked, table), 64).mean((2, 3))
    row = found.query("repeat == 1 and place == 2 and channel == 3")
    assert float(row["first"].item()) == pytest.approx(float(z[asked.signal_leak.pictures + 2, 3]), abs=1e-6)


def test_white_latents_have_a_flat_spectrum(asked: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(400, 4, 8, 8, generator=torch_generator(1))
    monkeypatch.setattr(measures, "encoded", lambda *_: z.split(70))
    found = measures.spectrum(asked)
    assert list(found.columns[:5]) == ["u", "v", "channel", "n", "whole"]
    assert float((found["whole"] - 1).abs().max()) < 5 * (2 / 400) ** 0.5
    other = found.query("u == 2 and v == 5 and channel == 3")["whole"].item()
    assert set(found["n"]) == {400}
    squares = np.square(low_components(z.double().numpy(), [(2, 5)])[:, 0, 3])
    assert other == pytest.approx(squares.mean())
    groups = len(asked.art_finetuning.groups)
    for at in range(groups):
        own = found.query("u == 2 and v == 5 and channel == 3")[f"group{at}"].item()
        assert own == pytest.approx(squares[at::groups].mean())


@pytest.mark.parametrize("kind", ["v_prediction", "flow_prediction"])
def test_first_estimates_are_of_what_the_denoiser_predicts(
    asked: params.Params, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A denoiser that is told z0 and says exactly what its kind is to say gets z0 back."""
    pipeline = base.load(paths.BASE)
    pipeline.scheduler = conversion.scheduler_for(kind, pipeline.scheduler)
    step = first_step(pipeline.scheduler, asked.sampling.steps)
    table = stage.prompts_of(asked, stage.Arm("white", stage.NATURAL)).iloc[: asked.sampling.batch]
    z0 = torch.randn(len(table), 4, 8, 8, generator=torch_generator(5))

    def says(z: Tensor, *_: object) -> object:
        eps = (z - step.alpha * z0) / step.s
        wanted = step.alpha * eps - step.s * z0 if kind == "v_prediction" else (z - z0) / step.s
        return type("Output", (), {"sample": wanted})

    monkeypatch.setattr(pipeline.unet, "forward", says)
    found = stage.first_estimates(asked, pipeline, table, kind)
    np.testing.assert_allclose(found["said"], z0.mean((2, 3)).flatten(), atol=1e-4)


def test_a_base_that_predicts_v_learns_zero_terminal_snr(asked: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    load = base.load

    def predicting_v(folder: Path) -> object:
        pipeline = load(folder)
        pipeline.scheduler = conversion.scheduler_for("v_prediction", pipeline.scheduler)
        return pipeline

    monkeypatch.setattr(base, "load", predicting_v)
    study = asked.signal_leak.model_copy(
        update={"models": {"nothing": LeakModel(zero_snr=True)}, "trained": ["nothing"]}
    )
    asked = asked.model_copy(update={"signal_leak": study})
    training.train(asked, "nothing", 0)
    pipeline = training.tuned_pipeline(asked, "nothing", 0)
    assert first_step(pipeline.scheduler, 5).alpha == 0.0
    assert pd.read_csv(training.tuned_folder("nothing", 0) / "history.csv")["denoising"].notna().all()


def test_a_flow_that_is_shipped_is_looked_at_too(trained: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its adapter is made up here; what counts is that its first step is told as a flow's."""
    folder = Path(trained.data.folder) / stage.FLOW
    pipeline = base.load(paths.BASE)
    conversion.add_conversion(pipeline.unet, 2, 1)
    conversion.save_conversion(pipeline, "flow_prediction", folder, {})
    shipped = trained.model_copy(update={"base": trained.base.model_copy(update={"source": "shipped"})})
    monkeypatch.setattr(stage, "arms", lambda asked: [stage.Arm("white", stage.NATURAL)])
    monkeypatch.setattr(stage, "set_colours", lambda *_: None)
    only = shipped.signal_leak.model_copy(update={"models": {}, "trained": []})
    try:
        stage.paint_all(shipped.model_copy(update={"signal_leak": only}))
    finally:
        shutil.rmtree(folder.parent)
    firsts = pd.read_csv(paths.SAMPLES / "signal_leak" / stage.FIRST_STEPS)
    assert set(firsts["model"]) == {"white", "flow"}
    assert firsts["said"].notna().all()
