"""The whole pipeline under the profile `smoke`, in a temporary copy: the checkout's files stay as they are."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from atelier import params
from atelier.studies import STUDIES
from atelier.studies.latent_perceptual import features, measure
from atelier.workspace import Workspace
from smoke_clone import checked, repro, run

pytestmark = pytest.mark.pipeline


def locks(folder: Path) -> dict[str, bytes]:
    paths = [folder / "dvc.lock", *sorted(folder.glob("pipelines/*/dvc.lock"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_pages_are_whole(clone: Path) -> None:
    checked(clone, sys.executable, "-m", "atelier.pipeline.render", "results")
    results = clone / "results" / "smoke"
    for study in STUDIES:
        page = (results / study / f"{study}.html").read_text()
        assert "<img" in page
        assert str(clone) not in page
        assert (results / study / "metrics.json").is_file()
    for name, content in locks(clone).items():
        published = "dvc.lock" if name == "dvc.lock" else f"{Path(name).parent.name}.lock"
        assert (results / "locks" / published).read_bytes() == content


def test_what_a_study_lists_is_measured(clone: Path) -> None:
    workspace = Workspace(clone)
    config = params.load(workspace.params_file)
    rows = pd.concat([measure.load(workspace.measures)[0], features.rows(config, workspace.measures)])
    real = {name for kind in ("photographs", "works") for name in measure.real_cells(kind)}
    assert set(rows["cell"]) - real == measure.cells(config) - real
    assert real & set(rows["cell"]) >= set(measure.real_cells("photographs"))


def test_again_nothing_runs(clone: Path) -> None:
    assert repro(clone, below=()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 2025", "sede: 2025", "sede: unknown parameter; did you mean 'seed'?"),
        ("rank8-mixed: {rank: 8", "rank8-mixed: {rank: eight", "art_finetuning.adapters.rank8-mixed.rank"),
        ("bad_share: 0.01", "bad_share: 1.5", "data.bad_share"),
    ],
)
def test_a_bad_parameter_stops_the_pipeline_before_any_other_stage(
    clone: Path, old: str, new: str, message: str
) -> None:
    path = clone / "params.yaml"
    original = path.read_text()
    assert old in original
    path.write_text(original.replace(old, new))
    done = run(clone, "dvc", "repro")
    path.write_text(original)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert set(re.findall(r"Running stage '([^']+)'", done.stdout)) <= {"check"}


@pytest.mark.long
def test_changed_rank_reruns_what_depends_on_it_and_back_reruns_nothing(clone: Path) -> None:
    path = clone / "params.yaml"
    original, before = path.read_text(), locks(clone)
    path.write_text(original.replace("rank4-mixed: {rank: 4", "rank4-mixed: {rank: 3"))
    ran = repro(clone)
    changed = {f"art_finetuning-{stage}" for stage in ("train@rank4-mixed-0", "sample@rank4-mixed-0")}
    changed |= {"art_finetuning-measure@rank4-mixed", "art_finetuning"}
    collected = {"prompt_enrichment-collect", "vae_decoder-collect"}  # they find the rows that they read unchanged
    # check and site read every parameter; neither computes anything
    assert set(ran) == changed | collected | {"check", "site"}
    path.write_text(original)
    assert repro(clone) == []
    assert locks(clone) == before


@pytest.mark.long
def test_forced_stages_give_the_same_bytes(clone: Path) -> None:
    """Each in a process that has loaded its libraries itself."""
    before = locks(clone)
    again = {
        "art_finetuning": ["train@full-mixed-0", "sample@rank4-mixed-0", "measure@rank4-mixed", "diagnose-untuned"],
        "prompt_enrichment": ["sample-untuned@0", "measure-untuned"],
        "vae_decoder": ["train@all-0", "reconstruct", "measure@untuned"],
        "signal_leak": ["fit", "train@watercolor-0", "sample@watercolor-0", "sample-untuned@0", "measure"],
        "latent_perceptual": ["corpus", "train@lpl-0", "sample@lpl-0", "features", "measure"],
    }
    targets = ["base", "cache", "reference"]
    targets += [f"pipelines/{study}/dvc.yaml:{study}-{stage}" for study, stages in again.items() for stage in stages]
    targets.append("pipelines/art_finetuning/dvc.yaml:art_finetuning")
    ran = repro(clone, "--force", "--single-item", *targets, below=())
    assert ran == [target.rpartition(":")[2] for target in targets]
    assert locks(clone) == before
