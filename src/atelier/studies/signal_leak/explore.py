"""The panel of ``notebooks/explore_signal_leak.ipynb``: sliders for a first latent, and the pictures it becomes."""

import io
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ipywidgets as widgets
import torch
from diffusers import StableDiffusionPipeline
from matplotlib import pyplot as plt
from torch import Tensor

from atelier.data.images import to_pixels
from atelier.files import check_seal
from atelier.methods import signal_leak as method
from atelier.methods.signal_leak import FrequencyLeak, Leak
from atelier.models import base
from atelier.params import Params
from atelier.report import figures, panel
from atelier.sampling.sampler import sample, settled, with_ddim
from atelier.studies.signal_leak.fit import ALL, BY_HAND, load_all
from atelier.workspace import Workspace

WHITE, FREQUENCIES = "white noise", "N low frequencies"
PICTURES = 3
NIGHT = "a house at night"


class Choice(NamedTuple):
    """How first latents are drawn."""

    kind: str = WHITE  # or FREQUENCIES, or the name of a style's leak
    frequencies: int = 0  # N; 0 is the pixel model of natural pictures
    seed: int = 1
    strength: float = 1.0  # the leak times this
    means: tuple[float, ...] | None = None  # of channels, in standard deviations; None: as drawn

    @property
    def leak(self) -> str:
        """The leak's name."""
        if self.kind != FREQUENCIES:
            return self.kind
        return f"low-{self.frequencies}" if self.frequencies else "pixel"


@dataclass(frozen=True, eq=False)
class Explorer:
    """The base, its leaks, and the pictures painted so far."""

    pipeline: StableDiffusionPipeline
    leaks: dict[str, Leak]
    steps: int
    painted: dict[tuple[str, float, Choice], Tensor] = field(default_factory=dict)

    @property
    def mean_leak(self) -> FrequencyLeak:
        """The leak with N = 1, which knows how channels' means vary."""
        leak = self.leaks[BY_HAND]
        assert isinstance(leak, FrequencyLeak)
        return leak

    def first_latents(self, choice: Choice) -> Tensor:
        """First latents (PICTURES, c, h, w): the same noise for one seed, whatever is added."""
        generator = torch.Generator().manual_seed(choice.seed)
        noise = torch.randn((PICTURES, *self.mean_leak.rest.mean.shape), generator=generator)
        if choice.kind == WHITE:
            return noise
        leak = self.leaks[choice.leak].sample(PICTURES, generator)
        if choice.means is not None:
            leak += (self._means(choice.means) - leak.mean((2, 3)))[..., None, None].float()
        return method.add_leak(choice.strength * leak, noise, self.pipeline.scheduler, self.steps)

    def _means(self, values: tuple[float, ...]) -> Tensor:
        """Channels' means (c,) that lie so many standard deviations from the average picture's."""
        spread = torch.from_numpy(self.mean_leak.low_covariance.diagonal() ** 0.5)
        coefficients = torch.from_numpy(self.mean_leak.low_mean) + torch.tensor(values, dtype=torch.float64) * spread
        _, height, width = self.mean_leak.rest.mean.shape
        return coefficients / (height * width) ** 0.5  # of the orthonormal transform's lowest frequency

    def paint(self, prompt: str, guidance: float, choice: Choice) -> Tensor:
        """Pictures (PICTURES, 3, h, w), about [-1, 1]; each choice is painted once."""
        key = (prompt, guidance, choice)
        if key not in self.painted:
            self.painted[key] = sample(
                self.pipeline,
                [prompt] * PICTURES,
                self.first_latents(choice),
                guidance=guidance,
                steps=self.steps,
                batch=PICTURES,
            ).pictures
        return self.painted[key]

    def sheet(self, prompt: str, guidance: float, choice: Choice, low: int) -> bytes:
        """A PNG: pictures from white noise, from ``choice``, and the latter's ``low`` lowest frequencies."""
        plain = self.paint(prompt, guidance, Choice(seed=choice.seed))
        changed = self.paint(prompt, guidance, choice)
        rows = {WHITE: plain, choice.kind: changed, f"lowest {low}": low_pass(changed, low)}
        figure = figures.contact_sheet({label: to_pixels(x) for label, x in rows.items()}, scale=1.3)
        file = io.BytesIO()
        figure.savefig(file, format="png")
        plt.close(figure)
        return file.getvalue()


