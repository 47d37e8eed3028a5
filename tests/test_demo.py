"""The page that paints in a browser: its tokenizer, its numbers, its pictures, against the libraries that it mirrors.

JavaScript runs in node where there is one, else in the browser; the page itself in a headless Chromium alone.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from torch import Tensor

from atelier.data.images import to_pixels
from atelier.data.names import artist_and_title
from atelier.data.prompts import LEVELS, prompt
from atelier.demo import export, leaks, noise, tokens
from atelier.methods.signal_leak import FrequencyLeak, Leak, add_leak, from_low_components
from atelier.models import base
from atelier.sampling.sampler import sample, with_ddim

ROOT = Path(__file__).parent.parent
BASE, RUNTIME = ROOT / "data" / "base", ROOT / "runtime"
NODE = shutil.which("node")
STEPS, GUIDANCE = 8, 4.0
DRAWS = 4  # templates and utterances of each work and level
ODD = (
    "",
    " ",
    "it's the cat's, they'll've  said\tso\n",
    "<|endoftext|>a boat<|startoftext|>  <|EndOfText|> b",
    "1066 and 3.14: 42nd",
    "naïve café, ÀÉÎ, ΟΔΟΣ, İstanbul, straße",
    "e\u0301 is é; ﬁ; Å",
    "日本語の船 on the 海, 🚤🚤 ٣٤ ½",
    "a\u00a0b\u2003c\u0085d\ufefee\u200bf",
    "!!! ... --- (a) [b] {c} 'tis ''s",
    "w" * 300,
    "a boat " * 60,
)

try:
    import browser
except ImportError:
    browser = None


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return with_ddim(base.load(BASE))


@pytest.fixture(scope="module")
def fitted() -> dict[int, Leak]:
    """Leaks of made latents, whose channels and neighbours go together."""
    draw = torch.Generator().manual_seed(3)
    mixture = torch.randn(8, 8, generator=draw) / 2
    slopes = torch.linspace(-1, 1, 8) * torch.randn(60, 8, 8, 1, generator=draw)
    z = torch.einsum("nchw,cd->ndhw", torch.randn(60, 8, 1, 1, generator=draw) + slopes, mixture)
    z = 0.3 * z + 0.3 * torch.randn(60, 8, 8, 8, generator=draw)
    pixel, one, three = FrequencyLeak.fit_several([z], [0, 1, 3])
    return {0: pixel.rest, 1: one, 3: three}


# ------------------------------------------------------------------------------------------------ JavaScript


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, Any], Any]]:
    """Call a function, given as text, with one of the page's modules and with data, and return its result."""
    if NODE:
        yield by_node
    elif browser and browser.CHROMIUM:
        with browser.served(export.PAGE) as address, browser.chromium(tmp_path_factory.mktemp("scripts")) as tab:
            page = tab()
            page.open(f"{address}/index.html")

            def by_browser(module: str, function: str, given: Any) -> Any:
                call = f"({function})(module, {json.dumps(given)})"
                return json.loads(page.ask(f"import('./{module}').then((module) => JSON.stringify({call}))"))

            yield by_browser
    else:
        pytest.skip("neither node nor Chromium on this machine")


def by_node(module: str, function: str, given: Any) -> Any:
    text = f"""
        import * as module from {json.dumps((export.PAGE / module).as_uri())};
        import {{ readFileSync }} from "node:fs";
        const given = JSON.parse(readFileSync(0, "utf8"));
        console.log(JSON.stringify(({function})(module, given)));
    """
    command = [str(NODE), "--input-type=module", "--eval", text]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def prompts_of_the_world() -> list[str]:
    """Every prompt that a stage can make of the shipped works and photographs, up to the number of draws."""
    truth = pd.read_csv(ROOT / "data" / "truth.csv", keep_default_na=False)
    annotations = pd.read_csv(ROOT / "data" / "artemis_dataset_release_v0.csv", keep_default_na=False)
    said = dict(iter(annotations.groupby(["art_style", "painting"])))
    listed = []
    for row in truth.to_dict("records"):
        artist, title, _ = artist_and_title(row["painting"])
        rows = said.get((row["art_style"], row["painting"]))
        spoken = [] if rows is None else [*zip(rows["emotion"], rows["utterance"], strict=True)]
        work = {**row, "artist": artist, "title": title}
        work |= {"emotions": [emotion for emotion, _ in spoken], "utterances": [text for _, text in spoken]}
        listed += [prompt(work, level, draw) for level in LEVELS for draw in range(DRAWS)]
        listed += [row["title"], *(text for _, text in spoken)]
    return sorted({*listed, *export.EXAMPLES})


