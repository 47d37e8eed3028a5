"""Several processes of one job are one: what they learn and paint, where they go on, and how they end."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from atelier import machine
from atelier.training import loop
from atelier.training.loop import fit
from atelier.training.order import share, turns
from linked import linked
from ranks import ASKED, SEED, STEPS, finished, free_port, regression, start

HALF = ASKED.model_copy(update={"steps": STEPS // 2})
TRAINING = """
import json, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from atelier import machine
from atelier.training.loop import Watch, fit
from ranks import ASKED, SEED, STEPS, regression

folder, half = Path(sys.argv[1]), ASKED.model_copy(update={"steps": STEPS // 2})
here = Accelerator(cpu=True)

def trained(name, dtype, asked, watch=None):
    task = regression(dtype)
    history = fit(task, asked, seed=SEED, scratch=folder / name, accelerator=here, watch=watch)
    out = folder / f"{name}-{machine.rank()}"
    save_file({key: value.detach().contiguous() for key, value in task.trainable.items()}, f"{out}.safetensors")
    history.to_json(f"{out}.json")

trained("float64", torch.float64, ASKED)
trained("float32", torch.float32, ASKED)
trained("to one", torch.float64, half)
trained("from one", torch.float64, ASKED)
seen = Watch(lambda: {"seen": 10.0 * machine.rank() + len(seen.rows)}, lambda row: row["seen"] == 2)
trained("watched", torch.float64, ASKED, seen)
Path(folder / f"watched-{machine.rank()}.rows").write_text(json.dumps(seen.rows))
machine.finish()
"""
STOPPING = """
import os, sys, time
from pathlib import Path
import torch
from accelerate import Accelerator
from dataclasses import replace
from atelier import cli, machine
from atelier.training.loop import fit
from ranks import ASKED, SEED, regression

def main(arguments):
    folder, slow, what = Path(arguments[0]), int(arguments[1]), arguments[2]
    task, steps = regression(torch.float32), []

    def losses(batch):
        steps.append(batch)
        terms = task.losses(batch)
        if machine.rank() == slow and len(steps) == 8:
            if what == "nan":
                return {**terms, "fit": terms["fit"] * float("nan")}
            (folder / "slow").touch()
            time.sleep(100)
        return terms

    fit(replace(task, losses=losses), ASKED, seed=SEED, scratch=folder, accelerator=Accelerator(cpu=True))
    machine.finish()

sys.exit(cli.exit_code(main, sys.argv[1:]))
"""
PAINTING = """
import sys
from atelier import cli, machine, params
machine.settle(1)
from diffusers import StableDiffusionPipeline

calls, call = [], StableDiffusionPipeline.__call__

def counted(*arguments, **named):
    calls.append(1)
    return call(*arguments, **named)

StableDiffusionPipeline.__call__ = counted
code = cli.main(sys.argv[1:])
print(f"painted {len(calls)} batches")
sys.exit(code)
"""


@pytest.fixture(scope="module")
def alone() -> Accelerator:
    return Accelerator(cpu=True)


def trained(folder: Path, alone: Accelerator, dtype: torch.dtype, asked: Any = ASKED) -> dict[str, Tensor]:
    task = regression(dtype)
    fit(task, asked, seed=SEED, scratch=folder, accelerator=alone)
    return {name: value.detach().clone() for name, value in task.trainable.items()}


def gap(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference over the largest number."""
    assert ours.keys() == theirs.keys()
    largest = max(float(value.abs().max()) for value in theirs.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours) / largest


# ------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, alone: Accelerator) -> Path:
    """What two processes leave, after one has gone half of the way in ``from one``."""
    folder = tmp_path_factory.mktemp("together")
    trained(folder / "from one", alone, torch.float64, HALF)
    for code, _, said in finished(start("-c", TRAINING, str(folder), cwd=folder)):
        assert code == 0, said
    return folder


def of(folder: Path, name: str, rank: int = 0) -> dict[str, Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


def test_two_processes_learn_what_one_learns(together: Path, tmp_path: Path, alone: Accelerator) -> None:
    """Of five samples one has two and the other three; up to the order of sums."""
    gaps = {}
    for name in ("float64", "float32"):
        one = trained(tmp_path / name, alone, getattr(torch, name))
        gaps[name] = gap(of(together, name), one)
        ranks = of(together, name), of(together, name, 1)
        assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in one)
    print(f"\nafter {STEPS} steps two processes differ from one by {gaps['float64']:.1e} in float64, "
          f"{gaps['float32']:.1e} in float32, of the largest parameter")  # fmt: skip
    assert gaps["float64"] <= 1e-10
    assert gaps["float32"] <= 1e-5
    before = {name: value.detach() for name, value in regression(torch.float64).trainable.items()}
    after = of(together, "float64")
    assert min(gap({name: after[name]}, {name: before[name]}) for name in ("weight", "seldom")) > 0.01


def test_history_is_of_the_whole_batch(together: Path, tmp_path: Path, alone: Accelerator) -> None:
    expected = fit(regression(torch.float64), ASKED, seed=SEED, scratch=tmp_path, accelerator=alone)
    for rank in (0, 1):
        found = pd.read_json(together / f"float64-{rank}.json")
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5, check_dtype=False)


def test_a_run_goes_on_at_another_number_of_processes(together: Path, tmp_path: Path, alone: Accelerator) -> None:
    whole = trained(tmp_path, alone, torch.float64)
    journal = together / "to one" / "journal"
    assert journal.read_text().split() == [str(step) for step in range(STEPS // 2)]  # by one of both
    ended = trained(together / "to one", alone, torch.float64)
    assert journal.read_text().split() == [str(step) for step in range(STEPS)]
    print(f"\nfrom two to one {gap(ended, whole):.1e}, from one to two {gap(of(together, 'from one'), whole):.1e}")
    assert gap(ended, whole) <= 1e-10
    assert gap(of(together, "from one"), whole) <= 1e-10


def test_both_stop_by_what_the_main_one_sees(together: Path) -> None:
    rows = [json.loads((together / f"watched-{rank}.rows").read_text()) for rank in (0, 1)]
    assert rows[0] == rows[1] == [{"step": 0, "seen": 0}, {"step": 5, "seen": 1}, {"step": 10, "seen": 2}]


@pytest.mark.parametrize(("batch", "ranks"), [(5, 2), (7, 7), (1, 1), (64, 6)])
def test_shares_are_a_batch_in_order(batch: int, ranks: int) -> None:
    whole = turns(1, 2, batch, 9)
    shares = [share(whole, rank, ranks) for rank in range(ranks)]
    assert [turn for part in shares for turn in part] == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert min(map(len, shares)) > 0


@pytest.fixture
def as_main_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ranks", lambda: 2)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(machine, "join", lambda cpu: None)


@pytest.mark.usefixtures("as_main_of_two")
def test_what_processes_cannot_share_is_refused(tmp_path: Path, alone: Accelerator) -> None:
    task = regression(torch.float32)
    for changed, asked, said in (
        (replace(task, means=False), ASKED, "this training's loss is no mean over its samples"),
        (task, ASKED.model_copy(update={"batch": 1}), "a batch of 1 is too small for 2 processes"),
    ):
        with pytest.raises(ValueError, match=said):
            fit(changed, asked, seed=SEED, scratch=tmp_path, accelerator=alone)
    before = loop._chance(torch.device("cpu"))
    loop._check_chance(before, loop._chance(torch.device("cpu")))
    torch.nn.functional.dropout(torch.ones(3), 0.5)
    with pytest.raises(ValueError, match=r"draws at random \(dropout\)"):
        loop._check_chance(before, loop._chance(torch.device("cpu")))
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ ends


def one_line(said: str) -> str:
    lines = [
        line for line in re.split(r"[\r\n]", said) if line.strip() and "step/s" not in line and "s/step" not in line
    ]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.long
@pytest.mark.parametrize("slow", [0, 1])
def test_a_killed_process_ends_the_job(tmp_path: Path, slow: int) -> None:
    """The other waits for its gradients, or computes: what ends it is the exchange, or the signs of life."""
    processes = start("-c", STOPPING, str(tmp_path), str(slow), "sleep", cwd=tmp_path)
    until = time.monotonic() + 120
    while not (tmp_path / "slow").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2)
    killed = time.monotonic()
    processes[1].kill()
    (code, _, said), _ = finished(processes)
    print(f"\nended {time.monotonic() - killed:.1f} s after the kill")
    assert time.monotonic() - killed < 30
    assert code == 1
    assert one_line(said) == machine.LOST


@pytest.mark.long
def test_a_loss_that_is_not_finite_in_one_process_ends_all_with_one_line(tmp_path: Path) -> None:
    ended = finished(start("-c", STOPPING, str(tmp_path), "1", "nan", cwd=tmp_path))
    assert [code for code, _, _ in ended] == [1, 1]
    names = ", ".join(f"work-{turn.sample}" for turn in turns(SEED, 7, ASKED.batch, 12))
    assert re.fullmatch(rf"step 7: the loss is not finite \(fit=nan, .*\); batch: {names}", one_line(ended[0][2]))
    assert ended[1][2].strip() == ""


# ------------------------------------------------------------------------------------------------ stages


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def painted(out: str) -> int:
    return int(re.findall(r"painted (\d+) batches", out)[0])


@pytest.mark.long
def test_two_processes_share_the_pictures_and_paint_what_one_paints(tiny_world: Path, tmp_path: Path) -> None:
    counts, written = {}, {}
    for ranks in (1, 2):
        workspace = linked(tmp_path / str(ranks), tiny_world)
        ended = finished(
            start("-c", PAINTING, "art_finetuning", "sample", "untuned", "0", cwd=workspace.root, ranks=ranks)
        )
        assert all(code == 0 for code, _, _ in ended), ended
        counts[ranks], written[ranks] = [painted(out) for _, out, _ in ended], files_of(workspace.samples)
        assert not list(workspace.scratch.iterdir())
    print(f"\nbatches painted: {counts[1]} alone, {counts[2]} together")
    assert sum(counts[2]) == counts[1][0]
    assert abs(counts[2][0] - counts[2][1]) <= 1
    assert len(written[1]) > 48
    assert written[1] == written[2]


def launched(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A stage under ``accelerate launch``, as two processes.

    On the CPU, as the parameters say: the launcher's own ``--cpu`` starts one, or asks for MPI.
    """
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    place = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launcher, *place, "--main_process_port", str(free_port()), "-m", "atelier", *arguments]
    told = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_a_stage_trains_under_accelerates_launcher(tiny_world: Path, tmp_path: Path, run_python) -> None:
    out = {}
    for name in ("one", "two"):
        workspace = linked(tmp_path / name, tiny_world)
        arguments = ("art_finetuning", "train", "mixed", "0")
        done = (
            run_python("-m", "atelier", *arguments, cwd=workspace.root)
            if name == "one"
            else launched(workspace.root, *arguments)
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trained steps 0 to 24") == 1
        out[name] = workspace.adapter("art_finetuning", "mixed", 0)
        assert not list(workspace.scratch.iterdir())
    one, two = (load_file(each / "pytorch_lora_weights.safetensors") for each in out.values())
    print(f"\nan adapter of two processes differs from one's by {gap(two, one):.1e} of its largest number")
    assert gap(two, one) < 1e-3
    assert (out["one"] / "card.json").read_bytes() == (out["two"] / "card.json").read_bytes()
    histories = [pd.read_csv(each / "history.csv") for each in out.values()]
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)


@pytest.mark.long
def test_a_stage_that_runs_in_one_process_refuses_several(tiny_world: Path) -> None:
    for arguments, command in (
        (["art_finetuning", "measure", "untuned"], "python -m atelier art_finetuning measure"),
        (["check"], "python -m atelier check"),
    ):
        began = time.monotonic()
        ended = finished(start("-m", "atelier", *arguments, cwd=tiny_world))
        assert [code for code, _, _ in ended] == [1, 1]
        assert one_line(ended[0][2]) == f"{command}: has no use for 2 processes; start it by itself, without a launcher"
        assert ended[1][2] == ""
        assert time.monotonic() - began < 60
    done = launched(tiny_world, "art_finetuning", "measure", "untuned")
    assert done.returncode != 0
    assert done.stderr.count("python -m atelier art_finetuning measure: has no use for 2 processes") == 1


def test_stages_that_share_say_so_and_no_others() -> None:
    found = {
        ".".join(path.relative_to(Path(machine.__file__).parent).with_suffix("").parts)
        for path in Path(machine.__file__).parent.rglob("*.py")
        if re.search(rf'^PROCESSES = "{machine.SEVERAL}"', path.read_text(), re.MULTILINE)
    }
    assert found == {f"studies.{name}" for name in SHARED}


SHARED = (
    "art_finetuning.train",
    "art_finetuning.sample",
    "base_model.sample",
    "latent_perceptual.train",
    "latent_perceptual.sample",
    "pixel_space.train",
    "pixel_space.sample",
    "prompt_enrichment.sample",
    "shaping.flow",
    "signal_leak.train",
    "signal_leak.sample",
    "vae_decoder.train",
)
