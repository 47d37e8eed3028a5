"""Retuned decoders: what is trained and what is left alone, whole and in crops; they load and sample."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, VQModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import params as parameters
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.pictures import in_memory
from atelier.models import base
from atelier.models.autoencoders import decoder_parameters, digest, load_like
from atelier.models.latents import Latents, decode, encode_pictures
from atelier.params import Params
from atelier.studies.vae_decoder import train as retuning
from atelier.studies.vae_decoder.params import Config, LossWeights
from atelier.studies.vae_decoder.train import Crop, Pairs, retuning_loss
from atelier.training.order import Turn
from atelier.workspace import Workspace

SCOPES = ("upsamplers", "up_blocks", "decoder")
BLACK = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
CPU = torch.device("cpu")


def changed(params: Params, **values: object) -> Params:
    """``params`` with values of the study's section replaced, checked as if they stood in a file."""
    content = params.model_dump(mode="json")
    return parameters.check({**content, "vae_decoder": {**content["vae_decoder"], **values}}, "changed")


def tiny_autoencoder() -> AutoencoderTiny:
    torch.manual_seed(3)
    return AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8))


# ---------------------------------------------------------------------------------------------- scopes


def test_scopes_are_nested_parts_of_the_decoder_and_upsamplers_are_its_upscaling_convolutions(
    workspace: Workspace,
) -> None:
    for vae in (base.load(workspace.base).vae, tiny_autoencoder()):
        names = [set(decoder_parameters(vae, scope)) for scope in SCOPES]
        assert names[0] < names[1] < names[2]
        assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in names[2])
        assert names[2] == {name for name, _ in vae.named_parameters() if not name.startswith(("encoder", "quant"))}
    kl = set(decoder_parameters(base.load(workspace.base).vae, "upsamplers"))
    assert kl == {f"decoder.up_blocks.{at}.upsamplers.0.conv.{part}" for at in range(3) for part in ("weight", "bias")}
    tiny = set(decoder_parameters(tiny_autoencoder(), "upsamplers"))
    assert tiny == {f"decoder.layers.{at}.weight" for at in (6, 11, 16)}


def test_another_autoencoder_is_refused_by_name() -> None:
    vae = VQModel(block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=8)
    with pytest.raises(ValueError, match="VQModel: which of its parameters are the decoder's is not known"):
        decoder_parameters(vae, "upsamplers")


def test_a_digest_tells_any_other_bit_and_leaves_out_what_is_named() -> None:
    vae = tiny_autoencoder()
    names = set(decoder_parameters(vae, "upsamplers"))
    whole, rest = digest(vae), digest(vae, names)
    with torch.no_grad():
        vae.decoder.layers[6].weight[0, 0, 0, 0] += 1e-6
    assert digest(vae) != whole
    assert digest(vae, names) == rest
    with torch.no_grad():
        vae.encoder.layers[0].weight[0, 0, 0, 0] *= -1
    assert digest(vae, names) != rest


def test_a_decoder_that_differs_in_more_than_weights_or_is_damaged_is_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    vae = base.load(workspace.base).vae
    whole = tmp_path / "whole"
    vae.save_pretrained(whole)
    assert digest(load_like(vae, whole)) == digest(vae)
    weights, config = whole / "diffusion_pytorch_model.safetensors", whole / "config.json"
    tensors, told = load_file(weights), json.loads(config.read_text())
    name = "decoder.conv_out.weight"
    for bad, said in (
        ({**tensors, name: tensors[name] * float("nan")}, "not all finite"),
        ({key: value for key, value in tensors.items() if key != name}, f"tensor '{name}' is missing"),
        ({**tensors, "more": torch.zeros(1)}, "tensor 'more' is unknown"),
        ({**tensors, name: torch.zeros(3)}, "expected shape"),
    ):
        save_file(bad, weights)
        with pytest.raises(ValueError, match=f"whole: not a readable autoencoder: .*{said}") as refused:
            load_like(vae, whole)
        assert len(str(refused.value).splitlines()) == 1
    save_file(tensors, weights)
    for key, value in (("scaling_factor", 0.7), ("norm_num_groups", 0), ("latent_channels", 5)):
        config.write_text(json.dumps({**told, key: value}))
        with pytest.raises(ValueError, match=f"its configuration differs in {key}"):
            load_like(vae, whole)


# ---------------------------------------------------------------------------------------------- loss and crops


def test_the_loss_is_the_weighted_sum_and_a_term_of_weight_zero_is_not_computed() -> None:
    made, target = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5)
    weights = LossWeights(scope="upsamplers", mse=2.0, lpips=0.1, ffl=4.0)
    found = retuning_loss(made, target, weights, lambda x, y: torch.tensor([1.0, 3.0]))
    # a constant error lies in one frequency, whose weight is 1: the term is the squared error
    assert {name: float(term) for name, term in found.items()} == pytest.approx({"mse": 0.5, "lpips": 0.2, "ffl": 1.0})
    alone = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=0.0)
    assert list(retuning_loss(made, target, alone, None)) == ["mse"]


