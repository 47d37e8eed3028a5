"""Stage ``latent_perceptual-train``: post-training with a loss on decoder features, and what it is compared with.

Every variant begins with the base, or with its conversion to another kind of prediction, and learns the training works
by an adapter on all layers; variants differ in the loss beside the denoiser's own, and share their samples and noise.
A process trains one variant from all training seeds: they are short beside what it takes to begin one.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier import paths
from atelier.data.latents import read_cache, unscaled
from atelier.diffusion import clean_estimate
from atelier.machine import accelerator
from atelier.methods.latent_perceptual import Form, latent_perceptual_loss, threshold
from atelier.models import base
from atelier.models.autoencoders import Window, decoder_stages
from atelier.params import LatentPerceptual, Params, PostTraining
from atelier.sampling.adapters import converted
from atelier.seeds import seed_of, torch_generator
from atelier.training import denoiser, scratch
from atelier.training.art_finetuning import CACHE, cached_embeddings, key, save_adapter, works_and_prompts
from atelier.training.conversion import add_conversion
from atelier.training.denoiser import Denoised, Extra
from atelier.training.loop import Task, fit
from atelier.training.order import Pick, picks
from atelier.training.slices import in_slices

STUDY = "latent_perceptual"
CALIBRATION = 128  # samples, a run's first that count, by which a loss's weight is set
EMPTY = 0.1  # share of prompts left empty

# (estimates (b, c, h, w), their targets, whose turn the batch's first is) -> (b,)
Compare = Callable[[Tensor, Tensor, Pick], Tensor]


# ------------------------------------------------------------------------------------------------ the loss


def perceptual(vae: AutoencoderKL, training: PostTraining, crop: int, names: Sequence[str], seed: int) -> Compare:
    """Decoder features of estimates against those of clean latents, the decoder frozen; or finished pictures.

    Targets are computed without a graph. ``crop``: a square of latent elements to which features behind the middle
    block are cut, elsewhere each time.
    """
    form = Form(training.norm, training.depth_weights, training.mask)
    pixels = 2 ** (len(vae.config.block_out_channels) - 1)  # a latent element

    def pictures(z: Tensor) -> Tensor:
        made: Tensor = vae.decode(unscaled(vae, z)).sample
        return made if made.dtype == torch.float64 else made.float()

    def compare(estimates: Tensor, targets: Tensor, turn: Pick) -> Tensor:
        if training.depth == "pixels":
            with torch.no_grad():
                wanted = pictures(targets)
            return (pictures(estimates) - wanted).square().mean((1, 2, 3))
        window = drawn_window(estimates.shape[-2:], crop, seed, names[turn.sample], turn.epoch) if crop else None
        with torch.no_grad():
            wanted_stages = decoder_stages(vae, unscaled(vae, targets), training.depth, window)
        stages = decoder_stages(vae, unscaled(vae, estimates), training.depth, window)
        return latent_perceptual_loss(wanted_stages, stages, (crop or estimates.shape[-1]) * pixels, form)

    return compare


def drawn_window(sides: Sequence[int], crop: int, seed: int, *turn: str | int) -> Window:
    """A square of ``crop`` elements within a latent of these sides."""
    generator = torch_generator(seed, "window", *turn)
    top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in sides)
    return Window(top, left, crop)


def latent_error(estimates: Tensor, targets: Tensor, turn: Pick) -> Tensor:
    """Mean squared error of latents, (b,): what a perceptual loss is held against on the same steps."""
    return (estimates - targets).square().mean((1, 2, 3))


def gated(compare: Compare, kind: str, tau: float, slices: int, weight: float = 1.0) -> Extra:
    """``E[1{sigma_t <= tau} compare]`` (Berrada Ifriqi et al. 2024, eq. 2 and 3), times ``weight``.

    Only samples under the threshold are compared, ``slices`` at a time: where there is none the decoder is not called,
    and the term is 0. Nothing here waits for the device.
    """

    def term(step: Denoised) -> dict[str, Tensor]:
        n, most = len(step.batch), threshold(tau, step.zt.shape[-1])
        under = [at for at, sigma in enumerate(step.sigma.tolist()) if sigma <= most]
        if not under:
            return {STUDY: torch.zeros((), device=step.output.device)}
        # one by one: a list of places would be copied to the device, and waited for
        zt, alpha, s, targets, output = (
            torch.stack([each[at] for at in under]) for each in (step.zt, step.alpha, step.s, step.z0, step.output)
        )
        estimates = clean_estimate(kind, zt, output, alpha, s)
        turn = step.batch[under[0]]

        def loss(places: slice, part: Tensor) -> Tensor:
            return weight * compare(part, targets[places], turn).sum() / n

        return {STUDY: in_slices(loss, estimates, slices)}

    return term


def weight_for(share: float, plain: float, other: float) -> float:
    """The weight that makes ``other`` this share of ``plain + weight other``; ValueError where ``other`` is 0."""
    if not other > 0:
        raise ValueError(f"a share of {share:g} of nothing: the loss is {other:g}, is any step under the threshold?")
    return share / (1 - share) * plain / other


# ------------------------------------------------------------------------------------------------ a run


def start(asked: Params, training: PostTraining) -> StableDiffusionPipeline:
    """What a variant is trained from: the base, or a shipped base's conversion to another kind of prediction."""
    pipeline = base.load(paths.BASE)
    if training.kind in ("base", pipeline.scheduler.config.prediction_type):
        return pipeline
    folder = Path(asked.data.folder) / "conversions" / training.kind
    if asked.base.source != "shipped" or not folder.is_dir():
        raise ValueError(f"latent_perceptual.trainings: kind '{training.kind}' needs a shipped base and {folder}")
    return converted(pipeline, folder)


