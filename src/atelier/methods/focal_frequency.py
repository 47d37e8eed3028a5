"""Focal frequency loss (Jiang et al. 2021): frequencies with larger errors are weighted more."""

import math
from numbers import Real

import torch
from torch import Tensor

from atelier.data.checks import check_picture_tensor, check_whole, is_tensor

CHANNELS = (1, 2, 3)  # more are alpha, or a side of pictures with channels last


def focal_frequency_loss(
    pred: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    patch_factor: int = 1,
    average_spectrum: bool = False,
    log_matrix: bool = False,
    batch_matrix: bool = False,
) -> Tensor:
    """Eqs. 6 and 8: mean of w |F_pred - F_target|^2 over orthonormal spectra, w = |F_pred - F_target|^alpha; scalar.

    ``pred``, ``target`` (n, c, h, w), c at most 3, floats of any range; half precision is computed in float32, also
    under autocast. Values are not checked, so that nothing waits for a device: NaN gives NaN.
    w is detached and divided by its maximum, per tile and channel or over the batch (``batch_matrix``); ``log_matrix``
    takes ln(w + 1) first. ``patch_factor``: tiles per side. ``average_spectrum`` averages the complex spectra over the
    batch. By Parseval's theorem the loss is at most the mean squared error, and equals it for alpha = 0 without
    averaging. Raises ValueError for integers, whose differences would wrap around (8-bit pictures divide by 255 first),
    for RGBA, channels last, shapes that differ or do not divide, and alpha < 0 or not finite.
    """
    _check_pair(pred, target)
    height, width = pred.shape[2:]
    patch_factor = check_whole(patch_factor, "patch_factor", least=0)
    if patch_factor < 1 or height % patch_factor or width % patch_factor:
        raise ValueError(f"patch_factor: {height}x{width} pictures cannot be cut into {patch_factor} a side")
    if not (isinstance(alpha, Real) and 0 <= alpha < math.inf):
        raise ValueError(f"alpha: expected at least 0 and finite, got {alpha}")
    with torch.autocast(pred.device.type, enabled=False):
        difference = pred - target  # the transform is linear, so one of the difference is enough
        if difference.dtype in (torch.float16, torch.bfloat16):
            difference = pred.float() - target.float()
        if average_spectrum:
            difference = difference.mean(0, keepdim=True)
        tiles = difference.unflatten(3, (patch_factor, -1)).unflatten(2, (patch_factor, -1)).movedim(4, 3)
        # a real picture's spectrum is symmetric: half of it is enough, with the inner columns counted twice below
        spectrum = torch.fft.rfft2(tiles, norm="ortho")
        distance = spectrum.real.square() + spectrum.imag.square()
        with torch.no_grad():
            weight = distance.sqrt() ** alpha
            if log_matrix:
                weight = torch.log1p(weight)
            peak = weight.max() if batch_matrix else weight.amax((-2, -1), keepdim=True)
            weight = weight / peak.clamp_min(torch.finfo(weight.dtype).tiny)  # avoids 0 / 0 for equal pictures
        side = width // patch_factor
        weight[..., 1 : (side + 1) // 2] *= 2
        return (weight * distance).sum() / difference.numel()


def _check_pair(pred: Tensor, target: Tensor) -> None:
    """Two batches of pictures of one shape."""
    if is_tensor(pred) and is_tensor(target) and (pred.shape != target.shape or pred.ndim != 4):
        shapes = f"{tuple(pred.shape)} and {tuple(target.shape)}"
        raise ValueError(f"pred, target: expected pictures (n, c, h, w) of one shape, got {shapes}")
    for name, x in (("pred", pred), ("target", target)):
        check_picture_tensor(x, name, channels=CHANNELS)
