"""Stage ``report``: measure the world's quality bars, on pictures that no network was trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import scratch
from atelier.data.images import to_pixels
from atelier.data.painter import VERSION
from atelier.data.prompts import prompt
from atelier.evaluation.intervals import Interval
from atelier.evaluation.judges import Bar, share_seen, table
from atelier.files import write_text
from atelier.machine import accelerator
from atelier.methods.signal_leak import add_leak
from atelier.metrics import alignment, frechet_distance, power_spectrum_slope
from atelier.metrics.reconstruction import linear_patch_code, psnr
from atelier.metrics.summary import SLOPE_LOW, brightness_spread
from atelier.models import base, stored
from atelier.models import evaluator as evaluators
from atelier.models.adapters import converted
from atelier.models.evaluator import Evaluator
from atelier.models.latents import decode, encode_pictures
from atelier.sampling.sampler import Seed, first_latents, sample, with_ddim
from atelier.training.base import denoiser_task
from atelier.training.conversion import KINDS
from atelier.training.loop import fit
from atelier.world import defects
from atelier.world.params import Corpus, World
from atelier.world.stages import Painted, painted, relevant_params
from atelier.world.workspace import WorldWorkspace

HEAD = """# The world's bars

Printed by `make world-report`: painter version {}, world seed {}, on pictures that nothing was trained on.
A share with an interval is held to its low end (Wilson, 95 %). Accuracies are the evaluator's; Frechet
distances are on its 48 features.

"""
PHOTOGRAPH = "Photograph"  # the painter's style name for photographs
PRICE = 2.5  # dB below the linear code that a decoder trained for texture may lose
SLOPE_FLOOR = 0.3


def measured(world: World, shipped: Path, checkpoints: Path) -> Iterator[Bar]:
    """Measure all bars of the world in ``shipped``; ``checkpoints``: folder of the positive control's training."""
    accelerate = accelerator(world.machine)
    pipeline = with_ddim(base.load(shipped / "base")).to(accelerate.device)
    judge = evaluators.load(shipped / "evaluator").to(accelerate.device)
    real = painted(world, "report", world.report.held_out)
    styles = np.array([record["art_style"] for record in real.records])
    returned = to_pixels(decode(pipeline.vae, encode_pictures(pipeline.vae, real.pictures).mean))
    yield from _autoencoder(world, pipeline, real.pictures, returned, styles)
    yield from _evaluator(judge, real, real.pictures, "held-out", {"subject": 0.97, "art_style": 0.97, "emotion": 0.85})
    yield from _evaluator(judge, real, returned, "reconstructed", {"subject": 0.92, "art_style": 0.90})
    yield from _photographs(world, shipped, pipeline, judge, real.pictures[styles == PHOTOGRAPH])
    yield from _seen_artists(world, pipeline, judge)
    others = real.pictures[styles != PHOTOGRAPH][: world.report.samples]
    yield from _control(world, shipped, checkpoints, pipeline, judge, others)
    yield from defects.bars(world, shipped)


def _autoencoder(
    world: World, pipeline: StableDiffusionPipeline, real: Tensor, returned: Tensor, styles: np.ndarray
) -> Iterator[Bar]:
    known = painted(world, "linear code", world.report.linear_code).pictures / 255
    linear = linear_patch_code(known, real / 255, pipeline.vae.config.latent_channels).float()
    for style in sorted(set(styles), key=lambda name: (name != PHOTOGRAPH, name)):
        mask = torch.from_numpy(styles == style)
        one, two, yardstick = real[mask] / 255, returned[mask] / 255, linear[mask]
        least = 26.0 if style == PHOTOGRAPH else psnr(one, yardstick) - PRICE
        yield Bar(name=f"autoencoder, PSNR, {style}", value=psnr(one, two), n=len(one), least=least, unit="dB")
        slopes = [power_spectrum_slope(pictures, low=SLOPE_LOW) for pictures in (one, two)]
        name = f"autoencoder, change of slope, {style}"
        yield Bar(name=name, value=abs(slopes[1] - slopes[0]), n=len(one), most=SLOPE_FLOOR)


def _evaluator(judge: Evaluator, truth: Painted, pictures: Tensor, what: str, bars: dict[str, float]) -> Iterator[Bar]:
    works = [index for index, record in enumerate(truth.records) if record["kind"] == "work"]
    for attribute, least in bars.items():
        share = _share(
            judge, pictures[works], truth._replace(records=[truth.records[index] for index in works]), attribute
        )
        name = f"evaluator, {what} works, {attribute.replace('art_', '')}"
        yield Bar(name=name, value=share.mean, n=share.n, least=least)


def prompted(
    world: World, kind: str, corpus: Corpus, level: int, artists: Sequence[str] = ()
) -> tuple[Painted, list[str]]:
    """Unseen works or photographs, and a prompt of the given level for each."""
    truth = painted(world, f"report {kind}", corpus, artists)
    return truth, [prompt(record, level, 0) for record in truth.records]


def _share(judge: Evaluator, made: Tensor, truth: Painted, attribute: str) -> Interval:
    share = share_seen(judge, made, attribute, [str(record[attribute]) for record in truth.records])
    assert share is not None  # the evaluator knows all of the painter's classes
    return share


def sampled(
    world: World,
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    purpose: str,
    leaked: Tensor | None = None,
) -> Tensor:
    """Samples uint8 (n, 3, h, w); ``leaked``: added to first latents, which lack it (signal leak)."""
    seeds: list[Seed] = [(world.seed, "report", purpose, index) for index in range(len(prompts))]
    setting = world.report
    latents = first_latents(pipeline, seeds, world.size)
    if leaked is not None:
        latents = add_leak(leaked, latents, pipeline.scheduler, setting.steps)
    guidance, steps, batch = setting.guidance, setting.steps, setting.batch
    return to_pixels(sample(pipeline, prompts, latents, guidance=guidance, steps=steps, batch=batch).pictures)


