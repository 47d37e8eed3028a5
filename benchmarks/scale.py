"""What tables of ArtEmis' size cost, by the number of works: python benchmarks/scale.py [WORKS ...]

Makes folders of 10,000, 20,000, 40,000 and 80,000 works with ArtEmis' columns, 27 styles, 5.7 captions a work and 16
words a caption, and prints a line for each. Seconds are the processor's, which other work on the machine changes less
than the clock's: of the stage ``prepare``; and, in another process, of reading its manifest, of the split once more
(it is in ``prepare``, too), and of a prompt at level 2 for each work. ``all``: prepare, read and prompts; also by the
clock. MiB: resident at most; ``libraries``: before anything is done. Last line: exponents in the number of works, of
memory beyond the libraries'. Pictures are distinct but of 8 px, because tables are measured here; what a picture of
usual size takes is printed below.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from atelier import params as parameters
from atelier.cli import exit_code
from atelier.workspace import Workspace

SIZES = (10_000, 20_000, 40_000, 80_000)
CAPTIONS = 455 / 80  # a work
WORDS = 16  # a caption, on average
STYLES = 27
LEVEL = 2  # of prompts: with an annotator's emotion and words
REPEATS = 20  # of a picture's reading
PROFILE = Path(__file__).parents[1] / "profiles" / "embedded.yaml"
STEPS = ("libraries", "prepare", "tables")


def make(works: int, folder: Path) -> None:
    """A data folder of so many works, the same each time."""
    from PIL import Image

    from atelier.data.annotations import EMOTIONS
    from atelier.data.layout import ANNOTATIONS
    from atelier.data.layout import WORKS as INSIDE

    random = np.random.default_rng(0)
    syllables = np.array([a + b for a in "bcdfglmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "is")])
    vocabulary = np.array(["".join(random.choice(syllables, 1 + n % 3)) for n in range(8000)])

    def texts(lengths: np.ndarray, between: str) -> list[str]:
        words = vocabulary[(len(vocabulary) * random.random(lengths.sum()) ** 3).astype(int)]  # some far more often
        ends = np.cumsum(lengths)
        return [between.join(words[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    artists = texts(np.full(1100, 2), "-")
    titles = texts(random.integers(2, 8, works), "-")
    names = [f"{artists[n % 1100]}_{title}-{1800 + n % 200}-{n}" for n, title in enumerate(titles)]
    styles = [f"Style_{n % STYLES}" for n in range(works)]
    pixels = random.integers(0, 256, (works, 8, 8, 3), np.uint8)
    for style, name, picture in zip(styles, names, pixels, strict=True):
        (inside := folder / INSIDE / style).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(inside / f"{name}.png", compress_level=0)
    numbers = np.sort(np.concatenate([np.arange(works), random.integers(0, works, round(CAPTIONS * works) - works)]))
    said = texts(random.integers(5, 2 * WORDS - 4, len(numbers)), " ")
    table = pd.DataFrame({"art_style": styles, "painting": names}).iloc[numbers]
    table["emotion"] = random.choice(EMOTIONS, len(numbers))
    table["utterance"] = [text.replace(" ", ", ", 1) if n % 3 == 0 else text for n, text in enumerate(said)]
    table["repetition"] = np.bincount(numbers)[numbers]
    table.to_csv(folder / ANNOTATIONS, index=False)


def step(name: str, root: Path) -> dict[str, float]:
    """Do one step in this process: seconds of its parts, and the process's peak in MiB."""
    from atelier.data import artemis, prepare
    from atelier.data.prompts import prompt

    params = parameters.with_sections({"data": {**parameters.read(PROFILE)["data"], "folder": "data"}}, PROFILE)
    workspace, clock = Workspace(root), time.perf_counter()
    marks = {"start": time.process_time()}
    if name == "prepare":
        prepare.main(params, workspace)
        marks["prepare"] = time.process_time()
    if name == "tables":
        table = prepare.works(workspace.manifests).table
        marks["read"] = time.process_time()
        artemis._splits(table, params.data.split, params.seed, Counter())
        marks["split"] = time.process_time()
        text = [prompt(row, LEVEL, 0) for row in table.to_dict("records")]
        marks["prompts"] = time.process_time()
        assert len(text) == len(table)
    took = dict(zip([*marks][1:], np.diff([*marks.values()]), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**took, "clock": time.perf_counter() - clock, "peak": peak}


def measured(works: int) -> dict[str, float]:
    """One row of the table. What makes the folder is a process, too: a process inherits the peak of its parent."""
    with tempfile.TemporaryDirectory() as folder:
        (data := Path(folder) / "data").mkdir()
        _child("make", str(works), str(data))
        libraries, prepared, tables = (json.loads(_child("step", name, folder).splitlines()[-1]) for name in STEPS)
    return {
        "works": works,
        "captions": round(CAPTIONS * works),
        "prepare s": prepared["prepare"],
        "read s": tables["read"],
        "split s": tables["split"],
        "prompts s": tables["prompts"],
        "all s": prepared["prepare"] + tables["read"] + tables["prompts"],
        "all by the clock s": prepared["clock"] + tables["clock"],
        "libraries MiB": libraries["peak"],
        "prepare MiB": prepared["peak"],
        "tables MiB": tables["peak"],
    }


def _child(*arguments: str) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def exponents(table: pd.DataFrame) -> dict[str, float]:
    """Slopes of log values over log works; of memory, of what the libraries do not take."""
    beyond = table.drop(columns="works")
    for column in ("prepare MiB", "tables MiB"):
        beyond[column] -= table["libraries MiB"]
    logs = np.log(table["works"].to_numpy(float))
    return {str(column): float(np.polyfit(logs, np.log(beyond[column]), 1)[0]) for column in beyond}


def reading() -> str:
    """What a picture of usual size takes to be inspected, as ``prepare`` does, and to be read at 512 px."""
    from PIL import Image

    from atelier.data.images import inspect_picture, read_picture

    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (360, 280, 3), np.uint8)).resize((1400, 1800))
    encoded = io.BytesIO()
    coarse.save(encoded, "JPEG", quality=75)
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder) / "picture.jpg").write_bytes(encoded.getvalue())
        took = {}
        for what, read in {
            "inspected": lambda: inspect_picture(file, file.parent),
            "read at 512 px": lambda: read_picture(file, 512),
        }.items():
            start = time.process_time()
            for _ in range(REPEATS):
                read()
            took[what] = 1000 * (time.process_time() - start) / REPEATS
    said = ", ".join(f"{what} in {each:.1f} ms" for what, each in took.items())
    return f"a JPEG of 1400 x 1800 px and {len(encoded.getvalue()) // 1024} KiB, of a processor's time: {said}"


def main(arguments: list[str]) -> None:
    match arguments:
        case ["make", works, folder]:
            make(int(works), Path(folder))
        case ["step", name, root]:
            print(json.dumps(step(name, Path(root))))
        case _:
            rows: list[dict[str, float]] = []
            for number in [int(argument) for argument in arguments] or SIZES:
                rows.append(measured(number))
                print(pd.DataFrame(rows[-1:]).round(2).to_csv(index=False, header=len(rows) == 1), end="", flush=True)
            print("exponent", *(f"{each:.2f}" for each in exponents(pd.DataFrame(rows)).values()), sep=",")
            print(reading())


if __name__ == "__main__":
    raise SystemExit(exit_code(main, sys.argv[1:]))
