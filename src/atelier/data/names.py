"""Names of files: slugs in words, as artist, title and year; and bytes that are not UTF-8, in a form that prints."""

import os
import re
import unicodedata

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
    words = " ".join(re.split(r"[-_\s]+", mended(slug))).strip()
    return re.sub(r"(?<=[a-z]) s\b", "'s", words)


def mended(name: str) -> str:
    """A name without escaped bytes and without non-ASCII runs that are not all letters (``Γö£╨│`` for an i)."""

    def letters_or_nothing(run: re.Match[str]) -> str:
        return run[0] if all(unicodedata.category(letter)[0] in "LM" for letter in run[0]) else ""

    return re.sub(r"[^\x00-\x7f]+", letters_or_nothing, re.sub(r"(\\x[0-9a-f]{2})+", "", name))


def _as_name(words: str) -> str:
    """ "vincent van gogh" -> "Vincent van Gogh"."""
    name = [word if word in _PARTICLES else word[:1].upper() + word[1:] for word in words.split()]
    return " ".join([name[0][:1].upper() + name[0][1:], *name[1:]]) if name else ""


def escaped(name: str) -> str:
    """A printable file name: bytes that are not UTF-8 as ``\\xNN``. Names with a backslash are refused elsewhere."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def unescaped(path: str) -> str:
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return os.fsdecode(raw)
