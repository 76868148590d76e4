"""What a user knows, or wants, beyond the problem: a prior, a budget, varying parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbmmopt.acquisition import LogPrior, base_samples
from bbmmopt.acquisition.weighted import Density, Levels, Normal
from bbmmopt.perturbation import stds_of
from bbmmopt.prior import Bell, columns_of
from bbmmopt.search import Domain
from bbmmopt.space import Space

_BETA = 5.0  # where no budget is known: of 50
_BETA_SHARE = 10  # of the budget, a tenth
_MOST = 4096  # points of a prior that are looked at for one that may be proposed
_DELTAS, _DELTAS_OF_RISK = 16, 32  # perturbations; the worst of them are few


@dataclass(frozen=True)
class Guide:
    """What guides a search beyond the problem.

    Attributes:
        prior: Where the optimum is believed to be; None if anywhere.
        budget: How many trials are planned, if known.
        perturbation: Standard deviation by which each column will vary in use, shape (d,); None if
            none will.
        level: Share of the perturbations that counts, the worst of them; 1 for all.
        held: Columns that are not for choice, and their values; see `Former`.
    """

    prior: LogPrior | None = None
    budget: int | None = None
    perturbation: Tensor | None = None
    level: float = 1.0
    held: Mapping[int, float] = field(default_factory=dict)

    @staticmethod
    def of(
        settings: Mapping[str, Any], space: Space, held: Mapping[int, float] | None = None
    ) -> Guide:
        """The guide that the settings of a study describe."""
        prior, perturbation = settings.get("prior"), settings.get("perturbation")
        risk = settings.get("risk") or "mean"
        stds = None
        if perturbation:
            stds = torch.tensor(stds_of(perturbation, space), dtype=torch.float64)
        return Guide(
            log_prior(prior, space) if prior else None,
            settings.get("budget"),
            stds,
            1.0 if risk == "mean" else 1.0 - risk,
            held or {},
        )

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but the problem."""
        return self.prior is None and self.perturbation is None

    @property
    def guides(self) -> bool:
        """Whether there is more than a budget."""
        return self.prior is not None or self.perturbation is not None

    @property
    def beta(self) -> float:
        """The number of trials after which the prior counts as one factor: a tenth of them all."""
        return self.budget / _BETA_SHARE if self.budget else _BETA

    def prior_exponent(self, told: int) -> float:
        """How much the prior counts after so many trials: β / n, where n = 0 counts as 1.

        Source: Hvarfner et al. (2022), https://arxiv.org/abs/2204.11051.
        """
        return self.beta / max(told, 1)

    def cost_exponent(self, told: int) -> float:
        """How much cost counts after so many trials: 1 at first, 0 when the budget is spent.

        ½ where no budget is known.

        Source: Lee et al. (2020), https://arxiv.org/abs/2003.10870.
        """
        return max(0.0, 1 - told / self.budget) if self.budget else 0.5

    def deltas(self, generator: torch.Generator) -> Tensor:
        """Perturbations of a row (w, d): in pairs that cancel, of the variance asked for."""
        assert self.perturbation is not None
        count = _DELTAS if self.level == 1 else _DELTAS_OF_RISK
        half = base_samples(count // 2, len(self.perturbation), generator)
        half = half / half.square().mean(0).sqrt() * self.perturbation
        return torch.cat([half, -half])

    def start(self, domain: Domain, generator: torch.Generator, number: int) -> np.ndarray | None:
        """An unseen point of the prior for the start, shape (d,): every second trial's.

        A scrambled Sobol sequence, the same for all trials by the same generator, through the
        quantiles of the prior; None if it is not the prior's turn, or no point is left that may
        be proposed.
        """
        if self.prior is None or number % 2 == 0:
            return None
        d = len(domain.space)
        seed = int(torch.randint(2**62, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed)
        engine.fast_forward(number // 2)
        for block in (1, 64, _MOST):
            U = engine.draw(block, dtype=torch.float64)
            for j, density in self.prior.densities.items():
                U[:, j] = density.quantile(U[:, j])
            X = domain.place(U.numpy())
            allowed = np.flatnonzero(domain.unseen(X) & domain.feasible(X))
            if len(allowed):
                return X[allowed[0]]
        return None


def log_prior(prior: Mapping[str, Any], space: Space) -> LogPrior:
    """The density that `prior_to_json` described; a column that is not active does not count."""
    densities: dict[int, Density] = {
        j: Normal(*belief) if isinstance(belief, Bell) else Levels(belief)
        for j, belief in columns_of(prior, space).items()
    }

    def active(X: Tensor) -> Tensor:
        return torch.from_numpy(space.active(X.detach().cpu().numpy())).to(X.device)

    conditional = any(parameter.when for parameter in space.parameters.values())
    return LogPrior(densities, active if conditional else None)
