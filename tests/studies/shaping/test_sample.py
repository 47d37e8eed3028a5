"""Pictures of held-out prompts: by which solver, from which start, and by which network in which part."""

import pytest
import torch

from atelier import params
from atelier.files import write_seal
from atelier.params import CORRECTED, WHITE, Params
from atelier.sampling import store
from atelier.sampling.sampler import first_latents
from atelier.sampling.trajectories import Solver, trajectories
from atelier.studies.shaping import sample
from atelier.studies.shaping import shaped as model
from atelier.studies.shaping import train as training
from atelier.studies.shaping.params import UNTUNED, UNTUNED_SDE, Config
from atelier.studies.shaping.sample import Condition, all_conditions, location_of
from atelier.training.conversion import add_conversion
from atelier.training.lora import save_with_scheduler
from atelier.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")


def save_adapter(config: Params, workspace: Workspace, variant: str, seed: int) -> None:
    """An adapter that changes what the base paints; nobody trained it."""
    pipeline = model.load(config, workspace)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in add_conversion(pipeline.unet, Config.of(config).rank, seed).values():
            value.copy_(0.05 * torch.randn(value.shape, generator=generator))
    folder = workspace.adapter("shaping", variant, seed)
    folder.mkdir(parents=True)
    save_with_scheduler(pipeline, folder, {})
    write_seal(folder)


def as_it_is(config: Params) -> Params:
    """Parameters of the base itself, which is not made a flow."""
    section = Config.of(config)
    return config.model_copy(update={section.STUDY: section.model_copy(update={"model": "base"})})


def test_the_base_is_painted_by_both_solvers_from_both_starts(shaped: Workspace, config: Params) -> None:
    config = as_it_is(config)
    sample.write(config, shaped, UNTUNED, 0)
    found = {}
    for condition in all_conditions(config)[:4]:
        assert condition.model == UNTUNED
        latents = store.read_latents([location_of(config, condition).folder(shaped.samples, 0)])
        assert len(latents) == 2 * 3
        found[condition.cell] = latents
    assert set(found) == {UNTUNED, f"{UNTUNED}-corrected", UNTUNED_SDE, f"{UNTUNED_SDE}-corrected"}
    assert len({tuple(each.flatten().tolist()[:5]) for each in found.values()}) == 4
    assert not list(shaped.scratch.glob("samples-*"))


def test_conditions_are_the_variants_with_their_solvers(config: Params) -> None:
    listed = all_conditions(as_it_is(config))
    assert listed[0] == Condition(UNTUNED, "ode", WHITE)
    assert Condition("pgraft-50-sde", "sde", CORRECTED) in listed
    assert len(listed) == 2 * (2 + len(Config.of(config).names))


def test_a_flow_whose_path_ends_in_pure_noise_begins_with_white_noise_alone(shaped: Workspace, config: Params) -> None:
    listed = all_conditions(config)
    assert {condition.start for condition in listed} == {WHITE}
    assert len(listed) == 2 + len(Config.of(config).names)
    sample.write(config, shaped, UNTUNED, 0)
    flow, other = (
        store.read_latents([location_of(config, condition).folder(shaped.samples, 0)]) for condition in listed[:2]
    )
    assert (flow - other).abs().mean() > 0.05  # with noise at every step, and without
    sample.write(as_it_is(config), shaped, UNTUNED, 0)
    base = store.read_latents([location_of(as_it_is(config), listed[0]).folder(shaped.samples, 0)])
    assert (flow - base).abs().mean() > 0.05


def test_below_a_level_the_base_goes_on_from_the_tuned_state(shaped: Workspace, config: Params) -> None:
    save_adapter(config, shaped, "pgraft-50", 0)
    pipeline, parts = training.load(config, shaped, "pgraft-50", 0)
    assert parts.number == 2
    pipeline.set_progress_bar_config(disable=True)
    seeds, asked, how = [("s", n) for n in range(2)], ["a red boat", "a blue house"], Solver(4.0, 4, 2)
    noise = first_latents(pipeline, seeds, 64)

    def path(parts: object = None) -> object:
        (found,) = trajectories(pipeline, asked, noise, seeds, how, keep=[1, 2, 3], parts=parts)
        return found

    untuned = path()
    both = path(parts)
    parts.on()
    tuned = path()
    assert torch.equal(both.kept[2], tuned.kept[2])
    assert not torch.equal(both.kept[1], untuned.kept[1])
    assert not torch.equal(both.kept[3], tuned.kept[3])
    assert not torch.equal(both.last, untuned.last)


def test_a_variants_pictures_are_its_own_parts(shaped: Workspace, config: Params) -> None:
    """What is stored is what the two networks paint, and another variant's is not."""
    for variant in ("pgraft-50", "graft"):
        save_adapter(config, shaped, variant, 0)
        sample.write(config, shaped, variant, 0)
    cells = {
        variant: store.read_latents([location_of(config, Condition(variant, "ode")).folder(shaped.samples, 0)])
        for variant in ("pgraft-50", "graft")
    }
    assert not torch.equal(*cells.values())
    read = params.read(shaped.params_file)
    section = read["shaping"]
    section["trainings"]["pgraft-50"] = {}  # all steps by the adapter, which is the other's
    other = params.with_sections({"shaping": section}, shaped.params_file)
    sample.write(other, shaped, "pgraft-50", 0)
    again = store.read_latents([location_of(other, Condition("pgraft-50", "ode")).folder(shaped.samples, 0)])
    assert torch.equal(again, cells["graft"])
