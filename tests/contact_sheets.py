"""What a contact sheet shows: the labels of its rows, the titles of its columns, its pictures."""

import numpy as np
from matplotlib.figure import Figure

from atelier.report import figures


def labels(sheet: Figure) -> list[str]:
    return [text.get_text() for text in sheet.texts if text.get_horizontalalignment() == "right"]


def titles(sheet: Figure) -> list[str]:
    return [text.get_text() for text in sheet.texts if text.get_horizontalalignment() == "center"]


def tiles(sheet: Figure) -> np.ndarray:
    """Pictures (rows, columns, side, side, 3) uint8 of a sheet of square pictures; white where a row is shorter."""
    (axes,) = sheet.axes
    grid = axes.get_images()[0].get_array()
    rows = len(labels(sheet))
    step = grid.shape[0] // rows
    columns = grid.shape[1] // step
    split = np.asarray(grid).reshape(rows, step, columns, step, 3).transpose(0, 2, 1, 3, 4)
    return split[:, :, : step - figures.GAP, : step - figures.GAP]
