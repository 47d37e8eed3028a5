"""Several studies at once: which may run beside each other, how many do, and what happens when one fails."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from atelier import locks, params
from atelier.pipeline import repro
from atelier.planning.stages import SHARED, Stage, stages
from atelier.studies import STUDIES
from atelier.workspace import Workspace

ROOT = Path(__file__).parent.parent
CPU = params.load(ROOT / "profiles/embedded.yaml").machine


def stage(pipeline: str, name: str, deps: list[str], outs: list[str]) -> Stage:
    return Stage(pipeline, name, name, (), tuple(deps), tuple(outs), ())


def test_studies_that_read_each_others_files_run_in_turn() -> None:
    a, b = stage("a", "a", ["build/base"], ["build/a/x", "build/a.csv"]), stage("b", "b", ["build/d/0"], ["build/b"])
    c, d = stage("c", "c", ["build/base"], ["build/ab"]), stage("d", "d", ["build/a"], ["build/d"])
    base = stage(SHARED, "base", [], ["build/base"])
    assert repro.groups([base, a, b, c, d]) == [[a, d, b], [c]]


def test_all_stages_of_the_studies_are_in_one_group_each_after_what_they_read() -> None:
    listed = stages(params.read(ROOT / "profiles/embedded.yaml"), Workspace(ROOT))
    found = repro.groups(listed)
    named = [repro.named(stage) for group in found for stage in group]
    assert sorted(named) == sorted(repro.named(stage) for stage in listed if stage.pipeline != SHARED)
    assert {stage.pipeline for stage in listed} == {SHARED, *STUDIES}
    (art,) = (group for group in found if any(stage.pipeline == "art_finetuning" for stage in group))
    assert {stage.pipeline for stage in art} == {"art_finetuning", "prompt_enrichment", "vae_decoder"}
    places = {stage.name: place for place, stage in enumerate(art)}
    assert places["art_finetuning"] > places["prompt_enrichment-measure@rank8-unconditional"]  # shows its measure
    assert places["art_finetuning-train@rank4-unconditional-0"] < places["art_finetuning-sample@rank4-unconditional-0"]


@pytest.mark.parametrize(("cores", "threads", "most"), [(2, 1, 2), (2, 2, 1), (1, 2, 1), (16, 4, 4)])
def test_stages_share_the_cores_and_never_a_gpu(
    cores: int, threads: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repro, "cores", lambda: cores)
    monkeypatch.setattr(repro, "GPUS", (tmp_path / "gpu",))
    machine = CPU.model_copy(update={"threads": threads, "device": "auto"})
    assert repro.most_at_once(machine) == most
    (tmp_path / "gpu").touch()
    assert repro.most_at_once(machine) == 1
    assert repro.most_at_once(machine.model_copy(update={"device": "cpu"})) == most


def test_after_a_failure_nothing_is_started_and_what_runs_comes_to_its_end(tmp_path: Path) -> None:
    def command(name: str, seconds: float, code: int) -> list[str]:
        text = f"import pathlib, sys, time; time.sleep({seconds}); pathlib.Path({str(tmp_path / name)!r}).touch(); "
        return [sys.executable, "-c", f"{text}sys.exit({code})"]

    commands = [command("fails", 0.3, 3), command("long", 1.5, 0), command("never", 0, 0)]
    with pytest.raises(SystemExit) as ended:
        repro._at_once(commands, 2)
    assert ended.value.code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fails", "long"]


def test_commands_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    started = tmp_path / "started"
    child = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(2); "
    child += f"pathlib.Path({str(tmp_path / 'outlived')!r}).touch()"
    text = f"import sys; from atelier.pipeline import repro; repro._at_once([[sys.executable, '-c', {child!r}]], 1)"
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT) as parent:
        for _ in range(300):
            if started.exists():
                break
            time.sleep(0.1)
        assert started.exists()
        parent.kill()
    time.sleep(3)
    assert not (tmp_path / "outlived").exists()


@pytest.mark.parametrize(
    ("stage", "lock"),
    [
        ("prepare", "dvc.lock"),
        ("pipelines/signal_leak/dvc.yaml:signal_leak-train@woodcut-0", "pipelines/signal_leak/dvc.lock"),
    ],
)
def test_a_stages_lock_is_named_after_its_pipeline(stage: str, lock: str) -> None:
    assert locks.of_stage(stage) == Path(lock)


def test_a_stage_keeps_its_own_lock_alone(tmp_path: Path) -> None:
    """Another may be half written by the DVC of a study beside it, and still be readable."""
    for name in ("dvc.lock", "pipelines/a/dvc.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("schema: '2.0'\nstages:\n  one:\n    cmd: x\n")
    locks.keep(tmp_path, Path("pipelines/a/dvc.lock"))
    assert [path.relative_to(tmp_path / locks.KEPT) for path in (tmp_path / locks.KEPT).rglob("*.lock")] == [
        Path("pipelines/a/dvc.lock")
    ]
