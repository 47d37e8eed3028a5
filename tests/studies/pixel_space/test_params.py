"""The study's section: what it refuses, in one line each, and the cells that it has."""

from pathlib import Path
from typing import Any

import pytest

from atelier import params
from atelier.studies.pixel_space.params import PostTraining, corrected, seeds_of

PROFILES = Path(__file__).parents[3] / "profiles"


def edited(**section: Any) -> dict[str, Any]:
    """The study's profile with other values of the section; ``trainings`` are added, and named as variants."""
    tree = params.read(PROFILES / "study.yaml")
    own = tree["pixel_space"]
    added = section.pop("trainings", {})
    own["trainings"] |= added
    own["variants"] += list(added)
    for key, value in section.items():
        own[key] = own[key] | value if isinstance(value, dict) else value
    return tree


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        params.check(tree, "p.yaml")
    (line,) = str(caught.value).splitlines()
    return line.removeprefix("p.yaml: pixel_space.")


SUPERVISED = {"method": "supervised", "terms": "latent"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"crop": 9}, "crop: 9 is more than a latent's side"),
        ({"style": None}, "style: expected one of the painter's, because works are painted in it"),
        ({"curated": {"painted": 0}}, "curated.painted: expected at least 8 of both, or 0 and 0"),
        ({"curated": {"kept": 1001}}, "curated.kept: 1001 of 1000 painted ones"),
        ({"curated": {"kept": 4}}, "curated.kept: 4, fewer than 5 groups of repeats"),
        ({"candidates": {"each": 1}}, "candidates.each: input should be greater than or equal to 2, got 1"),
        ({"most": 1.0}, "most: input should be greater than 1, got 1.0"),
        ({"beta": 0.0}, "beta: input should be greater than 0, got 0.0"),
        ({"strength": 1.0}, "strength: input should be less than 1, got 1.0"),
        ({"ablation_seeds": [0]}, "ablation_seeds: expected two or more, because intervals are over them"),
        ({"ablation_seeds": [0, 9]}, "ablation_seeds: expected a subset of 0, 1, 2, 3, 4, each once"),
        (
            {"trainings": {"own": SUPERVISED | {"share": 0.3}}},
            "trainings.own.share: of two terms, this is latent alone",
        ),
        (
            {"trainings": {"own": SUPERVISED | {"decoded": "clean"}}},
            "trainings.own.decoded: of the pixel term, this is latent alone",
        ),
        (
            {"trainings": {"own": SUPERVISED | {"noise": "separate"}}},
            "trainings.own.noise: of pairs of preferences, this is supervised",
        ),
        ({"trainings": {"nothing": SUPERVISED}}, "trainings: 'nothing' names something else in this study"),
        ({"trainings": {"untuned": SUPERVISED}}, "trainings: 'untuned' names something else in this study"),
        (
            {"trainings": {"both-corrected": SUPERVISED}},
            "trainings: 'both-corrected' names something else in this study",
        ),
        (
            {"trainings": {"both-over-latent": SUPERVISED}},
            "trainings: 'both-over-latent' names something else in this study",
        ),
        (
            {"trainings": {"own": {"method": "kto", "terms": "latent"}}},
            "trainings.own.method: input should be 'supervised', 'dpo', 'simpo', 'ipo' or 'hinge', got 'kto'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(section: dict[str, Any], said: str) -> None:
    assert refusal(edited(**section)) == said


def test_variants_must_name_each_training_once() -> None:
    tree = edited()
    tree["pixel_space"]["variants"].remove("pixel")
    assert refusal(tree).startswith("variants: must name each of the trainings, with ablations, once, differs in")


@pytest.mark.parametrize(
    ("measure", "cell", "there"),
    [
        ("defects", "untuned", True),
        ("defects", "untuned-corrected", True),
        ("defects", "both", True),
        ("defects", "both-corrected", True),
        ("defects", "share-30", True),
        ("defects", "share-30-corrected", False),
        ("defects", "bothh", False),
        ("net_defects", "both-over-latent", True),
        ("net_defects", "both-over-latent-corrected", True),
        ("net_defects", "share-30-over-untuned", True),
        ("net_defects", "latent-over-both", False),
        ("log_form_ratio", "noisiest", True),
        ("round_trip", "t-500", True),
        ("winner_error", "dpo-both", True),
        ("winner_error", "both", False),
        ("net_defects", "nothing", True),
    ],
)
def test_the_study_has_these_cells(measure: str, cell: str, there: bool) -> None:
    config = params.load(PROFILES / "study.yaml")
    assert config.section("pixel_space").measures(config, measure, cell) == there


def test_fewer_variants_have_fewer_cells() -> None:
    config = params.load(PROFILES / "embedded.yaml")
    section = config.section("pixel_space")
    assert section.measures(config, "net_defects", "both-over-latent")
    assert not section.measures(config, "net_defects", "both-over-latent-longer")
    assert ("both", "latent-longer") not in section.compared


def test_steps_seeds_and_starts_of_a_variant() -> None:
    config = params.load(PROFILES / "study.yaml")
    section = config.section("pixel_space")
    steps = section.supervised.steps
    assert section.optimisation_of("both").steps == steps
    assert section.optimisation_of("latent-longer").steps == round(2.1 * steps)
    assert section.optimisation_of("dpo-both") == section.preference
    assert seeds_of(config, "both") == [0, 1, 2, 3, 4]
    assert seeds_of(config, "share-10") == [0, 1, 2]
    assert section.starts("both") == ["white", "corrected"]
    assert section.starts("share-10") == ["white"]
    assert corrected("both") == "both-corrected"


def test_losses_with_a_reference_are_those_of_four_errors() -> None:
    refers = {method: PostTraining(method=method, terms="both").refers for method in ("dpo", "simpo", "ipo", "hinge")}  # type: ignore[arg-type]
    assert refers == {"dpo": True, "simpo": False, "ipo": True, "hinge": True}


def test_only_a_named_style_is_asked_of_the_data() -> None:
    named = params.load(PROFILES / "study.yaml").section("pixel_space")
    assert named.named_styles() == {"style": "Expressionism"}
    assert params.load(PROFILES / "own.yaml").section("pixel_space").named_styles() == {}
