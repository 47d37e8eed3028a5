"""The ArtEmis layout in: what a sound release gives, what each fault of a hostile one is called."""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atelier.data.annotations import COLUMNS, EMOTIONS
from atelier.data.artemis import SPLITS, load_works, picture_files
from atelier.data.images import load_pictures, save_picture
from atelier.data.manifest import Works, read_manifest, write_manifest
from atelier.data.names import artist_and_title
from atelier.seeds import seed_of

HEADER = ",".join(COLUMNS) + "\n"
QUOTED_HEADER = ",".join(f'"{column}"' for column in COLUMNS) + "\n"
WORKS = (
    "Cubism/paul-cezanne_still-life-with-apples-1890",
    "Cubism/paul-cezanne_bathers",
    "Ukiyo_e/hiroshige_rain-1857",
)


def paint(pictures: Path, works: Iterable[str]) -> Path:
    """A picture folder with a small picture, of its own colour, for each ``style/painting``."""
    for at, work in enumerate(works):
        save_picture(np.full((6, 5, 3), at % 256, np.uint8), pictures / f"{work}.png")
    return pictures


def release(folder: Path, rows: Iterable[tuple[str, str, str, int]]) -> Path:
    """A release CSV of (style/painting, emotion, utterance, repetition)."""
    text = io.StringIO(newline="")
    # Python's writer leaves a lone carriage return unquoted, and every reader then takes it for a line end.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    writer.writerows((*work.split("/", 1), *rest) for work, *rest in rows)
    path = folder / "artemis.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def load(pictures: Path, annotations: Path | None, **options: float | bool) -> Works:
    return load_works(pictures, annotations, split="75/25", seed=0, **options)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return paint(tmp_path / "wikiart", WORKS)


# ------------------------------------------------------------------------------------------ sound releases


def test_rows_of_a_work_are_grouped_in_the_order_of_the_csv(pictures: Path, tmp_path: Path) -> None:
    rows = [(WORKS[2], "awe", "wet", 2), (WORKS[0], "fear", "red", 1), (WORKS[2], "sadness", "cold", 2)]
    works = load(pictures, release(tmp_path, rows))
    rain = works.table.iloc[2]
    assert works.table["painting"].tolist() == ["paul-cezanne_bathers", WORKS[0][7:], "hiroshige_rain-1857"]
    assert (rain["emotions"], rain["utterances"], rain["repetition"]) == (["awe", "sadness"], ["wet", "cold"], 2)
    assert (rain["artist"], rain["title"], rain["year"], rain["path"]) == (
        "Hiroshige",
        "rain",
        1857,
        "Ukiyo_e/hiroshige_rain-1857.png",
    )
    assert works.table[["width", "height"]].drop_duplicates().values.tolist() == [[5, 6]]
    assert works.table["emotions"].iloc[0] == []
    assert works.counts["works without annotations"] == 1
    assert works.quarantined == ()


def test_bare_folder_is_read_without_a_csv(pictures: Path) -> None:
    (pictures / "readme.txt").write_text("not a picture")
    (pictures / "Cubism" / "notes.txt").write_text("not a picture")
    works = load(pictures, None)
    assert works.table["emotions"].tolist() == [[], [], []]
    assert works.table["repetition"].tolist() == [0, 0, 0]
    assert works.counts["works"] == works.counts["works without annotations"] == 3
    assert works.counts["other files ignored"] == 1
    assert load_pictures(picture_files(works.table, pictures), 4, pictures).shape == (3, 3, 4, 4)


def test_byte_order_mark_crlf_and_missing_last_line_end_are_accepted(pictures: Path, tmp_path: Path) -> None:
    path = release(tmp_path, [(WORKS[0], "awe", 'she said "no",\nand left', 1)])
    plain = load(pictures, path)
    path.write_bytes(
        b"\xef\xbb\xbf" + path.read_bytes().replace(b",1\n", b",1").replace(b'"repetition"\n', b"repetition\r\n")
    )
    marked = load(pictures, path)
    assert marked.table.equals(plain.table)
    assert marked.counts["CSV with byte order mark"] == 1


