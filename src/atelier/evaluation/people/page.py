"""One page that asks people which of two pictures is better: it holds everything, asks no network, and hides names.

Beside it lies its key, which alone tells what was shown on which side; ``votes`` needs it, and no rater may have it.
"""

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atelier.evaluation.people.pairs import Pair, embedded
from atelier.evaluation.people.sittings import (
    A,
    B,
    Shown,
    cut,
    drawn,
    page_id,
    schedule,
    sitting_id,
)
from atelier.files import read_text, write_json, write_text
from atelier.models.stored import with_checksum
from atelier.seeds import numpy_generator

SOURCE = Path(__file__).parent
MOST_SITTINGS = 30  # at 20 pairs the paper's 600
MOST_BYTES = 48 * 2**20  # of a page, so that a telephone opens it
KEY = ".key.json"
SECRET = 32  # bytes


class Written(NamedTuple):
    """What was written: the page, its key, and how much is on it."""

    page: Path
    key: Path
    sittings: int
    pairs: int


def write(pairs: Sequence[Pair], models: tuple[str, str], each: int, out: Path, secret: bytes | None = None) -> Written:
    """Write a page of sittings of ``each`` pairs, and its key, to a folder, under a name that no other page has.

    ``models``: what A and B are called in the table of votes; ``secret``: drawn, if not given. As many pairs, drawn by
    chance, as make 30 sittings or 48 MiB. Raises ValueError where not even one sitting fits.
    """
    secret = secrets.token_bytes(SECRET) if secret is None else secret
    name, taken = page_id(secret), drawn(len(pairs), secret)[: each * MOST_SITTINGS]
    uris = _embedded(pairs, taken, each)
    sittings = cut(taken[: len(uris)], each)
    shown = [schedule(chosen, number, secret) for number, chosen in enumerate(sittings, start=1)]
    page, key = out / f"{name}.html", out / f"{name}{KEY}"
    write_json(key, with_checksum(_key(name, models, pairs, shown, uris)))  # before the page: no votes without it
    write_text(page, _html(_content(name, shown, uris, secret)))
    return Written(page, key, len(sittings), len(uris))


def _embedded(pairs: Sequence[Pair], taken: Sequence[int], each: int) -> dict[int, tuple[str, str]]:
    """Pictures by pair: of all that are taken, or of as many whole sittings as a page may hold."""
    uris: dict[int, tuple[str, str]] = {}
    size = 0
    for index in taken:
        both = embedded(pairs[index])
        size += sum(map(len, both))
        if size > MOST_BYTES:
            whole = len(uris) // each * each
            if not whole:
                raise ValueError(
                    f"{pairs[index].a.parent}: a sitting of {each} pairs is more than {MOST_BYTES // 2**20} MiB; "
                    "take smaller pictures or fewer pairs a sitting"
                )
            return {kept: uris[kept] for kept in taken[:whole]}
        uris[index] = both
    return uris


def _key(
    name: str,
    models: tuple[str, str],
    pairs: Sequence[Pair],
    shown: Sequence[Sequence[Shown]],
    uris: dict[int, tuple[str, str]],
) -> dict[str, Any]:
    """What a page's opaque names stand for."""
    digests = {index: hashlib.sha256(" ".join(both).encode()).hexdigest()[:12] for index, both in uris.items()}
    listed = {
        each.id: {
            "sitting": sitting_id(name, each.sitting),
            "question": each.question,
            "name": pairs[each.pair].name,
            "pictures": digests[each.pair],
            "left": each.left,
            "again": each.again,
        }
        for sitting in shown
        for each in sitting
    }
    return {"page": name, A: models[0], B: models[1], "shown": listed}


def _content(
    name: str, shown: Sequence[Sequence[Shown]], uris: dict[int, tuple[str, str]], secret: bytes
) -> dict[str, Any]:
    """What the page knows: pictures in an order that tells nothing, and for each pair shown two of their numbers."""
    pictures = [(index, side) for index in sorted(uris) for side in (A, B)]
    order = numpy_generator(secret.hex(), "pictures").permutation(len(pictures))
    place = {pictures[old]: new for new, old in enumerate(np.asarray(order).tolist())}

    def screens(sitting: Sequence[Shown]) -> list[list[Any]]:
        sides = {A: B, B: A}
        return [[s.id, s.question, place[s.pair, s.left], place[s.pair, sides[s.left]]] for s in sitting]

    return {
        "page": name,
        "sittings": [{"id": sitting_id(name, sitting[0].sitting), "shown": screens(sitting)} for sitting in shown],
        "pictures": [uris[pictures[old][0]][pictures[old][1] == B] for old in order],
    }


def _html(content: dict[str, Any]) -> str:
    """The page of a content. Its policy lets its own style and script run, its own pictures show, and nothing else."""
    style, script = (read_text(SOURCE / f"sitting.{kind}") for kind in ("css", "js"))
    data = json.dumps(content, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": data}
    return re.sub(r"@(POLICY|STYLE|SCRIPT|DATA)@", lambda match: parts[match[1]], read_text(SOURCE / "sitting.html"))


def _digest(text: str) -> str:
    """How a policy names a text that stands in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
