"""A Gaussian process, exactly: the model, its marginal likelihood, conditioning on data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeVar

import torch
from torch import Tensor, nn

from surrogate.checks import as_matrix, as_noise, as_targets, check_parameters
from surrogate.kernels.base import Kernel
from surrogate.kernels.combine import Columns
from surrogate.models.covariance import helped, kernel_operator
from surrogate.models.noise import Homoskedastic, Noise
from surrogate.models.priors import DIMENSION_SCALED, LogPriors, Prior, PriorSet, prior_set
from surrogate.solvers.auto import Auto, Choice, Solver, for_fit, for_prediction
from surrogate.solvers.bbmm import BBMM
from surrogate.solvers.cholesky import Cholesky
from surrogate.solvers.inv_quad_logdet import Estimate, Probes, certain, inv_quad_logdet
from surrogate.transfers import beside, to_host
from surrogate.workspace import Workspace

if TYPE_CHECKING:
    from surrogate.kernels.table import Table
    from surrogate.models.fit import FitReport
    from surrogate.models.posterior import Posterior

_CHOLESKY = Cholesky()
_LENGTHS = ("lengthscale", "support", "periodic_lengthscale")  # roles
_Module = TypeVar("_Module", bound=nn.Module)


class ExactGP(nn.Module):
    """y = f(x) + ε with f ~ GP(m, k) and ε ~ N(0, σ²), m a constant.

    Parameters that were given no value begin where the priors start; `fit` returns a fitted copy.
    They are on the CPU. What is computed with data is computed, and stays, where X is.

    Args:
        kernel: k. The model keeps a copy.
        mean: m, in the units of y; learnt.
        noise: σ², in the units of y squared, for observations whose noise is not given; learnt.
            None takes the prior's start value. A `Noise` says how it varies.
        priors: A set of priors or its name. "dimension-scaled-1", the default, expects inputs in
            the unit cube and standardised targets; "flat-1" is plain maximum likelihood.
        solver: How linear systems are solved: `Cholesky()`, `BBMM()`, or `Auto()`, the default,
            which takes whichever is the cheaper for that many observations.

    Attributes:
        report: How the fit that made this model went; None for a model that was not fitted.
    """

    report: FitReport | None = None
    is_guarded: bool = False
    """Whether `prepared` looks out for a bad basin itself, so that one start is enough."""

    def __init__(
        self,
        kernel: Kernel,
        *,
        mean: float = 0.0,
        noise: float | Noise | None = None,
        priors: str | PriorSet = DIMENSION_SCALED,
        solver: Solver | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel must be a Kernel, such as Matern52(dims=3); got {kernel!r}.")
        self.kernel = copy.deepcopy(kernel)
        self.priors = prior_set(priors)
        self.solver: Solver = Auto() if solver is None else solver
        if noise is None:
            noise = self.priors.prior("noise", 1).start
        own = isinstance(noise, Noise)
        self.noise_model = copy.deepcopy(noise) if own else Homoskedastic(noise)
        self.constant = nn.Parameter(torch.tensor(float(mean), dtype=torch.float64))
        for part in self.kernel.modules():
            if isinstance(part, Kernel) and part.unset:
                self._start(part, part.unset)

    @property
    def dims(self) -> int | None:
        """How many columns X must have, if some part of the kernel looks at all of them."""
        return _dims(self.kernel)

    @property
    def noise(self) -> Tensor:
        """σ², in the units of y squared: shape () unless a `Noise` with several was given."""
        return self.noise_model.level

    @property
    def mean(self) -> Tensor:
        """m, in the units of y, shape ()."""
        return self.constant

    def clone(self) -> Self:
        """A copy with parameters of its own; what has no parameters is shared.

        `copy.deepcopy` does the same in 0.5 ms, which is what a likelihood takes at n = 100.
        """
        return _clone(self)

    def _start(self, part: Kernel, names: Iterable[str]) -> None:
        """Move parameters of a part of the kernel to where the priors start."""
        for name in names:
            prior = self.priors.prior(part.roles.get(name, name), int(getattr(part, "dims", 1)))
            if not math.isnan(prior.start):
                part.get_parameter(name).data.fill_(prior.stored(prior.start))

    def is_lengthscale(self) -> list[bool]:
        """Which entries of the flat vector of `log_priors` are lengthscales."""
        roles = self.kernel.roles_of_parameters()
        flat: list[bool] = []
        for parameter, (role, _) in zip(self.kernel.parameters(), roles, strict=True):
            flat += [role in _LENGTHS] * parameter.numel()
        return flat + [False] * sum(p.numel() for p in self.noise_model.parameters())

    def log_priors(self) -> LogPriors:
        """Priors of the flat vector [kernel parameters …, noise parameters …].

        Frozen ones included.
        """
        return LogPriors.of(self.priors_of_parameters())

    def priors_of_parameters(self) -> list[Prior]:
        """One for each entry of that vector."""
        flat: list[Prior] = []
        parameters = [*self.kernel.parameters(), *self.noise_model.parameters()]
        roles = [*self.kernel.roles_of_parameters(), *self.noise_model.roles_of_parameters()]
        for parameter, (role, dims) in zip(parameters, roles, strict=True):
            flat += [self.priors.prior(role, dims)] * parameter.numel()
        return flat

    def searched_parameters(self) -> list[nn.Parameter]:
        """Parameters of the kernel and of the noise, in the order of `log_priors`."""
        return [*self.kernel.parameters(), *self.noise_model.parameters()]

    @property
    def points_shape(self) -> tuple[int, int]:
        """Shape of the last of them where these are coordinates that a fit moves; else (0, 1)."""
        return 0, 1

    def covariance(self, X: Tensor, noise: Tensor | None = None) -> Tensor:
        """K̂ = k(X, X) + noise on the diagonal, shape (n, n), differentiable in the parameters."""
        return self.kernel(X, X) + self.noise_variances(X, as_noise(noise, len(X), X.device)).diag()

    def noise_variances(self, X: Tensor, noise: Tensor) -> Tensor:
        """σ² at X (n, d) where `noise` (n,) is NaN, else the variance given."""
        return torch.where(noise.isnan(), self.noise_model(X), noise)

    def log_marginal_likelihood(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> Estimate:
        """log p(y | X) with its error bar; its value is differentiable in the parameters.

            -½ (y - m)ᵀ K̂⁻¹ (y - m) - ½ log|K̂| - n/2 log 2π

        Source: Rasmussen & Williams (2006), eq. 2.30.

        Args:
            X: Shape (n, d).
            y: Shape (n,).
            noise: Variance of each observation, shape (n,), NaN where σ² is to be used.
        """
        return self.log_density(*self.as_data(X, y, noise))

    def prepared(self, X: Tensor, y: Tensor, noise: Tensor, *, restart: bool) -> Self:
        """What `fit` begins with, given checked data: this model, or one made from it for them."""
        return self

    def choice_for_fit(self, X: Tensor, noise: Tensor) -> Choice:
        """What `fit` works with, given checked data."""
        from surrogate.models.kronecker import structured

        return structured(self, X, noise, for_fit(self.solver, len(X)))[0]

    def evaluator(
        self, X: Tensor, y: Tensor, noise: Tensor, solver: Cholesky, *, best_mean: bool
    ) -> Callable[[], tuple[float, list[Tensor], float]]:
        """What an exact fit calls at each step, once the parameters have moved.

        Args:
            X, y, noise: Checked data.
            solver: How K̂ is factored.
            best_mean: Whether m is first set to its most likely value.

        Returns:
            A function that returns log p(y), its gradients in `searched_parameters()` and m, in
            this order, and the jitter that was needed.
        """
        from surrogate.models.kronecker import TableEvaluator, complete_table

        table = complete_table(self, X, noise)
        if table is not None:
            return TableEvaluator(self, table, X, y, best_mean=best_mean)
        workspace = Workspace(X.device)
        return lambda: log_marginal_likelihood_and_gradient(
            self, X, y, noise, workspace, solver=solver, best_mean=best_mean
        )

    def bracketed(self, value: float, X: Tensor, y: Tensor, noise: Tensor) -> Estimate:
        """log p(y) of checked data, given what `evaluator` found where the model stands."""
        return certain(value)

    def as_data(
        self, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """X (n, d), y (n,) and noise variances (n,), checked.

        Raises:
            ValueError: If shapes do not match, values are not finite, the data are on two devices,
                or the parameters not on the CPU.
        """
        check_parameters(self)
        X = as_matrix("X", X, self.dims)
        y = as_targets("y", y, len(X), X.device)
        return X, y, as_noise(noise, len(X), X.device)

    def log_density(self, X: Tensor, y: Tensor, noise: Tensor) -> Estimate:
        """`log_marginal_likelihood` of checked data."""
        from surrogate.models.kronecker import complete_table

        table = complete_table(self, X, noise)
        if table is not None:
            return self._by_eigenvectors(table, X, y)
        solver = for_prediction(self.solver, len(X)).solver
        if isinstance(solver, BBMM):
            return self._estimate(X, y, noise, solver)
        y = y - self.constant
        factor = solver.factor(self.covariance(X, noise))
        quadratic = y @ factor.solve(y.unsqueeze(-1)).squeeze(-1)
        return certain(-0.5 * (quadratic + factor.logdet() + len(X) * math.log(2 * math.pi)))

    def _by_eigenvectors(self, table: Table, X: Tensor, y: Tensor) -> Estimate:
        from surrogate.models.kronecker import TableEvaluator

        found, gradients, _ = TableEvaluator(self, table, X, y, best_mean=False)()
        value = torch.as_tensor(found, dtype=torch.float64)
        if torch.is_grad_enabled():
            parameters = [*self.searched_parameters(), self.constant]
            for p, g in zip(parameters, to_host(*gradients), strict=True):
                value = value + (g * _zero(p)).sum()
        return replace(certain(found), value=value)

    def _estimate(self, X: Tensor, y: Tensor, noise: Tensor, solver: BBMM) -> Estimate:
        with torch.no_grad():
            variances = helped(self.noise_variances(X, noise), self.kernel.diagonal(X))
            K = kernel_operator(self.kernel, X, variances, solver)
            system = solver.system(K, variances)
            P = system.preconditioner
            solved = inv_quad_logdet(
                system.operator,
                P,
                Probes.draw(P, solver),
                y,
                mean=float(self.constant),
                tolerance=solver.training_tolerance,
                max_steps=solver.max_steps,
                lanczos=True,
            )
            estimate = solved.log_marginal_likelihood()
        if not torch.is_grad_enabled():
            return estimate
        A, B = solved.bilinear
        by_noise = (A * B).sum(1)
        parameters = [*self.kernel.parameters(), self.constant]
        gradients = [*K.pullback(A, B), solved.alpha.sum()]
        # Terms that are zero, and whose gradient is that of the likelihood.
        value = estimate.value + (by_noise * _zero(self.noise_variances(X, noise))).sum()
        for p, g in zip(parameters, to_host(*gradients), strict=True):
            value = value + (g * _zero(p)).sum()
        return replace(estimate, value=value)

    def condition(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> Posterior:
        """Belief about f after seeing the data; the model itself stays as it is.

        Args:
            X: Shape (n, d); n may be 0.
            y: Shape (n,).
            noise: Variance of each observation, shape (n,), NaN where σ² is to be used.

        Raises:
            ValueError: If shapes do not match or values are not finite.
        """
        from surrogate.models.posterior import Posterior

        return Posterior.of(self, *self.as_data(X, y, noise))


def _dims(kernel: nn.Module) -> int | None:
    if getattr(kernel, "columns", ...) is None:
        return getattr(kernel, "dims", None)
    if isinstance(kernel, Columns):  # what is inside sees other inputs
        return None
    found = (_dims(child) for child in kernel.children())
    return next((dims for dims in found if dims is not None), None)


def _zero(values: Tensor) -> Tensor:
    """Zeros whose derivative is that of the values."""
    return values - values.detach()


def _clone(module: _Module) -> _Module:
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    twin._parameters = {
        name: None if p is None else nn.Parameter(p.detach().clone(), p.requires_grad)
        for name, p in module._parameters.items()
    }
    twin._buffers = module._buffers.copy()
    twin._modules = {name: m and _clone(m) for name, m in module._modules.items()}
    return twin


@torch.no_grad()
def log_marginal_likelihood_and_gradient(
    model: ExactGP,
    X: Tensor,
    y: Tensor,
    noise: Tensor,
    workspace: Workspace,
    *,
    solver: Cholesky = _CHOLESKY,
    best_mean: bool = False,
) -> tuple[float, list[Tensor], float]:
    """log p(y | X), its gradient in closed form, and the jitter that was needed.

    With α = K̂⁻¹(y - m) the gradient in K̂ is G = ½ (ααᵀ - K̂⁻¹), which the kernel pulls back:
    Rasmussen & Williams (2006), eq. 5.9. The same number as autograd through
    `ExactGP.log_marginal_likelihood`, about ten times sooner, since nothing of size n² is recorded
    and the n × n temporaries are used again.

    Args:
        X, y: Checked data, shapes (n, d) and (n,).
        noise: Variances with NaN where σ² is to be used, shape (n,).
        workspace: Scratch memory of this fit.
        solver: How K̂ is factored.
        best_mean: First set the model's m to its most likely value at these other parameters,
            1ᵀK̂⁻¹y / 1ᵀK̂⁻¹1 (generalised least squares). A search then has one variable less, and
            the one that is most entangled with s²; the other gradients stay right, for that of m
            is 0.

    Returns:
        The value; the gradients in `searched_parameters()` and m, in this order; the jitter.
    """
    n = len(X)
    linearised = model.kernel.linearise(X, X, workspace.child("kernel"))
    K = workspace.buffer("Khat", n, n).copy_(linearised.K)
    K.diagonal().add_(model.noise_variances(X, noise))
    factor = solver.factor(K, out=workspace.buffer("L", n, n))
    solved = torch.cholesky_solve(torch.stack([y, torch.ones_like(y)], 1), factor.L)  # (n, 2)
    if best_mean:
        by_y, by_one = solved.sum(0)  # 1ᵀK̂⁻¹y and 1ᵀK̂⁻¹1
        mean = by_y / by_one
    else:
        mean = beside(model.constant, X)
    alpha = torch.addcmul(solved[:, 0], solved[:, 1], mean, value=-1)  # (n,)
    form = (y - mean) @ alpha + factor.logdet()
    form, best = torch.stack([form, mean]).tolist()  # in one go, for the host waits for it
    if best_mean:
        model.constant.fill_(best)
    value = -0.5 * form - 0.5 * n * math.log(2 * math.pi)
    # `cholesky_inverse` costs a third less than solving for the identity.
    G = torch.cholesky_inverse(factor.L, out=workspace.buffer("G", n, n))
    G.addr_(alpha, alpha, beta=-0.5, alpha=0.5)
    by_noise = model.noise_model.pullback(X, G.diagonal() * noise.isnan())
    gradients = [*linearised.parameters(G), *by_noise, alpha.sum()]
    return value, gradients, factor.jitter
