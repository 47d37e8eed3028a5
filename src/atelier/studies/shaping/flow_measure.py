"""Measures of flows: pictures against operations with and without correction, and what correction rests on.

Beside every measure of pictures: operations a picture by torch's counter, round trips, the law of the inverted noise
and how far white and corrected noise are from it, near copies of noise, and the convergence of the inversion.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, scratch
from atelier.data.checks import FloatArray
from atelier.evaluation import reference as references
from atelier.evaluation.cells import measure_cells
from atelier.evaluation.tables import read_rows, write_rows
from atelier.metrics import nearest
from atelier.models import flops
from atelier.params import Params
from atelier.sampling.conditions import white_noise
from atelier.studies.shaping import flow_base, invert, noise_law
from atelier.studies.shaping.correct import load_corrector
from atelier.studies.shaping.flow import NOISE, corrected_noise, location, prompts
from atelier.studies.shaping.flow_base import BASE, INVERTED, TRAINED, exact, folder
from atelier.studies.shaping.flow_params import longer, uncorrected, with_corrector
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace

OUT = f"{Config.STUDY}_flow.csv"  # in the folder of measures, as the tables below
FLOPS = f"{Config.STUDY}_flops.csv"  # part, counted, by_hand
NOISE_LAW = f"{Config.STUDY}_noise.csv"  # k, channel, row, column and what `noise_law.by_direction` says
CONVERGENCE = f"{Config.STUDY}_convergence.csv"  # k, step, picture, eta_l, rate
MOST = 0.99  # the share of pictures, and of steps, that a bound is to hold for
RARE = 0.01  # share of white noise that is nearer to a training work's noise than the threshold for a near copy


def write(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/shaping_flow.csv`` and the three tables beside it."""
    config, out = Config.of(params).flow, workspace.measures / OUT
    inputs = [workspace.samples / Config.STUDY / "flow", workspace.reference, workspace.evaluator, workspace.manifests]
    inputs += [workspace.base, *(folder(workspace) / name for name in (BASE, INVERTED, TRAINED))]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, flow=config.model_dump(mode="json"))
    cells = {cell: location(cell) for cell in config.cells}
    rows = measure_cells(params, workspace, references.load(workspace.reference), cells, run)
    pipeline = flow_base.load(params, workspace).to(machine.accelerator(exact(params).machine).device)
    parts = operations(params, workspace, pipeline)
    rows.append(of_operations(params, parts))
    rows += [of_inversion(params, workspace, k) for k in config.steps]
    rows += [scratch.table(run, f"noise {k}", partial(of_noise, params, workspace, pipeline, k)) for k in config.steps]
    write_rows(pd.concat(rows, ignore_index=True), out)
    write_rows(parts, workspace.measures / FLOPS)
    write_rows(pd.concat([by_direction(workspace, k) for k in config.steps]), workspace.measures / NOISE_LAW)
    write_rows(invert.load_convergence(workspace), workspace.measures / CONVERGENCE)
    scratch.discard(run)


