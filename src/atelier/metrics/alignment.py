"""How well pictures show what was asked for, as the evaluator sees it: (pictures, prompts) -> float64.

Pictures are floats (n, 3, h, w) in [0, 1] of any size; all go through one resize to 64 px.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from atelier.metrics.features import BATCH, FloatArray, Samples, image_batches
from atelier.models.base import prompt_ids
from atelier.models.evaluator import SIZE, Evaluator


def features(model: Evaluator, pictures: Samples) -> FloatArray:
    """The evaluator's features (n, 48), a space for Frechet and kernel distances."""
    return features_of(look(model, pictures))


def attributes(model: Evaluator, pictures: Samples) -> dict[str, pd.DataFrame]:
    """Log-probabilities, one table an attribute, a row a picture, a column a class.

    ``attributes(model, pictures)["subject"].idxmax(axis=1)`` names what is seen.
    """
    return attributes_of(model, look(model, pictures))


def clip_scores(model: Evaluator, pictures: Samples, prompts: Sequence[str]) -> FloatArray:
    """CLIPScore (Hessel et al. 2021) of each picture and its prompt, max(100 cos, 0), (n,).

    Of this evaluator's embeddings: not comparable with any published score.
    """
    if len(pictures) != len(prompts):
        raise ValueError(f"each picture needs one prompt: {len(pictures)} pictures, {len(prompts)} prompts")
    return clip_scores_of(model, look(model, pictures), prompts)


# The same in two steps, for who wants more than one: a look is what costs.


@torch.no_grad()
def look(model: Evaluator, pictures: Samples) -> list[Tensor]:
    """Features of pictures, (b, 48) a batch."""
    return [model.features(batch) for batch in _batches(model, pictures)]


def features_of(looked: Sequence[Tensor]) -> FloatArray:
    """As ``features``."""
    return _float64(looked)


@torch.no_grad()
def attributes_of(model: Evaluator, looked: Sequence[Tensor]) -> dict[str, pd.DataFrame]:
    """As ``attributes``."""
    logits = [model.logits(batch) for batch in looked]
    return {
        name: pd.DataFrame(_float64([part[name].log_softmax(1) for part in logits]), columns=list(classes))
        for name, classes in model.classes.items()
    }


@torch.no_grad()
def clip_scores_of(model: Evaluator, looked: Sequence[Tensor], prompts: Sequence[str]) -> FloatArray:
    """As ``clip_scores``, a prompt a picture."""
    cosines = []
    for start, batch in zip(range(0, len(prompts), BATCH), looked, strict=True):
        ids = prompt_ids(model.tokenizer, prompts[start : start + BATCH]).to(batch.device)
        cosines.append((model.image_embedding(batch) * model.text_embedding(ids)).sum(1))
    return np.maximum(100 * _float64(cosines), 0)


def _batches(model: Evaluator, pictures: Samples) -> Iterator[Tensor]:
    """Checked as every metric's pictures are, on the model's device, at its size."""
    model.eval()
    device = model.log_scale.device
    for batch in image_batches(pictures):
        if batch.shape[1] != 3:
            raise ValueError(f"the evaluator sees RGB pictures (n, 3, h, w), got {batch.shape[1]} channels")
        x = torch.from_numpy(batch).to(device, torch.float32)
        yield x if x.shape[-2:] == (SIZE, SIZE) else interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)


def _float64(parts: Sequence[Tensor]) -> FloatArray:
    return torch.cat(list(parts)).double().cpu().numpy()
