"""Every variant paints the same prompts from the same noise, from both starts; the base is one of them."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from atelier import params
from atelier.params import CORRECTED, WHITE
from atelier.sampling import starts, store
from atelier.sampling.conditions import white_noise
from atelier.sampling.sampler import sample, settled
from atelier.studies.pixel_space import sample as stage
from atelier.studies.pixel_space.params import UNTUNED, Config
from atelier.studies.pixel_space.pictures import held_out_prompts
from atelier.studies.pixel_space.variant import load
from atelier.workspace import Workspace
from studies.pixel_space.conftest import Studied


def folders(studied: Studied, condition: stage.Condition) -> list[Path]:
    location = stage.location_of(studied.params, condition)
    return location.folders(studied.workspace.samples, studied.params.protocol.training_seeds)


def test_the_base_is_one_of_the_conditions_and_ablations_start_from_white_noise(config: params.Params) -> None:
    listed = stage.all_conditions(config)
    both = {f"{name}{end}" for name in (UNTUNED, "latent", "both", "dpo-latent") for end in ("", "-corrected")}
    assert {each.cell for each in listed} == both | {"share-30"}
    assert len(listed) == len(both) + 1
    assert listed[0] == stage.Condition(UNTUNED)


def test_all_cells_are_of_the_same_prompts_and_noise(studied: Studied) -> None:
    conditions = stage.all_conditions(studied.params)
    tables = {each.cell: store.listed(folders(studied, each)) for each in conditions}
    latents = {each.cell: store.read_latents(folders(studied, each)) for each in conditions}
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, tables[UNTUNED], obj=name)
    assert list(tables[UNTUNED]["repeat"].unique()) == studied.params.protocol.all_repeats
    assert tables[UNTUNED].groupby("repeat").size().eq(Config.of(studied.params).pictures).all()
    for name, values in latents.items():
        assert [other for other, last in latents.items() if torch.equal(values, last)] == [name]


def test_a_picture_is_the_librarys_of_that_model_prompt_and_noise(studied: Studied) -> None:
    config, workspace = studied
    seed = config.protocol.training_seeds[1]
    for condition in (stage.Condition(UNTUNED), stage.Condition("both", CORRECTED)):
        table, last = (read(folders(studied, condition)) for read in (store.listed, store.read_latents))
        rows = table[table["repeat"].isin(config.protocol.repeats_of(seed))]
        assert list(rows["prompt"]) == list(held_out_prompts(config, workspace, 4, seed)["prompt"])
        pipeline = settled(load(config, workspace, condition.variant, seed), torch.device("cpu"))
        first = white_noise(config, "picture")(pipeline, rows)
        if condition.start == CORRECTED:
            leak = starts.load(workspace.starts, "works")
            first = starts.started(config, CORRECTED, leak, "picture")(pipeline, rows)
        how = {"guidance": 4.0, "steps": config.sampling.steps, "batch": config.sampling.batch}
        made = sample(pipeline, list(rows["prompt"]), first, **how).latents
        torch.testing.assert_close(made, last[rows.index.tolist()], rtol=1e-4, atol=1e-4)


def test_both_starts_share_their_noise(studied: Studied) -> None:
    config, workspace = studied
    pipeline = load(config, workspace, UNTUNED, 0)
    both = [stage.listed(config, workspace, stage.Condition(UNTUNED, start), 0) for start in (WHITE, CORRECTED)]
    white, corrected = (each.start(pipeline, each.table).flatten() for each in both)
    assert float(torch.corrcoef(torch.stack([white, corrected]))[0, 1]) > 0.5
    assert not torch.equal(white, corrected)


def test_an_unknown_variant_or_seed_is_refused(studied: Studied) -> None:
    config, workspace = studied
    with pytest.raises(ValueError, match="no variant 'bothh'"):
        stage.main(config, workspace, "bothh", "0")
    with pytest.raises(ValueError, match=r"protocol\.training_seeds: 3 is not one of"):
        stage.main(config, workspace, UNTUNED, "3")


def test_a_killed_stage_goes_on_with_what_it_has_and_leaves_the_same(
    studied: Studied, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, before = studied.params, folders(studied, stage.Condition("latent"))[0]
    workspace.adapters.symlink_to(studied.workspace.adapters)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_conditions", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.main(config, workspace, "latent", "0")
    with monkeypatch.context() as patch:
        patch.setattr(stage, "load", killed)  # both conditions are painted
        stage.main(config, workspace, "latent", "0")
    after = stage.location_of(config, stage.Condition("latent")).folder(workspace.samples, 0)
    for file in before.iterdir():
        assert file.read_bytes() == (after / file.name).read_bytes(), file.name
    assert not list(workspace.scratch.glob("samples-pixel_space*"))
