"""The picture browser in a real browser: slider, keys, selects, clicks change what is shown; whole without scripts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from atelier.data.pictures import in_memory
from atelier.pipeline import page as pages
from atelier.report import figures, pictures
from atelier.report.browser import BYTES, Browsed, by_path, on_sheets

browser = pytest.importorskip("browser", reason="websocket-client is not installed")
axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

AXE = Path(axe.__file__).with_name("axe.min.js")
ROWS, PROMPTS, SCALES = ("the real work", "untuned", "tuned", "tuned twice"), 4, ("4", "16")
PAIR, REAL = "document.querySelectorAll('.stage canvas')[0]", "document.querySelectorAll('.stage canvas')[1]"
PROMPT, VARIANT, SCALE = (f"document.querySelectorAll('.panel select')[{at}]" for at in range(3))
STAGE, WIPE, SHEET = (f"document.querySelector('{name}')" for name in (".stage", ".panel input", ".place img"))


def colour(row: int, column: int, scale: int) -> list[int]:
    """Every tile has a colour of its own."""
    return [40 + 50 * row, 40 + 50 * column, 60 + 120 * scale]


def plain(row: int, scale: int) -> torch.Tensor:
    x = torch.tensor([colour(row, column, scale) for column in range(PROMPTS)], dtype=torch.uint8)
    return x[:, :, None, None].expand(-1, 3, 64, 64)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page with one browser, which a server hands out so that a test may read its pixels."""
    figures.set_style()
    folder = tmp_path_factory.mktemp("site")
    rows = pd.DataFrame({"prompt": [f"a long prompt about number {at}, of a style" for at in range(PROMPTS)]})
    rows = rows.assign(path=rows["prompt"], repeat=0, place=range(PROMPTS))
    variants = {
        name: {(value,): (in_memory(plain(at, scale)), rows) for scale, value in enumerate(SCALES)}
        for at, name in enumerate(ROWS[1:], start=1)
    }
    read = by_path(rows, lambda chosen: in_memory(plain(0, 0))[chosen["place"].tolist()])
    item = on_sheets("look", Browsed(["guidance"], variants, ROWS[0], read), "One noise a column.")
    paths = [folder / "figures" / f"look_{at}" for at in range(2)]
    files = [f"figures/{p.name}" for p in pictures.save_sheets([s.picture for s in item.sheets], paths, BYTES)]
    metadata = {"caption": item.caption, "file": files[0], "browser": item.described(files)}
    output = nbformat.v4.new_output("display_data", {"text/plain": ""}, metadata=metadata)
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell("show()", outputs=[output])]
    (folder / "one.html").write_text(pages.page(notebook, "smoke", folder), encoding="utf-8")
    with browser.served(folder) as address:
        yield f"{address}/one.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    with browser.chromium(tmp_path_factory.mktemp("browser") / "own") as opened:
        yield opened


@pytest.fixture(scope="module")
def one(tab: Callable) -> Any:
    return tab()


@pytest.fixture
def page(one: Any, site: str) -> Any:
    return opened(one, site, 1200)


def opened(page: Any, site: str, width: int, dark: bool = False) -> Any:
    page.screen(width, 900, dark=dark)
    page.requests.clear()
    page.faults.clear()
    page.open(site)
    return page


def sees(page: Any, canvas: str, at: float, row: int, column: int, scale: int = 0) -> bool:
    """Whether a canvas shows a tile's colour at a share of its width; a sheet is stored with loss."""
    script = f"[...{canvas}.getContext('2d').getImageData({at} * {canvas}.width, {canvas}.height / 2, 1, 1).data]"
    return np.abs(np.array(page.ask(script)[:3]) - colour(row, column, scale)).max() <= 8


def choose(page: Any, select: str, index: int) -> None:
    page.ask(f"{select}.selectedIndex = {index}, {select}.dispatchEvent(new Event('change')), 0")


def test_a_variant_is_beside_the_untuned_and_the_real_work(page: Any) -> None:
    assert page.faults == []
    assert sees(page, PAIR, 0.2, 2, 0)
    assert sees(page, PAIR, 0.8, 1, 0)
    assert sees(page, REAL, 0.5, 0, 0)
    assert page.ask("[...document.querySelectorAll('.ends span')].map(e => e.textContent)") == [
        "left: tuned", "right: untuned", "the real work",
    ]  # fmt: skip


def test_the_slider_wipes_from_one_to_the_other(page: Any) -> None:
    for value, seen in ((100, 2), (0, 1)):
        page.ask(f"{WIPE}.value = {value}, {WIPE}.dispatchEvent(new Event('input')), 0")
        assert sees(page, PAIR, 0.05, seen, 0)
        assert sees(page, PAIR, 0.95, seen, 0)
    page.ask(f"{WIPE}.focus()")
    for _ in range(30):
        page.strike("ArrowRight")
    assert page.ask(f"{WIPE}.value") == "30"
    assert sees(page, PAIR, 0.25, 2, 0)
    assert sees(page, PAIR, 0.35, 1, 0)
    assert page.ask(f"{WIPE}.getAttribute('aria-valuetext')") == "30 % tuned, 70 % untuned"
    assert page.ask(f"{PROMPT}.selectedIndex") == 0


