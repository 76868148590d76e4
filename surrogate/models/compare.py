"""Which of several models predicts the data best."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surrogate.models.exact import ExactGP
from surrogate.models.fit import fit
from surrogate.models.metrics import nlpd, rmse
from surrogate.models.multi_output import MultiOutputPosterior
from surrogate.models.posterior import Posterior

_FOLDS = 10


@dataclass(frozen=True)
class Compared:
    """How well one model predicts each observation from the others.

    Attributes:
        name: As given, or what the kernel is.
        model: Fitted.
        nlpd: Mean negative log density of what was left out, in nats: lower is better.
        rmse: Root mean squared error of the same, in the units of y.
        rank_correlation: Of predictions and values (Spearman): 1 where their order is right.
        log_marginal_likelihood: In nats; of the same data, but only comparable between models
            with like priors.
        parameters: How many were learnt.
        seconds: Of the fit.
    """

    name: str
    model: ExactGP
    nlpd: float
    rmse: float
    rank_correlation: float
    log_marginal_likelihood: float
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Comparison(Sequence[Compared]):
    """The models compared, the best first; printed, a table.

    Attributes:
        rows: One for each model, the least NLPD first.
    """

    rows: tuple[Compared, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Compared:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.rows[index]

    @property
    def best(self) -> ExactGP:
        """The fitted model of least NLPD."""
        return self.rows[0].model

    def __str__(self) -> str:
        width = max([len("model"), *(len(row.name) for row in self.rows)])
        lines = [
            f"{'model':{width}}  {'NLPD':>8}  {'RMSE':>8}  {'rank':>6}  {'log p(y)':>10}  "
            f"{'parameters':>10}  {'seconds':>7}"
        ]
        lines += [
            f"{row.name:{width}}  {row.nlpd:8.4f}  {row.rmse:8.4g}  {row.rank_correlation:6.3f}  "
            f"{row.log_marginal_likelihood:10.2f}  {row.parameters:10}  {row.seconds:7.2f}"
            for row in self.rows
        ]
        return "\n".join(lines)


def compare(
    models: Sequence[ExactGP] | Mapping[str, ExactGP],
    X: Tensor,
    y: Tensor,
    noise: Tensor | None = None,
) -> Comparison:
    """Fit each model, and rank them by how well they predict each observation from the others.

    Leave-one-out predictions are exact and in closed form where a posterior has them; else a tenth
    of the rows is left out at a time. Either way the parameters stay those fitted to all data, so
    a model with very many of them is flattered.

    Args:
        models: What to compare; names are those of a mapping, or made from the kernels.
        X, y, noise: Data, as for `fit`.

    Raises:
        ValueError: If there are no models, or fewer than two observations.
    """
    named = dict(models) if isinstance(models, Mapping) else _named(models)
    if not named:
        raise ValueError("there is no model to compare; pass at least one.")
    rows = [_compared(name, model, X, y, noise) for name, model in named.items()]
    return Comparison(tuple(sorted(rows, key=lambda row: row.nlpd)))


def _compared(name: str, model: ExactGP, X: Tensor, y: Tensor, noise: Tensor | None) -> Compared:
    began = time.perf_counter()
    model = fit(model, X, y, noise=noise)
    seconds = time.perf_counter() - began
    values, mean, std = _left_out(model, X, y, noise)
    if len(values) < 2:
        raise ValueError(f"models are compared on two observations or more; got {len(values)}.")
    assert model.report is not None
    return Compared(
        name=name,
        model=model,
        nlpd=nlpd(mean, std, values),
        rmse=rmse(mean, values),
        rank_correlation=_spearman(mean, values),
        log_marginal_likelihood=model.report.log_marginal_likelihood,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=seconds,
    )


def _left_out(
    model: ExactGP, X: Tensor, y: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, and what is expected of each without it: mean and standard deviation, noise in."""
    posterior = model.condition(X, y, noise)
    if isinstance(posterior, MultiOutputPosterior):
        posterior = posterior.long
    if isinstance(posterior, Posterior):
        return (posterior.y, *posterior.leave_one_out())
    X, y, noise = model.as_data(X, y, noise)
    mean, std, folds = torch.empty_like(y), torch.empty_like(y), min(_FOLDS, len(y))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).to(y.device)
    for left in order.tensor_split(folds) if folds > 1 else ():
        kept = torch.ones_like(y, dtype=torch.bool).index_fill(0, left, False)
        others = model.condition(X[kept], y[kept], noise[kept])
        mean[left], deviation = others.marginals(X[left])
        std[left] = (deviation.square() + model.noise_variances(X[left], noise[left])).sqrt()
    return y, mean, std.detach()


def _named(models: Sequence[ExactGP]) -> dict[str, ExactGP]:
    """Names from kernels, told apart by a number where they are the same."""
    named: dict[str, ExactGP] = {}
    for model in models:
        kernels = [type(k).__name__ for k in model.kernel.modules() if not list(k.children())]
        name = " ".join(dict.fromkeys([type(model).__name__, *kernels]))
        count = sum(key == name or key.startswith(f"{name} (") for key in named)
        named[f"{name} ({count + 1})" if count else name] = model
    return named


def _spearman(a: Tensor, b: Tensor) -> float:
    """Correlation of the ranks; ties have their mean rank. 0 where either is constant."""
    ranks = torch.stack([_ranks(a), _ranks(b)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    size = ranks.norm(dim=1).prod()
    return float(ranks.prod(0).sum() / size) if size > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).to(torch.float64)
    return (last - 0.5 * (counts - 1))[inverse]
