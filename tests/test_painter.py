"""The painted world: the same bytes always, true words, styles that can be told apart, a layout that loads."""

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from atelier.data.artemis import load_works
from atelier.data.names import artist_and_title
from atelier.data.painter import (
    EMOTIONS,
    STYLES,
    SUBJECTS,
    VERSION,
    paint_corpus,
    paint_photograph,
    paint_work,
    subject_mask,
    write_world,
)
from atelier.data.painter import works as hands
from atelier.data.painter.canvas import Canvas, grey
from atelier.data.painter.lights import COLOURS, LIGHTS
from atelier.data.painter.moods import MOODS
from atelier.data.painter.words import NUMBERS, TITLES

WORKS, PHOTOGRAPHS = 40, 20  # of the small world on disk
SHOTS = 200  # photographs of the corpus in memory


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, list[dict]]:
    """200 photographs, then 600 works."""
    pictures, truth, _ = paint_corpus(600, SHOTS, seed=5, size=64, workers=2)
    return pictures, truth


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world on disk, written by two processes."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, WORKS, PHOTOGRAPHS, seed=3, workers=2)
    return folder


def read(path: Path) -> list[dict[str, str]]:
    """A CSV's rows, by Python's own reader."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------------------------------- determinism


def test_a_work_depends_on_nothing_painted_before() -> None:
    first = [paint_work(1, index) for index in range(12)]
    again = [paint_work(1, index) for index in reversed(range(12))][::-1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        assert (a.painting, a.annotations) == (b.painting, b.annotations)


def test_a_subjects_mask_is_that_of_the_scene_that_was_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Canvas] = []

    def watched(canvas: Canvas, *others):
        seen.append(canvas)
        return render(canvas, *others)

    render = hands.render
    monkeypatch.setattr(hands, "render", watched)
    for index in range(12):
        picture = paint_work(1, index, 32).picture
        covered = seen[-1].subject
        mask = subject_mask(1, index, 32)
        assert mask.shape == (32, 32)
        full, none = (covered[::2, ::2] == value for value in (True, False))
        for rows, columns in ((0, 1), (1, 0), (1, 1)):
            full &= covered[rows::2, columns::2]
            none &= ~covered[rows::2, columns::2]
        assert full.any()
        assert mask[full].all()
        assert not mask[none].any()
        assert 0.01 < mask.mean() < 0.95
        np.testing.assert_array_equal(picture, paint_work(1, index, 32).picture)  # nothing of it was drawn
    assert len({subject_mask(1, index).tobytes() for index in range(12)}) == 12


def test_a_subjects_mask_does_not_depend_on_the_hand_but_on_what_was_asked_for() -> None:
    first, *others = [STYLES[style][0] for style in ("Mosaic", "Watercolor", "Cubism")]
    for artist in others:  # the scene is drawn by itself
        assert paint_work(1, 3, artist=artist).title == paint_work(1, 3, artist=first).title
    asked = {"subject": "fish", "emotion": "awe"}
    assert not np.array_equal(subject_mask(1, 3, **asked), subject_mask(1, 3))
    np.testing.assert_array_equal(subject_mask(1, 3, subject=paint_work(1, 3).subject), subject_mask(1, 3))
    large = subject_mask(1, 3, 128).reshape(64, 2, 64, 2).mean((1, 3)) > 0.5
    assert (large == subject_mask(1, 3)).mean() > 0.95


def test_another_process_paints_the_same_bytes() -> None:
    code = (
        "import hashlib; from atelier.data.painter import *;"
        "works = [paint_work(1, i) for i in range(10)]; shots = [paint_photograph(1, i) for i in range(4)];"
        "print(hashlib.sha256(b''.join(p.picture.tobytes() for p in works + shots)"
        " + repr([w.annotations for w in works]).encode()).hexdigest())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    works, shots = [paint_work(1, i) for i in range(10)], [paint_photograph(1, i) for i in range(4)]
    data = b"".join(p.picture.tobytes() for p in [*works, *shots]) + repr([w.annotations for w in works]).encode()
    assert said == hashlib.sha256(data).hexdigest()


def test_workers_change_no_byte(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path, WORKS, PHOTOGRAPHS, seed=3, workers=1)
    assert digest(tmp_path) == digest(world)
    one, two = (paint_corpus(20, 20, seed=3, size=32, workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:] == two[1:]


def test_seeds_and_indices_differ() -> None:
    pictures = [paint_work(seed, index).picture.tobytes() for seed in (1, 2) for index in range(20)]
    assert len(set(pictures)) == 40


@pytest.mark.parametrize("size", [32, 64, 96, 128])
def test_every_style_paints_at_every_size(size: int) -> None:
    for style in STYLES:
        assert paint_work(0, 1, size, style=style).picture.shape == (size, size, 3)
    assert paint_photograph(0, 1, size).picture.dtype == np.uint8


# -------------------------------------------------------------------------------------- attributes


def test_fixed_attributes_hold_and_leave_the_scene_alone() -> None:
    free = paint_work(4, 7)
    for style, artists in STYLES.items():
        for artist in artists:
            work = paint_work(4, 7, artist=artist, subject=free.subject, emotion=free.emotion)
            assert (work.art_style, work.artist) == (style, artist)
            assert (work.light, work.colour, work.count, work.title) == (
                free.light,
                free.colour,
                free.count,
                free.title,
            )


def test_a_corpus_keeps_to_the_artists_that_are_named() -> None:
    pictures, truth, said = paint_corpus(40, 5, seed=2, size=32, workers=1, artists=("bruno-castell", "greta-amsel"))
    assert {record["artist"] for record in truth[5:]} == {"bruno-castell", "greta-amsel"}
    assert {record["art_style"] for record in truth[5:]} == {"Flat_Poster", "Expressionism"}
    assert [len(caption["utterances"]) > 1 for caption in said] == [False] * 5 + [True] * 40
    work = paint_work(2, 3, 32, artist=str(truth[8]["artist"]))
    np.testing.assert_array_equal(pictures[8], work.picture)
    assert said[8] == {"emotions": [e for e, _ in work.annotations], "utterances": [u for _, u in work.annotations]}


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_an_emotion_can_be_dialled(emotion: str) -> None:
    """Strength 0 is no emotion at all, whatever its name; the farther the dial, the farther the picture."""
    plain = paint_work(4, 7, emotion=emotion, subject="boat", style="Watercolor", strength=0.0)
    steps = [
        paint_work(4, 7, emotion=emotion, subject="boat", style="Watercolor", strength=strength).picture.astype(float)
        for strength in (0.25, 0.5, 1.0, 1.5)
    ]
    away = [float(np.abs(picture - plain.picture).mean()) for picture in steps]
    if emotion != "something else":
        assert away[0] > 1
        assert away == sorted(away)
    else:
        assert max(away) < 6


def test_strengths_vary_and_are_told() -> None:
    strengths = [paint_work(4, index, 32).strength for index in range(60)]
    assert 0.75 <= min(strengths) < 0.85
    assert 1.15 < max(strengths) <= 1.25


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"style": "Kitsch"}, r"^style: expected one of Impressionism, .*, got 'Kitsch'$"),
        ({"artist": "nobody"}, r"^artist: expected one of odile-marchand, .*, got 'nobody'$"),
        (
            {"style": "Mosaic", "artist": "bruno-castell"},
            r"^artist of Mosaic: expected one of .*, got 'bruno-castell'$",
        ),
        ({"subject": "unicorn"}, r"^subject: expected one of boat, .*, got 'unicorn'$"),
        ({"emotion": "joy"}, r"^emotion: expected one of amusement, .*, got 'joy'$"),
    ],
)
def test_the_unknown_is_refused_in_one_line(wrong: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        paint_work(0, 0, **wrong)


def test_everything_occurs(corpus: tuple[np.ndarray, list[dict]]) -> None:
    works = [r for r in corpus[1] if r["kind"] == "work"]
    assert [r["kind"] for r in corpus[1]] == ["photograph"] * SHOTS + ["work"] * 600
    assert {r["emotion"] for r in works} == set(EMOTIONS) == set(MOODS)
    assert {r["subject"] for r in works} == set(SUBJECTS) == {r["subject"] for r in corpus[1][:SHOTS]}
    assert {(r["art_style"], r["artist"]) for r in works} == {(s, a) for s, artists in STYLES.items() for a in artists}
    assert len({r["painting"] for r in corpus[1]}) == len(corpus[1])


# ------------------------------------------------------------------------------------------- words


def test_titles_are_true(corpus: tuple[np.ndarray, list[dict]]) -> None:
    many = {number: word for number, word in NUMBERS.items() if number > 1}
    for r in corpus[1]:
        title, kind = r["title"], SUBJECTS[r["subject"]]
        plural = r["count"] > 1 and r["subject"] != "bridge"
        assert (kind.many if plural else kind.one) in re.findall(r"\w+", title), title
        said = {name for name in COLOURS if name in title.split()}
        assert said <= {r["colour"]}, title
        hours = {name for name, light in LIGHTS.items() for p in light.phrases if title.endswith(p)}
        assert hours <= {r["light"]}, title
        counts = {number for number, word in many.items() if word in title.split()}
        assert counts <= {r["count"]}, title
    titles = {r["title"] for r in corpus[1]}
    assert len(titles) > 0.6 * len(corpus[1])
    assert len(TITLES) >= 12


def test_slugs_say_artist_and_title_to_the_loader(corpus: tuple[np.ndarray, list[dict]]) -> None:
    for r in corpus[1]:
        artist, title, year = artist_and_title(r["painting"])
        assert artist.lower() == r["artist"].replace("-", " ")
        assert title == r["title"].replace(",", "")
        assert year is not None


def test_annotations_agree_on_the_emotion() -> None:
    works = [paint_work(2, index, 16) for index in range(300)]
    for work in works:
        votes = Counter(emotion for emotion, _ in work.annotations)
        assert 2 <= len(work.annotations) <= 5
        assert votes[work.emotion] > len(work.annotations) / 2
    utterances = [text for work in works for _, text in work.annotations]
    assert len(set(utterances)) > 0.9 * len(utterances)
    assert all(text == text.lower() and "{" not in text for text in utterances)
    assert any('"' in text for text in utterances)
    assert any("," in text for text in utterances)


# ------------------------------------------------------------------------------------ what is seen


def test_light_and_mood_show(corpus: tuple[np.ndarray, list[dict]]) -> None:
    pictures, records = corpus
    shots = records[:SHOTS]
    level = {light: np.mean([r["luminance"] for r in shots if r["light"] == light]) for light in LIGHTS}
    assert level["night"] < level["dusk"] < level["noon"]
    assert level["storm"] < level["mist"]
    assert np.std([r["luminance"] for r in shots]) > 0.15  # the spread that signal leak narrows
    mood = {e: np.mean([r["luminance"] for r in records[SHOTS:] if r["emotion"] == e]) for e in EMOTIONS}
    assert mood["fear"] < mood["sadness"] < mood["amusement"]
    colour = {
        e: pictures[SHOTS:][[r["emotion"] == e for r in records[SHOTS:]]].mean(axis=(0, 1, 2))
        for e in ("anger", "disgust")
    }
    assert colour["anger"].argmax() == 0
    assert colour["disgust"].argmax() == 1


def powers(pictures: np.ndarray) -> np.ndarray:
    """log mean power (n, 31) of luminance at 2 .. 32 cycles a picture."""
    level = grey(pictures / 255.0)
    power = np.abs(np.fft.fft2(level - level.mean(axis=(1, 2), keepdims=True))) ** 2
    f = np.fft.fftfreq(64) * 64
    ring = np.round(np.hypot(f[:, None], f)).astype(int)
    return np.log(np.stack([power[:, ring == k].mean(axis=1) for k in range(2, 33)], axis=1) + 1e-3)


def slope(pictures: np.ndarray) -> float:
    """Of the mean log power against log frequency."""
    return float(np.polyfit(np.log(np.arange(2, 33)), powers(pictures).mean(axis=0), 1)[0])


def test_photographs_have_natural_spectra(corpus: tuple[np.ndarray, list[dict]]) -> None:
    assert -2.6 < slope(corpus[0][:SHOTS]) < -1.7


def test_styles_have_spectra_of_their_own(corpus: tuple[np.ndarray, list[dict]]) -> None:
    styles = np.array([r["art_style"] for r in corpus[1]])
    slopes = {style: slope(corpus[0][styles == style]) for style in STYLES}
    assert max(slopes.values()) - min(slopes.values()) > 1.5
    assert slopes["Color_Field_Painting"] == min(slopes.values())
    assert slopes["Mosaic"] > slopes["Impressionism"] > slopes["Watercolor"]


def features(pictures: np.ndarray) -> np.ndarray:
    """(n, 41): log spectrum, mean and spread of each channel, spread of the picture's rim, share of darkest pixels."""
    p = pictures / 255.0
    level = grey(p)
    rim = np.concatenate([level[:, 0], level[:, -1]], axis=1)
    bands = [np.quantile(level, q, axis=(1, 2)) for q in (0.05, 0.95)]
    return np.concatenate(
        [
            powers(pictures),
            p.mean(axis=(1, 2)),
            p.std(axis=(1, 2)),
            np.stack([rim.std(axis=1), rim.mean(axis=1), *bands], 1),
        ],
        axis=1,
    )


