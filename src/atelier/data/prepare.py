"""Stage ``prepare``: write manifests of the data folder's pictures and annotations, and report what was left out."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from atelier.data import layout
from atelier.data.archives import unpack
from atelier.data.artemis import load_works, picture_files
from atelier.data.manifest import Works, read_manifest, write_manifest
from atelier.data.mending import composed
from atelier.data.pictures import Pictures, of_files
from atelier.data.spellings import WORK, spelt_as_files
from atelier.files import check_seal, read_json, read_table, write_json, write_table
from atelier.params import Data, Params
from atelier.workspace import Workspace, replacing

WORKS, PHOTOGRAPHS = "works", "photographs"  # names of the manifests, also in the report
# inside the data folder, as a folder or as an archive (wikiart.zip); photographs may be absent
FOLDERS = {WORKS: layout.WORKS, PHOTOGRAPHS: layout.PHOTOGRAPHS}
TRUTH = "truth.csv"  # the painter's ground truth; may be absent
TRUTHS = ["subject", "emotion"]  # the columns that studies use
LEFT_OUT = "left_out.json"  # beside unpacked pictures: what their archives did not give


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
    wanted = [*WORK, *TRUTHS]
    table = read_table(path, wanted, whole=False, dtype=str, keep_default_na=False, index_col=False)
    # a truncated row ends in missing values in spite of keep_default_na
    torn = table[wanted].isna().any(axis=1) | (table[[*WORK, "subject"]] == "").any(axis=1)
    twice = table[WORK].map(composed, na_action="ignore").duplicated()
    for what, rows in {"art_style, painting or subject is empty": torn, "the picture is listed twice": twice}.items():
        if rows.any():
            raise ValueError(f"{path}: row {int(rows.to_numpy().argmax()) + 2}: {what}")
    return table[wanted]


def with_truth(table: pd.DataFrame, manifests: Path) -> pd.DataFrame:
    """Add columns ``subject`` and ``emotion`` to a manifest's rows; "" where the truth is not known."""
    known = truth(manifests)
    if known is None:
        return table.assign(**dict.fromkeys(TRUTHS, ""))
    return table.merge(known, on=WORK, how="left").fillna(dict.fromkeys(TRUTHS, ""))


def picture_folder(data: Data, workspace: Workspace, kind: str) -> Path:
    """The folder of one kind of pictures: in the data folder, or where the stage unpacks their archive."""
    folder = workspace.named(data.folder)
    if kind == WORKS:
        source = layout.works(folder).source
        return source if source.is_dir() else workspace.pictures / FOLDERS[kind]
    return folder / FOLDERS[kind] if (folder / FOLDERS[kind]).is_dir() else workspace.pictures / FOLDERS[kind]


def pictures(table: pd.DataFrame, data: Data, workspace: Workspace, kind: str = WORKS) -> Pictures:
    """The pictures of a manifest's rows, ``data.size`` px a side. Reading them raises ValueError for a damaged one."""
    folder = picture_folder(data, workspace, kind)
    files = picture_files(table, folder)
    if folder.parent == workspace.pictures:
        check_seal(workspace.pictures, only=files)
    return of_files(files, data.size, root=folder)


def unpack_archives(data: Data, workspace: Workspace) -> None:
    """Unpack the data folder's archives, and write the number of pictures of each beside them.

    What an archive did not give is written to ``left_out.json``, for ``prepare`` to count with what it reads.
    """
    folder = workspace.named(data.folder)
    layout.works(folder)  # refuses a folder without works, in the user's words
    pictures: dict[str, int] = {}
    unusual: dict[str, dict[str, object]] = {}
    with replacing(workspace.pictures) as part:
        for name in FOLDERS.values():
            archive = folder / f"{name}.zip"
            if (folder / name).is_dir() or not archive.is_file():
                continue
            left_out: list[tuple[str, str]] = []
            counts: Counter[str] = Counter()
            number = unpack(archive, part / name, bad_share=data.bad_share, left_out=left_out, counts=counts)
            pictures[archive.name] = number
            if left_out or counts:
                unusual[name] = {
                    "pictures": [(path, f"{archive.name}: {why}") for path, why in left_out],
                    "counts": {f"{archive.name}: {what}": count for what, count in counts.items()},
                }
        if unusual:
            write_json(part / LEFT_OUT, unusual)
        write_json(part / "archives.json", pictures)


def _read(data: Data, seed: int, workspace: Workspace, kind: str, annotations: Path | None) -> Works:
    """Read one kind of pictures, with what its archive did not give."""
    folder, notes = picture_folder(data, workspace, kind), workspace.pictures / LEFT_OUT
    unusual: dict[str, Any] = {}
    if folder.parent == workspace.pictures and notes.is_file():
        unusual = read_json(notes).get(FOLDERS[kind], {})
    read = load_works(
        folder,
        annotations,
        split=data.split,
        seed=seed,
        bad_share=data.bad_share,
        not_unpacked=unusual.get("pictures", ()),
    )
    return Works(read.table, read.quarantined, dict(sorted({**read.counts, **unusual.get("counts", {})}.items())))


def prepare(data: Data, seed: int, workspace: Workspace) -> dict[str, dict[str, object]]:
    """Read both folders, write their manifests and return the report."""
    folder = workspace.named(data.folder)
    annotations = folder / layout.ANNOTATIONS if data.annotations else None
    read = {WORKS: _read(data, seed, workspace, WORKS, annotations)}
    if picture_folder(data, workspace, PHOTOGRAPHS).is_dir():
        read[PHOTOGRAPHS] = _read(data, seed, workspace, PHOTOGRAPHS, None)
    else:
        read[PHOTOGRAPHS] = Works(read[WORKS].table.iloc[:0], (), {})
    report = {kind: _facts(manifest) for kind, manifest in read.items()}
    with replacing(workspace.manifests) as out:
        if (truth_file := folder / TRUTH).is_file():
            # spelt as the manifest is, so that studies join the two by name
            spelt, _ = spelt_as_files(read_truth(truth_file), read[WORKS].table, Counter())
            write_table(out / TRUTH, spelt)
        for kind, manifest in read.items():
            write_manifest(manifest, out / f"{kind}.parquet")
        write_json(out / "report.json", report)
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
