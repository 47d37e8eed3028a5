"""A kill loses at most one batch of pictures or cell of a stage, and ends in an undisturbed run's bytes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atelier import params as parameters
from atelier.evaluation import cells as measured_cells
from atelier.models import base
from atelier.params import CORRECTED, STARTS, Params
from atelier.sampling import conditions as sampling
from atelier.sampling.held_out import held_out_table
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import UNTUNED
from atelier.studies.art_finetuning import measure as art_measure
from atelier.studies.art_finetuning import sample as art_sample
from atelier.studies.art_finetuning import train as art_train
from atelier.studies.latent_perceptual import measure as perceptual_measure
from atelier.studies.latent_perceptual import sample as perceptual_sample
from atelier.studies.latent_perceptual import train as perceptual_train
from atelier.studies.prompt_enrichment import sample as prompt_sample
from atelier.studies.signal_leak import fit
from atelier.studies.signal_leak import sample as leak_sample
from atelier.studies.signal_leak import train as leak_train
from atelier.studies.vae_decoder import reconstruct
from atelier.studies.vae_decoder import train as decoder_train
from atelier.workspace import Workspace


class Killed(BaseException):
    """The process ends here: nothing may catch it."""


class Calls:
    """Counts the calls of a function; the ``deadly``-th ends the process before it does anything."""

    def __init__(self, deadly: int | None = None) -> None:
        self.count, self.deadly = 0, deadly

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count == self.deadly:
                raise Killed
            return function(*arguments, **named)

        return called


@pytest.fixture
def params(workspace: Workspace) -> Params:
    return parameters.load(workspace.params_file)


def hashes(*folders: Path) -> dict[str, str]:
    """SHA-256 of every file in these folders, or of these files."""
    files = [file for folder in folders for file in ([folder] if folder.is_file() else sorted(folder.rglob("*")))]
    return {file.as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def remove(outputs: Sequence[Path]) -> None:
    for output in outputs:
        if output.is_dir():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)


@contextmanager
def counted(owner: Any, name: str, deadly: int | None = None) -> Iterator[Calls]:
    """``owner.name``'s calls within the block."""
    calls = Calls(deadly)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, calls.around(getattr(owner, name)))
        yield calls


def check(stage: Callable[[], None], outputs: Sequence[Path], scratch: Path, owner: Any, name: str, deadly: int) -> int:
    """Run a stage undisturbed; then end it at the ``deadly``-th call of ``owner.name`` and start it again.

    Each output must be whole or absent after the kill, and equal in the end; no unfinished work may be left in
    ``scratch``. As DVC does, outputs are removed before a start. Returns how many calls were made in vain: those after
    the restart, less those that the first start had not made.
    """
    with counted(owner, name) as undisturbed:
        stage()
    expected = {output: hashes(output) for output in outputs}
    assert all(expected.values())
    remove(outputs)
    with counted(owner, name, deadly), pytest.raises(Killed):
        stage()
    assert all(hashes(output) == expected[output] for output in outputs if output.exists())
    remove(outputs)
    with counted(owner, name) as again:
        stage()
    assert {output: hashes(output) for output in outputs} == expected
    assert not list(scratch.glob("*"))
    return again.count - (undisturbed.count - (deadly - 1))


# ------------------------------------------------------------------------------------------------ painting


PAINTING = (base.StableDiffusionPipeline, "__call__")  # one call per batch


