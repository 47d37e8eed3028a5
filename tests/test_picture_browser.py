"""The picture browser: which pictures it shows, where they lie on its sheets, what these weigh, what a page says."""

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from atelier.data.pictures import Pictures
from atelier.params import load
from atelier.pipeline import page
from atelier.report import browser, figures, pictures, study
from atelier.report.browser import Browsed, by_path, choose, on_sheets
from atelier.workspace import Workspace

SMOKE = load(Path(__file__).parent.parent / "profiles" / "smoke.yaml")
NOISE = torch.Generator().manual_seed(3)


@pytest.fixture(autouse=True)
def style() -> None:
    figures.set_style()


def table(prompts: list[str], repeat: int = 0, paths: list[str] | None = None) -> pd.DataFrame:
    """One row a prompt, in the order of their places."""
    return pd.DataFrame(
        {
            "prompt": prompts,
            "path": paths or [f"works/{each}.png" for each in prompts],
            "repeat": repeat,
            "place": range(len(prompts)),
        }
    )


def recorded(x: Tensor, asked: list[int]) -> Pictures:
    """Pictures that note which of them were read."""

    def read(numbers: list[int]) -> Tensor:
        asked.extend(numbers)
        return x[numbers]

    return Pictures(read, np.arange(len(x)))


def noise(n: int, side: int) -> Tensor:
    return torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=NOISE)


def made(
    prompts: int = 5, side: int = 64, settings: int = 1, variants: int = 3, real: bool = True
) -> tuple[Browsed, dict[Any, Tensor], list[int]]:
    """A browser of random pictures: what it is of, the pictures by variant and setting, the numbers that are read."""
    rows = table([f"prompt {at}" for at in range(prompts)], paths=None if real else [""] * prompts)
    stored = {(f"v{at}", (f"{s}",)): noise(prompts, side) for at in range(variants) for s in range(settings)}
    works, asked = noise(prompts, side), list[int]()
    cells: dict[str, dict[tuple[str, ...], Any]] = {}
    for (variant, values), x in stored.items():
        cells.setdefault(variant, {})[values] = (recorded(x, asked), rows)
    listed = pd.DataFrame({"path": rows["path"][::-1].tolist(), "number": range(prompts)[::-1]})
    read = by_path(listed, lambda chosen: recorded(works, [])[chosen["number"].tolist()])
    return Browsed(["guidance"], cells, "the real work", read), {**stored, "real": works}, asked


def tile(shown: Any, sheet: int, row: int, column: int) -> np.ndarray:
    """The pixels of a tile, as the page's script cuts them out: from the lower right corner of a sheet."""
    picture = shown.sheets[sheet].picture
    left = picture.width - (len(shown.columns) - column) * shown.step
    top = picture.height - (len(shown.rows) - row) * shown.step
    return np.asarray(picture.crop((left, top, left + shown.side, top + shown.side)))


# ---------------------------------------------------------------------------------------------- which pictures


def test_the_first_prompts_are_taken_in_order_of_repeat_and_place() -> None:
    rows = pd.concat([table(["c", "d"], 1), table(["a", "b"], 0)], ignore_index=True)
    assert choose([rows], 3).prompts == ["a", "b", "c"]
    assert choose([rows], 3).keys == [[("works/a.png", 0, 0), ("works/b.png", 0, 1), ("works/c.png", 1, 0)]]


def test_only_pictures_that_all_have_are_taken() -> None:
    every, fewer = table(["a", "b", "c"]), table(["a", "b", "c"]).drop(index=1)
    assert choose([every, fewer], 9).prompts == ["a", "c"]
    assert choose([every, table(["a", "b", "c"], repeat=1)], 9).prompts == []


def test_a_prompt_has_several_noises_only_where_prompts_are_enough() -> None:
    often = pd.concat([table([f"p{at}" for at in range(9)], repeat) for repeat in range(4)], ignore_index=True)
    chosen = choose([often], 24)
    assert (len(chosen.prompts), len(chosen.keys)) == (8, browser.NOISES)
    assert [keys[0] for keys in chosen.keys] == [("works/p0.png", repeat, 0) for repeat in range(3)]
    assert len(choose([often], 8).keys) == 1
    some = pd.concat([table([f"p{at}" for at in range(20)]), table(["p1"], 1)], ignore_index=True)
    assert len(choose([some], 99).keys) == 1
    assert len(choose([some], 99).prompts) == browser.PROMPTS


