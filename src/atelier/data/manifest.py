"""The manifest: the table of works that ``prepare`` accepted, as Parquet."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atelier.files import reading, write_whole

SCHEMA = pa.schema(
    [
        ("art_style", pa.string()),
        ("painting", pa.string()),
        ("artist", pa.string()),
        ("title", pa.string()),
        ("year", pa.int32()),
        ("path", pa.string()),
        ("split", pa.string()),
        ("emotions", pa.list_(pa.string())),
        ("utterances", pa.list_(pa.string())),
        ("repetition", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Works:
    """``table``: one row per work, sorted by (art_style, painting); quarantined items, one line each; and counts.

    Columns: art_style, painting, artist, title, year (Int32, may be missing), path (relative, posix), split, emotions
    and utterances (lists of equal length, empty without annotations), repetition (from the CSV; 0 without), width,
    height (pixels, upright), sha256 (of the file's bytes: the key of caches). Bytes of a file name that are not UTF-8
    are written as ``\\xNN`` in painting and path, so that every name prints; ``picture_files`` undoes that.
    """

    table: pd.DataFrame
    quarantined: tuple[str, ...]
    counts: dict[str, int]


def write_manifest(works: Works, path: Path) -> None:
    """Write the table as Parquet, with the report as JSON metadata; equal works give equal bytes."""
    report = json.dumps({"counts": works.counts, "quarantined": works.quarantined}, sort_keys=True)
    table = pa.table({name: _arrow(works.table[name], name) for name in SCHEMA.names}, schema=SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"atelier": report}), sink, compression="zstd")
    write_whole(path, sink.getvalue())


def read_manifest(path: Path) -> Works:
    """Read what ``write_manifest`` wrote. Raises ValueError for a damaged file or another schema."""
    with reading(path, "no readable manifest"):
        table = pq.read_table(io.BytesIO(path.read_bytes()))
        report: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"atelier", b""))
        quarantined, counts = tuple(report["quarantined"]), dict(report["counts"])
    if not table.schema.remove_metadata().equals(SCHEMA):
        raise ValueError(f"{path}: columns {table.schema.names}; expected {SCHEMA.names}, each of its type")
    frame = pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in SCHEMA.names})
    return Works(typed(frame), quarantined, counts)


def _arrow(column: pd.Series, name: str) -> pa.Array:
    values = [None if value is pd.NA else value for value in column]
    return pa.array(values, type=SCHEMA.field(name).type)


def typed(works: pd.DataFrame) -> pd.DataFrame:
    """The manifest's columns in order, with their dtypes."""
    dtypes: dict[str, Any] = {"string": "str", "int32": "int32"}
    dtypes = {field.name: dtypes.get(str(field.type), object) for field in SCHEMA} | {"year": "Int32"}
    return works[list(dtypes)].astype(dtypes)
