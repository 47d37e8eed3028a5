"""Pictures of tuned models and of the untuned base: the same works and noise, a repeat by its own training seed."""

import pandas as pd
import pytest
import torch

from atelier.methods import signal_leak
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.params import CORRECTED, STARTS, Params
from atelier.sampling import store
from atelier.sampling.conditions import by_training_seed
from atelier.sampling.held_out import held_out_table
from atelier.sampling.sampler import with_ddim
from atelier.sampling.store import guidance_folder
from atelier.studies.art_finetuning import sample, train
from atelier.workspace import Workspace


def test_all_models_are_sampled_from_the_same_works_and_noise(config: Params, tuned_workspace: Workspace) -> None:
    for model in ("untuned", "mixed", "full"):
        sample.main(config, tuned_workspace, model)
    names = ("untuned", "untuned-again", "mixed", "full")
    for guidance in (1.0, 4.0):
        cells = {name: store.read(tuned_workspace.samples, "art_finetuning", name, guidance) for name in names}
        assert {tuple(pictures.shape) for pictures, _ in cells.values()} == {(12, 3, 64, 64)}
        ordered = {name: table.sort_values("file", ignore_index=True) for name, (_, table) in cells.items()}
        for name in names[1:]:
            pd.testing.assert_frame_equal(ordered[name], ordered["untuned"])
        for number, one in enumerate(names):
            assert not any(torch.equal(cells[one][0], cells[two][0]) for two in names[number + 1 :])
            again, listed = store.read(tuned_workspace.samples, "art_finetuning", one, guidance, CORRECTED)
            pd.testing.assert_frame_equal(listed.sort_values("file", ignore_index=True), ordered[one])
            assert not torch.equal(again, cells[one][0])
    with pytest.raises(ValueError, match=r"art_finetuning\.adapters: no variant 'unknown'"):
        sample.main(config, tuned_workspace, "unknown")


def test_both_starts_have_the_same_prompts_and_the_same_noise(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no leak is added, the corrected start is the white one."""
    conditions = {each.folder: each for each in sample.all_conditions(config, workspace, "picture", "untuned")}
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


def test_each_repeat_is_painted_by_its_own_training_seed(config: Params, tuned_workspace: Workspace) -> None:
    cell = (tuned_workspace.samples, "art_finetuning", "mixed", 4.0)
    sample.main(config, tuned_workspace, "mixed")
    both, table = store.read(*cell)
    one_seed = config.protocol.model_copy(update={"training_seeds": [0]})
    sample.main(config.model_copy(update={"protocol": one_seed}), tuned_workspace, "mixed")
    alone, listed = store.read(*cell)
    alone = alone[listed.set_index("file").index.get_indexer(table["file"])]
    first = torch.tensor((table["repeat"] % 2 == 0).tolist())
    # 8-bit pictures of other batches may differ in a last bit
    assert int((both[first].int() - alone[first].int()).abs().max()) <= 1
    assert not torch.equal(both[~first], alone[~first])


def test_rows_are_dealt_to_training_seeds_by_their_repeats(config: Params, workspace: Workspace) -> None:
    table = held_out_table(config, workspace.manifests, 1, config.protocol.pictures)
    parts = by_training_seed(config, table, trained=True)
    assert {seed: set(rows["repeat"]) for seed, rows in parts.items()} == {0: {0, 2}, 1: {1, 3}}
    assert [len(rows) for rows in by_training_seed(config, table, trained=False).values()] == [len(table)]


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
