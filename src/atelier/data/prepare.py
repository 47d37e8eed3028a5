"""Stage ``prepare``: write manifests of the data folder's pictures and annotations, and report what was left out."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atelier.data.archives import unpack
from atelier.data.artemis import load_works, picture_files
from atelier.data.images import load_pictures
from atelier.data.manifest import Works, read_manifest, write_manifest
from atelier.files import read_table, remove, write_json, write_table
from atelier.params import Data, Params
from atelier.workspace import Workspace, replacing

WORKS, PHOTOGRAPHS = "works", "photographs"  # names of the manifests, also in the report
# inside the data folder, as a folder or as an archive (wikiart.zip); photographs may be absent
FOLDERS = {WORKS: "wikiart", PHOTOGRAPHS: "photographs"}
ANNOTATIONS = "artemis_dataset_release_v0.csv"
TRUTH = "truth.csv"  # the painter's ground truth; may be absent
TRUTH_KEY, TRUTHS = ["art_style", "painting"], ["subject", "emotion"]  # the columns that studies use


def works(manifests: Path) -> Works:
    """Read the manifest of works."""
    return read_manifest(manifests / f"{WORKS}.parquet")


def photographs(manifests: Path) -> Works:
    """Read the manifest of photographs; empty if the data folder has none."""
    return read_manifest(manifests / f"{PHOTOGRAPHS}.parquet")


def truth(manifests: Path) -> pd.DataFrame | None:
    """Read the true subject and emotion of each picture; None if the data folder has no truth table."""
    path = manifests / TRUTH
    return read_truth(path) if path.is_file() else None


def read_truth(path: Path) -> pd.DataFrame:
    """Read a truth table's art_style, painting, subject and emotion ("": none); ValueError for an invalid table."""
    wanted = [*TRUTH_KEY, *TRUTHS]
    table = read_table(path, wanted, whole=False, dtype=str, keep_default_na=False, index_col=False)
    # a truncated row ends in missing values in spite of keep_default_na
    torn = table[wanted].isna().any(axis=1) | (table[[*TRUTH_KEY, "subject"]] == "").any(axis=1)
    twice = table.duplicated(TRUTH_KEY)
    for what, rows in {"art_style, painting or subject is empty": torn, "the picture is listed twice": twice}.items():
        if rows.any():
            raise ValueError(f"{path}: row {int(rows.to_numpy().argmax()) + 2}: {what}")
    return table[wanted]


def with_truth(table: pd.DataFrame, manifests: Path) -> pd.DataFrame:
    """Add columns ``subject`` and ``emotion`` to a manifest's rows; "" where the truth is not known."""
    known = truth(manifests)
    if known is None:
        return table.assign(**dict.fromkeys(TRUTHS, ""))
    return table.merge(known, on=TRUTH_KEY, how="left").fillna(dict.fromkeys(TRUTHS, ""))


def picture_folder(data: Data, workspace: Workspace, kind: str) -> Path:
    """The folder of one kind of pictures: in the data folder, or where the stage unpacks their archive."""
    folder = workspace.named(data.folder) / FOLDERS[kind]
    return folder if folder.is_dir() else workspace.pictures / FOLDERS[kind]


def pictures(table: pd.DataFrame, data: Data, workspace: Workspace, kind: str = WORKS) -> torch.Tensor:
    """Load the pictures of a manifest's rows, uint8 (n, 3, size, size)."""
    folder = picture_folder(data, workspace, kind)
    return load_pictures(picture_files(table, folder), data.size, root=folder)


def unpack_archives(data: Data, workspace: Workspace) -> None:
    """Unpack the data folder's archives, and write the number of pictures of each beside them."""
    folder = workspace.named(data.folder)
    _refuse_without_works(folder)
    with replacing(workspace.pictures) as part:
        counts = {
            f"{name}.zip": unpack(archive, part / name)
            for name in FOLDERS.values()
            if not (folder / name).is_dir() and (archive := folder / f"{name}.zip").is_file()
        }
        write_json(part / "archives.json", counts)


def _refuse_without_works(folder: Path) -> None:
    """ValueError, in the user's terms, for a data folder that has no works."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; data.folder names the one that holds {FOLDERS[WORKS]}")
    works = folder / FOLDERS[WORKS]
    if not works.is_dir() and not works.with_name(f"{works.name}.zip").is_file():
        raise ValueError(f"{folder}: holds neither the folder {works.name} nor {works.name}.zip, expected {works}")


def prepare(data: Data, seed: int, workspace: Workspace) -> dict[str, dict[str, object]]:
    """Read both folders, write their manifests and return the report."""
    folder, out = workspace.named(data.folder), workspace.manifests
    _refuse_without_works(folder)
    annotations = folder / ANNOTATIONS if data.annotations else None
    shared: dict[str, Any] = {"split": data.split, "seed": seed, "bad_share": data.bad_share}
    read = {WORKS: load_works(picture_folder(data, workspace, WORKS), annotations, **shared)}
    if (photographs := picture_folder(data, workspace, PHOTOGRAPHS)).is_dir():
        read[PHOTOGRAPHS] = load_works(photographs, None, **shared)
    else:
        read[PHOTOGRAPHS] = Works(read[WORKS].table.iloc[:0], (), {})
    remove(out / TRUTH)
    if (truth_file := folder / TRUTH).is_file():
        write_table(out / TRUTH, read_truth(truth_file))
    report: dict[str, dict[str, object]] = {}
    for kind, manifest in read.items():
        write_manifest(manifest, out / f"{kind}.parquet")
        report[kind] = {
            "works": len(manifest.table),
            "split": {str(name): int(n) for name, n in manifest.table["split"].value_counts().items()},
            "counts": manifest.counts,
            "quarantined": list(manifest.quarantined),
        }
    write_json(out / "report.json", report)
    return report


def main(params: Params, workspace: Workspace) -> None:
    """Stage ``prepare``."""
    unpack_archives(params.data, workspace)
    report = prepare(params.data, params.seed, workspace)
    for kind, facts in report.items():
        left_out = facts["quarantined"]
        assert isinstance(left_out, list)
        print(f"{kind}: {facts['works']} read, split {facts['split']}, {len(left_out)} left out")
        for line in left_out:
            print(f"  left out: {line}", file=sys.stderr)
