"""What the page needs to draw first latents: leaks of photographs, and directions of colour of a latent's means."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from atelier.data.images import to_pixels
from atelier.methods.signal_leak import FrequencyLeak, Leak, PixelLeak
from atelier.models.latents import decode

COLOURS = 4  # sliders
MOST = 3.0  # standard deviations at either end of one
DIGITS = 7  # as many as float32 holds


def tables(leaks: Mapping[int, Leak]) -> dict[str, Any]:
    """Leaks by N, as ``page/painting.mjs`` reads them; ``root``: the covariance's symmetric square root, by rows."""
    return {str(n): _table(leak) for n, leak in sorted(leaks.items())}


def _table(leak: Leak) -> dict[str, Any]:
    if isinstance(leak, PixelLeak):
        leak = FrequencyLeak([], np.zeros(0), np.zeros((0, 0)), leak)
    values, vectors = np.linalg.eigh(leak.low_covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    numbers = {"mean": leak.rest.mean, "std": leak.rest.std, "low_mean": leak.low_mean, "root": root}
    listed = {name: [float(f"{x:.{DIGITS}g}") for x in array.ravel()] for name, array in numbers.items()}
    return {"frequencies": [list(pair) for pair in leak.frequencies], **listed}


def colours(leak: FrequencyLeak, vae: AutoencoderKL) -> list[dict[str, Any]]:
    """The directions in which the means of photographs' latents vary most, with what each looks like at its ends.

    ``leak``: with the lowest frequency (N = 1), whose coefficients are the channels' means times the latent's side.
    ``shift``: one standard deviation, by channel; ``low``, ``high``: colours of flat pictures at the slider's ends;
    ``share`` of the variance.
    """
    channels, height, width = leak.rest.mean.shape
    scale = np.sqrt(height * width)
    values, vectors = np.linalg.eigh(leak.low_covariance[:channels, :channels])
    mean, listed = leak.low_mean[:channels] / scale, []
    for index in np.argsort(values)[::-1][:COLOURS]:
        direction = vectors[:, index] * np.sign(vectors[np.abs(vectors[:, index]).argmax(), index])
        shift = direction * np.sqrt(values[index]) / scale
        ends = np.stack([mean - MOST * shift, mean + MOST * shift])
        flat = torch.from_numpy(ends).float()[..., None, None].expand(-1, -1, height, width)
        low, high = (picture.float().mean((1, 2)).round().int().tolist() for picture in to_pixels(decode(vae, flat)))
        listed.append(
            {
                "shift": [float(f"{x:.{DIGITS}g}") for x in shift],
                "low": "#{:02x}{:02x}{:02x}".format(*low),
                "high": "#{:02x}{:02x}{:02x}".format(*high),
                "share": round(float(values[index] / values.sum()), 3),
            }
        )
    return listed
