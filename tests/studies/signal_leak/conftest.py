"""The tiny world with its leaks, and with the study's models trained."""

from pathlib import Path

import pytest

from atelier import params as parameters
from atelier import paths
from atelier.params import Params
from atelier.studies.signal_leak import fit, measure, sample, train
from atelier.studies.signal_leak.params import Config


@pytest.fixture
def params(in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    for name in ("ADAPTERS", "SAMPLES", "LEAKS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(measure, "OUT", tmp_path / "measures" / measure.OUT.name)
    monkeypatch.setattr(measure, "SPECTRUM", tmp_path / "measures" / measure.SPECTRUM.name)
    sample.held_out.cache_clear()
    loaded = parameters.load()
    fit.main(loaded)
    return loaded


@pytest.fixture
def trained(params: Params) -> Params:
    for name in Config.of(params).trained:
        for seed in params.protocol.training_seeds:
            train.main(params, name, str(seed))
    return params
