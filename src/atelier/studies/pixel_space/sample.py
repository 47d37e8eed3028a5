"""Paint held-out works' prompts with the base and with every post-training, from the same noise and from both starts.

Noise depends on a picture's repeat and place in it alone, so that two variants' pictures are pairs.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from diffusers import StableDiffusionPipeline

from atelier import scratch
from atelier.data import prepare
from atelier.files import check_seal
from atelier.models import base
from atelier.params import WHITE, Params
from atelier.sampling import conditions as sampling
from atelier.sampling import starts
from atelier.sampling.conditions import paint_conditions, write_conditions
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import Location, guidance_folder
from atelier.studies.pixel_space.params import UNTUNED, Config, corrected
from atelier.studies.pixel_space.pictures import asked, folder
from atelier.studies.pixel_space.train import check_seed, tuned_pipeline
from atelier.workspace import Workspace, replacing


class Condition(NamedTuple):
    """Pictures by one variant, or by the base (``UNTUNED``), from one start."""

    variant: str
    start: str = WHITE

    @property
    def cell(self) -> str:
        """The name of what is measured of it."""
        return self.variant if self.start == WHITE else corrected(self.variant)


def all_conditions(params: Params) -> list[Condition]:
    """All conditions, grouped by variant, the base first."""
    config = Config.of(params)
    return [Condition(name, start) for name in (UNTUNED, *config.names) for start in config.starts(name)]


def main(params: Params, workspace: Workspace, variant: str, training_seed: str) -> None:
    """Write one variant's conditions of one seed to ``build/samples/pixel_space/VARIANT/SEED``."""
    config, seed = Config.of(params), params.protocol.training_seed(training_seed)
    out = workspace.samples / config.STUDY / variant / str(seed)
    inputs = inputs_of(params, workspace, variant, seed)
    described = [condition for condition in all_conditions(params) if condition.variant == variant]
    key = key_of(params, variant) | {"pictures": config.pictures}
    run = scratch.of_stage(params, workspace, __name__, out, inputs, conditions=described, **key)
    painted = [listed(params, workspace, condition, seed) for condition in described]
    paint_conditions(params, painted, partial(load, params, workspace, variant, seed), run)
    with replacing(out) as part:
        write_conditions(painted, run, part)
    scratch.discard(run)


def inputs_of(params: Params, workspace: Workspace, variant: str, seed: int) -> list[Path]:
    """The files and folders that a variant's pictures depend on; ValueError for an unknown variant or seed."""
    inputs = [workspace.base, workspace.manifests, workspace.starts, folder(workspace)]
    if variant != UNTUNED:
        check_seed(params, variant, seed)
        inputs.append(workspace.adapter(Config.STUDY, variant, seed))
        inputs.append(workspace.named(params.data.folder) / "conversions")  # what variants of another kind begin with
    return inputs


def key_of(params: Params, variant: str) -> dict[str, Any]:
    """The parameters that a variant's pictures depend on."""
    config = Config.of(params)
    training = None if variant == UNTUNED else config.trainings[variant].model_dump(mode="json")
    return {"guidance": config.guidance, "rank": config.rank, "training": training}


def listed(params: Params, workspace: Workspace, condition: Condition, seed: int) -> sampling.Condition:
    """A condition as the library paints it: its folder, prompts, first latents, guidance and steps."""
    config = Config.of(params)
    return sampling.Condition(
        f"{condition.variant}/{guidance_folder(config.guidance, condition.start)}",
        asked(params, workspace, config.pictures, seed),
        starts.started(params, condition.start, starts.load(workspace.starts, prepare.WORKS), "picture"),
        config.guidance,
        params.sampling.steps,
    )


def load(params: Params, workspace: Workspace, variant: str, seed: int) -> StableDiffusionPipeline:
    """The pipeline of a variant and training seed; the base's for ``UNTUNED``."""
    if variant == UNTUNED:
        return with_ddim(base.load(check_seal(workspace.base)))
    return with_ddim(tuned_pipeline(params, workspace, variant, seed))


def location_of(params: Params, condition: Condition) -> Location:
    """Where a condition's pictures are stored."""
    config = Config.of(params)
    return Location(config.STUDY, condition.variant, config.guidance, condition.start, condition.variant)
