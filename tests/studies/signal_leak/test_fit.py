"""Leaks of the study: which pictures each was fitted to."""

import pytest

from atelier.methods import signal_leak as method
from atelier.studies.signal_leak import fit
from atelier.workspace import Workspace


@pytest.mark.usefixtures("params")
def test_leaks_are_of_training_pictures_and_say_which(workspace: Workspace) -> None:
    leaks = fit.load_all(workspace.leaks)
    assert leaks["pixel"].n == len(fit.training_pictures(workspace.manifests, None)[0])
    assert leaks["2-Mosaic"].n == 2
    for name, leak in leaks.items():
        again, provenance = method.load(workspace.leaks / f"{name}.safetensors")
        assert again.n == leak.n == len(provenance["pictures"].splitlines())
    few, every = (
        set(method.load(workspace.leaks / f"{name}.safetensors")[1]["pictures"].splitlines())
        for name in ("2-Mosaic", "all-Mosaic")
    )
    assert few < every
    assert every == set(fit.training_pictures(workspace.manifests, "Mosaic")[0]["path"])
