"""The study of the latent perceptual loss: arms share noise and prompts; what is measured is what its names say."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import claims, params
from atelier.evaluation import groups as sets
from atelier.evaluation.judges import Judges
from atelier.files import write_seal
from atelier.metrics import frechet_distance, log_power_error, log_power_ratios
from atelier.models import base
from atelier.params import CORRECTED, WHITE
from atelier.sampling import starts, store
from atelier.sampling.conditions import white_noise
from atelier.sampling.sampler import sample, settled
from atelier.studies.latent_perceptual import features
from atelier.studies.latent_perceptual import measure as measures
from atelier.studies.latent_perceptual import sample as stage
from atelier.studies.latent_perceptual import train as training
from atelier.studies.latent_perceptual.params import protocol_of
from atelier.training import denoiser
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
SHORT = {
    "trainings": {"plain": {"loss": "plain"}, "short": {"loss": "plain", "steps": 2}},
    "ablations": ["short"],
    "ablation_seeds": [0, 1],
}


@pytest.fixture
def config(workspace: Workspace) -> params.Params:
    return params.load(workspace.params_file)


@pytest.fixture
def painted(config: params.Params, workspace: Workspace) -> params.Params:
    for seed in config.protocol.training_seeds:
        training.main(config, workspace, "plain", str(seed))
        stage.main(config, workspace, "plain", str(seed))
    return config


def folders(config: params.Params, workspace: Workspace, arm: stage.Condition) -> list[Path]:
    return stage.location_of(config, arm).folders(workspace.samples, config.protocol.training_seeds)


# ------------------------------------------------------------------------------------------------ arms


def test_what_claims_name_is_measured() -> None:
    """All of it in a study; of a short run, something of the main claims."""
    study, short = (measures.cells(params.load(ROOT / "profiles" / f"{name}.yaml")) for name in ("study", "embedded"))
    known = claims.load("latent_perceptual")
    profile = params.load(ROOT / "profiles" / "study.yaml")
    groups = {arm.cell: len(protocol_of(profile, arm.variant).protocol.groups) for arm in stage.all_conditions(profile)}
    assert len(known) == 12
    for name, claim in known.items():
        assert claim.parts, name
        assert {cell for part in claim.every_part for cell in part.cells} <= study, name
        for part in claim.every_part:  # of as many training seeds
            assert len({groups[cell] for cell in part.cells if cell in groups}) <= 1, part.name
    for name in ("C1", "C2", "C7", "C11", "C12"):
        assert any(set(part.cells) <= short for part in known[name].every_part), name
    assert {cell for part in measures.null_comparisons() for cell in part.cells} <= study & short


def test_every_arm_is_painted_from_the_same_prompts_and_noise(painted: params.Params, workspace: Workspace) -> None:
    arms = {arm.cell: arm for arm in stage.all_conditions(painted) if arm.variant == "plain"}
    cells = {name: store.listed(folders(painted, workspace, arm)) for name, arm in arms.items()}
    both = {f"{name}{start}" for name in ("plain", "untuned-plain", "again") for start in ("", "-corrected")}
    assert set(cells) == both | {"plain-average-1", "plain-average-4", "plain-steps-1", "plain-steps-2"}
    for name, table in cells.items():
        pd.testing.assert_frame_equal(table, cells["untuned-plain"], obj=name)
        assert list(table["repeat"].unique()) == painted.protocol.all_repeats
        assert len(table) == len(painted.protocol.all_repeats) * painted.latent_perceptual.pictures

    def last(name: str) -> Tensor:
        return store.read_latents(folders(painted, workspace, arms[name]))

    assert torch.equal(last("plain"), last("plain-steps-2"))  # the profile's own number of steps
    for other in (*both - {"plain"}, "plain-average-4", "plain-steps-1"):
        assert not torch.equal(last("plain"), last(other)), other
    assert {arm.name for arm in stage.all_conditions(painted) if "untuned" in arm.name} == {"untuned-plain"}
    before, after = (stage.load(painted, workspace, arms[name], 0).unet for name in ("untuned-plain", "plain"))
    initial = base.load(workspace.base).unet.state_dict()
    assert all(torch.equal(value, initial[name]) for name, value in before.state_dict().items())
    assert any(not torch.equal(value, initial[name]) for name, value in after.state_dict().items())


def test_both_starts_share_their_noise_and_the_leak_is_one_of_photographs(
    config: params.Params, workspace: Workspace
) -> None:
    white, fixed = (stage.Condition("plain", "plain", start=start) for start in (WHITE, CORRECTED))
    pipeline = stage.load(config, workspace, stage.Condition("untuned-plain", "plain"), 0)
    rows = stage.listed(config, workspace, white, 1).table
    noise, first = (stage.first_latents(config, workspace, each)(pipeline, rows) for each in (white, fixed))
    leak = starts.load(workspace.starts, "photographs")
    assert torch.equal(first, starts.started(config, CORRECTED, leak, "picture")(pipeline, rows))
    assert torch.equal(noise, white_noise(config, "picture")(pipeline, rows))
    assert float(torch.corrcoef(torch.stack([noise.flatten(), first.flatten()]))[0, 1]) > 0.5


def test_flows_and_ablations_start_from_white_noise_alone() -> None:
    listed = stage.all_conditions(params.load(ROOT / "profiles" / "study.yaml"))
    cells = {arm.cell for arm in listed}
    assert len(cells) == len(listed)
    assert {"plain-v-corrected", "plain-flow", "lpl-works-corrected", "reweighted-corrected"} <= cells
    assert not {name for name in cells if "flow" in name and name.endswith("-corrected")}
    assert not {"separate-corrected", "lpl-short-corrected", "plain-oldest-corrected"} & cells  # ablations
    assert all(arm.start == WHITE for arm in listed if arm.steps is not None or arm.half_life is not None)


def test_the_disk_is_estimated_from_all_that_is_painted(config: params.Params) -> None:
    """Of the tiny world and of a study with works, flows, and variants of fewer seeds."""
    for profile in (config, params.load(ROOT / "profiles" / "study.yaml")):
        section, total = profile.latent_perceptual, 0
        for arm in stage.all_conditions(profile):
            each = section.pictures if arm.steps is None else section.pictures_in_steps
            total += len(protocol_of(profile, arm.variant).protocol.all_repeats) * each
        assert section.samples(profile) == total


def test_every_cell_is_known_to_the_check_before_a_run() -> None:
    for name in ("smoke", "embedded", "study", "paintings", "paper", "paper-lite", "own"):
        profile = params.load(ROOT / "profiles" / f"{name}.yaml")
        known = [arm.cell for arm in stage.all_conditions(profile) if "average" not in arm.cell]
        assert all(profile.latent_perceptual.measures(profile, "fd", cell) for cell in known)
        assert not profile.latent_perceptual.measures(profile, "fd", "plain-flow-corrected")


def test_a_repeat_is_painted_by_its_own_training_seeds_model(painted: params.Params, workspace: Workspace) -> None:
    plain = stage.Condition("plain", "plain")
    cell = folders(painted, workspace, plain)
    table, latents = store.listed(cell), store.read_latents(cell)
    sampling, start = painted.sampling, white_noise(painted, plain.noise)
    for repeat in painted.protocol.all_repeats:
        rows = table[table["repeat"] == repeat]
        by_seed = []
        for seed in painted.protocol.training_seeds:
            pipeline = settled(stage.load(painted, workspace, plain, seed), torch.device("cpu"))
            by_hand = sample(
                pipeline, list(rows["prompt"]), start(pipeline, rows), guidance=4.0, steps=sampling.steps, batch=4
            )
            by_seed.append(float((by_hand.latents - latents[rows.index.tolist()]).abs().max()))
        assert int(np.argmin(by_seed)) == repeat // painted.protocol.repeats
        assert min(by_seed) < 1e-4 < 1e-3 < max(by_seed)


def test_an_ablation_is_painted_from_its_own_seeds_alone(config: params.Params, workspace: Workspace) -> None:
    section = params.read(workspace.params_file)["latent_perceptual"]
    section |= {"variants": ["plain"], "followed": [], **SHORT, "ablation_seeds": [1, 2]}
    protocol = {**params.read(workspace.params_file)["protocol"], "training_seeds": [0, 1, 2]}
    config = params.with_sections({"latent_perceptual": section, "protocol": protocol}, workspace.params_file)
    training.main(config, workspace, "short", "1")
    stage.main(config, workspace, "short", "1")
    out = workspace.samples / "latent_perceptual" / "short"
    assert {path.name for path in out.iterdir()} == {"1"}
    assert set(store.listed([out / "1" / "short" / "guidance-4"])["repeat"]) == set(config.protocol.repeats_of(1))
    for seed, key in (("0", r"latent_perceptual\.ablation_seeds"), ("3", r"protocol\.training_seeds")):
        with pytest.raises(ValueError, match=rf"{key}: {seed} is not one of"):
            stage.main(config, workspace, "short", seed)


def test_a_variant_is_held_against_the_plain_one_of_its_kind_and_age() -> None:
    study = params.load(ROOT / "profiles" / "study.yaml").latent_perceptual
    assert study.plain_of("lpl-v") == "plain-v"
    assert study.plain_of("lpl-oldest") == "plain-oldest"
    assert study.plain_of("reweighted") == study.plain_of("plain-longer") == "plain"
    assert study.plain_of("tau-1") == study.plain_of("lpl-short") == "plain-short"
    assert study.plain_of("lpl-works") == "plain-works"
    assert study.ablated == ("plain-short", "lpl-short")
    found = measures.ages(params.load(ROOT / "profiles" / "study.yaml"))
    assert found == {
        "gain-after-0": ("plain-short", "lpl-short"),
        "gain-after-200": ("plain-older", "lpl-older"),
        "gain-after-1500": ("plain-oldest", "lpl-oldest"),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({**SHORT, "ablation_seeds": [0, 2]}, "ablation_seeds: expected a subset of 0, 1, each once"),
        ({**SHORT, "ablation_seeds": [1, 1]}, "ablation_seeds: expected a subset of 0, 1, each once"),
        ({**SHORT, "ablation_seeds": []}, "ablation_seeds: expected two or more"),
        ({**SHORT, "followed": ["short"]}, "followed: expected a subset of plain, each once"),
        (
            {"trainings": {"plain": {"loss": "plain"}, "lpl": {"loss": "perceptual"}}, "ablations": ["lpl"]}
            | {"ablation_seeds": [0]},
            "trainings.lpl: nothing to compare it with, no plain one of its kind and before",
        ),
        (
            {"trainings": {"plain": {"loss": "plain"}, "lpl": {"loss": "perceptual", "steps": 5}}},
            "trainings.lpl: nothing to compare it with, no plain one of its kind and before",
        ),
        (
            {"trainings": {"plain": {"loss": "plain"}, "plain-corrected": {"loss": "plain"}}},
            "trainings: 'plain-corrected' names pictures of another training",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(workspace: Workspace, change: dict[str, object], said: str) -> None:
    section = params.read(workspace.params_file)["latent_perceptual"] | {"followed": []} | change
    section["variants"] = [name for name in section["trainings"] if name not in section["ablations"]]
    with pytest.raises(ValueError, match=re.escape(f"latent_perceptual.{said}")):
        params.with_sections({"latent_perceptual": section}, workspace.params_file)


def test_ablations_of_one_of_several_seeds_have_no_interval_over_seeds_and_are_refused(workspace: Workspace) -> None:
    tree = params.read(workspace.params_file)
    section = tree["latent_perceptual"] | {"followed": [], "variants": ["plain"], **SHORT, "ablation_seeds": [1]}
    sections = {"latent_perceptual": section, "protocol": {**tree["protocol"], "repeats": 1}}
    wanted = "latent_perceptual.ablation_seeds: expected two or more, because intervals are over them"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        params.with_sections(sections, workspace.params_file)
    section["ablation_seeds"] = [0, 1]
    params.with_sections(sections, workspace.params_file)


# ------------------------------------------------------------------------------------------------ pictures' measures


def blobs(n: int, seed: int) -> Tensor:
    return (torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 255).to(torch.uint8)


def test_bands_are_of_their_frequencies() -> None:
    rng = np.random.default_rng(0)
    real = np.exp(rng.normal(size=(64, 64)))
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(64)) for _ in range(2))
    radius = np.rint(np.hypot(rows[:, None], columns) * 64)
    made = real * np.where(radius > 18.56, 10.0, 1.0)  # ten times the power above 0.29 cycles a pixel
    assert log_power_error(real, made, 0.29 * 64) == pytest.approx(1.0)
    assert log_power_ratios(real, made, 0.29 * 64).mean() == pytest.approx(1.0)
    assert log_power_ratios(made, real, 0.29 * 64).mean() == pytest.approx(-1.0)
    assert log_power_error(real, made, 0.15 * 64, 0.29 * 64) == pytest.approx(0.0, abs=1e-12)
    assert len(log_power_ratios(real, made, 9.6, 18.56)) == 9  # rings 10 to 18


def test_gains_and_best_averages_are_those_of_the_pictures(config: params.Params) -> None:
    real = sets.group(blobs(20, 1), Judges())
    near, far = blobs(8, 2), (blobs(8, 3) / 4).to(torch.uint8)
    parts = {
        name: [sets.group(pictures[at::2], Judges()) for at in range(2)]
        for name, pictures in {
            "plain": far, "lpl": near, "older": far, "older-lpl": far, "plain-average-1": far, "plain-average-4": near,
        }.items()
    }  # fmt: skip
    table = measures.relative_gains(config, parts, real).set_index("cell")
    whole = [frechet_distance(real.features, sets.pooled(parts[name]).features) for name in ("plain", "lpl")]
    assert table.loc["gain-after-0", "whole"] == pytest.approx(1 - whole[1] / whole[0])
    assert table.loc["gain-after-0", "whole"] > 0.1
    assert table.loc["gain-after-3", "whole"] == pytest.approx(0.0, abs=1e-9)
    best = measures.nearest_average(config, "plain", parts, real)
    assert best.loc[0, ["whole", "group0", "group1"]].tolist() == [2.0, 2.0, 2.0]  # log2 of 4


def test_unsteadiness_is_none_where_the_average_is_the_last(painted: params.Params, workspace: Workspace) -> None:
    only = painted.model_copy(
        update={"latent_perceptual": painted.latent_perceptual.model_copy(update={"followed": ["plain"]})}
    )
    moving = measures.unsteadiness(only, workspace)
    assert (moving[["group0", "group1"]] > 0).all(axis=None)
    for seed in painted.protocol.training_seeds:
        folder = workspace.adapter("latent_perceptual", "plain", seed)
        weights = (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        (folder / "average-1" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
        write_seal(folder)
    assert (measures.unsteadiness(only, workspace)[["group0", "group1"]] == 0).all(axis=None)


# ------------------------------------------------------------------------------------------------ decoder features


def test_an_estimate_that_is_right_costs_nothing(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = base.load(workspace.base)
    some = next(features.inspected(config, workspace, pipeline))
    found = features.losses_of(config, pipeline, some)
    assert len(found) == features.LEVELS * len(some.table)
    assert (found["loss"] > 0).all()
    alphas, sigmas, _ = denoiser.path(pipeline.scheduler)
    np.testing.assert_allclose(found["sigma"], (sigmas / alphas)[found["t"]], rtol=1e-6)
    eps = features.noise_of(some, "look")
    real = pipeline.unet.forward

    def knowing(*given: object, **named: object) -> object:  # the noise itself
        said = real(*given, **named)
        said.sample = eps
        return said

    monkeypatch.setattr(pipeline.unet, "forward", knowing)
    right = features.losses_of(config, pipeline, some)
    assert right["loss"].max() < 1e-6 * found["loss"].min()


def test_the_direction_is_that_of_the_losss_gradient(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a decoder that does nothing: each map's error over its variance, errors 1 to 8 times as large by map."""
    pipeline = base.load(workspace.base)
    some = next(features.inspected(config, workspace, pipeline))
    eps = features.noise_of(some, "look")
    wrong = (
        torch.randn(eps.shape, generator=torch.Generator().manual_seed(3)) * torch.tensor([1.0, 2, 4, 8])[:, None, None]
    )
    real = pipeline.unet.forward

    def mistaken(*given: object, **named: object) -> object:
        said = real(*given, **named)
        said.sample = eps + wrong
        return said

    monkeypatch.setattr(pipeline.unet, "forward", mistaken)
    monkeypatch.setattr(features, "decoder_stages", lambda vae, z, depth: [z])
    found = features.losses_of(config, pipeline, some)
    for _, level in found.groupby("t"):
        away = -float(level["sigma"].iloc[0]) * wrong
        gradient = away / (some.z0 + away).var((2, 3), correction=0, keepdim=True)
        expected = torch.cosine_similarity(gradient.flatten(1), away.flatten(1))
        np.testing.assert_allclose(level["cosine"], expected, rtol=1e-3)
        assert expected.max() < 0.99


