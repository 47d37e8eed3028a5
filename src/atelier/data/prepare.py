"""Stage ``prepare``: the data folder's pictures and annotations as manifests, and a report of what was left out."""

import json
import sys
from pathlib import Path

import pandas as pd
import torch

from atelier import params, paths
from atelier.data.artemis import Works, load_works, picture_files, read_manifest, write_manifest
from atelier.data.images import load_pictures

WORKS, PHOTOGRAPHS = "works", "photographs"  # manifests, and what they are called in the report
FOLDERS = {WORKS: "wikiart", PHOTOGRAPHS: "photographs"}  # inside the data folder; photographs may be absent
ANNOTATIONS = "artemis_dataset_release_v0.csv"


def works() -> Works:
    """The manifest of works, as the stage left it."""
    return read_manifest(paths.MANIFESTS / f"{WORKS}.parquet")


def photographs() -> Works:
    """The manifest of ordinary photographs; empty where the data folder has none."""
    return read_manifest(paths.MANIFESTS / f"{PHOTOGRAPHS}.parquet")


def pictures(table: pd.DataFrame, data: params.Data, kind: str = WORKS) -> torch.Tensor:
    """The pictures of some rows of a manifest, uint8 (n, 3, size, size)."""
    folder = Path(data.folder) / FOLDERS[kind]
    return load_pictures(picture_files(table, folder), data.size, root=folder)


def prepare(data: params.Data, seed: int, out: Path) -> dict[str, dict[str, object]]:
    """Read both folders, write their manifests into ``out`` and return the report."""
    folder = Path(data.folder)
    annotations = folder / ANNOTATIONS if data.annotations else None
    read = {
        WORKS: load_works(folder / FOLDERS[WORKS], annotations, split=data.split, seed=seed, bad_share=data.bad_share)
    }
    if (folder / FOLDERS[PHOTOGRAPHS]).is_dir():
        read[PHOTOGRAPHS] = load_works(
            folder / FOLDERS[PHOTOGRAPHS], None, split=data.split, seed=seed, bad_share=data.bad_share
        )
    else:
        read[PHOTOGRAPHS] = Works(read[WORKS].table.iloc[:0], (), {})
    out.mkdir(parents=True, exist_ok=True)
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


def main() -> int:
    try:
        asked = params.load()
        report = prepare(asked.data, asked.seed, paths.MANIFESTS)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for kind, facts in report.items():
        left_out = facts["quarantined"]
        assert isinstance(left_out, list)
        print(f"{kind}: {facts['works']} read, split {facts['split']}, {len(left_out)} left out")
        for line in left_out:
            print(f"  left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