def odd_texts(n: int) -> list[str]:
    """Made texts of letters from all of Unicode's first plane, spaces and marks; of no surrogate and no unassigned."""
    draw = np.random.default_rng(5)
    ranges = [(0x20, 0x17F), (0x370, 0x5FF), (0x900, 0x97F), (0x1E00, 0x206F), (0x3040, 0x30FF), (0xFB00, 0xFB4F)]
    pieces = ["'s", "'ll", " ", "  ", "\t", "<|endoftext|>", "a boat", "7", "…"]
    texts = []
    for _ in range(n):
        letters = [chr(draw.integers(*ranges[draw.integers(len(ranges))])) for _ in range(draw.integers(1, 20))]
        letters += [pieces[draw.integers(len(pieces))] for _ in range(6)]
        texts.append("".join(letters[i] for i in draw.permutation(len(letters))))
    return texts


def tokenized(script: Callable, pipeline: StableDiffusionPipeline, texts: Sequence[str]) -> list[list[int]]:
    call = "({ tokenizer }, given) => given.texts.map(tokenizer(given.tables))"
    return script("tokenizer.mjs", call, {"tables": tokens.tables(pipeline.tokenizer), "texts": list(texts)})


@pytest.mark.parametrize("texts", [prompts_of_the_world, lambda: ODD, lambda: odd_texts(3000)])
def test_the_page_reads_words_as_transformers_does(script, pipeline, texts: Callable[[], Sequence[str]]) -> None:
    listed = list(texts())
    expected = base.prompt_ids(pipeline.tokenizer, listed).tolist()
    made = tokenized(script, pipeline, listed)
    assert len(made) == len(listed) >= 10
    assert [text for text, one, other in zip(listed, made, expected, strict=True) if one != other] == []
    print(f"{len(listed)} texts have equal numbers, {sum(map(len, expected))} in all")


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (1, 1), (999_999, 1), (2**53 - 1, 7)])
def test_the_page_draws_the_same_numbers(script, seed: int, stream: int) -> None:
    """Against numpy's Philox; cosines differ in their last bit at most."""
    call = "({ normal }, [seed, stream, count]) => Array.from(normal(seed, stream, count))"
    made = np.array(script("noise.mjs", call, [seed, stream, 1023]))
    np.testing.assert_allclose(made, noise.normal(seed, stream, 1023), rtol=1e-12, atol=1e-12)


def test_numbers_are_normal_and_streams_differ() -> None:
    drawn = np.stack([noise.normal(seed, stream, 20_000) for seed in (1, 2) for stream in (noise.NOISE, noise.LEAK)])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.03
    np.testing.assert_allclose(drawn.mean(1), 0, atol=0.03)
    np.testing.assert_allclose((drawn**2).mean(1), 1, atol=0.04)
    np.testing.assert_allclose((drawn**4).mean(1), 3, atol=0.2)
    assert (noise.normal(1, 0, 7) == noise.normal(1, 0, 8)[:7]).all()


# ------------------------------------------------------------------------------------------------ first latents


def settings_of(pipeline: StableDiffusionPipeline, fitted: dict[int, Leak]) -> dict[str, Any]:
    assert isinstance(fitted[1], FrequencyLeak)
    return {
        "shape": {"channels": 8, "side": 8},
        "steps": export.sampler_steps(pipeline.scheduler, STEPS),
        "colours": leaks.colours(fitted[1], pipeline.vae),
    }


