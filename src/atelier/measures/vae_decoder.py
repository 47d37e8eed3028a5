"""Stage ``vae_decoder-measure``: works through every decoder against themselves, and models' pictures decoded by each.

It fills ``build/measures/vae_decoder.csv``, one pseudo-value a measure and group; a group's decoders have its training
seed. A model's latents are the same for every decoder.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from tqdm import tqdm

from atelier import judges, machine, params, paths
from atelier.data import prepare
from atelier.data.images import to_model_range, to_pixels
from atelier.data.latents import encode_pictures
from atelier.evidence import FloatArray
from atelier.measures.sets import (
    MEASURES,
    Group,
    group,
    groups_of,
    measured,
    pooled,
    pseudo_rows,
    reference_alone,
    reference_of,
)
from atelier.methods.perceptual import LPIPS
from atelier.metrics import kernel_distance, log_power_error
from atelier.metrics.alignment import features
from atelier.models import base
from atelier.models import evaluator as evaluators
from atelier.models.autoencoders import load_like
from atelier.models.evaluator import Evaluator
from atelier.sampling.sampler import paint
from atelier.sampling.store import UNTUNED, at_level, listed, read_latents
from atelier.training.vae_decoder import retuned_folder, teacher

OUT = paths.MEASURES / "vae_decoder.csv"
ORIGINAL, MAIN = "original", "all"  # the decoder that was not retuned; the one with the whole loss, if there is one
TRUNK, EVALUATOR = Path("data/trunk"), Path("data/evaluator")  # of the embedded world
BATCH = 32  # pictures at a time through a perceptual network


class Networks(NamedTuple):
    """Who looks at reconstructions: networks of LPIPS by measure, and an evaluator's features for a kernel distance."""

    lpips: dict[str, LPIPS]
    judge: Evaluator | None


class Returned(NamedTuple):
    """Works and what a decoder made of their latents; and a number a work by which the two differ.

    ``judged``: features (n, d) of both through the judge, where there is one.
    """

    works: Group
    made: Group
    errors: dict[str, FloatArray]  # measure -> (n,)
    judged: tuple[FloatArray, FloatArray] | None


def decoders(asked: params.Params, name: str) -> list[ModelMixin]:
    """A decoder by groups of repeats: each has that of its training seed. Laid out as for sampling."""
    study, device = asked.art_finetuning, machine.accelerator(asked.machine).device
    vae = base.load(paths.BASE).vae.to(device, memory_format=torch.channels_last)
    if name == ORIGINAL:
        return [vae] * len(study.groups)
    found = {
        seed: load_like(vae, retuned_folder(name, seed) / "vae").to(device, memory_format=torch.channels_last)
        for seed in study.training_seeds
    }
    return [found[study.seed_of_repeat(at)] for at in range(len(study.groups))]


