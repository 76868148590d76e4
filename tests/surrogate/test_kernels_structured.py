"""What is particular to kernels of ordered levels, tasks, subsets, warped and inactive inputs."""

import copy
import math
from functools import partial

import pytest
import torch
from oracles import assert_mean_within, normal, uniform
from torch import nn

from bbmmopt import Space
from bbmmopt.space import Ordinal as OrderedChoice
from surrogate import (
    RBF,
    Additive,
    Conditional,
    Coregionalization,
    ExactGP,
    FeatureMap,
    Kernel,
    KernelOperator,
    Matern12,
    Matern52,
    Normal,
    Ordinal,
    Prior,
    PriorSet,
    Sum,
    Warped,
    fit,
)
from surrogate.kernels.base import _AutogradLinearised
from surrogate.kernels.mapped import Mapped
from tests.surrogate.structured_cases import STRUCTURED, Waves, active

ROLES = {
    "ordinal": (Ordinal(2, 3), ["ordinal_step", "lengthscale", "variance"]),
    "tasks": (Coregionalization(3), ["task_factor", "task_variance"]),
    "additive": (
        Additive([RBF(1, columns=[0]), RBF(1, columns=[1])], 2),
        ["variance", "lengthscale", "variance", "lengthscale", "variance"],
    ),
    "warped": (Warped(RBF(2), 2), ["warp", "warp", "lengthscale", "variance"]),
    "feature map": (
        FeatureMap(RBF(2), Waves()),
        ["lengthscale", "variance", "weight", "weight"],
    ),
    "conditional": (
        Conditional(2, active),
        ["lengthscale", "activity_gap", "lengthscale", "variance"],
    ),
    "in a sum": (
        Coregionalization(2) + FeatureMap(RBF(2), Waves()),
        ["task_factor", "task_variance", "lengthscale", "variance", "weight", "weight"],
    ),
}


@pytest.mark.parametrize(("kernel", "roles"), ROLES.values(), ids=ROLES)
def test_parameters_have_their_roles_in_the_order_of_parameters(kernel, roles):
    assert [role for role, _ in kernel.roles_of_parameters()] == roles
    assert len(list(kernel.parameters())) == len(roles)


