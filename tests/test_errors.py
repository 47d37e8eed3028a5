"""Every fault of a file is one line that names it; a write that fails leaves the old file, and nothing half written."""

import ast
import errno
import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from atelier import cli, closure, files, params, scratch
from atelier.data import prepare
from atelier.data.annotations import read_annotations
from atelier.data.archives import pack, unpack
from atelier.data.images import save_picture
from atelier.data.manifest import read_manifest
from atelier.evaluation import groups, judges, reference, tables
from atelier.files import FileFault
from atelier.methods import signal_leak
from atelier.models import adapters, base, evaluator, imagenet, stored, trunk
from atelier.pipeline import scrub
from atelier.report import pictures
from atelier.sampling import store
from atelier.studies.latent_perceptual import measure as post_training
from atelier.studies.signal_leak import fit
from atelier.training import base as base_stage
from atelier.training import caches, checkpoints
from atelier.workspace import Workspace, replacing

Reader = Callable[[Path], object]

# what reads a file of the pipeline or of its user; each is called with that file's path
TEXTS: dict[str, Reader] = {
    "parameters": params.load,
    "JSON": files.read_json,
    "a card": stored.load_json,
    "bars": judges.read_bars,
    "artists": judges.known_artists,
    "truth": prepare.read_truth,
    "annotations": lambda path: read_annotations(path, Counter()),
    "measures": tables.read_rows,
    "a notebook": scrub.read,
}
BINARIES: dict[str, Reader] = {
    "a manifest": read_manifest,
    "tensors": lambda path: stored.load_tensors(path, {"a": (1,)}),
    "weights": lambda path: imagenet.read_state(path.with_suffix(".safetensors")),
    "a cache": lambda path: caches.read_cache(path, {}),
    "groups": groups.load_groups,
    "a leak": signal_leak.load,
    "an archive": lambda path: unpack(path, path.parent / "unpacked"),
    "a table of a run": scratch.read,
    "a figure": pictures.preview,
}


def nested(path: Path) -> None:
    path.write_text("[" * 30_000)


def nested_mappings(path: Path) -> None:
    path.write_text('{"a":' * 30_000)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def circle(path: Path) -> None:
    path.symlink_to(path)


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


FAULTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "empty": lambda path: path.write_bytes(b""),
    "random": lambda path: path.write_bytes(np.random.default_rng(1).bytes(3000)),
    "zeros": lambda path: path.write_bytes(bytes(3000)),
    "latin": lambda path: path.write_bytes(b"caf\xe9,\n1,\n"),
    "a huge header": lambda path: path.write_bytes(struct.pack("<Q", 2**63 - 1) + b"{}"),
    "nested": nested,
    "nested mappings": nested_mappings,
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a pipe": pipe,
    "a circle": circle,
    "below a file": below_a_file,
}


