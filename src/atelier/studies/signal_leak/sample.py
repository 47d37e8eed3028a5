"""Paint from first latents with and without a leak.

A condition is a model, prompts and a kind of first latent. All conditions share white noise, and conditions of one
topic share prompts, so that they are compared picture by picture.
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
from atelier.files import check_seal, read_table, write_table
from atelier.methods.signal_leak import FrequencyLeak, Leak, add_leak, first_step, initial_latents
from atelier.models import base
from atelier.models.adapters import converted
from atelier.params import Params
from atelier.sampling import conditions as sampling
from atelier.sampling.conditions import Start, paint_conditions, seeds_of, white_noise, write_conditions
from atelier.sampling.held_out import with_files
from atelier.sampling.sampler import Seed, first_latents, settled, with_ddim
from atelier.sampling.store import UNTUNED, Location, guidance_folder
from atelier.seeds import torch_generator
from atelier.studies.signal_leak import fit
from atelier.studies.signal_leak.fit import STUDY, natural, of_style
from atelier.studies.signal_leak.params import Config
from atelier.studies.signal_leak.styles import with_styles
from atelier.studies.signal_leak.train import tuned_pipeline
from atelier.workspace import Workspace, replacing

PROCESSES = "several"  # share batches of pictures

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


def prompts_of(params: Params, manifests: Path, condition: Condition, seed: int) -> pd.DataFrame:
    """One row per picture of a training seed's repeats: repeat, place, prompt, path, file.

    Repeats share no prompt where there are enough.
    """
    texts, pictures, rows = texts_of(params, manifests, condition), Config.of(params).pictures, []
    for repeat in params.protocol.repeats_of(seed):
        for place in range(pictures):
            text, path = texts[(repeat * pictures + place) % len(texts)]
            rows.append({"repeat": repeat, "place": place, "prompt": text, "path": path})
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


def load(params: Params, workspace: Workspace, model: str, seed: int) -> StableDiffusionPipeline:
    """The pipeline of one of ``signal_leak.models``, trained from this seed, or of the base."""
    if model == UNTUNED:
        return with_ddim(base.load(check_seal(workspace.base)))
    return with_ddim(tuned_pipeline(params, workspace, model, seed))


def main(params: Params, workspace: Workspace, model: str, training_seed: str) -> None:
    """Write one model's conditions of one training seed and its first-step estimates to ``build/samples``.

    The base's pictures with set channel means, and a flow's estimates, are beside the base's.
    """
    params, seed = with_styles(params, workspace), params.protocol.training_seed(training_seed)
    config = Config.of(params)
    if model not in (UNTUNED, *config.models):
        raise ValueError(f"signal_leak.models: no '{model}'")
    out, manifests = workspace.samples / STUDY / model / str(seed), workspace.manifests
    leaks = fit.load_all(workspace.leaks, config.frequencies)
    inputs = [workspace.base, workspace.leaks, manifests]
    inputs += [workspace.adapter(STUDY, model, seed)] if model != UNTUNED else []
    # what a model that predicts v or a flow begins with
    inputs.append(workspace.named(params.data.folder) / "conversions")
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    described = [condition for condition in all_conditions(params) if (condition.model or UNTUNED) == model]
    listed = [cell_of(params, manifests, condition, leaks, seed) for condition in described]
    if model == UNTUNED:
        listed.append(colours_condition(params, manifests, leaks[fit.BY_HAND], seed))
    paint_conditions(params, listed, partial(load, params, workspace, model, seed), run)
    machine.leave_to_main()
    firsts = list(first_tables(params, workspace, model, seed, run))
    with replacing(out) as part:
        write_conditions(listed, run, part)
        if firsts:
            write_table(part / FIRST_STEPS, pd.concat(firsts), float_format="%.9g")
    scratch.discard(run)


def cell_of(
    params: Params, manifests: Path, condition: Condition, leaks: dict[str, Leak], seed: int
) -> sampling.Condition:
    """A condition in the form that ``sampling.conditions`` paints."""
    guidance, table = scale_of(params, condition), prompts_of(params, manifests, condition, seed)
    folder = f"{condition.name}/{guidance_folder(guidance)}"
    return sampling.Condition(folder, table, start_of(params, condition, leaks), guidance, params.sampling.steps)


def location_of(params: Params, condition: Condition) -> Location:
    """Where a condition's pictures are stored."""
    return Location(STUDY, condition.model or UNTUNED, scale_of(params, condition), condition=condition.name)


