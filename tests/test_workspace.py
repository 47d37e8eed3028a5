"""Where files and folders are: the names that locks and pages know, below any root, which no hash tells."""

import inspect
from pathlib import Path

import pytest

from atelier import params, scratch
from atelier.workspace import Workspace
from atelier.world.workspace import WorldWorkspace

SMOKE = params.load(Path(__file__).parents[1] / "profiles" / "smoke.yaml")
NAMES = {
    "params_file": "params.yaml",
    "lock": "dvc.lock",
    "pipelines": "pipelines",
    "notebooks": "notebooks",
    "papers": "docs/papers",
    "results": "results",
    "scratch": ".scratch",
    "build": "build",
    "manifests": "build/manifests",
    "pictures": "build/pictures",
    "base": "build/base",
    "evaluator": "build/evaluator",
    "bars": "build/bars.json",
    "known_artists": "build/known_artists.json",
    "cache": "build/cache",
    "reference": "build/reference",
    "starts": "build/starts",
    "leaks": "build/leaks",
    "adapters": "build/adapters",
    "decoders": "build/decoders",
    "samples": "build/samples",
    "measures": "build/measures",
    "studies": "build/studies",
    "failed": "build/failed",
    "by_hand": "build/by-hand",
    "site": "build/site",
}
OF_THE_WORLD = {
    "trunk": "build/trunk",
    "autoencoder": "build/autoencoder",
    "textured": "build/decoder",
    "conversions": "build/conversions",
    "defects": "build/defects",
    "shipped": "build/data",
    "report": "build/report",
}


def properties(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, lambda member: isinstance(member, property))}


@pytest.mark.parametrize(
    ("kind", "names"), [(Workspace, NAMES), (WorldWorkspace, NAMES | OF_THE_WORLD)], ids=["studies", "world"]
)
def test_paths_are_what_the_pipeline_knows(kind: type[Workspace], names: dict[str, str], tmp_path: Path) -> None:
    assert properties(kind) == set(names)
    for name, path in names.items():
        assert str(getattr(kind(), name)) == path
        assert getattr(kind(tmp_path), name) == tmp_path / path


def test_what_is_of_a_study_a_variant_or_a_seed_has_its_folder() -> None:
    workspace = Workspace()
    assert str(workspace.adapter("art_finetuning", "mixed", 1)) == "build/adapters/art_finetuning/mixed/1"
    assert str(workspace.decoder("all", 0)) == "build/decoders/all/0"
    assert str(workspace.compared("vae_decoder")) == "build/compared/vae_decoder.csv"


def test_what_a_parameter_names_may_be_absolute(tmp_path: Path) -> None:
    assert str(Workspace().named("data")) == "data"
    assert Workspace(tmp_path).named("data") == tmp_path / "data"
    assert Workspace(Path("elsewhere")).named(str(tmp_path)) == tmp_path


def run_of(workspace: Workspace, inputs: list[Path]) -> Path:
    """The scratch folder of a stage that reads these."""
    out = workspace.measures / "art_finetuning" / "mixed.csv"
    return scratch.of_stage(SMOKE, workspace, "atelier.studies.art_finetuning.measure", out, inputs, key=1)


def test_unfinished_work_is_named_alike_below_any_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative as in the pipeline, and absolute; by the inputs' names in the workspace and by their content."""
    one, other = Workspace(tmp_path / "one"), Workspace(tmp_path / "other")
    for workspace in (one, other):
        workspace.base.mkdir(parents=True)
        (workspace.base / "weights").write_text("the same")
    monkeypatch.chdir(one.root)  # the folder that relative paths are of
    names = {run_of(each, [each.base]).name for each in (Workspace(), one, other)}
    assert len(names) == 1
    assert names.pop().startswith("measures-art_finetuning-mixed-")
    assert run_of(one, [one.base]).parent == one.scratch
    (other.base / "weights").write_text("others")
    assert run_of(other, [other.base]).name != run_of(one, [one.base]).name
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("data")
    assert run_of(one, [elsewhere]).name == run_of(Workspace(), [elsewhere]).name
