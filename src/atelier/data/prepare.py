"""Stage ``prepare``: the data folder's pictures and annotations as manifests, and a report of what was left out."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atelier import params, paths
from atelier.data.archives import unpack
from atelier.data.artemis import Works, load_works, picture_files, read_manifest, write_manifest
from atelier.data.images import load_pictures

WORKS, PHOTOGRAPHS = "works", "photographs"  # manifests, and what they are called in the report
# inside the data folder, or an archive of that name, wikiart.zip; photographs may be absent
FOLDERS = {WORKS: "wikiart", PHOTOGRAPHS: "photographs"}
ANNOTATIONS = "artemis_dataset_release_v0.csv"
TRUTH = "truth.csv"  # of a painted world; may be absent
TRUTH_KEY, TRUTHS = ["art_style", "painting"], ["subject", "emotion"]  # of its columns, those that studies ask for


def works() -> Works:
    """The manifest of works, as the stage left it."""
    return read_manifest(paths.MANIFESTS / f"{WORKS}.parquet")


def photographs() -> Works:
    """The manifest of ordinary photographs; empty where the data folder has none."""
    return read_manifest(paths.MANIFESTS / f"{PHOTOGRAPHS}.parquet")


def truth() -> pd.DataFrame | None:
    """What is known of each picture, as the stage left it; None where the data folder does not tell."""
    path = paths.MANIFESTS / TRUTH
    return read_truth(path) if path.is_file() else None


def read_truth(path: Path) -> pd.DataFrame:
    """A truth table's art_style, painting, subject and emotion ("": none); ValueError, one line, for what is none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # pandas' own are such
        raise ValueError(f"{path}: not a CSV: {' '.join(str(error).split())}") from None
    wanted = [*TRUTH_KEY, *TRUTHS]
    if missing := [name for name in wanted if name not in table]:
        raise ValueError(f"{path}: columns missing: {', '.join(missing)}")
    # a row cut short ends in missing values, whatever their default
    torn = table[wanted].isna().any(axis=1) | (table[[*TRUTH_KEY, "subject"]] == "").any(axis=1)
    twice = table.duplicated(TRUTH_KEY)
    for what, rows in {"art_style, painting or subject is empty": torn, "the picture stands twice": twice}.items():
        if rows.any():
            raise ValueError(f"{path}: row {int(rows.to_numpy().argmax()) + 2}: {what}")
    return table[wanted]


def with_truth(table: pd.DataFrame) -> pd.DataFrame:
    """A manifest's rows and, of each, ``subject`` and ``emotion``; "" where nothing is known."""
    known = truth()
    if known is None:
        return table.assign(**dict.fromkeys(TRUTHS, ""))
    return table.merge(known, on=TRUTH_KEY, how="left").fillna(dict.fromkeys(TRUTHS, ""))


def picture_folder(data: params.Data, kind: str) -> Path:
    """Where a kind's pictures lie: in the data folder, or where the stage unpacks their archive."""
    given = Path(data.folder) / FOLDERS[kind]
    return given if given.is_dir() else paths.PICTURES / FOLDERS[kind]


def pictures(table: pd.DataFrame, data: params.Data, kind: str = WORKS) -> torch.Tensor:
    """The pictures of some rows of a manifest, uint8 (n, 3, size, size)."""
    folder = picture_folder(data, kind)
    return load_pictures(picture_files(table, folder), data.size, root=folder)


def unpack_archives(data: params.Data, out: Path) -> None:
    """Unpack what lies packed in the data folder into ``out``, and say there how many pictures came of it."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    found = {
        f"{name}.zip": unpack(archive, out / name)
        for name in FOLDERS.values()
        if not (Path(data.folder) / name).is_dir() and (archive := Path(data.folder) / f"{name}.zip").is_file()
    }
    (out / "archives.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


def prepare(data: params.Data, seed: int, out: Path) -> dict[str, dict[str, object]]:
    """Read both folders, write their manifests into ``out`` and return the report."""
    annotations = Path(data.folder) / ANNOTATIONS if data.annotations else None
    shared: dict[str, Any] = {"split": data.split, "seed": seed, "bad_share": data.bad_share}
    read = {WORKS: load_works(picture_folder(data, WORKS), annotations, **shared)}
    if (photographs := picture_folder(data, PHOTOGRAPHS)).is_dir():
        read[PHOTOGRAPHS] = load_works(photographs, None, **shared)
    else:
        read[PHOTOGRAPHS] = Works(read[WORKS].table.iloc[:0], (), {})
    out.mkdir(parents=True, exist_ok=True)
    (out / TRUTH).unlink(missing_ok=True)
    if (told := Path(data.folder) / TRUTH).is_file():
        read_truth(told).to_csv(out / TRUTH, index=False)
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


def main(asked: params.Params) -> None:
    """Stage ``prepare``."""
    unpack_archives(asked.data, paths.PICTURES)
    report = prepare(asked.data, asked.seed, paths.MANIFESTS)
    for kind, facts in report.items():
        left_out = facts["quarantined"]
        assert isinstance(left_out, list)
        print(f"{kind}: {facts['works']} read, split {facts['split']}, {len(left_out)} left out")
        for line in left_out:
            print(f"  left out: {line}", file=sys.stderr)
