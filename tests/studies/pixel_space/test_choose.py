"""What works and pairs are chosen by, and what the stage leaves for all that follows."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.painter import STYLES, paint_work, subject_mask
from atelier.evaluation.groups import group
from atelier.evaluation.judges import Judges
from atelier.models import base, defect_judge, trunk
from atelier.models.latents import decode, encode_pictures, encode_prompts
from atelier.sampling.sampler import first_latents, sample, with_ddim
from atelier.studies.pixel_space import choose, judges, pictures
from atelier.studies.pixel_space.params import Config
from atelier.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def config(workspace: Workspace) -> params.Params:
    return params.load(workspace.params_file)


def changed(workspace: Workspace, **other: object) -> params.Params:
    section = params.read(workspace.params_file)["pixel_space"]
    return params.with_sections({"pixel_space": section | other}, workspace.params_file)


# ------------------------------------------------------------------------------------------------ the order


def test_fewer_defects_come_first_and_fit_decides_what_the_judge_cannot_tell_apart() -> None:
    defects, fit = np.array([0.34, 0.31, 0.05, 0.71]), np.array([1.0, 2.0, -5.0, 9.0])
    assert choose.order(defects, fit, 0.1) == [2, 1, 0, 3]
    assert choose.order(defects, fit, 0.01) == [2, 1, 0, 3]
    assert choose.order(np.array([0.34, 0.31]), np.array([2.0, 1.0]), 0.1) == [0, 1]
    assert choose.order(np.array([0.34, 0.31]), np.array([2.0, 1.0]), 0.01) == [1, 0]
    assert choose.order(np.array([0.34, 0.31]), np.array([2.0, 1.0]), 0.0) == [1, 0]  # a judge without any doubt


def test_the_best_are_kept_in_their_order_with_both_scores() -> None:
    table = pd.DataFrame({"path": list("abcde")})
    defects, fit = np.array([0.9, 0.1, 0.5, 0.12, 0.11]), np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    kept = choose.curated(table, defects, fit, 0.1, 3)
    assert list(kept["path"]) == ["b", "d", "e"]
    assert list(kept.index) == [1, 3, 4]
    assert list(kept["defects"]) == [0.1, 0.12, 0.11]
    assert list(kept["fit"]) == [1.0, 3.0, 4.0]
    assert list(choose.curated(table, defects, fit, 0.1, 2)["path"]) == ["d", "e"]
    assert len(choose.curated(table, defects, fit, 0.1, 50)) == 5


def test_a_pair_is_the_best_and_the_worst_of_one_prompts_pictures() -> None:
    defects = np.array([0.5, 0.1, 0.9, 0.2, 0.2, 0.2])
    fit = np.array([0.0, 0.0, 0.0, 3.0, 1.0, 2.0])
    assert choose.pairs_of(defects, fit, 0.01, 3) == ([1, 3], [2, 4])
    assert choose.pairs_of(defects, fit, 0.01, 2) == ([1, 3, 5], [0, 2, 4])


class Sides(torch.nn.Module):
    """A judge that sees the left half brighter than the right one."""

    def score(self, shown: Tensor) -> Tensor:
        half = shown.shape[-1] // 2
        return (shown[..., :half].mean((1, 2, 3)) - shown[..., half:].mean((1, 2, 3))).float()


def test_a_judges_resolution_is_what_mirroring_changes_of_most_pictures() -> None:
    shown = torch.zeros(101, 3, 4, 4, dtype=torch.uint8)
    shown[..., :2] = torch.arange(101, dtype=torch.uint8).view(-1, 1, 1, 1)
    judge: object = Sides()
    assert choose.resolution(judge, shown) == pytest.approx(2 * 95 / 255)  # type: ignore[arg-type]


def test_the_discriminant_is_fishers() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(300, 3, generator=generator, dtype=torch.float64) @ torch.diag(
        torch.tensor([1.0, 5.0, 1.0]).double()
    )
    outside = torch.randn(200, 3, generator=generator, dtype=torch.float64) @ torch.diag(
        torch.tensor([1.0, 5.0, 1.0]).double()
    )
    inside[:, 0] += 2
    odds = choose.discriminant(inside, outside)
    between = (inside.mean(0) + outside.mean(0)) / 2
    assert odds(between[None])[0] == pytest.approx(0, abs=1e-12)
    found = odds(between + torch.eye(3, dtype=torch.float64))
    assert abs(found[1]) < 0.1 * found[0]  # what varies much within tells little
    centred = torch.cat([inside - inside.mean(0), outside - outside.mean(0)]).numpy()
    covariance = centred.T @ centred / 500
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 3 * np.eye(3)
    expected = np.linalg.solve(shrunk, (inside.mean(0) - outside.mean(0)).numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_features_tell_a_style_from_another_in_pictures_that_it_was_not_fitted_to() -> None:
    """By a network with random weights."""
    network = trunk.build(3)
    names = ("Expressionism", "Woodcut")
    styles = {style: torch.stack([painted(style, index) for index in range(44)]) for style in names}
    seen = {style: choose.features(network, made) for style, made in styles.items()}
    assert seen["Woodcut"].shape == (44, 2 * sum(network.channels))
    odds = choose.discriminant(*(rows[:32] for rows in seen.values()))
    inside, outside = (odds(rows[32:]) for rows in seen.values())
    assert (inside[:, None] > outside[None]).mean() > 0.8


def test_fit_is_told_from_the_datas_training_works_alone(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = prepare.pictures

    def watched(table: pd.DataFrame, *others: object) -> Tensor:
        read.extend(table["path"])
        return real(table, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "pictures", watched)
    choose.style_fit(config, workspace, "Expressionism")
    table = prepare.works(workspace.manifests).table
    assert sorted(read) == sorted(table.loc[table["split"] == "train", "path"])


def painted(style: str, index: int) -> Tensor:
    return torch.from_numpy(paint_work(99, index, 64, style=style).picture).permute(2, 0, 1)


def test_where_all_works_are_of_one_style_they_fit_alike(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = prepare.works(workspace.manifests)
    alone = dataclasses.replace(works, table=works.table.assign(art_style="Mine"))
    monkeypatch.setattr(prepare, "works", lambda manifests: alone)
    fit = choose.style_fit(config, workspace, "Mine")
    assert list(fit(torch.zeros(3, 3, 64, 64, dtype=torch.uint8))) == [0.0, 0.0, 0.0]


# ------------------------------------------------------------------------------------------------ what is left


def test_works_are_new_ones_of_the_style_and_the_judge_chose_them(config: params.Params, workspace: Workspace) -> None:
    kept, held_out = (pictures.split(workspace, name) for name in (pictures.TRAINING, pictures.HELD_OUT))
    assert (len(kept), len(held_out)) == (8, 10)
    assert pictures.card(workspace) == {"kind": pictures.PAINTED, "style": "Expressionism"}
    for table in (kept, held_out):
        assert set(table["art_style"]) == {"Expressionism"}
        assert set(table["painting"].str.partition("_")[0]) <= set(STYLES["Expressionism"])
    seeds = {*kept["seed"], *held_out["seed"]}
    assert len(seeds) == 2
    assert 3 not in seeds  # the world's own
    table, pool = choose.works(config, workspace, pictures.TRAINING)
    judge = judges.load(config, workspace, judges.CHOOSING)
    scores, fit = choose.score(judge, pool), choose.style_fit(config, workspace, "Expressionism")(pool)
    best = sorted(choose.order(scores, fit, choose.resolution(judge, pool))[:8])
    assert list(kept["path"]) == list(table["path"][best])
    np.testing.assert_allclose(kept["defects"], scores[best], rtol=1e-6)
    np.testing.assert_allclose(kept["fit"], fit[best], rtol=1e-6)
    assert torch.equal(pictures.pictures(config, workspace, kept).load(), pool[best])
    assert judge.kind == "plain" != judges.load(config, workspace, judges.MEASURING).kind


def test_the_cache_is_of_the_curated_works_and_their_prompts(config: params.Params, workspace: Workspace) -> None:
    works = pictures.training(config, workspace)
    cache = pictures.works_cache(workspace, works.key)
    assert cache.latents.mean.shape == (8, 4, 8, 8)
    pipeline = base.load(workspace.base)
    expected = encode_prompts(pipeline, works.prompts[3])
    torch.testing.assert_close(cache.words[cache.which[3].tolist()], expected, rtol=0, atol=1e-6)
    assert all("expressionis" in text.lower() for row in works.prompts for text in row)


def test_pairs_are_the_bases_pictures_in_the_judges_order(config: params.Params, workspace: Workspace) -> None:
    pairs = pictures.pairs(workspace)
    listed = pd.read_csv(pictures.folder(workspace) / pictures.LISTED)
    assert pairs.winner.shape == pairs.loser.shape == (6, 4, 8, 8)
    assert list(listed) == ["prompt", *pictures.SCORES]
    assert not (pairs.winner == pairs.loser).flatten(1).all(1).any()
    judge, pipeline = judges.load(config, workspace, judges.CHOOSING), with_ddim(base.load(workspace.base))
    shown = [decode(pipeline.vae, latents) for latents in (pairs.winner, pairs.loser)]
    for which, made in zip(("winner", "loser"), shown, strict=True):
        scores = judge.score(((made + 1) / 2).clamp(0, 1)).numpy()
        np.testing.assert_allclose(listed[f"{which}_defects"], scores, atol=2e-3)  # of rounded pictures
    torch.testing.assert_close(pairs.embeddings, encode_prompts(pipeline, list(listed["prompt"])), rtol=0, atol=1e-6)
    # the second prompt's pictures, painted alone
    seeds = [(config.seed, "pixel_space", "candidate", number) for number in (2, 3)]
    noise = first_latents(pipeline, seeds, 64)
    made = sample(pipeline, [listed["prompt"][1]] * 2, noise, guidance=4.0, steps=2, batch=4).latents
    both = torch.stack([pairs.winner[1], pairs.loser[1]])
    gaps = (both[:, None] - made[None]).abs().amax((2, 3, 4))
    assert sorted(gaps.argmin(1).tolist()) == [0, 1]
    assert float(gaps.amin(1).max()) < 1e-4


def test_what_is_measured_against_is_held_out(config: params.Params, workspace: Workspace) -> None:
    held_out = pictures.split(workspace, pictures.HELD_OUT)
    shown = pictures.pictures(config, workspace, held_out)
    found = choose.reference(workspace)
    expected = group(shown, Judges())
    assert (found.held_out.n, found.training.n) == (10, 8)  # copies would be of the works that were learnt
    np.testing.assert_allclose(found.held_out.spectrum, expected.spectrum, rtol=1e-6)
    vae = base.load(workspace.base).vae
    returned = to_pixels(decode(vae, encode_pictures(vae, shown).mean))  # kernels of another layout round otherwise
    torch.testing.assert_close(choose.reconstructed(workspace).load(), returned, atol=1, rtol=0)
    for seed in (0, 1):
        rows = pictures.held_out_prompts(config, workspace, 3, seed)
        assert list(rows) == ["prompt", "path", "repeat", "place", "file"]
        assert list(rows["repeat"]) == [2 * seed] * 3 + [2 * seed + 1] * 3
        assert list(rows["place"]) == [0, 1, 2] * 2
        assert set(rows["path"]) <= set(held_out["path"])
    assert set(choose.truth(workspace).loc[rows["path"], "art_style"]) == {"Expressionism"}


def test_a_mask_is_where_the_painters_subject_is(config: params.Params, workspace: Workspace) -> None:
    held_out = pictures.split(workspace, pictures.HELD_OUT)
    found = pictures.masks(config, held_out)
    assert found is not None
    assert found.shape == (10, 64, 64)
    assert all(0.01 < float(mask.float().mean()) < 0.9 for mask in found)
    assert pictures.masks(config, held_out.drop(columns=["seed", "index"])) is None


def test_another_subject_changes_the_picture_within_both_masks_or_nowhere_near() -> None:
    """The mask knows the subject, not the style: two artists' pictures of one scene have one mask."""
    one, other = subject_mask(5, 1, 64), subject_mask(5, 2, 64)
    assert (one != other).any()
    small = subject_mask(5, 1, 32)
    assert abs(float(small.mean()) - float(one.mean())) < 0.05
    # where the subject is, colours differ from its surroundings
    flat = paint_work(5, 1, 64, style="Flat_Poster").picture.astype(float)
    inside, outside = flat[one].mean(0), flat[~one].mean(0)
    assert np.abs(inside - outside).max() > 10


