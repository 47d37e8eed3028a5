"""What is committed belongs together: parameters, lock, published pages, README."""

import json
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from atelier import claims, params, preflight
from atelier.data.painter.styles import STYLES
from atelier.studies import STUDIES
from atelier.studies.art_finetuning import measure as art_finetuning
from atelier.studies.latent_perceptual import measure as latent_perceptual
from atelier.studies.pixel_space import inspect as inspected_pixels
from atelier.studies.pixel_space import measure as pixel_space
from atelier.studies.prompt_enrichment import measure as prompt_enrichment
from atelier.studies.shaping import measure as shaping
from atelier.studies.signal_leak import measure as signal_leak
from atelier.studies.vae_decoder import decoding
from atelier.studies.vae_decoder import measure as vae_decoder

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "embedded"


def read(path: Path) -> dict:
    return YAML(typ="safe").load(path)


def locks() -> dict[str, Path]:
    """The pipelines' locks by the name under which they are published."""
    return {"dvc.lock": ROOT / "dvc.lock", **{f"{study}.lock": ROOT / "pipelines" / study / "dvc.lock" for study in
                                              STUDIES}}  # fmt: skip


def test_lock_and_pages_were_made_with_the_committed_parameters() -> None:
    committed = read(ROOT / "params.yaml")
    assert read(ROOT / "dvc.lock")["stages"]["check"]["params"]["params.yaml"] == committed
    assert (RESULTS / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert {path.name for path in (RESULTS / "locks").iterdir()} == set(locks())
    for name, path in locks().items():
        assert (RESULTS / "locks" / name).read_bytes() == path.read_bytes(), name


@pytest.mark.parametrize("path", locks().values(), ids=lambda path: path.parent.name)
def test_lock_names_the_stages_that_its_pipeline_has(path: Path) -> None:
    pipeline, locked = read(path.with_suffix(".yaml"))["stages"], read(path)["stages"]
    values = read(ROOT / "params.yaml")
    made = {name for name, stage in pipeline.items() if all(members(values, stage.get("matrix", {})))}
    assert {name.split("@")[0] for name in locked} == made


def members(values: Any, matrix: dict[str, str]) -> list[Any]:
    """What each dimension of a matrix runs over by these parameters; with an empty one the stage has no member."""
    keys = [names.strip("${}").split(".") for names in matrix.values()]
    return [reduce(lambda tree, key: tree[key], path, values) for path in keys]


@pytest.mark.parametrize("study", STUDIES)
def test_published_metrics_have_values_counts_and_units(study: str) -> None:
    content = json.loads((RESULTS / study / "metrics.json").read_text())
    assert content["profile"] == "embedded"
    for name, metric in content["metrics"].items():
        assert metric["value"] is not None, name
        assert metric["n"] > 0, name
        assert metric["unit"], name


CITING = sorted((ROOT / "results").glob("*/*/metrics.json"))


@pytest.mark.parametrize("path", CITING, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_verdicts_are_on_the_claims_as_they_stand(path: Path) -> None:
    """A claim that was changed after the run that it judges is no longer the claim that was judged."""
    written = claims.load(path.parent.name)
    verdicts = json.loads(path.read_text()).get("verdicts", {})
    changed = [name for name, verdict in verdicts.items() if written[name].digest != verdict["claim"]]
    assert changed == [], f"claims.yaml is newer than {path}: run that profile again"
    assert {name for name, claim in written.items() if claim.parts} == set(verdicts)


@pytest.mark.parametrize("path", CITING, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_findings_are_those_as_they_stand(path: Path) -> None:
    written = claims.findings(path.parent.name)
    cited = json.loads(path.read_text()).get("findings", {})  # none in results of before
    changed = [name for name, finding in cited.items() if written[name].digest != finding["claim"]]
    assert changed == [], f"claims.yaml is newer than {path}: run that profile again"


def measured(config: params.Params) -> set[str]:
    """The cells of all studies' measures under some parameters."""
    tuned, levels, decoders = (
        config.section(study) for study in ("art_finetuning", "prompt_enrichment", "vae_decoder")
    )
    cells = {decoding.ORIGINAL, *decoders.variants, *signal_leak.cells(config), *latent_perceptual.cells(config)}
    cells |= pixel_space.cells(config) | {"noisiest", "cleanest", *(f"t-{step}" for step in inspected_pixels.TRIPS)}
    cells |= shaping.cells(config) | set(config.section("shaping").flow.cells) | {"levels", "pgraft-chosen"}
    cells |= {f"accepted-{rule}" for rule in config.section("shaping").rules}
    for model in ("untuned", *tuned.variants):
        cells |= set(art_finetuning.cells(config, model))
    for model in ("untuned", *levels.models):
        cells |= set(prompt_enrichment.cells(config, model))
    for model in (*decoders.models, vae_decoder.PLAIN_WORDS):
        cells |= set(vae_decoder.cells(config, model))
    return cells


def test_every_cell_that_a_claim_compares_is_measured() -> None:
    config = params.load(ROOT / "profiles" / "study.yaml")
    assert claims.cells_of(claims.load_all()) <= measured(config)
    for study in STUDIES:
        assert claims.cells_of(claims.findings(study)) <= measured(config)


EVERY = claims.load_all() | {name: claim for study in STUDIES for name, claim in claims.findings(study).items()}
OF_PAINTERS_STYLES = {name for name, claim in EVERY.items() if any("/" in each.measure for each in claim.every_part)}
# claims and findings of which ``paper`` does not make every cell, and why
WITHOUT = {
    "C8": "its cell is named by the embedded world's 1,500 steps before; the paper has 50,000 and 400,000",
    "N2": "its parts are measures of the painter's ten styles, which no other data has",
}


def without_cells(config: params.Params) -> set[str]:
    """Claims and findings that compare a cell which these parameters do not make."""
    made = measured(config)
    cells = {name: {cell for each in claim.every_comparison for cell in each.cells} for name, claim in EVERY.items()}
    return {name for name, compared in cells.items() if not compared <= made}


@pytest.mark.parametrize("name", ["study", "paper", "paper-lite"])
def test_claims_without_cells_are_those_that_the_check_before_a_run_names(name: str) -> None:
    config = params.load(ROOT / "profiles" / f"{name}.yaml")
    unmade = without_cells(config)
    other = {claim for claim, lacking in preflight.undecided(config).items() if claim not in unmade}
    assert unmade <= set(preflight.undecided(config))
    assert other == ({"C10"} if name == "paper-lite" else set())  # its cells are made, its measure of them is not


def test_paper_makes_the_cells_of_every_claim_but_those_listed_here() -> None:
    config = params.load(ROOT / "profiles" / "paper.yaml")
    assert set(preflight.undecided(config)) | OF_PAINTERS_STYLES == set(WITHOUT)
    named = {each.measure.partition("/")[2] for claim in OF_PAINTERS_STYLES for each in EVERY[claim].every_part}
    assert named - {""} <= set(STYLES)


def test_paper_lite_says_which_claims_it_leaves_out() -> None:
    path = ROOT / "profiles" / "paper-lite.yaml"
    header = " ".join(line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#"))
    listed = re.search(r"Claims without cells: ([\w ]+?) Claims with all .*?: ([\w ]+?) Numbers are ours", header)
    assert listed is not None
    left_out, decided = (match.split() for match in listed.groups())
    expected = set(preflight.undecided(params.load(path))) | OF_PAINTERS_STYLES
    assert set(left_out) == expected
    assert set(decided) == set(EVERY) - expected
    assert len(left_out) + len(decided) == len(EVERY)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    local = [link for link in links if "://" not in link]
    assert len(local) > 5
    places = [link.partition("#") for link in local]
    assert [path for path, _, _ in places if not (ROOT / path).exists()] == []
    anchors = [(path, anchor) for path, _, anchor in places if path.endswith(".html") and anchor]
    assert [each for each in anchors if f'id="{each[1]}"' not in (ROOT / each[0]).read_text(encoding="utf-8")] == []


def test_data_store_is_within_its_budget() -> None:
    """The world, and the runtime of the page that paints, which ``make world`` leaves alone."""
    for part, most in (("files", 32), ("runtime", 5)):
        files = [path for path in (ROOT / "data-store" / part).rglob("*") if path.is_file()]
        assert 0 < sum(path.stat().st_size for path in files) < most * 2**20
