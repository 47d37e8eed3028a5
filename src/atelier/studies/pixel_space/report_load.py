"""Reading what the stages left for the page."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier.data.images import to_pixels
from atelier.diffusion import clean_estimate, noised
from atelier.evaluation.tables import read_rows
from atelier.files import check_seal, read_json, read_table, reading
from atelier.models import base
from atelier.models.latents import decode
from atelier.params import Params
from atelier.report import naming, starts
from atelier.report.browser import Browsed, Cell, Values, by_path
from atelier.sampling import store
from atelier.studies.pixel_space import inspect, judges, measure, pictures
from atelier.studies.pixel_space.params import UNTUNED, Config, seeds_of
from atelier.studies.pixel_space.report_results import VOTES, Results
from atelier.studies.pixel_space.sample import Condition, location_of
from atelier.studies.pixel_space.train import PROBES
from atelier.training import denoiser
from atelier.training.base import HISTORY
from atelier.workspace import Workspace

COLUMNS = 10  # pictures in a row of a contact sheet
LEVELS = 8  # noise levels at which one work is shown
VOTED = ("table", "training", "model", "a", "b", "label", "flaws_win", "appeal_win", "alignment_a")  # and others


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left, and decode the first pairs of preferences, and one work by noise level."""
    config, measures = Config.of(params), workspace.measures
    pipeline = base.load(check_seal(workspace.base))
    pipeline.vae.requires_grad_(False)
    rows, every_pair = measure.load(measures)
    listed = read_table(pictures.folder(workspace) / pictures.LISTED, pictures.SCORES)
    levels, shown = decoded_by_level(params, workspace, pipeline)
    return Results(
        params=params,
        config=config,
        n_learnt=len(pictures.split(workspace, pictures.TRAINING)),
        n_held_out=len(pictures.split(workspace, pictures.HELD_OUT)),
        pairs=listed,
        cards=cards(params, workspace),
        history=histories(params, workspace),
        probes=probed(params, workspace),
        rows=pd.concat([rows, read_rows(measures / inspect.OUT)], ignore_index=True),
        every_pair=every_pair,
        gradients=read_rows(measures / inspect.GRADIENTS),
        bars=judges.bars(workspace),
        browsed=browsed(params, workspace),
        first_pairs=first_pairs(pipeline.vae, pictures.pairs(workspace)),
        decoded=shown,
        decoded_at=levels,
        votes=read_table(workspace.papers / VOTES, VOTED),
    )


def cards(params: Params, workspace: Workspace) -> dict[str, list[Mapping[str, Any]]]:
    """Every training's card, by variant, one a training seed."""
    config = Config.of(params)
    return {
        name: [
            card(check_seal(workspace.adapter(config.STUDY, name, seed)) / "card.json")
            for seed in seeds_of(params, name)
        ]
        for name in config.names
    }


def card(path: Path) -> Mapping[str, Any]:
    """A training's card: the pixel term's weight and units, and the step at which it stopped, or None."""
    with reading(path):
        content = read_json(path)
        return {name: content[name] for name in ("weight", "factor", "stopped")}


def histories(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Errors of every variant and training seed."""
    return _tables(params, workspace, Config.of(params).names, HISTORY)


def probed(params: Params, workspace: Workspace) -> pd.DataFrame:
    """What every preference training saw at its checkpoints; without rows where there is none."""
    config = Config.of(params)
    preferences = [name for name in config.names if config.trainings[name].method != "supervised"]
    return _tables(params, workspace, preferences, PROBES)


def _tables(params: Params, workspace: Workspace, variants: Sequence[str], file: str) -> pd.DataFrame:
    runs = [
        read_table(check_seal(workspace.adapter(Config.STUDY, name, seed)) / file, ("step",)).assign(
            variant=name, training_seed=seed
        )
        for name in variants
        for seed in seeds_of(params, name)
    ]
    return pd.concat([pd.DataFrame(columns=["variant", "training_seed", "step"]), *runs], ignore_index=True)


def browsed(params: Params, workspace: Workspace) -> Browsed:
    """Pictures of the base and of every main variant from both starts, and the held-out works."""
    config = Config.of(params)

    def cells(name: str) -> dict[Values, Cell]:
        seeds = params.protocol.training_seeds if name == UNTUNED else seeds_of(params, name)
        located = {start: location_of(params, Condition(name, start)) for start in config.starts(name)}
        return {
            (f"{config.guidance:g}", starts.NAMES[start]): store.read(each.folders(workspace.samples, seeds))
            for start, each in located.items()
        }

    return Browsed(
        ["guidance", "first latent"],
        {naming.model(config.STUDY, name): cells(name) for name in (UNTUNED, *config.variants)},
        "the real work",
        by_path(pictures.split(workspace, pictures.HELD_OUT), partial(pictures.pictures, params, workspace)),
    )


@torch.no_grad()
def first_pairs(vae: AutoencoderKL, pairs: pictures.Pairs) -> dict[str, Tensor]:
    """The first pairs of preferences, decoded."""
    shown = {"best": pairs.winner, "worst": pairs.loser}
    return {name: to_pixels(decode(vae, latents[:COLUMNS])) for name, latents in shown.items()}


@torch.no_grad()
def decoded_by_level(
    params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline
) -> tuple[list[int], dict[str, Tensor]]:
    """One inspected work by noise level, decoded: its noisy latent, and the base's estimate of the clean one."""
    alphas, sigmas, times = denoiser.path(pipeline.scheduler)
    sample = next(inspect.inspected(params, workspace, pipeline))
    levels = [(2 * level + 1) * len(alphas) // (2 * LEVELS) for level in range(LEVELS)]
    alpha, s = (each[levels].view(-1, 1, 1, 1) for each in (alphas, sigmas))
    z0, eps, embedded = (each[:1].repeat(LEVELS, *[1] * (each.ndim - 1)) for each in sample)
    zt = noised(z0, eps, alpha, s)
    output = pipeline.unet(zt, times[levels], embedded).sample
    estimate = clean_estimate(pipeline.scheduler.config.prediction_type, zt, output, alpha, s)
    shown = {"at its noise level": zt, "the clean estimate": estimate}
    return levels, {name: to_pixels(decode(pipeline.vae, latents)) for name, latents in shown.items()}
