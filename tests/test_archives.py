"""Pictures as one file: equal bytes for equal pictures, and nothing written where an archive says but should not."""

import bz2
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atelier.data import archives, layout, prepare
from atelier.data.archives import pack, unpack
from atelier.data.manifest import read_manifest
from atelier.data.painter import png
from atelier.files import SEAL
from atelier.params import Data
from atelier.workspace import Workspace


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


# ------------------------------------------------------------------------------------------ single members that are bad

NOISE = np.random.default_rng(3).integers(0, 256, (200, 300), dtype=np.uint8)
MANY = [(f"Rococo/painter_scene-{at}.jpg", NOISE[at].tobytes()) for at in range(200)]
BAD = 77  # the member that tests damage


def entry(data: bytes, member: int) -> int:
    """Where a member's entry in the archive's directory begins."""
    at = data.index(b"PK\1\2")
    for _ in range(member):
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    return at


def local_header(data: bytes, member: int) -> int:
    return int(struct.unpack_from("<I", data, entry(data, member) + 42)[0])


def directory_says(at: int, kind: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(kind, data, entry(data, BAD) + at, value)


def header_says(at: int, kind: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(kind, data, local_header(data, BAD) + at, value)


def content_flipped(data: bytearray) -> None:
    at = local_header(data, BAD) + 30 + len(MANY[BAD][0])
    data[at + 20 : at + 40] = bytes(byte ^ 0x55 for byte in data[at + 20 : at + 40])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (content_flipped, "damaged"),
        (directory_says(16, "<I", 12345), "checksum"),
        (directory_says(20, "<I", 90), "damaged"),
        (directory_says(20, "<I", 10_000), "overlap"),
        (directory_says(24, "<I", 299), "damaged"),
        (directory_says(24, "<I", 2000), "damaged"),
        (directory_says(24, "<I", 2**32 - 2), "too large"),
        (directory_says(42, "<I", 4321), "local header is damaged"),
        (directory_says(42, "<I", 2**32 - 2), "local header is damaged"),
        (directory_says(10, "<H", 98), "compression method 98, which is not supported"),
        (directory_says(8, "<H", 1), "encrypted"),
        (header_says(0, "<H", 0), "local header is damaged"),
        (header_says(34, "<H", 0xFFFF), "local header is damaged"),
        (header_says(28, "<H", 0xFFF0), "overlap"),
    ],
)
def test_a_damaged_member_is_left_out_by_name_and_the_others_come_back(
    damage: Callable[[bytearray], None], why: str, method: int, tmp_path: Path
) -> None:
    data = bytearray(archive_of(tmp_path / "a.zip", *MANY, compression=method).read_bytes())
    damage(data)
    (tmp_path / "a.zip").write_bytes(data)
    left_out: list[tuple[str, str]] = []
    assert unpack(tmp_path / "a.zip", tmp_path / "out", left_out=left_out) == len(MANY) - 1
    assert [path for path, _ in left_out] == [MANY[BAD][0]]
    assert why in left_out[0][1]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    back = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in files}
    assert back == {name: content for name, content in MANY if name != MANY[BAD][0]}
    with pytest.raises(ValueError, match=rf"1 of 200 pictures of .*a\.zip are bad.*scene-{BAD}.*{why}") as refusal:
        unpack(tmp_path / "a.zip", tmp_path / "none", bad_share=0)
    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_compression_are_read(method: int, tmp_path: Path) -> None:
    large = bytes(range(256)) * 20_000  # more than is decoded at once
    archive = archive_of(tmp_path / "a.zip", ("s/a.png", large[:1]), ("s/b.png", b"padding" * 9), compression=method)
    with zipfile.ZipFile(archive, "a", method) as packed:
        packed.writestr("s/large.png", np.random.default_rng(0).bytes(3_000_000) + large)
    assert unpack(archive, tmp_path / "out") == 3
    assert (tmp_path / "out" / "s" / "large.png").read_bytes()[3_000_000:] == large


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict[str, object]]]:
    """Packs pictures and captions, damages the archive, runs both halves of the stage ``prepare``; the report."""
    monkeypatch.chdir(tmp_path)
    for at in range(50):
        path = tmp_path / "pictures" / "Rococo" / f"painter_scene-{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((8, 8, 3), at, np.uint8)))

    def run(damaged: int, bad_share: float) -> dict[str, dict[str, object]]:
        pack(tmp_path / "pictures", tmp_path / "data" / "wikiart.zip")
        data = bytearray((tmp_path / "data" / "wikiart.zip").read_bytes())
        for at in range(damaged):
            data[local_header(data, at * 7) + 90] ^= 1
        (tmp_path / "data" / "wikiart.zip").write_bytes(data)
        rows = "".join(f"Rococo,painter_scene-{at},awe,so it is,1\n" for at in range(50))
        (tmp_path / "data" / layout.ANNOTATIONS).write_text("art_style,painting,emotion,utterance,repetition\n" + rows)
        data_params = Data(folder="data", annotations=True, size=64, split="75/25", bad_share=bad_share)
        prepare.unpack_archives(data_params, Workspace())
        return prepare.prepare(data_params, 1, Workspace())

    return run


