"""Stage ``judges``: the two judges of defects, of which one chooses and one measures, and what they are worth.

They come from a folder, with the data's word for them; or they are trained on the data's works and on what the base's
own autoencoder returns of them, and held-out works say which planted defects they tell. Judges of another world's
pictures and autoencoder would take both for defects.
"""

from pathlib import Path
from typing import NamedTuple, Self

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier import machine, scratch
from atelier.data import prepare
from atelier.evaluation.defects import LEAST, in_order
from atelier.evaluation.intervals import wilson_interval
from atelier.evaluation.judges import Bar, read_bars
from atelier.evaluation.reference import returned
from atelier.files import check_seal, write_table
from atelier.models import base, defect_judge, stored
from atelier.models.defect_judge import DefectJudge, Kind
from atelier.params import Params
from atelier.seeds import evenly, seed_of, torch_generator
from atelier.studies.pixel_space.params import Config
from atelier.training import defect_judge as training
from atelier.training.base import HISTORY
from atelier.training.defects import NAMES
from atelier.training.loop import fit
from atelier.workspace import Workspace, replacing

CHOOSING, MEASURING = "choosing", "measuring"
ROLES: dict[str, Kind] = {CHOOSING: "plain", MEASURING: "residual"}  # of two kinds, so that one checks the other
BARS, GIVEN = "bars.json", "given.json"


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/judges/pixel_space``: bars, and judges or what identifies those of a folder."""
    config, settings = Config.of(params), Config.of(params).judge_training
    if settings is None:
        given = workspace.named(str(config.judges))
        with replacing(folder(workspace)) as part:
            _write_bars([bar for bar in read_bars(workspace.bars) if bar.name.startswith("defect judge, ")], part)
            stored.save_json({"judges": config.judges, "sha256": scratch.digest(workspace.root, given)}, part / GIVEN)
        print(f"{given}: judges of defects as they are")
        return
    key = settings.model_dump(mode="json")
    run = scratch.of_stage(params, workspace, __name__, folder(workspace), [workspace.base, workspace.manifests], **key)
    place = machine.accelerator(params.machine)
    vae = base.load(check_seal(workspace.base)).vae.to(place.device)
    learnt = Seen.of(params, workspace, vae, "train", settings.works).windows(settings.side, params.seed)
    unseen = Seen.of(params, workspace, vae, "test", settings.unseen)
    known: list[Bar] = []
    with replacing(folder(workspace)) as part:
        for role, kind in ROLES.items():
            seed = seed_of(params.seed, Config.STUDY, role)  # decides which pictures a step sees, and their defects
            judge = defect_judge.build(kind, NAMES, seed)
            task = training.task(judge, *learnt, seed, place.device)
            history = fit(task, settings.optimisation, seed=seed, scratch=run / role, accelerator=place)
            defect_judge.save(judge.cpu(), part / role, {**key, "pictures": len(learnt.names)})
            write_table(part / role / HISTORY, history)
            known += bars_of(defect_judge.load(part / role), role, unseen, params.seed)
        _write_bars(known, part)
    scratch.discard(run)
    print("\n".join(f"{bar.name}: {bar.value:.3f} of {bar.n}" for bar in known))


def folder(workspace: Workspace) -> Path:
    return workspace.build / "judges" / Config.STUDY


def load(params: Params, workspace: Workspace, role: str) -> DefectJudge:
    """One of both judges. ValueError for a folder without it."""
    judges = Config.of(params).judges
    return defect_judge.load((workspace.named(judges) if judges else check_seal(folder(workspace))) / role)


def bars(workspace: Workspace) -> list[Bar]:
    """What is known of the judges; empty where nobody says anything."""
    return read_bars(check_seal(folder(workspace)) / BARS)


# ------------------------------------------------------------------------------------------------ training


class Seen(NamedTuple):
    """Works as they are and as the autoencoder returns them, (n, 3, s, s) uint8 each, and their names."""

    pictures: Tensor
    returned: Tensor
    names: list[str]

    @classmethod
    def of(cls, params: Params, workspace: Workspace, vae: AutoencoderKL, split: str, most: int) -> Self:
        """Works of a split, of every style alike."""
        table = prepare.works(workspace.manifests).table.query("split == @split")
        table = table.iloc[evenly(len(table), most)].reset_index(drop=True)
        pictures = prepare.pictures(table, params.data, workspace)
        return cls(pictures.load(), torch.cat(list(returned(vae, pictures))), list(table["path"]))

    def windows(self, side: int, seed: int) -> Self:
        """One window of each work, at a random place; whole works where ``side`` is 0."""
        if not side:
            return self
        room = self.pictures.shape[-1] - side + 1
        places = [torch.randint(room, (2,), generator=torch_generator(seed, "window", name)) for name in self.names]
        cut = [slice(int(top), int(top) + side) for top, _ in places], [slice(int(x), int(x) + side) for _, x in places]

        def windows_of(works: Tensor) -> Tensor:
            return torch.stack([work[:, rows, columns] for work, rows, columns in zip(works, *cut, strict=True)])

        return self._replace(pictures=windows_of(self.pictures), returned=windows_of(self.returned))

    def half_returned(self) -> Tensor:
        """Every other work as it is, the others as the autoencoder returns them."""
        as_it_is = torch.arange(len(self.names)) % 2 == 0
        return torch.where(as_it_is[:, None, None, None], self.pictures, self.returned)


def bars_of(judge: DefectJudge, role: str, unseen: Seen, seed: int) -> list[Bar]:
    """The share of pairs of each planted defect that a judge puts in the right order."""
    listed = []
    for defect, right in in_order(judge, unseen.half_returned(), unseen.names, seed).items():
        share = wilson_interval(int(right.sum()), len(right))
        name = f"defect judge, {role}, {defect}, works in order"
        listed.append(Bar(name=name, value=share.mean, n=len(right), least=LEAST, low=share.low, high=share.high))
    return listed


def _write_bars(listed: list[Bar], part: Path) -> None:
    stored.save_json(stored.with_checksum({"bars": [bar.model_dump() for bar in listed]}), part / BARS)
