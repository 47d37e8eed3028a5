"""Where things are, relative to the folder that the pipeline runs in, and how a folder is put there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
BUILD = Path("build")
SCRATCH = Path(".scratch")  # checkpoints of unfinished runs; outside every DVC output, ignored by git
NOTEBOOKS = Path("notebooks")
RESULTS = Path("results")  # published pages, tracked by git

MANIFESTS = BUILD / "manifests"
PICTURES = BUILD / "pictures"  # unpacked from archives
BASE = BUILD / "base"
EVALUATOR = BUILD / "evaluator"
BARS = BUILD / "bars.json"
KNOWN_ARTISTS = BUILD / "known_artists.json"  # whose works a shipped base learnt
CACHE = BUILD / "cache"
LEAKS = BUILD / "leaks"  # models of what leaks from first latents
ADAPTERS = BUILD / "adapters"
DECODERS = BUILD / "decoders"
SAMPLES = BUILD / "samples"
MEASURES = BUILD / "measures"
STUDIES = BUILD / "studies"
SITE = BUILD / "site"
MARK = "ATELIER_PIPELINE"  # in the environment: the pipeline's runner executes the notebook
BY_HAND = BUILD / "by-hand"  # of notebooks run in JupyterLab; DVC does not look at it


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``folder`` when the block ends; an error leaves the old one."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
