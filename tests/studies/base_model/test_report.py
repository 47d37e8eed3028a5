"""The page of the base model, on made-up pictures and numbers: what it holds, records and leaves out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor

import contact_sheets
from atelier import params
from atelier.evaluation.intervals import wilson_interval
from atelier.evaluation.judges import Bar
from atelier.report.items import Figure, Table, Text
from atelier.sampling import store
from atelier.studies.base_model import report, report_results, sheets
from atelier.studies.base_model.params import Config
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
    return Corpus(table, pictures(len(styles)))


WORKS = corpus(["Cubism", "Mosaic", "Cubism", "Mosaic", "Woodcut"], ["train", "test", "test", "train", "test"])
PHOTOGRAPHS = corpus(["Photograph"] * 3, ["train", "test", "test"])


def returned(psnr: float) -> Returned:
    return Returned(pictures(2), pictures(2), psnr, psnr - 1, -2.5, -0.25)


def distances(kid: float) -> dict[str, float]:
    return {"n": 2, "of": 3, "fd": 5.0, "kid": kid, "psd": 0.1, "fd evaluator": 7.0, "brightness spread": kid / 40}


@pytest.fixture
def results() -> report.Results:
    kinds = {"photographs": PHOTOGRAPHS, "works": WORKS}
    prompts = ["a boat", "a house", "a bird", "a sun", "a tree"]
    table = sheets.listed(["a boat, in the style of Cubism", "a boat"], wanted=["Color_Field_Painting", ""])
    sheet = Sheet(table, {1.0: pictures(2), 4.0: pictures(2)}, {4.0: wilson_interval(1, 2)})
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
        painted={kind: Painted(prompts, each, pictures(len(each.table), 1)) for kind, each in kinds.items()},
        sheets={"styles": sheet, "emotions": Sheet(sheets.listed([]), {4.0: pictures(0)}, {})},
        distances={
            (kind, name): distances(kid)
            for kind, kids in {"photographs": (1.0, 5.0), "works": (2.0, 20.0)}.items()
            for name, kid in zip(("training split", "base"), kids, strict=True)
        },
        shares={
            ("photographs", "subject"): Shares(wilson_interval(4, 4), wilson_interval(3, 4)),
            ("works", "art_style"): Shares(wilson_interval(2, 4), wilson_interval(1, 4)),
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
    assert report.headline(less)[0] == "base/kid/photographs"


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
    assert list(table.frame.index) == [
        "photographs, training split", "photographs, base", "works, training split", "works, base",
    ]  # fmt: skip
    assert table.metrics["base/kid/works"].value == 20.0
    assert table.metrics["base/fd_evaluator/works"].n == 2
    assert table.metrics["base/brightness_spread/works"].unit == "ratio"
    assert not {"base/n/works", "base/of/works"} & set(table.metrics)
    text = report.summary(results).text
    assert "works: KID 20.00; between two sets of real pictures 2.00." in text
    assert "4.0 times its KID to photographs" in text


def test_without_photographs_nothing_is_said_of_them(results: report.Results) -> None:
    works = replace(results, painted={"works": results.painted["works"]}, shares={})
    assert "photographs" not in report.summary(works).text
    assert report.headline(works)[1:] == ["base/kid/works", "base/psd/works", "base/brightness_spread/works"]


def test_attributes_have_the_share_of_the_base_beside_that_of_held_out_pictures(results: report.Results) -> None:
    table = report.attributes(results)
    assert table.frame.loc[("works", "style"), ["n", "held-out", "base"]].tolist() == [4, 0.5, 0.25]
    assert set(table.metrics) == {"base/sees_subject/photographs", "base/sees_style/works"}


# ---------------------------------------------------------------------------------------------- what is measured


def test_painted_pictures_stand_beside_those_whose_prompts_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"path": ["Woodcut/4.png", "Mosaic/1.png"], "prompt": ["a", "b"]})
    monkeypatch.setattr(store, "read", lambda samples, study, kind, guidance: (pictures(2, int(guidance)), table))
    painted = report_results.read_painted(Path("samples"), "works", WORKS, CONFIG)
    assert painted.real.pictures.equal(WORKS.pictures[[4, 1]])
    assert list(painted.real.table["art_style"]) == ["Woodcut", "Mosaic"]
    assert painted.pictures.equal(pictures(2, 4))


def test_the_floor_is_of_as_many_training_pictures_as_were_painted() -> None:
    rows = report_results.measured_distances(WORKS, Painted(["a"] * 3, WORKS, pictures(3, 1)), None)
    assert {name: (row["n"], row["of"]) for name, row in rows.items()} == {"training split": (3, 3), "base": (3, 3)}
    assert "fd evaluator" not in rows["base"]
    same = report_results.measured_distances(
        WORKS, Painted(["a"] * 3, WORKS, WORKS.where("split", "test").pictures), None
    )
    assert same["base"]["fd"] == pytest.approx(0, abs=1e-6)
    assert same["base"]["brightness spread"] == pytest.approx(1)


def test_groups_of_works_are_all_and_each_style_and_a_style_with_one_split_has_no_reconstruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list(report_results.groups_of("works", WORKS)) == ["all works", "Cubism", "Mosaic", "Woodcut"]
    assert list(report_results.groups_of("photographs", PHOTOGRAPHS)) == ["photographs"]
    held_out = WORKS.where("split", "test")
    monkeypatch.setattr(report_results, "encode_pictures", lambda vae, x: type("Latents", (), {"mean": x}))
    monkeypatch.setattr(report_results, "decode", lambda vae, latents: latents / 127.5 - 1)
    vae = type("Autoencoder", (), {"config": type("Config", (), {"latent_channels": 1})})
    groups = report_results.reconstructed(vae, "works", WORKS)  # type: ignore[arg-type]
    assert list(groups) == ["all works", "Cubism", "Mosaic"]  # no training picture of Woodcut
    assert groups["all works"].returned.equal(held_out.pictures)
    assert groups["Mosaic"].originals.equal(WORKS.pictures[[1]])
    assert groups["Cubism"].slope_change == pytest.approx(0)
    assert groups["Cubism"].psnr > 60 > groups["Cubism"].linear
