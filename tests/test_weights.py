"""Weights and configurations that do not fit are refused in one line that names the file and what is wrong in it."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.methods import signal_leak
from atelier.models import adapters, base, evaluator, trunk
from atelier.models.autoencoders import load_like
from atelier.models.checked import load_part
from atelier.training.lora import add_adapter, save_adapter

pytestmark = pytest.mark.usefixtures("one_thread")

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT, ADAPTER = "text_encoder/model.safetensors", adapters.WEIGHTS
Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "base"
    base.save(base.build("tiny", 64, ["two boats", "a cat on a mat", ""], seed=1), folder, {"source": "test"})
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "base"))


@pytest.fixture(scope="module")
def pipeline(saved: Path) -> StableDiffusionPipeline:
    """Not to be changed: an adapter is refused before it is loaded."""
    return base.load(saved)


@pytest.fixture(scope="module")
def trained(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the attention projections, with values that change something."""
    folder, unet = tmp_path_factory.mktemp("adapter"), base.load(saved).unet
    for parameter in add_adapter(unet, 2, 1).values():
        torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(unet, folder, {})
    return folder


# ------------------------------------------------------------------------------------------------ ways to spoil a file


def rewritten(file: str, change: Callable[[dict[str, Tensor]], object]) -> Spoil:
    """Change the tensors of a file, which is written again."""

    def spoil(folder: Path) -> None:
        state = load_file(folder / file)
        change(state)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / file)

    return spoil


def first(state: dict[str, Tensor]) -> str:
    return min(state)


def with_nan(file: str) -> Spoil:
    return rewritten(file, lambda state: state[first(state)].view(-1)[:1].fill_(torch.nan))


def with_infinity(file: str) -> Spoil:
    return rewritten(file, lambda state: state[max(state)].view(-1)[-1:].fill_(-torch.inf))


def as_type(file: str, kind: torch.dtype) -> Spoil:
    return rewritten(file, lambda state: state.update({first(state): state[first(state)].to(kind)}))


def reshaped(file: str) -> Spoil:
    return rewritten(file, lambda state: state.update({first(state): torch.zeros(7, 3)}))


def without(file: str) -> Spoil:
    return rewritten(file, lambda state: state.pop(first(state)))


def with_more(file: str) -> Spoil:
    return rewritten(file, lambda state: state.update({"one.more": torch.zeros(2)}))


def renamed(file: str, rename: Callable[[str], str]) -> Spoil:
    def change(state: dict[str, Tensor]) -> None:
        moved = {rename(name): tensor for name, tensor in state.items()}
        state.clear()
        state.update(moved)

    return rewritten(file, change)


def cut_off(file: str) -> Spoil:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-8]) and None


