"""Pages and sources: what is scrubbed and cleaned, how formulas, figures and tables come out, what a page may hold."""

import ast
import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from atelier.pipeline import lab, page, render, scrub, site
from atelier.pipeline.formulas import mathml
from atelier.report import pictures
from atelier.studies import STUDIES
from atelier.workspace import Workspace

PROFILES = sorted((Path(__file__).parent.parent / "profiles").glob("*.yaml"))
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
BY_HAND = ("explore_", "00_")  # notebooks that a reader runs, not the pipeline
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


def drawn(folder: Path, name: str = "a b", size: tuple[int, int] = (900, 300)) -> nbformat.NotebookNode:
    """A notebook that shows a figure stored in ``folder``, as a study does."""
    file = pictures.save(Image.new("RGB", size, "white"), folder / "figures" / name)
    small = pictures.preview(file)
    data = {pictures.mime(small): base64.b64encode(small).decode()}
    return shown(data, caption="A *line*, $n = 2$.", file=f"figures/{file.name}")


class Resources(HTMLParser):
    """Every address that a browser would fetch by itself, but for pictures beside the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [str(value) for name, value in attrs if name != "alt" and tag != "a" and "://" in str(value)]
        beside = ("data:", "figures/", "one/figures/", "two/figures/", "study/one/", "study/two/")
        self.found += [str(value) for name, value in attrs if name == "src" and not str(value).startswith(beside)]


# ---- sources


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebooks_are_clean(path: Path) -> None:
    notebook = scrub.read(path)
    advice = f"python -m atelier.pipeline.render clean notebooks/{path.name}"
    assert path.read_text(encoding="utf-8") == scrub.text(scrub.clean(notebook)), advice
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    interactive = path.name.startswith(BY_HAND)
    assert sum("parameters" in scrub.tags(cell) for cell in code) == (0 if interactive else 1)
    plain = "\n".join(line for cell in code for line in cell.source.splitlines() if not line.startswith(("%", "!")))
    assert not [node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.ClassDef)]


def test_a_profile_has_the_sentences_of_its_own_data() -> None:
    source = shown({"text/plain": "x"})
    for name in (scrub.PAINTED, scrub.OTHER):
        source.cells.append(new_markdown_cell(f"of {name}", metadata={"tags": [name]}))
    for profile, left, said in (("study", scrub.OTHER, scrub.PAINTED), ("paper", scrub.PAINTED, scrub.OTHER)):
        chosen = scrub.of_profile(source, profile)
        assert f"of {left}" not in [cell.source for cell in chosen.cells]
        assert chosen.cells[-1].source == f"of {said}"
        assert chosen.cells[-1].metadata == {}  # as a cell that every profile has
    assert len(source.cells) == 4
    assert set(scrub.PAINTED_BY) == {path.stem for path in PROFILES if "folder: data " in path.read_text()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_is_said_of_the_painted_world_has_its_counterpart_and_no_other_page_speaks_of_it(path: Path) -> None:
    notebook = scrub.read(path)
    tagged = [tag for cell in notebook.cells for tag in scrub.tags(cell) if tag in (scrub.PAINTED, scrub.OTHER)]
    assert tagged == [scrub.PAINTED, scrub.OTHER] * (len(tagged) // 2)
    if path.name.startswith(BY_HAND):
        return
    for cell in scrub.of_profile(notebook, "paper").cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"[Tt]he shipped base|this small base|at 64 px|for 64 px|8 x 8", cell.source)


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
    html = page.markdown("`$x$` and \\$5 and $y$\n\n```\n$z$\n```\n\n$$\na\n\n= b\n$$")
    assert html.count("<math") == 2
    assert "<code>$x$</code>" in html
    assert "$5" in html
    assert "$z$" in html


# ---- figures as files


def noise(*size: int) -> Image.Image:
    return Image.frombytes("RGB", size, np.random.default_rng(0).bytes(size[0] * size[1] * 3))


def test_a_drawing_is_kept_exactly_and_pictures_nearly_so(tmp_path: Path) -> None:
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.plot([0, 1])
    file = pictures.save(figure, tmp_path / "figures" / "guidance_7.5")
    assert file.name == "guidance_7.5.webp"
    buffer = BytesIO()
    figure.savefig(buffer)
    plt.close(figure)
    original = np.asarray(Image.open(buffer).convert("RGB"), dtype=int)
    stored = np.asarray(Image.open(file).convert("RGB"), dtype=int)
    assert stored.shape == original.shape
    assert np.abs(stored - original).max() <= 8
    assert len(file.read_bytes()) < len(buffer.getvalue()) / 2
    smooth = noise(12, 12).resize((300, 300), Image.Resampling.BICUBIC)
    sheet = np.asarray(Image.open(pictures.save(smooth, tmp_path / "sheet")), dtype=int)
    assert 0 < np.abs(sheet - np.asarray(smooth)).mean() < 6


def test_enlarged_pixels_are_kept_exactly(tmp_path: Path) -> None:
    enlarged = noise(40, 40).resize((320, 320), Image.Resampling.NEAREST)
    assert pictures.save(enlarged, tmp_path / "zoomed").read_bytes()[12:16] == b"VP8L"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "zoomed.webp")), np.asarray(enlarged))


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    file = pictures.save(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), tmp_path / "clear")
    assert Image.open(file).convert("RGB").getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(900, 300), (500, 2000), (100, 50)])
def test_previews_are_small_and_the_same_twice(tmp_path: Path, size: tuple[int, int]) -> None:
    first, second = (pictures.save(noise(*size), tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    small = pictures.preview(first)
    assert small == pictures.preview(second)
    image = Image.open(BytesIO(small))
    assert image.get_format_mimetype() == pictures.mime(small)
    assert image.width <= min(320, size[0])
    assert image.height <= min(480, size[1])


# ---- pages


def test_figures_have_numbers_captions_alternatives_and_sizes(tmp_path: Path) -> None:
    html = page.page(drawn(tmp_path), "study", tmp_path)
    assert "<figcaption><b>Figure 1.</b> A <em>line</em>, <math" in html
    assert '<img src="figures/a%20b.webp" alt="A line, n=2." width="900" height="300">' in html
    assert "base64" not in html
    two = drawn(tmp_path)
    two.cells.append(two.cells[1])
    assert "<b>Figure 2.</b>" in page.page(two, "study", tmp_path)


def test_a_picture_without_a_file_stands_in_the_page() -> None:
    html = page.page(shown({"image/png": picture()}, caption="A.", alt='a "line"'), "study")
    assert f'<img src="data:image/png;base64,{picture()}" alt="a &#34;line&#34;">' in html
    by_ipython = {"image/png": {"alt": "a line", "width": 450}}
    assert 'alt="a line" width="450"' in page.page(shown({"image/png": picture()}, **by_ipython), "study")
    assert 'alt="Figure: A *title*"' in page.page(shown({"image/png": picture()}), "study")


@pytest.mark.parametrize("file", ["figures/missing.webp", "figures/no_picture.webp"])
def test_a_figure_that_is_missing_or_no_picture_is_refused(tmp_path: Path, file: str) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "no_picture.webp").write_text("text")
    notebook = shown({"image/png": picture()}, file=file)
    for folder in (tmp_path, None):
        with pytest.raises(ValueError, match=f"figure {file}: no such picture"):
            page.page(notebook, "study", folder)


def test_a_figure_outside_the_folder_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "study").mkdir()
    for file in ("../x.png", str(tmp_path / "x.png")):
        with pytest.raises(ValueError, match="a page must load nothing"):
            page.page(shown({}, file=file), "study", tmp_path / "study")


def test_tables_are_ruled() -> None:
    html = page.page(shown({"text/html": FRAME}, caption="Two."), "study")
    assert '<div aria-label="Table 1" class="scroll" role="region" tabindex="0"><table class="sortable">' in html
    assert "<caption><span><b>Table 1.</b> Two.</span></caption>" in html
    assert '<th scope="col">row</th><th class="number" scope="col">FD</th>' in html
    assert '<th scope="row">a</th>' in html
    assert '<td class="number">-1.5</td><td class="number">0.1 to 2e-1</td><td>rank 4</td>' in html
    assert html.count("<tr>") == 2
    assert "color: red" not in html


def test_tables_with_grouped_rows_and_columns() -> None:
    rows = pd.MultiIndex.from_product([["a & b", "c"], [1, 2]], names=["model", "step"])
    columns = pd.MultiIndex.from_product([["loss"], ["first", "last"]])
    table = pd.DataFrame([["x", 1.5], ["y", float("nan")]] * 2, index=rows, columns=columns)
    html = page.page(shown({"text/html": f"<p>Said.</p>{table.to_html(na_rep='–')}"}), "study")
    assert '<th rowspan="2" scope="row" valign="top">a &amp; b</th><th scope="row">1</th>' in html
    assert '<td>x</td><td class="number">1.5</td>' in html
    assert '<td>y</td><td class="number">–</td>' in html
    assert '<th scope="col">first</th><th class="number" scope="col">last</th>' in html
    assert '<th colspan="2" halign="left" scope="col">loss</th>' in html
    assert 'aria-label="A *title*"' in html
    assert "<p>Said.</p><div" in html


def test_code_is_folded_parameters_are_named_and_empty_cells_left_out() -> None:
    notebook = shown({"text/plain": "<A>"})
    injected = new_code_cell("seed = 5", metadata={"tags": ["injected-parameters"]})
    declared = new_code_cell("seed = None", metadata={"tags": ["parameters"]})
    notebook.cells[1:1] = [declared, injected, new_code_cell(" ")]
    notebook.cells[-1].source = "x = 'a<b'  # why"
    notebook.cells[-1].outputs.append(new_output("stream", text="\x1b[31mred\x1b[0m & more\n"))
    html = page.page(notebook, "study")
    assert "<details><summary>parameters</summary>\n<pre><code>seed = " in html
    assert "None" not in html
    assert html.count("<details>") == 2
    assert "<summary>code</summary>" in html
    assert "a&lt;b" in html
    assert '<span class="c"># why</span></code></pre>' in html
    assert '<pre class="printed">&lt;A&gt;</pre>' in html
    assert '<pre class="printed">red &amp; more</pre>' in html
    assert "<footer>Parameters: <code>seed</code> of profile" in html


def test_headings_have_anchors() -> None:
    notebook = shown({})
    notebook.cells[0].source += "\n\n## What the *model* reads"
    assert '<h2 id="What-the-model-reads">What the <em>model</em> reads</h2>' in page.page(notebook, "study")


def test_a_page_without_title_is_refused() -> None:
    with pytest.raises(ValueError, match="no title"):
        page.page(new_notebook(cells=[new_markdown_cell("## Only this")]), "study")


def test_a_page_is_complete_and_says_what_it_is(tmp_path: Path) -> None:
    notebook = drawn(tmp_path)
    notebook.cells.append(shown({"text/html": FRAME, "text/plain": "x"}).cells[1])
    notebook.cells[0].source += "\n\n[a paper](https://example.org)"
    html = page.page(notebook, "embedded", tmp_path)
    resources = Resources(html)
    assert resources.found == []
    assert not {"link", "iframe"} & set(resources.tags)
    assert resources.tags.count("script") == 1  # the site's own, by its digest in the policy
    assert html == page.page(notebook, "embedded", tmp_path)
    assert '<html lang="en">' in html
    assert "<title>A title</title>" in html
    assert "short run" in html
    assert "short run" not in page.page(notebook, "study", tmp_path)
    assert '<a href="../index.html">' in html
    assert '<a href="https://example.org">' in html


@pytest.mark.parametrize(
    "html",
    [
        '<script src="x.js"></script>',
        '<img src="https://example.org/x.png">',
        '<img src="//example.org/x.png">',
        "<img src='missing.png'>",
        "<img src='../x.png'>",
        '<img src="x.png" srcset="https://example.org/x.png 2x">',
        '<video src="x.png"></video>',
        '<svg><image href="https://example.org/x.png"/></svg>',
        '<link rel="stylesheet" href="x.css">',
        "<style>@import 'x.css';</style>",
        '<p style="background: url(x.png)">',
        '<p onclick="x()">',
        '<a href="javascript:x()">x</a>',
        '<a href="/etc/passwd">x</a>',
        '<a href="file:///x">x</a>',
        '<a href="java&#9;script:x()">x</a>',
        '<a href=" &#1;JavaScript:x()">x</a>',
        '<a href="javascript&colon;x()">x</a>',
        '<a href="data:text/html,x">x</a>',
        '<a href="vbscript:x">x</a>',
        '<a href="\\\\example.org/x">x</a>',
        '<a href="/&#10;/example.org">x</a>',
        '<a href="x.html" ping="https://example.org">x</a>',
        '<a href="x.html" target="_blank">x</a>',
        '<meta http-equiv="refresh" content="0;url=https://example.org">',
        '<meta name="viewport" content="x">',
        '<META HTTP-EQUIV=Content-Security-Policy CONTENT="default-src *">',
        '<img src="data:text/html,x">',
        '<img src="data:image/svg+xml,%3Csvg/%3E">',
        '<img src="https&colon;//example.org/x.png">',
        '<img src="&#32;//example.org/x.png">',
        '<img src="x.png" decoding="async">',
        '<image src="https://example.org/x.png">',
        '<input type="image" src="x.png">',
        '<svg><use href="https://example.org/x.svg#a"/></svg>',
        '<svg><use xlink:href="#a"/></svg>',
        "<svg><style>@import 'x'</style></svg>",
        "<style>p { background: u\\72l(x.png) }</style>",
        "<style>@\\69mport 'x.css';</style>",
        '<p style="background: \\75rl(x.png)">',
        '<p style="background-image: image-set(&quot;x.png&quot; 1x)">',
        '<p STYLE="color: red">',
        "<body onload=x()>",
        "<math><maction actiontype=statusline xlink:href=x>x</maction></math>",
        "<math href='javascript:x()'><mi>x</mi></math>",
        "<math><annotation-xml encoding='text/html'><p onclick=x()>x</p></annotation-xml></math>",
        "<math><mtext><table><mglyph><style><img src=x onerror=x()></style></mglyph></table></mtext></math>",
        '<noscript><p title="</noscript><img src=x onerror=x()>"></noscript>',
        "<template><img src=x onerror=x()></template>",
        "<textarea></textarea><title><img src=https://example.org/x></title>",
        "<!--><img src=https://example.org/x.png>-->",
        "<p title='</p><img src=https://example.org/x.png onerror=x()>'><img src=https://example.org/x.png>",
        "<frameset><frame src=x></frameset><iframe srcdoc='<p>'></iframe>",
        "<portal src=x></portal>",
        "<audio autoplay></audio>",
        "<button formaction=x>x</button>",
        "<isindex action=x>",
        "<plaintext>",
        "<xss-element>",
        '<p slot="x">',
        '<p is="x-y">',
    ],
)
def test_what_would_load_or_run_is_refused(tmp_path: Path, html: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "study").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "study" / "x.png")
    page.page(shown({"text/html": '<img src="x.png">'}), "study", tmp_path / "study")
    with pytest.raises(ValueError, match=r"a page must|beside the page"):
        page.page(shown({"text/html": html}), "study", tmp_path / "study")


# ---- the site


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    metrics = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 1200, "unit": "dB"}
    for name in ("one", "two"):
        notebook = scrub.scrub(drawn(folder / name))
        nbformat.write(notebook, folder / name / f"{name}.ipynb")
        (folder / name / f"{name}.html").write_text(page.page(notebook, "study", folder / name))
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
    assert {"index.html", "params.yaml", "one/one.html", "one/metrics.json", "one/figures/a b.webp"} <= set(first)
    index = first["index.html"].decode()
    assert index.index("two/two.html") < index.index("one/one.html")
    assert "A title" in index
    assert 'href="one/figures/a%20b.webp"' in index
    assert '<img src="one/figures/a%20b.webp" alt="A title">' in index  # the first figure of a study without claims
    assert "base64" not in index
    assert Resources(index).found == []
    one = first["one/one.html"].decode()
    assert '<a href="../two/two.html" title="A title">← previous</a>' in one
    assert "next →" not in one


def test_the_site_adjusts_verdicts_over_all_studies_claims(studies: Path, tmp_path: Path) -> None:
    """Of two claims at p = 0.04 and 0.001 both stand; beside ten without an effect, only the second does."""

    def cite(study: str, **p_values: float | None) -> None:
        path = studies / study / "metrics.json"
        content = json.loads(path.read_text())
        content["verdicts"] = {
            name: {
                "verdict": "supported" if p is not None and p <= 0.05 else "undecided",
                "reason": "",
                "claim": "",
                "says": f"says <{name}>",
                "p": None if p is None else {"supported": p, "reversed": 1.0, "not seen": 1.0},
            }
            for name, p in p_values.items()
        }
        path.write_text(json.dumps(content))

    def table() -> dict[str, tuple[str, str, str]]:
        rows = site.verdicts_of(studies, ["one", "two"])
        return {row["claim"]: (row["verdict"], row["q"], row["alone"]) for row in rows}

    cite("one", A1=0.04, A2=None)
    cite("two", B1=0.001)
    assert table() == {
        "A1": ("supported", "0.04", "supported"),
        "A2": ("undecided", "", "undecided"),
        "B1": ("supported", "0.002", "supported"),
    }
    path = studies / "one" / "metrics.json"
    content = json.loads(path.read_text())
    content["verdicts"]["A1"]["said"] = "supported, smaller than matters"
    path.write_text(json.dumps(content))
    assert table()["A1"] == ("supported, smaller than matters", "0.04", "supported, smaller than matters")
    cite("two", B1=0.001, **{f"B{number}": 0.9 for number in range(2, 12)})
    assert table()["A1"] == ("undecided", "0.24", "supported, smaller than matters")
    del content["verdicts"]["A1"]["said"]
    path.write_text(json.dumps(content))
    assert table()["A1"] == ("undecided", "0.24", "supported")
    assert table()["B1"] == ("supported", "0.012", "supported")
    assert list(table())[:3] == ["A1", "A2", "B1"]
    site.build(studies, tmp_path / "site", ["one", "two"], "study", tmp_path / "params.yaml")
    index = (tmp_path / "site" / "index.html").read_text()
    assert '<a href="#A1">A1</a> says &lt;A1&gt;' in index
    mine = (tmp_path / "site" / "one" / "one.html").read_text()
    assert "A1: says" in mine
    assert "B1: says" not in mine
    assert Resources(mine).found == []


def test_the_site_keeps_what_was_seen_here_first_apart(studies: Path, tmp_path: Path) -> None:
    """A finding, however certain, stands in a section of its own and leaves the claims' q-values as they are."""
    entry = {"verdict": "supported", "reason": "", "claim": "", "p": {"supported": 0.04, "reversed": 1, "not seen": 1}}
    path = studies / "two" / "metrics.json"
    content = json.loads(path.read_text())
    content["verdicts"] = {"B1": {**entry, "says": "of a paper"}}
    path.write_text(json.dumps(content))
    before = site.verdicts_of(studies, ["one", "two"])
    found = {"says": "of our <own>.", "answer": "2 of 2 parts hold", "said": "supported, smaller than matters"}
    content["findings"] = {"N2": {**entry, **found, "p": {"supported": 1e-9, "reversed": 1, "not seen": 1}}}
    path.write_text(json.dumps(content))
    assert site.verdicts_of(studies, ["one", "two"]) == before
    site.build(studies, tmp_path / "site", ["one", "two"], "study", tmp_path / "params.yaml")
    chip, said = "✓ supported, smaller than matters</span>", "of our &lt;own&gt;."
    for name, times in (("index.html", 1), ("two/two.html", 1), ("one/one.html", 0)):
        text = (tmp_path / "site" / name).read_text()
        assert (text.count(said), text.count(chip)) == (times, times)
        assert text.count("2 of 2 parts hold") == times
        assert Resources(text).found == []


