"""Stage ``pilots``: other bases, each trained for a short while and measured like the others.

A variant changes the loss, the denoiser's size or the latents. What a longer training of it would gain is judged from
its share of what lies between the pilot without changes and its own reconstructions, which no denoiser can pass.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier import scratch
from atelier.data.images import to_pixels
from atelier.evaluation.judges import share_seen
from atelier.files import write_text
from atelier.machine import accelerator
from atelier.methods.signal_leak import FrequencyLeak
from atelier.metrics import alignment, frechet_distance, residual_spectrum_distance
from atelier.models import evaluator as evaluators
from atelier.models.checked import load_part
from atelier.models.evaluator import Evaluator
from atelier.models.latents import decode, encode_pictures
from atelier.sampling.sampler import settled, with_ddim
from atelier.sampling.starts import FREQUENCIES
from atelier.seeds import torch_generator
from atelier.world.params import Corpus, Pilot, World
from atelier.world.report import markdown, prompted, sampled
from atelier.world.stages import painted, relevant_params, trained_autoencoder, trained_base, trained_decoder
from atelier.world.workspace import WorldWorkspace

HEAD = """# Pilots of other bases

Printed by `make world-pilots`: each variant of the base trained for {denoiser} steps (encoder and decoder, where
they change, for {autoencoder} each), then measured with {n} pictures a cell at guidance {guidance:g}. FD: Frechet
distance on the evaluator's features; *corrected*: from first latents with a leak of N = 3 fitted to photographs.
*Closed*: how much of what lies between the pilot as it is and reconstructions the variant closes. PR: distance of
residual spectra.

"""
STARTS = ("white", "corrected")


def variant_of(world: World, pilot: Pilot) -> World:
    """The world's parameters with a pilot's changes and its short trainings."""
    steps = world.pilots
    denoiser = world.denoiser.model_copy(
        update={
            "prediction": pilot.prediction,
            "min_snr": pilot.min_snr,
            "optimisation": world.denoiser.optimisation.model_copy(update={"steps": steps.denoiser}),
        }
    )
    shorter = {
        name: part.model_copy(
            update={"optimisation": part.optimisation.model_copy(update={"steps": steps.autoencoder})}
        )
        for name, part in (("autoencoder", world.autoencoder), ("decoder", world.decoder))
        if pilot.autoencoder
    }
    return world.model_copy(update={"changed": pilot.changed, "denoiser": denoiser, **shorter})


def trained(world: World, pilot: Pilot, shipped: Path, checkpoints: Path) -> StableDiffusionPipeline:
    """A pilot's base, on the shipped autoencoder or on one that it trains."""
    variant = variant_of(world, pilot)
    if pilot.autoencoder:
        vae = trained_autoencoder(variant, checkpoints).part
        vae = trained_decoder(variant, vae, shipped / "trunk", checkpoints).part
    else:
        vae = load_part(shipped / "base" / "vae", AutoencoderKL)
    return with_ddim(trained_base(variant, vae, checkpoints).part)


def leak_of(world: World, vae: AutoencoderKL) -> FrequencyLeak:
    """What training leaves in first latents of photographs, of these latents."""
    corpus = painted(world, "pilot leak", Corpus(photographs=world.pilots.leak, works=0))
    batches = (encode_pictures(vae, pictures).mean for pictures in corpus.pictures.split(256))
    return FrequencyLeak.fit(batches, FREQUENCIES)


@cache
def judge_of(shipped: Path) -> Evaluator:
    return evaluators.load(shipped / "evaluator")


def features(shipped: Path, pictures: Tensor) -> Any:
    return alignment.features(judge_of(shipped), pictures / 255)


def row(world: World, shipped: Path, pipeline: StableDiffusionPipeline) -> dict[str, float]:
    """A pilot's measures: photographs from both starts, works by artists that it was trained on, reconstructions."""
    n, judge = world.report.samples, judge_of(shipped)
    pipeline = settled(pipeline, accelerator(world.machine).device)
    photographs, prompts = prompted(world, "photographs", Corpus(photographs=n, works=0), 0)
    real, others = (painted(world, f"pilot {half}", Corpus(photographs=n, works=n)) for half in ("real", "other"))
    reference = features(shipped, photographs.pictures)
    returned = to_pixels(decode(pipeline.vae, encode_pictures(pipeline.vae, others.pictures).mean))
    works, seen_prompts = prompted(world, "seen", Corpus(photographs=0, works=n), 1, world.seen)
    seen = sampled(world, pipeline, seen_prompts, "seen")
    kinds = torch.tensor([record["kind"] == "work" for record in others.records])
    drawn = torch_generator(world.seed, "pilot leak", "photographs")
    leaks = {"white": None, "corrected": leak_of(world, pipeline.vae).sample(len(prompts), drawn)}
    distances = {
        f"FD, {start}": frechet_distance(
            reference, features(shipped, sampled(world, pipeline, prompts, "photographs", leak))
        )
        for start, leak in leaks.items()
    }
    shares = {
        f"{name}, seen artists": share_seen(
            judge, seen, attribute, [str(record[attribute]) for record in works.records]
        )
        for name, attribute in {"style": "art_style", "subject": "subject"}.items()
    }
    real_works, returned_works = real.pictures[kinds] / 255, returned[kinds] / 255
    return {
        **distances,
        "FD of reconstructions": frechet_distance(reference, features(shipped, returned[~kinds])),
        **{name: share.mean for name, share in shares.items() if share is not None},
        "PR of reconstructions": residual_spectrum_distance(real_works, returned_works),
        "PR of works": residual_spectrum_distance(real_works, seen / 255),
        "PR of works against reconstructions": residual_spectrum_distance(returned_works, seen / 255),
        "parameters, millions": sum(value.numel() for value in pipeline.unet.parameters()) / 1e6,
    }


def rows(world: World, shipped: Path, checkpoints: Path) -> Iterator[pd.DataFrame]:
    """One row a pilot; a finished one is kept, so that a killed stage goes on with the next."""
    keys = relevant_params(world, "preset", "seen", "autoencoder", "decoder", "denoiser", "report", "pilots")
    run = scratch.folder(checkpoints, __name__, "world-pilots", **keys)
    for name, pilot in world.pilots.variants.items():

        def measured(pilot: Pilot = pilot) -> pd.DataFrame:
            return pd.DataFrame([row(world, shipped, trained(world, pilot, shipped, checkpoints))])

        yield scratch.table(run, name, measured).assign(pilot=name)


def closed(table: pd.DataFrame, world: World) -> pd.Series:
    """Share of the distance between the first pilot on the same latents and reconstructions that each one closes."""
    start = f"FD, {STARTS[1]}"
    alike = [pilot.autoencoder for pilot in world.pilots.variants.values()]
    before = table.groupby(alike)[[start, "FD of reconstructions"]].transform("first")
    return (before[start] - table[start]) / (before[start] - before["FD of reconstructions"])


def pilots(world: World, workspace: WorldWorkspace, shipped: Path) -> None:
    """Train and measure all pilots, print each, and write the table."""
    measured = []
    for one in rows(world, shipped, workspace.scratch):
        measured.append(one)
        print(one.iloc[0].to_dict(), flush=True)
    table = pd.concat(measured, ignore_index=True)
    table.insert(2, "closed", closed(table, world))
    text = table.set_index("pilot").map("{:.3g}".format).reset_index()
    setting, steps = world.report, world.pilots
    head = HEAD.format(
        denoiser=steps.denoiser, autoencoder=steps.autoencoder, n=setting.samples, guidance=setting.guidance
    )
    write_text(workspace.report / "pilots.md", head + markdown(text))
