"""What an autoencoder learns when the base is trained: pictures back from their latents."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, pad

from atelier.data.images import to_model_range
from atelier.seeds import torch_generator
from atelier.training.loop import Task
from atelier.training.order import Pick

SCALES = (1, 2, 4)  # pixels: L1 at full, half and quarter resolution, so that structure is learnt before texture
KL_WEIGHT = 1e-8  # on the KL summed over a latent, against a mean L1: latents stay bounded and keep their detail


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 distance at several scales, summed; (n, 3, h, w) in [-1, 1] -> scalar."""
    return torch.stack([(avg_pool2d(output, s) - avg_pool2d(target, s)).abs().mean() for s in SCALES]).sum()


def task(
    vae: AutoencoderKL, pictures: Tensor, names: Sequence[str], seed: int, device: torch.device, moved: int = 0
) -> Task:
    """Train all of ``vae`` on ``pictures`` (n, 3, h, w) uint8; all chance depends on (seed, name, epoch).

    ``moved``: pictures are mirrored or not, and moved by up to so many pixels; 0: they are as they are.
    """
    vae.to(device, memory_format=torch.channels_last).requires_grad_(True).train()

    def losses(batch: Sequence[Pick]) -> dict[str, Tensor]:
        target = to_model_range(pictures[[pick.sample for pick in batch]])
        if moved:
            target = displaced(target, moved, [_chance(seed, "displaced", names, pick) for pick in batch])
        target = target.to(device, memory_format=torch.channels_last)
        posterior = vae.encode(target).latent_dist
        noise = posterior_noise(posterior.mean.shape[1:], seed, names, batch)
        output = vae.decode(posterior.mean + posterior.std * noise.to(device)).sample
        return {"reconstruction": reconstruction_loss(output, target), "kl": KL_WEIGHT * posterior.kl().mean()}

    return Task(trainable=dict(vae.named_parameters()), samples=names, losses=losses)


def displaced(pictures: Tensor, reach: int, generators: Sequence[Generator]) -> Tensor:
    """Pictures (b, 3, h, w), each mirrored or not and moved by up to ``reach`` pixels, edges reflected.

    The latent's grid then falls anywhere: of few pictures, many more patches are learnt.
    """
    height, width = pictures.shape[2:]
    found = []
    for wide, generator in zip(pad(pictures, [reach] * 4, mode="reflect"), generators, strict=True):
        row, column = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
        one = wide[:, row : row + height, column : column + width]
        found.append(one.flip(2) if torch.randint(2, (1,), generator=generator) else one)
    return torch.stack(found)


def posterior_noise(shape: torch.Size, seed: int, names: Sequence[str], batch: Sequence[Pick]) -> Tensor:
    """White noise (b, *shape), a function of (seed, name, epoch) each."""
    return torch.stack([torch.randn(shape, generator=_chance(seed, "posterior", names, pick)) for pick in batch])


def _chance(seed: int, what: str, names: Sequence[str], pick: Pick) -> Generator:
    return torch_generator(seed, what, names[pick.sample], pick.epoch)
