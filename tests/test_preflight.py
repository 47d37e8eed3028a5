"""What a profile will need is checked before anything runs, all at once."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from atelier import claims, params, preflight
from atelier.data import layout
from atelier.params import Params
from atelier.workspace import Workspace

ROOT = Path(__file__).parent.parent
EMBEDDED = params.load(ROOT / "profiles/embedded.yaml")
OWN = params.load(ROOT / "profiles/own.yaml")
JUDGES = [f"data/defects/{role}/judge.safetensors" for role in ("choosing", "measuring")]
BASE = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "scheduler/scheduler_config.json",
)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def home(tmp_path: Path) -> Workspace:
    """A folder with a base, perceptual weights, and pictures of two styles in ``mine``."""
    base = [f"data/base/{name}" for name in BASE]
    for name in (*base, "data/trunk/trunk.safetensors", "data/trunk/heads.safetensors", *JUDGES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("-")
    paint(tmp_path / "mine", Cubism=8, Baroque=12)
    return Workspace(tmp_path)


def paint(folder: Path, **styles: int) -> None:
    for style, number in styles.items():
        (folder / style).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / style / f"a-painter_work-{index}.png")


def lines(config: Params, home: Workspace) -> str:
    return "\n".join(preflight.faults(config, home))


def with_data(config: Params, **values: object) -> Params:
    return config.model_copy(update={"data": config.data.model_copy(update=values)})


def test_a_studys_own_files_are_missed_by_key(home: Workspace) -> None:
    (home.root / JUDGES[1]).unlink()
    assert f"pixel_space.judges: {home.root / JUDGES[1]}: no such file" in lines(OWN, home)


def test_a_studys_own_style_is_missed_by_key(home: Workspace) -> None:
    section = next(each for each in OWN.sections() if each.STUDY == "pixel_space")
    other = section.model_copy(update={"style": "Rococo"})
    assert "pixel_space.style: " in lines(OWN.model_copy(update={"pixel_space": other}), home)
    assert "pixel_space.pixel_space" not in lines(OWN.model_copy(update={"pixel_space": other}), home)


def test_pictures_below_wikiart_directly_and_in_an_archive_are_all_right(home: Workspace) -> None:
    assert preflight.faults(OWN, home) == []
    (home.root / "mine").rename(home.root / "works")
    (home.root / "mine").mkdir()
    (home.root / "works").rename(home.root / "mine" / "wikiart")
    assert preflight.faults(OWN, home) == []
    shutil.make_archive(str(home.root / "mine" / "wikiart"), "zip", home.root / "mine" / "wikiart")
    shutil.rmtree(home.root / "mine" / "wikiart")
    assert preflight.faults(OWN, home) == []
    assert layout.works(home.root / "mine").styles == {"Baroque": 12, "Cubism": 8}


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (".", "they are one level deeper: is data.folder '{root}/mine' meant?"),
        ("mine/Cubism", "8 pictures lie in it directly: is '{root}/mine' meant"),
        ("data", "it holds base, defects, trunk"),
        ("empty", "it is empty"),
        ("absent", "no such folder"),
    ],
)
def test_a_folder_at_another_level_is_named_with_what_is_meant(home: Workspace, folder: str, said: str) -> None:
    (home.root / "empty").mkdir()
    (fault,) = preflight.faults(with_data(OWN, folder=folder), home)
    assert said.format(root=home.root) in fault
    assert len(fault.splitlines()) == 1


def test_everything_that_is_missing_is_listed_at_once(tmp_path: Path) -> None:
    listed = lines(EMBEDDED, Workspace(tmp_path))
    required = ("data.annotations", "data.folder", "base.source", "perceptual.weights", "perceptual.heads")
    for key in (*required, "pixel_space.judges"):
        assert key in listed
    assert len(listed.splitlines()) == 7  # both judges of defects


@pytest.mark.parametrize("name", BASE[1:])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_each_part_of_a_base_is_missed_by_class(home: Workspace, name: str, damage: str) -> None:
    file = home.root / "data/base" / name
    file.unlink()
    if damage == "empty":
        file.touch()
    found = preflight.faults(OWN, home)
    assert found
    for line in found:
        assert line.startswith(f"base.location: {file.parent}")
        assert file.stem.split(".")[0] in line
        assert damage == "missing" or line.endswith(": empty")


def test_every_class_that_a_base_lacks_is_named_at_once(home: Workspace) -> None:
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.rmtree(home.root / "data/base" / part)
    found = preflight.faults(OWN, home)
    assert [line.split("/")[-1] for line in found] == [
        f"{part}: no such folder" for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    ]


def test_weights_in_several_files_are_all_needed_and_pickles_are_none(home: Workspace) -> None:
    folder = home.root / "data/base/unet"
    parts = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / parts[0])
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": parts[0], "b": parts[1]}}))
    assert preflight.faults(OWN, home) == [f"base.location: {folder / parts[1]}: no such file"]
    (folder / parts[1]).write_text("-")
    assert preflight.faults(OWN, home) == []
    for text, said in {"[]": "expected a JSON object", "{}": "weight_map: expected the file of each tensor"}.items():
        index.write_text(text)
        assert preflight.faults(OWN, home) == [f"base.location: {index}: {said}"]
    for file in (*folder.glob("*.safetensors"), index):
        file.unlink()
    (folder / "diffusion_pytorch_model.bin").write_text("-")
    (line,) = preflight.faults(OWN, home)
    assert line == (
        f"base.location: {folder}/diffusion_pytorch_model.safetensors: no such file; "
        "weights are read from safetensors only; it holds diffusion_pytorch_model.bin"
    )
    for variant in ("fp16", "bf16"):
        (folder / f"diffusion_pytorch_model.{variant}.safetensors").write_text("-")
        assert preflight.faults(OWN, home) == []
        (folder / f"diffusion_pytorch_model.{variant}.safetensors").unlink()
    (folder / "diffusion_pytorch_model.non_ema.safetensors").write_text("-")
    (line,) = preflight.faults(OWN, home)
    assert line.endswith("it holds diffusion_pytorch_model.bin, diffusion_pytorch_model.non_ema.safetensors")


def test_models_of_another_kind_are_refused_by_name_at_once(home: Workspace) -> None:
    folder = home.root / "data/base"
    index = folder / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    (line,) = preflight.faults(OWN, home)
    assert line.startswith(f"base.location: {index}: _class_name: expected StableDiffusionPipeline")
    assert "one text encoder" in line
    shutil.rmtree(folder)
    for name, pickled in {"sd.safetensors": False, "sd.ckpt": True}.items():
        folder.mkdir()
        (folder / name).write_text("-")
        (line,) = preflight.faults(OWN, home)
        assert line.startswith(f"base.location: {folder / name}: a checkpoint in one file")
        assert "from_single_file" in line
        assert ("pickle" in line) == pickled
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("art_style,painting,emotion,utterance,repetition", ""),
        ("\ufeffart_style,painting,emotion,utterance,repetition\r", ""),
        ("art_style,painting,emotion,utterance", "columns missing repetition; expected art_style,"),
        ("art_style,painting,emotion,utterance,repetition,repetition", "columns doubled repetition; expected"),
        ("a,b\x1b[2J", "columns missing art_style, painting, emotion, utterance, repetition; unknown a, b"),
        ("", "columns missing art_style"),
    ],
)
def test_the_columns_of_annotations_are_read_from_the_first_line(home: Workspace, header: str, said: str) -> None:
    table = home.root / "mine" / layout.ANNOTATIONS
    table.write_bytes(
        f"{header}\n\xff".encode("latin-1", "ignore") if "\ufeff" not in header else f"{header}\n".encode()
    )
    found = preflight.faults(with_data(OWN, annotations=True), home)
    assert bool(found) == bool(said)
    assert all(line.startswith(f"data.annotations: {table}: {said}") and line.isprintable() for line in found)


def test_an_accelerator_that_is_not_there_is_missed(home: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DEVICES", ("zero", "null"))
    on_card = OWN.model_copy(update={"machine": OWN.machine.model_copy(update={"device": "cuda"})})
    assert preflight.faults(on_card, home) == []
    monkeypatch.setattr(preflight, "DEVICES", ("no-such-device",))
    assert preflight.faults(on_card, home) == [
        "machine.device: 'cuda' is set and no accelerator is seen on this machine"
    ]


def test_styles_that_parameters_name_must_have_works_in_both_splits(home: Workspace) -> None:
    leak = OWN.section("signal_leak").model_copy(
        update={"styles": {"one": "Cubism", "two": "Rococo", "few": "Fauvism"}}
    )
    paint(home.root / "mine", Fauvism=2)
    listed = lines(OWN.model_copy(update={"signal_leak": leak}), home)
    assert "signal_leak.styles.two" in listed
    assert "has no style 'Rococo'; there are Baroque, Cubism, Fauvism" in listed
    assert re.search(r"signal_leak\.styles\.few: .* has 2 works of 'Fauvism', too few for both splits", listed)
    assert "styles.one" not in listed


def test_a_style_whose_works_are_shared_over_groups_of_repeats_has_one_for_each(home: Workspace) -> None:
    """With four repeats and a quarter of works held out, eight are too few, though both splits have some."""
    pixel = OWN.section("pixel_space").model_copy(update={"style": "Cubism"})
    named = OWN.model_copy(update={"pixel_space": pixel})
    assert re.search(r"^pixel_space\.style: .* has 8 works of 'Cubism', .* need 16$", lines(named, home), re.MULTILINE)
    paint(home.root / "mine", Cubism=16)
    assert lines(named, home) == ""


def test_too_few_pictures_and_too_little_disk(home: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(home.root / "mine")
    paint(home.root / "mine", Cubism=7)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 1000))
    few, disk = preflight.faults(OWN, home)
    assert "7 pictures, at least 16 are needed" in few
    assert "are free" in disk


@pytest.mark.parametrize("profile", ["embedded"])
def test_claims_without_cells_are_those_that_published_pages_did_not_measure(profile: str) -> None:
    config = params.load(ROOT / "profiles" / f"{profile}.yaml")
    lacking = preflight.undecided(config)
    shown = 0
    for section in config.sections():
        path = ROOT / "results" / profile / section.STUDY / f"{section.STUDY}.ipynb"
        if not path.is_file():
            continue
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if match := re.search(r'verdict\("(\w\d+)"\)', "".join(cell["source"])):
                html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in cell["outputs"])
                assert ("not measured" in html) == (match[1] in lacking), match[1]
                shown += 1
    assert shown > 5


def test_a_claim_whose_variant_is_gone_is_named() -> None:
    art = EMBEDDED.section("art_finetuning")
    less = art.model_copy(update={"variants": [name for name in art.variants if name != "rank8-mixed"]})
    assert "rank8-mixed@1/16" in preflight.undecided(EMBEDDED.model_copy(update={"art_finetuning": less}))["A1"]
    assert "A1" in claims.load("art_finetuning")
    assert "A1" not in preflight.undecided(EMBEDDED)
