"""One fit of a model of several outputs, by one library in one process; see multi_output.py.

The task comes as JSON in the first argument; the answer is lines of JSON on stdout whose fields add
up, so that a worker that is stopped leaves what it had. Clocks run here, around the library's own
calls: imports, data and a small first fit are not timed.
"""

import json
import os
import re
import sys
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from importlib.metadata import version

import numpy as np
from gp_fit_worker import limit_threads, peak_mib, plain
from multi_output_data import Data, draw, judge

_WARM_UP = (12, 5)  # rows and outputs of the first fit


class Library(ABC):
    """One model of a table of values, by one library."""

    packages: tuple[str, ...] = ("numpy",)

    @abstractmethod
    def fit(self, data: Data) -> None:
        """Choose the hyperparameters, from X and Y."""

    @abstractmethod
    def predict(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of f, without noise, of all outputs at X_test: two arrays (m, T)."""

    @abstractmethod
    def parameters(self) -> dict:
        """What was found, in the form that `judge` takes."""

    def about(self) -> dict:
        """What else the library says of its work: "evaluations" and the like."""
        return {}


class Ours(Library):
    """`MultiOutputGP` and `fit` at their defaults.

    Args:
        priors: A name, "flat-1" say; None for the default.
        full: Whether free covariances of the outputs have full rank, instead of 1.
        output_kernel: Class of the kernel over the steps of curves.
    """

    packages = ("bbmmopt", "torch")

    def __init__(
        self, priors: str | None = None, full: bool = False, output_kernel: str = "Matern52"
    ) -> None:
        import surrogate

        self.surrogate = surrogate
        self.options = {"priors": priors} if priors else {}
        self.full, self.output_kernel = full, output_kernel

    def fit(self, data: Data) -> None:
        import torch

        surrogate, T = self.surrogate, data.Y.shape[1]
        kernel = surrogate.Matern52(data.X.shape[1])
        if data.places is None:
            rank = T if self.full else 1
            model = surrogate.MultiOutputGP(kernel, T, rank=rank, **self.options)
        else:
            by_steps = getattr(surrogate, self.output_kernel)(1)
            steps = torch.from_numpy(data.places)
            model = surrogate.MultiOutputGP(kernel, steps, output_kernel=by_steps, **self.options)
        self.X, self.Y = torch.from_numpy(data.X), torch.from_numpy(data.Y)
        self.model = surrogate.fit(model, self.X, self.Y)

    def predict(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        import torch

        self.posterior = self.model.condition(self.X, self.Y)
        with torch.no_grad():
            mean, std = self.posterior.marginals(torch.from_numpy(data.X_test))
        return mean.numpy(), std.square().numpy()

    def parameters(self) -> dict:
        ((kernel, by_output),) = self.model.kernel.terms
        found = {
            "lengthscale": kernel.lengthscale.tolist(),
            "variance": kernel.variance.item(),
            "noise": self.model.noise_model.level.tolist(),
            "mean": self.model.mean.item(),
        }
        if isinstance(by_output, self.surrogate.Coregionalization):
            return found | {"task_covariance": by_output.covariance.tolist()}
        return found | {
            "variance": kernel.variance.item() * by_output.variance.item(),
            "output_kernel": self.output_kernel.lower(),
            "output_lengthscale": by_output.lengthscale.tolist(),
        }

    def about(self) -> dict:
        report = plain(self.model.report)
        told = {"evaluations": report["evaluations"], "report": report}
        posterior = getattr(self, "posterior", None)
        return told | ({"info": plain(posterior.info)} if posterior else {})


class GPyTorch(Library):
    """The loop of its tutorial on several outputs: 100 steps of Adam at 0.1.

    With a lengthscale for each input and Matérn-5/2, as the others have.

    Args:
        dtype: "float32", its own, or "float64".
    """

    packages = ("gpytorch", "linear_operator", "torch")
    STEPS, RATE = 100, 0.1

    def __init__(self, dtype: str) -> None:
        import gpytorch

        assert "botorch" not in sys.modules  # it changes GPyTorch's settings for the whole process
        self.gpytorch, self.dtype = gpytorch, dtype

    def fit(self, data: Data) -> None:
        import torch

        gpytorch, kernels, T = self.gpytorch, self.gpytorch.kernels, data.Y.shape[1]

        class Model(gpytorch.models.ExactGP):
            def __init__(self, X: torch.Tensor, Y: torch.Tensor) -> None:
                likelihood = gpytorch.likelihoods.MultitaskGaussianLikelihood(num_tasks=T)
                super().__init__(X, Y, likelihood)
                means = gpytorch.means
                self.mean_module = means.MultitaskMean(means.ConstantMean(), num_tasks=T)
                matern = kernels.MaternKernel(nu=2.5, ard_num_dims=X.shape[1])
                self.covar_module = kernels.MultitaskKernel(matern, num_tasks=T, rank=1)

            def forward(self, X: torch.Tensor):
                normal = gpytorch.distributions.MultitaskMultivariateNormal
                return normal(self.mean_module(X), self.covar_module(X))

        torch.manual_seed(0)  # for where the covariance of the outputs starts
        self.torch_dtype = getattr(torch, self.dtype)
        X, Y = (torch.from_numpy(a).to(self.torch_dtype) for a in (data.X, data.Y))
        self.model = model = Model(X, Y).to(self.torch_dtype).train()
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.RATE)
        for _ in range(self.STEPS):
            optimizer.zero_grad()
            loss = -mll(model(X), Y)
            loss.backward()
            optimizer.step()

    def predict(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        import torch

        self.model.eval()
        with torch.no_grad():
            f = self.model(torch.from_numpy(data.X_test).to(self.torch_dtype))
            return f.mean.double().numpy(), f.variance.double().numpy()

    def parameters(self) -> dict:
        return of_multitask(self.model)

    def about(self) -> dict:
        return {"evaluations": self.STEPS, "dtype": self.dtype}


class BoTorchGrid(Library):
    """KroneckerMultiTaskGP and fit_gpytorch_mll; with its own Matérn kernel and priors.

    Args:
        rank: Of the covariance of the outputs; None for the default, which is full.
    """

    packages = ("botorch", "gpytorch", "linear_operator", "torch")

    def __init__(self, rank: int | None = None) -> None:
        import botorch
        import botorch.models.utils.gpytorch_modules

        self.botorch, self.rank = botorch, rank

    def fit(self, data: Data) -> None:
        import torch
        from gpytorch.mlls import ExactMarginalLogLikelihood

        modules = self.botorch.models.utils.gpytorch_modules
        matern = modules.get_covar_module_with_dim_scaled_prior(
            data.X.shape[1], use_rbf_kernel=False
        )
        torch.manual_seed(0)  # for where the covariance of the outputs starts
        self.model = self.botorch.models.KroneckerMultiTaskGP(
            torch.from_numpy(data.X),
            torch.from_numpy(data.Y),
            data_covar_module=matern,
            rank=self.rank,
        )
        mll = ExactMarginalLogLikelihood(self.model.likelihood, self.model)
        with Calls(self.model) as self.calls:
            self.botorch.fit_gpytorch_mll(mll)

    def predict(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        import torch

        with torch.no_grad():
            f = self.model.posterior(torch.from_numpy(data.X_test))
            return f.mean.numpy(), f.variance.numpy()

    def parameters(self) -> dict:
        return of_multitask(self.model)

    def about(self) -> dict:
        return {"evaluations": self.calls.count}


class BoTorchCurves(Library):
    """LatentKroneckerGP at its defaults, fitted as its documentation shows: by iterative methods.

    Its means are exact ones, by a solve; its variances those of 64 samples, as in the papers that
    it comes from, or exact.

    Args:
        exact: Whether variances are.
    """

    packages = ("botorch", "gpytorch", "linear_operator", "torch")
    SAMPLES = 64

    def __init__(self, exact: bool = False) -> None:
        import botorch
        import botorch.models.latent_kronecker_gp

        self.botorch, self.exact = botorch, exact
        self.mean_seconds: float | None = None  # of a prediction, its means alone

    def fit(self, data: Data) -> None:
        import torch
        from gpytorch.mlls import ExactMarginalLogLikelihood

        self.mean_seconds = None
        torch.manual_seed(0)  # for its probes
        self.model = self.botorch.models.latent_kronecker_gp.LatentKroneckerGP(
            torch.from_numpy(data.X),
            torch.from_numpy(data.places).unsqueeze(-1),
            torch.from_numpy(data.Y),
        )
        mll = ExactMarginalLogLikelihood(self.model.likelihood, self.model)
        with self.model.use_iterative_methods(), Calls(self.model) as self.calls:
            self.botorch.fit_gpytorch_mll(mll)

    def predict(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        import torch

        centre, scale = self.units()
        shape = len(data.X_test), len(data.places)
        start = time.perf_counter()
        with torch.no_grad(), self.model.use_iterative_methods():
            f = self.model.posterior(torch.from_numpy(data.X_test))
            mean = f.mean.reshape(shape).numpy() * scale + centre  # as it is: standardised
            self.mean_seconds = time.perf_counter() - start
            if self.exact:
                return mean, f.variance.reshape(shape).numpy() * scale**2
            samples = f.rsample(torch.Size([self.SAMPLES])).numpy()  # in the units of the data
        return mean, samples.reshape(-1, *shape).var(0, ddof=1)

    def units(self) -> tuple[float, float]:
        """Mean and scale that it standardises with."""
        transform = self.model.outcome_transform
        return transform.means.item(), transform.stdvs.item()

    def parameters(self) -> dict:
        model, (centre, scale) = self.model, self.units()
        by_step = model.covar_module_T
        return {
            "lengthscale": model.covar_module_X.lengthscale[0].tolist(),
            "variance": by_step.outputscale.item() * scale**2,
            "output_kernel": "matern52",
            "output_lengthscale": by_step.base_kernel.lengthscale[0].tolist(),
            "noise": model.likelihood.noise.item() * scale**2,
            "mean": centre,
        }

    def about(self) -> dict:
        return {"evaluations": self.calls.count, "mean_seconds": self.mean_seconds}


class Calls:
    """Counts calls of a model's forward, while entered."""

    def __init__(self, model) -> None:
        self.model, self.count, self.forward = model, 0, model.forward

    def __enter__(self) -> "Calls":
        def counted(*args):
            self.count += 1
            return self.forward(*args)

        self.model.forward = counted
        return self

    def __exit__(self, *exception: object) -> None:
        del self.model.forward


def of_multitask(model) -> dict:
    """The parameters of a model with GPyTorch's MultitaskKernel, MultitaskMean and its noise."""
    kernel, likelihood = model.covar_module, model.likelihood
    covariance = kernel.task_covar_module.covar_matrix.to_dense()
    return {
        "lengthscale": kernel.data_covar_module.lengthscale[0].tolist(),
        "variance": 1.0,
        "task_covariance": covariance.tolist(),
        "noise": (likelihood.task_noises + likelihood.noise).tolist(),
        "mean": [mean.constant.item() for mean in model.mean_module.base_means],
    }


def library_named(name: str, data: str, dtype: str) -> Library:
    """A library by its name in multi_output.py; imports it."""
    if name.startswith("ours"):
        options = name.split("-")[1:]
        return Ours(
            priors="flat-1" if "flat" in options else None,
            full="full" in options,
            output_kernel="RBF" if "rbf" in options else "Matern52",
        )
    if name == "gpytorch":
        return GPyTorch(dtype)
    if data == "grid":
        return BoTorchGrid(rank=1 if name == "botorch-rank1" else None)
    return BoTorchCurves(exact=name == "botorch-exact")


def do_fit(task: dict, answer) -> None:
    library = library_named(task["library"], task["data"], task["dtype"])
    limit_threads(task["threads"])
    base = peak_mib()
    small = draw(task["data"], *_WARM_UP, task["seed"])
    library.fit(small)
    library.predict(small)

    data = draw(task["data"], task["n"], task["outputs"], task["seed"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start, cpu = time.perf_counter(), time.process_time()
        library.fit(data)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        answer(
            fit_seconds=seconds,
            fit_cpu_seconds=cpu_seconds,
            base_mib=base,
            fit_mib=peak_mib(),
            peak_mib=peak_mib(),
            values=int((~np.isnan(data.Y)).sum()),
            parameters=library.parameters(),
            versions={package: version(package) for package in library.packages},
            **library.about(),
        )
        start = time.perf_counter()
        mean, variance = library.predict(data)
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
    data = draw(task["data"], task["n"], task["outputs"], task["seed"])
    exact = int((~np.isnan(data.Y)).sum()) <= task["exact_up_to"]
    answer(**judge(data, task["parameters"], predictions, exact))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes to stderr
    task = json.loads(sys.argv[1])

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields) + "\n")

    try:
        {"fit": do_fit, "judge": do_judge}[task["do"]](task, answer)
    except Exception as error:  # told to the parent, which records it
        traceback.print_exc()
        text = re.sub(r"(/[^/\s]+)+/", "", str(error))  # results name no folders
        answer(error=f"{type(error).__name__}: {text}".splitlines()[0][:200])


if __name__ == "__main__":
    main()
