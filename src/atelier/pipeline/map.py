"""``python -m atelier.pipeline.map docs``: draw the pipeline (from its files) and the library's layers as SVG."""

import argparse
import sys
import textwrap
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from ruamel.yaml import YAML

from atelier.closure import direct, path_of
from atelier.report import figures
from atelier.studies import STUDIES

# top to bottom: a module imports only from rows above its own
LAYERS = (
    (
        ("params", "workspace", "files", "machine", "seeds", "closure", "scratch", "locks", "lifetime"),
        "parameters, files, randomness, unfinished work, the end of processes",
    ),
    (("data",), "ArtEmis and WikiArt, pictures, prompts, archives, the painter of the embedded world"),
    (("diffusion",), "schedules and parameterisations"),
    (("models",), "base, autoencoders, latents, adapters, evaluator, trunk"),
    (("methods",), "one module per paper's idea: the mathematics alone"),
    (("training",), "loop, run, checkpoints, caches, denoiser, LoRA"),
    (("sampling",), "sampler, conditions, held-out prompts, stored pictures"),
    (("metrics",), "Frechet distances, spectra, neighbours, alignment"),
    (("evaluation",), "groups of pictures, pseudo-values, intervals, tables of measures, judges"),
    (("evidence", "claims", "verdicts"), "tests of differences, verdicts"),
    (("report",), "Study, Table, Figure, cards"),
    (("studies",), "one folder per study: params, train, sample, measure, report, claims"),
    (
        ("preflight", "planning", "cli", "warm", "pipeline", "demo", "world", "amendments"),
        "command line, notebooks to pages, the model in a page, how the world is made",
    ),
)
COLUMNS = ("shared", "train", "sample", "measure", "page")
X = (0.2, 1.7, 3.2, 4.8, 6.5)  # position of each column
COLUMN_OF = {"train": "train", "fit": "train", "sample": "sample"}  # by the stage's verb; else "measure" or "page"


def stages(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Stages by pipeline file: (name, column), in the order of the file."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for name, path in {
        "shared": root / "dvc.yaml",
        **{s: root / "pipelines" / s / "dvc.yaml" for s in STUDIES},
    }.items():
        content: dict[str, Any] = YAML(typ="safe").load(path)["stages"]
        listed[name] = [(stage, column(name, stage)) for stage in content]
    return listed


def column(study: str, stage: str) -> str:
    """The column that a stage is drawn in."""
    if study == "shared":
        return "page" if stage == "site" else "shared"
    if stage == study:
        return "page"
    return COLUMN_OF.get(stage.removeprefix(f"{study}-").split("-")[0], "measure")


def depends(root: Path) -> set[tuple[str, str]]:
    """Pairs (writer, reader) of pipeline files where the second reads an output of the first."""
    outputs: dict[str, str] = {}
    inputs: dict[str, set[str]] = defaultdict(set)
    for name, path in {
        "shared": root / "dvc.yaml",
        **{s: root / "pipelines" / s / "dvc.yaml" for s in STUDIES},
    }.items():
        for stage in YAML(typ="safe").load(path)["stages"].values():
            for out in stage["outs"]:
                outputs[next(iter(out)).split("/${")[0]] = name
            inputs[name] |= {dep.split("/${")[0] for dep in stage.get("deps", []) if dep.startswith("build/")}
    return {
        (writer, reader)
        for reader, deps in inputs.items()
        for dep in deps
        for out, writer in outputs.items()
        if writer != reader and (dep == out or out.startswith(f"{dep}/") or dep.startswith(f"{out}/"))
    }


def draw_pipeline(root: Path, target: Path) -> None:
    """Draw stages as boxes: one row per pipeline file, one column per kind; each row names the studies it reads from.

    Work goes from left to right; the arrows stand once, between the columns' titles, because any of a column's stages
    may be read by any in the next.
    """
    listed, pairs = stages(root), depends(root)
    figure = plt.figure(figsize=(10.0, 8.0), layout="none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for index, name in enumerate(COLUMNS):
        axes.text(X[index], 1.0, name, ha="center", va="center", weight="bold", size=9)
    for left, right in pairwise(X):
        axes.annotate("", (right - 0.62, 1.0), (left + 0.62, 1.0), arrowprops={"arrowstyle": "->", "color": "0.6"})
    y = 0.0
    for name, of in listed.items():
        counts: dict[str, int] = defaultdict(int)
        for stage, kind in of:
            _box(axes, X[COLUMNS.index(kind)], y - counts[kind], stage.removeprefix(f"{name}-"))
            counts[kind] += 1
        reads = [study for study in listed if (study, name) in pairs and study != "shared"]
        words = "all pages (site)" if name == "shared" else ",\n          ".join(reads)
        axes.text(-2.6, y, name, va="center", size=9, weight="bold")
        axes.text(-2.6, y - 0.3, f"reads  {words}" if reads else "", va="top", size=7.5)
        y -= max(*counts.values(), 1 + len(reads) * (name != "shared")) + 0.4
        axes.axhline(y + 0.66, color="0.85", lw=0.6)
    axes.set(xlim=(-2.7, X[-1] + 0.9), ylim=(y + 0.4, 1.5))
    axes.axis("off")
    _save(figure, target)


def _box(axes: Axes, x: float, y: float, text: str) -> None:
    style = {"boxstyle": "round,pad=0.3", "facecolor": "#f7f7f4", "edgecolor": "#1f4e79", "linewidth": 0.8}
    axes.text(x, y, text, ha="center", va="center", size=7.5, bbox=style)


def draw_library(target: Path) -> None:
    """Draw layers as rows; a module imports only from rows above its own."""
    figure, axes = plt.subplots(figsize=(9.0, 5.8))
    for row, (names, words) in enumerate(LAYERS):
        lines = textwrap.fill(", ".join(names), 30)
        axes.text(0.0, -row, lines, size=9, weight="bold", va="center")
        axes.text(3.4, -row, words, size=8.5, va="center")
        axes.axhline(-row - 0.5, color="0.88", lw=0.6)
    axes.annotate(
        "imports", (-0.3, 0.2), (-0.3, 0.6 - len(LAYERS)), size=8, ha="center", arrowprops={"arrowstyle": "->"}
    )
    axes.set(xlim=(-0.8, 9.8), ylim=(-len(LAYERS), 0.8))
    axes.axis("off")
    _save(figure, target)


def layer_of(module: str) -> int:
    """The row of a module; KeyError if it is in none."""
    name = module.split(".")[1]
    for row, (names, _) in enumerate(LAYERS):
        if name in names:
            return row
    raise KeyError(f"{module}: in no layer")


def upward_imports(modules: list[str]) -> list[str]:
    """Imports of these modules that violate the order of ``LAYERS``; any module may import the list of studies."""
    return [
        f"{module} imports {target}"
        for module in modules
        for target in sorted(direct(module))
        if target.count(".") and target != "atelier.studies" and path_of(target) and layer_of(target) > layer_of(module)
    ]


def _save(figure: Any, target: Path) -> None:
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m atelier.pipeline.map", description=__doc__)
    parser.add_argument("folder", type=Path, help="where pipeline.svg and library.svg are written")
    options = parser.parse_args(arguments)
    figures.set_style()
    plt.rcParams["svg.fonttype"] = "none"
    draw_pipeline(Path.cwd(), options.folder / "pipeline.svg")
    draw_library(options.folder / "library.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
