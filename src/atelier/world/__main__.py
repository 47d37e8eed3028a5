"""``python -m atelier.world STAGE``: run one stage of the world's pipeline, in the folder of its params.yaml."""

import sys
from pathlib import Path

from atelier import machine
from atelier.cli import exit_code
from atelier.world import params

TRAINING = ("trunk", "evaluator", "autoencoder", "decoder", "denoiser")
USAGE = f"usage: python -m atelier.world {' | '.join(TRAINING)} | conversion KIND | ship | report [SHIPPED]"


def run(arguments: list[str]) -> None:
    config = params.load()
    machine.settle(config.machine.threads)
    # imported here because these libraries read the environment at import
    from atelier.world import report, ship, stages

    match arguments:
        case [stage] if stage in TRAINING:
            getattr(stages, stage)(config)
        case ["conversion", kind]:
            stages.conversion(config, kind)
        case ["ship"]:
            ship.ship(config)
        case ["report", *folder] if len(folder) <= 1:
            report.report(config, *map(Path, folder))
        case _:
            raise ValueError(USAGE)


def main(arguments: list[str]) -> int:
    return exit_code(run, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
