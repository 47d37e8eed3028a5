"""What the page of the base model shows: pictures that it painted and returned, and what is measured on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier.data import prepare
from atelier.data.checks import FloatArray
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation import judges
from atelier.evaluation.intervals import Interval
from atelier.evaluation.judges import Bar
from atelier.files import check_seal, read_table
from atelier.machine import accelerator
from atelier.metrics import frechet_distance, power_spectrum_slope
from atelier.metrics.reconstruction import linear_patch_code, psnr
from atelier.metrics.summary import SLOPE_LOW, Measured, brightness_spread, distances, measure
from atelier.models import base
from atelier.models.evaluator import Evaluator
from atelier.models.latents import decode, encode_pictures
from atelier.models.stored import load_json
from atelier.params import CORRECTED, WHITE, Params
from atelier.sampling import store
from atelier.sampling.sampler import settled
from atelier.seeds import evenly
from atelier.studies.base_model import sheets
from atelier.studies.base_model.params import Config
from atelier.workspace import Workspace

ALL_WORKS = "all works"
MOST = 1000  # pictures of a split that are compared with each other: what fits into memory at 512 px
# the sets that are compared with held-out pictures
FLOOR, RETURNED, FLOOR_RETURNED = "training split", "held out, returned", "training split, returned"
BASE, CORRECTED_BASE = "base", "base, corrected start"


class Corpus(NamedTuple):
    """Rows of a manifest with what is known of each, and their pictures."""

    table: pd.DataFrame
    pictures: Pictures

    def rows(self, index: Sequence[int]) -> "Corpus":
        index = list(index)
        return Corpus(self.table.iloc[index].reset_index(drop=True), self.pictures[index])

    def where(self, column: str, value: str) -> "Corpus":
        return self.rows((self.table[column] == value).to_numpy().nonzero()[0].tolist())

    def few(self) -> "Corpus":
        """At most ``MOST`` of them, evenly chosen, because manifests are sorted by style."""
        return self.rows(evenly(len(self.table), MOST)) if len(self.table) > MOST else self

    def by_style(self) -> "dict[str, Corpus]":
        return {style: self.where("art_style", style) for style in sorted(set(self.table["art_style"]))}


class Returned(NamedTuple):
    """Held-out pictures and what the autoencoder makes of them, (n, 3, h, w) uint8 both."""

    originals: Tensor
    returned: Tensor
    psnr: float
    linear: float  # PSNR of a linear code with as many coefficients as the latent has channels
    slope: float  # of the originals' power spectrum
    slope_change: float


class Painted(NamedTuple):
    """What the base painted from the prompts of held-out pictures, and these pictures."""

    prompts: Sequence[str]
    real: Corpus
    pictures: Pictures
    corrected: Pictures | None = None  # from the corrected start; None: too few pictures to fit its leak to


class Sheet(NamedTuple):
    """Pictures by guidance that differ by one word of the prompt.

    ``shares``: of pictures in which the evaluator sees what the word says, where it can.
    """

    table: pd.DataFrame
    pictures: Mapping[float, Pictures]
    shares: Mapping[float, Interval]


class Shares(NamedTuple):
    """Of pictures in which the evaluator sees what is true of the held-out ones."""

    held_out: Interval
    base: Interval
    corrected: Interval | None = None  # of the base, from the corrected start


@dataclass(frozen=True)
class Results:
    """What the page shows by kind, "photographs" or "works", and by group: photographs, all works, works of a style."""

    params: Params
    config: Config
    has_evaluator: bool
    has_truth: bool  # whether the data says what its pictures show
    bars: Sequence[Bar]
    preparation: Mapping[str, Mapping[str, Any]]  # by kind: what was read and what was left out
    history: pd.DataFrame  # of the base's training
    corpora: Mapping[str, Corpus]  # by kind; photographs may be absent
    channels: int  # of a latent
    returned: Mapping[str, Returned]  # by group; absent where it lacks one of the splits
    painted: Mapping[str, Painted]  # by kind
    sheets: Mapping[str, Sheet]  # by what varies, as ``sheets.ATTRIBUTES``
    distances: Mapping[tuple[str, str], Mapping[str, float]]  # by kind, and set of pictures: FLOOR, BASE, ...
    shares: Mapping[tuple[str, str], Shares]  # by kind and attribute


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left, and measure it."""
    config, samples, manifests = Config.of(params), workspace.samples, workspace.manifests
    by, corpora = judges.load(params, workspace), read_corpora(params, workspace)
    vae = settled(base.load(check_seal(workspace.base)), accelerator(params.machine).device).vae
    painted = {kind: read_painted(samples, kind, corpus, config) for kind, corpus in corpora.items()}
    painted = {kind: each for kind, each in painted.items() if each.prompts}
    returned = [reconstructed(vae, kind, corpus) for kind, corpus in corpora.items()]
    measured = {kind: measured_distances(corpora[kind], each, by, vae) for kind, each in painted.items()}
    return Results(
        params=params,
        config=config,
        has_evaluator=by.evaluator is not None,
        has_truth=prepare.truth(manifests) is not None,
        bars=judges.read_bars(workspace.bars) if params.base.source == "shipped" else [],
        preparation=load_json(manifests / "report.json"),
        history=read_table(check_seal(workspace.base) / "history.csv", ("step", "part"), whole=False),
        corpora=corpora,
        channels=vae.config.latent_channels,
        returned={name: each for groups in returned for name, each in groups.items()},
        painted=painted,
        sheets={kind: read_sheet(samples, kind, config, by.evaluator) for kind in sheets.ATTRIBUTES},
        distances={(kind, name): row for kind, rows in measured.items() for name, row in rows.items()},
        shares=shares(painted, by.evaluator),
    )


