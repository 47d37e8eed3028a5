"""Start an autoencoder at the best linear code, so that training adds to it instead of looking for it.

A randomly initialised f8 autoencoder spends its first thousand steps finding what principal components give at once.
Here every residual branch starts at zero, the encoder's strided convolutions compute the principal components of 2x2
blocks of 2x2 blocks of 2x2 pixels, and the decoder's upsampling convolutions are fitted by least squares, coarse to
fine. Group normalisation and SiLU are kept linear at the start by large constants, and each signal's negative, in the
unused channels of a group: the constants hold its spread, the negatives its mean.
"""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

# Signals have unit scale: two constants of +-20 make a group's spread all but independent of them, and an offset of 8
# puts SiLU where it is the identity (silu(8 + x) - 8 - x is under 0.08 for |x| < 4).
CONSTANT, OFFSET = 20.0, 8.0


def blocks(x: Tensor) -> Tensor:
    """2x2 neighbours side by side in the channel axis: (n, c, h, w) -> (n, 4 c, h/2, w/2), order (c, row, column)."""
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def principal_components(x: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (c,), leading eigenvectors (keep, c) with a fixed sign, and deviations (keep,) of (n, c, h, w)'s pixels."""
    rows = x.permute(1, 0, 2, 3).flatten(1).double()
    mean = rows.mean(1)
    values, vectors = torch.linalg.eigh((rows - mean[:, None]) @ (rows - mean[:, None]).T / rows.shape[1])
    axes = vectors.T.flip(0)[:keep]
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return mean, axes * signs, values.flip(0)[:keep].clamp_min(1e-12).sqrt()


def start_at_linear_code(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Set ``vae``'s weights to the linear code of ``pictures`` (n, 3, h, w) in [-1, 1]; a few hundred are enough."""
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith("conv2"):
                module.weight.zero_()
                module.bias.zero_()
            if name.endswith("conv_shortcut"):
                _identity(module)
        levels = _set_encoder(vae, pictures)
        _set_decoder(vae, levels)


def _identity(conv: nn.Conv2d) -> None:
    """Pass the channels that both sides have straight through."""
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    shared = min(conv.weight.shape[:2])
    middle = conv.kernel_size[0] // 2
    conv.weight[:shared, :shared, middle, middle] = torch.eye(shared)


def _slots(norm: nn.GroupNorm, signals: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """Channels for the positive and negative constants, for the signals, and for each signal's mirror image.

    A group with signals has both constants; a signal's mirror, its negative, keeps the group's mean at zero.
    """
    size = norm.num_channels // norm.num_groups
    room = (size - 2) // 2
    if room < 1:
        raise ValueError(f"linear start needs at least 4 channels a normalisation group, got {size}")
    groups = -(-signals // room)
    if groups > norm.num_groups:
        raise ValueError(f"linear start: {signals} signals do not fit {norm.num_groups} groups of {size} channels")
    starts = [group * size for group in range(groups)]
    places = [start + 2 + i for start in starts for i in range(room)][:signals]
    return starts, [start + 1 for start in starts], places, [place + room for place in places]


def _keep_linear(norm: nn.GroupNorm, signals: int) -> list[int]:
    """Set gain and offset so that SiLU(norm(x)) = x + OFFSET at the signal slots and 0 elsewhere; returns the slots."""
    _, _, places, _ = _slots(norm, signals)
    size = norm.num_channels // norm.num_groups
    norm.weight.zero_()
    norm.bias.zero_()
    norm.weight[places] = CONSTANT * (2.0 / size) ** 0.5
    norm.bias[places] = OFFSET
    return places


def _read_out(conv: nn.Conv2d, places: list[int], matrix: Tensor, bias: Tensor) -> None:
    """``conv`` = matrix @ (signals) + bias, undoing the offset of the normalisation before it."""
    assert conv.bias is not None
    conv.weight.zero_()
    conv.bias.zero_()
    middle = conv.kernel_size[0] // 2
    conv.weight[: len(matrix), places, middle, middle] = matrix.float()
    conv.bias[: len(matrix)] = (bias - OFFSET * matrix.sum(1)).float()


def _set_encoder(vae: AutoencoderKL, pictures: Tensor) -> list[Tensor]:
    """What each level holds, finest first: pictures, the codes of 2x2 and 4x4 pixels, the standardised one of 8x8."""
    encoder, z = vae.encoder, vae.config.latent_channels
    _identity(encoder.conv_in)
    levels = [pictures]
    strided = [block.downsamplers[0].conv for block in encoder.down_blocks[:-1]]
    for depth, conv in enumerate(strided):
        last = depth == len(strided) - 1
        wide = blocks(levels[-1])
        mean, axes, spread = principal_components(wide, z if last else min(conv.out_channels, wide.shape[1]))
        # only the latent is standardised: on the way, small components must stay small to come last again
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
    places = _keep_linear(encoder.conv_norm_out, z)
    _read_out(encoder.conv_out, places, torch.eye(z), torch.zeros(z))
    _identity(vae.quant_conv)
    _identity(vae.post_quant_conv)
    # log variance: -6 everywhere, so that the noise neither drowns the code nor vanishes
    vae.quant_conv.weight[z:].zero_()
    vae.quant_conv.bias[z:] = -6.0
    return levels


def _set_decoder(vae: AutoencoderKL, levels: list[Tensor]) -> None:
    """Fit each upsampling convolution to the next finer level, given what the coarser ones made of it."""
    decoder = vae.decoder
    _identity(decoder.conv_in)
    upward = [block.upsamplers[0].conv for block in decoder.up_blocks[:-1]]
    x = levels[-1]
    places: list[int] = []
    for depth, (conv, target) in enumerate(zip(upward, reversed(levels[:-1]), strict=True)):
        weight, bias = _least_squares(interpolate(x, scale_factor=2.0, mode="nearest"), target)
        out = list(range(len(bias)))
        conv.weight.zero_()
        conv.bias.zero_()
        if depth == len(upward) - 1:
            positive, negative, out, mirrors = _slots(decoder.conv_norm_out, len(bias))
            conv.bias[positive], conv.bias[negative] = CONSTANT, -CONSTANT
            places = out
        conv.weight[out, : x.shape[1]] = weight
        conv.bias[out] = bias
        if depth == len(upward) - 1:
            conv.weight[mirrors], conv.bias[mirrors] = -conv.weight[out], -conv.bias[out]
        x = conv2d(interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    _keep_linear(decoder.conv_norm_out, len(places))
    _read_out(decoder.conv_out, places, torch.eye(3), torch.zeros(3))


def _least_squares(x: Tensor, target: Tensor, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """The 3x3 convolution, weight (o, c, 3, 3) and bias (o,), that takes (n, c, h, w) closest to (n, o, h, w)."""
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
