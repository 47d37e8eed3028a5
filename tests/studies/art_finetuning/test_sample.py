"""Pictures of tuned models and of the untuned base: the same works and noise, a repeat by its own training seed."""

from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch

from atelier.methods import signal_leak
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.params import CORRECTED, STARTS, WHITE, Params
from atelier.sampling import store
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import guidance_folder
from atelier.studies.art_finetuning import sample, train
from atelier.workspace import Workspace


def test_all_models_are_sampled_from_the_same_works_and_noise(config: Params, tuned_workspace: Workspace) -> None:
    seeds = config.protocol.training_seeds
    for model, seed in product(("untuned", "mixed", "full"), seeds):
        sample.main(config, tuned_workspace, model, str(seed))
    names = ("untuned", "untuned-again", "mixed", "full")

    def cell(name: str, guidance: float, start: str) -> tuple[torch.Tensor, pd.DataFrame]:
        painted = store.Location("art_finetuning", name, guidance, start)
        pictures, listed = store.read(painted.folders(tuned_workspace.samples, seeds))
        return pictures.load(), listed

    for guidance in (1.0, 4.0):
        cells = {name: cell(name, guidance, WHITE) for name in names}
        assert {tuple(pictures.shape) for pictures, _ in cells.values()} == {(12, 3, 64, 64)}
        assert list(cells["untuned"][1]["repeat"].unique()) == config.protocol.all_repeats
        for name in names[1:]:
            pd.testing.assert_frame_equal(cells[name][1], cells["untuned"][1])
        for number, one in enumerate(names):
            assert not any(torch.equal(cells[one][0], cells[two][0]) for two in names[number + 1 :])
            again, listed = cell(one, guidance, CORRECTED)
            pd.testing.assert_frame_equal(listed, cells[one][1])
            assert not torch.equal(again, cells[one][0])
    with pytest.raises(ValueError, match=r"art_finetuning\.adapters: no variant 'unknown'"):
        sample.main(config, tuned_workspace, "unknown", "0")
    for wrong, said in (
        ("2", r"protocol\.training_seeds: 2 is not one of \[0, 1\]"),
        ("one", "a whole number, got 'one'"),
    ):
        with pytest.raises(ValueError, match=said):
            sample.main(config, tuned_workspace, "mixed", wrong)


def test_both_starts_have_the_same_prompts_and_the_same_noise(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no leak is added, the corrected start is the white one."""
    conditions = {each.folder: each for each in sample.all_conditions(config, workspace, 1, "picture", "untuned")}
    assert len(conditions) == len(config.protocol.guidance) * len(STARTS)
    pipeline = with_ddim(base.load(workspace.base))
    pairs = [
        [conditions[f"untuned/{guidance_folder(guidance, start)}"] for start in STARTS]
        for guidance in config.protocol.guidance
    ]
    for white, corrected in pairs:
        pd.testing.assert_frame_equal(white.table, corrected.table)
        assert not torch.equal(*(each.start(pipeline, each.table) for each in (white, corrected)))
    monkeypatch.setattr(signal_leak, "add_leak", lambda leak, noise, scheduler, steps: noise)
    for white, corrected in pairs:
        assert torch.equal(*(each.start(pipeline, each.table) for each in (white, corrected)))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_seeds(config: Params, seeds: list[int]) -> Params:
    return config.model_copy(update={"protocol": config.protocol.model_copy(update={"training_seeds": seeds})})


def test_each_repeat_is_painted_by_its_own_training_seed(
    config: Params, workspace: Workspace, art_adapters: Path
) -> None:
    """Where seed 1 has the model of seed 0, its pictures are others, and those of seed 0 are not."""
    out, mine = workspace.samples / "art_finetuning" / "mixed", workspace.adapters / "art_finetuning" / "mixed"
    painted: dict[str, list[dict[str, bytes]]] = {"0": [], "1": []}
    mine.mkdir(parents=True)
    for model_of in ({"0": "0", "1": "1"}, {"0": "0", "1": "0"}):
        for seed, model in model_of.items():
            (mine / seed).unlink(missing_ok=True)
            (mine / seed).symlink_to(art_adapters / "art_finetuning" / "mixed" / model)
            sample.main(config, workspace, "mixed", seed)
            painted[seed].append(files_of(out / seed))
    assert painted["0"][0] == painted["0"][1]
    own, other = painted["1"]
    assert own.keys() == other.keys()
    for name in own:
        assert (own[name] == other[name]) == name.endswith("pictures.csv"), name


def test_a_seeds_pictures_are_the_same_whatever_other_seeds_there_are(
    config: Params, tuned_workspace: Workspace
) -> None:
    """So that a seed more leaves what is painted as it is: table, files, first noise, and pictures of one model."""
    pipeline, described = with_ddim(base.load(tuned_workspace.base)), []
    for seeds in ([0, 1], [1], [7, 1, 3]):
        conditions = sample.all_conditions(with_seeds(config, seeds), tuned_workspace, 1, "picture", "mixed/1")
        described.append([(each, each.start(pipeline, each.table)) for each in conditions])
    for others in described[1:]:
        for (one, noise), (again, again_noise) in zip(described[0], others, strict=True):
            assert one.folder == again.folder
            pd.testing.assert_frame_equal(one.table, again.table)
            assert torch.equal(noise, again_noise)
    of_other = sample.all_conditions(config, tuned_workspace, 0, "picture", "mixed/0")
    for (one, noise), other in zip(described[0], of_other, strict=True):
        assert not set(one.table["file"]) & set(other.table["file"])
        assert not torch.equal(noise, other.start(pipeline, other.table))
    painted = []
    for seeds in ([0, 1], [1]):
        sample.main(with_seeds(config, seeds), tuned_workspace, "mixed", "1")
        painted.append(files_of(tuned_workspace.samples))
    assert painted[0] == painted[1]
    assert {name.split("/")[:3] == ["art_finetuning", "mixed", "1"] for name in painted[0]} == {True}


def test_a_whole_denoiser_is_loaded_as_it_was_trained(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[dict[str, torch.Tensor]] = []
    save = train.save_denoiser

    def keep_and_save(unet: torch.nn.Module, *arguments: object) -> None:
        held.append({name: value.detach().clone() for name, value in unet.state_dict().items()})
        save(unet, *arguments)

    monkeypatch.setattr(train, "save_denoiser", keep_and_save)
    train.train(config, workspace, "full", 1)
    folder = workspace.adapter("art_finetuning", "full", 1)
    before = base.load(workspace.base).unet.state_dict()
    loaded = tuned(base.load(workspace.base), folder).unet.state_dict()
    assert loaded.keys() == held[0].keys()
    assert all(torch.equal(loaded[name], held[0][name]) for name in loaded)
    assert sum(not torch.equal(loaded[name], before[name]) for name in loaded) > 0.9 * len(loaded)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"not a tensor")
    with pytest.raises(ValueError, match="not a readable denoiser") as caught:
        tuned(base.load(workspace.base), folder)
    assert len(str(caught.value).splitlines()) == 1
