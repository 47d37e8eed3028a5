"""Preference losses of denoisers: pairs' errors in, a scalar out.

Pixel-space post-training of latent diffusion models (anonymous ICLR submission), eq. 4 to 6; Wallace et al. 2023
(Diffusion-DPO); Meng et al. 2024 (SimPO); hinge and IPO as diffusers' script has them. An error is any squared error of
a sample, a mean over elements: of the noise in latents, of decoded pictures (`atelier.methods.pixel_space.pixel_loss`),
or a weighted sum of both. Eq. 7 adds two losses, one of latents and one of pictures; the loss of a weighted sum of
errors is another objective, with one sigmoid for both.

Errors are floats (n,), one for each pair: ``winner`` and ``loser`` of the denoiser that learns, ``winner_reference``
and ``loser_reference`` of the reference, which the caller computes without a graph. Half precision is computed in
float32. Shapes and types are checked, values are not, so that nothing waits for a device: NaN gives NaN. ``beta``: a
number above 0. Every function raises ValueError for integers, other shapes and numbers out of range, TypeError for what
is no tensor and no number.

Three conventions for ``beta`` give one loss. Here, in the paper's eq. 4 and as ``beta_dpo`` of diffusers' script, it
multiplies the gap of mean errors. Diffusion-DPO's code multiplies it by 0.5 first: ``beta = 0.5 beta_published``, 2500
for its 5000. With errors summed over a sample's m elements, ``beta = m beta_sum``: 2500 is 0.1526 for latents of
4 x 64 x 64. The paper does not print its beta.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from atelier.data.checks import check_number, check_tensor, in_full_precision, shape_of

ERRORS = "(n,)"


def error_gap(winner: Tensor, loser: Tensor) -> Tensor:
    """``loser - winner``, (n,): what eq. 5 multiplies by beta; above 0 where the winner is denoised better."""
    winner, loser = _checked(winner=winner, loser=loser)
    return loser - winner


def reference_gap(winner: Tensor, loser: Tensor, winner_reference: Tensor, loser_reference: Tensor) -> Tensor:
    """``(loser - loser_reference) - (winner - winner_reference)``, (n,): what eq. 4 multiplies by beta.

    Above 0 where the error fell by more, or rose by less, on the winner than on the loser. Exactly 0 at the reference.
    """
    winner, loser, winner_reference, loser_reference = _checked(
        winner=winner, loser=loser, winner_reference=winner_reference, loser_reference=loser_reference
    )
    return (loser - loser_reference) - (winner - winner_reference)


def dpo_loss(winner: Tensor, loser: Tensor, winner_reference: Tensor, loser_reference: Tensor, beta: float) -> Tensor:
    """Eq. 4: ``-E log sigma(-beta ((w - w_ref) - (l - l_ref)))``, a scalar; log 2 at the reference.

    The mean over pairs is outside the logarithm: each pair's gradient has its own weight, ``beta sigma(-beta gap)``.
    """
    gap = reference_gap(winner, loser, winner_reference, loser_reference)
    return -logsigmoid(_positive(beta) * gap).mean()


def simpo_loss(winner: Tensor, loser: Tensor, beta: float, margin: float = 0.0) -> Tensor:
    """Eq. 5, and 6 with errors of pictures: ``-E log sigma(-beta (w - l) - margin)``, a scalar, without a reference.

    ``margin``: SimPO's gamma, at least 0, which the paper drops; ``margin / beta`` is the gap of errors at which a pair
    weighs a half. The loss also falls while both errors rise, if the loser's rises faster: watch the winner's.
    """
    gap = error_gap(winner, loser)
    return -logsigmoid(_positive(beta) * gap - check_number(margin, "margin", least=0)).mean()


def hinge_loss(winner: Tensor, loser: Tensor, winner_reference: Tensor, loser_reference: Tensor, beta: float) -> Tensor:
    """``E max(0, 1 - beta gap)`` of `reference_gap` (Zhao et al. 2023, SLiC), a scalar; 1 at the reference."""
    gap = reference_gap(winner, loser, winner_reference, loser_reference)
    return torch.relu(1 - _positive(beta) * gap).mean()


def ipo_loss(winner: Tensor, loser: Tensor, winner_reference: Tensor, loser_reference: Tensor, beta: float) -> Tensor:
    """``E (gap - 1 / (2 beta))^2`` of `reference_gap` (Azar et al. 2023, eq. 17), a scalar; 1 / (4 beta^2) at first.

    The gap itself, not beta times it: of mean errors, as in diffusers' script.
    """
    gap = reference_gap(winner, loser, winner_reference, loser_reference)
    return (gap - 1 / (2 * _positive(beta))).square().mean()


def implicit_accuracy(gap: Tensor) -> Tensor:
    """Share of pairs whose gap (n,) is above 0, a scalar without a graph; a tie counts one half, as in diffusers.

    So it is 0.5 at the reference. Of `error_gap` or `reference_gap`, with beta or without. NaN in the gap gives NaN.
    """
    check_tensor(gap, "gap", ERRORS)
    gap = in_full_precision(gap).detach()
    right = (gap > 0).to(gap.dtype) + 0.5 * (gap == 0).to(gap.dtype)
    return torch.where(gap.isnan(), gap, right).mean()


def _positive(beta: float) -> float:
    return check_number(beta, "beta", least=0, open_ends=True)


def _checked(**errors: Tensor) -> list[Tensor]:
    """Errors (n,) of one length in full precision."""
    for name, error in errors.items():
        check_tensor(error, name, ERRORS)
        if error.shape != errors["winner"].shape:
            raise ValueError(
                f"{name}: expected the shape {shape_of(errors['winner'])} of winner, got {shape_of(error)}"
            )
    return [in_full_precision(error) for error in errors.values()]