def lda_accuracy(train: np.ndarray, train_y: np.ndarray, test: np.ndarray, test_y: np.ndarray) -> float:
    """Nearest class mean in the metric of the pooled covariance within classes."""
    names = sorted(set(train_y))
    means = np.stack([train[train_y == name].mean(axis=0) for name in names])
    within = np.cov((train - means[np.searchsorted(names, train_y)]).T) + 1e-4 * np.eye(train.shape[1])
    inverse = np.linalg.inv(within)
    away = test[:, None] - means
    nearest = np.einsum("ncd,de,nce->nc", away, inverse, away).argmin(axis=1)
    return float((np.array(names)[nearest] == test_y).mean())


def test_styles_and_moods_can_be_told_apart(corpus: tuple[np.ndarray, list[dict]]) -> None:
    """41 simple numbers a picture tell, on another seed, 70 % of styles (chance 10 %) and 55 % of emotions (11 %)."""
    held, truth, _ = paint_corpus(300, 0, seed=6, size=64, workers=2)
    works = corpus[0][SHOTS:], corpus[1][SHOTS:]
    known, unseen = features(works[0]), features(held)
    for key, bar in (("art_style", 0.7), ("emotion", 0.55)):
        labels, true = np.array([r[key] for r in works[1]]), np.array([r[key] for r in truth])
        assert lda_accuracy(known, labels, unseen, true) > bar, key


