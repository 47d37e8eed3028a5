"""What people say of pictures: blind pages, their keys, hostile tables of votes, and what votes come to."""

import base64
import io
import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from atelier.data.images import save_picture
from atelier.evaluation.people import agreement, page, results, sittings, votes
from atelier.evaluation.people.agreement import REJECT, krippendorff_alpha, majority, net_interval, shares
from atelier.evaluation.people.page import KEY
from atelier.evaluation.people.pairs import Pair, embedded, pairs_of

SECRET = bytes(range(32))
NAN = float("nan")


def secret(number: int) -> bytes:
    return number.to_bytes(32, "big")


def painted(folder: Path, names: list[str], seed: int, side: int = 8) -> Path:
    draw = np.random.default_rng(seed)
    for name in names:
        save_picture(draw.integers(0, 256, (side, side, 3), np.uint8), folder / name)
    return folder


def two_folders(root: Path, n: int, side: int = 8) -> list[Pair]:
    names = [f"0-{i:04d}.png" for i in range(n)]
    a, b = painted(root / "alpha-model", names, 1, side), painted(root / "beta-model", names, 2, side)
    return pairs_of(a, b)[0]


def content_of(path: Path) -> dict:
    """What a page knows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


# ------------------------------------------------------------------------------------------------ votes in numbers


def test_shares_and_their_error_are_the_papers() -> None:
    """DiT, supervised, against plain fine-tuning: 32.8 / 57.8 / 9.3 of 600 prompts, 6.4 and 9.5 errors (methods.md)."""
    counted = shares([1] * 197 + [0] * 347 + [-1] * 56)
    assert (round(100 * counted.win, 1), round(100 * counted.lose, 1)) == (32.8, 9.3)
    assert counted.net == pytest.approx(0.235)
    assert counted.error == pytest.approx(((197 + 56) / 600 - 0.235**2) ** 0.5 / 600**0.5, rel=1e-12)
    assert round(counted.z, 1) == 9.5
    appeal = shares([1] * 209 + [0] * 291 + [-1] * 100)
    assert round(appeal.z, 1) == 6.4


def test_the_error_is_that_of_a_mean_of_votes() -> None:
    draws = np.random.default_rng(1).choice([1, 0, -1], (20_000, 30), p=[0.5, 0.2, 0.3])
    assert np.mean([shares(row).error ** 2 for row in draws]) == pytest.approx(draws.mean(1).var() * 29 / 30, rel=0.02)


def test_no_votes_and_equal_votes_have_no_error() -> None:
    assert shares([]).n == 0
    assert np.isnan([shares([]).win, shares([]).error, shares([1, 1]).z]).all()
    assert shares([1, 1]).error == 0
    assert np.isnan(net_interval([1]).low)
    with pytest.raises(ValueError, match="votes: expected 1"):
        shares([2])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([1, 1, -1], 1),
        ([-1, 0, -1, 1, -1], -1),
        ([1, -1], 0),
        ([1, 1, -1, -1, 0], 0),
        ([1, 0, -1], 0),
        ([0, 0, 1], 0),
        ([-1], -1),
        ([REJECT, 1, 1], 1),
        ([REJECT, REJECT, 1], REJECT),
        ([REJECT, 1], REJECT),
        ([REJECT, 1, -1, 1], 1),
    ],
)
def test_the_majority(answers: list, said: object) -> None:
    assert majority(answers) == said
    assert majority(answers[::-1]) == said


# four observers, twelve units: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", part C and after it
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


@pytest.mark.parametrize(("distance", "alpha"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_of_the_published_example(distance: str, alpha: float) -> None:
    assert round(krippendorff_alpha(PUBLISHED, distance), 3) == alpha


def test_alpha_of_two_observers_and_two_values_by_hand() -> None:
    """Krippendorff 2011, part A: ten units, 0.095."""
    ratings = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert round(krippendorff_alpha(ratings), 3) == 0.095
    assert krippendorff_alpha(ratings, "interval") == pytest.approx(krippendorff_alpha(ratings))


def test_alpha_at_its_ends() -> None:
    truth = np.random.default_rng(1).integers(-1, 2, 5000).astype(float)
    assert krippendorff_alpha([truth, truth, truth]) == 1
    chance = np.random.default_rng(2).integers(-1, 2, (3, 5000)).astype(float)
    assert abs(krippendorff_alpha(chance)) < 0.02
    assert krippendorff_alpha([truth, -truth], "interval") == pytest.approx(-1, abs=0.01)
    for nothing in ([[1, 1], [1, 1]], [[1, NAN], [NAN, 0]], [[1, 0]]):
        assert np.isnan(krippendorff_alpha(nothing))
    with pytest.raises(ValueError, match="distance"):
        krippendorff_alpha(chance, "ordinal")


def noisy(truth: np.ndarray, sure: float, draw: np.random.Generator) -> np.ndarray:
    """The truth with probability ``sure``, else one of three at random."""
    return np.where(draw.random(truth.shape) < sure, truth, draw.integers(-1, 2, truth.shape)).astype(float)


def test_alphas_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Raters who see the truth with probability p, and guess else, agree with alpha = p squared."""
    held, draw = 0, np.random.default_rng(3)
    for _ in range(200):
        truth = draw.integers(-1, 2, 60)
        interval = agreement.alpha_interval(np.stack([noisy(truth, 0.7, draw) for _ in range(3)]))
        held += interval.low <= 0.49 <= interval.high
    assert 180 <= held <= 199