def test_a_further_table_is_folded_and_leads_to_its_file(tmp_path: Path) -> None:
    notebook = shown({"text/html": FRAME}, caption="First.")
    notebook.cells += shown({"text/html": FRAME}, caption="Second; of n = 5.", table="tables/a b.csv").cells[1:]
    (tmp_path / "tables").mkdir()
    html = page.page(notebook, "study", tmp_path)
    assert html.count('<details class="table">') == 1
    assert '<details class="table"><summary>Table 2. Second</summary><div aria-label="Table 2"' in html
    assert '<b>Table 2.</b> Second; of n = 5. <a href="tables/a%20b.csv">CSV</a>' in html


def test_what_a_profile_did_not_measure_is_said_to_be_that_and_not_undecided(studies: Path, tmp_path: Path) -> None:
    path = studies / "one" / "metrics.json"
    content = json.loads(path.read_text())
    about = {
        "verdict": "undecided",
        "reason": "",
        "claim": "",
        "says": "x",
        "p": None,
        "answer": "Nothing.",
        "paper": "",
    }
    some = {
        "change": 1.0,
        "low": 0.5,
        "high": 1.5,
        "share": None,
        "n": 12345,
        "measure": "m",
        "changed": "a",
        "reference": "b",
    }
    content["verdicts"] = {"A1": {**about, "numbers": {}}, "A2": {**about, "numbers": some}}
    path.write_text(json.dumps(content))
    rows = {row["claim"]: row for row in site.verdicts_of(studies, ["one", "two"])}
    assert [rows[name]["verdict"] for name in ("A1", "A2")] == ["not measured", "undecided"]
    assert [rows[name]["n"] for name in ("A1", "A2")] == ["", "12,345"]
    site.build(studies, tmp_path / "site", ["one", "two"], "study", tmp_path / "params.yaml")
    index = (tmp_path / "site" / "index.html").read_text()
    assert index.count("– not measured</span>") == 2  # its chapter's and the legend's; the claim itself is folded
    assert "1 claim that nothing here has measured yet: A1</summary>" in index
    assert '<li id="A1"><b>A1</b> x' in index
    assert '<tr id="A1">' not in index
    assert "n = 12,345 a cell" in index


