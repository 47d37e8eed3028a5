"""Post-training with a loss on decoder features: what a run leaves, how its loss is weighed, what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.diffusion import clean_estimate
from atelier.files import SEAL
from atelier.methods.latent_perceptual import latent_perceptual_loss
from atelier.models import base
from atelier.models.adapters import WEIGHTS
from atelier.models.autoencoders import decoder_stages
from atelier.models.latents import unscaled
from atelier.seeds import seed_of
from atelier.studies.latent_perceptual import train as training
from atelier.studies.latent_perceptual.loss import TERM
from atelier.studies.latent_perceptual.params import Config
from atelier.studies.latent_perceptual.pictures import main_sources
from atelier.studies.latent_perceptual.train import PostTrainingSetup, tuned_pipeline
from atelier.training import denoiser
from atelier.training.conversion import add_conversion, save_conversion
from atelier.training.denoiser import Denoised
from atelier.training.order import turns
from atelier.workspace import Workspace
from linked import linked

STUDY = Config.STUDY
STEPS, BEFORE = 24, 3
TRAINED = ("plain", "lpl", "older", "older-lpl")


@pytest.fixture(scope="module")
def left(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Adapters of four variants, trained once."""
    workspace, threads = linked(tmp_path_factory.mktemp("left"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    for variant in TRAINED:
        training.train(params.load(workspace.params_file), workspace, variant, 0)
    torch.set_num_threads(threads)
    return workspace


@pytest.fixture
def config(workspace: Workspace) -> params.Params:
    return params.load(workspace.params_file)


def changed(
    workspace: Workspace, trainings: dict[str, dict[str, Any]], steps: int = 3, **other: object
) -> params.Params:
    """The tiny world's parameters with other variants, none of them followed unless told."""
    section = params.read(workspace.params_file)[STUDY]
    section |= {"variants": list(trainings), "trainings": trainings, "followed": [], **other}
    section["optimisation"] |= {"steps": steps}
    return params.with_sections({STUDY: section}, workspace.params_file)


def tuned_folder(workspace: Workspace, variant: str) -> Path:
    return workspace.adapter(STUDY, variant, 0)


def history(workspace: Workspace, variant: str) -> pd.DataFrame:
    return pd.read_csv(tuned_folder(workspace, variant) / "history.csv")


def card(workspace: Workspace, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tuned_folder(workspace, variant) / "card.json").read_text())
    return found


# ------------------------------------------------------------------------------------------------ what a run leaves


UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_run_leaves_a_denoiser_a_scheduler_and_averages_where_it_is_followed(
    config: params.Params, left: Workspace
) -> None:
    model = {"card.json", UNET, "unet/config.json", "scheduler/scheduler_config.json"}
    averages = {f"average-{half_life}/{file}" for half_life in (1, 4) for file in model}
    for variant in TRAINED:
        out = tuned_folder(left, variant)
        files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert files == model | {"history.csv", SEAL} | (averages if variant in ("plain", "lpl") else set())
    assert json.loads((tuned_folder(left, "lpl") / "average-4" / "card.json").read_text()) == {
        **card(left, "lpl"),
        "half_life": 4.0,
    }
    assert not list(left.scratch.glob(f"{STUDY}-*"))


def test_a_history_has_both_terms_and_goes_on_after_what_was_before(config: params.Params, left: Workspace) -> None:
    plain, lpl, older = history(left, "plain"), history(left, "lpl"), history(left, "older-lpl")
    assert list(plain) == ["step", "learning_rate", "denoising"]
    assert list(lpl) == list(older) == [*plain, TERM]
    assert list(plain["step"]) == list(lpl["step"]) == list(range(1, STEPS + 1))
    assert list(older["step"]) == list(range(1, BEFORE + STEPS + 1))
    assert list(older[TERM].notna()) == [False] * BEFORE + [True] * STEPS
    assert list(older["learning_rate"][BEFORE:]) == list(lpl["learning_rate"])
    assert (lpl[TERM] > 0).any()


def test_variants_share_their_samples_and_noise(config: params.Params, left: Workspace) -> None:
    """What they begin with is the same; then they part."""
    plain, lpl, older, older_lpl = (history(left, variant)["denoising"] for variant in TRAINED)
    assert plain[0] == lpl[0]
    assert plain[STEPS - 1] != lpl[STEPS - 1]
    assert list(older[: BEFORE + 1]) == list(older_lpl[: BEFORE + 1])
    assert older[BEFORE + STEPS - 1] != older_lpl[BEFORE + STEPS - 1]


def test_every_parameter_learns_and_comes_back(config: params.Params, left: Workspace) -> None:
    plain, pipeline = base.load(left.base), tuned_pipeline(config, left, "lpl", 0)
    before, after = plain.unet.state_dict(), pipeline.unet.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 2)[-2] for name in same} <= {"to_k"}  # a query's bias moves all keys alike
    assert pipeline.scheduler.config.prediction_type == plain.scheduler.config.prediction_type