def test_without_painted_works_the_datas_own_are_taken_in_their_splits(workspace: Workspace, tmp_path: Path) -> None:
    own = changed(workspace, style=None, curated={"painted": 0, "kept": 2, "held_out": 0})
    table = prepare.works(workspace.manifests).table
    for name, split in pictures.SPLITS.items():
        works = table[table["split"] == split]
        assert list(pictures.of_style(own, workspace, name)["path"]) == list(works["path"])
    works = table[table["split"] == "train"]
    style = works["art_style"].value_counts().idxmax()
    named = changed(workspace, style=style, curated={"painted": 0, "kept": 2, "held_out": 0})
    found = pictures.of_style(named, workspace, pictures.TRAINING)
    assert list(found["path"]) == list(works.loc[works["art_style"] == style, "path"])
    assert pictures.pictures(named, workspace, found).load().shape == (len(found), 3, 64, 64)


def test_works_fewer_than_groups_of_repeats_are_refused_before_anything_is_made_of_them(workspace: Workspace) -> None:
    """Of so few, a group that works are shared over would be empty."""
    own = changed(workspace, style=None, curated={"painted": 0, "kept": 2, "held_out": 0})
    many = own.model_copy(update={"protocol": own.protocol.model_copy(update={"training_seeds": list(range(5000))})})
    n = (prepare.works(workspace.manifests).table["split"] == "test").sum()
    with pytest.raises(ValueError, match=f"^pixel_space.style: {n} works are in the split 'test', at least 5000 are"):
        pictures.of_style(many, workspace, pictures.HELD_OUT)