def test_the_front_page_shows_every_published_profile(studies: Path, tmp_path: Path) -> None:
    """Two profiles: each claim has both answers, each page leads to the other profile's and to the front page."""
    results = tmp_path / "results"
    for profile, verdict in (("embedded", "undecided"), ("study", "supported")):
        for name in ("one", "two"):
            path = studies / name / "metrics.json"
            content = json.loads(path.read_text()) | {
                "profile": profile,
                "in_short": f"{name} of {profile} in <short>.",
            }
            p = {"supported": 0.001 if verdict == "supported" else 0.5, "reversed": 1.0, "not seen": 1.0}
            entry = {"verdict": verdict, "reason": "", "claim": "", "says": f"says {name}", "p": p}
            content["verdicts"] = {"A1" if name == "one" else "B1": {**entry, "answer": f"of {profile}", "paper": "x"}}
            path.write_text(json.dumps(content))
        params = tmp_path / f"{profile}.yaml"
        params.write_text(f"profile: {profile}\none: {{}}\ntwo: {{}}\n")
        site.build(studies, results / profile, ["one", "two"], profile, params)
    site.renew(results)
    front = (results / "index.html").read_text()
    assert Resources(front).found == []
    for name, study in (("A1", "one"), ("B1", "two")):
        row = front[front.index(f'<tr id="{name}">') :].partition("</tr>")[0]
        for profile, chip in (("embedded", "? undecided"), ("study", "✓ supported")):
            assert f'<a href="{profile}/{study}/{study}.html#{name}"' in row
            assert chip in row
            assert f"of {profile}" in row
    head = front[: front.index('<div class="filters"')]
    assert head.count("one of study in &lt;short&gt;.") == 1  # of the profile that has run the most
    assert "of embedded in" not in head
    assert front.count("one of embedded in &lt;short&gt;.") == 1  # in its chapter
    one = (results / "study" / "one" / "one.html").read_text()
    assert "one of study in &lt;short&gt;." in one
    assert '<a href="../../index.html">Atelier</a>' in one
    assert '<a class="other" href="../../embedded/one/one.html">see embedded</a>' in one
    before = {path: path.read_bytes() for path in results.rglob("*.html")}
    site.renew(results)
    assert before == {path: path.read_bytes() for path in results.rglob("*.html")}
    assert "<code>make demo</code>" in front
    (results / "demo").mkdir()
    (results / "demo" / "index.html").touch()
    site.renew(results)
    assert '<a href="demo/index.html">paint with it</a>' in (results / "index.html").read_text()


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


