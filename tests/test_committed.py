"""What is committed belongs together: parameters, lock, published pages, README."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from atelier import claims, params
from atelier.measures import art_finetuning, latent_perceptual, signal_leak, vae_decoder

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "embedded"


def read(path: Path) -> dict:
    return YAML(typ="safe").load(path)


def test_lock_and_pages_were_made_with_the_committed_parameters() -> None:
    asked = read(ROOT / "params.yaml")
    assert read(ROOT / "dvc.lock")["stages"]["check"]["params"]["params.yaml"] == asked
    assert (RESULTS / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    assert (RESULTS / "dvc.lock").read_bytes() == (ROOT / "dvc.lock").read_bytes()


def test_lock_names_no_stage_that_the_pipeline_lacks() -> None:
    pipeline, locked = read(ROOT / "dvc.yaml")["stages"], read(ROOT / "dvc.lock")["stages"]
    assert {name.split("@")[0] for name in locked} == set(pipeline)


STUDIES = ["base_model", "art_finetuning", "prompt_enrichment", "vae_decoder", "signal_leak", "latent_perceptual"]


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
    written = claims.load(ROOT / "claims.yaml")
    verdicts = json.loads(path.read_text()).get("verdicts", {})
    changed = [name for name, verdict in verdicts.items() if written[name].digest != verdict["claim"]]
    assert changed == [], f"claims.yaml is newer than {path}: run that profile again"
    due = {name for name, claim in written.items() if claim.study == path.parent.name and claim.parts}
    assert due == set(verdicts)


def test_every_cell_that_a_claim_compares_is_measured() -> None:
    asked = params.load(ROOT / "profiles" / "study.yaml")
    decoders = {vae_decoder.ORIGINAL, *asked.vae_decoder.variants}
    measured = {*art_finetuning.cells(asked), *vae_decoder.cells(asked), *decoders, *signal_leak.cells(asked)}
    measured |= latent_perceptual.cells(asked)
    named = {
        cell
        for claim in claims.load(ROOT / "claims.yaml").values()
        for part in [*claim.every_part, *([claim.control] if claim.control else [])]
        for cell in part.cells
    }
    assert named <= measured


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    local = [link for link in links if "://" not in link]
    assert len(local) > 5
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_data_store_is_within_its_budget() -> None:
    files = [path for path in (ROOT / "data-store").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 32 * 2**20
