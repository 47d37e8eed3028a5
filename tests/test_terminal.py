"""What DVC shows of the pipeline in a terminal and as plots: readable, and without a network."""

import runpy
from pathlib import Path

import pytest
from dvc_render import VegaRenderer, render_html

ROOT = Path(__file__).parent.parent
EXPERIMENTS = runpy.run_path(str(ROOT / "scripts" / "experiments.py"))
TEMPLATE = ROOT / ".dvc" / "plots.html"


def test_experiments_are_columns_with_short_names() -> None:
    csv_text = (
        "Experiment,rev,typ,Created,parent,State,Executor,build/studies/art_finetuning/summary.json:headline,"
        "params.yaml:seed,art_finetuning.adapters.rank8-mixed.rank\n"
        ",workspace,baseline,,,,,401.5,2026,8\n"
        "wide-ape,5f2a,branch_commit,2026-11-30,,,,439.4217484,2026,12\n"
    )
    table = EXPERIMENTS["table"](csv_text)
    assert list(table.columns) == ["workspace", "wide-ape"]
    assert list(table.index) == ["art_finetuning: headline", "seed", "art_finetuning.adapters.rank8-mixed.rank"]
    assert list(table.loc["art_finetuning: headline"]) == ["401.5", "439.4217484"]


def test_plots_are_drawn_without_a_network(tmp_path: Path) -> None:
    """A line a variant and training, each with its name; nothing is asked for but the page."""
    browser = pytest.importorskip("browser", reason="websocket-client or axe-core-python is not installed")
    if browser.CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    rows = [
        {"step": str(step), "loss": str(1 / step), "variant": variant, "rev": "workspace"}
        for variant in ("<b>one", "two")
        for _ in range(2)
        for step in (1, 2, 3)
    ]
    page_file = tmp_path / "plots.html"
    render_html([VegaRenderer(rows, "some training", x="step", y="loss")], page_file, TEMPLATE)
    with browser.chromium(tmp_path / "browser") as tab:
        page = tab()
        page.open(page_file.as_uri())
        assert page.ask("[...document.querySelectorAll('polyline')].map(e => e.points.length)") == [3, 3, 3, 3]
        names = page.ask("[...document.querySelectorAll('svg text')].map(e => e.textContent)")
        assert {"<b>one, workspace", "two, workspace"} <= set(names)
        assert page.requests == [page_file.as_uri()]
        assert page.faults == []
