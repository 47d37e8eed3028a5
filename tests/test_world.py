"""The world's own pipeline with budgets that teach nothing: all of it runs, twice the same, and survives a kill."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from atelier.data.archives import unpack
from atelier.evaluation.judges import Bar, table
from atelier.models import base, evaluator, trunk
from atelier.models.base import fingerprint
from atelier.world import params

ROOT = Path(__file__).parent.parent
WORLD = ROOT / "world"

TINY = """\
seed: 3
machine: {threads: 1, device: cpu, precision: fp32}
size: 64
preset: tiny
changed: {}
seen: [odile-marchand, bruno-castell]
trunk:
  corpus: {photographs: 8, works: 40}
  optimisation: &adam {steps: 3, batch: 8, learning_rate: 0.001, decay: cosine, warmup: 1, beta2: 0.99,
                       weight_decay: 0.0, clip: 1.0, ema: 0, checkpoint_every: 2}
  heads: *adam
evaluator: {corpus: {photographs: 8, works: 60}, prompts_per_picture: 2, optimisation: *adam}
autoencoder: {corpus: {photographs: 12, works: 4}, optimisation: *adam}
decoder: {perceptual: 1.0, adversarial: 0.2, optimisation: *adam}
denoiser:
  corpus: {photographs: 12, works: 4}
  prompts_per_picture: 2
  empty_prompts: 0.1
  prediction: epsilon
  min_snr: null
  optimisation: &long {steps: 24, batch: 4, learning_rate: 0.001, decay: cosine, warmup: 1, beta2: 0.99,
                       weight_decay: 0.0, clip: 1.0, ema: 2, checkpoint_every: 5}
conversion: {rank: 2, optimisation: *adam}
defects: {corpus: {photographs: 4, works: 4}, optimisation: *adam}
shipped: {corpus: {photographs: 4, works: 12}, seed: 1}
report:
  held_out: {photographs: 8, works: 40}
  linear_code: {photographs: 8, works: 8}
  samples: 6
  guidance: 4.0
  steps: 2
  batch: 6
  control: *adam
pilots:
  autoencoder: 2
  denoiser: 2
  leak: 8
  variants:
    as-is: {}
    v-min-snr: {prediction: v_prediction, min_snr: 5.0, changed: {layers: 2}}
    latent-3: {autoencoder: true, changed: {latent: 3}}
"""

ORDER = (
    "trunk", "evaluator", "autoencoder", "decoder", "denoiser", "conversion v_prediction",
    "conversion flow_prediction", "defects", "ship",
)  # fmt: skip
# all stages in one process: importing diffusers costs more than they do
ALL = """
import sys
from atelier.world.__main__ import main
for stage in sys.argv[1:]:
    assert main(stage.split()) == 0, stage
"""


def folder_for(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "params.yaml").write_text(TINY)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``world/`` of a temporary copy in which `make world` ran, with a budget that teaches nothing."""
    clone = tmp_path_factory.mktemp("clone") / "atelier"
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith(("data-store/", "results/")):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, clone / name)
    (clone / "world" / "params.yaml").write_text(TINY)
    (clone / "world" / "dvc.lock").unlink(missing_ok=True)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "copy"],
        ["make", "-o", ".venv/.installed", "world"],  # in the environment that the tests run in
    ):
        done = run(clone, *command)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return clone / "world"


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def hashes(shipped: Path) -> dict[str, str]:
    """Of every network, and of every file beside them."""
    parts = [shipped / name for name in ("base", "evaluator", "trunk", "conversions")]
    return {part.name: fingerprint(part) for part in parts} | {
        path.name: path.read_bytes().hex() for path in sorted(shipped.iterdir()) if path.is_file()
    }


@pytest.mark.long
def test_made_twice_it_is_the_same(made: Path, tmp_path: Path, run_python) -> None:
    again = folder_for(tmp_path / "world")
    done = run_python("-c", ALL, *ORDER, cwd=again, PYTHONHASHSEED="9")
    assert done.returncode == 0, done.stderr
    one, two = (hashes(folder / "build" / "data") for folder in (made, again))
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


@pytest.mark.long
def test_a_killed_stage_goes_on_where_it_was(made: Path, tmp_path: Path, run_python) -> None:
    folder = tmp_path / "world"
    shutil.copytree(made, folder)
    shutil.rmtree(folder / ".scratch", ignore_errors=True)
    shutil.rmtree(folder / "build" / "base")
    command = ["-m", "atelier.world", "denoiser"]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    until = time.monotonic() + 120
    while steps_done(folder) < 12 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    before = steps_done(folder)
    done = run_python(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    told = re.search(r"first executed (\d+), executed here (\d+)", done.stdout)
    assert told is not None
    assert int(told[1]) > 0
    assert before + int(told[2]) <= 24 + 5
    assert fingerprint(folder / "build" / "base") == fingerprint(made / "build" / "base")


def steps_done(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(".scratch/world-denoiser-*/journal"))


@pytest.mark.long
def test_what_is_shipped_can_be_used(made: Path, tmp_path: Path) -> None:
    shipped = made / "build" / "data"
    pipeline = base.load(shipped / "base")
    assert {value.dtype for value in pipeline.unet.parameters()} == {pipeline.vae.dtype}
    judge = evaluator.load(shipped / "evaluator")
    assert len(judge.classes["subject"]) == 12
    _, weights = trunk.load(shipped / "trunk")
    assert all((weight >= 0).all() for weight in weights)
    assert unpack(shipped / "wikiart.zip", tmp_path / "wikiart") == 12
    assert unpack(shipped / "photographs.zip", tmp_path / "photographs") == 4
    for card in shipped.rglob("card.json"):
        content = json.loads(card.read_text())
        assert content["asked"]["seed"] == 3
        assert content["asked"]["painter"]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["v_prediction", "flow_prediction"])
