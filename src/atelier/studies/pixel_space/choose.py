"""Stage ``choose``: works to learn from and pairs of preferences, chosen by one judge; works to measure against.

The judge that chooses never measures, and what measures never chooses: fit to the style is scored by the network of
perceptual losses, not by the evaluator. Fewer defects come first; among pictures that the judge cannot tell apart, a
better fit does.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import machine, scratch
from atelier.data import prepare
from atelier.data.checks import FloatArray
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, in_memory, of_shards, write_shards
from atelier.data.prompts import prompt
from atelier.evaluation import judges
from atelier.evaluation import reference as references
from atelier.evaluation.defects import repeatability
from atelier.evaluation.groups import Reference, reference_of
from atelier.evaluation.rewards import features
from atelier.files import check_seal, reading, write_json, write_table
from atelier.methods.perceptual import LPIPS
from atelier.models import base
from atelier.models.defect_judge import DefectJudge
from atelier.models.latents import encode_prompts
from atelier.params import Params
from atelier.sampling.sampler import decoded, first_latents, last_latents, settled, with_ddim
from atelier.seeds import evenly
from atelier.studies.pixel_space import judges as defect_judges
from atelier.studies.pixel_space.params import Config
from atelier.studies.pixel_space.pictures import (
    CARD,
    HELD_OUT,
    LEVEL,
    LISTED,
    PAINTED,
    PAIRS,
    SPLITS,
    TRAINING,
    WORKS,
    Pairs,
    folder,
    key_of,
    of_style,
    painted,
    prompts_of,
    split,
    write_pairs,
)
from atelier.training.caches import write_cache
from atelier.workspace import Workspace, replacing

Score = Callable[[Tensor], FloatArray]
SEEN = 32  # pictures at a time through a network
SHRINKAGE = 0.1  # of a covariance towards a multiple of the identity, because works of a style may be few
EXAMPLES = 400  # works of other styles, at most, that a style is compared with


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/corpus/pixel_space``."""
    run = scratch_of(params, workspace)
    pipeline = settled(with_ddim(base.load(check_seal(workspace.base))), machine.accelerator(params.machine).device)
    sets = {name: works(params, workspace, name) for name in SPLITS}
    style = Config.of(params).style or ""
    judge, fit = defect_judges.load(params, workspace, defect_judges.CHOOSING), style_fit(params, workspace, style)
    (table, pool), (_, held_out) = sets[TRAINING], sets[HELD_OUT]
    config = Config.of(params).curated
    chosen = curated(table, score(judge, pool), fit(pool), resolution(judge, pool), config.kept)
    learnt = pool[chosen.index.tolist()]
    with replacing(folder(workspace)) as part:
        write_json(part / CARD, {"kind": PAINTED if config.painted else prepare.WORKS, "style": style})
        _write_works(params, workspace, pipeline, chosen, learnt, part)
        write_table(part / f"{HELD_OUT}.csv", sets[HELD_OUT][0])
        _write_reference(judges.load(params, workspace), pipeline, held_out, learnt, part)
        latents, pictures, prompts = candidates(params, pipeline, table, run)
        scores = {"defects": score(judge, pictures), "fit": fit(pictures)}
        _write_pairs(params, pipeline, latents, scores, resolution(judge, pictures), prompts, part)
    scratch.discard(run)
    of = f"{len(chosen)} of {len(table)} works of {style or 'every style'}"
    print(f"{of}, {len(prompts)} pairs, {len(held_out)} works held out")


def scratch_of(params: Params, workspace: Workspace) -> Path:
    """Where candidates are kept until all are painted."""
    config = Config.of(params)
    key = config.model_dump(mode="json", include={"style", "curated", "candidates"})
    return scratch.of_stage(
        params, workspace, __name__, folder(workspace), [workspace.base, workspace.manifests], **key
    )