def test_a_path_that_is_not_listed_is_named() -> None:
    with pytest.raises(ValueError, match=r"^works/z\.png: no such picture"):
        by_path(table(["a"]), lambda rows: Pictures(lambda numbers: noise(1, 8), np.arange(1)))(["works/z.png"])


def test_variants_that_share_nothing_are_refused() -> None:
    browsed, _, _ = made()
    first, second, _ = browsed.variants
    cells = browsed.variants[second]["0",]
    with pytest.raises(ValueError, match="browser one: the variants share no setting"):
        on_sheets("one", browsed._replace(variants={**browsed.variants, second: {("9",): cells}}), "")
    apart = {("0",): (cells[0], table(["else"] * 5))}
    with pytest.raises(ValueError, match="browser one: the variants share no prompt"):
        on_sheets("one", browsed._replace(variants={first: browsed.variants[first], second: apart}), "")


# ---------------------------------------------------------------------------------------------- where they lie


def test_every_tile_is_the_picture_of_its_row_column_and_setting() -> None:
    browsed, stored, _ = made(settings=2)
    shown = on_sheets("one", browsed, "")
    assert shown.rows == ["the real work", "v0", "v1", "v2"]
    assert [sheet.values for sheet in shown.sheets] == [("0",), ("1",)]
    assert (shown.real, shown.side, shown.step) == (True, 64, 64 + figures.GAP)
    for sheet, values in enumerate([("0",), ("1",)]):
        for column in range(5):
            expected = [stored["real"], *(stored[name, values] for name in ("v0", "v1", "v2"))]
            for row, x in enumerate(expected):
                assert np.array_equal(tile(shown, sheet, row, column), x[column].permute(1, 2, 0).numpy())


def test_no_picture_is_read_that_is_not_shown() -> None:
    browsed, _, asked = made(prompts=40, variants=2)
    shown = on_sheets("one", browsed, "", tiles=12)
    assert len(shown.columns) == 4
    assert set(asked) == {0, 1, 2, 3}


def test_without_real_pictures_the_first_row_is_the_first_variant() -> None:
    browsed, stored, _ = made(real=False)
    shown = on_sheets("one", browsed, "")
    assert (shown.rows[0], shown.real) == ("v0", False)
    assert "under" not in shown.caption
    assert np.array_equal(tile(shown, 0, 0, 1), stored["v0", ("0",)][1].permute(1, 2, 0).numpy())


def test_noises_are_an_axis_of_their_own() -> None:
    browsed, _, _ = made(prompts=6)
    cells = {}
    for variant, of in browsed.variants.items():
        rows = pd.concat([of["0",][1].head(3), of["0",][1].head(3).assign(repeat=1)], ignore_index=True)
        cells[variant] = {("0",): (of["0",][0], rows)}
    shown = on_sheets("one", browsed._replace(variants=cells), "")
    assert shown.axes == ["guidance", "noise"]
    assert [sheet.values for sheet in shown.sheets] == [("0", "1"), ("0", "2")]
    assert "n = 18 pictures" in shown.caption


@pytest.mark.parametrize(
    ("side", "settings", "variants"), [(64, 4, 8), (64, 1, 30), (128, 2, 5), (512, 4, 8), (32, 1, 2)]
)
def test_no_more_tiles_than_allowed_and_larger_pictures_are_shrunk(side: int, settings: int, variants: int) -> None:
    browsed, _, _ = made(prompts=20, side=side, settings=settings, variants=variants)
    shown = on_sheets("one", browsed, "")
    tiles = len(shown.sheets) * len(shown.rows) * len(shown.columns)
    assert tiles * shown.side**2 <= browser.TILES * browser.SIDE**2
    assert len(shown.columns) >= browser.FEW or len(shown.sheets) == 1
    assert shown.side == (64 if side <= 64 else browser.SHRUNK)
    assert ("shrunk" in shown.caption) is (side > 64)