def refused(call: Callable[[], object], path: Path) -> str:
    """The one line of a refusal, which names the file."""
    with pytest.raises((ValueError, OSError)) as caught:
        call()
    line = str(caught.value)
    assert path.name in line
    assert line.isprintable(), line
    assert "[Errno" not in line
    assert len(line) < 500 + len(str(path))
    return line


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("reader", [*TEXTS, *BINARIES])
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(reader: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "the-file.safetensors"
    path.parent.mkdir()
    FAULTS[fault](path)
    refused(lambda: {**TEXTS, **BINARIES}[reader](path), path)


@pytest.mark.parametrize("reader", [*TEXTS, *BINARIES])
def test_a_name_that_is_too_long_is_one_line(reader: str, tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 300}.safetensors"
    assert "too long" in refused(lambda: {**TEXTS, **BINARIES}[reader](path), path) or reader == "parameters"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "Permission"),
        (errno.EMFILE, "Too many open"),
        (errno.EIO, "Input/output"),
        (errno.ESTALE, "Stale"),
    ],
)
@pytest.mark.parametrize("reader", [name for name in TEXTS if name != "a notebook"])
def test_what_the_system_refuses_is_said_in_words(
    reader: str, number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on machines where the tests run as root, who may read everything."""
    path = tmp_path / "the-file"
    path.write_text("{}\n")

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", failing)
    monkeypatch.setattr(Path, "read_text", failing)
    assert said in refused(lambda: TEXTS[reader](path), path)


# ------------------------------------------------------------------------------------------------ cut off


def written_table(path: Path) -> None:
    tables.write_rows(
        pd.DataFrame({"measure": ["fd", "kid"], "cell": ["a", "b"], "n": [4, 4], "group0": [0.5, 0.25]}), path
    )


def written_leak(path: Path) -> None:
    signal_leak.save(signal_leak.PixelLeak(np.zeros((4, 2, 2)), np.ones((4, 2, 2)), 3), path, {})


def written_archive(path: Path) -> None:
    folder = path.parent / "painted"
    save_picture(np.zeros((8, 8, 3), np.uint8), folder / "Style" / "a.png")
    pack(folder, path)


WRITTEN: dict[str, tuple[Callable[[Path], object], Reader]] = {
    "JSON": (lambda path: files.write_json(path, {"a": [1, 2]}), files.read_json),
    "measures": (written_table, tables.read_rows),
    "tensors": (
        lambda path: stored.save_tensors({"a": torch.zeros(9)}, path, torch.float32),
        lambda path: stored.load_tensors(path, {"a": (9,)}),
    ),
    "a leak": (written_leak, signal_leak.load),
    "an archive": (written_archive, lambda path: unpack(path, path.parent / "unpacked")),
    "a table of a run": (lambda path: pd.DataFrame({"a": [1, 2]}).to_parquet(path), scratch.read),
}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_file_that_was_cut_off_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    write, read = WRITTEN[kind]
    path = tmp_path / "the-file"
    write(path)
    read(path)
    os.truncate(path, int(share * path.stat().st_size))
    refused(lambda: read(path), path)


# ------------------------------------------------------------------------------------------------ folders


FOLDERS: dict[str, Reader] = {
    "a base": base.load,
    "a scheduler": base.scheduler_of,
    "a base's hash": base.fingerprint,
    "an evaluator": evaluator.load,
    "a trunk": trunk.load,
    "a reference": reference.load,
    "reconstructed works": reference.reconstructed_works,
    "leaks": lambda folder: fit.load_all(folder, [1, 3]),
    "a tuned model": lambda folder: adapters.tuned(None, folder),  # type: ignore[arg-type]
    "samples": lambda folder: store.read([folder]),
    "latents": lambda folder: store.read_latents([folder]),
    "a model's measures": post_training.load,
}


@pytest.mark.parametrize("reader", FOLDERS)
@pytest.mark.parametrize("fault", ["missing", "folder"])
def test_a_folder_without_its_files_is_named_and_never_sought_on_the_internet(
    reader: str, fault: str, tmp_path: Path
) -> None:
    folder = tmp_path / "the-folder"
    FAULTS[fault](folder)
    line = refused(lambda: FOLDERS[reader](folder), folder)
    assert "http" not in line
    assert "hub" not in line


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_class_name": 3}', '{"_class_name": "Nothing"}', "[" * 30_000])
@pytest.mark.parametrize("reader", [base.load, base.scheduler_of])
def test_a_damaged_configuration_is_one_line(reader: Reader, text: str, tmp_path: Path) -> None:
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    refused(lambda: reader(tmp_path), tmp_path)


def test_what_the_data_folder_lacks_is_said_in_its_users_words(tmp_path: Path) -> None:
    data = params.Data(folder="data", annotations=False, size=64, split="75/25", bad_share=0.0)
    workspace = Workspace(tmp_path)
    for call in (lambda: prepare.unpack_archives(data, workspace), lambda: prepare.prepare(data, 1, workspace)):
        assert refused(call, tmp_path / "data").endswith(f"{tmp_path / 'data'}: no such folder")
    (tmp_path / "data").mkdir()
    for call in (lambda: prepare.unpack_archives(data, workspace), lambda: prepare.prepare(data, 1, workspace)):
        line = refused(call, tmp_path / "data")
        assert "no picture in a folder per style" in line
        assert "build" not in line
    assert not workspace.pictures.exists()


# ------------------------------------------------------------------------------------------------ writing


def _history(path: Path) -> None:
    files.write_table(path, pd.DataFrame({"step": range(3000)}))


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: files.write_text(path, "x" * 9000),
    "bytes": lambda path: files.write_whole(path, bytes(9000)),
    "JSON": lambda path: stored.save_json({"a": "x" * 9000}, path),
    "table": _history,
    "measures": lambda path: tables.write_rows(pd.DataFrame({"measure": range(3000)}), path),
    "tensors": lambda path: stored.save_tensors({"a": torch.zeros(9000)}, path, torch.float32),
    "leak": lambda path: signal_leak.save(
        signal_leak.PixelLeak(np.zeros((4, 30, 30)), np.ones((4, 30, 30)), 3), path, {}
    ),
    "picture": lambda path: save_picture(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8), path),
    "figure": lambda path: pictures.save(
        pictures.Image.fromarray(np.random.default_rng(1).integers(0, 255, (99, 99, 3), np.uint8)), path.with_suffix("")
    ),
    "part of a run": lambda path: scratch.part(
        path.parent, "the-file", ".png", lambda part: save_file({"a": torch.zeros(9000)}, part)
    ),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may become larger than 4 kB: the write fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_half_written(
    writer: str, tmp_path: Path, small_files: None
) -> None:
    path = tmp_path / ("the-file.webp" if writer == "figure" else "the-file.png")
    if writer != "part of a run":  # which is not written again
        path.write_text("old")
    line = refused(lambda: WRITERS[writer](path), path)
    assert line == f"{path}: not written: File too large"
    assert [each.name for each in tmp_path.iterdir()] == ([] if writer == "part of a run" else [path.name])
    if path.exists():
        assert path.read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "replace"])
def test_whatever_the_system_refuses_a_writer_is_one_line(
    number: int, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "the-file.json"
    path.write_text("old")

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, failing)
        line = refused(lambda: files.write_text(path, "new"), path)
    assert line == f"{path}: not written: {os.strerror(number)}"
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {path.name: "old"}


def test_a_folder_that_cannot_be_filled_stays_as_it_was_and_is_called_by_its_name(
    tmp_path: Path, small_files: None
) -> None:
    folder = tmp_path / "samples"
    files.write_text(folder / "old.txt", "old")

    def fill() -> None:
        with replacing(folder) as part:
            files.write_text(part / "small.txt", "new")
            files.write_whole(part / "large.bin", bytes(9000))

    assert refused(fill, folder) == f"{folder / 'large.bin'}: not written: File too large"
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "samples",
        "samples/old.txt",
    ]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    for text in ("old", "new"):
        with replacing(folder) as part:
            files.write_text(part / text, text)
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]
    assert sorted(path.name for path in folder.iterdir()) == [files.SEAL, "new"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_alone(tmp_path: Path, small_files: None) -> None:
    checkpoints.save(tmp_path, 1, {"w": torch.zeros(3)}, {})
    line = refused(lambda: checkpoints.save(tmp_path, 2, {"w": torch.zeros(9000)}, {}), tmp_path / "state.safetensors")
    assert "File too large" in line
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.load(tmp_path) is not None


def test_a_foreign_history_that_cannot_be_read_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "source.csv", tmp_path / "history.csv"
    for text in (b"", b"\xff\xfe", b"a,b\n1,2\n"):
        source.write_bytes(text)
        base_stage.keep_history(source, target)
        assert str(source) in capsys.readouterr().err
        assert list(files.read_table(target)) == list(base_stage.HISTORY_COLUMNS)


# ------------------------------------------------------------------------------------------------ the command line


def ended(fault: BaseException, *arguments: str) -> int:
    def run(_: list[str]) -> None:
        raise fault

    return cli.exit_code(run, list(arguments))


class OutOfMemoryError(RuntimeError):
    """As torch's, which only a graphics card raises."""


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"
        ),
        RuntimeError("Storage size calculation overflowed with sizes=[10000000000000, 4, 8, 8]"),
    ],
)
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("art_finetuning", "train", "a", "0"), "art_finetuning.optimisation.batch"),
        (("base_model", "sample"), "sampling.batch"),
        (("base",), "base.train.denoiser.batch"),
        (("cache",), "data.size"),
    ],
)
def test_too_little_memory_is_one_line_with_what_to_lower(
    fault: Exception, arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(fault, *arguments) == 1
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert line.startswith(f"python -m atelier {arguments[0]}")
    assert named in line


def test_a_real_lack_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert cli.out_of_memory(caught.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**58)
    assert cli.out_of_memory(of_numpy.value)


def test_expected_faults_are_one_line_and_bugs_are_raised(capsys: pytest.CaptureFixture[str]) -> None:
    for fault, said in (
        (ValueError("a.csv: no"), "a.csv: no"),
        (FileFault("a\x1b[31m.csv: no"), r"a\x1b[31m.csv: no"),
        (OSError(errno.ENOSPC, "No space", "a.csv"), "a.csv: No space left on device"),
        (OSError(errno.ENOSPC, "No space"), "standard output: No space left on device"),
        (OSError(errno.ENOEXEC, "No"), "python -m atelier cache: Exec format error"),
        (RecursionError("maximum depth"), "python -m atelier cache: something that it reads is nested too deeply"),
    ):
        assert ended(fault, "cache") == 1
        assert capsys.readouterr().err == f"{said}\n"
    assert ended(KeyboardInterrupt()) == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    for bug in (KeyError("low-3"), RuntimeError("shapes"), AssertionError(), TypeError()):
        with pytest.raises(type(bug)):
            ended(bug)


@pytest.mark.parametrize(
    ("target", "code", "said"), [("/dev/full", 1, "standard output: No space left"), ("", 141, "")]
)
def test_output_that_nobody_can_take_ends_the_run_quietly(target: str, code: int, said: str, tmp_path: Path) -> None:

    (tmp_path / "params.yaml").write_bytes((closure.ROOT.parents[1] / "params.yaml").read_bytes())
    (tmp_path / "data").symlink_to(closure.ROOT.parents[1] / "data")
    reads, writes = os.pipe()
    os.close(reads)
    with open(target or writes, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "atelier", "check"], cwd=tmp_path, stdout=output, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == bool(said)


# ------------------------------------------------------------------------------------------------ the sources

CALLS = {"read_text", "read_bytes", "read_csv", "read_parquet", "load_file", "safe_open", "from_pretrained", "ZipFile"}
CALLS |= {
    "to_csv",
    "to_parquet",
    "write_text",
    "write_bytes",
    "save_file",
    "save_pretrained",
    "mkdir",
    "unlink",
}
CALLS |= {"rmtree", "copytree", "copyfile", "move", "rmdir", "open", "scandir", "load_lora_weights"}
GUARDS = {"reading", "writing", "filling"}
ALLOWED = {  # (file, call): why it stands alone
    ("files.py", "*"): "the guards themselves",
    ("workspace.py", "*"): "replaces folders, and names them itself",
    ("lifetime.py", "read_text"): "/proc, whose absence is handled there",
    ("machine.py", "read_text"): "/proc, whose absence is handled there",
    ("closure.py", "*"): "the package's own sources",
    ("warm.py", "*"): "a temporary folder of its own, and processes",
    ("cli.py", "open"): "the null device, and a stage's time, which may be lost",
    ("cli.py", "mkdir"): "for a stage's time, which may be lost",
    ("scratch.py", "rmtree"): "ignores what it cannot delete",
    ("data/images.py", "*"): "pictures, whose faults are counted: BadPicture",
    ("data/prompts.py", "read_text"): "the package's own table",
    ("data/painter/utterances.py", "read_text"): "the package's own table",
    ("report/items.py", "to_csv"): "makes a text",
    ("report/pictures.py", "open"): "of bytes in memory",
    ("pipeline/page.py", "*"): "the package's own style, and figures that were written just before",
    ("pipeline/map.py", "*"): "a tool of developers",
    ("pipeline/render.py", "open"): "of bytes in memory",
    ("pipeline/jupyter_config.py", "*"): "no file of its own",
    ("data/archives.py", "ZipFile"): "under ``reading`` in ``unpack``",
    ("data/extraction.py", "open"): "of a member, under ``reading`` in ``unpack``",
    ("scratch.py", "to_parquet"): "handed to ``part``, which guards it",
    ("studies/pixel_space/choose.py", "save_file"): "handed to ``part``, which guards it",
    ("studies/pixel_space/restore.py", "save_file"): "handed to ``part``, which guards it",
    ("studies/shaping/candidates.py", "save_file"): "handed to ``part``, which guards it",
    ("studies/shaping/invert.py", "save_file"): "handed to ``part``, which guards it",
    ("sampling/conditions.py", "save_file"): "handed to ``part``, which guards it",
    ("sampling/graft.py", "save_file"): "handed to ``part``, which guards it",
    ("sampling/graft.py", "write_text"): "handed to ``part``, which guards it",
    ("training/caches.py", "save_file"): "handed to ``part``, which guards it",
    ("training/checkpoints.py", "open"): "to sync it, under ``filling``",
}


def called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def of_files(node: ast.AST) -> bool:
    """Whether a call reads or writes a file; a text's ``replace`` and a table's ``rename`` are called otherwise."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):  # a function of ``atelier.files``, unless it is one of these
        return called(node) in {"open", "load_file", "save_file", "safe_open", "ZipFile"}
    return called(node) in CALLS or (
        called(node) in {"replace", "rename"} and len(node.args) == 1 and not node.keywords
    )


def unguarded(tree: ast.AST, guarded: bool = False) -> Iterator[tuple[int, str]]:
    """Lines and names of calls that stand under none of the guards. ``guarded``: whether the tree stands under one."""
    if isinstance(tree, ast.With):
        calls = [item.context_expr for item in tree.items if isinstance(item.context_expr, ast.Call)]
        guarded = guarded or any(called(call) in GUARDS for call in calls)
    if of_files(tree) and not guarded:
        assert isinstance(tree, ast.Call)
        yield tree.lineno, called(tree)
    for child in ast.iter_child_nodes(tree):
        yield from unguarded(child, guarded)


def test_every_file_is_read_and_written_under_a_guard() -> None:
    odd = []
    for path in sorted(closure.ROOT.rglob("*.py")):
        name = path.relative_to(closure.ROOT).as_posix()
        for line, call in unguarded(ast.parse(path.read_text())):
            if (name, "*") not in ALLOWED and (name, call) not in ALLOWED:
                odd.append(f"{name}:{line}: {call}")
    assert not odd, "use atelier.files: " + ", ".join(odd)


def test_the_walk_finds_a_call_that_is_not_guarded() -> None:
    text = "with reading(p):\n    p.read_text()\nq.read_text()\nwith open(r) as f:\n    s.replace(t)\na.replace(b, c)\n"
    assert list(unguarded(ast.parse(text))) == [(3, "read_text"), (4, "open"), (5, "replace")]


def test_nothing_is_allowed_that_is_no_longer_there() -> None:
    for name, call in ALLOWED:
        assert call == "*" or call in {found for _, found in unguarded(ast.parse((closure.ROOT / name).read_text()))}, (
            name
        )


def test_what_a_message_repeats_is_cut_and_printable() -> None:
    assert files.shown("a\x1b\n\x00") == "'a\\x1b\\n\\x00'"
    assert len(files.shown("x" * 10_000)) == files.ECHO
    assert files.printable("a\u202e\udc80b").isprintable()
    assert json.loads(json.dumps(files.shown({"a": 1}))) == "{'a': 1}"
