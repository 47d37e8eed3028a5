"""Stage ``ship``: pack the world's pictures, half-precision weights and cards into ``build/data``."""

import json
import shutil
from pathlib import Path
from typing import Any

from atelier import paths
from atelier.data import prepare
from atelier.data.archives import pack
from atelier.data.painter import write_world
from atelier.models import base
from atelier.world.params import World
from atelier.world.stages import BASE, CONVERSIONS, EVALUATOR, TRUNK

SHIPPED = paths.BUILD / "data"
LIMIT = 32 * 2**20  # bytes; everything in it is part of a clone


def ship(world: World) -> None:
    """Write ``build/data``, the future ``data/``."""
    with paths.replacing(SHIPPED) as part:
        painted = part / "painted"
        corpus = world.shipped.corpus
        write_world(painted, corpus.works, corpus.photographs, world.shipped.seed, world.size, world.machine.threads)
        for kind in prepare.FOLDERS.values():
            pack(painted / kind, part / f"{kind}.zip")
            shutil.rmtree(painted / kind)
        for path in painted.iterdir():
            path.rename(part / path.name)
        painted.rmdir()
        pipeline = base.load(BASE)
        for network in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
            network.half()
        base.save(pipeline, part / "base", card_of(BASE))
        shutil.copy(BASE / "history.csv", part / "base")
        for folder in (TRUNK, EVALUATOR, CONVERSIONS):
            shutil.copytree(folder, part / folder.name)
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        if size > LIMIT:
            raise ValueError(f"the world takes {size / 2**20:.1f} MiB; a clone has room for {LIMIT / 2**20:.0f}")
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)  # everything has been made
    print(json.dumps({"bytes": size, "base": base.fingerprint(SHIPPED / "base")}))


def card_of(folder: Path) -> dict[str, Any]:
    """Read a network's card."""
    content: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return content
