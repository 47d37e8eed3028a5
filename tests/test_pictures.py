"""Pictures that are read as they are needed: which are read, in which order, and how few are in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from atelier.data import pictures
from atelier.data.images import BadPicture
from atelier.data.pictures import Pictures, at_hand, in_memory, of_files, of_shards, write_shards

SIZE = 8


def numbered(n: int) -> torch.Tensor:
    """Pictures whose pixels are their number."""
    return torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, SIZE, SIZE).contiguous()


def numbers(shown: torch.Tensor) -> list[int]:
    assert shown.shape[1:] == (3, SIZE, SIZE)
    return shown[:, 0, 0, 0].tolist()


@pytest.fixture(params=["memory", "files", "shards"])
def ten(request: pytest.FixtureRequest, tmp_path: Path) -> Pictures:
    if request.param == "memory":
        return in_memory(numbered(10))
    if request.param == "files":
        files = [tmp_path / f"{number}.png" for number in range(10)]
        for number, file in enumerate(files):
            Image.new("RGB", (SIZE, SIZE), (number,) * 3).save(file)
        return of_files(files, SIZE)
    assert write_shards(numbered(10).split(4), tmp_path, "ten") == 10
    write_shards([255 - numbered(3)], tmp_path, "ten-others")  # a name that begins alike
    return of_shards(tmp_path, "ten")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(None), list(range(10))),
        (slice(1, None, 4), [1, 5, 9]),
        ([9, 0, 4, 0, 3], [9, 0, 4, 0, 3]),
        (np.arange(10) % 3 == 1, [1, 4, 7]),
        ([], []),
        (np.array([], dtype=np.int64), []),
        ([4, 5, 6, 7], [4, 5, 6, 7]),
    ],
)
def test_rows_are_chosen_as_from_a_tensor(ten: Pictures, rows: pictures.Rows, expected: list[int]) -> None:
    chosen = ten[rows]
    assert len(chosen) == len(expected)
    assert numbers(chosen.load()) == expected
    in_threes = [expected[at : at + 3] for at in range(0, len(expected), 3)]
    assert [numbers(batch) for batch in chosen.batches(3)] == in_threes


def test_what_is_chosen_is_chosen_from_again(ten: Pictures) -> None:
    assert numbers(ten[2:][::2][[1, 0]].load()) == [4, 2]


def test_nothing_is_read_before_it_is_needed_and_only_that() -> None:
    read: list[list[int]] = []

    def note(rows: list[int]) -> torch.Tensor:
        read.append(rows)
        return numbered(10)[rows]

    batches = Pictures(note, np.arange(10))[1::2].batches(2)
    assert read == []
    assert numbers(next(batches)) == [1, 3]
    assert read == [[1, 3]]


def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    two = of_files([tmp_path / "a.png"], SIZE)
    with pytest.raises(BadPicture, match=r"a\.png"):
        two.load()


@pytest.mark.parametrize("wrong", [numbered(2).float(), numbered(2)[:, :1], numbered(0)])
def test_other_tensors_are_refused(wrong: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^pictures: "):
        in_memory(wrong)
    with pytest.raises(ValueError, match=r"^some: "):
        write_shards([wrong], tmp_path, "some")


def test_a_missing_or_foreign_shard_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ten-00000\.safetensors: no such file"):
        of_shards(tmp_path, "ten")
    save_file({pictures.SHARD: torch.zeros(3, 2)}, tmp_path / "ten-00000.safetensors")
    with pytest.raises(ValueError, match=r"ten-00000\.safetensors: expected pictures"):
        of_shards(tmp_path, "ten")
    (tmp_path / "ten-00000.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"ten-00000\.safetensors"):
        of_shards(tmp_path, "ten")


def test_few_pictures_are_kept_at_hand_and_many_are_not(ten: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = at_hand(ten, SIZE)
    assert numbers(kept.load()) == list(range(10))
    assert kept.read is not ten.read or kept is ten
    monkeypatch.setattr(pictures, "LITTLE", 10 * 3 * SIZE**2 - 1)
    assert at_hand(ten, SIZE) is ten
