"""Measures of groups of pictures: pooled as if they had been one set, and a pseudo-value each; copies are seen."""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.data.pictures import write_shards
from atelier.evaluation import cells, sharing, tables
from atelier.evaluation import groups as sets
from atelier.evaluation import reference as references
from atelier.evaluation.groups import Group, Reference
from atelier.evaluation.judges import Judges
from atelier.files import write_seal
from atelier.metrics import frechet_distance, haar_statistics, mean_power_spectrum, spectrum_slope
from atelier.studies.art_finetuning import measure as art_finetuning
from atelier.studies.art_finetuning import sample as art_finetuning_sample
from atelier.workspace import Workspace


def pictures(n: int, seed: int) -> Tensor:
    """Coarse blobs, so that sets have a slope and differ from each other."""
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic", antialias=True)
    noise = torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed + 1000))
    return ((0.8 * fine + 0.2 * noise).clamp(0, 1) * 255).to(torch.uint8)


def decoded(n: int, seed: int) -> Tensor:
    """The same pictures with a fingerprint that all of them have, as a decoder leaves one."""
    rows = torch.arange(64) % 2 * 24
    return (pictures(n, seed).int() + rows).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return [sets.group(pictures(8, seed), Judges()) for seed in range(3)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    held_out, training = (sets.group(pictures(30, seed), Judges()) for seed in (50, 51))
    returned = sets.reconstructed_of(sets.group(decoded(30, 50), Judges()))
    near = {"features": 1.0, "small": 0.5}
    return sets.reference_alone(held_out)._replace(training=training, near=near, reconstructed=returned)


def test_pooled_groups_are_what_their_pictures_together_are(groups: list[Group]) -> None:
    one = sets.group(torch.cat([pictures(8, seed) for seed in range(3)]), Judges())
    together = sets.pooled(groups)
    assert together.n == one.n == 24
    for name in sets.ARRAYS:
        np.testing.assert_allclose(getattr(together, name), getattr(one, name), rtol=1e-9, atol=1e-12)
    assert together.bands is not None
    assert one.bands is not None
    for ours, theirs in zip(together.bands, one.bands, strict=True):  # 24 rows of factors and two of means, or 24 rows
        squared = [x.swapaxes(1, 2) @ x if np.ndim(x) == 3 else x for x in (ours, theirs)]
        np.testing.assert_allclose(*squared, rtol=1e-9, atol=1e-9)


def test_a_group_is_the_same_however_many_pictures_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, prompts = pictures(24, 3), [f"number {number}" for number in range(24)]
    whole = sets.group(shown, Judges(), prompts)
    monkeypatch.setattr(sets, "AT_A_TIME", 5)
    parts = sets.group(shown, Judges(), prompts)
    for name in sets.ARRAYS:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9, atol=1e-12)
    real = sets.reference_alone(sets.group(pictures(30, 50), Judges()))
    assert sets.MEASURES["fwd"](real, parts) == pytest.approx(sets.MEASURES["fwd"](real, whole), rel=1e-9)


def test_no_pictures_are_no_group() -> None:
    with pytest.raises(ValueError, match="expected a non-empty"):
        sets.group(torch.zeros(0, 3, 32, 32, dtype=torch.uint8), Judges())


