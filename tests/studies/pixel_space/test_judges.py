"""Judges of defects: of a folder, or trained for the pictures and the base at hand."""

from pathlib import Path

import pytest
import torch

from atelier import params
from atelier.evaluation.judges import Bar
from atelier.files import SEAL
from atelier.models import defect_judge
from atelier.studies.pixel_space import judges
from atelier.training.defects import NAMES
from atelier.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = {"steps": 2, "batch": 4, "learning_rate": 0.001, "decay": "cosine", "warmup": 1, "beta2": 0.99,
         "weight_decay": 0.0, "clip": 1.0, "ema": 0, "checkpoint_every": 1}  # fmt: skip
TRAINED = {"judges": None, "judge_training": {"works": 12, "side": 32, "optimisation": SHORT}}


def changed(workspace: Workspace, **other: object) -> params.Params:
    section = params.read(workspace.params_file)["pixel_space"]
    return params.with_sections({"pixel_space": section | other}, workspace.params_file)


@pytest.fixture
def apart(workspace: Workspace) -> Workspace:
    """The workspace, whose own folder of judges is one of nobody else's."""
    (workspace.build / "judges").unlink()
    return workspace


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_judges_of_a_folder_are_read_there_and_tracked(apart: Workspace) -> None:
    config = changed(apart)
    judges.main(config, apart)
    assert set(files(judges.folder(apart))) == {judges.BARS, judges.GIVEN, SEAL}
    assert judges.bars(apart) == []  # the tiny world says nothing of its own
    before = (judges.folder(apart) / judges.GIVEN).read_bytes()
    other = apart.root / "others"
    for seed, (role, kind) in enumerate(judges.ROLES.items()):
        defect_judge.save(defect_judge.build(kind, NAMES, 10 + seed), other / role, {})
    judges.main(changed(apart, judges="others"), apart)
    assert (judges.folder(apart) / judges.GIVEN).read_bytes() != before  # so that what follows runs again


def test_trained_judges_read_no_other_worlds_and_held_out_works_say_what_they_tell(
    apart: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = defect_judge.load
    monkeypatch.setattr(defect_judge, "load", lambda folder: read.append(folder) or real(folder))
    config = changed(apart, **TRAINED)
    judges.main(config, apart)
    assert all("data" not in path.parts for path in read)
    first, second = (judges.load(config, apart, role) for role in judges.ROLES)
    assert (first.kind, second.kind) == ("plain", "residual")
    known = judges.bars(apart)
    assert {bar.name for bar in known} == {
        f"defect judge, {role}, {defect}, works in order" for role in judges.ROLES for defect in NAMES
    }
    assert all(0 <= bar.value <= 1 and bar.least == 0.8 for bar in known)
    before = files(judges.folder(apart))
    judges.main(config, apart)
    assert files(judges.folder(apart)) == before


def test_a_bar_is_the_share_of_pairs_in_order() -> None:
    """Of a judge whose score is a picture's speckle: it orders speckled pairs, and those of a blur the wrong way."""

    class Rough(torch.nn.Module):
        defects = ("speckle", "blur")

        def score(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.diff(dim=-1).abs().mean((1, 2, 3))

    works = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    smooth = (works.float().mean((2, 3), keepdim=True).expand_as(works) + works / 8).to(torch.uint8)
    seen = judges.Seen(smooth, smooth, [f"work-{n}" for n in range(6)])
    bars: list[Bar] = judges.bars_of(Rough(), "choosing", seen, 0)  # type: ignore[arg-type]
    assert [(bar.name.split(", ")[2], bar.value, bar.n) for bar in bars] == [("speckle", 1.0, 6), ("blur", 0.0, 6)]


def test_windows_of_a_work_and_of_what_was_returned_are_the_same() -> None:
    works = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16) % 251
    seen = judges.Seen(works.byte(), (works + 1).byte(), ["a", "b"]).windows(8, seed=1)
    assert seen.pictures.shape == (2, 3, 8, 8)
    assert torch.equal(seen.returned, seen.pictures + 1)
    for work, window in zip(works.byte(), seen.pictures, strict=True):
        assert any(
            torch.equal(work[:, top : top + 8, left : left + 8], window) for top in range(9) for left in range(9)
        )
    assert seen.windows(0, seed=1) is seen


@pytest.mark.parametrize("other", [{"judges": None}, {"judge_training": TRAINED["judge_training"]}])
def test_judges_come_from_one_place(workspace: Workspace, other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"pixel_space\.judges: expected a folder that has them, or judge_training"):
        changed(workspace, **other)
