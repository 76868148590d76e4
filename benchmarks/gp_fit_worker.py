"""One Gaussian-process fit by one library in one process; started by gp_fit.py.

The task comes as JSON in the first argument; the answer is one or more lines of JSON on stdout,
whose fields add up, so that a worker that is stopped leaves what it had. Clocks run here, around
the library's own calls: imports, data and a small first fit are not timed.
"""

import dataclasses
import json
import math
import os
import re
import resource
import sys
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import ExitStack
from importlib.metadata import version

import numpy as np
from gp_data import draw, judge

_WARM_UP = 50


class Library(ABC):
    """Matérn-5/2 with a lengthscale per input, an output scale, Gaussian noise; by one library.

    Args:
        dtype: For GPyTorch; the others compute in float64.
    """

    packages: tuple[str, ...] = ("numpy",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    @abstractmethod
    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        """Choose the hyperparameters, from X (n, d) and y (n,)."""

    @abstractmethod
    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of f, without noise, at X (m, d): two arrays (m,)."""

    @abstractmethod
    def parameters(self) -> dict:
        """ "lengthscale" (d,), "variance" s², "noise" σ² and "mean" m, in the units of the data."""

    def about(self) -> dict:
        """What else the library says of its work: "evaluations" and the like."""
        return {}


# Ours predicts without a Cholesky factor from here on, with variances of the cached root: never too
# small, but solving for 2000 of them until all are certain to 1 % would take hours.
_QUICK_VARIANCES_FROM = 16_000


class Ours(Library):
    """`fit` at its defaults, or with a solver of its name, or without priors."""

    packages = ("bbmmopt", "torch")

    def __init__(self, dtype: str, solver: str | None, priors: str | None) -> None:
        super().__init__(dtype)
        import surrogate

        self.surrogate = surrogate
        self.options = {"priors": priors} if priors else {}
        if solver:
            self.options["solver"] = getattr(surrogate, solver)()

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        import torch

        self.X, self.y = torch.from_numpy(X), torch.from_numpy(y)
        kernel = self.surrogate.Matern52(X.shape[1])
        self.model = self.surrogate.fit(
            self.surrogate.ExactGP(kernel, **self.options), self.X, self.y
        )

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        model = self.model
        if len(self.X) >= _QUICK_VARIANCES_FROM and isinstance(model.solver, self.surrogate.Auto):
            quick = self.surrogate.BBMM(variance_tolerance=math.inf)
            model = model.clone()
            model.solver = self.surrogate.Auto(bbmm=quick)
        self.posterior = model.condition(self.X, self.y)
        with torch.no_grad():
            mean, std = self.posterior.marginals(torch.from_numpy(X))
        return mean.numpy(), std.square().numpy()

    def parameters(self) -> dict:
        kernel = self.model.kernel
        return {
            "lengthscale": kernel.lengthscale.tolist(),
            "variance": kernel.variance.item(),
            "noise": self.model.noise.item(),
            "mean": self.model.mean.item(),
        }

    def about(self) -> dict:
        told = {"evaluations": self.model.report.evaluations, "report": plain(self.model.report)}
        posterior = getattr(self, "posterior", None)
        return told | ({"info": plain(posterior.info)} if posterior else {})


def plain(record: object) -> dict:
    """The fields of a dataclass that are numbers, words or None."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return {k: v for k, v in fields.items() if v is None or isinstance(v, bool | int | float | str)}


class GPyTorch(Library):
    """The loop of its tutorials: 100 steps of Adam at 0.1 from the default start.

    Tuned means what a user does who has read about its settings: solves to 1e-2 instead of 1, with
    a preconditioner of rank 100 at every size and as many steps as that takes, and variances from
    LOVE of rank 1000.
    """

    packages = ("gpytorch", "linear_operator", "torch")
    STEPS, RATE = 100, 0.1

    def __init__(self, dtype: str, tuned: bool) -> None:
        super().__init__(dtype)
        import gpytorch

        assert "botorch" not in sys.modules  # it changes GPyTorch's settings for the whole process
        self.gpytorch, self.tuned = gpytorch, tuned

    def settings(self) -> ExitStack:
        stack, settings = ExitStack(), self.gpytorch.settings
        if self.tuned:
            for setting in (
                settings.cg_tolerance(1e-2),
                settings.max_cg_iterations(4000),
                settings.max_preconditioner_size(100),
                settings.min_preconditioning_size(1),
                settings.max_root_decomposition_size(1000),
                settings.fast_pred_var(),
            ):
                stack.enter_context(setting)
        return stack

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        import torch

        gpytorch, kernels = self.gpytorch, self.gpytorch.kernels

        class Model(gpytorch.models.ExactGP):
            def __init__(self, X: torch.Tensor, y: torch.Tensor) -> None:
                super().__init__(X, y, gpytorch.likelihoods.GaussianLikelihood())
                self.mean_module = gpytorch.means.ConstantMean()
                matern = kernels.MaternKernel(nu=2.5, ard_num_dims=X.shape[1])
                self.covar_module = kernels.ScaleKernel(matern)

            def forward(self, X: torch.Tensor):
                normal = gpytorch.distributions.MultivariateNormal
                return normal(self.mean_module(X), self.covar_module(X))

        torch.manual_seed(0)  # for its probes
        self.torch_dtype = getattr(torch, self.dtype)
        X, y = (torch.from_numpy(a).to(self.torch_dtype) for a in (X, y))
        self.model = model = Model(X, y).to(self.torch_dtype).train()
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.RATE)
        with self.settings():
            for _ in range(self.STEPS):
                optimizer.zero_grad()
                loss = -mll(model(X), y)
                loss.backward()
                optimizer.step()

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        self.model.eval()
        with torch.no_grad(), self.settings():
            f = self.model(torch.from_numpy(X).to(self.torch_dtype))
            return f.mean.double().numpy(), f.variance.double().numpy()

    def parameters(self) -> dict:
        scaled = self.model.covar_module
        return {
            "lengthscale": scaled.base_kernel.lengthscale[0].tolist(),
            "variance": scaled.outputscale.item(),
            "noise": self.model.likelihood.noise.item(),
            "mean": self.model.mean_module.constant.item(),
        }

    def about(self) -> dict:
        return {"evaluations": self.STEPS, "dtype": self.dtype}