def test_arrow_keys_move_through_prompts_and_variants(page: Any) -> None:
    page.ask(f"{STAGE}.focus()")
    page.strike("ArrowRight")
    page.strike("ArrowDown")
    assert sees(page, PAIR, 0.2, 3, 1)
    assert sees(page, PAIR, 0.8, 1, 1)
    assert sees(page, REAL, 0.5, 0, 1)
    page.strike("ArrowUp")
    page.strike("ArrowLeft")
    page.strike("ArrowLeft")
    assert sees(page, PAIR, 0.2, 2, PROMPTS - 1)
    assert page.ask(f"{PROMPT}.value") == f"{PROMPTS}. a long prompt about number {PROMPTS - 1}, of a style"
    assert f"rompt {PROMPTS} of {PROMPTS}" in page.ask("document.querySelector('.said').textContent")


def test_selects_choose_prompt_variant_and_guidance(page: Any) -> None:
    choose(page, PROMPT, 2)
    choose(page, VARIANT, 1)
    assert sees(page, PAIR, 0.2, 3, 2)
    choose(page, SCALE, 1)
    page.until(f"{SHEET}.complete && {SHEET}.getAttribute('src').endsWith('look_1.webp')")
    assert sees(page, PAIR, 0.2, 3, 2, 1)
    assert sees(page, PAIR, 0.8, 1, 2, 1)
    assert page.ask(f"{PAIR}.getAttribute('aria-label')").endswith("guidance 16")
    choose(page, SCALE, 0)
    page.until(f"{SHEET}.complete && {SHEET}.getAttribute('src').endsWith('look_0.webp')")
    assert sees(page, PAIR, 0.2, 3, 2, 0)


def test_a_click_on_a_tile_chooses_it(page: Any) -> None:
    page.ask(
        f"box = {SHEET}.getBoundingClientRect(), scale = box.width / {SHEET}.naturalWidth, "
        f"{SHEET}.dispatchEvent(new MouseEvent('click', {{bubbles: true, clientX: box.right - (67 + 30) * scale, "
        "clientY: box.bottom - 30 * scale})), 0"
    )
    assert sees(page, PAIR, 0.2, 3, 2)
    mark = page.ask("(b => [b.right, b.bottom])(document.querySelector('.mark').getBoundingClientRect())")
    edge = page.ask(f"(b => [b.right - (67 + 3) * scale, b.bottom - 3 * scale])({SHEET}.getBoundingClientRect())")
    assert np.abs(np.subtract(mark, edge)).max() < 1


def test_everything_has_a_name(page: Any) -> None:
    assert page.named("combobox") == ["prompt", "variant", "guidance"]
    assert page.named("slider") == ["wipe between the two"]
    assert "Enlarged pictures: arrow left and right for the prompt, up and down for the variant" in page.named("group")
    of = "prompt 1 of 4: a long prompt about number 0, of a style"
    assert {f"Left tuned, right untuned; {of}, guidance 4", f"the real work, {of}"} < set(page.named("image"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_and_axe_finds_nothing(one: Any, site: str, width: int, dark: bool) -> None:
    page = opened(one, site, width, dark)
    assert page.faults == []
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert {address.rsplit("/", 1)[1] for address in page.requests} <= {"one.html", "look_0.webp", "favicon.ico"}
    page.ask(AXE.read_text())
    found = page.ask("axe.run().then(r => r.violations.map(v => [v.id, v.nodes[0].html, v.nodes[0].failureSummary]))")
    assert found == []


def test_without_scripts_it_is_a_figure_with_its_prompts_and_all_sheets(one: Any, site: str) -> None:
    one.call("Emulation.setScriptExecutionDisabled", value=True)
    page = opened(one, site, 1200)
    try:
        assert page.ask("document.querySelectorAll('canvas, .panel').length") == 0
        assert page.ask("document.querySelector('figure.browser img').getBoundingClientRect().height") > 200
        assert "under the real work" in page.ask("document.querySelector('figcaption').textContent")
        assert page.ask("document.querySelectorAll('.columns li').length") == PROMPTS
        assert page.ask("[...document.querySelectorAll('.rows li')].map(e => e.textContent)") == list(ROWS)
        links = page.ask("[...document.querySelectorAll('.sheets a')].map(e => e.getAttribute('href'))")
        assert links == ["figures/look_0.webp", "figures/look_1.webp"]
    finally:
        one.call("Emulation.setScriptExecutionDisabled", value=False)
