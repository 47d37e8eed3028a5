"""The stages that DVC would run, from the pipeline's files: each matrix written out over the parameters' lists."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML, YAMLError

from atelier.files import reading
from atelier.workspace import Workspace

SHARED = "all studies"
COMMAND = "python -m atelier "
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class Stage(NamedTuple):
    """One stage: the pipeline that it is of, its kind, DVC's name of it, and the words of ``python -m atelier``.

    Paths of ``deps`` and ``outs``, and keys of ``params``, are those of the files, with what a matrix fills in.
    """

    pipeline: str
    kind: str  # without what the matrix adds
    name: str
    words: tuple[str, ...]  # none of another command
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: tuple[str, ...]


def stages(content: Mapping[str, Any], workspace: Workspace) -> list[Stage]:
    """All stages of parameters ``content``, as they are read from a file, shared ones first.

    Raises ValueError, one line that names the file, for what is no pipeline and for a matrix that is no list.
    """
    files = {SHARED: workspace.root / "dvc.yaml"}
    files |= {path.parent.name: path for path in sorted(workspace.pipelines.glob("*/dvc.yaml"))}
    return [stage for pipeline, path in files.items() for stage in _of_file(content, pipeline, path)]


def _of_file(content: Mapping[str, Any], pipeline: str, path: Path) -> Iterator[Stage]:
    with reading(path, "not a pipeline"):
        try:
            listed = YAML(typ="safe", pure=True).load(path.read_bytes())["stages"].items()
        except (YAMLError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__} where stages are expected") from None
    for kind, stage in listed:
        matrix = {key: _list(content, value, f"{path}: {kind}") for key, value in stage.get("matrix", {}).items()}
        paths = [
            tuple(str(next(iter(path)) if isinstance(path, Mapping) else path) for path in stage.get(key, ()))
            for key in ("deps", "outs", "params")
        ]
        for values in product(*matrix.values()):
            item = dict(zip(matrix, map(str, values), strict=True))
            name = kind + (f"@{'-'.join(item.values())}" if item else "")
            filled = (tuple(_filled(path, item) for path in of) for of in paths)
            yield Stage(pipeline, kind, name, _words(str(stage["cmd"]), item), *filled)


def _list(content: Mapping[str, Any], value: object, where: str) -> list[Any]:
    """What one axis of a matrix goes over: a list, or the parameter that it names."""
    if isinstance(value, str) and (match := REFERENCE.fullmatch(value)):
        value = content
        for part in match[1].split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, list):
        raise ValueError(f"{where}: a matrix goes over lists of parameters, not over {value!r}")
    return value


def _filled(text: str, item: Mapping[str, str]) -> str:
    return REFERENCE.sub(lambda match: item.get(match[1].removeprefix("item."), match[0]), text)


def _words(command: str, item: Mapping[str, str]) -> tuple[str, ...]:
    """What stands after ``python -m atelier``."""
    filled = _filled(command, item)
    return tuple(filled.removeprefix(COMMAND).split()) if filled.startswith(COMMAND) else ()
