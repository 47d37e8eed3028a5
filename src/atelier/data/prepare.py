"""Stage ``prepare``: write manifests of the data folder's pictures and annotations, and report what was left out."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atelier import paths
from atelier.data.archives import unpack
from atelier.data.artemis import load_works, picture_files
from atelier.data.images import load_pictures, write_whole
from atelier.data.manifest import Works, read_manifest, write_manifest
from atelier.data.mending import composed
from atelier.data.spellings import WORK, spelt_as_files
from atelier.params import Data, Params

WORKS, PHOTOGRAPHS = "works", "photographs"  # names of the manifests, also in the report
# inside the data folder, as a folder or as an archive (wikiart.zip); photographs may be absent
FOLDERS = {WORKS: "wikiart", PHOTOGRAPHS: "photographs"}
ANNOTATIONS = "artemis_dataset_release_v0.csv"
TRUTH = "truth.csv"  # the painter's ground truth; may be absent
TRUTHS = ["subject", "emotion"]  # the columns that studies use
LEFT_OUT = "left_out.json"  # beside unpacked pictures: what their archives did not give


def works() -> Works:
    """Read the manifest of works."""
    return read_manifest(paths.MANIFESTS / f"{WORKS}.parquet")


def photographs() -> Works:
    """Read the manifest of photographs; empty if the data folder has none."""
    return read_manifest(paths.MANIFESTS / f"{PHOTOGRAPHS}.parquet")


def truth() -> pd.DataFrame | None:
    """Read the true subject and emotion of each picture; None if the data folder has no truth table."""
    path = paths.MANIFESTS / TRUTH
    return read_truth(path) if path.is_file() else None


def read_truth(path: Path) -> pd.DataFrame:
    """Read a truth table's art_style, painting, subject and emotion ("": none); ValueError for an invalid table."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # includes pandas' parser errors
        raise ValueError(f"{path}: not a CSV: {' '.join(str(error).split())}") from None
    wanted = [*WORK, *TRUTHS]
    if missing := [name for name in wanted if name not in table]:
        raise ValueError(f"{path}: columns missing: {', '.join(missing)}")
    # a truncated row ends in missing values in spite of keep_default_na
    torn = table[wanted].isna().any(axis=1) | (table[[*WORK, "subject"]] == "").any(axis=1)
    twice = table[WORK].map(composed, na_action="ignore").duplicated()
    for what, rows in {"art_style, painting or subject is empty": torn, "the picture is listed twice": twice}.items():
        if rows.any():
            raise ValueError(f"{path}: row {int(rows.to_numpy().argmax()) + 2}: {what}")
    return table[wanted]


def with_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Add columns ``subject`` and ``emotion`` to a manifest; "" where the truth is not known."""
    known = truth()
    if known is None:
        return table.assign(**dict.fromkeys(TRUTHS, ""))
    return table.merge(known, on=WORK, how="left").fillna(dict.fromkeys(TRUTHS, ""))


def picture_folder(data: Data, kind: str) -> Path:
    """The folder of one kind of pictures: in the data folder, or where the stage unpacks their archive."""
    folder = Path(data.folder) / FOLDERS[kind]
    return folder if folder.is_dir() else paths.PICTURES / FOLDERS[kind]


def pictures(table: pd.DataFrame, data: Data, kind: str = WORKS) -> torch.Tensor:
    """Load the pictures of a manifest's rows, uint8 (n, 3, size, size)."""
    folder = picture_folder(data, kind)
    return load_pictures(picture_files(table, folder), data.size, root=folder)


def unpack_archives(data: Data, out: Path) -> None:
    """Unpack the data folder's archives into ``out``, and write the number of pictures of each there.

    What an archive did not give is written to ``left_out.json``, for ``prepare`` to count with what it reads.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pictures: dict[str, int] = {}
    unusual: dict[str, dict[str, object]] = {}
    for name in FOLDERS.values():
        archive = Path(data.folder) / f"{name}.zip"
        if (Path(data.folder) / name).is_dir() or not archive.is_file():
            continue
        left_out: list[tuple[str, str]] = []
        counts: Counter[str] = Counter()
        pictures[archive.name] = unpack(archive, out / name, bad_share=data.bad_share, left_out=left_out, counts=counts)
        if left_out or counts:
            unusual[name] = {
                "pictures": [(path, f"{archive.name}: {why}") for path, why in left_out],
                "counts": {f"{archive.name}: {what}": count for what, count in counts.items()},
            }
    if unusual:
        write_whole(out / LEFT_OUT, (json.dumps(unusual, indent=2, sort_keys=True) + "\n").encode())
    write_whole(out / "archives.json", (json.dumps(pictures, indent=2, sort_keys=True) + "\n").encode())


def _read(data: Data, seed: int, kind: str, annotations: Path | None) -> Works:
    """Read one kind of pictures, with what its archive did not give."""
    folder = picture_folder(data, kind)
    unusual: dict[str, Any] = {}
    if folder.parent == paths.PICTURES and (paths.PICTURES / LEFT_OUT).is_file():
        unusual = json.loads((paths.PICTURES / LEFT_OUT).read_text()).get(FOLDERS[kind], {})
    read = load_works(
        folder,
        annotations,
        split=data.split,
        seed=seed,
        bad_share=data.bad_share,
        not_unpacked=unusual.get("pictures", ()),
    )
    return Works(read.table, read.quarantined, dict(sorted({**read.counts, **unusual.get("counts", {})}.items())))


def prepare(data: Data, seed: int, out: Path) -> dict[str, dict[str, object]]:
    """Read both folders, write their manifests into ``out`` and return the report."""
    read = {WORKS: _read(data, seed, WORKS, Path(data.folder) / ANNOTATIONS if data.annotations else None)}
    if picture_folder(data, PHOTOGRAPHS).is_dir():
        read[PHOTOGRAPHS] = _read(data, seed, PHOTOGRAPHS, None)
    else:
        read[PHOTOGRAPHS] = Works(read[WORKS].table.iloc[:0], (), {})
    out.mkdir(parents=True, exist_ok=True)
    (out / TRUTH).unlink(missing_ok=True)
    if (truth_file := Path(data.folder) / TRUTH).is_file():
        # spelt as the manifest is, so that studies join the two by name
        spelt, _ = spelt_as_files(read_truth(truth_file), read[WORKS].table, Counter())
        spelt.to_csv(out / TRUTH, index=False)
    report: dict[str, dict[str, object]] = {}
    for kind, manifest in read.items():
        write_manifest(manifest, out / f"{kind}.parquet")
        report[kind] = {
            "works": len(manifest.table),
            "split": {str(name): int(n) for name, n in manifest.table["split"].value_counts().items()},
            "counts": manifest.counts,
            "quarantined": list(manifest.quarantined),
        }
    (out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    return report


def main(params: Params) -> None:
    """Stage ``prepare``."""
    unpack_archives(params.data, paths.PICTURES)
    report = prepare(params.data, params.seed, paths.MANIFESTS)
    for kind, facts in report.items():
        left_out = facts["quarantined"]
        assert isinstance(left_out, list)
        print(f"{kind}: {facts['works']} read, split {facts['split']}, {len(left_out)} left out")
        for line in left_out:
            print(f"  left out: {line}", file=sys.stderr)
