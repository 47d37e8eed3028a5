"""The network that metrics use, at 64 px; losses never use it (they use ``models.trunk``).

An image and a text tower with a common embedding space, as in CLIP (Radford et al. 2021), and linear heads that
classify a picture's attributes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu
from transformers import CLIPTokenizer

from atelier.files import filling, reading
from atelier.models import base, stored
from atelier.models.checked import COUNT_LIMITS, check_sizes, number
from atelier.seeds import seed_of

SIZE = 64  # px
FEATURES = 48  # few, because the bias of a Frechet distance of n pictures is about d^2 / n
WIDTHS = (32, 64, 128, 160)  # at 32, 16, 8 and 4 px
TEXT = {"width": 96, "layers": 2, "heads": 4}
VOCABULARY = 1200
ATTRIBUTES = ("subject", "art_style", "emotion", "artist")
START_SCALE = 1 / 0.07  # of cosines, before a softmax; CLIP's initial value and bound
MAX_SCALE = 100.0
TENSORS, CONFIG, CARD, TOKENIZER = "model.safetensors", "config.json", "card.json", "tokenizer"


class Residual(nn.Module):
    """Optional 2x pooling, then two convolutions with a shortcut; (n, before, h, w) -> (n, after, ...)."""

    def __init__(self, before: int, after: int, halve: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = _norm(after), _norm(after)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        y = relu(self.norm1(self.conv1(x)))
        return self.shortcut(x) + relu(self.norm2(self.conv2(y)))


class ImageTower(nn.Module):
    """Pictures (n, 3, 64, 64) in [0, 1] to features (n, 48)."""

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        befores = (widths[0], *widths[:-1])
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 6, 2, 2, bias=False), _norm(widths[0]), nn.ReLU())
        self.blocks = nn.Sequential(
            *(Residual(*sides, halve=index > 0) for index, sides in enumerate(zip(befores, widths, strict=True)))
        )
        self.norm = nn.BatchNorm1d(2 * widths[-1], momentum=None)
        self.features = nn.Linear(2 * widths[-1], features)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.blocks(self.stem(pictures * 4 - 2))  # gives about unit variance
        return self.features(self.norm(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)))


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm: in trials it trained two to three times as fast as group norm. Running statistics: plain average."""
    return nn.BatchNorm2d(channels, momentum=None)


class TextTower(nn.Module):
    """A transformer with mean pooling: token ids (n, length) and a mask of the ids that count -> (n, features)."""

    def __init__(self, features: int, vocabulary: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        nn.init.normal_(self.tokens.weight, std=0.3)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.project = nn.Linear(width, features, bias=False)

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        x = self.layers(self.tokens(ids) + self.places[: ids.shape[1]], src_key_padding_mask=~counts)
        share = counts / counts.sum(1, keepdim=True)
        return self.project((x * share[..., None]).sum(1))


class Evaluator(nn.Module):
    """Both towers, and one head per attribute in ``classes`` (attribute -> class names in the order of outputs)."""

    def __init__(
        self,
        classes: Mapping[str, Sequence[str]],
        tokenizer: CLIPTokenizer,
        features: int = FEATURES,
        widths: Sequence[int] = WIDTHS,
        text: Mapping[str, int] = TEXT,
    ) -> None:
        super().__init__()
        self.config = {"features": features, "widths": list(widths), "text": dict(text), "vocabulary": len(tokenizer)}
        self.classes = {attribute: tuple(classes[attribute]) for attribute in ATTRIBUTES}
        self.tokenizer = tokenizer
        self.image = ImageTower(features, widths)
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(names)) for name, names in self.classes.items()})
        self.project = nn.Linear(features, features, bias=False)
        self.text = TextTower(features, len(tokenizer), tokenizer.model_max_length, **text)
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))

    def features(self, pictures: Tensor) -> Tensor:
        """(n, 3, 64, 64) in [0, 1] -> (n, 48), the feature space of distances between sets of pictures."""
        return self.image(pictures)

    def logits(self, features: Tensor) -> dict[str, Tensor]:
        """Features (n, 48) -> (n, classes) for each attribute, before the softmax."""
        return {name: head(features) for name, head in self.heads.items()}

    def image_embedding(self, features: Tensor) -> Tensor:
        """Features (n, 48) -> unit vectors (n, 48), in the space of text embeddings."""
        return normalize(self.project(features), dim=1)

    def text_embedding(self, ids: Tensor) -> Tensor:
        """Token ids (n, length) of ``base.prompt_ids`` -> unit vectors (n, 48). Ignores padding after the first end."""
        ends = (ids == self.tokenizer.eos_token_id).long()
        counts = ends.cumsum(1) - ends == 0  # up to and including the first end token
        longest = int(counts.sum(1).max())
        return normalize(self.text(ids[:, :longest], counts[:, :longest]), dim=1)

    @property
    def scale(self) -> Tensor:
        """Factor of cosines before a softmax: the inverse temperature."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)


def classes_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Sorted class names of each attribute in the painter's truth; photographs have neither emotion nor artist."""
    return {
        attribute: sorted({str(record[attribute]) for record in records if applies(attribute, record)})
        for attribute in ATTRIBUTES
    }


