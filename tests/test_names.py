"""Names in many spellings: what they say in words, and which file a table's name means."""

import json
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atelier.data import layout, prepare
from atelier.data.annotations import COLUMNS
from atelier.data.archives import pack
from atelier.data.artemis import load_works
from atelier.data.images import save_picture
from atelier.data.manifest import Works
from atelier.data.mending import repaired
from atelier.data.names import artist_and_title
from atelier.data.prompts import prompt, style_name
from atelier.data.spellings import WORK, spelt_as_files
from atelier.params import Data
from atelier.workspace import Workspace

LETTERS = ["gérôme", "dürer", "muñoz", "são", "françois", "žižka", "šíma", "łukasz", "åse", "tōkaidō", "mária", "tú"]


def mojibake(text: str, *pages: str, small: bool = False) -> str:
    """Text whose UTF-8 was read as each of these code pages in turn, and put into lower case, as slugs are."""
    for page in pages:
        text = text.encode().decode(page)
    return text.lower() if small else text


# ------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize("word", LETTERS)
@pytest.mark.parametrize(
    "pages",
    [
        ("sloppy-windows-1252",),
        ("cp437",),
        ("cp866",),
        ("mac_roman",),
        ("sloppy-windows-1252", "cp437"),
        ("sloppy-windows-1252", "cp866", "cp437"),
    ],
)
def test_letters_that_wrong_encodings_took_come_back(word: str, pages: tuple[str, ...]) -> None:
    assert repaired(mojibake(word, *pages)) == word


@pytest.mark.parametrize("word", ["gérôme", "dürer", "muñoz", "são", "françois", "mária", "tú", "niño", "zoë"])
def test_letters_come_back_from_wrong_ones_in_lower_case(word: str) -> None:
    assert repaired(mojibake(word, "latin-1", small=True)) == word
    if word not in ("são", "mária"):  # in lower case the letters of ã and ü are the same, and of á and â
        assert repaired(mojibake(word, "sloppy-windows-1251", small=True)) == word


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "word", [*LETTERS, "nguyễn", "иван", "北斎", "naïve_art", "straße", "hawaiʻi", "l-œuvre", "plain"]
)
def test_sound_names_stay_in_composed_form(word: str, form: str) -> None:
    assert repaired(unicodedata.normalize(form, word)) == unicodedata.normalize("NFC", word)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ren%C3%A9-magritte", "rené-magritte"),
        ("ren%c3%a9%20magritte%281%29", "rené magritte(1)"),
        ("ren#U00e9-magritte", "rené-magritte"),
        ("100%-wool", "100%-wool"),
        ("50%de-rabais", "50%de-rabais"),
        ("a%2Fb%00c%0Ad%5Ce", "a%2Fb%00c%0Ad%5Ce"),
    ],
)
def test_quoted_letters_are_read_unless_they_are_no_text(name: str, text: str) -> None:
    assert repaired(name) == text


@pytest.mark.parametrize(
    ("painting", "expected"),
    [
        ("jean-l├⌐on-g├⌐r├┤me_phryn├⌐-1861", ("Jean Léon Gérôme", "phryné", 1861)),
        ("jean-le\u0301on-ge\u0301ro\u0302me_phryne\u0301-1861", ("Jean Léon Gérôme", "phryné", 1861)),
        ("ren├®-magritte_le-r├¬ve", ("René Magritte", "le rêve", None)),
        ("fran%C3%A7ois-boucher_l%27%C3%A9t%C3%A9", ("François Boucher", "l'été", None)),
        ("max-pechstein_m\\xe4dchen", ("Max Pechstein", "mädchen", None)),
        ("max-pechstein_m\\x84dchen-\\xd0\\xb6", ("Max Pechstein", "mdchen", None)),
        ("max-pechstein_m\ufffddchen", ("Max Pechstein", "mdchen", None)),
        ("al-qur’ān_«été»", ("Al Qurān", "été", None)),
    ],
)
def test_artists_and_titles_have_their_letters(painting: str, expected: tuple[str, str, int | None]) -> None:
    assert artist_and_title(painting) == expected


