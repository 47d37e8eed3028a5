"""A CLIP tokenizer's tables, as ``page/tokenizer.mjs`` reads them."""

import json
from typing import Any

from transformers import CLIPTokenizer


def tables(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """Tokens by number, merges by rank, and the marks that begin, end and fill a text of ``length`` numbers."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    marks = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    return {
        "tokens": [token for token, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1])],
        "merges": [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]],
        "special": {str(token): number for number, token in sorted(tokenizer.added_tokens_decoder.items())},
        "start": marks["bos"],
        "end": marks["eos"],
        "pad": marks["pad"],
        "unknown": marks["unk"],
        "length": tokenizer.model_max_length,
    }
