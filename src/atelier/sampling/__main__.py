"""``python -m atelier.sampling base_model | STUDY MODEL``: pictures of one model, one process each."""

import sys

from safetensors import SafetensorError

from atelier import machine, params

USAGE = "usage: python -m atelier.sampling base_model | art_finetuning VARIANT | prompt_enrichment MODEL"


def main(arguments: list[str]) -> int:
    try:
        asked = params.load()
        machine.settle(asked.machine.threads)
        # imported only now: the libraries below read the settled environment as they load
        from atelier.sampling import stages

        match arguments:
            case ["base_model"]:
                stages.sample_base(asked)
            case ["art_finetuning", variant]:
                stages.sample_variant(asked, variant)
            case ["prompt_enrichment", model]:
                stages.sample_levels(asked, model)
            case _:
                raise ValueError(USAGE)
    except (ValueError, OSError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
