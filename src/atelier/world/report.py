"""The bars that make the world an instrument, measured on pictures that nothing was trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import paths
from atelier.data.images import to_pixels
from atelier.data.latents import decode, encode_pictures
from atelier.data.painter import VERSION
from atelier.data.prompts import prompt
from atelier.evidence import Interval
from atelier.judges import Bar, share_seen, table
from atelier.machine import accelerator
from atelier.methods.signal_leak import carrying
from atelier.metrics import alignment, frechet_distance, power_spectrum_slope
from atelier.metrics.reconstruction import linear_patch_code, psnr
from atelier.metrics.summary import SLOPE_LOW, brightness_spread
from atelier.models import base, stored
from atelier.models import evaluator as evaluators
from atelier.models.evaluator import Evaluator
from atelier.sampling.adapters import converted
from atelier.sampling.sampler import Seed, first_latents, sample, with_ddim
from atelier.training import scratch
from atelier.training.base import denoiser_task
from atelier.training.conversion import KINDS
from atelier.training.loop import fit
from atelier.world.params import Corpus, World
from atelier.world.ship import SHIPPED
from atelier.world.stages import Painted, determinants, painted

REPORT = paths.BUILD / "report"
HEAD = """# The world's bars

Printed by `make world-report`: painter version {}, world seed {}, on pictures that nothing was trained on.
A share with an interval is held to its low end (Wilson, 95 %). Accuracies are the evaluator's; Frechet
distances are on its 48 features.

