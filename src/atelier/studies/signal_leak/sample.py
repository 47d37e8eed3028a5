"""Paint from first latents with and without a leak.

A condition is a model, prompts and a kind of first latent. All conditions share white noise, and those of one topic
share prompts, so that they are compared picture by picture.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Generator, Tensor

from atelier import machine, scratch
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.diffusion import clean_estimate
from atelier.files import check_seal, write_table
from atelier.methods.signal_leak import FrequencyLeak, Leak, add_leak, first_step, initial_latents
from atelier.models import base
from atelier.models.adapters import converted
from atelier.params import Params
from atelier.sampling import conditions as sampling
from atelier.sampling.conditions import (
    Start,
    by_training_seed,
    paint_conditions,
    seeds_of,
    white_noise,
    write_conditions,
)
from atelier.sampling.held_out import with_files
from atelier.sampling.sampler import Seed, first_latents, settled, with_ddim
from atelier.sampling.store import guidance_folder
from atelier.seeds import torch_generator
from atelier.studies.signal_leak import fit
from atelier.studies.signal_leak.fit import STUDY, natural, of_style
from atelier.studies.signal_leak.params import Config
from atelier.studies.signal_leak.styles import with_styles
from atelier.studies.signal_leak.train import tuned_pipeline
from atelier.workspace import Workspace, replacing

FIRST_STEPS = "first_steps.csv"
FLOW = Path("conversions/flow_prediction")  # conversion of a shipped base, in the data folder
RANDOM = 3  # frequencies of the leak used with prompts about light (the paper's N)
NATURAL, COLOURS, LIGHTS = "natural", "colours", ("dark", "bright")
UNGUIDED = "-unguided"  # without guidance, as the theory of white noise assumes


class Condition(NamedTuple):
    """Which pictures are painted, by which model, from which first latents.

    ``topic``: natural pictures, a style's works, or ``dark`` and ``bright`` subjects; ``model``: one of
    ``signal_leak.models``, None for the base; ``leak``: one of ``build/leaks``, None for noise only, by ``start``.
    """

    name: str
    topic: str
    level: int = 0
    model: str | None = None
    leak: str | None = None
    start: Literal["white", "again", "offset"] = "white"
    guided: bool = True


def all_conditions(params: Params) -> list[Condition]:
    """All conditions, grouped by model."""
    study = Config.of(params)
    listed = [
        Condition("white", NATURAL),
        Condition("again", NATURAL, start="again"),
        Condition("offset", NATURAL, start="offset"),
        Condition("pixel", NATURAL, leak="pixel"),
        *(Condition(f"low-{n}", NATURAL, leak=f"low-{n}") for n in study.frequencies),
    ]
    for light in ("dark", "bright"):
        listed += [Condition(light, light), Condition(f"{light}+leak", light, leak=f"low-{RANDOM}")]
    listed.append(Condition(f"white{UNGUIDED}", NATURAL, guided=False))
    for name, style in study.styles.items():
        listed += [
            Condition(f"plain-{name}+leak", name, leak=of_style(style)),
            Condition(f"words-{name}", name, level=1),
            Condition(f"words-{name}+leak", name, level=1, leak=of_style(style)),
        ]
    for name, model in study.models.items():
        if model.style is None:
            listed += [
                Condition(name, NATURAL, model=name),
                Condition(f"{name}{UNGUIDED}", NATURAL, model=name, guided=False),
            ]
            continue
        listed.append(Condition(f"tuned-{name}", name, model=name))
        listed.append(Condition(f"tuned-{name}+leak", name, model=name, leak=of_style(model.style)))
        listed += [
            Condition(f"tuned-{name}+leak-{n}", name, model=name, leak=of_style(model.style, n)) for n in study.targets
        ]
    return listed


# ------------------------------------------------------------------------------------------------ prompts


@cache
def held_out(manifests: Path, topic: str, seed: int, style: str | None) -> list[dict[Hashable, Any]]:
    """Held-out pictures of a style, or natural ones, in a seeded order."""
    works = prepare.works(manifests).table
    if style is None:
        table = natural(prepare.photographs(manifests).table, works)[0]
    else:
        table = works[works["art_style"] == style]
    table = table.query("split == 'test'").reset_index(drop=True)
    if table.empty:
        raise ValueError(f"signal_leak: nothing is held out of {topic}, so that no prompts are left")
    order = torch.randperm(len(table), generator=torch_generator(seed, STUDY, "held out", topic)).tolist()
    return table.iloc[order].to_dict("records")


def texts_of(params: Params, manifests: Path, condition: Condition) -> list[tuple[str, str]]:
    """Prompts, each with its held-out picture's path ("" if none)."""
    study = Config.of(params)
    topic = NATURAL if condition.topic in LIGHTS else condition.topic
    chosen = held_out(manifests, topic, params.seed, study.styles.get(topic))
    if condition.topic not in LIGHTS:
        return [(prompt(row, condition.level, 0), str(row["path"])) for row in chosen]
    # subjects rather than titles where known, because titles may mention light
    table = prepare.with_truth(pd.DataFrame(chosen), manifests)
    subjects = [name for name in dict.fromkeys(table["subject"]) if name] or list(dict.fromkeys(table["title"]))
    words = {"dark": study.dark, "bright": study.bright}[condition.topic]
    return [(f"{subject} {words}", "") for subject in subjects]


