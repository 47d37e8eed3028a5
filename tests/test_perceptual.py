"""LPIPS: its formula against a loop written out, gradients, networks by torchvision's names, and the real ones."""

import math
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from atelier.data.images import to_model_range
from atelier.methods.perceptual import LPIPS, directions, perceptual_distance
from atelier.models import imagenet
from atelier.models import trunk as trunks
from atelier.params import Perceptual

STAGES = ((5, 6, 4), (3, 3, 2))  # channels, height, width


def stages(seed: int, n: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, generator=generator, dtype=dtype) for shape in STAGES]


def weights(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [torch.rand(shape[0], generator=generator, dtype=dtype) for shape in STAGES]


def by_loops(features: list[Tensor], others: list[Tensor], weighed: list[Tensor], i: int) -> float:
    total = 0.0
    for one, other, weight in zip(features, others, weighed, strict=True):
        _, channels, height, width = one.shape
        for y in range(height):
            for x in range(width):
                a, b = one[i, :, y, x].tolist(), other[i, :, y, x].tolist()
                long_a, long_b = (math.sqrt(sum(v * v for v in vector)) + 1e-10 for vector in (a, b))
                squares = [float(weight[c]) * (a[c] / long_a - b[c] / long_b) ** 2 for c in range(channels)]
                total += sum(squares) / (height * width)
    return total


def test_it_agrees_with_loops() -> None:
    found = perceptual_distance(stages(0), stages(1), weights())
    expected = [by_loops(stages(0), stages(1), weights(), i) for i in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_known_values(dtype: torch.dtype, rtol: float) -> None:
    """Opposite vectors are 4 apart, orthogonal ones 2, whatever their lengths."""
    x = torch.zeros(2, 2, 1, 1, dtype=dtype)
    y = torch.zeros(2, 2, 1, 1, dtype=dtype)
    x[:, 0], y[0, 0], y[1, 1] = 3.0, -0.1, 7.0
    found = perceptual_distance([x], [y], [torch.full((2,), 0.5, dtype=dtype)])
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0], dtype=dtype), rtol=rtol, atol=0)


def test_identity_symmetry_and_independence_of_the_features_scale() -> None:
    one, other, weighed = stages(0), stages(1), weights()
    distance = perceptual_distance(one, other, weighed)
    assert torch.equal(perceptual_distance(one, one, weighed), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(perceptual_distance(other, one, weighed), distance)
    torch.testing.assert_close(perceptual_distance([100 * x for x in one], other, weighed), distance, rtol=1e-8, atol=0)
    assert torch.equal(perceptual_distance([x[1:2] for x in one], [x[1:2] for x in other], weighed), distance[1:2])


def test_gradcheck() -> None:
    one, other = ([x.requires_grad_() for x in stages(seed, n=2)] for seed in (0, 1))
    assert torch.autograd.gradcheck(
        lambda a, b, c, d: perceptual_distance([a, b], [c, d], weights()), (*one, *other), atol=1e-7
    )


def test_gradients_are_finite_where_features_are_equal_and_where_they_are_zero() -> None:
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)  # a dead place; the root of its sum of squares has no slope
    perceptual_distance([x], [torch.zeros_like(x)], [torch.ones(3)]).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))
    y = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    perceptual_distance([y], [y.detach()], [torch.ones(3)]).sum().backward()
    assert y.grad is not None
    assert torch.equal(y.grad, torch.zeros_like(y))


def test_directions_are_of_unit_length_or_zero() -> None:
    x = stages(0)[0]
    x[0, :, 0, 0] = 0
    length = directions(x).norm(dim=1)
    assert length[0, 0, 0] == 0
    torch.testing.assert_close(length.flatten()[1:], torch.ones(len(length.flatten()) - 1, dtype=torch.float64))


