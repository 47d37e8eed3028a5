"""Initialise an autoencoder to a linear code (PCA), so that training starts from it.

A randomly initialised f8 autoencoder spends its first thousand steps learning what principal components give at once.
Here every residual branch starts at zero, the encoder's strided convolutions compute the principal components of 2x2
blocks of 2x2 blocks of 2x2 pixels, and the decoder's upsampling convolutions are fitted by least squares, coarse to
fine. Group normalisation and SiLU are made nearly linear by putting large constants and each signal's negative into
unused channels of a group: the constants fix the group's standard deviation, the negatives its mean.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

from atelier.data.checks import array_of, check_finite, check_picture_tensor, check_tensor, check_whole

# Signals have unit scale: two constants of +-20 make a group's deviation nearly independent of them, and an offset of 8
# puts SiLU where it is nearly the identity (silu(8 + x) - 8 - x is under 0.08 for |x| < 4).
CONSTANT, OFFSET = 20.0, 8.0


def blocks(x: Tensor) -> Tensor:
    """2x2 neighbours side by side in the channel axis: (n, c, h, w) -> (n, 4 c, h/2, w/2), order (c, row, column).

    Raises ValueError for integers, other shapes and odd sides.
    """
    check_tensor(x, "x", "(n, c, h, w)")
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"x: 2x2 blocks do not fill {h}x{w}")
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def principal_components(x: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (c,), leading eigenvectors (keep, c) with a fixed sign, and deviations (keep,) of (n, c, h, w)'s pixels.

    Float64. Raises ValueError for integers, other shapes, values that are not finite, and unless 1 <= keep <= c.
    """
    check_tensor(x, "x", "(n, c, h, w)")
    check_finite(array_of(x, "x"), "x")
    keep = check_whole(keep, "keep", least=1, most=x.shape[1])
    rows = x.permute(1, 0, 2, 3).flatten(1).double()
    mean = rows.mean(1)
    values, vectors = torch.linalg.eigh((rows - mean[:, None]) @ (rows - mean[:, None]).T / rows.shape[1])
    axes = vectors.T.flip(0)[:keep]
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return mean, axes * signs, values.flip(0)[:keep].clamp_min(1e-12).sqrt()