def test_planted_outliers_are_counted_by_stage(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = base.load(workspace.base)
    some = next(features.inspected(config, workspace, pipeline))
    rng = torch.Generator().manual_seed(0)

    def stages(vae: object, z: Tensor, depth: int) -> list[Tensor]:
        maps = [torch.randn(len(z), 4, size, size, generator=rng) for size in (8, 64)]
        maps[1][0, 2, 20:25, 30:35] = 500.0
        return maps

    monkeypatch.setattr(features, "decoder_stages", stages)
    found = features.outliers_of(pipeline.vae, some, 64).set_index("stage")
    assert found["maps"].tolist() == [4 * len(some.table)] * 2
    assert found["far"].tolist() == [0, 1]
    assert found["masked"].tolist() == [0, 1]
    assert found.loc[2, "farthest"] == pytest.approx(500, rel=0.1)


def test_reversals_are_pairs_alike_in_error_whose_order_changes() -> None:
    places = list(product(features.METHODS, features.FACTORS))
    errors = {place: 2.0**at for at, place in enumerate(places)}  # none alike ...
    errors["bilinear", 1.3], errors["nearest", 1.3] = 1.0, 1.1  # ... but these two
    rows = [
        {"picture": number, "method": method, "factor": factor, "latent_error": errors[method, factor],
         "distance": errors[method, factor]} for number in range(2) for method, factor in places
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    assert features.reversals(table)[features.PAIRS].tolist() == [0.0, 0.0]
    changed = (table["picture"] == 1) & (table["method"] == "nearest") & (table["factor"] == 1.3)
    table.loc[changed, "distance"] = 0.5
    found = features.reversals(table)
    assert found[features.PAIRS].tolist() == [0.0, 1.0]
    assert found["nearest"].tolist() == [0.0, pytest.approx(1 / 3)]  # by one factor of three
    assert found["bicubic"].tolist() == [0.0, 0.0]
    table.loc[(table["method"] == "bicubic") & (table["factor"] == 1.3), "distance"] = 0.0
    assert features.reversals(table)["bicubic"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("method", features.METHODS)
def test_a_constant_latent_survives_being_made_smaller(method: str) -> None:
    z = torch.full((2, 3, 8, 8), 0.7)
    torch.testing.assert_close(features.resized(z, method, 1.3), z)
    assert not torch.equal(features.resized(torch.randn(2, 3, 8, 8), method, 2.0), z)


def test_gradients_are_compared_batch_by_batch(config: params.Params, workspace: Workspace) -> None:
    found = features.gradients(config, workspace)
    pairs = {("perceptual", "denoising"): 8, ("reweighted", "denoising"): 8, ("reweighted", "perceptual"): 8}
    assert found.groupby(["of", "against"]).size().to_dict() == pairs
    assert found["cosine"].abs().max() <= 1 + 1e-9
