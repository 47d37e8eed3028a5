"""Oracle 13: inversion of linear flows is exact where the spectral radius allows it, and the bound holds."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.methods.inverse_noise import error_bound, inverted, sampled
from tolerance import assert_close

FALLING = np.linspace(1.0, 0.0, 21)  # 20 steps, from noise to data


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def linear(a: Tensor) -> Callable[[Tensor, float], Tensor]:
    return lambda x, t: x @ a.T


def symmetric(norm: float, size: int = 6) -> Tensor:
    """Eigenvalues of both signs, the largest of absolute value ``norm``."""
    return turned_by_a_basis(torch.linspace(-0.5, 1, size, dtype=torch.float64) * norm)


def turned_by_a_basis(values: Tensor) -> Tensor:
    """A symmetric matrix with these eigenvalues."""
    basis = torch.linalg.qr(normal(len(values), len(values), seed=3)).Q
    return basis @ torch.diag(values) @ basis.T


def curved(x: Tensor, t: float) -> Tensor:
    """A velocity with a known Lipschitz constant, 1.5, that depends on time."""
    return 1.5 * torch.sin(x + t)


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


# ------------------------------------------------------------------------------------------------ the oracle


@pytest.mark.parametrize("size", [2, 3, 5])
def test_nilpotent_flows_of_norm_over_one_are_inverted_exactly(size: int) -> None:
    """A^size = 0: from x_{k+1} on, size - 1 iterations are exact, one fewer is not; oracle 13's A is the first."""
    a = torch.diag(torch.full((size - 1,), 3.0, dtype=torch.float64), 1)
    z = normal(5, size)
    x = sampled(linear(a), z, [0, 0.5])
    assert torch.linalg.matrix_norm(0.5 * a, 2) == 1.5
    found = inverted(linear(a), x, [0, 0.5], iterations=size)
    assert_close(found.z, z, absolute=1e-13)
    assert (found.residual <= 1e-13).all()
    if size > 2:
        assert relative(inverted(linear(a), x, [0, 0.5], iterations=size - 2).z, z) > 0.1


def test_the_spectral_radius_decides_not_the_norm() -> None:
    """Two matrices of the same norm, 1.5 after eta: the one with that radius diverges."""
    a = torch.tensor([[0.0, 3.0], [3.0, 0.0]], dtype=torch.float64)
    x = sampled(linear(a), normal(5, 2), [0, 0.5])
    found = inverted(linear(a), x, [0, 0.5], iterations=60)
    assert (found.residual > 1e6).all()
    assert (found.lipschitz >= 2).all()
    assert found.bound.isinf().all()


@pytest.mark.parametrize("strength", [0.04, 0.4, 0.8])
@pytest.mark.parametrize("sign", [1, -1])
def test_symmetric_flows_come_back_both_ways(strength: float, sign: int) -> None:
    """20 steps, each with iterations that leave (eta ||A||)^n < 1e-12, of flows that expand: nothing is lost."""
    values = torch.linspace(0, 1, 6, dtype=torch.float64) * strength * 20
    velocity = linear(sign * turned_by_a_basis(values))
    times, iterations = FALLING[::-sign].copy(), math.ceil(-12.5 / math.log10(strength))
    z = normal(7, 6, seed=1)
    assert relative(inverted(velocity, sampled(velocity, z, times), times, iterations).z, z) < 1e-10
    data = normal(7, 6, seed=2)
    found = inverted(velocity, data, times, iterations)
    assert relative(sampled(velocity, found.z, times), data) < 1e-10
    assert (found.lipschitz <= strength * 20 * (1 + 1e-2)).all()
    assert found.lipschitz.max() > strength * 20 * 0.9  # the largest direction shows


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5])
def test_a_flow_that_contracts_loses_what_its_condition_number_says_and_no_more(strength: float) -> None:
    """Eigenvalues of both signs: however many iterations, rounding is enlarged as by the sampler's inverse matrix."""
    values = torch.linspace(-0.8, 1, 6, dtype=torch.float64) * strength * 20
    velocity, times, eps = linear(turned_by_a_basis(values)), FALLING[::-1].copy(), torch.finfo(torch.float64).eps
    factors = (1 + values / 20) ** 20
    z = normal(50, 6, seed=1)
    lost = relative(inverted(velocity, sampled(velocity, z, times), times, 200).z, z)
    condition = float(factors.max() / factors.min())
    assert lost < 10 * condition * eps
    assert strength < 0.5 or lost > 1e-10  # oracle 13's bound is not met there