def start_at_linear_code(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Set ``vae``'s weights to the linear code of ``pictures`` (n, 3, h, w) in [-1, 1]; a few hundred are enough.

    Raises ValueError for pictures of another type, shape or range, and for sides that the encoder's halvings do not
    divide, before a weight is changed.
    """
    _check_pictures(vae, pictures)
    pictures = pictures.float()
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith("conv2"):
                module.weight.zero_()
                module.bias.zero_()
            if name.endswith("conv_shortcut"):
                _identity(module)
        levels = _set_encoder(vae, pictures)
        _set_decoder(vae, levels)


def _check_pictures(vae: AutoencoderKL, pictures: Tensor) -> None:
    check_picture_tensor(pictures, "pictures")
    values, factor = array_of(pictures, "pictures"), 2 ** (len(vae.config.block_out_channels) - 1)
    check_finite(values, "pictures")
    if values.min() < -1 or values.max() > 1:
        raise ValueError(f"pictures: expected values in [-1, 1], got {values.min():.4g} to {values.max():.4g}")
    if values.shape[2] % factor or values.shape[3] % factor:
        raise ValueError(f"pictures: expected sides that {factor} divides, got shape {values.shape}")


def _identity(conv: nn.Conv2d) -> None:
    """Make a convolution pass its common input and output channels through."""
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    shared = min(conv.weight.shape[:2])
    middle = conv.kernel_size[0] // 2
    conv.weight[:shared, :shared, middle, middle] = torch.eye(shared)


def _slots(norm: nn.GroupNorm, signals: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Channels for the positive and negative constants, for the signals, and for the signals' negatives.

    A group with signals has both constants; the negatives keep the group's mean at zero.
    """
    size = norm.num_channels // norm.num_groups
    capacity = (size - 2) // 2
    if capacity < 1:
        raise ValueError(f"linear start needs at least 4 channels a normalisation group, got {size}")
    groups = -(-signals // capacity)
    if groups > norm.num_groups:
        raise ValueError(f"linear start: {signals} signals do not fit {norm.num_groups} groups of {size} channels")
    starts = [group * size for group in range(groups)]
    channels = [start + 2 + i for start in starts for i in range(capacity)][:signals]
    return starts, [start + 1 for start in starts], channels, [channel + capacity for channel in channels]


def _keep_linear(norm: nn.GroupNorm, signals: int) -> list[int]:
    """Set gain and offset so that SiLU(norm(x)) = x + OFFSET at the signals' channels, else 0; returns these."""
    _, _, channels, _ = _slots(norm, signals)
    size = norm.num_channels // norm.num_groups
    norm.weight.zero_()
    norm.bias.zero_()
    norm.weight[channels] = CONSTANT * (2.0 / size) ** 0.5
    norm.bias[channels] = OFFSET
    return channels


def _read_out(conv: nn.Conv2d, channels: list[int], matrix: Tensor, bias: Tensor) -> None:
    """Set ``conv`` to matrix @ (signals) + bias, removing the offset of the normalisation before it."""
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    middle = conv.kernel_size[0] // 2
    conv.weight[: len(matrix), channels, middle, middle] = matrix.float()
    conv.bias[: len(matrix)] = (bias - OFFSET * matrix.sum(1)).float()


def _set_encoder(vae: AutoencoderKL, pictures: Tensor) -> list[Tensor]:
    """Set the encoder; returns each level, finest first: pictures, codes of 2x2, 4x4 and (standardised) 8x8 pixels."""
    encoder, z = vae.encoder, vae.config.latent_channels
    _identity(encoder.conv_in)
    levels = [pictures]
    strided = [block.downsamplers[0].conv for block in encoder.down_blocks[:-1]]
    for depth, conv in enumerate(strided):
        last = depth == len(strided) - 1
        wide = blocks(levels[-1])
        mean, axes, spread = principal_components(wide, z if last else min(conv.out_channels, wide.shape[1]))
        # only the latent is standardised: earlier, small components must stay small to rank last again
        matrix = axes / spread[:, None] if last else axes
        out = list(range(len(axes)))
        conv.weight.zero_()
        conv.bias.zero_()
        if last:
            positive, negative, out, mirrors = _slots(encoder.conv_norm_out, z)
            if max(mirrors) >= conv.out_channels:
                raise ValueError(f"linear start: {z} latent channels do not fit {conv.out_channels} channels")
            conv.bias[positive], conv.bias[negative] = CONSTANT, -CONSTANT
        conv.weight[out, : levels[-1].shape[1], :2, :2] = matrix.view(len(axes), -1, 2, 2).float()
        conv.bias[out] = -(matrix @ mean).float()
        if last:
            conv.weight[mirrors], conv.bias[mirrors] = -conv.weight[out], -conv.bias[out]
        levels.append(torch.einsum("oc,nchw->nohw", matrix.float(), wide) - (matrix @ mean).float()[:, None, None])
    channels = _keep_linear(encoder.conv_norm_out, z)
    _read_out(encoder.conv_out, channels, torch.eye(z), torch.zeros(z))
    _identity(vae.quant_conv)
    _identity(vae.post_quant_conv)
    # constant log variance of -6: noise that is neither too strong nor negligible
    vae.quant_conv.weight[z:].zero_()
    vae.quant_conv.bias[z:] = -6.0
    return levels


def _set_decoder(vae: AutoencoderKL, levels: list[Tensor]) -> None:
    """Fit each upsampling convolution to the next finer level, given the output of the coarser ones."""
    decoder = vae.decoder
    _identity(decoder.conv_in)
    upward = [block.upsamplers[0].conv for block in decoder.up_blocks[:-1]]
    x = levels[-1]
    channels: list[int] = []
    for depth, (conv, target) in enumerate(zip(upward, reversed(levels[:-1]), strict=True)):
        weight, bias = _least_squares(interpolate(x, scale_factor=2.0, mode="nearest"), target)
        out = list(range(len(bias)))
        conv.weight.zero_()
        conv.bias.zero_()
        if depth == len(upward) - 1:
            positive, negative, out, mirrors = _slots(decoder.conv_norm_out, len(bias))
            conv.bias[positive], conv.bias[negative] = CONSTANT, -CONSTANT
            channels = out
        conv.weight[out, : x.shape[1]] = weight
        conv.bias[out] = bias
        if depth == len(upward) - 1:
            conv.weight[mirrors], conv.bias[mirrors] = -conv.weight[out], -conv.bias[out]
        x = conv2d(interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    _keep_linear(decoder.conv_norm_out, len(channels))
    _read_out(decoder.conv_out, channels, torch.eye(3), torch.zeros(3))


def _least_squares(x: Tensor, target: Tensor, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """The 3x3 convolution, weight (o, c, 3, 3) and bias (o,), that maps (n, c, h, w) closest to (n, o, h, w)."""
    n, c, h, w = x.shape
    gram = torch.zeros(9 * c + 1, 9 * c + 1, dtype=torch.float64)
    cross = torch.zeros(9 * c + 1, target.shape[1], dtype=torch.float64)
    for part, wanted in zip(x.split(32), target.split(32), strict=True):
        columns = torch.nn.functional.unfold(pad(part, (1, 1, 1, 1)), 3).transpose(1, 2).reshape(-1, 9 * c).double()
        columns = torch.cat([columns, torch.ones(len(columns), 1, dtype=torch.float64)], 1)
        rows = wanted.permute(0, 2, 3, 1).reshape(len(columns), -1).double()
        gram += columns.T @ columns
        cross += columns.T @ rows
    gram += ridge * n * h * w * torch.eye(len(gram), dtype=torch.float64)
    solution = torch.linalg.solve(gram, cross)
    return solution[:-1].T.reshape(-1, c, 3, 3).float().contiguous(), solution[-1].float()
