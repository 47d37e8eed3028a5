"""The page that asks people, in a real browser: a whole sitting by keys alone, and what comes of it as votes."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from atelier.data.images import save_picture
from atelier.evaluation.people import page, results, votes
from atelier.evaluation.people.pairs import pairs_of

browser = pytest.importorskip("browser", reason="websocket-client is not installed")
pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

PAUSE = 0.17  # seconds that a pair is on the screen before a key counts
KEY_OF = {"left": "ArrowLeft", "tie": "ArrowDown", "right": "ArrowRight", "reject": "4"}
SHOWN = "document.body.dataset.shown"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> page.Written:
    root, draw = tmp_path_factory.mktemp("asked"), np.random.default_rng(1)
    for folder in ("a", "b"):
        for i in range(30):
            save_picture(draw.integers(0, 256, (32, 32, 3), np.uint8), root / folder / f"{i}.png")
    return page.write(pairs_of(root / "a", root / "b")[0], ("tuned", "untuned"), 20, root / "sittings")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def tab(folder: Path) -> Iterator[Callable]:
    with browser.chromium(folder / "own") as opened:
        yield opened


@pytest.fixture
def fresh(tab: Callable, written: page.Written) -> Iterator:
    """A tab with the page as a rater sees it first."""
    each = tab()
    each.screen(1280, 800)
    each.open(written.page.as_uri())
    each.ask("localStorage.clear()")
    each.open(written.page.as_uri())
    yield each
    assert each.faults == []


def typed(each, text: str) -> None:
    for letter in text:
        each.strike(letter)


def begin(each, rater: str = "Ada") -> None:
    """From the first screen to the first pair."""
    typed(each, rater)
    each.strike("Enter")
    each.until(f"{SHOWN} === 'part'")
    each.strike("Enter")
    pair(each)


def pair(each, other: str = "") -> str:
    """The opaque name of the pair on the screen, when it may be answered; ``other``: than this one."""
    name = each.until(
        f"{SHOWN} === 'pair' && document.body.dataset.ready === document.getElementById('pair').dataset.pair"
        f" && document.body.dataset.ready !== '{other}' && document.body.dataset.ready"
    )
    time.sleep(PAUSE)
    return name


def saved(folder: Path, name: str) -> Path:
    path, end = folder / "own" / "saved" / name, time.monotonic() + 20
    while not path.is_file():
        assert time.monotonic() < end, f"no {name}"
        time.sleep(0.05)
    return path


def meant_by(key: votes.Key, name: str) -> str:
    """What this rater says: B has fewer flaws, but for ties; A is more pleasing, but for pairs not comparable."""
    meaning = key.shown[name]
    number = int(meaning.name.removesuffix(".png"))
    if number % 5 == 0:
        return "tie" if meaning.question == "flaws" else "reject"
    preferred = "B" if meaning.question == "flaws" else "A"
    return "left" if meaning.left == preferred else "right"


def answer_all(each, key: votes.Key, count: int, last: str = "") -> str:
    """Answer so many pairs, past the title of a part; returns the last one's name."""
    for _ in range(count):
        if each.until(f"{SHOWN} !== 'start' && {SHOWN}") == "part":
            each.strike("Enter")
        last = pair(each, last)
        each.strike(KEY_OF[meant_by(key, last)])
    return last


