"""JupyterLab's save hook: a notebook saved from the lab goes to disk without outputs, so that git and DVC see none."""

from typing import Any

import nbformat

from atelier.pipeline.scrub import clean


def pre_save(model: dict[str, Any], **_: Any) -> None:
    """Clean a notebook about to be saved, in place; other files pass."""
    if model["type"] == "notebook" and model["content"]["nbformat"] == 4:
        model["content"] = clean(nbformat.from_dict(model["content"]))
