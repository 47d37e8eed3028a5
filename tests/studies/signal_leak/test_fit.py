"""Leaks of the study: which pictures each was fitted to."""

from atelier import paths
from atelier.methods import signal_leak as method
from atelier.params import Params
from atelier.studies.signal_leak import fit


def test_leaks_are_of_training_pictures_and_say_which(params: Params) -> None:
    leaks = fit.load_all()
    assert leaks["pixel"].n == len(fit.training_pictures(params, None)[0])
    assert leaks["2-Mosaic"].n == 2
    for name, leak in leaks.items():
        again, provenance = method.load(paths.LEAKS / f"{name}.safetensors")
        assert again.n == leak.n == len(provenance["pictures"].splitlines())
    few, every = (
        set(method.load(paths.LEAKS / f"{name}.safetensors")[1]["pictures"].splitlines())
        for name in ("2-Mosaic", "all-Mosaic")
    )
    assert few < every
    assert every == set(fit.training_pictures(params, "Mosaic")[0]["path"])
