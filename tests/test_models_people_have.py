"""Models as people have them: Stable Diffusion 1.5, 2.1 and XL in shape, in all forms in which folders hold weights."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import cli, params
from atelier.evaluation.rewards import brightness
from atelier.methods.latent_perceptual import latent_perceptual_loss
from atelier.methods.pixel_space import pixel_errors
from atelier.methods.rejection import Kept
from atelier.methods.signal_leak import FrequencyLeak, initial_latents
from atelier.models import base
from atelier.models.adapters import WEIGHTS, load_adapter, tuned
from atelier.models.autoencoders import decoder_parameters, decoder_stages
from atelier.models.export import export
from atelier.models.latents import encode_pictures, encode_prompts, unscaled
from atelier.params import Params
from atelier.sampling import sampler
from atelier.sampling.graft import graft
from atelier.sampling.prompted import Prompted
from atelier.training.base import fetch
from atelier.training.lora import TARGETS, add_adapter, save_adapter
from atelier.workspace import Workspace
from shapes import ALL, FOR_STUDIES, PROMPTS, SCHEDULERS, change, pipeline_of, published

pytestmark = pytest.mark.usefixtures("one_thread")
UNET, TEXT = "unet/diffusion_pytorch_model", "text_encoder/model"
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each model, not to be changed."""
    root = tmp_path_factory.mktemp("published")
    return {name: published(name, root / name) for name in ALL}


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of 2.1's."""
    return Path(shutil.copytree(folders["2.1"], tmp_path / "sd"))


def states(pipeline: Any, half: bool = False) -> dict[str, Tensor]:
    listed = {f"{part}.{name}": x for part in PARTS for name, x in getattr(pipeline, part).state_dict().items()}
    return {name: x.half().float() if half else x for name, x in listed.items()}


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(x, two[name]) for name, x in one.items())


def refusal(call: Callable[[], object], *words: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words follow
        call()
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert all(word in line for word in words), line
    return line


# ------------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize("name", FOR_STUDIES)
def test_folders_as_published_are_loaded_with_their_weights_words_and_sampler(
    folders: dict[str, Path], name: str
) -> None:
    loaded, made = base.load(folders[name]), pipeline_of(name)
    assert equal(states(loaded), states(made))
    assert torch.equal(base.prompt_ids(loaded.tokenizer, PROMPTS), base.prompt_ids(made.tokenizer, PROMPTS))
    assert type(loaded.scheduler) is type(SCHEDULERS[name])
    assert loaded.scheduler.config.prediction_type == ("v_prediction" if name == "2.1-v" else "epsilon")
    assert (loaded.safety_checker, loaded.feature_extractor) == (None, None)


def test_a_pipeline_that_studies_cannot_have_is_refused_with_the_reason(folders: dict[str, Path]) -> None:
    index = folders["XL"] / "model_index.json"
    refusal(lambda: base.load(folders["XL"]), str(index), "StableDiffusionXLPipeline", "one text encoder", "models.md")


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}], ids=["whole", "sharded"])
def test_a_variant_in_half_precision_is_read_where_no_other_is_there(
    tmp_path: Path, variant: str, options: dict[str, str]
) -> None:
    folder = published("2.1", tmp_path / "sd", variant=variant, **options)
    sharded = (folder / f"{UNET}.safetensors.index.{variant}.json").is_file()
    assert sharded == bool(options)
    assert equal(states(base.load(folder)), states(pipeline_of("2.1")))


def test_numbers_in_half_precision_become_full_and_parts_may_differ(folder: Path) -> None:
    """The denoiser alone has a variant, as where one part was converted; its numbers are those of the file."""
    state = load_file(folder / f"{UNET}.safetensors")
    (folder / f"{UNET}.safetensors").unlink()
    save_file({name: x.half() for name, x in state.items()}, folder / f"{UNET}.fp16.safetensors", {"format": "pt"})
    loaded, made = base.load(folder), states(pipeline_of("2.1"))
    assert {x.dtype for x in states(loaded).values() if x.is_floating_point()} == {torch.float32}
    rounded = states(pipeline_of("2.1"), half=True)
    assert equal(states(loaded), made | {name: x for name, x in rounded.items() if name.startswith("unet.")})


