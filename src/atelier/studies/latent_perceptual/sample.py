"""Paint held-out pictures' prompts with every post-training, from the same noise, and from noise with the leak.

Followed variants are also painted with averages of their parameters, and with other numbers of steps.
"""

from functools import partial
from typing import NamedTuple

from diffusers import StableDiffusionPipeline

from atelier import machine, scratch
from atelier.params import CORRECTED, WHITE, Params
from atelier.sampling import conditions as sampling
from atelier.sampling import starts
from atelier.sampling.conditions import Start, paint_conditions, white_noise, write_conditions
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import Location, guidance_folder
from atelier.studies.latent_perceptual.params import (
    Config,
    again,
    averaged,
    corrected,
    in_steps,
    untuned,
)
from atelier.studies.latent_perceptual.pictures import folder, sources
from atelier.studies.latent_perceptual.train import check_seed, start, tuned_pipeline
from atelier.workspace import Workspace, replacing

PROCESSES = "several"  # share batches of pictures


class Condition(NamedTuple):
    """Pictures by one variant: with its last parameters or an average, and a number of steps (None: the default)."""

    name: str  # of the model: the cell's, but for the start
    variant: str
    half_life: float | None = None
    steps: int | None = None
    noise: str = "picture"
    start: str = WHITE

    @property
    def cell(self) -> str:
        """The name of what is measured of it."""
        return self.name if self.start == WHITE else corrected(self.name)


def all_conditions(params: Params) -> list[Condition]:
    """All conditions, grouped by variant; also the initial models of plain variants without previous steps."""
    config, listed = Config.of(params), []
    for name in config.names:
        models = [Condition(name, name)]
        if config.begins(name):
            models.append(Condition(untuned(name), name))
        if config.repeated(name):
            models.append(Condition(again(name), name, noise="picture again"))
        listed += [model._replace(start=start) for model in models for start in config.starts(name)]
        if name in config.followed:
            listed += [Condition(averaged(name, each), name, half_life=each) for each in config.averages]
            listed += [Condition(in_steps(name, each), name, steps=each) for each in config.steps]
    return listed


def main(params: Params, workspace: Workspace, variant: str, training_seed: str) -> None:
    """Write one variant's conditions of one seed to ``build/samples/latent_perceptual/VARIANT/SEED``."""
    config, seed = Config.of(params), params.protocol.training_seed(training_seed)
    check_seed(params, variant, seed)
    out = workspace.samples / config.STUDY / variant / str(seed)
    inputs = [workspace.base, workspace.manifests, workspace.adapter(config.STUDY, variant, seed), folder(workspace)]
    inputs.append(workspace.starts)
    inputs.append(workspace.named(params.data.folder) / "conversions")  # what variants of another kind begin with
    key = {name: getattr(config, name) for name in ("guidance", "pictures", "pictures_in_steps", "rank")} | {
        "training": config.trainings[variant].model_dump(mode="json")
    }
    described = [condition for condition in all_conditions(params) if condition.variant == variant]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, conditions=described, **key)
    painted = [listed(params, workspace, condition, seed) for condition in described]
    for one, condition in zip(painted, described, strict=True):
        paint_conditions(params, [one], partial(load, params, workspace, condition, seed), run)
    machine.leave_to_main()
    with replacing(out) as part:
        write_conditions(painted, run, part)
    scratch.discard(run)


def listed(params: Params, workspace: Workspace, condition: Condition, seed: int) -> sampling.Condition:
    """A condition as the library paints it: its folder, prompts, first latents, guidance and steps."""
    config = Config.of(params)
    number = config.pictures if condition.steps is None else config.pictures_in_steps
    return sampling.Condition(
        f"{condition.name}/{guidance_folder(config.guidance, condition.start)}",
        sources(params, workspace, config.trainings[condition.variant]).prompts(number, seed),
        first_latents(params, workspace, condition),
        config.guidance,
        condition.steps or params.sampling.steps,
    )


def first_latents(params: Params, workspace: Workspace, condition: Condition) -> Start:
    """White noise, or the same noise with the leak of the pictures that the variant is trained on."""
    if condition.start != CORRECTED:
        return white_noise(params, condition.noise)
    kind = sources(params, workspace, Config.of(params).trainings[condition.variant]).kind
    return starts.started(params, CORRECTED, starts.load(workspace.starts, kind), condition.noise)


def load(params: Params, workspace: Workspace, condition: Condition, seed: int) -> StableDiffusionPipeline:
    """The pipeline of a condition and training seed."""
    if condition.name == untuned(condition.variant):
        return with_ddim(start(params, workspace, Config.of(params).trainings[condition.variant]))
    return with_ddim(tuned_pipeline(params, workspace, condition.variant, seed, condition.half_life))


def location_of(params: Params, condition: Condition) -> Location:
    """Where a condition's pictures are stored."""
    config = Config.of(params)
    return Location(config.STUDY, condition.variant, config.guidance, condition.start, condition.name)