def read_corpora(params: Params, workspace: Workspace) -> dict[str, Corpus]:
    """Photographs, where the data has any, and works."""
    manifests = workspace.manifests
    tables = {prepare.PHOTOGRAPHS: prepare.photographs(manifests).table, prepare.WORKS: prepare.works(manifests).table}
    return {
        kind: Corpus(prepare.with_truth(table, manifests), prepare.pictures(table, params.data, workspace, kind))
        for kind, table in tables.items()
        if len(table)
    }


def groups_of(kind: str, corpus: Corpus) -> dict[str, Corpus]:
    """Photographs as one group; works all together and style by style."""
    if not len(corpus.table):
        return {}
    return {ALL_WORKS: corpus, **corpus.by_style()} if kind == prepare.WORKS else {kind: corpus}


def reconstructed(vae: AutoencoderKL, kind: str, corpus: Corpus) -> dict[str, Returned]:
    """What the autoencoder makes of each group's held-out pictures; a group with one split only is left out."""
    held_out = corpus.where("split", "test").few()
    if not len(held_out.table):
        return {}
    returned = to_pixels(decode(vae, encode_pictures(vae, held_out.pictures).mean))
    training, originals = groups_of(kind, corpus.where("split", "train").few()), groups_of(kind, held_out)
    return {
        name: compared(
            training[name].pictures.load(),
            originals[name].pictures.load(),
            made.pictures.load(),
            vae.config.latent_channels,
        )
        for name, made in groups_of(kind, Corpus(held_out.table, in_memory(returned))).items()
        if name in training
    }


def compared(training: Tensor, originals: Tensor, returned: Tensor, channels: int) -> Returned:
    """Held-out pictures against what was returned, and against a linear code that was fitted on the training split."""
    real, made = originals / 255, returned / 255
    linear = linear_patch_code(training / 255, real, channels).float()
    slope, after = (power_spectrum_slope(pictures, low=SLOPE_LOW) for pictures in (real, made))
    return Returned(originals, returned, psnr(real, made), psnr(real, linear), slope, after - slope)


def folder_of(samples: Path, kind: str, guidance: float, start: str = WHITE) -> Path:
    """Where pictures of one kind are; the base has no training seeds."""
    return samples / Config.STUDY / kind / store.guidance_folder(guidance, start)


