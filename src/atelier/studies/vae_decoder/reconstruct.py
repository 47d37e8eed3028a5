"""Compare held-out works with their reconstructions by every decoder, by groups and styles.

A group uses decoders of its training seed. Reconstructions are kept in ``build/samples/repainted``.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from atelier import machine, scratch
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.pictures import Pictures
from atelier.evaluation import judges
from atelier.evaluation.groups import MEASURES, Group, group, pooled, pseudo_rows, reference_alone
from atelier.evaluation.intervals import FloatArray
from atelier.evaluation.tables import read_rows, write_rows
from atelier.files import copy
from atelier.methods.perceptual import LPIPS
from atelier.metrics import kernel_distance, log_power_error
from atelier.metrics.alignment import features
from atelier.models import evaluator as evaluators
from atelier.models.evaluator import Evaluator
from atelier.params import Params
from atelier.studies.vae_decoder.decoding import ORIGINAL, REPAINTED, held_out, repaint, repainted
from atelier.studies.vae_decoder.params import Config
from atelier.workspace import Workspace, replacing

OUT = "reconstructions.csv"  # in the folder of measures
TRUNK, EVALUATOR, BASE = "data/trunk", "data/evaluator", "data/base"  # of the embedded world
BATCH = 32  # batch size of perceptual networks


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/reconstructions.csv`` and ``build/samples/repainted``."""
    names, out = [ORIGINAL, *Config.of(params).variants], workspace.measures / OUT
    inputs = [workspace.base, workspace.decoders, workspace.evaluator, workspace.manifests]
    inputs += [workspace.named(file) for file in (params.perceptual.weights, params.perceptual.heads)]
    run = scratch.of_stage(params, workspace, __name__, out, inputs)
    works, networks = works_by_group(params, workspace), networks_of(params, workspace)
    rows = []
    for name in tqdm(names, unit="decoder"):
        made = scratch.folder_part(run, name, partial(repaint, params, workspace, name))
        rows.append(scratch.table(run, name, partial(decoder_rows, params, workspace, made, name, works, networks)))
    with replacing(workspace.samples / REPAINTED) as part:
        for name in names:
            for shard in sorted(scratch.path(run, name, "").glob("*.safetensors")):
                copy(shard, part / shard.name)
    write_rows(pd.concat(rows, ignore_index=True), out)
    scratch.discard(run)


class Networks(NamedTuple):
    """Networks to measure reconstructions: LPIPS by measure, and an evaluator for a kernel distance of its features."""

    lpips: dict[str, LPIPS]
    judge: Evaluator | None


class Returned(NamedTuple):
    """Works and their reconstructions, with errors per work.

    ``judged``: the judge's features (n, d) of both, if there is one.
    """

    works: Group
    made: Group
    errors: dict[str, FloatArray]  # measure -> (n,)
    judged: tuple[FloatArray, FloatArray] | None


def returned(
    works: Group, before: Pictures, made: Pictures, by: judges.Judges, networks: Networks, device: torch.device
) -> Returned:
    """Reduce works, as they were ``before``, and their reconstructions ``made`` to what measures need."""
    errors: dict[str, list[Tensor]] = {}
    judged: list[tuple[FloatArray, FloatArray]] = []
    for pair in zip(made.batches(BATCH), before.batches(BATCH), strict=True):
        squares = (pair[1].double() - pair[0].double()).div(255).square().mean((1, 2, 3))
        errors.setdefault("mse", []).append(squares)
        with torch.no_grad():
            for name, network in networks.lpips.items():
                distance = network.to(device)(*(to_model_range(pictures).to(device) for pictures in pair))
                errors.setdefault(name, []).append(distance.double().cpu())
        if (judge := networks.judge) is not None:
            judged.append((features(judge, pair[1] / 255), features(judge, pair[0] / 255)))
    seen = [np.concatenate(of) for of in zip(*judged, strict=True)]
    by_picture = {name: torch.cat(parts).numpy() for name, parts in errors.items()}
    return Returned(works, group(made, by), by_picture, (seen[0], seen[1]) if seen else None)