def test_stages_that_do_not_match_are_refused() -> None:
    one, weighed = stages(0), weights()
    with pytest.raises(ValueError, match="stages do not match: 2, 1, and 2 of weights"):
        perceptual_distance(one, one[:1], weighed)
    with pytest.raises(ValueError, match="stages do not match: 0, 0, and 0"):
        perceptual_distance([], [], [])
    with pytest.raises(ValueError, match=r"stage 0: .* got \(3, 5, 6, 4\), \(3, 3, 3, 2\), \(5,\)"):
        perceptual_distance(one, one[::-1], weighed)
    with pytest.raises(ValueError, match=r"stage 0: .*weights \(c,\), got .*\(3,\)"):
        perceptual_distance(one, one, weighed[::-1])


# ---------------------------------------------------------------------------------------------- networks

NAMES = get_args(imagenet.Name)
# of torchvision's features, to be found in any description of the networks
PARAMETERS = {"squeeze": 722_496, "alex": 2_469_696, "vgg": 14_714_688}


@pytest.mark.parametrize("name", NAMES)
def test_trunks_have_the_parameters_and_stages_that_are_published(name: imagenet.Name) -> None:
    with torch.device("meta"):
        trunk = imagenet.Trunk(name)
        found = trunk(torch.zeros(2, 3, 64, 64))
    assert sum(parameter.numel() for parameter in trunk.parameters()) == PARAMETERS[name]
    assert tuple(feature.shape[1] for feature in found) == imagenet.CHANNELS[name]
    assert all(key.startswith("features.") for key in trunk.state_dict())


def weights_files(name: imagenet.Name, folder: Path, suffix: str) -> tuple[Path, Path]:
    """A random trunk with a classifier beside it, and heads."""
    torch.manual_seed(5)
    state = {**imagenet.Trunk(name).state_dict(), "classifier.1.weight": torch.zeros(3)}
    heads = {f"lin{at}.model.1.weight": torch.rand(1, c, 1, 1) for at, c in enumerate(imagenet.CHANNELS[name])}
    paths = folder / f"trunk{suffix}", folder / f"heads{suffix}"
    for path, tensors in zip(paths, (state, heads), strict=True):
        save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    return paths


def batch(seed: int) -> Tensor:
    return 2 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_it_reads_both_kinds_of_files_and_is_frozen(suffix: str, tmp_path: Path) -> None:
    lpips = LPIPS.from_files("squeeze", *weights_files("squeeze", tmp_path, suffix))
    pictures = batch(1).requires_grad_()
    distance = lpips(pictures, batch(2))
    assert distance.shape == (2,)
    assert bool((distance > 0).all())
    torch.testing.assert_close(lpips(batch(2)[1:], pictures[1:]), distance[1:], rtol=1e-4, atol=0)
    assert torch.equal(lpips(pictures, pictures), torch.zeros(2))
    distance.sum().backward()
    assert pictures.grad is not None
    assert bool(pictures.grad.isfinite().all())
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_features_are_those_of_the_normalised_picture(tmp_path: Path) -> None:
    """Layer by layer, on pictures as ImageNet's networks want them."""
    trunk = imagenet.load_trunk("squeeze", weights_files("squeeze", tmp_path, ".safetensors")[0])
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    x = (batch(3) - shift) / scale
    first = torch.conv2d(x, trunk.features[0].weight, trunk.features[0].bias, stride=2).relu()
    torch.testing.assert_close(trunk(batch(3))[0], first)


