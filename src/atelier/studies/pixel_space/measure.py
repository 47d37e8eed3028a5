"""Measure every post-training's pictures, alone and pair by pair, with one pseudo-value per group of repeats.

By the judge of defects that measures, the evaluator, and spectra; by nothing that chose what was learnt.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from atelier import scratch
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation import judges
from atelier.evaluation.groups import (
    Group,
    Reference,
    all_measures,
    group,
    groups_of,
    measured,
    pseudo_rows,
)
from atelier.evaluation.intervals import FloatArray
from atelier.evaluation.sharing import rows_of_groups
from atelier.evaluation.tables import read_rows, write_rows
from atelier.files import check_seal
from atelier.metrics import alignment, high_power, log_power_error, log_power_ratios
from atelier.metrics.masked import apart
from atelier.models import base
from atelier.models.defect_judge import DefectJudge
from atelier.models.latents import decode
from atelier.params import STARTS, Params
from atelier.sampling.store import read
from atelier.studies.pixel_space import judges as defect_judges
from atelier.studies.pixel_space.choose import reconstructed, reference, truth
from atelier.studies.pixel_space.compared import (
    AGAIN,
    DEFECTS,
    FIT,
    PAIR,
    SIGNS,
    at,
    pair_rows,
    pair_table,
    widths,
)
from atelier.studies.pixel_space.params import UNTUNED, Config, against, protocol_of
from atelier.studies.pixel_space.pictures import (
    HELD_OUT,
    TRAINING,
    card,
    folder,
    masks,
    pictures,
    split,
    training,
    works_cache,
)
from atelier.studies.pixel_space.restore import held_out, is_restored, restored_at
from atelier.studies.pixel_space.sample import Condition, all_conditions, location_of
from atelier.studies.pixel_space.winners import winner_errors
from atelier.workspace import Workspace

OUT, PAIRS = f"{Config.STUDY}.csv", f"{Config.STUDY}_pairs.csv"  # in the folder of measures
HALF = 0.25  # half of the Nyquist frequency, cycles a px
MARGIN = 1 / 32  # of the side: what is nearer to the subject's border is in neither part
REAL, RETURNED = "real", "returned"  # cells: the works that are learnt, and held-out ones, reconstructed
LEARNT_RETURNED = "real-returned"  # learnt works, reconstructed: the floor of errors ``_rec``
NOTHING = "nothing"  # a cell of zeros, for comparisons of differences
ZEROS = ("winner_error", "log_form_ratio", "round_trip", "top", *(f"net_{name}" for name in SIGNS))
BATCH = 64


class Judges(NamedTuple):
    """What sees pictures: the judge of defects that measures, and what sees them in all studies; of one style."""

    defects: DefectJudge
    networks: judges.Judges
    style: str


def judges_of(params: Params, workspace: Workspace) -> Judges:
    """Load what measures. Raises ValueError for a folder without the judge of defects."""
    judge = defect_judges.load(params, workspace, defect_judges.MEASURING)
    return Judges(judge, judges.load(params, workspace), str(card(workspace)["style"]))


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/pixel_space.csv``, and the outcomes of all pairs of main variants."""
    config = Config.of(params)
    inputs = [workspace.samples / config.STUDY, workspace.build / "restored" / config.STUDY, folder(workspace)]
    inputs += [workspace.adapters / config.STUDY, workspace.base, workspace.evaluator, defect_judges.folder(workspace)]
    out = workspace.measures / OUT
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    by, real = judges_of(params, workspace), reference(workspace)
    rows, scores = [], {}
    for cell, made in cells_of(params, workspace, by).items():
        table, of_pictures = cell_rows(run, cell, real, made)
        rows.append(table.assign(cell=cell))
        scores[cell] = of_pictures
    tie = widths(scratch.table(run, "mirrored", partial(mirrored, params, workspace, by)))
    rows.append(pair_rows(params, scores, tie))
    for name in (UNTUNED, *config.names):
        rows.append(scratch.table(run, f"{name} restored", partial(restored_rows, params, workspace, name)))
    for name in config.names:
        if config.trainings[name].method != "supervised":
            rows.append(scratch.table(run, f"{name} winners", partial(winner_errors, params, workspace, name)))
    rows.append(zeros(len(params.protocol.groups)))
    write_rows(pd.concat(rows, ignore_index=True), out)
    write_rows(pair_table(params, scores, tie), workspace.measures / PAIRS)
    scratch.discard(run)


# ------------------------------------------------------------------------------------------------ pictures


class Made(NamedTuple):
    """A cell's pictures in groups, and each picture's scores: a table with ``repeat`` and ``place``."""

    groups: list[Group]
    scores: pd.DataFrame