def test_too_few_iterations_do_not_come_back() -> None:
    """methods.md's measured orders: 5 iterations at 0.4 leave about 1e-2."""
    velocity, z = linear(symmetric(8.0)), normal(7, 6)
    lost = relative(inverted(velocity, sampled(velocity, z, FALLING), FALLING, 5).z, z)
    assert 1e-4 < lost < 1e-1


def test_one_linear_step_is_the_solution_of_its_system() -> None:
    a, x = symmetric(0.9), normal(4, 6)
    found = inverted(linear(a), x, [0.25, 1.0], 300)
    assert_close(found.z, torch.linalg.solve(torch.eye(6, dtype=torch.float64) + 0.75 * a, x.T).T, absolute=1e-12)


@pytest.mark.parametrize("iterations", [1, 2, 5, 11])
def test_the_bound_is_the_error_of_a_contracting_flow(iterations: int) -> None:
    """v = -L x: the iteration's error is residual / (1 - eta L) itself, and L is seen at once."""
    strength, eta = 1.6, 0.5

    def velocity(x: Tensor, t: float) -> Tensor:
        return -strength * x

    z = normal(6, 3, 2)
    found = inverted(velocity, sampled(velocity, z, [0, eta]), [0, eta], iterations)
    error = (found.z - z).flatten(1).square().mean(1).sqrt()
    assert_close(found.lipschitz[:, 0], torch.full((6,), strength, dtype=torch.float64), relative=1e-10)
    assert_close(found.bound[:, 0], error, relative=1e-10)
    assert_close(error_bound(found.residual[:, 0], eta, strength), error, relative=1e-10)


@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_with_the_true_constant_the_bound_holds_for_a_curved_flow(iterations: int) -> None:
    z, times = normal(200, 3), [0.4, 0.0]
    x = sampled(curved, z, times)
    exact = inverted(curved, x, times, 200).z
    assert relative(exact, z) < 1e-13
    found = inverted(curved, x, times, iterations)
    error = (found.z - exact).square().mean(1).sqrt()
    bound = error_bound(found.residual[:, 0], -0.4, 1.5)
    assert (error <= bound * (1 + 1e-9) + 1e-14).all()
    assert (found.lipschitz <= 1.5 * (1 + 1e-3)).all()  # from below
    assert (error > 0.2 * bound).any()  # and it is not idle


def test_relaxed_iterations_reach_where_eta_v_stretches_by_more_than_one() -> None:
    """Eigenvalues 1.25, 0.5, -0.6 of eta A: the first diverges; half way, factors are -0.125, 0.25, 0.8."""
    values = torch.tensor([2.5, 1.0, -1.2], dtype=torch.float64)
    velocity, z = linear(turned_by_a_basis(values)), normal(6, 3)
    x = sampled(velocity, z, [0, 0.5])
    assert relative(inverted(velocity, x, [0, 0.5], 200).z, z) > 1
    found = inverted(velocity, x, [0, 0.5], 200, relaxation=0.5)
    assert relative(found.z, z) < 1e-12
    assert (found.lipschitz <= 2.5 * (1 + 1e-9)).all()
    assert found.lipschitz.max() > 2
    slow = inverted(velocity, x, [0, 0.5], 20, relaxation=0.5)
    assert 0.1 < relative(slow.z, z) / 0.8**20 < 10


