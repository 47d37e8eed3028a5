"""One self-contained page around a study: it loads nothing and runs nothing, and anything that would is refused."""

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from nbformat import NotebookNode

from atelier.pipeline import markdown
from atelier.pipeline.cells import body, plain
from atelier.pipeline.scrub import INJECTED, tags

STYLE = Path(__file__).with_name("page.css")
SHORT_RUNS = ("smoke", "embedded")


def page(notebook: NotebookNode, profile: str) -> str:
    """A study's page from its notebook.

    Raises ValueError when it has no title, a formula does not convert, or something in it would have to be loaded.
    """
    injected = "\n".join(cell.source for cell in notebook.cells if INJECTED in tags(cell))
    names = [f"<code>{escape(name)}</code>" for name in re.findall(r"^(\w+) =", injected, re.MULTILINE)]
    return document(
        title=title(notebook),
        head=f'<nav aria-label="Site"><a href="../index.html">All studies</a></nav>{run_mark(profile)}',
        content=body(notebook),
        foot=f"Parameters: {', '.join(names)} of profile <code>{escape(profile)}</code>, "
        'from <a href="../params.yaml">params.yaml</a>.',
    )


def document(title: str, head: str, content: str, foot: str, kind: str = "study-page") -> str:
    """A whole page; ``title`` is text, the other parts HTML. Raises ValueError as ``page`` does."""
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title, quote=False)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body class="{kind}">
<header>{head}</header>
<main>
{content}
</main>
<footer>{foot}</footer>
</body>
</html>
"""
    check = _SelfContained()
    check.feed(text)
    check.close()
    return text


def title(notebook: NotebookNode) -> str:
    """The first heading, as plain text. Raises ValueError when no Markdown cell has a line that begins with "# "."""
    for line in prose(notebook).splitlines():
        if line.startswith("# "):
            return plain(markdown.inline(line[2:]))
    raise ValueError("no title: the first Markdown cell must begin with '# ' and a title")


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def run_mark(profile: str) -> str:
    short = ' <strong class="short">short run</strong>' if profile in SHORT_RUNS else ""
    return f"<p>profile <code>{escape(profile)}</code>{short}</p>"


class _SelfContained(HTMLParser):
    """Refuses what a browser would load or run; links for a reader to follow are no such thing."""

    LOADING = ("src", "srcset", "data", "poster", "background", "action", "formaction", "xlink:href")
    FORBIDDEN = ("script", "link", "iframe", "object", "embed", "base", "form")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.FORBIDDEN:
            raise ValueError(f"<{tag}> in an output: a page must be complete in itself and run nothing")
        for name, value in attrs:
            address = name in self.LOADING and not (value or "").startswith("data:")
            if address or name.startswith("on") or (name == "style" and _loads(value or "")):
                raise ValueError(f'<{tag} {name}="{(value or "")[:80]}">: a page must load nothing')

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style" and _loads(data):
            raise ValueError("@import or url() in a style: a page must load nothing")


def _loads(style: str) -> bool:
    return re.search(r"@import|url\((?!\s*['\"]?data:)", style) is not None
