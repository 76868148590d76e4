"""A Gaussian process of your own, in under 40 lines: whatever multiplies is a model.

    python examples/your_own_operator.py

A sensor is read every hour for eleven years. What it shows rings with a period of 30 hours and a
phase that wanders, on top of a slow drift; the last 100 hours of each 1000 are lost, for which a
noise of 1e6 stands. A covariance that depends on the time between two readings alone is multiplied
as a convolution, by FFT in O(n log n). Its parameters are learnt from the first 5000 hours, by
gradients of the likelihood through that product; then all of them are smoothed, and the lost ones
at the end are forecast.

With `coordinates` and `blocks`, or with `diagonal` and `rows`, the solver preconditions an operator
as well; this one does without.
"""

import argparse

import torch

from surrogate import BBMM, LinearOperator, log_marginal_likelihood, solve


class Stationary(LinearOperator):  # k[|i - j|], a corner of a circulant matrix of twice the size
    def __init__(self, k):
        self.n, self.spectrum = len(k), torch.fft.rfft(torch.cat([k, k[-1:], k[1:].flip(0)]))

    def matmul(self, V):
        return torch.fft.irfft(torch.fft.rfft(V.mT, 2 * self.n) * self.spectrum)[:, : self.n].mT


parser = argparse.ArgumentParser(description="A Gaussian process of your own, of a time series.")
parser.add_argument("--points", type=int, default=100_000, help="hours; 1000 or more are taken")
t = torch.arange(max(1000, parser.parse_args().points)).double()
lost = (t - len(t)) % 1000 >= 900
kicks, errors = torch.randn(2, len(t), generator=torch.Generator().manual_seed(0)).double()
truth = (2 * torch.pi * t / 30 + 0.1 * kicks.cumsum(0)).sin() + (t / 200).sin()
y = torch.where(lost, 0.0, truth + 0.5 * errors)

logs = torch.tensor([1.0, 0.01, 0.22, 1.0, 0.005, 0.5]).double().log().requires_grad_()
search, solver = torch.optim.Rprop([logs], lr=0.05), BBMM(rank=0, tolerance=1e-5)
for s in 20 * [t[:5000]] + [t]:
    size, decay, frequency, drift, rate, noise = logs.exp()
    k = size * (-decay * s).exp() * (frequency * s).cos() + drift * (-((rate * s) ** 2)).exp()
    K, noises = Stationary(k), torch.where(lost[: len(s)], 1e6, noise)
    likelihood = log_marginal_likelihood(K, noises, y[: len(s)], solver)
    logs.grad = torch.autograd.grad(-likelihood.value, logs)[0]
    search.step()
with torch.no_grad():
    column = K.matmul((t == t[-77])[:, None].double())  # covariance with a day after the last seen
    solution = solve(K, noises, torch.cat([y[:, None], column], 1), solver)
    mean, explained = K.matmul(solution.U)[-77]
print(f"period {2 * torch.pi / frequency:.2f} (true: 30), noise {noise:.3f} (true: 0.25)")
print(f"log likelihood {likelihood}\nsolve: {solution.info}")
print(f"a day ahead: {mean:.2f} ± {2 * (k[0] - explained).sqrt():.2f}, was {truth[-77]:.2f}")
