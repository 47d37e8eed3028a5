"""Stage ``signal_leak-sample``: pictures from first latents with a leak and without.

An arm is a model, prompts and a kind of first latent. All arms share their white noise, and those that ask for the same
pictures their prompts, so that they are compared picture by picture.
"""

import shutil
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Generator, Tensor

from atelier import machine, paths
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.diffusion import clean_estimate
from atelier.methods.signal_leak import FrequencyLeak, Leak, carrying, first_step, initial_latents
from atelier.models import base
from atelier.params import Params
from atelier.sampling.adapters import converted
from atelier.sampling.sampler import Sampled, Seed, first_latents, sample, settled, with_ddim
from atelier.sampling.store import guidance_folder, write, write_latents
from atelier.seeds import torch_generator
from atelier.training import leaks
from atelier.training.leaks import STUDY, natural, of_style
from atelier.training.signal_leak import tuned_pipeline

FIRST_STEPS = "first_steps.csv"
FLOW = Path("conversions/flow_prediction")  # in the data folder: of a shipped base
RANDOM = 3  # frequencies of the leak that ignores what the prompt says of light (the paper's N)
NATURAL, COLOURS, LIGHTS = "natural", "colours", ("dark", "bright")
UNGUIDED = "-unguided"  # what the theory of white noise is of


class Arm(NamedTuple):
    """What is asked for, of which model, from which first latents.

    ``asked``: what is natural, a style's works, or ``dark`` and ``bright`` subjects; ``model``: of
    ``signal_leak.models``, None for the base; ``leak``: of ``build/leaks``, None for noise alone, as ``start`` says.
    """

    name: str
    asked: str
    level: int = 0
    model: str | None = None
    leak: str | None = None
    start: Literal["white", "again", "offset"] = "white"
    guided: bool = True


def arms(asked: Params) -> list[Arm]:
    """All arms, those of one model together."""
    study = asked.signal_leak
    found = [
        Arm("white", NATURAL),
        Arm("again", NATURAL, start="again"),
        Arm("offset", NATURAL, start="offset"),
        Arm("pixel", NATURAL, leak="pixel"),
        *(Arm(f"low-{n}", NATURAL, leak=f"low-{n}") for n in study.frequencies),
    ]
    for light in ("dark", "bright"):
        found += [Arm(light, light), Arm(f"{light}+leak", light, leak=f"low-{RANDOM}")]
    found.append(Arm(f"white{UNGUIDED}", NATURAL, guided=False))
    for name, style in study.styles.items():
        found += [
            Arm(f"plain-{name}+leak", name, leak=of_style(style)),
            Arm(f"words-{name}", name, level=1),
            Arm(f"words-{name}+leak", name, level=1, leak=of_style(style)),
        ]
    for name, model in study.models.items():
        if model.style is None:
            found += [Arm(name, NATURAL, model=name), Arm(f"{name}{UNGUIDED}", NATURAL, model=name, guided=False)]
            continue
        found.append(Arm(f"tuned-{name}", name, model=name))
        found.append(Arm(f"tuned-{name}+leak", name, model=name, leak=of_style(model.style)))
        found += [Arm(f"tuned-{name}+leak-{n}", name, model=name, leak=of_style(model.style, n)) for n in study.targets]
    return found


# ------------------------------------------------------------------------------------------------ what is asked for


@cache
def held_out(asked_for: str, seed: int, style: str | None) -> list[dict[Hashable, Any]]:
    """Held-out pictures in a seeded order: of a style, or of what is natural."""
    works = prepare.works().table
    table = natural(prepare.photographs().table, works)[0] if style is None else works[works["art_style"] == style]
    table = table.query("split == 'test'").reset_index(drop=True)
    if table.empty:
        raise ValueError(f"signal_leak: nothing is held out of {asked_for}, so that there is nothing to ask for")
    order = torch.randperm(len(table), generator=torch_generator(seed, STUDY, "held out", asked_for)).tolist()
    return table.iloc[order].to_dict("records")


def texts_of(asked: Params, arm: Arm) -> list[tuple[str, str]]:
    """Prompts, each with the path of the held-out picture that it is of ("" where it is of none)."""
    study = asked.signal_leak
    asked_for = NATURAL if arm.asked in LIGHTS else arm.asked
    chosen = held_out(asked_for, asked.seed, study.styles.get(asked_for))
    if arm.asked not in LIGHTS:
        return [(prompt(row, arm.level, 0), str(row["path"])) for row in chosen]
    # subjects by name where they are known: a title may say what light there is
    table = prepare.with_truth(pd.DataFrame(chosen))
    subjects = [name for name in dict.fromkeys(table["subject"]) if name] or list(dict.fromkeys(table["title"]))
    words = {"dark": study.dark, "bright": study.bright}[arm.asked]
    return [(f"{subject} {words}", "") for subject in subjects]


