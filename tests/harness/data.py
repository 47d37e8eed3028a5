"""Hostile tables, pictures, archives and names, each given to the stage that reads the data folder."""

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from PIL import Image
from tests.harness.attacks import Attack, stage

from atelier.data.layout import ANNOTATIONS
from conftest import TINY

GROUPS = ("tables", "pictures", "archives and names")
STYLES = ("Baroque", "Cubism")
WORKS = 8  # of each style
HEADER = "art_style,painting,emotion,utterance,repetition"
RIGHT = "Baroque,a-painter_work-0,awe,Calm and wide,1"


def attacks(seed: int) -> Iterator[Attack]:
    """All attacks on the data folder."""
    for name, text in TABLES.items():
        yield Attack(GROUPS[0], name, partial(_table, text))
    for name, change in TRUTHS.items():
        yield Attack(GROUPS[0], f"truth: {name}", partial(_truth, change))
    chance = random.Random(seed)
    for number in range(20):
        yield Attack(
            GROUPS[0], f"flipped byte {number}", partial(_flipped_table, chance.random(), chance.randrange(1, 256))
        )
    for name, data in pictures().items():
        for suffix in (".jpg", ".png"):
            yield Attack(GROUPS[1], f"{name}{suffix}", partial(_picture, data, suffix))
    for number in range(20):
        change = chance.random(), chance.randrange(1, 256)
        yield Attack(GROUPS[1], f"flipped byte {number}", partial(_picture, flipped(jpeg(), *change), ".jpg"))
    for name, plant in FOLDERS.items():
        yield Attack(GROUPS[2], name, partial(_planted, plant))
    for name, members in ARCHIVES.items():
        yield Attack(GROUPS[2], f"archive: {name}", partial(_archive, members))
    for number in range(20):
        yield Attack(GROUPS[2], f"archive: flipped byte {number}", partial(_flipped_archive, chance.random()))


# ---- the world, and what must hold


def world(folder: Path, *, annotations: bool = False, wikiart: bool = True) -> Path:
    """A data folder of small pictures; returns the folder of works."""
    text = TINY.replace("annotations: true", f"annotations: {str(annotations).lower()}").replace(
        "bad_share: 0.01", "bad_share: 0.9"
    )
    (folder / "params.yaml").write_text(text)
    works = folder / "data" / "wikiart"
    for style in STYLES if wikiart else ():
        (works / style).mkdir(parents=True)
        for index in range(WORKS):
            (works / style / f"a-painter_work-{index}.jpg").write_bytes(jpeg(index))
    if annotations:
        rows = [f"{style},a-painter_work-{index},awe,Calm {index},1" for style in STYLES for index in range(WORKS)]
        (folder / "data" / ANNOTATIONS).write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "data").mkdir(exist_ok=True)
    return works


def held(folder: Path, *names: str, left_out: bool = False) -> str:
    """The stage refuses in one line that names one of these, or leaves it out by name, or (if it may) accepts."""
    outside = sorted(path for path in folder.parent.iterdir())
    code, said = stage(folder, ["prepare"])
    if sorted(path for path in folder.parent.iterdir()) != outside:
        return "wrote outside of its folder"
    lines = said.strip().splitlines()
    if code and (len(lines) > 20 or "Traceback" in said or not any(name in said for name in names)):
        return f"exit {code}: {said[:300]!r}"
    if any(ord(letter) < 32 and letter != "\n" for letter in said):
        return f"control characters: {said[:200]!r}"
    if not code and left_out and not any(name in said for name in names):
        return f"accepted: {said[:200]!r}"
    return ""


def jpeg(index: int = 0) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 24), 40 + index).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def flipped(data: bytes, at: float, by: int) -> bytes:
    index = int(at * len(data))
    return data[:index] + bytes([data[index] ^ by]) + data[index + 1 :]


# ---- tables

