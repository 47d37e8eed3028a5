"""Names of files: slugs in words, as artist, title and year; and bytes that are not UTF-8, in a form that prints."""

import os
import re
import unicodedata

from atelier.data.mending import repaired

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


# WikiArt's words for a title that it lost, and its serial numbers: not_detected_237588, not-detected-237588(1)
_SERIAL = r"\d*(?:[-_\s]+\d+)*(?:[-_\s]*\(\d+\))?"
_LOST = re.compile(rf"not[-_\s]+detected{_SERIAL}", re.IGNORECASE)
_UNTITLED = re.compile(rf"untitled{_SERIAL}", re.IGNORECASE)
_PLAIN = re.compile(r"[^\x80-\U0010ffff\\%#]*")  # nothing to mend: ASCII without bytes or letters written as codes


def artist_and_title(painting: str) -> tuple[str, str, int | None]:
    """Parse a slug: ``paul-cezanne_still-life-with-apples-1890`` -> "Paul Cezanne", "still life with apples", 1890.

    Without an underscore the artist is ""; where WikiArt lost the title (``not_detected_237588``) it is "". A copy's
    number ``(1)``, a serial number after the year and one after "untitled" are dropped.
    """
    painting = mended(painting)
    artist, underscore, title = painting.partition("_")
    if not underscore or _is_nameless(_year_off(painting)[0]):
        artist, title = "", painting
    title = re.sub(r"\(\d+\)$", "", title)
    title, year = _year_off(title)
    if _LOST.fullmatch(title):
        title = ""
    elif _UNTITLED.fullmatch(title):
        title = "untitled"
    return _as_name(_words(artist)), _words(title), year


def _is_nameless(title: str) -> bool:
    return bool(_LOST.fullmatch(title) or _UNTITLED.fullmatch(title))


def _year_off(title: str) -> tuple[str, int | None]:
    """Split ``-1890`` or ``-1890-2`` off the end of a title, unless it is the whole title."""
    match = re.fullmatch(r"(.+)-(1[0-9]{3}|20[0-2][0-9])(-[0-9]{1,2})?", title)
    return (match[1], int(match[2])) if match else (title, None)


def _words(slug: str) -> str:
    """A slug in words; ``kira-s-mansion`` becomes "kira's mansion"."""
    words = " ".join(re.split(r"[-_\s]+", slug)).strip()
    return re.sub(r"(?<=[a-z]) s\b", "'s", words)


def mended(name: str) -> str:
    """A name in composed form with its letters restored, and without quotes and what is no text: bytes, symbols."""

    def letters_or_nothing(run: re.Match[str]) -> str:
        letters = re.sub("[‘’‚“”„«»‹›–—]", "", run[0])
        return letters if all(unicodedata.category(letter)[0] in "LM" for letter in letters) else ""

    if _PLAIN.fullmatch(name):  # most names, of tens of thousands
        return name
    name = re.sub(r"(?:\\x[0-9a-f]{2})+", _letter_of_byte, name)
    return re.sub(r"[^\x00-\x7f]+", letters_or_nothing, repaired(name))


def _letter_of_byte(run: re.Match[str]) -> str:
    """A single byte from 0xc0 on as a letter of Latin-1 (``andr\\xe9``); others may be anything and are dropped."""
    byte = int(run[0][2:4], 16)
    return chr(byte) if len(run[0]) == 4 and byte >= 0xC0 and chr(byte).isalpha() else ""


def _as_name(words: str) -> str:
    """ "vincent van gogh" -> "Vincent van Gogh"."""
    name = [word if word in _PARTICLES else word[:1].upper() + word[1:] for word in words.split()]
    return " ".join([name[0][:1].upper() + name[0][1:], *name[1:]]) if name else ""


def escaped(name: str) -> str:
    """A printable file name: bytes that are not UTF-8 as ``\\xNN``. Names with a backslash are refused elsewhere."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def unescaped(path: str) -> str:
    """The file name that ``escaped`` made printable."""
    if path.isascii() and "\\" not in path:
        return path
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return os.fsdecode(raw)
