"""Load the ArtEmis release CSV and a WikiArt folder, or such a folder alone, as one table of works.

A picture is at ``<art_style>/<painting>.jpg`` (or .jpeg, .png); a painting is ``<artist-slug>_<title-slug[-year]>``.
Only listed files are opened: names from the CSV are matched with the listing.

Errors of the CSV as a whole (columns, encoding, a truncated row, a name that leaves the folder) stop the run. A bad row
or picture is quarantined, named and counted, and stops the run only if more than a given share is bad.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from atelier.data.annotations import group_by_work, read_annotations
from atelier.data.images import BadPicture, Inspection, inspect_picture
from atelier.data.layout import SUFFIXES
from atelier.data.manifest import Works, typed
from atelier.data.mending import composed
from atelier.data.names import artist_and_title, escaped, mended, unescaped
from atelier.data.spellings import WORK, Name, spelt_as_files
from atelier.files import reading
from atelier.seeds import seed_of

SPLITS = {  # name -> cumulative shares; the poster's and the ArtEmis release's
    "75/25": {"train": 0.75, "test": 1.0},
    "85/5/10": {"train": 0.85, "val": 0.90, "test": 1.0},
}

BLOCK = 32  # pictures that a thread inspects at a time: each that waits alone takes memory


def load_works(
    pictures: Path,
    annotations: Path | None,
    *,
    split: str,  # "75/25" or "85/5/10"
    seed: int,  # of the split
    bad_share: float = 0.01,  # of works, and of CSV rows, above which the run stops
    decode: bool = True,  # decode each picture fully, not only its header
    not_unpacked: Sequence[tuple[str, str]] = (),  # path and reason of pictures that their archive did not give
) -> Works:
    """Load all works of a picture folder with their annotations from the CSV, if given.

    Every picture is read once, for its hash; with ``decode`` it is decoded too, so that a truncated file fails here
    and not hours later. Without ``decode`` only headers are checked. Works without annotations are kept, with empty
    lists; annotated works without a picture are quarantined, as is what was not unpacked. Raises ValueError for a bad
    CSV, an empty folder, an unknown split, or more than ``bad_share`` bad works or rows.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    counts: Counter[str] = Counter()
    listed, bad_names = _list_pictures(pictures, not_unpacked, counts)
    rows, bad_rows = read_annotations(annotations, counts)
    stop_above(bad_share, "CSV rows", len(bad_rows), len(rows) + len(bad_rows), *bad_rows[:1])

    rows, uncertain = spelt_as_files(rows, listed, counts)
    notes = group_by_work(rows, counts)
    works = listed.merge(notes, on=WORK, how="left")
    missing = _missing_pictures(notes, listed, annotations, uncertain)
    works, bad_pictures = _inspected(works, pictures, decode, counts)
    bad_works = [*bad_names, *bad_pictures, *missing]
    stop_above(bad_share, "works", len(bad_works), len(works) + len(bad_works), *bad_works[:1])

    if works.empty:
        raise ValueError(f"{pictures}: no usable work; first: {bad_works[0]}")
    works["split"] = _splits(works, split, seed, counts)
    table = typed(_described(works, counts))
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
    return [pictures / unescaped(path) for path in table["path"]]


def _list_pictures(
    pictures: Path, not_unpacked: Sequence[tuple[str, str]], counts: Counter[str]
) -> tuple[pd.DataFrame, list[str]]:
    """art_style, painting and path of every picture, sorted; a line per unusable name. Counts other files.

    Pictures that were not unpacked are listed too, so that annotations find them; column ``fault`` says why ("": none).
    """
    if not pictures.is_dir():
        raise ValueError(f"{pictures}: expected a folder of <art_style>/<painting>.jpg or .png")
    known: dict[Name, tuple[str, str]] = {}
    bad: list[str] = []
    for style, name in sorted(_files_in_styles(pictures)):
        painting, suffix = os.path.splitext(name)
        path = f"{escaped(style)}/{escaped(name)}"
        work = (escaped(style), escaped(painting))
        if suffix.lower() not in SUFFIXES or name.startswith("."):
            counts["other files ignored"] += 1
        elif re.search(r"[\x00-\x1f\x7f\\]", style + name):
            bad.append(f"{path!r}: a backslash or control character in its name")
        elif work in known:
            bad.append(f"{path}: the same work is there as {known[work][0]}")
        else:
            known[work] = (path, "")
    for path, why in not_unpacked:
        style, _, name = path.partition("/")
        work = (style, os.path.splitext(name)[0])
        if not name or "/" in name or work in known or re.search(r"[\x00-\x1f\x7f\\]", path):
            bad.append(f"{path!r}: {why}")  # not <style>/<file>, or the name of another picture
        else:
            known[work] = (path, why)
    if not known:
        raise ValueError(f"{pictures}: no picture in it; expected <art_style>/<painting>.jpg or .png")
    listed = pd.DataFrame([(*work, *file) for work, file in known.items()], columns=[*WORK, "path", "fault"])
    return listed.sort_values(WORK, ignore_index=True), bad