def works(params: Params, workspace: Workspace, name: str) -> tuple[pd.DataFrame, Tensor]:
    """Works of the style: to choose from, or held out; their table, and pictures (n, 3, h, w) uint8."""
    if Config.of(params).curated.painted:
        return painted(params, name)
    table = of_style(params, workspace, name)
    return table, prepare.pictures(table, params.data, workspace).load()


# ------------------------------------------------------------------------------------------------ what chooses


def score(judge: DefectJudge, pictures: Tensor) -> FloatArray:
    """How defective pictures (n, 3, h, w) uint8 are, (n,)."""
    parts = [judge.score(part / 255) for part in pictures.split(SEEN)]
    return np.asarray(torch.cat(parts).double())


def resolution(judge: DefectJudge, pictures: Tensor) -> float:
    """The difference of scores that the judge does not mean: what mirroring changes of 95 % of these pictures."""
    return repeatability(score(judge, pictures), score(judge, pictures.flip(-1)))


def discriminant(inside: Tensor, outside: Tensor) -> Score:
    """Fisher's linear discriminant of two sets (n, d), with a shrunk covariance: rows (m, d) to (m,), 0 half way."""
    centres = inside.mean(0), outside.mean(0)
    centred = torch.cat([inside - centres[0], outside - centres[1]])
    covariance = centred.T @ centred / len(centred)
    level = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    direction = torch.linalg.solve((1 - SHRINKAGE) * covariance + SHRINKAGE * level, centres[0] - centres[1])
    middle = (centres[0] + centres[1]) / 2
    return lambda rows: np.asarray((rows - middle) @ direction)


def style_fit(params: Params, workspace: Workspace, style: str) -> Score:
    """How well pictures (n, 3, h, w) uint8 fit a style, against other styles of the data's training works.

    Where the data has works of one side only, all fit alike, and defects alone decide.
    """
    table = prepare.works(workspace.manifests).table.query("split == 'train'").reset_index(drop=True)
    of_it = table["art_style"] == style
    if of_it.all() or not of_it.any():
        return lambda pictures: np.zeros(len(pictures))
    others = table[~of_it]
    sides = (table[of_it], others.iloc[evenly(len(others), EXAMPLES)])
    network = LPIPS.from_params(params.perceptual, workspace.root).trunk
    seen = (prepare.pictures(rows.reset_index(drop=True), params.data, workspace) for rows in sides)
    odds = discriminant(*(features(network, pictures) for pictures in seen))
    return lambda pictures: odds(features(network, pictures))


def order(defects: FloatArray, fit: FloatArray, resolution: float) -> list[int]:
    """Numbers of pictures from best to worst: by defects in steps of the judge's resolution, then by fit."""
    steps = np.floor(defects / resolution) if resolution > 0 else defects
    return [int(number) for number in np.lexsort((-fit, steps))]


def curated(table: pd.DataFrame, defects: FloatArray, fit: FloatArray, resolution: float, kept: int) -> pd.DataFrame:
    """The best rows of works to choose from, in their order there, with both scores."""
    best = sorted(order(defects, fit, resolution)[:kept])
    return table.assign(defects=defects, fit=fit).iloc[best]


def pairs_of(defects: FloatArray, fit: FloatArray, resolution: float, each: int) -> tuple[list[int], list[int]]:
    """The best and the worst of every ``each`` pictures: numbers of winners and of losers."""
    ranked = [
        [first + number for number in order(defects[first : first + each], fit[first : first + each], resolution)]
        for first in range(0, len(defects), each)
    ]
    return [numbers[0] for numbers in ranked], [numbers[-1] for numbers in ranked]


# ------------------------------------------------------------------------------------------------ what is written


