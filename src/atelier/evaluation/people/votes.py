"""Votes that people saved from a page: read as hostile files, and resolved by the page's key."""

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from atelier.evaluation.people.agreement import LOSE, REJECT, TIE, WIN
from atelier.evaluation.people.page import KEY
from atelier.evaluation.people.sittings import A
from atelier.files import FileFault, reading, shown
from atelier.models.stored import load_checked_json
from atelier.params import Section, validated

COLUMNS = ("rater", "sitting", "pair", "question", "answer", "milliseconds")
MOST_BYTES, MOST_ROWS = 4 * 2**20, 50_000  # of a file; a sitting of 20 pairs is 48 rows in 4 kB
MOST_FAULTS = 10  # lines that a refusal has
LONGEST = 10_000_000_000  # milliseconds: a page left open for months
ANSWERS = {"flaws": ("left", "tie", "right"), "appeal": ("left", "tie", "right", REJECT)}


class Meaning(Section):
    """What an opaque name of a pair stands for."""

    sitting: str
    question: Literal["flaws", "appeal"]
    name: str
    pictures: str  # a digest of both: a picture that was painted anew is another
    left: Literal["A", "B"]
    again: bool


class Key(Section):
    """A page's key."""

    page: str
    a: str = Field(alias="A")
    b: str = Field(alias="B")
    shown: dict[str, Meaning]


def read_key(path: Path) -> Key:
    """A page's key; ValueError, one line per error, for a damaged one."""
    return validated(Key, load_checked_json(path), str(path))


def keys_of(folder: Path) -> dict[str, Key]:
    """All keys of a folder, by their page."""
    with reading(folder):
        paths = sorted(folder.glob(f"*{KEY}"))
    return {key.page: key for key in map(read_key, paths)}


def read(paths: Sequence[Path], keys: Mapping[str, Key]) -> pd.DataFrame:
    """All votes: COLUMNS, then a, b (models), unit (the pair), vote (1, 0, -1 or "reject"), again, file, line.

    A row that several files have is taken once. ``again``: a rater's later vote on a pair, on this page or another.
    Raises ValueError, one line per fault with file, line and column: a vote is neither left out silently nor guessed.
    """
    rows = [row for path in paths for row in _rows(path)]
    faults = _faults(rows, keys)
    if not faults:
        rows, faults = _each_once(rows)
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise ValueError("\n".join([*faults[:MOST_FAULTS], *more]))
    if not rows:
        raise ValueError(f"{', '.join(map(str, paths))}: no votes")
    votes = pd.DataFrame([_resolved(row, keys[_page_of(row["sitting"])]) for row in rows])
    first = votes.sort_values("again", kind="stable")  # of each page, what was shown first
    later = first.duplicated(["rater", "a", "b", "question", "unit"])
    return votes.assign(again=votes["again"] | later)


# ------------------------------------------------------------------------------------------------ reading


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """A file's rows as texts, each with its ``file`` and ``line``; FileFault, one line, for what is no such table."""
    with reading(path):
        if not path.is_file():
            raise ValueError("no file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{size} bytes; votes have at most {MOST_BYTES}")
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        text = data.decode("utf-8")
    if "\0" in text:
        raise FileFault(f"{path}: line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character")
    reader, start = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise FileFault(f"{path}: first line: expected {','.join(COLUMNS)}, got {shown(','.join(header))}")
        start = reader.line_num + 1
        for number, fields in enumerate(reader):
            if number >= MOST_ROWS:
                raise FileFault(f"{path}: row at line {start}: more than {MOST_ROWS} rows")
            if fields and len(fields) != len(COLUMNS):
                raise FileFault(f"{path}: row at line {start}: {len(fields)} of {len(COLUMNS)} fields")
            if fields:
                yield {**dict(zip(COLUMNS, fields, strict=True)), "file": str(path), "line": start}
            start = reader.line_num + 1
    except csv.Error as fault:
        raise FileFault(f"{path}: row at line {start}: {fault}; the file is cut there or a quote is wrong") from fault
    if not text.endswith(("\n", "\r")):
        raise FileFault(f"{path}: it is cut off in mid-row: its last line does not end")


def _faults(rows: Sequence[Mapping[str, Any]], keys: Mapping[str, Key]) -> list[str]:
    """One line for each fault of a file, at the first row that has it."""
    lines: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if fault := _fault(row, keys):
            lines.setdefault((row["file"], fault), []).append(row["line"])
    return [
        f"{file}: row at line {first}: {fault}{f', and so in {len(rest)} rows more' if rest else ''}"
        for (file, fault), (first, *rest) in lines.items()
    ]


def _fault(row: Mapping[str, Any], keys: Mapping[str, Key]) -> str:
    """What is wrong with a row, beginning with the column; "" if nothing is."""
    key = keys.get(_page_of(row["sitting"]))
    if not _is_name(row["rater"]):
        return (
            f"rater {shown(row['rater'])}: expected a name of at most 40 letters, digits, ' ', '.', '_', \"'\" or '-'"
        )
    if key is None:
        return f"sitting {shown(row['sitting'])}: the key of its page is not at hand"
    meant = key.shown.get(row["pair"])
    if meant is None:
        return f"pair {shown(row['pair'])} is not one of the page's"
    for column in ("sitting", "question"):
        if row[column] != getattr(meant, column):
            return f"{column} {shown(row[column])}: pair {row['pair']} is of {getattr(meant, column)}"
    if row["answer"] not in ANSWERS[meant.question]:
        return f"answer {shown(row['answer'])}: expected {', '.join(ANSWERS[meant.question])}"
    time = row["milliseconds"]
    if not (time.isascii() and time.isdecimal() and len(time) <= 11 and int(time) <= LONGEST):
        return f"milliseconds {shown(time)}: expected a whole number of at most {LONGEST}"
    return ""


def _is_name(text: str) -> bool:
    """Whether a text is a rater's name, as the page takes it: no formula of a spreadsheet, no comma, no line."""
    kinds = [unicodedata.category(letter)[0] for letter in text]
    allowed = all(kind in "LNM" or letter in " ._'-" for kind, letter in zip(kinds, text, strict=True))
    return 0 < len(text) <= 40 and kinds[0] in "LN" and allowed and text == text.strip()


def _page_of(sitting: str) -> str:
    return sitting.rpartition("-")[0]


def _each_once(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows without the ones that another file repeats; and a line for each that contradicts an earlier one."""
    known: dict[tuple[str, str], dict[str, Any]] = {}
    faults = []
    for row in rows:
        rater = unicodedata.normalize("NFC", row["rater"])
        before = known.setdefault((rater, row["pair"]), {**row, "rater": rater})
        if any(before[column] != row[column] for column in ("answer", "milliseconds")):
            faults.append(
                f"{row['file']}: row at line {row['line']}: answer: {rater} has voted on pair {row['pair']} otherwise, "
                f"{before['file']}, line {before['line']}; two people of one name?"
            )
    return list(known.values()), faults


def _resolved(row: dict[str, Any], key: Key) -> dict[str, Any]:
    """A row with what the page's key says of it."""
    meant = key.shown[row["pair"]]
    wins = WIN if meant.left == A else LOSE
    vote = {"left": wins, "tie": TIE, "right": -wins, REJECT: REJECT}[row["answer"]]
    unit = f"{meant.name} {meant.pictures}"
    of_pair = {"a": key.a, "b": key.b, "unit": unit, "vote": vote, "again": meant.again}
    return {**row, **of_pair, "milliseconds": int(row["milliseconds"])}
