"""The loss added to the denoising loss: decoder features of one-step estimates, below a threshold on the noise."""

from collections.abc import Callable, Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier.data.checks import square_side
from atelier.diffusion import clean_estimate
from atelier.methods.latent_perceptual import Options, latent_perceptual_loss, threshold
from atelier.models.autoencoders import decoder_stages
from atelier.models.latents import unscaled
from atelier.studies.latent_perceptual.params import PostTraining
from atelier.training.denoiser import Denoised, Extra
from atelier.training.order import Turn
from atelier.training.slices import drawn_window, in_slices

TERM = "latent_perceptual"  # the name of the loss in histories

# (estimates (b, c, h, w), their targets, the turn of the batch's first sample) -> (b,)
Compare = Callable[[Tensor, Tensor, Turn], Tensor]


def perceptual(vae: AutoencoderKL, training: PostTraining, crop: int, names: Sequence[str], seed: int) -> Compare:
    """Compare estimates with clean latents by features of the frozen decoder, or by decoded pictures.

    Targets are computed without a graph. ``crop``: side in latent elements of a random square to which the middle
    block's features are cropped; 0: no cropping.
    """
    options = Options(training.norm, training.depth_weights, training.mask)
    pixels = 2 ** (len(vae.config.block_out_channels) - 1)  # per latent element

    def pictures(z: Tensor) -> Tensor:
        made: Tensor = vae.decode(unscaled(vae, z)).sample
        return made if made.dtype == torch.float64 else made.float()

    def compare(estimates: Tensor, targets: Tensor, turn: Turn) -> Tensor:
        if training.depth == "pixels":
            with torch.no_grad():
                wanted = pictures(targets)
            return (pictures(estimates) - wanted).square().mean((1, 2, 3))
        window = drawn_window(estimates.shape[-2:], crop, seed, names[turn.sample], turn.epoch) if crop else None
        with torch.no_grad():
            wanted_stages = decoder_stages(vae, unscaled(vae, targets), training.depth, window)
        stages = decoder_stages(vae, unscaled(vae, estimates), training.depth, window)
        side = crop or square_side(estimates, "estimates")
        return latent_perceptual_loss(wanted_stages, stages, side * pixels, options)

    return compare


def latent_error(estimates: Tensor, targets: Tensor, turn: Turn) -> Tensor:
    """Mean squared error of latents, (b,): the baseline of the perceptual loss on the same steps."""
    return (estimates - targets).square().mean((1, 2, 3))


def gated(compare: Compare, kind: str, tau: float, slices: int, weight: float = 1.0) -> Extra:
    """``E[1{sigma_t <= tau} compare]`` (Berrada Ifriqi et al. 2024, eq. 2 and 3), times ``weight``.

    Only samples below the threshold are compared, ``slices`` at a time; if there is none the decoder is not called and
    the term is 0. Nothing here waits for the device.
    """

    def term(step: Denoised) -> dict[str, Tensor]:
        n, most = len(step.batch), threshold(tau, square_side(step.zt, "zt"))
        under = [index for index, sigma in enumerate(step.sigma.tolist()) if sigma <= most]
        if not under:
            return {TERM: torch.zeros((), device=step.output.device)}
        # stacked one by one: indexing with a list would copy it to the device and wait
        zt, alpha, s, targets, output = (
            torch.stack([each[index] for index in under])
            for each in (step.zt, step.alpha, step.s, step.z0, step.output)
        )
        estimates = clean_estimate(kind, zt, output, alpha, s)
        turn = step.batch[under[0]]

        def loss(rows: slice, part: Tensor) -> Tensor:
            return weight * compare(part, targets[rows], turn).sum() / n

        return {TERM: in_slices(loss, estimates, slices)}

    return term


def weight_for(share: float, plain: float, added: float) -> float:
    """The weight that makes ``added`` this share of ``plain + weight added``; ValueError if ``added`` is 0."""
    if not added > 0:
        raise ValueError(f"a share of {share:g} of nothing: the loss is {added:g}, is any step under the threshold?")
    return share / (1 - share) * plain / added