@pytest.mark.parametrize(("kernel", "formula"), STRUCTURED.values(), ids=STRUCTURED)
def test_gradients_made_tile_by_tile_are_those_of_the_whole(kernel, formula, rng, small_tiles):
    X = torch.cat([uniform(rng, 17, 3), torch.randint(0, 3, (17, 2), generator=rng) / 2], 1)
    A, B = normal(rng, 17, 2), normal(rng, 17, 2)
    tiles = KernelOperator(kernel, X.double(), storage="tiles")
    for ours, theirs in zip(
        tiles.pullback(A, B), kernel.pullback(tiles.X, tiles.X, A @ B.T), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kernel", [Coregionalization(3, 2), 2.0 * Coregionalization(3, 2)])
def test_a_real_parameter_left_out_moves_to_its_start_as_it_is(kernel):
    start = Prior(Normal(0.0, 1.0), -0.5, -2.0, 2.0, real=True)
    mine = PriorSet("mine-1", {"task_factor": partial(one, start)})
    model = ExactGP(kernel, noise=0.1, priors=mine)
    factors = [p for name, p in model.kernel.named_parameters() if name.endswith("factor")]
    assert torch.equal(factors[0], torch.full((3, 2), -0.5).double())


def one(prior: Prior, dims: int) -> Prior:
    return prior


def test_features_stay_those_of_the_weights_they_were_drawn_for(rng):
    kernel, X = FeatureMap(RBF(2), Waves()), uniform(rng, 4, 5).requires_grad_()
    phi = kernel.features(8, rng)
    before = phi(X)
    with torch.no_grad():
        for p in kernel.parameters():
            p.add_(1.0)
    assert torch.equal(phi(X), before)
    assert torch.autograd.grad(before.sum(), X)[0].any()


# --------------------------------------------------------------------------------------
# Ordinal.
# --------------------------------------------------------------------------------------


def test_ordered_choices_of_a_space_stand_where_the_steps_put_them():
    choices = ["S", "M", "L", "XL"]
    space = Space({"size": OrderedChoice(choices)})
    X = torch.from_numpy(space.encode_many([{"size": c} for c in choices]))
    kernel = Ordinal(1, 4, steps=[1.0, 5.0, 4.0])
    expected = torch.tensor([[0.0], [0.1], [0.6], [1.0]]).double()
    torch.testing.assert_close(kernel.embed(X).detach(), expected)
    torch.testing.assert_close(kernel.positions[0].detach(), expected[:, 0])


def test_steps_left_out_are_even_and_only_their_ratios_count():
    X = torch.linspace(0, 1, 21).double().unsqueeze(-1)
    even, tripled = Ordinal(1, 5, 0.3), Ordinal(1, 5, 0.3, steps=3.0)
    torch.testing.assert_close(even.positions[0].detach(), torch.linspace(0, 1, 5).double())
    torch.testing.assert_close(tripled(X, X), even(X, X))


def test_steps_that_data_call_for_are_found():
    # Levels 1 to 3 of five are as good as one, and 0 is far off.
    z = torch.tensor([0.0, 0.9, 0.92, 0.94, 1.0]).double()
    level = torch.arange(40) % 5
    X = ((level + 0.5) / 5).double().unsqueeze(-1)
    model = fit(ExactGP(2.0 * Ordinal(1, 5), noise=1e-3), X, 3 * z[level] - 2)
    found = model.kernel.get_submodule("kernel").positions[0].detach()
    assert found[1] > 0.5  # from ¼
    assert found[3] - found[1] < 0.25  # from ½
    torch.testing.assert_close(
        model.kernel.diagonal(X), model.kernel.get_parameter("log_scale").exp().expand(40)
    )  # no second variance is learnt


def test_levels_and_steps_must_fit():
    for levels in (1, [3], [3, 3, 3], [3, 1]):
        with pytest.raises(ValueError, match=r"levels must be one number or 2 of them.* at least"):
            Ordinal(2, levels)
    with pytest.raises(ValueError, match=r"steps must be one number or 5 of them.*\(4,\)"):
        Ordinal(2, [3, 4], steps=[1.0] * 4)
    with pytest.raises(ValueError, match="steps must be positive"):
        Ordinal(2, 3, steps=-1.0)


# --------------------------------------------------------------------------------------
# Coregionalization.
# --------------------------------------------------------------------------------------


def test_tasks_start_alike_and_different_enough_to_be_told_apart():
    for tasks, rank in ((1, 1), (4, 1), (5, 3), (3, 3)):
        kernel = Coregionalization(tasks, rank)
        again = Coregionalization(tasks, rank)
        assert torch.equal(kernel.factor, again.factor)
        C = kernel.correlation.detach()
        torch.testing.assert_close(
            kernel.covariance.diagonal().detach(), C.new_ones(tasks), atol=0.03, rtol=0
        )
        torch.testing.assert_close(C.diagonal(), C.new_ones(tasks))
        assert (C - 0.3 * torch.eye(tasks) - 0.7).abs().max() < 0.03
        t = torch.arange(tasks).double().unsqueeze(-1)
        slope = kernel.pullback(t, t, normal(torch.Generator().manual_seed(1), tasks, tasks))[0]
        assert torch.linalg.matrix_rank(slope) == rank  # no two columns stay equal


@pytest.mark.parametrize("column", [-1, 0])
def test_task_gradients_in_closed_form_are_those_of_autograd(column, rng):
    kernel = Coregionalization(4, 2, column=column, factor=normal(rng, 4, 2), diagonal=0.3)
    X1, X2 = (torch.randint(0, 4, (n, 2), generator=rng).double() for n in (9, 6))
    for X in (X1, X2):
        G = normal(rng, 9, len(X))
        automatic = _AutogradLinearised(kernel, X1, X)
        for ours, theirs in zip(kernel.pullback(X1, X, G), automatic.parameters(G), strict=True):
            torch.testing.assert_close(ours, theirs)
        assert not kernel.pullback_inputs(X1, X, G).any()
        assert torch.equal(kernel.linearise(X1, X).K, automatic.K)


def test_task_covariances_are_looked_up(rng):
    W = normal(rng, 3, 2)
    kernel = Coregionalization(3, 2, factor=W, diagonal=[0.1, 0.2, 0.3])
    expected = W @ W.T + torch.tensor([0.1, 0.2, 0.3]).double().diag()
    torch.testing.assert_close(kernel.covariance.detach(), expected)
    t = torch.tensor([[2.0], [0.0], [2.0]]).double()
    torch.testing.assert_close(kernel(t, t).detach(), expected[[2, 0, 2]][:, [2, 0, 2]])
    scale = expected.diagonal().sqrt()
    torch.testing.assert_close(kernel.correlation.detach(), expected / scale.outer(scale))
    coordinates = kernel.coordinates(t)
    torch.testing.assert_close(
        coordinates @ coordinates.T, kernel.correlation.detach()[[2, 0, 2]][:, [2, 0, 2]]
    )


@pytest.mark.parametrize("wrong", [3.0, -1.0, 0.5])
def test_what_is_no_task_number_is_refused_wherever_it_comes(wrong, rng):
    kernel = Coregionalization(3, column=0)
    X, bad = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [wrong]]).double()
    out = torch.empty(2, 2).double()
    for call in (
        lambda: kernel(X, bad),
        lambda: kernel(bad, bad),
        lambda: kernel.diagonal(bad),
        lambda: kernel.coordinates(bad),
        lambda: kernel.linearise(bad, X),
        lambda: kernel.evaluate(X, bad, out),
        lambda: kernel.features(4, rng)(bad),
    ):
        with pytest.raises(ValueError, match=rf"column 0 of X.*numbers 0 … 2; got \[{wrong}\]"):
            call()


