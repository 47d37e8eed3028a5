"""Contact sheets show the pictures' own pixels, repeated or averaged by a whole number."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from atelier.report import figures

NOISE = torch.Generator().manual_seed(1)


@pytest.fixture(autouse=True)
def style() -> None:
    figures.set_style()


def noise(n: int, side: int, channels: int = 3) -> Tensor:
    return torch.randint(256, (n, channels, side, side), dtype=torch.uint8, generator=NOISE)


def pixels(figure: Figure) -> np.ndarray:
    """What a saved file holds, (h, w, 3) uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]


def grid_of(figure: Figure, rows: int, columns: int, side: int) -> np.ndarray:
    """The lower right part of a sheet, where the pictures are; (rows, columns, side, side, 3)."""
    step = side + figures.GAP
    image = pixels(figure)[-rows * step :, -columns * step :]
    tiles = image.reshape(rows, step, columns, step, 3).transpose(0, 2, 1, 3, 4)
    assert (tiles[:, :, side:] == 255).all()
    assert (tiles[:, :, :, side:] == 255).all()
    return tiles[:, :, :side, :side]


@pytest.mark.parametrize(("side", "scale", "shown"), [(64, 0.75, 64), (32, 0.75, 96), (64, 1.3, 128), (256, 0.75, 64)])
def test_a_sheet_holds_each_picture_by_a_whole_number_of_pixels(side: int, scale: float, shown: int) -> None:
    rows = {"first": noise(2, side), "a much longer label, second": noise(2, side)}
    tiles = grid_of(figures.contact_sheet(rows, ["one", "two words that wrap"], scale), 2, 2, shown)
    for line, pictures in zip(tiles, rows.values(), strict=True):
        for tile, picture in zip(line, pictures, strict=True):
            expected = picture.permute(1, 2, 0).numpy()
            if shown > side:
                expected = expected.repeat(shown // side, axis=0).repeat(shown // side, axis=1)
            if shown < side:
                by = side // shown
                expected = expected.reshape(shown, by, shown, by, 3).mean((1, 3)).round()
            assert np.abs(tile.astype(int) - expected).max() <= (shown < side)


def test_rows_may_be_shorter_and_grey() -> None:
    rows = {"three": noise(3, 64), "one, grey": noise(1, 64, channels=1)}
    tiles = grid_of(figures.contact_sheet(rows), 2, 3, 64)
    assert np.array_equal(tiles[1, 0], rows["one, grey"][0].expand(3, -1, -1).permute(1, 2, 0).numpy())
    assert (tiles[1, 1:] == 255).all()


def test_labels_and_titles_are_inside_the_figure() -> None:
    figure = figures.contact_sheet({"a label of some length": noise(1, 64)}, ["a title of several words"])
    figure.canvas.draw()
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height
