"""Stage ``prepare``: write manifests of the data folder's pictures and annotations, and report what was left out."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atelier.data.archives import unpack
from atelier.data.artemis import load_works, picture_files
from atelier.data.images import load_pictures
from atelier.data.manifest import Works, read_manifest, write_manifest
from atelier.files import check_seal
from atelier.params import Data, Params
from atelier.workspace import Workspace, replacing

WORKS, PHOTOGRAPHS = "works", "photographs"  # names of the manifests, also in the report
# inside the data folder, as a folder or as an archive (wikiart.zip); photographs may be absent
FOLDERS = {WORKS: "wikiart", PHOTOGRAPHS: "photographs"}
ANNOTATIONS = "artemis_dataset_release_v0.csv"
TRUTH = "truth.csv"  # the painter's ground truth; may be absent
TRUTH_KEY, TRUTHS = ["art_style", "painting"], ["subject", "emotion"]  # the columns that studies use


def works(manifests: Path) -> Works:
    """Read the manifest of works. Raises ValueError for a damaged folder, as the two below do."""
    return read_manifest(check_seal(manifests) / f"{WORKS}.parquet")


def photographs(manifests: Path) -> Works:
    """Read the manifest of photographs; empty if the data folder has none."""
    return read_manifest(check_seal(manifests) / f"{PHOTOGRAPHS}.parquet")


def truth(manifests: Path) -> pd.DataFrame | None:
    """Read the true subject and emotion of each picture; None if the data folder has no truth table."""
    path = check_seal(manifests) / TRUTH
    return read_truth(path) if path.is_file() else None


def read_truth(path: Path) -> pd.DataFrame:
    """Read a truth table's art_style, painting, subject and emotion ("": none); ValueError for an invalid table."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # includes pandas' parser errors
        raise ValueError(f"{path}: not a CSV: {' '.join(str(error).split())}") from None
    wanted = [*TRUTH_KEY, *TRUTHS]
    if missing := [name for name in wanted if name not in table]:
        raise ValueError(f"{path}: columns missing: {', '.join(missing)}")
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
    """Load the pictures of a manifest's rows, uint8 (n, 3, size, size). Raises ValueError for a damaged one."""
    folder = picture_folder(data, workspace, kind)
    files = picture_files(table, folder)
    if folder.parent == workspace.pictures:
        check_seal(workspace.pictures, only=files)
    return load_pictures(files, data.size, root=folder)


def unpack_archives(data: Data, workspace: Workspace) -> None:
    """Unpack the data folder's archives, and write the number of pictures of each beside them."""
    folder = workspace.named(data.folder)
    with replacing(workspace.pictures) as out:
        counts = {
            f"{name}.zip": unpack(archive, out / name)
            for name in FOLDERS.values()
            if not (folder / name).is_dir() and (archive := folder / f"{name}.zip").is_file()
        }
        (out / "archives.json").write_text(json.dumps(counts, indent=2, sort_keys=True) + "\n")


def prepare(data: Data, seed: int, workspace: Workspace) -> dict[str, dict[str, object]]:
    """Read both folders, write their manifests and return the report."""
    folder = workspace.named(data.folder)
    annotations = folder / ANNOTATIONS if data.annotations else None
    shared: dict[str, Any] = {"split": data.split, "seed": seed, "bad_share": data.bad_share}
    read = {WORKS: load_works(picture_folder(data, workspace, WORKS), annotations, **shared)}
    if (photographs := picture_folder(data, workspace, PHOTOGRAPHS)).is_dir():
        read[PHOTOGRAPHS] = load_works(photographs, None, **shared)
    else:
        read[PHOTOGRAPHS] = Works(read[WORKS].table.iloc[:0], (), {})
    report = {kind: _facts(manifest) for kind, manifest in read.items()}
    with replacing(workspace.manifests) as out:
        if (truth_file := folder / TRUTH).is_file():
            read_truth(truth_file).to_csv(out / TRUTH, index=False)
        for kind, manifest in read.items():
            write_manifest(manifest, out / f"{kind}.parquet")
        (out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    return report


def _facts(manifest: Works) -> dict[str, object]:
    """What the report says of one kind of pictures."""
    return {
        "works": len(manifest.table),
        "split": {str(name): int(n) for name, n in manifest.table["split"].value_counts().items()},
        "counts": manifest.counts,
        "quarantined": list(manifest.quarantined),
    }


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
