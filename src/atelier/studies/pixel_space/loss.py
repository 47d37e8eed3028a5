"""What post-trainings learn by: errors in latents, of decoded pictures, or both; of works, or of pairs of preferences.

The decoder is frozen and called in slices; a picture, or a random square of it, is decoded. Terms without a graph are
for the history: the squared error where pixels alone teach, and what preferences did to both pictures' errors.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from atelier.diffusion import noised
from atelier.methods.pixel_space import Decode, Form, pixel_error
from atelier.methods.preference import (
    dpo_loss,
    error_gap,
    hinge_loss,
    implicit_accuracy,
    ipo_loss,
    reference_gap,
    simpo_loss,
)
from atelier.models.autoencoders import Window
from atelier.models.latents import unscaled
from atelier.studies.pixel_space.params import PostTraining
from atelier.studies.pixel_space.pictures import Pairs
from atelier.training import denoiser
from atelier.training.denoiser import Denoised, Extra
from atelier.training.loop import Task
from atelier.training.order import Turn
from atelier.training.slices import drawn_window, in_slices

DENOISING, LATENT, PIXEL = "denoising", "latent", "pixel"  # names of terms in histories
EMPTY_PROMPTS = 0.1  # share of prompts left empty
REFERENCE_LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss, "hinge": hinge_loss}


# ------------------------------------------------------------------------------------------------ pixels


class Pixels(NamedTuple):
    """How errors of decoded pictures are computed. ``crop``: side of a random square of latents; 0: whole ones."""

    decode: Decode
    kind: str  # what the denoiser predicts
    form: Form
    crop: int
    slices: int
    seed: int
    names: Sequence[str]  # of samples

    def window(self, latents: Tensor, turn: Turn) -> Window | None:
        """One square for a whole batch, drawn for its first sample, so that slices do not change what is learnt."""
        if not self.crop:
            return None
        return drawn_window(latents.shape[-2:], self.crop, self.seed, self.names[turn.sample], turn.epoch)

    def errors(
        self, z0: Tensor, eps: Tensor, output: Tensor, alpha: Tensor, s: Tensor, window: Window | None
    ) -> Tensor:
        """Errors (n,) of a denoiser's output, with its graph."""
        return pixel_error(self.decode, self.kind, z0, eps, output, alpha, s, self.form, window)


def decoder(vae: AutoencoderKL) -> Decode:
    """Latents in the denoiser's units to pictures, in the autoencoder's type; its parameters are frozen."""
    vae.requires_grad_(False).eval()

    def decode(latents: Tensor) -> Tensor:
        made: Tensor = vae.decode(unscaled(vae, latents).to(vae.dtype)).sample
        return made

    return decode


def pixel_term(pixels: Pixels, weight: float = 1.0) -> Extra:
    """Eq. 2, or 8, times ``weight``: the mean over the batch, in slices."""

    def term(step: Denoised) -> dict[str, Tensor]:
        n, window = len(step.batch), pixels.window(step.z0, step.batch[0])

        def loss(rows: slice, part: Tensor) -> Tensor:
            z0, eps, alpha, s = (each[rows] for each in (step.z0, step.eps, step.alpha, step.s))
            return weight * pixels.errors(z0, eps, part, alpha, s, window).sum() / n

        return {PIXEL: in_slices(loss, step.output, pixels.slices)}

    return term


def alone(task: Task, name: str) -> Task:
    """A task of which one term alone teaches; the others are recorded."""

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        return {key: term if key == name else term.detach() for key, term in task.losses(batch).items()}

    return replace(task, losses=losses)


# ------------------------------------------------------------------------------------------------ preferences


class Drawn(NamedTuple):
    """Pairs at one timestep each, winner before loser: tensors (b, 2, ...) on the denoiser's device."""

    z0: Tensor
    eps: Tensor
    alpha: Tensor  # (b, 2, 1, 1, 1), as s
    s: Tensor
    time: Tensor  # (b, 2), the denoiser's timesteps
    words: Tensor
    batch: Sequence[Turn]

    def flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, noise and levels of both pictures in one row, (2 b, ...)."""
        z0, eps, alpha, s = flattened(self.z0, self.eps, self.alpha, self.s)
        return z0, eps, alpha, s


def flattened(*pairs: Tensor) -> Iterator[Tensor]:
    return (each.flatten(0, 1) for each in pairs)


class Preferences(NamedTuple):
    """A denoiser, pairs, and how they are noised; ``noise``: shared by winner and loser, or separate."""

    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    pairs: Pairs
    noise: str
    seed: int
    device: torch.device

    def drawn(self, batch: Sequence[Turn], times: Sequence[int] | None = None) -> Drawn:
        """Noise and timesteps are functions of (seed, pair, epoch); ``times``: other timesteps, one a pair."""
        alphas, sigmas, denoiser_times = denoiser.path(self.scheduler)
        names, shape = self.pairs.names, self.pairs.winner.shape[1:]
        draws = [self._draw(names[turn.sample], turn.epoch, shape, len(alphas)) for turn in batch]
        noise = torch.stack([one.eps for one in draws])
        if self.noise == "separate":
            others = [self._draw(f"{names[turn.sample]}/loser", turn.epoch, shape, len(alphas)) for turn in batch]
            eps = torch.stack([noise, torch.stack([one.eps for one in others])], 1)
        else:
            eps = torch.stack([noise, noise], 1)
        chosen = [turn.sample for turn in batch]
        z0 = torch.stack([self.pairs.winner[chosen], self.pairs.loser[chosen]], 1)
        t = torch.tensor([one.t for one in draws] if times is None else list(times))[:, None].expand(-1, 2)
        empty = torch.tensor([one.empty for one in draws])[:, None, None]
        words = torch.where(empty, self.pairs.empty, self.pairs.embeddings[chosen])[:, None].expand(-1, 2, -1, -1)
        alpha, s = (level[t][..., None, None, None] for level in (alphas, sigmas))
        z0, eps, alpha, s, time, words = (
            each.to(self.device) for each in (z0, eps, alpha, s, denoiser_times[t], words)
        )
        return Drawn(z0, eps, alpha, s, time, words, batch)

    def _draw(self, name: str, epoch: int, shape: torch.Size, steps: int) -> denoiser.Draw:
        return denoiser.draw(self.seed, name, epoch, shape, steps, 1, EMPTY_PROMPTS)

    def output(self, drawn: Drawn) -> Tensor:
        """What the denoiser says of both pictures, (b, 2, c, h, w)."""
        zt = noised(*drawn.flat())
        times, words = flattened(drawn.time, drawn.words)
        made: Tensor = self.unet(zt, times, words).sample
        return made.float().view_as(drawn.z0)

    def reference(self, drawn: Drawn) -> Tensor:
        """The same without the adapter, and without a graph."""
        with torch.no_grad(), without_adapter(self.unet):
            return self.output(drawn)

    def latent_errors(self, drawn: Drawn, output: Tensor) -> Tensor:
        """Squared errors (b, 2) in the denoiser's parameterisation, means over elements."""
        wanted = denoiser.target(self.scheduler.config.prediction_type, *drawn.flat())
        return (output - wanted.view_as(output)).square().mean((2, 3, 4))


