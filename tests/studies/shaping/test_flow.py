"""Inverse noise correction from the base to its measures, in the tiny world."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.evaluation.tables import read_rows
from atelier.files import SEAL
from atelier.methods.inverse_noise import sampled
from atelier.models.latents import encode_prompts
from atelier.sampling.sampler import last_latents
from atelier.sampling.store import read_latents
from atelier.studies.shaping import convergence, convert, correct, flow, flow_base, flow_measure, invert
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace
from linked import SHARED, linked
from tolerance import assert_close


@pytest.fixture(scope="module")
def made(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after all stages of the correction, run once."""
    workspace, threads = linked(tmp_path_factory.mktemp("flow"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    config = params.load(workspace.params_file)
    convert.main(config, workspace)
    invert.main(config, workspace)
    for seed in config.protocol.training_seeds:
        correct.main(config, workspace, str(seed))
        flow.main(config, workspace, str(seed))
    flow_measure.write(config, workspace)
    torch.set_num_threads(threads)
    return workspace


@pytest.fixture
def config(made: Workspace, one_thread: None) -> params.Params:
    return params.load(made.params_file)


@pytest.fixture
def measures(made: Workspace) -> pd.DataFrame:
    return read_rows(made.measures / flow_measure.OUT)


def value(table: pd.DataFrame, measure: str, cell: str) -> float:
    rows = table[(table["measure"] == measure) & (table["cell"] == cell)]
    assert len(rows) == 1, (measure, cell)
    return float(rows["whole"].iloc[0])


# ------------------------------------------------------------------------------------------------ both directions


def test_what_is_inverted_is_the_sampler_that_paints(made: Workspace, config: params.Params) -> None:
    """Diffusers' pipeline, without guidance, against the steps that are inverted."""
    pipeline = flow_base.load(config, made)
    prompts = ["a boat", "a house by the sea", "a boat"]
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for k in (2, 5):
        euler = flow_base.Euler.of(pipeline, k)
        ours = sampled(euler.velocity(pipeline, encode_prompts(pipeline, prompts)), z, euler.times)
        painted = torch.cat(list(last_latents(pipeline, prompts, z, guidance=1.0, steps=k, batch=3)))
        assert_close(ours, painted, relative=1e-4, absolute=1e-5)


def test_shorter_steps_near_the_picture(made: Workspace, config: params.Params) -> None:
    times = flow_base.Euler.of(flow_base.load(config, made), 4).times
    steps = -np.diff(times)
    assert times[-1] == 0
    assert (np.diff(steps) < 0).all()


def test_enough_iterations_come_back_both_ways(made: Workspace, config: params.Params) -> None:
    """The untrained flow bends little; the tiny world's six iterations leave more than these."""
    pipeline, works = flow_base.load(config, made), invert.works_of(config, made)
    euler, x = flow_base.Euler.of(pipeline, 4), works.data(config.seed)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = invert.both_ways(euler.velocity(pipeline, works.words), euler.times, x, z, 300)
    assert (found["round_trip_data"] < 1e-4).all()
    assert (found["round_trip_noise"] < 1e-4).all()
    few = invert.both_ways(euler.velocity(pipeline, works.words), euler.times, x, z, 2)
    assert (few["round_trip_data"] > found["round_trip_data"]).all()


def test_only_training_works_are_inverted(made: Workspace, config: params.Params) -> None:
    manifest = pd.read_parquet(made.manifests / "works.parquet").set_index("path")
    listed = pd.read_csv(made.build / "shaping" / "flow" / "inverted" / invert.TABLE)["path"]
    assert len(listed) == Config.of(config).flow.inverted
    assert (manifest.loc[listed, "split"] == "train").all()


# ------------------------------------------------------------------------------------------------ convergence


def linear(a: Tensor) -> Callable[[Tensor, float], Tensor]:
    return lambda x, t: x @ a.T


def test_rates_and_slopes_of_a_symmetric_flow_are_its_largest_eigenvalue() -> None:
    a = torch.diag(torch.tensor([1.2, 0.1, 0.05], dtype=torch.float64))
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = convergence.rates(linear(a), z, [1.0, 0.5, 0.25], 15)
    assert list(table["step"].unique()) == [0, 1]
    for step, eta in ((0, 0.5), (1, 0.25)):
        rows = table[table["step"] == step]
        assert_close(rows["eta_l"].to_numpy(), np.full(6, 1.2 * eta), relative=1e-3)
        assert_close(rows["rate"].to_numpy(), np.full(6, 1.2 * eta), relative=0.05)


def test_without_differences_above_rounding_there_is_no_rate() -> None:
    z = torch.ones(2, 3)
    assert convergence.rate(lambda x, t: torch.zeros_like(x), z, 1.0, -0.5, 5).isnan().all()


# ------------------------------------------------------------------------------------------------ what stages leave


def test_a_seeds_folder_has_a_corrector_for_each_number_of_steps_and_the_control(
    made: Workspace, config: params.Params
) -> None:
    study = Config.of(config)
    folders = {str(k) for k in study.flow.steps} | {correct.CONTROL}
    for seed in config.protocol.training_seeds:
        out = correct.trained(made, seed)
        assert {path.name for path in out.iterdir()} == folders | {SEAL}
        for name in folders:
            card = json.loads((out / name / "card.json").read_text())
            assert (card["steps"], card["works"]) == (study.flow.optimisation.steps, study.flow.inverted)
            assert len(pd.read_csv(out / name / "history.csv")) == study.flow.optimisation.steps
    assert not list(made.scratch.glob("shaping-flow*"))


def test_all_cells_of_a_seed_begin_with_the_same_noise_and_only_corrected_ones_move_it(
    made: Workspace, config: params.Params
) -> None:
    pipeline, seed = flow_base.load(config, made), config.protocol.training_seeds[0]
    first = {each.folder: each.start(pipeline, each.table) for each in flow.conditions(config, made, seed)}
    first |= {each.folder: each.start(pipeline, each.table) for each in flow.controls(config, made, seed)}
    white = first["flow-2/guidance-1"]
    assert {name.split("/")[0] for name in first} == set(Config.of(config).flow.cells)
    for name, latents in first.items():
        assert torch.equal(latents, white) != ("-inc" in name), name
    folders = flow.location("flow-2").folders(made.samples, [seed])
    euler, rows = flow_base.Euler.of(pipeline, 2), flow.prompts(config, made, seed)
    words = encode_prompts(pipeline, list(rows["prompt"]))
    painted = sampled(euler.velocity(pipeline, words), white, euler.times)
    assert_close(read_latents(folders), painted, relative=1e-3, absolute=1e-4)


def test_a_killed_stage_takes_up_its_batches_and_its_trainings(
    made: Workspace,
    config: params.Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A kill while the second number of steps is inverted, and one after the first corrector: nothing is done twice."""
    workspace = linked(tmp_path / "again", made.root, [*SHARED, "build/shaping/flow/base"])
    ways, calls = invert.both_ways, []

    def killed(velocity, times, *rest):  # type: ignore[no-untyped-def]
        calls.append(len(times))
        if calls == [3, 3, 5]:
            raise KeyboardInterrupt
        return ways(velocity, times, *rest)

    monkeypatch.setattr(invert, "both_ways", killed)
    with pytest.raises(KeyboardInterrupt):
        invert.main(config, workspace)
    invert.main(config, workspace)
    assert calls == [3, 3, 5, 5, 5]  # five works in batches of four, in two steps and in four
    for k in Config.of(config).flow.steps:
        assert torch.equal(invert.load(workspace, k)["noise"], invert.load(made, k)["noise"])

    control = correct.control

    def ended(*arguments):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt

    monkeypatch.setattr(correct, "control", ended)
    with pytest.raises(KeyboardInterrupt):
        correct.main(config, workspace, "0")
    monkeypatch.setattr(correct, "control", control)
    capsys.readouterr()
    correct.main(config, workspace, "0")
    assert capsys.readouterr().out.count("executed here 0") == 2  # both correctors were finished, the control was not
    name = "4/unet/diffusion_pytorch_model.safetensors"
    assert (correct.trained(workspace, 0) / name).read_bytes() == (correct.trained(made, 0) / name).read_bytes()


# ------------------------------------------------------------------------------------------------ measures


def test_every_cell_is_measured_and_operations_grow_with_steps(
    made: Workspace, config: params.Params, measures: pd.DataFrame
) -> None:
    study = Config.of(config)
    assert set(measures["cell"]) == set(study.flow.cells)
    assert all(value(measures, "fd", cell) >= 0 for cell in study.flow.cells)
    assert all(0 <= value(measures, "near_features", cell) <= 1 for cell in study.flow.cells)
    parts = read_rows(made.measures / flow_measure.FLOPS).set_index("part")
    unets = parts.loc[["denoiser", "corrector"]]
    assert_close(unets["counted"].to_numpy(dtype=float), unets["by_hand"].to_numpy(dtype=float), relative=0.02)
    four, two = value(measures, "flops", "flow-4"), value(measures, "flops", "flow-2")
    assert four - two == 2 * parts.loc["denoiser", "counted"]
    assert value(measures, "flops", "flow-2-longer") == two
    calls = 2 * study.flow.corrector_steps * parts.loc["corrector", "counted"]
    assert value(measures, "flops", "flow-2-inc") - two == calls
    assert two < value(measures, "flops", "flow-2-inc") < four


def test_the_law_of_the_noise_and_its_round_trips_are_told_of_each_number_of_steps(
    made: Workspace, measures: pd.DataFrame
) -> None:
    for k in (2, 4):
        errors = invert.load(made, k)["round_trip_data"].double()
        assert value(measures, "round_trip_data", f"flow-{k}") == pytest.approx(float(errors.max()))  # 99 % of five
        for name in ("mean", "covariance", "length", "normal"):
            assert 0 <= value(measures, f"noise_p_{name}", f"flow-{k}") <= 1
        assert value(measures, "convergence", f"flow-{k}") < 1.2
        assert {f"flow-{k}", f"flow-{k}-inc"} == set(measures.loc[measures["measure"].eq("noise_distance"), "cell"]) & {
            f"flow-{k}",
            f"flow-{k}-inc",
        }
    assert len(read_rows(made.measures / flow_measure.NOISE_LAW)) == 2 * 4 * 8 * 8


def test_noise_that_is_a_training_works_is_a_near_copy(
    made: Workspace, config: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corrector that gave training works' noise, again and again, would be found by both measures of noise."""
    noise = invert.load(made, 2)["noise"]

    def copied(*arguments):  # type: ignore[no-untyped-def]
        return noise[[number % len(noise) for number in range(len(arguments[-1]))]]

    monkeypatch.setattr(flow_measure, "corrected_noise", copied)
    table = flow_measure.of_noise(config, made, flow_base.load(config, made), 2)
    assert value(table, "near_noise", "flow-2-inc") == 1
    assert value(table, "near_noise", "flow-2") < 0.5
    assert value(table, "noise_distance", "flow-2-inc") < 0.1 < value(table, "noise_distance", "flow-2")
