"""Reading what the stages left for the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor

from atelier.data.images import to_pixels
from atelier.evaluation.judges import read_bars
from atelier.evaluation.tables import read_rows
from atelier.files import check_seal, read_json, read_table, reading
from atelier.models import base
from atelier.models.latents import decode
from atelier.params import Params
from atelier.sampling import store
from atelier.studies.pixel_space.params import UNTUNED, Config, seeds_of
from atelier.studies.pixel_space.report_results import VOTES, Results
from atelier.workspace import Workspace

COLUMNS = 10  # pictures in a row of a contact sheet
VOTED = ("table", "training", "model", "a", "b", "label", "flaws_win", "appeal_win", "alignment_a")  # and others


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left, and decode the first pairs of preferences."""
    config = Config.of(params)
    vae = base.load(check_seal(workspace.base)).vae.requires_grad_(False)
    corpus = check_seal(workspace.build / "corpus" / config.STUDY)
    measured = [workspace.measures / f"{config.STUDY}{part}.csv" for part in ("", "_inspected")]
    return Results(
        params=params,
        config=config,
        n_learnt=len(read_table(corpus / "training.csv")),
        n_held_out=len(read_table(corpus / "held_out.csv")),
        pairs=read_table(corpus / "pairs.csv"),
        cards=cards(params, workspace),
        history=histories(params, workspace),
        rows=pd.concat([read_rows(path) for path in measured], ignore_index=True),
        gradients=read_rows(workspace.measures / f"{config.STUDY}_gradients.csv"),
        bars=read_bars(workspace.bars),
        first_pictures=first_pictures(params, workspace.samples),
        first_pairs=first_pairs(vae, corpus / "pairs.safetensors"),
        decoded={},
        decoded_at=[],
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
    """A training's card: the pixel term's weight, and the step at which it stopped, if it did."""
    with reading(path):
        content = read_json(path)
        return {name: content[name] for name in ("weight", "stopped")}


def histories(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Errors of every variant and training seed."""
    study = Config.STUDY
    runs = [
        read_table(check_seal(workspace.adapter(study, name, seed)) / "history.csv").assign(
            variant=name, training_seed=seed
        )
        for name in Config.of(params).names
        for seed in seeds_of(params, name)
    ]
    return pd.concat(runs, ignore_index=True)


def first_pictures(params: Params, samples: Path) -> dict[str, Tensor]:
    """The first pictures of the first repeat, of the base and every variant, from white noise."""
    config, pictures = Config.of(params), {}
    for name in (UNTUNED, *config.names):
        where = store.Location(config.STUDY, name, config.guidance, condition=name)
        seed = params.protocol.training_seeds[0] if name == UNTUNED else seeds_of(params, name)[0]
        sampled, listed = store.read([where.folder(samples, seed)])
        first = listed.query("repeat == repeat.min() and place < @COLUMNS").sort_values("place")
        pictures[name] = sampled[first.index.tolist()]
    return pictures


@torch.no_grad()
def first_pairs(vae: AutoencoderKL, path: Path) -> dict[str, Tensor]:
    """The first pairs of preferences, decoded."""
    with reading(path):
        pairs = load_file(path)
    return {
        label: to_pixels(decode(vae, pairs[name][:COLUMNS])) for label, name in (("best", "winner"), ("worst", "loser"))
    }
