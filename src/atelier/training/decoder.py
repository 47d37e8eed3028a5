"""Train a decoder to paint texture: L1, a perceptual term and a patch discriminator (Rombach et al. 2022, G.1).

The encoder is frozen, so that latents, and denoisers trained on them, stay valid.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import relu

from atelier.data.images import to_model_range
from atelier.models.discriminator import PatchDiscriminator
from atelier.models.latents import Moments
from atelier.training.autoencoder import posterior_noise, reconstruction_loss
from atelier.training.loop import Task
from atelier.training.order import Turn

Perceptual = Callable[[Tensor, Tensor], Tensor]  # two batches in [-1, 1] -> (n,)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss (Lim and Ye 2017, eq. 8), from its scores of real and reconstructed pictures."""
    return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """Ratio of two losses' gradients at the last layer, which balances them (Esser et al. 2021, eq. 7)."""
    return (reconstruction.norm() / (adversarial.norm() + 1e-4)).clamp(max=1e4)


def task(
    vae: AutoencoderKL,
    discriminator: PatchDiscriminator,
    perceptual: Perceptual,
    latents: Moments,
    pictures: Tensor,
    names: Sequence[str],
    weights: tuple[float, float],
    seed: int,
    device: torch.device,
) -> Task:
    """Train ``vae``'s decoder on ``latents`` and their ``pictures`` (n, 3, h, w) uint8, and the discriminator with it.

    ``weights``: of the perceptual term relative to L1, and of the adversarial gradient relative to that of both.
    One loop trains both networks: the gradient of each term reaches only one of them.
    """
    perceptual_weight, adversarial_weight = weights
    vae.to(device, memory_format=torch.channels_last).requires_grad_(False)
    decoder = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    for part in (*decoder.values(), discriminator.to(device)):
        part.requires_grad_(True).train()
    last = vae.decoder.conv_out.weight

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        target = to_model_range(pictures[chosen]).to(device, memory_format=torch.channels_last)
        noise = posterior_noise(latents.std.shape[1:], seed, names, batch)
        latent = latents.mean[chosen] + latents.std[chosen] * noise
        output = vae.decode(latent.to(device)).sample

        made = output.detach().requires_grad_()
        pixels, perceived = reconstruction_loss(made, target), perceptual(made, target).mean()
        frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
        deceit = -functional_call(discriminator, frozen, (made,)).mean()
        wanted = torch.autograd.grad(pixels + perceptual_weight * perceived, made)[0]
        unmasked = torch.autograd.grad(deceit, made)[0]
        at_last = [torch.autograd.grad(output, last, gradient, retain_graph=True)[0] for gradient in (wanted, unmasked)]
        gradient = wanted + adversarial_weight * adaptive_weight(*at_last) * unmasked

        return {
            "reconstruction": pixels.detach(),
            "perceptual": perceived.detach(),
            "deceit": deceit.detach(),
            # value 0; its gradient is the weighted one computed above, backpropagated through the decoder once
            "decoder": ((output - output.detach()) * gradient).sum(),
            "discriminator": hinge_loss(discriminator(target), discriminator(output.detach())),
        }

    trainable = {f"{name}.{key}": value for name, part in decoder.items() for key, value in part.named_parameters()}
    trainable |= {f"discriminator.{key}": value for key, value in discriminator.named_parameters()}
    return Task(trainable=trainable, samples=names, losses=losses)