def load(params: Params, workspace: Workspace) -> Explorer:
    """The base on the CPU and every leak; ValueError where the pipeline has left neither."""
    if not (workspace.base.is_dir() and workspace.leaks.is_dir()):
        raise ValueError("nothing to explore yet: run make repro, or dvc repro signal_leak-fit")
    pipeline = settled(with_ddim(base.load(check_seal(workspace.base))), torch.device("cpu"))
    return Explorer(pipeline, load_all(workspace.leaks), params.sampling.steps)


def low_pass(pictures: Tensor, frequencies: int) -> Tensor:
    """Pictures that keep their lowest frequencies alone."""
    x = pictures.double().numpy()
    shape = (x.shape[2], x.shape[3])
    kept = method.lowest_frequencies(*shape, frequencies)
    return torch.from_numpy(method.from_low_components(method.low_components(x, kept), kept, shape)).float()


# ------------------------------------------------------------------------------------------------ the panel


class Panel(panel.Panel):
    """Controls on the left, pictures on the right; a change of any control paints anew."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.channels = [
            _slider(f"channel {channel}", 0.0, -3.0, 3.0, 0.25) for channel in range(len(explorer.mean_leak.rest.mean))
        ]
        self.picture = widgets.Image(format="png", layout=widgets.Layout(object_fit="contain"))
        controls = _controls(explorer)
        leak = {"leak": FREQUENCIES, "N": controls["N"].options[-1]}
        presets: dict[str, dict[str, Any]] = {
            "no leak": {"leak": WHITE},
            "pixels alone": {"leak": FREQUENCIES, "N": 0},
            "night, no leak": {"prompt": NIGHT, "leak": WHITE},
            "night, leak": {"prompt": NIGHT, **leak},
            "colour by hand": {**leak, "set means": True, self.channels[0].description: 2.0},
        }
        super().__init__(controls | {slider.description: slider for slider in self.channels}, presets)

    @property
    def widget(self) -> widgets.Widget:
        """What a cell displays."""
        return widgets.HBox([self.column(), self.picture])

    def choice(self) -> Choice:
        """What the controls say of the first latent."""
        value = self.values()
        means = tuple(slider.value for slider in self.channels) if value["set means"] else None
        return Choice(value["leak"], value["N"], value["seed"], value["strength"], means)

    def show(self) -> None:
        """Paint what the controls say."""
        value = self.values()
        for slider in self.channels:
            slider.disabled = not value["set means"]
        self.picture.value = self.explorer.sheet(value["prompt"], value["guidance"], self.choice(), value["low-pass"])


def _slider(name: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
    return widgets.FloatSlider(value=value, min=low, max=high, step=step, description=name, **panel.late())


def _controls(explorer: Explorer) -> dict[str, widgets.Widget]:
    """All controls but the channels' sliders, from the top down."""
    styles = [name for name in explorer.leaks if name.startswith(f"{ALL}-")]
    numbers = sorted(int(name.removeprefix("low-")) for name in explorer.leaks if name.startswith("low-"))
    kinds = [WHITE, FREQUENCIES, *styles]
    return {
        "prompt": widgets.Text("a blue boat on the sea", description="prompt", **panel.late()),
        "leak": widgets.Dropdown(options=kinds, value=FREQUENCIES, description="leak", **panel.wide()),
        "N": widgets.SelectionSlider(options=[0, *numbers], value=3, description="N", **panel.late()),
        "strength": _slider("strength", 1.0, 0.0, 3.0, 0.1),
        "seed": widgets.IntSlider(value=1, min=0, max=999, description="seed", **panel.late()),
        "guidance": _slider("guidance", 4.0, 1.0, 16.0, 0.5),
        "low-pass": widgets.IntSlider(value=3, min=1, max=64, description="low-pass", **panel.late()),
        "set means": widgets.Checkbox(False, description="set means", **panel.wide()),
    }
