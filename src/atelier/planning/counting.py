"""Operations and memory of a base's parts, counted on meta tensors: no number is computed, no weight is read.

A part runs once as on a card: attention fused, and with bf16 what autocast does (products and convolutions in half
precision, normalisations in full). Operations are those of torch's counter, two for each multiplication with its
addition. Memory is what all tensors alive at once take: for inference at most, for training those that the backward
pass waits for. It is counted for one and for two pictures, so that what a batch adds is known.
"""

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from atelier.models import noise_corrector
from atelier.planning.given import Shapes
from atelier.training.conversion import add_conversion
from atelier.training.lora import add_adapter

META = torch.device("meta")
RANK = 8  # of the adapters that are counted
HALF = {F.linear, torch.conv2d, F.conv2d, torch.matmul, torch.bmm, torch.baddbmm}  # of autocast's list, what is used
FULL = {F.group_norm, torch.group_norm, F.layer_norm, torch.layer_norm}


class Count(NamedTuple):
    """Operations of one picture, and bytes: ``fixed`` whatever the batch, and ``each`` a picture of it."""

    flops: float
    fixed: float
    each: float

    def memory(self, batch: float) -> float:
        """Bytes of a batch, without the weights."""
        return self.fixed + self.each * batch


class _Card(TorchFunctionMode):
    """What a card does that meta tensors do not: fused attention, and autocast."""

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.half = half

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            q, k, v = (self._cast(x, torch.bfloat16) if self.half else x for x in args[:3])
            return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        if self.half and func in HALF | FULL:
            dtype = torch.bfloat16 if func in HALF else torch.float32
            args, kwargs = tree_map(lambda x: self._cast(x, dtype), (args, kwargs))
        return func(*args, **kwargs)

    def _cast(self, x: Any, dtype: torch.dtype) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


class _Alive(TorchDispatchMode):
    """Bytes of all tensors that are alive, now and at most, but for those of ``known``."""

    def __init__(self, known: nn.Module) -> None:
        super().__init__()
        self.seen = {value.untyped_storage()._cdata for value in (*known.parameters(), *known.buffers())}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and (storage := made.untyped_storage())._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, name: int, size: int) -> None:
        self.seen.discard(name)
        self.now -= size


def counted(part: nn.Module, call: Callable[[int], Tensor], half: bool, learns: bool = False) -> Count:
    """The costs of ``call(batch)``, which runs ``part`` on meta tensors; ``learns``: forward, and back.

    Operations of a batch of one; what only learning needs is kept until the backward pass.
    """
    flops, alive_bytes = 0.0, []
    for batch in (1, 2):
        with torch.set_grad_enabled(learns), _Card(half), _Alive(part) as alive:
            counter = FlopCounterMode(display=False)
            with counter:
                made = call(batch)
                alive_bytes.append(alive.now if learns else alive.most)
                if learns and batch == 1:
                    made.float().sum().backward()
            flops = flops or counter.get_total_flops()
        for value in part.parameters():
            value.grad = None
    each = alive_bytes[1] - alive_bytes[0]
    return Count(float(flops), max(0.0, alive_bytes[0] - each), each)


