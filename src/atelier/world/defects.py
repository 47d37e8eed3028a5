"""Stage ``defects``: two judges of planted defects, one to choose pictures, one to measure what was made of them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from atelier.data.images import to_pixels
from atelier.evaluation.defects import LEAST, in_order
from atelier.evaluation.intervals import wilson_interval
from atelier.evaluation.judges import Bar
from atelier.files import write_table
from atelier.machine import accelerator
from atelier.models import defect_judge as judges
from atelier.models.checked import load_part
from atelier.models.latents import decode, encode_pictures
from atelier.models.stored import file_digest
from atelier.training import defect_judge as training
from atelier.training.base import HISTORY
from atelier.training.defects import NAMES
from atelier.world.params import World
from atelier.world.stages import card, painted, relevant_params, trained
from atelier.world.workspace import WorldWorkspace

ROLES: dict[str, judges.Kind] = {"choosing": "plain", "measuring": "residual"}


def defects(world: World, workspace: WorldWorkspace, base: Path) -> None:
    """Train both judges on pictures, and on what the autoencoder of ``base`` returns of them."""
    vae = load_part(base / "vae", AutoencoderKL).to(accelerator(world.machine).device)
    corpus = painted(world, "defects", world.defects.corpus)
    returned = to_pixels(decode(vae, encode_pictures(vae, corpus.pictures).mean))
    made_from = file_digest(base / "vae" / "diffusion_pytorch_model.safetensors")
    keys = {**relevant_params(world, "defects"), "vae": made_from}
    for number, (role, kind) in enumerate(ROLES.items()):
        seed = world.seed + number  # which pictures a step sees, and their defects, differ, too
        judge = judges.build(kind, NAMES, seed)
        device = accelerator(world.machine).device
        task = training.task(judge, corpus.pictures, returned, corpus.names, seed, device)
        history = trained(f"defects-{role}", task, world.defects.optimisation, world, workspace.scratch, keys)
        out = workspace.defects / role
        judges.save(judge.cpu(), out, card(keys, len(corpus.names)))
        write_table(out / HISTORY, history)


def bars(world: World, shipped: Path) -> Iterator[Bar]:
    """The share of pairs of each defect that each judge puts in the right order, on unseen works and photographs."""
    vae = load_part(shipped / "base" / "vae", AutoencoderKL).to(accelerator(world.machine).device)
    unseen = painted(world, "report", world.report.held_out)
    returned = to_pixels(decode(vae, encode_pictures(vae, unseen.pictures).mean))
    halves = torch.arange(len(unseen.names)) % 2 == 0
    shown = torch.where(halves[:, None, None, None], unseen.pictures, returned)
    places = enumerate(unseen.records)
    kinds: dict[str, list[int]] = {"work": [], "photograph": []}
    for place, record in places:
        kinds[str(record["kind"])].append(place)
    for role in ROLES:
        judge = judges.load(shipped / "defects" / role)
        for kind, rows in kinds.items():
            for defect, right in in_order(judge, shown[rows], [unseen.names[row] for row in rows], world.seed).items():
                share = wilson_interval(int(right.sum()), len(right))
                name = f"defect judge, {role}, {defect}, {kind}s in order"
                yield Bar(name=name, value=share.mean, n=len(right), least=LEAST, low=share.low, high=share.high)
