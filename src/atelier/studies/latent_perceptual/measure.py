"""Measure every post-training's pictures against held-out ones, with one pseudo-value per group of repeats."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, scratch
from atelier.claims import Comparison
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures
from atelier.diffusion import clean_estimate, noised
from atelier.evaluation import judges
from atelier.evaluation.groups import (
    Group,
    Reference,
    all_measures,
    groups_of,
    load_groups,
    measured,
    pooled,
    pseudo_rows,
    save_groups,
    spread_over_groups,
)
from atelier.evaluation.intervals import FloatArray
from atelier.evaluation.tables import combined, read_rows, write_rows
from atelier.files import check_seal
from atelier.metrics import frechet_distance, log_power_error, log_power_ratios, radial_power
from atelier.models import base
from atelier.models.latents import decode, encode_pictures
from atelier.params import Params
from atelier.sampling.store import read
from atelier.seeds import evenly
from atelier.studies.latent_perceptual.corpus import reconstructed, reference, truth
from atelier.studies.latent_perceptual.features import FIXED as FEATURES_FIXED
from atelier.studies.latent_perceptual.features import Inspected, fixed_rows, inspected, last_step_under, noise_of
from atelier.studies.latent_perceptual.features import cells as feature_cells
from atelier.studies.latent_perceptual.params import (
    AGAIN,
    HALF_LIVES,
    MAIN,
    PLAIN,
    Config,
    averaged,
    in_steps,
    protocol_of,
)
from atelier.studies.latent_perceptual.pictures import TRAINING, Sources, folder, main_sources, sources
from atelier.studies.latent_perceptual.sample import Condition, all_conditions, location_of
from atelier.studies.latent_perceptual.train import tuned_pipeline
from atelier.training import denoiser
from atelier.workspace import Workspace

OUT, SPECTRA = f"{Config.STUDY}.csv", f"{Config.STUDY}_spectra.csv"  # in the folder of measures
LOW, HIGH = 0.15, 0.29  # cycles per pixel: 75 and 150 cycles of the paper's 512 px pictures
BANDS = {"high": (HIGH, math.inf), "middle": (LOW, HIGH), "low": (0.0, LOW)}
LOWEST = 2.0  # cycles per picture
PROBED = 4  # number of noise levels at which estimates of averages are compared
FIXED = {"nothing": "fd"}  # a gain of 0


def in_bands(reference: Reference, made: Group) -> dict[str, float]:
    """Every measure, and the spectrum in bands: errors of log power, and the log power ratios at both ends.

    Errors ``_rec`` are against reconstructed pictures, which lack what the decoder does not paint.
    """
    real, generated = reference.held_out.spectrum, made.spectrum
    side = min(real.shape)
    returned = {} if reference.reconstructed is None else {"_rec": reference.reconstructed.works.spectrum}
    errors = {
        f"{band}{suffix}": log_power_error(spectrum, generated, low * side, high * side)
        for suffix, spectrum in {"": real, **returned}.items()
        for band, (low, high) in BANDS.items()
    }
    return {
        **all_measures(reference, made),
        **errors,
        "top": float(log_power_ratios(real, generated, HIGH * side).mean()),
        "bottom": float(log_power_ratios(real, generated, 0.0, LOWEST).mean()),
    }


def ages(params: Params) -> dict[str, tuple[str, str]]:
    """Pairs of variants (plain, with the loss), by cell, that differ otherwise only in the steps trained before."""
    study = Config.of(params)
    pairs = {before: (study.plain_of(name), name) for before, name in study.ages.items()}
    return {f"gain-after-{before}": (plain, name) for before, (plain, name) in pairs.items() if plain is not None}


def nearest_average(params: Params, variant: str, parts: Mapping[str, Sequence[Group]], real: Group) -> pd.DataFrame:
    """log2 of the half-life whose pictures are nearest to real ones, for each group separately; one row.

    Not a pseudo-value, because an argmin jumps. All averages of a group have equally many pictures, so that the bias of
    their distances is the same.
    """
    study = Config.of(params)

    def best(chosen: Sequence[int]) -> float:
        features = [
            pooled([parts[averaged(variant, each)][index] for index in chosen]).features for each in study.averages
        ]
        return math.log2(study.averages[int(np.argmin([frechet_distance(real.features, each) for each in features]))])

    groups = range(len(params.protocol.groups))
    n = sum(each.n for each in parts[averaged(variant, study.averages[0])])
    columns = {f"group{index}": best([index]) for index in groups}
    return pd.DataFrame([{"measure": "log_half_life", "cell": variant, "n": n, "whole": best(list(groups)), **columns}])


def relative_gains(params: Params, parts: Mapping[str, Sequence[Group]], real: Group) -> pd.DataFrame:
    """The loss's relative reduction of the plain variant's distance, by how long both were trained before."""
    tables = [pd.DataFrame()]
    for cell, (plain, tuned) in ages(params).items():

        def gain(chosen: list[int], plain: str = plain, tuned: str = tuned) -> dict[str, float]:
            without, with_it = (
                frechet_distance(real.features, pooled([parts[name][index] for index in chosen]).features)
                for name in (plain, tuned)
            )
            return {"relative_gain": 1 - with_it / without}

        n = sum(each.n for each in parts[tuned])
        tables.append(pseudo_rows(gain, len(parts[tuned]), n).assign(cell=cell))
    return pd.concat(tables, ignore_index=True)


def gains_by_steps(params: Params, table: pd.DataFrame) -> pd.DataFrame:
    """The loss's gain of Frechet distance at each number of sampling steps."""
    study = Config.of(params)
    rows = [
        combined(table, "fd", {in_steps(PLAIN, n): 1.0, in_steps(MAIN, n): -1.0}, "fd", f"gain-in-{n}")
        for n in (study.steps if {PLAIN, MAIN} <= set(study.followed) else [])
    ]
    return pd.concat([pd.DataFrame(), *rows], ignore_index=True)


