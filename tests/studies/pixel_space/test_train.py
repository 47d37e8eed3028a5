"""Post-training in pixels and by preference: what a run leaves, how it is weighed, when it ends, what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.files import SEAL
from atelier.models import base
from atelier.models.adapters import WEIGHTS
from atelier.studies.pixel_space import pictures
from atelier.studies.pixel_space import train as training
from atelier.studies.pixel_space.loss import DENOISING, LATENT, PIXEL, without_adapter
from atelier.studies.pixel_space.params import Config
from atelier.studies.pixel_space.train import Setup, tuned_pipeline
from atelier.training import loop
from atelier.training.conversion import add_conversion, save_conversion
from atelier.training.order import turns
from atelier.workspace import Workspace
from linked import linked

STUDY = Config.STUDY
STEPS = 24
TRAINED = ("latent", "pixel", "both", "both-clean", "dpo-latent", "dpo-pixel", "dpo-both", "simpo-both")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def left(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Adapters of all variants, trained once; none of them ends early."""
    workspace, threads = linked(tmp_path_factory.mktemp("left"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    config = changed(workspace, most=1000.0)
    for variant in TRAINED:
        training.train(config, workspace, variant, 0)
    torch.set_num_threads(threads)
    return workspace


@pytest.fixture
def config(workspace: Workspace) -> params.Params:
    return params.load(workspace.params_file)


def changed(workspace: Workspace, trainings: dict[str, dict[str, Any]] | None = None, **other: object) -> params.Params:
    """The tiny world's parameters with other variants; ``steps``: of both optimisations."""
    section = params.read(workspace.params_file)[STUDY]
    if trainings is not None:
        section |= {"variants": list(trainings), "trainings": trainings, "ablations": [], "ablation_seeds": []}
    steps = other.pop("steps", None)
    if steps is not None:
        for each in ("supervised", "preference"):
            section[each] |= {"steps": steps}
    return params.with_sections({STUDY: section | other}, workspace.params_file)


def tuned_folder(workspace: Workspace, variant: str, seed: int = 0) -> Path:
    return workspace.adapter(STUDY, variant, seed)


def history(workspace: Workspace, variant: str) -> pd.DataFrame:
    return pd.read_csv(tuned_folder(workspace, variant) / "history.csv")


def card(workspace: Workspace, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tuned_folder(workspace, variant) / "card.json").read_text())
    return found


# ------------------------------------------------------------------------------------------------ what a run leaves


def test_a_run_leaves_an_adapter_a_scheduler_and_of_preferences_what_was_seen(left: Workspace) -> None:
    model = {"card.json", WEIGHTS, "scheduler/scheduler_config.json", "history.csv", SEAL}
    for variant in TRAINED:
        out = tuned_folder(left, variant)
        files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert files == model | ({training.PROBES} if "po-" in variant else set())
    assert not list(left.scratch.glob(f"{STUDY}-*"))


def test_a_history_has_each_term_and_what_is_watched(left: Workspace) -> None:
    rows = {variant: history(left, variant) for variant in TRAINED}
    for variant in TRAINED:
        assert list(rows[variant]["step"]) == list(range(1, STEPS + 1))
    start = ["step", "learning_rate"]
    assert list(rows["latent"]) == [*start, DENOISING]
    assert list(rows["both"]) == list(rows["pixel"]) == list(rows["both-clean"]) == [*start, DENOISING, PIXEL]
    seen = ["accuracy", "winner", "loser"]
    of_reference = [*seen, "winner_reference", "loser_reference"]
    assert list(rows["dpo-latent"]) == [*start, LATENT, *of_reference]
    assert list(rows["dpo-pixel"]) == [*start, PIXEL, "pixel_accuracy", *of_reference]
    assert list(rows["dpo-both"]) == [*start, LATENT, PIXEL, "pixel_accuracy", *of_reference]
    assert list(rows["simpo-both"]) == [*start, LATENT, PIXEL, "pixel_accuracy", *seen]


def test_variants_of_a_kind_share_their_samples_and_noise(left: Workspace) -> None:
    """What they begin with is the same; then they part."""
    latent, both = (history(left, variant)[DENOISING] for variant in ("latent", "both"))
    assert latent[0] == both[0] == history(left, "pixel")[DENOISING][0]
    assert latent[STEPS - 1] != both[STEPS - 1]
    one, other = (history(left, variant)["winner"] for variant in ("dpo-latent", "dpo-both"))
    assert one[0] == other[0]
    assert one[STEPS - 1] != other[STEPS - 1]
    separate = history(left, "simpo-both")
    assert separate["winner"][0] == one[0]
    assert separate["loser"][0] != history(left, "dpo-latent")["loser"][0]


def test_preferences_are_learnt(left: Workspace) -> None:
    """Of six pairs, at a rate that no study would use."""
    for variant in ("dpo-latent", "dpo-pixel", "dpo-both", "simpo-both"):
        rows = pd.read_csv(tuned_folder(left, variant) / training.PROBES)
        assert list(rows) == ["step", "winner", "loser", "accuracy"]
        assert list(rows["step"]) == [0, 5, 10, 15, 20, STEPS]
        assert list(rows.iloc[0]) == [0, 1, 1, 0.5]
        assert rows["accuracy"].iloc[-1] > 0.6
        gaps = rows["loser"] - rows["winner"]
        assert gaps.iloc[-1] > 0
        assert card(left, variant)["stopped"] is None
        assert card(left, variant)["winner_error"] == pytest.approx(rows["winner"].iloc[-1] - 1, rel=1e-9)
    assert card(left, "both")["stopped"] is card(left, "both")["winner_error"] is None


def test_what_comes_back_is_what_was_trained(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Up to rounding: the adapter is merged."""
    config = changed(workspace, steps=3)
    x, t, words = torch.randn(2, 4, 8, 8), torch.tensor([5, 500]), torch.randn(2, base.MAX_TOKENS, 32)
    kept: list[Tensor] = []
    real = training.save_with_scheduler

    def noted(pipeline: Any, folder: Path, card: Mapping[str, Any]) -> None:
        with torch.no_grad():
            kept.append(pipeline.unet(x, t, words).sample)
        real(pipeline, folder, card)

    monkeypatch.setattr(training, "save_with_scheduler", noted)
    training.train(config, workspace, "dpo-both", 1)
    with torch.no_grad():
        found = tuned_pipeline(config, workspace, "dpo-both", 1).unet(x, t, words).sample
        before = base.load(workspace.base).unet(x, t, words).sample
    torch.testing.assert_close(found, kept[0], rtol=1e-4, atol=1e-5)
    assert float((found - before).abs().max()) > 1e-3


def test_a_longer_training_has_more_steps_and_an_ablation_its_seeds(workspace: Workspace) -> None:
    longer = {"method": "supervised", "terms": "latent", "longer": 1.6}
    config = changed(workspace, {"latent": {"method": "supervised", "terms": "latent"}, "longer": longer}, steps=5)
    training.train(config, workspace, "longer", 0)
    assert list(history(workspace, "longer")["step"]) == list(range(1, 9))


# ------------------------------------------------------------------------------------------------ constants of a loss


def norms_by_hand(setup: Setup, config: Any, factor: float | None) -> dict[str, float]:
    """Each term's gradient by itself, over a run's first batches, of the parameters that learn."""
    found: dict[str, list[float]] = {}
    supervised = setup.training.method == "supervised"
    size = (config.supervised if supervised else config.preference).batch
    both = setup.training.model_copy(update={"terms": "both"})
    for step in range(training.CALIBRATION // size):
        for name in (DENOISING if supervised else LATENT, PIXEL):
            setup.unet.zero_grad()
            setup.task(factor, None, both).losses(turns(setup.seed, step, size, len(setup.names)))[name].backward()
            gradient = torch.cat([p.grad.flatten() for p in setup.trainable.values() if p.grad is not None])
            found.setdefault(name, []).append(float(gradient.norm()))
    setup.unet.zero_grad()
    return {name: sum(values) / len(values) for name, values in found.items()}


@pytest.mark.parametrize("variant", ["both", "both-clean", "share-30", "dpo-both", "simpo-both"])
def test_the_pixel_term_has_its_share_of_the_gradients_norms(
    config: params.Params, workspace: Workspace, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CALIBRATION", 12)
    setup, study = Setup(config, workspace, variant, 0), Config.of(config)
    factor = setup.factor()
    weight = setup.weight(factor)
    assert weight is not None
    norms = norms_by_hand(setup, study, factor)
    latent, pixel = norms[DENOISING if "po-" not in variant else LATENT], weight * norms[PIXEL]
    assert pixel / (latent + pixel) == pytest.approx(0.3 if variant == "share-30" else 0.5, rel=1e-4)


def test_the_factor_gives_pixels_the_units_of_latents_at_the_start(config: params.Params, workspace: Workspace) -> None:
    setup = Setup(config, workspace, "dpo-both", 0)
    factor, pixels = setup.factor(), setup.pixels
    assert factor is not None
    latent, seen, times = [], [], []
    for drawn in setup.probes():
        output = setup.output(drawn)
        latent += setup.preferences.latent_errors(drawn, output).flatten().tolist()
        given = [each.flatten(0, 1) for each in (drawn.z0, drawn.eps, output, drawn.alpha, drawn.s)]
        with torch.no_grad():
            seen += pixels.errors(*given, None).tolist()
        times += drawn.time[:, 0].tolist()
    assert factor * sum(seen) == pytest.approx(sum(latent), rel=1e-4)
    assert len(times) == len(set(times)) == training.PROBED
    half = 500 // training.PROBED  # the middles of equal parts of 1000 steps
    assert (min(times), max(times)) == (half, 999 - half)
    assert Setup(config, workspace, "dpo-latent", 0).factor() is None
    assert Setup(config, workspace, "both", 0).factor() is None


def test_pixels_alone_have_the_latent_terms_norm_where_supervised_and_no_weight_where_preferred(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CALIBRATION", 12)
    setup = Setup(config, workspace, "pixel", 0)
    weight, norms = setup.weight(None), norms_by_hand(setup, Config.of(config), None)
    assert weight == pytest.approx(norms[DENOISING] / norms[PIXEL], rel=1e-4)
    assert Setup(config, workspace, "latent", 0).weight(None) is None
    assert Setup(config, workspace, "dpo-pixel", 0).weight(2.0) is None


def test_the_card_says_what_was_weighed(config: params.Params, left: Workspace) -> None:
    for variant in TRAINED:
        setup, found = Setup(config, left, variant, 0), card(left, variant)
        factor = setup.factor()
        assert found["factor"] == (None if factor is None else pytest.approx(factor, rel=1e-6))
        weight = setup.weight(factor)
        assert found["weight"] == (None if weight is None else pytest.approx(weight, rel=1e-5))


def test_weighing_and_watching_change_nothing_that_is_trained(config: params.Params, workspace: Workspace) -> None:
    setup = Setup(config, workspace, "dpo-both", 0)
    before = {name: value.detach().clone() for name, value in setup.trainable.items()}
    setup.weight(setup.factor())
    watch = setup.watch()
    assert watch is not None
    assert watch.look() == pytest.approx({"winner": 1.0, "loser": 1.0, "accuracy": 0.5})
    assert all(torch.equal(value, before[name]) for name, value in setup.trainable.items())
    assert all(value.grad is None for value in setup.trainable.values())


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a share of 0\.5 of nothing: the gradients' norms are 1 and 0$"):
        training.weight_for(0.5, 1.0, 0.0)
    assert training.weight_for(0.25, 6.0, 2.0) == 1.0


# ------------------------------------------------------------------------------------------------ the end


WORSE: dict[str, Any] = {"learning_rate": 0.05, "warmup": 0}


def worse(workspace: Workspace) -> params.Params:
    """A training under which the winners' error rises."""
    section = params.read(workspace.params_file)[STUDY]
    return changed(workspace, preference=section["preference"] | WORSE)


class Killed(BaseException):
    """No handler may catch it, as none catches SIGKILL."""


def test_a_training_ends_where_the_winners_error_has_risen_too_far_killed_or_not(
    workspace: Workspace, tmp_path: Path, tiny_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = worse(workspace)
    training.train(config, workspace, "simpo-both", 0)
    found, rows = card(workspace, "simpo-both"), pd.read_csv(tuned_folder(workspace, "simpo-both") / training.PROBES)
    assert found["stopped"] == rows["step"].iloc[-1] < STEPS
    assert found["stopped"] % 5 == 0
    assert found["winner_error"] > 0.2
    assert (rows["winner"].iloc[:-1] <= 1.2).all()
    assert rows["winner"].iloc[-1] > 1.2
    assert list(history(workspace, "simpo-both")["step"]) == list(range(1, found["stopped"] + 1))

    other, real = linked(tmp_path / "killed", tiny_world), loop._step
    monkeypatch.setattr(loop, "_step", lambda *given: real(*given) if given[-1] < found["stopped"] - 1 else killed())
    with pytest.raises(Killed):
        training.train(config, other, "simpo-both", 0)
    monkeypatch.setattr(loop, "_step", real)
    training.train(config, other, "simpo-both", 0)
    for path in tuned_folder(workspace, "simpo-both").rglob("*"):
        if path.is_file():
            again = tuned_folder(other, "simpo-both") / path.relative_to(tuned_folder(workspace, "simpo-both"))
            assert again.read_bytes() == path.read_bytes(), path.name


def killed() -> dict[str, float]:
    raise Killed


def test_what_is_watched_is_the_adapters_error_over_the_bases(config: params.Params, workspace: Workspace) -> None:
    setup = Setup(config, workspace, "dpo-latent", 0)
    watch = setup.watch()
    assert watch is not None
    for value in setup.trainable.values():
        value.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    now = setup.probed()
    with without_adapter(setup.unet):
        before = setup.probed()
    seen = watch.look()
    assert seen["winner"] == pytest.approx(float(now[:, 0].mean() / before[:, 0].mean()), rel=1e-6)
    assert seen["loser"] == pytest.approx(float(now[:, 1].mean() / before[:, 1].mean()), rel=1e-6)
    assert seen["winner"] != pytest.approx(1.0, abs=1e-3)
    assert watch.enough({"winner": 1.21})
    assert not watch.enough({"winner": 1.2})


# ------------------------------------------------------------------------------------------------ kinds, refusals


def with_conversion(config: params.Params, workspace: Workspace, folder: Path, seed: int = 1) -> params.Params:
    """As of a shipped base, with a conversion to v prediction that is not the identity."""
    pipeline = base.load(workspace.base)
    torch.manual_seed(seed)
    for parameter in add_conversion(pipeline.unet, rank=2, seed=seed).values():
        parameter.data.normal_(0, 0.05)
    save_conversion(pipeline, "v_prediction", folder / "conversions" / "v_prediction", {})
    shipped = {"base": config.base.model_copy(update={"source": "shipped"})}
    return config.model_copy(update={**shipped, "data": config.data.model_copy(update={"folder": str(folder)})})


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_base_that_predicts_v_learns_in_pixels(workspace: Workspace, tmp_path: Path, method: str) -> None:
    own = {"v": {"method": method, "terms": "both", "kind": "v_prediction"}}
    config = with_conversion(changed(workspace, own, steps=3, most=1000.0), workspace, tmp_path)
    training.train(config, workspace, "v", 0)
    rows = history(workspace, "v")
    assert (rows[PIXEL] > 0).all()
    assert tuned_pipeline(config, workspace, "v", 0).scheduler.config.prediction_type == "v_prediction"
    setup = Setup(config, workspace, "v", 0)
    assert setup.pixels.kind == "v_prediction"


def test_a_run_does_not_resume_on_another_conversion(workspace: Workspace, tmp_path: Path) -> None:
    own = {"v": {"method": "dpo", "terms": "latent", "kind": "v_prediction"}}
    keys = [
        Setup(with_conversion(changed(workspace, own), workspace, tmp_path, seed), workspace, "v", 0).key
        for seed in (1, 1, 2)
    ]
    assert keys[0] == keys[1] != keys[2]
    assert "conversion" not in Setup(changed(workspace), workspace, "dpo-latent", 0).key


def refusal(config: params.Params, workspace: Workspace, variant: str, seed: str = "0") -> str:
    """One line, and nothing is left."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        training.main(config, workspace, variant, seed)
    assert len(str(caught.value).splitlines()) == 1
    assert not tuned_folder(workspace, variant).exists()
    return str(caught.value)


def test_an_unknown_variant_and_a_seed_of_no_ablation_are_refused(workspace: Workspace) -> None:
    config = changed(workspace)
    known = ", ".join([*TRAINED, "share-30"])
    assert refusal(config, workspace, "bot") == f"pixel_space.trainings: no variant 'bot', there are {known}"
    assert refusal(config, workspace, "both", "7") == "protocol.training_seeds: 7 is not one of [0, 1]"


def test_a_kind_without_a_shipped_conversion_is_refused(workspace: Workspace) -> None:
    config = changed(workspace, {"v": {"method": "supervised", "terms": "latent", "kind": "v_prediction"}})
    said = refusal(config, workspace, "v")
    where = f"{workspace.root}/data/conversions/v_prediction"
    assert said == f"pixel_space.trainings: kind 'v_prediction' needs a shipped base and {where}"


def test_a_run_depends_on_the_works_or_pairs_that_it_learns_from(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Setup(config, workspace, "dpo-latent", 0).key
    real = pictures.pairs(workspace)
    monkeypatch.setattr(pictures, "pairs", lambda workspace: real._replace(winner=real.winner + 1))
    assert Setup(config, workspace, "dpo-latent", 0).key != one
    assert set(Setup(config, workspace, "both", 0).key) >= {"model", "pictures", "prompts", "works"}
