"""diffusers' autoencoders, of whichever class: what of them a retuned decoder may change, and a digest of the rest."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from torch import nn

from atelier.params import Scope


def decoder_parameters(vae: ModelMixin, scope: Scope) -> dict[str, nn.Parameter]:
    """Parameters of a part of the decoder, by their names in ``vae``.

    ``upsamplers``: the convolutions that follow an upsampling, its learnable part; ``up_blocks``: all from the first
    upsampling block on; ``decoder``: everything between latent and picture. Raises ValueError for a class of
    autoencoder whose decoder is not known here.
    """
    if isinstance(vae, AutoencoderKL):
        prefixes = {"upsamplers": ["decoder.up_blocks."], "up_blocks": ["decoder.up_blocks."]}
        chosen = _under(vae, prefixes.get(scope, ["decoder.", "post_quant_conv."]))
        return {name: p for name, p in chosen.items() if ".upsamplers." in name} if scope == "upsamplers" else chosen
    if isinstance(vae, AutoencoderTiny):
        layers = vae.decoder.layers
        after = [at + 1 for at, layer in enumerate(layers) if isinstance(layer, nn.Upsample)]
        numbers = {"upsamplers": after, "up_blocks": range(after[0], len(layers)), "decoder": range(len(layers))}
        return _under(vae, [f"decoder.layers.{at}." for at in numbers[scope]])
    raise ValueError(
        f"{type(vae).__name__}: which of its parameters are the decoder's is not known here; "
        "expected AutoencoderKL or AutoencoderTiny"
    )


def _under(vae: nn.Module, prefixes: Iterable[str]) -> dict[str, nn.Parameter]:
    starts = tuple(prefixes)
    return {name: parameter for name, parameter in vae.named_parameters() if name.startswith(starts)}


def digest(vae: nn.Module, without: Iterable[str] = ()) -> str:
    """Hash of all parameters and buffers but those named; equal for equal bytes."""
    left_out, found = set(without), hashlib.sha256()
    for name, value in sorted(vae.state_dict().items()):
        if name not in left_out:
            found.update(f"{name} {tuple(value.shape)} {value.dtype}\0".encode())
            found.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_like(vae: ModelMixin, folder: Path) -> ModelMixin:
    """An autoencoder of the class of ``vae`` from a folder in the diffusers format; nothing pickled is read."""
    try:
        return type(vae).from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: not a readable autoencoder: {' '.join(str(error).split())}") from None
