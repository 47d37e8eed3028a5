"""Stage ``reference``: statistics of held-out and training works, computed once for all studies' measures.

Held-out works are reduced twice, as they are and as the base's autoencoder returns them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from atelier import machine
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.evaluation import judges
from atelier.evaluation.groups import ARRAYS, KEPT, Reference, reconstructed_of, reference_of, restored
from atelier.evaluation.intervals import FloatArray
from atelier.files import check_seal, reading, writing
from atelier.metrics import Moments
from atelier.metrics.wavelets import Bands
from atelier.models import base
from atelier.models.latents import decode, encode_pictures
from atelier.params import Params
from atelier.seeds import evenly
from atelier.workspace import Workspace, replacing

REDUCED, RETURNED = "reduced.safetensors", "returned.safetensors"
HELD_OUT, TRAINING = "pictures", "training"  # in the file of what was returned
GROUPS = ("held_out", "training")
STORED = tuple(name for name in ARRAYS if name != "packets")  # these only as ``bands``
MOMENTS = ("features", "haar")


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/reference``."""
    works = prepare.works(workspace.manifests).table
    held_out, training = (
        prepare.pictures(works[works["split"] == split], params.data, workspace) for split in ("test", "train")
    )
    vae = base.load(check_seal(workspace.base)).vae.to(machine.accelerator(params.machine).device)
    chosen = training[evenly(len(training), min(len(training), len(held_out)))]  # as many, of every style
    returned, floor = (to_pixels(decode(vae, encode_pictures(vae, works).mean)) for works in (held_out, chosen))
    evaluator = judges.evaluator(workspace.evaluator)
    with replacing(workspace.reference) as part:
        save(part, reference_of(held_out, training, returned, evaluator), {HELD_OUT: returned, TRAINING: floor})
    print(f"{len(held_out)} held-out works, {len(training)} training works reduced")


def save(folder: Path, reduced: Reference, returned: Mapping[str, Tensor]) -> None:
    """Write a reference, and pictures uint8 (n, 3, h, w) as the base's autoencoder returns them, by name."""
    with writing(folder / REDUCED) as file:
        save_file(arrays(reduced), file)
    with writing(folder / RETURNED) as file:  # memory is written as it lies, and a decoder's may lie channels last
        save_file({name: np.ascontiguousarray(pictures) for name, pictures in returned.items()}, file)


def load(folder: Path) -> Reference:
    """Load the stage's reference. Raises ValueError for a damaged one."""
    path = check_seal(folder) / REDUCED
    with reading(path):
        return from_arrays(load_file(path))


def reconstructed_works(folder: Path) -> Tensor:
    """Held-out works reconstructed by the base's autoencoder, uint8 (n, 3, h, w), in the order of the manifest."""
    return _returned(folder, HELD_OUT)


def reconstructed_training(folder: Path) -> Tensor:
    """As many training works, reconstructed, uint8 (n, 3, h, w): what is left of a distance between decoded works."""
    return _returned(folder, TRAINING)


def _returned(folder: Path, name: str) -> Tensor:
    path = check_seal(folder) / RETURNED
    with reading(path):
        return torch.from_numpy(load_file(path)[name])


def arrays(reference: Reference) -> dict[str, FloatArray]:
    """Flatten a reference to named arrays."""
    flat = {f"{name}/{key}": getattr(getattr(reference, name), key) for name in GROUPS for key in STORED}
    for name in MOMENTS:
        moments: Moments = getattr(reference, name)
        flat |= {f"moments/{name}/mean": moments.mean, f"moments/{name}/factor": moments.factor}
    if (reconstructed := reference.reconstructed) is not None:
        flat |= {f"reconstructed/{key}": getattr(reconstructed.works, key) for key in KEPT}
    flat |= {"bands/mean": reference.bands.mean, "bands/root": reference.bands.root}
    flat |= {f"near/{space}": np.array([distance]) for space, distance in reference.near.items()}
    return {name: np.ascontiguousarray(array, dtype=np.float64) for name, array in flat.items()}


def from_arrays(flat: dict[str, FloatArray]) -> Reference:
    """Rebuild a reference from ``arrays``' output."""
    groups = {}
    for name in GROUPS:
        groups[name] = restored({key: flat[f"{name}/{key}"] for key in STORED})
    n = groups["held_out"].n
    moments = {name: Moments(n, flat[f"moments/{name}/mean"], flat[f"moments/{name}/factor"]) for name in MOMENTS}
    bands = Bands(flat["bands/mean"], flat["bands/root"])
    near = {name.removeprefix("near/"): float(array[0]) for name, array in flat.items() if name.startswith("near/")}
    kept = {key: flat[f"reconstructed/{key}"] for key in KEPT if f"reconstructed/{key}" in flat}
    reconstructed = reconstructed_of(restored(kept)) if kept else None
    held_out, training = groups["held_out"], groups["training"]
    return Reference(held_out, moments["features"], moments["haar"], bands, training, near, reconstructed)
