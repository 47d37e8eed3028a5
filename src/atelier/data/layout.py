"""Where a data folder's works are, by names alone: one folder per style, in ``wikiart``, an archive, or directly."""

import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from atelier.files import ECHO, printable, reading

SUFFIXES = (".jpg", ".jpeg", ".png")
ANNOTATIONS = "artemis_dataset_release_v0.csv"
WORKS, PHOTOGRAPHS = "wikiart", "photographs"  # names inside a data folder, as a folder or as an archive
SHOWN = 5  # names in a message


class Layout(NamedTuple):
    """A data folder's works: the folder or archive that holds them, and the number of pictures by style."""

    source: Path
    styles: Mapping[str, int]


def works(folder: Path) -> Layout:
    """Find the works of a data folder. Raises ValueError, one line that says what is there instead."""
    if (inside := folder / WORKS).is_dir():
        return Layout(inside, _checked(styles_of(inside), inside))
    if (archive := folder / f"{WORKS}.zip").is_file():
        return Layout(archive, styles_in(archive))
    if not folder.is_dir():
        raise ValueError(f"data.folder: {folder}: no such folder")
    styles = styles_of(folder)
    styles.pop(PHOTOGRAPHS, None)
    return Layout(folder, _checked(styles, folder))


def styles_of(folder: Path) -> dict[str, int]:
    """Number of picture files in each subfolder that has some."""
    counts = {}
    with reading(folder):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if os.path.isdir(entry) and not entry.name.startswith(".") and (number := _pictures(Path(entry.path))):
            counts[entry.name] = number
    return counts


def styles_in(archive: Path) -> dict[str, int]:
    """The same of an archive, from its list of contents. Raises ValueError where there is none."""
    with reading(archive, "not a readable ZIP archive"), zipfile.ZipFile(archive) as packed:
        names = [PurePosixPath(name) for name in packed.namelist()]
    parts = [name.parts[-2] for name in names if name.suffix.lower() in SUFFIXES and len(name.parts) > 1]
    if not parts:
        raise ValueError(f"{archive}: no picture in a folder per style; {_names([str(name) for name in names])}")
    return dict(sorted(Counter(parts).items()))


def _checked(styles: Mapping[str, int], folder: Path) -> Mapping[str, int]:
    if not styles:
        raise ValueError(f"{folder}: no picture in a folder per style; {_instead(folder)}")
    return styles


def _instead(folder: Path) -> str:
    """What a folder without works holds, and what may be meant."""
    if pictures := _pictures(folder):
        return f"{pictures} pictures lie in it directly: is '{folder.parent}' meant, or put them in a folder per style?"
    inside = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    for entry in inside:
        for candidate in (entry, entry / WORKS):
            if candidate.is_dir() and styles_of(candidate):
                return f"they are one level deeper: is data.folder '{entry}' meant?"
    return _names([entry.name for entry in sorted(folder.iterdir())])


def _names(names: Sequence[str]) -> str:
    """What a folder or an archive holds, in words."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"it holds {', '.join(printable(name[:ECHO]) for name in names[:SHOWN])}{rest}" if names else "it is empty"


def _pictures(folder: Path) -> int:
    try:
        names = (name for name in os.listdir(folder) if not name.startswith("."))
        return sum(os.path.splitext(name)[1].lower() in SUFFIXES for name in names)
    except OSError:
        return 0
