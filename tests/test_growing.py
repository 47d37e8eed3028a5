"""A training seed more runs that seed's stages alone: what those of the others read and leave is as it was."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STUDY = YAML(typ="safe").load(ROOT / "profiles" / "study.yaml")  # of several seeds, and ablations of fewer
SEEDS = (  # parameters that grow
    "protocol.training_seeds",
    "latent_perceptual.ablation_seeds",
    "pixel_space.ablation_seeds",
)
Stage = Mapping[str, Any]  # as dvc.yaml has it


def stages() -> dict[str, Stage]:
    paths = [ROOT / "dvc.yaml", *sorted(ROOT.glob("pipelines/*/dvc.yaml"))]
    return {name: stage for path in paths for name, stage in YAML(typ="safe").load(path)["stages"].items()}


STAGES = stages()


class Seeded(NamedTuple):
    """One stage of one training seed, with names and paths as they are in a run."""

    name: str
    seed: int
    params: list[str]
    deps: list[str]
    outs: list[str]


def value_of(key: str) -> Any:
    value = STUDY
    for part in key.split("."):
        value = value[part]
    return value


def listed(stage: Stage, section: str, item: Mapping[str, Any]) -> list[str]:
    """Entries of a stage's ``params``, ``deps`` or ``outs``, for one item of its matrix."""
    names = [name for entry in stage.get(section, []) for name in ([entry] if isinstance(entry, str) else entry)]

    def filled(match: re.Match[str]) -> str:
        return str(item[match[1].removeprefix("item.")] if match[1].startswith("item.") else value_of(match[1]))

    return [re.sub(r"\$\{([^}]+)\}", filled, name) for name in names]


def grows(stage: Stage) -> bool:
    """Whether a stage has one run a training seed."""
    return bool({f"${{{key}}}" for key in SEEDS} & set(stage.get("matrix", {}).values()))


def seeded(known: Mapping[str, Stage]) -> Iterator[Seeded]:
    """All runs of one training seed."""
    for name, stage in known.items():
        if grows(stage):
            values = [value_of(key[2:-1]) for key in stage["matrix"].values()]
            for item in (dict(zip(stage["matrix"], each, strict=True)) for each in product(*values)):
                lists = (listed(stage, section, item) for section in ("params", "deps", "outs"))
                yield Seeded(f"{name}@{'-'.join(map(str, item.values()))}", item["seed"], *lists)


def holds(one: str, other: str, separator: str) -> bool:
    """Whether something named ``one`` is or holds what is named ``other``."""
    return f"{other}{separator}".startswith(f"{one}{separator}")


def faults(known: Mapping[str, Stage]) -> list[str]:
    """What would run a seed's stages again that are done, once there is another seed; one line per fault."""
    runs, found = list(seeded(known)), []
    others = [(out, run.seed) for run in runs for out in run.outs]
    for run in runs:
        found += [f"{run.name}: reads {name}" for name in run.params if any(holds(name, key, ".") for key in SEEDS)]
        for dep in (dep for dep in run.deps if dep.startswith("build/")):
            seeds = {seed for out, seed in others if holds(dep, out, "/") or holds(out, dep, "/")} - {run.seed}
            found += [f"{run.name}: needs {dep} with seed {seed}" for seed in sorted(seeds)]
        found += [f"{run.name}: {out} is no folder of its seed" for out in run.outs if Path(out).name != str(run.seed)]
    return found


def test_a_seeds_stages_read_nothing_that_another_seed_changes() -> None:
    assert faults(STAGES) == []


def test_all_training_and_painting_is_by_seed() -> None:
    """But what has no training seed: the base itself, and what it paints for its own page."""
    merged = "shaping-(untuned|variant|correct|flow)"  # which train and paint in one
    working = {name for name in STAGES if re.search(f"-(train|sample|restore)(-|$)|{merged}", name)}
    assert {name for name in working if not grows(STAGES[name])} == {"base_model-sample"}
    assert {name for name, stage in STAGES.items() if grows(stage)} <= working
    every = {run.seed for run in seeded(STAGES)}
    assert every == set(STUDY["protocol"]["training_seeds"])
    assert len(every) > 1


@pytest.mark.parametrize(
    ("section", "old", "new", "said"),
    [
        ("params", "protocol.repeats", "protocol", "reads protocol"),
        ("params", "protocol.repeats", "protocol.training_seeds", "reads protocol.training_seeds"),
        ("params", "latent_perceptual.steps", "latent_perceptual", "reads latent_perceptual"),
        ("params", "latent_perceptual.rank", SEEDS[1], f"reads {SEEDS[1]}"),
        ("deps", "build/base", "build/adapters/art_finetuning", "needs build/adapters/art_finetuning with seed 1"),
        ("deps", "build/starts", "build/samples/latent_perceptual/plain/3", "plain/3 with seed 3"),
    ],
)
def test_what_a_growing_study_must_not_read_is_found(section: str, old: str, new: str, said: str) -> None:
    name = "latent_perceptual-sample"
    entries = STAGES[name][section]
    assert old in entries
    found = faults({**STAGES, name: {**STAGES[name], section: [new if each == old else each for each in entries]}})
    assert any(line.startswith(f"{name}@plain-0: ") and said in line for line in found)


def test_a_model_of_all_seeds_is_found_where_one_seeds_is_meant() -> None:
    """What the stages once had: a folder of adapters without its seed."""
    for name in ("art_finetuning-sample", "prompt_enrichment-sample", "signal_leak-sample"):
        deps = [dep.removesuffix("/${item.seed}") for dep in STAGES[name]["deps"]]
        assert deps != STAGES[name]["deps"]
        found = faults({**STAGES, name: {**STAGES[name], "deps": deps}})
        assert any(line.startswith(f"{name}@") and " needs build/adapters/" in line for line in found)
