"""The files and folders that the pipeline reads and writes, and atomic replacement of an output folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atelier.files import ENDING, FileFault, fault_of, filling, write_seal

MARK = "ATELIER_PIPELINE"  # environment variable: set while the pipeline executes a notebook


@dataclass(frozen=True)
class Workspace:
    """A folder that the pipeline runs in, and the path of everything in it.

    Stages and notebooks run in that folder itself: theirs is ``Workspace()``, and its paths are relative.
    """

    root: Path = Path()

    def named(self, path: str) -> Path:
        """A file or folder that a parameter names: relative to the root, unless it is absolute."""
        return self.root / path

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def pipelines(self) -> Path:
        """A folder a study, with its pipeline file and its lock."""
        return self.root / "pipelines"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def papers(self) -> Path:
        """Tables of numbers that the papers print."""
        return self.root / "docs" / "papers"

    @property
    def results(self) -> Path:
        """Published pages, tracked by git."""
        return self.root / "results"

    @property
    def scratch(self) -> Path:
        """Checkpoints of unfinished runs; outside every DVC output, ignored by git."""
        return self.root / ".scratch"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def manifests(self) -> Path:
        return self.build / "manifests"

    @property
    def pictures(self) -> Path:
        """Pictures unpacked from archives."""
        return self.build / "pictures"

    @property
    def base(self) -> Path:
        return self.build / "base"

    @property
    def evaluator(self) -> Path:
        return self.build / "evaluator"

    @property
    def bars(self) -> Path:
        return self.build / "bars.json"

    @property
    def known_artists(self) -> Path:
        """Artists whose works a shipped base was trained on."""
        return self.build / "known_artists.json"

    @property
    def cache(self) -> Path:
        return self.build / "cache"

    @property
    def reference(self) -> Path:
        """Statistics of the held-out works, which measures compare with."""
        return self.build / "reference"

    @property
    def starts(self) -> Path:
        """Leaks of works and of photographs, for first latents that every study also starts from."""
        return self.build / "starts"

    @property
    def leaks(self) -> Path:
        """Fitted signal leaks."""
        return self.build / "leaks"

    @property
    def adapters(self) -> Path:
        return self.build / "adapters"

    def adapter(self, study: str, variant: str, training_seed: int) -> Path:
        """Folder of a variant's adapter (or denoiser) for one training seed."""
        return self.adapters / study / variant / str(training_seed)

    @property
    def decoders(self) -> Path:
        return self.build / "decoders"

    def decoder(self, variant: str, training_seed: int) -> Path:
        """Folder of a retuned decoder for one training seed."""
        return self.decoders / variant / str(training_seed)

    @property
    def samples(self) -> Path:
        return self.build / "samples"

    @property
    def measures(self) -> Path:
        return self.build / "measures"

    def compared(self, study: str) -> Path:
        """Rows of measures collected for a study's page."""
        return self.build / "compared" / f"{study}.csv"

    @property
    def studies(self) -> Path:
        return self.build / "studies"

    @property
    def failed(self) -> Path:
        """Notebooks in which a cell failed."""
        return self.build / "failed"

    @property
    def by_hand(self) -> Path:
        """Outputs of notebooks run in JupyterLab; not tracked by DVC."""
        return self.build / "by-hand"

    @property
    def site(self) -> Path:
        return self.build / "site"


@contextmanager
def replacing(folder: Path, sealed: bool = True) -> Iterator[Path]:
    """Yield a new folder to fill; it replaces ``folder`` when the block ends, and a fault leaves the old one.

    The new folder is sealed (``files.write_seal``), unless it is published for others to read and change.
    """
    part, old = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        with filling(part):
            yield part
            if sealed:
                write_seal(part)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except ENDING as fault:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        if type(fault) in (FileFault, ValueError):  # the user knows the folder by its own name
            fault.args = (str(fault).replace(str(part), str(folder)),)
        elif isinstance(fault, OSError) and fault.errno is not None:
            raise fault_of(folder, fault) from fault
        raise
    shutil.rmtree(old, ignore_errors=True)