def test_full_precision_is_preferred_and_weights_for_other_ends_are_none(folder: Path) -> None:
    state = load_file(folder / f"{UNET}.safetensors")
    other = {name: x + 1 for name, x in state.items()}
    for variant in ("fp16", "non_ema"):
        save_file(other, folder / f"{UNET}.{variant}.safetensors", {"format": "pt"})
    assert equal(states(base.load(folder)), states(pipeline_of("2.1")))
    (folder / f"{UNET}.safetensors").unlink()
    (folder / f"{UNET}.fp16.safetensors").unlink()
    said = refusal(lambda: base.load(folder), str(folder / f"{UNET}.safetensors"))
    assert said.endswith("read from safetensors only; it holds diffusion_pytorch_model.non_ema.safetensors")


def test_shards_of_every_part_are_read_and_all_are_needed(tmp_path: Path) -> None:
    folder = published("1.5", tmp_path / "sd", max_shard_size="20KB")
    for stem in (UNET, TEXT):
        assert (folder / f"{stem}.safetensors.index.json").is_file()
    assert equal(states(base.load(folder)), states(pipeline_of("1.5")))
    first = sorted((folder / "unet").glob("*-00001-of-*"))[0]
    first.unlink()
    refusal(lambda: base.load(folder), str(first))


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_checkpoint_in_one_file_is_refused_with_what_to_do_and_never_unpickled(
    tmp_path: Path, suffix: str, inside: bool
) -> None:
    file = tmp_path / "models" / f"v1-5{suffix}"
    file.parent.mkdir()
    torch.save({"x": Trap(tmp_path / "mark")}, file)
    said = refusal(lambda: base.load(file.parent if inside else file), str(file), "from_single_file", "save_pretrained")
    assert ("pickle" in said) == (suffix != ".safetensors")
    assert not (tmp_path / "mark").exists()


def test_statistics_by_channel_are_refused_where_they_would_be_ignored(folder: Path) -> None:
    change(folder / "vae/config.json", latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    refusal(lambda: base.load(folder), str(folder / "vae/config.json"), "latents_mean")
    vae = pipeline_of("XL").vae
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    refusal(lambda: unscaled(vae, torch.zeros(1, 4, 8, 8)), "latents_mean")
    refusal(lambda: encode_pictures(vae, torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), "latents_mean")


# ------------------------------------------------------------------------------------------------ fingerprints


def test_what_differs_between_machines_is_not_in_the_fingerprint(folder: Path) -> None:
    before = base.fingerprint(folder)
    change(folder / "model_index.json", _diffusers_version="0.21.4", _name_or_path="/home/a/sd")
    for part in ("unet", "vae"):
        change(folder / part / "config.json", _diffusers_version="0.8.0", _name_or_path=f"/scratch/sd/{part}")
    change(folder / "text_encoder/config.json", transformers_version="4.25.0", torch_dtype="float32", dtype=None)
    change(folder / "scheduler/scheduler_config.json", _diffusers_version="0.10.0")
    change(folder / "tokenizer/tokenizer_config.json", name_or_path="/home/b", special_tokens_map_file="/home/c.json")
    shutil.copyfile(folder / f"{UNET}.safetensors", folder / "v2-1_512-ema-pruned.safetensors")
    shutil.copyfile(folder / f"{UNET}.safetensors", folder / f"{UNET}.fp16.safetensors")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "config.json").write_text("{}")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "download.json").write_text("{}")
    assert base.fingerprint(folder) == before


@pytest.mark.parametrize(("file", "values"), [
    ("model_index.json", {"_class_name": "Other"}),
    ("unet/config.json", {"sample_size": 96}),
    ("vae/config.json", {"scaling_factor": 0.2}),
    ("text_encoder/config.json", {"hidden_act": "gelu"}),
    ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
    ("tokenizer/tokenizer_config.json", {"model_max_length": 20}),
])  # fmt: skip
def test_what_a_model_does_is_in_the_fingerprint(folder: Path, file: str, values: dict[str, Any]) -> None:
    before = base.fingerprint(folder)
    change(folder / file, **values)
    assert base.fingerprint(folder) != before


def test_weights_and_words_are_in_the_fingerprint_shards_too(folder: Path, tmp_path: Path) -> None:
    sharded = published("2.1", tmp_path / "shards", max_shard_size="20KB")
    shard = sorted((sharded / "unet").glob("*.safetensors"))[-1]
    for root, file in (
        (folder, folder / f"{UNET}.safetensors"),
        (sharded, shard),
        (folder, folder / "tokenizer/vocab.json"),
    ):
        before = base.fingerprint(root)
        file.write_bytes(file.read_bytes() + b" ")
        assert base.fingerprint(root) != before


