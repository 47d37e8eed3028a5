"""What the pipeline wrote and something else has changed is refused by name, whatever the change and the folder."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from atelier import params as parameters
from atelier import scratch
from atelier.data import prepare
from atelier.evaluation import judges, reference
from atelier.evaluation.tables import read_rows, write_rows
from atelier.files import SEAL, check_seal, write_seal
from atelier.methods import signal_leak
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.models.autoencoders import load_like
from atelier.models.stored import save_json, with_checksum
from atelier.params import Params
from atelier.sampling import store
from atelier.sampling.held_out import held_out_table
from atelier.studies.art_finetuning import sample as art_sample
from atelier.studies.art_finetuning import train as art_train
from atelier.studies.signal_leak import fit
from atelier.studies.vae_decoder import train as decoder_train
from atelier.training import caches
from atelier.workspace import Workspace, replacing

pytestmark = pytest.mark.usefixtures("one_thread")
CELL = store.Location("one", "v", 4.0)


def flipped(path: Path) -> Path:
    """One bit of a byte in the middle: in the values of most files."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def cut_off(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def swapped(path: Path) -> Path:
    """Exchange a file with another of its kind in the folder, or else write the folder's seal in its stead."""
    other = next((each for each in sorted(path.parent.glob(f"*{path.suffix}")) if each != path), None)
    other = other or next(each for each in sorted(path.parent.rglob("*")) if each.is_file() and each != path)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)
    return min(path, other)


def removed(path: Path) -> Path:
    path.unlink()
    return path


def added(path: Path) -> Path:
    copy = path.with_name(f"copy-of-{path.name}")
    shutil.copyfile(path, copy)
    return copy


DAMAGES = [flipped, cut_off, swapped, removed, added]
Damage = Callable[[Path], Path]


def refusal(call: Callable[[], object], path: Path) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the path follows
        call()
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert str(path) in line, line


# ------------------------------------------------------------------------------------------------ the seal itself


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    with replacing(out) as part:
        (part / "deep" / "deeper").mkdir(parents=True)
        for name in ("a.txt", "b.txt", "deep/c d.txt", "deep/deeper/é\\n.bin", "line\nbreak"):
            (part / name).write_bytes(name.encode() * 3)
    return out


def test_coreutils_verify_a_seal(folder: Path) -> None:
    run = subprocess.run(["sha256sum", "--check", "--strict", SEAL], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(": OK") == 5
    assert check_seal(folder) == folder
    flipped(folder / "deep" / "c d.txt")
    assert subprocess.run(["sha256sum", "--check", "--quiet", SEAL], cwd=folder, capture_output=True).returncode == 1


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["a.txt", "deep/c d.txt"])
def test_a_changed_folder_is_refused(folder: Path, damage: Damage, name: str) -> None:
    check_seal(folder)  # so that digests are remembered
    refusal(lambda: check_seal(folder), damage(folder / name))


