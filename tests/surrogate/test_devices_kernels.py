"""Kernels, and operators made of them, compute where the inputs are what they do on the CPU."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from oracles import normal, uniform
from pretended_device import DEVICE, PretendedDevice, pretended_device
from torch import Tensor

import surrogate
import surrogate.operators.gradients as tiling
from surrogate import (
    RBF,
    Columns,
    Conditional,
    Coregionalization,
    FeatureMap,
    Hamming,
    Kernel,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Ordinal,
    TableKernel,
    WithGradients,
)
from surrogate.kernels import Stationary
from surrogate.kernels.axes import Axis
from surrogate.kernels.base import _AutogradLinearised
from surrogate.kernels.devices import Moving
from surrogate.kernels.grid import GridKernel
from surrogate.kernels.table import Table
from surrogate.operators import GradientOperator, KernelOperator, TableOperator, Term
from surrogate.workspace import Workspace
from tests.surrogate import test_kernels
from tests.surrogate.structured_cases import Waves

# --------------------------------------------------------------------------------------
# Every kernel, and rows that it sees.
# --------------------------------------------------------------------------------------


def with_tasks(rng: torch.Generator, n: int) -> Tensor:
    """Two real columns and a task 0, 1 or 2; or the value, or one of two derivatives."""
    tasks = torch.randint(0, 3, (n, 1), generator=rng).double()
    return torch.cat([uniform(rng, n, 2), tasks], 1)


def with_two(rng: torch.Generator, n: int) -> Tensor:
    return uniform(rng, n, 2)


def axes() -> list[Axis]:
    return [Axis.over(0.0, 1.0, 9), Axis.over(0.0, 1.0, 7)]


def grid(on: list[Axis] | None) -> GridKernel:
    return GridKernel([Matern52(1, 0.4, 1.3), RBF(1, 0.7)], 0.9, on)


FACTOR = [[0.5], [1.5], [-0.7]]
OF_ITSELF = {
    "tasks of long rows": (
        Matern52(2, [0.4, 0.9], columns=[0, 1]) * Coregionalization(3, factor=FACTOR),
        with_tasks,
    ),
    "tasks by autograd": (FeatureMap(Coregionalization(3, 2), torch.nn.Identity()), with_tasks),
    "columns": (Columns(Columns(RBF(2, [0.3, 0.8]), [1, 0]), [-1, 0]), with_tasks),
    "gradients of an RBF": (WithGradients(RBF(2, [0.3, 0.8], 1.7), 0.6), with_tasks),
    "gradients of a Matérn": (WithGradients(Matern52(2, [0.3, 0.8], 1.7), 0.6), with_tasks),
    "table": (
        TableKernel([(Matern52(2, [0.4, 0.9]), RBF(1, 0.7)), (RBF(2, 0.8), Hamming(1))], 2),
        with_tasks,
    ),
    "table of tasks": (TableKernel([(RBF(2, 0.8), Coregionalization(3))], 2), with_tasks),
    "grid": (grid(axes()), with_two),
    "before it has a grid": (grid(None), with_two),
}
EVERY = {name: (kernel, test_kernels.rows) for name, (kernel, _) in test_kernels.CASES.items()}
EVERY |= OF_ITSELF
EVERY_KERNEL = pytest.mark.parametrize(("kernel", "rows"), EVERY.values(), ids=EVERY)
WITH_FEATURES = {
    name: case
    for name, case in EVERY.items()
    if not name.startswith((test_kernels.OWN, *test_kernels.WITHOUT_FEATURES))
}
# Those that wait in each call, to see that a column holds what it should, or that a grid is reached
# by all points.
WAITING = ("tasks", "table of tasks", "gradients", "grid")
# Adds in an order that differs from run to run.
UNORDERED = {"index_add_", "index_add", "scatter_add_", "scatter_add", "bincount", "put_"}


def test_every_kernel_that_is_exported_is_among_these():
    found = {type(part) for kernel, _ in EVERY.values() for part in kernel.modules()}
    for name in surrogate.__all__:
        thing = getattr(surrogate, name)
        if inspect.isclass(thing) and issubclass(thing, Kernel) and not inspect.isabstract(thing):
            assert thing in found, name


def assert_there(received: Tensor, expected: Tensor) -> None:
    """On the device, the same numbers to the last bit."""
    assert received.device == DEVICE and received.dtype == expected.dtype
    assert received.shape == expected.shape
    assert torch.equal(received.detach().cpu(), expected.detach())


def both(rows, rng: torch.Generator, same: bool) -> tuple[Tensor, Tensor]:
    X1 = rows(rng, 7)
    return X1, X1 if same else rows(rng, 5)


def moved(X1: Tensor, X2: Tensor) -> tuple[Tensor, Tensor]:
    """Both on the device, one tensor given twice staying one."""
    there = X1.to(DEVICE)
    return there, there if X2 is X1 else X2.to(DEVICE)


SAME = pytest.mark.parametrize("same", [False, True], ids=["k(X1, X2)", "k(X, X)"])


# --------------------------------------------------------------------------------------
# Laws.
# --------------------------------------------------------------------------------------


@SAME
@EVERY_KERNEL
def test_law_values_are_those_of_the_cpu(kernel, rows, same, rng):
    X1, X2 = both(rows, rng, same)
    with pretended_device():
        Y1, Y2 = moved(X1, X2)
        assert_there(kernel(Y1, Y2), kernel(X1, X2))
        assert_there(kernel.diagonal(Y1), kernel.diagonal(X1))
        assert_there(kernel.coordinates(Y1), kernel.coordinates(X1))
        for dtype in (torch.float64, torch.float32):
            shape = len(X1), len(X2)
            expected = kernel.evaluate(X1, X2, torch.empty(shape, dtype=dtype))
            out = torch.empty(shape, dtype=dtype, device=DEVICE)
            assert kernel.evaluate(Y1, Y2, out) is out
            assert_there(out, expected)
            out = torch.empty(shape, dtype=dtype, device=DEVICE)
            assert_there(kernel.evaluate(Y1, Y2, out, Workspace(Y1.device)), expected)


@SAME
@EVERY_KERNEL
def test_law_pullbacks_are_those_of_the_cpu(kernel, rows, same, rng):
    X1, X2 = both(rows, rng, same)
    G = normal(rng, len(X1), len(X2))
    with pretended_device():
        Y1, Y2 = moved(X1, X2)
        for linearise in (kernel.linearise, lambda a, b: _AutogradLinearised(kernel, a, b)):
            here, there = linearise(X1, X2), linearise(Y1, Y2)
            assert_there(there.K, here.K)
            assert_there(there.inputs(G.to(DEVICE)), here.inputs(G))
            found = zip(there.parameters(G.to(DEVICE)), here.parameters(G), strict=True)
            for received, expected in found:
                assert_there(received, expected)
        reused = kernel.linearise(Y1, Y2, Workspace(Y1.device))
        assert_there(reused.K, kernel.linearise(X1, X2).K)


@EVERY_KERNEL
def test_law_autograd_reaches_parameters_on_the_cpu_and_inputs_where_they_are(kernel, rows, rng):
    X1, X2 = both(rows, rng, same=False)
    G = normal(rng, 7, 5)
    here, there = copy.deepcopy(kernel), copy.deepcopy(kernel)
    with pretended_device():
        X1.requires_grad_()
        Y1 = X1.detach().to(DEVICE).requires_grad_()
        (here(X1, X2) * G).sum().backward()
        (there(Y1, X2.to(DEVICE)) * G.to(DEVICE)).sum().backward()
        if (diagonal := here.diagonal(X1)).requires_grad:
            diagonal.sum().backward()
            there.diagonal(Y1).sum().backward()
        assert (X1.grad is None) == (Y1.grad is None)
        if X1.grad is not None and Y1.grad is not None:
            assert_there(Y1.grad, X1.grad)
    for ours, theirs in zip(there.parameters(), here.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None and theirs.grad is not None:
            assert ours.grad.device.type == "cpu"
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def assert_only_parameters_were_sent(device: PretendedDevice, kernel: Kernel) -> None:
    """Parameters, their covariance among tasks, or numbers of columns: nothing as long as X."""
    own = sum(p.numel() for p in kernel.parameters())
    tasks = [part.tasks**2 for part in kernel.modules() if isinstance(part, Coregionalization)]
    assert max(device.uploads, default=0) <= max([own, 5, *tasks])
    assert not device.downloads


@EVERY_KERNEL
def test_law_matrices_and_gradients_are_made_without_the_host_waiting(kernel, rows, rng, request):
    name = request.node.callspec.id
    X1, X2 = both(rows, rng, same=False)
    G = normal(rng, 7, 5)
    with pretended_device() as device:
        Y1, Y2, there = X1.to(DEVICE), X2.to(DEVICE), G.to(DEVICE)
        out, workspace = torch.empty_like(there), Workspace(Y1.device)
        for dtype in (torch.float64, torch.float32):
            device.forget()
            kernel.evaluate(Y1, Y2, out.to(dtype), workspace)
            assert device.waits <= (2 if name.startswith(WAITING) else 0)
            assert_only_parameters_were_sent(device, kernel)
        device.forget()
        linearised = kernel.linearise(Y1, Y2, workspace)
        linearised.parameters(there)
        assert device.waits <= (2 if name.startswith(WAITING) else 0)
        assert_only_parameters_were_sent(device, kernel)
        assert not UNORDERED & set(device.calls)
        device.forget()
        linearised.inputs(there)
        assert device.waits <= (1 if name.startswith(WAITING) else 0)


@pytest.mark.parametrize(("kernel", "rows"), WITH_FEATURES.values(), ids=WITH_FEATURES)
def test_law_random_features_are_those_of_the_cpu_and_are_sent_once(kernel, rows, rng):
    X, count = rows(rng, 6), 64
    with pretended_device() as device:
        phi = kernel.features(count, torch.Generator().manual_seed(3))
        there = X.to(DEVICE)
        assert_there(phi(there), phi(X))
        device.forget()
        assert_there(phi(there), phi(X))
        assert max(device.uploads, default=0) < count
        alone = kernel.features(count, torch.Generator().manual_seed(3))
        assert torch.equal(alone(X), phi(X))


# --------------------------------------------------------------------------------------
# One by one.
# --------------------------------------------------------------------------------------

WITHOUT_A_WAIT = {
    "matern12": Matern12(3, [0.3, 0.8, 0.5], 1.7),
    "matern32 of columns": Matern32(2, [0.3, 0.8], columns=[2, 0]),
    "matern52": Matern52(3, 0.4),
    "sum of products": 0.5 * (RBF(3, 0.9) * Hamming(1, columns=[2])) + Matern52(3) * Linear(3),
}


@pytest.mark.parametrize("kernel", WITHOUT_A_WAIT.values(), ids=WITHOUT_A_WAIT)
def test_a_tile_costs_few_uploads_and_no_wait(kernel, rng):
    own = sum(p.numel() for p in kernel.parameters())
    parts = sum(isinstance(part, Stationary | Hamming | Linear) for part in kernel.modules())
    with pretended_device() as device:
        X = with_tasks(rng, 9).to(DEVICE)
        out = X.new_empty(9, 9)
        device.forget()
        kernel.evaluate(X, X, out, Workspace(X.device))
        assert device.waits == 0
        assert len(device.uploads) <= 2 * parts and sum(device.uploads) <= 2 * own


@pytest.mark.parametrize("where", [DEVICE, torch.device("cpu")], ids=["device", "cpu"])
def test_bad_columns_are_refused_wherever_they_are(where, rng):
    X = with_tasks(rng, 4)
    bad = X.clone()
    bad[1, -1] = 7.0
    with pretended_device():
        X, bad = X.to(where), bad.to(where)
        tasks, gradients = Coregionalization(3), WithGradients(RBF(2, 0.5))
        for X1, X2 in ((bad, X), (X, bad), (bad, bad)):
            with pytest.raises(ValueError, match=r"task numbers 0 … 2; got \[7.0\]"):
                tasks(X1, X2)
            with pytest.raises(ValueError, match=r"1 … 2 for a derivative; got \[7.0\]"):
                gradients(X1, X2)
        with pytest.raises(ValueError, match=r"column 1 of X goes from .*, beyond the grid"):
            grid(axes()).diagonal(X[:, :2] + torch.tensor([[0.0, 9.0]]).double().to(where))
        for columns in ([0, 3], [-4, 1]):
            with pytest.raises(ValueError, match=r"looks at columns .*, but X has 3 column"):
                RBF(2, columns=columns)(X, X)


class StaysAtHome(Kernel):
    """A user's kernel that forgets where X is."""

    def forward(self, X1: Tensor, X2: Tensor) -> Tensor:
        return torch.ones(len(X1), len(X2), dtype=torch.float64)


