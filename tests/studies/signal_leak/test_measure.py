"""Measures of light and colour are what they say, and every cell that a claim compares is measured."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from atelier import claims
from atelier import params as parameters
from atelier.evaluation.groups import group
from atelier.evaluation.intervals import pseudo_values, t_interval
from atelier.evaluation.judges import Judges
from atelier.methods.signal_leak import low_components
from atelier.metrics import frechet_distance, kernel_distance
from atelier.params import Params
from atelier.sampling import store
from atelier.seeds import torch_generator
from atelier.studies.signal_leak import measure, sample
from atelier.studies.signal_leak.params import Config
from atelier.workspace import Workspace
from tolerance import assert_close

PROFILES = Path(__file__).parents[3] / "profiles"


def test_what_claims_name_is_measured() -> None:
    """All of it in a study; of a short run, something of every claim."""
    study, short = (measure.cells(parameters.load(PROFILES / f"{name}.yaml")) for name in ("study", "embedded"))
    known = claims.load("signal_leak")
    assert known
    for name, claim in known.items():
        parts = [set(part.cells) for part in [*claim.every_part, *([claim.control] if claim.control else [])]]
        assert set().union(*parts) <= study, name
        assert any(cells <= short for cells in parts), name
    assert {cell for part in measure.null_comparisons() for cell in part.cells} <= study & short


def test_the_stages_paint_and_measure_all_of_it(trained: Params, workspace: Workspace) -> None:
    seeds = trained.protocol.training_seeds
    for model, seed in product((store.UNTUNED, *Config.of(trained).trained), seeds):
        sample.main(trained, workspace, model, str(seed))
    assert {sample.scale_of(trained, condition) for condition in sample.all_conditions(trained)} == {
        1.0,
        Config.of(trained).guidance,
    }
    for condition in sample.all_conditions(trained):
        cell = sample.location_of(trained, condition).folders(workspace.samples, seeds)
        pictures, listed = store.read(cell)
        n = len(trained.protocol.all_repeats) * 3
        assert len(pictures) == len(listed) == len(store.read_latents(cell)) == n
        wanted = [sample.prompts_of(trained, workspace.manifests, condition, seed) for seed in seeds]
        pd.testing.assert_frame_equal(listed, pd.concat(wanted, ignore_index=True), check_dtype=False)
    firsts = sample.first_steps(trained, workspace.samples)
    repeats = set(trained.protocol.all_repeats)
    assert firsts.groupby("model")["repeat"].agg(set).to_dict() == {"white": repeats, "sd-betas": repeats}
    measure.main(trained, workspace)
    table, spectrum = measure.load(workspace.measures), pd.read_csv(workspace.measures / measure.SPECTRUM)
    measured = set(zip(table["measure"], table["cell"], strict=True))
    for row in [
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
    ]:
        assert row in measured
    assert set(table["cell"]) <= measure.cells(trained)
    # styles of one held-out work are not measured here
    styles = Config.of(trained).styles
    few = {condition.name for condition in sample.all_conditions(trained) if condition.topic in styles}
    real = {f"{label}-{style}" for label in (measure.REAL, measure.RETURNED) for style in styles}
    assert measure.cells(trained) - set(table["cell"]) <= few | real
    assert len(spectrum) == 64 * 4
    assert spectrum.groupby(["u", "v"], sort=False)["whole"].mean().idxmax() == (0, 0)


def test_light_is_of_grey_and_of_colours() -> None:
    grey = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
    assert_close(measure.light(grey), [[0.2 * 3**0.5 / 3**0.5, 0.0, 0.0, 0.0]])
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0, :4] = 255
    light = measure.light(red)[0]
    assert light[0] == pytest.approx(0.5 / 3)
    assert light[1] == pytest.approx(0.5 / 3)
    assert light[2] == pytest.approx(0.5 / 2**0.5)
    assert light[3] == pytest.approx(0.5 / 6**0.5)


def test_spreads_are_log_ratios_of_variances() -> None:
    rng = np.random.default_rng(1)
    real = measure.Lit(rng.normal(size=(50, 4)), rng.normal(size=(50, 3)))
    narrow = measure.Lit(real.light * [0.5, 1.0, 2.0, 1.0], real.channels * 0.25)
    spreads = measure.spread_measures(real, narrow)
    assert spreads["luminance_spread"] == pytest.approx(-2 * np.log(2))
    assert spreads["luminance_ratio"] == pytest.approx(0.5)
    assert spreads["contrast_spread"] == pytest.approx(0.0, abs=1e-12)
    assert spreads["colour_spread"] == pytest.approx(np.log(2))
    assert spreads["channel_ratio"] == pytest.approx(0.25)
    assert spreads["channel_spread"] == pytest.approx(-4 * np.log(2))
    same = measure.spread_measures(real, real)
    assert [same[f"{name}_w1"] for name in ("luminance", "colour", "channel")] == [0] * 3
    moved = real._replace(channels=real.channels + 0.5 * real.channels.std(axis=0, ddof=1))
    assert measure.spread_measures(real, moved)["channel_w1"] == pytest.approx(0.5)


def test_derived_rows_are_sums_of_others() -> None:
    rows = [
        {"measure": name, "cell": cell, "n": n, "whole": value, "group0": value - 1, "group1": value + 1}
        for name, cell, n, value in [
            ("luminance", "bright", 4, 0.7), ("luminance", "dark", 3, 0.4), ("luminance_spread", "white", 4, -2.0)]
    ]  # fmt: skip
    derived = measure.derived_rows(pd.DataFrame(rows)).set_index(["measure", "cell"])
    assert list(derived.index) == [("luminance_spread", "white-mirrored"), ("light_gap", "bright-less-dark")]
    mirrored = derived.loc[("luminance_spread", "white-mirrored"), ["whole", "group0", "group1"]]
    assert mirrored.tolist() == [2.0, 3.0, 1.0]
    gap = derived.loc[("light_gap", "bright-less-dark")]
    assert gap["n"] == 3
    np.testing.assert_allclose(gap[["whole", "group0", "group1"]].astype(float), [0.3, 0.3, 0.3])


def test_intervals_of_a_spread_cover_it_where_it_is_none() -> None:
    """The absolute value's did not: its pseudo-values have a kink where pictures vary as much as real ones."""
    rng, covered = np.random.default_rng(2), []
    real = measure.Lit(rng.normal(size=(2000, 4)), rng.normal(size=(2000, 2)))
    truth = float(np.log(1 / real.light[:, 0].var(ddof=1)))
    for _ in range(300):
        parts = [measure.Lit(rng.normal(size=(40, 4)), rng.normal(size=(40, 2))) for _ in range(5)]

        def spread(groups: list[int], parts: list[measure.Lit] = parts) -> float:
            pooled = measure.together([parts[number] for number in groups])
            return measure.spread_measures(real, pooled)["luminance_spread"]

        interval = t_interval(pseudo_values(spread, 5).tolist())
        covered.append(interval.low <= truth <= interval.high)
    assert 0.91 <= np.mean(covered) <= 0.985


