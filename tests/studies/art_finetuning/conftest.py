"""The tiny world with tuned models."""

from pathlib import Path

import pytest

from atelier import params
from atelier.params import Params
from atelier.workspace import Workspace


@pytest.fixture
def config(workspace: Workspace) -> Params:
    return params.load(workspace.params_file)


@pytest.fixture
def tuned_workspace(workspace: Workspace, art_adapters: Path) -> Workspace:
    """Its adapters are shared, and not to be written to."""
    workspace.adapters.symlink_to(art_adapters)
    return workspace
