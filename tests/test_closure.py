"""A stage of the pipeline depends on the code that it runs: all of it, nothing else, and no other study's."""

import ast
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from atelier import closure
from atelier.cli import SHARED
from atelier.studies import STUDIES

ROOT = Path(__file__).parent.parent
PIPELINES = [ROOT / "dvc.yaml", *sorted(ROOT.glob("pipelines/*/dvc.yaml"))]
SOURCES = "src/atelier"
# commands of a study that wait for people, so that no pipeline can run them
BY_HAND = {f"atelier.studies.pixel_space.{name}" for name in ("ab", "votes")}

Stage = Mapping[str, Any]  # cmd, deps, ... as dvc.yaml has them


def stages() -> Iterator[tuple[str, str | None, Stage]]:
    """Name, study (None: shared) and mapping of every stage."""
    for path in PIPELINES:
        study = path.parent.name if path.parent != ROOT else None
        for name, stage in YAML(typ="safe").load(path)["stages"].items():
            folder = (path.parent / stage.get("wdir", ".")).resolve()
            assert folder == ROOT, f"{name}: paths of deps begin in the repository's folder"
            yield name, study, stage


STAGES = {name: (study, stage) for name, study, stage in stages()}


def matrix(stage: Stage) -> Stage:
    """What a stage with a matrix does for each of its members."""
    return {**stage, **stage.get("do", {})}


def entries(command: str) -> list[str]:
    """The modules in which a command begins; none of ``check``, which reads parameters alone."""
    match shlex.split(command):
        case ["python", "-m", "atelier", "check", *_]:
            return []
        case ["python", "-m", "atelier", shared, *_] if shared in SHARED:
            return [SHARED[shared]]
        case ["python", "-m", "atelier", study, stage, *_] if study in STUDIES:
            return [f"atelier.studies.{study}.{stage}"]
        case ["python", "-m", "atelier", "page", study]:
            return ["atelier.pipeline.run", f"atelier.studies.{study}.report", *imports_of_notebook(study)]
        case ["python", "-m", module, *_] if closure.path_of(module):
            return [module]
    raise ValueError(f"no stage of this package: {command}")


