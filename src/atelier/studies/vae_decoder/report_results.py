"""What the page of the retuned decoder shows, as its stages measured it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from atelier.data.pictures import Pictures
from atelier.evaluation import tables
from atelier.evaluation.tables import read_rows
from atelier.files import check_seal, read_json, read_table
from atelier.params import WHITE, Params, cell_name
from atelier.sampling import store
from atelier.studies.vae_decoder import decoding, measure, reconstruct
from atelier.studies.vae_decoder.decoding import MAIN, ORIGINAL, Repainted
from atelier.studies.vae_decoder.params import TUNED_BY, Config
from atelier.workspace import Workspace

POSTER = "sickert2025_finetuning.csv"  # in the folder of papers
COLUMNS = 12  # pictures in a row of a contact sheet


Poster = Mapping[tuple[str, str, float], Mapping[Any, Any]]  # (block, regime, guidance) -> column -> value


@dataclass(frozen=True)
class Results:
    """What was trained and measured. A cell of works that went through a decoder has the decoder's name."""

    params: Params
    config: Config
    cards: Mapping[str, Mapping[str, Any]]  # by variant, of its first training seed
    history: pd.DataFrame  # losses of all variants and training seeds, with a column ``decoder``
    works: Mapping[str, Sequence[Repainted]]  # by decoder: held-out works and their reconstructions, by groups
    reconstructions: pd.DataFrame  # measures of works that went through a decoder
    by_style: pd.DataFrame  # the same by style, with a column ``style``
    compared: pd.DataFrame  # measures of generated pictures through the original decoder, and of real works
    redecoded: pd.DataFrame  # measures of generated pictures through retuned decoders
    first_pictures: Mapping[str, Tensor]  # generated ones: "MODEL, DECODER" -> (n, 3, h, w) uint8
    poster: Poster

    @property
    def main(self) -> str:
        return main_decoder(self.config)

    @property
    def decoders(self) -> list[str]:
        return [ORIGINAL, *self.config.variants]

    @property
    def n(self) -> int:
        """Generated pictures a cell."""
        return len(self.params.protocol.all_repeats) * self.params.protocol.pictures

    @property
    def n_works(self) -> int:
        return sum(len(group.works) for group in self.works[ORIGINAL])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The measures of all cells."""
        return pd.concat([self.compared, self.reconstructions, self.redecoded], ignore_index=True)

    @cached_property
    def values(self) -> tables.Values:
        """The pseudo-values of all cells."""
        return tables.values(self.rows)

    @cached_property
    def values_by_style(self) -> tables.Values:
        """The pseudo-values of reconstructions style by style, as measures ``MEASURE/STYLE`` of decoders."""
        return tables.values(self.by_style.assign(measure=self.by_style["measure"] + "/" + self.by_style["style"]))

    def cell(self, model: str, guidance: float, decoder: str = "", start: str = WHITE) -> str:
        """The name of a cell of generated pictures; through the original decoder where none is named."""
        name = f"{model}+{decoder}" if decoder else model
        return cell_name(name, self.params.protocol.prompts.level, guidance, start)

    def pooled(self, decoder: str) -> Repainted:
        """All groups of works through a decoder, concatenated."""
        groups = self.works[decoder]
        works, made = (
            Pictures(of[0].read, np.concatenate([each.numbers for each in of]))  # of one source
            for of in ([group.works for group in groups], [group.made for group in groups])
        )
        return Repainted(works, made, np.concatenate([group.styles for group in groups]))


def main_decoder(config: Config) -> str:
    """The variant with the whole loss; the last one where there is none of that name."""
    return MAIN if MAIN in config.variants else config.variants[-1]


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left, and decode a few generated pictures."""
    config, measures = Config.of(params), workspace.measures
    decoders, seeds = [ORIGINAL, *config.variants], params.protocol.training_seeds
    cards = {name: check_seal(workspace.decoder(name, seeds[0])) / "card.json" for name in config.variants}
    histories = [
        read_table(check_seal(workspace.decoder(name, seed)) / "history.csv", ("step",)).assign(decoder=name)
        for name in config.variants
        for seed in seeds
    ]
    works = decoding.repainted(params, workspace, decoders, check_seal(workspace.samples / decoding.REPAINTED))
    return Results(
        params=params,
        config=config,
        cards={name: read_json(card) for name, card in cards.items()},
        history=pd.concat(histories, ignore_index=True),
        works=dict(zip(decoders, works, strict=True)),
        reconstructions=reconstruct.load(measures),
        by_style=reconstruct.load(measures, styles=True),
        compared=read_rows(workspace.compared(config.STUDY)),
        redecoded=measure.load(params, measures),
        first_pictures=first_pictures(params, workspace, config),
        poster=poster(workspace.papers),
    )


def first_pictures(params: Params, workspace: Workspace, config: Config) -> dict[str, Tensor]:
    """The first training seed's first pictures, of two models at the lowest scale, through two decoders."""
    guidance, pictures = min(config.guidance), {}
    for model in config.models[:2]:
        folder = store.Location(TUNED_BY, model, guidance).folder(workspace.samples, params.protocol.training_seeds[0])
        latents, repeats = store.read_latents([folder])[:COLUMNS], store.listed([folder])["repeat"][:COLUMNS]
        for name in (ORIGINAL, main_decoder(config)):
            vaes = decoding.decoders(params, workspace, name)
            pictures[f"{model}, {name}"] = decoding.decoded(params, vaes, latents, list(repeats))
    return pictures


def poster(papers: Path) -> Poster:
    """The poster's table of rank 8, its FID named ``fd``."""
    table = (
        read_table(papers / POSTER, ("block", "regime", "rank", "guidance"))
        .query("rank == 8")
        .rename(columns={"fid": "fd", "fid_sd": "fd_sd"})
    )
    return {(row["block"], row["regime"], row["guidance"]): row for row in table.to_dict("records")}
