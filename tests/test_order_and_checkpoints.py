"""The order of samples is a function of the step; a checkpoint is whole or absent, whatever happens to its writer."""

import errno
import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from atelier.training import checkpoints
from atelier.training.order import permutation, turns

SEEDS = st.integers(0, 2**40)
SIZES = st.integers(1, 40)


@given(seed=SEEDS, epoch=st.integers(0, 50), size=SIZES)
def test_each_epoch_is_a_permutation(seed: int, epoch: int, size: int) -> None:
    assert sorted(permutation(seed, epoch, size)) == list(range(size))


@given(seed=SEEDS, batch=st.integers(1, 17), size=SIZES, steps=st.integers(1, 12))
def test_batches_run_on_over_epochs_and_have_one_size(seed: int, batch: int, size: int, steps: int) -> None:
    seen = [turns(seed, step, batch, size) for step in range(steps)]
    assert {len(part) for part in seen} == {batch}
    flat = [turn for part in seen for turn in part]
    assert [turn.epoch for turn in flat] == [place // size for place in range(len(flat))]
    for epoch in range(len(flat) // size):
        assert sorted(flat[epoch * size + i].sample for i in range(size)) == list(range(size))
    assert max(Counter(flat).values()) == 1  # (sample, epoch) names a turn: no two draw the same noise


@given(seed=SEEDS, step=st.integers(0, 1000), batch=st.integers(1, 17), size=SIZES)
def test_a_batch_depends_on_nothing_that_was_asked_before(seed: int, step: int, batch: int, size: int) -> None:
    after_others = [turns(seed, before, batch, size) for before in (step + 3, step // 2, step)][-1]
    permutation.cache_clear()
    torch.manual_seed(step)
    assert turns(seed, step, batch, size) == after_others


def test_seed_and_epoch_change_the_order() -> None:
    assert len({permutation(seed, epoch, 30) for seed in range(4) for epoch in range(4)}) == 16


@pytest.mark.parametrize(("batch", "size"), [(0, 3), (3, 0), (-1, 3)])
def test_an_empty_batch_is_refused(batch: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one sample and one place"):
        turns(0, 0, batch, size)


def test_the_order_is_that_of_every_machine() -> None:
    """Pinned: a change of it would silently change every result."""
    assert turns(2025, 3, 4, 10) == [(8, 1), (0, 1), (1, 1), (2, 1)]


# ------------------------------------------------------------------------------------------------------- checkpoints


def state(step: int) -> dict[str, torch.Tensor]:
    return {"parameter/w": torch.full((50, 3), float(step)), "step/w": torch.tensor(float(step))}


def save(folder: Path, step: int) -> None:
    checkpoints.save(folder, step, state(step), {"seed": 1, "history": [{"loss": 0.1 + step}]})


def newest(folder: Path) -> int:
    found = checkpoints.load(folder)
    assert found is not None
    tensors, notes = found
    for name, value in state(notes["step"]).items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=0)
    assert notes["history"] == [{"loss": 0.1 + notes["step"]}]
    return notes["step"]


def test_nothing_written_is_none_and_the_newest_is_read(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path / "absent") is None
    for step in (5, 10, 100_000_000):
        save(tmp_path, step)
        assert newest(tmp_path) == step
    assert [path.name for path in tmp_path.iterdir()] == ["step-100000000"]


class Killed(BaseException):
    """No handler may catch it, as none catches SIGKILL."""


def calls_of(monkeypatch: pytest.MonkeyPatch, folder: Path, stop_at: int) -> int:
    """Save step 10 with every file operation counted; the ``stop_at``-th is the last thing that the process does."""
    count = 0

    def counted(real: Callable, before: bool) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if before and count == stop_at:
                raise Killed
            result = real(*arguments, **named)
            count += 1
            if count == stop_at:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patch:
        for owner, name in [
            (os, "replace"),
            (os, "fsync"),
            (os, "open"),
            (checkpoints, "save_file"),
            (checkpoints, "_read"),
            (Path, "write_text"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
        ]:
            patch.setattr(owner, name, counted(getattr(owner, name), before=True))
        try:
            save(folder, 10)
        except Killed:
            assert count == stop_at
    return count


def test_killed_anywhere_in_a_write_the_previous_or_the_new_one_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "whole", 5)
    shutil.copytree(tmp_path / "whole", tmp_path / "counted")
    moments = calls_of(monkeypatch, tmp_path / "counted", stop_at=-1)
    assert moments > 20
    ended = []
    for moment in range(1, moments + 1):
        folder = tmp_path / f"{moment}"
        shutil.copytree(tmp_path / "whole", folder)
        calls_of(monkeypatch, folder, stop_at=moment)
        ended.append(newest(folder))
        # and whatever was left lying does not disturb the one who comes after
        save(folder, 10)
        assert newest(folder) == 10
        save(folder, 15)
        assert newest(folder) == 15
    assert ended == sorted(ended)
    assert set(ended) == {5, 10}
    assert capsys.readouterr().err == ""  # nothing half written ever had a checkpoint's name


def test_a_half_written_file_is_never_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5)

    def torn(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"\x10\0\0")
        raise Killed

    monkeypatch.setattr(checkpoints, "save_file", torn)
    with pytest.raises(Killed):
        save(tmp_path, 10)
    assert newest(tmp_path) == 5


def two_checkpoints(folder: Path) -> tuple[Path, Path]:
    """As left by a process killed between the new one's renaming and the old one's removal."""
    save(folder, 5)
    shutil.copytree(folder / "step-00000005", folder.parent / "kept")
    save(folder, 10)
    shutil.move(folder.parent / "kept", folder / "step-00000005")
    return folder / "step-00000005", folder / "step-00000010"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def not_a_mapping(path: Path) -> None:
    path.write_text("[]")


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = [cut, empty, flip_last_bit, zeros, not_a_mapping, remove]


@pytest.mark.parametrize("file", [checkpoints.TENSORS, checkpoints.NOTES])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda function: function.__name__)
def test_a_damaged_newest_is_named_and_the_previous_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], file: str
) -> None:
    folder = tmp_path / "run"
    old, new = two_checkpoints(folder)
    damage(new / file)
    assert newest(folder) == 5
    said = capsys.readouterr().err
    assert str(new) in said
    assert "damaged" in said
    assert len(said.splitlines()) == 1
    # the run that goes on from there gets to the same step again
    save(folder, 10)
    assert newest(folder) == 10
    assert not old.exists()


