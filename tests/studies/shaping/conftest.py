"""The tiny world of the study of shaping after its stages ``rewards``, ``convert`` and ``untuned``."""

from pathlib import Path

import pytest
import torch

from atelier import params
from atelier.files import write_seal
from atelier.params import Params
from atelier.studies.shaping import convert, rewards, untuned
from atelier.studies.shaping import shaped as model
from atelier.studies.shaping.params import Config
from atelier.training.conversion import add_conversion
from atelier.training.lora import save_with_scheduler
from atelier.workspace import Workspace
from linked import SHARED, linked

OF_STUDY = ("build/shaping/rewards", "build/shaping/candidates", "build/shaping/flow/base")


@pytest.fixture(scope="session")
def with_candidates(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with candidates of both seeds; not to be written to."""
    workspace, threads = linked(tmp_path_factory.mktemp("shaping"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    config = params.load(workspace.params_file)
    rewards.main(config, workspace)
    convert.main(config, workspace)
    for seed in config.protocol.training_seeds:
        untuned.main(config, workspace, str(seed))
    torch.set_num_threads(threads)
    return workspace.root


@pytest.fixture
def shaped(with_candidates: Path, tmp_path: Path, one_thread: None) -> Workspace:
    """A workspace that reads them; what a test writes is its alone."""
    return linked(tmp_path / "shaped", with_candidates, [*SHARED, *OF_STUDY])


@pytest.fixture
def config(shaped: Workspace) -> Params:
    return params.load(shaped.params_file)


@pytest.fixture
def few(config: Params, shaped: Workspace) -> Params:
    """Parameters with three variants alone, whose adapters are there for every seed: they change what the base paints.

    Nobody trained them.
    """
    section = Config.of(config)
    names = ["graft", "pgraft-50", "graft-sde"]
    fewer = {
        "variants": names,
        "second": [],
        "third": [],
        "trainings": {name: section.trainings[name] for name in names},
    }
    for seed in config.protocol.training_seeds:
        for number, name in enumerate(names):
            pipeline = model.load(config, shaped)
            generator = torch.Generator().manual_seed(10 * seed + number)
            with torch.no_grad():
                for value in add_conversion(pipeline.unet, section.rank, seed).values():
                    value.copy_(0.05 * torch.randn(value.shape, generator=generator))
            folder = shaped.adapter(section.STUDY, name, seed)
            folder.mkdir(parents=True)
            save_with_scheduler(pipeline, folder, {"candidates": 8, "accepted": 2})
            write_seal(folder)
    return config.model_copy(update={section.STUDY: section.model_copy(update=fewer)})
