"""Who sees what when: pairs of pictures cut into sittings, in an order and on sides that only a secret key tells.

A pair comes once in each question. The first pairs of a question come again later, the other way round, which shows
whether a rater prefers a side, and says the same again. Sides are balanced: in every two pairs that follow each other,
one has A on the left.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from atelier.seeds import numpy_generator

QUESTIONS = ("flaws", "appeal")  # in this order, as separate tasks
AGAIN = 0.2  # of a sitting's pairs, shown again
LETTERS = "bcdfghjkmnpqrstvwxyz"  # of opaque names: no word, and no number that a spreadsheet would round
LENGTH = 12  # letters of an opaque name: 5e15 of them
A, B = "A", "B"


class Shown(NamedTuple):
    """One pair as it is shown: an opaque name, and what that stands for."""

    id: str
    sitting: int  # from 1
    question: str
    pair: int  # its index
    left: str  # A or B
    again: bool  # shown before in this question


def opaque(secret: bytes, *names: str | int) -> str:
    """A name from which nobody without the secret can tell the names that it stands for (a keyed BLAKE2b)."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), key=secret, digest_size=LENGTH).digest()
    return "".join(LETTERS[byte % len(LETTERS)] for byte in digest)


def page_id(secret: bytes) -> str:
    """The page's opaque name."""
    return opaque(secret, "page")


def sitting_id(page: str, number: int) -> str:
    """The name of a page's sitting in tables of votes."""
    return f"{page}-{number}"


def drawn(pairs: int, secret: bytes) -> list[int]:
    """All pairs' indices in the order in which sittings take them."""
    return [int(i) for i in _generator(secret, "pairs").permutation(pairs)]


def cut(pairs: Sequence[int], each: int) -> list[list[int]]:
    """Pairs by sitting; the last may have fewer."""
    return [list(pairs[start : start + each]) for start in range(0, len(pairs), each)]


def schedule(pairs: Sequence[int], number: int, secret: bytes) -> list[Shown]:
    """A sitting: all questions, one after the other, each with all its pairs, in another order and on other sides."""
    return [shown for question in QUESTIONS for shown in _task(pairs, number, question, secret)]


def _task(pairs: Sequence[int], number: int, question: str, secret: bytes) -> list[Shown]:
    """One question's pairs. The first ``again`` of them return among the second half."""
    draw = _generator(secret, number, question)
    order = [pairs[i] for i in draw.permutation(len(pairs))]
    lefts = [side for _ in range(0, len(order), 2) for side in draw.permutation([A, B])]
    first = [(pair, str(left), False) for pair, left in zip(order, lefts, strict=False)]
    again = [(pair, A if left == B else B, True) for pair, left, _ in first[: round(AGAIN * len(first))]]
    half = len(first) // 2
    tail = [*first[half:], *again]
    tail = [tail[i] for i in draw.permutation(len(tail))]
    return [
        Shown(opaque(secret, number, question, pair, seen), number, question, pair, left, seen)
        for pair, left, seen in (*first[:half], *tail)
    ]


def _generator(secret: bytes, *names: str | int) -> np.random.Generator:
    return numpy_generator(secret.hex(), *names)
