"""What the documentation draws and names is what is there."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from atelier.closure import path_of
from atelier.pipeline import map as maps

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PACKAGE = ROOT / "src" / "atelier"


def test_drawings_are_of_the_pipeline_and_library_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert maps.main([str(tmp_path)]) == 0
    for name in ("pipeline.svg", "library.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), f"run make maps: {name} is stale"


@pytest.mark.parametrize("path", [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_names_of_code_in_the_documentation_exist() -> None:
    """``atelier.module.name`` and ``tests/...py`` anywhere in the documentation."""
    missing, names = [], 0
    for path in (*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        text = path.read_text()
        dotted = {name.rstrip(".") for name in re.findall(r"`(atelier(?:\.\w+)+)", text)}
        tests = set(re.findall(r"`(tests/[\w/]+\.py)", text)) - {"tests/test_luminance.py"}
        names += len(dotted | tests)
        missing += [f"{path.name}: {name}" for name in sorted(dotted) if not resolves(name)]
        missing += [f"{path.name}: {name}" for name in sorted(tests) if not (ROOT / name).is_file()]
    assert names > 20
    assert missing == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of the package, or something in one."""
    *module, last = name.split(".")
    if path_of(name) is not None or (ROOT / "src" / Path(*name.split("."))).is_dir():
        return True
    return path_of(".".join(module)) is not None and hasattr(import_module(".".join(module)), last)


def test_modules_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 20
    folders = [ROOT, PACKAGE, *(PACKAGE / name for name in ("methods", "pipeline", "training"))]
    general = ("STUDY", "STAGE", "report.py", "train.py")  # of any study
    missing = [name for name in named if not any((folder / name).is_file() for folder in folders)]
    assert [name for name in missing if not any(word in name for word in general)] == []
