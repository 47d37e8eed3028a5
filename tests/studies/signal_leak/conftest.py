"""The tiny world with its leaks, and with the study's models trained."""

import pytest

from atelier import params as parameters
from atelier.params import Params
from atelier.studies.signal_leak import fit, train
from atelier.studies.signal_leak.params import Config
from atelier.workspace import Workspace


@pytest.fixture
def params(workspace: Workspace) -> Params:
    loaded = parameters.load(workspace.params_file)
    fit.main(loaded, workspace)
    return loaded


@pytest.fixture
def trained(params: Params, workspace: Workspace) -> Params:
    for name in Config.of(params).trained:
        for seed in params.protocol.training_seeds:
            train.main(params, workspace, name, str(seed))
    return params
