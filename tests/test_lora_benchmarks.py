"""The benchmarks of LoRA run, and compare like with like; what they measure is not looked at here."""

import re
from pathlib import Path

import pytest

from atelier.models import base

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_both_loops_have_equal_losses(run_python, tmp_path: Path) -> None:
    base.save(base.build("tiny", 64, ["a boat on a lake"], seed=1), tmp_path / "base", {})
    command = [str(BENCHMARKS / "lora.py"), "--dry", "--threads", "1", "--base", str(tmp_path / "base")]
    done = run_python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(r"largest difference of (\d+) losses: (\S+), of (\S+) to (\S+)", done.stdout)
    assert found, done.stdout
    number, gap, first, last = map(float, found.groups())
    assert number == 5
    assert gap <= 1e-6
    assert first != last  # of other pictures, noise and times
    assert "| backward |" in done.stdout


@pytest.mark.long
def test_each_row_of_a_gpus_table_runs(run_python, tmp_path: Path) -> None:
    done = run_python(str(BENCHMARKS / "lora_gpu.py"), "--dry", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if re.match(r"\| (example|ours|\+|\.)", line)]
    assert len(rows) == 13
    assert [row[1] for row in rows if not re.fullmatch(r" \d+\.\d ", row[1])] == []