def prompts_of(params: Params, manifests: Path, condition: Condition) -> pd.DataFrame:
    """One row per picture: repeat, place, prompt, path, file. Repeats share no prompt if there are enough."""
    texts, repeats, rows = texts_of(params, manifests, condition), params.protocol.repeats, []
    for repeat in range(repeats):
        available = texts[repeat::repeats] or texts  # prompts are reused if there are too few
        for number in range(Config.of(params).pictures):
            text, path = available[number % len(available)]
            rows.append({"repeat": repeat, "place": number, "prompt": text, "path": path})
    return with_files(pd.DataFrame(rows))


# ------------------------------------------------------------------------------------------------ pictures


def start_of(params: Params, condition: Condition, leaks: dict[str, Leak]) -> Start:
    """The function that draws a condition's first latents."""
    steps, noises = params.sampling.steps, "noise again" if condition.start == "again" else "noise"
    white = white_noise(params, STUDY, noises)

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        seeds = seeds_of(rows, params.seed, STUDY, noises)
        if condition.leak is not None:
            return initial_latents(leaks[condition.leak], pipeline.scheduler, len(seeds), generators(seeds), steps)
        noise = white(pipeline, rows)
        if condition.start == "offset":
            offsets = [torch.randn(noise.shape[1], generator=torch_generator(*seed, "offset")) for seed in seeds]
            return noise + Config.of(params).offset * torch.stack(offsets)[:, :, None, None]
        return noise

    return start


def generators(seeds: Sequence[Seed]) -> list[Generator]:
    return [torch_generator(*seed) for seed in seeds]


def scale_of(params: Params, condition: Condition) -> float:
    """A condition's guidance scale."""
    return Config.of(params).guidance if condition.guided else 1.0


def loader(params: Params, workspace: Workspace, model: str | None) -> Callable[[int], StableDiffusionPipeline]:
    """A function from training seed to pipeline, for one of ``signal_leak.models`` or the base."""
    if model is None:
        return lambda seed: with_ddim(base.load(check_seal(workspace.base)))
    return lambda seed: with_ddim(tuned_pipeline(params, workspace, model, seed))


def main(params: Params, workspace: Workspace) -> None:
    """Write all conditions, first-step estimates and pictures with set channel means to ``build/samples``."""
    params = with_styles(params, workspace)
    config, out = Config.of(params), workspace.samples / STUDY
    leaks = fit.load_all(workspace.leaks, config.frequencies)
    manifests = workspace.manifests
    inputs = [workspace.base, workspace.leaks, manifests]
    inputs += [workspace.adapters / STUDY / name for name in config.models]
    # what a model that predicts v or a flow begins with
    inputs.append(workspace.named(params.data.folder) / "conversions")
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    painted: list[tuple[list[sampling.Condition], bool]] = []
    firsts = []
    for model in [None, *config.models]:
        described = [condition for condition in all_conditions(params) if condition.model == model]
        listed = [cell_of(params, manifests, condition, leaks) for condition in described]
        paint_conditions(params, listed, loader(params, workspace, model), model is not None, run)
        painted.append((listed, model is not None))
        if described[0].topic == NATURAL:
            firsts.append(first_table(params, workspace, model, listed[0].table, run))
    if conversion := flow_conversion(params, workspace):
        table = prompts_of(params, manifests, Condition("white", NATURAL))
        estimates = partial(flow_estimates, params, workspace, conversion, table)
        firsts.append(scratch.table(run, "first flow", estimates))
    by_hand = [colours_condition(params, manifests, leaks[fit.BY_HAND])]
    paint_conditions(params, by_hand, loader(params, workspace, None), False, run)
    with replacing(out) as part:
        for listed, trained in [*painted, (by_hand, False)]:
            write_conditions(params, listed, trained, run, part)
        write_table(part / FIRST_STEPS, pd.concat(firsts), float_format="%.9g")
    scratch.discard(run)


def cell_of(params: Params, manifests: Path, condition: Condition, leaks: dict[str, Leak]) -> sampling.Condition:
    """A condition in the form that ``sampling.conditions`` paints."""
    guidance, table = scale_of(params, condition), prompts_of(params, manifests, condition)
    folder = f"{condition.name}/{guidance_folder(guidance)}"
    return sampling.Condition(folder, table, start_of(params, condition, leaks), guidance, params.sampling.steps)


# ------------------------------------------------------------------------------------------------ the first step


