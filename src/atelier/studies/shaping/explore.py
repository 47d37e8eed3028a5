"""The panel of ``notebooks/explore_shaping.ipynb``: sliders for acceptance and level, and the laws that follow.

No adapter is involved: states of accepted trajectories are continued by the base, which draws from the laws that GRAFT
and P-GRAFT aim at exactly.
"""

import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from atelier.data.checks import FloatArray
from atelier.data.images import to_pixels
from atelier.methods.rejection import top_k_probability
from atelier.params import Params
from atelier.report import figures, panel
from atelier.sampling.sampler import decoded, settled
from atelier.sampling.trajectories import Solver
from atelier.seeds import numpy_generator
from atelier.studies.shaping import candidates, rewards, shaped
from atelier.studies.shaping.continued import continued
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.rewards import Judged
from atelier.workspace import Workspace

PICTURES = 6
WHOLE = 1.0  # the level of GRAFT, whose states are last ones
BINS = 12
SAMPLERS = {"deterministic": "ode", "stochastic": "sde"}


class Choice(NamedTuple):
    """Which candidates are accepted, at which level their states are kept, and how the base goes on from there."""

    prompt: int  # number of a set
    accepted: int  # the best of so many candidates of the prompt
    level: float  # share of the steps, from noise; 1: GRAFT
    sampler: str = "stochastic"
    seed: int = 1


class Shaped(NamedTuple):
    """Accepted pictures that are shown, what the base makes of their states, and rewards."""

    pictures: Tensor  # (PICTURES, 3, h, w) uint8
    continued: Tensor
    rewards: FloatArray  # of the accepted candidates, all of them
    continued_rewards: FloatArray  # of the new pictures


@dataclass(frozen=True, eq=False)
class Explorer:
    """The base, its candidates of one training seed, their rewards, and what has been continued so far."""

    params: Params
    pipeline: StableDiffusionPipeline
    place: Path  # of candidates, a folder a solver
    table: dict[str, pd.DataFrame]  # of candidates, by sampler
    reward: Judged
    shown: dict[Choice, Shaped] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        return Config.of(self.params)

    @property
    def prompts(self) -> list[str]:
        """The prompts of which there are candidates, by number of their set."""
        table = next(iter(self.table.values()))
        return table.drop_duplicates("set")["prompt"].tolist()

    def candidates_of(self, choice: Choice) -> pd.DataFrame:
        """A prompt's candidates by a sampler, the best first, of equal ones the earlier."""
        table = self.table[choice.sampler]
        return table[table["set"] == choice.prompt].sort_values("reward", ascending=False, kind="stable")

    def shaped(self, choice: Choice) -> Shaped:
        """What ``PICTURES`` of the accepted candidates are, and what the base makes of their states at the level.

        Where fewer are accepted they come again, each time with new noise. Each choice is continued once.
        """
        if choice not in self.shown:
            accepted = self.candidates_of(choice).head(choice.accepted)
            order = numpy_generator("explore", choice.prompt, choice.seed).permutation(len(accepted))
            rows = accepted.iloc[order[np.arange(PICTURES) % len(accepted)]].reset_index(drop=True)
            numbers, place = rows["number"].tolist(), self.place / SAMPLERS[choice.sampler]
            pictures = _of(place, candidates.PICTURES, numbers)
            new = pictures if choice.level == WHOLE else self._continued(choice, rows, numbers)
            self.shown[choice] = Shaped(pictures, new, accepted["reward"].to_numpy(), self.reward(new, rows))
        return self.shown[choice]

    def _continued(self, choice: Choice, rows: pd.DataFrame, numbers: list[int]) -> Tensor:
        """Pictures (PICTURES, 3, h, w) uint8 from states at the level, by the base."""
        states = _of(self.place / SAMPLERS[choice.sampler], candidates.state_name(choice.level), numbers)
        eta = candidates.SOLVERS[SAMPLERS[choice.sampler]]
        solver = Solver(self.config.guidance, self.config.steps, PICTURES, eta)
        seeds = [("explore", choice.seed, at) for at in range(PICTURES)]
        number = self.config.number_of(choice.level)
        last = continued(self.pipeline, rows["prompt"].tolist(), states, number, seeds, solver)
        with torch.no_grad():
            return to_pixels(decoded(self.pipeline.vae, last, PICTURES))

    def sheet(self, choice: Choice) -> bytes:
        """A PNG: accepted pictures, and what the base makes of their states."""
        shaped = self.shaped(choice)
        what = "GRAFT: the same" if choice.level == WHOLE else f"from level {choice.level:g}"
        rows = {"accepted": shaped.pictures, what: shaped.continued}
        return _png(figures.contact_sheet(rows, scale=1.0))

    def histogram(self, choice: Choice) -> bytes:
        """A PNG: rewards of all candidates, of the accepted ones, their law, and the new pictures'."""
        return _png(drawn(self.candidates_of(choice)["reward"].to_numpy(), self.shaped(choice), self.config.reward))


def _of(place: Path, name: str, numbers: list[int]) -> Tensor:
    """A tensor's rows of these candidates, of which some may repeat."""
    once = sorted(set(numbers))
    rows = candidates.tensors(place, name, once)
    return rows[[once.index(number) for number in numbers]]


