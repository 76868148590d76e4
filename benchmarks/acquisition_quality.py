"""Two maximisers on one acquisition function: ours, and BoTorch's optimize_acqf.

Comparing proposals under somebody's own model mixes two things, the model and the maximiser. Here
our fitted Gaussian process is rebuilt in BoTorch with its parameters held fixed, so that both
maximisers climb the same function, LogEI under that one belief:

1. describe(belief)          in our process: the belief as plain numbers
2. acquisition_quality(...)  in BoTorch's process: rebuild, check, maximise, compare

`ask_latency.py` runs both steps on each of its data sets.
"""

import math
import time

import numpy as np
import torch
from scipy.special import erfcx, ndtr

SMOOTHNESS = {"Matern12": 0.5, "Matern32": 1.5, "Matern52": 2.5}


def log_expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """log E[max(f - best, 0)] for f ~ N(mean, std²): neither library's code, so a judge of both.

    Source: Ament et al. (2023), https://arxiv.org/abs/2310.20708, eq. 9.
    """
    z = (mean - best) / std
    log_phi = -(z**2) / 2 - math.log(2 * math.pi) / 2
    high, low = np.maximum(z, -1.0), np.clip(z, -1e4, -1.0)
    near = np.log(np.exp(-(high**2) / 2) / math.sqrt(2 * math.pi) + high * ndtr(high))
    far = log_phi + np.log1p(low * math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2)))
    limit = log_phi - 2 * np.log(np.maximum(-z, 1.0))
    return np.log(std) + np.where(z > -1, near, np.where(z > -1e4, far, limit))


def describe(belief) -> dict:
    """Our belief as plain numbers: the data as the model sees them, and its fitted parameters.

    Args:
        belief: What `Optimizer.belief()` returns: `posterior`, over the unit cube and in
            standardised values of which larger is better, and `incumbent`, the best so far.
    """
    posterior, kernel = belief.posterior, belief.posterior.model.kernel
    return {
        "kernel": type(kernel).__name__,
        "lengthscale": kernel.lengthscale.tolist(),
        "variance": float(kernel.variance),
        "mean": float(posterior.model.mean),
        "noise": posterior.noise_variances().tolist(),
        "X": posterior.X.tolist(),
        "y": posterior.y.tolist(),
        "incumbent": float(belief.incumbent),
    }


def rebuild(belief: dict):
    """The same Gaussian process in BoTorch, nothing fitted, and LogEI on it."""
    from botorch.acquisition import LogExpectedImprovement
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
    from gpytorch.means import ConstantMean
    from gpytorch.settings import min_fixed_noise

    X, y, noise = (torch.tensor(belief[name], dtype=torch.float64) for name in ("X", "y", "noise"))
    d = X.shape[1]
    if belief["kernel"] == "RBF":
        inner = RBFKernel(ard_num_dims=d)
    else:
        inner = MaternKernel(nu=SMOOTHNESS[belief["kernel"]], ard_num_dims=d)
    with min_fixed_noise(double_value=1e-14):  # its default of 1e-6 would hide an exact objective
        model = SingleTaskGP(
            X,
            y.unsqueeze(-1),
            train_Yvar=noise.unsqueeze(-1),
            covar_module=ScaleKernel(inner),
            mean_module=ConstantMean(),
            outcome_transform=None,
        ).to(torch.float64)
    model.covar_module.base_kernel.lengthscale = torch.tensor(belief["lengthscale"], dtype=X.dtype)
    model.covar_module.outputscale = belief["variance"]
    model.mean_module.initialize(constant=belief["mean"])
    model.eval().requires_grad_(False)
    return LogExpectedImprovement(model, best_f=belief["incumbent"])


def acquisition_quality(belief: dict, proposal: list[float], ours_says: float, seed: int) -> dict:
    """LogEI reached by us and by optimize_acqf (10 restarts, 512 raw samples) on one function.

    Args:
        belief: From `describe`.
        proposal: The point of the unit cube that our `ask` returned.
        ours_says: LogEI of the proposal as computed from our own posterior.
        seed: For BoTorch's starting points.

    Returns:
        "ours" and "botorch": LogEI of the two points, both as BoTorch computes it; "disagreement":
        |BoTorch's value - ours| at our point, which says whether the models are the same one;
        "seconds": what optimize_acqf took.
    """
    from botorch.optim import optimize_acqf

    log_ei = rebuild(belief)
    d = len(proposal)
    torch.manual_seed(seed)
    start = time.perf_counter()
    x, _ = optimize_acqf(
        log_ei,
        bounds=torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.float64),
        q=1,
        num_restarts=10,
        raw_samples=512,
    )
    seconds = time.perf_counter() - start
    points = torch.stack([torch.tensor([proposal], dtype=torch.float64), x])  # (2, 1, d)
    with torch.no_grad():
        ours, botorch = log_ei(points).tolist()
    return {
        "ours": ours,
        "botorch": botorch,
        "disagreement": abs(ours - ours_says),
        "seconds": seconds,
    }
