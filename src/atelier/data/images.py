"""Read picture files as square RGB, refusing malformed files by name, and write lossless PNG.

Real and generated pictures are resized in the same way: centred square, LANCZOS with antialias. Colour profiles are not
applied; transparent pixels are composited on white.
"""

import hashlib
import io
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from atelier.data.checks import came, check_finite_tensor, check_picture_tensor, check_whole
from atelier.files import reason, write_whole

PIXEL_LIMIT = 178_956_970  # Pillow's own limit; the largest WikiArt scans have about 10^8 pixels
BYTE_LIMIT = 2**29  # no JPEG or PNG within the pixel limit needs more
FORMATS = ("JPEG", "PNG")  # regardless of suffix; fewer decoders, smaller attack surface

PREPROCESSING = "centred square, LANCZOS with antialias, [-1, 1]"  # part of the key of caches

_EXIF_ORIENTATION = 0x0112
_PILLOW_FAULTS = (  # exceptions that Pillow's decoders raise on malformed data
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Pillow warns from half the limit on; the limit is checked here, so the warning is redundant.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadPicture(ValueError):
    """One picture that cannot be used; ``why`` is the reason without the file's name."""

    def __init__(self, path: Path, why: str) -> None:
        # A name may contain undecodable bytes or newlines: escaped, it is one printable line.
        super().__init__(f"{os.fsencode(path).decode('utf-8', 'backslashreplace')!r}: {why}")
        self.why = why


class Inspection(NamedTuple):
    """A picture file's size in pixels (upright), the sha256 of its bytes, and the conversions that it needs."""

    width: int
    height: int
    sha256: str
    conversions: tuple[str, ...]


def inspect_picture(path: Path, root: Path, decode: bool = True) -> Inspection:
    """Read a file once: hash its bytes, verify its header and, with ``decode``, all of its data.

    Raises BadPicture for whatever ``read_rgb`` would refuse. JPEGs are decoded at 1/8 of their size, which reads the
    whole stream at a third of the cost. Without ``decode`` truncated data of a JPEG is not detected; that of a PNG is,
    because its orientation may be stored after the pixels.
    """
    data = _file_bytes(path, root)
    image = _opened(path, data)
    size = image.size
    if decode:
        image.draft(None, (1, 1))
        _load(path, image)
    conversions = _conversions(path, image, data)
    width, height = size[::-1] if _orientation(image) >= 5 else size
    return Inspection(width, height, hashlib.sha256(data).hexdigest(), conversions)


def read_rgb(path: Path, root: Path | None = None) -> tuple[Image.Image, tuple[str, ...]]:
    """Read a picture file as an upright 8-bit RGB image; also returns the conversions applied.

    Conversions are among: rotated, cmyk, 16-bit, palette, alpha, grey. Raises BadPicture, with file and reason, for
    anything that is not a valid JPEG or PNG within the limits, or that links out of ``root``.
    """
    data = _file_bytes(path, root)
    image = _opened(path, data)
    _load(path, image)
    return _rgb(path, image), _conversions(path, image, data)


def square(image: Image.Image, size: int) -> Image.Image:
    """Crop an image to its centred square and resize that to ``size`` x ``size`` pixels.

    LANCZOS with antialias (Pillow widens the kernel when shrinking). Only the square is resampled, so that a 1 x 10^8
    strip stays small. An image whose short side is ``size`` is cropped without resampling, so that one of exactly that
    size is returned unchanged. Smaller ones are enlarged. Raises ValueError for a size below 1.
    """
    size = check_whole(size, "size")
    width, height = image.size
    side = min(width, height)
    if side == size:
        left, top = (width - side) // 2, (height - side) // 2
        return image.crop((left, top, left + side, top + side))
    left_f, top_f = (width - side) / 2, (height - side) / 2
    box = (left_f, top_f, left_f + side, top_f + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def read_picture(path: Path, size: int, root: Path | None = None) -> np.ndarray:
    """Read one picture as a square: uint8 (size, size, 3). Raises BadPicture as ``read_rgb`` does."""
    size = check_whole(size, "size")  # before the file is decoded
    return np.array(square(read_rgb(path, root)[0], size))


def load_pictures(paths: Sequence[Path], size: int, root: Path | None = None) -> torch.Tensor:
    """Read pictures in the order of ``paths``: torch uint8 (n, 3, size, size). The first bad one raises BadPicture."""
    size = check_whole(size, "size")
    pictures = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
        for index, picture in enumerate(pool.map(lambda path: read_picture(path, size, root), paths)):
            pictures[index] = torch.from_numpy(picture).permute(2, 0, 1)
    return pictures


def to_model_range(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (n, 3, h, w) -> float32 in [-1, 1], the range of diffusers' autoencoders.

    Raises ValueError for floats, whose range is not known, RGBA, grey and channels last.
    """
    check_picture_tensor(pictures, "pictures", ("uint8",))
    return pictures.float() / 127.5 - 1.0


def to_pixels(output: torch.Tensor) -> torch.Tensor:
    """An autoencoder's output (n, 3, h, w) in [-1, 1] -> uint8, clipped and rounded to nearest.

    Raises ValueError for integers, NaN or infinity, RGBA, grey and channels last.
    """
    check_picture_tensor(output, "output")
    check_finite_tensor(output, "output")  # NaN would become black
    return ((output.float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def save_picture(picture: torch.Tensor | np.ndarray, path: Path) -> None:
    """Write uint8 pixels, a tensor (3, h, w) or an array (h, w, 3), atomically as a lossless PNG.

    Raises ValueError for another shape, type or suffix; pixels are never rounded or rescaled.
    """
    if not isinstance(picture, torch.Tensor | np.ndarray):
        raise TypeError(f"picture: expected a tensor (3, h, w) or an array (h, w, 3), got {came(picture)}")
    pixels = picture
    if isinstance(picture, torch.Tensor) and picture.ndim == 3 and picture.dtype == torch.uint8:
        pixels = picture.numpy(force=True).transpose(1, 2, 0)
    if (
        pixels.ndim != 3
        or pixels.shape[2] != 3
        or 0 in pixels.shape
        or pixels.dtype != np.uint8
        or path.suffix != ".png"
    ):
        raise ValueError(f"{path}: picture: expected a .png and uint8 RGB pixels, got {came(picture)}")
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, format="PNG", compress_level=6)
    write_whole(path, encoded.getvalue())


def _file_bytes(path: Path, root: Path | None) -> bytes:
    """Read a regular file within the size limit that, after following links, lies inside ``root``."""
    try:
        if root is not None and not path.resolve().is_relative_to(root.resolve()):
            raise BadPicture(path, "a link that leads out of the picture folder")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise BadPicture(path, "no regular file")
        if status.st_size == 0:
            raise BadPicture(path, "an empty file (0 bytes)")
        if status.st_size > BYTE_LIMIT:
            raise BadPicture(path, f"{status.st_size} bytes, more than the limit of {BYTE_LIMIT}")
        return path.read_bytes()
    except OSError as fault:
        raise BadPicture(path, f"cannot be read ({fault.strerror})") from fault
    except RuntimeError as fault:  # pathlib raises it for circular links
        raise BadPicture(path, "a link that leads in a circle") from fault


def _opened(path: Path, data: bytes) -> Image.Image:
    """Read the header only: an image within the pixel limit, not yet decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as fault:
        raise BadPicture(path, "neither a JPEG nor a PNG, or its header is cut off") from fault
    except Image.DecompressionBombError as fault:
        raise BadPicture(path, f"a decompression bomb, more than the limit of {PIXEL_LIMIT} pixels") from fault
    except _PILLOW_FAULTS as fault:
        raise BadPicture(path, f"damaged header ({reason(fault)})") from fault
    pixels = image.size[0] * image.size[1]
    if pixels > PIXEL_LIMIT:
        raise BadPicture(path, f"a decompression bomb, {pixels} pixels, more than the limit of {PIXEL_LIMIT}")
    return image


def _load(path: Path, image: Image.Image) -> None:
    """Decode all of an opened image's data."""
    try:
        image.load()
    except _PILLOW_FAULTS as fault:
        raise BadPicture(path, f"truncated or damaged data ({reason(fault)})") from fault


def _conversions(path: Path, image: Image.Image, data: bytes) -> tuple[str, ...]:
    """The conversions from the stored image to upright 8-bit RGB."""
    try:
        due = {
            "rotated": _orientation(image) != 1,
            "cmyk": image.mode == "CMYK",
            # Pillow maps 16-bit RGB to 8 bits silently: byte 24 of a PNG is its bit depth.
            "16-bit": image.format == "PNG" and data[24] == 16,
            "palette": image.mode in ("P", "PA"),
            "alpha": image.has_transparency_data,
            "grey": image.mode in ("1", "L", "LA", "I", "I;16"),
        }
    except _PILLOW_FAULTS as fault:
        raise BadPicture(path, f"truncated or damaged data ({reason(fault)})") from fault
    return tuple(name for name, is_due in due.items() if is_due)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; values from 5 on swap width and height; invalid values count as upright."""
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _rgb(path: Path, image: Image.Image) -> Image.Image:
    """Convert a decoded image of any mode to upright RGB."""
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip at 255
            image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except _PILLOW_FAULTS as fault:
        raise BadPicture(path, f"cannot be converted to RGB ({reason(fault)})") from fault