def test_a_style_that_the_painter_or_the_data_has_not_is_refused(workspace: Workspace) -> None:
    wrong = changed(workspace, style="Baroque")
    with pytest.raises(ValueError, match=r"^pixel_space\.style: the painter has no style 'Baroque', it has Impress"):
        pictures.painted(wrong, pictures.TRAINING)
    missing = changed(workspace, style="Baroque", curated={"painted": 0, "kept": 2, "held_out": 0})
    with pytest.raises(ValueError, match=r"^pixel_space\.style: 0 works of 'Baroque' are in the split 'train', "):
        pictures.of_style(missing, workspace, pictures.TRAINING)


def test_a_folder_without_judges_is_refused(workspace: Workspace) -> None:
    nowhere = changed(workspace, judges="data/nowhere")
    with pytest.raises(ValueError, match="data/nowhere/choosing"):
        judges.load(nowhere, workspace, judges.CHOOSING)


def test_the_measuring_judge_and_the_evaluator_choose_nothing(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice made with another judge of the other role is the same."""
    asked: list[str] = []
    real = defect_judge.load

    def watched(folder: Path) -> defect_judge.DefectJudge:
        asked.append(folder.name)
        return real(folder)

    monkeypatch.setattr(defect_judge, "load", watched)
    judges.load(config, workspace, judges.CHOOSING)
    assert asked == ["choosing"]
    assert Config.of(config).judges == "data/defects"