utterance = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(notes=st.lists(st.tuples(st.sampled_from(WORKS), st.sampled_from(EMOTIONS), utterance), min_size=1, max_size=6))
def test_any_text_survives_csv_and_manifest(pictures: Path, tmp_path: Path, notes: list[tuple[str, str, str]]) -> None:
    times = Counter(work for work, _, _ in notes)
    works = load(pictures, release(tmp_path, [(*note, times[note[0]]) for note in notes]))
    for row in works.table.itertuples():
        own = [note for note in notes if note[0] == f"{row.art_style}/{row.painting}"]
        assert list(zip(row.emotions, row.utterances, strict=True)) == [note[1:] for note in own]
    write_manifest(works, tmp_path / "works.parquet")
    assert read_manifest(tmp_path / "works.parquet").table.equals(works.table)


# ------------------------------------------------------------------------------------------ splits, manifest


@pytest.mark.parametrize(
    ("split", "expected"), [("75/25", {"train": 75, "test": 25}), ("85/5/10", {"train": 85, "val": 5, "test": 10})]
)
def test_splits_are_exact_by_work_and_a_function_of_seed_and_work(
    tmp_path: Path, split: str, expected: dict[str, int]
) -> None:
    names = [f"Style_{at % 3}/artist_work-{at}" for at in range(100)]
    bare = load_works(paint(tmp_path / "a", names), None, split=split, seed=1)
    notes = release(tmp_path, [(name, "awe", "so", 1) for name in reversed(names[:50])])
    annotated = load_works(paint(tmp_path / "b", reversed(names)), notes, split=split, seed=1)
    assert bare.table["split"].value_counts().to_dict() == expected
    assert annotated.table["split"].tolist() == bare.table["split"].tolist()
    assert load_works(tmp_path / "a", None, split=split, seed=2).table["split"].tolist() != bare.table["split"].tolist()


def halves(works: Works) -> dict[str, set[str]]:
    """The splits that each picture is in, by its bytes."""
    return works.table.groupby("sha256")["split"].agg(set).to_dict()


@pytest.mark.parametrize("split", ["75/25", "85/5/10"])
def test_equal_pictures_are_on_one_side_and_shares_miss_by_less_than_a_group(tmp_path: Path, split: str) -> None:
    pictures = tmp_path / "wikiart"
    copies = {at: 1 + at % 4 for at in range(120)}  # works of each picture
    for at, count in copies.items():
        for copy in range(count):
            save_picture(np.full((4, 4, 3), at, np.uint8), pictures / f"Style_{copy}" / f"artist_work-{at}.png")
    for seed in range(5):
        works = load_works(pictures, None, split=split, seed=seed)
        assert len(works.table) == 300
        assert max(map(len, halves(works).values())) == 1
        shares = works.table["split"].value_counts()[list(SPLITS[split])].cumsum()
        assert all(abs(shares[name] - 300 * share) <= 2 for name, share in SPLITS[split].items())
    assert works.counts["groups of works with equal bytes"] == 90
    assert works.counts["works in such groups"] == 270
    assert works.counts["works with the bytes of another"] == 180


def test_one_copy_changes_the_split_of_works_around_it_alone(tmp_path: Path) -> None:
    """The split of works without copies is the rank of a hash, as before there were groups."""
    names = [f"Style/artist_work-{at}" for at in range(100)]
    seeds = [seed_of(0, "split", *name.split("/")) for name in names]
    by_rank = {names[at]: "train" if rank < 75 else "test" for rank, at in enumerate(np.argsort(seeds))}
    pictures = paint(tmp_path / "wikiart", names)
    table = load(pictures, None).table
    assert dict(zip(table["art_style"] + "/" + table["painting"], table["split"], strict=True)) == by_rank
    assert not any("groups" in name for name in load(pictures, None).counts)
    first, last = names[np.argmin(seeds)], names[np.argmax(seeds)]
    (pictures / f"{last}.png").write_bytes((pictures / f"{first}.png").read_bytes())
    copied = load(pictures, None).table
    changed = copied.loc[copied["split"] != table["split"], "painting"].tolist()
    expected = [name.split("/")[1] for name in (last, names[np.argsort(seeds)[74]])]  # in by its copy, out by its rank
    assert sorted(changed) == sorted(expected)


def test_manifest_has_the_same_bytes_for_the_same_works(pictures: Path, tmp_path: Path) -> None:
    rows = [(WORKS[0], "awe", "wide", 1), (WORKS[0], "joy", "?", 1)]
    works = load(pictures, release(tmp_path, rows), bad_share=0.5)
    write_manifest(works, tmp_path / "a.parquet")
    again = read_manifest(tmp_path / "a.parquet")
    write_manifest(again, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.parquet").read_bytes()
    assert again.table.equals(works.table)
    assert again.table.dtypes.equals(works.table.dtypes)
    assert (again.quarantined, again.counts) == (works.quarantined, works.counts)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:200], lambda data: b"PK" + data])
