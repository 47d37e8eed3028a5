"""``python -m atelier STAGE ...``: one stage of ``dvc.yaml``, a process each."""

import gc
import os
import sys
from collections.abc import Callable

from safetensors import SafetensorError

from atelier import machine, params, warm

USAGE = """usage: python -m atelier
  prepare | judges | fit signal_leak | diagnose
  train base | train cache | train art_finetuning VARIANT SEED | train vae_decoder VARIANT SEED
  train signal_leak MODEL SEED | train latent_perceptual VARIANT
  sample base_model | sample art_finetuning VARIANT | sample prompt_enrichment MODEL | sample signal_leak
  sample latent_perceptual VARIANT
  measure art_finetuning | measure vae_decoder | measure signal_leak | measure latent_perceptual
  measure decoder_features
  kernel CONNECTION_FILE ... (as Jupyter asks)"""


COMPUTING = ("fit", "train", "sample", "diagnose", "measure")


def load_libraries() -> None:
    """Load what every computing stage needs, without looking for garbage meanwhile and for good.

    There is none yet, and looking for it takes two of six seconds, here and when the process ends
    (`benchmarks/loading.py`).
    """
    gc.disable()
    from atelier.models import base  # noqa: F401

    gc.freeze()
    gc.enable()


def run(arguments: list[str]) -> None:
    """What is imported here reads the settled environment as it loads, so that none of it is imported above."""
    asked = params.load()
    machine.settle(asked.machine.threads)
    if arguments[:1] and arguments[0] in COMPUTING:
        load_libraries()
    match arguments:
        case ["prepare"]:
            from atelier.data import prepare

            prepare.main(asked)
        case ["judges"]:
            from atelier import judges

            judges.keep(asked.data, asked.base.source)
        case ["fit", "signal_leak"]:
            from atelier.training import leaks

            leaks.fit_all(asked)
        case ["train", "base"]:
            from atelier.training import base

            base.main(asked)
        case ["train", "cache"]:
            from atelier.training import art_finetuning

            art_finetuning.encode(asked)
        case ["train", "art_finetuning", variant, seed] if seed.isdecimal():
            from atelier.training import art_finetuning

            art_finetuning.train(asked, variant, int(seed))
        case ["train", "vae_decoder", variant, seed] if seed.isdecimal():
            from atelier.training import vae_decoder

            vae_decoder.train(asked, variant, int(seed))
        case ["train", "signal_leak", name, seed] if seed.isdecimal():
            from atelier.training import signal_leak

            signal_leak.train(asked, name, int(seed))
        case ["train", "latent_perceptual", variant]:
            from atelier.training import latent_perceptual

            latent_perceptual.train(asked, variant)
        case ["sample", "base_model"]:
            from atelier.sampling import stages

            stages.sample_base(asked)
        case ["sample", "art_finetuning", variant]:
            from atelier.sampling import stages

            stages.sample_variant(asked, variant)
        case ["sample", "prompt_enrichment", model]:
            from atelier.sampling import stages

            stages.sample_levels(asked, model)
        case ["sample", "signal_leak"]:
            from atelier.sampling import signal_leak as arms

            arms.paint_all(asked)
        case ["sample", "latent_perceptual", variant]:
            from atelier.sampling import latent_perceptual as painted

            painted.paint(asked, variant)
        case ["diagnose"]:
            from atelier import diagnosis

            diagnosis.main(asked)
        case ["measure", "art_finetuning"]:
            from atelier.measures import art_finetuning as tuned

            tuned.main(asked)
        case ["measure", "vae_decoder"]:
            from atelier.measures import vae_decoder as retuned

            retuned.main(asked)
        case ["measure", "signal_leak"]:
            from atelier.measures import signal_leak as measured

            measured.main(asked)
        case ["measure", "latent_perceptual"]:
            from atelier.measures import latent_perceptual as post_trained

            post_trained.main(asked)
        case ["measure", "decoder_features"]:
            from atelier.measures import decoder_features

            decoder_features.main(asked)
        case ["kernel", connection, *settings]:
            from ipykernel import kernelapp

            kernelapp.launch_new_instance(["-f", connection, *settings])
        case _:
            raise ValueError(USAGE)


def told(run: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Run an entry point: what it refuses is one line on stderr and exit code 1, a fault in the code a traceback."""
    try:
        run(arguments)
    except (ValueError, OSError, FloatingPointError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str]) -> int:
    return told(run, arguments)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    raise SystemExit(warm.ask(arguments, os.environ[warm.ADDRESS]) if warm.ADDRESS in os.environ else main(arguments))
