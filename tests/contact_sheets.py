"""What a contact sheet shows: the labels of its rows, the titles of its columns, its pictures; what a browser is of."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from atelier.data.pictures import in_memory
from atelier.report import figures
from atelier.report.browser import Browsed


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


def browsed(names: Iterable[str], pictures: Tensor) -> Browsed:
    """A picture browser of variants that all have the same pictures, of prompts that are of no work."""
    table = pd.DataFrame({"prompt": [f"prompt {at}" for at in range(len(pictures))], "path": "", "repeat": 0})
    cells = {("4",): (in_memory(pictures), table.assign(place=table.index))}
    return Browsed(["guidance"], dict.fromkeys(names, cells), "the real work", lambda _: in_memory(pictures))