def load(measures: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Load measures, operations, the law of the noise by direction, and the convergence of steps."""
    one, two, three, four = (read_rows(measures / name) for name in (OUT, FLOPS, NOISE_LAW, CONVERGENCE))
    return one, two, three, four


def row(measure: str, cell: str, n: int, whole: float, groups: Sequence[float]) -> pd.DataFrame:
    """A row of the table of measures."""
    columns = {f"group{number}": value for number, value in enumerate(groups)}
    return pd.DataFrame([{"measure": measure, "cell": cell, "n": n, "whole": whole, **columns}])


def constant(params: Params, measure: str, cell: str, n: int, value: float) -> pd.DataFrame:
    """A row of what is the same in every group."""
    return row(measure, cell, n, value, [value] * len(params.protocol.groups))


# ------------------------------------------------------------------------------------------------ operations


def operations(params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline) -> pd.DataFrame:
    """Operations of each part once for one picture: part, counted, by_hand (of U-Nets).

    A corrector's operations are of one call; correctors of all numbers of steps and seeds have the same.
    """
    side, tokens = params.data.size // pipeline.vae_scale_factor, pipeline.tokenizer.model_max_length
    first = params.protocol.training_seeds[0], Config.of(params).flow.steps[0]
    corrector = load_corrector(workspace, *first, pipeline.unet).to(pipeline.device)
    unets = {"denoiser": pipeline.unet, "corrector": corrector}
    listed = [
        {
            "part": part,
            "counted": flops.of_unet(unet, side, tokens),
            "by_hand": flops.of_unet_by_hand(unet.config, side, tokens),
        }
        for part, unet in unets.items()
    ]
    z = torch.zeros(1, pipeline.vae.config.latent_channels, side, side, device=pipeline.device)
    calls: dict[str, Callable[[], object]] = {
        "text encoder": lambda: pipeline.encode_prompt("", pipeline.device, 1, False),
        "decoder": lambda: pipeline.vae.decode(z),
    }
    listed += [{"part": part, "counted": flops.counted(call), "by_hand": math.nan} for part, call in calls.items()]
    return pd.DataFrame(listed)


def of_operations(params: Params, parts: pd.DataFrame) -> pd.DataFrame:
    """``flops`` of every cell, one picture from prompt to pixels."""
    config, each = Config.of(params).flow, parts.set_index("part")["counted"]
    always, calls = each["text encoder"] + each["decoder"], 2 * config.corrector_steps
    rows = []
    for k in sorted({*config.steps, *(2 * k for k in config.steps)}):
        cells = {uncorrected(k): 0} | ({longer(k): 0, with_corrector(k): calls} if k in config.steps else {})
        for cell, corrections in cells.items():
            total = float(always + k * each["denoiser"] + corrections * each["corrector"])
            rows.append(constant(params, "flops", cell, 1, total))
    return pd.concat(rows, ignore_index=True)


# ------------------------------------------------------------------------------------------------ inversion


def of_inversion(params: Params, workspace: Workspace, k: int) -> pd.DataFrame:
    """Round trips and the convergence of ``k`` steps, and how far their inverted noise is from N(0, I)."""
    cell, inversion = uncorrected(k), invert.load(workspace, k)
    groups, n = len(params.protocol.groups), len(inversion["noise"])
    parts = [slice(first, None, groups) for first in range(min(groups, n))]
    rows = []
    for measure in ("round_trip_data", "round_trip_noise"):
        errors = inversion[measure].double().numpy()
        values = [_most(errors[parts[group % len(parts)]]) for group in range(groups)]
        rows.append(row(measure, cell, n, _most(errors), values))
    for measure in ("residual", "bound"):
        rows.append(constant(params, measure, cell, n, _most(inversion[measure].double().numpy().max(1))))
    ratios = _ratios(invert.load_convergence(workspace).query("k == @k"))
    if len(ratios):
        rows.append(constant(params, "convergence", cell, len(ratios), _most(ratios)))
    rows += [constant(params, measure, cell, n, value) for measure, value in law(inversion["noise"]).items()]
    return pd.concat(rows, ignore_index=True)


def _most(values: FloatArray) -> float:
    """What 99 % of the values are at most, one of them: between two, infinity would give NaN."""
    return float(np.quantile(values, MOST, method="inverted_cdf"))


def _ratios(table: pd.DataFrame) -> FloatArray:
    """Measured rates over ``|eta| L``, of steps where that is below 1."""
    known = table[(table["eta_l"] < 1) & table["rate"].notna()]
    return (known["rate"] / known["eta_l"]).to_numpy(dtype=np.float64)


def law(noise: Tensor) -> dict[str, float]:
    """Tests of noise (n, c, h, w) against N(0, I); nothing of fewer than four samples."""
    if len(noise) < noise_law.FEWEST:
        return {}
    waves = noise_law.directions(noise)
    each = noise_law.by_direction(waves)
    return {
        "noise_p_mean": noise_law.mean_test(waves).p,
        "noise_p_covariance": noise_law.covariance_test(waves).p,
        "noise_p_length": noise_law.length_test(waves).p,
        "noise_p_normal": noise_law.of_all(each["p_normal"].to_numpy()),
        "noise_not_normal": float((each["p_normal"] < RARE).mean()),
        "noise_mean": float((each["mean"] ** 2).mean()),
        "noise_variance": float(each["variance"].mean()),
    }


def by_direction(workspace: Workspace, k: int) -> pd.DataFrame:
    """The law of the noise of ``k`` steps in each direction."""
    noise = invert.load(workspace, k)["noise"]
    if len(noise) < noise_law.FEWEST:
        return pd.DataFrame()
    numbers = np.indices(noise.shape[1:]).reshape(3, -1)
    places = dict(zip(("channel", "row", "column"), numbers, strict=True))
    return noise_law.by_direction(noise_law.directions(noise)).assign(k=k, **places)


# ------------------------------------------------------------------------------------------------ noise


def of_noise(params: Params, workspace: Workspace, pipeline: StableDiffusionPipeline, k: int) -> pd.DataFrame:
    """How far the noise of ``k`` steps, white and corrected, is from the inverted one, and near copies of that.

    ``noise_distance``: `noise_law.distance`. ``near_noise``: the share nearer to a training work's noise than all but
    1 % of as much other white noise.
    """
    known = noise_law.directions(invert.load(workspace, k)["noise"])
    firsts: dict[str, list[pd.DataFrame]] = {uncorrected(k): [], with_corrector(k): []}
    other = []
    for seed in params.protocol.training_seeds:
        rows = prompts(params, workspace, seed)
        noise = {
            uncorrected(k): white_noise(params, NOISE)(pipeline, rows),
            with_corrector(k): corrected_noise(params, workspace, seed, k, pipeline, rows),
        }
        for cell, latents in noise.items():
            firsts[cell].append(
                rows[["repeat"]].assign(place=range(len(rows)), rows=list(noise_law.directions(latents)))
            )
        other.append(noise_law.directions(white_noise(params, NOISE, "other")(pipeline, rows)))
    near = float(np.quantile(nearest(np.concatenate(other), known)[1], RARE))
    tables = []
    for cell, parts in firsts.items():
        table = pd.concat(parts, ignore_index=True)
        every = np.stack(table["rows"].tolist())
        chosen = [table["repeat"].isin(repeats).to_numpy() for repeats in params.protocol.groups]
        measures: dict[str, Callable[[FloatArray], float]] = {
            "noise_distance": lambda rows: noise_law.distance(rows, known),
            "near_noise": lambda rows: float((nearest(rows, known)[1] < near).mean()),
        }
        tables += [
            row(name, cell, len(every), measure(every), [measure(every[mask]) for mask in chosen])
            for name, measure in measures.items()
        ]
    return pd.concat(tables, ignore_index=True)
