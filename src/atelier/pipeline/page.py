"""Pages by nbconvert: templates, and filters for formulas, code, tables and figures that lie in files.

A page runs nothing and asks nothing of a network; the files that it shows lie beside it, and each must exist.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment
from markupsafe import Markup, escape
from nbconvert.exporters import TemplateExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from PIL import Image
from pygments import highlight
from pygments.filter import simplefilter
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Text
from traitlets import default

from atelier.pipeline import allowed
from atelier.pipeline.booktabs import ruled
from atelier.pipeline.formulas import mathml
from atelier.pipeline.scrub import INJECTED, tags

STYLE, SCRIPT = Path(__file__).with_name("page.css"), Path(__file__).with_name("page.js")
TEMPLATES = Path(__file__).with_name("template")
SHORT_RUNS = ("smoke", "embedded", "own", "made")
SYMBOLS = {"supported": "✓", "reversed": "⇄", "not seen": "∅", "undecided": "?"}  # so that colour says nothing alone
NO_VERDICT = "–"
INTERVAL = re.compile(r"\([^()]*(?: to |the same in all )[^()]*\)")  # brackets that hold one
OPEN = 1  # tables of a page that are not folded
PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/webp")
COLOURED = (Keyword, String, Comment, Number, Operator.Word, Name.Function, Name.Class, Name.Namespace)


def page(
    notebook: NotebookNode,
    profile: str,
    folder: Path | None = None,
    verdicts: Sequence[Mapping[str, str]] = (),
    findings: Sequence[Mapping[str, str]] = (),
    ways: Mapping[str, Any] | None = None,
    in_short: str = "",
) -> str:
    """A study's page from its notebook; ``folder`` is where it will lie, and holds the figures that it names.

    ``verdicts``: its claims' among all of the profile, which only the site knows (`site.verdicts_of`); ``findings``:
    its own (`site.findings_of`); ``ways``: to the front page, the studies before and after, and other profiles;
    ``in_short``: what it found in one sentence.

    Raises ValueError when it has no title, a formula does not convert, a figure's file is missing, or something in it
    would run or be fetched.
    """
    injected = "\n".join(cell.source for cell in notebook.cells if INJECTED in tags(cell))
    about = {
        "parameters": re.findall(r"^(\w+) =", injected, re.MULTILINE),
        "folder": folder,
        "verdicts": verdicts,
        "findings": findings,
        "ways": ways or {},
        "contents": _contents(notebook),
        "in_short": in_short,
    }
    text, _ = PageExporter().from_notebook_node(notebook, resources=frame(title(notebook), profile) | about)
    return checked(text, folder)


def title(notebook: NotebookNode) -> str:
    """The first heading, as plain text. Raises ValueError when no Markdown cell has a line that begins with "# "."""
    for line in prose(notebook).splitlines():
        if line.startswith("# "):
            return inline(line[2:]).striptags()
    raise ValueError("no title: the first Markdown cell must begin with '# ' and a title")


def _contents(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Anchor and text of the second headings."""
    heads = re.findall(r"^## +(.*)$", prose(notebook), re.MULTILINE)
    return [(inline(head.strip()).striptags().replace(" ", "-"), inline(head.strip()).striptags()) for head in heads]


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def figure(name: str, folder: Path | None) -> dict[str, Any]:
    """A figure's address and size, from its file. Raises ValueError when it is not in ``folder`` or no picture."""
    try:
        with Image.open((folder or Path()) / name) as picture:
            return {"src": quote(name), "size": {"width": picture.width, "height": picture.height}}
    except OSError:
        raise ValueError(f"figure {name}: no such picture in {folder or 'a folder that nobody named'}") from None