@pytest.mark.parametrize("relaxation", [0.3, 0.7, 1.0, 1.4])
@pytest.mark.parametrize("m", [0.5 + 0.6j, -0.5 + 0.3j, 1.5, 2j, -1.2])
def test_residuals_shrink_or_grow_by_what_relaxation_and_eigenvalue_say(m: complex, relaxation: float) -> None:
    """Of a turn and stretch, eta A with the eigenvalues m and its conjugate: ``|1 - r (1 + m)|`` an iteration."""
    eta = -0.25
    a = torch.tensor([[m.real, -m.imag], [m.imag, m.real]], dtype=torch.float64) / eta
    data = normal(5, 2)
    first, second = (
        inverted(linear(a), data, [1.0, 0.75], iterations, relaxation=relaxation).residual for iterations in (3, 4)
    )
    assert_close(second / first, torch.full_like(first, abs(1 - relaxation * (1 + m))), relative=1e-9)


def test_relaxed_and_plain_iterations_agree_where_both_converge() -> None:
    z = normal(6, 3, 2)
    x = sampled(curved, z, [0.4, 0.0])
    plain, relaxed = (inverted(curved, x, [0.4, 0.0], 300, relaxation=part) for part in (1.0, 0.6))
    assert_close(relaxed.z, plain.z, absolute=1e-13)
    assert (relaxed.lipschitz <= 1.5 * (1 + 1e-3)).all()


def test_where_eta_times_l_reaches_one_nothing_is_bounded() -> None:
    residual = torch.tensor([1e-9, 0.0, math.nan], dtype=torch.float64)
    assert error_bound(residual, -0.5, 2.0)[:2].tolist() == [math.inf, math.inf]
    assert error_bound(residual, -0.5, 2.0)[2].isnan()
    assert error_bound(residual, 0.5, torch.tensor([1.0, 3.0, 1.0], dtype=torch.float64))[1] == math.inf


# ------------------------------------------------------------------------------------------------ residuals, batches


def test_residuals_are_of_each_steps_equation_at_the_states_returned() -> None:
    times, data = [1.0, 0.7, 0.3, 0.0], normal(5, 2, 3)
    found = inverted(curved, data, times, 4)
    assert found.residual.shape == found.lipschitz.shape == found.bound.shape == (5, 3)
    states = [data]  # from data to noise, each step by itself
    for t, following in [(0.3, 0.0), (0.7, 0.3), (1.0, 0.7)]:
        states.append(inverted(curved, states[-1], [t, following], 4).z)
    assert torch.equal(states[-1], found.z)
    for column, (later, earlier, t, following) in enumerate(
        [(states[2], states[3], 1.0, 0.7), (states[1], states[2], 0.7, 0.3), (states[0], states[1], 0.3, 0.0)]
    ):
        equation = earlier + (following - t) * curved(earlier, t) - later
        assert_close(found.residual[:, column], equation.flatten(1).square().mean(1).sqrt(), absolute=1e-15)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """With a tolerance samples need different numbers of iterations; all stop where they would alone."""
    data = normal(9, 4) * torch.logspace(-6, 1, 9, dtype=torch.float64)[:, None]
    together = inverted(curved, data, [0.5, 0.25, 0.0], 100, 1e-6)
    assert (together.residual <= 1e-6).all()
    alone = [inverted(curved, one[None], [0.5, 0.25, 0.0], 100, 1e-6) for one in data]
    assert all(
        torch.equal(torch.cat(parts), whole) for parts, whole in zip(zip(*alone, strict=True), together, strict=True)
    )
    assert len({float(row) for row in together.residual[:, 1]}) > 3


def test_the_tolerance_saves_calls() -> None:
    calls = []

    def counted(x: Tensor, t: float) -> Tensor:
        calls.append((len(x), t))
        return curved(x, t)

    inverted(counted, normal(8, 4), FALLING, 50, 1e-3)
    assert all(count == 8 for count, _ in calls)  # of the whole batch at once
    assert 20 < len(calls) < 20 * 10
    calls.clear()
    inverted(counted, normal(8, 4), [1.0, 0.5], 7, 0.0)
    assert len(calls) == 8  # one for the residual
    assert {t for _, t in calls} == {1.0}  # the time of the step's start, as in sampling