def test_a_kernel_that_computes_elsewhere_is_told_so(rng):
    kernel = StaysAtHome()
    with pretended_device():
        X = uniform(rng, 3, 2).to(DEVICE)
        with pytest.raises(ValueError, match="StaysAtHome returned a matrix on cpu for inputs on"):
            kernel.evaluate(X, X, X.new_empty(3, 3))
        with pytest.raises(ValueError, match=r"by `\.to\(X1\.device\)`"):
            kernel.linearise(X, X)


def test_activity_must_be_told_where_the_inputs_are(rng):
    kernel = Conditional(2, lambda X: torch.ones(*X.shape, dtype=torch.bool))
    with pretended_device():
        X = uniform(rng, 3, 2).to(DEVICE)
        with pytest.raises(ValueError, match="active must return a tensor where X is"):
            kernel(X, X)


def test_a_learnt_map_follows_the_inputs_with_its_buffers(rng):
    norm = torch.nn.BatchNorm1d(2)
    assert norm.running_mean is not None
    norm.running_mean.fill_(0.3)
    kernel = FeatureMap(Ordinal(2, 3), torch.nn.Sequential(Waves(), norm))
    X = uniform(rng, 6, 5)
    G = normal(rng, 6, 6)
    with pretended_device():
        there = X.to(DEVICE)
        assert_there(kernel(there, there), kernel(X, X))
        assert all(p.device.type == "cpu" for p in [*kernel.parameters(), *kernel.buffers()])
        found = zip(
            kernel.pullback(there, there, G.to(DEVICE)), kernel.pullback(X, X, G), strict=True
        )
        for received, expected in found:
            assert_there(received, expected)


