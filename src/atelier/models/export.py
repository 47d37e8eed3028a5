"""``python -m atelier export FOLDER --format kohya|diffusers OUT``: a trained adapter for other programs.

Trainings write PEFT's names, which diffusers and PEFT read. Other programs want diffusers' older names or those of
Kohya's scripts, which tell each layer's alpha, too. Names are made by diffusers' converters and read back by its loader
before a file is written, because some layers have no name in Kohya's format that it knows again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffusers import StableDiffusionPipeline
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_kohya,
    convert_unet_state_dict_to_peft,
)
from diffusers.utils.state_dict_utils import convert_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.files import check_output, reading, shown, writing
from atelier.models.adapters import WEIGHTS
from atelier.models.checked_adapter import REFUSAL
from atelier.models.headers import check_finite

State = dict[str, Tensor]
USAGE = "usage: python -m atelier export FOLDER --format kohya|diffusers OUT.safetensors"
PREFIX, SIDES = "unet.", (".lora_A.weight", ".lora_B.weight")  # of a trained adapter's names


def main(arguments: Sequence[str]) -> None:
    """Export what the command line says. Raises ValueError with the usage for other arguments."""
    words = list(arguments)
    try:
        at = words.index("--format")
        kind = words.pop(at + 1)
        words.pop(at)
        source, out = words
    except (ValueError, IndexError):
        raise ValueError(USAGE) from None
    print(f"{out}: {export(Path(source), Path(out), kind)} layers in the names of {kind}")


def export(folder: Path, out: Path, kind: str) -> int:
    """Write a trained adapter's folder as a file in another format; returns how many layers it has.

    ``kind``: kohya or diffusers. Raises ValueError, one line, for a folder without an adapter of a U-Net, for layers
    that the format has no name for, and for a file that is there already.
    """
    if kind not in FORMATS:
        raise ValueError(f"--format: expected {' or '.join(FORMATS)}, got {shown(kind)}")
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: expected a name that ends in .safetensors")
    if out.exists():
        raise ValueError(f"{out}: is there already; take another name")
    state = read_trained(folder)
    named = FORMATS[kind](state)
    known = _read_back(named)
    if odd := sorted(name for name in state if name not in known):
        layer = odd[0].removeprefix(PREFIX).rpartition(".lora_")[0]
        raise ValueError(f"{folder / WEIGHTS}: layer {shown(layer)} has no name in the format {kind} that is read back")
    with writing(out) as part:
        save_file({name: tensor.contiguous() for name, tensor in sorted(named.items())}, part, {"format": "pt"})
    return len(state) // len(SIDES)


def read_trained(folder: Path) -> State:
    """The tensors of an adapter that a training here wrote: of a U-Net, alpha equal to the rank."""
    path = folder / WEIGHTS
    if (folder / "unet").is_dir():
        raise ValueError(f"{folder}: holds a whole denoiser, which is in the diffusers format already, and no adapter")
    if not path.is_file():
        raise ValueError(f"{folder}: holds no {WEIGHTS}")
    check_output(folder)
    with reading(path, REFUSAL):
        state = load_file(path)
    check_finite(state.items(), path)
    if not state:
        raise ValueError(f"{path}: holds no tensor")
    for name in sorted(state):
        if not (name.startswith(PREFIX) and name.endswith(SIDES)):
            raise ValueError(f"{path}: tensor {shown(name)} is no matrix of a U-Net's adapter in the names of PEFT")
    return state


def _kohya(state: State) -> State:
    """``lora_unet_BLOCK_LAYER.lora_down.weight``, ``.lora_up.weight``, and ``.alpha`` as a number of their type."""
    named: State = convert_state_dict_to_kohya(state)
    return {name: tensor if tensor.ndim else tensor.float() for name, tensor in named.items()}


def _diffusers(state: State) -> State:
    """``unet.BLOCK.LAYER.lora.down.weight`` and ``.lora.up.weight``.

    diffusers' converter renames attention projections alone, and its loader looks at the first name to tell a format.
    """
    named: State = convert_state_dict(
        convert_state_dict_to_diffusers(state), {".lora_A.": ".lora.down.", ".lora_B.": ".lora.up."}
    )
    return named


FORMATS: dict[str, Callable[[State], State]] = {"kohya": _kohya, "diffusers": _diffusers}


def _read_back(named: State) -> State:
    """The names of PEFT, as diffusers' loader makes them of a file's."""
    state, _ = StableDiffusionPipeline.lora_state_dict(dict(named))
    known: State = convert_unet_state_dict_to_peft(state)
    return known
