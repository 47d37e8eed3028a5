"""Measures and cells in words, and names that name something."""

from pathlib import Path

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot as plt

from atelier import claims, params
from atelier.claims import Comparison
from atelier.report import naming
from atelier.studies import STUDIES

PROFILES = sorted((Path(__file__).parent.parent / "profiles").glob("*.yaml"))


def every_comparison(study: str) -> list[Comparison]:
    every = {**claims.load(study), **claims.findings(study)}
    return [each for claim in every.values() for each in claim.every_comparison]


def variants(study: str, profile: Path) -> set[str]:
    """What a profile trains in a study, whatever its section calls the lists."""
    section = params.read(profile).get(study, {})
    listed = [section.get(key) or [] for key in ("variants", "ablations", "second", "third", "trained")]
    return {name for names in listed for name in names}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("study", STUDIES)
def test_every_variant_of_every_profile_has_a_name(study: str, profile: Path) -> None:
    assert variants(study, profile) <= set(naming.cells(study))


@pytest.mark.parametrize("study", STUDIES)
def test_names_within_a_study_differ(study: str) -> None:
    names = list(naming.cells(study).values())
    assert len(set(names)) == len(names)


def test_a_table_has_words_for_models_and_hovers_for_measures() -> None:
    frame = pd.DataFrame(
        {"fd": [1.0, 2.0, 3.0]}, index=["rank8-mixed", "rank8-mixed-corrected", "full-mixed less untuned"]
    )
    shown = BeautifulSoup(naming.table("art_finetuning", frame.to_html()), "html.parser")
    heads = [head.text for head in shown.find_all("th")]
    assert heads == [
        "", "fd", "rank 8, mixed captions", "rank 8, mixed captions, corrected start", "full-mixed less untuned",
    ]  # fmt: skip
    assert [abbr["title"] for abbr in shown.find_all("abbr")] == [
        "Fréchet distance to real works",
        "the whole denoiser tuned, mixed captions less the untuned base",
    ]
    assert [cell.text for cell in shown.find_all("td")] == ["1.0", "2.0", "3.0"]


def test_a_figure_has_words_for_models() -> None:
    drawn, axis = plt.subplots()
    axis.plot([0, 1], label="rank4-mixed")
    axis.set(title="never named", yticks=[0], yticklabels=["untuned"])
    axis.legend()
    naming.figure("art_finetuning", drawn)
    assert axis.get_legend().get_texts()[0].get_text() == "rank 4, mixed captions"
    drawn.canvas.draw()
    assert axis.get_yticklabels()[0].get_text() == "the untuned base"
    assert axis.get_title() == "never named"
    plt.close(drawn)


def test_a_sheets_rows_have_words() -> None:
    assert naming.rows("art_finetuning", {"untuned": 1, "by hand": 2}) == {"the untuned base": 1, "by hand": 2}


@pytest.mark.parametrize("study", STUDIES)
def test_a_studys_names_are_of_cells_that_its_claims_compare_or_that_a_profile_has(study: str) -> None:
    sections = [params.read(path).get(study, {}) for path in PROFILES]
    trained = {name for each in sections for name in (*each.get("trainings", {}), *each.get("models", []))}
    trained |= {name for each in sections for name in (*each.get("decoders", {}), *each.get("variants", []))}
    styles = {name for each in sections for name in each.get("styles", {})}
    beside = {"untuned", "untuned-again", "untuned-sde", "again", *(f"untuned-{name}" for name in trained)}
    beside |= {f"{kind}-{style}{leak}" for kind in ("plain", "words") for style in styles for leak in ("", "+leak")}
    cells = {cell.partition("@")[0] for each in every_comparison(study) for cell in each.cells}
    parts = {part for cell in cells for part in (cell, *cell.split("+"))}
    assert set(naming.cells(study)) <= {*parts, *trained, *beside}


@pytest.mark.parametrize("study", STUDIES)
def test_every_part_of_a_claim_is_said_without_the_codes_names(study: str) -> None:
    for each in every_comparison(study):
        for words in naming.comparison(study, each):
            assert not {"@", "_"} & set(words), words


def test_every_measure_that_claims_compare_has_a_name() -> None:
    measures = {each.measure.partition("/")[0] for study in STUDIES for each in every_comparison(study)}
    assert measures <= set(naming._measures())


@pytest.mark.parametrize(
    ("study", "changed", "reference", "words"),
    [
        (
            "art_finetuning", ["rank8-mixed@1/16"], ["untuned@1/16"],
            ("Fréchet distance to real works at guidance 16", "rank 8, mixed captions", "the untuned base"),
        ),
        (
            "art_finetuning", ["rank8-mixed@1/4"], ["untuned@1/4/corrected"],
            ("Fréchet distance to real works", "rank 8, mixed captions at guidance 4",
             "the untuned base at guidance 4, from a corrected start"),
        ),
        (
            "prompt_enrichment", ["untuned@1/4"], ["untuned@0/4"],
            ("Fréchet distance to real works", "the untuned base with style and artist, at guidance 4",
             "the untuned base from plain descriptions, at guidance 4"),
        ),
        (
            "vae_decoder", ["rank8-mixed+all@1/4", "rank8-mixed+all@1/16"], ["rank8-mixed@1/4", "rank8-mixed@1/16"],
            ("Fréchet distance to real works at guidance 4 and 16",
             "rank 8, mixed captions, with the decoder retuned by all three losses", "rank 8, mixed captions"),
        ),
        ("signal_leak", ["low-3"], ["never-named"],
         ("Fréchet distance to real works", "a leak of low frequencies (N = 3)", "never named")),
    ],
)  # fmt: skip
def test_a_comparison_in_words(study: str, changed: list[str], reference: list[str], words: tuple[str, ...]) -> None:
    part = Comparison(measure="fd", changed=changed, reference=reference, rule="below")
    assert naming.comparison(study, part) == words


def test_many_models_are_counted() -> None:
    models = [f"rank{rank}-{kind}@1/16" for rank in (4, 8) for kind in ("mixed", "conditional")]
    part = Comparison(measure="psd", changed=models, reference=["untuned@1/16"], rule="below")
    assert naming.comparison("art_finetuning", part)[1] == "4 models"
    alike = part.model_copy(
        update={"changed": [f"rank8-{kind}@1/16" for kind in ("unconditional", "conditional", "mixed")]}
    )
    assert naming.comparison("art_finetuning", alike)[1] == "rank 8, mean of 3 models"


def test_a_reference_that_is_nothing_is_not_named() -> None:
    part = Comparison(measure="net_defects", changed=["both-over-latent"], reference=["nothing"], rule="above")
    assert naming.comparison("pixel_space", part)[2] == ""
    assert naming.sentence("pixel_space", part) == "pairs won less lost on defects: both terms over latents alone"
    assert naming.cell("art_finetuning", "rank8-mixed@1/4/corrected") == (
        "rank 8, mixed captions at guidance 4, from a corrected start"
    )


def test_a_style_stands_with_its_measure() -> None:
    assert naming.measure("high/Cut_Out") == "error of high frequencies (Cut Out)"