class Job:
    """One variant's post-training from one seed: its denoiser, what it learns from, and its tasks."""

    def __init__(self, asked: Params, variant: str, training_seed: int) -> None:
        study = asked.latent_perceptual
        if variant not in study.trainings:
            raise ValueError(f"latent_perceptual.trainings: no variant '{variant}', there are {_some(study)}")
        self.study, self.training = study, study.trainings[variant]
        self.seed = seed_of(asked.seed, STUDY, training_seed)
        table, prompts = works_and_prompts(asked)
        self.made_from = key(asked, table, prompts)
        self.cache = read_cache(CACHE, self.made_from)
        self.names = list(table["path"])
        self.prompts = asked.art_finetuning.prompts_per_work
        self.place = accelerator(asked.machine)
        self.pipeline = start(asked, self.training)
        self.kind: str = self.pipeline.scheduler.config.prediction_type
        self.unet = self.pipeline.unet.to(self.place.device)
        self.vae = self.pipeline.vae.to(self.place.device, memory_format=torch.channels_last)
        self.vae.requires_grad_(False).eval()
        self.trainable = add_conversion(self.unet, study.rank, self.seed)

    def task(self, seed: int, extra: Extra | None = None) -> Task:
        """Denoising, and what is learnt beside it."""
        return denoiser.task(
            self.unet,
            self.trainable,
            self.pipeline.scheduler,
            self.cache.latents,
            lambda samples, chosen, empty: cached_embeddings(self.cache, samples, chosen, empty),
            names=self.names,
            prompts=self.prompts,
            empty_share=EMPTY,
            seed=seed,
            device=self.place.device,
            extra=extra,
        )

    def compare(self) -> Compare:
        if self.training.loss == "reweighted":
            return latent_error
        return perceptual(self.vae, self.training, self.study.crop, self.names, self.seed)

    def extra(self, weight: float = 1.0) -> Extra:
        return gated(self.compare(), self.kind, self.training.tau, self.study.slices, weight)

    def weight(self) -> float:
        """Of the loss beside the denoiser's own, so that it begins as its share.

        The denoiser's own is the mean of a run's first samples. The loss is the mean of the first that are under the
        threshold, as many however low that is, times the share of steps that are.
        """
        alphas, sigmas, _ = denoiser.path(self.pipeline.scheduler)
        under = sigmas <= threshold(self.training.tau, self.cache.latents.mean.shape[-1]) * alphas
        if not under.any():
            return weight_for(self.training.share, 0.0, 0.0)
        counted = list(islice((pick for pick in self.turns() if under[self.step_of(pick, len(under))]), CALIBRATION))
        plain = self.mean_term("denoising", list(islice(self.turns(), CALIBRATION)))
        return weight_for(self.training.share, plain, float(under.float().mean()) * self.mean_term(STUDY, counted))

    def turns(self) -> Iterator[Pick]:
        """A run's samples in their order, without end."""
        return (pick for step in count() for pick in picks(self.seed, step, 1, len(self.names)))

    def step_of(self, pick: Pick, steps: int) -> int:
        """The noise level that is drawn for a sample's turn, of so many."""
        shape, name = self.cache.latents.mean.shape[1:], self.names[pick.sample]
        return denoiser.draw(self.seed, name, pick.epoch, shape, steps, self.prompts, EMPTY).t

    @torch.no_grad()
    def mean_term(self, name: str, turns: Sequence[Pick]) -> float:
        """The mean of a loss term over these turns, in batches of the run's size."""
        task = self.task(self.seed, self.extra() if name == STUDY else None)
        size, total = self.study.optimisation.batch, 0.0
        for at in range(0, len(turns), size):
            with self.place.autocast():
                total += float(task.losses(turns[at : at + size])[name]) * len(turns[at : at + size])
        return total / len(turns)


