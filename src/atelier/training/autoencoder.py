"""The base's autoencoder training: reconstruct pictures from their latents."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, pad

from atelier.data.images import to_model_range
from atelier.seeds import torch_generator
from atelier.training.loop import Task
from atelier.training.order import Turn

SCALES = (1, 2, 4)  # pixels: L1 at full, half and quarter resolution, so that structure is learnt before texture
KL_WEIGHT = 1e-8  # on the KL summed over a latent, against a mean L1: latents stay bounded and keep their detail


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 distance at several scales, summed; (n, 3, h, w) in [-1, 1] -> scalar."""
    return torch.stack([(avg_pool2d(output, s) - avg_pool2d(target, s)).abs().mean() for s in SCALES]).sum()


def task(
    vae: AutoencoderKL, pictures: Tensor, names: Sequence[str], seed: int, device: torch.device, max_shift: int = 0
) -> Task:
    """Train all of ``vae`` on ``pictures`` (n, 3, h, w) uint8; randomness depends on (seed, name, epoch) only.

    ``moved``: augment by random flips and shifts of up to this many pixels; 0: no augmentation.
    """
    vae.to(device, memory_format=torch.channels_last).requires_grad_(True).train()

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        target = to_model_range(pictures[[turn.sample for turn in batch]])
        if max_shift:
            target = displaced(target, max_shift, [_chance(seed, "displaced", names, turn) for turn in batch])
        target = target.to(device, memory_format=torch.channels_last)
        posterior = vae.encode(target).latent_dist
        noise = posterior_noise(posterior.mean.shape[1:], seed, names, batch)
        output = vae.decode(posterior.mean + posterior.std * noise.to(device)).sample
        return {"reconstruction": reconstruction_loss(output, target), "kl": KL_WEIGHT * posterior.kl().mean()}

    return Task(trainable=dict(vae.named_parameters()), samples=names, losses=losses)


def displaced(pictures: Tensor, reach: int, generators: Sequence[Generator]) -> Tensor:
    """Randomly flip pictures (b, 3, h, w) and shift them by up to ``reach`` pixels, with reflected edges.

    The latent's grid then has a random position, so that few pictures give many more patches.
    """
    height, width = pictures.shape[2:]
    shifted = []
    for wide, generator in zip(pad(pictures, [reach] * 4, mode="reflect"), generators, strict=True):
        row, column = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
        one = wide[:, row : row + height, column : column + width]
        shifted.append(one.flip(2) if torch.randint(2, (1,), generator=generator) else one)
    return torch.stack(shifted)


def posterior_noise(shape: torch.Size, seed: int, names: Sequence[str], batch: Sequence[Turn]) -> Tensor:
    """White noise (b, *shape), each row a function of (seed, name, epoch)."""
    return torch.stack([torch.randn(shape, generator=_chance(seed, "posterior", names, turn)) for turn in batch])


def _chance(seed: int, what: str, names: Sequence[str], turn: Turn) -> Generator:
    return torch_generator(seed, what, names[turn.sample], turn.epoch)
