"""Unusual inputs of every public function: each is either right or refused in one line that names the argument.

One table: a row for each argument of a function, a cell for each unusual input, in the order of ``ODD``, or of
``NUMBERS`` for an argument that is a number. A new public function needs a row, or a line in ``ELSEWHERE`` that says
why it has none.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from atelier import diffusion, evidence, methods, metrics
from atelier.data import images
from atelier.evaluation import field, intervals
from atelier.methods import focal_frequency as ffl
from atelier.methods import inverse_noise, partial, perceptual, preference, rejection
from atelier.methods import latent_perceptual as lp
from atelier.methods import pixel_space as px
from atelier.methods import policy_gradient as policy
from atelier.methods import signal_leak as sl
from atelier.metrics import (
    Moments,
    alignment,
    features,
    frechet,
    kernel,
    masked,
    neighbours,
    spectra,
    summary,
    wavelets,
)
from atelier.metrics import reconstruction as rec
from atelier.models import base, clip, evaluator, latents, schedulers, trunk, vision
from atelier.models import linear_start as start
from atelier.sampling import sampler

MODULES = [
    *(import_module(f"{package.__name__}.{each.name}") for package in (metrics, methods)
      for each in iter_modules(package.__path__)),
    diffusion, evidence, field, images, intervals, latents, start, sampler, schedulers, vision,
]  # fmt: skip

# ------------------------------------------------------------------------------------------------ unusual inputs

# Each is made of a plain input. What is one only of pictures and maps (n, c, h, w) is "-" for arguments of other axes.
ODD: dict[str, Callable[[Tensor], Any]] = {
    "uint8": lambda x: x.to(torch.uint8),
    "int64": lambda x: x.to(torch.int64),
    "float16": lambda x: x.to(torch.float16),
    "bfloat16": lambda x: x.to(torch.bfloat16),
    "float64": lambda x: x.to(torch.float64),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "channels last": lambda x: x.movedim(1, -1),
    "RGBA": lambda x: torch.cat([x, torch.ones_like(x[:, :1])], 1),
    "grey": lambda x: x[:, :1],
    "one sample": lambda x: x[:1],
    "empty batch": lambda x: x[:0],
    "empty spatial": lambda x: x[..., :0],
    "oblong": lambda x: x[..., : x.shape[-1] // 2],
    "non-contiguous": lambda x: torch.stack([x, x], -1)[..., 0],
    "NaN": lambda x: with_first(x, math.nan),
    "infinity": lambda x: with_first(x, math.inf),
    "0..255": lambda x: x * 255,
    "the other library": lambda x: x,
    "a list": lambda x: x.tolist(),
}
# Cells: S the plain input's value; W works, on other content; T works, and turning the pictures changes nothing;
# V works, and the value follows the numbers; N a value that is not finite; R refused.
CODES = "SWTVNR-"

NUMBERS: dict[str, object] = {
    "0": 0, "-1": -1, "0.5": 0.5, "NaN": math.nan, "infinity": math.inf, "text": "3", "None": None, "True": True,
}  # fmt: skip
NAMES: dict[str, object] = {"": "", "of no option": "predicte", "3": 3, "None": None, "a list": ["mean"]}
TEXTS: dict[str, object] = {"a text": "a boat", "none": [], "numbers": [3, 4], "None": None}
OBJECTS: dict[str, object] = {"None": None, "3": 3, "text": "x", "an array": np.ones((3, 3)), "a list": [1.0, 2.0]}


def with_first(x: Tensor, value: float) -> Tensor:
    """A copy with another first number."""
    flat = x.flatten().clone()
    flat[0] = value
    return flat.view(x.shape)


def odd_input(plain: Any, name: str) -> Any:
    """A plain array or tensor made unusual, in its library where that has the type."""
    tensor = plain if isinstance(plain, Tensor) else torch.from_numpy(plain)
    made = ODD[name](tensor)
    if not isinstance(made, Tensor) or (isinstance(plain, Tensor) != (name == "the other library")):
        return made
    if made.dtype == torch.bfloat16:  # numpy has none
        return made
    # backwards in memory, too, which only numpy has
    return made.numpy()[::-1].copy()[::-1] if name == "non-contiguous" else made.numpy()


# ------------------------------------------------------------------------------------------------ rows


class Row(NamedTuple):
    """One argument of a public function, or several that are made unusual alike."""

    function: str
    argument: str  # as a refusal names it: a pattern
    plain: Sequence[Callable[[], Any]]
    call: Callable[..., object]
    cells: str


Numbers = tuple[str, str, Mapping[str, object], Callable[[Any], object], str]  # function, argument, inputs, call, cells


def eighths(*shape: int, least: int = -16, most: int = 17, seed: int = 0) -> Tensor:
    """Numbers that every type of floats holds exactly."""
    drawn = torch.randint(least, most, shape, generator=torch.Generator().manual_seed(seed))
    return (drawn / 8).float()


def pictures(seed: int = 0, side: int = 32) -> Tensor:
    """Smooth pictures (4, 3, s, s) in [0, 1), multiples of 1/128."""
    drawn = torch.rand(4, 3, side + 2, side + 2, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.avg_pool2d(drawn, 3, 1) * 128).floor() / 128


def numbered(x: Tensor) -> Callable[[], np.ndarray]:
    return lambda: x.double().numpy()


P, Q = (lambda: pictures(0).double().numpy()), (lambda: pictures(1).double().numpy())  # pictures as arrays
TP, TQ = (lambda: pictures(0)), (lambda: pictures(1))  # and as tensors
F, G = numbered(eighths(12, 4, least=0, most=9) * 8), numbered(eighths(10, 4, least=0, most=9, seed=1) * 8)  # features
SQUARE = numbered(torch.eye(4) * 4 + torch.ones(4, 4))  # a covariance
SPECTRUM, SPECTRUM2 = (numbered(eighths(32, 32, least=1, most=30, seed=seed)) for seed in (2, 3))
FIELDS = numbered(eighths(3, 32, 32, seed=4))
MAPS, MAPS2 = (lambda: eighths(4, 5, 8, 8, seed=5)), (lambda: eighths(4, 5, 8, 8, seed=6))  # of one decoder's stage
Z, Z2 = (lambda: eighths(4, 4, 8, 8, seed=7)), (lambda: eighths(4, 4, 8, 8, seed=8))  # latents
ROW = numbered(torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0, 7.0]))
SHARES = numbered(torch.tensor([1.0, 0.0, 1.0, 1.0]))
LABELS = lambda: np.array([0, 1, 0, 1, 2, 2])  # noqa: E731
EIGHTHS = numbered(torch.tensor([0.125, 0.25, 0.5, 0.5, 0.75, 1.0]))  # values of a distribution function
BYTES = lambda: (pictures(0) * 255).to(torch.uint8)  # noqa: E731
LEVEL = torch.full((1, 1, 1, 1), 0.5)
FROM_LEVEL = (1.0, 0.75, 0.5, 0.625)  # an intermediate level and one above it, between which a = b = 0.5
FREQUENCIES = [(0, 0), (0, 1), (1, 0)]
LEAK = sl.FrequencyLeak.fit([Z(), Z2()], 3)
EVERY = torch.ones(4, 5, 8, 8, dtype=torch.bool)
EVERYWHERE = np.ones((4, 32, 32), dtype=bool)  # of pictures
ERRORS = [lambda seed=seed: eighths(6, least=0, seed=seed) for seed in range(4)]  # of pairs
W, L, W_REF, L_REF = ERRORS
TRUNK = perceptual.LPIPS(trunk.build(3), [torch.ones(c) for c in trunk.CHANNELS])
OPTIONS = lp.Options


@cache
def pipeline() -> StableDiffusionPipeline:
    made = base.build("tiny", 64, ["a boat at night"], seed=1)
    made.set_progress_bar_config(disable=True)
    return made


@cache
def judge() -> evaluator.Evaluator:
    classes = {name: ["one", "two"] for name in evaluator.ATTRIBUTES}
    return evaluator.build(classes, ["a boat at night", "two cats"], 1).eval()


@cache
def colours() -> field.Judge:
    """A judge with few features."""
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))

    class Colours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x.float() / 255)

    return field.Judge("colours", Colours())


@cache
def small_clip() -> clip.Clip:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = base.train_tokenizer(["a boat at night", "two cats"], 600)
    text = {**sizes, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    vision_part = {**sizes, "image_size": 32, "patch_size": 16}
    return clip.Clip(CLIPModel(CLIPConfig(text_config=text, vision_config=vision_part)), tokenizer).eval()


def gathered(rows: Any) -> np.ndarray:
    return field.Collected("colours").update(rows, 0).features


def saved(picture: Any) -> np.ndarray:
    with TemporaryDirectory() as folder:
        images.save_picture(picture, Path(folder) / "a.png")
        return np.array(Image.open(Path(folder) / "a.png"))


def linear(x: Tensor) -> Tensor:
    start.start_at_linear_code(pipeline().vae, x)
    return pipeline().vae.decoder.conv_out.weight.detach().clone()


def painted(x: Tensor) -> Tensor:
    chosen = {"guidance": 1.0, "steps": 1, "batch": 2}
    return torch.cat(list(sampler.last_latents(pipeline(), ["a boat"] * 4, x, **chosen)))


def all_latents(x: Tensor) -> Any:
    return sampler.sample(pipeline(), ["a boat"] * 4, x, guidance=1.0, steps=1, batch=2)


def shifted(z: Tensor) -> Tensor:
    """A decoder that is no linear one and keeps its latents' shape."""
    return (z + 1).square()


