"""Pictures out: each by its own seed, whatever is sampled with it; adapters as trained; files without loss."""

import dataclasses
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from atelier import params
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.manifest import write_manifest
from atelier.data.prompts import prompt
from atelier.files import write_seal
from atelier.models import adapters, base
from atelier.params import CORRECTED, Params
from atelier.sampling import conditions as sampling
from atelier.sampling import held_out, store
from atelier.sampling.sampler import Seed, first_latents, sample, with_ddim
from atelier.studies.art_finetuning import sample as art_sampling
from atelier.studies.art_finetuning import train as art_finetuning
from atelier.training import lora
from atelier.workspace import Workspace
from shades import paint_shades

PROMPTS = ["a harbour at night", "two cats", "", "a mountain in the manner of nobody", "a boat"]
SEEDS: list[tuple[str | int, ...]] = [(1, "picture", 0, at) for at in range(5)]


@pytest.fixture
def config(workspace: Workspace) -> Params:
    return params.load(workspace.params_file)


@pytest.fixture
def pipeline(workspace: Workspace) -> StableDiffusionPipeline:
    return with_ddim(base.load(workspace.base))


def latents(pipeline: StableDiffusionPipeline, seeds: list[Seed]) -> Tensor:
    return first_latents(pipeline, seeds, 64)


def paint(pipeline: StableDiffusionPipeline, chosen: list[int], guidance: float = 4.0) -> Tensor:
    return sample(
        pipeline,
        [PROMPTS[i] for i in chosen],
        latents(pipeline, [SEEDS[i] for i in chosen]),
        guidance=guidance,
        steps=2,
        batch=3,
    ).pictures


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_picture_does_not_depend_on_the_others(pipeline: StableDiffusionPipeline, guidance: float) -> None:
    """Two batches of three, the last filled up; alone; in another order."""
    together = paint(pipeline, [0, 1, 2, 3, 4], guidance)
    assert together.shape == (5, 3, 64, 64)
    assert together.dtype == torch.float32
    for chosen in ([3], [4, 1, 0, 2], [1, 1]):
        torch.testing.assert_close(paint(pipeline, chosen, guidance), together[chosen], rtol=0, atol=1e-5)
    assert torch.equal(paint(pipeline, [0, 1, 2, 3, 4], guidance), together)


def test_prompt_seed_and_guidance_each_change_the_picture(pipeline: StableDiffusionPipeline) -> None:
    def one(text: str, seed: tuple[str | int, ...], guidance: float) -> Tensor:
        return sample(pipeline, [text], latents(pipeline, [seed]), guidance=guidance, steps=2, batch=1).pictures

    first = one(PROMPTS[0], SEEDS[0], 4.0)
    for other in (one(PROMPTS[1], SEEDS[0], 4.0), one(PROMPTS[0], SEEDS[1], 4.0), one(PROMPTS[0], SEEDS[0], 9.0)):
        assert not torch.equal(other, first)


def test_first_latents_are_functions_of_their_seeds(pipeline: StableDiffusionPipeline) -> None:
    five = first_latents(pipeline, SEEDS, 64)
    assert five.shape == (5, 4, 8, 8)
    torch.manual_seed(3)
    assert torch.equal(first_latents(pipeline, SEEDS[3:4], 64)[0], five[3])
    assert len({float(latent.sum()) for latent in five}) == 5
    many = first_latents(pipeline, [(1, "x", at) for at in range(200)], 64)
    assert abs(float(many.mean())) < 5 / many.numel() ** 0.5
    assert abs(float(many.var()) - 1) < 5 * (2 / many.numel()) ** 0.5


def test_prompts_and_seeds_must_be_as_many(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="got 2 prompts, 1 latents"):
        sample(pipeline, ["a", "b"], latents(pipeline, SEEDS[:1]), guidance=1.0, steps=1, batch=1)


# --------------------------------------------------------------------------------------------------------- adapters