def test_prompts_have_the_letters_of_styles_and_utterances() -> None:
    work = {
        "art_style": "Nai\u0308ve_Art",
        "painting": "henri-rousseau_the-dream-1910",
        "artist": "Henri Rousseau",
        "title": "the dream",
        "emotions": ["awe"],
        "utterances": ["the moonâ€™s light is like a cafÃ©"],
    }
    assert style_name("Na├»ve_Art") == style_name("Na%C3%AFve_Art") == "Naïve Art"
    assert "Naïve Art" in prompt(work, 1, 0)
    assert "the moon’s light is like a café" in prompt(work, 2, 0)


# ------------------------------------------------------------------------------------------ which file a name means


def spelt(names: list[str], files: list[str]) -> tuple[dict[str, str], dict[str, str], Counter[str]]:
    """Names -> files of ``style/painting``, what is not certain, and the counts."""
    table, listed = (pd.DataFrame([work.split("/") for work in works], columns=WORK) for works in (names, files))
    counts: Counter[str] = Counter()
    renamed, uncertain = spelt_as_files(table.assign(row=range(len(table))), listed, counts)
    assert renamed["row"].tolist() == list(range(len(table)))
    now = (renamed["art_style"] + "/" + renamed["painting"]).tolist()
    matched = {name: file for name, file in zip(names, now, strict=True) if file in set(files)}
    return matched, {"/".join(name): why for name, why in uncertain.items()}, counts


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Rococo/fran\u00e7ois-boucher_\u00e9t\u00e9", "Rococo/franc\u0327ois-boucher_e\u0301te\u0301"),
        ("Rococo/franc\u0327ois-boucher_e\u0301te\u0301", "Rococo/fran\u00e7ois-boucher_\u00e9t\u00e9"),
        ("Na\u00efve_Art/a_b", "Nai\u0308ve_Art/a_b"),
        ("Rococo/fran%C3%A7ois-boucher_diana", "Rococo/françois-boucher_diana"),
        ("Rococo/françois-boucher_diana", "Rococo/fran%c3%a7ois-boucher_diana"),
        ("Rococo/françois-boucher_diana", "Rococo/fran#U00e7ois-boucher_diana"),
        ("Rococo/françois-boucher_diana", "Rococo/fran\\xe7ois-boucher_diana"),
        ("Rococo/franã§ois-boucher_diana", "Rococo/fran├зois-boucher_diana"),
        ("Rococo/fran\u0441ois_diana-ø", "Rococo/fran\u0444ois_diana-å"),
        ("Rococo/francois-boucher_not_detected_17", "Rococo/francois-boucher_not-detected-17"),
        ("Color_Field/Mark-Rothko_No.-5", "Color-Field/mark-rothko_no.-5"),
    ],
)
def test_one_name_in_two_spellings_is_one_work(name: str, file: str) -> None:
    others = ["Rococo/jean-honore-fragonard_the-swing", "Naive/a_b"]
    matched, uncertain, counts = spelt([*others, name], [file, *others])
    assert matched == {name: file} | {other: other for other in others}
    assert uncertain == {}
    assert sum(counts.values()) == 1


def test_an_exact_name_wins_over_every_other_spelling() -> None:
    names = ["S/a_\u00e9", "S/A_\u00c9", "S/a-\u00e9", "S/a_e\u0301"]
    assert spelt(names, names[::-1])[0] == {name: name for name in names}
    assert spelt(names[:1], names)[0] == {names[0]: names[0]}


@pytest.mark.parametrize(
    ("names", "files", "uncertain"),
    [
        (["S/The_Swing"], ["S/the-swing", "S/the_swing"], "S/The_Swing could be S/the-swing, S/the_swing"),
        (["S/the-swing", "S/The_Swing"], ["S/the_swing"], "S/The_Swing, S/the-swing could be S/the_swing"),
        (["S/m├ória", "S/m?ria-ö"], ["S/mâria", "S/mária", "S/m%C3%A2ria"], None),
        (["S/joaqun_beach"], ["S/joaquín_beach"], "S/joaqun_beach could be S/joaquín_beach"),
        (["S/北斎_"], ["S/広重_"], "S/北斎_ could be S/広重_"),
        (["S/other"], ["S/the-swing"], ""),
    ],
)
def test_what_could_be_several_is_named_and_not_guessed(
    names: list[str], files: list[str], uncertain: str | None
) -> None:
    matched, said, _ = spelt(names, files)
    assert matched == {}
    if uncertain is not None:
        assert {why.removeprefix("not guessed: ") for why in said.values()} == ({uncertain} if uncertain else set())


