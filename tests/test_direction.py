"""Which module may import which: one direction through the library, studies apart from each other, no circle."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from atelier import closure
from atelier.pipeline import map as drawing

Graph = Mapping[str, frozenset[str]]  # module -> modules that it imports

# a part imports parts before it and its own; "studies" alone is their list
ORDER: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            ("params", "workspace", "files", "studies", "machine", "seeds", "closure", "scratch", "locks", "lifetime"),
            ("data",),
            ("diffusion",),
            ("models",),
            ("methods",),
            ("training",),
            ("sampling",),
            ("metrics",),
            ("evaluation",),
            ("evidence",),
            ("claims", "verdicts"),
            ("report",),
            ("a study",),
            ("pipeline", "demo", "preflight", "planning", "cli", "__main__", "warm", "world", "amendments"),
        ),
    )
)
JUDGES = (
    *("atelier.metrics", "atelier.models.evaluator", "atelier.training.evaluator", "atelier.evaluation.defects"),
    *("atelier.models.defect_judge", "atelier.training.defect_judge", "atelier.evaluation.field"),
    *("atelier.models.inception", "atelier.models.clip", "atelier.models.dinov2"),
)
TEACHERS = ("atelier.models.trunk", "atelier.training.trunk")


def name_of(path: Path) -> str:
    """The module in a source of the package."""
    parts = path.relative_to(closure.ROOT).with_suffix("").parts
    return ".".join((closure.PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imports_of(module: str) -> frozenset[str]:
    """The package's modules that one imports."""
    path = closure.path_of(module)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(closure.imported(ast.parse(path.read_text(encoding="utf-8")), package)) - {module}


def read_graph() -> Graph:
    return {module: imports_of(module) for module in map(name_of, sorted(closure.ROOT.rglob("*.py")))}


def part_of(module: str) -> str:
    parts = module.split(".")[1:]
    return "a study" if parts[:1] == ["studies"] and len(parts) > 1 else "".join(parts[:1])


def study_of(module: str) -> str | None:
    return module.split(".")[2] if part_of(module) == "a study" else None


def rank(module: str) -> int:
    """The place of a module's part in the order; the package itself imports nothing, and all import it."""
    part = part_of(module)
    return -1 if not part else next(number for number, parts in enumerate(ORDER) if part in parts)


def edges(graph: Graph) -> Iterable[tuple[str, str]]:
    return ((module, imported) for module, listed in graph.items() for imported in sorted(listed))


def against_the_order(graph: Graph) -> list[str]:
    """Imports of a later part by an earlier one."""
    return [f"{module} imports {imported}" for module, imported in edges(graph) if rank(imported) > rank(module)]


def between_studies(graph: Graph) -> list[str]:
    """Imports of one study by another."""
    return [
        f"{module} imports {imported}"
        for module, imported in edges(graph)
        if study_of(module) and study_of(imported) not in (None, study_of(module))
    ]


def reached(graph: Graph, module: str) -> frozenset[str]:
    """What a module imports, directly and through others."""
    known: set[str] = set()
    waiting = [module]
    while waiting:
        for imported in graph[waiting.pop()] - known:
            known.add(imported)
            waiting.append(imported)
    return frozenset(known)


def circles(graph: Graph) -> list[str]:
    """Modules that import themselves through others."""
    return [module for module in graph if module in reached(graph, module)]


def is_loss(module: str) -> bool:
    """Whether a module may hold a loss, or train with one; the evaluator's own training is none of these."""
    if module in JUDGES:
        return False
    return part_of(module) in ("methods", "training", "models") or module.rpartition(".")[2] in ("train", "loss")


def judged_losses(graph: Graph) -> list[str]:
    """Losses that see, directly or through others, what judges pictures: nothing may be trained on its judge."""
    return [
        f"{module} reaches {imported}"
        for module in filter(is_loss, graph)
        for imported in sorted(reached(graph, module))
        if imported.startswith(JUDGES)
    ]


def taught_judges(graph: Graph) -> list[str]:
    """Judges that see the network of the losses."""
    own = ("atelier.models.evaluator", "atelier.training.evaluator", "atelier.metrics.alignment")
    return [f"{module} imports {name}" for module in own for name in sorted(graph[module]) if name.startswith(TEACHERS)]


