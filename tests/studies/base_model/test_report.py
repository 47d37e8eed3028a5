"""The page of the base model, on made-up pictures and numbers: what it holds, records and leaves out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor

import contact_sheets
from atelier import params
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, in_memory, of_files
from atelier.evaluation.intervals import wilson_interval
from atelier.evaluation.judges import Bar, Judges
from atelier.params import CORRECTED, WHITE
from atelier.report.items import Figure, Table, Text
from atelier.sampling import store
from atelier.studies.base_model import report, report_results, sheets
from atelier.studies.base_model.params import Config
from atelier.studies.base_model.report import SETS
from atelier.studies.base_model.report_results import Corpus, Painted, Returned, Shares, Sheet

ROOT = Path(__file__).parents[3]
PARAMS = params.load(ROOT / "profiles" / "smoke.yaml")
CONFIG = Config.of(PARAMS)  # guidance 1 and 4, measured at 4


def pictures(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8)


def corpus(styles: Sequence[str], splits: Sequence[str]) -> Corpus:
    table = pd.DataFrame(
        {
            "path": [f"{style}/{number}.png" for number, style in enumerate(styles)],
            "art_style": styles,
            "artist": [f"artist of {style}" for style in styles],
            "split": splits,
            "emotions": [["awe"] * number for number in range(len(styles))],
            "subject": "boat",
            "emotion": "",
        }
    )
    return Corpus(table, in_memory(pictures(len(styles))))


WORKS = corpus(["Cubism", "Mosaic", "Cubism", "Mosaic", "Woodcut"], ["train", "test", "test", "train", "test"])
PHOTOGRAPHS = corpus(["Photograph"] * 3, ["train", "test", "test"])


def returned(psnr: float) -> Returned:
    return Returned(pictures(2), pictures(2), psnr, psnr - 1, -2.5, -0.25)


def distances(kd: float) -> dict[str, float]:
    apart = {"fd_haar": 5.0, "kd_haar": kd, "psd": 0.1, "fd": 7.0}
    returned = {f"{name}_rec": value / 2 for name, value in apart.items()}
    return {"n": 2, "of": 3, **apart, **returned, "brightness spread": kd / 40}


@pytest.fixture
def results() -> report.Results:
    kinds = {"photographs": PHOTOGRAPHS, "works": WORKS}
    prompts = ["a boat", "a house", "a bird", "a sun", "a tree"]
    table = sheets.listed(["a boat, in the style of Cubism", "a boat"], wanted=["Color_Field_Painting", ""])
    sheet = Sheet(table, {1.0: in_memory(pictures(2)), 4.0: in_memory(pictures(2))}, {4.0: wilson_interval(1, 2)})
    return report.Results(
        params=PARAMS,
        config=CONFIG,
        has_evaluator=True,
        has_truth=True,
        bars=[
            Bar(name="autoencoder, PSNR", value=26.0, n=500, least=25.0, unit="dB"),
            Bar(name="base, photographs, subject", value=0.9, n=50, least=0.8, low=0.7, high=0.95, unit="share"),
            Bar(name="base, art, Frechet distance", value=120.0, n=500),
        ],
        preparation={"works": {"works": 5, "quarantined": ["x"], "counts": {"works": 5, "grey": 2, "alpha": 0}}},
        history=pd.DataFrame(
            {"step": [1, 2, 1], "part": ["denoiser"] * 2 + ["autoencoder"], "denoising": [1, 0.5, np.nan]}
        ),
        corpora=kinds,
        channels=8,
        returned={"photographs": returned(26.0), "all works": returned(22.0), "Cubism": returned(24.0)},
        painted={
            kind: Painted(prompts, each, *(in_memory(pictures(len(each.table), seed)) for seed in (1, 2)))
            for kind, each in kinds.items()
        },
        sheets={"styles": sheet, "emotions": Sheet(sheets.listed([]), {4.0: of_files([], 64)}, {})},
        distances={
            (kind, name): distances(kd)
            for kind, kids in {"photographs": (1.0, 4.0, 1.5, 5.0, 3.0), "works": (2.0, 9.0, 2.5, 20.0, 10.0)}.items()
            for name, kd in zip(SETS, kids, strict=True)
        },
        shares={
            ("photographs", "subject"): Shares(*(wilson_interval(number, 4) for number in (4, 3, 4))),
            ("works", "art_style"): Shares(*(wilson_interval(number, 4) for number in (2, 1, 2))),
        },
    )


def recorded(results: report.Results) -> set[str]:
    """The names of all metrics that the page records."""
    items = [
        report.bars(results), report.reconstructions(results), report.steering(results), report.distances(results),
        report.attributes(results),
    ]  # fmt: skip
    return {name for item in items for name in item.metrics}


def test_bars_count_those_with_a_bound_and_a_share_by_its_low_end(results: report.Results) -> None:
    table = report.bars(results)
    assert "1 of 2 are met" in table.caption
    assert (table.metrics["bars/met"].value, table.metrics["bars/met"].n) == (0.5, 2)
    assert set(table.metrics) == {"bars/met", "bars/base, photographs, subject", "bars/base, art, Frechet distance"}
    assert table.metrics["bars/base, photographs, subject"].value.low == 0.7


def test_without_bars_evaluator_and_truth_there_are_sentences(results: report.Results) -> None:
    less = replace(results, bars=[], has_evaluator=False, has_truth=False, shares={}, sheets={})
    assert report.missing(results) == []
    assert [note.text.split(":")[0] for note in report.missing(less)] == [
        "The data folder has no evaluator", "The data folder does not tell what its pictures show",
    ]  # fmt: skip
    for item in (report.bars(less), report.steering(less), report.attributes(less)):
        assert isinstance(item, Text)
        assert not item.metrics
    assert report.headline(less)[0] == "base/kd_haar/photographs"


def test_a_kind_that_no_leak_was_fitted_to_is_painted_from_white_noise_only(results: report.Results) -> None:
    assert report.missing(results) == []
    photographs = results.painted["photographs"]._replace(corrected=None)
    kept = {key: row for key, row in results.distances.items() if key != ("photographs", "base, corrected start")}
    less = replace(results, painted={**results.painted, "photographs": photographs}, distances=kept)
    (note,) = report.missing(less)
    assert note.text.startswith("Too few photographs to fit")
    figure = next(item for item in report.samples(less) if isinstance(item, Figure))
    assert contact_sheets.labels(figure.figure) == ["held out 1", "painted 1"]
    plt.close(figure.figure)
    assert "base/kd_haar/photographs/corrected" not in report.distances(less).metrics
    frame = report.saturation(less).frame
    assert frame.loc["photographs", ("saturated", CORRECTED)].isna().all()
    assert frame.loc["works", ("saturated", CORRECTED)].notna().all()
    assert "photographs: KD 5.00; between" in report.summary(less).text


def test_a_distance_is_saturated_where_the_decoder_alone_is_as_far(results: report.Results) -> None:
    frame = report.saturation(results).frame
    assert frame.loc[("photographs", "kd_haar"), ("floor", "")] == 4.0  # of returned pictures
    assert frame.loc[("photographs", "kd_haar"), ("saturated", WHITE)] == "no"  # 4 of 5: no more than four fifths
    assert frame.loc[("photographs", "kd_haar"), ("saturated", CORRECTED)] == "yes"
    assert frame.loc[("works", "kd_haar"), ("saturated", WHITE)] == "no"
    assert frame.loc[("works", "fd_haar_rec"), ("floor", "")] == 2.5
    distances = {"fd_haar", "kd_haar", "psd", "fd"}
    assert set(frame.loc["works"].index) == distances | {"fd_haar_rec", "psd_rec", "fd_rec"}


def test_the_headline_was_recorded(results: report.Results) -> None:
    assert report.headline(results)[:2] == ["bars/met", "base/sees_subject/photographs"]
    assert set(report.headline(results)) <= recorded(results)


def test_contents_count_pictures_by_style_and_split(results: report.Results) -> None:
    frame = report.contents(results).frame
    assert frame.loc["Cubism"].to_dict() == {"artists": 1, "training": 1, "held_out": 1, "annotations": 2}
    assert frame.loc["Photograph", "held_out"] == 2
    assert report.preparation(results).text == "works: 5 read, 1 left out; handled: {'grey': 2}"


def test_the_world_has_a_row_a_style_and_one_of_photographs(results: report.Results) -> None:
    figure = report.world(results).figure
    assert contact_sheets.labels(figure) == ["photographs", "Cubism", "Mosaic", "Woodcut"]
    plt.close(figure)


def test_training_shows_the_terms_that_each_step_has(results: report.Results) -> None:
    (item,) = report.training(results)  # the autoencoder's row has no term
    assert isinstance(item, Figure)
    assert item.name == "history_denoiser"
    plt.close(item.figure)
    (sentence,) = report.training(replace(results, history=results.history.iloc[:0]))
    assert isinstance(sentence, Text)


def test_reconstructions_hold_each_group_and_name_those_with_one_split(results: report.Results) -> None:
    table = report.reconstructions(results)
    assert list(table.frame.index) == ["photographs", "all works", "Cubism"]
    assert table.frame.loc["Cubism", "linear code (dB)"] == 23.0
    assert "8 latent channels" in table.caption
    metric = table.metrics["autoencoder/psnr/all works"]
    assert (metric.value, metric.n, metric.unit) == (22.0, 2, "dB")
    assert [note.text for note in report.too_few(results)] == [
        "Mosaic: too few pictures for two splits", "Woodcut: too few pictures for two splits",
    ]  # fmt: skip
    figure = report.reconstruction_sheet(results).figure
    assert contact_sheets.tiles(figure).shape[:2] == (4, 2)  # all works are of no row
    plt.close(figure)


def test_sheets_name_their_columns_and_an_empty_one_is_a_sentence(results: report.Results) -> None:
    sheet, prompts, sentence = report.steering_sheets(results)
    assert isinstance(sheet, Figure)
    assert contact_sheets.titles(sheet.figure) == ["Color Field\nPainting", "a boat"]
    plt.close(sheet.figure)
    assert isinstance(prompts, Text)
    assert isinstance(sentence, Text)
    assert sentence.text.startswith("emotions: ")
    table = report.steering(results)
    assert isinstance(table, Table)
    assert table.frame.loc[("styles", "4"), ["n", "share"]].tolist() == [2, 0.5]
    assert list(table.metrics) == ["steering/styles/guidance-4"]


def test_samples_show_what_was_painted_below_what_it_was_painted_from(results: report.Results) -> None:
    items = list(report.samples(results))
    assert [item.name for item in items if isinstance(item, Figure)] == ["samples_photographs", "samples_works"]
    for item in items:
        if isinstance(item, Figure):
            assert "guidance 4" in item.caption
            plt.close(item.figure)
        else:
            assert "a sun" in item.text
            assert "a tree" not in item.text  # four are enough


def test_distances_record_the_base_and_not_its_floor(results: report.Results) -> None:
    table = report.distances(results)
    assert list(table.frame.index) == [f"{kind}, {name}" for kind in ("photographs", "works") for name in SETS]
    assert table.metrics["base/kd_haar/works"].value == 20.0
    assert table.metrics["base/kd_haar/works/corrected"].value == 10.0
    assert table.metrics["base/fd_haar_rec/works"].value == 2.5
    assert table.metrics["base/fd/works"].n == 2
    assert table.metrics["base/brightness_spread/works"].unit == "ratio"
    assert not {"base/n/works", "base/of/works"} & set(table.metrics)
    text = report.summary(results).text
    assert "works: KD 20.00, 10.00 from the corrected start; between two sets of real pictures 2.00." in text
    assert "photographs 0.12, corrected 0.07, works 0.50, corrected 0.25." in text
    assert "4.0 times its KD to photographs" in text


def test_without_photographs_nothing_is_said_of_them(results: report.Results) -> None:
    works = replace(results, painted={"works": results.painted["works"]}, shares={})
    assert "photographs" not in report.summary(works).text
    assert report.headline(works)[1:] == ["base/kd_haar/works", "base/psd/works", "base/brightness_spread/works"]


def test_attributes_have_the_share_of_the_base_beside_that_of_held_out_pictures(results: report.Results) -> None:
    table = report.attributes(results)
    row = table.frame.loc[("works", "style")]
    assert row[["n", "held-out"]].tolist() == [4, 0.5]
    assert [row[f"base, {start}", "share"] for start in ("white noise", "corrected start")] == [0.25, 0.5]
    assert set(table.metrics) == {
        f"base/sees_{name}{end}" for name in ("subject/photographs", "style/works") for end in ("", "/corrected")
    }


# ---------------------------------------------------------------------------------------------- what is measured


def test_painted_pictures_stand_beside_those_whose_prompts_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"path": ["Woodcut/4.png", "Mosaic/1.png"], "prompt": ["a", "b"]})

    def read(folders: list[Path]) -> tuple[Pictures, pd.DataFrame]:
        (name,) = (folder.relative_to(tmp_path / "base_model" / "works").as_posix() for folder in folders)
        return in_memory(pictures(2, {"guidance-4": 4, "guidance-4-corrected": 5}[name])), table

    monkeypatch.setattr(store, "read", read)
    painted = report_results.read_painted(tmp_path, "works", WORKS, CONFIG)
    assert painted.corrected is None
    (tmp_path / "base_model" / "works" / "guidance-4-corrected").mkdir(parents=True)
    again = report_results.read_painted(tmp_path, "works", WORKS, CONFIG).corrected
    assert again is not None
    assert again.load().equal(pictures(2, 5))
    assert painted.real.pictures.load().equal(WORKS.pictures[[4, 1]].load())
    assert list(painted.real.table["art_style"]) == ["Woodcut", "Mosaic"]
    assert painted.pictures.load().equal(pictures(2, 4))


class Fading:
    """An autoencoder whose decoder takes a twentieth of the light; pictures are their own latents."""

    config = SimpleNamespace(latent_channels=1)


@pytest.fixture
def fading(monkeypatch: pytest.MonkeyPatch) -> Fading:
    monkeypatch.setattr(report_results, "encode_pictures", lambda vae, x: SimpleNamespace(mean=x.float()))
    monkeypatch.setattr(report_results, "decode", lambda vae, latents: 0.95 * latents / 127.5 - 1)
    return Fading()


def test_the_floors_are_of_as_many_training_pictures_as_were_painted(fading: Fading) -> None:
    painted = Painted(["a"] * 3, WORKS, in_memory(pictures(3, 1)))
    rows = report_results.measured_distances(WORKS, painted, Judges(), fading)  # type: ignore[arg-type]
    assert list(rows) == list(SETS)[:4]  # nothing from a corrected start
    assert {(row["n"], row["of"]) for row in rows.values()} == {(3, 3)}
    assert "fd" not in rows["base"]


def test_pictures_at_no_distance_from_works_or_from_what_is_returned_of_them(fading: Fading) -> None:
    """From the first start the works themselves, from the second what the decoder makes of them."""
    held_out = WORKS.where("split", "test").pictures.load()
    faded = to_pixels(0.95 * held_out.float() / 127.5 - 1)
    painted = Painted(["a"] * 3, WORKS, in_memory(held_out), in_memory(faded))
    rows = report_results.measured_distances(WORKS, painted, Judges(), fading)  # type: ignore[arg-type]
    same, decoded = rows["base"], rows["base, corrected start"]
    for name in ("fd_haar", "pr", "psd"):
        assert same[name] == pytest.approx(0, abs=1e-6)
        assert decoded[f"{name}_rec"] == pytest.approx(0, abs=1e-6)
    assert decoded["fd_haar"] == pytest.approx(same["fd_haar_rec"])
    assert decoded["fd_haar"] > 1e-3
    assert decoded == rows["held out, returned"]
    assert same["brightness spread"] == pytest.approx(1)


def test_groups_of_works_are_all_and_each_style_and_a_style_with_one_split_has_no_reconstruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list(report_results.groups_of("works", WORKS)) == ["all works", "Cubism", "Mosaic", "Woodcut"]
    assert list(report_results.groups_of("photographs", PHOTOGRAPHS)) == ["photographs"]
    held_out = WORKS.where("split", "test")
    monkeypatch.setattr(report_results, "encode_pictures", lambda vae, x: SimpleNamespace(mean=x.load()))
    monkeypatch.setattr(report_results, "decode", lambda vae, latents: latents / 127.5 - 1)
    vae = type("Autoencoder", (), {"config": type("Config", (), {"latent_channels": 1})})
    groups = report_results.reconstructed(vae, "works", WORKS)  # type: ignore[arg-type]
    assert list(groups) == ["all works", "Cubism", "Mosaic"]  # no training picture of Woodcut
    assert groups["all works"].returned.equal(held_out.pictures.load())
    assert groups["Mosaic"].originals.equal(WORKS.pictures[[1]].load())
    assert groups["Cubism"].slope_change == pytest.approx(0)
    assert groups["Cubism"].psnr > 60 > groups["Cubism"].linear
