"""Measure cells: a model's pictures at one guidance scale, in groups of repeats, against held-out works."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from atelier import scratch
from atelier.data import prepare
from atelier.evaluation import judges
from atelier.evaluation import reference as references
from atelier.evaluation.groups import Reference, group, groups_of, measured, reference_alone, simple, spread_over_groups
from atelier.evaluation.tables import REAL, RECONSTRUCTED, RECONSTRUCTED_TRAINING
from atelier.params import Params
from atelier.sampling.store import UNTUNED, Location, read
from atelier.workspace import Workspace


def truth_of_works(manifests: Path) -> pd.DataFrame:
    """The true subject and emotion of every work, by path."""
    return prepare.with_truth(prepare.works(manifests).table, manifests).set_index("path")


def cell_rows(
    params: Params,
    samples: Path,
    reference: Reference,
    location: Location,
    by: judges.Judges,
    truth: pd.DataFrame,
) -> pd.DataFrame:
    """One row per measure of a cell."""
    pictures, listed = read(location.folders(samples, params.protocol.training_seeds))
    return measured(reference, groups_of(pictures, listed, params.protocol.groups, by, truth))


def measure_cells(
    params: Params, workspace: Workspace, reference: Reference, cells: Mapping[str, Location], run: Path
) -> list[pd.DataFrame]:
    """The rows of each cell; cells measured by an earlier process are read from the scratch folder ``run``."""
    by, truth = judges.load(params, workspace), truth_of_works(workspace.manifests)
    return [
        scratch.table(
            run,
            name,
            partial(cell_rows, params, workspace.samples, reference, location, by, truth),
        ).assign(cell=name)
        for name, location in cells.items()
    ]


def real_rows(params: Params, workspace: Workspace, reference: Reference, pictures_each: int) -> list[pd.DataFrame]:
    """Reference rows: training works in place of generated ones, and reconstructed works of both splits."""
    works = prepare.works(workspace.manifests).table
    sets = {
        REAL: prepare.pictures(works[works["split"] == "train"], params.data, workspace),
        RECONSTRUCTED: references.reconstructed_works(workspace.reference),
        RECONSTRUCTED_TRAINING: references.reconstructed_training(workspace.reference),
    }
    groups, by = len(params.protocol.groups), judges.load(params, workspace)
    return [
        measured(reference, spread_over_groups(pictures, pictures_each, groups, by)).assign(cell=name)
        for name, pictures in sets.items()
    ]


def by_known_artist(params: Params, workspace: Workspace, cells: Mapping[str, Location]) -> pd.DataFrame:
    """The untuned base's cells split into works by artists that it was trained on and works by other artists.

    Empty if the data does not name those artists; cells with fewer than two such pictures in a group are left out.
    """
    manifests, by = workspace.manifests, judges.load(params, workspace)
    works = prepare.works(manifests).table.query("split == 'test'")
    known, artists = judges.known_artists(workspace.known_artists), works.set_index("path")["artist"]
    rows = [pd.DataFrame()]
    for word, wanted in {"known": True, "unknown": False}.items() if known else ():
        mask = works["artist"].isin(known).to_numpy() == wanted
        held_out = prepare.pictures(works[mask], params.data, workspace)
        reference = reference_alone(group(held_out, by))
        truth = prepare.with_truth(works[mask], manifests).set_index("path")
        for cell, location in cells.items():
            if not cell.startswith(f"{UNTUNED}@"):
                continue
            pictures, listed = read(location.folders(workspace.samples, params.protocol.training_seeds))
            of_them = artists.loc[listed["path"]].isin(known).to_numpy() == wanted
            pictures, listed = pictures[of_them], listed[of_them]
            fewest = min(listed["repeat"].isin(repeats).sum() for repeats in params.protocol.groups)
            if fewest >= 2:
                parts = groups_of(pictures, listed, params.protocol.groups, by, truth)
                name = cell.replace("@", f"-{word}@")
                rows.append(measured(reference, parts, simple).assign(cell=name))
    return pd.concat(rows, ignore_index=True)
