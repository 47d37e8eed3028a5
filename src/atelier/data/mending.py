r"""Names that went through a wrong encoding, put right: percent-encoding, UTF-8 read as a code page, normal forms.

Pictures are copied between systems that disagree on how letters are written. "joaquín" comes with its accent as another
character (macOS), as ``joaqu%C3%ADn`` (web addresses), ``joaqu#U00edn`` (unzip), ``joaqu├¡n`` or ``joaquã\xadn``
(UTF-8 read as an IBM or Windows code page), or after several of these, with the wrong letters put into lower case.
"""

import re
import unicodedata
from functools import lru_cache

import ftfy

# Registered by ftfy: Windows code pages as decoders use them, with control characters where the page has gaps. In the
# order in which copies of WikiArt and ArtEmis show them.
CODE_PAGES = (
    "sloppy-windows-1252",
    "cp437",
    "cp866",
    "cp850",
    "sloppy-windows-1251",
    "sloppy-windows-1250",
    "mac_roman",
)
DEPTH = 4  # wrong encodings in a row that are undone
LATIN = re.compile("[À-ÖØ-öø-ſƠơƯưȘ-țḀ-ỿ]")  # the letters of languages; phonetic ones come of wrong decoding
CAPITALS = re.compile("[À-ÖØ-ÞĀ-ŽА-ЯЁ]")  # that a code page shows instead of the bytes of UTF-8


def repaired(name: str) -> str:
    """A name in composed form (NFC) with its letters restored where that is certain; ASCII names are returned as is.

    Bytes written as ``\\xNN`` and runs that no code page explains stay.
    """
    name = _unquoted(name)
    if name.isascii():
        return name
    name = decoded(name)
    return unicodedata.normalize("NFC", re.sub(r"[^\x00-\x7f]+", _repaired_run, name))


def decoded(text: str) -> str:
    """Any text, with UTF-8 that was read as another encoding put right where ftfy is certain of it (``itâ€™s``)."""
    return text if text.isascii() else ftfy.fix_encoding(text)


def composed(name: str) -> str:
    """A name in composed form: an accent and its letter are one character (NFC)."""
    return unicodedata.normalize("NFC", name)


def _unquoted(name: str) -> str:
    """Undo ``%C3%AD`` and ``#U00ed`` where what they stand for is printable text and no path separator."""

    def of_bytes(match: re.Match[str]) -> str:
        text = bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")
        return text if _prints(text) else match[0]

    def of_code(match: re.Match[str]) -> str:
        text = chr(int(match[1], 16))
        return text if _prints(text) else match[0]

    return re.sub(r"#U([0-9A-Fa-f]{4})", of_code, re.sub(r"(?:%[0-9A-Fa-f]{2})+", of_bytes, name))


def _prints(text: str) -> bool:
    # "replace" leaves U+FFFD where bytes are not UTF-8; a combining accent prints
    return text.isprintable() and not set(text) & {"\ufffd", "/", "\\"}


def _repaired_run(run: re.Match[str]) -> str:
    beside = run.string[run.start() - 1 : run.start()] + run.string[run.end() : run.end() + 1]
    return _decoded_run(run[0], any(letter.isalpha() for letter in beside))


@lru_cache(maxsize=4096)
def _decoded_run(run: str, in_a_word: bool) -> str:
    """A run of non-ASCII characters decoded, if it is no text and some code pages turn it into letters.

    ``in_a_word``: beside ASCII letters, so that its letters are Latin ones. Of several explanations the shortest holds,
    of these the one by the earlier code page.
    """
    if _is_text(run, in_a_word):
        return run
    texts = {run: None}  # a dictionary keeps the order
    for _ in range(DEPTH):
        texts = {
            utf8: None
            for text in texts
            for spelling in (text, _raised(text))
            for page in CODE_PAGES
            if (utf8 := _as_utf8(spelling, page))
        }
        for text in texts:
            if _is_text(text, in_a_word, known_letters=True):
                return text
    return run


def _as_utf8(text: str, page: str) -> str:
    """What UTF-8 says that was read as ``page``; "" if it cannot have been."""
    try:
        return text.encode(page).decode("utf-8")
    except UnicodeError:
        return ""


def _raised(text: str) -> str:
    """Letters of code pages in upper case: slugs are written small, so that ``Ã©`` became ``ã©``."""
    return "".join(letter.upper() if CAPITALS.fullmatch(letter.upper()) else letter for letter in text)


def _is_text(text: str, in_a_word: bool, known_letters: bool = False) -> bool:
    """Whether all characters are letters of one script, or accents; ``known_letters``: Latin ones are in common use."""
    letters = [letter for letter in text if unicodedata.category(letter)[0] != "M"]
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in letters}
    if not all(letter.isalpha() for letter in letters) or len(scripts) > 1 or (in_a_word and scripts - {"LATIN"}):
        return False
    return not known_letters or scripts != {"LATIN"} or all(map(LATIN.match, letters))
