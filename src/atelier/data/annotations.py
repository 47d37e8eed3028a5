"""The ArtEmis release CSV: one row per annotation, checked; and one row per work.

Errors of the file as a whole (columns, encoding, a truncated row, a name that leaves the folder) stop the run. A bad
row is quarantined.
"""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from atelier.data.spellings import WORK
from atelier.files import read_bytes, shown

EMOTIONS = (  # in the order of class indices: four positive, four negative, other
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
    "something else",
)
COLUMNS = ("art_style", "painting", "emotion", "utterance", "repetition")
FAULTS = (  # of a row; each begins with the name of its column
    "emotion {} is not one of the nine",
    "utterance {} is empty",
    "repetition {} is not a whole number above 0",
)
BLOCK = 2**16  # rows that are Python's objects at a time; pandas keeps their text more tightly


def read_annotations(path: Path | None, counts: Counter[str]) -> tuple[pd.DataFrame, list[str]]:
    """Valid rows of the CSV, in order, with the ``line`` each starts on; and one line per quarantined row."""
    if path is None:
        return pd.DataFrame({name: [] for name in (*COLUMNS, "line")}, dtype=object), []
    data = _csv_bytes(path, counts)
    rows = _csv_rows(data, path.name)
    counts["rows read"] = len(rows)
    _refuse_escapes(rows, path.name)
    numbers = pd.to_numeric(rows["repetition"].where(rows["repetition"].str.fullmatch("[0-9]{1,9}"))).fillna(0)
    _refuse_cut_number(rows, numbers, data, path.name)

    faults = np.select(
        [~rows["emotion"].isin(EMOTIONS), rows["utterance"].str.strip() == "", numbers < 1], [0, 1, 2], -1
    )
    bad = [
        f"{path.name}: row at line {row.line}: " + fault.format(shown(getattr(row, fault.split()[0])))
        for row, fault in zip(rows[faults >= 0].itertuples(), map(FAULTS.__getitem__, faults[faults >= 0]), strict=True)
    ]
    return rows.assign(repetition=numbers.astype(int))[faults < 0], bad


def _csv_bytes(path: Path, counts: Counter[str]) -> bytes:
    """Read the file, removing and counting a byte order mark; ValueError for what is not UTF-8, and for NUL."""
    data = read_bytes(path)
    counts["CSV with byte order mark"] = int(data.startswith(codecs.BOM_UTF8))
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise ValueError(f"{path.name}: line {line}: byte 0x{data[fault.start]:02x} is not UTF-8") from fault
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(0)) + 1
        raise ValueError(f"{path.name}: line {line}: a NUL character")
    return data


def _csv_rows(data: bytes, name: str) -> pd.DataFrame:
    """The five columns as strings, and ``line``; ValueError for a wrong header or a truncated row."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), strict=True)
    header: Sequence[str] | None = None
    blocks: list[pd.DataFrame] = []
    rows: list[tuple[str | int, ...]] = []
    start = 1
    try:
        for fields in reader:
            if header is None:
                header = _checked_header(fields, name)
            elif fields and len(fields) != len(header):
                cut = "; the file is cut in mid-row" if reader.line_num >= data.count(b"\n") + 1 else ""
                raise ValueError(f"{name}: row at line {start}: {len(fields)} of {len(header)} fields{cut}")
            elif fields:
                rows.append((*fields, start))
                if len(rows) == BLOCK:
                    blocks.append(pd.DataFrame(rows, columns=[*header, "line"]))
                    rows = []
            start = reader.line_num + 1
    except csv.Error as fault:
        raise ValueError(
            f"{name}: row at line {start}: {fault}; the file is cut there or a quote is unbalanced"
        ) from fault
    last = pd.DataFrame(rows, columns=[*(header or _checked_header([], name)), "line"])
    if not blocks:
        return last
    return pd.concat([*blocks, last] if rows else blocks, ignore_index=True)


def _checked_header(fields: Sequence[str], name: str) -> Sequence[str]:
    """Return the header; ValueError unless it has each of the five columns exactly once and no others."""
    faults = {
        "missing": [column for column in COLUMNS if column not in fields],
        "doubled": [column for column, n in Counter(fields).items() if n > 1],
        "unknown": [column for column in fields if column not in COLUMNS],
    }
    said = "; ".join(f"{what} {', '.join(map(shown, columns[:5]))}" for what, columns in faults.items() if columns)
    if said:
        raise ValueError(f"{name}: columns {said}; expected {','.join(COLUMNS)}")
    return fields


def _refuse_escapes(rows: pd.DataFrame, name: str) -> None:
    """ValueError for an art_style or painting that is not a plain file name."""
    for column in WORK:
        values = rows[column]
        bad = values.str.contains(r"[/\\\x00-\x1f\x7f]") | values.isin(["", ".", ".."])
        if bad.any():
            row = rows[bad].iloc[0]
            raise ValueError(
                f"{name}: row at line {row['line']}: {column} {shown(row[column])} would leave the picture folder; "
                "expected a plain name without '/', '\\' or control characters"
            )


def _refuse_cut_number(rows: pd.DataFrame, numbers: pd.Series, data: bytes, name: str) -> None:
    """ValueError if the file may end within the last number: no newline, and other rows of the work differ."""
    if rows.empty or data.endswith((b"\n", b"\r")):
        return
    last = rows.iloc[-1]
    same_work = (rows["art_style"] == last["art_style"]) & (rows["painting"] == last["painting"])
    others = numbers[same_work].iloc[:-1]
    if numbers.iloc[-1] < 1 or (len(others) > 0 and numbers.iloc[-1] not in set(others)):
        raise ValueError(f"{name}: row at line {last['line']}: repetition {last['repetition']!r}; cut in mid-row")


def group_by_work(rows: pd.DataFrame, counts: Counter[str]) -> pd.DataFrame:
    """One row per work: lists of emotions and utterances in the order of the CSV, repetition, first line."""
    works = rows.groupby(WORK, as_index=False)
    notes = works.agg(repetition=("repetition", "max"), line=("line", "first"))
    number = works.ngroup().to_numpy()
    order = np.argsort(number, kind="stable")  # the works in turn, each one's rows as they came
    ends = np.cumsum(np.bincount(number.astype(np.intp), minlength=len(notes)))
    for name, column in {"emotions": "emotion", "utterances": "utterance"}.items():
        values = rows[column].iloc[order].tolist()
        notes[name] = pd.Series([values[start:end] for start, end in pairwise([0, *ends])], dtype=object)
    counts["works whose repetition is not their number of rows"] = int(
        (notes["repetition"] != notes["emotions"].map(len)).sum()
    )
    return notes