TABLES = {
    "empty": b"",
    "header alone": f"{HEADER}\n".encode(),
    "no header": f"{RIGHT}\n".encode(),
    "other columns": b"a,b\n1,2\n",
    "column missing": b"art_style,painting,emotion,utterance\nBaroque,a,awe,x\n",
    "column twice": f"{HEADER},emotion\n{RIGHT},awe\n".encode(),
    "column of another name": f"{HEADER},mood\n{RIGHT},x\n".encode(),
    "semicolons": HEADER.replace(",", ";").encode() + b"\n",
    "tabs": HEADER.replace(",", "\t").encode() + b"\n",
    "cut in a row": f"{HEADER}\n{RIGHT}\nBaroque,a-painter_work-1,aw".encode(),
    "cut in a quote": f'{HEADER}\n{RIGHT}\nBaroque,a-painter_work-1,awe,"Cal'.encode(),
    "cut in the number": f"{HEADER}\n{RIGHT}\nBaroque,a-painter_work-1,awe,Calm,".encode(),
    "row of six": f"{HEADER}\n{RIGHT},more\n".encode(),
    "row of four": f"{HEADER}\nBaroque,a,awe,x\n".encode(),
    "Latin-1": f"{HEADER}\n{RIGHT}\n".replace("Calm", "Café").encode("latin-1"),
    "UTF-16": f"{HEADER}\n{RIGHT}\n".encode("utf-16"),
    "NUL": f"{HEADER}\n{RIGHT}\n".replace("Calm", "Ca\0lm").encode(),
    "leaves the folder": f"{HEADER}\n../../etc,passwd,awe,x,1\n".encode(),
    "absolute": f"{HEADER}\n/etc,passwd,awe,x,1\n".encode(),
    "backslash": f"{HEADER}\nBaroque,..\\x,awe,x,1\n".encode(),
    "control characters": f"{HEADER}\nBaroque,a\x1b[31m,awe,x,1\n".encode(),
    "style is a dot": f"{HEADER}\n.,a,awe,x,1\n".encode(),
    "emotion unknown": f"{HEADER}\n{RIGHT.replace('awe', 'joy')}\n".encode(),
    "utterance blank": f"{HEADER}\nBaroque,a-painter_work-0,awe, ,1\n".encode(),
    "repetition of words": f"{HEADER}\nBaroque,a-painter_work-0,awe,x,often\n".encode(),
    "repetition huge": f"{HEADER}\nBaroque,a-painter_work-0,awe,x,{10**30}\n".encode(),
    "repetition negative": f"{HEADER}\nBaroque,a-painter_work-0,awe,x,-1\n".encode(),
    "no picture of it": f"{HEADER}\nBaroque,a-painter_elsewhere,awe,x,1\n".encode(),
    "a long field": f"{HEADER}\nBaroque,a-painter_work-0,awe,{'x' * 200_000},1\n".encode(),
    "many quotes": (f"{HEADER}\n" + '"' * 100_001).encode(),
    "carriage returns": f"{HEADER}\r{RIGHT}\r".encode(),
    "a spreadsheet's formula": f"{HEADER}\nBaroque,a-painter_work-0,awe,=cmd|' /C calc'!A0,1\n".encode(),
    "a picture instead": jpeg(),
}
TRUTHS = {
    "empty": b"",
    "no columns": b"a\n1\n",
    "cut": b"art_style,painting,subject,emotion\nBaroque,a-painter_work-0,a bo",
    "twice": b"art_style,painting,subject,emotion\nBaroque,a,cat,\nBaroque,a,dog,\n",
    "not UTF-8": b"art_style,painting,subject,emotion\nBaroque,a,\xff\xfe,\n",
    "binary": os.urandom(2000),
    "open quote": b'art_style,painting,subject,emotion\n"Baroque,a,b,c\n',
}


def _table(data: bytes, folder: Path) -> str:
    world(folder, annotations=True)
    (folder / "data" / ANNOTATIONS).write_bytes(data)
    return held(folder, ANNOTATIONS)


def _truth(data: bytes, folder: Path) -> str:
    world(folder)
    (folder / "data" / "truth.csv").write_bytes(data)
    return held(folder, "truth.csv")


def _flipped_table(at: float, by: int, folder: Path) -> str:
    world(folder, annotations=True)
    path = folder / "data" / ANNOTATIONS
    path.write_bytes(flipped(path.read_bytes(), at, by))
    return held(folder, ANNOTATIONS)


