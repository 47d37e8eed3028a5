"""The library's core installs alone, and README's calls run on it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = ("dvc", "ftfy", "ipykernel", "jupyterlab", "matplotlib", "nbconvert", "papermill", "pyarrow", "seaborn")
# what README's calls are given: a tiny pipeline, latents, an estimate, prompts
GIVEN = """
import torch
from atelier.models import base
pipeline = base.build("tiny", 64, ["a glass on the beach"], 0)
pipeline.set_progress_bar_config(disable=True)
batches_of_latents = [torch.randn(8, 4, 8, 8), torch.randn(8, 4, 8, 8)]
vae, z0 = pipeline.vae, torch.randn(2, 4, 8, 8)
prompts = ["a glass on the beach"] * 2
z0_hat = z0 + 0.1 * torch.randn(2, 4, 8, 8)
"""

pytestmark = [pytest.mark.long]


def readme_calls() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    return "\n".join(blocks)


def test_readme_calls_run_on_the_wheel_alone(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    quiet = ("--quiet", "--disable-pip-version-check")
    source = tmp_path / "source"  # a build leaves files beside what it builds
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    build = ("wheel", *quiet, "--no-deps", "--no-build-isolation", "-w", str(tmp_path))
    run(sys.executable, "-m", "pip", *build, str(source))
    (wheel,) = tmp_path.glob("atelier-*.whl")
    run(sys.executable, "-m", "venv", "empty")
    python = str(tmp_path / "empty" / "bin" / "python")
    run(python, "-m", "pip", "install", *quiet, "--constraint", str(ROOT / "requirements.lock"), str(wheel))
    absent = f"import importlib.util as u; print([n for n in {EXTRAS!r} if u.find_spec(n)])"
    assert run(python, "-c", absent).strip() == "[]"
    run(python, "-c", GIVEN + readme_calls())
    claims = "from atelier import claims; print(len(claims.load_all()))"
    assert int(run(python, "-c", claims)) >= 26