class Parts:
    """A base's parts on meta tensors for pictures of ``size`` px; each is counted when it is first needed."""

    def __init__(self, shapes: Shapes, size: int, half: bool) -> None:
        self.size, self.half, self.tokens = size, half, shapes.tokens
        self._unet_config = dict(shapes.unet)
        with META:
            self.unet = UNet2DConditionModel.from_config(self._unet_config)
            self.vae = AutoencoderKL.from_config(dict(shapes.vae))
            self.text = CLIPTextModel(CLIPTextConfig.from_dict(dict(shapes.text)))
        self.words = int(self.unet.config["cross_attention_dim"])
        self.channels = int(self.vae.config["latent_channels"])
        self.pixels = 2 ** (len(self.vae.config["block_out_channels"]) - 1)  # of a latent element

    @property
    def side(self) -> int:
        """Of a latent."""
        return self.size // self.pixels

    @property
    def weights(self) -> dict[str, int]:
        """Numbers of parameters."""
        return {name: _size(getattr(self, name)) for name in ("unet", "vae", "text")}

    # ------------------------------------------------------------------------------------------ the denoiser

    @cache  # noqa: B019  the few parts of a plan live as long as it does
    def denoised(self) -> Count:
        return counted(self.unet, self._denoise(self.unet), self.half)

    def learnt(self, rank: int | None, everywhere: bool) -> tuple[Count, int]:
        """The costs of a sample that the denoiser, or an adapter, learns from; and how many numbers learn.

        An adapter's numbers are proportional to its rank; its operations are next to nothing beside the denoiser's, and
        are counted of rank 8.
        """
        count, numbers = self._learnt(rank is not None, everywhere)
        return count, numbers * rank // RANK if rank is not None else numbers

    @cache  # noqa: B019
    def _learnt(self, adapted: bool, everywhere: bool) -> tuple[Count, int]:
        with META:
            unet = UNet2DConditionModel.from_config(self._unet_config)
            if adapted:
                learning = (add_conversion if everywhere else add_adapter)(unet, RANK, 0)
            else:
                learning = dict(unet.named_parameters())
        count = counted(unet.train(), self._denoise(unet), self.half, learns=True)
        return count, sum(value.numel() for value in learning.values())

    @cache  # noqa: B019
    def corrector(self, width: int) -> tuple[Count, int]:
        """The same of a corrector of the noise."""
        with META:
            network = noise_corrector.build(self.unet, width, 0)
        return counted(network, self._denoise(network), half=False, learns=True), _size(network)

    def _denoise(self, unet: UNet2DConditionModel) -> Callable[[int], Tensor]:
        def call(batch: int) -> Tensor:
            z = torch.empty(batch, self.channels, self.side, self.side, device=META)
            words = torch.empty(batch, self.tokens, self.words, device=META)
            made: Tensor = unet(z, torch.empty(batch, device=META), words).sample
            return made

        return call

    # ------------------------------------------------------------------------------------------ the autoencoder

    @cache  # noqa: B019
    def decoded(self) -> Count:
        return counted(self.vae, self._decode(self.vae, self.size), self.half)

    @cache  # noqa: B019
    def encoded(self) -> Count:
        """Encoding, which has no autocast: caches are made in full precision."""
        return counted(self.vae, lambda batch: self.vae.encode(self._pictures(batch)).latent_dist.mean, half=False)

    @cache  # noqa: B019
    def looked_through(self) -> Count:
        """A frozen decoder, forward and back to the latent, as losses on decoded pictures need it."""
        self.vae.requires_grad_(False)
        return counted(self.vae, self._decode(self.vae, self.size, graph=True), self.half, learns=True)

    @cache  # noqa: B019
    def retuned(self, side: int) -> Count:
        """A sample of ``side`` px that the decoder learns from, as a whole: what learns of it is at most that."""
        with META:
            vae = AutoencoderKL.from_config(dict(self.vae.config)).train()
        return counted(vae, self._decode(vae, side or self.size), self.half, learns=True)

    @cache  # noqa: B019
    def reconstructed(self) -> Count:
        """A picture that the autoencoder learns from."""
        with META:
            vae = AutoencoderKL.from_config(dict(self.vae.config)).train()
        call = self._decode(vae, self.size)

        def both(batch: int) -> Tensor:
            mean: Tensor = vae.encode(self._pictures(batch)).latent_dist.mean
            return call(batch) + mean.mean()

        return counted(vae, both, self.half, learns=True)

    @cache  # noqa: B019
    def prompted(self) -> Count:
        """A prompt's embedding."""

        def call(batch: int) -> Tensor:
            ids = torch.zeros(batch, self.tokens, dtype=torch.long, device=META)
            made: Tensor = self.text(ids).last_hidden_state
            return made

        return counted(self.text, call, half=False)

    def _pictures(self, batch: int) -> Tensor:
        return torch.empty(batch, 3, self.size, self.size, device=META)

    def _decode(self, vae: AutoencoderKL, size: int, graph: bool = False) -> Callable[[int], Tensor]:
        side = size // self.pixels

        def call(batch: int) -> Tensor:
            z = torch.empty(batch, self.channels, side, side, device=META).requires_grad_(graph)
            made: Tensor = vae.decode(z).sample
            return made

        return call


def _size(part: nn.Module) -> int:
    return sum(value.numel() for value in part.parameters())
