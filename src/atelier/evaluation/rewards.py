"""Rewards of pictures whose truth is known: what candidates are selected by, never what models are measured by.

``colour`` and ``brightness`` are exact functions of pixels. ``Probe`` asks the network of perceptual losses whether a
picture shows what its prompt says; the evaluator, which measures, never rewards. A count of objects is no reward: of
the painter's pictures connected pixels of the colour give it rightly in 8 to 13 % (``tests/test_rewards.py``).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from atelier.data.checks import FloatArray, check_picture_tensor, check_texts
from atelier.data.images import to_model_range
from atelier.data.pictures import Pictures, in_memory
from atelier.files import reading, write_json
from atelier.models import stored

# degrees of hue from which a name holds up to the next one's; what has no hue of its own (brown, white, ...) is missing
HUES = (
    (0.0, "red"), (14.0, "orange"), (38.0, "yellow"), (70.0, "green"), (165.0, "blue"), (250.0, "violet"),
    (310.0, "pink"), (350.0, "red"),
)  # fmt: skip
COLOURS = tuple(sorted({name for _, name in HUES}))
LEAST_CHROMA = 0.25  # max - min of the channels over max: below it a pixel is grey
LEAST_VALUE = 0.2  # max of the channels: below it a pixel is black
LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709
SEEN = 64  # pictures at a time through a network
SHRINKAGE = 0.1  # of a covariance towards a multiple of the identity
FEWEST = 4  # rows of a class, of which half can be held out
HOTTEST = 1000.0
WEIGHTS, CARD = "probes.safetensors", "card.json"


def colour_named(prompt: str) -> str | None:
    """The one colour with a hue that a prompt names; None where it names none, or several."""
    named = set(re.findall(r"[a-z]+", prompt.lower())) & set(COLOURS)
    return named.pop() if len(named) == 1 else None


def colour(pictures: Tensor, prompts: Sequence[str]) -> FloatArray:
    """The share of each picture's saturated pixels that have the hue which its prompt names, (n,) in [0, 1].

    ``pictures`` (n, 3, h, w) uint8. 0 where no pixel is saturated. ValueError for a prompt that names no one colour.
    """
    check_picture_tensor(pictures, "pictures", ("uint8",))
    wanted = [colour_named(prompt) for prompt in checked_prompts(prompts, len(pictures))]
    if None in wanted:
        raise ValueError(
            f"prompts: expected one colour of {', '.join(COLOURS)} in each, got {prompts[wanted.index(None)]!r}"
        )
    hues, saturated = hue(pictures)
    names = np.array([name for _, name in HUES])[np.searchsorted([low for low, _ in HUES], hues, side="right") - 1]
    fits = (names == np.array(wanted, dtype=str)[:, None, None]) & saturated
    total = saturated.sum((1, 2))
    return np.divide(fits.sum((1, 2)), total, out=np.zeros(len(pictures)), where=total > 0)


def hue(pictures: Tensor) -> tuple[FloatArray, Any]:
    """Hue (n, h, w) in degrees, [0, 360), and whether each pixel is saturated enough to have one (HSV)."""
    red, green, blue = pictures.numpy().astype(np.float64).transpose(1, 0, 2, 3) / 255
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    span = most - least
    safe = np.where(span > 0, span, 1.0)
    sector = np.where(
        most == red, (green - blue) / safe, np.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    return sector * 60 % 360, (most >= LEAST_VALUE) & (span >= LEAST_CHROMA * most)


def brightness(pictures: Tensor, prompts: Sequence[str] = ()) -> FloatArray:
    """Mean luminance (Rec. 709) of pictures (n, 3, h, w) uint8, (n,) in [0, 1]; prompts do not matter."""
    check_picture_tensor(pictures, "pictures", ("uint8",))
    means: FloatArray = (pictures.double() / 255).mean((2, 3)).numpy() @ np.array(LUMINANCE)
    return means


def checked_prompts(prompts: Sequence[str], n: int) -> Sequence[str]:
    check_texts(prompts, "prompts")
    if len(prompts) != n:
        raise ValueError(f"prompts: expected one a picture, {n}, got {len(prompts)}")
    return prompts


# ------------------------------------------------------------------------------------------------ probes


def features(network: nn.Module, pictures: Tensor | Pictures) -> Tensor:
    """Mean and deviation over positions of a network's maps of pictures (n, 3, h, w) uint8, (n, d) float64."""
    seen = []
    with torch.no_grad():
        for part in in_memory(pictures).batches(SEEN):
            maps = [stage.double().flatten(2) for stage in network(to_model_range(part))]
            seen.append(torch.cat([each.mean(2) for each in maps] + [each.std(2, correction=0) for each in maps], 1))
    return torch.cat(seen)