"""
PHOTOGRAPH = "Photograph"  # what the painter calls their style
PRICE = 2.5  # dB below the linear code that painting texture may cost
SLOPE_FLOOR = 0.3


def measured(asked: World, shipped: Path) -> Iterator[Bar]:
    """All bars of the world in ``shipped``, in the order of what they need."""
    place = accelerator(asked.machine)
    pipeline = with_ddim(base.load(shipped / "base")).to(place.device)
    judge = evaluators.load(shipped / "evaluator").to(place.device)
    real = painted(asked, "report", asked.report.held_out)
    styles = np.array([record["art_style"] for record in real.records])
    returned = to_pixels(decode(pipeline.vae, encode_pictures(pipeline.vae, real.pictures).mean))
    yield from _autoencoder(asked, pipeline, real.pictures, returned, styles)
    yield from _evaluator(judge, real, real.pictures, "held-out", {"subject": 0.97, "art_style": 0.97, "emotion": 0.85})
    yield from _evaluator(judge, real, returned, "reconstructed", {"subject": 0.92, "art_style": 0.90})
    yield from _base(asked, shipped, pipeline, judge, real, styles)


def _autoencoder(
    asked: World, pipeline: StableDiffusionPipeline, real: Tensor, returned: Tensor, styles: np.ndarray
) -> Iterator[Bar]:
    known = painted(asked, "linear code", asked.report.linear_code).pictures / 255
    linear = linear_patch_code(known, real / 255, pipeline.vae.config.latent_channels).float()
    for style in sorted(set(styles), key=lambda name: (name != PHOTOGRAPH, name)):
        those = torch.from_numpy(styles == style)
        one, two, yardstick = real[those] / 255, returned[those] / 255, linear[those]
        least = 26.0 if style == PHOTOGRAPH else psnr(one, yardstick) - PRICE
        yield Bar(name=f"autoencoder, PSNR, {style}", value=psnr(one, two), n=len(one), least=least, unit="dB")
        slopes = [power_spectrum_slope(pictures, low=SLOPE_LOW) for pictures in (one, two)]
        name = f"autoencoder, change of slope, {style}"
        yield Bar(name=name, value=abs(slopes[1] - slopes[0]), n=len(one), most=SLOPE_FLOOR)


def _evaluator(judge: Evaluator, truth: Painted, pictures: Tensor, what: str, bars: dict[str, float]) -> Iterator[Bar]:
    works = [at for at, record in enumerate(truth.records) if record["kind"] == "work"]
    for attribute, least in bars.items():
        share = _share(judge, pictures[works], truth._replace(records=[truth.records[at] for at in works]), attribute)
        name = f"evaluator, {what} works, {attribute.replace('art_', '')}"
        yield Bar(name=name, value=share.mean, n=share.n, least=least)


def asked_for(
    asked: World, kind: str, corpus: Corpus, level: int, artists: Sequence[str] = ()
) -> tuple[Painted, list[str]]:
    """Works or photographs that nobody saw, and a prompt of a level for each."""
    truth = painted(asked, f"report {kind}", corpus, artists)
    return truth, [prompt(record, level, 0) for record in truth.records]


def _share(judge: Evaluator, made: Tensor, truth: Painted, attribute: str) -> Interval:
    share = share_seen(judge, made, attribute, [str(record[attribute]) for record in truth.records])
    assert share is not None  # the evaluator knows all of the painter's names
    return share


def _base(
    asked: World,
    shipped: Path,
    pipeline: StableDiffusionPipeline,
    judge: Evaluator,
    real: Painted,
    styles: np.ndarray,
) -> Iterator[Bar]:
    n = asked.report.samples

    def pictures_for(
        prompts: Sequence[str],
        purpose: str,
        model: StableDiffusionPipeline = pipeline,
        means: Tensor | None = None,
    ) -> Tensor:
        seeds: list[Seed] = [(asked.seed, "report", purpose, at) for at in range(len(prompts))]
        setting = asked.report
        latents = first_latents(model, seeds, asked.size)
        if means is not None:
            # what white noise lacks most: with it the control is seen apart from the signal leak
            latents = carrying(means, latents, model.scheduler, setting.steps)
        return to_pixels(
            sample(
                model, prompts, latents, guidance=setting.guidance, steps=setting.steps, batch=setting.batch
            ).pictures
        )

    truth, prompts = asked_for(asked, "photographs", Corpus(photographs=n, works=0), 0)
    made = pictures_for(prompts, "photographs")
    share = _share(judge, made, truth, "subject")
    yield Bar(name="base, photographs, subject", value=share.mean, n=n, least=0.8, low=share.low, high=share.high)
    ours, reference = alignment.features(judge, made / 255), alignment.features(judge, truth.pictures / 255)
    floor = frechet_distance(reference, alignment.features(judge, real.pictures[styles == PHOTOGRAPH] / 255))
    distance = frechet_distance(reference, ours)
    yield Bar(name="base, photographs, Frechet distance", value=distance, n=n)
    yield Bar(name="real against real over base, Frechet distance", value=floor / distance, n=n, most=0.1)
    spread = brightness_spread(made / 255) / brightness_spread(truth.pictures / 255)
    yield Bar(name="base, spread of luminance over the photographs'", value=spread, n=n)

    for kind in KINDS:
        model = with_ddim(converted(base.load(shipped / "base"), shipped / "conversions" / kind)).to(pipeline.device)
        share = _share(judge, pictures_for(prompts, "photographs", model), truth, "subject")
        name = f"{kind.replace('_', ' ')}, photographs, subject"
        yield Bar(name=name, value=share.mean, n=n, low=share.low, high=share.high)

    truth, prompts = asked_for(asked, "seen", Corpus(photographs=0, works=n), 1, asked.seen)
    made = pictures_for(prompts, "seen")
    share = _share(judge, made, truth, "art_style")
    name = "base, works of seen artists, style"
    yield Bar(name=name, value=share.mean, n=n, least=0.6, low=share.low, high=share.high)
    share = _share(judge, made, truth, "subject")
    yield Bar(name="base, works of seen artists, subject", value=share.mean, n=n, low=share.low, high=share.high)
    truth, prompts = asked_for(asked, "seen", Corpus(photographs=0, works=n), 2, asked.seen)
    share = _share(judge, pictures_for(prompts, "seen"), truth, "emotion")
    name = "base, works of seen artists, emotion where asked for"
    yield Bar(name=name, value=share.mean, n=n, low=share.low, high=share.high)

    truth, prompts = asked_for(asked, "art", Corpus(photographs=0, works=n), 1)
    others = real.pictures[styles != PHOTOGRAPH][:n]
    means = encode_pictures(pipeline.vae, others).mean.mean((2, 3), keepdim=True)
    art = alignment.features(judge, truth.pictures / 255)
    floor = frechet_distance(art, alignment.features(judge, others / 255))
    yield Bar(name="real art against real art, Frechet distance", value=floor, n=n)

    def distances() -> list[float]:
        return [
            frechet_distance(art, alignment.features(judge, pictures_for(prompts, "art", means=leak) / 255))
            for leak in (None, means)
        ]

    before = distances()
    _tune_fully(asked, pipeline, base.fingerprint(shipped / "base"))
    after = distances()
    for at, start in enumerate(("", ", first latents with other works' means")):
        yield Bar(name=f"base, art, Frechet distance{start}", value=before[at], n=n)
        yield Bar(
            name=f"positive control, share of the gap to art closed{start}",
            value=(before[at] - after[at]) / (before[at] - floor),
            n=n,
            least=None if start else 0.4,
        )


def _tune_fully(asked: World, pipeline: StableDiffusionPipeline, start: str) -> None:
    """The positive control: denoiser and text encoder, whole, on as many works as are shipped."""
    works = painted(asked, "control", Corpus(photographs=0, works=asked.shipped.corpus.works))
    prompts = [[prompt(record, 1, draw) for draw in range(2)] for record in works.records]
    latents = encode_pictures(pipeline.vae, works.pictures)
    device = accelerator(asked.machine).device
    task = denoiser_task(pipeline, latents, works.names, prompts, 0.1, asked.seed, device)
    run = scratch.folder("world-control", **determinants(asked, "report"), base=start)
    fit(task, asked.report.control, seed=asked.seed, scratch=run, accelerator=accelerator(asked.machine))
    scratch.discard(run)


def report(asked: World, shipped: Path = SHIPPED) -> None:
    """Measure, print as it goes, and keep the table and its numbers."""
    bars: list[Bar] = []
    for bar in measured(asked, shipped):
        bars.append(bar)
        print(*table([bar]).reset_index().iloc[0].astype(str), sep=" | ", flush=True)
    REPORT.mkdir(parents=True, exist_ok=True)
    (REPORT / "report.md").write_text(HEAD.format(VERSION, asked.seed) + markdown(table(bars).reset_index()))
    stored.save_json({"bars": [{**bar.model_dump(), "met": bar.met} for bar in bars]}, REPORT / "bars.json")


def markdown(rows: pd.DataFrame) -> str:
    """A table as Markdown writes it."""
    lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