def prompts_of(asked: Params, arm: Arm) -> pd.DataFrame:
    """One row a picture: repeat, place, prompt, path, file. Repeats share no prompt where there are enough."""
    texts, repeats, rows = texts_of(asked, arm), asked.art_finetuning.repeats, []
    for repeat in range(repeats):
        own = texts[repeat::repeats] or texts  # used up, they come again
        for place in range(asked.signal_leak.pictures):
            text, path = own[place % len(own)]
            rows.append({"repeat": repeat, "place": place, "prompt": text, "path": path})
    table = pd.DataFrame(rows)
    return table.assign(file=[f"{row.repeat}-{row.place:04d}.png" for row in table.itertuples()])


def seeds_of(asked: Params, table: pd.DataFrame, again: bool = False) -> list[Seed]:
    """A picture's seed, the same in every arm."""
    noise = "noise again" if again else "noise"
    places = zip(table["repeat"].tolist(), table["place"].tolist(), strict=True)
    return [(asked.seed, STUDY, noise, *place) for place in places]


# ------------------------------------------------------------------------------------------------ pictures


def latents_of(
    asked: Params, arm: Arm, table: pd.DataFrame, pipeline: StableDiffusionPipeline, known: dict[str, Leak]
) -> Tensor:
    """The first latents of an arm's rows."""
    seeds = seeds_of(asked, table, again=arm.start == "again")
    steps = asked.sampling.steps
    if arm.leak is not None:
        return initial_latents(known[arm.leak], pipeline.scheduler, len(seeds), generators(seeds), steps)
    noise = first_latents(pipeline, seeds, asked.data.size)
    if arm.start == "offset":
        drawn = [torch.randn(noise.shape[1], generator=torch_generator(*seed, "offset")) for seed in seeds]
        return noise + asked.signal_leak.offset * torch.stack(drawn)[:, :, None, None]
    return noise


def generators(seeds: Sequence[Seed]) -> list[Generator]:
    return [torch_generator(*seed) for seed in seeds]


def pipelines(
    asked: Params, model: str | None, table: pd.DataFrame
) -> Iterator[tuple[StableDiffusionPipeline, list[int]]]:
    """A model's pipelines, and which rows of a table each paints: a repeat's are by its training seed's."""
    device = machine.accelerator(asked.machine).device
    if model is None:
        yield settled(with_ddim(base.load(paths.BASE)), device), list(range(len(table)))
        return
    whose = table["repeat"].map(asked.art_finetuning.seed_of_repeat)
    for seed in asked.art_finetuning.training_seeds:
        rows = (whose == seed).to_numpy().nonzero()[0].tolist()
        yield settled(with_ddim(tuned_pipeline(asked, model, seed)), device), rows


def scale_of(asked: Params, arm: Arm) -> float:
    """An arm's guidance."""
    return asked.signal_leak.guidance if arm.guided else 1.0


def paint_all(asked: Params) -> None:
    """Every arm into ``build/samples/signal_leak``, what models say at the first step, and colours set by hand."""
    study, out, known = asked.signal_leak, paths.SAMPLES / STUDY, leaks.load_all()
    shutil.rmtree(out, ignore_errors=True)
    firsts = []
    for model in [None, *study.models]:
        own = [arm for arm in arms(asked) if arm.model == model]
        tables = {arm.name: prompts_of(asked, arm) for arm in own}
        made: dict[str, list[Sampled]] = {arm.name: [] for arm in own}
        painted: list[int] = []
        for pipeline, rows in pipelines(asked, model, tables[own[0].name]):
            painted += rows
            for scale in sorted({scale_of(asked, arm) for arm in own}):
                alike = [arm for arm in own if scale_of(asked, arm) == scale]
                some = {arm.name: tables[arm.name].iloc[rows] for arm in alike}
                latents = torch.cat([latents_of(asked, arm, some[arm.name], pipeline, known) for arm in alike])
                texts = [text for table in some.values() for text in table["prompt"]]
                found = painted_by(asked, pipeline, texts, latents, scale)
                for arm, last, pictures in zip(alike, *(part.split(len(rows)) for part in found), strict=True):
                    made[arm.name].append(Sampled(last, pictures))
            if own[0].asked == NATURAL:
                firsts.append(first_estimates(asked, pipeline, tables[own[0].name].iloc[rows], model or "white"))
        for arm in own:
            folder = out / arm.name / guidance_folder(scale_of(asked, arm))
            keep(made[arm.name], tables[arm.name].iloc[painted], folder)
    flow = Path(asked.data.folder) / FLOW
    if asked.base.source == "shipped" and flow.is_dir():
        pipeline = settled(converted(base.load(paths.BASE), flow), machine.accelerator(asked.machine).device)
        firsts.append(first_estimates(asked, pipeline, prompts_of(asked, Arm("white", NATURAL)), "flow"))
    pd.concat(firsts).to_csv(out / FIRST_STEPS, index=False, float_format="%.9g")
    set_colours(asked, known[leaks.BY_HAND], out / COLOURS / guidance_folder(study.guidance))