# ------------------------------------------------------------------------------------------------ the stage


def told(config: Params, **values: object) -> Params:
    content = config.model_dump(mode="json")
    return params.check({**content, "base": {**content["base"], **values}}, "told")


@pytest.mark.parametrize("name", FOR_STUDIES)
def test_the_stage_takes_a_folder_as_it_is(
    folders: dict[str, Path], name: str, workspace: Workspace, tmp_path: Path
) -> None:
    empty = Workspace(tmp_path / "empty")
    fetch(told(params.load(workspace.params_file), source="folder", location=str(folders[name])), empty)
    assert equal(states(base.load(empty.base)), states(pipeline_of(name)))


@pytest.mark.parametrize("full", [True, False])
def test_a_repository_with_half_precision_alone_is_fetched_so(
    full: bool, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full precision is asked for first, because a repository that has both is twice as large."""
    repository = published("2.1", tmp_path / "repository", variant="fp16")
    if full:
        pipeline_of("2.1").save_pretrained(repository)
    asked: list[list[str]] = []

    def snapshot(location: str, *, revision: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        paths = [path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()]
        patterns = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        asked.append(sorted(huggingface_hub.utils.filter_repo_objects(paths, **patterns)))
        for path in asked[-1]:
            (tmp_path / "snapshot" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / path, tmp_path / "snapshot" / path)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    empty, config = Workspace(tmp_path / "empty"), params.load(workspace.params_file)
    fetch(told(config, source="hub", location="somebody/sd", revision="0" * 40), empty)
    assert equal(states(base.load(empty.base)), states(pipeline_of("2.1")))
    assert len(asked) == (1 if full else 2)
    assert any("fp16" in path for path in asked[-1]) != full


# ------------------------------------------------------------------------------------------------ functions


def pictures(n: int = 4) -> Tensor:
    return torch.randint(0, 256, (n, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("name", ALL)
def test_a_leak_of_any_model_changes_the_first_latent_and_its_pictures(name: str) -> None:
    """As the model's scheduler adds noise to a sample of the leak, in units of its first noise."""
    pipe, steps = pipeline_of(name), 3
    leak = FrequencyLeak.fit([encode_pictures(pipe.vae, pictures()).mean], frequencies=3)
    first = initial_latents(leak, pipe.scheduler, 2, torch.Generator().manual_seed(2), steps)
    drawn, grid = torch.Generator().manual_seed(2), type(pipe.scheduler).from_config(pipe.scheduler.config)
    noise = torch.randn(2, 4, 8, 8, generator=drawn)
    grid.set_timesteps(steps)
    mixed = grid.add_noise(leak.sample(2, drawn), noise, grid.timesteps[:1].repeat(2))
    torch.testing.assert_close(first, mixed / grid.init_noise_sigma, rtol=0, atol=1e-5)
    asked = {"guidance": 2.0, "steps": steps, "batch": 2}
    with_leak = sampler.sample(pipe, PROMPTS, first, **asked)
    without = sampler.sample(pipe, PROMPTS, noise, **asked)
    assert with_leak.pictures.shape == (2, 3, 64, 64)
    assert torch.isfinite(with_leak.pictures).all()
    assert not torch.equal(with_leak.pictures, without.pictures)


@pytest.mark.parametrize("name", ALL)
def test_every_decoder_has_its_parameters_stages_and_loss(name: str) -> None:
    vae = pipeline_of(name).vae.requires_grad_(False)
    sizes = [len(decoder_parameters(vae, scope)) for scope in ("upsamplers", "up_blocks", "decoder")]
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    latents = encode_pictures(vae, pictures()).mean
    guess = (latents + 0.1).requires_grad_()
    wanted, made = (decoder_stages(vae, unscaled(vae, z), depth=5) for z in (latents, guess))
    latent_perceptual_loss(wanted, made, picture_side=64).sum().backward()
    assert guess.grad is not None
    assert guess.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ALL)