# ------------------------------------------------------------------------------------------------ pairs


def test_pictures_of_the_same_name_are_a_pair(tmp_path: Path) -> None:
    a = painted(tmp_path / "a", ["x.png", "y.png", "below/z.png"], 1)
    b = painted(tmp_path / "b", ["y.png", "below/z.png", "w.png"], 2)
    (a / "notes.txt").write_text("no picture")
    pairs, alone = pairs_of(a, b)
    assert [pair.name for pair in pairs] == ["below/z.png", "y.png"]
    assert alone == 2
    assert [pair.name for pair in pairs_of(a, b, "0/")[0]] == ["0/below/z.png", "0/y.png"]


def listed(folder: Path, rows: list[dict]) -> None:
    pd.DataFrame(rows).to_csv(folder / "pictures.csv", index=False)


def test_a_table_lists_pictures_and_pairs_have_one_prompt(tmp_path: Path) -> None:
    a, b = (painted(tmp_path / name, ["x.png", "y.png"], 1) for name in "ab")
    listed(a, [{"file": "x.png", "prompt": "a cat"}])
    listed(b, [{"file": "x.png", "prompt": "a cat"}, {"file": "y.png", "prompt": "a dog"}])
    pairs, alone = pairs_of(a, b)
    assert ([pair.name for pair in pairs], alone) == (["x.png"], 1)
    listed(b, [{"file": "x.png", "prompt": "a dog"}])
    with pytest.raises(ValueError, match=r"a/x\.png: painted for another prompt than"):
        pairs_of(a, b)
    listed(b, [{"file": "x.png"}])  # no prompt to compare with
    assert len(pairs_of(a, b)[0]) == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"file": "../alpha/x.png"}], "would leave the folder"),
        ([{"file": "/etc/x.png"}], "would leave the folder"),
        ([{"file": "x.png"}, {"file": "x.png"}], "listed twice"),
        ([{"picture": "x.png"}], "columns missing: file"),
    ],
)
def test_a_bad_table_is_one_line(rows: list[dict], said: str, tmp_path: Path) -> None:
    a, b = (painted(tmp_path / name, ["x.png"], 1) for name in "ab")
    listed(b, rows)
    with pytest.raises(ValueError, match=said) as caught:
        pairs_of(a, b)
    assert str(b) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_do_not_pair_up_are_one_line(tmp_path: Path) -> None:
    a, b = painted(tmp_path / "a", ["x.png"], 1), painted(tmp_path / "b", ["y.png"], 1)
    for first, second, said in (
        (a, b, r"no picture has the same name in both \(1 and 1 pictures\)"),
        (a, a, "compared with itself"),
        (a, tmp_path / "none", "none: cannot be read"),
        (a, b / "y.png", r"y\.png: cannot be read \(no folder\)"),
    ):
        with pytest.raises(ValueError, match=said):
            pairs_of(first, second)