def painted_by(
    asked: Params, pipeline: StableDiffusionPipeline, texts: list[str], latents: Tensor, guidance: float
) -> Sampled:
    with machine.accelerator(asked.machine).autocast():
        return sample(pipeline, texts, latents, guidance=guidance, **asked.sampling.model_dump())


def keep(parts: Sequence[Sampled], listed: pd.DataFrame, folder: Path) -> None:
    """Write pictures and latents."""
    last, pictures = (torch.cat(of) for of in zip(*parts, strict=True))
    write(pictures, listed, folder)
    write_latents(last, folder)


def first_estimates(asked: Params, pipeline: StableDiffusionPipeline, table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Means of white first latents and of what the denoiser makes of them at its first step, a row a channel.

    ``z0_hat`` from one call, without guidance: whether the model reads the picture's mean from the first latent.
    """
    place, step = machine.accelerator(asked.machine), first_step(pipeline.scheduler, asked.sampling.steps)
    z = first_latents(pipeline, seeds_of(asked, table), asked.data.size)
    alpha, s = torch.tensor(step.alpha), torch.tensor(step.s)
    kind = pipeline.scheduler.config.prediction_type
    words, parts = list(table["prompt"]), []
    with torch.no_grad(), place.autocast():
        for start in range(0, len(z), asked.sampling.batch):
            some = slice(start, start + asked.sampling.batch)
            embeddings = pipeline.encode_prompt(words[some], pipeline.device, 1, False)[0]
            output = pipeline.unet(z[some].to(place.device), step.time.to(place.device), embeddings).sample
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
            "said": means[1].flatten(),
        }
    )


def colours_of(asked: Params, leak: FrequencyLeak) -> Iterator[tuple[int, float, Tensor]]:
    """Channel, value in standard deviations, and the components (1, 1, c) of a first latent that has it."""
    channels = len(leak.rest.mean)
    spread = leak.low_covariance.diagonal() ** 0.5
    for channel in range(channels):
        for value in asked.signal_leak.values:
            low = torch.from_numpy(leak.low_mean).clone()
            low[channel] += value * spread[channel]
            yield channel, value, low.view(1, 1, channels)


def set_colours(asked: Params, leak: Leak, folder: Path) -> None:
    """The base's pictures with the mean of one latent channel set by hand, all else alike, by channel and value."""
    assert isinstance(leak, FrequencyLeak)
    study = asked.signal_leak
    table = prompts_of(asked, Arm("white", NATURAL)).query("place < @study.each_value")
    (pipeline, _), seeds = next(pipelines(asked, None, table)), seeds_of(asked, table)
    own = generators(seeds)
    noise = torch.cat([torch.randn((1, *leak.rest.mean.shape), generator=one) for one in own])
    after = [one.get_state() for one in own]  # the rest of the leak is drawn from here, for every value anew
    latents, tables = [], []
    for channel, value, low in colours_of(asked, leak):
        drawn = [leak.sample(1, Generator().set_state(state), low) for state in after]
        latents.append(carrying(torch.cat(drawn), noise, pipeline.scheduler, asked.sampling.steps))
        tables.append(table.assign(channel=channel, value=value))
    listed = pd.concat(tables, ignore_index=True)
    listed["file"] = [f"{row.channel}{row.value:+g}-{row.file}" for row in listed.itertuples()]
    keep([painted_by(asked, pipeline, list(listed["prompt"]), torch.cat(latents), study.guidance)], listed, folder)
