"""How long stages took."""

import runpy
from pathlib import Path

import pytest

from atelier import cli, lifetime

HOURS = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "hours.py"))


def test_a_seed_costs_the_mean_of_all_seeds_stages(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text(
        "prepare,360.0\npipelines/a/dvc.yaml:a-train@plain-0,3600.0\npipelines/a/dvc.yaml:a-measure@ffl-10x,0\npipelines/a/dvc.yaml:a,720.0\n"
    )
    other.write_text("pipelines/a/dvc.yaml:a-train@plain-11,7200.0\npipelines/a/dvc.yaml:a-train@rank8-v-11,3600.0\n")
    table = HOURS["table"]([one, other])
    assert table.loc["all studies"].tolist() == pytest.approx([0.1, 0.0, 0.0])
    assert table.loc["a"].tolist() == pytest.approx([0.2, 2.0, 2.0])


def test_what_is_no_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("stage,soon\n")
    with pytest.raises(ValueError, match=r"odd\.csv: not a table of timings"):
        HOURS["table"]([tmp_path / "odd.csv"])


def test_a_stage_is_done_though_its_time_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".scratch").write_text("a file")
    monkeypatch.setenv(lifetime.STAGE, "pipelines/a/dvc.yaml:a")
    monkeypatch.setattr(cli.locks, "keep", lambda *_: None)
    monkeypatch.setattr(cli, "_run", lambda workspace, arguments: None)
    cli.run(["page", "a"])


def test_only_stages_of_the_pipeline_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(lifetime.STAGE, raising=False)
    monkeypatch.setattr(cli, "_run", lambda workspace, arguments: None)
    cli.run(["check"])
    assert not Path(".scratch").exists()
    monkeypatch.setenv(lifetime.STAGE, "pipelines/a/dvc.yaml:a")
    cli.run(["page", "a"])
    assert HOURS["table"]([Path(".scratch") / cli.TIMINGS]).index.tolist() == ["a"]
