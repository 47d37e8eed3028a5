"""How fast a card is: measured on the one at hand for some seconds, or as its maker says."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from atelier import machine
from atelier.params import Params
from atelier.planning.counting import META, RANK, Count, Parts
from atelier.training.lora import add_adapter

ASSUMED = 0.3  # of a published figure, that convolutions and attention of these sizes reach; an assumption
ROOM = 0.8  # of a card's memory, that what is measured may take
MOST = 50  # calls that are measured


class Card(NamedTuple):
    """Dense figures of a card's data sheet, TFLOP/s without sparsity, and its memory in GiB."""

    bf16: float
    fp32: float
    memory: float


CARDS = {
    "A100": Card(312, 19.5, 80),
    "A100-40": Card(312, 19.5, 40),
    "H100": Card(989, 67, 80),
    "H200": Card(989, 67, 141),
    "L4": Card(121, 30.3, 24),
    "L40S": Card(362, 91.6, 48),
    "RTX3090": Card(71, 35.6, 24),
    "RTX4090": Card(165, 82.6, 24),
}


class Speed(NamedTuple):
    """FLOP/s of the denoiser's calls, of its training and of the decoder; bytes of the device's memory; in words.

    ``exact``: the share of these speeds that full precision has.
    """

    denoised: float
    learnt: float
    decoded: float
    exact: float
    memory: float
    words: str


def published(name: str, precision: str) -> Speed:
    """A named card's. Raises ValueError for one that is not listed."""
    known = {key.lower(): key for key in CARDS}
    key = known.get("".join(name.split()).lower())
    if key is None:
        raise ValueError(f"--card: '{name}' is not listed; there are {', '.join(CARDS)}")
    card = CARDS[key]
    figure = card.bf16 if precision == "bf16" else card.fp32
    rate = ASSUMED * figure * 1e12
    words = f"{key}: {figure:g} TFLOP/s of {precision}, as published, of which {ASSUMED:.0%} are assumed to be reached"
    return Speed(rate, rate, rate, card.fp32 / figure, card.memory * 2**30, words)


def measured(params: Params, parts: Parts, seconds: float) -> Speed:
    """That of the device at hand, in about so many seconds: of random weights, at the profile's precision and batches.

    Raises ValueError for 'cuda' where there is none.
    """
    accelerator = machine.accelerator(params.machine)
    device, sampling = accelerator.device, params.sampling.batch
    on_card = device.type == "cuda"
    memory = float(torch.cuda.get_device_properties(device).total_memory if on_card else machine_memory())
    wait = torch.cuda.synchronize if on_card else lambda: None
    timed = _Timed(seconds / (4 if parts.half else 3), memory, wait, accelerator.autocast)
    unet = _random(UNet2DConditionModel, parts.unet, device)
    counted = parts.denoised()
    denoised = timed.rate(_forward(parts, unet), counted, 2 * sampling)
    exact = 1.0
    if parts.half:
        exact = timed._replace(autocast=nullcontext).rate(_forward(parts, unet), counted, 2 * sampling) / denoised
    with torch.enable_grad():
        learnt = timed.rate(_step(parts, unet), parts.learnt(RANK, False)[0], sampling)
    del unet
    vae = _random(AutoencoderKL, parts.vae, device)
    decoded = timed.rate(_decode(parts, vae), parts.decoded(), sampling)
    name = torch.cuda.get_device_name(device) if on_card else f"{params.machine.threads} threads of this processor"
    rates = ", ".join(f"{rate / 1e12:.3g}" for rate in (denoised, learnt, decoded))
    words = f"{name}, {params.machine.precision}: {rates} TFLOP/s measured of denoiser, its training, decoder"
    return Speed(denoised, learnt, decoded, exact, memory, f"{words}{_load()}")


def cards(params: Params) -> int:
    """How many cards of this machine the profile may use; 0: it runs on the processor."""
    return 0 if params.machine.device == "cpu" else torch.cuda.device_count()


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _load() -> str:
    """That others compute on this machine, too, where they do."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"; others compute here, too: a load of {load:.2g} on {cores} cores" if load > cores + 1 else ""


class _Timed(NamedTuple):
    seconds: float
    memory: float
    wait: Callable[[], Any]
    autocast: Callable[[], AbstractContextManager[Any]]

    def rate(self, call: Callable[[int], Any], count: Count, wanted: int) -> float:
        """Operations a second of ``call(batch)``: of the wanted batch, or of the largest that memory and time allow.

        The fastest of several calls, because other processes only ever slow one down.
        """
        most = max(1, int((ROOM * self.memory - count.fixed) / max(1.0, count.each)))
        self._took(call, 1)  # the first is slower
        batch, took = 1, self._took(call, 1)
        while batch < min(wanted, most) and took < self.seconds / 2:
            batch = min(2 * batch, wanted, most)
            took = self._took(call, batch)
        number = max(1, min(MOST, int(self.seconds / 2 / took)))
        return batch * count.flops / min(self._took(call, batch) for _ in range(number))

    def _took(self, call: Callable[[int], Any], batch: int) -> float:
        self.wait()
        began = time.perf_counter()
        with self.autocast():
            call(batch)
        self.wait()
        return time.perf_counter() - began


def _random(kind: Any, part: nn.Module, device: torch.device) -> Any:
    """A part of these shapes on the device, with random weights, in the layout that sampling has."""
    with META:
        config: Any = part.config
        made = kind.from_config(dict(config))
    made = made.to_empty(device=device).to(memory_format=torch.channels_last).requires_grad_(False)
    with torch.no_grad():
        for value in made.parameters():
            value.normal_(std=0.02)
    return made


def _inputs(parts: Parts, device: torch.device, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    z = torch.randn(batch, parts.channels, parts.side, parts.side, device=device)
    return z, torch.full((batch,), 500, device=device), torch.randn(batch, parts.tokens, parts.words, device=device)


def _forward(parts: Parts, unet: UNet2DConditionModel) -> Callable[[int], Any]:
    def call(batch: int) -> Tensor:
        with torch.no_grad():
            made: Tensor = unet(*_inputs(parts, unet.device, batch)).sample
        return made

    return call


def _step(parts: Parts, unet: UNet2DConditionModel) -> Callable[[int], Any]:
    """One step of an adapter's training, as the loop makes it."""
    trainable = list(add_adapter(unet, RANK, 0).values())
    optimiser = torch.optim.AdamW(trainable, lr=1e-4)

    def call(batch: int) -> None:
        unet(*_inputs(parts, unet.device, batch)).sample.float().square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return call


def _decode(parts: Parts, vae: AutoencoderKL) -> Callable[[int], Any]:
    def call(batch: int) -> Tensor:
        with torch.no_grad():
            made: Tensor = vae.decode(_inputs(parts, vae.device, batch)[0]).sample
        return made

    return call