# ------------------------------------------------------------------------------------ on the disk


def test_the_layout_is_that_of_artemis(world: Path) -> None:
    rows, truth = read(world / "artemis_dataset_release_v0.csv"), read(world / "truth.csv")
    header = (world / "artemis_dataset_release_v0.csv").read_text(encoding="utf-8").split("\n", 1)[0]
    assert header == "art_style,painting,emotion,utterance,repetition"
    counts = Counter((r["art_style"], r["painting"]) for r in rows)
    assert all(int(r["repetition"]) == counts[r["art_style"], r["painting"]] for r in rows)
    works = {(r["art_style"], r["painting"]) for r in truth if r["kind"] == "work"}
    assert works == set(counts)
    files = {(p.parent.name, p.stem) for p in (world / "wikiart").glob("*/*.png")}
    assert files == works
    shots = {(p.parent.name, p.stem) for p in (world / "photographs").glob("*/*.png")}
    assert shots == {(r["art_style"], r["painting"]) for r in truth if r["kind"] == "photograph"}
    assert (len(works), len(shots)) == (WORKS, PHOTOGRAPHS)
    card = json.loads((world / "painter.json").read_text())
    assert card == {"version": VERSION, "seed": 3, "size": 64, "works": WORKS, "photographs": PHOTOGRAPHS}
    assert {r["version"] for r in truth} == {VERSION}


def test_the_loader_reads_it_without_a_complaint(world: Path) -> None:
    works = load_works(world / "wikiart", world / "artemis_dataset_release_v0.csv", split="75/25", seed=0)
    assert works.quarantined == ()
    assert len(works.table) == WORKS
    assert (works.table["emotions"].map(len) >= 2).all()


def test_a_folder_in_use_is_refused(world: Path) -> None:
    before = digest(world)
    asked = ["--out", str(world), "--works", "1", "--photographs", "1", "--seed", "0"]
    said = subprocess.run(
        [sys.executable, "-m", "atelier.data.painter", *asked], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stderr) == (1, f"{world}: cannot be written (expected an empty folder)\n")
    assert digest(world) == before


def test_files_stay_small(world: Path) -> None:
    sizes = [path.stat().st_size for path in world.rglob("*.png")]
    assert np.mean(sizes) < 6_000