def test_the_embedded_trunk_goes_by_the_same_formula(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net, heads = trunks.build(3), [torch.rand(c) for c in trunks.CHANNELS]
    trunks.save(net, heads, tmp_path, {})
    loaded, weighed = trunks.load(tmp_path)
    expected = perceptual_distance(loaded(batch(1)), loaded(batch(2)), weighed)
    assert torch.equal(LPIPS.from_folder(tmp_path)(batch(1), batch(2)), expected)


def test_parameters_name_either_network_and_its_files(tmp_path: Path) -> None:
    trunks.save(trunks.build(3), [torch.rand(c) for c in trunks.CHANNELS], tmp_path, {})
    files = {part: str(tmp_path / f"{part}.safetensors") for part in ("trunk", "heads")}
    embedded = Perceptual(network="trunk", weights=files["trunk"], heads=files["heads"])
    below = Perceptual(network="trunk", weights="trunk.safetensors", heads="heads.safetensors")
    expected = LPIPS.from_folder(tmp_path)(batch(1), batch(2))
    for config, root in ((embedded, Path()), (embedded, tmp_path / "elsewhere"), (below, tmp_path)):
        assert torch.equal(LPIPS.from_params(config, root)(batch(1), batch(2)), expected)
    trunk, heads = weights_files("squeeze", tmp_path, ".pth")
    expected = LPIPS.from_files("squeeze", trunk, heads)(batch(1), batch(2))
    absolute = Perceptual(network="squeeze", weights=str(trunk), heads=str(heads))
    relative = Perceptual(network="squeeze", weights=trunk.name, heads=heads.name)
    for config, root in ((absolute, Path()), (relative, tmp_path)):
        assert torch.equal(LPIPS.from_params(config, root)(batch(1), batch(2)), expected)
    with pytest.raises(ValueError, match=r"trunk and heads\.safetensors of one folder"):
        Perceptual(network="trunk", weights=files["trunk"], heads=str(heads))


class Hostile:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("made-by-a-pickle",))


