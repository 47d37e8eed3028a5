"""Photographs for post-training: unlike those that measures compare with, or that anything else uses."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from atelier import params
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.evaluation.groups import group
from atelier.evaluation.judges import Judges
from atelier.files import SEAL, write_json
from atelier.models import base
from atelier.models.latents import decode, encode_pictures, encode_prompts
from atelier.studies.latent_perceptual import corpus
from atelier.studies.latent_perceptual.params import PostTraining
from atelier.studies.latent_perceptual.pictures import (
    HELD_OUT,
    TRAINING,
    Sources,
    folder,
    kind_of,
    main_sources,
    sources,
)
from atelier.training.base import corpus as base_corpus
from atelier.workspace import Workspace


@pytest.fixture
def config(workspace: Workspace) -> params.Params:
    return params.load(workspace.params_file)


def digests(pictures: torch.Tensor) -> set[str]:
    return {hashlib.sha256(picture.numpy().tobytes()).hexdigest() for picture in pictures}


def test_no_picture_is_in_two_sets(config: params.Params, workspace: Workspace) -> None:
    """Training, held out, the base's and the data's."""
    source = main_sources(config, workspace)
    sets = [source.pictures(source.split(split)).load() for split in (TRAINING, HELD_OUT)]
    sets.append(base_corpus(config, workspace).pictures)
    table = prepare.photographs(workspace.manifests).table
    sets.append(prepare.pictures(table, config.data, workspace, prepare.PHOTOGRAPHS).load())
    known = [digests(pictures) for pictures in sets]
    assert [len(each) for each in known] == [len(pictures) for pictures in sets]  # none twice in one
    assert len(set.union(*known)) == sum(map(len, known))


def test_pictures_are_painted_again_as_they_were(config: params.Params, workspace: Workspace) -> None:
    source = main_sources(config, workspace)
    for split in (TRAINING, HELD_OUT):
        table, pictures = corpus.painted(config, split)
        some = source.split(split).iloc[[3, 1]]
        assert torch.equal(source.pictures(some).load(), pictures[[3, 1]])
        assert list(some["sha256"]) == [
            hashlib.sha256(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()).tobytes()).hexdigest()
            for picture in pictures[[3, 1]]
        ]
        assert len(table) == len(pictures) == {TRAINING: 12, HELD_OUT: 10}[split]


def test_the_cache_is_of_the_training_photographs_and_their_prompts(
    config: params.Params, workspace: Workspace
) -> None:
    source, pipeline = main_sources(config, workspace), base.load(workspace.base)
    works = source.training()
    cache = source.cache(works.key)
    expected = encode_pictures(pipeline.vae, source.pictures(works.table))
    torch.testing.assert_close(cache.latents.mean, expected.mean)
    words = encode_prompts(pipeline, [texts[1] for texts in works.prompts])
    torch.testing.assert_close(cache.words[cache.which[:, 1].tolist()], words)
    assert all(
        title.lower() in texts[0].lower() for title, texts in zip(works.table["title"], works.prompts, strict=True)
    )
    with pytest.raises(ValueError, match="stale cache, made from other pictures"):
        source.cache({**works.key, "pictures": "others"})


def test_the_reference_is_of_the_held_out_photographs(config: params.Params, workspace: Workspace) -> None:
    source, vae = main_sources(config, workspace), base.load(workspace.base).vae
    held_out = source.pictures(source.split(HELD_OUT))
    np.testing.assert_allclose(corpus.reference(source).held_out.haar, group(held_out, Judges()).haar, rtol=1e-6)
    training = group(source.pictures(source.split(TRAINING)), Judges())
    np.testing.assert_allclose(corpus.reference(source).training.haar, training.haar, rtol=1e-6)
    assert torch.equal(corpus.reconstructed(source).load(), to_pixels(decode(vae, encode_pictures(vae, held_out).mean)))


def test_every_repeat_asks_for_held_out_photographs(config: params.Params, workspace: Workspace) -> None:
    """In one order that wraps around, so that each is asked for equally often, and then in other words."""
    source = main_sources(config, workspace)
    parts = [source.prompts(5, seed) for seed in config.protocol.training_seeds]
    assert [sorted(set(part["repeat"])) for part in parts] == [[0, 1], [2, 3]]
    table, truth = pd.concat(parts, ignore_index=True), corpus.truth(source)
    assert list(table["repeat"]) == [repeat for repeat in range(4) for _ in range(5)]
    assert set(table["path"][:10]) == set(table["path"][10:]) == set(source.split(HELD_OUT)["path"])
    assert list(table["path"][:10]) == list(table["path"][10:])
    assert list(table["prompt"][:10]) != list(table["prompt"][10:])
    assert set(truth.loc[table["path"], "art_style"]) == {"Photograph"}
    alone = config.model_copy(update={"protocol": config.protocol.model_copy(update={"training_seeds": [1]})})
    pd.testing.assert_frame_equal(main_sources(alone, workspace).prompts(5, 1), parts[1])


def test_works_are_the_works_that_all_studies_share(config: params.Params, workspace: Workspace) -> None:
    works = sources(config, workspace, PostTraining(loss="plain", of="works"))
    assert works.kind == "works"
    held_out = set(prepare.works(workspace.manifests).table.query("split == 'test'")["path"])
    assert set(works.prompts(3, 0)["path"]) <= held_out
    assert len(works.cache(works.training().key).latents.mean) == len(works.split(TRAINING))


def without_painted(config: params.Params, workspace: Workspace) -> params.Params:
    section = params.read(workspace.params_file)["latent_perceptual"] | {"corpus": {"photographs": 0, "held_out": 0}}
    return params.with_sections({"latent_perceptual": section}, workspace.params_file)


def test_without_painted_ones_the_datas_photographs_are_taken(config: params.Params, workspace: Workspace) -> None:
    config = without_painted(config, workspace)
    corpus.main(config, workspace)
    assert kind_of(workspace) == "photographs"
    source, table = main_sources(config, workspace), prepare.photographs(workspace.manifests).table
    for split, name in ((TRAINING, "train"), (HELD_OUT, "test")):
        rows = table[table["split"] == name]
        assert list(source.split(split)["path"]) == list(rows["path"])
        expected = prepare.pictures(rows, config.data, workspace, prepare.PHOTOGRAPHS).load()
        assert torch.equal(source.pictures(source.split(split)).load(), expected)


def test_without_any_photographs_all_is_of_works(
    config: params.Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "photographed", lambda workspace: {})
    config = without_painted(config, workspace)
    corpus.main(config, workspace)
    assert {path.name for path in folder(workspace).iterdir()} == {corpus.CARD, SEAL}
    assert main_sources(config, workspace) == Sources(config, workspace, "works")


def test_a_damaged_corpus_is_refused(config: params.Params, workspace: Workspace, tmp_path: Path) -> None:
    corpus.main(config, workspace)
    write_json(folder(workspace) / corpus.CARD, {"kind": "works"})
    with pytest.raises(ValueError, match="damaged"):
        kind_of(workspace)


@pytest.mark.parametrize("change", [{"photographs": 0}, {"held_out": 0}, {"photographs": 5}])
def test_half_a_corpus_is_refused(workspace: Workspace, change: dict[str, int]) -> None:
    section = params.read(workspace.params_file)["latent_perceptual"]
    section |= {"corpus": {"photographs": 12, "held_out": 10, **change}}
    with pytest.raises(ValueError, match=r"latent_perceptual.corpus.*: expected at least 8 of both, or 0 and 0"):
        params.with_sections({"latent_perceptual": section}, workspace.params_file)
