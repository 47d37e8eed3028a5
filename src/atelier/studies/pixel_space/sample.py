"""Paint held-out works' prompts with the base and with every post-training, from the same noise and from both starts.

Noise depends on a picture's repeat and place in it alone, so that two variants' pictures are pairs.
"""

from functools import partial
from typing import NamedTuple

from atelier import machine, scratch
from atelier.data import prepare
from atelier.params import WHITE, Params
from atelier.sampling import conditions as sampling
from atelier.sampling import starts
from atelier.sampling.conditions import paint_conditions, write_conditions
from atelier.sampling.store import Location, guidance_folder
from atelier.studies.pixel_space.params import UNTUNED, Config, corrected
from atelier.studies.pixel_space.pictures import held_out_prompts
from atelier.studies.pixel_space.restore import write_restored
from atelier.studies.pixel_space.variant import inputs_of, key_of, load
from atelier.workspace import Workspace, replacing

PROCESSES = "several"  # share batches of pictures


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
    """Write one variant's conditions of one seed to ``build/samples/pixel_space/VARIANT/SEED``, and restored works."""
    config, seed = Config.of(params), params.protocol.training_seed(training_seed)
    if machine.is_main():
        write_restored(params, workspace, variant, seed)
    out = workspace.samples / config.STUDY / variant / str(seed)
    inputs = [workspace.starts, *inputs_of(params, workspace, variant, seed)]
    described = [condition for condition in all_conditions(params) if condition.variant == variant]
    key = key_of(params, variant) | {"pictures": config.pictures}
    run = scratch.of_stage(params, workspace, __name__, out, inputs, conditions=described, **key)
    painted = [listed(params, workspace, condition, seed) for condition in described]
    paint_conditions(params, painted, partial(load, params, workspace, variant, seed), run)
    machine.leave_to_main()
    with replacing(out) as part:
        write_conditions(painted, run, part)
    scratch.discard(run)


def listed(params: Params, workspace: Workspace, condition: Condition, seed: int) -> sampling.Condition:
    """A condition as the library paints it: its folder, prompts, first latents, guidance and steps."""
    config = Config.of(params)
    return sampling.Condition(
        f"{condition.variant}/{guidance_folder(config.guidance, condition.start)}",
        held_out_prompts(params, workspace, config.pictures, seed),
        starts.started(params, condition.start, starts.load(workspace.starts, prepare.WORKS), "picture"),
        config.guidance,
        params.sampling.steps,
    )


def location_of(params: Params, condition: Condition) -> Location:
    """Where a condition's pictures are stored."""
    config = Config.of(params)
    return Location(config.STUDY, condition.variant, config.guidance, condition.start, condition.variant)