def colours_location(params: Params) -> Location:
    """Where the pictures with set channel means are stored."""
    return Location(STUDY, UNTUNED, Config.of(params).guidance, condition=COLOURS)


def condition_of(params: Params, name: str) -> Condition:
    """Find a condition by its name."""
    return next(condition for condition in all_conditions(params) if condition.name == name)


def first_steps(params: Params, samples: Path) -> pd.DataFrame:
    """The first-step estimates of all models and training seeds."""
    models = [UNTUNED, *(name for name, model in Config.of(params).models.items() if model.style is None)]
    folders = [samples / STUDY / model / str(seed) for model in models for seed in params.protocol.training_seeds]
    columns = ("model", "channel", "repeat")
    return pd.concat([read_table(check_seal(folder) / FIRST_STEPS, columns) for folder in folders])


# ------------------------------------------------------------------------------------------------ the first step


def first_tables(params: Params, workspace: Workspace, model: str, seed: int, run: Path) -> Iterator[pd.DataFrame]:
    """``first_estimates`` of a model of natural pictures, and beside the base's also of its conversion to a flow."""
    device = machine.accelerator(params.machine).device
    table = prompts_of(params, workspace.manifests, Condition("white", NATURAL), seed)

    def estimates(pipeline: Callable[[], StableDiffusionPipeline], name: str) -> pd.DataFrame:
        return first_estimates(params, settled(pipeline(), device), table, name)

    if model == UNTUNED or Config.of(params).models[model].style is None:
        name = "white" if model == UNTUNED else model
        yield scratch.table(run, "first", partial(estimates, partial(load, params, workspace, model, seed), name))
    if model == UNTUNED and (conversion := flow_conversion(params, workspace)):

        def flow() -> StableDiffusionPipeline:
            return converted(base.load(check_seal(workspace.base)), conversion)

        yield scratch.table(run, "first flow", partial(estimates, flow, "flow"))


def flow_conversion(params: Params, workspace: Workspace) -> Path | None:
    """The folder of a shipped base's conversion to a flow, if there is one and no flow is trained here."""
    folder = workspace.named(params.data.folder) / FLOW
    trained = any(model.flow for model in Config.of(params).models.values())
    return folder if params.base.source == "shipped" and folder.is_dir() and not trained else None


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


def colours_condition(params: Params, manifests: Path, leak: Leak, seed: int) -> sampling.Condition:
    """Pictures of the base with one latent channel's mean set, all else equal, by channel and value."""
    assert isinstance(leak, FrequencyLeak)
    config = Config.of(params)
    table = prompts_of(params, manifests, Condition("white", NATURAL), seed).query("place < @config.each_value")
    values = [table.assign(channel=channel, value=value) for channel, value, _ in colours_of(params, leak)]
    listed = pd.concat(values, ignore_index=True)
    listed["file"] = [f"{row.channel}{row.value:+g}-{row.file}" for row in listed.itertuples()]
    folder = f"{COLOURS}/{guidance_folder(config.guidance)}"
    return sampling.Condition(
        folder, listed, colours_start(params, leak, table), config.guidance, params.sampling.steps
    )


def colours_start(params: Params, leak: FrequencyLeak, table: pd.DataFrame) -> Start:
    """First latents of ``table``'s pictures for each channel and value, with the same noise each time.

    Rows are told by their index, which counts the condition's.
    """

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        drawn = generators(seeds_of(table, params.seed, STUDY, "noise"))
        noise = torch.cat([torch.randn((1, *leak.rest.mean.shape), generator=one) for one in drawn])
        after = [one.get_state() for one in drawn]  # the rest of the leak is redrawn from here for each value
        latents = []
        for _, _, low in colours_of(params, leak):
            samples = [leak.sample(1, Generator().set_state(state), low) for state in after]
            latents.append(add_leak(torch.cat(samples), noise, pipeline.scheduler, params.sampling.steps))
        return torch.cat(latents)[rows.index.tolist()]

    return start
