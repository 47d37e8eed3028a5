"""Stage ``art_finetuning-measure``: every model's pictures against held-out works, a pseudo-value a group of repeats.

It fills ``build/measures/art_finetuning.csv``, which two notebooks and the verdicts read, and ``styles.csv``: how far
one style of real works is from another, so that a distance has something to be compared with.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from atelier import judges, machine, params, paths
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.latents import decode, encode_pictures
from atelier.diagnosis import CARRIED
from atelier.evidence import t_interval
from atelier.measures.sets import Group, group, groups_of, measured, reference_alone, reference_of, simple
from atelier.models import base
from atelier.models.evaluator import Evaluator
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN, at_level, read
from atelier.training.base import spread

OUT, STYLES = paths.MEASURES / "art_finetuning.csv", paths.MEASURES / "styles.csv"
REAL, RECONSTRUCTED = "training works", "reconstructed held-out works"  # reference rows
PARTS = 5  # of a style's works: groups, where there are no repeats


def by_acquaintance(
    asked: params.Params, held_out: Tensor, works: pd.DataFrame, model: Evaluator | None
) -> pd.DataFrame:
    """The untuned model at every prompt level, apart: works by artists whom it learnt by name, and by the others.

    ``works``: the rows of ``held_out``. Nothing where the data does not say whom its base knows, and of cells with
    fewer than two such pictures in a group.
    """
    known, artists = judges.known_artists(), works.set_index("path")["artist"]
    found = [pd.DataFrame()]
    for word, wanted in {"known": True, "unknown": False}.items() if known else ():
        those = works["artist"].isin(known).to_numpy() == wanted
        reference = reference_alone(group(held_out[those.nonzero()[0]], model))
        truth = prepare.with_truth(works[those]).set_index("path")
        for cell, place in cells(asked).items():
            if not cell.startswith(f"{UNTUNED}@"):
                continue
            pictures, listed = read(*place)
            of_them = artists.loc[listed["path"]].isin(known).to_numpy() == wanted
            pictures, listed = pictures[of_them.nonzero()[0]], listed[of_them]
            fewest = min(listed["repeat"].isin(repeats).sum() for repeats in asked.art_finetuning.groups)
            if fewest >= 2:
                parts = groups_of(pictures, listed, asked.art_finetuning.groups, model, truth)
                found.append(measured(reference, parts, simple).assign(cell=cell.replace("@", f"-{word}@")))
    return pd.concat(found, ignore_index=True)


def between_styles(works: Mapping[str, Tensor], model: Evaluator | None) -> pd.DataFrame:
    """How far each style's works are from each other's, and from other works of their own; a row a measure and pair.

    Half of each style's works are the reference and half are measured, so that no work is on both sides. A style with
    too few works for two groups of two is left out.
    """
    works = {style: pictures for style, pictures in works.items() if len(pictures) >= 8}
    # alternately, so that the halves are of the same artists where works lie sorted by them
    references = {style: reference_alone(group(pictures[::2], model)) for style, pictures in works.items()}
    found = [pd.DataFrame({name: [] for name in ("style", "reference", "measure", "n")})]
    for style, pictures in works.items():
        half = pictures[1::2]
        parts = min(PARTS, len(half) // 2)
        groups = [group(half[at::parts], model) for at in range(parts)]
        for other, reference in references.items():
            found.append(measured(reference, groups, simple).assign(style=style, reference=other))
    return pd.concat(found, ignore_index=True)


def cells(asked: params.Params) -> dict[str, tuple[str, str, float]]:
    """Every cell MODEL@LEVEL/GUIDANCE, and where its pictures lie: study, folder, guidance."""
    study, own = asked.art_finetuning, asked.prompt_enrichment
    folders = {
        f"{model}@{study.prompt_level}": ("art_finetuning", model)
        for model in (UNTUNED, UNTUNED_AGAIN, *study.variants)
    }
    for model in (UNTUNED, *own.models):
        folders |= {f"{model}@{level}": ("prompt_enrichment", at_level(model, level)) for level in own.levels}
    found = {f"{name}/{scale:g}": (*place, scale) for name, place in folders.items() for scale in study.guidance}
    least = min(study.guidance)
    for model in (UNTUNED, *study.diagnosed):
        found[f"{model}-{CARRIED}@{study.prompt_level}/{least:g}"] = (CARRIED, model, least)
    return found


def dealt(pictures: Tensor, each: int, groups: int, model: Evaluator | None) -> list[Group]:
    """Pictures in so many groups of ``each``, or of as many as there are: never one twice.

    Evenly from all, because they lie sorted by style.
    """
    chosen = spread(len(pictures), min(each, len(pictures) // groups) * groups)
    return [group(pictures[chosen[at::groups]], model) for at in range(groups)]


def measure_all(asked: params.Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reference rows, then every cell; and one style against another."""
    model = judges.evaluator()
    works = prepare.works().table
    truth = prepare.with_truth(works).set_index("path")
    held_out, training = (prepare.pictures(works[works["split"] == split], asked.data) for split in ("test", "train"))
    reference = reference_of(held_out, training, model)
    together = asked.art_finetuning.groups
    pictures_each = asked.art_finetuning.repeats * asked.art_finetuning.pictures // len(together)

    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    returned = to_pixels(decode(vae, encode_pictures(vae, held_out).mean))
    found = [
        measured(reference, dealt(pictures, pictures_each, len(together), model)).assign(cell=name)
        for name, pictures in {REAL: training, RECONSTRUCTED: returned}.items()
    ]
    for cell, (study, folder, guidance) in tqdm(cells(asked).items(), unit="cell"):
        pictures, listed = read(study, folder, guidance)
        parts = groups_of(pictures, listed, together, model, truth)
        found.append(measured(reference, parts).assign(cell=cell))
    found.append(by_acquaintance(asked, held_out, works[works["split"] == "test"], model))
    everything = torch.cat([held_out, training])
    styles = pd.concat([works[works["split"] == split]["art_style"] for split in ("test", "train")]).to_numpy()
    by_style = {style: everything[(styles == style).nonzero()[0]] for style in sorted(set(styles))}
    return pd.concat(found, ignore_index=True), between_styles(by_style, model)


def load() -> pd.DataFrame:
    """What the stage left of the models."""
    return pd.read_csv(OUT)


def load_styles() -> pd.DataFrame:
    """What the stage left of the styles, with an interval over groups a row."""
    table = pd.read_csv(STYLES)
    groups = table.filter(regex=r"^group\d+$").to_numpy()
    found = [t_interval(row[np.isfinite(row)].tolist()) for row in groups]  # a small style has fewer groups
    shown = table[["style", "reference", "measure", "n"]]
    return shown.assign(value=[x.mean for x in found], low=[x.low for x in found], high=[x.high for x in found])


def main(asked: params.Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    for table, target in zip(measure_all(asked), (OUT, STYLES), strict=True):
        table.to_csv(target, index=False, float_format="%.12g")
