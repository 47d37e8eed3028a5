"""Measures and cells in words, and names that name something."""

from pathlib import Path

import pytest

from atelier import claims, params
from atelier.claims import Comparison
from atelier.report import naming
from atelier.studies import STUDIES

PROFILES = sorted((Path(__file__).parent.parent / "profiles").glob("*.yaml"))


def every_comparison(study: str) -> list[Comparison]:
    every = {**claims.load(study), **claims.findings(study)}
    return [each for claim in every.values() for each in claim.every_comparison]


@pytest.mark.parametrize("study", STUDIES)
def test_a_studys_names_are_of_cells_that_its_claims_compare_or_that_a_profile_has(study: str) -> None:
    sections = [params.read(path).get(study, {}) for path in PROFILES]
    trained = {name for each in sections for name in (*each.get("trainings", {}), *each.get("variants", []))}
    beside = {"untuned", "untuned-sde", *(f"untuned-{name}" for name in trained)}
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
             "the untuned base plain descriptions, at guidance 4"),
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


def test_a_style_stands_with_its_measure() -> None:
    assert naming.measure("high/Cut_Out") == "error of high frequencies (Cut Out)"
