"""Pixel-space post-training of latent diffusion models (anonymous ICLR submission): losses on decoded latents.

Eq. 2 decodes noisy latents at the step at hand; eq. 8, which the paper rejects, decodes the clean estimate. The gap
between the latents of both branches is ``s_t (eps - eps_hat)`` in the first and ``s_t / alpha_t`` times the noise's
error in the second, which grows without bound where the signal vanishes. The paper's norms are read as means over
elements: its weights of 2 and 8 balance both terms although a picture has 48 times the numbers of its latent.

``decode``: any callable from latents (n, c, h, w) to pictures (n, c', h', w'). It is the caller's to freeze its
parameters, to put it in evaluation mode and to convert the latents' units and types to its own
(`atelier.models.latents.unscaled`). Latents are floats (n, c, h, w) of one shape; ``alpha`` and ``s`` as in
`atelier.diffusion`. ``decode`` gets latents of z0's type, and errors have its pictures' type; half precision is float32
in both. Shapes and types are checked, values are not, so that nothing waits for a device: NaN gives NaN. Every function
raises ValueError for integers and other shapes, TypeError for what is no tensor and no callable.

Losses are per sample, so that `atelier.training.slices.in_slices` can hold the graph of a few samples at a time, and so
that they are the errors of `atelier.methods.preference`. With a ``window`` only a square of the latents is decoded, the
same in both branches: cheaper, but layers that see a whole picture (attention, group normalisation) then see the square
alone, and convolutions pad at its border, so the pictures are not parts of whole ones.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from atelier.data.checks import (
    came,
    check_alike,
    check_choice,
    check_tensor,
    check_whole,
    in_full_precision,
    shape_of,
)
from atelier.diffusion import KINDS, clean_estimate, noise_estimate, noised
from atelier.models.autoencoders import Window
from atelier.models.latents import unscaled

Decode: TypeAlias = Callable[[Tensor], Tensor]
Form: TypeAlias = Literal["noisy", "clean"]  # eq. 2, or eq. 8

LATENTS = "(n, c, h, w)"


def pixel_loss(
    decode: Decode,
    z0: Tensor,
    eps: Tensor,
    eps_hat: Tensor,
    alpha: Tensor,
    s: Tensor,
    window: Window | None = None,
) -> Tensor:
    """Eq. 2: ``||D(alpha_t z_0 + s_t eps) - D(alpha_t z_0 + s_t eps_hat)||^2``, mean over a picture's elements, (n,).

    ``eps_hat``: what the denoiser predicts (`atelier.diffusion.noise_estimate`). The first branch, the target, has no
    graph. Where ``s`` is 0, or ``eps_hat`` is ``eps``, loss and gradient are exactly 0.
    """
    check_alike(LATENTS, z0=z0, eps=eps, eps_hat=eps_hat)
    z0, eps, eps_hat = in_full_precision(z0), in_full_precision(eps), in_full_precision(eps_hat)
    # schedules are float64: latents keep their type, since a decoder takes one type only
    with torch.no_grad():
        wanted = _decoded(decode, noised(z0, eps, alpha, s).to(z0.dtype), window)
    return _error(_decoded(decode, noised(z0, eps_hat, alpha, s).to(z0.dtype), window), wanted)


def clean_pixel_loss(
    decode: Decode, z0: Tensor, z0_hat: Tensor, x: Tensor | None = None, window: Window | None = None
) -> Tensor:
    """Eq. 8, the form that the paper rejects: ``||x - D(z0_hat)||^2``, mean over a picture's elements, (n,).

    ``z0_hat``: of `atelier.diffusion.clean_estimate`, which divides by ``alpha_t`` only where noise is predicted.
    ``x``: the pictures themselves, in the decoder's units and with its output's shape (with a ``window`` their part of
    it, see `cropped`); None: the decoded clean latents, without a graph, so that the autoencoder's own error does not
    count.
    """
    check_alike(LATENTS, z0=z0, z0_hat=z0_hat)
    if x is None:
        with torch.no_grad():
            x = _decoded(decode, in_full_precision(z0), window)
    else:
        check_tensor(x, "x", LATENTS)
    made = _decoded(decode, in_full_precision(z0_hat).to(in_full_precision(z0).dtype), window)
    if x.shape != made.shape:
        raise ValueError(f"x: expected the shape {shape_of(made)} of the decoded latents, got {shape_of(x)}")
    return _error(made, in_full_precision(x).detach())


def pixel_error(
    decode: Decode,
    kind: str,
    z0: Tensor,
    eps: Tensor,
    output: Tensor,
    alpha: Tensor,
    s: Tensor,
    form: Form = "noisy",
    window: Window | None = None,
) -> Tensor:
    """Error in pixels of a denoiser's ``output`` for ``alpha_t z_0 + s_t eps``, in one of both forms, (n,).

    ``kind``: epsilon, v_prediction or flow_prediction, which ``output`` is.
    """
    check_choice(form, "form", get_args(Form))
    zt = noised(z0, eps, alpha, s).to(z0.dtype)
    if form == "clean":
        return clean_pixel_loss(decode, z0, clean_estimate(kind, zt, output, alpha, s), window=window)
    return pixel_loss(decode, z0, eps, noise_estimate(kind, zt, output, alpha, s), alpha, s, window)


def pixel_errors(
    pipeline: DiffusionPipeline,
    z0: Tensor,
    eps: Tensor,
    t: Tensor,
    output: Tensor,
    form: Form = "noisy",
    window: Window | None = None,
) -> Tensor:
    """`pixel_error` of any diffusers pipeline with a ``vae`` whose scheduler adds noise by ``alphas_cumprod``, (n,).

    ``output``: its denoiser's for ``scheduler.add_noise(z0, eps, t)``, noise or v; ``t``: whole numbers (n,). Latents
    are in the denoiser's units. The autoencoder's parameters are the caller's to freeze. ValueError for a flow.
    """
    vae, scheduler = pipeline.vae, pipeline.scheduler
    kind = scheduler.config.get("prediction_type")
    if kind not in KINDS[:2] or not hasattr(scheduler, "alphas_cumprod"):
        known = " or ".join(KINDS[:2])
        raise ValueError(f"pipeline: expected a scheduler of {known}, got {type(scheduler).__name__} of {kind}")
    check_tensor(t, "t", "(n,)", ("int32", "int64"))
    abar = scheduler.alphas_cumprod.to(z0.device)[t.to(z0.device)].view(-1, 1, 1, 1)

    def decode(latents: Tensor) -> Tensor:
        made: Tensor = vae.decode(unscaled(vae, latents).to(vae.dtype)).sample
        return made

    return pixel_error(decode, kind, z0, eps, output, abar.sqrt(), (1 - abar).sqrt(), form, window)


def cropped(x: Tensor, window: Window) -> Tensor:
    """A square of latents or pictures (..., h, w), a view; ValueError for a window that does not lie within them.

    The window of a picture is that of its latent times the autoencoder's factor.
    """
    check_tensor(x, "x", "(..., h, w)")
    if not isinstance(window, Window):
        raise TypeError(f"window: expected a Window(top, left, side), got {came(window)}")
    height, width = x.shape[-2:]
    side = check_whole(window.side, "window.side", most=min(height, width))
    top = check_whole(window.top, "window.top", least=0, most=height - side)
    left = check_whole(window.left, "window.left", least=0, most=width - side)
    return x[..., top : top + side, left : left + side]


def _decoded(decode: Decode, latents: Tensor, window: Window | None) -> Tensor:
    """Pictures of these latents, or of a window of them, in full precision."""
    if not callable(decode):
        raise TypeError(f"decode: expected a callable from latents to pictures, got {came(decode)}")
    pictures = decode(latents if window is None else cropped(latents, window))
    check_tensor(pictures, "what decode returns", LATENTS)
    if len(pictures) != len(latents):
        raise ValueError(f"what decode returns: expected {len(latents)} pictures, got shape {shape_of(pictures)}")
    return in_full_precision(pictures)


def _error(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each picture, (n,)."""
    return (made - wanted).square().mean((1, 2, 3))
