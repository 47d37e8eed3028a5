"""The panel of ``notebooks/explore_decoder_features.ipynb``: sliders for what the latent perceptual loss compares."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import ipywidgets as widgets
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.prompts import prompt
from atelier.diffusion import clean_estimate, noised
from atelier.files import check_seal
from atelier.methods.latent_perceptual import (
    Options,
    depth_weights,
    stage_losses,
    standardised,
    threshold,
    valid_positions,
)
from atelier.models import base
from atelier.models.autoencoders import decoder_stages
from atelier.models.latents import decode, encode_pictures, encode_prompts, unscaled
from atelier.params import Mask, Norm, Params
from atelier.report import figures, panel
from atelier.seeds import torch_generator
from atelier.studies.latent_perceptual.params import PostTraining
from atelier.training import denoiser
from atelier.workspace import Workspace

PAPER = PostTraining(loss="perceptual")
PLANTED = 30  # height of planted outliers, in standard deviations of a map


class Choice(NamedTuple):
    """What is compared, and how."""

    stage: int  # index of a decoder stage
    channel: int = 0
    planted: int = 0  # side of a square of outliers in the estimate's map
    norm: Norm = PAPER.norm
    mask: Mask = PAPER.mask


class Decoded(NamedTuple):
    """A work beside its latent and its one-step estimate, decoded, and the decoder's features of both by stage."""

    pictures: Tensor  # (3, 3, h, w) uint8
    targets: Sequence[Tensor]
    predictions: Sequence[Tensor]


class Comparison(NamedTuple):
    """One channel of one stage as the loss compares it, and the weighted loss of every stage."""

    maps: tuple[Tensor, Tensor]  # of the latent and of its estimate, (h, w)
    valid: Tensor  # where the mask lets them count
    squared: Tensor  # the standardised difference; NaN where masked
    weighted: list[float]
    sides: list[int]


@dataclass(frozen=True, eq=False)
class Explorer:
    """The base, the held-out works, and what has been decoded so far."""

    params: Params
    workspace: Workspace
    pipeline: StableDiffusionPipeline
    works: pd.DataFrame
    noise: Tensor  # over signal, by training step
    decoded: dict[tuple[int, int], Decoded] = field(default_factory=dict)
    sheets: dict[tuple[int, int, Choice], bytes] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Stages of the decoder."""
        return 1 + len(self.pipeline.vae.decoder.up_blocks)

    @property
    def limit(self) -> float:
        """Noise over signal up to which the loss counts."""
        return threshold(PAPER.tau, self.params.data.size // self.pipeline.vae_scale_factor)

    def step_of(self, noise: float) -> int:
        """The training step whose noise over signal is nearest, by ratio."""
        return int((self.noise.log() - torch.tensor(noise).log()).abs().argmin())

    def channels(self, stage: int) -> int:
        """Feature maps of a stage."""
        return self.decode(0, 0).targets[stage].shape[1]

    @torch.no_grad()
    def decode(self, work: int, step: int) -> Decoded:
        """A work and its estimate from a noised latent; the same noise for every step. Each is computed once."""
        if (work, step) not in self.decoded:
            pipeline, row = self.pipeline, self.works.iloc[work]
            picture = prepare.pictures(self.works.iloc[[work]], self.params.data, self.workspace).load()
            z0 = encode_pictures(pipeline.vae, picture).mean
            text = encode_prompts(pipeline, [prompt(row, self.params.protocol.prompts.level, 0)])
            both = torch.cat([z0, self._estimate(z0, text, work, step)])
            stages = decoder_stages(pipeline.vae, unscaled(pipeline.vae, both), self.depth)
            pictures = torch.cat([picture, to_pixels(decode(pipeline.vae, both))])
            self.decoded[work, step] = Decoded(pictures, [x[:1] for x in stages], [x[1:] for x in stages])
        return self.decoded[work, step]

    def _estimate(self, z0: Tensor, text: Tensor, work: int, step: int) -> Tensor:
        """The base's one-step estimate of a latent (1, c, h, w) that was noised."""
        scheduler = self.pipeline.scheduler
        alphas, sigmas, times = denoiser.path(scheduler)
        eps = torch.randn(z0.shape, generator=torch_generator(self.params.seed, "explore", work))
        zt = noised(z0, eps, alphas[step], sigmas[step])
        output = self.pipeline.unet(zt, times[step][None], text).sample
        return clean_estimate(scheduler.config.prediction_type, zt, output, alphas[step], sigmas[step])

    def compare(self, work: int, step: int, choice: Choice) -> Comparison:
        """A stage's maps with planted outliers as the loss sees them."""
        pictures, targets, predictions = self.decode(work, step)
        size, stage, channel = pictures.shape[-1], choice.stage, choice.channel
        predictions = list(predictions)
        predictions[stage] = with_outliers(predictions[stage], channel, choice.planted)
        target, predicted = targets[stage], predictions[stage]
        valid = valid_positions(target, predicted, size, choice.mask)
        one, two = standardised(target, predicted, valid, choice.norm)
        losses = stage_losses(targets, predictions, size, Options(norm=choice.norm, mask=choice.mask))
        sides = [features.shape[-1] for features in predictions]
        return Comparison(
            maps=(target[0, channel], predicted[0, channel]),
            valid=valid[0, channel],
            squared=torch.where(valid, (one - two).square(), torch.nan)[0, channel],
            weighted=[weight * float(loss) for weight, loss in zip(depth_weights(sides), losses, strict=True)],
            sides=sides,
        )

    def sheet(self, work: int, step: int, choice: Choice) -> bytes:
        """A PNG: pictures and losses by stage; below, one channel's maps, mask and squared difference."""
        key = (work, step, choice)
        if key not in self.sheets:
            figure = drawn(self.decode(work, step).pictures, self.compare(work, step, choice), choice)
            file = io.BytesIO()
            figure.savefig(file, format="png")
            plt.close(figure)
            self.sheets[key] = file.getvalue()
        return self.sheets[key]


