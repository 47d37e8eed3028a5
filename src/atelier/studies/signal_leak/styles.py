"""The styles that prompts name: from the parameters, or the styles with most works in the data."""

import re
from collections.abc import Mapping

import pandas as pd

from atelier.data import prepare
from atelier.params import Params
from atelier.studies.signal_leak.params import RESERVED, Config
from atelier.workspace import Workspace

MOST = 3  # styles chosen from the data
TRAINING, HELD_OUT = 4, 2  # works that a style needs to be chosen: for a leak, and for prompts and a distance


def with_styles(params: Params, workspace: Workspace) -> Params:
    """The parameters, with ``signal_leak.styles`` chosen from the manifest where it is empty."""
    config = Config.of(params)
    if config.styles:
        return params
    styles = chosen(prepare.works(workspace.manifests).table)
    return params.model_copy(update={Config.STUDY: config.model_copy(update={"styles": styles})})


def chosen(works: pd.DataFrame) -> Mapping[str, str]:
    """Up to ``MOST`` styles with enough works in both splits, most works first: name -> style."""
    counts = pd.crosstab(works["art_style"], works["split"]).reindex(columns=["train", "test"], fill_value=0)
    enough = counts[(counts["train"] >= TRAINING) & (counts["test"] >= HELD_OUT)].sum(axis=1)
    styles = sorted(enough.index, key=lambda style: (-enough[style], style))[:MOST]
    return {_name(style): style for style in sorted(styles)}


def _name(style: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", style.lower()).strip("-")
    return f"style-{name}" if name in RESERVED or not name else name