def test_embedded_pictures_are_the_pixels_and_nothing_else(tmp_path: Path) -> None:
    remarks = PngImagePlugin.PngInfo()
    remarks.add_text("model", "the secret model")
    pixels = np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=remarks, dpi=(300, 300), icc_profile=b"secret" * 30)
    Image.fromarray(255 - pixels).save(tmp_path / "b.png")
    first, second = map(decoded, embedded(Pair("a", tmp_path / "a.png", tmp_path / "b.png")))
    assert np.array_equal(np.asarray(first), pixels)
    assert np.array_equal(np.asarray(second), 255 - pixels)
    assert set(first.info) == set(second.info)
    assert "secret" not in str(first.info)


def test_two_sizes_and_what_is_no_picture_are_refused(tmp_path: Path) -> None:
    painted(tmp_path, ["a.png"], 1, side=8)
    painted(tmp_path, ["b.png"], 1, side=9)
    with pytest.raises(ValueError, match="8x8 and 9x9 pixels, which a rater would tell apart"):
        embedded(Pair("x", tmp_path / "a.png", tmp_path / "b.png"))
    (tmp_path / "c.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"c\.png"):
        embedded(Pair("x", tmp_path / "a.png", tmp_path / "c.png"))


# ------------------------------------------------------------------------------------------------ sittings


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20, 21])
def test_a_sitting_shows_every_pair_in_each_question_and_balances_sides(n: int) -> None:
    shown = sittings.schedule(list(range(100, 100 + n)), 1, SECRET)
    assert len({each.id for each in shown}) == len(shown)
    assert [each.question for each in shown] == sorted((each.question for each in shown), key=sittings.QUESTIONS.index)
    for question in sittings.QUESTIONS:
        task = [each for each in shown if each.question == question]
        first = {each.pair: each for each in task if not each.again}
        again = [each for each in task if each.again]
        assert sorted(first) == list(range(100, 100 + n))
        assert len(again) == round(0.2 * n) == len({each.pair for each in again})
        assert all(first[each.pair].left != each.left for each in again)
        assert all(task.index(first[each.pair]) + 1 < task.index(each) for each in again)
        sides = Counter(each.left for each in task)
        assert abs(sides["A"] - sides["B"]) <= (n % 2) + (len(again) % 2)


def test_a_sitting_of_twenty_is_balanced_exactly_and_repeats_come_late() -> None:
    for number in range(50):
        shown = sittings.schedule(list(range(20)), 1, secret(number))
        for question in sittings.QUESTIONS:
            task = [each for each in shown if each.question == question]
            assert Counter(each.left for each in task) == {"A": 12, "B": 12}
            first = {each.pair: place for place, each in enumerate(task) if not each.again}
            assert min(place - first[each.pair] for place, each in enumerate(task) if each.again) >= 6


def test_questions_and_pages_have_orders_and_sides_of_their_own() -> None:
    def order(number: int, question: str) -> list:
        shown = sittings.schedule(list(range(20)), 1, secret(number))
        return [(each.pair, each.left) for each in shown if each.question == question and not each.again]

    assert order(1, "flaws") == order(1, "flaws") != order(1, "appeal")
    assert order(1, "flaws") != order(2, "flaws")