def read_painted(samples: Path, kind: str, corpus: Corpus, config: Config) -> Painted:
    """What the base painted from held-out pictures' prompts, beside these pictures."""
    pictures, table = store.read([folder_of(samples, kind, config.measured_at)])
    rows = pd.Series(range(len(corpus.table)), index=corpus.table["path"]).loc[table["path"]]
    from_leak = folder_of(samples, kind, config.measured_at, CORRECTED)
    corrected = store.read([from_leak])[0] if from_leak.is_dir() else None
    return Painted(table["prompt"].tolist(), corpus.rows(rows.tolist()), pictures, corrected)


def read_sheet(samples: Path, kind: str, config: Config, evaluator: Evaluator | None) -> Sheet:
    """A sheet at every scale, and in how many of its pictures the evaluator sees the word that varies."""
    table = store.listed([folder_of(samples, kind, config.guidance[0])])
    pictures = {guidance: store.read([folder_of(samples, kind, guidance)])[0] for guidance in config.guidance}
    if evaluator is None:
        return Sheet(table, pictures, {})
    attribute, wanted = sheets.ATTRIBUTES[kind], table["wanted"].tolist()
    shares = {guidance: judges.share_seen(evaluator, x, attribute, wanted) for guidance, x in pictures.items()}
    return Sheet(table, pictures, {guidance: share for guidance, share in shares.items() if share is not None})


def measured_distances(
    corpus: Corpus, painted: Painted, by: judges.Judges, vae: AutoencoderKL
) -> dict[str, dict[str, float]]:
    """Distances of painted pictures to the held-out ones, as they are and as the autoencoder returns them (``_rec``).

    And, as the floors, of as many training pictures, and of both returned.
    """
    real, training = (corpus.where("split", name).few().pictures.load() for name in ("test", "train"))
    n = min(len(painted.pictures), len(real))
    training = training[torch.arange(n) * len(training) // n]
    returned, floor = (to_pixels(decode(vae, encode_pictures(vae, x).mean)) for x in (real, training))
    pictures = {FLOOR: training, RETURNED: returned[:n], FLOOR_RETURNED: floor, BASE: painted.pictures[:n].load()}
    pictures |= {} if painted.corrected is None else {CORRECTED_BASE: painted.corrected[:n].load()}
    held_out = {"": reduced(real, by), "_rec": reduced(returned, by)}
    rows: dict[str, dict[str, float]] = {}
    for name, x in pictures.items():
        made = reduced(x, by)
        rows[name] = {"n": n, "of": len(real)}
        for suffix, each in held_out.items():
            rows[name] |= {f"{measure}{suffix}": value for measure, value in between(each, made).items()}
        rows[name]["brightness spread"] = brightness_spread(x / 255) / brightness_spread(real / 255)
    return rows


class Reduced(NamedTuple):
    """A set of pictures' statistics, and the features that distances compare where a network sees them."""

    measured: Measured
    features: FloatArray | None


def reduced(pictures: Tensor, by: judges.Judges) -> Reduced:
    return Reduced(measure(pictures / 255), judges.features(by, pictures))


def between(real: Reduced, made: Reduced) -> dict[str, float]:
    """Every distance between two sets."""
    values = {name: float(value) for name, value in distances(real.measured, made.measured)._asdict().items()}
    if real.features is not None and made.features is not None:
        values["fd"] = frechet_distance(real.features, made.features)
        means = float(((real.features.mean(axis=0) - made.features.mean(axis=0)) ** 2).sum())
        distance = values["fd"]
        values["share of means"] = means / distance if distance else float("nan")  # 0 of pictures against themselves
    return values


def shares(painted: Mapping[str, Painted], evaluator: Evaluator | None) -> dict[tuple[str, str], Shares]:
    """In how many pictures the evaluator sees what is true of the held-out ones; nothing where that is not known."""
    if evaluator is None:
        return {}
    shares = {}
    for kind, each in painted.items():
        for attribute in sheets.ATTRIBUTES.values():
            wanted = each.real.table[attribute].tolist()
            sets = [x for x in (each.real.pictures, each.pictures, each.corrected) if x is not None]
            by_set = [judges.share_seen(evaluator, x, attribute, wanted) for x in sets]
            if known := [share for share in by_set if share is not None]:  # all, or none where no name is known
                shares[kind, attribute] = Shares(*known)
    return shares
