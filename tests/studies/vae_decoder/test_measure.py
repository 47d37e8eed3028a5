"""Retuned decoders measured: works against their reconstructions, and models' pictures as each decoder returns them."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from atelier import claims
from atelier import params as parameters
from atelier.data import prepare
from atelier.data.images import to_pixels
from atelier.data.pictures import in_memory
from atelier.evaluation.groups import group
from atelier.evaluation.judges import Judges
from atelier.evaluation.tables import REFERENCE_ROWS, write_rows
from atelier.files import SEAL
from atelier.methods.perceptual import LPIPS
from atelier.metrics import kernel_distance, log_power_error, mean_power_spectrum
from atelier.models import base
from atelier.models.autoencoders import load_like
from atelier.models.latents import decode, encode_pictures
from atelier.params import CORRECTED, Params
from atelier.sampling import store
from atelier.sampling.store import Location
from atelier.studies.art_finetuning import sample as art_sampling
from atelier.studies.art_finetuning import train as art_finetuning
from atelier.studies.prompt_enrichment import sample as level_sampling
from atelier.studies.vae_decoder import collect, measure, reconstruct
from atelier.studies.vae_decoder import train as retuning
from atelier.studies.vae_decoder.decoding import ORIGINAL, REPAINTED, decoded, decoders, repaint, repainted
from atelier.studies.vae_decoder.measure import PLAIN_WORDS, Redecoded
from atelier.studies.vae_decoder.params import Config
from atelier.studies.vae_decoder.reconstruct import Networks
from atelier.workspace import Workspace

PROFILES = Path(__file__).parents[3] / "profiles"


def test_reconstructions_are_measured_against_their_own_works(
    params: Params, workspace: Workspace, tmp_path: Path
) -> None:
    for seed in params.protocol.training_seeds:
        retuning.train(params, workspace, "mse", seed)
    repaint(params, workspace, "mse", tmp_path)
    (parts,) = repainted(params, workspace, ["mse"], tmp_path)
    held_out = prepare.works(workspace.manifests).table.query("split == 'test'")
    assert sum(len(part.works) for part in parts) == len(held_out)
    vae = load_like(base.load(workspace.base).vae, workspace.decoder("mse", 1) / "vae")
    expected = to_pixels(decode(vae, encode_pictures(vae, parts[1].works).mean))
    assert int((parts[1].made.load().int() - expected.int()).abs().max()) <= 1
    by_group = reconstruct.works_by_group(params, workspace)
    rows = reconstruct.decoder_rows(params, workspace, tmp_path, "mse", by_group, Networks({}, None))
    assert set(rows["cell"]) == {"mse"}
    whole = rows[rows["style"] == ""].set_index("measure")
    works, made = (torch.cat([getattr(part, name).load() for part in parts]) / 255 for name in ("works", "made"))
    error = float((works.double() - made.double()).square().mean())
    assert whole.loc["mse", "whole"] == pytest.approx(error)
    assert whole.loc["psnr", "whole"] == pytest.approx(-10 * math.log10(error))
    high = log_power_error(mean_power_spectrum(works), mean_power_spectrum(made), above=16)
    assert whole.loc["high", "whole"] == pytest.approx(high)
    # a mean's pseudo-values are the groups' own sums, rescaled: their mean is the mean
    assert np.mean(whole.loc["mse", ["group0", "group1"]].to_numpy(float)) == pytest.approx(error, rel=0.3)


def test_reconstructions_of_other_works_are_refused(params: Params, workspace: Workspace, tmp_path: Path) -> None:
    repaint(params, workspace, ORIGINAL, tmp_path)
    (tmp_path / "original-00001.safetensors").write_bytes((tmp_path / "original-00000.safetensors").read_bytes())
    with pytest.raises(ValueError, match="works went through 'original'"):
        next(repainted(params, workspace, [ORIGINAL], tmp_path))


def test_a_judge_sees_works_and_reconstructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through pixels' means for features: the kernel distance of all parts' works to all parts' reconstructions."""
    monkeypatch.setattr(reconstruct, "features", lambda _, x: x.double().mean((2, 3)).numpy())
    generator = torch.Generator().manual_seed(0)
    works, made = (torch.randint(256, (12, 3, 32, 32), dtype=torch.uint8, generator=generator) for _ in range(2))
    judge = Networks({}, object())  # type: ignore[arg-type]
    device = torch.device("cpu")
    parts = [
        reconstruct.returned(
            group(works[rows], Judges()), in_memory(works[rows]), in_memory(made[rows]), Judges(), judge, device
        )
        for rows in (slice(0, 5), slice(5, 12))
    ]
    real, ours = ((x.double() / 255).mean((2, 3)).numpy() for x in (works, made))
    assert reconstruct.measures_of(parts)["kd_judge"] == pytest.approx(kernel_distance(real, ours))
    unjudged = reconstruct.returned(
        group(works, Judges()), in_memory(works), in_memory(made), Judges(), Networks({}, None), device
    )
    assert "kd_judge" not in reconstruct.measures_of([unjudged])


