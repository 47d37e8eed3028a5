"""The evaluator of metrics: who may see it, its folder, its views, what it learns, and what it says of pictures."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.data.painter import paint_corpus
from atelier.metrics import alignment
from atelier.models import evaluator as evaluators
from atelier.models.base import prompt_ids
from atelier.models.evaluator import Evaluator
from atelier.params import Optimisation
from atelier.training import evaluator as training
from atelier.training.loop import fit

pytestmark = pytest.mark.usefixtures("one_thread")

ASKED = Optimisation(
    steps=20, batch=16, learning_rate=0.004, decay="cosine", warmup=2, beta2=0.99, weight_decay=0.0, clip=1.0, ema=0,
    checkpoint_every=100,
)  # fmt: skip
CPU = torch.device("cpu")


class Corpus(NamedTuple):
    pictures: Tensor  # uint8 (64, 3, 64, 64)
    records: list[dict[str, Any]]
    prompts: list[list[str]]
    names: list[str]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    pixels, records = paint_corpus(56, 8, 22, 64, 1)[:2]
    prompts = [[f"{r['title']}", f"{r['title']}, {r['art_style']}"] for r in records]
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Corpus(pictures, records, prompts, [str(r["painting"]) for r in records])


def built(corpus: Corpus) -> Evaluator:
    return evaluators.build(evaluators.classes_of(corpus.records), [t for row in corpus.prompts for t in row], 1)


@pytest.fixture
def folder(corpus: Corpus, tmp_path: Path) -> Path:
    evaluators.save(built(corpus), tmp_path / "evaluator", {"made": "here"})
    return tmp_path / "evaluator"


def test_shapes_and_size(corpus: Corpus) -> None:
    model = built(corpus).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_100_000
    features = model.features(torch.rand(3, 3, 64, 64))
    assert features.shape == (3, evaluators.FEATURES)
    assert {name: tuple(out.shape) for name, out in model.logits(features).items()} == {
        name: (3, len(classes)) for name, classes in model.classes.items()
    }
    assert "Photograph" in model.classes["art_style"]
    assert not any("camera" in artist for artist in model.classes["artist"])
    ids = prompt_ids(model.tokenizer, ["a boat", "a boat at night, by the sea", ""])
    for embedding in (model.image_embedding(features), model.text_embedding(ids)):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_padding_does_not_count(corpus: Corpus) -> None:
    model = built(corpus).eval()
    ids = prompt_ids(model.tokenizer, ["a boat", "the boat at night by the sea with two more boats"])
    together, alone = model.text_embedding(ids), model.text_embedding(ids[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-6)
    assert (together[0] - together[1]).norm() > 1e-3


def test_saved_and_loaded_within_half_precision(folder: Path, corpus: Corpus) -> None:
    loaded, made = evaluators.load(folder), built(corpus)
    assert loaded.classes == made.classes
    state = made.state_dict()
    for name, value in loaded.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.equal(value, state[name].half().float())
    assert not loaded.training
    assert (folder / "model.safetensors").stat().st_size < 2_300_000
    pictures = corpus.pictures[:4].float() / 255
    np.testing.assert_allclose(
        alignment.features(loaded, pictures), alignment.features(made, pictures), rtol=0.02, atol=0.02
    )
    prompt = corpus.prompts[0][1]
    assert torch.equal(prompt_ids(loaded.tokenizer, [prompt]), prompt_ids(made.tokenizer, [prompt]))


def test_equal_weights_give_equal_bytes(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    evaluators.save(built(corpus), tmp_path / "again", {"made": "here"})
    evaluators.save(evaluators.load(folder), tmp_path / "third", {"made": "here"})
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert {"model.safetensors", "config.json", "card.json"} < {str(name) for name in names}
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
        assert (folder / name).read_bytes() == (tmp_path / "third" / name).read_bytes(), name


def configured(folder: Path, **other: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **other}))


def damaged(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "log_scale": tensors["log_scale"] * torch.nan}, path)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: cannot be read"),
        (lambda f: (f / "config.json").write_text("no"), "config.json: not JSON"),
        (lambda f: configured(f, vocabulary=7), "config.json: .*a vocabulary of 7, the tokenizer has"),
        (lambda f: configured(f, classes={}), "config.json: no evaluator's configuration: 'subject'"),
        (lambda f: configured(f, depth=3), "config.json: no evaluator's configuration: .*'depth'"),
        (lambda f: configured(f, widths="wide"), "config.json: no evaluator's configuration"),
        (lambda f: configured(f, widths=[999999, 999999]), "model.safetensors: "),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: not readable"),
        (lambda f: (f / "model.safetensors").write_bytes(b"pickled"), "model.safetensors: not readable"),
        (lambda f: damaged(f / "model.safetensors"), "'log_scale' is not all finite"),
        (lambda f: (f / "tokenizer").rename(f / "words"), "tokenizer: no such folder"),
        (lambda f: [path.write_text("{") for path in (f / "tokenizer").iterdir()], "tokenizer: not a readable"),
    ],
)
def test_a_bad_folder_is_refused_in_one_line(folder: Path, spoil: Any, line: str) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=line) as caught:
        evaluators.load(folder)
    assert "\n" not in str(caught.value)


def test_views_depend_on_seed_name_and_epoch_alone() -> None:
    def same(one: training.View, other: training.View) -> bool:
        return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, other, strict=True))

    view = training.view(1, "work", 2, 16, 4)
    assert same(view, training.view(1, "work", 2, 16, 4))
    for key in ((2, "work", 2), (1, "other", 2), (1, "work", 3)):
        assert not same(view, training.view(*key, 16, 4))


def test_views_flip_shift_and_keep_colours(corpus: Corpus) -> None:
    pictures = corpus.pictures[:8].float() / 255
    still = training.View(False, torch.tensor([0, 0]), 0.0, 8.0, torch.zeros(3, 64, 64), 0)
    torch.testing.assert_close(training.apply_views(pictures[:1], [still]), pictures[:1], rtol=0, atol=1e-5)
    flipped = training.apply_views(pictures[:1], [still._replace(flip=True)])
    torch.testing.assert_close(flipped, pictures[:1].flip(3), rtol=0, atol=1e-5)
    moved = training.apply_views(pictures[:1], [still._replace(shift=torch.tensor([3, -2]))])
    torch.testing.assert_close(moved[:, :, :-3, 2:], pictures[:1, :, 3:, :-2], rtol=0, atol=1e-5)
    seen = training.apply_views(pictures, [training.view(1, name, 0, 64, 1) for name in corpus.names[:8]])
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    assert float((seen.mean((2, 3)) - pictures.mean((2, 3))).abs().max()) < 0.05


def test_contrastive_loss_by_hand() -> None:
    similarity = torch.tensor([[2.0, -1.0], [0.5, 1.0]], dtype=torch.float64)
    rows, columns = similarity.log_softmax(1), similarity.log_softmax(0)
    expected = -(rows.diag().mean() + columns.diag().mean()) / 2
    alone = torch.eye(2, dtype=torch.bool)
    torch.testing.assert_close(training.contrastive_loss(similarity, alone), expected)
    # captions with equal words: each is as right as the other
    both = torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(training.contrastive_loss(similarity, both), -(rows.mean() + columns.mean()) / 2)


def test_photographs_have_no_emotion_and_cameras_are_no_artists(corpus: Corpus) -> None:
    classes = evaluators.classes_of(corpus.records)
    for attribute in evaluators.ATTRIBUTES:
        labels = training.labels_of(corpus.records, attribute, classes[attribute])
        asked = [record["kind"] == "work" or attribute in ("subject", "art_style") for record in corpus.records]
        assert [label != training.NONE for label in labels.tolist()] == asked
    none = torch.full((3,), training.NONE)
    assert float(training.attribute_loss(torch.randn(3, 9), none)) == 0.0
    with pytest.raises(ValueError, match="subject: expected one of boat, got"):
        training.labels_of(corpus.records, "subject", ["boat"])


def test_it_learns_and_is_calibrated(corpus: Corpus, tmp_path: Path) -> None:
    model = built(corpus)
    task = training.task(model, corpus.pictures, corpus.records, corpus.prompts, 2, CPU)
    assert set(task.trainable) == {name for name, _ in model.named_parameters()}
    history = fit(task, ASKED, seed=2, scratch=tmp_path, accelerator=Accelerator(cpu=True))
    terms = ["captions", "subject", "art_style", "emotion", "artist"]
    assert list(history.columns) == ["step", "learning_rate", *terms]
    total = history[terms].sum(axis=1)
    assert total.iloc[-3:].mean() < total.iloc[:3].mean() - 1.0

    training.calibrate(model, corpus.pictures, corpus.names, 2)
    once = alignment.features(model, corpus.pictures[:8].float() / 255)
    training.calibrate(model, corpus.pictures, corpus.names, 2)
    np.testing.assert_array_equal(alignment.features(model, corpus.pictures[:8].float() / 255), once)
    styles = alignment.attributes(model, corpus.pictures.float() / 255)["art_style"].idxmax(axis=1)
    assert (
        np.mean([seen == record["art_style"] for seen, record in zip(styles, corpus.records, strict=True)]) > 0.2
    )  # a guess: 0.09


def test_rows_that_do_not_match_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="64 pictures, 63 records and 64 rows of prompts"):
        training.task(built(corpus), corpus.pictures, corpus.records[1:], corpus.prompts, 2, CPU)


def test_what_metrics_are_told(corpus: Corpus) -> None:
    model, pictures = built(corpus), corpus.pictures[:40].float() / 255  # 40: more than a batch
    prompts = [row[0] for row in corpus.prompts[:40]]
    features, scores = alignment.features(model, pictures), alignment.clip_scores(model, pictures, prompts)
    assert (features.shape, scores.shape) == ((40, evaluators.FEATURES), (40,))
    assert features.dtype == scores.dtype == np.float64
    assert float(scores.min()) >= 0
    assert float(scores.max()) <= 100 * (1 + 1e-6)
    for name, table in alignment.attributes(model, pictures).items():
        assert tuple(table.columns) == model.classes[name]
        np.testing.assert_allclose(np.exp(table.to_numpy()).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(alignment.features(model, pictures.numpy()), features)
    # no picture's score depends on its neighbours
    np.testing.assert_allclose(alignment.features(model, pictures[5:6]), features[5:6], rtol=1e-3, atol=1e-4)


def test_pictures_of_any_size_are_seen_at_64(corpus: Corpus) -> None:
    model, pictures = built(corpus), corpus.pictures[:4].float() / 255
    large = pictures.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert alignment.features(model, large).shape == (4, evaluators.FEATURES)
    assert alignment.features(model, pictures[:, :, :32, :48]).shape == (4, evaluators.FEATURES)
    seen = next(alignment._batches(model, large))
    assert seen.shape == (4, 3, 64, 64)
    assert float((seen - pictures).abs().mean()) < 0.05


def test_what_metrics_refuse(corpus: Corpus) -> None:
    model, pictures = built(corpus), corpus.pictures[:2]
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], got uint8"):
        alignment.features(model, pictures)
    with pytest.raises(ValueError, match="got values from"):
        alignment.attributes(model, pictures.float())
    with pytest.raises(ValueError, match=r"RGB pictures .*, got 1 channels"):
        alignment.features(model, pictures[:, :1].float() / 255)
    with pytest.raises(ValueError, match="2 pictures, 1 prompts"):
        alignment.clip_scores(model, pictures.float() / 255, ["one"])
