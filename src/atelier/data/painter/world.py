"""Many pictures: a folder laid out like WikiArt with the ArtEmis CSV, or an array in memory."""

import csv
import errno
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.data.annotations import COLUMNS
from atelier.data.painter.canvas import grey
from atelier.data.painter.works import Photograph, Pixels, Work, paint_photograph, paint_work
from atelier.files import filling
from atelier.seeds import numpy_generator

VERSION = "2"  # of the pictures: whatever changes a pixel or a word changes this
ANNOTATIONS = "artemis_dataset_release_v0.csv"
TRUTH = (
    "kind", "art_style", "painting", "artist", "subject", "emotion", "strength", "light", "colour", "count", "title",
    "luminance", "index", "seed", "version",
)  # fmt: skip
CHUNK = 16  # pictures a task

Record = dict[str, str | int | float]
Caption = dict[str, list[str]]  # "emotions" and "utterances" of a work's annotations; none of a photograph's


def truth_of(picture: Work | Photograph, seed: int, index: int) -> Record:
    """One row of the truth table; a photograph's artist is its camera, and it has no emotion."""
    by_kind: tuple[str, str, str, str, float] = (
        ("work", picture.art_style, picture.artist, picture.emotion, picture.strength)
        if isinstance(picture, Work)
        else ("photograph", "Photograph", picture.camera, "", 0.0)
    )
    kind, style, artist, emotion, strength = by_kind
    luminance = round(float(grey(picture.picture / 255).mean()), 4)
    values = (
        kind, style, picture.painting, artist, picture.subject, emotion, strength, picture.light, picture.colour,
        picture.count, picture.title, luminance, index, seed, VERSION,
    )  # fmt: skip
    return dict(zip(TRUTH, values, strict=True))


def paint_corpus(
    works: int, photographs: int, seed: int, size: int, workers: int, artists: Sequence[str] = ()
) -> tuple[Pixels, list[Record], list[Caption]]:
    """Pictures (n, size, size, 3), their truth and what is said of them, photographs first.

    The same whatever ``workers`` is. ``artists``: whose works; of all where it is empty.
    """
    pictures = np.empty((photographs + works, size, size, 3), dtype=np.uint8)
    records: list[Record] = []
    captions: list[Caption] = []
    with _pool(workers) as each:
        for kind, count in (("photograph", photographs), ("work", works)):
            for picture, record, caption in each(partial(_picture_and_truth, kind, seed, size, tuple(artists)), count):
                pictures[len(records)] = picture
                records.append(record)
                captions.append(caption)
    return pictures, records, captions


def write_world(folder: Path, works: int, photographs: int, seed: int, size: int = 64, workers: int = 2) -> None:
    """Write pictures, annotations, the truth and a card into a folder; the same bytes for the same arguments.

    A picture's style, subject and emotion follow from its index alone, so a larger world begins with a smaller one.
    """
    if (
        folder.is_dir() and next(folder.iterdir(), None) is not None
    ):  # another world's pictures would mix with this one's
        raise FileExistsError(errno.EEXIST, "expected an empty folder", str(folder))
    annotations: list[Sequence[str | int]] = [COLUMNS]
    truth: list[Sequence[str | int | float]] = [TRUTH]
    with _pool(workers) as each:
        for data, rows, record in each(partial(_work_files, seed, size), works):
            _write(folder / "wikiart" / str(record["art_style"]) / f"{record['painting']}.png", data)
            annotations.extend(rows)
            truth.append(list(record.values()))
        for data, _, record in each(partial(_photograph_files, seed, size), photographs):
            _write(folder / "photographs" / "Photograph" / f"{record['painting']}.png", data)
            truth.append(list(record.values()))
    _write(folder / ANNOTATIONS, _as_csv(annotations))
    _write(folder / "truth.csv", _as_csv(truth))
    card = {"version": VERSION, "seed": seed, "size": size, "works": works, "photographs": photographs}
    _write(folder / "painter.json", (json.dumps(card, indent=2, sort_keys=True) + "\n").encode())


Painted = tuple[bytes, list[Sequence[str | int]], Record]


def _picture_and_truth(
    kind: str, seed: int, size: int, artists: tuple[str, ...], index: int
) -> tuple[Pixels, Record, Caption]:
    if kind == "photograph":
        photograph = paint_photograph(seed, index, size)
        return photograph.picture, truth_of(photograph, seed, index), {"emotions": [], "utterances": []}
    artist = artists[int(numpy_generator(seed, "whose", index).integers(len(artists)))] if artists else None
    work = paint_work(seed, index, size, artist=artist)
    emotions, utterances = zip(*work.annotations, strict=True)
    return work.picture, truth_of(work, seed, index), {"emotions": list(emotions), "utterances": list(utterances)}


def _work_files(seed: int, size: int, index: int) -> Painted:
    """PNG bytes, CSV rows and truth of a work; repetition counts a work's annotations, as in ArtEmis."""
    work = paint_work(seed, index, size)
    said = work.annotations
    rows: list[Sequence[str | int]] = [(work.art_style, work.painting, e, text, len(said)) for e, text in said]
    return png(work.picture), rows, truth_of(work, seed, index)


def _photograph_files(seed: int, size: int, index: int) -> Painted:
    photograph = paint_photograph(seed, index, size)
    return png(photograph.picture), [], truth_of(photograph, seed, index)


def png(picture: Pixels) -> bytes:
    """The picture as a PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@contextmanager
def _pool(workers: int) -> Iterator[Callable]:
    """``each(job, count)``: the job's results for indices 0 .. count - 1, in order, from so many processes."""
    if workers <= 1:
        yield lambda job, count: map(job, range(count))
    else:
        with ProcessPoolExecutor(workers) as pool:
            yield lambda job, count: pool.map(job, range(count), chunksize=CHUNK)


def _as_csv(rows: Sequence[Sequence[str | int | float]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    with filling(path.parent):
        path.write_bytes(data)
