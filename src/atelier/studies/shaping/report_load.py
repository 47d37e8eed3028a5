"""Reading what the stages left for the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from atelier.files import check_seal, read_json, read_table, reading
from atelier.params import Params
from atelier.sampling import store
from atelier.studies.shaping import flow_measure, measure
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.report_results import PAPER, Results
from atelier.studies.shaping.sample import all_conditions, location_of
from atelier.workspace import Workspace

COLUMNS = 10  # pictures in a row of a contact sheet
PRINTED = ("task", "dataset", "measure", "value", "rank", "source")


def load(params: Params, workspace: Workspace) -> Results:
    """Read the tables of measures, the trainings' cards, and the first pictures of every cell."""
    made = measure.load(params, workspace.measures)
    flows, parts, noise, _ = flow_measure.load(workspace.measures)
    pictures, prompts = first_pictures(params, workspace.samples)
    return Results(
        params=params,
        config=Config.of(params),
        rows=pd.concat([made.rows, flows], ignore_index=True),
        law=made.law,
        histogram=made.histogram,
        cards=cards(params, workspace),
        first_pictures=pictures,
        first_prompts=prompts,
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


def first_pictures(params: Params, samples: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The first pictures of the first repeat of every cell from white noise, and their prompts."""
    first, prompts = {}, list[str]()
    for condition in all_conditions(params):
        if condition.cell != condition.variant:
            continue
        place = location_of(params, condition).folder(samples, params.protocol.training_seeds[0])
        painted, listed = store.read([place])
        rows = listed.query("repeat == repeat.min() and place < @COLUMNS").sort_values("place")
        first[condition.variant] = painted[rows.index.tolist()].load()
        prompts = rows["prompt"].tolist()
    return first, prompts
