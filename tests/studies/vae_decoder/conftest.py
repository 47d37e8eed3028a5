"""The tiny world, with what the study writes in a folder of its own."""

from pathlib import Path

import pytest

from atelier import params as parameters
from atelier import paths
from atelier.params import Params
from atelier.studies.vae_decoder import measure, reconstruct


@pytest.fixture
def params(in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    for name in ("ADAPTERS", "DECODERS", "SAMPLES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for module in (measure, reconstruct):
        monkeypatch.setattr(module, "OUT", tmp_path / "measures" / module.OUT.name)
    monkeypatch.setattr(reconstruct, "REPAINTED", tmp_path / "samples" / "repainted")
    return parameters.load()