def configured(file: str, **values: Any) -> Spoil:
    """Set keys of a JSON file."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | values))

    return spoil


def removed(name: str) -> Spoil:
    return lambda folder: shutil.rmtree(folder / name)


def refusal(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words follow
        call()
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert len(line) < 600
    assert all(word in line for word in words), line


# ------------------------------------------------------------------------------------------------ a base

# kind of fault -> how, and what the line says beside the file
OF_TENSORS: dict[str, tuple[Callable[[str], Spoil], str]] = {
    "nan": (with_nan, "is not all finite"),
    "infinite": (with_infinity, "is not all finite"),
    "int8": (lambda file: as_type(file, torch.int8), "got I8"),
    "float64": (lambda file: as_type(file, torch.float64), "got F64"),
    "shape": (reshaped, "got (7, 3)"),
    "missing": (without, "is missing"),
    "surplus": (with_more, "tensor 'one.more' is unknown"),
    "renamed": (lambda file: renamed(file, lambda name: f"model.{name}"), "tensor"),
    "cut off": (cut_off, "not readable as safetensors"),
}
UNET_CONFIG, VAE_CONFIG, TEXT_CONFIG = "unet/config.json", "vae/config.json", "text_encoder/config.json"
SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
OF_CONFIGURATIONS: list[tuple[Spoil, str, str]] = [
    *((configured(VAE_CONFIG, scaling_factor=value), VAE_CONFIG, "scaling_factor")
      for value in (0, -0.5, float("nan"), float("inf"), "0.5", True, None)),
    (configured(VAE_CONFIG, shift_factor=float("nan")), VAE_CONFIG, "shift_factor"),
    (configured(VAE_CONFIG, in_channels=4), VAE_CONFIG, "in_channels"),
    (configured(VAE_CONFIG, _class_name="AutoencoderKLWan"), VAE_CONFIG, "expected AutoencoderKL"),
    (configured(VAE_CONFIG, block_out_channels=[16] * 10_000), VAE_CONFIG, "block_out_channels"),
    (configured(UNET_CONFIG, _class_name="UNet3DConditionModel"), UNET_CONFIG, "expected UNet2DConditionModel"),
    (configured(UNET_CONFIG, layers_per_block=10**9), UNET_CONFIG, "layers_per_block"),
    (configured(UNET_CONFIG, transformer_layers_per_block=[[10**6]]), UNET_CONFIG, "transformer_layers_per_block"),
    (configured(UNET_CONFIG, block_out_channels=[2**40, 2**40]), UNET_CONFIG, "block_out_channels"),
    (configured(UNET_CONFIG, norm_num_groups=7), UNET_CONFIG, "no configuration of a UNet2DConditionModel"),
    (configured(UNET_CONFIG, sample_size=-8), UNET_CONFIG, "sample_size"),
    (configured(UNET_CONFIG, block_out_channels=[16, 64]), UNET, "expected shape"),
    (configured(TEXT_CONFIG, architectures=["CLIPTextModelWithProjection"]), TEXT_CONFIG, "expected CLIPTextModel"),
    (configured(TEXT_CONFIG, model_type="t5"), TEXT_CONFIG, "expected CLIPTextModel"),
    (configured(TEXT_CONFIG, num_hidden_layers=10**9), TEXT_CONFIG, "num_hidden_layers"),
    (configured(TEXT_CONFIG, num_hidden_layers=2), TEXT, "is missing"),
    (configured(TEXT_CONFIG, layer_norm_eps=-1.0), TEXT_CONFIG, "layer_norm_eps"),
    (configured(SCHEDULER, prediction_type="score"), SCHEDULER, "prediction_type"),
    (configured(SCHEDULER, prediction_type="sample"), SCHEDULER, "prediction_type"),
    (configured(SCHEDULER, beta_start=-0.1), SCHEDULER, "beta_start"),
    (configured(SCHEDULER, beta_end=1.5), SCHEDULER, "beta_end"),
    (configured(SCHEDULER, beta_start=0.02, beta_end=0.01), SCHEDULER, "is above beta_end"),
    (configured(SCHEDULER, trained_betas=[0.1, float("nan")]), SCHEDULER, "trained_betas"),
    (configured(SCHEDULER, num_train_timesteps=10**9), SCHEDULER, "num_train_timesteps"),
    (configured(SCHEDULER, beta_schedule="of mine"), SCHEDULER, "no configuration of a DDIMScheduler"),
    (configured(SCHEDULER, _class_name="StableDiffusionPipeline"), SCHEDULER, "expected a scheduler"),
    (configured(INDEX, _class_name="StableDiffusionXLPipeline"), INDEX, "expected StableDiffusionPipeline"),
    (configured(INDEX, vae=["diffusers", "AutoencoderKLWan"]), INDEX, "vae: expected AutoencoderKL"),
    (configured(INDEX, unet=[None, None]), INDEX, "unet: expected a library and a class"),
    (configured(INDEX, tokenizer=["transformers", "T5Tokenizer"]), INDEX, "tokenizer: expected CLIPTokenizer"),
    *((removed(part), part, "no such folder")
      for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")),
]  # fmt: skip


@pytest.mark.parametrize("file", [UNET, VAE, TEXT])
@pytest.mark.parametrize("fault", OF_TENSORS)
def test_tensors_that_do_not_fit_a_base_are_refused_by_name(folder: Path, file: str, fault: str) -> None:
    spoil, words = OF_TENSORS[fault]
    spoil(file)(folder)
    refusal(lambda: base.load(folder), str(folder / file), words)


@pytest.mark.parametrize(("spoil", "file", "words"), OF_CONFIGURATIONS)
def test_configurations_that_do_not_fit_are_refused_by_key(folder: Path, spoil: Spoil, file: str, words: str) -> None:
    spoil(folder)
    refusal(lambda: base.load(folder), str(folder / file), words)


def test_parts_that_do_not_fit_each_other_are_refused(folder: Path, tmp_path: Path) -> None:
    """Each part is whole; the denoiser is another base's."""
    for changes, key in (({"cross_attention_dim": 48}, "cross_attention_dim"),
                         ({"in_channels": 8}, "in_channels"), ({"out_channels": 8}, "out_channels")):  # fmt: skip
        config = UNet2DConditionModel.load_config(folder / "unet") | changes
        other = Path(shutil.copytree(folder, tmp_path / key))
        UNet2DConditionModel.from_config(config).save_pretrained(other / "unet")
        refusal(lambda other=other: base.load(other), str(other / UNET_CONFIG), key)  # type: ignore[misc]