def test_every_changed_digit_of_the_notes_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another step or another running sum is still JSON."""
    save(tmp_path, 5)
    path = tmp_path / "step-00000005" / checkpoints.NOTES
    text = path.read_text()
    for place, letter in enumerate(text):
        if letter.isdigit():
            path.write_text(text[:place] + str((int(letter) + 1) % 10) + text[place + 1 :])
            with pytest.raises(ValueError, match="no checkpoint is whole"):
                checkpoints.load(tmp_path)
    capsys.readouterr()


def test_all_damaged_is_an_error_and_nothing_is_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    for path in two_checkpoints(folder):
        zeros(path / checkpoints.TENSORS)
    with pytest.raises(ValueError, match="no checkpoint is whole; delete the folder to start over"):
        checkpoints.load(folder)
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert len(list(folder.iterdir())) == 2


def test_a_pickle_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 5)
    path = tmp_path / "step-00000005"
    torch.save(state(5), path / checkpoints.TENSORS)
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
    ],
)
def test_a_full_disk_is_an_oserror_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise fault

    save(tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(OSError, match="No space left on device"):
            save(tmp_path, 10)
    assert newest(tmp_path) == 5
    save(tmp_path, 10)
    assert newest(tmp_path) == 10


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_limit_on_file_size_which_the_writer_really_meets_is_an_oserror(tmp_path: Path) -> None:
    """What safetensors itself raises is no OSError."""
    save(tmp_path, 5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"state\.safetensors: not written: .*too large") as caught:
            save(tmp_path, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(str(caught.value).splitlines()) == 1
    assert newest(tmp_path) == 5


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, 5)
    for file in (checkpoints.TENSORS, checkpoints.NOTES):
        assert (tmp_path / "a/step-00000005" / file).read_bytes() == (tmp_path / "b/step-00000005" / file).read_bytes()
    assert json.loads((tmp_path / "a/step-00000005" / checkpoints.NOTES).read_text().splitlines()[0])["step"] == 5
