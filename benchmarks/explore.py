"""``python benchmarks/explore.py [FOLDER]``: seconds until the panels of the explore notebooks answer a change.

FOLDER is a checkout in which ``make repro`` has run, this one if none is named. A change is one of seed or work, of
which nothing has been kept.
"""

import os
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType

from atelier import machine, params
from atelier.studies.latent_perceptual import explore as decoder_features
from atelier.studies.shaping import explore as shaping
from atelier.studies.signal_leak import explore as signal_leak
from atelier.workspace import Workspace

CHANGED = {signal_leak: "seed", decoder_features: "work", shaping: "seed"}
VALUES = range(2, 7)


def seconds(explore: ModuleType, config: params.Params, workspace: Workspace) -> list[float]:
    """Of each change, by the clock."""
    control = (panel := explore.Panel(explore.load(config, workspace))).controls[CHANGED[explore]]
    times = []
    for value in VALUES:
        start = time.perf_counter()
        control.value = value
        times.append(time.perf_counter() - start)
    assert panel.time.value
    return times


def main(folder: Path) -> None:
    os.chdir(folder)
    workspace = Workspace()
    config = params.load(workspace.params_file)
    machine.settle(config.machine.threads)
    for explore, control in CHANGED.items():
        times = seconds(explore, config, workspace)
        name = explore.__name__.split(".")[-2]
        middle, slowest = statistics.median(times), max(times)
        print(f"{name}: a change of {control} in {middle:.2f} s (median of {len(times)}, slowest {slowest:.2f})")
    print(f"profile {config.profile}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))