def test_opaque_names_are_letters_that_tell_nothing() -> None:
    names = {sittings.opaque(secret(i), "flaws", j) for i in range(50) for j in range(50)}
    assert len(names) == 2500
    assert all(re.fullmatch("[b-df-hj-np-tv-z]{12}", name) for name in names)


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_holds_everything_and_names_nothing(tmp_path: Path) -> None:
    pairs = two_folders(tmp_path, 20)
    written = page.write(pairs, ("alpha-model", "beta-model"), 20, tmp_path / "out", SECRET)
    text, content = written.page.read_text(), content_of(written.page)
    for told in ("alpha", "beta", "0-0001", ".png", "untuned", str(tmp_path), SECRET.hex(), "key.json"):
        assert told not in re.sub(r"base64,[^\"]*|<script>.*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", text) == ["data:,"]
    assert re.search(r"https?://|url\(|@import", text) is None
    assert set(content) == {"page", "sittings", "pictures"}
    key = votes.read_key(written.key)
    names = {pair.name: pair for pair in pairs}
    for identity, question, left, right in content["sittings"][0]["shown"]:
        meant = key.shown[identity]
        pair = names[meant.name]
        sides = (pair.a, pair.b) if meant.left == "A" else (pair.b, pair.a)
        assert meant.question == question
        for place, path in zip((left, right), sides, strict=True):
            with Image.open(path) as image:
                assert np.array_equal(np.asarray(decoded(content["pictures"][place])), np.asarray(image))


def test_nothing_on_the_page_but_pixels_depends_on_which_folder_is_which(tmp_path: Path) -> None:
    """Guesses that a page might reward, over many pages: A is the earlier of two pictures; A is on the left first."""
    pairs, earlier, left, pages = two_folders(tmp_path, 4), [], [], 150
    for number in range(pages):
        written = page.write(pairs, ("a", "b"), 4, tmp_path / "out", secret(number))
        content, key = content_of(written.page), votes.read_key(written.key)
        first, *_ = content["sittings"][0]["shown"]
        is_left = key.shown[first[0]].left == "A"
        left.append(is_left)
        earlier.append((first[2] < first[3]) == is_left)
    for guesses in (earlier, left):
        assert abs(np.mean(guesses) - 0.5) < 3.5 * 0.5 / pages**0.5


def test_the_policy_names_exactly_the_pages_own_style_and_script(tmp_path: Path) -> None:
    import hashlib

    written = page.write(two_folders(tmp_path, 2), ("a", "b"), 2, tmp_path / "out", SECRET)
    text = written.page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_pages_have_sittings_and_never_replace_one_another(tmp_path: Path) -> None:
    pairs = two_folders(tmp_path, 7)
    written = [page.write(pairs, ("a", "b"), 3, tmp_path / "out") for _ in range(2)]
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert all((each.sittings, each.pairs) == (3, 7) for each in written)
    content = content_of(written[0].page)
    assert [len(sitting["shown"]) for sitting in content["sittings"]] == [8, 8, 2]
    key = votes.read_key(written[0].key)
    assert {meant.name for meant in key.shown.values()} == {pair.name for pair in pairs}
    assert {meant.sitting for meant in key.shown.values()} == {sitting["id"] for sitting in content["sittings"]}


def test_a_page_holds_as_many_whole_sittings_as_a_telephone_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = two_folders(tmp_path, 9)
    size = sum(map(len, embedded(pairs[0])))
    monkeypatch.setattr(page, "MOST_BYTES", int(5.5 * size))
    written = page.write(pairs, ("a", "b"), 2, tmp_path / "out")
    assert (written.sittings, written.pairs) == (2, 4)
    assert len(content_of(written.page)["pictures"]) == 8
    with pytest.raises(ValueError, match="a sitting of 6 pairs is more than"):
        page.write(pairs, ("a", "b"), 6, tmp_path / "out")


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    written = page.write(two_folders(tmp_path, 2), ("a", "b"), 2, tmp_path / "out")
    written.key.write_text(written.key.read_text().replace('"left": "A"', '"left": "B"', 1))
    with pytest.raises(ValueError, match="damaged"):
        votes.read_key(written.key)


