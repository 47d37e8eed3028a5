"""diffusers' autoencoders of any class: the decoder's parameters and stages, and digests of weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from torch import Tensor, nn

from atelier.files import check_output
from atelier.models.stored import load_tensors, tensor_digest
from atelier.params import Scope


def decoder_parameters(vae: ModelMixin, scope: Scope) -> dict[str, nn.Parameter]:
    """Parameters of a part of the decoder, by their names in ``vae``.

    ``upsamplers``: the convolutions after each upsampling; ``up_blocks``: everything from the first upsampling block
    on; ``decoder``: everything between latent and picture. Raises ValueError for an unsupported class of autoencoder.
    """
    if isinstance(vae, AutoencoderKL):
        prefixes = {"upsamplers": ["decoder.up_blocks."], "up_blocks": ["decoder.up_blocks."]}
        chosen = _under(vae, prefixes.get(scope, ["decoder.", "post_quant_conv."]))
        return {name: p for name, p in chosen.items() if ".upsamplers." in name} if scope == "upsamplers" else chosen
    if isinstance(vae, AutoencoderTiny):
        layers = vae.decoder.layers
        after = [index + 1 for index, layer in enumerate(layers) if isinstance(layer, nn.Upsample)]
        numbers = {"upsamplers": after, "up_blocks": range(after[0], len(layers)), "decoder": range(len(layers))}
        return _under(vae, [f"decoder.layers.{index}." for index in numbers[scope]])
    raise ValueError(
        f"{type(vae).__name__}: which of its parameters are the decoder's is not known here; "
        "expected AutoencoderKL or AutoencoderTiny"
    )


class Window(NamedTuple):
    """A square of latent elements."""

    top: int
    left: int
    side: int


def decoder_stages(vae: ModelMixin, z: Tensor, depth: int, window: Window | None = None) -> list[Tensor]:
    """Outputs of a decoder's middle block and upsampling blocks, the first ``depth`` of them; later layers do not run.

    ``z`` (n, c, h, w) in the autoencoder's units. ``window``: crops the middle block's output, which makes later stages
    cheaper; the middle block itself, which may attend to the whole picture, is not cropped. Raises ValueError for a
    decoder without these parts.
    """
    decoder = vae.decoder
    blocks = getattr(decoder, "up_blocks", None)
    if blocks is None or not hasattr(decoder, "mid_block"):
        raise ValueError(f"{type(vae).__name__}: its decoder has no stages that are known here; expected AutoencoderKL")
    if not 1 <= depth <= 1 + len(blocks):
        raise ValueError(f"depth: expected 1 to {1 + len(blocks)} stages of this decoder, got {depth}")
    after = getattr(vae, "post_quant_conv", None)
    x = decoder.mid_block(decoder.conv_in(z if after is None else after(z)))
    if window is not None:
        x = x[..., window.top : window.top + window.side, window.left : window.left + window.side]
    stages = [x]
    for block in blocks[: depth - 1]:
        stages.append(block(stages[-1]))
    return stages


def _under(vae: nn.Module, prefixes: Iterable[str]) -> dict[str, nn.Parameter]:
    starts = tuple(prefixes)
    return {name: parameter for name, parameter in vae.named_parameters() if name.startswith(starts)}


def digest(vae: nn.Module, without: Iterable[str] = ()) -> str:
    """Hash of all parameters and buffers whose names are not in ``without``."""
    left_out = set(without)
    return tensor_digest({name: value for name, value in vae.state_dict().items() if name not in left_out})


def load_like(vae: ModelMixin, folder: Path) -> ModelMixin:
    """Load an autoencoder with ``vae``'s configuration and other weights, from a folder in the diffusers format.

    Only safetensors are read. Raises ValueError for another configuration, and for weights that are missing, unknown,
    or not finite.
    """
    check_output(folder)
    try:
        config = type(vae).load_config(folder, local_files_only=True)
        # compared as JSON, which has no tuples
        stored = {key: json.dumps(value) for key, value in config.items() if not key.startswith("_")}
        differ = sorted(key for key, value in stored.items() if json.dumps(vae.config.get(key)) != value)
        if differ:
            raise ValueError(f"its configuration differs in {', '.join(differ)}")
        loaded = type(vae).from_config(vae.config)
        shapes = {name: tuple(value.shape) for name, value in vae.state_dict().items()}
        loaded.load_state_dict(load_tensors(folder / SAFETENSORS_WEIGHTS_NAME, shapes))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: not a readable autoencoder: {' '.join(str(error).split())}") from None
    return loaded.requires_grad_(False).eval()