class BoTorch(Library):
    """SingleTaskGP and fit_gpytorch_mll; its own Matérn kernel and priors, with an output scale."""

    packages = ("botorch", "gpytorch", "linear_operator", "torch")

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        import botorch
        import botorch.models.utils.gpytorch_modules

        self.botorch = botorch

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        import torch
        from gpytorch.kernels import ScaleKernel
        from gpytorch.mlls import ExactMarginalLogLikelihood

        modules = self.botorch.models.utils.gpytorch_modules
        matern = modules.get_covar_module_with_dim_scaled_prior(X.shape[1], use_rbf_kernel=False)
        torch.manual_seed(0)  # for its second attempts
        self.model = self.botorch.models.SingleTaskGP(
            torch.from_numpy(X), torch.from_numpy(y).unsqueeze(-1), covar_module=ScaleKernel(matern)
        )
        self.evaluations = 0
        forward = self.model.forward

        def counted(*args):
            self.evaluations += 1
            return forward(*args)

        self.model.forward = counted
        self.botorch.fit_gpytorch_mll(ExactMarginalLogLikelihood(self.model.likelihood, self.model))
        del self.model.forward

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        with torch.no_grad():
            f = self.model.posterior(torch.from_numpy(X))
            return f.mean.squeeze(-1).numpy(), f.variance.squeeze(-1).numpy()

    def parameters(self) -> dict:
        scaled, units = self.model.covar_module, self.model.outcome_transform
        centre, scale = units.means.item(), units.stdvs.item()  # it standardises once more
        return {
            "lengthscale": scaled.base_kernel.lengthscale[0].tolist(),
            "variance": scaled.outputscale.item() * scale**2,
            "noise": self.model.likelihood.noise.item() * scale**2,
            "mean": self.model.mean_module.constant.item() * scale + centre,
        }

    def about(self) -> dict:
        return {"evaluations": self.evaluations}


