"""Paint held-out works' prompts with every post-training, from the same noise.

Followed variants are also painted with averages of their parameters, and with other numbers of steps.
"""

from collections.abc import Callable
from typing import NamedTuple

from diffusers import StableDiffusionPipeline

from atelier import scratch
from atelier.evaluation.cells import Location
from atelier.params import Params
from atelier.sampling import conditions as sampling
from atelier.sampling.conditions import paint_conditions, white_noise, write_conditions
from atelier.sampling.held_out import held_out_table
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import UNTUNED, guidance_folder
from atelier.studies.latent_perceptual.params import Config
from atelier.studies.latent_perceptual.train import start, tuned_pipeline
from atelier.workspace import Workspace, replacing

AGAIN = "again"  # the plain variant under other noise, to estimate the effect of chance


class Condition(NamedTuple):
    """Pictures by one variant: with its last parameters or an average, and a number of steps (None: the default)."""

    name: str
    variant: str
    half_life: float | None = None
    steps: int | None = None
    noise: str = "picture"


def untuned(variant: str) -> str:
    """The cell name of a variant's initial model."""
    return f"{UNTUNED}-{variant}"


def in_steps(variant: str, steps: int) -> str:
    return f"{variant}-steps-{steps}"


def averaged(variant: str, half_life: float) -> str:
    return f"{variant}-average-{half_life:g}"


def all_conditions(params: Params) -> list[Condition]:
    """All conditions, grouped by variant; also the initial models of plain variants without previous steps."""
    config, listed = Config.of(params), []
    for name, training in config.trainings.items():
        listed.append(Condition(name, name))
        plain = config.plain_of(name) == name
        if plain and not training.before:
            listed.append(Condition(untuned(name), name))
        if plain and training.kind == "base" and not training.before:
            listed.append(Condition(AGAIN, name, noise="picture again"))
        if name in config.followed:
            listed += [Condition(averaged(name, each), name, half_life=each) for each in config.averages]
            listed += [Condition(in_steps(name, each), name, steps=each) for each in config.steps]
    return listed


def main(params: Params, workspace: Workspace, variant: str) -> None:
    """Write one variant's conditions to ``build/samples/latent_perceptual/VARIANT``."""
    config = Config.of(params)
    if variant not in config.trainings:
        known = ", ".join(config.variants)
        raise ValueError(f"latent_perceptual.trainings: no variant '{variant}', there are {known}")
    out = workspace.samples / config.STUDY / variant
    table = held_out_table(params, workspace.manifests, params.protocol.prompts.level, config.pictures)
    inputs = [workspace.base, workspace.manifests, workspace.adapters / config.STUDY / variant]
    inputs.append(workspace.named(params.data.folder) / "conversions")  # what variants of another kind begin with
    training = config.trainings[variant].model_dump(mode="json")
    key = {"training": training, "guidance": config.guidance, "pictures": config.pictures}
    described = [condition for condition in all_conditions(params) if condition.variant == variant]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, conditions=described, **key)
    painted = [
        (
            sampling.Condition(
                f"{condition.name}/{guidance_folder(config.guidance)}",
                table,
                white_noise(params, condition.noise),
                config.guidance,
                condition.steps or params.sampling.steps,
            ),
            condition,
        )
        for condition in described
    ]
    for listed, condition in painted:
        paint_conditions(params, [listed], loader(params, workspace, condition), trained(condition), run)
    with replacing(out) as part:
        for listed, condition in painted:
            write_conditions(params, [listed], trained(condition), run, part)
    scratch.discard(run)


def trained(condition: Condition) -> bool:
    """Whether a condition is painted by a trained model rather than the initial one."""
    return condition.name != untuned(condition.variant)


def loader(params: Params, workspace: Workspace, condition: Condition) -> Callable[[int], StableDiffusionPipeline]:
    """A function from training seed to a condition's pipeline."""
    if not trained(condition):
        return lambda seed: with_ddim(start(params, workspace, Config.of(params).trainings[condition.variant]))
    return lambda seed: with_ddim(tuned_pipeline(params, workspace, condition.variant, seed, condition.half_life))


def location_of(params: Params, condition: Condition) -> Location:
    """Where a condition's pictures are stored."""
    config = Config.of(params)
    return Location(config.STUDY, f"{condition.variant}/{condition.name}", config.guidance)
