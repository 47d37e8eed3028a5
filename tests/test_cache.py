"""The cache of latents and embeddings: what is in it, and how a stale or damaged one is refused."""

import dataclasses
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from atelier import params
from atelier.cli import main
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.manifest import write_manifest
from atelier.data.shards import Rows
from atelier.files import write_seal
from atelier.models import base
from atelier.models.latents import Moments
from atelier.params import Params
from atelier.studies.art_finetuning import train as art_finetuning
from atelier.training import caches
from atelier.training.caches import Cache, TrainingWorks, cache_key, read_cache, training_works, write_cache
from atelier.workspace import Workspace
from linked import SHARED, linked
from tolerance import assert_close

KEY = {"model": "m", "pictures": "p", "prompts": "q", "preprocessing": "r"}


@pytest.fixture
def config(workspace: Workspace) -> Params:
    return params.load(workspace.params_file)


PROMPTS = [["a", "b"], ["a", "c"], ["d", "b"]]  # of three pictures


def embedding(text: str) -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(sum(text.encode())))


def moments_of(pictures: torch.Tensor) -> Moments:
    """Latents that a picture's first pixel determines."""
    value = pictures[:, :1, :2, :2].float()
    return Moments(value.expand(-1, 4, -1, -1) / 7, value.expand(-1, 4, -1, -1) / 100)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of three pictures with two prompts each, two rows a shard."""
    monkeypatch.setattr(caches, "EACH", 2)
    monkeypatch.setattr(caches, "encode_pictures", lambda vae, pictures: moments_of(pictures))
    monkeypatch.setattr(caches, "encode_prompts", lambda pipeline, texts: torch.stack([embedding(x) for x in texts]))
    write_small(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def write_small(path: Path) -> None:
    pictures = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 8, 8)
    write_cache(path, SimpleNamespace(vae=None), pictures, PROMPTS, KEY)  # type: ignore[arg-type]
    write_seal(path.parent)


def test_a_prompt_that_several_pictures_share_is_encoded_once(small: Path) -> None:
    cache = read_cache(small, KEY)
    assert len(cache.words) == 4
    for picture, row in enumerate(PROMPTS):
        for number, text in enumerate(row):
            found = cache.condition([picture, 0], [number, 0], [False, True])
            assert torch.equal(found, torch.stack([embedding(text), embedding("")]))
    assert [each.name for each in sorted(small.parent.glob("c-*"))] == [
        "c-latents-00000.safetensors", "c-latents-00001.safetensors",
        "c-words-00000.safetensors", "c-words-00001.safetensors",
    ]  # fmt: skip


def test_what_is_large_is_read_row_by_row_and_is_the_same(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = read_cache(small, KEY)
    assert isinstance(kept.words, torch.Tensor)
    monkeypatch.setattr(caches, "LITTLE", 0)
    stored = read_cache(small, KEY)
    assert isinstance(stored.words, Rows)
    assert isinstance(stored.latents.mean, Rows)
    assert stored.latents.mean.shape == kept.latents.mean.shape
    noise = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(stored.latents.drawn([2, 0, 1, 2], noise), kept.latents.drawn([2, 0, 1, 2], noise))
    chosen = [2, 1, 0], [1, 0, 1], [False, False, True]
    assert torch.equal(stored.condition(*chosen), kept.condition(*chosen))
    some = stored.of([2, 0])
    assert torch.equal(some.latents.mean[[0, 1]], kept.latents.mean[[2, 0]])
    assert torch.equal(some.condition([0], [0], [False]), kept.condition([2], [0], [False]))
    assert stored.first_prompts().examples(["a", "b", "c"]).prompts == 1


def test_the_same_is_written_as_the_same_bytes(small: Path) -> None:
    before = {path.name: path.read_bytes() for path in small.parent.iterdir()}
    write_small(small)
    assert {path.name: path.read_bytes() for path in small.parent.iterdir()} == before


@pytest.mark.parametrize("part", KEY)
def test_a_stale_cache_names_what_differs(small: Path, part: str) -> None:
    with pytest.raises(ValueError, match=rf"c\.safetensors: stale cache, made from other {part}$"):
        read_cache(small, {**KEY, part: "other"})


def test_several_differences_are_all_named(small: Path) -> None:
    with pytest.raises(ValueError, match=r"made from other model and prompts$"):
        read_cache(small, {**KEY, "model": "other", "prompts": "other"})


def test_a_key_tells_every_part_apart() -> None:
    one = cache_key("m", ["a", "b"], [["x"], ["y", "z"]], 64)
    assert one == cache_key("m", ["a", "b"], [["x"], ["y", "z"]], 64)
    for part, other in {
        "model": cache_key("n", ["a", "b"], [["x"], ["y", "z"]], 64),
        "pictures": cache_key("m", ["b", "a"], [["x"], ["y", "z"]], 64),
        "prompts": cache_key("m", ["a", "b"], [["x", "y"], ["z"]], 64),
        "preprocessing": cache_key("m", ["a", "b"], [["x"], ["y", "z"]], 128),
    }.items():
        assert [name for name in one if one[name] != other[name]] == [part]


@pytest.mark.parametrize("name", ["c.safetensors", "c-latents-00001.safetensors", "c-words-00000.safetensors"])
def test_any_damaged_byte_is_refused(small: Path, name: str) -> None:
    """In the header, in the numbers, at both ends; the reader never fails with anything but a ValueError."""
    file = small.with_name(name)
    whole = file.read_bytes()
    places = {0, 7, 8, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 100)}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_cache(small, KEY)


@pytest.mark.parametrize("length", [0, 4, 8, 100, -100, -1])
def test_a_cut_file_is_refused(small: Path, length: int) -> None:
    small.write_bytes(small.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"c\.safetensors: not a readable cache"):
        read_cache(small, KEY)


def test_a_pickle_named_safetensors_is_refused_in_one_line(small: Path) -> None:
    torch.save({"which": torch.zeros(1)}, small)
    with pytest.raises(ValueError, match="not a readable cache") as caught:
        read_cache(small, KEY)
    assert len(str(caught.value).splitlines()) == 1


def test_an_absent_cache_is_refused_by_name(small: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.safetensors: not a readable cache"):
        read_cache(small.with_name("absent.safetensors"), KEY)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("words-00000", r"c-words-00000\.safetensors"),
        ("words-00001", r"c\.safetensors: is of 4 prompts, the files beside it hold 2"),
        ("latents-00001", r"c\.safetensors: is of 3 pictures, the files beside it hold 2"),
    ],
)
def test_a_missing_shard_is_refused(small: Path, missing: str, said: str) -> None:
    small.with_name(f"c-{missing}.safetensors").unlink()
    with pytest.raises(ValueError, match=said):
        read_cache(small, KEY)


def test_a_place_that_cannot_be_written_is_an_oserror(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d.safetensors"
    folder.mkdir()
    with pytest.raises(OSError, match="not written"):
        write_small(folder)


# ------------------------------------------------------------------------------------------------ of the tiny world


def test_a_training_refuses_a_cache_of_other_pictures_prompts_size_or_model(
    config: Params, workspace: Workspace, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(changed: Params, part: str, workspace: Workspace = workspace) -> None:
        with pytest.raises(ValueError, match=rf"stale cache, made from other {part}$"):
            art_finetuning.train(changed, workspace, "mixed", 0)

    def prompts(**values: int) -> Params:
        changed = config.protocol.prompts.model_copy(update=values)
        return config.model_copy(update={"protocol": config.protocol.model_copy(update={"prompts": changed})})

    refused(prompts(level=0), "prompts")
    refused(prompts(per_work=1), "prompts")
    refused(config.model_copy(update={"data": config.data.model_copy(update={"size": 128})}), "preprocessing")
    works = prepare.works(workspace.manifests)
    table = works.table.assign(sha256=works.table["sha256"].iloc[::-1].to_numpy())
    other = linked(tmp_path / "other", tiny_world, [name for name in SHARED if name != "build/manifests"])
    other.manifests.mkdir()
    write_manifest(dataclasses.replace(works, table=table), other.manifests / "works.parquet")
    write_seal(other.manifests)
    refused(config, "pictures", other)
    monkeypatch.setattr(base, "fingerprint", lambda folder: "another")
    refused(config, "model")


def test_the_command_refuses_a_damaged_cache_in_one_line(
    workspace: Workspace, tiny_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.cache.unlink()
    shutil.copytree(Workspace(tiny_world).cache, workspace.cache)
    file = workspace.cache / "works-words-00000.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    monkeypatch.chdir(workspace.root)  # where a command runs
    monkeypatch.setattr("atelier.machine.settle", lambda threads: None)
    assert main(["art_finetuning", "train", "mixed", "0"]) == 1
    assert capsys.readouterr().err == (
        "build/cache/works-words-00000.safetensors: damaged: "
        "its content is not what was written; make the folder again\n"
    )
    assert main(["art_finetuning", "train", "absent", "0"]) == 1
    assert "no variant 'absent', there are conditional, mixed, full" in capsys.readouterr().err


def test_the_command_refuses_a_training_seed_that_no_parameter_names(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace.root)
    monkeypatch.setattr("atelier.machine.settle", lambda threads: None)
    assert main(["art_finetuning", "train", "mixed", "7"]) == 1
    assert capsys.readouterr().err == "protocol.training_seeds: 7 is not one of [0, 1]\n"
    for wrong in ("one", "-1", "1.0", ""):
        assert main(["art_finetuning", "train", "mixed", wrong]) == 1
        refusal = capsys.readouterr().err
        assert len(refusal.splitlines()) == 1
        assert "seed" in refusal.lower()


def of_tiny_world(config: Params, workspace: Workspace) -> tuple[Cache, TrainingWorks]:
    works = training_works(config, workspace)
    return read_cache(workspace.cache / caches.WORKS, works.key), works


def words(cache: Cache, picture: int, number: int) -> torch.Tensor:
    return cache.condition([picture], [number], [False])[0]


def test_moments_are_the_autoencoders_posterior(config: Params, workspace: Workspace) -> None:
    cache, (table, *_) = of_tiny_world(config, workspace)
    assert set(table["split"]) == {"train"}
    assert len(table) == 18
    vae = base.load(workspace.base).vae
    for row in (0, 7, 17):
        picture = to_model_range(prepare.pictures(table.iloc[[row]], config.data, workspace).load())
        with torch.no_grad():
            hidden = vae.quant_conv(vae.encoder(picture))
        mean, log_variance = hidden.chunk(2, dim=1)
        factor = vae.config.scaling_factor
        assert_close(cache.latents.mean[[row]], mean * factor, absolute=1e-5)  # sums over every channel
        assert_close(cache.latents.std[[row]], (log_variance / 2).exp() * factor, absolute=1e-5)


def test_embeddings_are_what_the_pipelines_sampling_gives_its_denoiser(config: Params, workspace: Workspace) -> None:
    cache, works = of_tiny_world(config, workspace)
    pipeline = base.load(workspace.base)
    given: list[torch.Tensor] = []
    pipeline.unet.register_forward_pre_hook(
        lambda module, args, named: given.append(named["encoder_hidden_states"]), with_kwargs=True
    )
    pipeline(works.prompts[3][1], guidance_scale=4.0, num_inference_steps=1, height=64, width=64, output_type="latent")
    empty, embedding = given[0]
    assert_close(words(cache, 3, 1), embedding, absolute=1e-5)
    assert_close(cache.empty, empty, absolute=1e-5)
    assert not torch.equal(words(cache, 3, 0), words(cache, 3, 1))


def test_the_bases_training_sees_the_embeddings_that_sampling_will(config: Params, workspace: Workspace) -> None:
    cache, works = of_tiny_world(config, workspace)
    pipeline = base.load(workspace.base)
    with torch.no_grad():
        embeddings = pipeline.text_encoder(base.prompt_ids(pipeline.tokenizer, [works.prompts[5][0], ""]))[0]
    assert_close(embeddings[0], words(cache, 5, 0), absolute=1e-5)
    assert_close(embeddings[1], cache.empty, absolute=1e-5)
