"""Complete tables: all of inference from eigenvectors of the covariances of rows and columns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.kernels.base import Kernel, Linearised
from surrogate.kernels.table import Table, TableKernel
from surrogate.models.exact import ExactGP
from surrogate.models.noise import Homoskedastic, NoisePerTask
from surrogate.solvers.auto import Auto, Choice
from surrogate.solvers.cholesky import Cholesky
from surrogate.transfers import beside

_EIGEN_TO = 3000  # most rows or columns that eigenvectors are looked for of


def complete_table(model: ExactGP, X: Tensor, noise: Tensor) -> Table | None:
    """The table that X fills, if both of its factors can be diagonalised.

    That takes one term, no entry missing, and a noise that is learnt and depends on the column at
    most; and a solver that was left to choose.
    """
    kernel = model.kernel
    if not isinstance(kernel, TableKernel) or len(kernel.terms) > 1:
        return None
    by_column = isinstance(model.noise_model, NoisePerTask) and kernel.dims == kernel.split + 1
    if by_column and model.noise_model.column not in (-1, kernel.split):
        return None
    if not (by_column or isinstance(model.noise_model, Homoskedastic)):
        return None
    if not isinstance(model.solver, Auto) or not bool(noise.isnan().all()):
        return None
    table = Table.of(kernel, X)
    if table is None or not table.is_complete:
        return None
    return table if max(len(table.X), len(table.S)) <= _EIGEN_TO else None


def structured(
    model: ExactGP, X: Tensor, noise: Tensor, choice: Choice
) -> tuple[Choice, Table | None]:
    """What is done for these data: what their structure allows, else the choice made by size."""
    table = complete_table(model, X, noise)
    if table is None:
        return choice, None
    reason = f"a complete table of {len(table.X)} × {len(table.S)}"
    return Choice(Cholesky(), reason, "eigenvectors"), table


@dataclass(frozen=True)
class KroneckerFactor:
    """K ⊗ C + I ⊗ D by eigenvectors of K and of D^(-1/2) C D^(-1/2).

    With VΛVᵀ and UMUᵀ the two of them, K̂ = (V ⊗ D^(1/2)U)(Λ ⊗ M + I)(V ⊗ D^(1/2)U)ᵀ: n³ + T³
    operations instead of n³T³.

    Source: Stegle et al. (2011), Efficient inference in matrix-variate Gaussian models with iid
    observation noise.

    Attributes:
        table: Where the observations stand; no entry missing.
        V: Shape (n, n).
        values: Λ, shape (n,).
        W: D^(-1/2)U, shape (T, T).
        column_values: M, shape (T,).
        D: Noise variance of each column, shape (T,).
        jitter: 0: eigenvalues below zero are rounding, and count as zero.
    """

    table: Table
    V: Tensor
    values: Tensor
    W: Tensor
    column_values: Tensor
    D: Tensor
    jitter: float = 0.0

    @staticmethod
    def of(table: Table, values: Tensor, V: Tensor, C: Tensor, D: Tensor) -> KroneckerFactor:
        """From eigenvalues (n,) and eigenvectors (n, n) of K, C (T, T) and noise D (T,)."""
        root = D.rsqrt()
        column_values, U = torch.linalg.eigh(root.unsqueeze(1) * C * root)
        low = C.new_zeros(())
        return KroneckerFactor(
            table, V, values.maximum(low), root.unsqueeze(1) * U, column_values.maximum(low), D
        )

    @property
    def spectrum(self) -> Tensor:
        """Λ ⊗ M + I, shape (n, T)."""
        return torch.addr(self.V.new_ones(1), self.values, self.column_values)

    def logdet(self) -> Tensor:
        """log|K̂|, shape ()."""
        return self.spectrum.log().sum() + len(self.V) * self.D.log().sum()

    def whiten(self, B: Tensor) -> Tensor:
        """Return F⁻¹B for B (N, t) and an F with F Fᵀ = K̂."""
        tables = self.tables(B)  # (t, n, T)
        white = self.V.mT @ tables @ self.W / self.spectrum.sqrt()
        return white.reshape(B.shape[1], len(B)).mT

    def unwhiten(self, B: Tensor) -> Tensor:
        """Return F⁻ᵀB for B (N, t)."""
        white = B.mT.reshape(B.shape[1], *self.spectrum.shape) / self.spectrum.sqrt()
        return self._entries(self.V @ white @ self.W.mT)

    def solve(self, B: Tensor) -> Tensor:
        """Return K̂⁻¹B for B (N, t)."""
        return self.unwhiten(self.whiten(B))

    def tables(self, B: Tensor) -> Tensor:
        """The columns of B (N, t) as tables, shape (t, n, T)."""
        n, T = self.spectrum.shape
        place = self.table.row * T + self.table.column
        out = B.new_zeros(B.shape[1], n * T).index_copy(1, place, B.mT)
        return out.view(B.shape[1], n, T)

    def _entries(self, tables: Tensor) -> Tensor:
        n, T = self.spectrum.shape
        return tables.reshape(len(tables), n * T)[:, self.table.row * T + self.table.column].mT


def kronecker_factor(model: ExactGP, table: Table) -> KroneckerFactor:
    """K̂ of a model whose data fill a table."""
    assert isinstance(model.kernel, TableKernel)
    ((k, c),) = model.kernel.terms
    with torch.no_grad():
        K = k.linearise(table.X, table.X).K
        C = c.linearise(table.S, table.S).K
        values, V = torch.linalg.eigh(K)
        return KroneckerFactor.of(table, values, V, C, _column_noise(model, table))


def _column_noise(model: ExactGP, table: Table) -> Tensor:
    rows = torch.cat([table.X[:1].expand(len(table.S), -1), table.S], 1)
    return model.noise_model(rows).detach()


class TableEvaluator:
    """log p(y) of a complete table and its gradient, in O(n³ + T³), where the model stands.

    With A = K̂⁻¹(y - m) as a table, c_i = Σ_t μ_t / (λ_i μ_t + 1) and e_t = Σ_i λ_i / (λ_i μ_t + 1):

        ∂/∂K = ½ (A C Aᵀ - V diag(c) Vᵀ),    ∂/∂C = ½ (Aᵀ K A - W diag(e) Wᵀ)

    The eigenvectors of K, and Y in their coordinates, are kept until its parameters change: steps
    in all others take O(n T²).

    Args:
        model: Of a `TableKernel` with one term.
        table: What the data fill.
        X, y: Checked data, shapes (N, d + c) and (N,).
        best_mean: First set the model's m to its most likely value.

    Attributes:
        wants_rows: Whether the gradient in the parameters of K is wanted; else it is 0.
    """

    def __init__(
        self, model: ExactGP, table: Table, X: Tensor, y: Tensor, *, best_mean: bool
    ) -> None:
        self._model, self._table, self._X = model, table, X
        n, T = len(table.X), len(table.S)
        place = table.row * T + table.column
        self._Y = y.new_zeros(n * T).index_copy(0, place, y).view(n, T)
        self._best_mean, self.wants_rows = best_mean, True
        self._known: tuple[list[Tensor], _Rows] | None = None

    @torch.no_grad()
    def __call__(self) -> tuple[float, list[Tensor], float]:
        """The value; the gradients in `searched_parameters()` and m, in this order; no jitter."""
        model, table = self._model, self._table
        assert isinstance(model.kernel, TableKernel)
        ((k, c),) = model.kernel.terms
        rows = self._rows(k)
        by_columns = c.linearise(table.S, table.S)
        C, D = by_columns.K, _column_noise(model, table)
        factor = KroneckerFactor.of(table, rows.values, rows.V, C, D)
        W, root = factor.W, factor.spectrum.sqrt()
        white = rows.Y @ W / root  # of Y, and of a table of ones
        white_one = torch.outer(rows.one, W.sum(0)) / root
        if self._best_mean:
            mean = (white * white_one).sum() / white_one.square().sum()
        else:
            mean = beside(model.constant, white)
        residual = white - mean * white_one
        form, best = torch.stack([residual.square().sum() + factor.logdet(), mean]).tolist()
        if self._best_mean:
            model.constant.fill_(best)
        value = -0.5 * form - 0.5 * rows.Y.numel() * math.log(2 * math.pi)
        A = (residual / root) @ W.mT  # VᵀA, (n, T)
        inverse = 1 / factor.spectrum
        if self.wants_rows:
            inside = A @ C @ A.mT
            inside.diagonal().sub_(inverse @ factor.column_values)
            gradients = list(rows.linearised.parameters(0.5 * (rows.V @ inside @ rows.V.mT)))
        else:
            gradients = [torch.zeros_like(p) for p in k.parameters()]
        scaled = A * factor.values.unsqueeze(1)
        by_C = 0.5 * (A.mT @ scaled - (W * (factor.values @ inverse)) @ W.mT)
        # Noise is the same all along a column, so that only the sum over it matters.
        by_column = 0.5 * (A.square().sum(0) - W.square() @ inverse.sum(0)) / len(A)
        by_noise = model.noise_model.pullback(self._X, by_column[table.column])
        by_mean = rows.one @ A.sum(1)
        return value, [*gradients, *by_columns.parameters(by_C), *by_noise, by_mean], 0.0

    def _rows(self, k: Kernel) -> _Rows:
        at = [p.detach().clone() for p in k.parameters()]
        if self._known is None or not all(map(torch.equal, at, self._known[0])):
            linearised = k.linearise(self._table.X, self._table.X)
            values, V = torch.linalg.eigh(linearised.K)
            self._known = at, _Rows(linearised, values, V, V.mT @ self._Y, V.sum(0))
        return self._known[1]


@dataclass(frozen=True)
class _Rows:
    """What the parameters of K alone decide.

    Attributes:
        linearised: K.
        values: Its eigenvalues, shape (n,).
        V: Its eigenvectors, shape (n, n).
        Y: VᵀY, shape (n, T).
        one: Vᵀ1, shape (n,).
    """

    linearised: Linearised
    values: Tensor
    V: Tensor
    Y: Tensor
    one: Tensor