def loaded(pictures: Path, names: list[str], **options: float) -> Works:
    path = pictures.parent / "artemis.csv"
    rows = "".join(f"{name.replace('/', ',')},awe,so it is {at},1\n" for at, name in enumerate(names))
    path.write_text(",".join(COLUMNS) + "\n" + rows, encoding="utf-8")
    return load_works(pictures, path, split="75/25", seed=0, **options)


def test_rows_in_both_normal_forms_are_one_works_annotations(tmp_path: Path) -> None:
    file = "Cubism/juan-gris_la-mu\u0301sica"
    save_picture(np.zeros((4, 4, 3), np.uint8), tmp_path / "wikiart" / f"{file}.png")
    works = loaded(tmp_path / "wikiart", ["Cubism/juan-gris_la-m\u00fasica", file], bad_share=0)
    assert works.table["painting"].tolist() == ["juan-gris_la-mu\u0301sica"]  # the file's spelling: it is its path
    assert works.table["utterances"].tolist() == [["so it is 0", "so it is 1"]]
    assert works.table["title"].tolist() == ["la m\u00fasica"]
    assert works.counts["works matched by normal form"] == 1
    assert works.counts["names with a broken encoding"] == 0


def test_an_uncertain_name_is_left_out_with_what_it_could_be(tmp_path: Path) -> None:
    for at, name in enumerate(("the-swing", "the_swing")):
        save_picture(np.full((4, 4, 3), at, np.uint8), tmp_path / "wikiart" / "Rococo" / f"{name}.png")
    works = loaded(tmp_path / "wikiart", ["Rococo/The-Swing"], bad_share=0.5)
    assert works.quarantined == (
        "artemis.csv: row at line 2: no picture Rococo/The-Swing.jpg or .png "
        "(not guessed: Rococo/The-Swing could be Rococo/the-swing, Rococo/the_swing)",
    )
    assert works.table["emotions"].tolist() == [[], []]


def test_archive_captions_and_truth_meet_in_whatever_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    composed, apart = "Cubism/juan-gris_caf\u00e9", "Cubism/juan-gris_cafe\u0301"
    for at, name in enumerate((apart, "Cubism/juan-gris_bottle")):
        save_picture(np.full((4, 4, 3), at, np.uint8), tmp_path / "pictures" / f"{name}.png")
    pack(tmp_path / "pictures", tmp_path / "data" / "wikiart.zip")
    (tmp_path / "data" / layout.ANNOTATIONS).write_text(
        ",".join(COLUMNS) + f"\n{composed.replace('/', ',')},awe,so,1\n", encoding="utf-8"
    )
    truth = tmp_path / "data" / prepare.TRUTH
    truth.write_text(f"art_style,painting,subject,emotion\n{composed.replace('/', ',')},glass,awe\n", encoding="utf-8")
    data = Data(folder="data", annotations=True, size=64, split="75/25", bad_share=0)
    prepare.unpack_archives(data, Workspace())
    report = prepare.prepare(data, 1, Workspace())
    assert json.loads((Workspace().pictures / "archives.json").read_text()) == {"wikiart.zip": 2}
    assert report["works"]["quarantined"] == []
    table = prepare.with_truth(prepare.works(Workspace().manifests).table, Workspace().manifests).set_index("painting")
    assert table.loc["juan-gris_cafe\u0301", ["subject", "emotion"]].tolist() == ["glass", "awe"]
    assert table.loc["juan-gris_cafe\u0301", "emotions"] == ["awe"]
    assert table.loc["juan-gris_bottle", "subject"] == ""
    with truth.open("a", encoding="utf-8") as file:
        file.write(f"{apart.replace('/', ',')},guitar,awe\n")
    with pytest.raises(ValueError, match=r"truth\.csv: row 3: the picture is listed twice"):
        prepare.prepare(data, 1, Workspace())