def browser(described: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """A picture browser as its template takes it. ValueError for a sheet that is missing, or unlike the first one."""
    sheets = [{**figure(sheet["file"], folder), "values": sheet["values"]} for sheet in described["sheets"]]
    for sheet, told in zip(sheets, described["sheets"], strict=True):
        if sheet["size"] != sheets[0]["size"]:
            raise ValueError(f"figure {told['file']}: sheets of one browser must be of one size")
    return {**described, "sheets": sheets}


def markdown(source: str, attachments: dict[str, dict[str, str]] | None = None) -> Markup:
    """HTML of Markdown, read as JupyterLab reads it. Raises ValueError for a formula that does not convert."""
    return Markup(MarkdownWithMath(renderer=_Renderer(escape=False, attachments=attachments or {})).render(source))


def inline(source: str) -> Markup:
    """One paragraph without its ``<p>``, for captions and summaries."""
    return Markup(markdown(source).strip().removeprefix("<p>").removesuffix("</p>"))


def quiet(sentence: str) -> Markup:
    """A sentence with the intervals in its brackets in small print."""
    return Markup(INTERVAL.sub(r"<small>\g<0></small>", str(escape(sentence))))


def addresses(text: str) -> allowed.Addresses:
    """A page's relative addresses. Raises ValueError when it would run something, or fetch anything but a picture."""
    return allowed.addresses(text, *_own())


def _own() -> tuple[str, str]:
    """The content of a page's style and script elements."""
    return f"\n{STYLE.read_text(encoding='utf-8')}", SCRIPT.read_text(encoding="utf-8")


def rendered(template: str, about: Mapping[str, Any], folder: Path) -> str:
    """A page of a template, for ``folder``. Raises ValueError as ``page`` does."""
    return checked(PageExporter().environment.get_template(template).render(resources=about), folder)


def symbol(verdict: str) -> str:
    """A verdict's sign."""
    return next((sign for said, sign in SYMBOLS.items() if verdict.startswith(said)), NO_VERDICT)


class PageExporter(TemplateExporter):
    """nbconvert's exporter with the templates beside this module and none of anyone else's."""

    output_mimetype = "text/html"
    file_extension = ".html"

    @default("template_file")
    def _page(self) -> str:
        return "page.html.j2"

    @default("template_paths")
    def _template_paths(self, prune: bool = True, root_dirs: list[str] | None = None) -> list[str]:
        return [str(TEMPLATES)]

    def _init_preprocessors(self) -> None:
        super()._init_preprocessors()
        self.register_preprocessor(Numbers, enabled=True)

    def default_filters(self) -> Iterable[tuple[str, Any]]:
        filters = {
            "markdown": markdown,
            "inline": inline,
            "tables": _tables,
            "code": _code,
            "symbol": symbol,
            "quiet": quiet,
        }
        return [*super().default_filters(), *filters.items()]

    def _create_environment(self) -> Environment:
        environment = super()._create_environment()
        environment.autoescape = environment.trim_blocks = environment.lstrip_blocks = True
        return environment


class Numbers(Preprocessor):
    """What a page says of each figure and table: its number, its caption, and the heading that it stands under."""

    def preprocess(self, notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        heading, figures, tables = "", 0, 0
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and (headings := re.findall(r"^#+ +(.*)$", cell.source, re.MULTILINE)):
                heading = headings[-1].strip()
            cell.metadata["shown"] = {"heading": heading}
            for output in cell.get("outputs", []):
                if output.output_type not in ("display_data", "execute_result"):
                    continue
                shown = {"heading": heading, "caption": output.metadata.get("caption", "")}
                shown["file"] = output.metadata.get("table")
                shown |= _picture(output, resources["folder"])
                if "browser" in output.metadata:
                    shown["browser"] = browser(output.metadata["browser"], resources["folder"])
                if shown["caption"]:
                    figures += "src" in shown
                    tables += "src" not in shown and "<table" in output.data.get("text/html", "")
                    shown["number"] = figures if "src" in shown else tables
                image: dict[str, Any] = next(
                    (output.metadata[kind] for kind in PICTURES if kind in output.metadata), {}
                )
                alt = output.metadata.get("alt") or image.get("alt") or inline(shown["caption"]).striptags()
                output.metadata["shown"] = shown | {"alt": alt or f"Figure: {heading}"}
        return notebook, resources


class _Renderer(IPythonRenderer):
    """Formulas become MathML, so that a page needs no script."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    def heading(self, text: str, level: int, **_: object) -> str:
        anchor = Markup(text).striptags().replace(" ", "-")  # as JupyterLab makes them
        return Markup('<h{level} id="{anchor}">{text}</h{level}>\n').format(
            level=level, anchor=anchor, text=Markup(text)
        )


def frame(name: str, profile: str) -> dict[str, Any]:
    """What every page's template takes."""
    about = {"title": name, "profile": profile, "short": profile in SHORT_RUNS}
    style, script = _own()
    return about | {"style": Markup(style), "script": Markup(script), "policy": allowed.policy(style, script)}


def _picture(output: NotebookNode, folder: Path | None) -> dict[str, Any]:
    """The figure's file where the output names one; else the picture that it holds, in the page; else nothing."""
    if "file" in output.metadata:
        return figure(output.metadata["file"], folder)
    kind = next((kind for kind in PICTURES if kind in output.data), None)
    if kind is None or "text/html" in output.data:
        return {}
    data = output.data[kind]
    packed = b64encode(data.encode()).decode() if kind == "image/svg+xml" else "".join(data.split())
    size = {key: output.metadata.get(kind, {}).get(key) for key in ("width", "height")}
    return {"src": f"data:{kind};base64,{packed}", "size": {key: int(side) for key, side in size.items() if side}}


def _tables(html: str, shown: dict[str, Any]) -> Markup:
    """A table with its rules; one with a caption is numbered, can be sorted, and leads to its CSV file."""
    if not shown.get("number"):
        return Markup(ruled(html, shown["heading"]))
    label, caption = f"Table {shown['number']}", inline(shown["caption"])
    file = f' <a href="{quote(shown["file"])}">CSV</a>' if shown.get("file") else ""
    first = re.split(r"[.;:] ", caption.striptags(), maxsplit=1)[0]
    folded = f"{label}. {escape(first)}" if shown["number"] > OPEN else ""
    return Markup(ruled(html, label, f"<b>{label}.</b> {caption}{file}", folded))


def _code(source: str) -> Markup:
    lexer = PythonLexer()
    lexer.add_filter(_coloured())
    return Markup(highlight(source, lexer, HtmlFormatter(nowrap=True)).rstrip())


@simplefilter
def _coloured(self: Any, lexer: Any, stream: Iterable[tuple[Any, str]], options: Any) -> Iterable[tuple[Any, str]]:
    """Only the tokens that the style sheet colours: every other mark would make a page heavier and no clearer."""
    for kind, value in stream:
        yield next((group for group in COLOURED if kind in group), Text), value


def checked(text: str, folder: Path | None) -> str:
    for address in addresses(text).pictures:
        if folder is None or not (folder / unquote(address)).is_file():
            raise ValueError(f'<img src="{address}">: no such file beside the page')
    return text