@pytest.fixture
def trained(config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> tuple[UNet2DConditionModel, Path]:
    """The denoiser as the trainer leaves it, B thirty times as large, and the adapter's folder."""
    held: list[UNet2DConditionModel] = []
    save = art_finetuning.save_adapter

    def enlarge_and_save(unet: UNet2DConditionModel, folder: Path, card: dict) -> None:
        with torch.no_grad():
            for name, parameter in unet.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(30)
        held.append(unet)
        save(unet, folder, card)

    monkeypatch.setattr(art_finetuning, "save_adapter", enlarge_and_save)
    art_finetuning.train(config, workspace, "mixed", 0)
    return held[0], workspace.adapter("art_finetuning", "mixed", 0)


def test_a_loaded_adapter_is_the_trained_one(
    pipeline: StableDiffusionPipeline, trained: tuple[UNet2DConditionModel, Path]
) -> None:
    unet, folder = trained
    warned: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("diffusers", "peft", "transformers")]
    untuned = paint(pipeline, [0, 1, 2])
    try:
        for logger in loggers:
            logger.addHandler(listener)
        adapters.load_adapter(pipeline, folder)
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
    # that there is none for the text encoder is as it should be
    warned = [text for text in warned if "prefix='text_encoder'" not in text]
    assert [text for text in warned if re.search("missing|unexpected|no lora", text, re.IGNORECASE)] == []
    loaded, held = get_peft_model_state_dict(pipeline.unet, adapter_name="default_0"), get_peft_model_state_dict(unet)
    assert loaded.keys() == held.keys()
    assert all(torch.equal(loaded[name], held[name]) for name in held)
    assert all(bool(value.abs().sum() > 0) for value in held.values())
    (config,) = pipeline.unet.peft_config.values()
    assert (config.r, config.lora_alpha) == (3, 3)
    ours = paint(pipeline, [0, 1, 2])
    assert float((ours - untuned).abs().max()) > 1e-4
    pipeline.unload_lora_weights()
    torch.testing.assert_close(paint(pipeline, [0, 1, 2]), untuned, rtol=0, atol=1e-5)
    pipeline.unet = unet
    torch.testing.assert_close(paint(pipeline, [0, 1, 2]), ours, rtol=0, atol=1e-5)