def test_a_conversion_paints_with_its_own_scheduler(made: Path, kind: str) -> None:
    import torch

    from atelier.models.adapters import converted
    from atelier.sampling.sampler import first_latents, sample, with_ddim

    shipped = made / "build" / "data"
    plain = base.load(shipped / "base")
    before = {name: value.clone() for name, value in plain.unet.state_dict().items()}
    turned = with_ddim(converted(plain, shipped / "conversions" / kind))
    assert turned.scheduler.config.prediction_type == kind
    assert turned.unet.state_dict().keys() == before.keys()
    assert any(not torch.equal(value, before[name]) for name, value in turned.unet.state_dict().items())
    latents = first_latents(turned, [(1, 0), (1, 1)], 64)
    pictures = sample(turned, ["a boat"] * 2, latents, guidance=4.0, steps=3, batch=2).pictures
    assert pictures.shape == (2, 3, 64, 64)
    assert pictures.isfinite().all()


@pytest.mark.long
def test_make_world_ships_what_it_made_and_measured(made: Path) -> None:
    clone = made.parent
    bars = json.loads((clone / "data" / "report" / "bars.json").read_text())["bars"]
    assert len(bars) > 30
    assert all(bar["n"] > 0 for bar in bars)
    lines = (clone / "docs" / "world_report.md").read_text().splitlines()
    assert sum(line.startswith("| ") for line in lines) == len(bars) + 2
    assert hashes(clone / "data") == hashes(made / "build" / "data")
    stored = [path for path in (clone / "data-store").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in stored) > 500_000
    assert list(made.glob(".scratch/*")) == []  # nothing is kept for a run that has ended


@pytest.mark.long
def test_made_again_nothing_runs(made: Path) -> None:
    done = run(made, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stdout


MEASURED = [
    "pilot", "FD, white", "FD, corrected", "closed", "FD of reconstructions", "style, seen artists",
    "subject, seen artists", "PR of reconstructions", "PR of works", "PR of works against reconstructions",
    "parameters, millions",
]  # fmt: skip


@pytest.mark.long
def test_pilots_are_measured_and_a_finished_one_is_kept(made: Path, tmp_path: Path, run_python) -> None:
    folder = folder_for(tmp_path / "world")
    command = ["-m", "atelier.world", "pilots", str(made / "build" / "data")]
    done = run_python(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "build" / "report" / "pilots.md").read_text()
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line] for line in lines]
    assert header == MEASURED
    pilots = {row[0]: dict(zip(MEASURED[1:], map(float, row[1:]), strict=True)) for row in rows}
    assert list(pilots) == ["as-is", "v-min-snr", "latent-3"]
    assert all(math.isfinite(value) for measures in pilots.values() for value in measures.values())
    assert pilots["as-is"]["closed"] == pilots["latent-3"]["closed"] == 0  # the first on their latents
    assert pilots["v-min-snr"]["parameters, millions"] > pilots["as-is"]["parameters, millions"]
    (scratch,) = folder.glob(".scratch/world-pilots-*")
    (scratch / "latent-3.parquet").unlink()  # as if killed before it was measured
    kept = {path: path.stat() for path in scratch.glob("*.parquet")}
    assert {path.stem for path in kept} == {"as-is", "v-min-snr"}
    again = run_python(*command, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "build" / "report" / "pilots.md").read_text() == text
    for path, stat in kept.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    # those two are printed as they were, and no step of their trainings is taken again
    printed, before = (out.splitlines() for out in (again.stdout, done.stdout))
    measured = [line for line in before if line.startswith("{")]
    assert len(measured) == 3
    assert [line for line in printed if line.startswith("{")] == printed[:2] + printed[-1:] == measured
    assert sum(line.startswith("trained steps") for line in before) > len(printed) - 3


def test_the_committed_parameters_are_in_range() -> None:
    asked = params.load(WORLD / "params.yaml")
    assert len(asked.seen) == 10


def test_an_unknown_parameter_is_refused_by_name(tmp_path: Path, run_python) -> None:
    folder = folder_for(tmp_path / "world")
    (folder / "params.yaml").write_text(TINY.replace("preset: tiny", "prest: tiny"))
    done = run_python("-m", "atelier.world", "ship", cwd=folder)
    assert done.returncode == 1
    assert "prest: unknown parameter; did you mean 'preset'?" in done.stderr


def test_every_stage_of_the_pipeline_is_a_command_with_its_parameters() -> None:
    stages = YAML(typ="safe").load(WORLD / "dvc.yaml")["stages"]
    assert [stage.split()[0] for stage in ORDER if "flow" not in stage] == list(stages)[:-1]
    for name, stage in stages.items():
        assert stage["cmd"].startswith(f"python -m atelier.world {name}")
        assert [dep for dep in stage["deps"] if dep.startswith("..") and not (WORLD / dep).exists()] == []


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        (Bar(name="share", value=0.9, n=10, least=0.8, low=0.7, high=0.95), False),  # the low end counts
        (Bar(name="share", value=0.9, n=10, least=0.8), True),
        (Bar(name="distance", value=0.2, n=10, most=0.1), False),
        (Bar(name="told", value=0.2, n=10), None),
    ],
)
def test_a_bar_is_met_or_not_or_only_told(bar: Bar, met: bool | None) -> None:
    assert bar.met is met
    assert table([bar]).iloc[0]["met"] == {True: "yes", False: "no", None: ""}[met]