def imports_of_notebook(study: str) -> list[str]:
    cells = json.loads((ROOT / "notebooks" / f"{study}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return sorted({name for text in code for name in closure.imported(ast.parse(text), closure.PACKAGE)})


def covers(dependency: str, path: str) -> bool:
    return path == dependency or path.startswith(f"{dependency}/")


def holds_another(path: str, study: str | None) -> bool:
    """Whether a path is another study's code, or a folder with some."""
    others = [f"{SOURCES}/studies/{name}" for name in STUDIES if name != study]
    return any(covers(folder, path) or covers(path, folder) for folder in others)


def loads_claims(paths: Sequence[Path]) -> bool:
    return any("claims.load(" in path.read_text(encoding="utf-8") for path in paths)


def needed(command: str, study: str | None) -> set[str]:
    """Every source that a command needs: its modules, the files beside them that they read, and its study's claims."""
    modules = sorted(closure.closure(*entries(command)))
    kept = {path.parent for path in modules if path.parent != closure.ROOT and "studies" not in path.parts}
    beside = {path for folder in kept for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    files = {*modules, *beside} - {closure.ROOT / "py.typed"}
    claims = closure.ROOT / "studies" / (study or "") / "claims.yaml"
    if claims.is_file() and loads_claims(modules):
        files.add(claims)
    return {f"{SOURCES}/{path.relative_to(closure.ROOT).as_posix()}" for path in files}


def faults(name: str, study: str | None, stage: Stage) -> list[str]:
    """What is wrong with a stage's dependencies on code, one line per fault."""
    stage = matrix(stage)
    code = [dependency for dependency in stage.get("deps", []) if covers("src", dependency)]
    files = needed(stage["cmd"], study)
    missing = [path for path in sorted(files) if not any(covers(dependency, path) for dependency in code)]
    idle = [dependency for dependency in code if not any(covers(dependency, path) for path in files)]
    foreign = [path for path in sorted({*code, *files}) if holds_another(path, study)]
    twice = sorted({dependency for dependency in code if code.count(dependency) > 1})
    absent = [dependency for dependency in code if not (ROOT / dependency).exists()]
    return [
        *(f"{name}: {path} is run and no dependency" for path in missing),
        *(f"{name}: {path} is a dependency and not run" for path in idle),
        *(f"{name}: {path} is another study's" for path in foreign),
        *(f"{name}: {path} is listed twice" for path in twice),
        *(f"{name}: {path} does not exist" for path in absent),
    ]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(name: str) -> None:
    assert faults(name, *STAGES[name]) == []


def test_every_study_has_its_stages_and_its_page() -> None:
    by_study = {study: [name for name, (own, _) in STAGES.items() if own == study] for study in STUDIES}
    assert all(study in names and len(names) > 1 for study, names in by_study.items())
    assert {SHARED[entry] for entry in SHARED} == {
        entry for study, stage in STAGES.values() if study is None for entry in entries(stage["cmd"])
    } - {"atelier.pipeline.render"}


def test_every_module_that_is_a_stage_is_run_by_one() -> None:
    """A module of a study with ``main`` is a stage's, but for what people are asked."""
    run = {entry for _, stage in STAGES.values() for entry in entries(matrix(stage)["cmd"])}
    assert all(closure.path_of(module) for module in BY_HAND)
    assert run.isdisjoint(BY_HAND)
    for study in STUDIES:
        for path in sorted((closure.ROOT / "studies" / study).glob("*.py")):
            functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
            if "main" in functions:
                assert f"atelier.studies.{study}.{path.stem}" in run | BY_HAND


# ------------------------------------------------------------------------------------------------ the check itself


def changed(name: str, *, less: str = "", more: Sequence[str] = ()) -> list[str]:
    study, stage = STAGES[name]
    deps = matrix(stage)["deps"]
    assert not less or less in deps
    return faults(name, study, {**stage, "deps": [*(each for each in deps if each != less), *more]})


@pytest.mark.parametrize(
    ("name", "less"),
    [
        ("signal_leak-sample", f"{SOURCES}/sampling"),
        ("signal_leak-sample", f"{SOURCES}/studies/signal_leak/fit.py"),
        ("vae_decoder-train", f"{SOURCES}/methods"),
        ("base", f"{SOURCES}/scratch.py"),
        ("art_finetuning", f"{SOURCES}/report"),
        ("prompt_enrichment-collect", f"{SOURCES}/studies/prompt_enrichment/claims.yaml"),
        ("vae_decoder-collect", f"{SOURCES}/studies/vae_decoder/claims.yaml"),
        ("site", f"{SOURCES}/pipeline"),
    ],
)
def test_a_missing_dependency_is_found(name: str, less: str) -> None:
    lines = changed(name, less=less)
    assert lines
    assert all(line.startswith(f"{name}: {less}") and line.endswith("is run and no dependency") for line in lines)


@pytest.mark.parametrize("stem", ["train.py", "claims.yaml"])
def test_another_studys_code_is_found(stem: str) -> None:
    foreign = f"{SOURCES}/studies/vae_decoder/{stem}"
    lines = changed("signal_leak-sample", more=[foreign])
    assert f"signal_leak-sample: {foreign} is another study's" in lines


@pytest.mark.parametrize("idle", [f"{SOURCES}/world", f"{SOURCES}/studies/signal_leak/measure.py"])
def test_a_dependency_that_is_not_run_is_found(idle: str) -> None:
    assert changed("signal_leak-sample", more=[idle]) == [f"signal_leak-sample: {idle} is a dependency and not run"]


def test_all_studies_together_are_no_dependency() -> None:
    """A folder that covers another study's code, too."""
    lines = changed("signal_leak-sample", more=[f"{SOURCES}/studies"])
    assert lines == [f"signal_leak-sample: {SOURCES}/studies is another study's"]


def test_a_dependency_that_does_not_exist_or_stands_twice_is_found() -> None:
    lines = changed("signal_leak-sample", more=[f"{SOURCES}/sampling", f"{SOURCES}/gone.py"])
    assert f"signal_leak-sample: {SOURCES}/sampling is listed twice" in lines
    assert f"signal_leak-sample: {SOURCES}/gone.py does not exist" in lines


def planted(root: Path, monkeypatch: pytest.MonkeyPatch, sources: Mapping[str, str]) -> None:
    """A package of these sources in place of this one."""
    for name, text in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(closure, "ROOT", root)
    closure.direct.cache_clear()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two studies, one of which uses the other's code in a function."""
    sources = {
        "__init__.py": "",
        "cli.py": "from atelier.studies import STUDIES\n",
        "seeds.py": "import numpy\n",
        "models/base.py": "from atelier import seeds\n",
        "models/names.yaml": "a: b\n",
        "studies/__init__.py": "STUDIES = ()\n",
        "studies/signal_leak/train.py": "from atelier.models.base import load\n",
        "studies/vae_decoder/train.py": "def f():\n    from atelier.studies.signal_leak import train\n",
    }
    planted(tmp_path / "atelier", monkeypatch, sources)
    yield tmp_path / "atelier"
    closure.direct.cache_clear()


def test_code_of_another_study_is_found_in_what_a_stage_runs(tree: Path) -> None:
    own = [f"{SOURCES}/{name}" for name in ("models", "seeds.py")]
    fine = {"cmd": "python -m atelier signal_leak train", "deps": [*own, f"{SOURCES}/studies/signal_leak/train.py"]}
    assert faults("one", "signal_leak", fine) == []
    foreign = {"cmd": "python -m atelier vae_decoder train", "deps": [*own, f"{SOURCES}/studies/vae_decoder/train.py"]}
    assert faults("two", "vae_decoder", foreign) == [
        f"two: {SOURCES}/studies/signal_leak/train.py is run and no dependency",
        f"two: {SOURCES}/studies/signal_leak/train.py is another study's",
    ]


def test_a_closure_follows_imports_and_leaves_out_how_a_stage_is_started(tree: Path) -> None:
    paths = closure.closure("atelier.studies.vae_decoder.train", "atelier.cli")
    names = {path.relative_to(tree).as_posix() for path in paths}
    assert names == {
        "models/base.py", "seeds.py", "studies/signal_leak/train.py", "studies/vae_decoder/train.py",
    }  # fmt: skip


def test_a_codes_hash_changes_with_what_is_run_and_with_nothing_else(tree: Path) -> None:
    def hashed() -> str:
        closure.direct.cache_clear()
        return closure.code_hash("atelier.studies.signal_leak.train")

    before = hashed()
    for idle in ("studies/vae_decoder/train.py", "cli.py"):
        (tree / idle).write_text("x = 1\n")
        assert hashed() == before
    (tree / "seeds.py").write_text("import numpy as np\n")
    assert hashed() != before