def applies(attribute: str, record: Mapping[str, Any]) -> bool:
    """Whether a picture has an attribute: photographs have only subject and style."""
    return record["kind"] == "work" or attribute in ("subject", "art_style")


def build(classes: Mapping[str, Sequence[str]], texts: Sequence[str], seed: int) -> Evaluator:
    """An evaluator with random weights; its tokenizer is trained on ``texts``."""
    torch.manual_seed(seed_of(seed, "evaluator"))
    return Evaluator(classes, base.train_tokenizer(texts, VOCABULARY))


def save(model: Evaluator, folder: Path, card: Mapping[str, Any]) -> None:
    """Write weights (float16), architecture, class names, tokenizer and a card; equal weights give equal bytes."""
    stored.save_tensors(model.state_dict(), folder / TENSORS, torch.float16)
    stored.save_json(
        {**model.config, "classes": {name: list(names) for name, names in model.classes.items()}}, folder / CONFIG
    )
    with filling(folder / TOKENIZER):
        model.tokenizer.save_pretrained(folder / TOKENIZER)
    for path in (folder / TOKENIZER).glob("*config.json"):
        content = stored.load_json(path)
        stored.save_json({key: value for key, value in content.items() if key not in base.WHEREABOUTS}, path)
    stored.save_json(card, folder / CARD)


def load(folder: Path) -> Evaluator:
    """Load an evaluator in float32, frozen; ValueError for a folder without one."""
    config = stored.load_json(folder / CONFIG)
    _check_sizes(config, folder / CONFIG)
    tokenizer = _tokenizer(folder / TOKENIZER)
    try:
        vocabulary = config.pop("vocabulary")
        if vocabulary != len(tokenizer):
            raise ValueError(f"a vocabulary of {vocabulary!r}, the tokenizer has {len(tokenizer)}")
        with torch.device("meta"):  # so that sizes are checked against the weights before memory is allocated
            model = Evaluator(tokenizer=tokenizer, **config)
    # a damaged configuration may raise any of these
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / CONFIG}: no evaluator's configuration: {reason}") from None
    stored.restore(model, folder / TENSORS)
    return model.requires_grad_(False).eval()


def _check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration whose network would take long to build."""
    sizes = {name: value for name, value in config.items() if name not in ("classes", "text")}
    text = config.get("text")
    check_sizes(sizes | (text if isinstance(text, dict) else {}), path)
    if isinstance(text, dict) and "layers" in text:
        number(text, "layers", path, 1, COUNT_LIMITS["num_hidden_layers"], whole=True)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    if not folder.is_dir():  # or transformers would look for it on the hub
        raise ValueError(f"{folder}: no such folder, expected a tokenizer's files")
    with reading(folder, "not a readable tokenizer"):
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