def test_what_moves_keeps_a_copy_on_each_device(rng):
    own = normal(rng, 200)
    function = Moving(lambda X, v: X * v, own)
    with pretended_device() as device:
        X = normal(rng, 200)
        assert torch.equal(function(X), X * own)
        there = X.to(DEVICE)
        device.forget()
        for _ in range(3):
            assert_there(function(there), X * own)
        assert device.uploads == [200]


# --------------------------------------------------------------------------------------
# Operators made of kernels.
# --------------------------------------------------------------------------------------


def entries(rng: torch.Generator) -> Tensor:
    """Rows [x, s] of a table of 6 × 3, in no order and two of them missing."""
    x, s = uniform(rng, 6, 2), torch.arange(3).double()
    X = torch.cat([x.repeat_interleave(3, 0), s.repeat(6).unsqueeze(1)], 1)
    return X[torch.randperm(len(X), generator=rng)][2:]


def assert_same_operator(there, here, rng: torch.Generator, device: PretendedDevice) -> None:
    """All that is asked of a covariance operator."""
    assert there.device == DEVICE and here.device.type == "cpu"
    V, A, B = normal(rng, 3, here.n).mT, normal(rng, here.n, 2), normal(rng, here.n, 2)
    index = torch.tensor([3, 0, 3, 7])
    assert_there(there.diagonal(), here.diagonal())
    assert_there(there.rows(index.to(DEVICE)), here.rows(index))
    blocks = torch.stack([index, index.flip(0)])
    assert_there(there.blocks(blocks.to(DEVICE)), here.blocks(blocks))
    assert_there(there.coordinates, here.coordinates)
    V_there, A_there, B_there = V.to(DEVICE), A.to(DEVICE), B.to(DEVICE)
    device.forget()
    product = there.matmul(V_there)
    gradients = there.pullback(A_there, B_there)
    assert not UNORDERED & set(device.calls)
    assert_there(product, here.matmul(V))
    for received, expected in zip(gradients, here.pullback(A, B), strict=True):
        assert_there(received, expected)


