"""Agreement of pictures with their prompts, measured by the evaluator: (pictures, prompts) -> float64.

Pictures are floats (n, 3, h, w) in [0, 1] of any size; all are resized to 64 x 64 px in the same way, so that oblong
ones are squeezed. Every function raises ValueError as ``picture_array`` does, for grey pictures too, and TypeError for
prompts that are no sequence of texts.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from atelier.data.checks import BATCH, FloatArray, Samples, came, check_tensor, check_texts, image_batches
from atelier.models.base import prompt_ids
from atelier.models.evaluator import SIZE, Evaluator


def features(model: Evaluator, pictures: Samples) -> FloatArray:
    """The evaluator's features (n, 48), a space for Frechet and kernel distances."""
    return features_of(look(model, pictures))


def attributes(model: Evaluator, pictures: Samples) -> dict[str, pd.DataFrame]:
    """Log-probabilities: one table per attribute, one row per picture, one column per class.

    ``attributes(model, pictures)["subject"].idxmax(axis=1)`` is the predicted class.
    """
    return attributes_of(model, look(model, pictures))


def clip_scores(model: Evaluator, pictures: Samples, prompts: Sequence[str]) -> FloatArray:
    """CLIPScore (Hessel et al. 2021) of each picture and its prompt, max(100 cos, 0), (n,).

    Uses this evaluator's embeddings: not comparable with published scores.
    """
    check_texts(prompts, "prompts")
    if len(pictures) != len(prompts):
        raise ValueError(f"each picture needs one prompt: {len(pictures)} pictures, {len(prompts)} prompts")
    return clip_scores_of(model, look(model, pictures), prompts)


# The same in two steps, for callers who want several: ``look`` is the expensive one.


@torch.no_grad()
def look(model: Evaluator, pictures: Samples) -> list[Tensor]:
    """Features of pictures, one tensor (b, 48) per batch."""
    return [model.features(batch) for batch in _batches(model, pictures)]


def features_of(batches: Sequence[Tensor]) -> FloatArray:
    """``features`` from the batches that ``look`` returned."""
    return _float64(_checked(batches))


@torch.no_grad()
def attributes_of(model: Evaluator, batches: Sequence[Tensor]) -> dict[str, pd.DataFrame]:
    """``attributes`` from the batches that ``look`` returned."""
    logits = [model.logits(batch) for batch in _checked(batches, model)]
    return {
        name: pd.DataFrame(_float64([part[name].log_softmax(1) for part in logits]), columns=list(classes))
        for name, classes in model.classes.items()
    }


@torch.no_grad()
def clip_scores_of(model: Evaluator, batches: Sequence[Tensor], prompts: Sequence[str]) -> FloatArray:
    """``clip_scores`` from the batches that ``look`` returned, one prompt per picture."""
    check_texts(prompts, "prompts")
    batches = _checked(batches, model)
    if sum(len(batch) for batch in batches) != len(prompts):
        raise ValueError(f"prompts: expected one for each of {sum(map(len, batches))} pictures, got {len(prompts)}")
    cosines = []
    for start, batch in zip(range(0, len(prompts), BATCH), batches, strict=True):
        ids = prompt_ids(model.tokenizer, prompts[start : start + BATCH]).to(batch.device)
        cosines.append((model.image_embedding(batch) * model.text_embedding(ids)).sum(1))
    return np.maximum(100 * _float64(cosines), 0)


def _batches(model: Evaluator, pictures: Samples) -> Iterator[Tensor]:
    """Batches of checked pictures on the model's device, resized to its input size."""
    model.eval()
    device = model.log_scale.device
    for batch in image_batches(pictures):
        if batch.shape[1] != 3:
            raise ValueError(f"pictures: the evaluator sees RGB pictures (n, 3, h, w), got {batch.shape[1]} channels")
        # a copy where torch could not read the array: negative strides, or memory that must not be written to
        x = torch.from_numpy(batch.copy(order="K")).to(device, torch.float32)
        yield x if x.shape[-2:] == (SIZE, SIZE) else interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)


def _checked(batches: Sequence[Tensor], model: Evaluator | None = None) -> list[Tensor]:
    """Feature batches (b, d), of the model's d and in its type where there is one."""
    if not isinstance(batches, Sequence) or not batches:
        raise ValueError(f"batches: expected at least one batch of features (b, d), got {came(batches)}")
    for batch in batches:
        check_tensor(batch, "batches", "(b, d)")
        if model is not None and batch.shape[1] != model.config["features"]:
            raise ValueError(f"batches: expected d={model.config['features']}, got shape {tuple(batch.shape)}")
    return [batch if model is None else batch.to(model.log_scale.dtype) for batch in batches]


def _float64(parts: Sequence[Tensor]) -> FloatArray:
    return torch.cat(list(parts)).double().cpu().numpy()