WORD = ["a boat"] * 4
# cells in groups: integers; other floats; bool, complex; channels last, RGBA, grey; one sample, two kinds of empty;
# oblong, non-contiguous; NaN, infinity, 0..255; the other library, a list
PICTURES = "RR SSS RR RRW WRR WS RRR SS"
PAIR_T, PAIR_2 = "RR SSS RR RRW WRR TS RRR SS", "RR SSS RR RRR RRR RS RRR SS"  # both sets; the second alone
RGB = "RR SSS RR RRR WRR WS RRR SS"
FEATURES, FEATURES_2 = "SS SSS RR --- RRR WS RRV SS", "SS SSS RR --- RRR RS RRV SS"
MATRIX = "SS SSS RR --- RRR RS RRV SS"
SPECTRAL = "RR SSS RR --- WRR TS RRV SS"
ANY_ROW = "SS SSS RR --- WRR WS RRV SS"  # numbers, one or more
SHARES_OF_ROW = "WW SSS RR --- RRR RS RRR SS"  # in [0, 1], one for each of others
TENSORS = "RR SSS RR WWW WRR WS NNV RR"  # latents and maps have any number of channels
FOUR_AXES, FOUR_AXES_2 = "RR SSS RR WWW WRR WS NNV RR", "RR SSS RR RRR RRR RS NNV RR"  # all of them; one alone
PAIRS, PAIRS_2 = "RR SSS RR --- WRR WS NNV RR", "RR SSS RR --- RRR RS NNV RR"
SEEN = "SR RRR RR RRR WRR WS --- RR"  # 8-bit pictures as tensors
SQUARE_MAPS = "RR SSS RR RWW WRR RS NNV RR"
VALUES, TWO_R = "SS SSS RR --- RRR WS RRV SS", "SS SSS RR --- RRR RS RRV SS"