def decoded(asked: params.Params, vae: ModelMixin, latents: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) uint8 of last latents, as the sampling stage decodes them."""
    with machine.accelerator(asked.machine).autocast():
        return to_pixels(paint(vae, latents, asked.sampling.batch))


def returned(
    works: Tensor, made: Tensor, model: Evaluator | None, networks: Networks, device: torch.device
) -> Returned:
    """Works and reconstructions (n, 3, h, w) uint8, reduced to what measures need."""
    errors = {"mse": (works.double() - made.double()).div(255).square().mean((1, 2, 3)).numpy()}
    for name, network in networks.lpips.items():
        network.to(device)
        with torch.no_grad():
            parts = [
                network(*(to_model_range(pictures[start : start + BATCH]).to(device) for pictures in (made, works)))
                for start in range(0, len(works), BATCH)
            ]
        errors[name] = torch.cat(parts).double().cpu().numpy()
    judge = networks.judge
    judged = (features(judge, works / 255), features(judge, made / 255)) if judge else None
    return Returned(group(works, model), group(made, model), errors, judged)


def measures_of(parts: Sequence[Returned]) -> dict[str, float]:
    """Works against their own reconstructions."""
    works, made = (pooled([getattr(part, name) for part in parts]) for name in ("works", "made"))
    errors = {name: float(np.concatenate([part.errors[name] for part in parts]).mean()) for name in parts[0].errors}
    reference = reference_alone(works)
    # a Frechet distance needs more works than some styles have
    names = ("fd", "fwd", "pr", "psd", "psd10") if works.n > works.features.shape[1] else ("pr", "psd", "psd10")
    found = {name: MEASURES[name](reference, made) for name in names}
    if parts[0].judged is not None:
        real, ours = (np.concatenate(of) for of in zip(*(part.judged for part in parts if part.judged), strict=True))
        found["kid_judge"] = kernel_distance(real, ours)
    high = log_power_error(works.spectrum, made.spectrum, above=works.spectrum.shape[0] / 4)  # half of Nyquist's
    return found | errors | {"psnr": float(-10 * np.log10(errors["mse"])), "high": high}


class Repainted(NamedTuple):
    """A group's held-out works and what its decoder made of them (n, 3, h, w) uint8, and each one's style."""

    works: Tensor
    made: Tensor
    styles: npt.NDArray[np.object_]


def repainted(asked: params.Params, name: str) -> Iterator[Repainted]:
    """Held-out works through one decoder, by groups; every work in one, and they lie sorted by style."""
    table = prepare.works().table.query("split == 'test'")
    works, groups = prepare.pictures(table, asked.data), len(asked.art_finetuning.groups)
    for at, vae in enumerate(decoders(asked, name)):
        own = works[at::groups]
        made = decoded(asked, vae, encode_pictures(vae, own).mean)
        yield Repainted(own, made, table["art_style"].to_numpy()[at::groups])


def reconstructions(asked: params.Params, name: str, networks: Networks) -> list[dict[str, Returned]]:
    """Held-out works through one decoder, by groups and styles."""
    model, device, found = judges.evaluator(), machine.accelerator(asked.machine).device, []
    for works, made, styles in repainted(asked, name):
        by_style = {style: (styles == style).nonzero()[0] for style in sorted(set(styles))}
        found.append({style: returned(works[at], made[at], model, networks, device) for style, at in by_style.items()})
    return found


def reconstruction_rows(parts: Sequence[dict[str, Returned]], cell: str) -> pd.DataFrame:
    """A row a measure: of all works, and of each style that every group has works of."""
    everywhere = set.intersection(*(set(part) for part in parts))
    found = []
    for style in ("", *sorted(everywhere)):
        some = [[part[style]] if style else list(part.values()) for part in parts]
        n = sum(each.works.n for group_of in some for each in group_of)
        rows = pseudo_rows(
            lambda which, some=some: measures_of([each for at in which for each in some[at]]),  # type: ignore[misc]
            len(some),
            n,
        )
        found.append(rows.assign(cell=cell, style=style))
    return pd.concat(found, ignore_index=True)


def cells(asked: params.Params) -> dict[str, tuple[str, str, float, str]]:
    """Every cell MODEL+DECODER@LEVEL/GUIDANCE: where its latents lie, study, folder and guidance, and its decoder.

    A model through the original decoder is a cell of ``art_finetuning``. Where the whole loss is among the variants,
    the untuned model asked in the plainest words is decoded with it, too: ``untuned-decoder``.
    """
    own, level = asked.vae_decoder, asked.art_finetuning.prompt_level
    found = {
        f"{model}+{decoder}@{level}/{guidance:g}": ("art_finetuning", model, guidance, decoder)
        for decoder, model, guidance in product(own.variants, own.models, own.guidance)
    }
    if MAIN in own.variants and 0 in asked.prompt_enrichment.levels:
        for guidance in own.guidance:
            place = ("prompt_enrichment", at_level(UNTUNED, 0), guidance, MAIN)
            found[f"{UNTUNED}-decoder@0/{guidance:g}"] = place
    return found


def measure_all(asked: params.Params) -> pd.DataFrame:
    """Reconstructions by every decoder, then every cell."""
    own, model = asked.vae_decoder, judges.evaluator()
    networks = Networks({"lpips": teacher(own.perceptual)}, None)
    if own.perceptual.network != "trunk":  # then no decoder was trained on the embedded world's
        networks = Networks({**networks.lpips, "judge": LPIPS.from_folder(TRUNK)}, evaluators.load(EVALUATOR))
    names = [ORIGINAL, *own.variants]
    found = [reconstruction_rows(reconstructions(asked, name, networks), name) for name in tqdm(names, unit="decoder")]
    works = prepare.works().table
    truth = prepare.with_truth(works).set_index("path")
    held_out, training = (prepare.pictures(works[works["split"] == split], asked.data) for split in ("test", "train"))
    reference = reference_of(held_out, training, model)
    groups = asked.art_finetuning.groups
    retuned = {name: decoders(asked, name) for name in own.variants}
    for cell, (study, folder, guidance, decoder) in tqdm(cells(asked).items(), unit="cell"):
        table, latents = listed(study, folder, guidance), read_latents(study, folder, guidance)
        pictures = torch.empty(len(table), *held_out.shape[1:], dtype=torch.uint8)
        for repeats, vae in zip(groups, retuned[decoder], strict=True):
            those = table["repeat"].isin(repeats).to_numpy().nonzero()[0]
            pictures[those] = decoded(asked, vae, latents[those])
        found.append(measured(reference, groups_of(pictures, table, groups, model, truth)).assign(cell=cell))
    return pd.concat(found, ignore_index=True).fillna({"style": ""})


def load(styles: bool = False) -> pd.DataFrame:
    """What the stage left: of all works, or of reconstructions style by style."""
    table = pd.read_csv(OUT, keep_default_na=False, na_values=[""]).fillna({"style": ""})
    return table[(table["style"] != "") == styles].reset_index(drop=True)


def main(asked: params.Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    measure_all(asked).to_csv(OUT, index=False, float_format="%.12g")