def unseen(path: Path) -> list[str]:
    """Imports of the package that only a type checker would see."""
    tests = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.If)]
    blocks = [node for node in tests if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"]
    bodies = [ast.Module(node.body, type_ignores=[]) for node in blocks]
    return [name for body in bodies for name in closure.imported(body, closure.PACKAGE)]


CHECKS = (against_the_order, between_studies, circles, judged_losses, taught_judges)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_imported_against_the_rules(graph: Graph, check) -> None:
    assert len(graph) > 100
    assert check(graph) == []


def test_every_part_has_its_place_in_the_order(graph: Graph) -> None:
    parts = {part_of(module) for module in graph} - {""}
    assert parts == set().union(*ORDER)
    assert len(parts) == sum(map(len, ORDER))


def test_nothing_is_imported_for_types_alone() -> None:
    """It would stay unseen here."""
    sources = sorted(closure.ROOT.rglob("*.py"))
    assert [f"{path}: {name}" for path in sources for name in unseen(path)] == []


# all that the drawing has rows for: not the package itself, nor ``python -m atelier``
MODULES = list(map(name_of, sorted(closure.ROOT.rglob("*.py"))))
DRAWN = [module for module in MODULES if part_of(module) not in ("", "__main__")]


def test_the_drawn_layers_are_those_of_the_library() -> None:
    """The rows of ``docs/library.svg``: each part of the library once, in the order that is held to here."""
    rows = [name for names, _ in drawing.LAYERS for name in names]
    assert sorted(rows) == sorted({name.split(".")[1] for name in DRAWN})
    ranks = [rank(f"atelier.{name}.a.b" if name == "studies" else f"atelier.{name}") for name in rows]
    assert ranks == sorted(ranks)
    assert len(DRAWN) > 100
    assert drawing.upward_imports(DRAWN) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("atelier.methods.perceptual", "atelier.training.loop"),
        ("atelier.metrics.frechet", "atelier.evaluation.groups"),
        ("atelier.report.study", "atelier.studies.vae_decoder.report"),
        ("atelier.claims", "atelier.report.items"),
    ],
)
def test_an_import_against_the_drawn_layers_is_found(
    module: str, imported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = drawing.direct
    monkeypatch.setattr(drawing, "direct", lambda name: direct(name) | ({imported} if name == module else set()))
    assert drawing.upward_imports(DRAWN) == [f"{module} imports {imported}"]


@pytest.mark.parametrize(
    ("check", "module", "imported"),
    [
        (against_the_order, "atelier.params", "atelier.studies.vae_decoder.params"),
        (against_the_order, "atelier.scratch", "atelier.data.prepare"),
        (against_the_order, "atelier.methods.perceptual", "atelier.training.loop"),
        (against_the_order, "atelier.methods.signal_leak", "atelier.metrics.frechet"),
        (against_the_order, "atelier.methods.signal_leak", "atelier.pipeline.page"),
        (against_the_order, "atelier.sampling.conditions", "atelier.evaluation.cells"),
        (against_the_order, "atelier.training.run", "atelier.sampling.sampler"),
        (against_the_order, "atelier.evaluation.cells", "atelier.claims"),
        (against_the_order, "atelier.report.study", "atelier.studies.vae_decoder.report"),
        (against_the_order, "atelier.studies.vae_decoder.train", "atelier.cli"),
        (between_studies, "atelier.studies.vae_decoder.measure", "atelier.studies.art_finetuning.measure"),
        (circles, "atelier.workspace", "atelier.scratch"),
        (circles, "atelier.studies.signal_leak.fit", "atelier.studies.signal_leak.sample"),
        (circles, "atelier.models.stored", "atelier.studies.signal_leak.measure"),
        (judged_losses, "atelier.training.decoder", "atelier.models.evaluator"),
        (judged_losses, "atelier.studies.latent_perceptual.loss", "atelier.metrics.frechet"),
        (judged_losses, "atelier.training.slices", "atelier.training.evaluator"),
        (taught_judges, "atelier.metrics.alignment", "atelier.models.trunk"),
    ],
)
def test_a_planted_import_is_found(graph: Graph, check, module: str, imported: str) -> None:
    assert {module, imported} <= set(graph)
    assert imported not in reached(graph, module)
    faults = check({**graph, module: graph[module] | {imported}})
    assert any(fault.startswith(module) for fault in faults)


def test_an_import_is_seen_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a function, of a name in a module, of a package's module by the package, relative; not other packages'."""
    root = tmp_path / "atelier"
    sources = {
        "__init__.py": "",
        "seeds.py": "import numpy\nfrom pathlib import Path\n",
        "models/__init__.py": "",
        "models/base.py": "from .. import seeds\nfrom ..seeds import seed_of\n",
        "training/loop.py": "def f():\n    from atelier.models import base\n    import atelier.seeds as other\n",
        "training/order.py": "from atelier.training.loop import fit, Task\n",
    }
    for name, text in sources.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(closure, "ROOT", root)
    assert read_graph() == {
        "atelier": frozenset(),
        "atelier.seeds": frozenset(),
        "atelier.models": frozenset(),
        "atelier.models.base": frozenset({"atelier.seeds"}),
        "atelier.training.loop": frozenset({"atelier.models.base", "atelier.seeds"}),
        "atelier.training.order": frozenset({"atelier.training.loop"}),
    }
    (root / "seeds.py").write_text("from atelier.training import order\n")
    assert against_the_order(read_graph()) == ["atelier.seeds imports atelier.training.order"]
    assert set(circles(read_graph())) >= {"atelier.seeds", "atelier.training.order", "atelier.training.loop"}