def test_a_change_that_keeps_size_and_time_of_change_is_seen(folder: Path) -> None:
    check_seal(folder)
    path = folder / "a.txt"
    before = path.stat()
    flipped(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    refusal(lambda: check_seal(folder), path)


@pytest.mark.parametrize("damage", [flipped, cut_off, removed, lambda path: path.write_text("0 a\n") and path])
def test_a_damaged_seal_is_refused(folder: Path, damage: Damage) -> None:
    damage(folder / SEAL)
    refusal(lambda: check_seal(folder), folder)


def test_an_interrupted_folder_replaces_nothing(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(folder):
        raise KeyboardInterrupt
    check_seal(folder)


def test_seals_are_no_part_of_a_models_identity(workspace: Workspace, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(workspace.base, tmp_path / "base"))
    before = base.fingerprint(copy), scratch.digest(tmp_path, copy)
    (copy / SEAL).unlink()
    assert (base.fingerprint(copy), scratch.digest(tmp_path, copy)) == before


# ------------------------------------------------------------------------------------------------ shared outputs


@pytest.fixture
def mine(workspace: Workspace) -> Workspace:
    """A workspace whose shared outputs are copies."""
    for path in sorted(path for path in workspace.build.rglob("*") if path.is_symlink()):
        content = path.resolve()
        path.unlink()
        (shutil.copytree if content.is_dir() else shutil.copyfile)(content, path)
    return workspace


@pytest.fixture
def params(workspace: Workspace) -> Params:
    return parameters.load(workspace.params_file)


SHARED: dict[str, Callable[[Workspace], object]] = {
    "base/unet/diffusion_pytorch_model.safetensors": lambda w: base.load(w.base),
    "base/vae/config.json": lambda w: base.load(w.base),
    "base/tokenizer/tokenizer.json": lambda w: base.load(w.base),
    "manifests/works.parquet": lambda w: prepare.works(w.manifests),
    "manifests/photographs.parquet": lambda w: prepare.photographs(w.manifests),
    "manifests/truth.csv": lambda w: prepare.truth(w.manifests),
    "reference/reduced.safetensors": lambda w: reference.load(w.reference),
    "reference/returned-00000.safetensors": lambda w: reference.reconstructed_works(w.reference),
    "evaluator/absent.txt": lambda w: judges.evaluator(w.evaluator),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", SHARED)
def test_shared_outputs_are_read_whole_or_not_at_all(mine: Workspace, name: str, damage: Damage) -> None:
    if damage is swapped and len(list((mine.build / name).parent.rglob("*"))) < 3:
        pytest.skip("no other file")
    SHARED[name](mine)
    refusal(lambda: SHARED[name](mine), damage(mine.build / name))


def test_a_base_without_a_seal_is_no_input_of_a_stage(mine: Workspace, params: Params) -> None:
    (mine.base / SEAL).unlink()
    refusal(lambda: art_sample.main(params, mine, "untuned", "0"), mine.base / SEAL)
    refusal(lambda: art_train.main(params, mine, "mixed", "0"), mine.base / SEAL)


@pytest.mark.parametrize("damage", [flipped, cut_off, removed])
def test_a_cache_is_read_whole_or_not_at_all(mine: Workspace, params: Params, damage: Damage) -> None:
    key = caches.training_works(params, mine).key
    caches.read_cache(mine.cache / caches.WORKS, key)
    refusal(lambda: caches.read_cache(mine.cache / caches.WORKS, key), damage(mine.cache / caches.WORKS))


@pytest.mark.parametrize("name", ["bars.json", "known_artists.json"])
def test_files_of_several_stages_are_read_whole_or_not_at_all(mine: Workspace, name: str) -> None:
    path, bar = mine.build / name, {"name": "slope", "value": 0.25, "n": 5, "most": 0.5}
    save_json(with_checksum({"bars": [bar]} if "bars" in name else {"artists": ["Odile Marchand"]}), path)
    read = judges.read_bars if "bars" in name else judges.known_artists
    read(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        changed = json_or_none(path)
        # other white space, or another name of the checksum, changes nothing that is read
        if changed is None or ("sha256" in changed and changed != json.loads(whole)):
            refusal(lambda: read(path), path)
    path.write_bytes(whole[:-10])
    refusal(lambda: read(path), path)


def json_or_none(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------------ studies' outputs


@pytest.fixture
def made(mine: Workspace, params: Params) -> Workspace:
    """With an adapter, leaks, a decoder, and two conditions of pictures."""
    few = {"optimisation": params.section("art_finetuning").optimisation.model_copy(update={"steps": 1, "warmup": 0})}
    for study, train, variant in (("art_finetuning", art_train, "mixed"), ("vae_decoder", decoder_train, "mse")):
        section = params.section(study).model_copy(update=few)
        train.main(params.model_copy(update={study: section}), mine, variant, "0")
    with replacing(mine.leaks) as part:
        for n, name in enumerate(("pixel", "all-Mosaic"), start=10):
            leak = signal_leak.PixelLeak(np.zeros((4, 8, 8)), np.ones((4, 8, 8)), n)
            signal_leak.save(leak, part / f"{name}.safetensors", {})
    table = held_out_table(params, mine.manifests, 1, 3, 0).head(4)
    pictures = torch.arange(4 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(4, 3, 16, 16)
    store.write(pictures, torch.ones(4, 4, 2, 2), table, CELL.folder(mine.samples, 0))
    return mine


def every_cell(workspace: Workspace) -> None:
    folders = CELL.folders(workspace.samples, [0])
    store.read(folders)
    store.read_latents(folders)


MADE: dict[str, Callable[[Workspace], object]] = {
    "adapters/art_finetuning/mixed/0/pytorch_lora_weights.safetensors": lambda w: tuned(
        base.load(w.base), w.adapter("art_finetuning", "mixed", 0)
    ),
    "adapters/art_finetuning/mixed/0/card.json": lambda w: tuned(
        base.load(w.base), w.adapter("art_finetuning", "mixed", 0)
    ),
    "decoders/mse/0/vae/diffusion_pytorch_model.safetensors": lambda w: load_like(
        base.load(w.base).vae, w.decoder("mse", 0) / "vae"
    ),
    "leaks/pixel.safetensors": lambda w: fit.load_all(w.leaks),
    "samples/one/v/0/guidance-4/pictures.csv": every_cell,
    "samples/one/v/0/guidance-4/latents.safetensors": every_cell,
    "samples/one/v/0/guidance-4/PICTURE": every_cell,
}


def test_studies_outputs_are_read_whole_or_not_at_all(made: Workspace) -> None:
    for name, read in MADE.items():
        path = made.build / name
        if path.name == "PICTURE":
            path = sorted(path.parent.glob("*.png"))[1]
        read(made)
        for damage in DAMAGES:
            kept = Path(shutil.copytree(path.parent, made.root / "kept"))
            refusal(lambda read=read: read(made), damage(path))  # type: ignore[misc]
            shutil.rmtree(path.parent)
            kept.rename(path.parent)
            read(made)


# ------------------------------------------------------------------------------------------------ tables, scratch

ROWS = pd.DataFrame({"measure": ["fd", "pr"], "n": [6, 6], "whole": [1 / 3, 2e-9], "cell": ["a, b", 'c "d"']})


@pytest.mark.parametrize("rows", [ROWS, ROWS.iloc[:0]], ids=["rows", "none"])
def test_every_bit_of_a_table_is_under_its_checksum(tmp_path: Path, rows: pd.DataFrame) -> None:
    path = tmp_path / "measures" / "rows.csv"
    write_rows(rows, path)
    plain = rows.to_csv(index=False, float_format="%.12g")
    assert read_rows(path).to_csv(index=False, float_format="%.12g") == plain
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refusal(lambda: read_rows(path), path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refusal(lambda: read_rows(path), path)
    path.write_text(plain)
    refusal(lambda: read_rows(path), path)
    refusal(lambda: read_rows(removed(path)), path)


def test_a_reader_that_knows_no_checksum_has_the_same_rows(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path / "rows.csv")
    table = pd.read_csv(tmp_path / "rows.csv")
    assert table[list(ROWS)].equals(read_rows(tmp_path / "rows.csv"))
    assert len(table.columns) == len(ROWS.columns) + 1


@pytest.mark.parametrize("damage", [flipped, cut_off])
def test_damaged_scratch_is_made_again_and_a_line_says_so(
    tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def make() -> pd.DataFrame:
        calls.append(1)
        return ROWS

    for _ in range(2):
        assert scratch.table(tmp_path, "one", make).equals(ROWS)
    assert len(calls) == 1
    assert capsys.readouterr().err == ""
    path = damage(scratch.path(tmp_path, "one", ".parquet"))
    assert scratch.table(tmp_path, "one", make).equals(ROWS)
    assert len(calls) == 2
    assert capsys.readouterr().err == f"{path}: damaged: its content is not what was written; it is made again\n"


def test_scratch_whose_checksum_is_lost_is_made_again(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        save_file({"x": torch.ones(1)}, path)

    path = scratch.part(tmp_path, "one", ".safetensors", write)
    next(tmp_path.glob("*.sha256")).unlink()
    assert not scratch.is_whole(path)
    assert scratch.is_whole(scratch.part(tmp_path, "one", ".safetensors", write))


def test_an_unfinished_seal_is_written_last(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    write_seal(tmp_path)
    before = (tmp_path / SEAL).read_bytes()
    write_seal(tmp_path)  # again over what is there
    assert (tmp_path / SEAL).read_bytes() == before
