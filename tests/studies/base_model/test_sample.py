"""What the base is asked for: held-out pictures, and sheets that change one word at a time, from one latent."""

import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import params
from atelier.data import prepare
from atelier.data.annotations import EMOTIONS
from atelier.files import SEAL
from atelier.methods import signal_leak
from atelier.models import base
from atelier.params import CORRECTED, STARTS, Params
from atelier.sampling import starts, store
from atelier.sampling.sampler import Seed, first_latents, with_ddim
from atelier.studies.base_model import sample, sheets
from atelier.studies.base_model.params import Config
from atelier.studies.base_model.report_results import folder_of
from atelier.workspace import Workspace
from shades import paint_shades, shade


@pytest.fixture
def config(workspace: Workspace) -> Params:
    return params.load(workspace.params_file)


def manifest(rows: list[tuple[str, ...]]) -> pd.DataFrame:
    """Rows of art_style, artist, title, subject, emotion, split."""
    table = pd.DataFrame(rows, columns=["art_style", "artist", "title", "subject", "emotion", "split"])
    painting = table["artist"] + "_" + table["title"]
    return table.assign(painting=painting, path=table["art_style"] + "/" + painting + ".png")


PHOTOGRAPHS = manifest(
    [
        ("Photograph", "Box", "a cat", "cat", "", "train"),
        ("Photograph", "Box", "the cat", "cat", "", "test"),
        ("Photograph", "Box", "", "apples", "", "test"),
        ("Photograph", "Box", "two apples", "apples", "", "test"),
        ("Photograph", "Pocket", "a white cat", "cat", "", "test"),
    ]
)
WORKS = manifest(
    [
        ("Ukiyo_e", "", "a bird", "bird", "awe", "train"),
        ("Ukiyo_e", "Yuki", "a bird", "bird", "awe", "train"),
        ("Cubism", "Max", "a boat", "boat", "fear", "test"),
        ("Cubism", "Ida", "a boat", "boat", "fear", "train"),
        ("Naive", "", "a house", "house", "fear", "test"),
    ]
)


def test_the_sheet_of_subjects_has_the_first_held_out_title_of_each() -> None:
    found = sheets.steering(PHOTOGRAPHS, WORKS)["subjects"]
    assert list(found["wanted"]) == ["apples", "cat"]
    assert list(found["path"]) == ["Photograph/Box_two apples.png", "Photograph/Box_the cat.png"]
    assert [title in text for title, text in zip(["two apples", "the cat"], found["prompt"], strict=True)] == [True] * 2
    assert list(sheets.steering(PHOTOGRAPHS.iloc[:0], WORKS)["subjects"]["wanted"]) == ["boat", "house"]


def test_where_no_subject_is_known_the_first_titles_that_differ_are_asked_for() -> None:
    titles = [f"view {at // 2}" for at in range(40)]
    many = manifest([("Photograph", f"A{at}", title, "", "", "test") for at, title in enumerate(titles)])
    found = sheets.steering(many, WORKS)["subjects"]
    assert list(found["wanted"]) == [""] * sheets.TITLES
    assert all(f"view {at}" in text for at, text in enumerate(found["prompt"]))


def test_styles_and_emotions_change_one_thing_at_a_time() -> None:
    found = sheets.steering(PHOTOGRAPHS, WORKS)
    assert list(found["styles"]["prompt"]) == [
        "two apples, Cubism by Ida",
        "two apples, Naive",
        "two apples, Ukiyo-e by Yuki",
    ]
    assert list(found["styles"]["wanted"]) == ["Cubism", "Naive", "Ukiyo_e"]
    assert list(found["emotions"]["wanted"]) == list(EMOTIONS)
    assert found["emotions"]["prompt"].iloc[0] == "two apples, Cubism by Ida, evoking amusement"
    assert found["emotions"]["prompt"].iloc[-1].endswith(", evoking a feeling hard to name")
    for table in found.values():
        assert list(table.columns) == sheets.COLUMNS
        assert table["file"].is_unique