ROWS = [
    # metrics
    Row("alignment.features", "pictures", [P], lambda x: alignment.features(judge(), x), RGB),
    Row("alignment.attributes", "pictures", [P], lambda x: alignment.attributes(judge(), x), RGB),
    Row("alignment.clip_scores", "pictures|prompts", [P],
        lambda x: alignment.clip_scores(judge(), x, WORD), "RR SSS RR RRR RRR WS RRR SS"),
    Row("alignment.look", "pictures", [P], lambda x: alignment.look(judge(), x), RGB),
    Row("alignment.features_of", "batches", [lambda: eighths(4, 48)],
        lambda x: alignment.features_of([x]), "RR SSS RR --- WRR WS NNV RR"),
    Row("alignment.attributes_of", "batches", [lambda: eighths(4, 48)],
        lambda x: alignment.attributes_of(judge(), [x]), "RR SSS RR --- WRR RS NNV RR"),
    Row("alignment.clip_scores_of", "batches|prompts", [lambda: eighths(4, 48)],
        lambda x: alignment.clip_scores_of(judge(), [x], WORD), "RR SSS RR --- RRR RS NNV RR"),
    Row("features.opponent_colours", "images", [P], features.opponent_colours, "RR SSS RR RRW WRR WS RRV SS"),
    Row("features.haar_step", "images", [P], features.haar_step, "RR SSS RR RWW WRR WS RRV SS"),
    Row("features.haar_inverse", "approximation|details", [numbered(eighths(4, 3, 8, 8))],
        lambda x: features.haar_inverse(x, numbered(eighths(4, 3, 3, 8, 8, seed=1))()), "RR SSS RR RRR RRR RS RRV SS"),
    Row("features.haar_inverse", "details", [numbered(eighths(4, 3, 3, 8, 8))],
        lambda x: features.haar_inverse(numbered(eighths(4, 3, 8, 8, seed=1))(), x), "RR SSS RR --- RRR RS RRV SS"),
    Row("features.haar_statistics", "images", [P], features.haar_statistics, PICTURES),
    Row("frechet.Moments.from_covariance", "covariance", [SQUARE],
        lambda x: Moments.from_covariance(9, np.zeros(4), x).factor, MATRIX),
    Row("frechet.Moments.from_covariance", "mean", [numbered(eighths(4) * 8 + 16)],
        lambda x: Moments.from_covariance(9, x, SQUARE()).mean, "SS SSS RR --- RRR RS RRV SS"),
    Row("frechet.Moments.update", "features", [F], lambda x: Moments().update(x).factor, "SS SSS RR --- WRR WS RRV SS"),
    Row("frechet.reduced", "factor", [F], frechet.reduced, "SS SSS RR --- WWR WS RRV SS"),
    Row("frechet.covariance_factor", "covariance", [SQUARE], frechet.covariance_factor, MATRIX),
    Row("frechet.covariance_root_trace", "root1|root2", [F],
        lambda x: frechet.covariance_root_trace(x, G()), "SS SSS RR --- WWR RS RRV SS"),
    Row("frechet.covariance_root_trace", "root2", [G],
        lambda x: frechet.covariance_root_trace(F(), x), "SS SSS RR --- WWR RS RRV SS"),
    Row("frechet.frechet_distance", "real", [F, G], frechet.frechet_distance, FEATURES),
    Row("frechet.frechet_distance", "generated", [G], lambda y: frechet.frechet_distance(F(), y), FEATURES_2),
    Row("kernel.polynomial_kernel", "x", [F, G], kernel.polynomial_kernel, "SS SSS RR --- WRR WS RRV SS"),
    Row("kernel.polynomial_kernel", "y", [G],
        lambda y: kernel.polynomial_kernel(F(), y), "SS SSS RR --- WRR RS RRV SS"),
    Row("kernel.kernel_distance", "real", [F, G], kernel.kernel_distance, FEATURES),
    Row("kernel.kernel_distance", "generated", [G], lambda y: kernel.kernel_distance(F(), y), FEATURES_2),
    Row("neighbours.neighbour_radius", "features|k", [F], lambda x: neighbours.neighbour_radius(x, 3), FEATURES),
    Row("neighbours.nearest", "samples", [F, G], neighbours.nearest, "SS SSS RR --- WRR WS RRV SS"),
    Row("neighbours.nearest", "known", [G], lambda y: neighbours.nearest(F(), y), "SS SSS RR --- WRR RS RRV SS"),
    Row("neighbours.precision_recall_density_coverage", "real", [F, G],
        lambda x, y: metrics.precision_recall_density_coverage(x, y, 3), FEATURES),
    Row("neighbours.precision_recall_density_coverage", "generated", [G],
        lambda y: metrics.precision_recall_density_coverage(F(), y, 3), FEATURES_2),
    Row("reconstruction.psnr", "real", [P, Q], rec.psnr, PAIR_T),
    Row("reconstruction.psnr", "reconstructed", [Q], lambda y: rec.psnr(P(), y), PAIR_2),
    Row("reconstruction.linear_patch_code", "train", [P, Q], lambda x, y: rec.linear_patch_code(x, y, 4), PICTURES),
    Row("reconstruction.linear_patch_code", "pictures", [Q],
        lambda y: rec.linear_patch_code(P(), y, 4), "RR SSS RR RRR WRR WS RRR SS"),
    Row("masked.high_passed", "fields", [FIELDS],
        lambda x: masked.high_passed(x, 0.25), "RR SSS RR --- WRR WS RRV SS"),
    Row("masked.high_power", "pictures|masks", [P],
        lambda x: masked.high_power(x, EVERYWHERE, 0.25), "RR SSS RR RRW RRR RS RRR SS"),
    Row("spectra.grey", "images", [P], spectra.grey, "RR SSS RR RRW WRR WS RRV SS"),
    Row("spectra.power_spectra", "fields", [FIELDS], spectra.power_spectra, "RR SSS RR --- WRR WS RRV SS"),
    Row("spectra.SpectrumMean.update", "images", [P],
        lambda x: spectra.power_spectrum_mean("hann").update(x).mean, PICTURES),
    Row("spectra.mean_power_spectrum", "images", [P], spectra.mean_power_spectrum, PICTURES),
    Row("spectra.radial_power", "spectrum", [SPECTRUM], spectra.radial_power, SPECTRAL),
    Row("spectra.spectrum_slope", "spectrum|low", [SPECTRUM],
        lambda x: spectra.spectrum_slope(x, 2), "RR SSS RR --- RRR TS RRV SS"),
    Row("spectra.log_power_error", "real", [SPECTRUM, SPECTRUM2],
        lambda x, y: spectra.log_power_error(x, y, 2.0), "RR SSS RR --- RRR TS RRV SS"),
    Row("spectra.log_power_error", "made", [SPECTRUM2],
        lambda y: spectra.log_power_error(SPECTRUM(), y, 2.0), "RR SSS RR --- RRR RS RRV SS"),
    Row("spectra.log_power_ratios", "real", [SPECTRUM, SPECTRUM2],
        lambda x, y: spectra.log_power_ratios(x, y, 2.0), "RR SSS RR --- RRR TS RRV SS"),
    Row("spectra.log_power_ratios", "made", [SPECTRUM2],
        lambda y: spectra.log_power_ratios(SPECTRUM(), y, 2.0), "RR SSS RR --- RRR RS RRV SS"),
    Row("spectra.log_log_slope", "x", [ROW],
        lambda x: spectra.log_log_slope(x, np.arange(1.0, 7.0)), "RR SSS RR --- RRR RS RRV SS"),
    Row("spectra.log_log_slope", "y", [ROW],
        lambda y: spectra.log_log_slope(np.arange(1.0, 7.0), y), "RR SSS RR --- RRR RS RRV SS"),
    Row("spectra.power_spectrum_slope", "images", [P], lambda x: spectra.power_spectrum_slope(x, 2), PAIR_T),
    Row("spectra.power_spectrum_slopes", "images", [P], lambda x: spectra.power_spectrum_slopes(x, 2), PAIR_T),
    Row("spectra.power_spectrum_slope_distance", "real", [P, Q],
        lambda x, y: spectra.power_spectrum_slope_distance(x, y, 2), PAIR_T),
    Row("spectra.power_spectrum_slope_distance", "generated", [Q],
        lambda y: spectra.power_spectrum_slope_distance(P(), y, 2), "RR SSS RR RRW WRR RS RRR SS"),
    Row("spectra.median_denoise", "fields", [FIELDS], spectra.median_denoise, "RR SSS RR --- WRR WS RRV SS"),
    Row("spectra.wavelet_denoise", "fields", [FIELDS], spectra.wavelet_denoise, "RR SSS RR --- WRR WS RRV SS"),
    Row("spectra.residuals", "images", [P], lambda x: spectra.residuals(x, spectra.median_denoise), PICTURES),
    Row("spectra.energy_normalised", "spectrum", [SPECTRUM], spectra.energy_normalised, "RR SSS RR --- WRR WS RRV SS"),
    Row("spectra.log_normalised", "spectrum", [SPECTRUM], spectra.log_normalised, "RR SSS RR --- WRR WS RRV SS"),
    Row("spectra.mean_residual_spectrum", "images", [P], spectra.mean_residual_spectrum, PICTURES),
    Row("spectra.residual_spectrum_distance", "real", [P, Q], spectra.residual_spectrum_distance, PAIR_T),
    Row("spectra.residual_spectrum_distance", "generated", [Q],
        lambda y: spectra.residual_spectrum_distance(P(), y), "RR SSS RR RRW WRR RS RRR SS"),
    Row("spectra.spectrum_distance", "spectrum1", [SPECTRUM, SPECTRUM2], spectra.spectrum_distance, SPECTRAL),
    Row("spectra.spectrum_distance", "spectrum2", [SPECTRUM2],
        lambda y: spectra.spectrum_distance(SPECTRUM(), y), "RR SSS RR --- RRR RS RRV SS"),
    Row("summary.measure", "images", [P], summary.measure, PICTURES),
    Row("summary.brightness_spread", "pictures", [P], summary.brightness_spread, "RR SSS RR RRW RRR TS RRR SS"),
    Row("wavelets.haar_packets", "images", [P], lambda x: wavelets.haar_packets(x, 2), PICTURES),
    Row("wavelets.bands_of", "images", [P], lambda x: wavelets.bands_of(x, 2).mean, PICTURES),
    Row("wavelets.bands", "packets", [FIELDS], wavelets.bands, "RR SSS RR --- WRR WS RRV SS"),
    Row("wavelets.frechet_wavelet_distance", "real", [P, Q],
        lambda x, y: wavelets.frechet_wavelet_distance(x, y, 2), "RR SSS RR RRW RRR TS RRR SS"),
    Row("wavelets.frechet_wavelet_distance", "generated", [Q],
        lambda y: wavelets.frechet_wavelet_distance(P(), y, 2), PAIR_2),
    Row("kernel.subset_kernel_distance", "real", [F, G],
        lambda x, y: kernel.subset_kernel_distance(x, y, 3, 8), FEATURES),
    Row("kernel.subset_kernel_distance", "generated", [G],
        lambda y: kernel.subset_kernel_distance(F(), y, 3, 8), FEATURES_2),
    # judges of the field
    Row("vision.resized", "pictures", [BYTES], lambda x: vision.resized(x, 16, 24), SEEN),
    Row("vision.cropped", "pictures", [BYTES], lambda x: vision.cropped(x, 16), SEEN),
    Row("vision.normalised", "x", [TP], lambda x: vision.normalised(x, (0.5,) * 3, (0.5,) * 3),
        "RR SSS RR RRR WRR WS NNV RR"),
    Row("field.features", "pictures", [BYTES], lambda x: field.features(colours(), x), SEEN),
    Row("field.clip_scores", "pictures|prompts", [BYTES],
        lambda x: field.clip_scores(small_clip(), x, WORD, "clipscore"), "SR RRR RR RRR RRR WS --- RR"),
    Row("field.collect", "pictures", [BYTES], lambda x: field.collect(colours(), [x]).features, SEEN),
    Row("field.Collected.update", "features", [F], gathered, "SS SSS RR --- WRR WS RRV SS"),
    # losses: no value is read, so that nothing waits for a device
    Row("focal_frequency.focal_frequency_loss", "pred", [TP, TQ], ffl.focal_frequency_loss,
        "RR SSS RR RRW WRR TS NNV RR"),
    Row("focal_frequency.focal_frequency_loss", "target", [TQ],
        lambda y: ffl.focal_frequency_loss(TP(), y), "RR SSS RR RRR RRR RS NNV RR"),
    Row("latent_perceptual.outlier_mask", "features", [MAPS], lp.outlier_mask, "RR SSS RR WWW WRR WS WWV RR"),
    Row("latent_perceptual.statistics", "features|valid", [MAPS],
        lambda x: lp.statistics(x, EVERY), "RR SSS RR RRR RRR RS NNV RR"),
    Row("latent_perceptual.vector_length", "features|valid", [MAPS],
        lambda x: lp.vector_length(x, EVERY), "RR SSS RR RRR RRR RS NNV RR"),
    Row("latent_perceptual.standardised", "target", [MAPS],
        lambda x: lp.standardised(x, MAPS2(), EVERY, "target"), "RR SSS RR RRR RRR RS NNV RR"),
    Row("latent_perceptual.standardised", "predicted", [MAPS],
        lambda x: lp.standardised(MAPS2(), x, EVERY, "unit"), "RR SSS RR RRR RRR RS NNV RR"),
    Row("latent_perceptual.stage_distance", "target", [MAPS, MAPS2],
        lambda x, y: lp.stage_distance(x, y, every(x)), "RR SSS RR WWW WRR TS NNV RR"),
    Row("latent_perceptual.valid_positions", "target|predicted", [MAPS, MAPS2],
        lambda x, y: lp.valid_positions(x, y, 16), "RR SSS RR RWW WRR RS WWV RR"),
    Row("latent_perceptual.stage_losses", r"targets\[0\]|predicted", [MAPS, MAPS2],
        lambda x, y: lp.stage_losses([x], [y], 16), SQUARE_MAPS),
    Row("latent_perceptual.stage_losses", "predictions", [MAPS2],
        lambda y: lp.stage_losses([MAPS()], [y], 16), "RR SSS RR RRR RRR RS NNV RR"),
    Row("latent_perceptual.latent_perceptual_loss", r"targets\[0\]|predicted", [MAPS, MAPS2],
        lambda x, y: lp.latent_perceptual_loss([x], [y], 16), SQUARE_MAPS),
    Row("latent_perceptual.latent_perceptual_loss", "predictions", [MAPS2],
        lambda y: lp.latent_perceptual_loss([MAPS()], [y], 16), "RR SSS RR RRR RRR RS NNV RR"),
    Row("perceptual.directions", "features", [MAPS], perceptual.directions, TENSORS),
    Row("perceptual.perceptual_distance", r"features\[0\]|stage 0", [MAPS, MAPS2],
        lambda x, y: perceptual.perceptual_distance([x], [y], [torch.ones(5)]), "RR SSS RR RRR WRR TS NNV RR"),
    Row("perceptual.perceptual_distance", r"weights\[0\]|stage 0", [lambda: eighths(5)],
        lambda w: perceptual.perceptual_distance([MAPS()], [MAPS2()], [w]), "RR SSS RR --- RRR RS NNV RR"),
    Row("perceptual.LPIPS.forward", "pictures", [TP, TQ], TRUNK.forward, "RR SSS RR RRR WRR WS NNV RR"),
    Row("perceptual.LPIPS.forward", "others", [TQ], lambda y: TRUNK(TP(), y), "RR SSS RR RRR RRR RS NNV RR"),
    Row("pixel_space.pixel_loss", "z0|what decode returns", [Z, Z2],
        lambda x, y: px.pixel_loss(shifted, x, y, x, LEVEL, LEVEL), FOUR_AXES),
    Row("pixel_space.pixel_loss", "eps", [Z2],
        lambda y: px.pixel_loss(shifted, Z(), y, Z(), LEVEL, LEVEL), FOUR_AXES_2),
    Row("pixel_space.pixel_loss", "eps_hat", [Z2],
        lambda y: px.pixel_loss(shifted, Z(), Z(), y, LEVEL, LEVEL), FOUR_AXES_2),
    Row("pixel_space.pixel_loss", "alpha", [lambda: eighths(4, 1, 1, 1)],
        lambda a: px.pixel_loss(shifted, Z(), Z2(), Z(), a, LEVEL), "RR SSS RR WR- WRR RS NNV RR"),
    Row("pixel_space.pixel_loss", "s", [lambda: eighths(4, 1, 1, 1)],
        lambda s: px.pixel_loss(shifted, Z(), Z2(), Z(), LEVEL, s), "RR SSS RR WR- WRR RS NNV RR"),
    Row("pixel_space.clean_pixel_loss", "z0", [Z, Z2], lambda x, y: px.clean_pixel_loss(shifted, x, y), FOUR_AXES),
    Row("pixel_space.clean_pixel_loss", "z0_hat", [Z2],
        lambda y: px.clean_pixel_loss(shifted, Z(), y), FOUR_AXES_2),
    Row("pixel_space.clean_pixel_loss", "x", [Z2],
        lambda x: px.clean_pixel_loss(shifted, Z(), Z2(), x), FOUR_AXES_2),
    Row("pixel_space.pixel_error", "z0", [Z, Z2],
        lambda x, y: px.pixel_error(shifted, "epsilon", x, y, x, LEVEL, LEVEL), FOUR_AXES),
    Row("pixel_space.pixel_error", "eps", [Z2],
        lambda y: px.pixel_error(shifted, "epsilon", Z(), y, Z(), LEVEL, LEVEL), FOUR_AXES_2),
    Row("pixel_space.pixel_error", "output", [Z2],
        lambda y: px.pixel_error(shifted, "epsilon", Z(), Z(), y, LEVEL, LEVEL), FOUR_AXES_2),
    Row("pixel_space.cropped", "x|window.side", [Z],
        lambda x: px.cropped(x, px.Window(0, 0, 4)), "RR SSS RR WWW WRR SS NNV RR"),
    Row("preference.error_gap", "winner", [W, L], preference.error_gap, PAIRS),
    Row("preference.error_gap", "loser", [L], lambda y: preference.error_gap(W(), y), PAIRS_2),
    Row("preference.reference_gap", "winner", ERRORS, preference.reference_gap, PAIRS),
    Row("preference.reference_gap", "winner_reference", [W_REF],
        lambda y: preference.reference_gap(W(), L(), y, L_REF()), PAIRS_2),
    Row("preference.reference_gap", "loser_reference", [L_REF],
        lambda y: preference.reference_gap(W(), L(), W_REF(), y), PAIRS_2),
    Row("preference.dpo_loss", "winner", ERRORS, lambda *each: preference.dpo_loss(*each, 2.0), PAIRS),
    Row("preference.simpo_loss", "winner", [W, L], lambda *each: preference.simpo_loss(*each, 2.0), PAIRS),
    Row("preference.hinge_loss", "winner", ERRORS, lambda *each: preference.hinge_loss(*each, 2.0), PAIRS),
    Row("preference.ipo_loss", "winner", ERRORS, lambda *each: preference.ipo_loss(*each, 2.0), PAIRS),
    Row("preference.implicit_accuracy", "gap", [lambda: eighths(6)], preference.implicit_accuracy,
        "RR SSS RR --- WRR WS NWW RR"),
    # acceptance, intermediate levels, inversion
    Row("rejection.threshold", "rewards", [ROW], lambda x: rejection.threshold(x, 2.5), ANY_ROW),
    Row("rejection.threshold", "keys", [LABELS],
        lambda x: rejection.threshold(ROW(), 2.5, keys=x), "SS RRR RR --- RRR RS --W SS"),
    Row("rejection.top_k", "rewards|sets", [ROW], lambda x: rejection.top_k(x, 2, 3), VALUES),
    Row("rejection.top_k", "sets", [LABELS],
        lambda x: rejection.top_k(ROW(), 1, 2, sets=x), "SS RRR RR --- RRR RS --W SS"),
    Row("rejection.best_of_n", "rewards|sets", [ROW], lambda x: rejection.best_of_n(x, 3), VALUES),
    Row("rejection.labels_of", "values", [LABELS],
        lambda x: rejection.labels_of(x, "values", 6), "SS RRR RR --- RRR RS --W SS"),
    Row("rejection.Kept.updated", "rewards", [ROW],
        lambda x: rejection.Kept.threshold(2.5).updated(x).accepted(), "SS SSS RR --- WWW WS RRV SS"),
    Row("rejection.threshold_probability", "rewards", [ROW],
        lambda x: rejection.threshold_probability(x, 2.5), ANY_ROW),
    Row("rejection.top_k_probability", "rewards", [ROW],
        lambda x: rejection.top_k_probability(x, lambda r: r / (1 + r), 2, 3), ANY_ROW),
    Row("rejection.top_k_probability", "cdf", [EIGHTHS],
        lambda x: rejection.top_k_probability(ROW(), x, 2, 3), SHARES_OF_ROW),
    Row("rejection.top_k_probability", "below", [EIGHTHS],
        lambda x: rejection.top_k_probability(ROW(), np.ones(6), 2, 3, x), SHARES_OF_ROW),
    Row("rejection.best_of_n_probability", "cdf", [EIGHTHS],
        lambda x: rejection.best_of_n_probability(ROW(), x, 3), SHARES_OF_ROW),
    Row("rejection.distinct_probability", "mass", [EIGHTHS],
        lambda x: rejection.distinct_probability(x, 3), "WW SSS RR --- WRR WS RRR SS"),
    Row("rejection.reshaped_reward", "probability", [EIGHTHS],
        rejection.reshaped_reward, "NN SSS RR --- WRR WS RRR SS"),
    Row("rejection.reshaped_reward", "copies", [ROW], lambda x: rejection.reshaped_reward(EIGHTHS(), x), TWO_R),
    Row("partial.renoised", "x_I", [Z, Z2], lambda x, y: partial.renoised(x, y, *FROM_LEVEL), TENSORS),
    Row("partial.renoised", "eps", [Z2],
        lambda y: partial.renoised(Z(), y, *FROM_LEVEL), "RR SSS RR RRR RRR RS NNV RR"),
    Row("partial.renoised", "alpha_t", [lambda: eighths(4, 1, 1, 1, least=1, most=9)],
        lambda a: partial.renoised(Z(), Z2(), 1.0, 0.0, a, 0.5), "RR SSS RR WR- WRR RS RRV RR"),
    Row("partial.partial_target", "eps", [Z], lambda x: partial.partial_target(x, *FROM_LEVEL), TENSORS),
    Row("partial.partial_loss", "predicted", [Z, Z2], lambda x, y: partial.partial_loss(x, y, *FROM_LEVEL), TENSORS),
    Row("partial.partial_loss", "eps", [Z2],
        lambda y: partial.partial_loss(Z(), y, *FROM_LEVEL), "RR SSS RR RRR RRR RS NNV RR"),
    Row("partial.partial_flow_loss", "output", [Z, Z2],
        lambda x, y: partial.partial_flow_loss(x, y, y, *FROM_LEVEL), TENSORS),
    Row("partial.partial_flow_loss", "x_I", [Z2],
        lambda y: partial.partial_flow_loss(Z(), y, Z(), *FROM_LEVEL), "RR SSS RR RRR RRR RS NNV RR"),
    Row("partial.partial_flow_loss", "eps", [Z2],
        lambda y: partial.partial_flow_loss(Z(), Z(), y, *FROM_LEVEL), "RR SSS RR RRR RRR RS NNV RR"),
    Row("policy_gradient.step_moments", "z0", [Z, Z2],
        lambda x, y: policy.step_moments(x, y, LEVEL, LEVEL, LEVEL, LEVEL)[0], TENSORS),
    Row("policy_gradient.step_moments", "eps", [Z2],
        lambda y: policy.step_moments(Z(), y, LEVEL, LEVEL, LEVEL, LEVEL)[0], "RR SSS RR RRR RRR RS NNV RR"),
    Row("policy_gradient.log_probability", "state", [Z, Z2],
        lambda x, y: policy.log_probability(x, y, LEVEL), TENSORS),
    Row("policy_gradient.log_probability", "mean", [Z2],
        lambda y: policy.log_probability(Z(), y, LEVEL), "RR SSS RR RRR RRR RS NNV RR"),
    Row("policy_gradient.advantages", "rewards|sets", [ROW], lambda x: policy.advantages(x, LABELS(), 5.0),
        "SS SSS RR --- RRR RS RRV SS"),
    Row("policy_gradient.advantages", "sets", [LABELS],
        lambda x: policy.advantages(ROW(), x, 5.0), "SS RRR RR --- RRR RS --W SS"),
    Row("policy_gradient.clipped_loss", "log_new", [lambda: eighths(6)],
        lambda x: policy.clipped_loss(x, x, eighths(6), 0.1), "RR SSS RR --- RRR RS NNV RR"),
    Row("partial.two_part_schedule", "timesteps|t_I", [numbered(torch.tensor([7.0, 5.0, 4.0, 3.0, 2.0, 1.0]))],
        lambda x: partial.two_part_schedule(x, 4), "SS SSS RR --- RRR WS RRR SS"),
    Row("partial.trained_timesteps", "timesteps", [ROW], lambda x: partial.trained_timesteps(x, 1), ANY_ROW),
    Row("inverse_noise.sampled", "z", [Z], lambda z: inverse_noise.sampled(halved, z, [0, 0.5]), TENSORS),
    Row("inverse_noise.sampled", "times", [numbered(torch.tensor([0.0, 1.0, 3.0, 4.0, 6.0, 7.0]))],
        lambda t: inverse_noise.sampled(halved, Z(), t), VALUES),
    Row("inverse_noise.inverted", "x", [Z],
        lambda x: inverse_noise.inverted(halved, x, [0, 0.5]).z, "RR RRS RR WWW WRR WS RRV RR"),
    Row("inverse_noise.error_bound", "residual", [lambda: eighths(6, least=1)],
        lambda r: inverse_noise.error_bound(r, 0.5, 1.0), "RR SSS RR --- WRR WS NNV RR"),
    Row("inverse_noise.error_bound", "lipschitz", [lambda: eighths(6, least=0, most=8)],
        lambda l: inverse_noise.error_bound(eighths(6, least=1), 0.5, l), "RR SSS RR --- RRR RS NNN RR"),
    Row("inverse_noise.noise_path", "z", [Z, Z2], lambda z, e: inverse_noise.noise_path(z, e, 0.0), TENSORS),
    Row("inverse_noise.noise_path", "eps", [Z2],
        lambda e: inverse_noise.noise_path(Z(), e, 0.0), "RR SSS RR RRR RRR RS NNV RR"),
    Row("inverse_noise.noise_path", "theta", [lambda: eighths(4, 1, 1, 1)],
        lambda t: inverse_noise.noise_path(Z(), Z2(), t), "RR SSS RR WR- WRR RS NNV RR"),
    Row("inverse_noise.corrected", "eps", [Z], lambda e: inverse_noise.corrected(still, e, 2), TENSORS),
    # leaks
    Row("signal_leak.Moments.updated", "x", [F],
        lambda x: sl.Moments.empty(4, True).updated(x), "SS SSS RR --- WRR RS RRV SS"),
    Row("signal_leak.low_components", "z", [numbered(Z())],
        lambda z: sl.low_components(z, FREQUENCIES), "RR SSS RR WWW WRR WS RRV SS"),
    Row("signal_leak.from_low_components", "low", [numbered(eighths(2, 3, 4))],
        lambda low: sl.from_low_components(low, FREQUENCIES, (8, 6)), "RR SSS RR --- WWW WS RRV SS"),
    Row("signal_leak.PixelLeak.fit", "batches", [Z], lambda z: sl.PixelLeak.fit([z]), "RR SSS RR WWW RRR WS RRV SS"),
    Row("signal_leak.FrequencyLeak.fit", "batches", [Z],
        lambda z: sl.FrequencyLeak.fit([z], 1)[1:], "RR SSS RR WWW RRR WS RRV SS"),
    Row("signal_leak.FrequencyLeak.fit_several", "batches", [Z],
        lambda z: sl.FrequencyLeak.fit_several([z], [1])[0][1:], "RR SSS RR WWW RRR WS RRV SS"),
    Row("signal_leak.FrequencyLeak.sample", "low", [lambda: eighths(2, 3, 4)],
        lambda low: LEAK.sample(2, seeded(), low), "RR SSS RR --- RRR RS RRV SS"),
    Row("signal_leak.frequency_snr", "mean_square", [numbered(eighths(5, 4, least=1))],
        lambda x: sl.frequency_snr(x, 0.5, 0.5), "RR SSS RR --- WRR WS RRV SS"),
    Row("signal_leak.mean_of_posterior", "covariance", [SQUARE], lambda x: sl.mean_of_posterior(x, 0.5, 0.5), MATRIX),
    Row("signal_leak.covariance_from_white_noise", "covariance", [SQUARE],
        lambda x: sl.covariance_from_white_noise(x, 0.5, 0.5), MATRIX),
    Row("signal_leak.add_leak", "leak|noise", [Z],
        lambda x: sl.add_leak(x, Z2(), DDIMScheduler(), 5), "RR SSS RR RRW WRR RS RRV RR"),
    Row("signal_leak.add_leak", "noise|leak", [Z],
        lambda x: sl.add_leak(LEVEL, x, DDIMScheduler(), 5), "RR WWS RR WWW WRR WS RRV RR"),
    # schedules
    Row("diffusion.noised", "z0", [Z, Z2], lambda x, y: diffusion.noised(x, y, LEVEL, LEVEL), TENSORS),
    Row("diffusion.noised", "alpha", [lambda: eighths(4, 1, 1, 1)],
        lambda a: diffusion.noised(Z(), Z2(), a, LEVEL), "RR SSS RR WR- WRR RS NNV RR"),
    Row("diffusion.v_target", "z0", [Z, Z2], lambda x, y: diffusion.v_target(x, y, LEVEL, LEVEL), TENSORS),
    Row("diffusion.z0_from_eps", "zt", [Z, Z2], lambda x, y: diffusion.z0_from_eps(x, y, LEVEL, LEVEL), TENSORS),
    Row("diffusion.z0_from_v", "zt", [Z, Z2], lambda x, y: diffusion.z0_from_v(x, y, LEVEL, LEVEL), TENSORS),
    Row("diffusion.eps_from_v", "zt", [Z, Z2], lambda x, y: diffusion.eps_from_v(x, y, LEVEL, LEVEL), TENSORS),
    Row("diffusion.flow_target", "z0", [Z, Z2], diffusion.flow_target, TENSORS),
    Row("diffusion.flow_target", "eps", [Z2], lambda y: diffusion.flow_target(Z(), y), "RR SSS RR RRR RRR RS NNV RR"),
    Row("diffusion.z0_from_flow", "zt", [Z, Z2], lambda x, y: diffusion.z0_from_flow(x, y, LEVEL), TENSORS),
    Row("diffusion.eps_from_flow", "zt", [Z, Z2], lambda x, y: diffusion.eps_from_flow(x, y, LEVEL), TENSORS),
    Row("diffusion.clean_estimate", "zt", [Z, Z2],
        lambda x, y: diffusion.clean_estimate("epsilon", x, y, LEVEL, LEVEL), TENSORS),
    Row("diffusion.signal_and_noise", "betas", [lambda: torch.tensor([0.125, 0.25, 0.5])], diffusion.signal_and_noise,
        "RR SSS RR --- WRR WS RRR RR"),
    Row("diffusion.noise_estimate", "zt", [Z, Z2],
        lambda x, y: diffusion.noise_estimate("v_prediction", x, y, LEVEL, LEVEL), FOUR_AXES),
    Row("diffusion.noise_estimate", "output", [Z2],
        lambda y: diffusion.noise_estimate("flow_prediction", Z(), y, LEVEL, LEVEL), FOUR_AXES_2),
    Row("diffusion.noise_estimate", "alpha", [lambda: eighths(4, 1, 1, 1)],
        lambda a: diffusion.noise_estimate("v_prediction", Z(), Z2(), a, LEVEL), "RR SSS RR WR- WRR RS NNV RR"),
    Row("diffusion.min_snr_weight", "snr", [lambda: eighths(6, least=1)],
        lambda x: diffusion.min_snr_weight("epsilon", x, 1.0), "RR WWS RR --- WRR WS NVV RR"),
    # sampling, files, autoencoders
    Row("sampler.sample", "latents", [Z], all_latents, "RR SSS RR RRR RRR WS RRV RR"),
    Row("sampler.last_latents", "latents", [Z], painted, "RR SSS RR RRR RRR WS RRV RR"),
    Row("sampler.decoded", "latents", [Z],
        lambda z: sampler.decoded(pipeline().vae, z, 2), "RR SSS RR RRR WRR WS NNV RR"),
    Row("images.to_model_range", "pictures", [BYTES], images.to_model_range, "SR RRR RR RRR WRR WS --- RR"),
    Row("images.to_pixels", "output", [TP], images.to_pixels, "RR SSS RR RRR WRR WS RRV RR"),
    Row("images.save_picture", "picture", [lambda: BYTES()[0]], saved, "SR RRR RR --- RRR WS --- RR"),
    Row("latents.encode_pictures", "pictures", [BYTES],
        lambda x: latents.encode_pictures(pipeline().vae, x), "SR RRR RR RRR WRR WS --- RR"),
    Row("latents.decode", "latents", [Z], lambda z: latents.decode(pipeline().vae, z), "RR SSS RR RRR WRR WS NNV RR"),
    Row("latents.unscaled", "latents", [Z], lambda z: latents.unscaled(pipeline().vae, z), TENSORS),
    Row("linear_start.blocks", "x", [TP], start.blocks, "RR SSS RR RWW WRR WS NNV RR"),
    Row("linear_start.principal_components", "x|keep", [TP],
        lambda x: start.principal_components(x, 2), "RR SSS RR WWR WRR WS RRV RR"),
    Row("linear_start.start_at_linear_code", "pictures", [TP], linear, "RR SSS RR RRR WRR WS RRR RR"),
    # intervals and tests of differences
    Row("intervals.t_interval", "values", [ROW], intervals.t_interval, VALUES),
    Row("evidence.compare", "differences", [ROW], lambda x: evidence.compare(x, "above"), VALUES),
    Row("evidence.compare", "margin", [ROW], lambda x: evidence.compare(ROW(), "same", x), TWO_R),
    Row("evidence.scatter", "values", [ROW], lambda x: evidence.scatter(x, 0.1), VALUES),
    Row("evidence.p_below", "values", [ROW], lambda x: evidence.p_below(x, 0.1), "SS SSS RR --- RRR WS RRW SS"),
    Row("evidence.detectable_difference", "differences", [ROW],
        lambda x: evidence.detectable_difference(x, 0.05), VALUES),
    Row("evidence.groups_needed", "differences", [ROW],
        lambda x: evidence.groups_needed(x, 0.05), "SS SSS RR --- RRR WS RRW SS"),
    Row("evidence.some_hold", "p_values|enough", [SHARES],
        lambda x: evidence.some_hold(x, 2), "SS SSS RR --- RRR WS RRR SS"),
    Row("evidence.holm", "p_values", [SHARES], evidence.holm, "SS SSS RR --- WWW WS RRR SS"),
    Row("evidence.benjamini_hochberg", "p_values", [SHARES], evidence.benjamini_hochberg,
        "SS SSS RR --- WWW WS RRR SS"),
]  # fmt: skip