def test_the_report_names_and_counts_what_an_archive_did_not_give(
    stage: Callable[..., dict[str, dict[str, object]]],
) -> None:
    report = stage(damaged=2, bad_share=0.05)["works"]
    assert report["works"] == 48
    why = "wikiart.zip: damaged: not of the size and checksum (CRC-32) that the archive states"
    # the archive's first and eighth, in the order of names
    assert report["quarantined"] == [f"Rococo/painter_scene-{at}.png: {why}" for at in (0, 15)]
    counts = report["counts"]
    assert isinstance(counts, dict)
    assert (counts["pictures bad"], counts["pictures missing"]) == (2, 0)
    manifest = read_manifest(Workspace().manifests / "works.parquet")
    assert list(manifest.quarantined) == report["quarantined"]
    assert all(len(emotions) == 1 for emotions in manifest.table["emotions"])


def test_a_sound_archive_leaves_no_trace_in_the_report(stage: Callable[..., dict[str, dict[str, object]]]) -> None:
    assert stage(damaged=0, bad_share=0)["works"]["quarantined"] == []
    assert sorted(path.name for path in Workspace().pictures.iterdir()) == [SEAL, "archives.json", "wikiart"]
    assert json.loads((Workspace().pictures / "archives.json").read_text()) == {"wikiart.zip": 50}


def test_more_damage_than_the_share_stops_the_stage(stage: Callable[..., dict[str, dict[str, object]]]) -> None:
    with pytest.raises(ValueError, match=r"3 of 50 pictures of data/wikiart\.zip are bad, more than bad_share 0\.05"):
        stage(damaged=3, bad_share=0.05)
    assert not Workspace().pictures.exists()


