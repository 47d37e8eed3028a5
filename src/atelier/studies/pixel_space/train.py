"""Post-train an adapter of the denoiser in latents, in pixels or in both: on curated works, or on pairs of preferences.

Every variant starts from the base, or from its conversion to v prediction, with an adapter on all layers. Variants of
one kind share samples and noise. The denoiser without its adapter is the reference of preference losses.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier.files import check_seal, write_table
from atelier.machine import accelerator
from atelier.methods.preference import implicit_accuracy, reference_gap
from atelier.models import base
from atelier.models.adapters import converted
from atelier.models.stored import tensor_digest
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.studies.pixel_space import pictures
from atelier.studies.pixel_space.loss import (
    DENOISING,
    EMPTY_PROMPTS,
    LATENT,
    PIXEL,
    Drawn,
    Pixels,
    Preferences,
    Preferred,
    alone,
    decoder,
    pair_errors,
    pixel_term,
    preference_task,
    without_adapter,
)
from atelier.studies.pixel_space.params import Config, PostTraining, seeds_of
from atelier.training import denoiser
from atelier.training.conversion import add_conversion
from atelier.training.loop import Task, Watch
from atelier.training.lora import save_with_scheduler
from atelier.training.order import Turn, turns
from atelier.training.run import training_run
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of a training

CALIBRATION = 32  # number of samples whose gradients the weight is set from
PROBED = 32  # pairs, and timesteps evenly spaced over them, whose errors are measured at regular steps
STRIDE = 27  # has no factor in common with it
PROBES = "probes.csv"  # step, errors of winners and losers over the base's, share of pairs in order


def main(params: Params, workspace: Workspace, variant: str, seed: str) -> None:
    """Write one variant, trained from one seed, to ``build/adapters``."""
    train(params, workspace, variant, params.protocol.training_seed(seed))


def train(params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
    """Train one seed; write the adapter, its scheduler, history, and of preferences what was seen at checkpoints.

    The card has the pixel term's ``weight``, the ``factor`` of units, the step at which the training ``stopped`` early
    or null, and ``winner_error``: the winners' error at the end over the base's, less 1.
    """
    setup = Setup(params, workspace, variant, training_seed)
    config, training = setup.config, setup.training
    optimisation = config.optimisation_of(variant)
    run = training_run(
        params,
        workspace.scratch,
        config.STUDY,
        variant,
        training_seed,
        workspace.adapter(config.STUDY, variant, training_seed),
        **setup.key,
        training=training.model_dump(mode="json"),
        constants={
            name: getattr(config, name) for name in ("rank", "crop", "slices", "beta", "simpo_beta", "margin", "most")
        },
        optimisation=optimisation.model_dump(mode="json"),
    )
    factor = setup.factor()
    weight = setup.weight(factor)
    task, watch = setup.task(factor, weight), setup.watch()
    history = run.fit(task, optimisation, setup.accelerator, setup.seed, watch=watch)

    def save(folder: Path, card: Mapping[str, Any]) -> None:
        save_with_scheduler(setup.pipeline, folder, card)
        if watch:
            write_table(folder / PROBES, pd.DataFrame(watch.rows))

    ended = {
        "stopped": watch.stopped if watch else None,
        "winner_error": watch.rows[-1]["winner"] - 1 if watch else None,
    }
    run.write(save, history, weight=weight, factor=factor, samples=len(task.samples), **ended)
    run.discard()


def start(params: Params, workspace: Workspace, training: PostTraining) -> StableDiffusionPipeline:
    """A variant's initial model: the base, or a shipped base's conversion to v prediction."""
    pipeline = base.load(check_seal(workspace.base))
    if training.kind in ("base", pipeline.scheduler.config.prediction_type):
        return pipeline
    folder = conversion_of(params, workspace, training)
    if params.base.source != "shipped" or not folder.is_dir():
        raise ValueError(f"pixel_space.trainings: kind '{training.kind}' needs a shipped base and {folder}")
    return converted(pipeline, folder)


def conversion_of(params: Params, workspace: Workspace, training: PostTraining) -> Path:
    """Where a shipped base's conversion to a variant's kind of prediction is; nothing is there for the base's kind."""
    return workspace.named(params.data.folder) / "conversions" / training.kind