def first_table(
    params: Params, workspace: Workspace, model: str | None, table: pd.DataFrame, run: Path
) -> pd.DataFrame:
    """``first_estimates`` of a model, for each training seed, or of the base."""
    device, load = machine.accelerator(params.machine).device, loader(params, workspace, model)
    name = model or "white"

    def estimates(seed: int, rows: pd.DataFrame) -> pd.DataFrame:
        return first_estimates(params, settled(load(seed), device), rows, name)

    parts = by_training_seed(params, table, model is not None).items()
    return pd.concat(scratch.table(run, f"first {name} {seed}", partial(estimates, seed, rows)) for seed, rows in parts)


def flow_conversion(params: Params, workspace: Workspace) -> Path | None:
    """The folder of a shipped base's conversion to a flow, if there is one."""
    folder = workspace.named(params.data.folder) / FLOW
    return folder if params.base.source == "shipped" and folder.is_dir() else None


def flow_estimates(params: Params, workspace: Workspace, folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    pipeline = settled(
        converted(base.load(check_seal(workspace.base)), folder), machine.accelerator(params.machine).device
    )
    return first_estimates(params, pipeline, table, "flow")


def first_estimates(params: Params, pipeline: StableDiffusionPipeline, table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Channel means of white first latents and of ``z0_hat`` at the first step, one row per picture and channel.

    ``z0_hat`` from one call without guidance shows whether the model takes the picture's mean from the first latent.
    """
    accelerate, step = machine.accelerator(params.machine), first_step(pipeline.scheduler, params.sampling.steps)
    z = first_latents(pipeline, seeds_of(table, params.seed, STUDY, "noise"), params.data.size)
    alpha, s = torch.tensor(step.alpha), torch.tensor(step.s)
    kind = pipeline.scheduler.config.prediction_type
    words, parts = list(table["prompt"]), []
    with torch.no_grad(), accelerate.autocast():
        for start in range(0, len(z), params.sampling.batch):
            rows = slice(start, start + params.sampling.batch)
            embeddings = pipeline.encode_prompt(words[rows], pipeline.device, 1, False)[0]
            output = pipeline.unet(z[rows].to(accelerate.device), step.time.to(accelerate.device), embeddings).sample
            parts.append(output.float().cpu())
    means = torch.stack([z, clean_estimate(kind, z, torch.cat(parts), alpha, s)]).mean((3, 4))  # (2, n, c)
    n, channels = means.shape[1:]
    return pd.DataFrame(
        {
            "model": model,
            "repeat": table["repeat"].repeat(channels).to_numpy(),
            "place": table["place"].repeat(channels).to_numpy(),
            "channel": list(range(channels)) * n,
            "first": means[0].flatten(),
            "estimated": means[1].flatten(),
        }
    )


# ------------------------------------------------------------------------------------------------ colours by hand


def colours_of(params: Params, leak: FrequencyLeak) -> Iterator[tuple[int, float, Tensor]]:
    """Channel, value in standard deviations, and a first latent's lowest components (1, 1, c) with this value."""
    channels = len(leak.rest.mean)
    spread = leak.low_covariance.diagonal() ** 0.5
    for channel in range(channels):
        for value in Config.of(params).values:
            low = torch.from_numpy(leak.low_mean).clone()
            low[channel] += value * spread[channel]
            yield channel, value, low.view(1, 1, channels)


def colours_condition(params: Params, manifests: Path, leak: Leak) -> sampling.Condition:
    """Pictures of the base with one latent channel's mean set, all else equal, by channel and value."""
    assert isinstance(leak, FrequencyLeak)
    config = Config.of(params)
    table = prompts_of(params, manifests, Condition("white", NATURAL)).query("place < @config.each_value")
    values = [table.assign(channel=channel, value=value) for channel, value, _ in colours_of(params, leak)]
    listed = pd.concat(values, ignore_index=True)
    listed["file"] = [f"{row.channel}{row.value:+g}-{row.file}" for row in listed.itertuples()]
    folder = f"{COLOURS}/{guidance_folder(config.guidance)}"
    return sampling.Condition(
        folder, listed, colours_start(params, leak, table), config.guidance, params.sampling.steps
    )


def colours_start(params: Params, leak: FrequencyLeak, table: pd.DataFrame) -> Start:
    """First latents of ``table``'s pictures for each channel and value, with the same noise each time."""

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        drawn = generators(seeds_of(table, params.seed, STUDY, "noise"))
        noise = torch.cat([torch.randn((1, *leak.rest.mean.shape), generator=one) for one in drawn])
        after = [one.get_state() for one in drawn]  # the rest of the leak is redrawn from here for each value
        latents = []
        for _, _, low in colours_of(params, leak):
            samples = [leak.sample(1, Generator().set_state(state), low) for state in after]
            latents.append(add_leak(torch.cat(samples), noise, pipeline.scheduler, params.sampling.steps))
        return torch.cat(latents)

    return start
