"""Stage ``reference``: statistics of held-out and training works, computed once for all studies' measures.

Held-out works are reduced twice, as they are and as the base's autoencoder returns them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from safetensors.numpy import load_file, save_file
from torch import Tensor

from atelier import machine
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.pictures import Pictures, of_shards, write_shards
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

REDUCED = "reduced.safetensors"
HELD_OUT, TRAINING = "returned", "returned-training"  # shards of what the base's autoencoder returned
GROUPS = ("held_out", "training")
MOMENTS = ("features", "haar")
OTHERS = "others"  # of the held-out works: features of further networks of ``field_judges``


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/reference``."""
    works = prepare.works(workspace.manifests).table
    held_out, training = (
        prepare.pictures(works[works["split"] == split], params.data, workspace) for split in ("test", "train")
    )
    vae = base.load(check_seal(workspace.base)).vae.to(machine.accelerator(params.machine).device)
    chosen = training[evenly(len(training), min(len(training), len(held_out)))]  # as many, of every style
    with replacing(workspace.reference) as part:
        for name, pictures in {HELD_OUT: held_out, TRAINING: chosen}.items():
            write_shards(returned(vae, pictures), part, name)
        save(part, reference_of(held_out, training, of_shards(part, HELD_OUT), judges.load(params, workspace)))
    print(f"{len(held_out)} held-out works, {len(training)} training works reduced")


def returned(vae: AutoencoderKL, pictures: Pictures) -> Iterator[Tensor]:
    """Pictures as an autoencoder returns them, uint8 (b, 3, h, w), batch by batch."""
    for batch in pictures.batches():
        yield to_pixels(decode(vae, encode_pictures(vae, batch).mean))


def save(folder: Path, reduced: Reference) -> None:
    """Write a reference beside the shards of what was returned."""
    with writing(folder / REDUCED) as file:
        save_file(arrays(reduced), file)


def load(folder: Path) -> Reference:
    """Load the stage's reference. Raises ValueError for a damaged one."""
    path = check_seal(folder) / REDUCED
    with reading(path):
        return from_arrays(load_file(path))


def reconstructed_works(folder: Path) -> Pictures:
    """Held-out works reconstructed by the base's autoencoder, in the order of the manifest."""
    return of_shards(check_seal(folder), HELD_OUT)


def reconstructed_training(folder: Path) -> Pictures:
    """As many training works, reconstructed: what is left of a distance between decoded works."""
    return of_shards(check_seal(folder), TRAINING)


def arrays(reference: Reference) -> dict[str, FloatArray]:
    """Flatten a reference to named arrays."""
    flat = {f"{name}/{key}": getattr(getattr(reference, name), key) for name in GROUPS for key in ARRAYS}
    fitted: dict[str, Moments] = {name: getattr(reference, name) for name in MOMENTS}
    fitted |= {f"{OTHERS}/{name}": moments for name, moments in reference.others.items()}
    for name, moments in fitted.items():
        flat |= {f"moments/{name}/mean": moments.mean, f"moments/{name}/factor": moments.factor}
    flat |= {f"held_out/{OTHERS}/{name}": reference.held_out.others[name] for name in reference.others}
    if (reconstructed := reference.reconstructed) is not None:
        flat |= {f"reconstructed/{key}": getattr(reconstructed.works, key) for key in KEPT}
    if (bands := reference.held_out.bands) is not None:
        flat |= {"bands/mean": bands.mean, "bands/factor": bands.factor}
    flat |= {f"near/{space}": np.array([distance]) for space, distance in reference.near.items()}
    return {name: np.ascontiguousarray(array, dtype=np.float64) for name, array in flat.items()}


def from_arrays(flat: dict[str, FloatArray]) -> Reference:
    """Rebuild a reference from ``arrays``' output."""
    groups = {}
    for name in GROUPS:
        groups[name] = restored({key: flat[f"{name}/{key}"] for key in ARRAYS})
    n = groups["held_out"].n
    prefix = f"held_out/{OTHERS}/"
    others = {name.removeprefix(prefix): array for name, array in flat.items() if name.startswith(prefix)}
    fitted = (*MOMENTS, *(f"{OTHERS}/{name}" for name in others))
    moments = {name: Moments(n, flat[f"moments/{name}/mean"], flat[f"moments/{name}/factor"]) for name in fitted}
    bands = Bands(n, flat["bands/mean"], flat["bands/factor"])
    near = {name.removeprefix("near/"): float(array[0]) for name, array in flat.items() if name.startswith("near/")}
    kept = {key: flat[f"reconstructed/{key}"] for key in KEPT if f"reconstructed/{key}" in flat}
    reconstructed = reconstructed_of(restored(kept)) if kept else None
    held_out, training = groups["held_out"]._replace(bands=bands, others=others), groups["training"]
    of_others = {name: moments[f"{OTHERS}/{name}"] for name in others}
    return Reference(held_out, moments["features"], moments["haar"], training, near, reconstructed, of_others)
