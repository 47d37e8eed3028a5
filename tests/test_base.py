"""The base model: built, saved, loaded; its latents' statistics; the linear code that its autoencoder starts from."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier import params as parameters
from atelier.models import base
from atelier.models.linear_start import start_at_linear_code
from atelier.params import Optimisation
from atelier.seeds import torch_generator
from atelier.training import autoencoder
from atelier.training.base import train
from atelier.training.loop import Task, fit
from atelier.training.order import Turn
from linked import linked

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["a harbour at night", "two cats on a mat, in the manner of nobody", "", "Ærø über 東京 🙂"]


@pytest.fixture(scope="module")
def built() -> StableDiffusionPipeline:
    return base.build("tiny", 64, TEXTS, seed=1)


@pytest.fixture(scope="module")
def saved(built: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "one"
    base.save(built, folder, {"source": "test"})
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def states(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    parts = {"vae": pipeline.vae, "unet": pipeline.unet, "text": pipeline.text_encoder}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def test_what_was_saved_is_loaded(built: StableDiffusionPipeline, saved: Path) -> None:
    loaded = base.load(saved)
    one, two = states(built), states(loaded)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {value.dtype for value in two.values() if value.is_floating_point()} == {torch.float32}
    assert torch.equal(base.prompt_ids(built.tokenizer, TEXTS), base.prompt_ids(loaded.tokenizer, TEXTS))
    assert type(base.scheduler_of(saved)) is type(built.scheduler)
    assert dict(base.scheduler_of(saved).config) == dict(loaded.scheduler.config)


def test_only_safetensors_and_no_pickle_is_written(saved: Path) -> None:
    weights = {path.suffix for path in saved.rglob("*") if path.stat().st_size > 300_000}
    assert weights == {".safetensors"}
    assert not [*saved.rglob("*.bin"), *saved.rglob("*.pt"), *saved.rglob("*.ckpt")]


def test_a_base_does_not_depend_on_where_it_was_read(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's path in a configuration would change the fingerprint, and tell."""
    base.save(base.load(saved), tmp_path / "fetched", {"source": "test"})
    assert base.fingerprint(tmp_path / "fetched") == base.fingerprint(saved)
    shutil.copytree(saved, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    base.save(base.load(Path("data")), tmp_path / "again", {"source": "test"})
    assert base.fingerprint(tmp_path / "again") == base.fingerprint(saved)
    for path in (tmp_path / "fetched").rglob("*.json"):
        assert str(saved.parent) not in path.read_text()


@pytest.mark.parametrize("file", ["unet/config.json", "model_index.json", "tokenizer/tokenizer.json",
                                  "vae/diffusion_pytorch_model.safetensors"])  # fmt: skip
def test_the_fingerprint_knows_every_part_but_the_card(saved: Path, copy: Path, file: str) -> None:
    (copy / "card.json").write_text("{}")
    (copy / "history.csv").write_text("step\n")
    assert base.fingerprint(copy) == base.fingerprint(saved)
    if file.endswith(("index.json", "config.json")):  # by content
        content = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps(content))
        assert base.fingerprint(copy) == base.fingerprint(saved)
        (copy / file).write_text(json.dumps(content | {"_class_name": "Another"}))
    else:
        with (copy / file).open("ab") as handle:
            handle.write(b" ")
    assert base.fingerprint(copy) != base.fingerprint(saved)


@pytest.mark.long
def test_two_processes_build_the_same_bytes(saved: Path, tmp_path: Path, run_python) -> None:
    """The tokenizer's training is threaded and hashes words; neither may show."""
    code = (
        "import sys, pathlib; from atelier.models import base; from atelier.data.prompts import templates\n"
        "texts = [line for lines in templates().values() if isinstance(lines, list) for line in lines] * 3\n"
        "out = pathlib.Path(sys.argv[1]); base.save(base.build('tiny', 64, texts, 4), out, {})\n"
        "print(base.fingerprint(out))"
    )
    said = [
        run_python("-c", code, name, cwd=tmp_path, PYTHONHASHSEED=seed, RAYON_NUM_THREADS=threads)
        for name, seed, threads in (("a", "1", "1"), ("b", "2", "2"))
    ]
    assert said[0].returncode == 0, said[0].stderr
    assert said[0].stdout == said[1].stdout
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_words_are_cut_as_clip_cuts_them_and_none_is_unknown(built: StableDiffusionPipeline) -> None:
    ids = base.prompt_ids(built.tokenizer, [*TEXTS, "word " * 500])
    assert ids.shape == (5, base.MAX_TOKENS)
    assert ids.dtype == torch.int64
    assert set(ids[:, 0].tolist()) == {built.tokenizer.bos_token_id}
    assert int(ids[4, -1]) == built.tokenizer.eos_token_id
    assert built.tokenizer.decode(ids[3], skip_special_tokens=True).strip() == TEXTS[3].lower()
    with pytest.raises(ValueError, match="at least one text"):
        base.train_tokenizer([], 700)


