"""Inverse noise correction from the base to its measures, in the tiny world."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.evaluation.tables import read_rows
from atelier.models.latents import encode_prompts
from atelier.sampling.sampler import last_latents
from atelier.studies.shaping import convergence, correct, flow, flow_base, flow_measure, invert
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace
from linked import linked
from tolerance import assert_close


@pytest.fixture(scope="module")
def made(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after all stages of the correction, run once."""
    workspace, threads = linked(tmp_path_factory.mktemp("flow"), tiny_world), torch.get_num_threads()
    torch.set_num_threads(1)
    config = params.load(workspace.params_file)
    invert.main(config, workspace)
    for seed in config.protocol.training_seeds:
        correct.main(config, workspace, str(seed))
        flow.main(config, workspace, str(seed))
    flow_measure.main(config, workspace)
    torch.set_num_threads(threads)
    return workspace


@pytest.fixture
def config(made: Workspace, one_thread: None) -> params.Params:
    return params.load(made.params_file)


@pytest.fixture
def measures(made: Workspace) -> pd.DataFrame:
    return read_rows(made.measures / flow_measure.OUT)


def value(table: pd.DataFrame, measure: str, cell: str) -> float:
    rows = table[(table["measure"] == measure) & (table["cell"] == cell)]
    assert len(rows) == 1, (measure, cell)
    return float(rows["whole"].iloc[0])


def test_the_stages(made: Workspace, config: params.Params, measures: pd.DataFrame) -> None:
    print(measures.to_string())
    assert set(measures["cell"]) == set(Config.of(config).flow.cells)
