"""Published pages in a real browser: they fit every screen, ask for nothing, and pass axe; filters and sorting work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from atelier import claims

browser = pytest.importorskip("browser", reason="websocket-client or axe-core-python is not installed")
pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

RESULTS = Path(__file__).parent.parent / "results"
FRONT = RESULTS / "index.html"
PROFILES = sorted(path.parent for path in RESULTS.glob("*/params.yaml"))
PAGES = [FRONT, *(page for profile in PROFILES for page in sorted(profile.glob("*/*.html")))]
SERIOUS = ("serious", "critical")
FIRST = 1.5e6  # bytes that the front page may load before a reader does anything


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    with browser.chromium(tmp_path_factory.mktemp("browser") / "own") as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tab: Callable) -> object:
    return tab()


def opened(page, path: Path, width: int, dark: bool = False, anchor: str = ""):
    page.screen(width, 900, dark=dark)
    page.requests.clear()
    page.faults.clear()
    page.open(path.as_uri() + anchor)
    return page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [390, 1200])
def test_a_page_fits_the_screen_and_asks_for_its_own_pictures_alone(page, path: Path, width: int) -> None:
    opened(page, path, width)
    assert page.faults == []
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert all(Path(unquote(urlsplit(address).path)).is_relative_to(RESULTS) for address in page.requests)
    assert page.ask("document.querySelectorAll('h1').length") == 1
    assert page.ask("[...document.images].filter(e => e.complete && !e.naturalWidth).map(e => e.src)") == []


def test_the_front_page_is_light(page) -> None:
    """``benchmarks/home.py`` prints this size and when the page is painted."""
    opened(page, FRONT, 1200)
    files = {Path(unquote(urlsplit(address).path)) for address in page.requests}
    assert FRONT in files
    assert sum(file.stat().st_size for file in files) <= FIRST


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_axe_finds_nothing_serious(page, path: Path, dark: bool) -> None:
    opened(page, path, 1200, dark)
    found = page.violations()
    assert [each for each in found if each[0] in SERIOUS] == []


def test_a_verdict_filters_claims_and_all_brings_them_back(page) -> None:
    opened(page, FRONT, 1200)
    shown = "[...document.querySelectorAll('.claims tbody tr')].filter(e => !e.hidden).length"
    every = page.ask(shown)
    button = "document.querySelectorAll('.filters button')[{}]"
    said, _, count = page.ask(button.format(1) + ".textContent").rpartition(" ")
    page.ask(button.format(1) + ".click()")
    assert page.ask(shown) == int(count) < every
    chips = page.ask(
        "[...document.querySelectorAll('.claims tbody tr:not([hidden])')]"
        ".map(e => [...e.querySelectorAll('.verdict')].map(c => c.textContent.trim().split(',')[0]))"
    )
    assert all(said in row for row in chips)
    page.ask(button.format(0) + ".click()")
    assert page.ask(shown) == every


def test_a_table_sorts_by_numbers_up_and_down(page) -> None:
    """By the head of the first column of plain numbers that is in no order, clicked twice."""
    opened(page, RESULTS / "embedded" / "art_finetuning" / "art_finetuning.html", 1200)
    page.ask(
        "window.numbers = (table, column) => [...table.tBodies[0].rows].map(r => Number(r.cells[column].textContent"
        ".replace('−', '-').replace(',', '')))"
    )
    page.ask(
        "window.plain = (table, column) => [...table.tBodies[0].rows].every(r => r.cells[column])"
        " && numbers(table, column).every(Number.isFinite)"
    )
    page.ask(
        "[window.table, window.column] = [...document.querySelectorAll('.sortable')]"
        ".flatMap(t => [...t.tHead.rows[0].cells].map((_, c) => [t, c])).find(([t, c]) => plain(t, c)"
        " && numbers(t, c).some((x, i, all) => i && x < all[i - 1])"
        " && numbers(t, c).some((x, i, all) => i && x > all[i - 1]))"
    )
    before = page.ask("numbers(table, column)")
    assert before not in (sorted(before), sorted(before, reverse=True))
    for down in (False, True):
        page.ask("table.tHead.rows[0].cells[column].click()")
        assert page.ask("numbers(table, column)") == sorted(before, reverse=down)


def test_a_link_to_a_claim_shows_its_card(page) -> None:
    opened(page, RESULTS / "embedded" / "signal_leak" / "signal_leak.html", 1200, anchor="#D5")
    top = page.ask("document.getElementById('D5').getBoundingClientRect().top")
    assert 0 <= top < 450
    assert "D5" in page.ask("document.getElementById('D5').textContent")


def test_without_scripts_every_claim_stands(page) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    opened(page, FRONT, 1200)
    rows = page.ask("[...document.querySelectorAll('.claims tbody tr')].map(e => e.getBoundingClientRect().height > 0)")
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    folded = page.ask("document.querySelectorAll('.unmeasured li').length")  # what no profile has measured yet
    assert len(rows) + folded == len(claims.load_all())
    assert all(rows)