def test_without_a_held_out_title_styles_and_emotions_are_still_asked_for() -> None:
    found = sheets.steering(PHOTOGRAPHS.assign(split="train"), WORKS)
    assert len(found["subjects"]) == 0
    assert found["styles"]["prompt"].iloc[0] == "a picture, Cubism by Ida"


def test_the_base_paints_every_sheet_at_every_scale_from_one_latent(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, samples, manifests = Config.of(config), workspace.samples, workspace.manifests
    drawn: list[Seed] = []

    def noted(pipeline: StableDiffusionPipeline, seeds: list[Seed], size: int) -> Tensor:
        drawn.extend(seeds)
        return first_latents(pipeline, seeds, size)

    monkeypatch.setattr(sample, "first_latents", noted)
    calls = paint_shades(monkeypatch)
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update={"batch": 1000})})
    sample.main(config, workspace)
    assert {path.name for path in (samples / "base_model").iterdir()} - {SEAL} == {
        "photographs", "works", "subjects", "styles", "emotions",
    }  # fmt: skip
    for kind in ("photographs", "works"):
        pictures, listed = store.read([folder_of(samples, kind, settings.measured_at)])
        again = store.listed([folder_of(samples, kind, settings.measured_at, CORRECTED)])
        pd.testing.assert_frame_equal(again, listed)
        assert 0 < len(listed) <= settings.pictures
        assert set(listed["path"]) <= set(getattr(prepare, kind)(manifests).table["path"])
        assert pictures.load()[:, 0, 0, 0].tolist() == [shade(text) for text in listed["prompt"]]
    assert sorted(calls) == sorted({settings.measured_at, *settings.guidance})  # all kinds of a scale at once
    for sheet in sheets.ATTRIBUTES:
        tables = []
        for guidance in settings.guidance:
            pictures, listed = store.read([folder_of(samples, sheet, guidance)])
            assert pictures.load()[:, 0, 0, 0].tolist() == [shade(text) for text in listed["prompt"]]
            tables.append(listed)
        pd.testing.assert_frame_equal(*tables)
        begun = [seed for seed in drawn if seed[2] == sheet]
        assert len(begun) == sum(map(len, tables))
        assert len(set(begun)) == 1
    photographs = prepare.with_truth(prepare.photographs(manifests).table, manifests).query("split == 'test'")
    subjects = store.read([folder_of(samples, "subjects", 4.0)])[1]
    assert sorted(subjects["wanted"]) == sorted(set(photographs["subject"]))


def test_both_starts_have_the_same_prompts_and_noise_and_each_kind_its_own_leak(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = with_ddim(base.load(workspace.base))
    conditions = {each.folder: each for each in sample.held_out(config, workspace)}
    at = [store.guidance_folder(Config.of(config).measured_at, start) for start in STARTS]
    pairs = [[conditions.pop(f"{kind}/{folder}") for folder in at] for kind in ("works", "photographs")]
    assert not conditions
    drawn = []
    for white, corrected in pairs:
        pd.testing.assert_frame_equal(white.table, corrected.table)
        drawn.append([each.start(pipeline, each.table) for each in (white, corrected)])
        assert not torch.equal(*drawn[-1])
    monkeypatch.setattr(signal_leak, "add_leak", lambda leak, noise, scheduler, steps: noise)
    for (_, corrected), (noise, _) in zip(pairs, drawn, strict=True):
        assert torch.equal(corrected.start(pipeline, corrected.table), noise)


def test_a_kind_without_a_leak_is_painted_from_white_noise(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "fitted", lambda folder, kind: kind == "works")
    folders = [each.folder for each in sample.held_out(config, workspace)]
    assert folders == ["works/guidance-4", "works/guidance-4-corrected", "photographs/guidance-4"]