def test_averages_lie_between_the_start_and_the_end(config: params.Params, left: Workspace) -> None:
    start = base.load(left.base).unet.state_dict()

    def gone(half_life: float | None) -> float:
        found = tuned_pipeline(config, left, "lpl", 0, half_life).unet.state_dict()
        return float(torch.cat([(value - start[name]).flatten() for name, value in found.items()]).norm())

    assert gone(None) > gone(1.0) > gone(4.0) > 0
    with pytest.raises(ValueError, match=r"average-2.*: no such folder"):
        tuned_pipeline(config, left, "lpl", 0, 2.0)


def test_another_seed_trains_another(config: params.Params, left: Workspace) -> None:
    one, other = (PostTrainingSetup(config, left, "lpl", seed) for seed in (0, 1))
    assert one.seed != other.seed
    assert turns(one.seed, 0, 4, len(one.works.names)) != turns(other.seed, 0, 4, len(one.works.names))


def test_a_longer_training_has_more_steps(config: params.Params, workspace: Workspace) -> None:
    config = changed(workspace, {"plain": {"loss": "plain"}, "longer": {"loss": "plain", "longer": 1.4}}, steps=5)
    training.train(config, workspace, "longer", 0)
    assert list(history(workspace, "longer")["step"]) == list(range(1, 8))


# ------------------------------------------------------------------------------------------------ the weight


