"""A pipeline's three networks as ONNX files whose weights are stored in half precision.

A runtime computes in float32: each half weight is cast as a file is loaded. The shipped base's weights are halves
already, so that nothing is lost; another base's are rounded.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from atelier.files import write_whole
from atelier.models.latents import unscaled

OPSET = 18
SMALL = 256  # numbers: shapes, biases, norms stay as they are
GUIDED = 2  # the denoiser's batch: without words and with them


class TextEncoder(nn.Module):
    """Words (1, tokens) int64 -> embeddings (1, tokens, width)."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        super().__init__()
        self.encoder = pipeline.text_encoder

    def forward(self, words: Tensor) -> Tensor:
        embedding: Tensor = self.encoder(words).last_hidden_state
        return embedding


class Denoiser(nn.Module):
    """Latents (2, c, h, w), a time (1,), embeddings (2, tokens, width) -> noise (2, c, h, w)."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        super().__init__()
        self.unet = pipeline.unet

    def forward(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        noise: Tensor = self.unet(latents, time, embeddings, return_dict=False)[0]
        return noise


class Decoder(nn.Module):
    """Last latents (1, c, h, w), in the denoiser's units -> a picture (1, 3, 8 h, 8 w), about [-1, 1]."""

    def __init__(self, pipeline: StableDiffusionPipeline) -> None:
        super().__init__()
        self.vae = pipeline.vae

    def forward(self, latents: Tensor) -> Tensor:
        picture: Tensor = self.vae.decode(unscaled(self.vae, latents), return_dict=False)[0]
        return picture


def examples(pipeline: StableDiffusionPipeline) -> dict[str, tuple[nn.Module, dict[str, Tensor], str]]:
    """By name of a file: the network, its inputs by name, the name of its output."""
    channels, side = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    tokens, width = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.hidden_size
    latents = torch.zeros(GUIDED, channels, side, side)
    return {
        "text_encoder": (
            TextEncoder(pipeline),
            {"words": torch.zeros(1, tokens, dtype=torch.int64)},
            "embeddings",
        ),
        "denoiser": (
            Denoiser(pipeline),
            {"latents": latents, "time": torch.zeros(1), "embeddings": torch.zeros(GUIDED, tokens, width)},
            "noise",
        ),
        "decoder": (Decoder(pipeline), {"latents": latents[:1]}, "picture"),
    }


def write(pipeline: StableDiffusionPipeline, folder: Path) -> list[Path]:
    """Write one file for each network to a folder; returns their paths. The pipeline must be on the CPU, in float32."""
    from onnx import checker

    paths = []
    for name, (network, inputs, output) in examples(pipeline).items():
        program = _exported(network.eval(), inputs, output)
        halve(program)
        checker.check_model(program)
        path = folder / f"{name}.onnx"
        write_whole(path, program.SerializeToString())
        paths.append(path)
    return paths


def _exported(network: nn.Module, inputs: Mapping[str, Tensor], output: str) -> Any:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators that are not used here
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the exporter itself
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_sources(model)
    return model


def _forget_sources(model: Any) -> None:
    """Remove what tells of the machine: lines of source that the exporter notes at each node."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:], model.metadata_props[:]


def halve(model: Any) -> int:
    """Store an ONNX model's larger float32 weights in half precision; returns how many tensors rounding changed."""
    from onnx import TensorProto, helper, numpy_helper

    casts, changed = [], 0
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        whole = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = whole.astype(np.float16)
        if whole.size < SMALL or not np.isfinite(half).all():
            continue
        changed += not np.array_equal(half.astype(np.float32), whole)
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    listed = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(listed)
    return changed
