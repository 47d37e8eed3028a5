"""Match works of a table (annotations, truth) to picture files whose names are spelt in another way.

An exact name always wins. What is left is compared in ever freer spellings, and matched where one name and one file
remain for a spelling. Two names for one file, or two files for one name, are never guessed: they are named.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

import pandas as pd

from atelier.data.mending import composed, repaired

WORK = ["art_style", "painting"]  # what identifies a work
Name = tuple[str, str]  # art_style, painting
Value = TypeVar("Value")


def spelt_as_files(
    table: pd.DataFrame, files: pd.DataFrame, counts: Counter[str]
) -> tuple[pd.DataFrame, dict[Name, str]]:
    """The table with works renamed to their file's spelling; and what each uncertain name could be, in words.

    Both have the columns art_style and painting; a work may have many rows in ``table``. Counts works by the spelling
    that matched them. Linear in rows; Python runs over works without a file of exactly their name, and such files.
    """
    names = table[WORK].drop_duplicates()
    exact = names.merge(files[WORK], on=WORK, how="outer", indicator="side")
    unmatched = _names(exact[exact["side"] == "left_only"])
    if not unmatched:
        return table, {}
    renamed, uncertain = _matched(unmatched, _names(exact[exact["side"] == "right_only"]), _names(files), counts)
    if not renamed:
        return table, uncertain
    old = pd.DataFrame(list(renamed), columns=WORK)
    new = pd.DataFrame(list(renamed.values()), columns=["new_style", "new_painting"])
    spelt = table[WORK].merge(pd.concat([old, new], axis=1), on=WORK, how="left")
    columns = {
        column: spelt[changed].fillna(spelt[column]).to_numpy()
        for column, changed in zip(WORK, ("new_style", "new_painting"), strict=True)
    }
    return table.assign(**columns), uncertain


def _names(table: pd.DataFrame) -> list[Name]:
    return list(table[WORK].itertuples(index=False, name=None))


def _matched(
    unmatched: list[Name], free: list[Name], files: list[Name], counts: Counter[str]
) -> tuple[dict[Name, Name], dict[Name, str]]:
    """Names -> their files, and the uncertain ones; ``free``: files that no name matches exactly."""
    matched: dict[Name, Name] = {}
    uncertain: dict[Name, str] = {}
    of_composed = _by(_composed, files)
    for name in unmatched:  # normal forms are one spelling: a table may mix them, and all of its rows are the file's
        if len(same := of_composed.get(_composed(name), [])) == 1:
            matched[name] = same[0]
            counts["works matched by normal form"] += 1
    for what, spelling in SPELLINGS.items():
        taken = set(matched.values())
        candidates = _by(spelling, (file for file in free if file not in taken))
        for spelt, names in _by(spelling, (name for name in unmatched if name not in matched)).items():
            named = candidates.get(spelt, [])
            if len(names) == len(named) == 1 and _is_certain(spelling, spelt, names[0], named[0]):
                matched[names[0]] = named[0]
                counts[f"works matched by {what}"] += 1
            elif named:
                uncertain.update({name: _in_words(names, named) for name in names if name not in uncertain})
    return matched, {name: words for name, words in uncertain.items() if name not in matched}


def _is_certain(spelling: Callable[[Name], Name], spelt: Name, name: Name, file: Name) -> bool:
    """Whether equal spellings mean equal names: of a lossy one only if both lost something, and letters are left."""
    return spelling not in LOSSY or (spelt not in (name, file) and any(map(str.isalnum, spelt[1])))


def _in_words(names: list[Name], files: list[Name]) -> str:
    def listed(works: list[Name]) -> str:
        more = f" and {len(works) - 3} more" if len(works) > 3 else ""
        return ", ".join("/".join(work)[:120] for work in works[:3]) + more

    return f"not guessed: {listed(names)} could be {listed(files)}"


def _by(spelling: Callable[[Name], Value], works: Iterable[Name]) -> dict[Value, list[Name]]:
    groups: dict[Value, list[Name]] = {}
    for work in works:
        groups.setdefault(spelling(work), []).append(work)
    return groups


def _composed(work: Name) -> Name:
    return composed(work[0]), composed(work[1])


def _ascii(work: Name) -> Name:
    """The ASCII characters, which wrong encodings leave intact (``joaquí...``), and no escaped bytes."""
    return work[0], re.sub(r"[^\x00-\x7f]|\\x[0-9a-f]{2}", "", work[1])


def _ascii_of_composed(work: Name) -> Name:
    return _ascii(_composed(work))


def _repaired(work: Name) -> Name:
    return repaired(work[0]), repaired(work[1])


def _loose(work: Name) -> Name:
    style, painting = (re.sub(r"[-_\s]+", "-", part.casefold()) for part in _repaired(work))
    return composed(style), composed(painting)


SPELLINGS: dict[str, Callable[[Name], Name]] = {  # from the strictest to the freest, by the name in counts
    "ASCII letters": _ascii,
    "ASCII letters of the normal form": _ascii_of_composed,
    "mended encoding": _repaired,
    "case, - and _": _loose,
}
LOSSY = (_ascii, _ascii_of_composed)  # "caf" may be "café" or not