def test_a_caption_says_n_rows_columns_and_the_first_setting() -> None:
    browsed, _, _ = made(settings=2)
    caption = on_sheets("one", browsed, "Noise is shared.", noun="work").caption
    assert caption == (
        "n = 30 pictures: rows are 3 variants, under the real work; columns the first 5 works, unpicked. Noise is "
        "shared. This sheet: guidance 0. Stored with loss: measures are of the pictures themselves."
    )


# ---------------------------------------------------------------------------------------------- files and page


def test_sheets_are_as_good_as_their_weight_allows_and_the_same_twice(tmp_path: Path) -> None:
    sheets = [Image.fromarray(noise(1, 256)[0].permute(1, 2, 0).numpy()) for _ in range(2)]

    def weight(name: str, most: int) -> int:
        files = pictures.save_sheets(sheets, [tmp_path / f"{name}{at}" for at in (1, 2)], most)
        assert [file.name for file in files] == [f"{name}1.webp", f"{name}2.webp"]
        return sum(file.stat().st_size for file in files)

    best = weight("best", 10**9)
    assert best // 3 < weight("less", best // 2) <= best // 2
    assert weight("again", best // 2) == weight("less", best // 2)
    assert (tmp_path / "again1.webp").read_bytes() == (tmp_path / "less1.webp").read_bytes()
    assert weight("least", 1) > 1


def shown_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[study.Study, dict[str, Any], Any]:
    displayed: list[dict[str, Any]] = []
    monkeypatch.setattr(study, "display", lambda _, metadata: displayed.append(metadata))
    page_of = study.Study("one", SMOKE, Workspace(tmp_path))
    browsed, _, _ = made(settings=2)
    item = on_sheets("look", browsed, "")
    page_of.show(item)
    return page_of, displayed[0], item


def test_a_study_stores_every_sheet_and_says_what_is_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of, metadata, item = shown_by(tmp_path, monkeypatch)
    stored = sorted(path.name for path in (page_of.folder / "figures").iterdir())
    assert stored == ["look_01.webp", "look_02.webp"]
    assert metadata["file"] == "figures/look_01.webp"
    assert metadata["browser"]["sheets"] == [
        {"file": "figures/look_01.webp", "values": ["0"]},
        {"file": "figures/look_02.webp", "values": ["1"]},
    ]
    assert metadata["browser"]["rows"] == item.rows
    assert metadata["browser"]["columns"] == [f"prompt {at}" for at in range(5)]


def rendered(metadata: dict[str, Any], folder: Path) -> str:
    notebook = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("display_data", {"text/plain": ""}, metadata=metadata)
    cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell("show()", outputs=[output])]
    notebook.cells = cells
    return page.page(notebook, "smoke", folder)


def test_a_page_says_all_of_it_and_links_to_every_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of, metadata, _ = shown_by(tmp_path, monkeypatch)
    metadata["browser"]["columns"][0] = "<script>x</script> & more"
    html = rendered(metadata, page_of.folder)
    assert "<li>&lt;script&gt;x&lt;/script&gt; &amp; more</li>" in html
    assert '<li class="real">the real work</li><li>v0</li>' in html
    assert 'data-side="64" data-step="67"' in html
    assert html.count('src="figures/look_01.webp"') == 1
    assert page.addresses(html).links[-3:-1] == ["figures/look_01.webp", "figures/look_02.webp"]


def test_a_sheet_that_is_missing_or_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of, metadata, _ = shown_by(tmp_path, monkeypatch)
    Image.new("RGB", (9, 9)).save(page_of.folder / "figures" / "look_02.webp")
    with pytest.raises(ValueError, match=r"figures/look_02\.webp: sheets of one browser must be of one size"):
        rendered(metadata, page_of.folder)
    (page_of.folder / "figures" / "look_02.webp").unlink()
    with pytest.raises(ValueError, match=r"look_02\.webp: no such picture"):
        rendered(metadata, page_of.folder)