def every(x: Any) -> Tensor:
    """A mask of the shape of maps that masks nothing."""
    return torch.ones(tuple(getattr(x, "shape", (4, 5, 8, 8))), dtype=torch.bool)


def still(x: Tensor, t: float) -> Tensor:
    return 0 * x


def halved(x: Tensor, t: float) -> Tensor:
    """The velocity of a linear flow."""
    return x / 2


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def first_latents(n: object, steps: object) -> Tensor:
    leak = sl.PixelLeak.fit([Z()])
    return sl.initial_latents(leak, DDIMScheduler(), n, seeded(), steps)  # type: ignore[arg-type]


#                     0 -1 0.5 NaN inf text None True
COUNT, FROM_0 = "RRRRRRRR", "WRRRRRRR"
R = "R" * 8
SCALARS: list[Numbers] = [
    ("features.haar_levels", "height", NUMBERS, lambda v: features.haar_levels(v, 8), COUNT),
    ("frechet.Moments.from_covariance", "count", NUMBERS,
        lambda v: Moments.from_covariance(v, np.zeros(4), SQUARE()), COUNT),
    ("frechet.Moments.merge", "added", OBJECTS, lambda v: Moments().update(F()).merge(v), R),
    ("frechet.frechet_distance_from_moments", "real", OBJECTS,
        lambda v: metrics.frechet_distance_from_moments(v, Moments().update(F())), R),
    ("neighbours.neighbour_radius", "k", NUMBERS, lambda v: neighbours.neighbour_radius(F(), v), COUNT),
    ("neighbours.precision_recall_density_coverage", "k", NUMBERS,
        lambda v: metrics.precision_recall_density_coverage(F(), G(), v), COUNT),
    ("reconstruction.linear_patch_code", "coefficients", NUMBERS, lambda v: rec.linear_patch_code(P(), P(), v), COUNT),
    ("masked.gain", "above", NUMBERS, lambda v: masked.gain(8, 8, v), "RRRRRRRR"),
    ("masked.high_passed", "above", NUMBERS, lambda v: masked.high_passed(FIELDS(), v), "RRRRRRRR"),
    ("masked.high_power", "masks", OBJECTS, lambda v: masked.high_power(P(), v, 0.25), R),
    ("masked.apart", "masks", OBJECTS, lambda v: masked.apart(v, 1), R),
    ("masked.apart", "margin", NUMBERS, lambda v: masked.apart(EVERYWHERE, v), "WRWRRRRR"),
    ("spectra.hann_window", "width", NUMBERS, lambda v: spectra.hann_window(8, v), COUNT),
    ("spectra.spectrum_slope", "low", NUMBERS, lambda v: spectra.spectrum_slope(SPECTRUM(), v), COUNT),
    ("spectra.log_power_error", "above", NUMBERS,
        lambda v: spectra.log_power_error(SPECTRUM(), SPECTRUM(), v), "WWWRRRRR"),
    ("spectra.power_spectrum_mean", "window", NAMES, spectra.power_spectrum_mean, R),
    ("spectra.residual_spectrum_mean", "denoiser", NAMES, spectra.residual_spectrum_mean, R),
    ("spectra.mean_residual_spectrum", "normalisation", NAMES,
        lambda v: spectra.mean_residual_spectrum(P(), normalisation=v), R),
    ("spectra.residual_spectrum_label", "denoiser", NAMES, lambda v: spectra.residual_spectrum_label(8, 8, v), R),
    ("spectra.residual_spectrum_label", "height", NUMBERS, lambda v: spectra.residual_spectrum_label(v, 8), COUNT),
    ("summary.distances", "real", OBJECTS, lambda v: summary.distances(v, summary.measure(P())), R),
    ("wavelets.haar_packets", "level", NUMBERS, lambda v: wavelets.haar_packets(P(), v), COUNT),
    ("wavelets.bands_of", "level", NUMBERS, lambda v: wavelets.bands_of(P(), v).mean, COUNT),
    ("wavelets.joined", "fits", OBJECTS, lambda v: wavelets.joined([v, wavelets.bands(FIELDS())]), R),
    ("wavelets.distance_from_bands", "real", OBJECTS,
        lambda v: wavelets.distance_from_bands(v, wavelets.bands(FIELDS())), R),
    ("alignment.clip_scores", "prompts", TEXTS, lambda v: alignment.clip_scores(judge(), P(), v), R),
    ("alignment.clip_scores_of", "prompts", TEXTS, lambda v: alignment.clip_scores_of(judge(), [eighths(4, 48)], v), R),
    ("alignment.features_of", "batches", OBJECTS, alignment.features_of, R),
    ("focal_frequency.focal_frequency_loss", "alpha", NUMBERS,
        lambda v: ffl.focal_frequency_loss(TP(), TQ(), v), "WRWRRRRW"),
    ("focal_frequency.focal_frequency_loss", "patch_factor", NUMBERS,
        lambda v: ffl.focal_frequency_loss(TP(), TQ(), patch_factor=v), COUNT),
    ("latent_perceptual.threshold", "tau", NUMBERS, lambda v: lp.threshold(v, 8), "WRWRRRRR"),
    ("latent_perceptual.threshold", "latent_side", NUMBERS, lambda v: lp.threshold(3.0, v), COUNT),
    ("latent_perceptual.depth_weights", "sides", NUMBERS, lambda v: lp.depth_weights([8, v]), COUNT),
    ("latent_perceptual.depth_weights", "kind", NAMES, lambda v: lp.depth_weights([8], v), R),
    ("latent_perceptual.outlier_mask", "down", NUMBERS, lambda v: lp.outlier_mask(MAPS(), v), "RRWRRRRR"),
    ("latent_perceptual.stage_distance", "norm", NAMES, lambda v: lp.stage_distance(MAPS(), MAPS2(), EVERY, v), R),
    ("latent_perceptual.stage_distance", "places", NAMES,
        lambda v: lp.stage_distance(MAPS(), MAPS2(), EVERY, places=v), R),
    ("latent_perceptual.valid_positions", "mask", NAMES, lambda v: lp.valid_positions(MAPS(), MAPS2(), 16, v), R),
    ("latent_perceptual.valid_positions", "picture_side", NUMBERS,
        lambda v: lp.valid_positions(MAPS(), MAPS2(), v), COUNT),
    ("latent_perceptual.latent_perceptual_loss", "stages", NAMES,
        lambda v: lp.latent_perceptual_loss([MAPS()], [MAPS2()], 16, OPTIONS(stages=v)), R),
    ("pixel_space.pixel_loss", "decode", OBJECTS, lambda v: px.pixel_loss(v, Z(), Z2(), Z(), LEVEL, LEVEL), R),
    ("pixel_space.pixel_loss", "s", NUMBERS, lambda v: px.pixel_loss(shifted, Z(), Z2(), Z(), LEVEL, v), "WWWRRRRR"),
    ("pixel_space.clean_pixel_loss", "decode", OBJECTS, lambda v: px.clean_pixel_loss(v, Z(), Z2()), R),
    ("pixel_space.pixel_error", "form", NAMES,
        lambda v: px.pixel_error(shifted, "epsilon", Z(), Z2(), Z(), LEVEL, LEVEL, v), R),
    ("pixel_space.pixel_error", "kind", NAMES,
        lambda v: px.pixel_error(shifted, v, Z(), Z2(), Z(), LEVEL, LEVEL), R),
    ("pixel_space.cropped", "window", OBJECTS, lambda v: px.cropped(Z(), v), R),
    ("pixel_space.cropped", "window.side", NUMBERS, lambda v: px.cropped(Z(), px.Window(0, 0, v)), COUNT),
    ("pixel_space.cropped", "window.top", NUMBERS, lambda v: px.cropped(Z(), px.Window(v, 0, 4)), FROM_0),
    ("pixel_space.cropped", "window.left", NUMBERS, lambda v: px.cropped(Z(), px.Window(0, v, 4)), FROM_0),
    ("preference.dpo_loss", "beta", NUMBERS,
        lambda v: preference.dpo_loss(W(), L(), W_REF(), L_REF(), v), "RRWRRRRR"),
    ("preference.hinge_loss", "beta", NUMBERS,
        lambda v: preference.hinge_loss(W(), L(), W_REF(), L_REF(), v), "RRWRRRRR"),
    ("preference.ipo_loss", "beta", NUMBERS,
        lambda v: preference.ipo_loss(W(), L(), W_REF(), L_REF(), v), "RRWRRRRR"),
    ("preference.simpo_loss", "beta", NUMBERS, lambda v: preference.simpo_loss(W(), L(), v), "RRWRRRRR"),
    ("preference.simpo_loss", "margin", NUMBERS, lambda v: preference.simpo_loss(W(), L(), 1.0, v), "WRWRRRRR"),
    ("rejection.threshold", "least", NUMBERS, lambda v: rejection.threshold(ROW(), v), "WWWRRRRR"),
    ("rejection.top_k", "k", NUMBERS, lambda v: rejection.top_k(ROW(), v, 3), COUNT),
    ("rejection.top_k", "m", NUMBERS, lambda v: rejection.top_k(ROW(), 1, v), COUNT),
    ("rejection.best_of_n", "n", NUMBERS, lambda v: rejection.best_of_n(ROW(), v), COUNT),
    ("rejection.Kept.threshold", "least", NUMBERS, rejection.Kept.threshold, "WWWRRRRR"),
    ("rejection.Kept.top_k", "k", NUMBERS, lambda v: rejection.Kept.top_k(v, 3), COUNT),
    ("rejection.Kept.best_of_n", "n", NUMBERS, rejection.Kept.best_of_n, COUNT),
    ("rejection.Kept.updated", "rewards", OBJECTS, lambda v: rejection.Kept.threshold(0).updated(v), "RRRRW"),
    ("rejection.threshold_probability", "least", NUMBERS,
        lambda v: rejection.threshold_probability(ROW(), v), "WWWRRRRR"),
    ("rejection.top_k_probability", "k", NUMBERS,
        lambda v: rejection.top_k_probability(ROW(), EIGHTHS(), v, 3), COUNT),
    ("rejection.top_k_probability", "m", NUMBERS,
        lambda v: rejection.top_k_probability(ROW(), EIGHTHS(), 1, v), COUNT),
    ("rejection.best_of_n_probability", "n", NUMBERS,
        lambda v: rejection.best_of_n_probability(ROW(), EIGHTHS(), v), COUNT),
    ("rejection.distinct_probability", "m", NUMBERS, lambda v: rejection.distinct_probability(EIGHTHS(), v), COUNT),
    ("partial.renoised", "alpha_I", NUMBERS, lambda v: partial.renoised(Z(), Z2(), v, 0, 0.5, 0.5), "RRWRRRRR"),
    ("partial.partial_target", "s_t", NUMBERS, lambda v: partial.partial_target(Z(), 1, 0.5, 0.5, v), "RRWRRRRR"),
    ("partial.partial_loss", "s_t", NUMBERS, lambda v: partial.partial_loss(Z(), Z2(), 1, 0.5, 0.5, v), "RRWRRRRR"),
    ("partial.partial_flow_loss", "s_t", NUMBERS,
        lambda v: partial.partial_flow_loss(Z(), Z2(), Z(), 1, 0.5, 0.5, v), "RRWRRRRR"),
    ("policy_gradient.step_moments", "eta", NUMBERS,
        lambda v: policy.step_moments(Z(), Z2(), LEVEL, LEVEL, LEVEL, LEVEL, v), "WRWRRRRR"),
    ("policy_gradient.advantages", "most", NUMBERS, lambda v: policy.advantages(ROW(), LABELS(), v), "WRWRRRRR"),
    ("policy_gradient.clipped_loss", "clip", NUMBERS,
        lambda v: policy.clipped_loss(eighths(6), eighths(6), eighths(6), v), "WRWRRRRR"),
    ("partial.signal_and_noise_from", "s_t", NUMBERS,
        lambda v: partial.signal_and_noise_from(1, 0.5, 0.5, v), "RRWRRRRR"),
    ("partial.signal_and_noise_from", "s_I", OBJECTS, lambda v: partial.signal_and_noise_from(1, v, 0.5, 0.5), R),
    ("partial.two_part_schedule", "t_I", NUMBERS, lambda v: partial.two_part_schedule([3, 0.5, 0], v), "WRWRRRRR"),
    ("partial.trained_timesteps", "t_I", NUMBERS, lambda v: partial.trained_timesteps([0, 1, 2], v), "WWWRRRRR"),
    ("inverse_noise.sampled", "velocity", OBJECTS, lambda v: inverse_noise.sampled(v, Z(), [0, 1]), R),
    ("inverse_noise.inverted", "velocity", OBJECTS, lambda v: inverse_noise.inverted(v, Z(), [0, 1]), R),
    ("inverse_noise.inverted", "times", OBJECTS, lambda v: inverse_noise.inverted(halved, Z(), v), "RRRRW"),
    ("inverse_noise.inverted", "iterations", NUMBERS,
        lambda v: inverse_noise.inverted(halved, Z(), [0, 1], v), COUNT),
    ("inverse_noise.inverted", "tolerance", NUMBERS,
        lambda v: inverse_noise.inverted(halved, Z(), [0, 1], 5, v), "WRWRRRRR"),
    ("inverse_noise.inverted", "relaxation", NUMBERS,
        lambda v: inverse_noise.inverted(halved, Z(), [0, 1], 5, 0, v), "RRWRRRRR"),
    ("inverse_noise.noise_path", "theta", NUMBERS, lambda v: inverse_noise.noise_path(Z(), Z2(), v), "WWWRRRRR"),
    ("inverse_noise.corrected", "velocity", OBJECTS, lambda v: inverse_noise.corrected(v, Z(), 2), R),
    ("inverse_noise.corrected", "steps", NUMBERS, lambda v: inverse_noise.corrected(still, Z(), v), COUNT),
    ("inverse_noise.error_bound", "eta", NUMBERS,
        lambda v: inverse_noise.error_bound(eighths(6, least=1), v, 0.5), "WWWRRRRR"),
    ("inverse_noise.error_bound", "lipschitz", NUMBERS,
        lambda v: inverse_noise.error_bound(eighths(6, least=1), 0.5, v), "WRWRRRRR"),
    ("signal_leak.lowest_frequencies", "count", NUMBERS, lambda v: sl.lowest_frequencies(8, 8, v), FROM_0),
    ("signal_leak.lowest_frequencies", "width", NUMBERS, lambda v: sl.lowest_frequencies(8, v, 1), COUNT),
    ("signal_leak.low_components", "frequencies", NUMBERS,
        lambda v: sl.low_components(numbered(Z())(), [(0, v)]), FROM_0),
    ("signal_leak.from_low_components", r"shape\[1\]", NUMBERS,
        lambda v: sl.from_low_components(np.ones((2, 1, 4)), [(0, 0)], (8, v)), COUNT),
    ("signal_leak.Moments.empty", "width", NUMBERS, lambda v: sl.Moments.empty(v, False), FROM_0),
    ("signal_leak.PixelLeak.sample", "n", NUMBERS, lambda v: LEAK.rest.sample(v, seeded()), COUNT),
    ("signal_leak.PixelLeak.sample", "generator", OBJECTS, lambda v: LEAK.rest.sample(2, v), R),
    ("signal_leak.FrequencyLeak.sample", "n", NUMBERS, lambda v: LEAK.sample(v, seeded()), COUNT),
    ("signal_leak.FrequencyLeak.fit", "frequencies", NUMBERS, lambda v: sl.FrequencyLeak.fit([Z()], v), FROM_0),
    ("diffusion.min_snr_weight", "gamma", NUMBERS,
        lambda v: diffusion.min_snr_weight("epsilon", eighths(6, least=1), v), "WRWRRRRR"),
    ("diffusion.min_snr_weight", "kind", NAMES,
        lambda v: diffusion.min_snr_weight(v, eighths(6, least=1), 1.0), "RRRRR"),
    ("signal_leak.frequency_snr", "s", NUMBERS, lambda v: sl.frequency_snr(SPECTRUM(), 0.5, v), "RRWRRRRR"),
    ("signal_leak.mean_of_posterior", "alpha", NUMBERS, lambda v: sl.mean_of_posterior(SQUARE(), v, 0.5), "WRWRRRRR"),
    ("signal_leak.covariance_from_white_noise", "covariance|s", NUMBERS,
        lambda v: sl.covariance_from_white_noise(np.zeros((3, 3)), 0.5, v), "RRWRRRRR"),
    ("signal_leak.initial_latents", "n", NUMBERS, lambda v: first_latents(v, 5), COUNT),
    ("signal_leak.initial_latents", "steps", NUMBERS, lambda v: first_latents(2, v), COUNT),
    ("signal_leak.initial_latents", "leak", OBJECTS,
        lambda v: sl.initial_latents(v, DDIMScheduler(), 2, seeded(), 5), R),
    ("signal_leak.add_leak", "steps", NUMBERS, lambda v: sl.add_leak(Z(), Z(), DDIMScheduler(), v), COUNT),
    ("signal_leak.save", "leak", OBJECTS, lambda v: sl.save(v, Path("never"), {}), R),
    ("schedulers.first_step", "steps", NUMBERS, lambda v: schedulers.first_step(DDIMScheduler(), v), COUNT),
    ("schedulers.started", "first step", OBJECTS, lambda v: schedulers.started(v, 5), R),
    ("diffusion.scaled_linear_betas", "start", NUMBERS, lambda v: diffusion.scaled_linear_betas(v, 0.6), "RRWRRRRR"),
    ("diffusion.scaled_linear_betas", "steps", NUMBERS, lambda v: diffusion.scaled_linear_betas(0.1, 0.2, v), COUNT),
    ("diffusion.flow_path", "steps", NUMBERS, diffusion.flow_path, COUNT),
    ("diffusion.noise_estimate", "kind", NAMES, lambda v: diffusion.noise_estimate(v, Z(), Z2(), LEVEL, LEVEL), R),
    ("diffusion.clean_estimate", "kind", NAMES, lambda v: diffusion.clean_estimate(v, Z(), Z2(), LEVEL, LEVEL), R),
    ("diffusion.noised", "alpha", NUMBERS, lambda v: diffusion.noised(Z(), Z2(), v, 0.5), "WWWRRRRR"),
    ("diffusion.resolution_matched_betas", "side", NUMBERS, diffusion.resolution_matched_betas, COUNT),
    ("sampler.first_latents", "size", NUMBERS, lambda v: sampler.first_latents(pipeline(), [(1, "a")], v), COUNT),
    ("sampler.last_latents", "prompts", TEXTS,
        lambda v: sampler.last_latents(pipeline(), v, Z(), guidance=1.0, steps=1, batch=2), R),
    ("sampler.last_latents", "steps", NUMBERS,
        lambda v: sampler.last_latents(pipeline(), WORD, Z(), guidance=1.0, steps=v, batch=2), COUNT),
    ("sampler.decoded", "batch", NUMBERS, lambda v: sampler.decoded(pipeline().vae, Z(), v), COUNT),
    ("latents.decode", "batch", NUMBERS, lambda v: latents.decode(pipeline().vae, Z(), v), COUNT),
    ("latents.encode_prompts", "prompts", TEXTS, lambda v: latents.encode_prompts(pipeline(), v), R),
    ("kernel.subset_kernel_distance", "subsets", NUMBERS,
        lambda v: kernel.subset_kernel_distance(F(), G(), v, 5), COUNT),
    ("kernel.subset_kernel_distance", "size", NUMBERS, lambda v: kernel.subset_kernel_distance(F(), G(), 3, v), COUNT),
    ("kernel.subset_kernel_distance", "seed", NUMBERS,
        lambda v: kernel.subset_kernel_distance(F(), G(), 3, 5, v), FROM_0),
    ("vision.resized", "height", NUMBERS, lambda v: vision.resized(BYTES(), v, 16), COUNT),
    ("vision.resized", "width", NUMBERS, lambda v: vision.resized(BYTES(), 16, v), COUNT),
    ("vision.cropped", "side", NUMBERS, lambda v: vision.cropped(BYTES(), v), COUNT),
    ("field.clip_scores", "prompts", TEXTS, lambda v: field.clip_scores(small_clip(), BYTES(), v, "clipscore"), R),
    ("field.clip_scores", "convention", NAMES, lambda v: field.clip_scores(small_clip(), BYTES(), WORD, v), "RRRRR"),
    ("field.collect", "first", NUMBERS, lambda v: field.collect(colours(), [BYTES()], v), FROM_0),
    ("field.Collected.update", "first", NUMBERS, lambda v: field.Collected("colours").update(F(), v), FROM_0),
    ("field.Collected.merge", "added", OBJECTS, lambda v: field.Collected("colours").merge(v), R),
    ("field.distances", "real", OBJECTS, lambda v: field.distances(v, field.Collected("colours")), R),
    ("field.distances", "generated", OBJECTS, lambda v: field.distances(field.Collected("colours"), v), R),
    ("images.square", "size", NUMBERS, lambda v: images.square(Image.new("RGB", (8, 6)), v), COUNT),
    ("images.read_picture", "size", NUMBERS, lambda v: images.read_picture(Path("none.png"), v), COUNT),
    ("images.load_pictures", "size", NUMBERS, lambda v: images.load_pictures([Path("none.png")], v), COUNT),
    ("linear_start.principal_components", "keep", NUMBERS, lambda v: start.principal_components(TP(), v), COUNT),
    ("intervals.t_interval", "level", NUMBERS, lambda v: intervals.t_interval(ROW(), v), "RRWRRRRR"),
    ("intervals.wilson_interval", "n", NUMBERS, lambda v: intervals.wilson_interval(1, v), COUNT),
    ("intervals.wilson_interval", "successes", NUMBERS, lambda v: intervals.wilson_interval(v, 3), FROM_0),
    ("intervals.pseudo_values", "groups", NUMBERS, lambda v: intervals.pseudo_values(len, v), COUNT),
    ("evidence.compare", "rule", NAMES, lambda v: evidence.compare(ROW(), v), R),
    ("evidence.compare", "resolution", NUMBERS, lambda v: evidence.compare(ROW(), "below", resolution=v), "WRWRRRRR"),
    ("evidence.detectable_difference", "level", NUMBERS, lambda v: evidence.detectable_difference(ROW(), v), R),
    ("evidence.groups_needed", "power", NUMBERS, lambda v: evidence.groups_needed(ROW(), 0.05, v), "RRWRRRRR"),
    ("evidence.some_hold", "enough", NUMBERS, lambda v: evidence.some_hold([0.1, 0.2], v), COUNT),
]  # fmt: skip

