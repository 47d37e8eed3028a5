"""Reading what the stages left for the page."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from atelier.data import prepare
from atelier.files import check_seal, read_json, read_table, reading
from atelier.params import Params
from atelier.report import naming, starts
from atelier.report.browser import Browsed, Cell, Values, by_path
from atelier.sampling import store
from atelier.studies.shaping import flow_measure, measure
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.report_results import PAPER, Results
from atelier.studies.shaping.sample import all_conditions, location_of
from atelier.workspace import Workspace

PRINTED = ("task", "dataset", "measure", "value", "rank", "source")


def load(params: Params, workspace: Workspace) -> Results:
    """Read the tables of measures and the trainings' cards, and list the pictures of every cell."""
    made = measure.load(params, workspace.measures)
    flows, parts, noise, _ = flow_measure.load(workspace.measures)
    return Results(
        params=params,
        config=Config.of(params),
        rows=pd.concat([made.rows, flows], ignore_index=True),
        law=made.law,
        histogram=made.histogram,
        cards=cards(params, workspace),
        browsed=browsed(params, workspace),
        noise=noise,
        parts=parts,
        paper=read_table(workspace.papers / PAPER, PRINTED),
    )


def cards(params: Params, workspace: Workspace) -> dict[str, list[Mapping[str, Any]]]:
    """Every training's card, by variant, one a training seed."""
    config, seeds = Config.of(params), params.protocol.training_seeds
    return {
        name: [card(check_seal(workspace.adapter(config.STUDY, name, seed)) / "card.json") for seed in seeds]
        for name in config.names
    }


def card(path: Path) -> Mapping[str, Any]:
    """What a training says of what it learnt: candidates, how many were accepted, and the rewards of its rounds."""
    with reading(path):
        content = read_json(path)
        return {
            "candidates": int(content["candidates"]),
            "accepted": int(content["accepted"]),
            "rewards": [float(each) for each in content.get("rewards", [])],
        }


def browsed(params: Params, workspace: Workspace) -> Browsed:
    """Pictures of the base, by both samplers, and of every variant, and the works."""
    config, seeds = Config.of(params), params.protocol.training_seeds
    variants: dict[str, dict[Values, Cell]] = {}
    for condition in all_conditions(params):
        cells = variants.setdefault(naming.model(config.STUDY, condition.variant), {})
        folders = location_of(params, condition).folders(workspace.samples, seeds)
        cells[f"{config.guidance:g}", starts.NAMES[condition.start]] = store.read(folders)
    works = prepare.works(workspace.manifests).table
    read = partial(prepare.pictures, data=params.data, workspace=workspace)
    return Browsed(["guidance", "first latent"], variants, "the real work", by_path(works, read))
