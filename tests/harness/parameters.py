"""Hostile parameter files: every leaf of a profile with values of other types and sizes, and files that are no YAML."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tests.harness.attacks import Attack, refused

from atelier import params

GROUP = "parameters"
PROFILE = Path(__file__).parents[2] / "profiles" / "smoke.yaml"
Key = tuple[str | int, ...]

HOSTILE: dict[type, list[Any]] = {
    bool: ["perhaps", 2, [True]],
    int: [-1, 10**13, "many", 1.5, "4", True, [1], {"a": 1}],
    float: [float("nan"), float("inf"), "much", [0.1]],
    str: ["", "a\0b", "x" * 5000, 5, ["x"], {"a": 1}],
    list: ["x", {"a": 1}, [None], [[]]],
    dict: ["x", [1], {"no such key": 1}],
    type(None): [[1], {"a": 1}],
}
RIGHT = {
    ("ema", 1.5),
    ("seed", 10**13),
}  # the last part of a key, and a value that is right for it though of another type
FILES = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a list": b"- 1\n- 2\n",
    "a word": b"word",
    "cut in a mapping": b"profile: smoke\nseed: 1\ndata: {folder: data, ann",
    "tab": b"profile:\n\tsmoke\n",
    "not UTF-8": b"profile: \xff\xfe\n",
    "UTF-16": "profile: smoke\n".encode("utf-16"),
    "NUL": b"profile: smoke\0\n",
    "key twice": b"profile: smoke\nprofile: smoke\n",
    "Python object": b"profile: !!python/object/apply:os.system ['true']\n",
    "unknown tag": b"profile: !thing smoke\n",
    "two documents": b"profile: smoke\n---\nprofile: smoke\n",
    "deeply nested list": b"profile: " + b"[" * 50_000 + b"]" * 50_000,
    "deeply nested mapping": b"".join(b" " * depth + b"a:\n" for depth in range(3000)),
    "aliases that explode": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n".encode() for n in range(9)),
    "an alias of itself": b"profile: &a [*a]\n",
    "a long line": b"profile: " + b"x" * 5_000_000,
    "merge key": b"a: &a {x: 1}\nprofile:\n  <<: *a\n",
    "a date": b"profile: 2020-01-01\n",
}


def attacks(seed: int) -> Iterator[Attack]:
    """All attacks on params.yaml."""
    content = YAML(typ="safe", pure=True).load(PROFILE)
    for key, value in leaves(content):
        for hostile in HOSTILE[type(value)]:
            if any(key[-1] == name and hostile == right for name, right in RIGHT):
                continue
            name = f"{'.'.join(map(str, key))} = {str(hostile)[:20]!r}"
            yield Attack(GROUP, name, partial(_edited, content, key, hostile))
        yield Attack(GROUP, f"{'.'.join(map(str, key))} is missing", partial(_missing, content, key))
        if isinstance(value, dict):
            more = {**value, "no such key": 1}
            yield Attack(GROUP, f"{'.'.join(map(str, key))} has a key too many", partial(_edited, content, key, more))
    for name, data in FILES.items():
        yield Attack(GROUP, f"file: {name}", partial(_file, data))
    yield Attack(GROUP, "file: a folder", _folder)
    yield Attack(
        GROUP, "file: absent", lambda folder: refused(lambda: params.load(folder / "params.yaml"), "params.yaml")
    )


def leaves(node: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Keys and values of a tree of mappings; mappings that users name, and lists, are leaves, too."""
    if key:
        yield key, node
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, (*key, name))


def _edited(content: Any, key: Key, value: Any, folder: Path) -> str:
    changed = copy.deepcopy(content)
    node = changed
    for name in key[:-1]:
        node = node[name]
    node[key[-1]] = value
    # a section's own key, or the nearest one above it, must be named
    return refused(lambda: params.check(changed, "params.yaml"), *(str(part) for part in key))


def _missing(content: Any, key: Key, folder: Path) -> str:
    changed = copy.deepcopy(content)
    node = changed
    for name in key[:-1]:
        node = node[name]
    del node[key[-1]]
    try:
        params.check(changed, "params.yaml")
    except ValueError as error:
        return "" if str(key[-1]) in str(error) or str(key[0]) in str(error) else f"not named: {str(error)[:200]}"
    return ""  # it has a default


def _file(data: bytes, folder: Path) -> str:
    (folder / "params.yaml").write_bytes(data)
    return refused(lambda: params.load(folder / "params.yaml"), "params.yaml")


def _folder(folder: Path) -> str:
    (folder / "params.yaml").mkdir()
    return refused(lambda: params.load(folder / "params.yaml"), "params.yaml")