def batches(params: Params, condition: sampling.Condition) -> int:
    """Calls of the untuned base's pipeline that a condition costs which shares its batches with no other."""
    return -(-len(condition.table) // params.sampling.batch)


def changed(params: Params, study: str, **settings: Any) -> Params:
    """Parameters with settings of a study's section replaced, and no more than two steps of its trainings."""
    section = params.section(study)
    optimisation = section.optimisation.model_copy(update={"steps": 2, "warmup": 1})
    return params.model_copy(update={study: section.model_copy(update={"optimisation": optimisation, **settings})})


def test_the_second_of_two_conditions_alone_is_painted_again(params: Params, workspace: Workspace) -> None:
    every, samples = art_sample.all_conditions(params, workspace, 0, "picture", "two"), workspace.samples
    conditions = [each for each in every if not each.folder.endswith(CORRECTED)]  # no two share their batches
    assert len(conditions) == 2
    each = batches(params, conditions[0])
    assert each > 1  # the kill is in the middle of a condition

    def stage() -> None:
        entry = art_sample.__name__
        sampling.sample_model(params, workspace, entry, "art_finetuning", UNTUNED, 0, conditions, samples, ["two"])

    again = check(stage, [samples / "two"], workspace.scratch, *PAINTING, deadly=each + 2)
    assert again == 0  # the batch that the second condition had is kept


def test_conditions_that_are_kept_are_not_painted_with_others(params: Params, workspace: Workspace) -> None:
    table, run = held_out_table(params, workspace.manifests, 1, 3, 0), workspace.scratch / "run"
    one, two = (
        sampling.Condition(name, table, sampling.white_noise(params, name), 4.0, params.sampling.steps)
        for name in ("one", "two")
    )

    def paint(*conditions: sampling.Condition) -> int:
        with counted(*PAINTING) as calls:
            sampling.paint_conditions(params, conditions, lambda: with_ddim(base.load(workspace.base)), run)
        return calls.count

    assert paint(one) == batches(params, one) > 1
    before = hashes(run)
    assert paint(two, one) == batches(params, two)
    assert before.items() <= hashes(run).items()
    assert paint(one, two) == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "folders"),
    [
        (art_sample, ["art_finetuning/untuned/0", "art_finetuning/untuned-again/0"]),
        (prompt_sample, ["prompt_enrichment/untuned/0"]),
    ],
    ids=["art_finetuning", "prompt_enrichment"],
)
def test_of_a_stages_batches_none_is_lost(
    params: Params, workspace: Workspace, stage: ModuleType, folders: list[str]
) -> None:
    each = batches(params, art_sample.all_conditions(params, workspace, 0, "picture", UNTUNED)[0])
    outputs = [workspace.samples / folder for folder in folders]

    def run() -> None:
        stage.main(params, workspace, UNTUNED, "0")

    assert check(run, outputs, workspace.scratch, *PAINTING, deadly=2 * each + 2) == 0


