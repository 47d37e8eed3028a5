"""Figures as files: one small WebP a figure, and a smaller copy for the notebook that shows it.

The bytes are a function of the pixels alone: two runs that draw the same write the same file.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from atelier.files import reading, write_whole

SUFFIX = ".webp"
COLOURS = 256
DRAWN = 0.95  # a drawing's 256 commonest colours cover this share of it; of sheets of pictures they cover half
# pictures of 64 px keep strokes and dots, and with sharp chroma the colours of thin lines; below 70 these blur
LOSSY = {"quality": 75, "method": 6, "use_sharp_yuv": True}
LOSSLESS = {"lossless": True, "quality": 80, "method": 4}  # the most effort saves 3 % more, and takes 75 times as long
QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20)  # of sheets, until they are light enough
EXACT = 2.5  # pictures are kept exactly up to this many times the lossy size: enlarged pixels, for one


def save(picture: Figure | Image.Image, path: Path) -> Path:
    """Write a figure as ``path`` with ``.webp`` appended, and return that path; its folder is made.

    A drawing keeps its 256 commonest colours without loss; what shows pictures is stored with loss, unless it is no
    much larger without.
    """
    image = flat(picture)
    if _is_drawing(image):
        stored = _webp(_with_palette(image, COLOURS).convert("RGB"), **LOSSLESS)
    else:
        lossy, exact = _webp(image, **LOSSY), _webp(image, **LOSSLESS)
        stored = exact if len(exact) <= EXACT * len(lossy) else lossy
    target = path.with_name(path.name + SUFFIX)  # not with_suffix: a name may hold a number such as 7.5
    write_whole(target, stored)
    return target


def save_sheets(sheets: Sequence[Image.Image], paths: Sequence[Path], most: int) -> list[Path]:
    """Write sheets of pictures as ``paths`` with ``.webp`` appended, all at the best quality that keeps to ``most``
    bytes together, or at the least; returns those paths.
    """
    for quality in QUALITIES:
        stored = [_webp(flat(sheet), **{**LOSSY, "quality": quality}) for sheet in sheets]
        if sum(map(len, stored)) <= most:
            break
    targets = [path.with_name(path.name + SUFFIX) for path in paths]
    for target, data in zip(targets, stored, strict=True):
        write_whole(target, data)
    return targets


def preview(path: Path, width: int = 320) -> bytes:
    """A small copy of a picture file for a notebook, at most half as high again as ``width``.

    PNG or JPEG, whichever is smaller: every viewer of notebooks shows both, and few WebP.
    """
    with reading(path, "not a picture"), Image.open(path) as picture:
        image = flat(picture)
    image.thumbnail((width, 3 * width // 2), Image.Resampling.LANCZOS)
    png, jpeg = BytesIO(), BytesIO()
    _with_palette(image, 16).save(png, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=50, optimize=True, progressive=True)
    return min(jpeg.getvalue(), png.getvalue(), key=len)


def mime(data: bytes) -> str:
    """What a preview is called in a notebook's output."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def flat(picture: Figure | Image.Image) -> Image.Image:
    """A figure or picture as RGB, on white where it is transparent."""
    if isinstance(picture, Figure):
        drawn = BytesIO()
        picture.savefig(drawn, format="png")
        picture = Image.open(drawn)
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _is_drawing(image: Image.Image) -> bool:
    counts = [count for count, _ in image.getcolors(image.width * image.height) or []]
    return sum(sorted(counts)[-COLOURS:]) >= DRAWN * sum(counts)


def _with_palette(image: Image.Image, colours: int) -> Image.Image:
    return image.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)


def _webp(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "WEBP", **options)
    return file.getvalue()
