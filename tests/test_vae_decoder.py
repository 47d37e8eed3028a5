"""Retuned decoders: what is trained and what is left alone, whole and in crops; they load, sample, and are measured."""

import hashlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, VQModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import params, paths
from atelier.data import prepare
from atelier.data.images import to_model_range, to_pixels
from atelier.data.latents import Moments, decode, encode_pictures
from atelier.measures import vae_decoder as measures
from atelier.measures.sets import group
from atelier.metrics import kernel_distance, log_power_error, mean_power_spectrum
from atelier.models import base
from atelier.models.autoencoders import decoder_parameters, digest, load_like
from atelier.params import LossWeights
from atelier.sampling import stages, store
from atelier.training import art_finetuning, vae_decoder
from atelier.training.order import Pick
from atelier.training.vae_decoder import Crop, retuning_loss

SCOPES = ("upsamplers", "up_blocks", "decoder")


@pytest.fixture
def asked(in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> params.Params:
    for name in ("ADAPTERS", "DECODERS", "SAMPLES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return params.load()


def changed(asked: params.Params, **values: object) -> params.Params:
    content = asked.model_dump(mode="json")
    return params.check({**content, "vae_decoder": {**content["vae_decoder"], **values}}, "changed")


def tiny_autoencoder() -> AutoencoderTiny:
    torch.manual_seed(3)
    return AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8))


# ---------------------------------------------------------------------------------------------- scopes


def test_scopes_are_nested_parts_of_the_decoder_and_upsamplers_are_its_upscaling_convolutions(
    asked: params.Params,
) -> None:
    for vae in (base.load(paths.BASE).vae, tiny_autoencoder()):
        names = [set(decoder_parameters(vae, scope)) for scope in SCOPES]
        assert names[0] < names[1] < names[2]
        assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in names[2])
        assert names[2] == {name for name, _ in vae.named_parameters() if not name.startswith(("encoder", "quant"))}
    kl = set(decoder_parameters(base.load(paths.BASE).vae, "upsamplers"))
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
    asked: params.Params, tmp_path: Path
) -> None:
    vae = base.load(paths.BASE).vae
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
    asked: params.Params, kind: str, crop: int
) -> None:
    table = prepare.works().table.query("split == 'train'")
    pictures = prepare.pictures(table, asked.data)[:6]
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=1.0)
    gradients: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        vae: ModelMixin = base.load(paths.BASE).vae if kind == "kl" else tiny_autoencoder()
        latents = encode_pictures(vae, pictures)
        if checkpointing:
            vae.enable_gradient_checkpointing()
        trainable = decoder_parameters(vae, "upsamplers")
        names = [f"work-{at}" for at in range(6)]
        job = vae_decoder.task(
            vae, trainable, weights, None, latents, pictures, names, crop=crop, seed=1, device=torch.device("cpu")
        )
        terms = job.losses([Pick(0, 0), Pick(3, 0), Pick(5, 2)])
        torch.stack(list(terms.values())).sum().backward()
        found = {name: p.grad for name, p in vae.named_parameters() if p.grad is not None}
        assert set(found) == set(trainable)
        assert all(float(gradient.abs().sum()) > 0 for gradient in found.values())
        gradients.append(found)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-8)


