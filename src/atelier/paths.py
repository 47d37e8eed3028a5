"""Paths, relative to the folder that the pipeline runs in, and atomic replacement of an output folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
PIPELINES = Path("pipelines")  # one folder per study, with its pipeline file and its lock
BUILD = Path("build")
SCRATCH = Path(".scratch")  # checkpoints of unfinished runs; outside every DVC output, ignored by git
NOTEBOOKS = Path("notebooks")
RESULTS = Path("results")  # published pages, tracked by git

MANIFESTS = BUILD / "manifests"
PICTURES = BUILD / "pictures"  # unpacked from archives
BASE = BUILD / "base"
EVALUATOR = BUILD / "evaluator"
BARS = BUILD / "bars.json"
KNOWN_ARTISTS = BUILD / "known_artists.json"  # artists whose works a shipped base was trained on
CACHE = BUILD / "cache"
REFERENCE = BUILD / "reference"  # statistics of the held-out works, which measures compare with
LEAKS = BUILD / "leaks"  # fitted signal leaks
ADAPTERS = BUILD / "adapters"
DECODERS = BUILD / "decoders"
SAMPLES = BUILD / "samples"
MEASURES = BUILD / "measures"
COMPARED = BUILD / "compared"  # rows of measures collected for a page
STUDIES = BUILD / "studies"
SITE = BUILD / "site"
MARK = "ATELIER_PIPELINE"  # environment variable: set while the pipeline executes a notebook
BY_HAND = BUILD / "by-hand"  # outputs of notebooks run in JupyterLab; not tracked by DVC


def adapter(study: str, variant: str, training_seed: int) -> Path:
    """Folder of a variant's adapter (or denoiser) for one training seed."""
    return ADAPTERS / study / variant / str(training_seed)


def decoder(variant: str, training_seed: int) -> Path:
    """Folder of a retuned decoder for one training seed."""
    return DECODERS / variant / str(training_seed)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it replaces ``folder`` when the block ends, and an error leaves the old one."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