def first_latent(
    pipeline: StableDiffusionPipeline, leak: Leak | None, seed: int, shift: np.ndarray | float = 0.0
) -> Tensor:
    """The page's first latent (1, 8, 8, 8), by the library's formulas; ``shift`` (8, 1, 1) of the channels' means."""
    white = noise.normal(seed, noise.NOISE, 512).reshape(1, 8, 8, 8)
    if leak is None:
        return torch.from_numpy(white).float()
    low = leak if isinstance(leak, FrequencyLeak) else FrequencyLeak([], np.zeros(0), np.zeros((0, 0)), leak)
    drawn = noise.normal(seed, noise.LEAK, 512 + len(low.low_mean))
    made = low.rest.mean + low.rest.std * drawn[:512].reshape(1, 8, 8, 8) + shift
    if low.frequencies:
        values, vectors = np.linalg.eigh(low.low_covariance)
        root = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
        coefficients = (low.low_mean + root @ drawn[512:]).reshape(1, len(low.frequencies), 8)
        made = made + from_low_components(coefficients, low.frequencies, (8, 8))
    return add_leak(torch.from_numpy(made), torch.from_numpy(white), pipeline.scheduler, STEPS).float()


@pytest.mark.parametrize("n", [None, 0, 1, 3])
@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0, 0.0), (2.0, -1.0, 0.5, 3.0)])
def test_the_page_starts_where_the_library_does(script, pipeline, fitted, n: int | None, values) -> None:
    settings = settings_of(pipeline, fitted)
    given = {
        "settings": settings,
        "leak": None if n is None else leaks.tables(fitted)[str(n)],
        "values": list(values),
    }
    call = "(m, given) => Array.from(m.firstLatent(given.settings, given.leak, given.values, 11))"
    made = np.array(script("painting.mjs", call, given)).reshape(1, 8, 8, 8)
    shift = np.array(values) @ np.array([colour["shift"] for colour in settings["colours"]])
    expected = first_latent(pipeline, None if n is None else fitted[n], 11, shift[:, None, None])
    if n is None:  # white noise keeps its full share
        expected = expected + settings["steps"][0]["alpha"] * torch.from_numpy(shift[:, None, None]).float()
    np.testing.assert_allclose(made, expected.numpy(), rtol=0, atol=2e-6)


def test_the_steps_are_those_of_the_scheduler(script, pipeline, fitted) -> None:
    """From an invented denoiser, the same last latent as diffusers' own steps."""
    settings = settings_of(pipeline, fitted)
    call = "(m, given) => given.map((s) => [s.time, s.alpha, s.sigma])"
    assert script("painting.mjs", call, settings["steps"])[0][0] == int(pipeline.scheduler.timesteps[0])
    latent = first_latent(pipeline, fitted[3], 2).double()
    ours = latent.clone()
    for step, time in zip(settings["steps"], pipeline.scheduler.timesteps, strict=True):
        latent = pipeline.scheduler.step(torch.tanh(latent), time, latent).prev_sample
        predicted = torch.tanh(ours)
        clean = (ours - step["sigma"] * predicted) / step["alpha"]
        ours = step["alpha_next"] * clean + step["sigma_next"] * predicted
    torch.testing.assert_close(ours, latent, rtol=0, atol=1e-5)


def test_colours_are_the_directions_in_which_means_vary(pipeline, fitted) -> None:
    listed = leaks.colours(fitted[1], pipeline.vae)
    shifts = np.array([colour["shift"] for colour in listed])
    covariance = fitted[1].low_covariance / 64
    np.testing.assert_allclose(shifts @ shifts.T, np.diag(np.diag(shifts @ shifts.T)), atol=1e-6)
    for shift in shifts:
        np.testing.assert_allclose(covariance @ shift, (shift @ shift) * shift, rtol=1e-5, atol=1e-6)
    assert [c["share"] for c in listed] == sorted([c["share"] for c in listed], reverse=True)


# ------------------------------------------------------------------------------------------------ refusals