TABLES = {"table": EVERY["table"][0], "table of tasks": EVERY["table of tasks"][0]}


@pytest.mark.parametrize("kernel", TABLES.values(), ids=TABLES)
def test_a_table_is_multiplied_where_it_is(kernel, rng):
    X = entries(rng)
    with pretended_device() as device:
        here, there = Table.of(kernel, X), Table.of(kernel, X.to(DEVICE))
        assert here is not None and there is not None
        assert_there(there.row, here.row)
        assert_there(there.column, here.column)
        here, there = here.operator(kernel, None), there.operator(kernel, None)
        assert_same_operator(there, here, rng, device)
        V = normal(rng, here.n, 4).to(DEVICE)
        device.forget()
        there.matmul(V)
        assert device.waits == 0


def test_a_table_on_two_devices_is_refused():
    C = torch.eye(2).double()
    row, column = torch.tensor([0, 2]), torch.tensor([1, 0])
    with pretended_device():
        K = KernelOperator(RBF(1), torch.rand(3, 1).double().to(DEVICE))
        with pytest.raises(ValueError, match="row and column must be where the terms are"):
            TableOperator([Term(K, C.to(DEVICE))], row, column)
        with pytest.raises(ValueError, match="row and column must be where the terms are"):
            TableOperator([Term(K, C)], row.to(DEVICE), column.to(DEVICE))