def test_backgrounds_are_the_outer_eighth() -> None:
    pictures = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pictures[:, :, 8:-8, 8:-8] = 255
    assert_close(measure.border_colour(group(pictures, Judges())), np.zeros(3))
    pictures[:, 0, :8] = 255
    red = 8 * 64 / (64 * 64 - 48 * 48)
    # pixels are kept as float32, whose mean is rounded differently on different processors
    assert_close(measure.border_colour(group(pictures, Judges())), [red, 0.0, 0.0], relative=0, absolute=1e-6)


def test_few_held_out_works_mislead_a_frechet_distance_and_no_kernel_distance() -> None:
    """Why style is decided by a kernel distance: pictures of the true law against ones that vary too little."""
    rng, gains = np.random.default_rng(1), {frechet_distance: [], kernel_distance: []}
    for _ in range(60):
        works, true = rng.normal(size=(25, 51)), rng.normal(size=(200, 51))
        narrow = 0.8 * rng.normal(size=(200, 51))
        for distance, differences in gains.items():
            differences.append(distance(works, narrow) - distance(works, true))
    assert max(gains[frechet_distance]) < 0
    kernel = np.array(gains[kernel_distance])
    assert kernel.mean() > 3 * kernel.std(ddof=1) / len(kernel) ** 0.5


def test_slopes_are_within_channels() -> None:
    rows = [{"channel": c, "x": x, "y": 3.0 * c + (c + 1) * x} for c in range(3) for x in (-1.0, 0.5, 2.0)]
    np.testing.assert_allclose(measure.slopes(pd.DataFrame(rows), "x", "y"), [1.0, 2.0, 3.0])


def test_white_latents_have_a_flat_spectrum(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = torch.randn(400, 4, 8, 8, generator=torch_generator(1))
    monkeypatch.setattr(measure, "encoded", lambda *_: z.split(70))
    spectrum = measure.spectrum(params, workspace)
    assert list(spectrum.columns[:5]) == ["u", "v", "channel", "n", "whole"]
    assert float((spectrum["whole"] - 1).abs().max()) < 5 * (2 / 400) ** 0.5
    assert set(spectrum["n"]) == {400}
    row = spectrum.query("u == 2 and v == 5 and channel == 3")
    squares = np.square(low_components(z.double().numpy(), [(2, 5)])[:, 0, 3])
    assert row["whole"].item() == pytest.approx(squares.mean())
    groups = len(params.protocol.groups)
    for number in range(groups):
        assert row[f"group{number}"].item() == pytest.approx(squares[number::groups].mean())