def test_float32_round_trips_are_those_of_its_rounding() -> None:
    z = normal(20, 4, 8, 8, dtype=torch.float32)
    found = inverted(curved, sampled(curved, z, FALLING), FALLING, 50)
    assert found.z.dtype == found.residual.dtype == torch.float32
    assert relative(found.z, z) < 1e-5
    assert found.lipschitz.isfinite().all()
    assert (found.lipschitz < 1.6).all()  # rounding is no contraction


def test_a_flow_that_stands_still_says_nothing_on_its_constant() -> None:
    found = inverted(lambda x, t: torch.zeros_like(x), normal(3, 2), [0, 1])
    assert torch.equal(found.z, normal(3, 2))
    assert (found.residual == 0).all()
    assert found.lipschitz.isnan().all()


def test_gaussian_data_come_back_from_inverted_noise_of_another_law() -> None:
    """A linear flow that misses: its inverted noise has the covariance of G^-1, not 1, and gives the data again."""
    a, data = symmetric(0.8, 3), normal(20_000, 3) @ symmetric(0.5, 3) + normal(20_000, 3, seed=4)
    noise = inverted(linear(a), data, FALLING, 40).z
    forward = torch.linalg.matrix_power(torch.eye(3, dtype=torch.float64) - a / 20, 20)
    expected = torch.linalg.solve(forward, torch.linalg.solve(forward, data.T.cov()).T)
    assert_close(noise.T.cov(), expected, relative=1e-9)
    assert (noise.T.cov() - torch.eye(3)).abs().max() > 0.1
    redrawn = normal(20_000, 3, seed=5) @ torch.linalg.cholesky(noise.T.cov()).T  # a perfect corrector
    covariance, n = sampled(linear(a), redrawn, FALLING).T.cov(), 20_000
    sd = ((data.T.cov().diag().outer(data.T.cov().diag()) + data.T.cov() ** 2) / n).sqrt()
    assert ((covariance - data.T.cov()).abs() < 4 * sd).all()


def test_sampling_has_its_gradients() -> None:
    z, a = normal(2, 3).requires_grad_(), symmetric(0.7, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, a: sampled(lambda x, t: torch.tanh(x @ a) + t, z, [1, 0.6, 0.0]), (z, a))
    assert not inverted(linear(a), z, [1, 0.5]).z.requires_grad


# ------------------------------------------------------------------------------------------------ refusals


def test_velocities_of_other_shapes_and_types_are_refused() -> None:
    x = normal(3, 2)
    for wrong, error in [
        (lambda x, t: x[:1], ValueError),  # it would broadcast
        (lambda x, t: x.float(), ValueError),
        (lambda x, t: x.numpy(), TypeError),
    ]:
        for call in (sampled, inverted):
            with pytest.raises(error, match="velocity: expected"):
                call(wrong, x, [0, 1])


@pytest.mark.parametrize("times", [[1.0], [], [0, 0.5, 0.5], [0, 1, 0.5], [0, math.nan], [[0, 1]], "ab", [0, math.inf]])
def test_grids_that_do_not_go_one_way_are_refused(times: object) -> None:
    for call in (sampled, inverted):
        with pytest.raises(ValueError, match="times: "):
            call(curved, normal(2, 2), times)


def test_half_precision_is_sampled_but_not_inverted() -> None:
    x = normal(2, 2).half()
    assert sampled(curved, x, [0, 1]).dtype == torch.float16
    with pytest.raises(ValueError, match="x: expected float32 or float64"):
        inverted(curved, x, [0, 1])
    with pytest.raises(ValueError, match=r"x: expected samples \(n, \.\.\.\)"):
        inverted(curved, normal(4), [0, 1])