class Setup:
    """One variant's denoiser, examples or pairs, and tasks, for one training seed."""

    def __init__(self, params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
        check_seed(params, variant, training_seed)
        self.config = Config.of(params)
        self.training = self.config.trainings[variant]
        self.seed = seed_of(params.seed, Config.STUDY, training_seed)
        self.accelerator = accelerator(params.machine)
        self.pipeline = start(params, workspace, self.training)
        device = self.accelerator.device
        self.unet = self.pipeline.unet.to(device)
        self.decode = decoder(self.pipeline.vae.to(device, memory_format=torch.channels_last))
        self.trainable = add_conversion(self.unet, self.config.rank, self.seed)
        self.key: dict[str, Any]
        if self.training.method == "supervised":
            works = pictures.training(params, workspace)
            self.examples = pictures.works_cache(workspace, works.key).examples(works.names)
            self.names, self.key = works.names, {**works.key, "works": works.names}
        else:
            chosen = pictures.pairs(workspace)
            self.preferences = Preferences(
                self.unet, self.pipeline.scheduler, chosen, self.training.noise, self.seed, device
            )
            self.names = chosen.names
            self.key = {"model": base.fingerprint(workspace.base), "pairs": tensor_digest(chosen._asdict())}
        if (conversion := conversion_of(params, workspace, self.training)).is_dir():
            self.key["conversion"] = base.fingerprint(conversion)

    @property
    def pixels(self) -> Pixels:
        kind, config = self.pipeline.scheduler.config.prediction_type, self.config
        return Pixels(self.decode, kind, self.training.decoded, config.crop, config.slices, self.seed, list(self.names))

    def task(self, factor: float | None, weight: float | None, training: PostTraining | None = None) -> Task:
        """What is learnt; None where it has no such number. ``training``: another one's terms."""
        training, scale = training or self.training, 1.0 if weight is None else weight
        if training.method != "supervised":
            preferred = Preferred(training, self.config.beta, self.config.simpo_beta, self.config.margin)
            units = 1.0 if factor is None else factor
            return preference_task(self.preferences, self.trainable, preferred, self.pixels, units, scale)
        task = denoiser.task(
            self.unet,
            self.trainable,
            self.pipeline.scheduler,
            self.examples,
            empty_share=EMPTY_PROMPTS,
            seed=self.seed,
            device=self.accelerator.device,
            extra=None if training.terms == "latent" else pixel_term(self.pixels, scale),
        )
        # a crop is drawn for a batch's first sample, which another share's is not
        task = replace(task, means=training.terms == "latent" or not self.config.crop)
        return alone(task, PIXEL) if training.terms == "pixel" else task

    # ------------------------------------------------------------------------------------- constants of a loss

    def factor(self) -> float | None:
        """Latent errors over pixel errors of fixed draws at the start: pairs' errors in pixels are times it."""
        if self.training.method == "supervised" or self.training.terms == "latent":
            return None
        latent, pixel = 0.0, 0.0
        for drawn in self.probes():
            output = self.output(drawn)
            latent += float(self.preferences.latent_errors(drawn, output).sum())
            errors, each = pair_errors(drawn, self.pixels, 1.0), max(1, self.config.slices // 2)
            for first in range(0, len(output), each):
                rows = slice(first, first + each)
                with torch.no_grad(), self.accelerator.autocast():
                    pixel += float(errors(rows, output[rows]).sum())
        return latent / pixel

    def weight(self, factor: float | None) -> float | None:
        """The pixel term's weight: of both terms' gradients at the start its norm has the configured share.

        Norms are means over a run's first batches. Supervised pixels alone get the latent term's norm, so that clipping
        treats them alike; pixels of preferences alone have its units already.
        """
        terms, supervised = self.training.terms, self.training.method == "supervised"
        if terms == "latent" or (terms == "pixel" and not supervised):
            return None
        norms = self.norms(factor)
        share = self.training.share if terms == "both" else 0.5
        return weight_for(share, norms[DENOISING if supervised else LATENT], norms[PIXEL])

    def norms(self, factor: float | None) -> dict[str, float]:
        """Norms of the gradients of both terms, without a weight, at the start."""
        task = self.task(factor, None, self.training.model_copy(update={"terms": "both"}))
        supervised = self.training.method == "supervised"
        size = (self.config.supervised if supervised else self.config.preference).batch
        batches, total = max(1, CALIBRATION // size), dict.fromkeys((DENOISING, LATENT, PIXEL), 0.0)
        parameters = list(self.trainable.values())
        for step in range(batches):
            with self.accelerator.autocast():
                terms = task.losses(turns(self.seed, step, size, len(self.names)))
            for name in total.keys() & terms.keys():
                gradients = torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True)
                total[name] += (
                    float(torch.stack([each.norm() for each in gradients if each is not None]).norm()) / batches
                )
        return total

    # ------------------------------------------------------------------------------------- what is watched

    def probes(self) -> Iterator[Drawn]:
        """Fixed draws of pairs, at timesteps evenly spaced, in batches of the run's size."""
        n, steps = len(self.names), self.pipeline.scheduler.config.num_train_timesteps
        fixed = self.preferences._replace(seed=seed_of(self.seed, "probe"))
        # neighbouring pairs are far apart in time, and a pair that comes again is elsewhere
        times = [int((number * STRIDE % PROBED + 0.5) * steps / PROBED) for number in range(PROBED)]
        chosen = [(Turn(number % n, number // n), t) for number, t in enumerate(times)]
        size = self.config.preference.batch
        for first in range(0, PROBED, size):
            part = chosen[first : first + size]
            yield fixed.drawn([turn for turn, _ in part], [t for _, t in part])

    def output(self, drawn: Drawn) -> Tensor:
        with torch.no_grad(), self.accelerator.autocast():
            return self.preferences.output(drawn)

    def probed(self) -> Tensor:
        """Latent errors (n, 2) of winners and losers on fixed draws, now."""
        return torch.cat([self.preferences.latent_errors(each, self.output(each)) for each in self.probes()])

    def watch(self) -> Watch | None:
        """Of preferences: a training ends where the winners' error rises too far over the base's."""
        if self.training.method == "supervised":
            return None
        with without_adapter(self.unet):
            unchanged = self.probed()

        def look() -> dict[str, float]:
            errors = self.probed()
            winner, loser = (errors.mean(0) / unchanged.mean(0)).tolist()
            gap = reference_gap(*errors.unbind(1), *unchanged.unbind(1))
            return {"winner": winner, "loser": loser, "accuracy": float(implicit_accuracy(gap))}

        return Watch(look, lambda row: row["winner"] > self.config.most)


def weight_for(share: float, latent: float, pixel: float) -> float:
    """The weight that gives a gradient's norm this share of both norms' sum; ValueError for a norm of 0."""
    if not (latent > 0 and pixel > 0):
        raise ValueError(f"a share of {share:g} of nothing: the gradients' norms are {latent:g} and {pixel:g}")
    return share / (1 - share) * latent / pixel


def tuned_pipeline(params: Params, workspace: Workspace, variant: str, training_seed: int) -> StableDiffusionPipeline:
    """Load a trained variant."""
    check_seed(params, variant, training_seed)
    config = Config.of(params)
    folder = check_seal(workspace.adapter(config.STUDY, variant, training_seed))
    return converted(start(params, workspace, config.trainings[variant]), folder)


def check_seed(params: Params, variant: str, training_seed: int) -> None:
    """Raise ValueError for an unknown variant, or a seed that it is not trained from."""
    known = Config.of(params).trainings
    if variant not in known:
        raise ValueError(f"pixel_space.trainings: no variant '{variant}', there are {', '.join(known)}")
    params.protocol.check_seed(training_seed)
    if training_seed not in (seeds := seeds_of(params, variant)):
        raise ValueError(f"pixel_space.ablation_seeds: {training_seed} is not one of {seeds}")