# ---- pictures


def pictures() -> dict[str, bytes]:
    """Files that are no picture, or another than their name says, or too much."""
    png, gif, wide = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("RGB", (24, 24)).save(png, "PNG")
    Image.new("P", (24, 24)).save(gif, "GIF", save_all=True, append_images=[Image.new("P", (24, 24), 1)])
    Image.new("L", (1, 20_000)).save(wide, "PNG")
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", size)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + _chunk(b"IEND", b"")
    )
    text = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    return {
        "empty": b"",
        "one byte": b"\xff",
        "words": b"not a picture",
        "HTML": b"<html><body>404</body></html>",
        "a header alone": jpeg()[:20],
        "half a JPEG": jpeg()[: len(jpeg()) // 2],
        "half a PNG": png.getvalue()[: len(png.getvalue()) // 2],
        "a PNG without data": text + _chunk(b"IEND", b""),
        "a bad checksum": png.getvalue()[:-8] + b"\0\0\0\0" + png.getvalue()[-4:],
        "an animated GIF": gif.getvalue(),
        "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "a bomb of 3.6 billion pixels": bomb,
        "a line of pixels": wide.getvalue(),
        "a text chunk that swells": text
        + _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 50_000_000))
        + _chunk(b"IEND", b""),
        "a ZIP": _zipped({"a.txt": b"x"}),
        "random bytes": os.urandom(5000),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    }


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _picture(data: bytes, suffix: str, folder: Path) -> str:
    works = world(folder)
    (works / "Cubism" / f"a-painter_odd{suffix}").write_bytes(data)
    return held(folder, "a-painter_odd")


# ---- folders and archives

Plant = Callable[[Path], None]  # changes the folder of works


def _planted(plant: Plant, folder: Path) -> str:
    works = world(folder)
    plant(works)
    return held(folder, "odd", "wikiart", "data")


def _link(target: str) -> Plant:
    return lambda works: (works / "Cubism" / "odd.jpg").symlink_to(target)


def _named(name: bytes) -> Plant:
    def plant(works: Path) -> None:
        descriptor = os.open(os.fsencode(works / "Cubism") + b"/" + name, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, jpeg())
        os.close(descriptor)

    return plant


def _pipe(works: Path) -> None:
    os.mkfifo(works / "Cubism" / "odd.jpg")


def _emptied(works: Path) -> None:
    for path in works.rglob("*.jpg"):
        path.unlink()


def _loop(works: Path) -> None:
    (works / "Cubism" / "odd").symlink_to(works)
    (works / "odd.jpg").symlink_to("odd.jpg")


FOLDERS: dict[str, Plant] = {
    "a link to a file outside": _link("/etc/passwd"),
    "a link to nothing": _link("nowhere"),
    "a link to itself": _link("odd.jpg"),
    "a link to a device": _link("/dev/zero"),
    "a loop of folders": _loop,
    "a pipe": _pipe,
    "a folder named like a picture": lambda works: (works / "Cubism" / "odd.jpg").mkdir(),
    "no picture at all": _emptied,
    "a name that is not UTF-8": _named(b"odd-\xff\xfe.jpg"),
    "a name with a line break": _named(b"odd\nline.jpg"),
    "a name with escape codes": _named(b"odd\x1b[31m.jpg"),
    "a name with a backslash": _named(b"odd\\x.jpg"),
    "a name of 255 bytes": _named(b"odd" + b"x" * 248 + b".jpg"),
    "a name of dots": _named(b"odd....jpg"),
    "a name of two forms": _named("odd-e\u0301.jpg".encode()),
    "a right-to-left name": _named("odd-\u202egpj.exe.jpg".encode()),
    "a name with a quote": _named(b"odd'\"<script>.jpg"),
}


def _zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return file.getvalue()


def _right() -> dict[str, bytes]:
    return {f"wikiart/{style}/a-painter_work-{n}.jpg": jpeg(n) for style in STYLES for n in range(WORKS)}


def _with(**more: bytes) -> bytes:
    return _zipped({**_right(), **more})


