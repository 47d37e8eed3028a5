"""``python -m atelier measures | diagnosis``: the stages that look at what others made, one process each."""

import sys

from safetensors import SafetensorError

from atelier import machine, params

USAGE = "usage: python -m atelier measures | diagnosis"


def main(arguments: list[str]) -> int:
    try:
        asked = params.load()
        machine.settle(asked.machine.threads)
        # imported only now: the libraries below read the settled environment as they load
        from atelier import diagnosis, measures

        match arguments:
            case ["measures"]:
                measures.main(asked)
            case ["diagnosis"]:
                diagnosis.main(asked)
            case _:
                raise ValueError(USAGE)
    except (ValueError, OSError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
