"""JupyterLab's save hook: notebooks are saved without outputs, so that git and DVC see no change."""

from typing import Any

import nbformat

from atelier.pipeline.scrub import clean


def pre_save(model: dict[str, Any], **_: Any) -> None:
    """Clean a notebook in place before it is saved; other files are unchanged."""
    if model["type"] == "notebook" and model["content"]["nbformat"] == 4:
        model["content"] = clean(nbformat.from_dict(model["content"]))