ELSEWHERE = {
    "field.judges": "takes parameters; tests/test_field.py",
    "field.load": "takes files; tests/test_field.py",
    "frechet.Moments.covariance_root": "takes nothing; tests/test_metrics_frechet.py",
    "images.inspect_picture": "takes a file; tests/test_images.py",
    "images.read_rgb": "takes a file; tests/test_images.py",
    "latents.Latents.drawn": "of what a cache holds; tests/test_cache.py",
    "perceptual.LPIPS.from_files": "takes files; tests/test_perceptual.py",
    "perceptual.LPIPS.from_folder": "takes files; tests/test_perceptual.py",
    "perceptual.LPIPS.from_packages": "takes the name of a network; tests/test_perceptual.py",
    "perceptual.LPIPS.from_params": "takes parameters; tests/test_perceptual.py",
    "pixel_space.pixel_errors": "takes a pipeline; tests/test_pixel_space.py",
    "rejection.Kept.accepted": "takes nothing; tests/test_rejection.py",
    "sampler.settled": "takes a pipeline",
    "sampler.with_ddim": "takes a pipeline",
    "schedulers.first_step_of": "of what `started` returned; tests/test_schedulers.py",
    "schedulers.mixed": "of what `started` returned; tests/test_schedulers.py",
    "signal_leak.load": "takes a file; tests/test_signal_leak.py",
    "vision.load": "takes files; tests/test_field.py",
}