def test_what_real_folders_have_is_accepted_with_equal_weights(folder: Path, saved: Path) -> None:
    """Shards, half precision, and the names of old CLIP and autoencoder files."""
    whole = base.load(saved)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="50KB")
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    text = {f"text_model.{name}": tensor for name, tensor in load_file(folder / TEXT).items()}
    save_file({**text, "text_model.embeddings.position_ids": torch.arange(56)[None]}, folder / TEXT, {"format": "pt"})
    loaded = base.load(folder)
    for part in ("unet", "vae", "text_encoder"):
        one, two = getattr(whole, part).state_dict(), getattr(loaded, part).state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
    rewritten(VAE, lambda state: state.update({name: value.half() for name, value in state.items()}))(folder)
    assert next(base.load(folder).vae.parameters()).dtype == torch.float32


def test_an_autoencoders_old_names_are_those_of_its_attention(tmp_path: Path) -> None:
    torch.manual_seed(1)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    vae.save_pretrained(tmp_path)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(name: str) -> str:
        for new, before in old.items():
            name = name.replace(new, before)
        return name

    renamed("diffusion_pytorch_model.safetensors", rename)(tmp_path)
    loaded = load_part(tmp_path, AutoencoderKL).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize(("change", "words"), [
    (lambda listed: listed.pop(min(listed)), "is not in the file that is listed"),
    (lambda listed: listed.update({"one.more": min(listed.values())}), "'one.more'"),
    (lambda listed: listed.update({min(listed): "../unet.safetensors"}), "is no safetensors file of this folder"),
])  # fmt: skip
def test_a_list_of_shards_must_be_that_of_the_files(folder: Path, change: Any, words: str) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / UNET).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="50KB")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    refusal(lambda: base.load(folder), str(index), words)


# ------------------------------------------------------------------------------------------------ adapters, decoders

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def unpaired(state: dict[str, Tensor]) -> None:
    state.pop(f"{LAYER}.lora_B.weight")


def without_a_layer(state: dict[str, Tensor]) -> None:
    for side in "AB":
        state.pop(f"{LAYER}.lora_{side}.weight")


@pytest.mark.parametrize(("spoil", "words"), [
    (rewritten(ADAPTER, lambda state: state.clear()), "holds no tensor"),
    (renamed(ADAPTER, lambda name: name.replace("unet.", "transformer.")), "'transformer."),
    (renamed(ADAPTER, lambda name: name.replace("unet.", "")), "is for no part of this pipeline"),
    (renamed(ADAPTER, lambda name: name.replace("lora_", "x_")), "is no matrix of an adapter"),
    (renamed(ADAPTER, lambda name: name.replace("down_blocks.0", "down_blocks.7")), "is no layer of this model"),
    (rewritten(ADAPTER, unpaired), f"'{LAYER}.lora_B.weight' is missing"),
    (rewritten(ADAPTER, without_a_layer), f"{LAYER} are missing"),
    (with_nan(ADAPTER), "is not all finite"),
    (as_type(ADAPTER, torch.int8), "got I8"),
    (with_more(ADAPTER), "'one.more'"),
    (rewritten(ADAPTER, lambda s: s.update({f"{LAYER}.lora_B.weight": torch.zeros(16, 5)})), "got (16, 5)"),
    (rewritten(ADAPTER, lambda s: s.update({f"{LAYER}.lora_A.weight": torch.zeros(2, 9)})), "expected shape (2, 16)"),
    (cut_off(ADAPTER), "not a readable adapter"),
])  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused(
    pipeline: StableDiffusionPipeline, trained: Path, tmp_path: Path, spoil: Spoil, words: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "adapter"))
    spoil(folder)
    refusal(lambda: adapters.tuned(pipeline, folder), str(folder / ADAPTER), words)


