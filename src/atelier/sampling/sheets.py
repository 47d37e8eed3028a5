"""Prompts that steer a base by one word at a time: by subject, by style, by emotion.

A sheet is a table like those that ``store`` keeps; ``wanted`` is what the evaluator is to see, by the data's own names.
"""

from collections.abc import Sequence

import pandas as pd

from atelier.data.artemis import EMOTIONS
from atelier.data.prompts import prompt, style_name, templates

COLUMNS = ["repeat", "place", "prompt", "file", "path", "wanted"]
ATTRIBUTES = {"subjects": "subject", "styles": "art_style", "emotions": "emotion"}  # sheet -> what varies in it
TITLES = 12  # where no subject is known
EVOKING = ", evoking {emotion}"  # an annotation's emotion without its reason


def listed(prompts: Sequence[str], paths: Sequence[str] = (), wanted: Sequence[str] = ()) -> pd.DataFrame:
    """One row a prompt; ``paths``: of the pictures that they are of, ``wanted``: what is to be seen; "" for neither."""
    n = len(prompts)
    columns: list[Sequence[object]] = [
        [0] * n, range(n), prompts, [f"{at:04d}.png" for at in range(n)], paths or [""] * n, wanted or [""] * n,
    ]  # fmt: skip
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), columns=COLUMNS)


def steering(photographs: pd.DataFrame, works: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The three sheets, of manifests with truth (``prepare.with_truth``).

    Subjects are asked for by held-out photographs' titles (by works' where there is no photograph); styles with the
    first of these titles, each by its first artist; emotions with that title in the first style.
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
    """The first row of each subject, in the order of their names; where none is known, of the first titles."""
    titled = held_out[held_out["title"] != ""]
    known = titled[titled["subject"] != ""]
    if len(known):
        return known.drop_duplicates("subject").sort_values("subject")
    return titled.drop_duplicates("title").head(TITLES)


def first_artists(works: pd.DataFrame) -> dict[str, str]:
    """Each style and the first of its artists, by name; "" where none has a name."""
    named = works.assign(nameless=works["artist"] == "").sort_values(["art_style", "nameless", "artist"])
    firsts = named.drop_duplicates("art_style")
    return dict(zip(firsts["art_style"], firsts["artist"], strict=True))


def in_style(art_style: str, artist: str) -> str:
    """What level 1 adds to a prompt, always in the same words."""
    section = "style_and_artist" if artist else "style_only"
    text: str = templates()[section][0].format(style=style_name(art_style), artist=artist)
    return text