def test_refusals_are_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "EXTRA", ("onnx_that_is_not_there",))
    with pytest.raises(ValueError, match=r"^demo: onnx_that_is_not_there not installed; .*atelier\[demo\]'$"):
        export.check_installed()
    with pytest.raises(ValueError, match=r"runtime: lacks ort\.wasm\S+; get it with: dvc pull runtime$"):
        export.check_runtime(tmp_path / "runtime")
    (tmp_path / "mine").mkdir()
    export.check_place(tmp_path / "mine")
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    with pytest.raises(ValueError, match="mine: is there already"):
        export.check_place(tmp_path / "mine")
    (tmp_path / "mine" / export.MANIFEST).write_text("{}")
    export.check_place(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"^PNDMScheduler: the page samples with DDIM"):
        export.sampler_steps(PNDMScheduler(), 8)


# ------------------------------------------------------------------------------------------------ the exported page


@pytest.fixture(scope="module")
def page_folder(pipeline, fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in export.EXTRA:
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'atelier[demo]'")
    if not all((RUNTIME / name).is_file() for name in export.RUNTIME):
        pytest.skip("the browser's runtime is not here: dvc pull runtime")
    folder = tmp_path_factory.mktemp("demo") / "page"
    export.write(pipeline, fitted, STEPS, RUNTIME, folder)
    return folder


def reference(pipeline, leak: Leak | None, words: str, seed: int) -> Tensor:
    """The pipeline's own picture (1, 3, 64, 64) uint8 of the page's first latent."""
    first = first_latent(pipeline, leak, seed)
    return to_pixels(sample(pipeline, [words], first, guidance=GUIDANCE, steps=STEPS, batch=1).pictures)


@pytest.mark.long
def test_the_manifest_says_what_is_there(page_folder: Path) -> None:
    manifest = json.loads((page_folder / export.MANIFEST).read_text())
    files = {file["path"]: file for kind in manifest["files"].values() for file in kind.values()}
    there = {p.relative_to(page_folder).as_posix() for p in page_folder.rglob("*") if p.is_file()}
    assert there == {*files, export.MANIFEST, *(path.name for path in export.PAGE.iterdir())}
    assert all(export.described(page_folder / path, page_folder) == file for path, file in files.items())
    weights = sum(file["bytes"] for file in manifest["files"]["networks"].values())
    runtime = sum(file["bytes"] for file in manifest["files"]["runtime"].values())
    print(f"weights {weights / 1e6:.1f} MB, runtime {runtime / 1e6:.1f} MB")
    assert weights <= 30e6


@pytest.mark.long
def test_no_weight_of_the_shipped_base_is_rounded(pipeline, page_folder: Path) -> None:
    """Its weights are halves: cast back, each tensor of the U-Net is among the stored ones, bit for bit."""
    from onnx import load, numpy_helper

    stored = {
        numpy_helper.to_array(tensor).astype(np.float32).tobytes()
        for tensor in load(page_folder / "model" / "denoiser.onnx").graph.initializer
    }
    large = {n: w for n, w in pipeline.unet.state_dict().items() if w.ndim == 4}
    assert len(large) > 20
    assert [name for name, weight in large.items() if weight.numpy().tobytes() not in stored] == []


@pytest.mark.long
@pytest.mark.parametrize(("n", "words", "seed"), [(None, "a red house under snow", 1), (3, "two yellow fish", 5)])
def test_the_exported_networks_paint_the_pipelines_picture(pipeline, fitted, page_folder, n, words, seed) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    names = ("text_encoder", "denoiser", "decoder")
    encoder, denoiser, decoder = (ort.InferenceSession(page_folder / "model" / f"{name}.onnx") for name in names)
    ids = base.prompt_ids(pipeline.tokenizer, ["", words]).numpy()
    embeddings = np.concatenate([encoder.run(None, {"words": row[None]})[0] for row in ids])
    latent = first_latent(pipeline, None if n is None else fitted[n], seed).numpy()
    for step in export.sampler_steps(pipeline.scheduler, STEPS):
        inputs = {"latents": latent.repeat(2, 0), "time": np.float32([step["time"]]), "embeddings": embeddings}
        plain, worded = denoiser.run(None, inputs)[0]
        predicted = plain + GUIDANCE * (worded - plain)
        clean = (latent - step["sigma"] * predicted) / step["alpha"]
        latent = (step["alpha_next"] * clean + step["sigma_next"] * predicted).astype(np.float32)
    made = to_pixels(torch.from_numpy(decoder.run(None, {"latents": latent})[0])).int()
    difference = int((made - reference(pipeline, None if n is None else fitted[n], words, seed).int()).abs().max())
    print(f"N = {n}: largest difference of a pixel {difference} of 255")
    assert difference <= 1


# ------------------------------------------------------------------------------------------------ in a browser

PIXELS = """(() => {
    const canvas = document.querySelector("#PLACE canvas");
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return Array.from(context.getImageData(0, 0, copy.width, copy.height).data);
})()"""


def shown(page, place: str) -> Tensor:
    """A picture on the page, (1, 3, 64, 64)."""
    data = torch.tensor(page.ask(PIXELS.replace("PLACE", place))).reshape(1, 64, 64, 4)
    return data[..., :3].permute(0, 3, 1, 2).int()


def painted(page, **expected: Any) -> None:
    """Wait until the page has painted these choices."""
    said = " && ".join(f"chosen.{name} === {json.dumps(value)}" for name, value in expected.items())
    page.until(f"((chosen) => {said})(JSON.parse(document.body.dataset.painted ?? '{{}}'))")


@pytest.mark.long
@pytest.mark.skipif(not (browser and browser.CHROMIUM), reason="no Chromium on this machine")
def test_the_page_paints_the_pipelines_pictures(pipeline, fitted, page_folder: Path, tmp_path: Path) -> None:
    """Loaded by a key, with and without leak, other words and another seed; nothing from outside its folder."""
    with browser.served(page_folder) as address, browser.chromium(tmp_path / "browser") as tab:
        page = tab()
        page.screen(1200, 900)
        page.open(f"{address}/")
        page.until("!document.querySelector('#start').hidden")
        assert not [each for each in page.requests if "/model/" in each or "/runtime/" in each]
        page.strike("Tab")
        page.strike("Enter")
        painted(page, words=export.EXAMPLES[0], seed=1, leak="3")
        differences = []
        for place, leak in (("own", fitted[3]), ("plain", None)):
            difference = shown(page, place) - reference(pipeline, leak, export.EXAMPLES[0], 1).int()
            differences.append(int(difference.abs().max()))
        page.ask("document.querySelector('#words').value = 'two yellow fish'")
        page.ask("document.querySelector('#words').dispatchEvent(new Event('input', {bubbles: true}))")
        painted(page, words="two yellow fish")
        for n in (1, 0):
            page.ask(f"document.querySelector('input[name=leak][value=\"{n}\"]').click()")
            painted(page, leak=str(n))
            difference = shown(page, "own") - reference(pipeline, fitted[n], "two yellow fish", 1).int()
            differences.append(int(difference.abs().max()))
        print(f"largest differences of a pixel, of 255: {differences}")
        assert max(differences) <= 1
        assert all(each.startswith(address) for each in page.requests)
        assert page.faults == []


@pytest.mark.long
@pytest.mark.skipif(not (browser and browser.CHROMIUM), reason="no Chromium on this machine")
def test_axe_finds_nothing_on_the_page(page_folder: Path, tmp_path: Path) -> None:
    """From disk, before the model is loaded, and with pictures, wide and narrow, light and dark."""
    with browser.served(page_folder) as address, browser.chromium(tmp_path / "browser") as tab:
        page = tab()
        page.open((page_folder / "index.html").as_uri())
        assert page.violations() == []
        page.open(f"{address}/")
        page.until("!document.querySelector('#start').hidden")
        assert page.violations() == []
        page.ask("document.querySelector('#load').click()")
        painted(page, leak="3")
        page.ask("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        for width, dark in ((1200, False), (390, True), (390, False), (1200, True)):
            page.screen(width, 900, dark=dark)
            assert page.violations() == []
            assert page.ask("document.documentElement.scrollWidth") <= width