def test_other_files_are_refused_by_name_and_no_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trunk, heads = weights_files("squeeze", tmp_path, ".safetensors")
    with pytest.raises(ValueError, match=r"is (unknown|missing)"):
        LPIPS.from_files("alex", trunk, heads)
    with pytest.raises(ValueError, match=r"heads.safetensors: tensor .* is missing"):
        LPIPS.from_files("squeeze", heads, heads)
    save_file({f"lin{at}.model.1.weight": -torch.ones(1, c, 1, 1) for at, c in enumerate(imagenet.CHANNELS["squeeze"])},
              tmp_path / "negative.safetensors")  # fmt: skip
    with pytest.raises(ValueError, match="must not be negative"):
        LPIPS.from_files("squeeze", trunk, tmp_path / "negative.safetensors")
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps(Hostile()))
    torch.save({"a": Hostile()}, tmp_path / "hostile2.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({(1, 2): torch.zeros(1)}, tmp_path / "keys.pth")
    torch.save({"features.0.weight": torch.zeros(1, dtype=torch.int64)}, tmp_path / "integers.pth")
    torch.save({"a": torch.zeros(9)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = bytearray((tmp_path / "old.pth").read_bytes())
    for at in range(0, len(old), 7):  # whatever is damaged, it is one line
        (tmp_path / "damaged.pth").write_bytes(bytes(old[:at]) + bytes([old[at] ^ 0x5A]) + bytes(old[at + 1 :]))
        with pytest.raises(ValueError, match=r"damaged\.pth: "):
            imagenet.load_trunk("squeeze", tmp_path / "damaged.pth")
    (tmp_path / "cut.safetensors").write_bytes(trunk.read_bytes()[:200])
    for name in (
        "hostile.pth",
        "hostile2.pth",
        "list.pth",
        "keys.pth",
        "integers.pth",
        "cut.safetensors",
        "absent.pth",
    ):
        with pytest.raises(ValueError, match=f"{name}: not readable as weights") as refused:
            LPIPS.from_files("squeeze", tmp_path / name, heads)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "made-by-a-pickle").exists()
    with pytest.raises(ValueError, match="trunk: expected one of squeeze, alex, vgg, got 'resnet'"):
        LPIPS.from_files("resnet", trunk, heads)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_weights_from_the_packages_where_they_are_installed(
    name: imagenet.Name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The packages cannot be installed here; what stands in for them has their names, layers and files."""
    package = tmp_path / "lpips"
    (package / "weights" / "v0.1").mkdir(parents=True)
    trunk, heads = weights_files(name, tmp_path, ".pth")
    heads.rename(package / "weights" / "v0.1" / f"{name}.pth")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("lpips", None)
    request.addfinalizer(lambda: sys.modules.pop("lpips", None))
    filled = imagenet.load_trunk(name, trunk)
    layers = nn.Sequential(*filled.features, nn.MaxPool2d(2))  # theirs go on
    asked: list[str] = []

    def network(weights: str) -> SimpleNamespace:
        asked.append(weights)
        return SimpleNamespace(features=layers)

    models = ModuleType("torchvision.models")
    models.__dict__[{"squeeze": "squeezenet1_1", "alex": "alexnet", "vgg": "vgg16"}[name]] = network
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    found = LPIPS.from_packages(name)(batch(1), batch(2))
    assert asked == ["IMAGENET1K_V1"]
    expected = LPIPS.from_files(name, trunk, package / "weights" / "v0.1" / f"{name}.pth")(batch(1), batch(2))
    assert torch.equal(found, expected)


needs_real = pytest.mark.skipif(
    "ATELIER_REAL_INPUTS" not in os.environ, reason="ATELIER_REAL_INPUTS is unset: no real weights, no triplet"
)


def real() -> tuple[LPIPS, dict[str, Tensor]]:
    folder = Path(os.environ["ATELIER_REAL_INPUTS"])
    weights = folder / "weights"
    lpips = LPIPS.from_files(
        "squeeze", weights / "squeezenet1_1.safetensors", weights / "lpips_squeeze_heads.safetensors"
    )
    pictures = {}
    for name in ("ref", "p0", "p1"):
        with Image.open(folder / "fixtures" / f"ex_{name}.png") as image:
            pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
            pictures[name] = to_model_range(pixels.view(1, image.height, image.width, 3).permute(0, 3, 1, 2))
    return lpips, pictures


@needs_real
def test_the_authors_triplet_is_ordered_as_people_order_it() -> None:
    lpips, pictures = real()
    distance = {name: float(lpips(pictures["ref"], pictures[name])) for name in ("p0", "p1")}
    print(f"\nLPIPS-squeeze of the triplet: p0 {distance['p0']:.4f}, p1 {distance['p1']:.4f}")
    assert distance["p1"] < distance["p0"]
    assert all(0.01 < value < 1.5 for value in distance.values())


@needs_real
def test_it_agrees_with_the_package_where_that_can_be_installed() -> None:
    package = pytest.importorskip("lpips", reason="lpips is not installed (it needs torchvision)")
    ours, pictures = LPIPS.from_packages("squeeze"), real()[1]
    theirs = package.LPIPS(net="squeeze", verbose=False)
    for name in ("p0", "p1"):
        found, expected = (float(f(pictures["ref"], pictures[name])) for f in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_a_dead_position_is_no_nan(dtype: torch.dtype) -> None:
    one, other, weighed = ([x.to(dtype) for x in row] for row in (stages(0), stages(1), weights()))
    one[0][:, :, 0, 0] = other[0][:, :, 0, 0] = 0
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            distance = perceptual_distance(one, other, weighed)
        assert distance.dtype == torch.float32
        expected = perceptual_distance(*([x.float() for x in row] for row in (one, other, weighed)))
        assert torch.equal(distance, expected)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_too_small_for_a_network_are_refused(name: imagenet.Name) -> None:
    side = imagenet.SMALLEST[name]
    network = imagenet.Trunk(name)
    assert min(network(torch.zeros(1, 3, side, side + 9))[-1].shape) > 0
    with pytest.raises(ValueError, match=f"pictures: expected sides of at least {side} px"):
        network(torch.zeros(1, 3, side + 9, side - 1))
    with pytest.raises(ValueError, match="pictures: expected sides of at least 8 px"):
        trunks.build(1)(torch.zeros(1, 3, 7, 16))
