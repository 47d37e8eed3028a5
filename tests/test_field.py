"""FID, KID, CLIPScore, FD on DINOv2: against torch-fidelity, transformers and Pillow; refusals; memory.

torch-fidelity asks for torchvision, so it is in no extra. ``pip install --no-deps torch-fidelity`` is enough for the
tests that need it: where torchvision is missing, what it imports of it has a stand-in while it is imported.
"""

import json
import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model

from atelier import params
from atelier.evaluation import field
from atelier.evaluation import groups as sets
from atelier.evaluation import reference as references
from atelier.evaluation.judges import Judges
from atelier.metrics import frechet_distance, kernel_distance, precision_recall_density_coverage, subset_kernel_distance
from atelier.models import base, clip, dinov2, inception, vision
from atelier.seeds import numpy_generator
from tolerance import assert_close

ROOT = Path(__file__).parent.parent
SHARED = 1e-6  # relative, of distances of the same features
PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))


def pictures(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth pictures with some noise, uint8."""
    generator = numpy_generator(seed, "pictures", n, height, width)
    coarse = torch.from_numpy(generator.random((n, 3, 5, 5))).float()
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") * 220
    noisy = smooth + torch.from_numpy(generator.random((n, 3, height, width))).float() * 30
    return noisy.clamp(0, 255).to(torch.uint8)


def feature_sets(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Like Inception's: not negative, correlated, of different laws."""
    generator = numpy_generator("features", n, m, d)
    mixing = generator.standard_normal((d, d)) / np.sqrt(d)
    sets = (generator.standard_normal((count, d)) @ mixing for count in (n, m))
    return next(sets).clip(min=0), (next(sets) * 1.1 + 0.1).clip(min=0)


# ------------------------------------------------------------------------------------------------ torch-fidelity


def stand_in(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def torchvision_as_it_is_imported() -> dict[str, ModuleType]:
    """What torch-fidelity imports of torchvision, none of which Inception, FID and KID use."""
    functional = stand_in("torchvision.transforms.functional")
    transforms = stand_in("torchvision.transforms", functional=functional)
    datasets = stand_in("torchvision.datasets", **dict.fromkeys(("CIFAR10", "CIFAR100", "STL10"), object))
    whole = stand_in("torchvision", transforms=transforms, datasets=datasets)
    return {module.__name__: module for module in (whole, transforms, functional, datasets)}


@pytest.fixture(scope="module")
def fidelity() -> ModuleType:
    """The package torch-fidelity."""
    if find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity (it asks for torchvision)")
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("torchvision") is None:
            for name, module in torchvision_as_it_is_imported().items():
                patch.setitem(sys.modules, name, module)
        import torch_fidelity
        import torch_fidelity.metric_fid
        import torch_fidelity.metric_kid
    return torch_fidelity


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 64), (60, 300, 96)])  # the second has fewer rows than columns
def test_fid_agrees_with_torch_fidelity(fidelity: ModuleType, n: int, m: int, d: int) -> None:
    real, generated = feature_sets(n, m, d)
    of = fidelity.metric_fid
    theirs = [of.fid_features_to_statistics(torch.from_numpy(each)) for each in (real, generated)]
    expected = of.fid_statistics_to_metric(*theirs, verbose=False)[of.KEY_METRIC_FID]
    assert field.distances(collected("inception", real), collected("inception", generated))["fid"] == pytest.approx(
        expected, rel=SHARED
    )