# ------------------------------------------------------------------------------------------------ tables of votes


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> page.Written:
    """A page of 600 pairs, as many as the paper's."""
    root = tmp_path_factory.mktemp("asked")
    return page.write(two_folders(root, 600, side=2), ("tuned", "untuned"), 20, root / "sittings", SECRET)


def rows_of(key: votes.Key, rater: str, answer, sitting: str | None = None) -> list[list[str]]:
    """A rater's table: ``answer`` of each meaning, in the order of the key."""
    return [
        [rater, meant.sitting, identity, meant.question, answer(meant), "1200"]
        for identity, meant in key.shown.items()
        if sitting in (None, meant.sitting)
    ]


def write_rows(path: Path, rows: list[list[str]]) -> Path:
    path.write_text("\n".join(",".join(row) for row in [list(votes.COLUMNS), *rows]) + "\n")
    return path


def for_a(meant: votes.Meaning) -> str:
    return "left" if meant.left == "A" else "right"


def for_b(meant: votes.Meaning) -> str:
    return "right" if meant.left == "A" else "left"


def test_answers_are_turned_into_votes_whatever_the_side(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    one = f"{key.page}-1"
    said = {"flaws": for_a, "appeal": for_b}
    path = write_rows(tmp_path / "ada.csv", rows_of(key, "Ada", lambda meant: said[meant.question](meant), one))
    read = votes.read([path, path], {key.page: key})
    assert len(read) == 48  # a file that is given twice counts once
    table = results.tables(read).results.set_index("question")
    assert table.loc["flaws", ["A", "B", "raters", "pairs", "win", "tie", "lose"]].tolist() == [
        *("tuned", "untuned", 1, 20, 100.0, 0.0, 0.0)
    ]
    assert table.loc["appeal", ["win", "lose", "net"]].tolist() == [0.0, 100.0, -100.0]
    raters = results.tables(read).raters
    assert raters["same"].tolist() == [100.0, 100.0]
    assert raters["left"].tolist() == [0.0, 0.0]
    assert raters["seconds"].tolist() == [1.2, 1.2]


def test_one_who_always_says_left_prefers_nothing_but_the_left(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    path = write_rows(tmp_path / "left.csv", rows_of(key, "Lefty", lambda _: "left"))
    own = results.tables(votes.read([path], {key.page: key})).raters.iloc[0]
    assert (own["left"], own["same"], own["repeated"]) == (100.0, 0.0, 120)
    assert abs(own["net"]) < 1e-9


CHANCES = {  # rater -> chances of A, tie and B, and of pointing to the left whatever is there
    "fond": ((0.55, 0.25, 0.20), 0.0),
    "left handed": ((0.40, 0.30, 0.30), 0.3),
    "undecided": ((0.05, 0.90, 0.05), 0.0),
}


def simulated(key: votes.Key, rater: str, seed: int) -> list[list[str]]:
    chances, left = CHANCES[rater]
    draw = np.random.default_rng(seed)

    def answer(meant: votes.Meaning) -> str:
        if draw.random() < left:
            return "left"
        said = draw.choice(3, p=chances)
        return (for_a(meant), "tie", for_b(meant))[said]

    return rows_of(key, rater, answer)


def truth_of(rater: str) -> np.ndarray:
    """Chances that A wins, ties, loses: pointing left is A's win as often as B's."""
    chances, left = CHANCES[rater]
    return (1 - left) * np.array(chances) + left * np.array([0.5, 0, 0.5])


def majority_truth() -> float:
    """The mean of the majority's vote, over all that three raters may say."""
    total = 0.0
    for said in product(range(3), repeat=3):
        chance = np.prod([truth_of(rater)[each] for rater, each in zip(CHANCES, said, strict=True)])
        total += float(chance) * int(majority([1 - each for each in said]))
    return total


def repeats_itself(rater: str) -> float:
    """The chance of one vote on both showings, on other sides."""
    chances, left = CHANCES[rater]
    a, tie, b = ((1 - left) * each for each in chances)
    return (a + left) * a + tie**2 + b * (b + left)


def test_three_simulated_raters_come_back_within_their_intervals(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    paths = [write_rows(tmp_path / f"{i}.csv", simulated(key, name, 10 + i)) for i, name in enumerate(CHANCES)]
    counted = results.tables(votes.read(paths, {key.page: key}))
    assert len(counted.raters) == 6
    for row in counted.raters.to_dict("records"):
        win, tie, lose = 100 * truth_of(row["rater"])
        assert row["pairs"] == 600
        assert row["low"] <= win - lose <= row["high"], row
        for name, value in (("win", win), ("tie", tie), ("lose", lose)):
            assert abs(row[name] - value) < 3 * (value * (100 - value) / 600) ** 0.5
        assert row["left_low"] <= 100 * CHANCES[row["rater"]][1] <= row["left_high"], row
        assert row["same_low"] <= 100 * repeats_itself(row["rater"]) <= row["same_high"], row
    for row in counted.results.to_dict("records"):
        assert row["raters"] == 3
        assert row["low"] <= 100 * majority_truth() <= row["high"], row
    assert 100 * majority_truth() > 10  # so that an interval may miss it
    assert counted.raters.query("rater == 'left handed'")["left_low"].min() > 20
    assert counted.raters.query("rater == 'undecided'")["left_high"].max() < 5


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """At the size of a few sittings; of one who mostly ties, whose votes are far from normal, a little less."""
    draw = np.random.default_rng(4)
    for rater, least in (("fond", 0.92), ("left handed", 0.92), ("undecided", 0.85)):
        truth = truth_of(rater)
        intervals = [net_interval(draw.choice([1, 0, -1], 60, p=truth)) for _ in range(500)]
        held = np.mean([each.low <= truth[0] - truth[2] <= each.high for each in intervals])
        assert least <= held <= 0.985, (rater, held)


def test_raters_who_share_a_truth_agree_as_far_as_they_see_it(asked: page.Written, tmp_path: Path) -> None:
    key, draw = votes.read_key(asked.key), np.random.default_rng(5)
    truth = {meant.name: draw.integers(3) for meant in key.shown.values()}

    def answer(meant: votes.Meaning) -> str:
        said = truth[meant.name] if draw.random() < 0.8 else draw.integers(3)
        return (for_a(meant), "tie", for_b(meant))[said]

    paths = [write_rows(tmp_path / f"{name}.csv", rows_of(key, name, answer)) for name in ("p", "q", "r", "s")]
    for row in results.tables(votes.read(paths, {key.page: key})).agreement.to_dict("records"):
        assert (row["raters"], row["pairs"]) == (4, 600)
        assert row["alpha_low"] <= 0.64 <= row["alpha_high"]
        assert row["ordered_low"] <= 0.64 <= row["ordered_high"]
        assert row["alpha_high"] - row["alpha_low"] < 0.1


def test_rejected_pairs_are_left_out_of_appeal_alone(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    one = f"{key.page}-1"
    odd = sorted({meant.name for meant in key.shown.values() if meant.sitting == one})[:3]

    def answer(meant: votes.Meaning) -> str:
        return "reject" if meant.question == "appeal" and meant.name in odd else for_a(meant)

    paths = [write_rows(tmp_path / f"{name}.csv", rows_of(key, name, answer, one)) for name in ("p", "q")]
    counted = results.tables(votes.read(paths, {key.page: key}))
    table = counted.results.set_index("question")
    assert table["rejected"].to_dict() == {"flaws": 0, "appeal": 3}
    assert table["pairs"].to_dict() == {"flaws": 20, "appeal": 17}
    assert "-" in results.printed(counted)  # alpha of raters who all say the same


def test_the_same_pictures_on_another_page_are_the_same_pair(tmp_path: Path) -> None:
    """A second page of the same folders asks a rater again; pictures that were painted anew are others."""
    pairs = two_folders(tmp_path, 4)
    pages = [page.write(pairs, ("a", "b"), 4, tmp_path / "out", secret(number)) for number in (1, 2)]
    painted(tmp_path / "beta-model", [pairs[0].name], 7)
    pages.append(page.write(pairs, ("a", "b"), 4, tmp_path / "out", secret(3)))
    keys = {key.page: key for key in (votes.read_key(each.key) for each in pages)}
    said = zip(keys.values(), (for_a, for_b, for_a), strict=True)
    paths = [write_rows(tmp_path / f"{i}.csv", rows_of(key, "Ada", answer)) for i, (key, answer) in enumerate(said)]
    counted = results.tables(votes.read(paths[:2], keys)).results
    assert counted["pairs"].tolist() == [4, 4]
    assert counted["win"].tolist() == [100.0, 100.0]
    assert results.tables(votes.read(paths, keys)).results["pairs"].tolist() == [5, 5]


def test_the_printed_table_is_the_papers(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    path = write_rows(tmp_path / "ada.csv", rows_of(key, "Ada", for_a))
    text = results.printed(results.tables(votes.read([path], {key.page: key})))
    first, _, header, row, *_ = text.splitlines()
    assert first == "A: tuned, B: untuned"
    assert re.split(r"\s+", header.strip())[:5] == ["question", "raters", "pairs", "A", "wins"]
    assert row.split()[:7] == ["flaws", "1", "600", "100.0", "0.0", "0.0", "100.0"]
    assert max(map(len, text.splitlines())) <= 120
    assert "standard error" in text


# ------------------------------------------------------------------------------------------------ hostile tables


def good(key: votes.Key) -> list[list[str]]:
    """A sitting's table, flaws first."""
    return sorted(rows_of(key, "Ada", for_a, f"{key.page}-1"), key=lambda row: sittings.QUESTIONS.index(row[3]))


def with_cell(column: str, text: str):
    def spoil(key: votes.Key) -> bytes:
        rows = good(key)
        rows[2][votes.COLUMNS.index(column)] = text
        return table(rows)

    return spoil


def table(rows: list[list[str]], end: str = "\n") -> bytes:
    return ("\n".join(",".join(row) for row in [list(votes.COLUMNS), *rows]) + end).encode()


HOSTILE = {  # what the file holds, and what its one line says
    "empty": (lambda key: b"", "first line: expected rater,sitting"),
    "another table": (lambda key: b"a,b\n1,2\n", "first line: expected rater,sitting"),
    "semicolons": (lambda key: table(good(key)).replace(b",", b";"), "first line"),
    "a column too many": (lambda key: table([[*row, "x"] for row in good(key)]), "line 2: 7 of 6 fields"),
    "cut in mid-row": (lambda key: table(good(key))[:-20], "fields"),
    "cut in its last cell": (lambda key: table(good(key))[:-2], "cut off in mid-row"),
    "an open quote": (lambda key: table(good(key)) + b'"Ada', "line 50"),
    "not UTF-8": (lambda key: table(good(key)) + b"caf\xe9,\n", "0xe9"),
    "NUL": (lambda key: table(good(key)) + b"\0", "line 50: a NUL"),
    "random": (lambda key: np.random.default_rng(1).bytes(3000), "UTF-8"),
    "no votes": (lambda key: table([]), "no votes"),
    "too large": (lambda key: table(good(key)) + b" " * votes.MOST_BYTES, "at most"),
    "too many rows": (lambda key: b"\n".join([table([]).strip(), *[b"a,b,c,d,e,f"] * 50_002, b""]), "more than 50000"),
    "a formula": (with_cell("rater", "=1+2"), "line 4: rater '=1+2'"),
    "no name": (with_cell("rater", ""), "line 4: rater ''"),
    "a name in bold": (with_cell("rater", "<b>x</b>"), "line 4: rater"),
    "a long name": (with_cell("rater", "x" * 41), "line 4: rater"),
    "a name that turns round": (with_cell("rater", "a\u202eb"), "line 4: rater 'a\\u202eb'"),
    "another page": (with_cell("sitting", "zzzz-1"), "line 4: sitting 'zzzz-1': the key of its page is not at hand"),
    "a path": (with_cell("sitting", "../../etc/passwd-1"), "line 4: sitting"),
    "another sitting": (lambda key: with_cell("sitting", f"{key.page}-2")(key), "is of"),
    "an unknown pair": (with_cell("pair", "bcdfghjkmnpq"), "line 4: pair 'bcdfghjkmnpq'"),
    "another question": (with_cell("question", "appeal"), "line 4: question 'appeal'"),
    "another answer": (with_cell("answer", "Left"), "line 4: answer 'Left': expected left, tie, right"),
    "flaws rejected": (with_cell("answer", "reject"), "line 4: answer 'reject'"),
    "time in words": (with_cell("milliseconds", "fast"), "line 4: milliseconds 'fast'"),
    "negative time": (with_cell("milliseconds", "-5"), "line 4: milliseconds"),
    "time as a power": (with_cell("milliseconds", "1e3"), "line 4: milliseconds"),
    "time in other digits": (with_cell("milliseconds", "١٢"), "line 4: milliseconds"),
    "endless time": (with_cell("milliseconds", "9" * 400), "line 4: milliseconds"),
    "two votes": (lambda key: table([*good(key), [*good(key)[0][:4], "tie", "5"]]), "two people of one name?"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table_is_one_line_that_names_file_and_row(name: str, asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    make, said = HOSTILE[name]
    path = tmp_path / "votes.csv"
    path.write_bytes(make(key))
    with pytest.raises(ValueError, match=r"votes\.csv") as caught:
        votes.read([path], {key.page: key})
    line = str(caught.value)
    assert said in line
    assert line.isprintable()
    assert len(line) < 500 + len(str(path))


def test_what_is_no_file_is_one_line(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(ValueError, match="cannot be read") as caught:
            votes.read([path], {key.page: key})
        assert str(path) in str(caught.value)


def test_every_fault_is_a_line_but_no_more_than_ten(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    path = write_rows(tmp_path / "votes.csv", [[*row[:4], f"?{i}", row[5]] for i, row in enumerate(good(key))])
    with pytest.raises(ValueError, match="line 2: answer") as caught:
        votes.read([path], {key.page: key})
    assert len(str(caught.value).splitlines()) == 11
    assert str(caught.value).endswith("and 38 more")


def test_the_same_fault_of_many_rows_is_one_line(asked: page.Written, tmp_path: Path) -> None:
    key = votes.read_key(asked.key)
    path = write_rows(tmp_path / "votes.csv", good(key))
    with pytest.raises(ValueError, match=r"line 2: sitting '\w+-1': the key of its page is not at hand") as caught:
        votes.read([path], {})
    assert str(caught.value).endswith(", and so in 47 rows more")
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_spreadsheet_makes_of_a_table_is_read(asked: page.Written, tmp_path: Path) -> None:
    """A byte order mark, other line ends, quotes, an empty line at the end; and a name in either normal form."""
    key = votes.read_key(asked.key)
    path = tmp_path / "votes.csv"
    text = table([["Zoe\u0308", *row[1:]] for row in good(key)]).decode()
    path.write_bytes(
        b"\xef\xbb\xbf" + text.replace("Zoe\u0308", '"Zo\u00eb"', 5).replace("\n", "\r\n").encode() + b"\r\n"
    )
    read = votes.read([path], {key.page: key})
    assert len(read) == 48
    assert set(read["rater"]) == {"Zo\u00eb"}


def test_keys_of_a_folder(asked: page.Written) -> None:
    assert list(votes.keys_of(asked.key.parent)) == [asked.key.name.removesuffix(KEY)]
