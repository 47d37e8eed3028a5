"""The modules that a module imports, directly and indirectly, read from the sources without running them.

These are a stage's code dependencies: a test compares ``dvc.yaml`` with them, and a checkpoint is resumed only if their
hash is unchanged.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parent
PACKAGE = ROOT.name
# left out: how a stage is started and ended, and where and how its files are written; the parameters that it reads are
# separate dependencies
STARTING = (
    *("__init__", "__main__", "cli", "closure", "files", "lifetime", "locks", "params", "studies/__init__"),
    *("warm", "workspace"),
)


def path_of(module: str) -> Path | None:
    """The source file of ``atelier.a.b``; None if it is not a module of this package."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    candidates = (ROOT.joinpath(*parts[1:]).with_suffix(".py"), ROOT.joinpath(*parts[1:], "__init__.py"))
    return next((path for path in candidates if path.is_file()), None)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Modules of this package imported anywhere in a syntax tree, except under ``if TYPE_CHECKING``."""
    checked_only = {id(node) for test in ast.walk(tree) if _is_type_checking(test) for node in ast.walk(test)}
    for node in ast.walk(tree):
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if path_of(alias.name))
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                name = f"{module}.{alias.name}"
                if target := (name if path_of(name) else module if path_of(module) else None):
                    yield target


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def direct(module: str) -> frozenset[str]:
    """The modules that one module imports, including the parent packages that Python loads."""
    path = path_of(module)
    assert path is not None, module
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set(imported(ast.parse(path.read_text(encoding="utf-8")), package))
    return frozenset(names | {parent for name in (*names, module) for parent in _parents(name) if path_of(parent)})


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))


def closure(*modules: str) -> set[Path]:
    """Source files of these modules and of all that they import, without ``STARTING`` and what only that imports."""
    starting = {ROOT / f"{name}.py" for name in STARTING}
    visited: set[str] = set()
    waiting = list(modules)
    while waiting:
        if (module := waiting.pop()) not in visited and path_of(module) not in starting:
            visited.add(module)
            waiting += direct(module)
    return {path for module in visited if (path := path_of(module)) and has_code(path)}


def has_code(path: Path) -> bool:
    """Whether a source holds more than a docstring; an empty ``__init__.py`` affects no result."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def code_hash(module: str) -> str:
    """SHA-256 of the sources that a module depends on."""
    digest = hashlib.sha256()
    for path in sorted(closure(module)):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