def test_kid_agrees_with_torch_fidelity_in_the_subsets_that_it_draws(fidelity: ModuleType) -> None:
    real, generated = feature_sets(1100, 1300, 32)
    of = fidelity.metric_kid
    theirs = of.kid_features_to_metric(*map(torch.from_numpy, (real, generated)), verbose=False)
    expected = theirs[of.KEY_METRIC_KID_MEAN], theirs[of.KEY_METRIC_KID_STD]
    assert subset_kernel_distance(real, generated) == pytest.approx(expected, rel=SHARED)
    small = of.kid_features_to_metric(
        *map(torch.from_numpy, (real, generated)), kid_subsets=7, kid_subset_size=50, rng_seed=3, verbose=False
    )
    expected = small[of.KEY_METRIC_KID_MEAN], small[of.KEY_METRIC_KID_STD]
    assert subset_kernel_distance(real, generated, 7, 50, 3) == pytest.approx(expected, rel=SHARED)
    # features as networks give them, float32, are summed in float64 here: the same to what float32 resolves
    ours = field.distances(collected("inception", real), collected("inception", generated))
    assert ours["kid_mean"] == pytest.approx(theirs[of.KEY_METRIC_KID_MEAN], rel=1e-5)


@pytest.mark.parametrize("size", [(299, 299), (64, 64), (512, 300)])
def test_features_are_torch_fidelitys(fidelity: ModuleType, weights: Path, size: tuple[int, int]) -> None:
    theirs = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights))
    seen = pictures(2, *size)
    expected = theirs(seen)[0].double().numpy()
    assert_close(field.features(field.load("inception", weights), seen), expected, SHARED, 0)
    assert (expected.std(0) > 0).mean() > 0.5  # or the two pictures would be one to it


def test_the_stand_in_is_gone_after_the_import(fidelity: ModuleType) -> None:
    assert ("torchvision" in sys.modules) <= (find_spec("torchvision") is not None)


# ------------------------------------------------------------------------------------------------ Inception


