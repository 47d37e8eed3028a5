"""A lock that a kill has cut is put back from the copy that was kept while it was whole."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier import locks

ROOT = Path(__file__).parent.parent
LOCKS = [path.read_bytes() for path in (ROOT / "dvc.lock", *sorted(ROOT.glob("pipelines/*/dvc.lock")))]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, data in zip(("dvc.lock", "pipelines/a/dvc.lock", "pipelines/b/dvc.lock"), LOCKS, strict=False):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    locks.keep(tmp_path)
    return tmp_path


@settings(deadline=None)  # a lock takes a tenth of a second to read, on a machine with nothing else to do
@given(st.data())
def test_a_cut_anywhere_is_noticed(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(LOCKS))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    if locks.damaged(cut, whole):
        return
    # what is not noticed is whole in all that a stage needs to be recognised: only its last entries are gone
    assert list(locks.stages(cut) or {}) == list(locks.stages(whole) or {})
    assert len(cut) > len(whole) - 4000


@pytest.mark.parametrize("left", [0, 1, 100, 8190])
def test_a_damaged_lock_is_put_back_and_others_are_left(repository: Path, left: int) -> None:
    path = repository / "pipelines/a/dvc.lock"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(left, len(whole) - 5000)])
    assert locks.put_back(repository) == [Path("pipelines/a/dvc.lock")]
    assert path.read_bytes() == whole
    assert locks.put_back(repository) == []


def test_a_damaged_lock_is_never_kept(repository: Path) -> None:
    path = repository / "dvc.lock"
    whole = path.read_bytes()
    path.write_bytes(b"schema: '2.0'\nstages:\n  check: [")
    locks.keep(repository)
    assert locks.put_back(repository) == [Path("dvc.lock")]
    assert path.read_bytes() == whole


def test_another_revision_is_no_damage(repository: Path) -> None:
    path = repository / "dvc.lock"
    text = path.read_text()
    for other in (text.replace("check:", "first:", 1), text + "  more:\n    cmd: x\n", text.replace("md5: ", "md5: 0")):
        path.write_text(other)
        assert locks.put_back(repository) == []
        assert path.read_text() == other


def test_without_a_copy_nothing_is_done(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_bytes(b"")
    assert locks.put_back(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"write": {"a": {"pid"', b"[]", b"\xff\xfe"])
def test_a_cut_note_of_running_commands_is_removed(tmp_path: Path, content: bytes) -> None:
    """DVC refuses every command where it cannot read it; it treats a missing one as empty."""
    path = tmp_path / locks.RUNNING
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert locks.remove_cut(tmp_path)
    assert not path.exists()
    assert not locks.remove_cut(tmp_path)


def test_a_whole_note_of_running_commands_is_left(tmp_path: Path) -> None:
    path = tmp_path / locks.RUNNING
    path.parent.mkdir(parents=True)
    path.write_text('{"write": {}, "read": {}}')
    assert not locks.remove_cut(tmp_path)
    assert path.is_file()
