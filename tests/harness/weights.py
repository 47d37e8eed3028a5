"""Models whose weights, names or configurations do not fit, given to the loader of bases."""

import copy
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.harness.attacks import Attack, refused
from torch import Tensor

from atelier.models import base

GROUP = "weights"
WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
State = dict[str, Tensor]
CONFIGS = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json")  # fmt: skip
VALUES: list[Any] = [None, -1, 0, 10**9, float("nan"), "x", [], {}, [[1]], True]


def attacks(seed: int) -> Iterator[Attack]:
    """All attacks on a base's folder."""
    for part, file in WEIGHTS.items():
        for name, change in CHANGES.items():
            yield Attack(GROUP, f"{part}: {name}", partial(_changed, file, change))
        for name, spoil in SPOILS.items():
            yield Attack(GROUP, f"{part}: {name}", partial(_spoilt, file, spoil))
    for file in CONFIGS:
        for name, spoil in SPOILS.items():
            yield Attack(GROUP, f"{file}: {name}", partial(_spoilt, file, spoil))
    for folder in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        yield Attack(GROUP, f"{folder} is missing", partial(_removed, folder))
    for name in ("StableDiffusionXLPipeline", "FluxPipeline", "", "os.system", "../StableDiffusionPipeline"):
        yield Attack(
            GROUP, f"a pipeline of class {name!r}", partial(_configured, "model_index.json", ("_class_name",), name)
        )
    chance = random.Random(seed)
    for file in CONFIGS[1:]:
        content = json.loads((shipped() / file).read_text())
        for key in sorted(content):
            for value in chance.sample(VALUES, 2):
                yield Attack(GROUP, f"{file}: {key} = {value!r}", partial(_configured, file, (key,), value))


@cache
def shipped() -> Path:
    """A base of the smallest preset, made once."""
    folder = Path(tempfile.mkdtemp(prefix="atelier-harness-base-"))
    base.save(base.build("tiny", 64, ["a boat on a lake"], seed=1), folder, {})
    return folder


def _copied(folder: Path) -> Path:
    return Path(shutil.copytree(shipped(), folder / "base"))


def _first(state: State) -> str:
    return sorted(state)[len(state) // 2]


def _with(state: State, name: str, tensor: Tensor) -> State:
    return {**state, name: tensor}


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous() if tensor.ndim > 1 else tensor


CHANGES: dict[str, Callable[[State], State]] = {
    "no tensor": lambda state: {},
    "one tensor is missing": lambda state: {name: each for name, each in state.items() if name != _first(state)},
    "one tensor too many": lambda state: _with(state, "more.weight", torch.zeros(3)),
    "all renamed": lambda state: {f"module.{name}": each for name, each in state.items()},
    "one renamed": lambda state: {
        (f"{name}_" if name == _first(state) else name): each for name, each in state.items()
    },
    "another shape": lambda state: _with(state, _first(state), torch.zeros(5, 7)),
    "transposed": lambda state: {name: _transposed(each) for name, each in state.items()},
    "a NaN": lambda state: _with(state, _first(state), torch.full_like(state[_first(state)], float("nan"))),
    "an infinity": lambda state: _with(state, _first(state), torch.full_like(state[_first(state)], float("inf"))),
    "8-bit integers": lambda state: {name: each.to(torch.int8) for name, each in state.items()},
    "booleans": lambda state: _with(state, _first(state), state[_first(state)] > 0),
    "complex numbers": lambda state: _with(state, _first(state), state[_first(state)].to(torch.complex64)),
}


def _header(data: bytes) -> bytes:
    return b"\xff\xff\xff\xff\xff\xff\xff\x7f" + data[8:]


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "random bytes": lambda data: random.Random(1).randbytes(len(data)),
    "a pickle": lambda data: b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
    "a header of exabytes": _header,
    "an HTML page": lambda data: b"<!DOCTYPE html><html>404</html>",
    "deeply nested": lambda data: b"[" * 100_000,
}


def _loaded(folder: Path) -> str:
    return refused(lambda: base.load(folder), str(folder))


def _changed(file: str, change: Callable[[State], State], folder: Path) -> str:
    path = _copied(folder) / file
    save_file(change(load_file(path)), path)
    return _loaded(folder / "base")


def _spoilt(file: str, spoil: Callable[[bytes], bytes], folder: Path) -> str:
    path = _copied(folder) / file
    path.write_bytes(spoil(path.read_bytes()))
    return _loaded(folder / "base")


def _removed(name: str, folder: Path) -> str:
    shutil.rmtree(_copied(folder) / name)
    return _loaded(folder / "base")


def _configured(file: str, key: tuple[str, ...], value: Any, folder: Path) -> str:
    """A configuration with one other value: refused by name, or of no consequence for the weights' shapes."""
    path = _copied(folder) / file
    content = copy.deepcopy(json.loads(path.read_text()))
    content[key[0]] = value
    path.write_text(json.dumps(content))
    failure = _loaded(folder / "base")
    return "" if failure == "accepted" and file != "model_index.json" else failure