def candidates(
    params: Params, pipeline: StableDiffusionPipeline, table: pd.DataFrame, run: Path
) -> tuple[Tensor, Tensor, list[str]]:
    """Latents and pictures (uint8) by the base, ``each`` for every prompt in turn, and the prompts.

    Prompts are of works to choose from, in their order, that wraps around to others of theirs. Batches that an earlier
    process has finished are kept.
    """
    config, rows = Config.of(params).candidates, table.to_dict("records")
    prompts = [prompt(rows[n % len(rows)], LEVEL, n // len(rows)) for n in range(config.prompts)]
    repeated = [text for text in prompts for _ in range(config.each)]
    seeds = [(params.seed, Config.STUDY, "candidate", number) for number in range(len(repeated))]
    place, batch = machine.accelerator(params.machine), params.sampling.batch

    def paint(first: int, path: Path) -> None:
        rows = slice(first, first + batch)
        noise = first_latents(pipeline, seeds[rows], params.data.size)
        how: dict[str, Any] = {"guidance": config.guidance, "steps": params.sampling.steps, "batch": batch}
        with place.autocast():
            last = torch.cat(list(last_latents(pipeline, repeated[rows], noise, **how)))
            shown = to_pixels(decoded(pipeline.vae, last, batch))
        save_file({"latents": last.contiguous(), "pictures": shown.contiguous()}, path)

    pipeline.set_progress_bar_config(disable=True)
    files = [
        scratch.part(run, f"candidates-{first}", ".safetensors", partial(paint, first))
        for first in range(0, len(repeated), batch)
    ]
    parts = [_tensors(file) for file in files]
    return torch.cat([part["latents"] for part in parts]), torch.cat([part["pictures"] for part in parts]), prompts


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path):
        return load_file(path)


def _write_works(
    params: Params,
    workspace: Workspace,
    pipeline: StableDiffusionPipeline,
    table: pd.DataFrame,
    pictures: Tensor,
    part: Path,
) -> None:
    """The curated works' table, and the cache of their latents and prompts."""
    write_table(part / f"{TRAINING}.csv", table)
    prompts = prompts_of(params, table)
    write_cache(part / WORKS, pipeline, pictures, prompts, key_of(params, workspace, table, prompts))


def _write_reference(
    by: judges.Judges, pipeline: StableDiffusionPipeline, held_out: Tensor, learnt: Tensor, part: Path
) -> None:
    """Statistics of held-out works, of what the autoencoder returns of them, and of the curated works."""
    write_shards(references.returned(pipeline.vae, in_memory(held_out)), part, references.HELD_OUT)
    returned = of_shards(part, references.HELD_OUT)
    references.save(part, reference_of(held_out, learnt, returned, by))


def _write_pairs(
    params: Params,
    pipeline: StableDiffusionPipeline,
    latents: Tensor,
    scores: dict[str, FloatArray],
    resolution: float,
    prompts: list[str],
    part: Path,
) -> None:
    """Latents of every prompt's best and worst candidate, and a table of their scores."""
    winners, losers = pairs_of(scores["defects"], scores["fit"], resolution, Config.of(params).candidates.each)
    write_pairs(
        Pairs(latents[winners], latents[losers], encode_prompts(pipeline, prompts), encode_prompts(pipeline, [""])[0]),
        part / PAIRS,
    )
    columns = {f"{which}_{name}": scores[name][rows] for which, rows in (("winner", winners), ("loser", losers))
               for name in scores}  # fmt: skip
    write_table(part / LISTED, pd.DataFrame({"prompt": prompts, **columns}))


# ------------------------------------------------------------------------------------------------ the reference


def truth(workspace: Workspace) -> pd.DataFrame:
    """True subject, style and emotion ("": none) of every held-out work, by path."""
    return split(workspace, HELD_OUT).assign(emotion="").set_index("path")


def reference(workspace: Workspace) -> Reference:
    """What measures compare with: held-out works of the style."""
    return references.load(folder(workspace))


def reconstructed(workspace: Workspace) -> Pictures:
    """Held-out works as the base's autoencoder returns them."""
    return references.reconstructed_works(folder(workspace))