def _files_in_styles(pictures: Path) -> Iterator[tuple[str, str]]:
    """(folder, file name) of all files in subfolders; undecodable bytes become surrogates."""
    with reading(pictures):
        for style in os.scandir(pictures):
            if os.path.isdir(style):  # unlike entry.is_dir, does not fail on circular links
                for entry in os.scandir(style):
                    if not os.path.isdir(entry):
                        yield style.name, entry.name


def _inspected(
    works: pd.DataFrame, pictures: Path, decode: bool, counts: Counter[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Works with width, height and sha256, without works whose picture is bad; and one line per bad picture."""
    root = pictures.resolve()

    def inspect(file: Path, fault: str) -> Inspection | str:
        try:
            return fault or inspect_picture(file, root, decode)
        except BadPicture as error:
            return error.why

    def inspect_block(start: int) -> list[Inspection | str]:
        block = works.iloc[start : start + BLOCK]
        return [*map(inspect, picture_files(block, pictures), block["fault"])]

    with ThreadPoolExecutor() as pool:  # hashing and decoding release the GIL
        results = [each for block in pool.map(inspect_block, range(0, len(works), BLOCK)) for each in block]
    bad = [f"{path}: {why}" for path, why in zip(works["path"], results, strict=True) if isinstance(why, str)]
    good = [result for result in results if not isinstance(result, str)]
    counts.update(f"pictures converted: {name}" for result in good for name in result.conversions)
    kept = works[[not isinstance(result, str) for result in results]].reset_index(drop=True)
    sizes = pd.DataFrame(good, columns=Inspection._fields).drop(columns="conversions")
    return pd.concat([kept, sizes], axis=1), bad


def _missing_pictures(
    notes: pd.DataFrame, listed: pd.DataFrame, annotations: Path | None, uncertain: Mapping[Name, str]
) -> list[str]:
    """One line per annotated work that has no picture, with the files that it could mean."""
    joined = notes.merge(listed, on=WORK, how="left")
    lines = []
    for row in joined[joined["path"].isna()].itertuples():
        hint = uncertain.get((str(row.art_style), str(row.painting)))
        lines.append(
            f"{annotations.name if annotations else ''}: row at line {row.line}: "
            f"no picture {row.art_style}/{row.painting}.jpg or .png{f' ({hint})' if hint else ''}"
        )
    return lines


def stop_above(bad_share: float, what: str, bad: int, total: int, first: str = "") -> None:
    """ValueError, with the first one's line, if more than ``bad_share`` of ``total`` is bad."""
    if bad > bad_share * total:
        raise ValueError(f"{bad} of {total} {what} are bad, more than bad_share {bad_share:g}; first: {first}")


def _described(works: pd.DataFrame, counts: Counter[str]) -> pd.DataFrame:
    """Add artist, title and year from the slugs, and empty lists where there are no annotations."""
    words = [artist_and_title(painting) for painting in works["painting"]]
    counts["names with a broken encoding"] = sum(
        mended(painting) != composed(painting) for painting in works["painting"]
    )
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


def _splits(works: pd.DataFrame, split: str, seed: int, counts: Counter[str]) -> list[str]:
    """Assign each work to a split by its rank in a hash of (seed, work), so that the proportions are exact.

    Works with equal bytes (WikiArt files a painting under each of its styles) stay together with the first of them,
    so that no picture is both learnt from and held out; a split then misses its share by half a group at most. Copies
    that were encoded again have other bytes and are not recognised. Depends only on the set of works, their pictures
    and the seed, not on order, annotations or machine.
    """
    seeds = [seed_of(seed, "split", style, painting) for style, painting in zip(*map(works.get, WORK), strict=True)]
    ranked = works[["sha256"]].iloc[np.argsort(np.array(seeds, dtype=np.int64), kind="stable")]
    group = ranked.groupby("sha256", sort=False).ngroup()  # numbered by each group's first rank
    sizes = group.value_counts()
    if (sizes > 1).any():
        counts["groups of works with equal bytes"] = int((sizes > 1).sum())
        counts["works in such groups"] = int(sizes[sizes > 1].sum())
    together = group.sort_values(kind="stable")  # equal works side by side; each goes where its group's middle is
    positions = pd.Series(np.arange(len(together)), index=together.index).groupby(together)
    middle = (positions.transform("min") + positions.transform("size") // 2).sort_index()
    bounds = {name: round(share * len(works)) for name, share in SPLITS[split].items()}
    return [next(name for name, bound in bounds.items() if position < bound) for position in middle]