def measures_of(parts: Sequence[Returned]) -> dict[str, float]:
    """Measures of works against their reconstructions."""
    works, made = (pooled([getattr(part, name) for part in parts]) for name in ("works", "made"))
    errors = {name: float(np.concatenate([part.errors[name] for part in parts]).mean()) for name in parts[0].errors}
    reference = reference_alone(works)
    # a Frechet distance needs more works than some styles have
    names = ("fd", "fwd", "pr", "psd", "psd10") if works.n > works.features.shape[1] else ("pr", "psd", "psd10")
    values = {name: MEASURES[name](reference, made) for name in names}
    if parts[0].judged is not None:
        real, ours = (np.concatenate(of) for of in zip(*(part.judged for part in parts if part.judged), strict=True))
        values["kd_judge"] = kernel_distance(real, ours)
    high = log_power_error(
        works.spectrum, made.spectrum, above=min(works.spectrum.shape) / 4
    )  # above half of Nyquist's
    return values | errors | {"psnr": float(-10 * np.log10(errors["mse"])), "high": high}


def networks_of(params: Params, workspace: Workspace) -> Networks:
    """The network of the loss; of a base that is the embedded world's or began as it, also that world's judges.

    They saw painted pictures alone, and judge no other base, though they may lie beside it.
    """
    networks = Networks({"lpips": LPIPS.from_params(params.perceptual, workspace.root)}, None)
    of_the_world = params.base.source == "shipped" or params.base.location == BASE
    if params.perceptual.network == "trunk" or not of_the_world:
        return networks
    judge = LPIPS.from_folder(workspace.named(TRUNK))
    return Networks({**networks.lpips, "judge": judge}, evaluators.load(workspace.named(EVALUATOR)))


def works_by_group(params: Params, workspace: Workspace) -> list[dict[str, Group]]:
    """Held-out works reduced by group and style, used for every decoder."""
    by, table = judges.load(params, workspace), held_out(workspace.manifests)
    works, styles = prepare.pictures(table, params.data, workspace), table["art_style"].to_numpy()
    groups = len(params.protocol.groups)
    return [
        {
            style: group(works[first::groups][styles[first::groups] == style], by)
            for style in sorted(set(styles[first::groups]))
        }
        for first in range(groups)
    ]


def decoder_rows(
    params: Params,
    workspace: Workspace,
    folder: Path,
    name: str,
    works: Sequence[dict[str, Group]],
    networks: Networks,
) -> pd.DataFrame:
    """One row per measure of a decoder, whose reconstructions are in ``folder``: for all works, and for each style."""
    by, device = judges.load(params, workspace), machine.accelerator(params.machine).device
    made = next(repainted(params, workspace, [name], folder))
    parts = [
        {
            style: returned(known[style], pair.works, pair.made, by, networks, device)
            for style, pair in repainted_group.by_style().items()
        }
        for known, repainted_group in zip(works, made, strict=True)
    ]
    return reconstruction_rows(parts, name)


def reconstruction_rows(parts: Sequence[dict[str, Returned]], cell: str) -> pd.DataFrame:
    """One row per measure: for all works, and for each style of which every group has works."""
    everywhere = set.intersection(*(set(part) for part in parts))
    tables = []
    for style in ("", *sorted(everywhere)):
        sets = [[part[style]] if style else list(part.values()) for part in parts]
        n = sum(each.works.n for group_of in sets for each in group_of)
        rows = pseudo_rows(
            lambda which, sets=sets: measures_of([each for i in which for each in sets[i]]),  # type: ignore[misc]
            len(sets),
            n,
        )
        tables.append(rows.assign(cell=cell, style=style))
    return pd.concat(tables, ignore_index=True)


def load(measures: Path, styles: bool = False) -> pd.DataFrame:
    """Load the rows for all works, or the rows by style."""
    table = read_rows(measures / OUT, keep_default_na=False, na_values=[""]).fillna({"style": ""})
    return table[(table["style"] != "") == styles].reset_index(drop=True)