# ------------------------------------------------------------------------------------------------ the table


def public_functions() -> Iterator[str]:
    """``module.function`` and ``module.Class.method`` of what the modules define."""
    for module in MODULES:
        short = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(value):
                yield f"{short}.{name}"
            elif inspect.isclass(value):
                methods_of = (key for key, each in vars(value).items() if key[0] != "_" and is_method(each))
                yield from (f"{short}.{name}.{key}" for key in methods_of)


def is_method(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)


def test_the_table_has_every_public_function_and_no_other() -> None:
    functions = set(public_functions())
    known = {row.function for row in ROWS} | {row[0] for row in SCALARS}
    assert len(functions) > 100
    assert functions - known - set(ELSEWHERE) == set(), "new functions: add rows for their arguments"
    assert (known | set(ELSEWHERE)) - functions == set(), "no such functions"
    assert known & set(ELSEWHERE) == set()
    exported = {f"{getattr(metrics, name).__module__.rpartition('.')[2]}.{name}" for name in metrics.__all__}
    assert {name for name in exported if name.rpartition(".")[2].islower()} <= functions


def test_losses_read_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device ``meta`` there are none: what reads one, and would wait for a GPU, fails there."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know that device
    maps, pictures_there = torch.empty(4, 5, 8, 8, device="meta"), torch.empty(4, 3, 8, 8, device="meta")
    level, row = torch.empty(4, 1, 1, 1, device="meta"), torch.empty(4, device="meta")
    losses = [
        ffl.focal_frequency_loss(pictures_there, pictures_there),
        lp.latent_perceptual_loss([maps], [maps], 16),
        perceptual.perceptual_distance([maps], [maps], [maps[0, :, 0, 0]]),
        diffusion.clean_estimate("epsilon", maps, maps, level, level),
        diffusion.v_target(maps, maps, level, level),
        px.pixel_loss(shifted, maps, maps, maps, level, level, px.Window(1, 2, 3)),
        px.clean_pixel_loss(shifted, maps, diffusion.noise_estimate("v_prediction", maps, maps, level, level)),
        *(loss(*[row] * 4, 2.0) for loss in (preference.dpo_loss, preference.hinge_loss, preference.ipo_loss)),
        preference.simpo_loss(row, row, 2.0, 1.0),
        preference.implicit_accuracy(row),
    ]
    assert all(loss.device.type == "meta" for loss in losses)