@pytest.mark.parametrize(
    ("source", "location", "judged"),
    [("hub", "someone/base", False), ("folder", "sd", False), ("shipped", None, True), ("train", "data/base", True)],
)
def test_judges_of_the_embedded_world_see_no_other_base(
    params: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, source: str, location: str, judged: bool
) -> None:
    monkeypatch.setattr(LPIPS, "from_params", lambda *_: "loss")
    monkeypatch.setattr(LPIPS, "from_folder", lambda folder: folder)
    monkeypatch.setattr(reconstruct.evaluators, "load", lambda folder: folder)
    other = params.model_copy(
        update={
            "base": params.base.model_copy(update={"source": source, "location": location}),
            "perceptual": params.perceptual.model_copy(update={"network": "squeeze"}),
        }
    )
    networks = reconstruct.networks_of(other, workspace)
    assert (set(networks.lpips), networks.judge is not None) == (
        {"lpips", "judge"} if judged else {"lpips"},
        judged,
    )


def test_the_original_decoder_on_stored_latents_gives_the_stored_pictures(params: Params, workspace: Workspace) -> None:
    seeds = params.protocol.training_seeds
    for seed in seeds:
        art_sampling.main(params, workspace, "untuned", str(seed))
    folders = Location("art_finetuning", "untuned", 4.0).folders(workspace.samples, seeds)
    (pictures, table), latents = store.read(folders), store.read_latents(folders)
    again = decoded(params, decoders(params, workspace, ORIGINAL), latents, table["repeat"].tolist())
    assert torch.equal(again, pictures.load())