def cells_of(params: Params, workspace: Workspace, by: Judges) -> dict[str, Callable[[], Made]]:
    """Every cell of pictures: real ones, reconstructed ones, and each condition's."""
    return {
        REAL: lambda: of_works(params, by, pictures(params, workspace, split(workspace, TRAINING))),
        RETURNED: lambda: of_works(params, by, reconstructed(workspace)),
        LEARNT_RETURNED: lambda: of_works(params, by, learnt_returned(params, workspace)),
        **{each.cell: partial(painted, params, workspace, by, each) for each in all_conditions(params)},
    }


def cell_rows(run: Path, cell: str, real: Reference, made: Callable[[], Made]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A cell's measures and its pictures' scores; both from scratch where an earlier process has finished them."""
    names = (cell, f"{cell} scores")
    if not all(scratch.is_whole(scratch.path(run, name, ".parquet")) for name in names):
        results = made()
        scratch.table(run, names[1], lambda: results.scores)
        scratch.table(run, names[0], partial(measured, real, results.groups, of_group))
    table, scores = (scratch.read(scratch.path(run, name, ".parquet")) for name in names)
    return table, scores


def painted(params: Params, workspace: Workspace, by: Judges, condition: Condition) -> Made:
    """A condition's pictures, in groups of the repeats that its training seeds paint."""
    protocol = protocol_of(params, condition.variant).protocol
    shown, listed = read(location_of(params, condition).folders(workspace.samples, protocol.training_seeds))
    parts = groups_of(shown, listed, protocol.groups, by.networks, truth(workspace))
    chosen = [np.flatnonzero(listed["repeat"].isin(repeats)) for repeats in protocol.groups]
    scored = [scored_group(by, part, shown[rows]) for part, rows in zip(parts, chosen, strict=True)]
    tables = [listed.iloc[rows][PAIR].assign(**scores) for (_, scores), rows in zip(scored, chosen, strict=True)]
    return Made([part for part, _ in scored], pd.concat(tables, ignore_index=True))


def of_works(params: Params, by: Judges, works: Tensor | Pictures) -> Made:
    """Works (n, 3, h, w) uint8 in as many groups as generated pictures; at most as many, none twice."""
    number = len(params.protocol.groups)
    each = len(params.protocol.all_repeats) * Config.of(params).pictures // number
    works = in_memory(works)
    parts = [works[rows] for rows in rows_of_groups(len(works), each, number)]
    scored = [scored_group(by, group(part, by.networks), part) for part in parts]
    tables = [
        pd.DataFrame({"repeat": first, "place": range(len(part)), **scores})
        for first, (part, (_, scores)) in enumerate(zip(parts, scored, strict=True))
    ]
    return Made([part for part, _ in scored], pd.concat(tables, ignore_index=True))


def learnt_returned(params: Params, workspace: Workspace) -> Tensor:
    """The works that are learnt as the base's autoencoder returns them, (n, 3, h, w) uint8."""
    latents = works_cache(workspace, training(params, workspace).key).latents.mean
    return to_pixels(decode(base.load(check_seal(workspace.base)).vae, latents[list(range(len(latents)))]))


def scored_group(by: Judges, part: Group, shown: Tensor | Pictures) -> tuple[Group, dict[str, FloatArray]]:
    """A group whose measures include its pictures' scores, and the scores."""
    of_evaluator = by.networks.evaluator is not None and by.networks.main is None
    features = part.features if of_evaluator else None
    scores = scores_of(by, shown, features)
    return part._replace(per_picture={**part.per_picture, **scores}), scores


@torch.no_grad()
def scores_of(by: Judges, shown: Tensor | Pictures, features: FloatArray | None = None) -> dict[str, FloatArray]:
    """Each picture's strength of every defect and their sum, and its log-probability of the style, (n,) each.

    ``features``: the evaluator's, where they are known. No ``fit`` without an evaluator that knows the style.
    """
    strengths = torch.cat([by.defects(part / 255) for part in in_memory(shown).batches(BATCH)]).double().numpy()
    columns = {f"defect_{name}": strengths[:, column] for column, name in enumerate(by.defects.defects)}
    scores: dict[str, FloatArray] = {DEFECTS: strengths.sum(1), **columns}
    if (evaluator := by.networks.evaluator) is None or by.style not in evaluator.classes["art_style"]:
        return scores
    if features is None:
        features = np.concatenate([alignment.features(evaluator, x / 255) for x in in_memory(shown).batches()])
    fit = alignment.attributes_of(evaluator, [torch.from_numpy(features)])["art_style"][by.style]
    return scores | {FIT: fit.to_numpy()}


def of_group(real: Reference, made: Group) -> dict[str, float]:
    """Every measure of a set, and its power above half of the Nyquist frequency.

    ``high``: the error of log10 power by rings, too much and too little alike; ``high_rec``: against reconstructed
    works; ``top``: the mean log10 ratio, above 0 where there is more than in works.
    """
    works, above = real.held_out.spectrum, HALF * min(made.spectrum.shape)
    spectra = {"high": works}
    if real.reconstructed is not None:
        spectra["high_rec"] = real.reconstructed.works.spectrum
    errors = {name: log_power_error(spectrum, made.spectrum, above) for name, spectrum in spectra.items()}
    return {**all_measures(real, made), **errors, "top": float(log_power_ratios(works, made.spectrum, above).mean())}


def mirrored(params: Params, workspace: Workspace, by: Judges) -> pd.DataFrame:
    """Scores of the base's pictures, and of the same ones mirrored: how well a judge repeats itself."""
    seeds = params.protocol.training_seeds
    shown, _ = read(location_of(params, Condition(UNTUNED)).folders(workspace.samples, seeds))
    flipped = Pictures(lambda numbers: shown.read(numbers).flip(-1), shown.numbers)
    scores, again = scores_of(by, shown), scores_of(by, flipped)
    return pd.DataFrame({**scores, **{f"{name}{AGAIN}": values for name, values in again.items()}})


# ------------------------------------------------------------------------------------------------ restored works


def restored_rows(params: Params, workspace: Workspace, variant: str) -> pd.DataFrame:
    """Errors of log10 power inside and outside the subjects of restored works; none where works have no masks.

    Against the same works as the autoencoder returns them, by the painter's masks.
    """
    protocol = protocol_of(params, variant).protocol
    folders = [restored_at(workspace, variant, seed) for seed in protocol.training_seeds]
    if not all(is_restored(each) for each in folders):
        return pd.DataFrame()
    made, listed = read(folders)
    works = held_out(workspace, listed)
    subjects = masks(params, works)
    assert subjects is not None  # they were restored
    wanted = returned_works(params, workspace, works)
    parts = [np.flatnonzero(listed["repeat"].isin(repeats)) for repeats in protocol.groups]

    def errors(chosen: list[int]) -> dict[str, float]:
        rows = np.concatenate([parts[number] for number in chosen])
        return masked_errors(wanted[rows].load(), made[rows].load(), subjects[rows].numpy())

    return pseudo_rows(errors, len(parts), len(listed)).assign(cell=variant)


def returned_works(params: Params, workspace: Workspace, works: pd.DataFrame) -> Pictures:
    """Held-out works as the autoencoder returns them, in a table's order."""
    order = split(workspace, HELD_OUT)["path"].tolist()
    return reconstructed(workspace)[[order.index(path) for path in works["path"]]]


def masked_errors(wanted: Tensor, made: Tensor, subjects: NDArray[np.bool_]) -> dict[str, float]:
    """log10 of the ratio of power above half of the Nyquist frequency, made over wanted, inside and outside masks.

    ``top_``: as it is; ``high_``: its absolute value, the error. Pictures are (n, 3, h, w) uint8, ``subjects`` bool
    (n, h, w). A part that no picture has, or that has no power, is left out.
    """
    errors: dict[str, float] = {}
    for part, mask in zip(("inside", "outside"), apart(subjects, MARGIN * made.shape[-1]), strict=True):
        powers = [high_power(each / 255, mask, HALF) for each in (made, wanted)]
        if all(power > 0 for power in powers):
            ratio = float(np.log10(powers[0] / powers[1]))
            errors |= {f"high_{part}": abs(ratio), f"top_{part}": ratio}
    return errors


# ------------------------------------------------------------------------------------------------ for verdicts


def zeros(groups: int) -> pd.DataFrame:
    """Rows of the cell of zeros."""
    columns = {f"group{group}": 0.0 for group in range(groups)}
    return pd.DataFrame([{"measure": name, "cell": NOTHING, "n": 0, "whole": 0.0, **columns} for name in ZEROS])


def cells(params: Params) -> set[str]:
    """All cells of the table of measures."""
    config, of_pictures = Config.of(params), {each.cell for each in all_conditions(params)}
    pairs = {
        at(against(first, second), start)
        for first, second in config.compared
        for start in STARTS
        if start in config.starts(first) and start in config.starts(second)
    }
    return of_pictures | pairs | {REAL, RETURNED, LEARNT_RETURNED, NOTHING}


def load(measures: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load measures and the outcomes of pairs."""
    return read_rows(measures / OUT), read_rows(measures / PAIRS)
