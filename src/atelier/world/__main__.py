"""``python -m atelier.world STAGE``: run one stage of the world's pipeline, in the folder of its params.yaml."""

import sys
from pathlib import Path

from atelier import machine
from atelier.cli import exit_code
from atelier.world import params
from atelier.world.workspace import WorldWorkspace

TRAINING = ("trunk", "evaluator", "autoencoder", "decoder", "denoiser")
USAGE = f"usage: python -m atelier.world {' | '.join(TRAINING)} | conversion KIND | defects [SHIPPED] | ship"
USAGE += " | report [SHIPPED] | pilots SHIPPED"


def run(arguments: list[str]) -> None:
    workspace = WorldWorkspace()
    config = params.load(workspace.params_file)
    machine.settle(config.machine.threads)
    # imported here because these libraries read the environment at import
    from atelier.world import defects, pilots, report, ship, stages

    match arguments:
        case [stage] if stage in TRAINING:
            getattr(stages, stage)(config, workspace)
        case ["conversion", kind]:
            stages.conversion(config, workspace, kind)
        case ["defects"]:
            defects.defects(config, workspace, workspace.base)
        case ["defects", folder]:
            defects.defects(config, workspace, Path(folder) / "base")
        case ["ship"]:
            ship.ship(config, workspace)
        case ["report"]:
            report.report(config, workspace, workspace.shipped)
        case ["report", folder]:
            report.report(config, workspace, Path(folder))
        case ["pilots", folder]:
            pilots.pilots(config, workspace, Path(folder))
        case _:
            raise ValueError(USAGE)


def main(arguments: list[str]) -> int:
    return exit_code(run, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