def test_a_crop_of_a_latent_stands_for_the_crop_of_the_picture() -> None:
    picture = torch.arange(64.0).view(1, 1, 1, 64).expand(1, 1, 64, 64)
    latent = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    crop = Crop(top=1, left=3, side=4, pixels=8)
    assert crop.of_latent(latent)[0, 0, 0].tolist() == [3, 4, 5, 6]
    assert crop.of_picture(picture)[0, 0, 0].tolist() == list(range(24, 56))
    assert crop.of_picture(picture).shape == (1, 1, 32, 32)


@pytest.mark.parametrize("kind", ["kl", "tiny"])
@pytest.mark.parametrize("crop", [0, 32])
def test_gradients_reach_the_scope_alone_and_checkpointing_changes_none(
    params: Params, workspace: Workspace, kind: str, crop: int
) -> None:
    table = prepare.works(workspace.manifests).table.query("split == 'train'")
    pictures = prepare.pictures(table, params.data, workspace)[:6].load()
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=1.0)
    gradients: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        vae: ModelMixin = base.load(workspace.base).vae if kind == "kl" else tiny_autoencoder()
        latents = Latents(*encode_pictures(vae, pictures))
        if checkpointing:
            vae.enable_gradient_checkpointing()
        trainable = decoder_parameters(vae, "upsamplers")
        names = [f"work-{at}" for at in range(6)]
        learning = retuning.task(
            vae, trainable, weights, None, Pairs(latents, in_memory(pictures), names), crop=crop, seed=1, device=CPU
        )
        terms = learning.losses([Turn(0, 0), Turn(3, 0), Turn(5, 2)])
        torch.stack(list(terms.values())).sum().backward()
        found = {name: p.grad for name, p in vae.named_parameters() if p.grad is not None}
        assert set(found) == set(trainable)
        assert all(float(gradient.abs().sum()) > 0 for gradient in found.values())
        gradients.append(found)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8)


