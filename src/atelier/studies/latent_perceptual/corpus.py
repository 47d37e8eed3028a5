"""Stage ``corpus``: the photographs that post-trainings learn from, and photographs to measure against.

Without photographs it leaves a note only, and the study uses what all studies share of works.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from atelier import machine
from atelier.data import prepare
from atelier.data.pictures import Pictures, in_memory, of_shards, write_shards
from atelier.evaluation import judges
from atelier.evaluation import reference as references
from atelier.evaluation.cells import truth_of_works
from atelier.evaluation.groups import Reference, reference_of
from atelier.files import check_seal, write_json, write_table
from atelier.models import base
from atelier.params import Params
from atelier.studies.latent_perceptual.params import Config
from atelier.studies.latent_perceptual.pictures import (
    CACHE,
    CARD,
    HELD_OUT,
    PAINTED,
    SPLITS,
    TRAINING,
    Sources,
    folder,
    key_of,
    painted,
    photographed,
    prompts_of,
)
from atelier.training.caches import write_cache
from atelier.workspace import Workspace, replacing


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/corpus/latent_perceptual``."""
    pipeline = base.load(check_seal(workspace.base)).to(machine.accelerator(params.machine).device)
    with replacing(folder(workspace)) as part:
        if Config.of(params).corpus.photographs:
            _write(params, workspace, pipeline, {split: painted(params, split) for split in SPLITS}, part)
            kind = PAINTED
        elif tables := photographed(workspace):
            load = partial(prepare.pictures, data=params.data, workspace=workspace, kind=prepare.PHOTOGRAPHS)
            _write(params, workspace, pipeline, {split: (table, load(table)) for split, table in tables.items()}, part)
            kind = prepare.PHOTOGRAPHS
        else:
            kind = prepare.WORKS
        write_json(part / CARD, {"kind": kind})
    print(f"post-training on {kind}")


def _write(
    params: Params,
    workspace: Workspace,
    pipeline: Any,
    sets: Mapping[str, tuple[pd.DataFrame, Tensor | Pictures]],
    part: Path,
) -> None:
    """Tables of both splits, the training cache, the reference, and the held-out photographs reconstructed."""
    (table, training), (_, held_out) = sets[TRAINING], sets[HELD_OUT]
    for name, (rows, _) in sets.items():
        write_table(part / f"{name}.csv", rows)
    prompts = prompts_of(params, table)
    write_cache(part / CACHE, pipeline, training, prompts, key_of(params, workspace, table, prompts))
    write_shards(references.returned(pipeline.vae, in_memory(held_out)), part, references.HELD_OUT)
    returned = of_shards(part, references.HELD_OUT)
    references.save(part, reference_of(held_out, training, returned, judges.load(params, workspace)))


def truth(source: Sources) -> pd.DataFrame:
    """True subject, style and emotion ("": none) of every held-out picture, by path."""
    if source.kind == prepare.WORKS:
        return truth_of_works(source.workspace.manifests)
    return source.split(HELD_OUT).assign(emotion="").set_index("path")


def reference(source: Sources) -> Reference:
    """What measures compare with."""
    return references.load(_references(source))


def reconstructed(source: Sources) -> Pictures:
    """Held-out pictures reconstructed by the base's autoencoder."""
    return references.reconstructed_works(_references(source))


def _references(source: Sources) -> Path:
    return source.workspace.reference if source.kind == prepare.WORKS else folder(source.workspace)
