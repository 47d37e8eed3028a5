"""Sheets of prompts that vary by one word: subject, style, or emotion.

A sheet is a table as in ``sampling.store``; its column ``wanted`` is the class that the evaluator should predict.
"""

from collections.abc import Sequence

import pandas as pd

from atelier.data.annotations import EMOTIONS
from atelier.data.prompts import prompt, style_name, templates

COLUMNS = ["repeat", "place", "prompt", "file", "path", "wanted"]
ATTRIBUTES = {"subjects": "subject", "styles": "art_style", "emotions": "emotion"}  # sheet -> attribute that varies
TITLES = 12  # number of prompts where subjects are not known
EVOKING = ", evoking {emotion}"  # an emotion without its reason


def listed(prompts: Sequence[str], paths: Sequence[str] = (), wanted: Sequence[str] = ()) -> pd.DataFrame:
    """One row per prompt; ``paths``: of their pictures, ``wanted``: classes to predict; "" where there is none."""
    n = len(prompts)
    columns: list[Sequence[object]] = [
        [0] * n, range(n), prompts, [f"{index:04d}.png" for index in range(n)], paths or [""] * n, wanted or [""] * n,
    ]  # fmt: skip
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), columns=COLUMNS)


def steering(photographs: pd.DataFrame, works: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The three sheets, from manifests with truth (``prepare.with_truth``).

    Subjects use held-out photographs' titles (works' titles if there are no photographs); styles use the first of these
    titles, each with its first artist; emotions use that title in the first style.
    """
    held_out = photographs if len(photographs) else works
    chosen = one_a_subject(held_out.query("split == 'test'"))
    titles = [prompt(row, 0, 0) for _, row in chosen.iterrows()]
    described = templates()["description" if len(chosen) else "untitled"][0]
    first = described.format(title=chosen["title"].iloc[0]) if len(chosen) else described
    artists = first_artists(works)
    styled = [first + in_style(style, artist) for style, artist in artists.items()]
    feelings = [styled[0] + EVOKING.format(emotion=templates()["emotions"][emotion]) for emotion in EMOTIONS]
    return {
        "subjects": listed(titles, list(chosen["path"]), list(chosen["subject"])),
        "styles": listed(styled, wanted=list(artists)),
        "emotions": listed(feelings, wanted=EMOTIONS),
    }


def one_a_subject(held_out: pd.DataFrame) -> pd.DataFrame:
    """The first row of each subject, sorted by subject; if none is known, the first distinct titles."""
    titled = held_out[held_out["title"] != ""]
    known = titled[titled["subject"] != ""]
    if len(known):
        return known.drop_duplicates("subject").sort_values("subject")
    return titled.drop_duplicates("title").head(TITLES)


def first_artists(works: pd.DataFrame) -> dict[str, str]:
    """Each style's first artist by name; "" if none is named."""
    named = works.assign(nameless=works["artist"] == "").sort_values(["art_style", "nameless", "artist"])
    firsts = named.drop_duplicates("art_style")
    return dict(zip(firsts["art_style"], firsts["artist"], strict=True))


def in_style(art_style: str, artist: str) -> str:
    """Level 1's addition to a prompt, from the first template."""
    section = "style_and_artist" if artist else "style_only"
    text: str = templates()[section][0].format(style=style_name(art_style), artist=artist)
    return text