def test_damaged_manifest_is_refused_by_name(pictures: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_manifest(load(pictures, None), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(damage((tmp_path / "a.parquet").read_bytes()))
    with pytest.raises(ValueError, match=r"a\.parquet: no readable manifest"):
        read_manifest(tmp_path / "a.parquet")


# ------------------------------------------------------------------------------------------ faults of the CSV

CUBIST = "Cubism,paul-cezanne_bathers"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "columns missing 'art_style', 'painting', 'emotion', 'utterance', 'repetition'"),
        ("art_style,painting,emotion,utterance\n", "columns missing 'repetition'"),
        (HEADER.replace("painting", "emotion"), "missing 'painting'; doubled 'emotion'"),
        (HEADER.replace("\n", ",split\n"), "columns unknown 'split'"),
        (HEADER + f"{CUBIST},awe,good,1\n{CUBIST},awe\n", "row at line 3: 3 of 5 fields"),
        (HEADER + f"{CUBIST},awe,good,1\n{CUBIST},a", "row at line 3: 3 of 5 fields; the file is cut in mid-row"),
        (HEADER + f"{CUBIST},awe,good,12\n{CUBIST},awe,good,1", "row at line 3: repetition '1'; cut in mid-row"),
        (HEADER + f"{CUBIST},awe,good,", "row at line 2: repetition ''; cut in mid-row"),
        (HEADER + f'{CUBIST},awe,"two\nlines",1\n{CUBIST},awe,"open', "row at line 4: unexpected end of data"),
        (HEADER + f'{CUBIST},awe,"a" b,1\n', "row at line 2: .*expected after"),
        (HEADER + f"{CUBIST},awe,good,1,more\n", "row at line 2: 6 of 5 fields"),
        (HEADER + f"{CUBIST},awe,g\0od,1\n", "line 2: a NUL character"),
        (HEADER + "Cubism,../../secret,awe,good,1\n", r"row at line 2: painting '\.\./\.\./secret' would leave"),
        (HEADER + "Cubism,/etc/passwd,awe,good,1\n", "row at line 2: painting '/etc/passwd' would leave"),
        (HEADER + "..,secret,awe,good,1\n", r"row at line 2: art_style '\.\.' would leave"),
        (HEADER + "Cubism,a\\b,awe,good,1\n", "row at line 2: painting .* would leave"),
        (HEADER + ",a,awe,good,1\n", "row at line 2: art_style '' would leave"),
        (HEADER + 'Cubism,"a\nb",awe,good,1\n', r"row at line 2: painting 'a\\nb' would leave"),
        (
            HEADER + f"{CUBIST},joy,good,1\n",
            "1 of 1 CSV rows are bad.*row at line 2: emotion 'joy' is not one of the nine",
        ),
        (HEADER + f"{CUBIST},awe, ,1\n", "row at line 2: utterance ' ' is empty"),
        (HEADER + f"{CUBIST},awe,good,often\n", "row at line 2: repetition 'often' is not a whole number"),
        (HEADER + "Cubism,paul-cezanne_lost,awe,good,1\n", "row at line 2: no picture Cubism/paul-cezanne_lost"),
    ],
)
def test_faulty_csv_stops_in_one_line(pictures: Path, tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "artemis.csv"
    path.write_bytes(text.encode())
    with pytest.raises(ValueError, match=rf"artemis\.csv: .*{why}|{why}") as refusal:
        load(pictures, path)
    assert "artemis.csv: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_refused_by_line(pictures: Path, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "artemis.csv"
    path.write_bytes((HEADER + f"{CUBIST},awe,été,1\n").encode(encoding))
    with pytest.raises(ValueError, match=r"artemis\.csv: line [12]: byte 0x(e9|ff) is not UTF-8"):
        load(pictures, path)


def test_csv_cut_at_any_byte_is_refused_or_ends_with_a_whole_row(pictures: Path, tmp_path: Path) -> None:
    path = release(tmp_path, [(WORKS[0], "awe", 'a "so"\nwide é', 12)] * 3)
    data = path.read_bytes()
    whole = {at for at in range(len(data)) if data[:at].endswith(b",12") or data[:at].endswith(b",12\n")}
    for cut in range(len(QUOTED_HEADER), len(data)):
        path.write_bytes(data[:cut])
        if cut in whole or cut == len(QUOTED_HEADER):
            load(pictures, path)
        elif data[:cut].count(b",12") > 0:  # a lone first row cut from 12 to 1 is a valid file
            with pytest.raises(ValueError, match=r"artemis\.csv: (row at )?line"):
                load(pictures, path)


def test_header_alone_leaves_all_works_without_annotations(pictures: Path, tmp_path: Path) -> None:
    assert load(pictures, release(tmp_path, [])).counts["works without annotations"] == 3


def test_absent_csv_folder_and_split_are_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.csv: cannot be read"):
        load(pictures, tmp_path / "no.csv")
    with pytest.raises(ValueError, match="nowhere: expected a folder"):
        load(tmp_path / "nowhere", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no picture"):
        load(tmp_path / "empty", None)
    with pytest.raises(ValueError, match="split: expected one of 75/25, 85/5/10, got '80/20'"):
        load_works(pictures, None, split="80/20", seed=0)


# ------------------------------------------------------------------------------------------ faults of single works


def test_single_faults_are_quarantined_named_and_counted(tmp_path: Path) -> None:
    names = [f"Style/artist_work-{at}" for at in range(200)]
    pictures = paint(tmp_path / "wikiart", names)
    (pictures / f"{names[3]}.png").write_bytes((pictures / f"{names[3]}.png").read_bytes()[:-30])
    rows = [(name, "awe", "so", 1) for name in names] + [
        (names[0], "joy", "so", 1),
        ("Style/artist_gone", "awe", "so", 1),
    ]
    works = load(pictures, release(tmp_path, rows))
    assert [line.split(" (")[0] for line in works.quarantined] == [
        "artemis.csv: row at line 202: emotion 'joy' is not one of the nine",
        "Style/artist_work-3.png: truncated or damaged data",
        "artemis.csv: row at line 203: no picture Style/artist_gone.jpg or .png",
    ]
    assert {name: works.counts[name] for name in ("works", "pictures bad", "pictures missing", "rows quarantined")} == {
        "works": 199,
        "pictures bad": 1,
        "pictures missing": 1,
        "rows quarantined": 1,
    }
    with pytest.raises(
        ValueError, match=r"2 of 201 works are bad, more than bad_share 0\.005; first: Style/artist_work-3"
    ):
        load(pictures, tmp_path / "artemis.csv", bad_share=0.005)


def test_links_out_doubles_and_hostile_names_are_quarantined(pictures: Path, tmp_path: Path) -> None:
    save_picture(np.zeros((4, 4, 3), np.uint8), tmp_path / "secret.png")
    style = pictures / "Cubism"
    (style / "a_link.png").symlink_to(tmp_path / "secret.png")
    (style / "paul-cezanne_bathers.jpg").write_bytes((style / "paul-cezanne_bathers.png").read_bytes())
    (style / "line\nend.png").write_bytes(b"")
    (pictures / "circle").symlink_to("circle")
    works = load(pictures, None, bad_share=0.5)
    assert works.quarantined == (
        "'Cubism/line\\nend.png': a backslash or control character in its name",
        "Cubism/paul-cezanne_bathers.png: the same work is there as Cubism/paul-cezanne_bathers.jpg",
        "Cubism/a_link.png: a link that leads out of the picture folder",
    )
    assert works.counts["works"] == 3


def test_nothing_usable_is_an_error_whatever_the_share(tmp_path: Path) -> None:
    (tmp_path / "wikiart" / "Style").mkdir(parents=True)
    (tmp_path / "wikiart" / "Style" / "a_b.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no usable work; first: Style/a_b\.jpg: an empty file"):
        load(tmp_path / "wikiart", None, bad_share=1.0)


def test_broken_names_are_read_as_they_stand_and_matched_by_their_ascii_letters(tmp_path: Path) -> None:
    mojibake, raw = "joaquΓö£╨│Γö¼╨╜n-sorolla_beach-1908", b"andr\xe9_sea.png"
    pictures = paint(tmp_path / "wikiart", [f"Impressionism/{mojibake}"])
    file = Path(os.fsdecode(os.fsencode(pictures / "Impressionism") + b"/" + raw))
    try:
        file.write_bytes((pictures / "Impressionism" / f"{mojibake}.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no file name that is not UTF-8")
    rows = [
        ("Impressionism/joaquín-sorolla_beach-1908", "awe", "so", 1),
        ("Impressionism/andré_sea", "fear", "deep", 1),
    ]
    works = load(pictures, release(tmp_path, rows))
    assert works.table["painting"].tolist() == ["andr\\xe9_sea", mojibake]
    assert works.table["artist"].tolist() == ["André", "Joaquín Sorolla"]
    assert works.table["emotions"].tolist() == [["fear"], ["awe"]]
    assert works.counts["names with a broken encoding"] == works.counts["works matched by ASCII letters"] == 2
    write_manifest(works, tmp_path / "a.parquet")
    files = picture_files(read_manifest(tmp_path / "a.parquet").table, pictures)
    assert files[0] == file
    assert load_pictures(files, 2, pictures).shape == (2, 3, 2, 2)


# ------------------------------------------------------------------------------------------ slugs


@pytest.mark.parametrize(
    ("painting", "expected"),
    [
        ("paul-cezanne_still-life-with-apples-1890", ("Paul Cezanne", "still life with apples", 1890)),
        ("vincent-van-gogh_irises", ("Vincent van Gogh", "irises", None)),
        ("katsushika-hokusai_gate-of-kira-s-mansion-1806(1)", ("Katsushika Hokusai", "gate of kira's mansion", 1806)),
        ("caravaggio_inspiration-of-saint-matthew-1602-1(1)", ("Caravaggio", "inspiration of saint matthew", 1602)),
        ("isaac-levitan_sunset-1", ("Isaac Levitan", "sunset 1", None)),
        ("utagawa-kunisada_not_detected_233136", ("Utagawa Kunisada", "", None)),
        ("kitagawa-utamaro_not-detected-233122", ("Kitagawa Utamaro", "", None)),
        ("keisai-eisen_not-detected_17-1842(2)", ("Keisai Eisen", "", 1842)),
        ("utagawa-kunisada_not-detected", ("Utagawa Kunisada", "", None)),
        ("not_detected_240316", ("", "", None)),
        ("not-detected-240316-1855", ("", "", 1855)),
        ("rene-magritte_not-detected-at-night", ("Rene Magritte", "not detected at night", None)),
        ("rene-magritte_not_detected_by_anyone-1930", ("Rene Magritte", "not detected by anyone", 1930)),
        ("auguste-rodin_untitled(5)", ("Auguste Rodin", "untitled", None)),
        ("auguste-rodin_untitled-12", ("Auguste Rodin", "untitled", None)),
        ("untitled_12", ("", "untitled", None)),
        ("amadeo-de-souza-cardoso_untitled-boats-1913", ("Amadeo de Souza Cardoso", "untitled boats", 1913)),
        ("utagawa-kunisada_ohnomatsu_midorinosuke", ("Utagawa Kunisada", "ohnomatsu midorinosuke", None)),
        ("artist_1914", ("Artist", "1914", None)),
        ("untold", ("", "untold", None)),
        ("joão_maçã", ("João", "maçã", None)),
    ],
)
def test_words_of_a_slug(painting: str, expected: tuple[str, str, int | None]) -> None:
    assert artist_and_title(painting) == expected


# ------------------------------------------------------------------------------------------ real paintings


def test_all_real_paintings_are_read() -> None:
    inputs = os.environ.get("ATELIER_REAL_INPUTS")
    if not inputs:
        pytest.skip("ATELIER_REAL_INPUTS is unset: the real paintings (paintings/wikiart) are not read")
    pictures = Path(inputs) / "paintings" / "wikiart"
    works = load(pictures, None)
    print(f"\n{len(works.table)} real paintings read: {works.counts}")
    assert len(works.table) == 2738
    assert works.quarantined == ()
    assert works.table["split"].value_counts().to_dict() == {"train": 2054, "test": 684}
    assert works.counts["names with a broken encoding"] == 9
    assert set(works.table["artist"]) >= {
        "Paul Cezanne",
        "Hiroshige",
        "Joaquín Sorolla",
        "Jacob Isaakszoon van Ruisdael",
    }
    sample = picture_files(works.table.iloc[::50], pictures)
    assert load_pictures(sample, 64, pictures).shape == (len(sample), 3, 64, 64)
