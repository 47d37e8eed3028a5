"""The cells of an executed notebook as HTML: text, figures and tables to be read, code folded away."""

import re
from base64 import b64encode
from html import escape
from typing import Any

from bs4 import BeautifulSoup
from nbconvert.filters.ansi import strip_ansi
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from atelier.pipeline import markdown
from atelier.pipeline.booktabs import ruled
from atelier.pipeline.scrub import INJECTED, tags

PICTURES = ("image/svg+xml", "image/png", "image/jpeg")


def body(notebook: NotebookNode) -> str:
    """All cells in order. Raises ValueError for a formula that does not convert."""
    writer = _Writer()
    return "\n".join(writer.cell(cell) for cell in notebook.cells)


def fold(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def plain(html: str) -> str:
    return " ".join(BeautifulSoup(html, "html.parser").get_text().split())


class _Writer:
    """Counts figures and tables, and knows the heading that they stand under."""

    def __init__(self) -> None:
        self.figures = self.tables = 0
        self.heading = ""

    def cell(self, cell: NotebookNode) -> str:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ +(.*)$", cell.source, re.MULTILINE)
            self.heading = headings[-1].strip() if headings else self.heading
            return ruled(markdown.html(cell.source, cell.get("attachments")), self.heading, caption=None)
        if cell.cell_type != "code" or "parameters" in tags(cell) or not cell.source.strip():
            return ""  # the parameters cell holds None alone: what counts is injected below it
        code = highlight(cell.source, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip()
        summary = "parameters" if INJECTED in tags(cell) else "code"
        return "\n".join([fold(summary, f"<pre><code>{code}</code></pre>"), *map(self._output, cell.outputs)])

    def _output(self, output: Any) -> str:
        if output.output_type == "stream":
            return _printed(output.text)
        if output.output_type == "error":
            return _printed("\n".join(output.traceback))
        data, caption = output.data, output.metadata.get("caption")
        for kind in PICTURES:
            if kind in data and "text/html" not in data:
                return self._picture(kind, data[kind], output.metadata)
        if "text/html" in data:
            return self._table(data["text/html"], caption)
        if "text/markdown" in data:
            return self._table(markdown.html(data["text/markdown"]), caption)
        if "text/latex" in data:
            return markdown.html(data["text/latex"])
        return _printed(data.get("text/plain", ""))

    def _picture(self, kind: str, data: str, metadata: Any) -> str:
        caption = markdown.inline(metadata["caption"]) if "caption" in metadata else ""
        own = metadata.get(kind, {})  # as IPython.display.Image fills it
        alt = metadata.get("alt") or own.get("alt") or plain(caption) or f"Figure: {self.heading}"
        if caption:
            self.figures += 1
            caption = f"\n<figcaption><b>Figure {self.figures}.</b> {caption}</figcaption>"
        size = f' width="{int(own["width"])}"' if "width" in own else ""
        packed = b64encode(data.encode()).decode() if kind == "image/svg+xml" else "".join(data.split())
        return f'<figure>\n<img src="data:{kind};base64,{packed}" alt="{escape(alt)}"{size}>{caption}\n</figure>'

    def _table(self, html: str, caption: str | None) -> str:
        if caption is None or "<table" not in html:
            return ruled(html, self.heading, caption=None)
        self.tables += 1
        label = f"Table {self.tables}"
        return ruled(html, label, f"<b>{label}.</b> {markdown.inline(caption)}")


def _printed(text: str) -> str:
    return f'<pre class="printed">{escape(strip_ansi(text).rstrip(), quote=False)}</pre>'