# --------------------------------------------------------------------------------------------------------- refusals


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match=str(folder)) as caught:
        base.load(folder)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: not a diffusers pipeline, model_index.json is missing"
    with pytest.raises(ValueError, match="holds no safetensors"):
        base.fingerprint(tmp_path)


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(("part", "good", "bad"), [
    ("unet", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    ("vae", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    ("text_encoder", "model.safetensors", "pytorch_model.bin"),
])  # fmt: skip
def test_pickled_weights_are_refused_whatever_they_are_called(
    built: StableDiffusionPipeline, copy: Path, tmp_path: Path, part: str, good: str, bad: str
) -> None:
    (copy / part / good).unlink()
    torch.save(getattr(built, part).state_dict(), copy / part / bad)
    assert good in refusal(copy)
    torch.save({"x": Trap(tmp_path / "mark")}, copy / part / bad)
    refusal(copy)
    (copy / part / bad).rename(copy / part / good)
    refusal(copy)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_part_is_refused(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    refusal(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}"])
def test_a_damaged_index_is_refused(copy: Path, text: str) -> None:
    (copy / "model_index.json").write_text(text)
    refusal(copy)


# ------------------------------------------------------------------------------------------------- latents and start


@pytest.fixture
def vae(painted_photographs: Tensor) -> AutoencoderKL:
    """A linear start of the tiny autoencoder, with statistics that differ by channel."""
    torch.manual_seed(3)
    vae = base.build("tiny", 64, TEXTS, seed=2).vae.requires_grad_(False)
    start_at_linear_code(vae, painted_photographs)
    c = vae.config.latent_channels
    vae.quant_conv.weight[:c] *= torch.tensor([0.5, 2.0, 3.0, 0.1])[:, None, None, None]
    vae.quant_conv.bias[:c] += torch.tensor([1.0, -2.0, 0.0, 5.0])
    vae.post_quant_conv.weight += 0.1 * torch.randn_like(vae.post_quant_conv.weight)
    vae.post_quant_conv.bias += torch.randn_like(vae.post_quant_conv.bias)
    return vae


def test_folding_standardises_latents_and_changes_no_picture(vae: AutoencoderKL, painted_photographs: Tensor) -> None:
    before = vae.encode(painted_photographs).latent_dist
    mean, std = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
    noise = torch.randn_like(before.mean)
    pictures = vae.decode(before.mean + before.std * noise).sample
    base.fold_latent_statistics(vae, mean, std)
    after = vae.encode(painted_photographs).latent_dist
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(after.std * std[:, None, None], before.std, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(vae.decode(after.mean + after.std * noise).sample, pictures, rtol=0, atol=1e-4)


def pca_code(pictures: np.ndarray, keeps: tuple[int, ...]) -> np.ndarray:
    """Principal components of 2x2 blocks of 2x2 blocks ..., standardised at the end, by a loop over places."""
    x = pictures.astype(np.float64)
    for keep in keeps:
        n, c, h, w = x.shape
        wide = np.empty((n, 4 * c, h // 2, w // 2))
        for channel in range(c):
            for row in range(2):
                for column in range(2):
                    wide[:, 4 * channel + 2 * row + column] = x[:, channel, row::2, column::2]
        flat = wide.transpose(0, 2, 3, 1).reshape(-1, 4 * c)
        centred = flat - flat.mean(0)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        code = centred @ axes[:keep].T
        x = code.reshape(n, h // 2, w // 2, keep).transpose(0, 3, 1, 2)
    return x / (singular[:keep] / np.sqrt(len(flat)))[:, None, None]


def test_the_encoder_starts_at_the_principal_components(painted_photographs: Tensor) -> None:
    """Up to each axis's sign, and to what is left of the normalisation's and SiLU's curvature."""
    vae = base.build("tiny", 64, TEXTS, seed=2).vae.requires_grad_(False)
    start_at_linear_code(vae, painted_photographs)
    ours = vae.encode(painted_photographs).latent_dist.mean.double().numpy()
    expected = pca_code(painted_photographs.numpy(), keeps=(12, 16, 4))
    for channel in range(4):
        one, two = ours[:, channel].ravel(), expected[:, channel].ravel()
        two = two * np.sign(one @ two)
        error = np.abs(one - two)
        print(f"channel {channel}: mean error {error.mean():.4f}, largest {error.max():.4f}")
        assert error[np.abs(two) < 2].max() < 0.03  # farther out SiLU bends, and stops at -8
        assert np.corrcoef(one, two)[0, 1] > 0.99


def test_the_linear_code_is_that_of_whole_patches(painted_photographs: Tensor) -> None:
    """As much of a picture can be had back from it as from as many principal components of 8x8 pixels, to 0.3 dB."""
    vae = base.build("tiny", 64, TEXTS, seed=2).vae.requires_grad_(False)
    start_at_linear_code(vae, painted_photographs)
    patches = painted_photographs.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 192)
    rows = patches.double().numpy() - patches.double().numpy().mean(0)
    lost = float((np.linalg.svd(rows, compute_uv=False)[4:] ** 2).sum())
    code = vae.encode(painted_photographs).latent_dist.mean.permute(0, 2, 3, 1).reshape(-1, 4).double().numpy()
    design = np.c_[code, np.ones(len(code))]
    ours = float(((rows - design @ np.linalg.lstsq(design, rows)[0]) ** 2).sum())
    assert lost <= ours < lost * 10**0.03


def psnr(vae: AutoencoderKL, pictures: Tensor) -> float:
    output = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / (output - pictures).square().mean()))


def test_the_linear_start_reconstructs_better_than_a_random_one(painted_photographs: Tensor) -> None:
    vae = base.build("tiny", 64, TEXTS, seed=2).vae.requires_grad_(False)
    at_random = psnr(vae, painted_photographs)
    start_at_linear_code(vae, painted_photographs)
    started = psnr(vae, painted_photographs)
    print(f"PSNR at random {at_random:.1f} dB, at the linear code {started:.1f} dB")
    assert started > at_random + 5
    assert started > 20.5


def test_displaced_pictures_are_pieces_of_their_mirrored_surroundings() -> None:
    pictures = torch.rand(40, 3, 6, 8)
    made = autoencoder.displaced(pictures, 2, [torch_generator(1, at) for at in range(40)])
    wide = torch.nn.functional.pad(pictures, [2] * 4, mode="reflect")
    seen = set()
    for one, whole in zip(made, wide, strict=True):
        places = {
            (row, column, mirrored)
            for row in range(5)
            for column in range(5)
            for mirrored, other in ((False, one), (True, one.flip(2)))
            if torch.equal(whole[:, row : row + 6, column : column + 8], other)
        }
        assert len(places) == 1
        seen |= places
    assert {row for row, _, _ in seen} == {column for _, column, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == {False, True}
    again = autoencoder.displaced(pictures, 2, [torch_generator(1, at) for at in range(40)])
    assert torch.equal(made, again)


def test_an_autoencoder_resumed_ends_with_the_same_bits(painted_photographs: Tensor, tmp_path: Path) -> None:
    """Its weights are laid out channels last."""
    from accelerate import Accelerator

    here = Accelerator(cpu=True)
    small = painted_photographs[:6, :, :32, :32]
    pictures = ((small + 1) * 127.5).round().to(torch.uint8)
    asked = Optimisation(
        steps=5, batch=4, learning_rate=1e-3, decay="cosine", warmup=1, beta2=0.99, weight_decay=0.0, clip=1.0,
        ema=3, checkpoint_every=2,
    )  # fmt: skip

    def run(folder: Path, stop: int = -1) -> dict[str, Tensor]:
        vae = base.build("tiny", 64, TEXTS, seed=2).vae
        start_at_linear_code(vae, small)
        task = autoencoder.task(vae, pictures, [f"p{i}" for i in range(len(pictures))], 1, here.device, max_shift=2)
        done = 0

        def losses(batch: list[Turn]) -> dict[str, Tensor]:
            nonlocal done
            done += 1
            if done == stop:
                raise KeyboardInterrupt
            return task.losses(batch)

        fit(Task(task.trainable, task.samples, losses), asked, seed=1, scratch=folder, accelerator=here)  # type: ignore[arg-type]
        return {name: value.detach() for name, value in task.trainable.items()}

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=4)
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert any(not value.is_contiguous() for value in whole.values())


def test_the_stage_leaves_a_whole_base_and_no_scratch(tiny_world: Path) -> None:
    folder = tiny_world / "build/base"
    card = json.loads((folder / "card.json").read_text())
    assert (card["source"], card["pictures"]) == ("train", 18)
    assert (folder / "history.csv").read_text().count("\n") == 1 + 3 + 4
    assert not list((tiny_world / ".scratch").glob("base-*"))
    assert str(tiny_world) not in "".join(path.read_text() for path in folder.rglob("*.json"))


def test_a_base_is_trained_further_from_where_another_ended(tiny_world: Path, tmp_path: Path, one_thread: None) -> None:
    """With a tiny learning rate it stays near what it begins with, unlike a base that begins with nothing."""
    begun = base.load(tiny_world / "build/base").unet.state_dict()

    def farthest(location: str | None) -> float:
        workspace = linked(tmp_path / str(bool(location)), tiny_world, ("params.yaml", "data", "build/manifests"))
        tree = parameters.read(workspace.params_file)
        tree["seed"], tree["base"]["location"] = 8, location
        for part in ("autoencoder", "denoiser"):
            tree["base"]["train"][part] |= {"learning_rate": 1e-6, "ema": 0}
        train(parameters.check(tree, "params.yaml"), workspace)
        now = base.load(workspace.base).unet.state_dict()
        return max(float((now[name] - value).abs().max()) for name, value in begun.items())

    assert farthest(str(tiny_world / "build/base")) < 1e-4
    assert farthest(None) > 0.1
