"""Pictures of two folders that people compare: pictures of the same name, as data URIs that say nothing but pixels."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from atelier.data.images import read_rgb
from atelier.files import check_output, read_table, reading, shown

TABLE = "pictures.csv"  # of a folder that the pipeline painted: the column file, and mostly prompt
SUFFIXES = (".png", ".jpg", ".jpeg")
LONGEST = 16_383  # pixels of a side, of WebP


class Pair(NamedTuple):
    """Two pictures of one name."""

    name: str
    a: Path
    b: Path


def pairs_of(a: Path, b: Path, prefix: str = "") -> tuple[list[Pair], int]:
    """Pictures of the same name in both folders, named ``prefix`` + name; and how many have no counterpart.

    Where both folders have a table with prompts, a pair must have the same one: pictures of other prompts are not
    compared. Raises ValueError, one line, for that, and where nothing pairs up.
    """
    if a.resolve() == b.resolve():
        raise ValueError(f"{a}: compared with itself; name two folders")
    first, second = pictures_in(a), pictures_in(b)
    names = sorted(first.keys() & second.keys())
    if not names:
        raise ValueError(f"{a}, {b}: no picture has the same name in both ({len(first)} and {len(second)} pictures)")
    for name in names:
        if None not in (first[name], second[name]) and first[name] != second[name]:
            raise ValueError(f"{a / name}: painted for another prompt than {b / name}; see {TABLE} of both folders")
    return [Pair(prefix + name, a / name, b / name) for name in names], len(first.keys() ^ second.keys())


def pictures_in(folder: Path) -> dict[str, str | None]:
    """Names of a folder's pictures, relative to it, each with its prompt where a table says it.

    The table lists them, if there is one; else all files that are called like pictures, also in folders below.
    """
    with reading(folder):
        if not folder.is_dir():
            raise ValueError("no folder")
        has_table = (folder / TABLE).is_file()
        paths = [] if has_table else [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
        if not has_table:
            return {path.relative_to(folder).as_posix(): None for path in paths if path.is_file()}
    check_output(folder / TABLE)
    table = read_table(folder / TABLE, ("file",), dtype=str, keep_default_na=False)
    if table["file"].duplicated().any():
        raise ValueError(
            f"{folder / TABLE}: {shown(table['file'][table['file'].duplicated()].iloc[0])} is listed twice"
        )
    if outside := [name for name in table["file"] if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise ValueError(f"{folder / TABLE}: file {shown(outside[0])} would leave the folder")
    prompts = table["prompt"].tolist() if "prompt" in table else [None] * len(table)
    return dict(zip(table["file"], prompts, strict=True))


def embedded(pair: Pair) -> tuple[str, str]:
    """Both pictures as data URIs of lossless WebP, encoded alike, without a file's name or other remarks.

    Raises ValueError for what is no picture, and for two sizes, since a rater would see which is which.
    """
    first, second = (read_rgb(path)[0] for path in (pair.a, pair.b))
    if first.size != second.size:
        sizes = " and ".join(f"{width}x{height}" for width, height in (first.size, second.size))
        raise ValueError(f"{pair.a}, {pair.b}: pictures of {sizes} pixels, which a rater would tell apart")
    if max(first.size) > LONGEST:
        raise ValueError(f"{pair.a}: a side of {max(first.size)} pixels; at most {LONGEST}")
    return _uri(first), _uri(second)


def _uri(image: Image.Image) -> str:
    """Pixels alone: what else a file holds, and how it was compressed, would tell folders apart."""
    plain = Image.frombytes("RGB", image.size, image.tobytes())
    encoded = io.BytesIO()
    plain.save(encoded, format="WEBP", lossless=True, quality=80)
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
