"""``python -m atelier.training base | cache STUDY | STUDY VARIANT SEED``: the heavy stages, one process each."""

import sys

from safetensors import SafetensorError

from atelier import machine, params

USAGE = "usage: python -m atelier.training base | cache art_finetuning | art_finetuning VARIANT SEED"


def main(arguments: list[str]) -> int:
    try:
        asked = params.load()
        machine.settle(asked.machine.threads)
        # imported only now: the libraries below read the settled environment as they load
        from atelier.training import art_finetuning, base

        match arguments:
            case ["base"]:
                base.main(asked)
            case ["cache", "art_finetuning"]:
                art_finetuning.encode(asked)
            case ["art_finetuning", variant, seed] if seed.isdecimal():
                art_finetuning.train(asked, variant, int(seed))
            case _:
                raise ValueError(USAGE)
    except (ValueError, OSError, FloatingPointError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