def test_the_site_refuses_links_that_lead_nowhere(studies: Path, tmp_path: Path) -> None:
    for address in ("elsewhere.html", "../../params.yaml"):
        (studies / "one" / "more.html").write_text(f'<a href="two/x">x</a><a href="{address}">x</a>')
        with pytest.raises(ValueError, match=r"one/more.html: 'two/x' leads to no file of the site"):
            site.build(studies, tmp_path / "site", ["one", "two"], "study", tmp_path / "params.yaml")
        (studies / "one" / "more.html").write_text(f'<a href="one.html">x</a><a href="{address}#x">x</a>')
        with pytest.raises(ValueError, match=f"'{address}' leads to no file of the site"):
            site.build(studies, tmp_path / "site", ["one", "two"], "study", tmp_path / "params.yaml")


# ---- a long profile, published study by study


def ended(workspace: Workspace, *names: str) -> None:
    """Pages of studies as the pipeline leaves them, with their locks."""
    for name in names:
        folder = workspace.studies / name
        notebook = scrub.scrub(drawn(folder))
        nbformat.write(notebook, folder / f"{name}.ipynb")
        (folder / "metrics.json").write_text(json.dumps({"headline": [], "profile": "study", "metrics": {}}))
        lock = workspace.pipelines / name / "dvc.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text(f"lock of {name}")


