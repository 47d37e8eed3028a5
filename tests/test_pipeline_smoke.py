"""The whole pipeline under the profile `smoke`, in a temporary copy: the checkout's files stay as they are."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from atelier import params as parameters
from atelier.measures import decoder_features, latent_perceptual

ROOT = Path(__file__).parent.parent

WARM = (sys.executable, "-m", "atelier.warm")  # as `make repro` does

pytestmark = pytest.mark.pipeline


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),  # the copy's own library
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def repro(folder: Path, *arguments: str, below: Sequence[str] = ()) -> list[str]:
    """The stages that ran, in order; a failure shows what the pipeline said."""
    done = run(folder, *below, "dvc", "repro", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return re.findall(r"Running stage '([^']+)'", done.stdout)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as it would be committed, in a repository of its own, after one run of the smoke profile."""
    folder = tmp_path_factory.mktemp("clone") / "atelier"
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for command in (
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", "copy"],
        ["dvc", "pull", "--quiet", "data"],
    ):
        done = run(folder, *command)
        assert done.returncode == 0, done.stderr
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.copyfile(folder / "profiles" / "smoke.yaml", folder / "params.yaml")
    ran = repro(folder, below=WARM)
    assert {"check", "prepare", "base", "base_model", "art_finetuning", "site"} <= set(ran)
    return folder


def test_pages_are_whole(clone: Path) -> None:
    done = run(clone, sys.executable, "-m", "atelier.pipeline.render", "results")
    assert done.returncode == 0, done.stderr
    results = clone / "results" / "smoke"
    studies = ("base_model", "art_finetuning", "prompt_enrichment", "vae_decoder", "signal_leak", "latent_perceptual")
    for study in studies:
        page = (results / study / f"{study}.html").read_text()
        assert "<img" in page
        assert str(clone) not in page
        assert (results / study / "metrics.json").is_file()
    assert (results / "dvc.lock").read_bytes() == (clone / "dvc.lock").read_bytes()


def test_what_a_study_says_it_measures_is_measured(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    asked = parameters.load()
    rows = pd.concat([latent_perceptual.load()[0], decoder_features.rows(asked)])
    assert set(rows["cell"]) == latent_perceptual.cells(asked)


def test_again_nothing_runs(clone: Path) -> None:
    assert repro(clone) == []


def test_forced_stages_give_the_same_bytes(clone: Path) -> None:
    """Each in a process that has loaded its libraries itself."""
    before = (clone / "dvc.lock").read_bytes()
    again = ["base", "art_finetuning-train@full-mixed-0", "art_finetuning-sample@rank4-mixed"]
    again += ["art_finetuning-diagnose", "art_finetuning-measure", "vae_decoder-train@all-0", "vae_decoder-measure"]
    again += ["signal_leak-fit", "signal_leak-train@watercolor-0", "signal_leak-sample", "signal_leak-measure"]
    again += ["latent_perceptual-train@lpl", "latent_perceptual-sample@lpl", "latent_perceptual-measure"]
    again += ["decoder_features-measure", "art_finetuning"]
    ran = repro(clone, "--force", "--single-item", *again)
    assert ran == again
    assert (clone / "dvc.lock").read_bytes() == before


def test_changed_rank_reruns_its_own_stages_and_back_reruns_nothing(clone: Path) -> None:
    params = clone / "params.yaml"
    original, lock = params.read_text(), (clone / "dvc.lock").read_bytes()
    params.write_text(original.replace("rank8-mixed: {rank: 8", "rank8-mixed: {rank: 6"))
    ran = repro(clone, below=WARM)
    own = {"art_finetuning-train@rank8-mixed-0", "art_finetuning-sample@rank8-mixed"}
    own |= {"art_finetuning-diagnose", "art_finetuning-measure", "vae_decoder-measure"}  # they read all models
    own |= {"art_finetuning", "prompt_enrichment", "vae_decoder", "signal_leak"}  # all read the study's parameters
    own.add("latent_perceptual")
    # check and site read every parameter; neither computes anything
    assert set(ran) == own | {"check", "site"}
    params.write_text(original)
    assert repro(clone) == []
    assert (clone / "dvc.lock").read_bytes() == lock


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 2025", "sede: 2025", "sede: unknown parameter; did you mean 'seed'?"),
        ("rank8-mixed: {rank: 8", "rank8-mixed: {rank: eight", "art_finetuning.adapters.rank8-mixed.rank"),
        ("bad_share: 0.01", "bad_share: 1.5", "data.bad_share"),
    ],
)
def test_a_bad_parameter_stops_the_pipeline_before_any_other_stage(clone: Path, old: str, new: str, said: str) -> None:
    params = clone / "params.yaml"
    original = params.read_text()
    assert old in original
    params.write_text(original.replace(old, new))
    done = run(clone, "dvc", "repro")
    params.write_text(original)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert set(re.findall(r"Running stage '([^']+)'", done.stdout)) <= {"check"}
