"""Pictures as one file: equal bytes for equal pictures, and nothing written where an archive says but should not."""

import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from atelier.data.archives import pack, unpack
from atelier.data.painter import png


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for name in ("A_Style/x_one-1850.png", "A_Style/x_two-1851.png", "B/é_drei.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)))
    return tmp_path / "pictures"


def archive_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], **settings: int) -> Path:
    with zipfile.ZipFile(path, "w", **settings) as packed:  # type: ignore[arg-type]
        for name, data in members:
            packed.writestr(name, data)
    return path


def test_what_is_packed_comes_back(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "one.zip")
    assert unpack(tmp_path / "one.zip", tmp_path / "back") == 3
    files = [path.relative_to(folder) for path in folder.rglob("*.png")]
    assert {path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*.*")} == set(files)
    assert all((folder / name).read_bytes() == (tmp_path / "back" / name).read_bytes() for name in files)


def test_equal_pictures_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "one.zip")
    for path in folder.rglob("*.png"):
        path.touch()
        path.chmod(0o600)
    pack(folder, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_only_pictures_are_unpacked(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path / "a.zip", ("s/a.png", b"1"), ("s/run.sh", b"2"), ("__MACOSX/s/a.png", b"3"), ("s/._a.png", b"4")
    )
    assert unpack(archive, tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["a.png"]


def test_a_folder_packed_with_its_own_name_is_the_same(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "wikiart.zip", ("wikiart/s/a.png", b"1"), ("wikiart/t/b.png", b"2"))
    assert unpack(archive, tmp_path / "out") == 2
    assert (tmp_path / "out" / "s" / "a.png").read_bytes() == b"1"


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("s/link.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "why"),
    [("../out.png", "leave the folder"), ("/etc/out.png", "leave the folder"), ("s/../../o.png", "leave the folder"),
     ("C:\\o.png", "leave the folder"), (link(), "no regular file")],
)  # fmt: skip
def test_a_member_that_is_not_a_file_of_the_folder_is_refused(
    name: str | zipfile.ZipInfo, why: str, tmp_path: Path
) -> None:
    archive = archive_of(tmp_path / "a.zip", ("s/good.png", b"1"), (name, b"2"))
    with pytest.raises(ValueError, match=why) as refusal:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("s/a.png", bytes(2**23)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="too large"):
        unpack(archive, tmp_path / "out")


def test_a_size_that_is_a_lie_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("s/a.png", bytes(2**22)), compression=zipfile.ZIP_DEFLATED)
    data = bytearray(archive.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)  # the directory's uncompressed size
    archive.write_bytes(data)
    with pytest.raises(ValueError, match=r"ZIP|size"):
        unpack(archive, tmp_path / "out")


def test_names_that_stand_twice_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = archive_of(tmp_path / "a.zip", ("s/a.png", b"1"), ("s/a.png", b"2"))
    with pytest.raises(ValueError, match="twice"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("cut", [0, 10, -30])
def test_what_is_no_archive_is_refused(cut: int, folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a.zip")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data[:cut])
    with pytest.raises(ValueError, match="not a readable ZIP"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