def published_state() -> dict[str, Tensor]:
    """Random numbers under the names and shapes of ``pt_inception-2015-12-05-6726825d.pth``, the same everywhere."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in inception.Inception().state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith(inception.COUNTER)}
    return {name: drawn(name, shape) for name, shape in (shapes | inception.CLASSIFIER).items()}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that keep the variance from layer to layer, norms near 1, biases near 0."""
    numbers = torch.from_numpy(numpy_generator("inception", name).random(shape)).float()
    if len(shape) > 1:
        return (2 * numbers - 1) * (6 / np.prod(shape[1:])) ** 0.5
    return numbers + 0.5 if name.endswith(("bn.weight", "running_var")) else (numbers - 0.5) / 5


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return published_state()


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file as it is published, 90 MB, with the counters that some copies have."""
    folder = tmp_path_factory.mktemp("inception")
    counters = {f"Conv2d_1a_3x3.bn{inception.COUNTER}": torch.tensor(0)}
    torch.save({**state, **counters}, folder / "inception.pth")
    yield folder / "inception.pth"
    shutil.rmtree(folder)


# two pictures by torch-fidelity 0.4.0, from ``published_state``: features 0, 290, 580, ..., 2030, some of each branch
OF_FIDELITY = [
    [4.330075, 6.041963, 6.579903, 6.21072, 3.494746, 11.87704, 2.573015, 16.72244],
    [3.219881, 4.488237, 6.322062, 5.173154, 2.636272, 9.620924, 2.128463, 12.38769],
]


def test_features_are_what_torch_fidelity_gave(weights: Path) -> None:
    """Also where it is not installed."""
    found = field.features(field.load("inception", weights), pictures(2, 64, 96))
    assert found.shape == (2, 2048)
    assert_close(found[:, ::290], np.array(OF_FIDELITY), 1e-4, 1e-6)


def test_there_are_as_many_parameters_as_published(state: dict[str, Tensor]) -> None:
    """94 convolutions, each with a norm of four rows; the classifier of 1,008, too."""
    assert sum(name.endswith("conv.weight") for name in state) == 94
    assert len(state) == 94 * 5 + 2
    assert sum(value.numel() for value in state.values()) == 23_885_392


def test_both_kinds_of_files_give_the_same_frozen_network(
    weights: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "inception.safetensors")
    networks = [inception.load(path) for path in (weights, tmp_path / "inception.safetensors")]
    (tmp_path / "inception.safetensors").unlink()
    one, two = (network.state_dict() for network in networks)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(network.training or any(p.requires_grad for p in network.parameters()) for network in networks)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda state: state.pop("Mixed_7c.branch_pool.conv.weight"), "branch_pool.conv.weight' is missing"),
    "unknown": (lambda state: state.update({"AuxLogits.fc.bias": torch.zeros(9)}), "'AuxLogits.fc.bias' is unknown"),
    "ImageNet's classifier": (
        lambda state: state.update({"fc.weight": torch.zeros(1000, 2048)}),
        r"'fc.weight': expected shape \(1008, 2048\), got \(1000, 2048\)",
    ),
    "NaN": (
        lambda state: state.update({"fc.bias": torch.full((1008,), torch.nan)}),
        "'fc.bias' is not all finite",
    ),
    "integers": (
        lambda state: state.update({"fc.bias": torch.zeros(1008, dtype=torch.int64)}),
        "'fc.bias': expected F32, F16, BF16, got torch.int64",
    ),
    "no tensor": (lambda state: state.update({"fc.bias": 3}), "not readable as weights: expected tensors by name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_weights_are_refused_in_one_line(
    case: str, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, (change, said) = dict(state), REFUSED[case]
    change(changed)
    path = tmp_path / "inception.pth"
    path.touch()
    monkeypatch.setattr(torch, "load", lambda *_, **__: changed)  # 90 MB that need not be written
    with pytest.raises(ValueError, match=rf"inception\.pth: .*{said}") as caught:
        inception.load(path)
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple:
        return sys.exit, ()


def test_no_pickle_is_run_and_a_digest_in_a_name_is_compared(tmp_path: Path) -> None:
    torch.save(Hostile(), tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match=r"hostile\.pth: not readable as weights"):
        inception.load(tmp_path / "hostile.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    with pytest.raises(ValueError, match=r"6726825d\.pth: not readable as weights: .* the digest in its name"):
        inception.load(tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    with pytest.raises(ValueError, match=r"none\.pth"):
        inception.load(tmp_path / "none.pth")


# ------------------------------------------------------------------------------------------------ pictures


def by_pillow(seen: Tensor, width: int, height: int) -> np.ndarray:
    images = (Image.fromarray(each.permute(1, 2, 0).numpy()) for each in seen)
    made = [np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images]
    return np.stack(made).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize("size", [(512, 512), (40, 60), (225, 301)])
def test_pictures_are_resized_as_pillow_resizes(size: tuple[int, int]) -> None:
    seen = pictures(3, *size)
    gap = np.abs(vision.resized(seen, 224, 224).numpy() - by_pillow(seen, 224, 224))
    assert gap.max() <= 1
    assert (gap > 0).mean() < 0.001


def test_the_centred_square_is_cut_out() -> None:
    seen = pictures(2, 60, 100)
    found = vision.cropped(seen, 24)
    left = round((40 - 24) / 2)
    assert np.abs(found.numpy() - by_pillow(seen, 40, 24)[..., left : left + 24]).max() <= 1
    upright = vision.cropped(seen.swapaxes(2, 3), 24)
    assert_close(upright.swapaxes(2, 3), found, 0, 1)


def test_levels_become_the_networks_units() -> None:
    x = vision.normalised(torch.full((1, 3, 2, 2), 255.0), (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    assert_close(x[0, :, 0, 0], torch.tensor([1.0, 3.0, 0.5]))


# ------------------------------------------------------------------------------------------------ CLIP and DINOv2

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
PROMPTS = ["a boat at night", "two cats", "a boat", "cats at night and a boat and two cats and a boat at night " * 3]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP as ``save_pretrained`` writes it."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = base.train_tokenizer(PROMPTS, 700)
    text = {**SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 20}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    torch.manual_seed(0)
    vision_part = {**SMALL, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision_part, projection_dim=16)
    model = CLIPModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 4  # or all pictures would look alike to it
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70}
    Dinov2Model(Dinov2Config(**settings, patch_size=14)).save_pretrained(folder)
    return folder


@torch.no_grad()
def cosines(folder: Path, levels: np.ndarray, prompts: list[str]) -> np.ndarray:
    """Of transformers' own whole model, from pictures at its size, 0 to 255."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    mean, std = (np.array(each, dtype=np.float32)[:, None, None] for each in (clip.MEAN, clip.STD))
    read = tokenizer(prompts, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    logits = model(**read, pixel_values=torch.from_numpy((levels / 255 - mean) / std)).logits_per_image
    return (logits.diagonal() / model.logit_scale.exp()).double().numpy()


def test_clipscore_agrees_with_transformers(clip_folder: Path) -> None:
    network, seen = clip.load(clip_folder), pictures(4, 32, 32)
    expected = cosines(clip_folder, seen.numpy().astype(np.float32), PROMPTS)
    assert expected.min() < 0 < 0.1 < expected.max()  # those below 0 are set to 0
    swapped = cosines(clip_folder, seen.flip(0).numpy().astype(np.float32), PROMPTS)
    assert np.abs(swapped - expected).max() > 0.05
    found = field.clip_scores(network, seen, PROMPTS, "clip_score_100")
    assert_close(found, 100 * expected.clip(min=0), SHARED, 1e-5)  # 1e-7 of a cosine
    worded = cosines(clip_folder, seen.numpy().astype(np.float32), [f"A photo depicts {each}" for each in PROMPTS])
    assert_close(field.clip_scores(network, seen, PROMPTS, "clipscore"), 2.5 * worded.clip(min=0), SHARED, 2.5e-7)


def test_clipscore_of_pictures_of_other_sizes_agrees_with_pillows_preparation(clip_folder: Path) -> None:
    seen = pictures(4, 100, 100, seed=1)
    expected = cosines(clip_folder, by_pillow(seen, 32, 32), PROMPTS)
    found = field.clip_scores(clip.load(clip_folder), seen, PROMPTS, "clip_score_100")
    assert_close(found, 100 * expected.clip(min=0), 1e-3, 1e-2)


def test_a_score_does_not_depend_on_its_batch(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = clip.load(clip_folder), pictures(4, 32, 32)
    whole = field.clip_scores(network, seen, PROMPTS, "clip_score_100")
    monkeypatch.setattr(field, "BATCH", 3)
    assert_close(field.clip_scores(network, seen, PROMPTS, "clip_score_100"), whole, 1e-5, 1e-4)


@torch.no_grad()
def test_dinov2_gives_the_class_token(dinov2_folder: Path) -> None:
    seen = pictures(3, 224, 224)
    x = vision.normalised(seen.float(), dinov2.MEAN, dinov2.STD)
    expected = Dinov2Model.from_pretrained(dinov2_folder).eval()(pixel_values=x).pooler_output
    judge = field.load("dinov2", dinov2_folder)
    assert_close(field.features(judge, seen), expected.double().numpy(), SHARED, 1e-6)
    assert field.features(judge, pictures(2, 40, 30)).shape == (2, 32)


def edited(folder: Path, made: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy with other tensors."""
    shutil.copytree(folder, made)
    tensors = load_file(made / vision.WEIGHTS)
    change(tensors)
    save_file(tensors, made / vision.WEIGHTS, metadata={"format": "pt"})
    return made


OTHER_TENSORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda held: held.pop("layernorm.bias"), "tensor 'layernorm.bias' is missing"),
    "unknown": (lambda held: held.update({"head.bias": torch.zeros(3)}), "tensor 'head.bias' is unknown"),
    "NaN": (lambda held: held["layernorm.bias"].fill_(torch.nan), "tensor 'layernorm.bias' is not all finite"),
    "shape": (
        lambda held: held.update({"layernorm.bias": torch.zeros(3)}),
        r"tensor 'layernorm.bias': expected shape \(32,\), got \(3,\)",
    ),
    "integers": (
        lambda held: held.update({"layernorm.bias": torch.zeros(32, dtype=torch.int64)}),
        "tensor 'layernorm.bias': expected F32, F16, BF16, got I64",
    ),
    "almost empty": (
        lambda held: [held.pop(name) for name in list(held) if name != "layernorm.bias"],
        "32 numbers, the network of its config.json has ",
    ),
}


@pytest.mark.parametrize("case", OTHER_TENSORS)
def test_other_tensors_are_refused_in_one_line(
    case: str, dinov2_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, said = OTHER_TENSORS[case]
    with pytest.raises(ValueError, match=rf"model\.safetensors: {said}") as caught:
        dinov2.load(edited(dinov2_folder, tmp_path / "dinov2", change))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # transformers prints a table


def configured(folder: Path, made: Path, **changes: Any) -> Path:
    shutil.copytree(folder, made)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, **changes}))
    return made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "clip"}, r"config\.json: model_type: expected dinov2, got 'clip'"),
        ({"architectures": ["Dinov2ForImageClassification"]}, r"config\.json: architectures: expected "),
        ({"quantization_config": {}}, r"config\.json: quantization_config: "),
        ({"hidden_size": 2**30}, r"config\.json: hidden_size: expected at most "),
        ({"num_hidden_layers": 10**6}, r"config\.json: num_hidden_layers: expected at most "),
        ({"hidden_size": 2**14}, r"model\.safetensors: \d+ numbers, the network of its config\.json has "),
        ({"num_attention_heads": 5}, r"model\.safetensors: tensor '.*': expected shape \(30,\), got \(32,\)"),
        ({"patch_size": [14, 14]}, r"config\.json: patch_size: expected a divisor of 224, got "),
        ({"patch_size": "x"}, r"config\.json: no configuration of a Dinov2Model: "),
    ],
)
def test_other_configurations_are_refused(
    changes: Mapping[str, Any], said: str, dinov2_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        dinov2.load(configured(dinov2_folder, tmp_path / "dinov2", **changes))
    assert "\n" not in str(caught.value)


def test_another_networks_folder_is_refused(clip_folder: Path, dinov2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json: model_type: expected clip, got 'dinov2'"):
        clip.load(dinov2_folder)
    with pytest.raises(ValueError, match="no such folder, expected a Dinov2Model"):
        dinov2.load(tmp_path / "none")
    shutil.copytree(clip_folder, tmp_path / "clip")
    base.train_tokenizer(["others"], 600).save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"its tokenizer has \d+ tokens, config.json \d+"):
        clip.load(tmp_path / "clip")
    with pytest.raises(ValueError, match="unknown judge 'dino'"):
        field.load("dino", dinov2_folder)


def test_a_tokenizer_with_another_end_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    """The network would read a prompt's first token in place of its last, whatever the prompt."""
    config = json.loads((clip_folder / "config.json").read_text())
    for end in (2, 7):  # 2: old configurations' word for the largest token
        text = {**config["text_config"], "eos_token_id": end}
        with pytest.raises(ValueError, match=f"end token is .*config.json {end}"):
            clip.load(configured(clip_folder, tmp_path / str(end), text_config=text))


# ------------------------------------------------------------------------------------------------ sets of pictures


class Colours(nn.Module):
    """A judge with few features: random projections of small pictures."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.project = nn.Linear(3 * 16, d, bias=False)
        nn.init.normal_(self.project.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, seen: Tensor) -> Tensor:
        return self.project(nn.functional.adaptive_avg_pool2d(seen.float() / 255, 4).flatten(1))


def collected(judge: str, rows: np.ndarray) -> field.Collected:
    return field.Collected(judge).update(rows, 0)


def test_distances_are_those_of_the_features_and_named_after_the_judge() -> None:
    real, generated = (each.astype(np.float32).astype(np.float64) for each in feature_sets(40, 30, 6))
    near = precision_recall_density_coverage(real, generated, 5)
    for judge, frechet, kernel in (("inception", "fid", "kid"), ("dinov2", "fd_dinov2", "kd_dinov2")):
        found = field.distances(collected(judge, real), collected(judge, generated))
        assert found == pytest.approx(
            {
                frechet: frechet_distance(real, generated),
                kernel: kernel_distance(real, generated),
                f"precision_{judge}": near["precision"],
                f"recall_{judge}": near["recall"],
            }
        )


@pytest.mark.parametrize("judge", [name for name in field.LOADERS if name != "inception"])
def test_nothing_is_called_fid_or_kid_but_on_inception(judge: str) -> None:
    sets = [collected(judge, rows) for rows in feature_sets(1000, 1000, 3)]
    found = field.distances(*sets)
    assert f"kd_{judge}_mean" in found  # of subsets, too
    assert not {name for name in found if "fid" in name or "kid" in name}


def test_neither_batches_nor_shards_change_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field, "KEPT", 50)
    monkeypatch.setattr(field, "SPARE", 10)
    judge, seen = field.Judge("colours", Colours(8)), pictures(180, 8, 8)
    whole = field.collect(judge, [seen])
    pieces = field.collect(judge, seen.split(7))
    shards = [field.collect(judge, seen[start : start + 60].split(16), first=start) for start in (120, 0, 60)]
    merged = shards[0].merge(shards[1]).merge(shards[2])
    assert whole.features.shape == (50, 8)
    rows = field.features(judge, seen)
    kept = [int(np.flatnonzero(np.isclose(rows, each, 0, 1e-6).all(1))[0]) for each in whole.features]
    assert kept == sorted(set(kept))
    assert kept != list(range(50))  # not the first ones
    for other in (pieces, merged):
        assert_close(other.features, whole.features, 0, 1e-6)
        assert other.moments.count == 180
        assert_close(other.moments.mean, whole.moments.mean, 1e-6)
        assert_close(other.moments.covariance, whole.moments.covariance, 1e-5, 1e-9)


def test_every_picture_is_as_likely_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field, "KEPT", 400)
    monkeypatch.setattr(field, "SPARE", 50)
    numbers = collected("colours", np.arange(4000.0)[:, None]).features[:, 0]
    share = np.histogram(numbers, bins=8, range=(0, 4000))[0] / 400
    assert abs(share - 1 / 8).max() < 4 * np.sqrt(1 / 8 * 7 / 8 / 400)


def test_sets_that_do_not_belong_together_are_refused() -> None:
    rows = feature_sets(12, 12, 3)[0]
    with pytest.raises(ValueError, match="features of clip do not join features of dinov2"):
        collected("dinov2", rows).merge(collected("clip", rows))
    with pytest.raises(ValueError, match="picture 0 is in both sets"):
        collected("clip", rows).merge(collected("clip", rows))
    with pytest.raises(ValueError, match="real pictures were seen by clip, generated ones by dinov2"):
        field.distances(collected("clip", rows), collected("dinov2", rows))
    with pytest.raises(ValueError, match="at least 6 pictures each, got 12 and 5"):
        field.distances(collected("clip", rows), collected("clip", rows[:5]))
    with pytest.raises(ValueError, match="expected at least one batch"):
        field.collect(field.Judge("colours", Colours(3)), [])


def peak_of(n: int) -> int:
    """Bytes at most, as ``n`` pictures are painted, seen and collected."""
    judge = field.Judge("colours", Colours(64))
    painted = (torch.from_numpy(np.full((32, 3, 16, 16), at % 251, np.uint8)) for at in range(n // 32))
    tracemalloc.start()
    try:
        collection = field.collect(judge, painted)
        assert collection.moments.count == n
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field, "KEPT", 256)
    monkeypatch.setattr(field, "SPARE", 64)
    peak_of(320)  # what is made once
    few, many = peak_of(1600), peak_of(6400)
    assert many < 1.05 * few
    monkeypatch.setattr(field, "KEPT", 10**6)
    assert peak_of(6400) > 1.5 * few  # were all rows kept, it would show


# ------------------------------------------------------------------------------------------------ parameters


def content(name: str) -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "profiles" / f"{name}.yaml")


def test_paper_and_its_cheaper_form_alone_name_judges() -> None:
    named = {path.stem: params.load(path).field_judges.named_files() for path in PROFILES}
    assert {name for name, files in named.items() if files} == {"paper", "paper-lite"}
    assert (
        named["paper"]
        == named["paper-lite"]
        == {
            "inception": ["weights/pt_inception-2015-12-05-6726825d.pth"],
            "clip": [
                f"weights/clip-vit-base-patch32/{name}"
                for name in ("config.json", "model.safetensors", "tokenizer.json")
            ],
            "dinov2": ["weights/dinov2-large/config.json", "weights/dinov2-large/model.safetensors"],
        }
    )


@pytest.mark.parametrize("path", ["build/clip", "./build", ".scratch/x", "weights/../results", ".", "", 3, "a\0b"])
def test_other_paths_are_refused(path: object) -> None:
    tree = {**content("smoke"), "field_judges": {"inception": None, "clip": path, "dinov2": None}}
    with pytest.raises(ValueError, match=r"^p\.yaml: field_judges\.clip: "):
        params.check(tree, "p.yaml")


def test_judges_are_loaded_from_where_parameters_say(clip_folder: Path, dinov2_folder: Path) -> None:
    named = {"inception": None, "clip": clip_folder.name, "dinov2": str(dinov2_folder)}  # the second is absolute
    found = params.check({**content("smoke"), "field_judges": named}, "p.yaml").field_judges
    assert list(field.judges(found, clip_folder.parent)) == ["clip", "dinov2"]
    for key, files in found.named_files().items():
        assert [file for file in files if not (clip_folder.parent / file).is_file()] == [], key


# ------------------------------------------------------------------------------------------------ in every study


@pytest.fixture
def networks(clip_folder: Path, dinov2_folder: Path) -> Judges:
    """As a profile that names all three has them, with another network for Inception's."""
    loaded = {"clip": field.load("clip", clip_folder), "dinov2": field.load("dinov2", dinov2_folder)}
    return Judges(None, {"inception": field.Judge("inception", Colours(6)), **loaded})


def test_groups_have_the_features_that_papers_distances_compare(networks: Judges) -> None:
    shown, prompts = pictures(14, 48, 48, 1), [PROMPTS[number % len(PROMPTS)] for number in range(14)]
    made = sets.group(shown, networks, prompts)
    judges = networks.networks
    assert_close(made.features, field.features(judges["inception"], shown))
    assert set(made.others) == {"clip", "dinov2"}
    assert_close(made.others["dinov2"], field.features(judges["dinov2"], shown), relative=1e-5, absolute=1e-6)
    scores = {"clip": "clip_score_100", "clipscore": "clipscore"}
    for measure, convention in scores.items():
        expected = field.clip_scores(networks.clip, shown, prompts, convention)  # type: ignore[arg-type]
        np.testing.assert_allclose(made.per_picture[measure], expected, rtol=1e-5)
    assert sets.group(shown, networks).per_picture == {}  # no prompts
    only = Judges(None, {"dinov2": judges["dinov2"]})
    assert only.main == "dinov2"
    assert sets.group(shown, only).others == {}
    haar = sets.group(shown, Judges(None, {"clip": judges["clip"]}))
    np.testing.assert_array_equal(haar.features, haar.haar)


def test_their_distances_are_those_of_the_library_and_survive_being_written(networks: Judges) -> None:
    held_out, training, made = (pictures(20, 48, 48, seed) for seed in (1, 2, 3))
    real = sets.reference_of(held_out, training, held_out.clone(), networks)
    reduced = sets.pooled([sets.group(made[:9], networks), sets.group(made[9:], networks)])
    values = sets.all_measures(real, reduced)
    of_library: dict[str, float] = {}
    for judge in networks.networks.values():
        of_library |= field.distances(field.collect(judge, [held_out]), field.collect(judge, [made]))
    named = {"fid": "fd", "kid": "kd", "precision_inception": "precision", "recall_inception": "recall"}
    for name, expected in of_library.items():
        assert values[named.get(name, name)] == pytest.approx(expected, rel=1e-4, abs=1e-6), name
    again = references.from_arrays(references.arrays(real))
    assert sets.all_measures(again, reduced) == values