def _share_bar(
    name: str, judge: Evaluator, made: Tensor, truth: Painted, attribute: str, least: float | None = None
) -> Bar:
    share = _share(judge, made, truth, attribute)
    return Bar(name=name, value=share.mean, n=len(made), least=least, low=share.low, high=share.high)


def _photographs(
    world: World, shipped: Path, pipeline: StableDiffusionPipeline, judge: Evaluator, real: Tensor
) -> Iterator[Bar]:
    """Samples of photographs' prompts by the base and by its conversions; ``real`` photographs are the floor."""
    n = world.report.samples
    truth, prompts = prompted(world, "photographs", Corpus(photographs=n, works=0), 0)
    made = sampled(world, pipeline, prompts, "photographs")
    yield _share_bar("base, photographs, subject", judge, made, truth, "subject", least=0.8)
    ours, reference = alignment.features(judge, made / 255), alignment.features(judge, truth.pictures / 255)
    floor = frechet_distance(reference, alignment.features(judge, real / 255))
    distance = frechet_distance(reference, ours)
    yield Bar(name="base, photographs, Frechet distance", value=distance, n=n)
    yield Bar(name="real against real over base, Frechet distance", value=floor / distance, n=n, most=0.1)
    spread = brightness_spread(made / 255) / brightness_spread(truth.pictures / 255)
    yield Bar(name="base, spread of luminance over the photographs'", value=spread, n=n)
    for kind in KINDS:
        model = with_ddim(converted(base.load(shipped / "base"), shipped / "conversions" / kind)).to(pipeline.device)
        name = f"{kind.replace('_', ' ')}, photographs, subject"
        yield _share_bar(name, judge, sampled(world, model, prompts, "photographs"), truth, "subject")


def _seen_artists(world: World, pipeline: StableDiffusionPipeline, judge: Evaluator) -> Iterator[Bar]:
    corpus = Corpus(photographs=0, works=world.report.samples)
    truth, prompts = prompted(world, "seen", corpus, 1, world.seen)
    made = sampled(world, pipeline, prompts, "seen")
    yield _share_bar("base, works of seen artists, style", judge, made, truth, "art_style", least=0.6)
    yield _share_bar("base, works of seen artists, subject", judge, made, truth, "subject")
    truth, prompts = prompted(world, "seen", corpus, 2, world.seen)
    made = sampled(world, pipeline, prompts, "seen")
    yield _share_bar("base, works of seen artists, emotion where asked for", judge, made, truth, "emotion")


def _control(
    world: World, shipped: Path, checkpoints: Path, pipeline: StableDiffusionPipeline, judge: Evaluator, real: Tensor
) -> Iterator[Bar]:
    """Distances to art before and after full fine-tuning, from white noise and with the means of ``real`` works."""
    n = world.report.samples
    truth, prompts = prompted(world, "art", Corpus(photographs=0, works=n), 1)
    means = encode_pictures(pipeline.vae, real).mean.mean((2, 3), keepdim=True)
    art = alignment.features(judge, truth.pictures / 255)
    floor = frechet_distance(art, alignment.features(judge, real / 255))
    yield Bar(name="real art against real art, Frechet distance", value=floor, n=n)

    def distances() -> list[float]:
        samples = (sampled(world, pipeline, prompts, "art", leak) for leak in (None, means))
        return [frechet_distance(art, alignment.features(judge, made / 255)) for made in samples]

    before = distances()
    _tune_fully(world, pipeline, base.fingerprint(shipped / "base"), checkpoints)
    after = distances()
    for index, start in enumerate(("", ", first latents with other works' means")):
        yield Bar(name=f"base, art, Frechet distance{start}", value=before[index], n=n)
        yield Bar(
            name=f"positive control, share of the gap to art closed{start}",
            value=(before[index] - after[index]) / (before[index] - floor),
            n=n,
            least=None if start else 0.4,
        )


def _tune_fully(world: World, pipeline: StableDiffusionPipeline, start: str, checkpoints: Path) -> None:
    """The positive control: fine-tune denoiser and text encoder fully, on as many works as are shipped."""
    works = painted(world, "control", Corpus(photographs=0, works=world.shipped.corpus.works))
    prompts = [[prompt(record, 1, draw) for draw in range(2)] for record in works.records]
    latents = encode_pictures(pipeline.vae, works.pictures)
    device = accelerator(world.machine).device
    task = denoiser_task(pipeline, latents, works.names, prompts, 0.1, world.seed, device)
    run = scratch.folder(checkpoints, __name__, "world-control", **relevant_params(world, "report"), base=start)
    fit(task, world.report.control, seed=world.seed, scratch=run, accelerator=accelerator(world.machine))
    scratch.discard(run)


def report(world: World, workspace: WorldWorkspace, shipped: Path) -> None:
    """Measure and print all bars of the world in ``shipped``, and write the table and its numbers."""
    bars: list[Bar] = []
    for bar in measured(world, shipped, workspace.scratch):
        bars.append(bar)
        print(*table([bar]).reset_index().iloc[0].astype(str), sep=" | ", flush=True)
    folder = workspace.report
    write_text(folder / "report.md", HEAD.format(VERSION, world.seed) + markdown(table(bars).reset_index()))
    stored.save_json({"bars": [{**bar.model_dump(), "met": bar.met} for bar in bars]}, folder / "bars.json")


def markdown(rows: pd.DataFrame) -> str:
    """Format a table as Markdown."""
    lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
