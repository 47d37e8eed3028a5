"""One training run of a variant and seed: resumable, with its result written atomically."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from atelier import machine, scratch
from atelier.files import write_table
from atelier.params import Optimisation, Params
from atelier.training.averages import Averages
from atelier.training.loop import Task, Watch, fit
from atelier.workspace import replacing

HISTORY = "history.csv"


class TrainingRun(NamedTuple):
    """``key``: everything that determines the result, JSON-able; it is written to the result's card."""

    study: str
    variant: str
    training_seed: int
    key: dict[str, Any]
    output: Path
    scratch: Path  # where its checkpoints are

    def fit(
        self,
        task: Task,
        optimisation: Optimisation,
        accelerator: Any,
        seed: int,
        phase: str = "",
        averages: Averages | None = None,
        watch: Watch | None = None,
    ) -> pd.DataFrame:
        """Train and return the history; ``phase`` distinguishes several trainings in one run."""
        return fit(
            task,
            optimisation,
            seed=seed,
            scratch=self.scratch / phase,
            accelerator=accelerator,
            averages=averages,
            watch=watch,
        )

    def write(self, save: Callable[[Path, dict[str, Any]], None], history: pd.DataFrame, **card: Any) -> None:
        """Write the result atomically: ``save`` writes a model and its card into a folder; the history is added.

        The main process writes, the others wait.
        """
        if machine.is_main():
            with replacing(self.output) as part:
                save(part, {**self.key, "study": self.study, "name": self.variant, **card})
                write_table(part / HISTORY, history)
        machine.wait()

    def discard(self) -> None:
        """Delete the checkpoints, once the result has been written."""
        if machine.is_main():
            scratch.discard(self.scratch)


def training_run(
    params: Params, checkpoints: Path, study: str, variant: str, training_seed: int, output: Path, **key: Any
) -> TrainingRun:
    """A run of this study determined by ``key``, the machine and both seeds.

    ``checkpoints``: the workspace's scratch folder, in which the run has one of its name.
    """
    key = {
        **key,
        "machine": params.machine.model_dump(mode="json"),
        "seed": params.seed,
        "training_seed": training_seed,
    }
    name = f"{study}-{variant}-{training_seed}"
    run = scratch.folder(checkpoints, f"atelier.studies.{study}.train", name, **key)
    return TrainingRun(study, variant, training_seed, key, output, run)


def check(params: Params, key: str, variant: str, known: Collection[str], training_seed: int) -> None:
    """Raise ValueError for a variant missing in ``key`` (such as ``art_finetuning.adapters``), or an unknown seed."""
    if variant not in known:
        raise ValueError(f"{key}: no variant '{variant}', there are {', '.join(known)}")
    params.protocol.check_seed(training_seed)