def train(asked: Params, variant: str) -> None:
    """One variant into ``build/adapters``, a folder a training seed.

    What a seed needs for a resumption is kept until all are done: a stage that starts again finds no folder of its own.
    """
    runs = [train_from(asked, variant, seed) for seed in asked.art_finetuning.training_seeds]
    for run in runs:
        scratch.discard(run)


def train_from(asked: Params, variant: str, training_seed: int) -> Path:
    """One seed's adapter, its scheduler, and the averages where the variant is followed; the scratch folder is left."""
    job = Job(asked, variant, training_seed)
    study, training = job.study, job.training
    determinants: dict[str, Any] = {
        **job.made_from,
        "training": training.model_dump(mode="json"),
        "rank": study.rank,
        "crop": study.crop,
        "slices": study.slices,
        "optimisation": study.optimisation.model_dump(mode="json"),
        "machine": asked.machine.model_dump(mode="json"),
        "seed": asked.seed,
        "training_seed": training_seed,
        "works": job.names,
        "averages": study.averages if variant in study.followed else [],
    }
    run = scratch.folder(f"{STUDY}-{variant}-{training_seed}", **determinants)
    history = [pd.DataFrame()]
    if training.before:
        settings = study.optimisation.model_copy(update={"steps": training.before})
        seed = seed_of(job.seed, "before")
        history.append(fit(job.task(seed), settings, seed=seed, scratch=run / "before", accelerator=job.place))
    weight = None if training.loss == "plain" else job.weight()
    task = job.task(job.seed, None if weight is None else job.extra(weight))
    settings = study.optimisation.model_copy(update={"steps": round(study.optimisation.steps * training.longer)})
    averages: dict[float, dict[str, Tensor]] = {half_life: {} for half_life in determinants["averages"]}
    after = fit(task, settings, seed=job.seed, scratch=run, accelerator=job.place, averages=averages)
    history.append(after.assign(step=after["step"] + training.before))
    card = {**determinants, "study": STUDY, "name": variant, "weight": weight, "works": len(job.names)}
    with paths.replacing(tuned_folder(variant, training_seed)) as part:
        keep(job, part, card)
        for half_life, kept in averages.items():
            for name, value in kept.items():
                job.trainable[name].data.copy_(value)
            keep(job, part / average_folder(half_life), {**card, "half_life": half_life})
        pd.concat(history, ignore_index=True).to_csv(part / "history.csv", index=False)
    return run


def keep(job: Job, folder: Path, card: dict[str, Any]) -> None:
    save_adapter(job.unet, folder, card)
    job.pipeline.scheduler.save_pretrained(folder / "scheduler")


def tuned_folder(variant: str, training_seed: int) -> Path:
    """Where a variant's training with one seed lies."""
    return paths.ADAPTERS / STUDY / variant / str(training_seed)


def average_folder(half_life: float) -> str:
    return f"average-{half_life:g}"


def tuned_pipeline(
    asked: Params, variant: str, training_seed: int, half_life: float | None = None
) -> StableDiffusionPipeline:
    """A variant as it was trained, or one of its averages."""
    known, folder = asked.latent_perceptual.trainings, tuned_folder(variant, training_seed)
    if variant not in known:
        raise ValueError(
            f"latent_perceptual.trainings: no variant '{variant}', there are {_some(asked.latent_perceptual)}"
        )
    own = folder if half_life is None else folder / average_folder(half_life)
    return converted(start(asked, known[variant]), own)


def _some(study: LatentPerceptual) -> str:
    return ", ".join(study.variants)
