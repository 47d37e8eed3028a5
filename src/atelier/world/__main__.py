"""``python -m atelier.world STAGE``: one stage of the world's pipeline, in the folder that holds its params.yaml."""

import sys
from pathlib import Path

from atelier import machine
from atelier.__main__ import told
from atelier.world import params

TRAINING = ("trunk", "evaluator", "autoencoder", "decoder", "denoiser")
USAGE = f"usage: python -m atelier.world {' | '.join(TRAINING)} | conversion KIND | ship | report [SHIPPED]"


def run(arguments: list[str]) -> None:
    asked = params.load()
    # made once and shipped: speed counts, and other machines' bits do not
    machine.settle(asked.machine.threads, common=False)
    # imported only now: the libraries below read the settled environment as they load
    from atelier.world import report, ship, stages

    match arguments:
        case [stage] if stage in TRAINING:
            getattr(stages, stage)(asked)
        case ["conversion", kind]:
            stages.conversion(asked, kind)
        case ["ship"]:
            ship.ship(asked)
        case ["report", *folder] if len(folder) <= 1:
            report.report(asked, *map(Path, folder))
        case _:
            raise ValueError(USAGE)


def main(arguments: list[str]) -> int:
    return told(run, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
