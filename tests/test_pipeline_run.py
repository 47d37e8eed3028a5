"""The runner: one tiny notebook with all that usually differs from run to run, executed twice; and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import atelier
from atelier.cli import main
from atelier.params import load
from atelier.pipeline import run, scrub
from atelier.workspace import Workspace

ROOT = Path(__file__).parent.parent

NOISY = """
import sys, time, warnings
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

warnings.warn("noise")
print("before")
print(time.time(), file=sys.stderr)
print("after", set("abcdefgh"))
figure, axis = plt.subplots(figsize=(2, 1))
axis.plot([seed, 1])
display(figure, metadata={"caption": "A line of $n = 2$ points", "alt": "a line"})
plt.close(figure)
frame = pd.DataFrame({"value": [1.5, 2.5]}, index=pd.Index(["a", "b"], name="row"))
display(frame, metadata={"caption": "Two rows"})
display(frame.style.highlight_max())
"""

OBJECTS = """
import os
from pathlib import Path

assert not Path("build/studies/base_model/stale").exists()
Path("build/studies/base_model/metrics.json").write_text("{}")
print(os.getcwd(), os.path.expanduser("~/x"), hex(id(seed)))
object()
"""


def notebook(*sources: str, parameters: str = "seed = None\nbase_model = None") -> nbformat.NotebookNode:
    cells = [
        new_markdown_cell("# A title\n\nThe claim: $x^2$."),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, sources),
    ]
    return scrub.clean(new_notebook(cells=cells))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("notebooks").mkdir()
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


def write(content: nbformat.NotebookNode) -> Path:
    path = Path("notebooks/base_model.ipynb")
    path.write_text(scrub.text(content))
    return path


def run_as_a_process() -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(atelier.__file__).parent.parent)}
    command = [sys.executable, "-m", "atelier", "page", "base_model"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_two_runs_give_the_same_bytes_with_nothing_of_the_machine_in_them(root: Path) -> None:
    write(notebook(NOISY, OBJECTS))
    results = root / "build/studies/base_model"
    runs = []
    for _ in range(2):
        results.mkdir(parents=True, exist_ok=True)
        (results / "stale").touch()
        finished = run_as_a_process()
        assert finished.returncode == 0, finished.stderr
        runs.append({path.name: path.read_bytes() for path in sorted(results.iterdir())})
    assert runs[0] == runs[1]
    assert list(runs[0]) == ["base_model.html", "base_model.ipynb", "metrics.json"]
    assert [path.name for path in sorted((root / "build/studies").iterdir())] == ["base_model"]

    executed = nbformat.reads(runs[0]["base_model.ipynb"].decode(), as_version=4)
    for cell in executed.cells:
        cell.source = ""
    left = nbformat.writes(executed)
    for trace in (str(root), f'"{Path.home()}', "0x7f", "papermill", "stderr", "noise", "duration", "ipykernel_"):
        assert trace not in left
    assert [cell.id for cell in executed.cells] == [f"cell-{place:02d}" for place in range(1, 6)]
    assert [cell.execution_count for cell in executed.cells if cell.cell_type == "code"] == [1, 2, 3, 4]
    printed = [output.text for cell in executed.cells for output in cell.get("outputs", []) if "text" in output]
    assert printed[0].startswith("before\nafter {")  # one stream, whatever stood between on stderr
    assert printed[1] == ". ~/x 0x…\n"


def test_a_failing_cell_is_named_in_one_line_and_left_to_look_at(root: Path) -> None:
    write(notebook("print('fine')", "# why\n\nraise RuntimeError('1\\n2')"))
    finished = run_as_a_process()
    assert finished.returncode == 1
    last = finished.stderr.splitlines()[-1]
    reason = "cell 4 (raise RuntimeError('1\\n2')): RuntimeError: 1 2"
    assert last == f"notebooks/base_model.ipynb: {reason}; see build/failed/base_model.ipynb"
    left = nbformat.read("build/failed/base_model.ipynb", as_version=4)
    assert any(output.output_type == "error" for cell in left.cells for output in cell.get("outputs", []))
    assert not (root / "build/studies/base_model/base_model.ipynb").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (notebook(parameters="seed = None\nsede = None"), "parameter 'sede' is no section of params.yaml"),
        (notebook(parameters="seed = 5"), "parameter 'seed' has the value 5, expected None"),
        (notebook(parameters="# nothing"), "the parameters cell names none"),
        (new_notebook(cells=[new_markdown_cell("# A title")]), "0 cells are tagged 'parameters'"),
        (new_notebook(cells=notebook().cells[1:] * 2), "2 cells are tagged 'parameters'"),
        (new_notebook(cells=notebook().cells[1:]), "no title"),
        (new_notebook(cells=[*notebook().cells, new_markdown_cell(r"$\foo$")]), r"formula $\foo$: \foo is not known"),
    ],
)
def test_what_cannot_run_is_refused_before_any_kernel(
    root: Path, monkeypatch: pytest.MonkeyPatch, content: nbformat.NotebookNode, complaint: str
) -> None:
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    write(scrub.clean(content))
    earlier = root / "build/studies/base_model/metrics.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"^notebooks/base_model\.ipynb: ") as refusal:
        run.run("base_model", load("params.yaml"), Workspace())
    assert complaint in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    assert earlier.exists()  # nothing computed is lost


def test_an_unknown_study_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", "no_such"]) == 1
    assert capsys.readouterr().err == "notebooks/no_such.ipynb: no such notebook\n"