@pytest.mark.long
@pytest.mark.parametrize("model", [UNTUNED, "sd-betas"])
def test_of_the_signal_leaks_batches_none_is_lost(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Killed in the middle of its second condition, and while it examines the first step: all is painted by then."""
    fit.main(params, workspace)
    if model != UNTUNED:
        leak_train.train(params, workspace, model, 0)
    names = ("white", "low-3", "sd-betas", "sd-betas-unguided")
    few = [each for each in leak_sample.all_conditions(params) if each.name in names]
    assert len(few) == 4
    monkeypatch.setattr(leak_sample, "all_conditions", lambda params: few)
    outputs = [workspace.samples / "signal_leak" / model / "0"]
    each = batches(params, leak_sample.cell_of(params, workspace.manifests, few[0], {}, 0))
    # the base's conditions share their batches; the second begins in a batch of the first
    deadly = each + 1 if model == UNTUNED else each + 2

    def run() -> None:
        leak_sample.main(params, workspace, model, "0")

    assert check(run, outputs, workspace.scratch, *PAINTING, deadly=deadly) == 0
    with counted(*PAINTING) as undisturbed:
        run()
    with counted(*PAINTING) as painted:
        assert check(run, outputs, workspace.scratch, leak_sample, "first_estimates", deadly=1) == 0
    assert painted.count == 2 * undisturbed.count  # undisturbed, and before the kill


# ------------------------------------------------------------------------------------------------ measuring


@pytest.mark.long
def test_a_cell_that_was_measured_is_not_measured_again(params: Params, workspace: Workspace) -> None:
    for seed in params.protocol.training_seeds:
        art_sample.main(params, workspace, UNTUNED, str(seed))
    outputs = [workspace.measures / "art_finetuning" / f"{UNTUNED}.csv"]

    def run() -> None:
        art_measure.main(params, workspace, UNTUNED)

    assert check(run, outputs, workspace.scratch, measured_cells, "cell_rows", deadly=2) == 0


@pytest.mark.long
def test_a_post_trainings_cell_is_not_measured_again(params: Params, workspace: Workspace) -> None:
    """Killed while a cell is measured, and between its measures and what comparisons need of it."""
    variants = ["plain", "lpl"]
    trainings = {name: params.section("latent_perceptual").trainings[name] for name in variants}
    params = changed(params, "latent_perceptual", variants=variants, trainings=trainings, followed=[])
    for name, seed in product(variants, map(str, params.protocol.training_seeds)):
        perceptual_train.main(params, workspace, name, seed)
        perceptual_sample.main(params, workspace, name, seed)
    outputs = [workspace.measures / name for name in (perceptual_measure.OUT, perceptual_measure.SPECTRA)]

    def run() -> None:
        perceptual_measure.main(params, workspace)

    for name in ("measured", "save_groups"):
        assert check(run, outputs, workspace.scratch, perceptual_measure, name, deadly=4) == 0


@pytest.mark.long
def test_a_decoders_reconstructions_are_neither_painted_nor_measured_again(
    params: Params, workspace: Workspace
) -> None:
    params = changed(params, "vae_decoder")
    for name in params.section("vae_decoder").variants:
        for seed in params.protocol.training_seeds:
            decoder_train.train(params, workspace, name, seed)
    outputs = [workspace.measures / reconstruct.OUT, workspace.samples / reconstruct.REPAINTED]

    def run() -> None:
        reconstruct.main(params, workspace)

    for name in ("repaint", "decoder_rows"):
        assert check(run, outputs, workspace.scratch, reconstruct, name, deadly=2) == 0


# ------------------------------------------------------------------------------------------------ a real process


def kept(world: Path) -> list[Path]:
    """The parts of a stage that are whole; none while their folder is being deleted."""
    parts = ".scratch/samples-art_finetuning-mixed-0-*/*.safetensors"
    with suppress(FileNotFoundError):
        return [path for path in world.glob(parts) if path.name[0] != "."]
    return []


def started(world: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "atelier", "art_finetuning", "sample", "mixed", "0"],
        cwd=world,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,  # what it says on stderr is shown where the test fails
    )


@pytest.mark.long
def test_killed_once_the_first_part_is_there(params: Params, workspace: Workspace) -> None:
    """SIGKILL: the first part stays the file that it was while the others are painted."""
    world, params = workspace.root, changed(params, "art_finetuning")
    art_train.train(params, workspace, "mixed", 0)
    out = workspace.samples / "art_finetuning" / "mixed" / "0"
    assert started(world).wait(300) == 0
    expected = hashes(out)
    assert expected
    shutil.rmtree(out)
    assert not kept(world)

    process, until = started(world), time.monotonic() + 120
    while not kept(world) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not out.exists()
    before = {path: path.stat() for path in kept(world)}
    protocol, batch = params.protocol, params.sampling.batch
    both = len(STARTS) * protocol.repeats * protocol.pictures  # starts share batches
    parts = len(protocol.guidance) * -(-both // batch)
    assert 1 <= len(before) < parts

    process, most = started(world), 0
    while process.poll() is None:
        names = kept(world)
        most = max(most, len(names))
        for path, stat in before.items():
            if path in names:
                with suppress(FileNotFoundError):  # all are deleted once the result is in place
                    again = path.stat()
                    assert (again.st_ino, again.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
        time.sleep(0.001)
    assert process.wait() == 0
    assert most == parts
    assert hashes(out) == expected
    assert not kept(world)
