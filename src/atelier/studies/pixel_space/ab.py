"""Write a page on which people compare two folders of pictures, blind: ``ab [FOLDER_A FOLDER_B [OUT]]``.

Without folders: the study's pictures with both terms (A) and by the untuned base (B). No stage of the pipeline,
which waits for nobody; ``make ab`` runs it.
"""

from pathlib import Path

from atelier.evaluation.people import page
from atelier.evaluation.people.pairs import Pair, pairs_of
from atelier.params import WHITE, Params
from atelier.sampling.store import Location
from atelier.studies.pixel_space.params import UNTUNED, Config
from atelier.workspace import Workspace

OUT = "sittings"  # in the workspace, outside build: what people said cannot be made again
TUNED = "both"


def main(params: Params, workspace: Workspace, *folders: str) -> None:
    """Write the page and its key to OUT, and say where they are."""
    if len(folders) not in (0, 2, 3):
        raise ValueError("usage: python -m atelier pixel_space ab [FOLDER_A FOLDER_B [OUT]]; make ab A=FOLDER B=FOLDER")
    out = workspace.named(folders[2] if len(folders) == 3 else OUT)
    if folders:
        a, b = map(Path, folders[:2])
        models = labels(a, b)
        pairs, alone = pairs_of(a, b)
    else:
        models = (TUNED, UNTUNED)
        pairs, alone = study_pairs(params, workspace)
    if alone:
        print(f"pictures without a counterpart of the same name, left out: {alone}")
    written = page.write(pairs, models, Config.of(params).sitting, out)
    if written.pairs < len(pairs):
        print(f"{len(pairs)} pairs are there; the page holds {written.pairs} of them, drawn by chance")
    print(f"{written.page}: {written.pairs} pairs in {written.sittings} sittings, for raters")
    print(f"{written.key}: its key, which `votes` needs and no rater may see")


def study_pairs(params: Params, workspace: Workspace) -> tuple[list[Pair], int]:
    """The study's pictures of all training seeds, and how many have no counterpart. ValueError where there are none."""
    config, pairs, alone = Config.of(params), [], 0
    for seed in params.protocol.training_seeds:
        a, b = (
            Location(config.STUDY, name, config.guidance, WHITE, name).folder(workspace.samples, seed)
            for name in (TUNED, UNTUNED)
        )
        for folder in (a, b):
            if not folder.is_dir():
                raise ValueError(f"{folder}: the study has not painted it yet; name two folders: make ab A=... B=...")
        matched, unmatched = pairs_of(a, b, f"{seed}/")
        pairs += matched
        alone += unmatched
    return pairs, alone


def labels(a: Path, b: Path) -> tuple[str, str]:
    """What two folders are called in tables: their paths without the folders at both ends that they share."""
    parts = [list(path.resolve().parts) for path in (a, b)]
    while len(parts[0]) > 1 and len(parts[1]) > 1 and parts[0][-1] == parts[1][-1]:
        parts = [each[:-1] for each in parts]
    while len(parts[0]) > 1 and len(parts[1]) > 1 and parts[0][0] == parts[1][0]:
        parts = [each[1:] for each in parts]
    return "/".join(parts[0]), "/".join(parts[1])