def test_an_untrained_adapter_changes_nothing_and_its_start_is_the_seeds(workspace: Workspace) -> None:
    starts = []
    for seed in (1, 1, 2):
        unet = UNet2DConditionModel.from_pretrained(workspace.base / "unet", use_safetensors=True)
        trainable = lora.add_adapter(unet, 2, seed)
        assert all("lora" in name for name in trainable)
        assert {p.shape[0] for n, p in trainable.items() if "lora_A" in n} == {2}
        assert all(not p.any() for n, p in trainable.items() if "lora_B" in n)
        starts.append(torch.cat([p.detach().flatten() for p in trainable.values()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_an_adapter_that_is_absent_or_pickled_is_refused_in_one_line(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    torch.save({"unet.x": torch.zeros(1)}, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(ValueError, match=r"holds no pytorch_lora_weights\.safetensors$"):
        adapters.load_adapter(pipeline, tmp_path)
    (tmp_path / "pytorch_lora_weights.bin").rename(tmp_path / adapters.WEIGHTS)
    with pytest.raises(ValueError, match=r"not a readable adapter") as caught:
        adapters.load_adapter(pipeline, tmp_path)
    assert len(str(caught.value).splitlines()) == 1


# ------------------------------------------------------------------------------------------------ prompts and files


def test_held_out_prompts_are_of_the_test_split_and_fixed(workspace: Workspace) -> None:
    table = prepare.works(workspace.manifests).table
    works = table.query("split == 'test'").to_dict("records")

    def listed(*arguments: int) -> list[str]:
        return list(held_out.held_out_prompts(workspace.manifests, *arguments)["prompt"])

    n = len(works)
    assert n == 6
    for level in (0, 1, 2):
        once = listed(7, level, n, 0)
        torch.manual_seed(1)
        assert listed(7, level, n, 0) == once
        assert sorted(once) == sorted(prompt(row, level, 0) for row in works)
        # used up, they come again with the next draw, in the same order of works
        again = listed(7, level, n, 1)
        assert sorted(again) == sorted(prompt(row, level, 1) for row in works)
        halves = [text for repeat in range(4) for text in listed(7, level, n // 2, repeat)]
        assert halves == once + again
    assert listed(8, 1, n, 0) != listed(7, 1, n, 0)


def test_without_a_held_out_work_it_says_so(workspace: Workspace, tmp_path: Path) -> None:
    works = prepare.works(workspace.manifests)
    learnt = dataclasses.replace(works, table=works.table.assign(split="train"))
    manifests = tmp_path / "manifests"
    write_manifest(learnt, manifests / "works.parquet")
    write_seal(manifests)
    with pytest.raises(ValueError, match="the test split is empty"):
        held_out.held_out_prompts(manifests, 7, 1, 3, 0)


def test_pictures_are_written_and_read_without_loss(tmp_path: Path) -> None:
    """Those of several training seeds in the order in which the seeds are asked for."""
    generator = torch.Generator().manual_seed(0)
    pictures = to_pixels(torch.rand(4, 3, 16, 16, generator=generator) * 2.4 - 1.2)
    latents = torch.randn(4, 4, 2, 2, generator=generator)
    table = pd.DataFrame({"repeat": [3, 3, 3, 1], "place": [0, 1, 2, 0], "prompt": ["a, \"b\"", "", "NA", "ü"],
                          "file": [f"{i:04d}.png" for i in (0, 1, 2, 0)]})  # fmt: skip
    for study in ("one", "two"):
        for seed, rows in ((3, slice(0, 3)), (1, slice(3, 4))):
            folder = store.Location(study, "v", 7.5).folder(tmp_path, seed)
            store.write(pictures[rows], latents[rows], table[rows], folder)
    folders = store.Location("one", "v", 7.5).folders(tmp_path, [3, 1])
    read, listed = store.read(folders)
    assert torch.equal(read.load(), pictures)
    assert torch.equal(store.read_latents(folders), latents)
    pd.testing.assert_frame_equal(listed, table, check_dtype=False)
    pd.testing.assert_frame_equal(store.listed(folders), listed)
    assert torch.equal(store.read(folders[::-1])[0].load(), pictures[[3, 0, 1, 2]])
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_latents_that_are_absent_or_damaged_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = store.Location("one", "v", 4.0).folder(tmp_path, 0)
    folder.mkdir(parents=True)
    for damage in (lambda: None, lambda: (folder / store.LATENTS).write_bytes(b"no tensor")):
        damage()
        write_seal(folder)
        with pytest.raises(ValueError, match="not readable as latents") as caught:
            store.read_latents([folder])
        assert len(str(caught.value).splitlines()) == 1


def test_samples_must_be_of_the_variants_that_parameters_name(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with pytest.raises(ValueError, match="no samples of a, b"):
        store.check_variants(folder, ["b", "a"])
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    store.check_variants(folder, ["a", "b"])
    with pytest.raises(ValueError, match="samples of b, which no parameter names; delete them"):
        store.check_variants(folder, ["a"])


def test_guidance_folders_tell_scales_apart() -> None:
    assert [store.guidance_folder(g) for g in (1.0, 4.0, 7.5, 12)] == [
        "guidance-1", "guidance-4", "guidance-7.5", "guidance-12",
    ]  # fmt: skip


def test_folders_tell_models_seeds_conditions_and_starts_apart() -> None:
    samples = Path("samples")
    assert store.Location("one", "v", 4.0).folders(samples, [0, 7]) == [
        samples / "one/v/0/guidance-4", samples / "one/v/7/guidance-4",
    ]  # fmt: skip
    conditioned = store.Location("one", "v", 4.0, CORRECTED, store.at_level(2))
    assert conditioned.folder(samples, 0) == samples / "one/v/0/level-2/guidance-4-corrected"


def batches_of(config: Params, batch: int) -> Params:
    return config.model_copy(update={"sampling": config.sampling.model_copy(update={"batch": batch})})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stage_that_died_keeps_what_it_painted_and_ends_with_the_same_bytes(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, config = paint_shades(monkeypatch), batches_of(config, 5)
    art_sampling.main(config, workspace, "untuned", "0")
    assert calls == [1.0] * 5 + [4.0] * 5  # both noises' 24 pictures together: of 12 each they would be 6 batches
    expected = files_of(workspace.samples)
    shaded = sampling.last_latents

    def dying(*arguments: Any, **settings: Any) -> Iterator[Tensor]:
        if len(calls) == 12:
            raise KeyboardInterrupt
        yield from shaded(*arguments, **settings)

    shutil.rmtree(workspace.samples)
    monkeypatch.setattr(sampling, "last_latents", dying)
    calls.clear()
    calls += [0.0] * 5  # five of guidance 1 and two of guidance 4 are painted
    with pytest.raises(KeyboardInterrupt):
        art_sampling.main(config, workspace, "untuned", "0")
    assert not workspace.samples.exists()  # nothing is there before all is
    monkeypatch.setattr(sampling, "last_latents", shaded)
    calls.clear()
    art_sampling.main(config, workspace, "untuned", "0")
    assert calls == [4.0] * 3  # the batch that it died in, and those after it
    assert files_of(workspace.samples) == expected
    assert list(workspace.scratch.glob("*")) == []


def test_other_parameters_do_not_go_on_where_these_were(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, config = paint_shades(monkeypatch), batches_of(config, 24)
    monkeypatch.setattr(sampling, "write_conditions", lambda *_: None)
    monkeypatch.setattr(sampling.scratch, "discard", lambda run: None)
    art_sampling.main(config, workspace, "untuned", "0")
    calls.clear()
    art_sampling.main(config, workspace, "untuned", "0")
    assert calls == []
    for change in (
        {"seed": config.seed + 1},
        {"sampling": config.sampling.model_copy(update={"steps": 3})},
        {"protocol": config.protocol.model_copy(update={"pictures": 2})},
    ):
        calls.clear()
        art_sampling.main(config.model_copy(update=change), workspace, "untuned", "0")
        assert calls == [1.0, 4.0], change


PEAK = """
import resource, sys, types
from pathlib import Path
from atelier import machine, params
machine.settle(1)
import pandas as pd
import torch
from atelier.sampling import conditions as sampling

n, run = int(sys.argv[1]), Path("run")
config = params.load("params.yaml")
config = config.model_copy(update={"data": config.data.model_copy(update={"size": 512})})
sampling.settled = lambda pipeline, device: pipeline
sampling.last_latents = lambda pipeline, prompts, latents, **how: iter([latents])
sampling.decoded = lambda vae, latents, batch: latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)
unet = types.SimpleNamespace(config=types.SimpleNamespace(in_channels=4))
pipeline = types.SimpleNamespace(unet=unet, vae=None, vae_scale_factor=8)

def table(n):
    files = [f"{i}.png" for i in range(n)]
    return pd.DataFrame({"prompt": "a boat", "repeat": 0, "place": range(n), "file": files})

conditions = [
    sampling.Condition(name, table(n), sampling.white_noise(config, name), 4.0, 2) for name in ("a", "b")
]
sampling.paint_conditions(config, conditions, lambda: pipeline, run)
sampling.write_conditions(conditions, run, Path("out"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_pictures(workspace: Workspace, run_python: Any) -> None:
    """Of 512 px; a sampler and a decoder that cost nothing."""
    peaks = {}
    for n in (30, 120):
        done = run_python("-c", PEAK, str(n), cwd=workspace.root)
        assert done.returncode == 0, done.stderr
        peaks[n] = int(done.stdout) / 1024
        assert len(list((workspace.root / "out").rglob("*.png"))) == 2 * n
        for folder in ("run", "out"):
            shutil.rmtree(workspace.root / folder)
    print(f"\npeak of {' and '.join(f'{2 * n} pictures {peak:.0f} MiB' for n, peak in peaks.items())}")
    assert peaks[120] < 1.05 * peaks[30]


def test_latents_written_in_parts_are_the_librarys_file(tmp_path: Path) -> None:
    """Byte for byte as safetensors writes them at once; other numbers and types are refused."""
    latents, pictures = torch.randn(7, 4, 2, 3), torch.zeros(7, 3, 16, 24, dtype=torch.uint8)
    table = pd.DataFrame({"repeat": 0, "place": range(7), "prompt": "", "file": [f"{i}.png" for i in range(7)]})
    parts = [slice(0, 3), slice(3, 4), slice(4, 7)]
    store.write_in_parts(((pictures[part], latents[part]) for part in parts), table, tmp_path / "parts")
    store.write(pictures, latents, table, tmp_path / "once")
    save_file({"latents": latents}, tmp_path / "expected")
    for folder in ("parts", "once"):
        assert (tmp_path / folder / store.LATENTS).read_bytes() == (tmp_path / "expected").read_bytes()
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "once")
    with pytest.raises(ValueError, match="6 pictures for 7 rows"):
        store.write(pictures[1:], latents[1:], table, tmp_path / "few")
    with pytest.raises(ValueError, match=r"one float32 \(c, h, w\) a picture, got torch.float64"):
        store.write(pictures, latents.double(), table, tmp_path / "double")
