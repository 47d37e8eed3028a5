"""The tiny world with tuned models, whose outputs go to a test's folder."""

from pathlib import Path

import pytest

from atelier import params, paths
from atelier.params import Params
from atelier.studies.art_finetuning import diagnose, measure, styles


@pytest.fixture
def config(in_tiny_world: Path, art_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.setattr(paths, "ADAPTERS", art_adapters)
    for name in ("SAMPLES", "SCRATCH"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for module, name in ((diagnose, "ERRORS"), (diagnose, "CARRIED_MEASURES"), (measure, "OUT"), (styles, "OUT")):
        monkeypatch.setattr(module, name, tmp_path / getattr(module, name))
    monkeypatch.setattr("atelier.scratch.SCRATCH", tmp_path / "scratch")
    return params.load()
