"""CLIP (Radford et al. 2021), transformers' ``CLIPModel`` with its tokenizer, from a local folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from atelier.data.checks import check_picture_tensor, check_texts
from atelier.files import reading, shown
from atelier.models import vision
from atelier.models.checked import CONFIG

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's training pictures
OLD_END = 2  # what old configurations say of the end token, which is then the largest one


class Clip(nn.Module):
    """Pictures (n, 3, h, w) uint8 to embeddings (n, d), not of unit length; ``texts``: prompts to the same space."""

    def __init__(self, network: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        text: Any = network.config.text_config
        seen: Any = network.config.vision_config
        self.length, self.side = text.max_position_embeddings, seen.image_size  # tokens; px

    def forward(self, pictures: Tensor) -> Tensor:
        """The centred square of each picture, at the network's size. ValueError for anything but RGB uint8."""
        check_picture_tensor(pictures, "pictures", ("uint8",))
        x = vision.cropped(pictures, self.side)
        seen = self.network.vision_model(pixel_values=vision.normalised(x, MEAN, STD)).pooler_output
        return self.network.visual_projection(seen)

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to embeddings (n, d), not of unit length; what is longer than the network reads is cut off."""
        check_texts(prompts, "prompts")
        read = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=self.length, return_tensors="pt")
        inputs = {key: read[key].to(self.network.logit_scale.device) for key in ("input_ids", "attention_mask")}
        return self.network.text_projection(self.network.text_model(**inputs).pooler_output)


def load(folder: Path) -> Clip:
    """The frozen float32 network of a folder.

    Raises ValueError, one line that names the file, as ``vision.load`` does, and for another network's tokenizer.
    """
    network = vision.load(folder, CLIPModel)
    with reading(folder, "not a readable tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    text: Any = network.config.text_config
    end = tokenizer.eos_token_id
    if len(tokenizer) != text.vocab_size:
        raise ValueError(f"{folder}: its tokenizer has {len(tokenizer)} tokens, {CONFIG} {text.vocab_size}")
    # where the two differ, the network reads a prompt's first token in place of its last
    if text.eos_token_id != end and (text.eos_token_id != OLD_END or end != len(tokenizer) - 1):
        raise ValueError(f"{folder}: its tokenizer's end token is {end}, that of {CONFIG} {text.eos_token_id}")
    loaded = Clip(network, tokenizer)
    if type(loaded.side) is not int:
        raise ValueError(f"{folder / CONFIG}: vision_config.image_size: expected a number, got {shown(loaded.side)}")
    return loaded.eval()
