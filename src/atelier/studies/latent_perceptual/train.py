"""Post-train the denoiser with a loss on decoder features (Berrada Ifriqi et al. 2024), and its baselines.

Every variant starts from the base, or from its conversion to another kind of prediction, and trains the whole denoiser,
or an adapter on all layers, on photographs or on the training works; variants differ in the loss added to the denoising
loss, and share samples and noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier.files import check_seal, filling
from atelier.machine import accelerator
from atelier.methods.latent_perceptual import threshold
from atelier.models import base
from atelier.models.adapters import converted
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.studies.latent_perceptual.loss import TERM, Compare, gated, latent_error, perceptual, weight_for
from atelier.studies.latent_perceptual.params import Config, PostTraining, seeds_of
from atelier.studies.latent_perceptual.pictures import sources
from atelier.training import denoiser
from atelier.training.conversion import add_conversion, scheduler_for
from atelier.training.denoiser import Extra
from atelier.training.loop import Task
from atelier.training.lora import save_denoiser, save_with_scheduler
from atelier.training.order import Turn, turns
from atelier.training.run import TrainingRun, training_run
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of a training

CALIBRATION = 128  # number of samples from which a loss's weight is set
EMPTY_PROMPTS = 0.1  # share of prompts left empty


def main(params: Params, workspace: Workspace, variant: str, seed: str) -> None:
    """Write one variant, trained from one seed, to ``build/adapters``."""
    train(params, workspace, variant, params.protocol.training_seed(seed))


def train(params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
    """Train one seed and write what it learnt, its scheduler and, where followed, averages."""
    setup = PostTrainingSetup(params, workspace, variant, training_seed)
    config, training = setup.config, setup.training
    half_lives = config.averages if variant in config.followed else []
    run = training_run(
        params,
        workspace.scratch,
        config.STUDY,
        variant,
        training_seed,
        workspace.adapter(config.STUDY, variant, training_seed),
        **setup.works.key,
        training=training.model_dump(mode="json"),
        rank=config.rank,
        crop=config.crop,
        slices=config.slices,
        optimisation=config.optimisation.model_dump(mode="json"),
        works=setup.works.names,
        averages=half_lives,
    )
    history = [before(setup, run)] if training.before else []
    weight = None if training.loss == "plain" else setup.weight()
    task = setup.task(setup.seed, None if weight is None else setup.extra(weight))
    optimisation = config.optimisation.model_copy(update={"steps": config.steps_of(variant)})
    averages: dict[float, dict[str, Tensor]] = {half_life: {} for half_life in half_lives}
    after = run.fit(task, optimisation, setup.accelerator, setup.seed, averages=averages)
    history.append(after.assign(step=after["step"] + training.before))

    def save(folder: Path, card: dict[str, object]) -> None:
        setup.save(folder, card)
        for half_life, average in averages.items():
            for name, value in average.items():
                setup.trainable[name].data.copy_(value)
            setup.save(folder / average_folder(half_life), {**card, "half_life": half_life})

    run.write(save, pd.concat(history, ignore_index=True), weight=weight, works=len(setup.works.names))
    run.discard()


def before(setup: "PostTrainingSetup", run: TrainingRun) -> pd.DataFrame:
    """Plain post-training before the compared one; returns the history."""
    optimisation = setup.config.optimisation.model_copy(update={"steps": setup.training.before})
    seed = seed_of(setup.seed, "before")
    return run.fit(setup.task(seed), optimisation, setup.accelerator, seed, phase="before")


def start(params: Params, workspace: Workspace, training: PostTraining) -> StableDiffusionPipeline:
    """A variant's initial model: the base, or a shipped base's conversion to another kind of prediction.

    Another base is converted by the variant's own steps before those that are compared.
    """
    pipeline = base.load(check_seal(workspace.base))
    if training.kind in ("base", pipeline.scheduler.config.prediction_type):
        return pipeline
    if params.base.source != "shipped":
        if not training.before:
            wanted = "a shipped base, or steps before, which convert"
            raise ValueError(f"latent_perceptual.trainings: kind '{training.kind}' needs {wanted}")
        pipeline.scheduler = scheduler_for(training.kind, pipeline.scheduler)
        return pipeline
    folder = workspace.named(params.data.folder) / "conversions" / training.kind
    if not folder.is_dir():
        raise ValueError(f"latent_perceptual.trainings: kind '{training.kind}' needs a shipped base and {folder}")
    return converted(pipeline, folder)


class PostTrainingSetup:
    """One variant's denoiser, training examples and tasks, for one training seed."""

    def __init__(self, params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
        self.config = Config.of(params)
        check_seed(params, variant, training_seed)
        self.training = self.config.trainings[variant]
        self.seed = seed_of(params.seed, Config.STUDY, training_seed)
        source = sources(params, workspace, self.training)
        self.works = source.training()
        self.examples = source.cache(self.works.key).examples(self.works.names)
        self.accelerator = accelerator(params.machine)
        self.pipeline = start(params, workspace, self.training)
        self.kind: str = self.pipeline.scheduler.config.prediction_type
        device = self.accelerator.device
        self.unet = self.pipeline.unet.to(device)
        self.vae = self.pipeline.vae.to(device, memory_format=torch.channels_last)
        self.vae.requires_grad_(False).eval()
        if self.config.rank is None:
            self.trainable = dict(self.unet.requires_grad_(True).named_parameters())
        else:
            self.trainable = add_conversion(self.unet, self.config.rank, self.seed)

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write what was trained, its card and its scheduler."""
        if self.config.rank is None:
            save_whole(self.pipeline, folder, card)
        else:
            save_with_scheduler(self.pipeline, folder, card)

    def task(self, seed: int, extra: Extra | None = None) -> Task:
        """The denoising task with additional loss terms."""
        task = denoiser.task(
            self.unet,
            self.trainable,
            self.pipeline.scheduler,
            self.examples,
            empty_share=EMPTY_PROMPTS,
            seed=seed,
            device=self.accelerator.device,
            extra=extra,
        )
        # a crop is drawn for the first sample that is compared, which another share's is not
        return replace(task, means=extra is None or not self.config.crop)

    def compare(self) -> Compare:
        if self.training.loss == "reweighted":
            return latent_error
        return perceptual(self.vae, self.training, self.config.crop, self.works.names, self.seed)

    def extra(self, weight: float = 1.0) -> Extra:
        return gated(self.compare(), self.kind, self.training.tau, self.config.slices, weight)

    def weight(self) -> float:
        """The weight of the added loss that gives it its share of the total loss at the start.

        The denoising loss is estimated as the mean over a run's first samples; the added loss as the mean over equally
        many first samples below the threshold, times the share of steps below it.
        """
        alphas, sigmas, _ = denoiser.path(self.pipeline.scheduler)
        under = sigmas <= threshold(self.training.tau, self.examples.latents.mean.shape[-1]) * alphas
        if not under.any():
            return weight_for(self.training.share, 0.0, 0.0)
        counted = list(islice((turn for turn in self.turns() if under[self.step_of(turn, len(under))]), CALIBRATION))
        plain = self.mean_term("denoising", list(islice(self.turns(), CALIBRATION)))
        return weight_for(self.training.share, plain, float(under.float().mean()) * self.mean_term(TERM, counted))

    def turns(self) -> Iterator[Turn]:
        """A run's samples in order, without end."""
        return (turn for step in count() for turn in turns(self.seed, step, 1, len(self.works.names)))

    def step_of(self, turn: Turn, steps: int) -> int:
        """The timestep drawn for a sample's turn, out of ``steps``."""
        shape, name = self.examples.latents.mean.shape[1:], self.works.names[turn.sample]
        return denoiser.draw(self.seed, name, turn.epoch, shape, steps, self.examples.prompts, EMPTY_PROMPTS).t

    @torch.no_grad()
    def mean_term(self, name: str, turns: Sequence[Turn]) -> float:
        """The mean of a loss term over these turns, in batches of the run's size."""
        task = self.task(self.seed, self.extra() if name == TERM else None)
        size, total = self.config.optimisation.batch, 0.0
        for first in range(0, len(turns), size):
            with self.accelerator.autocast():
                total += float(task.losses(turns[first : first + size])[name]) * len(turns[first : first + size])
        return total / len(turns)


def average_folder(half_life: float) -> str:
    return f"average-{half_life:g}"


def tuned_pipeline(
    params: Params, workspace: Workspace, variant: str, training_seed: int, half_life: float | None = None
) -> StableDiffusionPipeline:
    """Load a trained variant, or one of its averages."""
    config = Config.of(params)
    check_seed(params, variant, training_seed)
    folder = check_seal(workspace.adapter(config.STUDY, variant, training_seed))
    if half_life is not None:
        folder = folder / average_folder(half_life)
    if config.rank is None:  # the whole denoiser replaces whatever it began with
        return converted(base.load(check_seal(workspace.base)), folder)
    return converted(start(params, workspace, config.trainings[variant]), folder)


def save_whole(pipeline: StableDiffusionPipeline, folder: Path, card: Mapping[str, Any]) -> None:
    """Write a whole denoiser, its card and its scheduler."""
    save_denoiser(pipeline.unet, folder, card)
    with filling(folder / "scheduler"):
        pipeline.scheduler.save_pretrained(folder / "scheduler")


def check_variant(params: Params, variant: str) -> None:
    """Raise ValueError for a variant that the parameters do not name."""
    known = Config.of(params).trainings
    if variant not in known:
        raise ValueError(f"latent_perceptual.trainings: no variant '{variant}', there are {', '.join(known)}")


def check_seed(params: Params, variant: str, training_seed: int) -> None:
    """Raise ValueError for an unknown variant, or a seed that it is not trained from."""
    check_variant(params, variant)
    params.protocol.check_seed(training_seed)
    if training_seed not in (known := seeds_of(params, variant)):
        raise ValueError(f"latent_perceptual.ablation_seeds: {training_seed} is not one of {known}")
