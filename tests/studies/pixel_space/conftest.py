"""A study of pixel space after its trainings, small enough for tests: adapters, samples and restored works."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from atelier import params
from atelier.files import write_seal
from atelier.models import base
from atelier.studies.pixel_space import sample
from atelier.studies.pixel_space.params import UNTUNED, Config, seeds_of
from atelier.training.conversion import add_conversion
from atelier.training.lora import save_with_scheduler
from atelier.workspace import Workspace
from linked import linked

NAMES = ("latent", "both", "dpo-latent", "share-30")  # the last an ablation


class Studied(NamedTuple):
    """A workspace up to the stage before ``measure``, and its parameters; only measures are to be written to it."""

    params: params.Params
    workspace: Workspace


def fewer(workspace: Workspace, protocol: Mapping[str, Any] | None = None, **changes: Any) -> params.Params:
    """The tiny world's parameters with ``NAMES`` alone, and other changes of the protocol and this study's section."""
    read = params.read(workspace.params_file)
    section = read[Config.STUDY]
    trainings = {name: section["trainings"][name] for name in NAMES}
    section |= {"variants": list(NAMES[:-1]), "ablations": list(NAMES[-1:]), "trainings": trainings, "pictures": 4}
    sections = {Config.STUDY: section | changes, "protocol": read["protocol"] | dict(protocol or {})}
    return params.with_sections(sections, workspace.params_file)


@pytest.fixture
def config(workspace: Workspace) -> params.Params:
    return fewer(workspace)


def save_adapter(config: params.Params, workspace: Workspace, variant: str, seed: int) -> None:
    """An adapter that changes what the base paints, another one for each variant and seed; nobody trained it."""
    pipeline = base.load(workspace.base)
    trainable = add_conversion(pipeline.unet, Config.of(config).rank, seed)
    generator = torch.Generator().manual_seed(len(variant) * 10 + seed)
    with torch.no_grad():
        for value in trainable.values():
            value.copy_(0.05 * torch.randn(value.shape, generator=generator))
    folder = workspace.adapter(Config.STUDY, variant, seed)
    folder.mkdir(parents=True)
    save_with_scheduler(pipeline, folder, {})
    write_seal(folder)


@pytest.fixture(scope="session")
def studied(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Studied:
    workspace, threads = linked(tmp_path_factory.mktemp("pixel_space"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    config = fewer(workspace)
    for variant in (UNTUNED, *NAMES):
        for seed in seeds_of(config, variant):
            if variant != UNTUNED:
                save_adapter(config, workspace, variant, seed)
            sample.main(config, workspace, variant, str(seed))
    torch.set_num_threads(threads)
    return Studied(config, workspace)