def test_the_pixel_loss_reaches_every_denoiser_by_what_its_pipeline_tells_it(name: str) -> None:
    pipe = pipeline_of(name)
    pipe.vae.requires_grad_(False)
    z0, eps = encode_pictures(pipe.vae, pictures(2)).mean, torch.randn(2, 4, 8, 8)
    t, seen = torch.tensor([100, 700]), [0, 1]
    zt = pipe.scheduler.add_noise(z0, eps, t)
    if name == "XL":  # its scheduler adds noise in units of the signal, losses are of alpha z_0 + s eps
        abar = pipe.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        zt = abar.sqrt() * z0 + (1 - abar).sqrt() * eps
    output = Prompted.of(pipe, PROMPTS, z0).call(pipe.unet, [0, 1])(zt, t, seen, [False, False])
    if name != "XL":
        direct = pipe.unet(zt, t, encode_prompts(pipe, PROMPTS)).sample
        torch.testing.assert_close(output, direct, rtol=0, atol=1e-6)
    pixel_errors(pipe, z0, eps, t, output).mean().backward()
    assert pipe.unet.conv_in.weight.grad.abs().sum() > 0
    abar = pipe.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    kind = pipe.scheduler.config.prediction_type
    perfect = abar.sqrt() * eps - (1 - abar).sqrt() * z0 if kind == "v_prediction" else eps
    assert pixel_errors(pipe, z0, eps, t, perfect).max() < 1e-6


def test_words_alone_are_refused_for_a_denoiser_that_is_told_more() -> None:
    refusal(lambda: encode_prompts(pipeline_of("XL"), PROMPTS), "StableDiffusionXLPipeline", "Prompted")


@pytest.mark.parametrize("name", ALL)
def test_every_model_is_shaped_by_a_reward_and_its_adapter_is_loaded_again(name: str, tmp_path: Path) -> None:
    pipe = pipeline_of(name)
    asked: dict[str, Any] = {"each": 4, "rule": Kept.top_k(2, 4), "steps": 3, "batch": 4, "rank": 2, "updates": 3}
    done = graft(pipe, brightness, PROMPTS, tmp_path, **asked, learning_rate=0.01, tell=lambda _: None)
    assert done.accepted_reward > done.reward
    again = pipeline_of(name)
    load_adapter(again, tmp_path)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    one, two, plain = (sampler.sample(each, PROMPTS, noise, guidance=1.0, steps=2, batch=2).latents
                       for each in (pipe, again, pipeline_of(name)))  # fmt: skip
    assert torch.equal(one, two)
    assert not torch.equal(one, plain)


# ------------------------------------------------------------------------------------------------ adapters for others

EVERY_LAYER = ("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_in", "conv", "time_emb_proj",
               "linear_1", "linear_2", *TARGETS)  # fmt: skip


def trained(name: str, folder: Path, targets: Any = TARGETS) -> Path:
    """An adapter that a training here could have written."""
    unet = pipeline_of(name).unet
    for parameter in add_adapter(unet, 3, 1, targets).values():
        torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(unet, folder, {})
    return folder


def output_of(pipe: Any) -> Tensor:
    """A denoiser's output for fixed inputs."""
    drawn = torch.Generator().manual_seed(4)
    z, words = torch.randn(2, 4, 8, 8, generator=drawn), torch.randn(2, 5, 32, generator=drawn)
    more = {
        "text_embeds": torch.randn(2, 16, generator=drawn),
        "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2),
    }
    unet: UNet2DConditionModel = pipe.unet
    words = words[..., : unet.config.cross_attention_dim]
    with torch.no_grad():
        made: Tensor = unet(z, torch.tensor([10, 900]), words, added_cond_kwargs=more).sample
    return made