def test_arguments_about_tasks_must_fit():
    for tasks, rank in ((2, 3), (2, 0), (0, 1)):
        with pytest.raises(ValueError, match=r"rank must be 1 … tasks; got rank"):
            Coregionalization(tasks, rank)
    with pytest.raises(ValueError, match=r"factor must have shape \(3, 2\).*got \(2, 3\)"):
        Coregionalization(3, 2, factor=torch.ones(2, 3))
    with pytest.raises(ValueError, match="factor must be finite"):
        Coregionalization(1, factor=[[math.nan]])
    with pytest.raises(ValueError, match=r"diagonal must be one number or 3 of them.*\(2,\)"):
        Coregionalization(3, diagonal=[1.0, 2.0])
    with pytest.raises(ValueError, match="diagonal must be positive"):
        Coregionalization(3, diagonal=0.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_fit_finds_that_tasks_agree_or_oppose_each_other(sign, rng):
    x = uniform(rng, 40, 1)
    task = (torch.arange(40) % 2).double().unsqueeze(-1)
    y = torch.sin(6 * x[:, 0]) * torch.where(task[:, 0] == 0, 1.0, sign)
    model = ExactGP(Matern52(1, columns=[0]) * Coregionalization(2))
    tasks = model.kernel.get_submodule("second")
    assert tasks.correlation[0, 1].item() == pytest.approx(0.7)
    found = fit(model, torch.cat([x, task], 1), y).kernel.get_submodule("second")
    assert found.correlation[0, 1] * sign > 0.9


# --------------------------------------------------------------------------------------
# Additive.
# --------------------------------------------------------------------------------------


def test_the_first_order_is_a_mean_of_its_parts_and_the_last_their_product(rng):
    X = uniform(rng, 6, 3)
    parts = [RBF(1, 0.4, columns=[j]) for j in range(3)]
    whole = Additive(copy.deepcopy(parts), 3, [0.5, 1e-12, 2.0])
    a, b, c = (part(X, X) for part in parts)
    torch.testing.assert_close(whole(X, X), 0.5 * (a + b + c) / 3 + 2 * a * b * c)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_all_orders_pull_back_as_autograd_does(order, rng):
    kernel = Additive([Matern52(1, 0.3, 1.1, columns=[j]) for j in range(5)], order)
    X1, X2, G = uniform(rng, 8, 5), uniform(rng, 6, 5), normal(rng, 8, 6)
    closed, automatic = kernel.linearise(X1, X2), _AutogradLinearised(kernel, X1, X2)
    torch.testing.assert_close(closed.K, automatic.K)
    torch.testing.assert_close(closed.inputs(G), automatic.inputs(G))
    for ours, theirs in zip(closed.parameters(G), automatic.parameters(G), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_features_of_parts_that_are_sums_have_the_right_mean_too(rng):
    X = uniform(rng, 4, 2)
    parts = [Sum(RBF(1, 0.3, columns=[j]), Matern52(1, 0.8, 2.0, columns=[j])) for j in range(2)]
    kernel = Additive(parts, 2, [0.5, 1.0])
    products = [(lambda p: p @ p.T)(kernel.features(20, rng)(X)) for _ in range(2000)]
    assert_mean_within(torch.stack(products), kernel(X, X).detach())


def test_an_order_must_fit_and_parts_must_be_apart():
    part = RBF(1, columns=[0])
    for order in (0, 2):
        with pytest.raises(ValueError, match=rf"order must be 1 … .*got order {order} and 1 part"):
            Additive([part], order)
    with pytest.raises(ValueError, match=r"share parameters.*copy\.deepcopy"):
        Additive([part, 2.0 * part], 1)
    with pytest.raises(ValueError, match=r"variance must be one number or 2 of them.*\(3,\)"):
        Additive([part, RBF(1, columns=[1])], 2, [1.0, 1.0, 1.0])


# --------------------------------------------------------------------------------------
# Warped, FeatureMap.
# --------------------------------------------------------------------------------------


def test_a_warp_is_the_identity_until_it_is_learnt(rng):
    X = uniform(rng, 6, 3)
    inner = Matern52(3, 0.4)
    torch.testing.assert_close(Warped(inner, 3)(X, X), inner(X, X), atol=1e-5, rtol=0)
    assert torch.equal(ExactGP(Warped(inner, 3)).kernel.get_parameter("log_a"), torch.zeros(3))


@pytest.mark.parametrize("a", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("b", [0.1, 1.0, 10.0])
def test_a_warp_maps_the_unit_interval_onto_itself_with_finite_slopes(a, b):
    x = torch.linspace(-0.1, 1.1, 121).double().unsqueeze(-1).requires_grad_()
    w = Warped(RBF(1), 1, a=a, b=b).embed(x)
    assert (w.diff(dim=0) >= 0).all() and w.min() >= 0 and w.max() <= 1
    if a >= 1 or b <= 1:  # else it is steeper than the step from 0 to what stands for it
        assert w[0] < 0.5 < w[-1]
    (slope,) = torch.autograd.grad(w.sum(), x)
    assert slope.isfinite().all()
    assert slope[10] > 0 or a > 1  # at 0 itself, a point may still be moved inside


def test_slopes_of_a_warp_are_those_of_automatic_differentiation(rng):
    # Inside, at the ends and beyond them, where nothing moves.
    X = torch.cat([uniform(rng, 6, 3), torch.tensor([[0.0, 1.0, 0.5], [-0.3, 1.2, 1e-9]])])
    kernel = Warped(RBF(3), 2, columns=[2, 0], a=[0.1, 3.0], b=[4.0, 0.2])
    by_U = uniform(rng, *X.shape) - 0.5
    closed, automatic = kernel.embedding(X), Mapped.embedding(kernel, X)
    torch.testing.assert_close(closed.U, automatic.U, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(closed.inputs(by_U), automatic.inputs(by_U), rtol=1e-10, atol=1e-12)
    found, expected = closed.parameters(by_U), automatic.parameters(by_U)
    assert found.keys() == expected.keys() == {"log_a", "log_b"}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-12)


def test_a_warp_that_data_call_for_is_found():
    x = torch.linspace(0.01, 1, 30).double().unsqueeze(-1)
    y = torch.sin(12 * x[:, 0] ** 0.25)
    y = (y - y.mean()) / y.std()
    plain, warped = (fit(ExactGP(k, noise=1e-3), x, y) for k in (RBF(1), Warped(RBF(1), 1)))
    assert warped.report.log_marginal_likelihood > plain.report.log_marginal_likelihood + 5
    assert warped.kernel.a.item() < 0.6


def test_a_module_is_copied_in_float64_without_dropout(rng):
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 2))
    kernel = FeatureMap(RBF(2, 0.5), module)
    assert module[0].weight.dtype == torch.float32 and module.training
    assert all(p.dtype == torch.float64 for p in kernel.parameters())
    X = uniform(rng, 2, 5, 3)
    assert torch.equal(kernel(X, X), kernel(X, X))
    assert ExactGP(Sum(kernel, RBF(1, columns=[0]))).dims is None


def test_a_point_is_at_no_distance_from_itself_behind_a_map_too(rng):
    # A cusp there makes 1e-8 of what rounding leaves of a squared distance.
    kernel, X = FeatureMap(Matern12(2), Waves()), uniform(rng, 20, 5) + 100
    ones, out = torch.ones(20).double(), torch.empty(20, 20).double()
    for K in (kernel(X, X).detach(), kernel.linearise(X, X).K, kernel.evaluate(X, X, out)):
        torch.testing.assert_close(K.diagonal(), ones, rtol=0, atol=1e-14)


def test_a_module_that_loses_rows_is_refused(rng):
    kernel = FeatureMap(RBF(2), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"must map \(4, 3\) to \(4, 3, 'c'\)|one row of features"):
        kernel(uniform(rng, 4, 3), uniform(rng, 4, 3))


def test_weights_are_learnt_with_the_kernel(rng):
    X = uniform(rng, 40, 5)
    y = torch.sin(X @ torch.linspace(-1.5, 1.5, 10).view(5, 2).double()).sum(1)
    model = fit(ExactGP(FeatureMap(RBF(2), Waves())), X, (y - y.mean()) / y.std())
    assert not torch.allclose(model.kernel.module.offset, torch.tensor(0.3).double())
    assert model.report.converged
    assert model.report.log_marginal_likelihood > 50  # of 40 noiseless values


# --------------------------------------------------------------------------------------
# Conditional.
# --------------------------------------------------------------------------------------


def flagged(X: torch.Tensor) -> torch.Tensor:
    """Activity in the last three columns."""
    return X[..., 3:] > 0.5


def conditional(**options) -> Kernel:
    return Conditional(3, flagged, [0.2, 0.5, 1.0], 1.3, columns=[0, 1, 2], **options)


@pytest.mark.parametrize("kernel", [RBF, Matern52])
@pytest.mark.parametrize("gap", [0.01, 1.0, 30.0])
def test_whatever_is_active_k_is_positive_semidefinite_and_blind_to_the_rest(kernel, gap, rng):
    k = conditional(gap=gap, kernel=kernel)
    for _ in range(5):
        X = torch.cat([uniform(rng, 25, 3), (uniform(rng, 25, 3) < 0.5).double()], 1)
        K = k(X, X).detach()
        assert torch.linalg.eigvalsh(K).min() > -1e-12
        other = torch.cat([torch.where(flagged(X), X[:, :3], 0.5), X[:, 3:]], 1)
        torch.testing.assert_close(k(other, other).detach(), K, rtol=1e-10, atol=1e-10)


def test_an_active_input_is_as_far_from_an_inactive_one_wherever_it_is(rng):
    X = torch.cat([uniform(rng, 9, 3), torch.ones(9, 3).double()], 1)
    off = torch.cat([X[:, :3], torch.tensor([1.0, 0.0, 1.0]).expand(9, 3).double()], 1)
    k = conditional(kernel=RBF)
    radius = 2 / (math.pi * 0.5)
    torch.testing.assert_close(k.radius[1].item(), radius)
    only = torch.cat([X[:1, :3].expand(9, 3).clone(), X[:, 3:]], 1)
    only[:, 1] = X[:, 1]
    constant = 1.3 * math.exp(-(radius**2) / 2)
    torch.testing.assert_close(k(only, off[:1]).detach(), only.new_full((9, 1), constant))
    torch.testing.assert_close(k(off, off).diagonal().detach(), only.new_full((9,), 1.3))


def test_a_large_gap_makes_active_inputs_those_of_an_ordinary_kernel(rng):
    X = torch.cat([uniform(rng, 9, 3), torch.ones(9, 3).double()], 1)
    plain = Matern52(3, [0.2, 0.5, 1.0], 1.3, columns=[0, 1, 2])
    torch.testing.assert_close(conditional(gap=1e3)(X, X), plain(X, X), rtol=1e-4, atol=1e-4)


def test_an_activity_of_another_kind_or_shape_is_refused(rng):
    X = uniform(rng, 4, 2)
    with pytest.raises(ValueError, match=r"bool tensor of shape \(4, 2\).*got torch.float64 of"):
        Conditional(2, lambda X: X)(X, X)
    with pytest.raises(ValueError, match=r"bool tensor of shape \(4, 2\).*shape \(4, 1\)"):
        Conditional(2, lambda X: X[..., :1] > 0)(X, X)


def test_conditional_inputs_are_fitted_and_frozen_lengths_stay(rng):
    X = torch.cat([uniform(rng, 30, 3), (uniform(rng, 30, 3) < 0.5).double()], 1)
    y = (torch.sin(5 * X[:, 0]) * X[:, 3] + X[:, 4]).sub(0.5)
    model = fit(ExactGP(Conditional(3, flagged, columns=[0, 1, 2])), X, y)
    inner = model.kernel.kernel.log_lengthscale
    assert torch.equal(inner, torch.zeros_like(inner))
    assert model.kernel.lengthscale[0] < model.kernel.lengthscale[2]
    assert model.condition(X, y).marginals(X)[1].isfinite().all()


@pytest.mark.parametrize("make", [Warped, Conditional, Ordinal])
def test_arguments_that_do_not_fit_together_are_named(make):
    def build(dims, **options):
        if make is Warped:
            return Warped(RBF(2), dims, **options)
        return (
            Conditional(dims, active, **options)
            if make is Conditional
            else Ordinal(dims, 3, **options)
        )

    name = "a" if make is Warped else "lengthscale"
    with pytest.raises(ValueError, match=r"dims must be at least 1; got 0"):
        build(0)
    with pytest.raises(ValueError, match=r"columns must name 2 column\(s\).*got \[1\]"):
        build(2, columns=[1])
    with pytest.raises(ValueError, match=rf"{name} must be one number or 2 of them.*\(3,\)"):
        build(2, **{name: [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match=f"{name} must be positive and finite; got"):
        build(2, **{name: -1.0})
