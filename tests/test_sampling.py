"""Pictures out: each by its own seed, whatever is sampled with it; adapters as trained; files without loss."""

import logging
import re
import zlib
from pathlib import Path

import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from atelier import params, paths
from atelier.data import prepare
from atelier.data.artemis import EMOTIONS
from atelier.data.images import to_pixels
from atelier.data.prompts import prompt
from atelier.models import base
from atelier.sampling import adapters, sheets, stages, store
from atelier.sampling.sampler import Sampled, Seed, first_latents, sample, with_ddim
from atelier.training import art_finetuning

PROMPTS = ["a harbour at night", "two cats", "", "a mountain in the manner of nobody", "a boat"]
SEEDS: list[tuple[str | int, ...]] = [(1, "picture", 0, at) for at in range(5)]


@pytest.fixture
def asked(in_tiny_world: Path) -> params.Params:
    return params.load()


@pytest.fixture
def pipeline(asked: params.Params) -> StableDiffusionPipeline:
    return with_ddim(base.load(paths.BASE))


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
def trained(asked: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[UNet2DConditionModel, Path]:
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

    monkeypatch.setattr(paths, "ADAPTERS", tmp_path / "adapters")
    monkeypatch.setattr(art_finetuning, "save_adapter", enlarge_and_save)
    for seed in asked.art_finetuning.training_seeds:
        art_finetuning.train(asked, "mixed", seed)
    return held[0], art_finetuning.tuned_folder("mixed", 0)


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


def test_an_untrained_adapter_changes_nothing_and_its_start_is_the_seeds(asked: params.Params) -> None:
    starts = []
    for seed in (1, 1, 2):
        unet = UNet2DConditionModel.from_pretrained(paths.BASE / "unet", use_safetensors=True)
        trainable = art_finetuning.add_adapter(unet, 2, seed)
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
    (tmp_path / "pytorch_lora_weights.bin").rename(tmp_path / art_finetuning.WEIGHTS)
    with pytest.raises(ValueError, match=r"not a readable adapter") as caught:
        adapters.load_adapter(pipeline, tmp_path)
    assert len(str(caught.value).splitlines()) == 1


# ------------------------------------------------------------------------------------------------ prompts and files


def listed(*arguments: int) -> list[str]:
    return list(stages.held_out_prompts(*arguments)["prompt"])


def test_held_out_prompts_are_of_the_test_split_and_fixed(asked: params.Params) -> None:
    table = prepare.works().table
    held_out = table.query("split == 'test'").to_dict("records")
    n = len(held_out)
    assert n == 6
    for level in (0, 1, 2):
        once = listed(7, level, n, 0)
        torch.manual_seed(1)
        assert listed(7, level, n, 0) == once
        assert sorted(once) == sorted(prompt(row, level, 0) for row in held_out)
        # used up, they come again with the next draw, in the same order of works
        again = listed(7, level, n, 1)
        assert sorted(again) == sorted(prompt(row, level, 1) for row in held_out)
        halves = [text for repeat in range(4) for text in listed(7, level, n // 2, repeat)]
        assert halves == once + again
    assert listed(8, 1, n, 0) != listed(7, 1, n, 0)


def test_without_a_held_out_work_it_says_so(asked: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    works = prepare.works()
    monkeypatch.setattr(prepare, "works", lambda: dataclasses.replace(works, table=works.table.assign(split="train")))
    with pytest.raises(ValueError, match="the test split is empty"):
        stages.held_out_prompts(7, 1, 3, 0)


def manifest(rows: list[tuple[str, ...]]) -> pd.DataFrame:
    """Rows of art_style, artist, title, subject, emotion, split."""
    table = pd.DataFrame(rows, columns=["art_style", "artist", "title", "subject", "emotion", "split"])
    painting = table["artist"] + "_" + table["title"]
    return table.assign(painting=painting, path=table["art_style"] + "/" + painting + ".png")


PHOTOGRAPHS = manifest(
    [
        ("Photograph", "Box", "a cat", "cat", "", "train"),
        ("Photograph", "Box", "the cat", "cat", "", "test"),
        ("Photograph", "Box", "", "apples", "", "test"),
        ("Photograph", "Box", "two apples", "apples", "", "test"),
        ("Photograph", "Pocket", "a white cat", "cat", "", "test"),
    ]
)
WORKS = manifest(
    [
        ("Ukiyo_e", "", "a bird", "bird", "awe", "train"),
        ("Ukiyo_e", "Yuki", "a bird", "bird", "awe", "train"),
        ("Cubism", "Max", "a boat", "boat", "fear", "test"),
        ("Cubism", "Ida", "a boat", "boat", "fear", "train"),
        ("Naive", "", "a house", "house", "fear", "test"),
    ]
)


def test_the_sheet_of_subjects_has_the_first_held_out_title_of_each() -> None:
    found = sheets.steering(PHOTOGRAPHS, WORKS)["subjects"]
    assert list(found["wanted"]) == ["apples", "cat"]
    assert list(found["path"]) == ["Photograph/Box_two apples.png", "Photograph/Box_the cat.png"]
    assert [title in text for title, text in zip(["two apples", "the cat"], found["prompt"], strict=True)] == [True] * 2
    assert list(sheets.steering(PHOTOGRAPHS.iloc[:0], WORKS)["subjects"]["wanted"]) == ["boat", "house"]


def test_where_no_subject_is_known_the_first_titles_that_differ_are_asked_for() -> None:
    titles = [f"view {at // 2}" for at in range(40)]
    many = manifest([("Photograph", f"A{at}", title, "", "", "test") for at, title in enumerate(titles)])
    found = sheets.steering(many, WORKS)["subjects"]
    assert list(found["wanted"]) == [""] * sheets.TITLES
    assert all(f"view {at}" in text for at, text in enumerate(found["prompt"]))


def test_styles_and_emotions_change_one_thing_at_a_time() -> None:
    found = sheets.steering(PHOTOGRAPHS, WORKS)
    assert list(found["styles"]["prompt"]) == [
        "two apples, Cubism by Ida",
        "two apples, Naive",
        "two apples, Ukiyo-e by Yuki",
    ]
    assert list(found["styles"]["wanted"]) == ["Cubism", "Naive", "Ukiyo_e"]
    assert list(found["emotions"]["wanted"]) == list(EMOTIONS)
    assert found["emotions"]["prompt"].iloc[0] == "two apples, Cubism by Ida, evoking amusement"
    assert found["emotions"]["prompt"].iloc[-1].endswith(", evoking a feeling hard to name")
    for table in found.values():
        assert list(table.columns) == sheets.COLUMNS
        assert table["file"].is_unique


def test_without_a_held_out_title_styles_and_emotions_are_still_asked_for() -> None:
    found = sheets.steering(PHOTOGRAPHS.assign(split="train"), WORKS)
    assert len(found["subjects"]) == 0
    assert found["styles"]["prompt"].iloc[0] == "a picture, Cubism by Ida"


def test_the_base_paints_every_sheet_at_every_scale_from_one_latent(
    asked: params.Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SAMPLES", tmp_path / "samples")
    drawn: list[list[Seed]] = []

    def noted(pipeline: StableDiffusionPipeline, seeds: list[Seed], size: int) -> Tensor:
        drawn.append(list(seeds))
        return first_latents(pipeline, seeds, size)

    def shade(text: str) -> int:
        return zlib.crc32(text.encode()) % 256

    def painted(_: object, prompts: list[str], *__: object, **___: object) -> Sampled:
        shades = torch.tensor([shade(text) for text in prompts]) / 127.5 - 1
        return Sampled(torch.empty(0), shades.view(-1, 1, 1, 1).expand(-1, 3, 8, 8))

    monkeypatch.setattr(stages, "first_latents", noted)
    monkeypatch.setattr(stages, "sample", painted)
    stages.sample_base(asked)
    assert {path.name for path in (tmp_path / "samples/base_model").iterdir()} == {
        "photographs", "works", "subjects", "styles", "emotions",
    }  # fmt: skip
    for kind in ("photographs", "works"):
        pictures, listed = store.read("base_model", kind, asked.base_model.measured_at)
        assert 0 < len(listed) <= asked.base_model.pictures
        assert set(listed["path"]) <= set(getattr(prepare, kind)().table["path"])
        assert pictures[:, 0, 0, 0].tolist() == [shade(text) for text in listed["prompt"]]
    assert len(drawn) == len({asked.base_model.measured_at, *asked.base_model.guidance})  # all kinds of a scale at once
    for sheet in sheets.ATTRIBUTES:
        tables = []
        for guidance in asked.base_model.guidance:
            pictures, listed = store.read("base_model", sheet, guidance)
            assert pictures[:, 0, 0, 0].tolist() == [shade(text) for text in listed["prompt"]]
            tables.append(listed)
        pd.testing.assert_frame_equal(*tables)
        begun = [seed for seeds in drawn for seed in seeds if seed[2] == sheet]
        assert len(begun) == sum(map(len, tables))
        assert len(set(begun)) == 1
    held_out = prepare.with_truth(prepare.photographs().table).query("split == 'test'")
    subjects = store.read("base_model", "subjects", 4.0)[1]
    assert sorted(subjects["wanted"]) == sorted(set(held_out["subject"]))


def test_pictures_are_written_and_read_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "SAMPLES", tmp_path)
    pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    table = pd.DataFrame({"repeat": 0, "place": range(4), "prompt": ["a, \"b\"", "", "NA", "ü"],
                          "file": [f"{i:04d}.png" for i in range(4)]})  # fmt: skip
    for study in ("one", "two"):
        store.write(pictures, table, tmp_path / study / "v" / store.guidance_folder(7.5))
    read, told = store.read("one", "v", 7.5)
    assert torch.equal(read, to_pixels(pictures))
    pd.testing.assert_frame_equal(told, table, check_dtype=False)
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_guidance_folders_tell_scales_apart() -> None:
    assert [store.guidance_folder(g) for g in (1.0, 4.0, 7.5, 12)] == [
        "guidance-1", "guidance-4", "guidance-7.5", "guidance-12",
    ]  # fmt: skip


def cell(model: str, guidance: float = 4.0, study: str = "art_finetuning") -> tuple[Tensor, pd.DataFrame]:
    pictures, table = store.read(study, model, guidance)
    order = table.sort_values(["repeat", "place"]).index  # models of several training seeds lie seed by seed
    return pictures[list(order)], table.loc[order].reset_index(drop=True)


def test_the_stages_sample_all_cells_from_the_same_works_and_noise(
    asked: params.Params, trained: tuple[UNet2DConditionModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SAMPLES", tmp_path / "samples")
    for variant in ("untuned", "mixed"):
        stages.sample_variant(asked, variant)
        stages.sample_levels(asked, variant)
    for guidance in (1.0, 4.0):
        cells = {name: cell(name, guidance) for name in ("untuned", "untuned-again", "mixed")}
        cells |= {
            f"{name}@{level}": cell(f"{name}/level-{level}", guidance, "prompt_enrichment")
            for name in ("untuned", "mixed")
            for level in (0, 2)
        }
        assert {tuple(pictures.shape) for pictures, _ in cells.values()} == {(12, 3, 64, 64)}
        for name in ("untuned-again", "mixed"):
            pd.testing.assert_frame_equal(cells[name][1], cells["untuned"][1])
        for name, (_, table) in cells.items():
            assert list(table["path"]) == list(cells["untuned"][1]["path"]), name
        texts = [list(cells[name][1]["prompt"]) for name in ("untuned@0", "untuned", "untuned@2")]
        assert all(two.startswith(one) and two != one for one, two in zip(texts[0], texts[1], strict=True))
        assert sum(two != one for one, two in zip(texts[1], texts[2], strict=True)) > 0
        names = list(cells)
        for at, one in enumerate(names):
            assert not any(torch.equal(cells[one][0], cells[two][0]) for two in names[at + 1 :])
    with pytest.raises(ValueError, match="no variant 'other'"):
        stages.sample_variant(asked, "other")
    with pytest.raises(ValueError, match=r"prompt_enrichment\.models: no 'conditional'"):
        stages.sample_levels(asked, "conditional")


def test_each_repeat_is_painted_by_its_own_training_seed(
    asked: params.Params, trained: tuple[UNet2DConditionModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SAMPLES", tmp_path / "samples")
    stages.sample_variant(asked, "mixed")
    both, table = cell("mixed")
    one_seed = asked.art_finetuning.model_copy(update={"training_seeds": [0]})
    stages.sample_variant(asked.model_copy(update={"art_finetuning": one_seed}), "mixed")
    alone, _ = cell("mixed")
    first = torch.tensor((table["repeat"] % 2 == 0).tolist())
    # 8-bit pictures of other batches may differ in a last bit
    assert int((both[first].int() - alone[first].int()).abs().max()) <= 1
    assert not torch.equal(both[~first], alone[~first])


def test_a_whole_denoiser_is_loaded_as_it_was_trained(
    asked: params.Params, pipeline: StableDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ADAPTERS", tmp_path / "adapters")
    held: list[dict[str, Tensor]] = []
    save = art_finetuning.save_denoiser

    def keep_and_save(unet: UNet2DConditionModel, folder: Path, card: dict) -> None:
        held.append({name: value.detach().clone() for name, value in unet.state_dict().items()})
        save(unet, folder, card)

    monkeypatch.setattr(art_finetuning, "save_denoiser", keep_and_save)
    art_finetuning.train(asked, "full", 1)
    folder = art_finetuning.tuned_folder("full", 1)
    before = pipeline.unet.state_dict()
    loaded = adapters.tuned(pipeline, folder).unet.state_dict()
    assert loaded.keys() == held[0].keys()
    assert all(torch.equal(loaded[name], held[0][name]) for name in loaded)
    assert sum(not torch.equal(loaded[name], before[name]) for name in loaded) > 0.9 * len(loaded)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match="not a readable denoiser") as caught:
        adapters.tuned(pipeline, folder)
    assert len(str(caught.value).splitlines()) == 1