@contextmanager
def without_adapter(unet: UNet2DConditionModel) -> Iterator[None]:
    """The denoiser as it was before its adapter was added."""
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()


class Preferred(NamedTuple):
    """A preference loss: its method, and its constants."""

    training: PostTraining
    beta: float
    simpo_beta: float
    margin: float

    def loss(self, errors: Tensor, reference: Tensor | None) -> Tensor:
        """Mean loss of pairs' errors (b, 2), winner before loser; ``reference``: errors without the adapter."""
        winner, loser = errors.unbind(1)
        if reference is None:
            return simpo_loss(winner, loser, self.simpo_beta, self.margin)
        winner_reference, loser_reference = reference.unbind(1)
        of_method = REFERENCE_LOSSES[self.training.method]
        return of_method(winner, loser, winner_reference, loser_reference, self.beta)

    def accuracy(self, errors: Tensor, reference: Tensor | None) -> Tensor:
        """Share of pairs that the denoiser puts in their order."""
        if reference is None:
            return implicit_accuracy(error_gap(*errors.unbind(1)))
        return implicit_accuracy(reference_gap(*errors.unbind(1), *reference.unbind(1)))


def preference_task(
    preferences: Preferences,
    trainable: dict[str, nn.Parameter],
    preferred: Preferred,
    pixels: Pixels,
    factor: float = 1.0,
    weight: float = 1.0,
) -> Task:
    """Eq. 4 to 7: a loss of latents, of pixels, or the first plus ``weight`` times the second.

    ``factor``: units of latent errors in a unit of pixel errors, so that one beta serves both.
    """
    training = preferred.training

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        drawn = preferences.drawn(batch)
        unchanged = preferences.reference(drawn) if training.refers else None
        output = preferences.output(drawn)
        errors = preferences.latent_errors(drawn, output)
        reference = None if unchanged is None else preferences.latent_errors(drawn, unchanged)
        terms = {LATENT: preferred.loss(errors, reference)} if training.terms != "pixel" else {}
        if training.terms != "latent":
            terms |= pixel_preferences(drawn, output, unchanged, preferred, pixels, factor, weight)
        seen = {"accuracy": preferred.accuracy(errors, reference), "winner": errors[:, 0].mean()}
        seen["loser"] = errors[:, 1].mean()
        if reference is not None:
            seen |= {"winner_reference": reference[:, 0].mean(), "loser_reference": reference[:, 1].mean()}
        return terms | {name: value.detach() for name, value in seen.items()}

    # a crop is drawn for a batch's first pair, which another share's is not
    means = training.terms == "latent" or not pixels.crop
    return Task(trainable=trainable, samples=preferences.pairs.names, losses=losses, means=means)


def pixel_preferences(
    drawn: Drawn,
    output: Tensor,
    unchanged: Tensor | None,
    preferred: Preferred,
    pixels: Pixels,
    factor: float,
    weight: float,
) -> dict[str, Tensor]:
    """The loss of errors in pixels, in slices of pairs, and how many pairs are in order by them."""
    n, each, seen = len(drawn.batch), max(1, pixels.slices // 2), []
    errors_of = pair_errors(drawn, pixels, factor)

    def loss(rows: slice, part: Tensor) -> Tensor:
        errors, reference = errors_of(rows, part), None
        if unchanged is not None:
            with torch.no_grad():
                reference = errors_of(rows, unchanged[rows])
        seen.append(preferred.accuracy(errors, reference) * len(part))
        return weight * preferred.loss(errors, reference) * (len(part) / n)

    value = in_slices(loss, output, each)
    return {PIXEL: value, "pixel_accuracy": torch.stack(seen).sum() / n}


def pair_errors(drawn: Drawn, pixels: Pixels, factor: float) -> Callable[[slice, Tensor], Tensor]:
    """Errors in pixels (k, 2), times ``factor``, of a slice of pairs and the denoiser's output for it."""
    window = pixels.window(drawn.z0, drawn.batch[0])

    def errors(rows: slice, output: Tensor) -> Tensor:
        z0, eps, made, alpha, s = flattened(drawn.z0[rows], drawn.eps[rows], output, drawn.alpha[rows], drawn.s[rows])
        return factor * pixels.errors(z0, eps, made, alpha, s, window).view(-1, 2)

    return errors
