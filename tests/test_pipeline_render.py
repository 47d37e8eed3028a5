"""Pages and sources: what is scrubbed and cleaned, how formulas, figures and tables come out, what a page may hold."""

import ast
import base64
import json
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from atelier.pipeline import lab, markdown, page, render, scrub, site
from atelier.pipeline.formulas import mathml

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
FRAME = """<div><style scoped>.dataframe { color: red }</style><table border="1" class="dataframe"><thead>
<tr style="text-align: right;"><th></th><th>FD</th><th>interval</th><th>kind</th></tr>
<tr><th>row</th><th></th><th></th><th></th></tr></thead>
<tbody><tr><th>a</th><td>-1.5</td><td>0.1 to 2e-1</td><td>rank 4</td></tr></tbody></table></div>"""


def picture() -> str:
    file = BytesIO()
    Image.new("RGB", (900, 300), "white").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shown(data: dict[str, str], **metadata: Any) -> nbformat.NotebookNode:
    """An executed notebook whose one code cell shows this."""
    cell = new_code_cell("show()", outputs=[new_output("display_data", data=data, metadata=metadata)])
    return new_notebook(cells=[new_markdown_cell("# A *title*\n\nThe claim,\nin two lines.\n\nMore."), cell])


class Resources(HTMLParser):
    """Every address that a browser would fetch by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [str(value) for name, value in attrs if name != "alt" and tag != "a" and "://" in str(value)]
        self.found += [str(value) for name, value in attrs if name == "src" and not str(value).startswith("data:")]


# ---- sources


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_are_clean(path: Path) -> None:
    notebook = scrub.read(path)
    advice = f"python -m atelier.pipeline.render clean notebooks/{path.name}"
    assert path.read_text(encoding="utf-8") == scrub.text(scrub.clean(notebook)), advice
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    interactive = path.name.startswith("explore_")  # run by a reader, not by the pipeline
    assert sum("parameters" in scrub.tags(cell) for cell in code) == (0 if interactive else 1)
    plain = "\n".join(line for cell in code for line in cell.source.splitlines() if not line.startswith(("%", "!")))
    assert not [node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.ClassDef)]


def test_clean_is_idempotent_and_leaves_source_and_tags() -> None:
    dirty = shown({"text/plain": "x"})
    dirty.cells[1].metadata = {"tags": ["b", "a"], "collapsed": True, "execution": {"iopub.status.busy": "now"}}
    dirty.cells[1].execution_count = 7
    dirty.cells.insert(1, new_code_cell("seed = 5", metadata={"tags": ["injected-parameters"]}))
    dirty.metadata = {"kernelspec": {"name": "mine", "display_name": "/home/x"}, "widgets": {}}
    clean = scrub.clean(dirty)
    assert scrub.clean(clean) == clean
    assert [cell.source for cell in clean.cells] == [dirty.cells[0].source, "show()"]
    assert clean.cells[1].metadata == {"tags": ["a", "b"]}
    assert (clean.cells[1].outputs, clean.cells[1].execution_count) == ([], None)
    assert clean.metadata.kernelspec.name == "python3"
    assert dirty.cells[2].execution_count == 7  # the argument is not touched


def test_the_lab_saves_clean_notebooks_and_other_files_as_they_are() -> None:
    model = {"type": "notebook", "content": json.loads(nbformat.writes(shown({"text/plain": "x"})))}
    lab.pre_save(model=model, path="x.ipynb", contents_manager=None)
    assert model["content"].cells[1].outputs == []
    file = {"type": "file", "content": "text"}
    lab.pre_save(model=file, path="x.txt")
    assert file["content"] == "text"


def test_render_clean_rewrites_a_file_and_refuses_what_is_no_notebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.ipynb"
    nbformat.write(shown({"text/plain": "x"}), path)
    assert render.main(["clean", str(path)]) == 0
    assert path.read_text() == scrub.text(scrub.clean(scrub.read(path)))
    path.write_text("no JSON")
    assert render.main(["clean", str(path)]) == 1
    assert capsys.readouterr().err == f"{path}: not a notebook\n"


# ---- executed notebooks


def test_scrub_removes_the_machine_and_keeps_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"image/png": "0x7f0123456789", "text/plain": f"<A at 0x10ab3> {tmp_path}/x {tmp_path}y 0x7fabcdef0123"}
    output = scrub.scrub(shown(data)).cells[1].outputs[0]
    assert output.data["image/png"] == "0x7f0123456789"
    assert output.data["text/plain"] == f"<A at 0x…> ./x {tmp_path}y 0x…"
    styled = scrub.scrub(shown({"text/html": '<style>#T_0a1b2_row0 {}</style><table id="T_0a1b2"></table>'}))
    assert styled.cells[1].outputs[0].data["text/html"] == '<style>#T_02_0_row0 {}</style><table id="T_02_0"></table>'
    widget = shown({"application/vnd.jupyter.widget-view+json": "{}", "text/plain": "Box()"})
    assert scrub.scrub(widget).cells[1].outputs == []


def test_injected_parameters_are_laid_out_the_same_however_papermill_wrote_them() -> None:
    by_papermill = '# Parameters\na = {"x": 1, "y": float(\'inf\')}\nb = {"z": 1}\n'
    by_black = "# Parameters\na = {\n    'x': 1,\n    'y': float('inf'),\n}\nb = {'z': 1}\n"
    injected = {"tags": ["injected-parameters"]}
    cells = [new_code_cell(source, metadata=injected) for source in (by_papermill, by_black)]
    first, second = (cell.source for cell in scrub.scrub(new_notebook(cells=cells)).cells)
    assert first == second == "a = {'x': 1, 'y': float('inf')}\nb = {'z': 1}"


# ---- formulas


@pytest.mark.parametrize(
    ("latex", "part"),
    [
        (r"\mathcal N", "𝒩"),
        (r"\mathbb{R}", "ℝ"),
        (r"\boldsymbol\mu", "𝝁"),
        (r"a \sim b", "<mo>∼</mo>"),
        (r"\Sigma", '<mi mathvariant="normal">Σ</mi>'),
        (r"p_{\mathrm{data}}", "<mtext>data</mtext>"),
        (r"[-1, 2]", '<mo form="prefix">−</mo>'),
        (r"2 - 1", "<mo>−</mo>"),
        (r"\log p", '<mo lspace="0" rspace="0.167em">log</mo>'),
        (r"\begin{aligned} a &= b \end{aligned}", "<mtable"),
    ],
)
def test_formulas_are_written_for_browsers(latex: str, part: str) -> None:
    assert part in mathml(latex, "inline")


@pytest.mark.parametrize("latex", [r"\foo", "x^{2", "x^2}", r"\frac{1}", r"\left( x", "x_", r"\text{a & b}", ""])
def test_formulas_that_do_not_convert_are_refused_by_name(latex: str) -> None:
    with pytest.raises(ValueError, match=r"^formula ") as refusal:
        mathml(latex, "inline")
    assert f"${latex}$" in str(refusal.value)


def test_dollars_in_code_and_prices_are_no_formulas() -> None:
    html = markdown.html("`$x$` and \\$5 and $y$\n\n```\n$z$\n```\n\n$$\na\n\n= b\n$$")
    assert html.count("<math") == 2
    assert "<code>$x$</code>" in html
    assert "$5" in html
    assert "$z$" in html


# ---- pages


def test_figures_have_numbers_captions_and_alternatives() -> None:
    html = page.page(shown({"image/png": picture()}, caption="A *line*, $n = 2$.", alt="a line"), "study")
    assert "<figcaption><b>Figure 1.</b> A <em>line</em>, <math" in html
    assert 'alt="a line"' in html
    by_ipython = {"image/png": {"alt": "a line", "width": 450}}
    assert 'alt="a line" width="450"' in page.page(shown({"image/png": picture()}, **by_ipython), "study")
    assert 'alt="Figure: A *title*"' in page.page(shown({"image/png": picture()}), "study")


def test_tables_are_ruled() -> None:
    html = page.page(shown({"text/html": FRAME}, caption="Two."), "study")
    assert "<caption><b>Table 1.</b> Two.</caption>" in html
    assert '<th scope="col">row</th><th class="number" scope="col">FD</th>' in html
    assert '<td class="number">-1.5</td><td class="number">0.1 to 2e-1</td><td>rank 4</td>' in html
    assert "color: red" not in html


def test_a_page_is_complete_and_says_what_it_is() -> None:
    notebook = shown({"text/html": FRAME, "text/plain": "x"})
    notebook.cells[0].source += "\n\n[a paper](https://example.org)"
    html = page.page(notebook, "embedded")
    resources = Resources(html)
    assert resources.found == []
    assert not {"script", "link", "iframe"} & set(resources.tags)
    assert html == page.page(notebook, "embedded")
    assert '<html lang="en">' in html
    assert "<title>A title</title>" in html
    assert "short run" in html
    assert "short run" not in page.page(notebook, "study")
    assert '<a href="../index.html">' in html
    assert '<a href="https://example.org">' in html


@pytest.mark.parametrize(
    "html",
    [
        '<script src="x.js"></script>',
        '<img src="https://example.org/x.png">',
        "<img src='x.png'>",
        '<link rel="stylesheet" href="x.css">',
        "<style>@import 'x.css';</style>",
        '<p style="background: url(x.png)">',
        '<p onclick="x()">',
    ],
)
def test_what_would_load_or_run_is_refused(html: str) -> None:
    with pytest.raises(ValueError, match="a page must"):
        page.page(shown({"text/html": html}), "study")


# ---- the site


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    metrics = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 1200, "unit": "dB"}
    for name in ("one", "two"):
        (folder / name / "figures").mkdir(parents=True)
        (folder / name / "figures" / "a b.png").touch()
        nbformat.write(scrub.scrub(shown({"image/png": picture()})), folder / name / f"{name}.ipynb")
        (folder / name / f"{name}.html").touch()
        content = {"headline": ["gap_closed"], "profile": "study", "metrics": {"gap_closed": metrics}}
        (folder / name / "metrics.json").write_text(json.dumps(content))
    (tmp_path / "params.yaml").write_text("profile: study  # <why>\n")
    return folder


def test_the_site_lists_the_studies_in_the_given_order(studies: Path, tmp_path: Path) -> None:
    def build() -> dict[str, bytes]:
        site.build(studies, tmp_path / "site", ["two", "one"], "study", tmp_path / "params.yaml")
        files = sorted(path for path in (tmp_path / "site").rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / "site").as_posix(): path.read_bytes() for path in files}

    first = build()
    assert first == build()
    assert {"index.html", "params.yaml", "one/one.html", "one/metrics.json", "one/figures/a b.png"} <= set(first)
    index = first["index.html"].decode()
    assert index.index("two/two.html") < index.index("one/one.html")
    parts = (
        "A title",
        "The claim,\nin two lines.",
        "gap closed",
        "0.500 dB",
        "0.250 to 0.750",
        "1,200",
        "&lt;why&gt;",
    )
    for part in parts:
        assert part in index
    assert 'href="one/figures/a%20b.png"' in index
    assert "More." not in index
    assert Resources(index).found == []


def test_the_site_refuses_missing_surplus_and_stale_studies(studies: Path, tmp_path: Path) -> None:
    for order, odd in ((["one"], "two"), (["one", "two", "three"], "three")):
        with pytest.raises(ValueError, match=f"missing or too many: {odd}$"):
            site.build(studies, tmp_path / "site", order, "study", tmp_path / "params.yaml")
    with pytest.raises(ValueError, match="made with profile 'study', the parameters say 'smoke'"):
        site.build(studies, tmp_path / "site", ["one", "two"], "smoke", tmp_path / "params.yaml")
    (studies / "one" / "metrics.json").write_text('{"headline": ["x"], "profile": "study", "metrics": {}}')
    with pytest.raises(ValueError, match="headline 'x' is no metric"):
        site.build(studies, tmp_path / "site", ["one", "two"], "study", tmp_path / "params.yaml")
    assert not (tmp_path / "site").exists()
