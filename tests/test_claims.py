"""The committed claims are readable, and each says what would matter."""

from pathlib import Path

import pytest

from atelier import claims
from atelier.claims import Claim, Comparison
from atelier.data.painter.styles import STYLES
from atelier.studies import STUDIES as LISTED


def part(changed: str, rule: str = "below", **more: object) -> Comparison:
    if "@" not in changed:
        changed = f"{changed}@1/4"
    return Comparison.model_validate(
        {"measure": "fd", "changed": [changed], "reference": ["untuned@1/4"], "rule": rule, **more}
    )


def claim(
    *parts: Comparison,
    control: Comparison | None = None,
    enough: int | None = None,
    any_of: list[Comparison] | None = None,
) -> Claim:
    said = {"study": "s", "reach": "direction", "says": "", "paper": "", "rule": ""}
    return Claim(**said, control=control, parts=list(parts), enough=enough, any_of=any_of or [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rule": "same"}, "'same' needs one"),
        ({"rule": "at least"}, "'at least' needs one"),
        ({"rule": "same", "margin": 1.0, "share": 0.1}, "more than one"),
        ({"changed": ["a+b+c@1/4"]}, "changed"),
        ({"margin": -1.0}, "margin"),
        ({"rule": "beneath"}, "rule"),
        ({"changed": ["untuned/4"]}, "changed"),
        ({"least": {"share": 0.1, "points": 1.0}}, "either a share or points"),
        ({"least": {}}, "either a share or points"),
        ({"rule": "same", "margin": 1.0, "least": {"points": 1.0}}, "has a margin and no least effect"),
        ({"rule": "not below"}, "rule"),
        ({"margin": 1.0, "half_gain": {"changed": ["a@1/4"], "reference": ["a@0/4"]}}, "more than one"),
    ],
)
def test_a_part_that_cannot_be_decided_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Comparison.model_validate(
            {"measure": "fd", "changed": ["a@1/4"], "reference": ["b@1/4"], "rule": "below", **wrong}
        )


def test_the_committed_claims_are_readable_and_complete() -> None:
    table = claims.load_all()
    ready = [*(f"A{at}" for at in range(1, 7)), "B1", "B2", *(f"C{at}" for at in range(1, 13))]
    ready += [f"{letter}{at}" for letter in "DE" for at in range(1, 7)]
    ready += [f"F{at}" for at in range(1, 5)]
    assert sorted(name for name, each in table.items() if each.parts) == sorted(ready)
    assert len(table) == len(ready)
    files = sorted(claims.path_of("").parent.glob("*/claims.yaml"))
    assert {file.parent.name for file in files} <= set(LISTED)  # none awaits its study
    assert all(each.says and each.paper and each.rule for each in table.values())


def test_findings_of_our_own_are_complete_and_apart_from_the_papers_claims() -> None:
    found = {study: claims.findings(study) for study in LISTED}
    assert {study: list(each) for study, each in found.items() if each} == {
        "art_finetuning": ["N1"], "vae_decoder": ["N2"],
    }  # fmt: skip
    every = {name: finding for each in found.values() for name, finding in each.items()}
    assert not set(every) & set(claims.load_all())
    for finding in every.values():
        assert finding.paper == "no paper claims it; seen first here, on results/first"
        assert all(part.least for part in finding.every_part)
    first, second = every["N1"], every["N2"]
    assert {tuple(part.changed) for part in first.parts} == {("untuned@1/4/corrected",)}
    assert [len(part.reference) for part in first.parts] == [1, 1, 1, 3, 3]
    assert sorted(part.measure.removeprefix("high/") for part in second.parts) == sorted(STYLES)
    assert (second.enough, [part.measure for part in second.any_of]) == (len(STYLES) - 1, ["high"])


def test_what_a_card_adds_is_what_a_reader_must_know() -> None:
    assert {name for name, each in claims.load_all().items() if each.note} == {
        *("A3", "C12", "D1", "D2", "D6", "E1", "E2", "E6", "F2"),
    }
    assert all("only people can judge" in claims.load("pixel_space")[name].note for name in ("E1", "E2", "E6"))
    assert "policy gradients the page shows numbers and decides nothing" in claims.load("shaping")["F2"].note
    assert "small model's decoder" in claims.load("latent_perceptual")["C12"].note


def test_a_comparison_between_starts_has_no_other_start() -> None:
    assert not part("a").between_starts
    assert part("a@1/4/corrected").between_starts
    assert Comparison(measure="fd", changed=["lpl-corrected"], reference=["lpl"], rule="below").between_starts


def test_a_claim_lies_in_its_studys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "claims.yaml"
    monkeypatch.setattr(claims, "path_of", lambda study: file)
    assert claims.load("shaping") == {}
    file.write_text("A1: {study: shaping, reach: direction, says: s, paper: p, rule: r}\n")
    assert list(claims.load("shaping")) == ["A1"]
    with pytest.raises(
        ValueError, match=r"^signal_leak/claims\.yaml: claim A1 is of the study 'shaping', not of 'signal_leak'$"
    ):
        claims.load("signal_leak")


def test_cells_of_claims_are_those_of_parts_margins_controls_and_conditions() -> None:
    gain = {"changed": ["c@1/4"], "reference": ["d@1/4"]}
    one = claim(part("a", "same", half_gain=gain), control=part("e"), any_of=[part("b")])
    one = one.model_copy(update={"conditions": [part("f")]})
    assert claims.cells_of({"A1": one}) == {f"{name}@1/4" for name in ("a", "b", "c", "d", "e", "f", "untuned")}


def test_the_same_comparison_at_the_corrected_start() -> None:
    gain = {"changed": ["c@1/4"], "reference": ["lpl"]}
    moved = part("a", "same", half_gain=gain).at_corrected_start()
    assert moved.cells == ["a@1/4/corrected", "untuned@1/4/corrected", "c@1/4/corrected", "lpl-corrected"]
    least = part("a", least={"share": 0.1, "of": ["b@1/4"]}).at_corrected_start().least
    assert least is not None
    assert (least.share, least.of) == (0.1, ["b@1/4/corrected"])


def test_every_part_in_one_direction_says_what_would_matter() -> None:
    for name, each in claims.load_all().items():
        for number, comparison in enumerate(each.every_part, 1):
            threshold = set(comparison.reference) <= {"fifth", "half", "one-percent"}
            assert not comparison.directed or threshold or comparison.least or comparison.margin, (name, number)


def test_any_word_changes_a_claims_digest() -> None:
    one = claim(part("a"))
    assert one.digest == claim(part("a")).digest
    assert one.digest != one.model_copy(update={"rule": "x"}).digest
    assert one.digest == one.model_copy(update={"note": "x"}).digest  # which judges nothing
    assert one.digest != claim(part("a", margin=0.1)).digest
    assert one.digest != claim(part("a", share=0.1)).digest
    assert one.digest == claim(part("a", share=0.0)).digest  # what is not said is not cited
    assert one.digest == one.model_copy(update={"conditions": []}).digest
    assert one.digest != one.model_copy(update={"conditions": [part("b")]}).digest
