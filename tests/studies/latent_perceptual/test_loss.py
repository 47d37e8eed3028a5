"""The loss on decoder features: its mask, its statistics, its gradient in slices, against a plain loop over all."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from scipy import ndimage
from torch import Tensor, nn

from atelier.diffusion import STABLE_DIFFUSION_BETAS, flow_path, scaled_linear_betas, signal_and_noise
from atelier.methods import latent_perceptual as method
from atelier.methods.latent_perceptual import (
    Options,
    depth_weights,
    latent_perceptual_loss,
    outlier_mask,
    stage_distance,
    stage_losses,
    standardised,
    threshold,
    valid_positions,
)
from atelier.models import base
from atelier.models.autoencoders import Window, decoder_stages
from atelier.params import Norm
from atelier.studies.latent_perceptual.loss import (
    TERM,
    Compare,
    gated,
    latent_error,
    perceptual,
    weight_for,
)
from atelier.studies.latent_perceptual.params import PostTraining
from atelier.training.denoiser import Denoised
from atelier.training.order import Turn
from atelier.training.slices import drawn_window, in_slices

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("epsilon", "v_prediction", "flow_prediction")
DETACHED: tuple[Norm, ...] = ("predicted", "target", "separate", "unit")
NORMS: tuple[Norm, ...] = (*DETACHED, "lpips")
NAMES = [f"Style/work-{i}.png" for i in range(9)]
BATCH = [Turn(4, 0), Turn(1, 0), Turn(4, 1), Turn(0, 7), Turn(8, 2), Turn(3, 0)]
LPL = PostTraining(loss="perceptual")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def even(*shape: int, seed: int = 0) -> Tensor:
    """Uniform numbers, none of which lies outside the others."""
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ the mask


def masked(features: Tensor, down: float = 1.0) -> int:
    return int((~outlier_mask(features, down)).sum())


def with_block(side: int, top: int, left: int, of: int = 64) -> Tensor:
    """A map of even numbers with a square of much larger ones."""
    features = even(1, 1, of, of)
    features[..., top : top + side, left : left + side] += 1000
    return features


def test_nothing_of_white_noise_is_masked() -> None:
    assert masked(randn(8, 4, 64, 64)) == 0


@pytest.mark.parametrize("side", range(1, 14))
def test_a_block_is_masked_with_a_rim_unless_it_is_a_speck_or_more_than_two_percent(side: int) -> None:
    assert masked(with_block(side, 20, 30)) == ((side + 2) ** 2 if 3 <= side <= 9 else 0)
    # of the smallest the 81st is the quantile, of the largest the 83rd
    assert masked(-with_block(side, 20, 30)) == ((side + 2) ** 2 if 3 <= side <= 8 else 0)


def test_what_is_masked_is_the_block_and_a_pixel_around_it() -> None:
    valid = outlier_mask(with_block(4, 20, 30))[0, 0]
    assert not valid[19:25, 29:35].any()
    assert int((~valid).sum()) == 36


def test_on_maps_of_half_the_side_a_single_spike_is_masked() -> None:
    assert masked(with_block(1, 20, 30), down=2.0) == 9


def test_a_speck_in_a_corner_is_masked() -> None:
    """Nothing beyond the border wears it away."""
    for top, left in ((0, 0), (0, 62), (62, 0), (62, 62)):
        assert masked(with_block(2, top, left)) == 9


@pytest.mark.parametrize("of", [8, 16])
def test_small_maps_are_never_masked(of: int) -> None:
    """But for the corners."""
    for side in range(1, of + 1):
        for top, left in np.ndindex(of - side + 1, of - side + 1):
            if min(top, left) > 0 and max(top, left) < of - side:
                assert masked(with_block(side, top, left, of)) == 0


@pytest.mark.parametrize("down", [0.5, 0.25, 0.3, 1.0, 2.0, 4.0, 8.0])
def test_a_mask_has_its_maps_size_whatever_the_picture(down: int) -> None:
    assert outlier_mask(even(2, 3, 40, 64), down).shape == (2, 3, 40, 64)


@pytest.mark.parametrize("side", range(4, 10))
def test_kernels_of_larger_pictures_are_larger_and_odd(side: int) -> None:
    """Eleven and seven where the picture is twice as large: blocks under seven are specks, others grow by two."""
    assert masked(with_block(side, 20, 30), down=0.5) == ((side + 4) ** 2 if side >= 7 else 0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e6, 1e-20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_maps_stay_valid(value: float, dtype: torch.dtype) -> None:
    for down in (1.0, 2.0):
        assert masked(torch.full((2, 3, 64, 64), value, dtype=dtype), down) == 0


def test_what_rounding_makes_of_a_flat_map_is_no_outlier() -> None:
    """A deviation too small to change the quantiles that it is added to."""
    features = 100 + 1e-6 * torch.randn(1, 1, 64, 64, generator=generator())
    assert len(features.unique()) > 1
    assert masked(features) == 0


def test_a_mask_agrees_with_one_made_otherwise() -> None:
    """Nearest-rank quantiles by ``kthvalue``, morphology by scipy; heavy tails, so that there is much to mask."""
    features = randn(2, 6, 64, 48, seed=3).sinh()
    features[..., 10:14, 20:24] += 50
    for down in (0.5, 1.0, 2.0):
        found = outlier_mask(features, down)
        for sample, channel in np.ndindex(2, 6):
            expected = plain_mask(features[sample, channel], down)
            assert torch.equal(found[sample, channel], expected)
    assert min(masked(features, down) for down in (1.0, 2.0)) > 100


def test_only_deep_stages_are_masked() -> None:
    features = with_block(1, 20, 30)
    assert not valid_positions(features, features, picture_side=128).all()
    assert valid_positions(features, features, picture_side=256).all()
    assert valid_positions(features, features, 128, "none").all()


def test_a_mask_is_of_what_was_asked_for() -> None:
    target, predicted = with_block(1, 9, 9), with_block(1, 40, 40)
    one, other = outlier_mask(target, 2.0), outlier_mask(predicted, 2.0)
    assert torch.equal(valid_positions(target, predicted, 128), other)
    assert torch.equal(valid_positions(target, predicted, 128, "target"), one)
    assert torch.equal(valid_positions(target, predicted, 128, "both"), one & other)
    assert not torch.equal(one, other)


# ------------------------------------------------------------------------------------------------ the loss


def stages_of(seed: int, sides: Sequence[int] = (2, 4, 8, 16, 16), n: int = 3) -> list[Tensor]:
    return [randn(n, 4 + at, side, side, seed=seed + at) * (1 + at) + at for at, side in enumerate(sides)]


@pytest.mark.parametrize("norm", NORMS)
def test_of_equals_loss_and_gradient_are_exactly_nothing(norm: Norm) -> None:
    targets = stages_of(1)
    predictions = [stage.clone().requires_grad_(True) for stage in targets]
    losses = latent_perceptual_loss(targets, predictions, 16, Options(norm=norm))
    losses.sum().backward()
    assert torch.equal(losses, torch.zeros(3, dtype=torch.float64))
    assert all(torch.equal(stage.grad, torch.zeros_like(stage)) for stage in predictions)  # type: ignore[arg-type]


def test_separate_statistics_are_blind_to_gain_and_offset() -> None:
    targets = stages_of(2)
    predictions = [2 * stage + 1 for stage in targets]
    assert float(latent_perceptual_loss(targets, predictions, 16, Options(norm="separate")).max()) < 1e-20
    for norm in ("predicted", "target", "unit"):
        assert float(latent_perceptual_loss(targets, predictions, 16, Options(norm=norm)).min()) > 0.1


def test_weights_of_depths_are_the_known_ones() -> None:
    sides = [8, 16, 32, 64, 64]
    assert depth_weights(sides) == [1.0, 0.5, 0.25, 0.125, 0.125]
    assert depth_weights(sides, "printed") == [0.5, 0.25, 0.0625, 0.00390625, 0.00390625]
    assert depth_weights(sides, "equal") == [1.0] * 5
    assert depth_weights([1, 2, 4, 8, 8]) == depth_weights(sides)


@pytest.mark.parametrize("norm", DETACHED)
def test_a_gradient_takes_its_statistics_for_constants(norm: Norm) -> None:
    target, predicted = with_block(1, 9, 9) + randn(1, 1, 64, 64), with_block(1, 40, 40)
    target, predicted = torch.cat([target, target * 2], 1), torch.cat([predicted, randn(1, 1, 64, 64, seed=5)], 1)
    predicted.requires_grad_(True)
    valid = outlier_mask(predicted, 2.0)
    (found,) = torch.autograd.grad(stage_distance(target, predicted, valid, norm), predicted)
    expected = torch.zeros_like(predicted)
    with torch.no_grad():
        for channel in range(2):
            kept = valid[0, channel]
            x, t = predicted[0, channel], target[0, channel]
            by = t if norm in ("target", "separate") else x
            mean, deviation = (by[kept].mean(), by[kept].std(correction=0))
            one, other, slope = (t - mean) / deviation, (x - mean) / deviation, 1 / deviation
            if norm == "separate":
                other, slope = (x - x[kept].mean()) / x[kept].std(correction=0), 1 / x[kept].std(correction=0)
            if norm == "unit":
                slope = 1 / (valid * target)[0].square().sum(0).sqrt()
                one, other = t * slope, x * slope
            expected[0, channel] = torch.where(kept, 2 * slope * (other - one) / kept.sum() / 2, 0)
    assert not valid.all()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_outliers_count_neither_for_statistics_nor_for_the_loss() -> None:
    target, predicted = even(1, 1, 64, 64, seed=1), with_block(1, 20, 30)
    valid = outlier_mask(predicted, 2.0)
    one = stage_distance(target, predicted, valid)
    assert torch.equal(one, stage_distance(target, predicted + 1e6 * ~valid, valid))
    assert float(one) < 0.1 * float(stage_distance(target, predicted, torch.ones_like(valid), "target"))


def test_unit_is_a_difference_of_vectors_over_the_targets_length() -> None:
    target, predicted = randn(2, 5, 6, 7, seed=1), randn(2, 5, 6, 7, seed=2)
    found = stage_distance(target, predicted, torch.ones_like(target, dtype=torch.bool), "unit")
    expected = ((target - predicted).square().sum(1) / target.square().sum(1)).mean((1, 2)) / 5
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_lpips_is_twice_one_less_the_cosine_of_vectors() -> None:
    """So that it does not see how long they are."""
    target, predicted = randn(2, 5, 6, 7, seed=1), randn(2, 5, 6, 7, seed=2)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    expected = 2 * (1 - torch.cosine_similarity(target, predicted, dim=1)).mean((1, 2)) / 5
    torch.testing.assert_close(stage_distance(target, predicted, everywhere, "lpips"), expected, rtol=1e-13, atol=0)
    longer = stage_distance(target, predicted * (1 + randn(2, 1, 6, 7).square()), everywhere, "lpips")
    torch.testing.assert_close(longer, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("norm", ["unit", "lpips"])
def test_an_outlier_does_not_make_a_vector_longer(norm: Norm) -> None:
    """Or else it would hide what the other maps say at its place."""
    target, predicted = randn(1, 3, 8, 8, seed=1), randn(1, 3, 8, 8, seed=2)
    valid = torch.ones_like(target, dtype=torch.bool)
    valid[0, 0, 2, 5] = False
    expected = stage_distance(target, predicted, valid, norm)
    target[0, 0, 2, 5], predicted[0, 0, 2, 5] = 1e6, 1e7
    assert torch.equal(stage_distance(target, predicted, valid, norm), expected)


def test_a_sum_over_places_is_their_mean_times_their_number() -> None:
    """Eq. 2 as it is printed: a stage twice as large says four times as much."""
    target, predicted = randn(2, 5, 6, 7, seed=1), randn(2, 5, 6, 7, seed=2)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    found = stage_distance(target, predicted, everywhere, places="sum")
    torch.testing.assert_close(found, 42 * stage_distance(target, predicted, everywhere), rtol=1e-13, atol=0)
    options = Options(places="sum")
    expected = sum(
        weight * stage_distance(one, other, valid_positions(one, other, 16), places="sum")
        for weight, one, other in zip((1, 0.5, 0.25, 0.125, 0.125), stages_of(4), stages_of(40), strict=True)
    )
    torch.testing.assert_close(latent_perceptual_loss(stages_of(4), stages_of(40), 16, options), expected)


def test_diffusers_research_form_is_reached_by_options() -> None:
    """Means of squared differences of unit vectors, of all stages alike; by each one's length, or by the target's."""
    targets, predictions = stages_of(4), stages_of(40)
    own, shared = [], []
    for one, other in zip(targets, predictions, strict=True):
        length = one.square().sum(1, keepdim=True).sqrt()
        apart = one / length - other / other.square().sum(1, keepdim=True).sqrt()
        own.append(apart.square().mean((1, 2, 3)))
        shared.append(((one - other) / length).square().mean((1, 2, 3)))
    for norm, expected in (("lpips", own), ("unit", shared)):
        found = latent_perceptual_loss(targets, predictions, 16, Options(norm, "equal", "none", stages="mean"))
        torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=1e-13, atol=0)


def test_a_loss_does_not_depend_on_its_units() -> None:
    targets, predictions = stages_of(3), stages_of(30)
    plain = latent_perceptual_loss(targets, predictions, 16)
    scaled = latent_perceptual_loss([7 * x - 3 for x in targets], [7 * x - 3 for x in predictions], 16)
    torch.testing.assert_close(scaled, plain, rtol=1e-12, atol=0)


def test_a_loss_is_the_weighed_sum_of_its_stages_or_their_mean() -> None:
    targets, predictions = stages_of(4), stages_of(40)
    each = torch.stack(stage_losses(targets, predictions, 16))
    expected = (each * torch.tensor([1, 0.5, 0.25, 0.125, 0.125], dtype=torch.float64)[:, None]).sum(0)
    torch.testing.assert_close(latent_perceptual_loss(targets, predictions, 16), expected, rtol=1e-14, atol=0)
    mean = latent_perceptual_loss(targets, predictions, 16, Options(stages="mean"))
    torch.testing.assert_close(mean, expected / 5, rtol=1e-14, atol=0)


def test_maps_that_do_not_vary_are_finite() -> None:
    flat = torch.full((1, 3, 8, 8), 2.5, requires_grad=True)
    for target in (torch.full((1, 3, 8, 8), 1.5), torch.randn(1, 3, 8, 8, generator=generator())):
        for norm in NORMS:
            loss = latent_perceptual_loss([target], [flat], 8, Options(norm=norm)).sum()
            assert torch.isfinite(loss)
            assert torch.isfinite(torch.autograd.grad(loss, flat)[0]).all()


def test_stages_that_do_not_match_are_refused() -> None:
    for others in (stages_of(1)[:4], stages_of(1, n=2), []):
        with pytest.raises(ValueError, match="stages do not match"):
            latent_perceptual_loss(stages_of(1), others, 16)
    with pytest.raises(ValueError, match="stages do not match"):
        latent_perceptual_loss([], [], 16)


def test_targets_have_no_gradient() -> None:
    targets = [stage.requires_grad_(True) for stage in stages_of(1)]
    predictions = [stage.requires_grad_(True) for stage in stages_of(9)]
    latent_perceptual_loss(targets, predictions, 16, Options(norm="target")).sum().backward()
    assert all(stage.grad is None for stage in targets)
    assert all(stage.grad is not None for stage in predictions)


@pytest.mark.parametrize("norm", ["target", "unit", "lpips"])
def test_the_gradient_is_that_of_finite_differences(norm: Norm) -> None:
    sides = (2, 4, 8)
    targets, predictions = stages_of(5, sides, n=1), stages_of(50, sides, n=1)
    predictions[1][0, 0, 3, 3] += 100
    assert not valid_positions(targets[1], predictions[1], 8).all()
    inputs = [stage.requires_grad_(True) for stage in predictions]
    assert torch.autograd.gradcheck(lambda *x: latent_perceptual_loss(targets, x, 8, Options(norm=norm)), inputs)


def test_the_gradient_is_that_of_finite_differences_of_frozen_statistics() -> None:
    """As the paper has it, where what is detached is the predicted features' own."""
    sides = (4, 8, 12)
    targets, predictions = stages_of(6, sides, n=2), stages_of(60, sides, n=2)
    predictions[1][0, 0, 3, 3] += 100
    valid = [valid_positions(one, other, 12) for one, other in zip(targets, predictions, strict=True)]
    known = [method.statistics(x, kept) for x, kept in zip(predictions, valid, strict=True)]
    inputs = [stage.clone().requires_grad_(True) for stage in predictions]
    latent_perceptual_loss(targets, inputs, 12).sum().backward()
    gradient = torch.cat([stage.grad.flatten() for stage in inputs if stage.grad is not None])

    def frozen(stages: Sequence[Tensor]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for t, x, kept, (mean, deviation), omega in zip(targets, stages, valid, known, (1, 1 / 2, 1 / 3), strict=True):
            squares = ((t - mean) / deviation - (x - mean) / deviation).square() * kept
            total += omega * (squares.sum((2, 3)) / kept.sum((2, 3))).mean(1).sum()
        return total

    def alive(stages: Sequence[Tensor]) -> Tensor:
        return latent_perceptual_loss(targets, stages, 12).sum()

    for seed in range(4):
        ways = [randn(*stage.shape, seed=seed + 10 * at) for at, stage in enumerate(predictions)]
        along = float(gradient @ torch.cat([way.flatten() for way in ways]))
        step = 1e-5
        slopes = []
        for loss in (frozen, alive):
            ahead, behind = (
                float(loss([x + sign * step * way for x, way in zip(predictions, ways, strict=True)]))
                for sign in (1, -1)
            )
            slopes.append((ahead - behind) / (2 * step))
        assert along == pytest.approx(slopes[0], rel=1e-7)
        assert along != pytest.approx(slopes[1], rel=1e-3)


def test_half_precision_is_compared_in_single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bits cannot hold the mean of four thousand values."""
    seen: list[torch.dtype] = []
    real = method.statistics

    def noted(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        found = real(features, valid)
        seen.extend([features.dtype, *(value.dtype for value in found)])
        return found

    monkeypatch.setattr(method, "statistics", noted)
    for half in (torch.bfloat16, torch.float16):
        targets, predictions = ([x.to(half) for x in stages_of(seed)] for seed in (7, 70))
        found = latent_perceptual_loss(targets, predictions, 16)
        expected = latent_perceptual_loss([x.float() for x in targets], [x.float() for x in predictions], 16)
        assert torch.equal(found, expected)
    assert set(seen) == {torch.float32}


# ------------------------------------------------------------------------------------------------ the decoder


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    """Random, of five stages: 8, 16, 32, 64 and 64 pixels a side where the latent has 8; with attention in the middle,
    as others' have, and a shift."""
    torch.manual_seed(3)
    built = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    return built.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def double(vae: AutoencoderKL) -> AutoencoderKL:
    return copy.deepcopy(vae).double()


class Seen(NamedTuple):
    """Rows that went through each of a decoder's parts, the middle block's first, call by call."""

    rows: list[list[int]]


@contextmanager
def watched(vae: AutoencoderKL) -> Iterator[Seen]:
    parts = [vae.decoder.mid_block, *vae.decoder.up_blocks]
    seen = Seen([[] for _ in parts])

    def note(at: int) -> Any:
        return lambda _part, _given, out: seen.rows[at].append(len(out))

    handles = [part.register_forward_hook(note(at)) for at, part in enumerate(parts)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def whole_features(vae: AutoencoderKL, z: Tensor) -> list[Tensor]:
    """Features of all stages, caught while a picture is decoded to its end."""
    found: list[Tensor] = []
    parts = [vae.decoder.mid_block, *vae.decoder.up_blocks]
    handles = [part.register_forward_hook(lambda _part, _given, out: found.append(out)) for part in parts]
    vae.decode(z)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("depth", range(1, 6))
def test_stages_are_the_features_of_a_whole_decoding(double: AutoencoderKL, depth: int) -> None:
    z = randn(2, 4, 8, 8)
    with watched(double) as seen:
        stages = decoder_stages(double, z, depth)
    assert seen.rows == [[2]] * depth + [[]] * (5 - depth)  # no later layer runs
    for found, expected in zip(stages, whole_features(double, z)[:depth], strict=True):
        assert torch.equal(found, expected)


def test_a_window_cuts_behind_the_middle_block(double: AutoencoderKL) -> None:
    z = randn(2, 4, 8, 8)
    whole = decoder_stages(double, z, 5)
    cut = decoder_stages(double, z, 5, Window(1, 3, 4))
    assert torch.equal(cut[0], whole[0][..., 1:5, 3:7])  # the middle block saw all
    assert [tuple(stage.shape[-2:]) for stage in cut] == [(4, 4), (8, 8), (16, 16), (32, 32), (32, 32)]
    for found, block, given in zip(cut[1:], double.decoder.up_blocks, cut, strict=False):
        assert torch.equal(found, block(given))


def test_a_window_of_all_changes_nothing(double: AutoencoderKL) -> None:
    z = randn(2, 4, 8, 8)
    pairs = zip(decoder_stages(double, z, 5), decoder_stages(double, z, 5, Window(0, 0, 8)), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_windows_lie_within_and_depend_on_the_turn_alone() -> None:
    windows = [drawn_window((6, 9), 4, 5, NAMES[0], epoch) for epoch in range(300)]
    assert {(window.top, window.left) for window in windows} == {(top, left) for top in range(3) for left in range(6)}
    torch.manual_seed(9)
    assert drawn_window((6, 9), 4, 5, NAMES[0], 7) == windows[7]
    assert len({drawn_window((64, 64), 4, 5, name, 0) for name in NAMES}) > 1
    assert drawn_window((4, 4), 4, 5, NAMES[0], 1) == (0, 0, 4)


@pytest.mark.parametrize("depth", [0, 6])
def test_a_depth_that_the_decoder_has_not_is_refused(vae: AutoencoderKL, depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth: expected 1 to 5 stages of this decoder, got {depth}"):
        decoder_stages(vae, torch.zeros(1, 4, 8, 8), depth)


def test_a_decoder_without_stages_is_refused_by_name() -> None:
    from diffusers import AutoencoderTiny

    with pytest.raises(ValueError, match="AutoencoderTiny: its decoder has no stages"):
        decoder_stages(AutoencoderTiny(), torch.zeros(1, 4, 8, 8), 5)


# ------------------------------------------------------------------------------------------------ a step


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return base.build("tiny", 64, ["a boat"], seed=1).unet.eval()


# noise over signal; at a latent of 8 a tau of 4 is 0.5
SIGMAS = (0.3, 0.7, 0.05, 20.0, 0.49, 0.2)
UNDER = [0, 2, 4, 5]


def coefficients(kind: str, sigmas: Sequence[float] = SIGMAS) -> tuple[Tensor, Tensor]:
    sigma = torch.tensor(sigmas, dtype=torch.float64).view(-1, 1, 1, 1)
    scale = 1 + sigma if kind == "flow_prediction" else (1 + sigma**2).sqrt()
    return 1 / scale, sigma / scale


def step_of(kind: str, unet: nn.Module, dtype: torch.dtype = torch.float64) -> Denoised:
    """A batch's step with a graph to the denoiser's parameters; in each latent a place that stands out."""
    alpha, s = coefficients(kind)
    z0, eps = randn(6, 4, 8, 8, seed=1) / 2, randn(6, 4, 8, 8, seed=2)
    z0[:, :, 3, 5] += 12
    zt = (alpha * z0 + s * eps).to(dtype)
    t, words = torch.arange(6) * 100, randn(6, base.MAX_TOKENS, 32, seed=3).to(dtype)
    output = unet(zt, t, words).sample
    return Denoised(z0.to(dtype), zt, alpha.to(dtype), s.to(dtype), output, BATCH, (s / alpha).flatten(), eps.to(dtype))


def gradients(value: Tensor, unet: nn.Module) -> Tensor:
    """Of all the denoiser's parameters, in one row; the last step's graph is kept."""
    found = torch.autograd.grad(value, list(unet.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


def plain_mask(features: Tensor, down: float) -> Tensor:
    """Algorithm 1 of one map (h, w)."""
    flat, n = features.flatten(), features.numel()
    low, high = (flat.kthvalue(max(1, int(q * n))).values for q in (0.02, 0.98))
    room = 2 * flat.std()
    valid = ((low - room < features) & (features < high + room)).numpy()
    closing, opening = {0.5: (7, 11), 1.0: (3, 5), 2.0: (1, 3)}[down]
    grown = ndimage.binary_dilation(valid, np.ones((closing, closing)), border_value=0)
    return torch.from_numpy(ndimage.binary_erosion(grown, np.ones((opening, opening)), border_value=1))


def plain_term(kind: str, step: Denoised, vae: AutoencoderKL, tau: float, weight: float) -> tuple[Tensor, int]:
    """Equations 2 and 3 sample by sample, stage by stage, channel by channel; and how many places were left out."""
    total, left_out = torch.zeros((), dtype=step.output.dtype), 0
    for zt, z0, alpha, s, output in zip(step.zt, step.z0, step.alpha, step.s, step.output, strict=True):
        if float(s / alpha) > tau * zt.shape[-1] / 64:
            continue
        estimate = {
            "epsilon": (zt - s * output) / alpha,
            "v_prediction": alpha * zt - s * output,
            "flow_prediction": zt - s * output,
        }[kind]
        phis, hats = (whole_features(vae, z[None] / 0.5 + 0.1) for z in (z0, estimate))
        for phi, hat in zip(phis, hats, strict=True):
            side, channels = hat.shape[-1], hat.shape[1]
            for t, x in zip(phi[0].detach(), hat[0], strict=True):
                down = 64 / side
                valid = plain_mask(x.detach(), down) if down <= 2 else torch.ones(side, side, dtype=torch.bool)
                left_out += int((~valid).sum())
                kept = x.detach()[valid]
                mean, deviation = kept.mean(), kept.std(correction=0)
                squares = ((t - mean) / deviation - (x - mean) / deviation)[valid].square()
                total = total + weight * (8 / side) / channels * squares.mean() / len(step.batch)
    return total, left_out


def ordinary_term(kind: str, step: Denoised, vae: AutoencoderKL, tau: float, weight: float) -> Tensor:
    """The same reductions in one graph of autograd's: nothing sliced, nothing handed over, targets with a graph."""
    under = [at for at in range(len(step.batch)) if float(step.s[at] / step.alpha[at]) <= tau * 8 / 64]
    zt, alpha, s, output = (each[under] for each in (step.zt, step.alpha, step.s, step.output))
    estimates = {
        "epsilon": lambda: (zt - s * output) / alpha,
        "v_prediction": lambda: alpha * zt - s * output,
        "flow_prediction": lambda: zt - s * output,
    }[kind]()
    targets = step.z0[under].clone().requires_grad_(True)
    phis, hats = (whole_features(vae, z / 0.5 + 0.1) for z in (targets, estimates))
    assert all(phi.requires_grad for phi in phis)
    losses = latent_perceptual_loss([phi.detach() for phi in phis], hats, 64)
    return weight * losses.sum() / len(step.batch)


def ours(
    kind: str, step: Denoised, vae: AutoencoderKL, size: int, weight: float = 1.0, training: PostTraining = LPL
) -> Tensor:
    compare = perceptual(vae, training, 0, NAMES, seed=5)
    return gated(compare, kind, training.tau, size, weight)(step)[TERM]


def gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_are_those_of_a_plain_loop(kind: str, unet: nn.Module, double: AutoencoderKL) -> None:
    own = copy.deepcopy(unet).double()
    step = step_of(kind, own)
    expected, left_out = plain_term(kind, step, double, LPL.tau, weight=0.7)
    assert left_out > 100
    wanted = gradients(expected, own)
    for size in (1, 3, 4):
        found = ours(kind, step, double, size, weight=0.7)
        gaps = gap(found, expected), gap(gradients(found, own), wanted)
        print(f"\n{kind}, slices of {size}, float64: value {gaps[0]:.1e}, gradient {gaps[1]:.1e}; masked {left_out}")
        assert max(gaps) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_slices_change_single_precision_by_its_rounding(
    kind: str, unet: nn.Module, vae: AutoencoderKL, double: AutoencoderKL
) -> None:
    """No more than twice what one graph is off itself, and that is a few units of its last digit."""
    step = step_of(kind, unet, torch.float32)
    expected = ordinary_term(kind, step, vae, LPL.tau, weight=0.7)
    wanted, exact = gradients(expected, unet), copy.deepcopy(unet).double()
    off = gap(wanted, gradients(ordinary_term(kind, step_of(kind, exact), double, LPL.tau, weight=0.7), exact))
    for size in (1, 2, 3, 4):
        found = ours(kind, step, vae, size, weight=0.7)
        gaps = gap(found, expected), gap(gradients(found, unet), wanted)
        print(f"\n{kind}, slices of {size}, float32: value {gaps[0]:.1e}, gradient {gaps[1]:.1e}, one graph {off:.1e}")
        assert gaps[0] <= 1e-6
        assert gaps[1] <= max(1e-6, 2 * off)
    assert off <= 4e-6  # or else the bound above would grow with a fault


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_of_the_whole_batch_has_the_bits_of_one_graph(
    kind: str, dtype: torch.dtype, unet: nn.Module, vae: AutoencoderKL
) -> None:
    own, decoder = (copy.deepcopy(part).double() if dtype == torch.float64 else part for part in (unet, vae))
    step = step_of(kind, own, dtype)
    expected = ordinary_term(kind, step, decoder, LPL.tau, weight=0.7)
    for size in (len(UNDER), 100):
        found = ours(kind, step, decoder, size, weight=0.7)
        assert torch.equal(found, expected)
        assert torch.equal(gradients(found, own), gradients(expected, own))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2])
def test_the_whole_path_has_the_gradient_of_finite_differences(kind: str, size: int, double: AutoencoderKL) -> None:
    alpha, s = coefficients(kind, (0.3, 0.05))
    z0, zt, output = (randn(2, 4, 2, 2, seed=seed) for seed in (1, 2, 3))
    step = Denoised(z0, zt, alpha, s, output, BATCH[:2], (s / alpha).flatten(), zt)
    training = PostTraining(loss="perceptual", norm="target", tau=1000.0)
    for some in (training, training.model_copy(update={"depth": 2})):
        assert torch.autograd.gradcheck(
            lambda x, some=some: ours(kind, step._replace(output=x), double, size, 0.7, some),
            output.clone().requires_grad_(True),
            fast_mode=True,
        )


# ------------------------------------------------------------------------------------------------ the gate


class Toy(nn.Module):
    """A denoiser that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5))


def toy_step(toy: Toy, sigmas: Sequence[float], kind: str = "epsilon") -> Denoised:
    alpha, s = (each.float() for each in coefficients(kind, sigmas))
    z0, zt = (randn(len(sigmas), 4, 8, 8, seed=seed).float() for seed in (1, 2))
    return Denoised(z0, zt, alpha, s, toy.w * zt, BATCH[: len(sigmas)], (s / alpha).flatten(), zt)


def test_with_no_sample_under_the_threshold_the_decoder_is_not_called(vae: AutoencoderKL) -> None:
    toy = Toy()
    step = toy_step(toy, (0.51, 3.0, 20.0))
    with watched(vae) as seen:
        found = ours("epsilon", step, vae, 2, 1.0)
        (found + step.output.square().mean()).backward()
    assert torch.equal(found, torch.zeros(()))
    assert seen.rows == [[]] * 5
    assert toy.w.grad is not None
    assert torch.isfinite(toy.w.grad)


def test_only_samples_under_the_threshold_reach_the_decoder(vae: AutoencoderKL) -> None:
    toy = Toy()
    step = toy_step(toy, SIGMAS)
    with watched(vae) as seen:
        found = ours("epsilon", step, vae, 3, 1.0)
        found.backward()
    assert seen.rows == [[3, 3, 1, 1]] * 5  # targets and estimates of each slice
    # nor does it matter what the others are
    other = step._replace(z0=step.z0.clone(), zt=step.zt.clone(), output=step.output.detach().clone())
    for at in {*range(6)} - {*UNDER}:
        other.z0[at], other.zt[at], other.output[at] = math.nan, math.inf, math.nan
    assert torch.equal(ours("epsilon", other, vae, 3, 1.0), found.detach())


def test_samples_over_the_threshold_have_no_gradient(vae: AutoencoderKL) -> None:
    step = toy_step(Toy(), SIGMAS)
    output = step.output.detach().requires_grad_(True)
    ours("epsilon", step._replace(output=output), vae, 3, 1.0).backward()
    assert output.grad is not None
    assert [bool(row.abs().sum() > 0) for row in output.grad] == [at in UNDER for at in range(6)]


def test_a_sample_counts_in_the_whole_batchs_mean(vae: AutoencoderKL) -> None:
    step = toy_step(Toy(), (0.3, 20.0, 20.0))
    alone = Denoised(*(each[:1] for each in step))  # type: ignore[arg-type]
    third, whole = (float(ours("epsilon", each, vae, 3, 1.0).detach()) for each in (step, alone))
    assert third == pytest.approx(whole / 3, rel=1e-6)


def test_no_later_block_is_called_than_asked_for(vae: AutoencoderKL) -> None:
    for depth in range(1, 6):
        with watched(vae) as seen:
            training = PostTraining(loss="perceptual", depth=depth)
            ours("epsilon", toy_step(Toy(), SIGMAS), vae, 9, training=training).backward()
        assert seen.rows == [[4, 4]] * depth + [[]] * (5 - depth)


def test_the_decoder_gets_no_gradient_of_its_own(vae: AutoencoderKL) -> None:
    """Not even where somebody forgot to freeze it."""
    thawed, toy = copy.deepcopy(vae).requires_grad_(True), Toy()
    ours("epsilon", toy_step(toy, SIGMAS), thawed, 2, 1.0).backward()
    assert all(parameter.grad is None for parameter in thawed.parameters())
    assert toy.w.grad is not None
    assert float(toy.w.grad.abs()) > 0


def test_without_a_gradient_the_value_is_the_same(vae: AutoencoderKL) -> None:
    step = toy_step(Toy(), SIGMAS)
    with torch.no_grad():
        found = ours("epsilon", step, vae, 3, 1.0)
    assert not found.requires_grad
    assert torch.equal(found, ours("epsilon", step, vae, 3, 1.0).detach())


@pytest.mark.parametrize("side", [8, 16, 64, 128])
def test_thresholds_scale_with_the_latents_side(side: int) -> None:
    assert threshold(4.0, side) == 4.0 * side / 64


class Counting:
    """Compares nothing, and keeps how many rows it was given."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, estimates: Tensor, targets: Tensor, turn: Turn) -> Tensor:
        self.rows += len(estimates)
        assert torch.isfinite(estimates).all()
        return estimates.sum((1, 2, 3))


def rows_under(kind: str, tau: float, side: int, alpha: Tensor, s: Tensor) -> int:
    alpha, s = (each.float().view(-1, 1, 1, 1) for each in (alpha, s))
    z = torch.ones(len(alpha), 1, side, side)
    counting = Counting()
    batch = [Turn(0, epoch) for epoch in range(len(alpha))]
    gated(counting, kind, tau, 999, 1.0)(Denoised(z, z, alpha, s, z, batch, (s / alpha).flatten(), z))
    return counting.rows


@pytest.mark.parametrize(("tau", "last"), [(1.0, 353), (4.0, 744), (6.0, 834)])
def test_thresholds_fall_on_the_known_steps(tau: float, last: int) -> None:
    alpha, s = signal_and_noise(scaled_linear_betas(*STABLE_DIFFUSION_BETAS))
    for kind in ("epsilon", "v_prediction"):
        assert rows_under(kind, tau * 32, 2, alpha, s) == last + 1
    assert rows_under("epsilon", tau, 8, alpha, s) < last


@pytest.mark.parametrize(("tau", "steps"), [(1.0, 500), (3.0, 750), (4.0, 800), (1e9, 999)])
def test_a_flows_noise_to_signal_is_t_over_the_rest_and_at_its_end_too_much(tau: float, steps: int) -> None:
    """t = 1 divides nothing by nothing, whatever tau."""
    assert rows_under("flow_prediction", tau * 32, 2, *flow_path()) == steps


def test_slices_hand_over_any_loss() -> None:
    x = randn(7, 3).requires_grad_(True)
    weights = randn(7, 3, seed=1)
    seen: list[slice] = []

    def loss(places: slice, part: Tensor) -> Tensor:
        seen.append(places)
        return (weights[places] * part.exp()).sum()

    value = in_slices(loss, x * 2, 3)
    value.backward()
    assert seen == [slice(0, 3), slice(3, 6), slice(6, 7)]
    torch.testing.assert_close(value, (weights * (2 * x).exp()).sum(), rtol=1e-14, atol=0)
    torch.testing.assert_close(x.grad, 2 * weights * (2 * x.detach()).exp(), rtol=1e-14, atol=0)


def test_what_follows_scales_the_gradient() -> None:
    x = randn(5, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: in_slices(lambda at, part: part.pow(3).sum(), x, 2).square(), x)


def test_squared_error_of_latents_is_what_it_says() -> None:
    step = toy_step(Toy(), SIGMAS)
    found = gated(latent_error, "v_prediction", 4.0, 3, 0.7)(step)[TERM]
    squares = [
        (step.alpha[at] * step.zt[at] - step.s[at] * step.output[at] - step.z0[at]).square().mean() for at in UNDER
    ]
    torch.testing.assert_close(found, 0.7 * torch.stack(squares).sum() / 6, rtol=1e-6, atol=0)


def test_finished_pictures_are_compared_as_they_are(vae: AutoencoderKL) -> None:
    z, other = (randn(2, 4, 8, 8, seed=seed).float() for seed in (1, 2))
    z.requires_grad_(True)
    found = perceptual(vae, PostTraining(loss="perceptual", depth="pixels"), 0, NAMES, 5)(z, other, BATCH[0])
    expected = (vae.decode(z / 0.5 + 0.1).sample - vae.decode(other / 0.5 + 0.1).sample).square().mean((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    one, two = (torch.autograd.grad(loss.sum(), z)[0] for loss in (found, expected))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-8)


def test_a_crop_is_that_of_the_turn_and_masks_by_its_own_size(double: AutoencoderKL) -> None:
    compare: Compare = perceptual(double, LPL, 4, NAMES, seed=5)
    z, other = randn(3, 4, 8, 8, seed=1), randn(3, 4, 8, 8, seed=2)
    window = drawn_window((8, 8), 4, 5, NAMES[BATCH[1].sample], BATCH[1].epoch)
    stages, others = (decoder_stages(double, each / 0.5 + 0.1, 5, window) for each in (z, other))
    assert torch.equal(compare(other, z, BATCH[1]), latent_perceptual_loss(stages, others, 32))
    assert not torch.equal(compare(other, z, BATCH[1]), compare(other, z, BATCH[3]))


def test_a_share_is_of_the_whole_loss() -> None:
    weight = weight_for(0.2, plain=3.0, added=0.5)
    assert weight * 0.5 / (3.0 + weight * 0.5) == pytest.approx(0.2, rel=1e-12)
    with pytest.raises(ValueError, match=r"a share of 0\.2 of nothing"):
        weight_for(0.2, 3.0, 0.0)


@pytest.mark.parametrize("training", [LPL, LPL.model_copy(update={"depth": "pixels"})], ids=["features", "pixels"])
def test_in_half_precision_it_is_near_what_it_is_in_single(vae: AutoencoderKL, training: PostTraining) -> None:
    toy = Toy()
    single = ours("epsilon", toy_step(toy, SIGMAS), vae, 2, 1.0, training)
    with torch.autocast("cpu", torch.bfloat16):
        half = ours("epsilon", toy_step(toy, SIGMAS), vae, 2, 1.0, training)
    half.backward()
    assert half.dtype == torch.float32
    assert float(half.detach()) == pytest.approx(float(single.detach()), rel=0.05)
    assert float(half.detach()) != float(single.detach())  # half precision it was
    assert toy.w.grad is not None
    assert torch.isfinite(toy.w.grad)


def test_standardised_maps_have_no_mean_and_unit_deviation() -> None:
    target, predicted = randn(2, 3, 16, 16) * 5 + 2, randn(2, 3, 16, 16, seed=4) * 3 - 1
    everywhere = torch.ones_like(target, dtype=torch.bool)
    for norm, which in (("predicted", 1), ("target", 0), ("separate", 0), ("separate", 1)):
        found = standardised(target, predicted, everywhere, norm)[which]  # type: ignore[arg-type]
        torch.testing.assert_close(found.mean((2, 3)), torch.zeros(2, 3).double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(found.std((2, 3), correction=0), torch.ones(2, 3).double(), rtol=1e-12, atol=0)
