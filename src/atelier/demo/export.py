"""``python -m atelier demo OUT``: a folder with a page that paints with the base in the reader's browser.

It holds the base's networks as ONNX files, its tokenizer's tables, the sampler's steps, leaks of photographs, and the
runtime that executes them; ``manifest.json`` lists all, with sizes and checksums. Any web server serves it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, StableDiffusionPipeline

from atelier import machine, params
from atelier.demo import leaks as leak_tables
from atelier.demo import networks
from atelier.demo.tokens import tables
from atelier.files import FileFault, check_seal, copy, read_bytes, write_json
from atelier.methods.signal_leak import FrequencyLeak, Leak, load
from atelier.models import base
from atelier.sampling.sampler import with_ddim
from atelier.workspace import Workspace, replacing

USAGE = "usage: python -m atelier demo OUT"
EXTRA = ("onnx", "onnxscript")
PAGE = Path(__file__).parent / "page"
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm.gz", "LICENSE", "ThirdPartyNotices.txt")
LEAKS = {0: "pixel", 1: "low-1", 3: "low-3"}  # by N: files of the stage signal_leak-fit
RUNTIME_FOLDER = "runtime"
MANIFEST = "manifest.json"
GUIDANCE = 4.0  # that the page starts with
EXAMPLES = (
    *("the blue boat at sunset", "red flowers in a vase", "a bird on a branch"),
    *("a bridge with one arch", "a face in the evening"),
)


def main(workspace: Workspace, arguments: Sequence[str]) -> None:
    """Write the page of the base that the pipeline uses. Raises ValueError, one line, for what is missing."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ValueError(USAGE)
    out = Path(arguments[0])
    check_installed()
    check_runtime(workspace.named(RUNTIME_FOLDER))
    check_place(out)
    config = params.load(workspace.params_file)
    machine.settle(config.machine.threads)
    pipeline, leaks = read(workspace)
    manifest = write(pipeline, leaks, config.sampling.steps, workspace.named(RUNTIME_FOLDER), out)
    sizes = {kind: sum(each["bytes"] for each in manifest["files"][kind].values()) for kind in manifest["files"]}
    listed = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in sizes.items())
    print(f"{out}: {listed}; serve it with: python -m http.server --directory {out}")


def check_installed() -> None:
    """Raises ValueError where what exports is not installed."""
    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise ValueError(f"demo: {', '.join(missing)} not installed; install them: pip install 'atelier[demo]'")


def check_runtime(folder: Path) -> None:
    """Raises ValueError where the browser's runtime has not been fetched from the repository's store."""
    if missing := [name for name in RUNTIME if not (folder / name).is_file()]:
        raise FileFault(f"{folder}: lacks {missing[0]}; get it with: dvc pull runtime")


def check_place(out: Path) -> None:
    """Raises ValueError for a folder that holds anything but an earlier page: it is replaced as a whole."""
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileFault(f"{out}: is there already and holds no page of this kind; take another name")


def read(workspace: Workspace) -> tuple[StableDiffusionPipeline, dict[int, Leak]]:
    """The base with the studies' sampler, and photographs' leaks by N."""
    for folder, stage in ((workspace.base, "base"), (workspace.leaks, "signal_leak-fit")):
        if not folder.is_dir():
            raise FileFault(f"{folder}: is missing; make it with: dvc repro {stage}")
    pipeline = with_ddim(base.load(check_seal(workspace.base)))
    folder = check_seal(workspace.leaks)
    if missing := [name for name in LEAKS.values() if not (folder / f"{name}.safetensors").is_file()]:
        raise FileFault(f"{folder}: lacks {missing[0]}.safetensors; signal_leak.frequencies must hold 1 and 3")
    return pipeline, {n: load(folder / f"{name}.safetensors")[0] for n, name in LEAKS.items()}


def write(
    pipeline: StableDiffusionPipeline, leaks: Mapping[int, Leak], steps: int, runtime: Path, out: Path
) -> dict[str, Any]:
    """Write the page's folder and return its manifest. ``leaks`` by N, with N = 1 among them."""
    by_mean = leaks[1]
    assert isinstance(by_mean, FrequencyLeak)
    channels, side = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    with replacing(out, sealed=False) as part:
        for source in sorted(PAGE.iterdir()):
            copy(source, part / source.name)
        for name in RUNTIME:
            copy(runtime / name, part / "runtime" / name)
        models = networks.write(pipeline, part / "model")
        write_json(part / "model" / "tokenizer.json", tables(pipeline.tokenizer))
        write_json(part / "model" / "leaks.json", leak_tables.tables(leaks))
        settings = {
            "shape": {"channels": channels, "side": side},
            "size": side * pipeline.vae_scale_factor,
            "tokens": pipeline.tokenizer.model_max_length,
            "width": pipeline.text_encoder.config.hidden_size,
            "steps": sampler_steps(pipeline.scheduler, steps),
            "colours": leak_tables.colours(by_mean, pipeline.vae),
            "most": leak_tables.MOST,
            "guidance": GUIDANCE,
            "examples": list(EXAMPLES),
        }
        files = {
            "networks": {path.stem: described(path, part) for path in models},
            "tables": {name: described(part / "model" / f"{name}.json", part) for name in ("leaks", "tokenizer")},
            "runtime": {name: described(part / "runtime" / name, part) for name in RUNTIME},
        }
        manifest = {"settings": settings, "files": files}
        write_json(part / MANIFEST, manifest)
    return manifest


def sampler_steps(scheduler: object, steps: int) -> list[dict[str, float]]:
    """Each step of DDIM: the denoiser's time, alpha and sigma of its latent, and of the one that it leads to.

    Raises ValueError for another sampler, and for a model that does not predict noise: the page knows no other.
    """
    if not isinstance(scheduler, DDIMScheduler) or scheduler.config.prediction_type != "epsilon":
        raise ValueError(f"{type(scheduler).__name__}: the page samples with DDIM, from a model that predicts noise")
    scheduler.set_timesteps(steps)
    stride = scheduler.config.num_train_timesteps // steps
    listed = []
    for time in scheduler.timesteps.tolist():
        after = time - stride
        kept = float(scheduler.alphas_cumprod[time])
        kept_after = float(scheduler.alphas_cumprod[after] if after >= 0 else scheduler.final_alpha_cumprod)
        signal = {"alpha": kept**0.5, "alpha_next": kept_after**0.5}
        listed.append({"time": time, "sigma": (1 - kept) ** 0.5, "sigma_next": (1 - kept_after) ** 0.5, **signal})
    return listed


def described(path: Path, folder: Path) -> dict[str, Any]:
    """A file's place below the page's folder, its size, its checksum."""
    digest = hashlib.sha256(read_bytes(path)).hexdigest()
    return {"path": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": digest}
