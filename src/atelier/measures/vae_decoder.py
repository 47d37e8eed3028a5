"""Stage ``vae_decoder-measure``: works through every decoder against themselves, and models' pictures decoded by each.

It fills ``build/measures/vae_decoder.csv``, one pseudo-value a measure and group; a group's decoders have its training
seed. A model's latents are the same for every decoder. Works as decoders return them stay in ``samples/repainted``.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file, save_file
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
REPAINTED = paths.SAMPLES / "repainted"  # held-out works through each decoder
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


def decoders(asked: params.Params, name: str) -> dict[int, ModelMixin]:
    """A decoder by training seed; the original is the same for all. Laid out as for sampling."""
    seeds, device = asked.art_finetuning.training_seeds, machine.accelerator(asked.machine).device
    vae = base.load(paths.BASE).vae.to(device, memory_format=torch.channels_last)
    if name == ORIGINAL:
        return dict.fromkeys(seeds, vae)
    return {
        seed: load_like(vae, retuned_folder(name, seed) / "vae").to(device, memory_format=torch.channels_last)
        for seed in seeds
    }


def decoded(asked: params.Params, vaes: Mapping[int, ModelMixin], latents: Tensor, repeats: Sequence[int]) -> Tensor:
    """Pictures (n, 3, h, w) uint8 of last latents, as sampling decodes them: a repeat's by its training seed's."""
    seeds = np.array([asked.art_finetuning.seed_of_repeat(repeat) for repeat in repeats])
    made: dict[int, Tensor] = {}
    for seed, vae in vaes.items():
        those = (seeds == seed).nonzero()[0]
        with machine.accelerator(asked.machine).autocast():
            made |= dict(zip(those, to_pixels(paint(vae, latents[those], asked.sampling.batch)), strict=True))
    return torch.stack([made[at] for at in range(len(latents))])


def returned(
    works: Group, before: Tensor, made: Tensor, model: Evaluator | None, networks: Networks, device: torch.device
) -> Returned:
    """Works, ``before`` (n, 3, h, w) uint8, and what a decoder ``made`` of them, reduced to what measures need."""
    errors = {"mse": (before.double() - made.double()).div(255).square().mean((1, 2, 3)).numpy()}
    for name, network in networks.lpips.items():
        network.to(device)
        with torch.no_grad():
            parts = [
                network(*(to_model_range(pictures[start : start + BATCH]).to(device) for pictures in (made, before)))
                for start in range(0, len(before), BATCH)
            ]
        errors[name] = torch.cat(parts).double().cpu().numpy()
    judge = networks.judge
    judged = (features(judge, before / 255), features(judge, made / 255)) if judge else None
    return Returned(works, group(made, model), errors, judged)


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

    def by_style(self) -> dict[str, "Repainted"]:
        """Each style's own."""
        found = {}
        for style in sorted(set(self.styles)):
            those = self.styles == style
            found[style] = Repainted(self.works[those], self.made[those], self.styles[those])
        return found


def repaint(asked: params.Params, names: Sequence[str]) -> None:
    """Held-out works through decoders, a file a decoder, in the order of their table; of a group by its first repeat's.

    Their latents are the base's own: a retuned decoder leaves the encoder as it was.
    """
    groups, works = asked.art_finetuning.groups, prepare.pictures(held_out(), asked.data)
    repeats = [groups[at % len(groups)][0] for at in range(len(works))]
    latents = encode_pictures(decoders(asked, ORIGINAL)[asked.art_finetuning.training_seeds[0]], works).mean
    shutil.rmtree(REPAINTED, ignore_errors=True)
    REPAINTED.mkdir(parents=True)
    for name in tqdm(names, unit="decoder"):
        made = decoded(asked, decoders(asked, name), latents, repeats)
        save_file({"pictures": made}, REPAINTED / f"{name}.safetensors")


def repainted(asked: params.Params, names: Sequence[str]) -> Iterator[list[Repainted]]:
    """What ``repaint`` left, decoder by decoder, by groups; every work in one, and they lie sorted by style."""
    table, groups = held_out(), asked.art_finetuning.groups
    works, styles = prepare.pictures(table, asked.data), table["art_style"].to_numpy()
    for name in names:
        made = load_file(REPAINTED / f"{name}.safetensors")["pictures"]
        if made.shape != works.shape:
            raise ValueError(f"{REPAINTED}: {len(made)} works went through '{name}', {len(works)} are held out")
        each = [slice(at, None, len(groups)) for at in range(len(groups))]
        yield [Repainted(works[own], made[own], styles[own]) for own in each]


def held_out() -> pd.DataFrame:
    return prepare.works().table.query("split == 'test'")


def reconstructions(
    asked: params.Params, names: Sequence[str], networks: Networks
) -> Iterator[list[dict[str, Returned]]]:
    """Held-out works through decoders, one after the other, by groups and styles."""
    model, device = judges.evaluator(), machine.accelerator(asked.machine).device
    works: list[dict[str, Group]] = []  # the same for every decoder
    for parts in repainted(asked, names):
        styled = [part.by_style() for part in parts]
        works = works or [{style: group(own.works, model) for style, own in part.items()} for part in styled]
        yield [
            {style: returned(known[style], own.works, own.made, model, networks, device) for style, own in part.items()}
            for known, part in zip(works, styled, strict=True)
        ]


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
    repaint(asked, names)
    through = zip(tqdm(names, unit="decoder"), reconstructions(asked, names, networks), strict=True)
    found = [reconstruction_rows(parts, name) for name, parts in through]
    works = prepare.works().table
    truth = prepare.with_truth(works).set_index("path")
    held_out, training = (prepare.pictures(works[works["split"] == split], asked.data) for split in ("test", "train"))
    reference = reference_of(held_out, training, model)
    groups = asked.art_finetuning.groups
    retuned = {name: decoders(asked, name) for name in own.variants}
    for cell, (study, folder, guidance, decoder) in tqdm(cells(asked).items(), unit="cell"):
        table, latents = listed(study, folder, guidance), read_latents(study, folder, guidance)
        pictures = decoded(asked, retuned[decoder], latents, table["repeat"].tolist())
        found.append(measured(reference, groups_of(pictures, table, groups, model, truth)).assign(cell=cell))
    return pd.concat(found, ignore_index=True).fillna({"style": ""})


def load(styles: bool = False) -> pd.DataFrame:
    """What the stage left: of all works, or of reconstructions style by style."""
    table = pd.read_csv(OUT, keep_default_na=False, na_values=[""]).fillna({"style": ""})
    return table[(table["style"] != "") == styles].reset_index(drop=True)


def main(asked: params.Params) -> None:
    OUT.parent.mkdir(parents=True, exist_ok=True)
    measure_all(asked).to_csv(OUT, index=False, float_format="%.12g")