def test_crops_are_drawn_by_seed_name_and_epoch_and_reach_all_of_a_latent(params: Params) -> None:
    seen: list[tuple[int, int]] = []

    class Spy(torch.nn.Module):
        config = AutoencoderTiny().config

        def decode(self, z: Tensor) -> object:
            seen.extend((int(one[0, 0, 0]) // 100, int(one[0, 0, 0]) % 100) for one in z)
            picture = torch.zeros(len(z), 3, 32, 32, requires_grad=True)
            return type("Output", (), {"sample": picture})

    places = 100.0 * torch.arange(8).view(8, 1) + torch.arange(8)
    latents = Latents(places.view(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=0.0)
    pairs = Pairs(latents, in_memory(BLACK), ["a"])
    learning = retuning.task(Spy(), {}, weights, None, pairs, crop=32, seed=5, device=CPU)
    for epoch in range(300):
        learning.losses([Turn(0, epoch)])
    first = list(seen)
    assert set(first) == {(top, left) for top in range(5) for left in range(5)}
    seen.clear()
    learning.losses([Turn(0, epoch) for epoch in range(300)])
    assert seen == first


# ---------------------------------------------------------------------------------------------- the stage


@pytest.mark.parametrize(("crop", "scope"), [(0, "upsamplers"), (32, "up_blocks"), (0, "decoder")])
def test_what_is_outside_the_scope_is_unchanged_to_the_bit_and_the_pipeline_paints(
    params: Params, workspace: Workspace, crop: int, scope: str
) -> None:
    weights = Config.of(params).decoders["all"].model_copy(update={"scope": scope})
    own = changed(params, crop=crop, decoders={"all": weights.model_dump()}, variants=["all"])
    before = base.load(workspace.base)
    retuning.train(own, workspace, "all", 0)
    folder = workspace.decoder("all", 0)
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True)
    assert digest(vae) == digest(load_like(before.vae, folder / "vae"))
    inside = decoder_parameters(vae, scope)  # type: ignore[arg-type]
    old, new = before.vae.state_dict(), vae.state_dict()
    assert old.keys() == new.keys()
    differ = {name for name in old if not torch.equal(old[name], new[name])}
    assert differ == set(inside)
    assert (
        digest(vae, inside) == digest(before.vae, inside) == json.loads((folder / "card.json").read_text())["unchanged"]
    )
    pipeline = StableDiffusionPipeline.from_pretrained(
        workspace.base, vae=vae, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    assert all(torch.equal(one, two) for one, two in zip(
        pipeline.unet.state_dict().values(), before.unet.state_dict().values(), strict=True))  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a boat", num_inference_steps=2, height=64, width=64, output_type="pt").images
    assert picture.shape == (1, 3, 64, 64)
    card = json.loads((folder / "card.json").read_text())
    expected = hashlib.sha256(workspace.named("data/trunk/trunk.safetensors").read_bytes()).hexdigest()
    assert card["perceptual"]["weights"] == expected  # by content: a name does not say which network taught it
    history = (folder / "history.csv").read_text().splitlines()[0]
    assert set(history.split(",")) == {"step", "learning_rate", "mse", "lpips", "ffl"}


def test_a_tiny_autoencoder_is_retuned_saved_and_loaded(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, tiny = base.load(workspace.base), tiny_autoencoder()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    monkeypatch.setattr(retuning.base, "load", lambda _: SimpleNamespace(vae=tiny))
    retuning.train(params, workspace, "mse", 0)
    folder = workspace.decoder("mse", 0) / "vae"
    found = AutoencoderTiny.from_pretrained(folder, local_files_only=True)
    assert digest(found) == digest(load_like(tiny_autoencoder(), folder))
    differ = {name for name, value in found.state_dict().items() if not torch.equal(value, before[name])}
    assert differ == set(decoder_parameters(found, "upsamplers"))
    pipeline.vae = found
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a boat", num_inference_steps=2, height=64, width=64, output_type="pt").images
    assert picture.shape == (1, 3, 64, 64)


def test_scopes_of_stable_diffusions_autoencoder() -> None:
    """Its blocks and widths, on no device: three upsamplings of a weight and a bias each."""
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4,
        )  # fmt: skip
    chosen = {scope: decoder_parameters(vae, scope) for scope in SCOPES}  # type: ignore[arg-type]
    expected = [f"decoder.up_blocks.{at}.upsamplers.0.conv.{part}" for at in range(3) for part in ("weight", "bias")]
    assert list(chosen["upsamplers"]) == expected
    assert sum(p.numel() for p in chosen["upsamplers"].values()) == 9 * (2 * 512**2 + 256**2) + 2 * 512 + 256
    assert not any("mid_block" in name or "conv_out" in name for name in chosen["up_blocks"])
    assert {"decoder.conv_out.weight", "post_quant_conv.weight"} < set(chosen["decoder"])


def test_retuning_brings_reconstructions_nearer_to_the_works(params: Params, workspace: Workspace) -> None:
    long = {**Config.of(params).optimisation.model_dump(mode="json"), "steps": 60}
    own = changed(params, optimisation=long)
    table = prepare.works(workspace.manifests).table.query("split == 'train'")
    pictures = prepare.pictures(table, params.data, workspace).load()
    vae = base.load(workspace.base).vae
    latents = encode_pictures(vae, pictures).mean
    retuning.train(own, workspace, "mse", 0)
    after = load_like(vae, workspace.decoder("mse", 0) / "vae")
    errors = [float((decode(each, latents) - to_model_range(pictures)).square().mean()) for each in (vae, after)]
    assert errors[1] < 0.9 * errors[0]


def test_a_crop_of_no_whole_latent_elements_is_refused(params: Params) -> None:
    latents = Latents(torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4))
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=0.0)
    pairs = Pairs(latents, in_memory(BLACK), ["a"])
    with pytest.raises(ValueError, match="crop: 24 px are no whole number of latent elements of 16 px"):
        retuning.task(tiny_autoencoder(), {}, weights, None, pairs, crop=24, seed=5, device=CPU)


def test_unknown_variants_and_seeds_are_refused(params: Params, workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="no variant 'best', there are mse, all"):
        retuning.train(params, workspace, "best", 0)
    with pytest.raises(ValueError, match=r"protocol\.training_seeds: 7 is not one of \[0, 1\]"):
        retuning.train(params, workspace, "mse", 7)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"decoders": {"mse": {"scope": "upsamplers", "mse": 0.0, "lpips": 0.0, "ffl": 0.0}}, "variants": ["mse"]},
         "nothing to learn from"),
        ({"variants": ["mse"]}, "must name each of the decoders once"),
        ({"crop": 128}, "crop: 128 px is more than the pictures' 64"),
        ({"crop": 12}, "multiple of 8"),
        ({"models": ["other"]}, r"vae_decoder\.models: expected a subset of untuned"),
        ({"guidance": [5.0]}, r"vae_decoder\.guidance: expected a subset of 1\.0, 4\.0"),
        ({"decoders": {"original": {"scope": "upsamplers", "mse": 1.0, "lpips": 0.0, "ffl": 0.0}},
          "variants": ["original"]}, "'original' is what the decoder that was not retuned is called"),
    ],
)  # fmt: skip
def test_parameters_that_ask_for_nothing_are_refused(params: Params, values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed(params, **values)


def test_a_trunk_of_two_folders_is_refused(params: Params) -> None:
    files = {"network": "trunk", "weights": "a/trunk.safetensors", "heads": "b/heads.safetensors"}
    with pytest.raises(ValueError, match="of one folder"):
        parameters.check({**params.model_dump(mode="json"), "perceptual": files}, "changed")