@pytest.mark.parametrize("base", [RBF, Matern52])
@pytest.mark.parametrize("storage", ["float64", "tiles"])
def test_values_and_gradients_are_multiplied_where_they_are(base, storage, rng, monkeypatch):
    monkeypatch.setattr(tiling, "_ROWS", 4)
    monkeypatch.setattr(tiling, "_COLUMNS", 6)
    kernel = WithGradients(base(2, [0.4, 0.6], 1.7), offset=0.7)
    points = uniform(rng, 11, 2)
    row = torch.randint(0, 11, (40,), generator=rng)  # some numbers are observed more than once
    column = torch.randint(0, 3, (40,), generator=rng)
    with pretended_device() as device:
        data = points, row, column
        here = GradientOperator(kernel, *data, storage=storage)
        there = GradientOperator(kernel, *(part.to(DEVICE) for part in data), storage=storage)
        assert there.roundoff == here.roundoff
        assert_same_operator(there, here, rng, device)
        V = normal(rng, here.n, 4).to(DEVICE)
        device.forget()
        there.matmul(V)
        there.pullback(V, V)
        assert device.waits == 0 and not device.uploads
        with pytest.raises(ValueError, match="row and column must be on meta, where the points"):
            GradientOperator(kernel, points.to(DEVICE), row, column)


def test_products_from_a_grid_are_made_where_the_points_are(rng):
    kernel, X = grid(axes()), uniform(rng, 12, 2)
    with pretended_device() as device:
        here, there = kernel.operator(X), kernel.operator(X.to(DEVICE))
        assert here is not None and there is not None
        assert_same_operator(there, here, rng, device)