@pytest.mark.parametrize("spelling", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_an_adapter_in_either_spelling_changes_every_layer_that_it_names(
    saved: Path, trained: Path, tmp_path: Path, spelling: tuple[str, str]
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "adapter"))
    renamed(ADAPTER, lambda name: name.replace("lora_A", spelling[0]).replace("lora_B", spelling[1]))(folder)
    before, after = base.load(saved).unet.state_dict(), adapters.tuned(base.load(saved), folder).unet.state_dict()
    changed = {f"unet.{name}" for name in before if not torch.equal(before[name], after[name])}
    named = {f"{name.rpartition('.lora_')[0]}.weight" for name in load_file(trained / ADAPTER)}
    assert changed == named


@pytest.mark.parametrize("fault", OF_TENSORS)
def test_a_whole_denoiser_and_a_decoder_are_checked_likewise(
    pipeline: StableDiffusionPipeline, folder: Path, fault: str
) -> None:
    spoil, words = OF_TENSORS[fault]
    for file in (UNET, VAE):
        spoil(file)(folder)
    refusal(lambda: adapters.tuned(pipeline, folder), str(folder / UNET), words)
    refusal(lambda: load_like(pipeline.vae, folder / "vae"), str(folder / VAE))


# ------------------------------------------------------------------------------------------------ small networks, leaks


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A trunk, an evaluator and a leak."""
    net = trunk.build(1)
    trunk.save(net, [torch.ones(c) for c in net.channels], tmp_path / "trunk", {})
    classes = {name: ["a", "b"] for name in evaluator.ATTRIBUTES}
    evaluator.save(evaluator.build(classes, ["two boats", ""], 1), tmp_path / "evaluator", {})
    pixel = signal_leak.PixelLeak(np.zeros((4, 8, 8)), np.ones((4, 8, 8)), 10)
    signal_leak.save(pixel, tmp_path / "leak" / "pixel.safetensors", {})
    return tmp_path


LOADERS: dict[str, Callable[[Path], object]] = {
    "trunk/trunk.safetensors": lambda path: trunk.load(path.parent),
    "trunk/heads.safetensors": lambda path: trunk.load(path.parent),
    "evaluator/model.safetensors": lambda path: evaluator.load(path.parent),
}


@pytest.mark.parametrize("file", LOADERS)
def test_small_networks_are_checked_likewise(small: Path, file: str) -> None:
    for fault, (spoil, words) in OF_TENSORS.items():
        if fault == "renamed":
            continue
        kept = (small / file).read_bytes()
        spoil(file)(small)
        refusal(lambda: LOADERS[file](small / file), str(small / file), words)
        (small / file).write_bytes(kept)


@pytest.mark.parametrize(("file", "values"), [
    ("trunk/config.json", {"channels": [8] * 100_000}),
    ("evaluator/config.json", {"text": {"width": 96, "layers": 10**9, "heads": 4}}),
    ("evaluator/config.json", {"widths": [32] * 100_000}),
])  # fmt: skip
def test_a_configuration_that_would_take_long_to_build_is_refused(small: Path, file: str, values: dict) -> None:
    configured(file, **values)(small)
    loader = trunk.load if file.startswith("trunk") else evaluator.load
    refusal(lambda: loader((small / file).parent), str(small / file))


@pytest.mark.parametrize("change", [
    lambda arrays, note: arrays.update(more=np.zeros(2)),
    lambda arrays, note: arrays.pop("std"),
    lambda arrays, note: arrays["mean"].fill(np.nan),
    lambda arrays, note: arrays.update(std=-arrays["std"]),
    lambda arrays, note: arrays.update(mean=arrays["mean"].astype(np.int64)),
    lambda arrays, note: note.update(n=0),
    lambda arrays, note: note.update(n=True),
])  # fmt: skip
def test_a_leak_is_checked_likewise(small: Path, change: Callable[[dict, dict], object]) -> None:
    path = small / "leak" / "pixel.safetensors"
    assert signal_leak.load(path)[0].mean.shape == (4, 8, 8)
    arrays = {name: tensor.numpy() for name, tensor in load_file(path).items()}
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    note = json.loads(json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"][signal_leak.METADATA])
    change(arrays, note)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    save_file(tensors, path, {signal_leak.METADATA: json.dumps(note)})
    refusal(lambda: signal_leak.load(path), str(path), "not a readable signal leak")