def test_crops_are_drawn_by_seed_name_and_epoch_and_reach_every_place(asked: params.Params) -> None:
    seen: list[tuple[int, int]] = []

    class Spy(torch.nn.Module):
        config = AutoencoderTiny().config

        def decode(self, z: Tensor) -> object:
            seen.extend((int(one[0, 0, 0]) // 100, int(one[0, 0, 0]) % 100) for one in z)
            picture = torch.zeros(len(z), 3, 32, 32, requires_grad=True)
            return type("Output", (), {"sample": picture})

    places = 100.0 * torch.arange(8).view(8, 1) + torch.arange(8)
    latents = Moments(places.view(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=0.0)
    job = vae_decoder.task(
        Spy(), {}, weights, None, latents, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a"],
        crop=32, seed=5, device=torch.device("cpu"),
    )  # fmt: skip
    for epoch in range(300):
        job.losses([Pick(0, epoch)])
    first = list(seen)
    assert set(first) == {(top, left) for top in range(5) for left in range(5)}
    seen.clear()
    job.losses([Pick(0, epoch) for epoch in range(300)])
    assert seen == first


# ---------------------------------------------------------------------------------------------- the stage


@pytest.mark.parametrize(("crop", "scope"), [(0, "upsamplers"), (32, "up_blocks"), (0, "decoder")])
def test_what_is_outside_the_scope_is_unchanged_to_the_bit_and_the_pipeline_paints(
    asked: params.Params, crop: int, scope: str
) -> None:
    weights = asked.vae_decoder.decoders["all"].model_copy(update={"scope": scope})
    own = changed(asked, crop=crop, decoders={"all": weights.model_dump()}, variants=["all"])
    before = base.load(paths.BASE)
    vae_decoder.train(own, "all", 0)
    folder = vae_decoder.retuned_folder("all", 0)
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
        paths.BASE, vae=vae, safety_checker=None, requires_safety_checker=False, local_files_only=True
    )
    assert all(torch.equal(one, two) for one, two in zip(
        pipeline.unet.state_dict().values(), before.unet.state_dict().values(), strict=True))  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a boat", num_inference_steps=2, height=64, width=64, output_type="pt").images
    assert picture.shape == (1, 3, 64, 64)
    card = json.loads((folder / "card.json").read_text())
    expected = hashlib.sha256(Path("data/trunk/trunk.safetensors").read_bytes()).hexdigest()
    assert card["perceptual"]["weights"] == expected  # by content: a name does not say which network taught it
    history = (folder / "history.csv").read_text().splitlines()[0]
    assert set(history.split(",")) == {"step", "learning_rate", "mse", "lpips", "ffl"}


def test_a_tiny_autoencoder_is_retuned_saved_and_loaded(asked: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, tiny = base.load(paths.BASE), tiny_autoencoder()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    monkeypatch.setattr(vae_decoder.base, "load", lambda _: SimpleNamespace(vae=tiny))
    vae_decoder.train(asked, "mse", 0)
    folder = vae_decoder.retuned_folder("mse", 0) / "vae"
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


def test_retuning_brings_reconstructions_nearer_to_the_works(asked: params.Params) -> None:
    long = {**asked.vae_decoder.optimisation.model_dump(mode="json"), "steps": 60}
    own = changed(asked, optimisation=long)
    table = prepare.works().table.query("split == 'train'")
    pictures = prepare.pictures(table, asked.data)
    vae = base.load(paths.BASE).vae
    latents = encode_pictures(vae, pictures).mean
    vae_decoder.train(own, "mse", 0)
    after = load_like(vae, vae_decoder.retuned_folder("mse", 0) / "vae")
    errors = [float((decode(each, latents) - to_model_range(pictures)).square().mean()) for each in (vae, after)]
    assert errors[1] < 0.9 * errors[0]


def test_a_crop_of_no_whole_latent_elements_is_refused(asked: params.Params) -> None:
    latents = Moments(torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4))
    weights = LossWeights(scope="upsamplers", mse=1.0, lpips=0.0, ffl=0.0)
    with pytest.raises(ValueError, match="crop: 24 px are no whole number of latent elements of 16 px"):
        vae_decoder.task(
            tiny_autoencoder(), {}, weights, None, latents, torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["a"],
            crop=24, seed=5, device=torch.device("cpu"),
        )  # fmt: skip


def test_unknown_variants_and_seeds_are_refused(asked: params.Params) -> None:
    with pytest.raises(ValueError, match="no variant 'best', there are mse, all"):
        vae_decoder.train(asked, "best", 0)
    with pytest.raises(ValueError, match="training_seeds: 7 is none of them"):
        vae_decoder.train(asked, "mse", 7)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"decoders": {"mse": {"scope": "upsamplers", "mse": 0.0, "lpips": 0.0, "ffl": 0.0}}, "variants": ["mse"]},
         "nothing to learn from"),
        ({"variants": ["mse"]}, "must name each of the decoders once"),
        ({"perceptual": {"network": "trunk", "weights": "a/trunk.safetensors", "heads": "b/heads.safetensors"}},
         "of one folder"),
        ({"crop": 128}, "crop: 128 px is more than the pictures' 64"),
        ({"crop": 12}, "multiple of 8"),
        ({"models": ["other"]}, "expected some of untuned"),
        ({"guidance": [5.0]}, "vae_decoder.guidance"),
    ],
)  # fmt: skip
def test_parameters_that_ask_for_nothing_are_refused(asked: params.Params, values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed(asked, **values)


# ---------------------------------------------------------------------------------------------- measures


def test_reconstructions_are_measured_against_their_own_works(asked: params.Params) -> None:
    for seed in asked.art_finetuning.training_seeds:
        vae_decoder.train(asked, "mse", seed)
    measures.repaint(asked, ["mse"])
    (parts,) = measures.repainted(asked, ["mse"])
    held_out = prepare.works().table.query("split == 'test'")
    assert sum(len(part.works) for part in parts) == len(held_out)
    vae = load_like(base.load(paths.BASE).vae, vae_decoder.retuned_folder("mse", 1) / "vae")
    expected = to_pixels(decode(vae, encode_pictures(vae, parts[1].works).mean))
    assert int((parts[1].made.int() - expected.int()).abs().max()) <= 1
    (returned,) = measures.reconstructions(asked, ["mse"], measures.Networks({}, None))
    rows = measures.reconstruction_rows(returned, "mse")
    whole = rows[rows["style"] == ""].set_index("measure")
    works, made = (torch.cat([getattr(part, name) for part in parts]) / 255 for name in ("works", "made"))
    error = float((works.double() - made.double()).square().mean())
    assert whole.loc["mse", "whole"] == pytest.approx(error)
    assert whole.loc["psnr", "whole"] == pytest.approx(-10 * math.log10(error))
    high = log_power_error(mean_power_spectrum(works), mean_power_spectrum(made), above=16)
    assert whole.loc["high", "whole"] == pytest.approx(high)
    # a mean's pseudo-values are the groups' own sums, rescaled: their mean is the mean
    assert np.mean(whole.loc["mse", ["group0", "group1"]].to_numpy(float)) == pytest.approx(error, rel=0.3)


def test_a_judge_sees_works_and_reconstructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through pixels' means for features: the kernel distance of all parts' works to all parts' reconstructions."""
    monkeypatch.setattr(measures, "features", lambda _, x: x.double().mean((2, 3)).numpy())
    generator = torch.Generator().manual_seed(0)
    works, made = (torch.randint(256, (12, 3, 32, 32), dtype=torch.uint8, generator=generator) for _ in range(2))
    judge = measures.Networks({}, object())  # type: ignore[arg-type]
    device = torch.device("cpu")
    parts = [
        measures.returned(group(works[at], None), works[at], made[at], None, judge, device)
        for at in (slice(0, 5), slice(5, 12))
    ]
    real, ours = ((x.double() / 255).mean((2, 3)).numpy() for x in (works, made))
    assert measures.measures_of(parts)["kid_judge"] == pytest.approx(kernel_distance(real, ours))
    unjudged = measures.returned(group(works, None), works, made, None, measures.Networks({}, None), device)
    assert "kid_judge" not in measures.measures_of([unjudged])


def test_the_original_decoder_on_stored_latents_gives_the_stored_pictures(asked: params.Params) -> None:
    stages.sample_variant(asked, "untuned")
    pictures, _ = store.read("art_finetuning", "untuned", 4.0)
    vae = measures.decoders(asked, measures.ORIGINAL)[asked.art_finetuning.training_seeds[0]]
    again = to_pixels(measures.paint(vae, store.read_latents("art_finetuning", "untuned", 4.0), asked.sampling.batch))
    assert torch.equal(again, pictures)


def test_every_cell_that_claims_need_is_there(asked: params.Params) -> None:
    cells = measures.cells(asked)
    assert cells["mixed+all@1/4"] == ("art_finetuning", "mixed", 4.0, "all")
    assert cells["untuned-decoder@0/4"] == ("prompt_enrichment", "untuned/level-0", 4.0, "all")


def test_the_stage_measures_all_of_it(asked: params.Params) -> None:
    for seed in asked.art_finetuning.training_seeds:
        for variant in asked.vae_decoder.variants:
            vae_decoder.train(asked, variant, seed)
        art_finetuning.train(asked, "mixed", seed)
    for model in ("untuned", "mixed"):
        stages.sample_variant(asked, model)
        stages.sample_levels(asked, model)
    table = measures.measure_all(asked)
    assert set(table["cell"]) == {"original", "mse", "all", *measures.cells(asked)}
    lpips = table[(table["measure"] == "lpips") & (table["style"] == "")].set_index("cell")["whole"]
    assert (lpips > 0).all()
    one, other = (table[(table["cell"] == cell) & (table["measure"] == "pr")]["whole"].item() for cell in
                  ("mixed+mse@1/4", "mixed+all@1/4"))  # fmt: skip
    assert one != other