class Probe(NamedTuple):
    """A linear classifier of features: Gaussian classes with one shrunk covariance, in closed form."""

    classes: tuple[str, ...]
    weight: Tensor  # (classes, d) float64
    bias: Tensor  # (classes,)

    @classmethod
    def fit(cls, rows: Tensor, labels: Sequence[str]) -> Self:
        """From features (n, d) and their classes (n,); ValueError for fewer than two classes.

        Of many features and few rows such a classifier is too sure of itself: its log-odds are divided by the
        temperature (Guo et al. 2017) at which one of half of each class's rows fits the other half best.
        """
        classes = tuple(sorted(set(labels)))
        if len(classes) < 2 or len(labels) != len(rows):
            raise ValueError(
                f"labels: expected two classes or more, one label a row, got {len(classes)} of {len(rows)}"
            )
        discriminant, temperature = cls._discriminant(rows, labels), 1.0
        if min(Counter(labels).values()) >= FEWEST:
            halves = _halves(labels)
            (learnt, known), (held_out, wanted) = ((rows[half], [labels[row] for row in half]) for half in halves)
            temperature = _temperature(cls._discriminant(learnt, known).scores(held_out), wanted, classes)
        return cls(classes, discriminant.weight / temperature, discriminant.bias / temperature)

    @classmethod
    def _discriminant(cls, rows: Tensor, labels: Sequence[str]) -> Self:
        """Fisher's, with a shrunk covariance."""
        classes = tuple(sorted(set(labels)))
        of_class = torch.tensor([classes.index(label) for label in labels])
        centres = torch.stack([rows[of_class == number].mean(0) for number in range(len(classes))])
        scale = (rows - centres[of_class]).std(0, correction=0).clamp(min=1e-8)
        centred = (rows - centres[of_class]) / scale
        covariance = centred.T @ centred / len(rows)
        level = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
        solved = torch.linalg.solve((1 - SHRINKAGE) * covariance + SHRINKAGE * level, (centres / scale).T).T
        priors = torch.stack([(of_class == number).double().mean() for number in range(len(classes))]).log()
        return cls(classes, solved / scale, priors - (solved * centres / scale).sum(1) / 2)

    def scores(self, rows: Tensor) -> Tensor:
        """Log-probabilities (n, classes) but for a constant a row."""
        return rows @ self.weight.T + self.bias

    def probability(self, rows: Tensor, wanted: Sequence[str]) -> FloatArray:
        """The probability of each row's wanted class, (n, d) to (n,) float64; ValueError for a class that is not known.

        float64, so that even pictures that are all far from the class keep their order.
        """
        if odd := sorted(set(wanted) - set(self.classes)):
            raise ValueError(f"classes: '{odd[0]}' is none of {', '.join(self.classes)}")
        probabilities = self.scores(rows).softmax(1)
        return np.asarray(probabilities[range(len(rows)), [self.classes.index(name) for name in wanted]])

    def accuracy(self, rows: Tensor, labels: Sequence[str]) -> float:
        """The share of rows whose likeliest class is the true one."""
        guessed = self.scores(rows).argmax(1).tolist()
        return float(np.mean([self.classes[number] == label for number, label in zip(guessed, labels, strict=True)]))


def _halves(labels: Sequence[str]) -> tuple[list[int], list[int]]:
    """Every other row of each class, and the others."""
    seen: Counter[str] = Counter()
    halves: tuple[list[int], list[int]] = ([], [])
    for row, label in enumerate(labels):
        halves[seen[label] % 2].append(row)
        seen[label] += 1
    return halves


def _temperature(scores: Tensor, labels: Sequence[str], classes: Sequence[str]) -> float:
    """By which scores (n, classes) are divided so that the labels (n,) have the highest likelihood; 1 at least."""
    known = torch.tensor([classes.index(label) for label in labels])

    def misfit(log: float) -> float:
        return float(nn.functional.cross_entropy(scores / np.exp(log), known))

    return float(np.exp(minimize_scalar(misfit, bounds=(0.0, np.log(HOTTEST)), method="bounded").x))


def save_probes(probes: Mapping[str, Probe], folder: Path, card: Mapping[str, Any]) -> None:
    """Write probes by name, their classes and a card."""
    tensors = {f"{name}.{part}": getattr(probe, part) for name, probe in probes.items() for part in ("weight", "bias")}
    stored.save_tensors(tensors, folder / WEIGHTS, torch.float64)
    write_json(folder / CARD, {**card, "classes": {name: list(probe.classes) for name, probe in probes.items()}})


def load_probes(folder: Path) -> dict[str, Probe]:
    """Read probes; ValueError for a damaged folder."""
    classes = stored.load_json(folder / CARD)["classes"]
    if not classes:
        return {}
    with reading(folder / WEIGHTS, "not readable as probes"):
        tensors = load_file(folder / WEIGHTS)
    return {
        name: Probe(tuple(names), tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name, names in classes.items()
    }