def values_of(result: Any) -> np.ndarray:
    """All numbers of a result in one row."""
    if isinstance(result, pd.DataFrame):
        return result.to_numpy(np.float64).ravel()
    if isinstance(result, Mapping):
        return np.concatenate([values_of(part) for part in result.values()])
    if isinstance(result, list | tuple):
        return np.concatenate([values_of(part) for part in result]) if result else np.zeros(0)
    tensor = torch.as_tensor(result if result is not None else [])
    return tensor.detach().double().flatten().numpy()


def outcome(call: Callable[[], object], argument: str) -> np.ndarray | str:
    """A call's numbers, or "R" where it is refused as it should be; any other failure is described."""
    try:
        return values_of(call())
    except (ValueError, TypeError) as error:
        line = str(error)
        if "\n" in line or not re.search(rf"(?<!\w)(?:{argument})(?!\w)", line) or len(line) > 320:
            return f"refused, but not in one line that names {argument}: {line[:200]!r}"
        return "R"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"


def turned(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def fault(row: Row, name: str, code: str, plain: np.ndarray) -> str | None:
    """What is wrong with one cell."""
    inputs = [odd_input(make(), name) for make in row.plain]
    result = outcome(lambda: row.call(*inputs), row.argument)
    if isinstance(result, str):
        return None if result == code == "R" else f"{name}: expected {code}, {result}"
    finite, same = (
        bool(np.isfinite(result).all()),
        result.shape == plain.shape and np.allclose(result, plain, 1e-4, 1e-5),
    )
    right = {"S": same, "W": finite, "V": finite, "N": not finite, "T": finite, "R": False}[code]
    if code == "T" and right:
        other = outcome(lambda: row.call(*map(turned, inputs)), row.argument)
        right = not isinstance(other, str) and bool(np.allclose(other, result, 1e-4, 1e-6))
    return None if right else f"{name}: expected {code}, got {result[:4]}, plain {plain[:4]}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.function}-{row.argument}")
def test_arrays_and_tensors(row: Row, one_thread: None) -> None:
    codes = row.cells.replace(" ", "")
    assert len(codes) == len(ODD)
    assert set(codes) <= set(CODES)
    plain = values_of(row.call(*(make() for make in row.plain)))
    assert np.isfinite(plain).all()
    cells = zip(ODD, codes, strict=True)
    assert [wrong for name, code in cells if code != "-" and (wrong := fault(row, name, code, plain))] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", SCALARS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_numbers_names_and_objects(row: Numbers) -> None:
    _, argument, odd, call, cells = row
    faults = []
    for (name, value), code in zip(odd.items(), cells, strict=False):
        result = outcome(lambda v=value: [call(v), None][1], argument)  # type: ignore[misc]
        if (result if isinstance(result, str) else "W") != code:
            faults.append(f"{name}: expected {code}, got {result}")
    assert faults == []