@pytest.fixture
def long_profile(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.params_file.write_bytes((Path(__file__).parent.parent / "profiles" / "study.yaml").read_bytes())
    workspace.lock.write_text("shared lock")
    ended(workspace, "signal_leak", "base_model")
    return workspace


def test_studies_are_published_as_they_end(long_profile: Workspace) -> None:
    target = long_profile.results / "study"
    assert render.publish_some(long_profile, ["signal_leak"]) == target
    assert not (target / "base_model").exists()
    page_before = (target / "signal_leak" / "signal_leak.ipynb").read_bytes()
    render.publish_some(long_profile, ["base_model"])
    assert (target / "signal_leak" / "signal_leak.ipynb").read_bytes() == page_before
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {"params.yaml", "index.html", "locks/dvc.lock", "locks/signal_leak.lock", "locks/base_model.lock"} <= names
    assert "previous" in (target / "signal_leak" / "signal_leak.html").read_text()  # which knows of the other by now
    lines = (target / "machine.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["base_model", "signal_leak"]
    front = (long_profile.results / "index.html").read_text()
    assert "signal_leak/signal_leak.html" in front
    assert f"{len(STUDIES) - 2} of its studies are still to come" in front


def test_a_study_is_published_beside_others_of_the_same_parameters_alone(long_profile: Workspace) -> None:
    render.publish_some(long_profile, ["signal_leak"])
    params, file = long_profile.params_file.read_text(), long_profile.params_file
    file.write_text(params.replace("seed: 2026", "seed: 7"))
    with pytest.raises(ValueError, match="results/study: signal_leak were made with another 'seed' than"):
        render.publish_some(long_profile, ["base_model"])
    file.write_text(params.replace("  inverted: 750", "  inverted: 700"))  # of a study that is not published yet
    render.publish_some(long_profile, ["base_model"])
    with pytest.raises(ValueError, match="studies/shaping: no page of this study; run its pipeline"):
        render.publish_some(long_profile, ["shaping"])


# ---- published pages, rendered again


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A profile as it was published when pages and notebooks held their pictures: a PNG with a file, one without."""
    folder = tmp_path / "old"
    (folder / "one" / "figures").mkdir(parents=True)
    (folder / "one" / "tables").mkdir()
    (folder / "one" / "tables" / "t.csv").write_text("a\n1\n")
    (folder / "one" / "figures" / "line_7.5.png").write_bytes(base64.b64decode(picture()))
    other = BytesIO()
    noise(200, 100).save(other, "PNG")
    notebook = shown({"image/png": picture(), "text/plain": "x"}, caption="A line.")
    notebook.cells += shown({"image/png": base64.b64encode(other.getvalue()).decode()}).cells[1:]
    notebook = scrub.scrub(notebook)
    (folder / "one" / "one.ipynb").write_text(scrub.text(notebook))
    (folder / "one" / "one.html").write_text("old")
    (folder / "one" / "metrics.json").write_text('{"headline": [], "profile": "study", "metrics": {}}')
    (folder / "params.yaml").write_text("profile: study\none:\n  x: 1\n")
    (folder / "dvc.lock").write_text("lock")
    return folder


def test_published_pages_are_rendered_again_with_figures_as_files(published: Path) -> None:
    kept = {
        path: path.read_bytes() for name in ("*.csv", "*.json", "*.yaml", "*.lock") for path in published.rglob(name)
    }
    assert render.main(["again", str(published)]) == 0
    assert kept == {path: path.read_bytes() for path in kept}
    figures = sorted(path.name for path in (published / "one" / "figures").iterdir())
    assert figures == ["figure_02.webp", "line_7.5.webp"]
    notebook = scrub.read(published / "one" / "one.ipynb")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.metadata for output in outputs] == [
        {"caption": "A line.", "file": "figures/line_7.5.webp"},
        {"file": "figures/figure_02.webp"},
    ]
    for output in outputs:
        kind = next(kind for kind in output.data if kind.startswith("image/"))
        assert Image.open(BytesIO(base64.b64decode(output.data[kind]))).width <= 320
    html = (published / "one" / "one.html").read_text()
    assert 'src="figures/line_7.5.webp" alt="A line." width="900" height="300"' in html
    assert 'src="one/figures/line_7.5.webp"' in (published / "index.html").read_text()
    assert 'src="old/one/figures/line_7.5.webp"' in (published.parent / "index.html").read_text()
    first = {path: path.read_bytes() for path in published.rglob("*.*") if path.is_file()}
    assert render.main(["again", str(published)]) == 0
    assert first == {path: path.read_bytes() for path in published.rglob("*.*") if path.is_file()}


def test_rendering_again_refuses_what_was_never_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["again", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}: no published profile, it has no params.yaml\n"


PUBLISHED = sorted(path.parent for path in (Path(__file__).parent.parent / "results").glob("*/index.html"))


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_published_pages_show_every_figure_once_and_lead_somewhere(folder: Path) -> None:
    for path in folder.rglob("*.html"):
        links, shown_pictures = page.addresses(path.read_text())
        for address in (*links, *shown_pictures):
            assert (path.parent / unquote(address)).is_file(), f"{path}: {address}"
    for path in folder.glob("*/*.ipynb"):
        outputs = [output for cell in scrub.read(path).cells for output in cell.get("outputs", [])]
        pictured = [output for output in outputs if any(kind in scrub.BINARY for kind in output.get("data", {}))]
        files = [output.metadata["file"] for output in pictured]
        stored = sorted(file.relative_to(path.parent).as_posix() for file in (path.parent / "figures").iterdir())
        further = [each["file"] for output in pictured for each in output.metadata.get("browser", {}).get("sheets", [])]
        assert sorted({*files, *further}) == stored
        for output in pictured:
            data = next(data for kind, data in output.data.items() if kind in scrub.BINARY)
            assert Image.open(BytesIO(base64.b64decode(data))).width <= 480
        html = path.with_suffix(".html").read_text()
        assert [html.count(f'src="{file}"') for file in files] == [1] * len(files)
        assert "base64" not in html


def test_results_stay_light() -> None:
    files = [path for path in (Path(__file__).parent.parent / "results").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20e6


def test_readme_has_the_table_of_what_is_published() -> None:
    """`python -m atelier.pipeline.render results` writes it, and `again results/PROFILE`."""
    root = Path(__file__).parent.parent
    _, table, _ = (root / "README.md").read_text().split(render.MARK)
    assert table == f"\n{site.summary(root / 'results')}"
    assert table.count("\n| ") > 36