@pytest.mark.parametrize("targets", [TARGETS, EVERY_LAYER], ids=["attention", "every layer"])
@pytest.mark.parametrize("kind", ["kohya", "diffusers"])
@pytest.mark.parametrize("name", ["1.5", "2.1", "XL"])
def test_an_exported_adapter_is_the_same_to_diffusers_and_to_us(
    name: str, kind: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    if name == "XL":  # linear_1 and linear_2 of the added embedding: see below
        targets = tuple(each for each in targets if each not in ("linear_1", "linear_2"))
    folder, out = trained(name, tmp_path / "adapter", targets), tmp_path / "out" / WEIGHTS
    layers = export(folder, out, kind)
    ours, theirs, plain = pipeline_of(name), pipeline_of(name), output_of(pipeline_of(name))
    load_adapter(ours, folder)
    wanted = output_of(ours)
    assert (wanted - plain).abs().max() > 1e-2
    theirs.load_lora_weights(str(out.parent), weight_name=out.name)
    error = float((output_of(theirs) - wanted).abs().max())
    again = pipeline_of(name)
    load_adapter(again, out.parent)
    print(f"{name}, {kind}: {layers} layers, largest error {error:.2g}")
    assert error <= 1e-6
    assert torch.equal(output_of(again), output_of(theirs))
    assert (output_of(tuned(pipeline_of(name), out.parent)) - wanted).abs().max() < 1e-4  # merged


def test_names_and_alpha_are_those_of_the_formats(tmp_path: Path) -> None:
    folder = trained("1.5", tmp_path / "adapter")
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    export(folder, tmp_path / "k.safetensors", "kohya")
    export(folder, tmp_path / "d.safetensors", "diffusers")
    mine = load_file(folder / WEIGHTS)
    kohya, theirs = load_file(tmp_path / "k.safetensors"), load_file(tmp_path / "d.safetensors")
    name = f"lora_unet_{layer.replace('.', '_')}"
    assert torch.equal(kohya[f"{name}.lora_down.weight"], mine[f"unet.{layer}.lora_A.weight"])
    assert torch.equal(kohya[f"{name}.lora_up.weight"], mine[f"unet.{layer}.lora_B.weight"])
    assert kohya[f"{name}.alpha"].item() == 3.0
    assert kohya[f"{name}.alpha"].dtype == torch.float32
    assert torch.equal(theirs[f"unet.{layer}.lora.down.weight"], mine[f"unet.{layer}.lora_A.weight"])
    assert len(kohya) == len(mine) * 3 / 2
    assert len(theirs) == len(mine)


def test_another_alpha_of_an_adapter_by_kohyas_scripts_is_heeded(tmp_path: Path) -> None:
    folder = trained("1.5", tmp_path / "adapter")
    for alpha, scale in ((3.0, 1.0), (1.5, 0.5)):
        out = tmp_path / str(alpha) / WEIGHTS
        export(folder, out, "kohya")
        state = load_file(out)
        save_file({name: torch.tensor(alpha) if name.endswith(".alpha") else x for name, x in state.items()}, out)
        halved = {name: x * scale if ".lora_B." in name else x for name, x in load_file(folder / WEIGHTS).items()}
        (tmp_path / f"by-{scale}").mkdir()
        save_file(halved, tmp_path / f"by-{scale}" / WEIGHTS)
        pipes = []
        for each in (out.parent, tmp_path / f"by-{scale}"):
            pipes.append(pipeline_of("1.5"))
            load_adapter(pipes[-1], each)
        torch.testing.assert_close(output_of(pipes[0]), output_of(pipes[1]), rtol=0, atol=1e-6)


def test_a_layer_without_a_name_in_the_format_is_refused(tmp_path: Path) -> None:
    folder = trained("XL", tmp_path / "adapter", ("linear_1", "linear_2"))
    refusal(lambda: export(folder, tmp_path / "k.safetensors", "kohya"), WEIGHTS, "'add_embedding.linear_1'", "kohya")
    assert not (tmp_path / "k.safetensors").exists()
    assert export(folder, tmp_path / "d.safetensors", "diffusers") == 4


def test_the_command_exports_and_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = trained("1.5", tmp_path / "adapter"), tmp_path / "style.safetensors"
    assert cli.main(["export", str(folder), "--format", "kohya", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: {len(load_file(out)) // 3} layers in the names of kohya\n"
    (tmp_path / "denoiser" / "unet").mkdir(parents=True)
    (tmp_path / "spoilt").mkdir()
    save_file({"unet.x.lora_A.weight": torch.full((2, 2), np.nan)}, tmp_path / "spoilt" / WEIGHTS)
    (tmp_path / "again").mkdir()
    shutil.copyfile(out, tmp_path / "again" / WEIGHTS)
    new = str(tmp_path / "new.safetensors")
    for arguments, said in {
        (str(folder), "--format", "kohya", str(out)): "is there already",
        (str(folder), "--format", "webui", new): "expected kohya or diffusers",
        (str(folder), "--format", "kohya", str(tmp_path / "x.bin")): "ends in .safetensors",
        (str(tmp_path), "--format", "kohya", new): f"holds no {WEIGHTS}",
        (str(tmp_path / "denoiser"), "--format", "kohya", new): "a whole denoiser",
        (str(tmp_path / "spoilt"), "--format", "kohya", new): "not all finite",
        (str(tmp_path / "again"), "--format", "kohya", new): "no matrix of a U-Net's adapter",
        (str(folder), new): "usage: python -m atelier export",
        (str(folder), new, "--format"): "usage: python -m atelier export",
    }.items():
        assert cli.main(["export", *arguments]) == 1
        line = capsys.readouterr().err
        assert said in line
        assert len(line.splitlines()) == 1
    assert json.loads((folder / "card.json").read_text()) == {}