def load(params: Params, workspace: Workspace) -> Explorer:
    """The base on the CPU and the held-out works; ValueError where the pipeline has left neither."""
    if not (workspace.base.is_dir() and workspace.manifests.is_dir()):
        raise ValueError("nothing to explore yet: run make repro, or dvc repro base prepare")
    pipeline = base.load(check_seal(workspace.base))
    alphas, sigmas, _ = denoiser.path(pipeline.scheduler)
    works = prepare.works(workspace.manifests).table.query("split == 'test'").reset_index(drop=True)
    return Explorer(params, workspace, pipeline, works, sigmas / alphas)


def with_outliers(features: Tensor, channel: int, side: int) -> Tensor:
    """Features (n, c, h, w) with a square in the middle of one map that is far outside its values."""
    height, width = features.shape[-2:]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    changed = features.clone()
    changed[:, channel, top : top + side, left : left + side] += PLANTED * features[:, channel].std()
    return changed


# ------------------------------------------------------------------------------------------------ the figure


def drawn(pictures: Tensor, comparison: Comparison, choice: Choice) -> Figure:
    """Two rows: three pictures and the loss by stage; two maps, the mask and the squared difference."""
    # margins by hand: a layout engine takes as long as drawing
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="none")
    figure.subplots_adjust(left=0.04, right=0.97, bottom=0.08, top=0.95, wspace=0.3, hspace=0.35)
    titles = ("work", "its latent decoded", "its estimate decoded")
    for axis, picture, title in zip(axes[0], pictures, titles, strict=False):
        axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        axis.grid(False)
        axis.set(title=title, xlabel="px", ylabel="px")
    _draw_losses(axes[0, 3], comparison, choice.stage)
    _draw_maps(axes[1], comparison, choice.channel)
    return figure


def _draw_losses(axis: Axes, comparison: Comparison, stage: int) -> None:
    """One bar per stage, the chosen one in a different colour."""
    weighted, total = comparison.weighted, sum(comparison.weighted)
    numbers = range(1, len(weighted) + 1)
    colours = [figures.PALETTE[1 if number == stage + 1 else 2] for number in numbers]
    bars = axis.bar(numbers, weighted, color=colours)
    axis.bar_label(bars, [f"{value:.2g}\n{value / total:.0%}" for value in weighted], fontsize=7)
    axis.margins(y=0.25)
    axis.set_xticks(numbers, [f"{number}\n{side}" for number, side in zip(numbers, comparison.sides, strict=True)])
    axis.set(title=f"loss of {total:.3g}, by stage", xlabel="stage and its side", ylabel="weight x distance")