class ByHand:
    """The batches of a run's first steps, denoised by the base itself, one sample after another."""

    def __init__(
        self, config: params.Params, workspace: Workspace, seed: int, kind: str, unet: torch.nn.Module
    ) -> None:
        self.config, self.kind, self.unet = config, kind, unet
        self.seed = seed_of(config.seed, STUDY, seed)
        source = main_sources(config, workspace)
        works = source.training()
        self.names, self.prompts = works.names, len(works.prompts[0])
        self.cache = source.cache(works.key)
        self.scheduler = base.load(workspace.base).scheduler

    def samples(self, step: int) -> list[tuple[float, float, Tensor, Tensor]]:
        """Squared error, noise over signal, clean latent and its estimate of each sample of a step."""
        found = []
        for turn in turns(self.seed, step, self.config.latent_perceptual.optimisation.batch, len(self.names)):
            mean, std = (each[turn.sample] for each in self.cache.latents)
            own = denoiser.draw(self.seed, self.names[turn.sample], turn.epoch, mean.shape, 1000, self.prompts, 0.1)
            words = self.cache.condition([turn.sample], [own.prompt], [own.empty])
            alpha, s, told = self.path(own.t)
            z0 = mean + std * own.posterior
            zt = alpha * z0 + s * own.eps
            with torch.no_grad():
                output = self.unet(zt[None], told, words).sample[0]
            wanted = denoiser.target(self.kind, z0, own.eps, alpha, s)
            estimate = clean_estimate(self.kind, zt, output, alpha, s)
            found.append((float((output - wanted).square().mean()), float(s / alpha), z0, estimate))
        return found

    def path(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        if self.kind == "flow_prediction":
            noise = torch.tensor((t + 1) / 1000)
            return 1 - noise, noise, noise * 1000
        alpha = self.scheduler.alphas_cumprod[t].sqrt()
        return alpha, (1 - alpha**2).sqrt(), torch.tensor(t)


GATED = {"loss": "perceptual", "tau": 6.0, "share": 0.3}  # at a latent of 8, noise of 0.75 of the signal


def test_the_weight_gives_the_wanted_share_of_the_first_samples(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first 40, and of the first 40 under the threshold, of which one step in 1.7 is."""
    monkeypatch.setattr(training, "CALIBRATION", 40)
    config = changed(workspace, {"plain": {"loss": "plain"}, "own": GATED})
    pipeline = base.load(workspace.base)
    hand = ByHand(config, workspace, 0, "epsilon", pipeline.unet)
    errors, losses, seen = [], [], 0
    while len(errors) < 40 or len(losses) < 40:
        for error, sigma, z0, estimate in hand.samples(seen):
            errors.append(error)
            if sigma <= 0.75:
                pair = (decoder_stages(pipeline.vae, unscaled(pipeline.vae, z[None]), 5) for z in (z0, estimate))
                losses.append(float(latent_perceptual_loss(*pair, 64).detach()))
        seen += 1
    sigmas = [float(s / alpha) for alpha, s, _ in (hand.path(t) for t in range(1000))]
    perceptual = float(np.mean(losses[:40])) * sum(sigma <= 0.75 for sigma in sigmas) / 1000
    weight, denoising = PostTrainingSetup(config, workspace, "own", 0).weight(), float(np.mean(errors[:40]))
    assert weight * perceptual / (denoising + weight * perceptual) == pytest.approx(0.3, rel=1e-4)


def test_a_run_is_weighed_where_its_loss_begins(config: params.Params, left: Workspace) -> None:
    assert card(left, "lpl")["weight"] == pytest.approx(PostTrainingSetup(config, left, "lpl", 0).weight(), rel=1e-6)
    assert card(left, "older-lpl")["weight"] != pytest.approx(
        card(left, "lpl")["weight"], rel=1e-5
    )  # after other steps
    assert card(left, "plain")["weight"] is card(left, "older")["weight"] is None


def test_weighing_changes_nothing_that_is_trained(config: params.Params, workspace: Workspace) -> None:
    setup = PostTrainingSetup(config, workspace, "lpl", 0)
    before = {name: value.detach().clone() for name, value in setup.trainable.items()}
    setup.weight()
    assert all(torch.equal(value, before[name]) for name, value in setup.trainable.items())
    assert all(value.grad is None for value in setup.trainable.values())


def with_conversions(config: params.Params, workspace: Workspace, folder: Path) -> params.Params:
    """As of a shipped base, with a conversion to each kind that is not the identity."""
    for kind in ("v_prediction", "flow_prediction"):
        pipeline = base.load(workspace.base)
        torch.manual_seed(1)
        for parameter in add_conversion(pipeline.unet, rank=2, seed=1).values():
            parameter.data.normal_(0, 0.05)
        save_conversion(pipeline, kind, folder / "conversions" / kind, {})
    shipped = {"base": config.base.model_copy(update={"source": "shipped"})}
    return config.model_copy(update={**shipped, "data": config.data.model_copy(update={"folder": str(folder)})})


@pytest.mark.parametrize("kind", ["base", "v_prediction", "flow_prediction"])
def test_reweighted_is_the_squared_error_of_estimates_under_the_threshold(
    config: params.Params, workspace: Workspace, tmp_path: Path, kind: str
) -> None:
    own = {"loss": "reweighted", "kind": kind, "tau": 6.0}
    config = changed(workspace, {"plain": {"loss": "plain", "kind": kind}, "own": own})
    config = with_conversions(config, workspace, tmp_path) if kind != "base" else config
    setup = PostTrainingSetup(config, workspace, "own", 0)
    assert setup.kind == ("epsilon" if kind == "base" else kind)
    hand = ByHand(
        config,
        workspace,
        0,
        setup.kind,
        training.start(config, workspace, config.latent_perceptual.trainings["own"]).unet,
    )
    batch = config.latent_perceptual.optimisation.batch
    task = setup.task(setup.seed, setup.extra(0.7))
    sigmas = []
    for step in range(4):
        with torch.no_grad():
            terms = task.losses(turns(setup.seed, step, batch, len(setup.works.names)))
        samples = hand.samples(step)
        sigmas += [sigma for _, sigma, *_ in samples]
        expected = sum(float((estimate - z0).square().mean()) for _, sigma, z0, estimate in samples if sigma <= 0.75)
        assert list(terms) == ["denoising", TERM]
        assert float(terms[TERM]) == pytest.approx(0.7 * expected / batch, rel=1e-4)
        assert float(terms["denoising"]) == pytest.approx(sum(error for error, *_ in samples) / batch, rel=1e-4)
    assert min(sigmas) < 0.75 < max(sigmas)


def test_the_terms_gradient_reaches_the_denoiser_and_nothing_else(config: params.Params, workspace: Workspace) -> None:
    setup = PostTrainingSetup(config, workspace, "lpl", 0)
    terms = setup.task(setup.seed, setup.extra(1.0)).losses(turns(setup.seed, 0, 8, len(setup.works.names)))
    terms[TERM].backward()
    assert float(terms[TERM].detach()) > 0
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in setup.trainable.values())
    others = [*setup.vae.parameters(), *(p for p in setup.unet.parameters() if not p.requires_grad)]
    assert all(parameter.grad is None for parameter in others)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("kind", ["base", "v_prediction", "flow_prediction"])
def test_what_comes_back_is_what_was_trained(
    config: params.Params,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    rank: int | None,
) -> None:
    """Exactly, of a whole denoiser; up to rounding, of an adapter that is merged."""
    trainings = {"plain": {"loss": "plain", "kind": kind}, "lpl": {"loss": "perceptual", "tau": 20.0, "kind": kind}}
    config = changed(workspace, trainings, followed=["lpl"], rank=rank)
    config = with_conversions(config, workspace, tmp_path) if kind != "base" else config
    x, t, words = torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), torch.randn(2, base.MAX_TOKENS, 32)
    kept: list[Tensor] = []
    save = PostTrainingSetup.save

    def noted(setup: PostTrainingSetup, folder: Path, card: Mapping[str, Any]) -> None:
        with torch.no_grad():
            kept.append(setup.unet(x, t, words).sample)
        save(setup, folder, card)

    monkeypatch.setattr(PostTrainingSetup, "save", noted)
    training.train(config, workspace, "lpl", 0)
    assert (tuned_folder(workspace, "lpl") / (WEIGHTS if rank else UNET)).is_file()
    for half_life, expected in zip((None, 1.0, 4.0), kept, strict=True):
        pipeline = tuned_pipeline(config, workspace, "lpl", 0, half_life)
        assert pipeline.scheduler.config.prediction_type == ("epsilon" if kind == "base" else kind)
        with torch.no_grad():
            said = pipeline.unet(x, t, words).sample
        if rank:
            torch.testing.assert_close(said, expected, rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(said, expected)
    assert not torch.allclose(kept[0], kept[1], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(kept[1], kept[2], rtol=1e-3, atol=1e-3)


def test_a_variant_of_fewer_steps_and_seeds(config: params.Params, workspace: Workspace) -> None:
    """Its noise and its samples are those of the same seeds of the others."""
    short = {"loss": "plain", "steps": 2}
    protocol = {**params.read(workspace.params_file)["protocol"], "training_seeds": [0, 1, 2, 3]}
    section = params.read(workspace.params_file)[STUDY]
    section |= {"trainings": {"plain": {"loss": "plain"}, "short": short}, "variants": ["plain"]}
    section |= {"ablations": ["short"], "ablation_seeds": [0, 1], "followed": []}
    config = params.with_sections({STUDY: section, "protocol": protocol}, workspace.params_file)
    for seed in (0, 1):
        training.main(config, workspace, "short", str(seed))
        written = pd.read_csv(workspace.adapter(STUDY, "short", seed) / "history.csv")
        assert list(written["step"]) == [1, 2]
        setup = PostTrainingSetup(config, workspace, "plain", seed)
        batch = turns(setup.seed, 0, config.latent_perceptual.optimisation.batch, len(setup.works.names))
        with torch.no_grad():
            expected = float(setup.task(setup.seed).losses(batch)["denoising"])
        assert written["denoising"][0] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"latent_perceptual.ablation_seeds: 2 is not one of \[0, 1\]"):
        training.main(config, workspace, "short", "2")
    assert {path.name for path in (workspace.adapters / STUDY / "short").iterdir()} == {"0", "1"}


def test_works_and_photographs_are_learnt_from_their_own_caches(config: params.Params, workspace: Workspace) -> None:
    config = changed(workspace, {"plain": {"loss": "plain"}, "art": {"loss": "plain", "of": "works"}})
    photographs, works = (PostTrainingSetup(config, workspace, name, 0) for name in ("plain", "art"))
    assert len(photographs.works.names) == config.latent_perceptual.corpus.photographs
    assert not set(photographs.works.names) & set(works.works.names)
    assert photographs.works.key["pictures"] != works.works.key["pictures"]
    assert photographs.seed == works.seed


@pytest.mark.parametrize("crop", [0, 4])
def test_a_cropped_run_learns_from_windows(config: params.Params, workspace: Workspace, crop: int) -> None:
    config = changed(
        workspace, {"plain": {"loss": "plain"}, "lpl": {"loss": "perceptual", "tau": 20.0}}, crop=crop, slices=2
    )
    training.train(config, workspace, "lpl", 0)
    assert history(workspace, "lpl")[TERM].notna().all()
    assert card(workspace, "lpl")["crop"] == crop
    step = step_of_four(config)
    term = PostTrainingSetup(config, workspace, "lpl", 0).extra(1.0)(step)[TERM]
    uncropped = config.model_copy(update={STUDY: config.latent_perceptual.model_copy(update={"crop": 0})})
    whole = PostTrainingSetup(uncropped, workspace, "lpl", 0)
    assert torch.equal(term, whole.extra(1.0)(step)[TERM]) == (crop == 0)


def step_of_four(config: params.Params) -> Denoised:
    generator = torch.Generator().manual_seed(0)
    z0, zt, output = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(3))
    alpha, s = torch.full((4, 1, 1, 1), 0.8), torch.full((4, 1, 1, 1), 0.6)
    return Denoised(z0, zt, alpha, s, output, turns(1, 0, 4, 6), (s / alpha).flatten(), zt)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device to wait for")
def test_the_term_waits_for_no_device(config: params.Params, workspace: Workspace) -> None:
    setup = PostTrainingSetup(config, workspace, "lpl", 0)
    step = step_of_four(config)
    output = step.output.cuda().requires_grad_(True)
    placed = (each.cuda() for each in (step.z0, step.zt, step.alpha, step.s))
    step = Denoised(*placed, output, step.batch, step.sigma, step.eps)
    setup.extra()(step)[TERM].backward()  # what is done once, kernels chosen, may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        setup.extra()(step)[TERM].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ------------------------------------------------------------------------------------------------ refusals


def refusal(config: params.Params, workspace: Workspace, variant: str) -> str:
    """One line, and nothing is left."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        training.main(config, workspace, variant, "0")
    assert len(str(caught.value).splitlines()) == 1
    assert not tuned_folder(workspace, variant).exists()
    return str(caught.value)


def test_an_unknown_variant_is_refused_and_the_known_are_named(config: params.Params, workspace: Workspace) -> None:
    known = "plain, lpl, reweighted, pixels, older, older-lpl"
    assert refusal(config, workspace, "lpi") == f"latent_perceptual.trainings: no variant 'lpi', there are {known}"


@pytest.mark.parametrize("kind", ["v_prediction", "flow_prediction"])
def test_a_kind_without_a_shipped_conversion_is_refused(
    config: params.Params, workspace: Workspace, kind: str, tmp_path: Path
) -> None:
    config = changed(workspace, {"plain": {"loss": "plain", "kind": kind}})
    said = f"latent_perceptual.trainings: kind '{kind}' needs a shipped base"
    assert refusal(config, workspace, "plain") == f"{said}, or steps before, which convert"
    shipped = {"base": config.base.model_copy(update={"source": "shipped"})}
    elsewhere = {**shipped, "data": config.data.model_copy(update={"folder": str(tmp_path)})}
    assert refusal(config.model_copy(update=elsewhere), workspace, "plain") == (
        f"{said} and {tmp_path}/conversions/{kind}"
    )


@pytest.mark.parametrize("kind", ["v_prediction", "flow_prediction"])
def test_steps_before_convert_a_base_that_has_no_conversion(workspace: Workspace, kind: str) -> None:
    """Both variants learn the kind's own target from the base, and come back with its sampler."""
    settings = {"kind": kind, "before": BEFORE}
    trainings = {"plain-k": {"loss": "plain", **settings}, "lpl-k": {"loss": "perceptual", "tau": 20.0, **settings}}
    config = changed(workspace, trainings, rank=2)
    for variant in trainings:
        training.train(config, workspace, variant, 0)
        assert tuned_pipeline(config, workspace, variant, 0).scheduler.config.prediction_type == kind
    plain, lpl = (history(workspace, variant)["denoising"] for variant in trainings)
    assert list(plain[: BEFORE + 1]) == list(lpl[: BEFORE + 1])
    assert plain.iloc[-1] != lpl.iloc[-1]


def test_a_share_of_nothing_is_refused(config: params.Params, workspace: Workspace) -> None:
    config = changed(workspace, {"plain": {"loss": "plain"}, "lpl": {"loss": "perceptual", "tau": 1e-6, "share": 0.3}})
    said = refusal(config, workspace, "lpl")
    assert said == "a share of 0.3 of nothing: the loss is 0, is any step under the threshold?"


def test_a_depth_that_the_base_has_not_is_refused(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' decoders have fewer blocks."""
    config = changed(workspace, {"plain": {"loss": "plain"}, "lpl": {"loss": "perceptual", "tau": 20.0}})
    real = base.load

    def shallow(folder: Path) -> Any:
        pipeline = real(folder)
        pipeline.vae.decoder.up_blocks = pipeline.vae.decoder.up_blocks[:3]
        return pipeline

    monkeypatch.setattr(base, "load", shallow)
    assert refusal(config, workspace, "lpl") == "depth: expected 1 to 4 stages of this decoder, got 5"