def test_damage_in_the_archive_and_in_pictures_counts_together(
    stage: Callable[..., dict[str, dict[str, object]]], tmp_path: Path
) -> None:
    (tmp_path / "pictures" / "Rococo" / "painter_scene-9.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"3 of 50 works are bad, more than bad_share 0\.05"):
        stage(damaged=2, bad_share=0.05)


# ------------------------------------------------------------------------------------------ bombs


def test_small_members_that_swell_together_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    swelling = [(f"s/a_{at}.png", bytes([at % 7]) * 900_000) for at in range(150)]
    archive = archive_of(tmp_path / "a.zip", *swelling, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(
        ValueError, match=r"a\.zip: its 150 pictures would swell to 135000000 bytes, more than"
    ) as refusal:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_many_small_pictures_and_incompressible_ones_are_no_bomb(tmp_path: Path) -> None:
    small = [(f"s{at % 9}/a_{at}.png", b"%d" % at) for at in range(3000)]
    noise = [
        (f"t/b_{at}.jpg", np.random.default_rng(at).bytes(2**20)) for at in range(50)
    ]  # more than may swell freely
    archive = archive_of(tmp_path / "a.zip", *small, *noise, compression=zipfile.ZIP_DEFLATED)
    assert unpack(archive, tmp_path / "out", bad_share=0) == 3050
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in small + noise)


def nested(count: int, content: bytes) -> bytes:
    """An archive of ``count`` members whose packed data each hold all following headers as a stored block, and one end.

    As in D. Fifield's "A better zip bomb": a deflate block of no compression quotes the next local header.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed, unpacked, body, entries = packer.compress(content) + packer.flush(), content, b"", []
    for at in reversed(range(count)):
        name = b"s/a_%03d.png" % at
        facts = (zlib.crc32(unpacked), len(packed), len(unpacked), len(name))
        header = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, *facts, 0) + name
        entries.insert(0, (name, facts))
        body = header + packed
        quote = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF)
        packed, unpacked = quote + body, header + unpacked
    step = 30 + len(b"s/a_000.png") + 5
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, *facts, 0, 0, 0, 0, 0, at * step) + name
        for at, (name, facts) in enumerate(entries)
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end


def test_members_that_share_their_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(nested(40, np.random.default_rng(5).bytes(5000)))
    with zipfile.ZipFile(tmp_path / "a.zip") as readable:
        assert len(readable.read("s/a_039.png")) == 5000
    with pytest.raises(ValueError, match=r"39 of 40 pictures .*'s/a_000\.png': its data overlap"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_entries_of_one_member_do_not_give_two_pictures(tmp_path: Path) -> None:
    data = bytearray(archive_of(tmp_path / "a.zip", *MANY).read_bytes())
    struct.pack_into("<I", data, entry(data, BAD) + 42, local_header(data, BAD + 1))
    (tmp_path / "a.zip").write_bytes(data)
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == len(MANY) - 1


def test_what_the_disk_has_no_space_for_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(tmp_path / "a.zip", *MANY)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=200 * 4096 - 1))
    with pytest.raises(ValueError, match=r"a\.zip: its pictures need 819200 bytes, 819199 are free"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(("limit", "value"), [("MEMBERS", 199), ("DIRECTORY_BYTES", 10_000)])
def test_more_members_than_the_limit_are_refused(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path / "a.zip", *MANY)
    monkeypatch.setattr(archives, limit, value)
    with pytest.raises(ValueError, match=rf"a\.zip: .*more than the limit of {value}"):
        unpack(archive, tmp_path / "out")


def test_memory_does_not_depend_on_what_a_stream_decodes_to(tmp_path: Path) -> None:
    """Of bzip2, a few bytes decode to as many millions as they like, whatever size the directory states."""
    archive = archive_of(tmp_path / "a.zip", *MANY, compression=zipfile.ZIP_BZIP2)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as packed:
        packed.writestr("s/liar.png", bz2.compress(bytes(10**8)))
    data = bytearray(archive.read_bytes())
    for at in (entry(data, len(MANY)) + 10, local_header(data, len(MANY)) + 8):
        struct.pack_into("<H", data, at, zipfile.ZIP_BZIP2)
    archive.write_bytes(data)
    left_out: list[tuple[str, str]] = []
    tracemalloc.start()
    try:
        unpack(archive, tmp_path / "out", left_out=left_out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [path for path, _ in left_out] == ["s/liar.png"]
    assert peak < 2**24


# ------------------------------------------------------------------------------------------ names


def renamed(archive: Path, old: bytes, new: bytes, flags: tuple[int, int] = (0, 0)) -> Path:
    """An archive whose member ``old`` has other bytes as its name, and these flags in its header and entry."""
    data = bytearray(archive.read_bytes())
    header = data.index(old) - 30
    at = data.rindex(old) - 46
    assert len(old) == len(new)
    data[header + 30 : header + 30 + len(new)] = data[at + 46 : at + 46 + len(new)] = new
    struct.pack_into("<H", data, header + 6, flags[0])
    struct.pack_into("<H", data, at + 8, flags[1])
    archive.write_bytes(data)
    return archive


@pytest.mark.parametrize(("flags", "counted"), [((0, 0), 1), ((0x800, 0), 1), ((0, 0x800), 0), ((0x800, 0x800), 0)])
def test_names_in_utf8_are_read_as_such_with_their_flag_or_without(
    flags: tuple[int, int], counted: int, tmp_path: Path
) -> None:
    name = "Rococo/élisabeth-vigée_étude.png".encode()
    archive = archive_of(tmp_path / "a.zip", *MANY, ("x" * len(name[:-4]) + ".png", b"1"))
    renamed(archive, b"x" * len(name[:-4]) + b".png", name, flags)
    counts: Counter[str] = Counter()
    assert unpack(archive, tmp_path / "out", counts=counts) == len(MANY) + 1
    assert (tmp_path / "out" / "Rococo" / "élisabeth-vigée_étude.png").read_bytes() == b"1"
    assert counts == Counter({"names in UTF-8 without its flag": counted} if counted else {})


def test_names_in_a_code_page_are_read_as_such_or_as_the_extra_field_says(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("s/gr#n.png", b"1"), ("s/bl#.png", b"2"))
    renamed(archive, b"s/gr#n.png", b"s/gr\x81n.png")  # cp437's
    other = zipfile.ZipInfo("s/r@d.png")
    text = "s/rød.png".encode()
    raw = b"s/r\x9bd.png"  # cp850's
    other.extra = struct.pack("<HHBI", 0x7075, 5 + len(text), 1, zlib.crc32(raw)) + text
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(other, b"3")
    renamed(archive, b"s/r@d.png", raw)
    assert unpack(archive, tmp_path / "out") == 3
    assert sorted(path.name for path in (tmp_path / "out" / "s").iterdir()) == ["bl#.png", "grün.png", "rød.png"]


def test_backslashes_of_windows_tools_are_separators(tmp_path: Path) -> None:
    members = [(zipfile.ZipInfo(name), b"1") for name in ("wikiart\\Pop_Art\\a_b.jpg", "wikiart\\Pop_Art\\c_d.jpg")]
    for info, _ in members:
        info.create_system = 0
    clutter = [("wikiart\\", b""), ("wikiart\\Pop_Art\\Thumbs.db", b"0"), ("wikiart/Pop_Art/.DS_Store", b"0"),
               ("__MACOSX\\wikiart\\._a_b.jpg", b"0"), ("wikiart/desktop.ini", b"0")]  # fmt: skip
    archive = archive_of(tmp_path / "wikiart.zip", *clutter, *members)
    assert unpack(archive, tmp_path / "out", bad_share=0) == 2
    assert sorted(path.name for path in (tmp_path / "out" / "Pop_Art").iterdir()) == ["a_b.jpg", "c_d.jpg"]


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o644) << 16
    return info


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("s\\..\\..\\up.png", r"'s/\.\./\.\./up\.png' has '\.\.' in it"),
        ("d:\\pictures\\a.png", "begins with a drive letter"),
        ("d:a.png", "begins with a drive letter"),
        ("\\\\server\\share\\a.png", "is an absolute path"),
        ("/s/a.png", "is an absolute path"),
        (special("s/a.jpeg", stat.S_IFIFO), "is no regular file but a pipe"),
        (special("s/a.jpeg", stat.S_IFBLK), "is no regular file but a device"),
        (special("s/a.jpeg", stat.S_IFLNK), "is no regular file but a symbolic link"),
    ],
)
def test_a_member_that_attacks_is_refused_for_what_it_does(
    name: str | zipfile.ZipInfo, why: str, tmp_path: Path
) -> None:
    archive = archive_of(tmp_path / "a.zip", *MANY, (name, b"2"))
    with pytest.raises(ValueError, match=rf"a\.zip: .*{why}") as refusal:
        unpack(archive, tmp_path / "out", bad_share=1)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Rococo/light: a study.png", "a colon in its name"),
        ("Rococo/lpt1.png", "a name that Windows reserves"),
        ("Nul/a.png", "a name that Windows reserves"),
        ("Rococo/bell\a.png", "a control character in its name"),
        ("Rococo/two\nlines.png", "a control character in its name"),
        ("Rococo/" + "ñ" * 128 + ".png", "a name of 260 bytes, more than the 255 of file systems"),
        ("/".join(["deep"] * 300) + ".png", "a path of 1503 bytes"),
        ("Rococo/PAINTER_scene-5.JPG", "listed twice but for case or accents, as Rococo/painter_scene-5.jpg"),
        ("Rococo/painter_scene-5.jpg", "listed twice"),
        ("Rococo/painter_scene-5.jpg/a.png", "its name is also a folder's"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_cannot_be_written_everywhere_is_left_out_for_what_it_is(
    name: str, why: str, tmp_path: Path
) -> None:
    archive = archive_of(tmp_path / "a.zip", *MANY, (name, b"2"))
    left_out: list[tuple[str, str]] = []
    assert unpack(archive, tmp_path / "out", left_out=left_out) == len(MANY)
    assert [reason for _, reason in left_out] == [why] or why in left_out[0][1]
    assert len(left_out[0][0]) < 400
    with pytest.raises(ValueError, match="1 of 201 pictures") as refusal:
        unpack(archive, tmp_path / "none", bad_share=0)
    assert "\n" not in str(refusal.value)
    assert "leave the folder" not in str(refusal.value)


@pytest.mark.parametrize("hidden", [b"s/a.png\0.txt", b"s/a.txt\0.png"])
def test_a_nul_in_a_name_is_named(hidden: bytes, tmp_path: Path) -> None:
    archive = renamed(archive_of(tmp_path / "a.zip", ("s/yyyyyyyyyy", b"1"), *MANY), b"s/yyyyyyyyyy", hidden)
    left_out: list[tuple[str, str]] = []
    assert unpack(archive, tmp_path / "out", left_out=left_out) == len(MANY)
    assert left_out == [(hidden.decode(), "a NUL character in its name")]


def test_names_in_two_normal_forms_are_one_name(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("s/caf\u00e9.png", b"1"), ("s/cafe\u0301.png", b"2"), *MANY)
    left_out: list[tuple[str, str]] = []
    unpack(archive, tmp_path / "out", left_out=left_out)
    assert left_out == [("s/cafe\u0301.png", "listed twice but for case or accents, as s/caf\u00e9.png")]


# ------------------------------------------------------------------------------------------ interruptions

KILLED = """
import os, signal, sys
from pathlib import Path
from atelier.data import archives
done = []
real = archives.extract
def extract(*member):
    done.append(real(*member))
    if len(done) == 100:
        os.kill(os.getpid(), signal.SIGKILL)
archives.extract = extract
archives.unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_kill_in_the_middle_leaves_no_folder_and_the_next_run_is_complete(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", *MANY)
    command = [sys.executable, "-c", KILLED, str(archive), str(tmp_path / "out")]
    assert subprocess.run(command, env={**os.environ}, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert unpack(archive, tmp_path / "out") == len(MANY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_a_full_disk_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*member: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "extract", full)
    archive = archive_of(tmp_path / "a.zip", *MANY)
    with pytest.raises(OSError, match="No space"):
        unpack(archive, tmp_path / "out", bad_share=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_archive_in_the_folder_that_would_be_replaced_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    archive = archive_of(tmp_path / "s" / "a.zip", *MANY)
    with pytest.raises(ValueError, match="which unpacking replaces"):
        unpack(archive, tmp_path / "s")
    assert archive.is_file()