def test_a_sitting_by_keys_alone_and_its_votes(fresh, written: page.Written, folder: Path) -> None:
    """A name, 48 answers with one taken back, one key held down and the page reloaded half-way, and the file."""
    key = votes.read_key(written.key)
    begin(fresh)
    first = answer_all(fresh, key, 1)
    second = pair(fresh, first)
    fresh.strike("ArrowDown" if meant_by(key, second) != "tie" else "ArrowLeft")  # a slip
    pair(fresh, second)
    fresh.strike("Backspace")
    assert pair(fresh) == second
    fresh.strike("Backspace")
    assert pair(fresh) == first
    fresh.strike(KEY_OF[meant_by(key, first)])
    fresh.strike("ArrowLeft")  # before the next pair has been seen
    assert pair(fresh, first) == second
    fresh.strike("ArrowLeft", held=True)
    assert fresh.ask("document.getElementById('count').textContent") == "Visual flaws: 2 of 24"
    fresh.strike("4")  # there is nothing to reject here
    assert pair(fresh) == second
    answer_all(fresh, key, 9)
    fresh.open(written.page.as_uri())  # closed and opened again
    assert fresh.until("document.activeElement.id") == "continue"
    assert "Ada, sitting 1: 10 of 48 answered" in fresh.ask("document.getElementById('kept').textContent")
    fresh.strike("Enter")
    answer_all(fresh, key, 38)
    assert fresh.until(f"{SHOWN} === 'done' && document.activeElement.id") == "save"
    fresh.strike("Enter")
    path = saved(folder, f"votes-{key.page}-1-Ada.csv")
    read = votes.read([path], {key.page: key})
    assert len(read) == 48
    assert read["answer"].tolist() == [meant_by(key, name) for name in read["pair"]]
    assert read["milliseconds"].between(150, 20_000).all()
    table = results.tables(read)
    names = {meaning.name for meaning in key.shown.values() if meaning.sitting == f"{key.page}-1"}
    odd = sum(int(name.removesuffix(".png")) % 5 == 0 for name in names)
    flaws, appeal = table.results.to_dict("records")
    assert (flaws["pairs"], flaws["win"], flaws["tie"]) == (20, 0, 5 * odd)
    assert (appeal["pairs"], appeal["rejected"], appeal["win"]) == (20 - odd, odd, 100)
    assert table.raters["same"].tolist() == [100, 100]
    assert table.raters["repeated"].tolist() == [4, 4]
    assert [url for url in fresh.requests if not url.startswith(("data:", "blob:", written.page.as_uri()))] == []


def test_a_script_that_got_in_could_send_nothing(tab: Callable, written: page.Written) -> None:
    """The page's policy, tried: a server on this machine gets no request of any kind."""
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    each = tab()
    each.open(f"{url}/open")  # where no policy forbids it
    each.ask("fetch('/fetch').then(() => 1)")
    each.open(written.page.as_uri())
    assert each.ask(f"fetch('{url}/fetch').then(() => 'sent', () => 'refused')") == "refused"
    assert (
        each.ask(
            f"new Promise(done => {{ const i = new Image(); i.onload = () => done('sent');"
            f" i.onerror = () => done('refused'); i.src = '{url}/image'; }})"
        )
        == "refused"
    )
    each.ask(f"navigator.sendBeacon('{url}/beacon', 'x')")
    each.ask(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = true';"
        " document.body.append(s); })()"
    )
    assert each.ask("window.ran") is None
    time.sleep(0.3)
    server.shutdown()
    assert [path for path in asked if path != "/favicon.ico"] == ["/open", "/fetch"]


def test_what_stands_in_the_browsers_storage_is_not_trusted(fresh, written: page.Written) -> None:
    name = f"atelier-ab-{votes.read_key(written.key).page}"
    for content in ("{", "null", "[]", '{"rater":"<b>","sitting":0,"answers":[["left",1]]}',
                    '{"rater":"Ada","sitting":99,"answers":[["left",1]]}',
                    '{"rater":"Ada","sitting":0,"answers":[["reject",1]]}',
                    '{"rater":"Ada","sitting":0,"answers":[["left","x"]]}'):  # fmt: skip
        fresh.ask(f"localStorage.setItem('{name}', '{content}')")
        fresh.open(written.page.as_uri())
        assert fresh.until("document.activeElement.id") == "rater", content
        assert fresh.ask("document.getElementById('kept').hidden")


def test_a_name_is_asked_for_in_words_and_keeps_the_focus(fresh) -> None:
    typed(fresh, "a,b")
    fresh.strike("Enter")
    assert "letters and digits" in fresh.ask("document.getElementById('rater-error').textContent")
    assert fresh.ask("document.activeElement.id") == "rater"
    assert fresh.ask("document.activeElement.getAttribute('aria-invalid')") == "true"
    assert fresh.ask(f"{SHOWN}") == "start"
    for _ in range(3):
        fresh.strike("Backspace")
    begin(fresh, "Ada 2")


def test_a_picture_is_enlarged_changed_and_closed_without_an_answer(fresh) -> None:
    begin(fresh)
    name = pair(fresh)
    fresh.strike("z")
    assert fresh.ask("document.getElementById('zoom').open")
    assert fresh.ask("document.getElementById('zoomed').alt") == "Left picture, enlarged"
    fresh.strike("ArrowRight")
    assert fresh.ask("document.getElementById('zoomed').alt") == "Right picture, enlarged"
    right = "document.querySelectorAll('.picture img')[1].src"
    assert fresh.ask(f"document.getElementById('zoomed').src === {right}")
    fresh.strike("Escape")
    assert not fresh.ask("document.getElementById('zoom').open")
    assert pair(fresh) == name