def _special(mode: int, name: str = "wikiart/Cubism/odd.jpg", content: bytes = b"/etc/passwd") -> bytes:
    file = io.BytesIO(_zipped(_right()))
    with zipfile.ZipFile(file, "a") as packed:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        packed.writestr(info, content)
    return file.getvalue()


def _encrypted() -> bytes:
    data = bytearray(_zipped({**_right(), "wikiart/Cubism/odd.jpg": jpeg()}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.rfind(signature)
        data[at + offset] |= 1
    return bytes(data)


def _lying(offset: int, value: int) -> bytes:
    """A last member whose entry in the central directory states another size."""
    data = bytearray(_zipped({**_right(), "wikiart/Cubism/odd.jpg": jpeg()}))
    at = data.rfind(b"PK\x01\x02")
    data[at + offset : at + offset + 4] = struct.pack("<I", value)
    return bytes(data)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "no ZIP": lambda: b"not a zip" * 100,
    "cut": lambda: _zipped(_right())[:-200],
    "cut in the middle": lambda: _zipped(_right())[:1000],
    "without pictures": lambda: _zipped({"readme.txt": b"x"}),
    "leaves the folder": lambda: _with(**{"../../odd.jpg": jpeg()}),
    "leaves by a style": lambda: _with(**{"wikiart/../../../odd.jpg": jpeg()}),
    "absolute": lambda: _with(**{"/tmp/odd-atelier-harness.jpg": jpeg()}),
    "a drive": lambda: _with(**{"C:/odd.jpg": jpeg()}),
    "backslashes": lambda: _with(**{"..\\..\\odd.jpg": jpeg()}),
    "a colon": lambda: _with(**{"wikiart/Cubism/odd:stream.jpg": jpeg()}),
    "a NUL": lambda: _zipped(_right()).replace(b"work-7", b"odd\0xx"),
    "a line break": lambda: _with(**{"wikiart/Cubism/odd\n.jpg": jpeg()}),
    "a long name": lambda: _with(**{"wikiart/Cubism/odd" + "x" * 3000 + ".jpg": jpeg()}),
    "deep folders": lambda: _with(**{"wikiart/" + "a/" * 500 + "odd.jpg": jpeg()}),
    "a link": lambda: _special(0o120777),
    "a device": lambda: _special(0o020666),
    "a member that swells": lambda: _with(**{"wikiart/Cubism/odd.jpg": b"\0" * 60_000_000}),
    "members that swell": lambda: _with(**{f"wikiart/Cubism/odd-{n}.png": b"\0" * 1_100_000 for n in range(300)}),
    "a ZIP in it": lambda: _with(**{"wikiart/Cubism/odd.jpg": _zipped({"a": b"x"})}),
    "encrypted": _encrypted,
    "states 4 GB": lambda: _lying(24, 2**32 - 2),
    "states nothing": lambda: _lying(24, 0),
    "states another size": lambda: _lying(24, 100),
    "an offset beyond the end": lambda: _lying(42, 2**31),
    "an unknown method": lambda: _zipped(_right()).replace(b"\x08\x00", b"\x63\x00", 4),
    "LZMA": lambda: _zipped(_right(), zipfile.ZIP_LZMA),
    "a style named like a file": lambda: _with(**{"wikiart/Cubism.jpg": jpeg(), "wikiart/Cubism.jpg/odd.jpg": jpeg()}),
    "names that differ in case": lambda: _with(**{"wikiart/cubism/A-painter_work-0.jpg": jpeg()}),
    "leftovers of other systems": lambda: _with(
        **{"__MACOSX/wikiart/Cubism/._odd.jpg": b"x", "wikiart/Thumbs.db": b"x"}
    ),
}


def _archive(members: Callable[[], bytes], folder: Path) -> str:
    world(folder, wikiart=False)
    (folder / "data" / "wikiart.zip").write_bytes(members())
    failure = held(folder, "odd", "wikiart.zip", "data")
    swollen = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return failure or (f"{swollen} bytes on disk" if swollen > 200_000_000 else "")


def _flipped_archive(at: float, folder: Path) -> str:
    return _archive(lambda: flipped(_zipped(_right()), at, 0xFF), folder)