def _draw_maps(axes: Sequence[Axes], comparison: Comparison, channel: int) -> None:
    """One channel's maps in colours that end with the values that count, its mask, its squared difference."""
    maps, valid = comparison.maps, comparison.valid
    counted = torch.cat([values[valid] for values in maps])
    limits = {"vmin": float(counted.min()), "vmax": float(counted.max()), "cmap": "cividis"}
    _draw_map(axes[0], maps[0], f"map {channel} of the latent", **limits)
    _draw_map(axes[1], maps[1], f"map {channel} of the estimate", **limits)
    colours = ListedColormap([figures.PALETTE[4], figures.PALETTE[2]])
    masked = f"{int((~valid).sum())} of {valid.numel()} masked"
    bar = _draw_map(axes[2], valid, masked, vmin=0, vmax=1, cmap=colours)
    bar.set_ticks([0.25, 0.75], labels=["masked", "counts"])
    _draw_map(axes[3], comparison.squared, "standardised difference, squared", vmin=0, cmap="cividis")


def _draw_map(axis: Axes, values: Tensor, title: str, **colours: Any) -> Any:
    """A map and its colour bar, which is returned."""
    image = axis.imshow(values.numpy(), interpolation="nearest", **colours)
    axis.grid(False)
    axis.set(title=title, xlabel="column", ylabel="row")
    return axis.get_figure().colorbar(image, ax=axis, shrink=0.8)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------ the panel


class Panel(panel.Panel):
    """Controls on the left, the sheet on the right; a change of any control draws it anew."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        layout = widgets.Layout(object_fit="contain", flex="1 1 0", min_width="0")
        self.picture, self.text = widgets.Image(format="png", layout=layout), widgets.HTML()
        presets: dict[str, dict[str, Any]] = {
            "no outliers": {"planted": 0},
            "not masked": {"mask": "none"},
            "each by itself": {"planted": 0, "norm": "separate"},
            "too noisy": {"planted": 0, "noise": 10.0},
            "first stage": {"planted": 0, "stage": 1},
        }
        super().__init__(_controls(explorer), presets)

    @property
    def widget(self) -> widgets.Widget:
        """What a cell displays."""
        return widgets.HBox([self.column(self.text), self.picture])

    def show(self) -> None:
        """Draw what the controls say."""
        value = self.values()
        stage = value["stage"] - 1
        self.controls["channel"].max = self.explorer.channels(stage) - 1
        channel = self.controls["channel"].value  # no more than the stage has
        step = self.explorer.step_of(value["noise"])
        choice = Choice(stage, channel, value["planted"], value["norm"], value["mask"])
        self.picture.value = self.explorer.sheet(value["work"], step, choice)
        noise, limit = float(self.explorer.noise[step]), self.explorer.limit
        counts = "counts" if noise <= limit else "does not count"
        self.text.value = f"step {step}, noise {noise:.3g} of signal: {counts} (threshold {limit:g})"


def _controls(explorer: Explorer) -> dict[str, widgets.Widget]:
    """All controls, from the top down."""
    depth = explorer.depth
    channels = explorer.channels(depth - 2)  # of the stage that is chosen first
    return {
        "work": _slider("work", 0, 0, len(explorer.works) - 1),
        "noise": widgets.FloatLogSlider(value=0.3, min=-1.5, max=1.0, step=0.05, description="noise", **panel.late()),
        "stage": _slider("stage", depth - 1, 1, depth),
        "channel": _slider("channel", 0, 0, channels - 1),
        "planted": _slider("planted", 5, 0, 9),
        "norm": widgets.Dropdown(options=get_args(Norm), value=PAPER.norm, description="norm", **panel.wide()),
        "mask": widgets.Dropdown(options=get_args(Mask), value=PAPER.mask, description="mask", **panel.wide()),
    }


def _slider(name: str, value: int, low: int, high: int) -> widgets.IntSlider:
    return widgets.IntSlider(value=value, min=low, max=high, description=name, **panel.late())