class ScikitLearn(Library):
    """GaussianProcessRegressor at its defaults; the mean is 0, which is that of the targets."""

    packages = ("scikit-learn", "scipy", "numpy")

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        import sklearn.gaussian_process

        self.module = sklearn.gaussian_process

    def fit(self, X: np.ndarray, y: np.ndarray) -> None:
        kernels, worker = self.module.kernels, self

        class Counted(self.module.GaussianProcessRegressor):
            def log_marginal_likelihood(self, *args, **kwargs):
                worker.evaluations += 1
                return super().log_marginal_likelihood(*args, **kwargs)

        self.evaluations = 0
        matern = kernels.Matern(length_scale=np.ones(X.shape[1]), nu=2.5)
        self.gp = Counted(kernels.ConstantKernel() * matern + kernels.WhiteKernel()).fit(X, y)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = self.gp.predict(X, return_std=True)  # of y: the noise is part of the kernel
        return mean, std**2 - self.gp.kernel_.k2.noise_level

    def parameters(self) -> dict:
        kernel = self.gp.kernel_
        return {
            "lengthscale": kernel.k1.k2.length_scale.tolist(),
            "variance": kernel.k1.k1.constant_value.item(),
            "noise": kernel.k2.noise_level.item(),
            "mean": 0.0,
        }

    def about(self) -> dict:
        return {"evaluations": self.evaluations}


def library_named(name: str, dtype: str) -> Library:
    """A library by its name in gp_fit.py; imports it."""
    if name.startswith("ours"):
        solvers = {"cholesky": "Cholesky", "bbmm": "BBMM"}
        options = name.split("-")[1:]
        solver = next((solvers[option] for option in options if option in solvers), None)
        return Ours(dtype, solver, "flat-1" if "flat" in options else None)
    if name.startswith("gpytorch"):
        return GPyTorch(dtype, tuned=name == "gpytorch-tuned")
    return {"botorch": BoTorch, "sklearn": ScikitLearn}[name](dtype)


def peak_mib() -> float:
    """The most memory this process has had resident so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def limit_threads(threads: int) -> None:
    """For torch, which does not always follow the environment, if the library brought it along."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def do_fit(task: dict, answer) -> None:
    library = library_named(task["library"], task["dtype"])
    limit_threads(task["threads"])
    base = peak_mib()
    data = draw(task["data"], task["n"], task["seed"])
    library.fit(data.X[:_WARM_UP], data.y[:_WARM_UP])
    library.predict(data.X_test[:_WARM_UP])

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start, cpu = time.perf_counter(), time.process_time()
        library.fit(data.X, data.y)
        answer(
            fit_seconds=time.perf_counter() - start,
            fit_cpu_seconds=time.process_time() - cpu,
            base_mib=base,
            fit_mib=peak_mib(),
            parameters=library.parameters(),
            versions={package: version(package) for package in library.packages},
            **library.about(),
        )
        start = time.perf_counter()
        mean, variance = library.predict(data.X_test)
        seconds = time.perf_counter() - start
    np.savez(task["predictions"], mean=mean, variance=variance)
    answer(
        predict_seconds=seconds,
        peak_mib=peak_mib(),
        warnings=dict(Counter(warning.category.__name__ for warning in caught)),
        **library.about(),
    )


def do_judge(task: dict, answer) -> None:
    predictions = np.load(task["predictions"]) if os.path.exists(task["predictions"]) else None
    data = draw(task["data"], task["n"], task["seed"])
    answer(**judge(data, task["parameters"], predictions, task["exact"]))


def do_cholesky(task: dict, answer) -> None:
    """Seconds of float64 Cholesky factorisations of size n, each, the first one not counted."""
    import torch

    limit_threads(task["threads"])
    n = task["n"]
    generator = torch.Generator().manual_seed(0)
    A = torch.rand(n, n, dtype=torch.float64, generator=generator)
    A = A.add(A.mT).div_(2 * n)
    A.diagonal().add_(2.0)  # the rest has norm 1 at most
    L, seconds = torch.empty_like(A), []
    for _ in range(1 + task["times"]):
        start = time.perf_counter()
        torch.linalg.cholesky(A, out=L)
        seconds.append(time.perf_counter() - start)
    answer(seconds=seconds[1:])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to stderr
    task = json.loads(sys.argv[1])
    if task.get("memory_gib"):
        limit = int(task["memory_gib"] * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields) + "\n")

    try:
        {"fit": do_fit, "judge": do_judge, "cholesky": do_cholesky}[task["do"]](task, answer)
    except Exception as error:  # told to the parent, which records it
        traceback.print_exc()
        text = re.sub(r"(/[^/\s]+)+/", "", str(error))  # results name no folders
        answer(error=f"{type(error).__name__}: {text}".splitlines()[0][:200])


if __name__ == "__main__":
    main()
