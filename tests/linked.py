"""A workspace of a test's: it reads what another folder has, and writes beside it."""

from collections.abc import Iterable
from pathlib import Path

from atelier.workspace import Workspace

SHARED = (
    "params.yaml",
    "data",
    "build/manifests",
    "build/pictures",
    "build/base",
    "build/evaluator",
    "build/bars.json",
    "build/known_artists.json",
    "build/cache",
    "build/starts",
    "build/reference",
    "build/corpus/latent_perceptual",
    "build/corpus/pixel_space",
    "build/judges",
)


def linked(root: Path, world: Path, names: Iterable[str] = SHARED) -> Workspace:
    """A workspace at ``root`` in which these names are links into ``world``."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(world / name)
    return Workspace(root)
