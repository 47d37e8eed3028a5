"""The trunk of perceptual losses: its shapes, its folder, what it learns, and how its distances rank distortions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.data.painter import paint_corpus
from atelier.models import trunk as trunks
from atelier.models.trunk import CHANNELS, Trunk
from atelier.params import Optimisation
from atelier.training import distortions
from atelier.training import trunk as training
from atelier.training.loop import fit

pytestmark = pytest.mark.usefixtures("one_thread")

ASKED = Optimisation(
    steps=20, batch=16, learning_rate=0.003, decay="cosine", warmup=2, beta2=0.99, weight_decay=0.0, clip=1.0, ema=0,
    checkpoint_every=100,
)  # fmt: skip
ONES = [torch.ones(c) for c in CHANNELS]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus() -> tuple[Tensor, list[dict[str, Any]], list[str]]:
    """64 works, uint8 (64, 3, 64, 64), with their truth and names."""
    pixels, records = paint_corpus(64, 0, 21, 64, 1)[:2]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), records, [str(r["painting"]) for r in records]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trunks.save(trunks.build(1), ONES, tmp_path / "trunk", {"made": "here"})
    return tmp_path / "trunk"


def test_stages_and_size() -> None:
    trunk = trunks.build(1)
    shapes = [tuple(features.shape) for features in trunk(torch.zeros(2, 3, 64, 64))]
    assert shapes == [(2, 24, 64, 64), (2, 48, 32, 32), (2, 96, 16, 16), (2, 128, 8, 8)]
    assert sum(parameter.numel() for parameter in trunk.parameters()) < 500_000


def test_a_pictures_features_are_its_own_alone() -> None:
    trunk, x = trunks.build(1), torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for whole, alone in zip(trunk(x), trunk(x[1:2]), strict=True):
        torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_within_half_precision(folder: Path) -> None:
    trunk, weights = trunks.load(folder)
    made = trunks.build(1).state_dict()
    for name, value in trunk.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, made[name].half().float())
    assert all(torch.equal(one, other) for one, other in zip(weights, ONES, strict=True))
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert json.loads((folder / "card.json").read_text()) == {"made": "here"}
    assert {name: tuple(t.shape) for name, t in load_file(folder / "heads.safetensors").items()} == {
        f"lin{stage}.model.1.weight": (1, c, 1, 1) for stage, c in enumerate(CHANNELS)
    }


def test_equal_weights_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    trunks.save(trunks.build(1), ONES, tmp_path / "again", {"made": "here"})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["card.json", "config.json", "heads.safetensors", "trunk.safetensors"]
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_bad_weights_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected weights \(c,\) for channels"):
        trunks.save(trunks.build(1), ONES[:2], tmp_path, {})
    with pytest.raises(ValueError, match="must not be negative"):
        trunks.save(trunks.build(1), [-weight for weight in ONES], tmp_path, {})
    huge = trunks.build(1)
    huge.stages[0][0].weight.data.fill_(1e6)
    with pytest.raises(ValueError, match=r"'stages.0.0.weight' is not all finite"):
        trunks.save(huge, ONES, tmp_path, {})


def without(path: Path, name: str) -> None:
    save_file({key: value for key, value in load_file(path).items() if key != name}, path)


def changed(path: Path, name: str, value: Tensor) -> None:
    save_file({**load_file(path), name: value}, path)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda f: (f / "config.json").unlink(), r"config.json: cannot be read \(No such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: expected a JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "channels: expected positive numbers, got None"),
        (lambda f: (f / "config.json").write_text('{"channels": [true]}'), r"positive numbers, got \[True\]"),
        (lambda f: (f / "config.json").write_text('{"channels": [9999999]}'), "trunk.safetensors: "),
        (lambda f: (f / "trunk.safetensors").unlink(), "trunk.safetensors: not readable"),
        (lambda f: (f / "trunk.safetensors").write_bytes(b"pickled"), "trunk.safetensors: not readable"),
        (lambda f: without(f / "trunk.safetensors", "stages.0.0.bias"), "'stages.0.0.bias' is missing"),
        (lambda f: changed(f / "trunk.safetensors", "more", torch.ones(1)), "'more' is unknown"),
        (
            lambda f: changed(f / "trunk.safetensors", "stages.0.0.bias", torch.ones(3)),
            r"'stages.0.0.bias': expected shape \(24,\), got \(3,\)",
        ),
        (
            lambda f: changed(f / "trunk.safetensors", "stages.0.0.bias", torch.full((24,), torch.nan)),
            "'stages.0.0.bias' is not all finite",
        ),
        (
            lambda f: changed(f / "heads.safetensors", "lin1.model.1.weight", -torch.ones(1, 48, 1, 1)),
            "'lin1.model.1.weight' has negative weights",
        ),
    ],
)
def test_a_bad_folder_is_refused_in_one_line(folder: Path, spoil: Any, line: str) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=line) as caught:
        trunks.load(folder)
    assert "\n" not in str(caught.value)


def test_it_learns_and_is_folded_into_the_same_function(
    corpus: tuple[Tensor, list[dict[str, Any]], list[str]], tmp_path: Path
) -> None:
    pictures, records = corpus[0][:, :, ::2, ::2], corpus[1]  # at 32 px: a quarter of the time
    trunk = trunks.build(1)
    task = training.task(trunk, pictures, records, 2, CPU)
    history = fit(task, ASKED, seed=2, scratch=tmp_path, accelerator=Accelerator(cpu=True))
    losses = history[[f"stage{stage}" for stage in range(4)]].mean(axis=1)
    assert losses.iloc[-3:].mean() < losses.iloc[:3].mean() - 0.1

    batch = pictures[:32]
    with torch.no_grad():
        normed = by_hand(trunk, task.trainable, batch.float() / 127.5 - 1)
    training.fold(trunk, task, batch)
    for folded, expected in zip(trunk(batch.float() / 127.5 - 1), normed, strict=True):
        torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-4)


def by_hand(trunk: Trunk, trainable: dict[str, Any], x: Tensor) -> list[Tensor]:
    """With batch normalisation written out after each convolution."""
    features = []
    for at, stage in enumerate(trunk.stages):
        for name, layer in stage.named_children():
            x = layer(x)
            if isinstance(layer, torch.nn.Conv2d):
                norm = torch.nn.BatchNorm2d(layer.out_channels)
                norm.weight, norm.bias = trainable[f"norms.{at}.{name}.gain"], trainable[f"norms.{at}.{name}.offset"]
                x = norm(x)
        features.append(x)
    return features


def test_heads_are_learnt_and_scaled(corpus: tuple[Tensor, list[dict[str, Any]], list[str]], tmp_path: Path) -> None:
    pictures, names = corpus[0][:, :, ::2, ::2], corpus[2]
    trunk = trunks.build(1)
    task = training.heads_task(trunk, pictures, names, 3, CPU)
    asked = ASKED.model_copy(update={"learning_rate": 0.1, "batch": 8})
    history = fit(task, asked, seed=3, scratch=tmp_path, accelerator=Accelerator(cpu=True))
    assert (history["ranking"] < 0.69).all()  # log 2 is a guess
    weights = training.weights_of(task, trunk, pictures)
    assert all(bool((weight >= 0).all()) for weight in weights)
    assert any(float(weight.std()) > 0.01 * float(weight.mean()) for weight in weights)
    shown = pictures.float() / 127.5 - 1
    with torch.no_grad():
        distance = training.distance(trunk, weights)(shown, shown.roll(1, 0))
    assert float(distance.mean()) == pytest.approx(1.0, rel=1e-4)


def test_distances_rank_what_is_easily_ranked(corpus: tuple[Tensor, list[dict[str, Any]], list[str]]) -> None:
    pictures, _, names = corpus
    right = training.two_afc(lambda a, b: (a - b).square().mean((1, 2, 3)), pictures[:16], names[:16], 4)
    assert set(right) == {*distortions.FAMILIES, "mean"}
    assert min(right["noise"], right["blur"], right["fade"]) > 0.9
    blind = training.two_afc(lambda a, b: torch.zeros(len(a)), pictures[:4], names[:4], 4)
    assert set(blind.values()) == {0.5}


def test_comparisons_depend_on_seed_name_and_epoch_alone() -> None:
    one, again = (training.comparison(1, "work", 2, 16) for _ in range(2))
    assert one[:2] == again[:2]
    assert torch.equal(one.chances, again.chances)
    others = [training.comparison(*key, 16) for key in ((2, "work", 2), (1, "other", 2), (1, "work", 3))]
    assert all(other.strengths != one.strengths for other in others)
    assert all(weak <= strong <= 1 for weak, strong in (other.strengths for other in others))


@pytest.mark.parametrize("family", distortions.FAMILIES)
def test_strength_0_changes_nothing_and_strength_1_much(family: str, corpus: Any) -> None:
    pictures = corpus[0][:8].float() / 255
    chance = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    change = [
        (distortions.distorted(pictures, [family] * 8, torch.full((8,), strength), chance) - pictures).square().mean()
        for strength in (0.0, 0.3, 1.0)
    ]
    assert change[0] < 1e-9
    assert 1e-5 < change[1] < change[2]


def test_sampling_shifts_flips_and_blurs() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    places = torch.arange(16).expand(2, -1)
    still = torch.zeros(2)
    assert torch.equal(distortions.sampled(x, places, places, still), x)
    torch.testing.assert_close(distortions.sampled(x, places, 15 - places, still), x.flip(3), rtol=0, atol=1e-6)
    moved = distortions.sampled(x, places + 2, places, still)
    torch.testing.assert_close(moved[:, :, :-2], x[:, :, 2:], rtol=0, atol=1e-6)
    torch.testing.assert_close(moved[:, :, -2:], x[:, :, -1:].expand(-1, -1, 2, -1), rtol=0, atol=1e-6)
    point = torch.zeros(1, 1, 17, 17)
    point[0, 0, 8, 8] = 1
    blurred = distortions.blurred(point, torch.tensor([1.5]))[0, 0]
    variance = (blurred.sum(0) * (torch.arange(17) - 8.0).square()).sum()
    assert float(variance) == pytest.approx(1.5**2, rel=0.01)


def test_the_linear_code_keeps_low_cosines() -> None:
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    coded = distortions.coded(x, torch.tensor([8.0, 1.0, 3.0]))
    torch.testing.assert_close(coded[0], x[0], rtol=0, atol=1e-5)
    means = torch.nn.functional.avg_pool2d(x[1:2], 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(coded[1:2], means, rtol=0, atol=1e-5)
    torch.testing.assert_close(distortions.coded(coded[2:], torch.tensor([3.0])), coded[2:], rtol=0, atol=1e-5)


def test_oblong_pictures_are_refused_where_one_side_is_read() -> None:
    oblong = torch.rand(2, 3, 16, 32)
    for distort in (lambda x: distortions.blurred(x, torch.ones(2)), lambda x: distortions.coded(x, torch.ones(2)),
                    lambda x: distortions.warp(x, torch.ones(2), torch.randn(2, 3, 16, 32))):  # fmt: skip
        with pytest.raises(ValueError, match="pictures: expected square ones, h = w, got 16x32"):
            distort(oblong)
    with pytest.raises(ValueError, match="patches of 8 pixels do not fill 12x12"):
        distortions.coded(torch.rand(2, 3, 12, 12), torch.ones(2))
    with pytest.raises(ValueError, match="pictures: expected square ones"):
        training.two_afc(lambda x, y: x.mean((1, 2, 3)), (255 * oblong).to(torch.uint8), ["a", "b"], 1)
