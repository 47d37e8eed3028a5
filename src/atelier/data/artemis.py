"""Load the ArtEmis release CSV and a WikiArt folder, or such a folder alone, as one table of works.

A picture is at ``<art_style>/<painting>.jpg`` (or .jpeg, .png); a painting is ``<artist-slug>_<title-slug[-year]>``.
Only listed files are opened: names from the CSV are looked up in the listing.

Errors of the CSV as a whole (columns, encoding, a truncated row, a name that leaves the folder) stop the run. A bad row
or picture is quarantined, named and counted, and stops the run only if more than a given share is bad.
"""

import codecs
import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atelier.data.images import BadPicture, Inspection, inspect_picture, write_whole
from atelier.seeds import seed_of

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
SPLITS = {  # name -> cumulative shares; the poster's and the ArtEmis release's
    "75/25": {"train": 0.75, "test": 1.0},
    "85/5/10": {"train": 0.85, "val": 0.90, "test": 1.0},
}
SUFFIXES = (".jpg", ".jpeg", ".png")

_WORK = ["art_style", "painting"]  # what identifies a work
_SCHEMA = pa.schema(
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
_PARTICLES = (
    "da",
    "de",
    "del",
    "della",
    "den",
    "der",
    "di",
    "du",
    "la",
    "le",
    "of",
    "ten",
    "ter",
    "the",
    "van",
    "von",
    "y",
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


# ---------------------------------------------------------------------------------------------- the loader


def load_works(
    pictures: Path,
    annotations: Path | None,
    *,
    split: str,  # "75/25" or "85/5/10"
    seed: int,  # of the split
    bad_share: float = 0.01,  # of works, and of CSV rows, above which the run stops
    decode: bool = True,  # decode each picture fully, not only its header
) -> Works:
    """Load all works of a picture folder with their annotations from the CSV, if given.

    Every picture is read once, for its hash; with ``decode`` it is decoded too, so that a truncated file is found here
    and not hours later. Without ``decode`` only headers are checked. Works without annotations are kept, with empty
    lists; annotated works without a picture are quarantined. Raises ValueError for a bad CSV, an empty folder, an
    unknown split, or more than ``bad_share`` bad works or rows.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    counts: Counter[str] = Counter()
    listed, bad_names = _list_pictures(pictures, counts)
    rows, bad_rows = _read_annotations(annotations, counts)
    _stop_above(bad_share, "CSV rows", bad_rows, len(rows) + len(bad_rows))

    notes = _group_by_work(rows, counts)
    notes = _matched_by_ascii(notes, listed, counts)
    works = listed.merge(notes, on=_WORK, how="left")
    missing = _missing_pictures(notes, listed, annotations)
    works, bad_pictures = _inspected(works, pictures, decode, counts)
    bad_works = [*bad_names, *bad_pictures, *missing]
    _stop_above(bad_share, "works", bad_works, len(works) + len(bad_works))

    if works.empty:
        raise ValueError(f"{pictures}: no usable work; first: {bad_works[0]}")
    works["split"] = _splits(works, split, seed)
    table = _typed(_described(works, counts))
    counts.update(
        {
            "works": len(table),
            "works without annotations": int((table["emotions"].map(len) == 0).sum()),
            "works with the bytes of another": int(table["sha256"].duplicated().sum()),
            "pictures bad": len(bad_names) + len(bad_pictures),
            "pictures missing": len(missing),
            "rows quarantined": len(bad_rows),
        }
    )
    return Works(table, (*bad_rows, *bad_works), dict(sorted(counts.items())))


def picture_files(table: pd.DataFrame, pictures: Path) -> list[Path]:
    """The picture file of each row, with the original bytes of its name."""
    return [pictures / _unescaped(path) for path in table["path"]]


# ---------------------------------------------------------------------------------------------- pictures


def _list_pictures(pictures: Path, counts: Counter[str]) -> tuple[pd.DataFrame, list[str]]:
    """art_style, painting and path of every picture, sorted; a line per unusable name. Counts other files."""
    if not pictures.is_dir():
        raise ValueError(f"{pictures}: expected a folder of <art_style>/<painting>.jpg or .png")
    known: dict[tuple[str, str], str] = {}
    bad: list[str] = []
    for style, name in sorted(_files_in_styles(pictures)):
        painting, suffix = os.path.splitext(name)
        path = f"{_escaped(style)}/{_escaped(name)}"
        work = (_escaped(style), _escaped(painting))
        if suffix.lower() not in SUFFIXES or name.startswith("."):
            counts["other files ignored"] += 1
        elif re.search(r"[\x00-\x1f\x7f\\]", style + name):
            bad.append(f"{path!r}: a backslash or control character in its name")
        elif work in known:
            bad.append(f"{path}: the same work is there as {known[work]}")
        else:
            known[work] = path
    if not known:
        raise ValueError(f"{pictures}: no picture in it; expected <art_style>/<painting>.jpg or .png")
    listed = pd.DataFrame([(*work, path) for work, path in known.items()], columns=[*_WORK, "path"])
    return listed.sort_values(_WORK, ignore_index=True), bad


def _files_in_styles(pictures: Path) -> Iterator[tuple[str, str]]:
    """(folder, file name) of all files in subfolders; undecodable bytes become surrogates."""
    for style in os.scandir(pictures):
        if os.path.isdir(style):  # unlike entry.is_dir, does not fail on circular links
            for entry in os.scandir(style):
                if not os.path.isdir(entry):
                    yield style.name, entry.name


def _inspected(
    works: pd.DataFrame, pictures: Path, decode: bool, counts: Counter[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Works with width, height and sha256, without those whose picture is bad; and one line per bad picture."""
    root = pictures.resolve()

    def inspect(file: Path) -> Inspection | str:
        try:
            return inspect_picture(file, root, decode)
        except BadPicture as fault:
            return fault.why

    with ThreadPoolExecutor() as pool:  # hashing and decoding release the GIL
        results = list(pool.map(inspect, picture_files(works, pictures)))
    bad = [f"{path}: {why}" for path, why in zip(works["path"], results, strict=True) if isinstance(why, str)]
    good = [result for result in results if not isinstance(result, str)]
    counts.update(f"pictures converted: {name}" for result in good for name in result.conversions)
    kept = works[[not isinstance(result, str) for result in results]].reset_index(drop=True)
    sizes = pd.DataFrame(good, columns=Inspection._fields).drop(columns="conversions")
    return pd.concat([kept, sizes], axis=1), bad


# ---------------------------------------------------------------------------------------------- annotations


def _read_annotations(path: Path | None, counts: Counter[str]) -> tuple[pd.DataFrame, list[str]]:
    """Valid rows of the CSV, in order, with the ``line`` each starts on; and one line per quarantined row."""
    if path is None:
        return pd.DataFrame({name: [] for name in (*COLUMNS, "line")}, dtype=object), []
    text = _csv_text(path, counts)
    rows = _csv_rows(text, path.name)
    counts["rows read"] = len(rows)
    _refuse_escapes(rows, path.name)
    numbers = pd.to_numeric(rows["repetition"].where(rows["repetition"].str.fullmatch("[0-9]{1,9}"))).fillna(0)
    _refuse_cut_number(rows, numbers, text, path.name)

    faults = np.select(
        [~rows["emotion"].isin(EMOTIONS), rows["utterance"].str.strip() == "", numbers < 1],
        [
            "emotion {!r} is not one of the nine",
            "utterance {!r} is empty",
            "repetition {!r} is not a whole number above 0",
        ],
        "",
    )
    bad = [  # each fault begins with the name of its column
        f"{path.name}: row at line {row.line}: " + fault.format(getattr(row, fault.split()[0]))
        for row, fault in zip(rows[faults != ""].itertuples(), faults[faults != ""], strict=True)
    ]
    return rows.assign(repetition=numbers.astype(int))[faults == ""], bad


def _csv_text(path: Path, counts: Counter[str]) -> str:
    """Read the file as UTF-8, removing and counting a byte order mark; ValueError for other encodings and NUL."""
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ValueError(f"{path}: cannot be read ({fault.strerror}); expected the annotations CSV") from fault
    counts["CSV with byte order mark"] = int(data.startswith(codecs.BOM_UTF8))
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise ValueError(f"{path.name}: line {line}: byte 0x{data[fault.start]:02x} is not UTF-8") from fault
    if "\0" in text:
        raise ValueError(f"{path.name}: line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character")
    return text


def _csv_rows(text: str, name: str) -> pd.DataFrame:
    """The five columns as strings, and ``line``; ValueError for a wrong header or a truncated row."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str | int, ...]] = []
    header: Sequence[str] | None = None
    start = 1
    try:
        for fields in reader:
            if header is None:
                header = _checked_header(fields, name)
            elif fields and len(fields) != len(header):
                cut = "; the file is cut in mid-row" if reader.line_num >= text.count("\n") + 1 else ""
                raise ValueError(f"{name}: row at line {start}: {len(fields)} of {len(header)} fields{cut}")
            elif fields:
                rows.append((*fields, start))
            start = reader.line_num + 1
    except csv.Error as fault:
        raise ValueError(
            f"{name}: row at line {start}: {fault}; the file is cut there or a quote is unbalanced"
        ) from fault
    return pd.DataFrame(rows, columns=[*(header or _checked_header([], name)), "line"])


def _checked_header(fields: Sequence[str], name: str) -> Sequence[str]:
    """Return the header; ValueError unless it has each of the five columns exactly once and no others."""
    faults = {
        "missing": [column for column in COLUMNS if column not in fields],
        "doubled": [column for column, n in Counter(fields).items() if n > 1],
        "unknown": [column for column in fields if column not in COLUMNS],
    }
    said = "; ".join(f"{what} {', '.join(map(repr, columns))}" for what, columns in faults.items() if columns)
    if said:
        raise ValueError(f"{name}: columns {said}; expected {','.join(COLUMNS)}")
    return fields


def _refuse_escapes(rows: pd.DataFrame, name: str) -> None:
    """ValueError for an art_style or painting that is not a plain file name."""
    for column in _WORK:
        values = rows[column]
        bad = values.str.contains(r"[/\\\x00-\x1f\x7f]") | values.isin(["", ".", ".."])
        if bad.any():
            row = rows[bad].iloc[0]
            raise ValueError(
                f"{name}: row at line {row['line']}: {column} {row[column]!r} would leave the picture folder; "
                "expected a plain name without '/', '\\' or control characters"
            )


def _refuse_cut_number(rows: pd.DataFrame, numbers: pd.Series, text: str, name: str) -> None:
    """ValueError if the file may end within the last number: no newline, and other rows of the work differ."""
    if rows.empty or text.endswith(("\n", "\r")):
        return
    last = rows.iloc[-1]
    same_work = (rows["art_style"] == last["art_style"]) & (rows["painting"] == last["painting"])
    others = numbers[same_work].iloc[:-1]
    if numbers.iloc[-1] < 1 or (len(others) > 0 and numbers.iloc[-1] not in set(others)):
        raise ValueError(f"{name}: row at line {last['line']}: repetition {last['repetition']!r}; cut in mid-row")


def _group_by_work(rows: pd.DataFrame, counts: Counter[str]) -> pd.DataFrame:
    """One row per work: lists of emotions and utterances in the order of the CSV, repetition, first line."""
    notes = rows.groupby(_WORK, as_index=False).agg(
        emotions=("emotion", list),
        utterances=("utterance", list),
        repetition=("repetition", "max"),
        line=("line", "first"),
    )
    counts["works whose repetition is not their number of rows"] = int(
        (notes["repetition"] != notes["emotions"].map(len)).sum()
    )
    return notes


def _matched_by_ascii(notes: pd.DataFrame, listed: pd.DataFrame, counts: Counter[str]) -> pd.DataFrame:
    """Rename annotations to the file's spelling where the two agree in their ASCII characters only.

    CSV and archive went through different wrong encodings (``joaquí...``), which leave ASCII letters intact.
    """
    files = set(listed[_WORK].itertuples(index=False, name=None))
    rows = {work: row for row, work in enumerate(notes[_WORK].itertuples(index=False, name=None))}
    free_files = _by_ascii(files - rows.keys())
    for ascii_name, unmatched in _by_ascii(rows.keys() - files).items():
        candidates = free_files.get(ascii_name, [])
        if len(unmatched) == len(candidates) == 1 and ascii_name not in (unmatched[0], candidates[0]):
            notes.loc[rows[unmatched[0]], _WORK] = candidates[0]
            counts["works matched by ASCII letters"] += 1
    return notes


def _by_ascii(works: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Works by their names without non-ASCII characters and escaped bytes."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for style, painting in works:
        groups.setdefault((style, re.sub(r"[^\x00-\x7f]|\\x[0-9a-f]{2}", "", painting)), []).append((style, painting))
    return groups


def _missing_pictures(notes: pd.DataFrame, listed: pd.DataFrame, annotations: Path | None) -> list[str]:
    """One line per annotated work that has no picture."""
    joined = notes.merge(listed, on=_WORK, how="left")
    return [
        f"{annotations.name if annotations else ''}: row at line {row.line}: "
        f"no picture {row.art_style}/{row.painting}.jpg or .png"
        for row in joined[joined["path"].isna()].itertuples()
    ]


def _stop_above(bad_share: float, what: str, bad: list[str], total: int) -> None:
    if len(bad) > bad_share * total:
        raise ValueError(f"{len(bad)} of {total} {what} are bad, more than bad_share {bad_share:g}; first: {bad[0]}")


# ---------------------------------------------------------------------------------------------- words and splits


def artist_and_title(painting: str) -> tuple[str, str, int | None]:
    """Parse a slug: ``paul-cezanne_still-life-with-apples-1890`` -> "Paul Cezanne", "still life with apples", 1890.

    Without an underscore the artist is ""; where WikiArt lost the title (``not_detected_...``) it is "". A copy's
    number ``(1)`` and a serial number after the year are dropped.
    """
    artist, underscore, title = painting.partition("_")
    if not underscore:
        artist, title = "", painting
    title = re.sub(r"\(\d+\)$", "", title)
    title, year = _year_off(title)
    title = "" if title.startswith("not_detected") else _words(title)
    return _as_name(_words(artist)), title, year


def _year_off(title: str) -> tuple[str, int | None]:
    """Split ``-1890`` or ``-1890-2`` off the end of a title, unless it is the whole title."""
    match = re.fullmatch(r"(.+)-(1[0-9]{3}|20[0-2][0-9])(-[0-9]{1,2})?", title)
    return (match[1], int(match[2])) if match else (title, None)


def _words(slug: str) -> str:
    """A slug in words, without mis-encoded runs; ``kira-s-mansion`` becomes "kira's mansion"."""
    words = " ".join(re.split(r"[-_\s]+", _mended(slug))).strip()
    return re.sub(r"(?<=[a-z]) s\b", "'s", words)


def _mended(name: str) -> str:
    """A name without escaped bytes and without non-ASCII runs that are not all letters (``Γö£╨│`` for an i)."""

    def letters_or_nothing(run: re.Match[str]) -> str:
        return run[0] if all(unicodedata.category(letter)[0] in "LM" for letter in run[0]) else ""

    return re.sub(r"[^\x00-\x7f]+", letters_or_nothing, re.sub(r"(\\x[0-9a-f]{2})+", "", name))


def _as_name(words: str) -> str:
    """ "vincent van gogh" -> "Vincent van Gogh"."""
    name = [word if word in _PARTICLES else word[:1].upper() + word[1:] for word in words.split()]
    return " ".join([name[0][:1].upper() + name[0][1:], *name[1:]]) if name else ""


def _described(works: pd.DataFrame, counts: Counter[str]) -> pd.DataFrame:
    """Add artist, title and year from the slugs, and empty lists where there are no annotations."""
    words = [artist_and_title(painting) for painting in works["painting"]]
    counts["names with a broken encoding"] = sum(_mended(painting) != painting for painting in works["painting"])
    counts["titles lost"] = sum(title == "" for _, title, _ in words)
    artist, title, year = zip(*words, strict=True)
    repetition = works["repetition"].fillna(0).astype(int)
    return works.assign(
        artist=artist,
        title=title,
        year=pd.array(year, "Int32"),
        repetition=repetition,
        emotions=_filled(works["emotions"]),
        utterances=_filled(works["utterances"]),
    )


def _filled(lists: pd.Series) -> pd.Series:
    """A column of lists with missing values replaced by new empty lists."""
    return pd.Series([value if isinstance(value, list) else [] for value in lists], index=lists.index, dtype=object)


def _splits(works: pd.DataFrame, split: str, seed: int) -> list[str]:
    """Assign each work to a split by its rank in a hash of (seed, work), so that the proportions are exact.

    Depends only on the set of works and the seed, not on order, annotations or machine.
    """
    seeds = [seed_of(seed, "split", style, painting) for style, painting in zip(*map(works.get, _WORK), strict=True)]
    rank = np.empty(len(works), dtype=np.int64)
    rank[np.argsort(np.array(seeds, dtype=np.int64), kind="stable")] = np.arange(len(works))
    bounds = {name: round(share * len(works)) for name, share in SPLITS[split].items()}
    return [next(name for name, bound in bounds.items() if position < bound) for position in rank]


# ---------------------------------------------------------------------------------------------- the manifest


def write_manifest(works: Works, path: Path) -> None:
    """Write the table as Parquet, with the report as JSON metadata; equal works give equal bytes."""
    report = json.dumps({"counts": works.counts, "quarantined": works.quarantined}, sort_keys=True)
    table = pa.table({name: _arrow(works.table[name], name) for name in _SCHEMA.names}, schema=_SCHEMA)
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"atelier": report}), sink, compression="zstd")
    write_whole(path, sink.getvalue())


def read_manifest(path: Path) -> Works:
    """Read what ``write_manifest`` wrote. Raises ValueError for a damaged file or another schema."""
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
        report: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"atelier", b""))
    except (OSError, ValueError) as fault:
        raise ValueError(f"{path}: no readable manifest ({' '.join(str(fault).split())})") from fault
    if not table.schema.remove_metadata().equals(_SCHEMA):
        raise ValueError(f"{path}: columns {table.schema.names}; expected {_SCHEMA.names}, each of its type")
    frame = pd.DataFrame({name: pd.Series(table[name].to_pylist(), dtype=object) for name in _SCHEMA.names})
    return Works(_typed(frame), tuple(report["quarantined"]), report["counts"])


def _arrow(column: pd.Series, name: str) -> pa.Array:
    values = [None if value is pd.NA else value for value in column]
    return pa.array(values, type=_SCHEMA.field(name).type)


def _typed(works: pd.DataFrame) -> pd.DataFrame:
    """The manifest's columns in order, with their dtypes."""
    dtypes: dict[str, Any] = {"string": "str", "int32": "int32"}
    dtypes = {field.name: dtypes.get(str(field.type), object) for field in _SCHEMA} | {"year": "Int32"}
    return works[list(dtypes)].astype(dtypes)


# ---------------------------------------------------------------------------------------------- file names


def _escaped(name: str) -> str:
    """A printable file name: bytes that are not UTF-8 as ``\\xNN``. Names with a backslash are refused elsewhere."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _unescaped(path: str) -> str:
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return os.fsdecode(raw)