def test_a_mouse_or_finger_answers_too_and_half_a_sitting_can_be_saved(
    fresh, written: page.Written, folder: Path
) -> None:
    key = votes.read_key(written.key)
    begin(fresh, "Bo")
    names = [pair(fresh)]
    for said in ("right", "tie"):
        fresh.ask(f"document.querySelector('[data-answer={said}]').click()")
        names.append(pair(fresh, names[-1]))
    fresh.ask("document.getElementById('save-now').click()")
    read = votes.read([saved(folder, f"votes-{key.page}-1-Bo.csv")], {key.page: key})
    assert read["pair"].tolist() == names[:2]
    assert read["answer"].tolist() == ["right", "tie"]


def test_a_screen_reader_is_told_what_a_person_sees(fresh) -> None:
    assert fresh.named("heading") == ["Which picture is better?", "Keys"]
    assert fresh.named("textbox") == ["Your name or number"]
    assert fresh.named("combobox") == ["Sitting"]
    begin(fresh)
    assert fresh.named("heading") == ["Which picture has fewer visual flaws?"]
    assert set(fresh.named("button")) == {
        *("Enlarge the left picture", "Enlarge the right picture", "Left wins", "Tie", "Right wins"),
        *("Take back the last answer", "Save the answers so far"),
    }
    assert set(fresh.named("image")) <= {"Left picture", "Right picture"}
    assert fresh.ask("document.getElementById('status').textContent") == (
        "Visual flaws: 1 of 24. Which picture has fewer visual flaws?"
    )
    assert fresh.ask("document.documentElement.lang") == "en"


def boxes(each, selector: str) -> list[list[float]]:
    """Left, top, right and bottom of what is shown."""
    return each.ask(
        f"[...document.querySelectorAll('{selector}')].map(e => e.getBoundingClientRect())"
        ".filter(b => b.width).map(b => [b.left, b.top, b.right, b.bottom])"
    )


@pytest.mark.parametrize(("width", "height", "touch"), [(390, 844, True), (1280, 800, False), (844, 390, True)])
def test_pictures_and_answers_fit_the_screen(fresh, width: int, height: int, touch: bool) -> None:
    fresh.screen(width, height, touch=touch)
    assert fresh.ask("document.documentElement.scrollWidth") <= width
    begin(fresh)
    assert fresh.ask("document.documentElement.scrollWidth") <= width
    left, right = boxes(fresh, ".picture img")
    assert 0 <= left[0] < left[2] <= right[0] < right[2] <= width
    assert left[2] - left[0] == right[2] - right[0] == pytest.approx(left[3] - left[1])
    assert left[1] == right[1]
    assert left[2] - left[0] > 150
    answers = boxes(fresh, ".answers button")
    assert len(answers) == 3
    assert min(bottom - top for _, top, _, bottom in answers) >= 44
    assert max(bottom for *_, bottom in answers) <= height
    assert min(top for _, top, *_ in answers) >= left[3]


def test_a_small_picture_is_enlarged_by_whole_pixels(fresh) -> None:
    begin(fresh)
    width, ratio = fresh.ask("[document.querySelector('.picture img').clientWidth, devicePixelRatio]")
    assert width * ratio % 32 == 0
    assert fresh.ask("getComputedStyle(document.querySelector('.picture img')).imageRendering") == "pixelated"


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)`` (WCAG 2)."""
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_their_ground(fresh, dark: bool) -> None:
    """4.5 to 1, in light and dark, of every text that is shown and not disabled."""
    fresh.screen(1280, 800, dark=dark)
    script = """[...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.disabled
        && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
          let ground = e;
          while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)' && ground.parentElement)
            ground = ground.parentElement;
          return [e.textContent, getComputedStyle(e).color, getComputedStyle(ground).backgroundColor];
        })"""
    seen = []
    typed(fresh, ",")
    fresh.strike("Enter")
    seen += fresh.ask(script)
    fresh.strike("Backspace")
    begin(fresh)
    seen += fresh.ask(script)
    assert len(seen) > 20
    for text, colour, ground in seen:
        assert (luminance(ground) < 0.2) == (dark != ("Begin" in text)), text
        lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, colour, ground)
