"""Power above a frequency in parts of pictures, such as their subjects and what is behind them.

A spectrum is one of a whole picture; here pictures are high-passed first, and the squares are averaged over a part.
Grey as in ``spectra``; pictures are mirrored at their borders, so that these are no edges. Float64.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.ndimage import distance_transform_edt

from atelier.data.checks import FloatArray, Samples, check_number, image_batches, real_array

from .spectra import grey

WIDTH = 0.2  # of the transition's half, over the cutoff: a sharp one would ring, from one part into the other


def gain(height: int, width: int, above: float) -> FloatArray:
    """(h, w) gains of a high-pass by DCT-II coefficient: 0 to 1 from 0.8 to 1.2 of ``above`` cycles a px, radially.

    Raises ValueError unless 0 < above < 0.5.
    """
    above = check_number(above, "above", least=0, most=0.5, open_ends=True)
    rows, columns = (np.arange(side) / (2 * side) for side in (height, width))
    place = (np.hypot(rows[:, None], columns) / above - 1) / WIDTH
    result: FloatArray = np.sin(np.pi / 4 * (1 + np.clip(place, -1, 1))) ** 2
    return result


def high_passed(fields: FloatArray, above: float) -> FloatArray:
    """Fields (n, h, w), mirrored, without what is below ``above`` cycles a px; ValueError for other shapes."""
    fields = real_array(fields, "fields", "(n, h, w)")
    passed = gain(fields.shape[1], fields.shape[2], above)
    result: FloatArray = idctn(dctn(fields, axes=(1, 2), norm="ortho") * passed, axes=(1, 2), norm="ortho")
    return result


def high_power(pictures: Samples, masks: NDArray[np.bool_], above: float) -> float:
    """Mean square of pictures (n, c, h, w) in [0, 1] above a frequency, in cycles a px, over all pixels of their masks.

    ``masks``: (n, h, w) bool, one for each picture. NaN where no pixel is in a mask. Raises ValueError for other shapes
    and types, and as ``picture_array`` does.
    """
    masks = _checked(masks)
    total, first = 0.0, 0
    for batch in image_batches(pictures, "pictures"):
        chosen = masks[first : first + len(batch)]
        if chosen.shape != (len(batch), *batch.shape[-2:]):
            raise ValueError(f"masks: expected one for each picture, {batch.shape[-2:]}, got shape {masks.shape}")
        total += float((high_passed(grey(batch), above) ** 2)[chosen].sum())
        first += len(batch)
    if first != len(masks):
        raise ValueError(f"masks: expected one for each of {first} pictures, got {len(masks)}")
    number = int(masks.sum())
    return total / number if number else float("nan")


def apart(masks: NDArray[np.bool_], margin: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels of masks (n, h, w), and pixels outside, that are further than ``margin`` px from the other ones.

    What is at a border belongs to both sides, and a painted edge may lie a little beside it.
    """
    masks, margin = _checked(masks), check_number(margin, "margin", least=0)
    return _eroded(masks, margin), _eroded(~masks, margin)


def _eroded(masks: NDArray[np.bool_], margin: float) -> NDArray[np.bool_]:
    kept = [distance_transform_edt(mask) > margin if not mask.all() else mask for mask in masks]
    return np.stack(kept) if kept else masks


def _checked(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not isinstance(masks, np.ndarray) or masks.dtype != bool or masks.ndim != 3:
        raise ValueError(f"masks: expected bool (n, h, w), got {getattr(masks, 'dtype', type(masks).__name__)}")
    return masks