@torch.no_grad()
def unsteadiness(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Distance between one-step clean estimates of the last parameters and of their shortest average.

    Mean squared difference over held-out pictures at ``PROBED`` noise levels below the threshold, one value per group.
    It measures the effect of the last few steps; with a long average it would measure the whole training.
    """
    study, accelerate = Config.of(params), machine.accelerator(params.machine)
    samples = list(inspected(params, workspace, base.load(check_seal(workspace.base)).to(accelerate.device)))
    n, rows = sum(len(sample.table) for sample in samples), []
    for variant in study.followed:
        values = []
        for sample, repeats in zip(samples, params.protocol.groups, strict=True):
            seed = params.protocol.seed_of_repeat(repeats[0])
            which = [tuned_pipeline(params, workspace, variant, seed, each) for each in (None, min(study.averages))]
            last, average = (estimates(params, pipeline.to(accelerate.device), sample) for pipeline in which)
            values.append(float((last - average).square().mean()))
        columns = {f"group{group}": value for group, value in enumerate(values)}
        rows.append({"measure": "unsteadiness", "cell": variant, "n": n, "whole": float(np.mean(values)), **columns})
    return pd.DataFrame(rows)


def estimates(params: Params, pipeline: StableDiffusionPipeline, sample: Inspected) -> Tensor:
    """One-step clean estimates (PROBED, n, c, h, w) of held-out pictures, at noise below the paper's threshold."""
    accelerate, z0 = machine.accelerator(params.machine), sample.z0
    alphas, sigmas, times = denoiser.path(pipeline.scheduler)
    kind = pipeline.scheduler.config.prediction_type
    eps = noise_of(sample, "probe")
    last = last_step_under(alphas, sigmas, z0.shape[-1])
    parts = []
    for level in range(PROBED):
        t = (2 * level + 1) * last // (2 * PROBED)
        zt = noised(z0, eps, alphas[t], sigmas[t])
        with accelerate.autocast():
            output = pipeline.unet(
                zt.to(accelerate.device), times[t].to(accelerate.device), sample.words.to(accelerate.device)
            ).sample
        parts.append(clean_estimate(kind, zt, output.float().cpu(), alphas[t], sigmas[t]))
    return torch.stack(parts)


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/latent_perceptual.csv``, and the mean power spectra by rings for the page."""
    config, kinds = Config.of(params), all_sources(params, workspace)
    real = reference(main_sources(params, workspace)).held_out
    inputs = [workspace.samples / config.STUDY, workspace.adapters / config.STUDY, workspace.base]
    inputs += [workspace.reference, workspace.evaluator, workspace.manifests, folder(workspace)]
    out = workspace.measures / OUT
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    rows, groups = [], {}
    for name, kept in cell_groups(params, workspace, run):
        groups[name] = kept
        rows.append(scratch.read(scratch.path(run, name, ".parquet")).assign(cell=name))
    if len(config.averages) >= HALF_LIVES:
        rows += [nearest_average(params, name, groups, real) for name in config.followed]
    if config.followed and config.averages:
        rows.append(scratch.table(run, "unsteadiness", partial(unsteadiness, params, workspace)))
    rows.append(relative_gains(params, groups, real))
    table = pd.concat(rows, ignore_index=True)
    derived = [gains_by_steps(params, table), fixed_rows(params, FIXED)]
    write_rows(pd.concat([table, *derived], ignore_index=True), out)
    held_out = {kind: reference(source).held_out for kind, source in kinds.items()}
    write_rows(spectra(held_out, groups), workspace.measures / SPECTRA)
    scratch.discard(run)


def all_sources(params: Params, workspace: Workspace) -> dict[str, Sources]:
    """What the study's trainings learn from, by kind; that of the first variant is the first."""
    study = Config.of(params)
    each = [sources(params, workspace, training) for training in map(study.trainings.__getitem__, study.names)]
    return {source.kind: source for source in each}


def real_cells(kind: str) -> tuple[str, str, str]:
    """Cells of real pictures: the training split, the held-out and the training split reconstructed."""
    return f"training {kind}", f"reconstructed held-out {kind}", f"reconstructed training {kind}"


Cells = Mapping[str, tuple[Sources, Callable[[], list[Group]]]]


def cell_groups(params: Params, workspace: Workspace, run: Path) -> Iterator[tuple[str, list[Group]]]:
    """Yield every cell's reduced groups; its measures are written to the scratch folder ``run``.

    Real pictures first: the training split, and both splits reconstructed.
    """
    kinds = all_sources(params, workspace)
    references = {kind: reference(source) for kind, source in kinds.items()}
    cells: Cells = {
        **{name: cell for source in kinds.values() for name, cell in _real(params, workspace, source).items()},
        **{each.cell: _painted(params, workspace, each) for each in all_conditions(params)},
    }
    for name, (source, groups) in cells.items():
        file = scratch.path(run, name, ".safetensors")
        if not all(scratch.is_whole(scratch.path(run, name, kind)) for kind in (".safetensors", ".parquet")):
            parts = groups()
            scratch.table(run, name, partial(measured, references[source.kind], parts, in_bands))
            scratch.part(run, name, ".safetensors", partial(save_groups, parts))
        yield name, load_groups(file)


def _real(params: Params, workspace: Workspace, source: Sources) -> Cells:
    """Cells of real pictures of one kind, in as many groups as generated ones."""
    by, groups = judges.load(params, workspace), len(params.protocol.groups)
    each = len(params.protocol.all_repeats) * Config.of(params).pictures // groups

    def training() -> Pictures:
        table = source.split(TRAINING)
        return source.pictures(table.iloc[evenly(len(table), min(each * groups, len(table)))].reset_index(drop=True))

    def returned() -> Tensor | Pictures:
        vae = base.load(check_seal(workspace.base)).vae.to(machine.accelerator(params.machine).device)
        return to_pixels(decode(vae, encode_pictures(vae, training()).mean))

    def spread(pictures: Callable[[], Tensor | Pictures]) -> list[Group]:
        return spread_over_groups(pictures(), each, groups, by)

    made: list[Callable[[], Tensor | Pictures]] = [training, partial(reconstructed, source), returned]
    return {
        name: (source, partial(spread, pictures)) for name, pictures in zip(real_cells(source.kind), made, strict=True)
    }


def _painted(params: Params, workspace: Workspace, condition: Condition) -> tuple[Sources, Callable[[], list[Group]]]:
    """A condition's pictures, in groups of the repeats that its training seeds paint."""
    source = sources(params, workspace, Config.of(params).trainings[condition.variant])
    protocol = protocol_of(params, condition.variant).protocol

    def groups() -> list[Group]:
        folders = location_of(params, condition).folders(workspace.samples, protocol.training_seeds)
        pictures, listed = read(folders)
        return groups_of(pictures, listed, protocol.groups, judges.load(params, workspace), truth(source))

    return source, groups


def spectra(held_out: Mapping[str, Group], parts: Mapping[str, Sequence[Group]]) -> pd.DataFrame:
    """Mean power by rings, for held-out pictures of every kind and each cell's groups."""
    powers = {kind: radial_power(group.spectrum) for kind, group in held_out.items()}
    rows = [{"cell": "frequency", "group": 0, **_ringed(next(iter(powers.values()))[0])}]
    rows += [{"cell": f"held-out {kind}", "group": 0, **_ringed(power)} for kind, (_, power) in powers.items()]
    for cell, groups in parts.items():
        rows += [
            {"cell": cell, "group": group, **_ringed(radial_power(each.spectrum)[1])}
            for group, each in enumerate(groups)
        ]
    return pd.DataFrame(rows)


def _ringed(values: FloatArray) -> dict[str, float]:
    return {f"ring{ring}": float(value) for ring, value in enumerate(values)}


def cells(params: Params) -> set[str]:
    """All measured cells, including the cells of decoder features."""
    study = Config.of(params)
    both = {PLAIN, MAIN} <= set(study.followed)
    gains = {f"gain-in-{n}" for n in study.steps} if both else set()
    derived = {*ages(params), *gains, *FIXED, *FEATURES_FIXED}
    return {condition.cell for condition in all_conditions(params)} | derived | feature_cells(params)


def null_comparisons() -> list[Comparison]:
    """Null comparisons: the plain variant against itself under other noise, in the claims' measures."""
    return [
        Comparison(measure=measure, changed=[AGAIN], reference=[PLAIN], rule="below")
        for measure in ("fd", "fd_rec", "clip", "precision", "recall", "coverage", "high", "top")
    ]


def condition_of(params: Params, cell: str) -> Condition:
    """Find a condition by its cell's name."""
    return next(condition for condition in all_conditions(params) if condition.cell == cell)


def load(measures: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Load measures and spectra."""
    return read_rows(measures / OUT), read_rows(measures / SPECTRA)
