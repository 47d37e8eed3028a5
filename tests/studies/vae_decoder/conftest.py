"""The tiny world."""

import pytest

from atelier import params as parameters
from atelier.params import Params
from atelier.workspace import Workspace


@pytest.fixture
def params(workspace: Workspace) -> Params:
    return parameters.load(workspace.params_file)