@pytest.mark.parametrize(("n", "each", "groups"), [(12, 3, 4), (15, 3, 4), (10, 3, 4), (4, 9, 4), (100, 2, 3)])
def test_works_are_shared_over_groups_of_one_size_and_none_twice(n: int, each: int, groups: int) -> None:
    rows = sharing.rows_of_groups(n, each, groups)
    assert [len(part) for part in rows] == [min(each, n // groups)] * groups
    chosen = sorted(chain.from_iterable(rows))
    assert len(set(chosen)) == len(chosen)
    assert chosen[0] == 0
    assert chosen[-1] >= n - -(-n // len(chosen))  # from the whole table, not from its beginning


def test_works_fewer_than_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^works: expected at least one for each of 4 groups of repeats, got 3$"):
        sharing.rows_of_groups(3, 1, 4)


def test_measures_are_the_metrics_of_the_same_pictures(groups: list[Group], reference: Reference) -> None:
    found = sets.all_measures(reference, sets.pooled(groups))
    real, made = pictures(30, 50) / 255, torch.cat([pictures(8, seed) for seed in range(3)]) / 255
    assert found["fd"] == pytest.approx(frechet_distance(haar_statistics(real), haar_statistics(made)))
    assert found["fd"] == found["fd_haar"]  # without an evaluator
    slopes = [spectrum_slope(mean_power_spectrum(x), 2) for x in (real, made)]
    assert found["psd"] == pytest.approx(abs(slopes[0] - slopes[1]), rel=1e-6)
    assert set(found) == {*sets.MEASURES, *sets.AGAINST_RECONSTRUCTED, *sets.NEIGHBOURHOODS}


def test_pictures_that_lie_channels_last_are_kept_as_they_are(tmp_path: Path) -> None:
    shown = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8).to(memory_format=torch.channels_last)
    write_shards([shown], tmp_path, references.HELD_OUT)
    write_seal(tmp_path)
    assert torch.equal(references.reconstructed_works(tmp_path).load(), shown)


def test_reconstructed_works_are_at_no_distance_from_themselves(reference: Reference) -> None:
    """A fingerprint that both sides have is no difference between them; against the works themselves it is one."""
    found = sets.all_measures(reference, sets.group(decoded(30, 50), Judges()))
    assert found["fd_rec"] == pytest.approx(0, abs=1e-6)
    assert found["pr_rec"] == found["psd_rec"] == 0
    assert min(found["fd"], found["pr"], found["psd"]) > 0.01
    others, plain = (sets.all_measures(reference, sets.group(of(30, 7), Judges())) for of in (decoded, pictures))
    assert others["pr_rec"] < plain["pr_rec"]  # what is decoded is nearer to what is decoded
    assert plain["pr"] < others["pr"]


def test_measures_against_reconstructed_works_are_those_against_other_works(
    groups: list[Group], reference: Reference
) -> None:
    made, returned = sets.pooled(groups), sets.group(decoded(30, 50), Judges())
    found = sets.all_measures(reference, made)
    against = sets.all_measures(sets.reference_alone(returned)._replace(near=reference.near), made)
    for name in ("fd", "pr", "psd"):
        assert found[f"{name}_rec"] == pytest.approx(against[name], rel=1e-9)
    assert not set(sets.AGAINST_RECONSTRUCTED) & set(against)  # where nothing was reconstructed, nothing is measured


def test_a_table_holds_the_whole_and_a_pseudo_value_a_group(groups: list[Group], reference: Reference) -> None:
    table = sets.measured(reference, groups).set_index("measure")
    whole = sets.all_measures(reference, sets.pooled(groups))
    without = [sets.all_measures(reference, sets.pooled([*groups[:at], *groups[at + 1 :]])) for at in range(3)]
    assert (table["n"] == 24).all()
    for name, value in whole.items():
        expected = [3 * value - 2 * each[name] for each in without]
        np.testing.assert_allclose(table.loc[name, ["group0", "group1", "group2"]].to_numpy(float), expected)


def test_copies_of_training_works_are_seen_and_other_pictures_are_not(reference: Reference) -> None:
    shifted = sets.group(pictures(30, 51), Judges())  # the training works themselves
    for space in ("features", "small"):
        assert sets.near_copies(reference._replace(near={space: 1e-6}), shifted, space) == 1.0
        assert sets.near_copies(reference._replace(near={space: 1e-6}), reference.held_out, space) == 0.0


def test_the_parts_of_a_frechet_distance_add_up(groups: list[Group], reference: Reference) -> None:
    found = sets.all_measures(reference, groups[0])
    assert found["fd_mean"] + found["fd_spread"] == pytest.approx(found["fd"])
    shifted = reference.held_out._replace(features=reference.held_out.features + 2.0)
    moved = sets.all_measures(reference, shifted)
    assert moved["fd_mean"] == pytest.approx(4.0 * shifted.features.shape[1])
    assert moved["fd_spread"] == pytest.approx(0.0, abs=1e-6)


def test_a_cell_that_an_earlier_process_has_measured_is_read_and_not_measured_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = params.load(workspace.params_file)
    for seed in config.protocol.training_seeds:
        art_finetuning_sample.main(config, workspace, "untuned", str(seed))
    located, reference = art_finetuning.cells(config, "untuned"), references.load(workspace.reference)
    first = cells.measure_cells(config, workspace, reference, located, tmp_path / "run")
    assert [part["cell"].unique().tolist() for part in first] == [[name] for name in located]
    monkeypatch.setattr(cells, "cell_rows", lambda *given: pytest.fail("measured again"))
    second = cells.measure_cells(config, workspace, reference, located, tmp_path / "run")
    for one, again in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, again, check_exact=True)


def test_a_reference_comes_back_to_the_last_bit(reference: Reference) -> None:
    """Measures against what the stage left are those against the works themselves."""
    again = references.from_arrays(references.arrays(reference))
    made = sets.group(pictures(8, 1), Judges())
    assert sets.all_measures(again, made) == sets.all_measures(reference, made)
    assert again.near == reference.near


TABLE = pd.DataFrame(
    [
        ("fd", 6, 2.0, 1.0, 3.0, "untuned@1/4"),
        ("fd", 6, 4.0, 3.0, 6.0, "untuned@1/16"),
        ("fd", 6, 1.0, 0.0, 1.0, "training works"),
    ],
    columns=["measure", "n", "whole", "group0", "group1", "cell"],
)


def test_values_are_what_verdicts_read() -> None:
    found = tables.values(TABLE)
    np.testing.assert_array_equal(found["fd", "untuned@1/16"], [3.0, 6.0])
    assert list(found) == [("fd", "untuned@1/4"), ("fd", "untuned@1/16"), ("fd", "training works")]


def test_shares_change_by_a_picture_and_other_numbers_by_nothing_known() -> None:
    shares = TABLE.assign(measure="precision")
    shares.loc[2, "n"] = 0  # a number to compare with
    half_lives = TABLE.assign(measure="log_half_life")
    found = tables.resolutions(pd.concat([TABLE, shares, half_lives], ignore_index=True))
    expected = {("precision", "untuned@1/4"): 2 / 6, ("precision", "untuned@1/16"): 2 / 6}
    assert found == expected | {("log_half_life", cell): 1.0 for cell in TABLE["cell"]}


def test_intervals_name_model_level_and_guidance() -> None:
    rows = tables.intervals(TABLE)
    assert list(rows["model"][:2]) == ["untuned", "untuned"]
    assert list(rows["guidance"][:2]) == [4.0, 16.0]
    assert rows["guidance"].isna()[2]
    assert list(rows["value"]) == [2.0, 4.5, 0.5]
    wide = tables.wide(rows[:2], ["fd"])
    assert list(wide.columns) == ["model", "guidance", "fd", "fd_low", "fd_high"]
    assert (wide["fd_low"] < wide["fd"]).all()


def test_rank_correlation_is_of_the_whole_with_guidance() -> None:
    fewer = pd.DataFrame(
        [("fd", 6, 9.0, 9.0, 9.0, "untuned@1/4/corrected"), ("fd", 6, 8.0, 8.0, 8.0, "untuned@1/16/corrected")],
        columns=TABLE.columns,
    )
    found = tables.rank_correlations(pd.concat([TABLE, fewer], ignore_index=True), "fd")
    assert found.loc[("untuned", 1.0, "white")] == pytest.approx(1.0)
    assert found.loc[("untuned", 1.0, "corrected")] == pytest.approx(-1.0)  # of its own cells alone


def test_pictures_that_are_no_square_rgb_bytes_are_refused() -> None:
    bytes_of = pictures(4, 1)
    for wrong, said in (
        (bytes_of / 255, "expected uint8"),
        (bytes_of[..., :32], "expected square ones, h = w, got 64x32"),
        (bytes_of.movedim(1, -1), "3 channels, got 64"),
        (bytes_of[..., :8, :8], "sides of at least 16 px, got 8x8"),
    ):
        with pytest.raises(ValueError, match=f"pictures: .*{said}"):
            sets.group(wrong, Judges())
