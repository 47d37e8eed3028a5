"""One picture in, whatever its file is like: the same square for sound ones, one line for hostile ones."""

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atelier.data import images
from atelier.data.images import BadPicture, inspect_picture, load_pictures, read_picture, read_rgb, save_picture, square


def gradient(height: int, width: int) -> np.ndarray:
    """A smooth uint8 picture (height, width, 3), a different ramp in each channel."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / (width - 1), 255 * y / (height - 1), 255 * (x + y) / (width + height - 2))
    return np.stack(channels, axis=-1).astype(np.uint8)


def png_bytes(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


# ------------------------------------------------------------------------------------------ sound pictures


@pytest.mark.parametrize("size", [1, 8, 63, 64])
def test_saved_picture_comes_back_bit_for_bit(tmp_path: Path, size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    save_picture(pixels, tmp_path / "array.png")
    save_picture(torch.from_numpy(pixels).permute(2, 0, 1), tmp_path / "tensor.png")
    assert (tmp_path / "array.png").read_bytes() == (tmp_path / "tensor.png").read_bytes()
    assert np.array_equal(read_picture(tmp_path / "array.png", size), pixels)
    loaded = load_pictures([tmp_path / "array.png"] * 2, size)
    assert loaded.dtype == torch.uint8
    assert torch.equal(loaded, torch.from_numpy(pixels).permute(2, 0, 1).expand(2, -1, -1, -1))


def test_short_side_at_size_is_cropped_and_never_resampled() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 37, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(square(Image.fromarray(pixels), 16)), pixels[:, 10:26])
    assert np.array_equal(np.asarray(square(Image.fromarray(pixels.swapaxes(0, 1)), 16)), pixels.swapaxes(0, 1)[10:26])


@pytest.mark.parametrize(("height", "width", "size"), [(96, 64, 32), (64, 128, 16), (50, 50, 25), (20, 30, 40)])
def test_square_is_short_side_resize_then_centre_crop(height: int, width: int, size: int) -> None:
    image = Image.fromarray(gradient(height, width))
    scale = size / min(height, width)
    whole = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    expected = np.asarray(whole.crop((left, top, left + size, top + size))).astype(int)
    assert np.abs(np.asarray(square(image, size)).astype(int) - expected).max() <= 1


def test_shrinking_is_antialiased() -> None:
    board = np.indices((256, 256)).sum(0) % 2 * 255
    shrunk = np.asarray(square(Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8)), 32))
    assert np.abs(shrunk.astype(int) - 127).max() <= 2


def test_strip_of_a_million_pixels_is_resized_within_its_square_only() -> None:
    assert square(Image.new("RGB", (1_000_000, 1), "red"), 64).size == (64, 64)


# ------------------------------------------------------------------------------------------ conversions

RAMP = gradient(24, 24)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        encoded(Image.fromarray(np.arange(0, 65536, 257, np.uint16).reshape(16, 16)), "PNG")
    )
    image, conversions = read_rgb(tmp_path / "a.png")
    assert conversions == ("16-bit", "grey")
    assert np.array_equal(np.asarray(image)[..., 0].ravel(), np.arange(256))


def test_16_bit_rgb_is_counted_although_pillow_hides_it(tmp_path: Path) -> None:
    data = bytearray(png_bytes(1, 1))
    data[24] = 16
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    idat = zlib.compress(b"\0" + bytes([255, 0, 128, 0, 0, 0]))
    body = struct.pack(">I", len(idat)) + b"IDAT" + idat + struct.pack(">I", zlib.crc32(b"IDAT" + idat))
    (tmp_path / "a.png").write_bytes(bytes(data[:33]) + body + bytes(data[-12:]))
    image, conversions = read_rgb(tmp_path / "a.png")
    assert conversions == ("16-bit",)
    assert image.getpixel((0, 0)) == (255, 128, 0)


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    pixels = np.dstack([RAMP, np.zeros((24, 24), np.uint8)])
    pixels[:12, :, 3] = 255
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(pixels), "PNG"))
    image, conversions = read_rgb(tmp_path / "a.png")
    assert conversions == ("alpha",)
    assert np.array_equal(np.asarray(image)[:12], RAMP[:12])
    assert (np.asarray(image)[12:] == 255).all()


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("CMYK", "JPEG", ("cmyk",)),
        ("L", "JPEG", ("grey",)),
        ("L", "PNG", ("grey",)),
        ("1", "PNG", ("grey",)),
        ("LA", "PNG", ("alpha", "grey")),
        ("P", "PNG", ("palette",)),
        ("RGB", "PNG", ()),
    ],
)
def test_each_mode_becomes_rgb_and_is_counted(tmp_path: Path, mode: str, kind: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "a.jpg"  # the bytes decide, not the suffix
    path.write_bytes(encoded(Image.fromarray(RAMP).convert(mode), kind))
    image, conversions = read_rgb(path)
    assert image.mode == "RGB"
    assert conversions == expected
    assert inspect_picture(path, tmp_path).conversions == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone_and_the_size_is_that_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    upright = gradient(10, 20)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that stores it so (PIL's Transpose values)
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a.png").write_bytes(encoded(stored, "PNG", exif=exif))
    image, conversions = read_rgb(tmp_path / "a.png")
    assert np.array_equal(np.asarray(image), upright)
    assert conversions == (("rotated",) if orientation > 1 else ())
    assert inspect_picture(tmp_path / "a.png", tmp_path)[:2] == (20, 10)


# ------------------------------------------------------------------------------------------ hostile pictures

JPEG, PNG = encoded(Image.fromarray(gradient(64, 48)), "JPEG"), encoded(Image.fromarray(gradient(64, 48)), "PNG")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty file"),
        (b"GIF89a and not much more", "neither a JPEG nor a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "neither a JPEG nor a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither a JPEG nor a PNG"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "neither a JPEG nor a PNG"),
        (b"\x80\x04\x95 a pickle", "neither a JPEG nor a PNG"),
        (JPEG[:10], "neither a JPEG nor a PNG|damaged header"),
        (JPEG[: len(JPEG) // 2], "truncated or damaged|damaged header"),
        (JPEG[:-20], "truncated or damaged"),
        (PNG[:20], "neither a JPEG nor a PNG|damaged header"),
        (PNG[: len(PNG) // 2], "truncated or damaged"),
        (PNG[:60] + b"\xff" + PNG[61:], "truncated or damaged|damaged header"),
        (png_bytes(50_000, 50_000), "decompression bomb"),
        (png_bytes(15_000, 13_000), "decompression bomb"),
        (png_bytes(64, 64), "truncated or damaged"),
    ],
)
def test_bad_bytes_are_refused_in_one_line(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    for read in (lambda: read_rgb(path), lambda: inspect_picture(path, tmp_path), lambda: load_pictures([path], 8)):
        with pytest.raises(BadPicture, match=why) as refusal:
            read()
        assert "bad.jpg" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_the_pixel_limit_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setattr(images, "PIXEL_LIMIT", 64 * 48 - 1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadPicture, match="3072 pixels, more than the limit of 3071"):
        read_rgb(tmp_path / "a.png")


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    draws = np.random.default_rng(7)
    palette = encoded(Image.fromarray(gradient(32, 32)).convert("P"), "PNG", transparency=3)
    for trial in range(300):
        data = bytearray((JPEG, PNG, palette)[trial % 3])
        for at in draws.integers(2, min(len(data), 700), 4):
            data[at] = draws.integers(256)
        (tmp_path / "a.png").write_bytes(data)
        with contextlib.suppress(BadPicture):
            assert read_picture(tmp_path / "a.png", 8).shape == (8, 8, 3)


def test_links_out_of_the_folder_circles_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "inside.png").write_bytes(PNG)
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "alias.png").symlink_to("inside.png")
    (root / "circle.png").symlink_to("circle.png")
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    assert read_rgb(root / "alias.png", root)[0].size == (48, 64)
    faults = {"out": "leads out", "circle": "circle|cannot be read", "folder": "no regular", "pipe": "no regular"}
    for name, why in {**faults, "absent": "cannot be read"}.items():
        with pytest.raises(BadPicture, match=why):
            read_rgb(root / f"{name}.png", root)


def test_saving_refuses_what_is_no_8_bit_rgb_and_leaves_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pixels in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), torch.zeros(4, 4, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"expected a \.png and uint8 RGB"):
            save_picture(pixels, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"expected a \.png"):
        save_picture(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.jpg")

    save_picture(np.zeros((4, 4, 3), np.uint8), tmp_path / "a.png")

    def full_disk(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"a\.png: not written: No space left on device"):
        save_picture(np.ones((4, 4, 3), np.uint8), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert not read_picture(tmp_path / "a.png", 4).any()