def test_a_repeat_is_decoded_by_its_training_seeds_decoder(params: Params, workspace: Workspace) -> None:
    for seed in params.protocol.training_seeds:
        retuning.train(params, workspace, "all", seed)
    vaes = decoders(params, workspace, "all")
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = decoded(params, vaes, latents, [0, 1, 2, 3])
    by_seed = [decoded(params, dict.fromkeys(vaes, vaes[seed]), latents, [0, 1, 2, 3]) for seed in (0, 1)]
    assert not torch.equal(*by_seed)
    for number in range(4):
        # 8-bit pictures of other batches may differ in a last bit
        assert int((mixed[number].int() - by_seed[number // 2][number].int()).abs().max()) <= 1


def test_every_cell_that_claims_need_is_there(params: Params) -> None:
    cells, tuned = measure.cells(params, "mixed"), Location("art_finetuning", "mixed", 4.0)
    assert cells["mixed+all@1/4"] == Redecoded(tuned, "all")
    assert cells["mixed+all@1/4/corrected"] == Redecoded(tuned._replace(start=CORRECTED), "all")
    plain = Location("prompt_enrichment", "untuned", 4.0, condition="level-0")
    assert measure.cells(params, PLAIN_WORDS) == {
        "untuned-decoder@0/4": Redecoded(plain, "all"),
        "untuned-decoder@0/4/corrected": Redecoded(plain._replace(start=CORRECTED), "all"),
    }
    with pytest.raises(ValueError, match=r"vae_decoder\.models: no 'conditional'"):
        measure.cells(params, "conditional")


def test_plain_words_need_the_whole_loss_and_their_level(params: Params) -> None:
    config = Config.of(params)
    without = config.model_copy(update={"variants": ["mse"]})
    assert measure.cells(params.model_copy(update={"vae_decoder": without}), PLAIN_WORDS) == {}
    levels = params.section("prompt_enrichment").model_copy(update={"levels": [2]})
    assert measure.cells(params.model_copy(update={"prompt_enrichment": levels}), PLAIN_WORDS) == {}


@pytest.mark.parametrize("profile", ["embedded", "study"])
def test_the_profiles_measure_what_claims_compare(profile: str) -> None:
    params = parameters.load(PROFILES / f"{profile}.yaml")
    config = Config.of(params)
    models = [*config.models, PLAIN_WORDS]
    measured = {ORIGINAL, *config.variants} | {cell for model in models for cell in measure.cells(params, model)}
    elsewhere = {cell for cell in claims.cells_of(claims.load("vae_decoder")) - measured if "+" in cell}
    assert elsewhere == set()
    assert claims.cells_of(claims.load("vae_decoder")) - measured <= collect.cells(params)


def test_the_stages_measure_all_of_it(params: Params, workspace: Workspace) -> None:
    config = Config.of(params)
    for seed in params.protocol.training_seeds:
        for variant in config.variants:
            retuning.train(params, workspace, variant, seed)
        art_finetuning.train(params, workspace, "mixed", seed)
    for model, seed in product(("untuned", "mixed"), map(str, params.protocol.training_seeds)):
        art_sampling.main(params, workspace, model, seed)
        level_sampling.main(params, workspace, model, seed)
    reconstruct.main(params, workspace)
    reconstructions = reconstruct.load(workspace.measures)
    assert set(reconstructions["cell"]) == {ORIGINAL, *config.variants}
    assert (reconstructions.query("measure == 'lpips'")["whole"] > 0).all()
    assert set(reconstruct.load(workspace.measures, styles=True)["cell"]) <= {ORIGINAL, *config.variants}
    kept = {path.name for path in (workspace.samples / REPAINTED).iterdir()} - {SEAL}
    assert kept == {f"{name}-00000.safetensors" for name in (ORIGINAL, *config.variants)}
    models = [*config.models, PLAIN_WORDS]
    for model in models:
        measure.main(params, workspace, model)
    table = measure.load(params, workspace.measures)
    assert set(table["cell"]) == {cell for model in models for cell in measure.cells(params, model)}
    assert not {"untuned-decoder@0/4", "mixed+all@1/4"} - set(table["cell"])
    several = [
        table[(table["cell"] == cell) & (table["measure"] == "pr_rec")]["whole"].item()
        for cell in ("mixed+mse@1/4", "mixed+all@1/4", "mixed+all@1/4/corrected")
    ]
    assert len(set(several)) == 3
    assert list(workspace.scratch.glob("*")) == []  # nothing is kept for a stage that has ended


def test_the_page_compares_cells_through_the_original_decoder(params: Params, workspace: Workspace) -> None:
    folder = workspace.measures / "art_finetuning"
    folder.mkdir(parents=True)
    for model in ("untuned", *params.section("art_finetuning").variants):
        cells = [f"{model}@1/4", f"{model}@1/1", f"{model}@1/4/corrected"]
        cells += REFERENCE_ROWS if model == "untuned" else []
        rows = {"measure": "fd", "cell": cells, "n": 12, "whole": 1.0}
        write_rows(pd.DataFrame(rows), folder / f"{model}.csv")
    collect.main(params, workspace)
    compared = pd.read_csv(workspace.compared("vae_decoder"))
    wanted = {"untuned@1/4", "mixed@1/4", "untuned@1/4/corrected", "mixed@1/4/corrected", *REFERENCE_ROWS}
    assert wanted <= set(compared["cell"]) <= collect.cells(params)
