"""Styles that prompts name are those of the parameters, or those of the data with enough works."""

import pandas as pd

from atelier.params import Params
from atelier.studies.signal_leak.params import RESERVED
from atelier.studies.signal_leak.styles import chosen, with_styles
from atelier.workspace import Workspace


def works(**counts: tuple[int, int]) -> pd.DataFrame:
    """A manifest's two columns: style -> training and held-out works."""
    rows = [
        (style, split)
        for style, (training, held_out) in counts.items()
        for split, number in (("train", training), ("test", held_out))
        for _ in range(number)
    ]
    return pd.DataFrame(rows, columns=["art_style", "split"])


def test_the_three_with_most_works_are_chosen_and_small_ones_left_out() -> None:
    table = works(Cubism=(6, 2), Baroque=(9, 3), Fauvism=(6, 2), Ukiyo_e=(6, 2), Rococo=(20, 1), Realism=(3, 5))
    assert chosen(table) == {"baroque": "Baroque", "cubism": "Cubism", "fauvism": "Fauvism"}
    assert chosen(works(Rococo=(20, 1))) == {}
    assert chosen(works()) == {}


def test_names_are_plain_and_none_of_the_studys() -> None:
    table = works(Ukiyo_e=(4, 2), natural=(4, 2)) if "natural" in RESERVED else works(Ukiyo_e=(4, 2))
    assert chosen(table) == {"style-natural": "natural", "ukiyo-e": "Ukiyo_e"}
    assert list(chosen(works(**{"Été, 1900": (4, 2)}))) == ["t-1900"]


def test_named_styles_stay(trained: Params, workspace: Workspace) -> None:
    assert with_styles(trained, workspace) is trained