def load(params: Params, workspace: Workspace) -> Explorer:
    """The base on the CPU and the first training seed's candidates; ValueError where the pipeline has left none."""
    seed = params.protocol.training_seeds[0]
    place = candidates.folder(workspace, seed)
    if not (workspace.base.is_dir() and place.is_dir() and rewards.folder(workspace).is_dir()):
        raise ValueError("nothing to explore yet: run make repro, or dvc repro shaping-untuned")
    pipeline = settled(shaped.load(params, workspace), torch.device("cpu"))
    table = {sampler: candidates.listed(place / solver) for sampler, solver in SAMPLERS.items()}
    reward = rewards.rewards_of(params, workspace)[Config.of(params).reward]
    return Explorer(params, pipeline, place, table, reward)


# ------------------------------------------------------------------------------------------------ the figure


def drawn(every: FloatArray, shaped: Shaped, name: str) -> Figure:
    """Histograms of all rewards and of the accepted ones, the law's expectation, and a tick a new picture."""
    figure, axis = plt.subplots(figsize=(6.4, 2.6), layout="none")
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.2, top=0.86)
    both = np.concatenate([every, shaped.continued_rewards])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    k, colours = len(shaped.rewards), figures.PALETTE
    axis.hist(every, edges.tolist(), color=colours[7], alpha=0.35, label=f"all candidates ({len(every)})")
    axis.hist(shaped.rewards, edges.tolist(), color=colours[2], label=f"accepted ({k})")
    axis.stairs(expected(every, k, edges), edges, color=colours[4], linewidth=1.3, label="law of the rule")
    axis.plot(
        shaped.continued_rewards, np.full(PICTURES, -0.04), "|", color=colours[3], markersize=9, markeredgewidth=1.6,
        transform=axis.get_xaxis_transform(), clip_on=False, label="new pictures",
    )  # fmt: skip
    axis.set(xlabel=f"reward ({name})", ylabel="candidates")
    axis.tick_params(axis="x", pad=8)
    axis.set_title(
        f"mean reward: all {every.mean():.3g}, accepted {shaped.rewards.mean():.3g}, new pictures "
        f"{shaped.continued_rewards.mean():.3g}",
        fontsize=9,
    )
    axis.legend(fontsize=7)
    return figure


def expected(every: FloatArray, k: int, edges: FloatArray) -> FloatArray:
    """How many of ``k`` accepted candidates the law has in each bin, F being that of the candidates themselves."""
    ordered = np.sort(every)
    upper, lower = (np.searchsorted(ordered, every, side=side) / len(every) for side in ("right", "left"))
    weights = top_k_probability(every, upper, k, len(every), below=lower)
    counts: FloatArray = np.histogram(every, edges, weights=k * weights / weights.sum())[0]
    return counts


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------ the panel


class Panel(panel.Panel):
    """Controls on the left, pictures and rewards on the right; a change of any control continues anew."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.picture, self.histogram = (
            widgets.Image(format="png", layout=widgets.Layout(object_fit="contain")) for _ in range(2)
        )
        self.prompt = widgets.HTML(layout=widgets.Layout(width=panel.WIDTH))  # whole, where its list cuts it
        each = explorer.config.candidates.each
        presets: dict[str, dict[str, Any]] = {
            "half accepted": {"accepted": max(1, each // 2)},
            "all accepted": {"accepted": each},
            "GRAFT": {"level": WHOLE},
            "one law": {"sampler": "deterministic"},
        }
        super().__init__(_controls(explorer), presets)

    @property
    def widget(self) -> widgets.Widget:
        """What a cell displays."""
        return widgets.HBox([self.column(self.prompt), widgets.VBox([self.picture, self.histogram])])

    def choice(self) -> Choice:
        """What the controls say."""
        value = self.values()
        return Choice(value["prompt"], value["accepted"], value["level"], value["sampler"], value["seed"])

    def show(self) -> None:
        """Show what the controls say."""
        choice = self.choice()
        self.prompt.value = html.escape(self.explorer.prompts[choice.prompt])
        self.picture.value = self.explorer.sheet(choice)
        self.histogram.value = self.explorer.histogram(choice)


def _controls(explorer: Explorer) -> dict[str, widgets.Widget]:
    """All controls, from the top down."""
    each, levels = explorer.config.candidates.each, [*sorted(explorer.config.levels), WHOLE]
    return {
        "prompt": widgets.Dropdown(
            options=[(text, at) for at, text in enumerate(explorer.prompts)],
            description="prompt",
            **panel.wide(),
        ),
        "accepted": widgets.IntSlider(value=max(1, each // 8), min=1, max=each, description="accepted", **panel.late()),
        "level": widgets.SelectionSlider(
            options=[(f"{level:g}", level) for level in levels], value=levels[0], description="level", **panel.late()
        ),
        "sampler": widgets.ToggleButtons(
            options=list(SAMPLERS), value="stochastic", description="sampler", **panel.wide()
        ),
        "seed": widgets.IntSlider(value=1, min=0, max=999, description="seed", **panel.late()),
    }
