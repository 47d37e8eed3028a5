"""Stage ``ship``: pack the world's pictures, half-precision weights and cards into ``build/data``."""

import json
from pathlib import Path
from typing import Any

from atelier.data import prepare
from atelier.data.archives import pack
from atelier.data.painter import write_world
from atelier.files import copy, copy_folder, read_json, remove
from atelier.models import base
from atelier.workspace import replacing
from atelier.world.params import World
from atelier.world.workspace import WorldWorkspace

LIMIT = 32 * 2**20  # bytes; everything in it is part of a clone


def ship(world: World, workspace: WorldWorkspace) -> None:
    """Write ``build/data``, the future ``data/``."""
    with replacing(workspace.shipped, sealed=False) as part:
        painted = part / "painted"
        corpus = world.shipped.corpus
        write_world(painted, corpus.works, corpus.photographs, world.shipped.seed, world.size, world.machine.threads)
        for kind in prepare.FOLDERS.values():
            pack(painted / kind, part / f"{kind}.zip")
            remove(painted / kind)
        copy_folder(painted, part)
        remove(painted)
        pipeline = base.load(workspace.base)
        for network in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
            network.half()
        base.save(pipeline, part / "base", card_of(workspace.base))
        copy(workspace.base / "history.csv", part / "base" / "history.csv")
        for folder in (workspace.trunk, workspace.evaluator, workspace.conversions, workspace.defects):
            copy_folder(folder, part / folder.name)
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        if size > LIMIT:
            raise ValueError(f"the world takes {size / 2**20:.1f} MiB; a clone has room for {LIMIT / 2**20:.0f}")
    remove(workspace.scratch)  # everything has been made
    print(json.dumps({"bytes": size, "base": base.fingerprint(workspace.shipped / "base")}))


def card_of(folder: Path) -> dict[str, Any]:
    """Read a network's card."""
    return read_json(folder / "card.json")
