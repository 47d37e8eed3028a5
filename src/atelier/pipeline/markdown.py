"""Markdown to HTML, read as JupyterLab reads it; formulas become MathML, so that a page needs no script."""

import re

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from atelier.pipeline.formulas import mathml


def html(source: str, attachments: dict[str, dict[str, str]] | None = None) -> str:
    """Raises ValueError for a formula that does not convert."""
    return MarkdownWithMath(renderer=_Renderer(escape=False, attachments=attachments)).render(source)


def inline(source: str) -> str:
    """One paragraph without its ``<p>``, for captions and summaries."""
    return html(source).strip().removeprefix("<p>").removesuffix("</p>")


class _Renderer(IPythonRenderer):
    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    def heading(self, text: str, level: int, **_: object) -> str:
        anchor = re.sub("<.*?>", "", text).strip().replace(" ", "-")  # as JupyterLab makes them
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'
