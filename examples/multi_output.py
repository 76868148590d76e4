"""Four measurements of one reaction, one of them dear: what the cheap three say about it.

    python examples/multi_output.py --out multi_output.png

A turns into B, and B into C; heat and time say how far. Heat release, refraction and colour of the
mixture are read at every run, each another blend of A, B and C. The yield of B needs an analysis in
the laboratory, so it is known for a few runs, and elsewhere the table has NaN. A, B and C sum to 1,
so two functions are behind all four outputs: hence rank 2. Printed is how well each model predicts
the yields that were never measured; drawn are slices at each heat, and the learnt correlations.

The few are spread evenly over the runs. Six drawn by chance often leave a corner of the plane
unseen, and then all three models, whose covariances are point estimates, are too sure there.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from torch import Tensor

from surrogate import Matern52, MultiOutputGP, MultiOutputPosterior, compare, coverage, nlpd, rmse

OUTPUTS = ["heat release", "refraction", "colour", "yield of B"]
BLENDS = [[-1.0, 0.0, 0.4], [0.1, 0.3, 1.0], [0.5, 1.0, 0.2], [0.0, 1.0, 0.0]]  # of A, B and C
RARE = 3
HEATS = [0.1, 0.5, 0.9]
MODELS = {
    "together, rank 2": MultiOutputGP(Matern52(2), len(OUTPUTS), rank=2),
    "together, rank 1": MultiOutputGP(Matern52(2), len(OUTPUTS)),
    "independent": MultiOutputGP(Matern52(2), len(OUTPUTS), output_kernel="independent"),
}
LOOKS = {"independent": ("#D55E00", "--"), "together, rank 2": ("#0072B2", "-")}


def outputs(X: Tensor) -> Tensor:
    """All outputs without noise, at heat and time X (n, 2) in [0, 1]: shape (n, 4)."""
    warm, t = torch.exp(3 * X[:, 0] - 1.5), 1.2 * X[:, 1]
    k1, k2 = 1.5 * warm**0.8, 0.5 * warm**1.6
    A = torch.exp(-k1 * t)
    B = k1 / (k2 - k1) * (A - torch.exp(-k2 * t))
    return torch.stack([A, B, 1 - A - B], 1) @ torch.tensor(BLENDS, dtype=torch.float64).mT


def runs(times: int, rare: int, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """X (n, 2), the outputs with noise (n, 4), and which yields were measured (n,)."""
    generator = torch.Generator().manual_seed(0)
    X = torch.cartesian_prod(torch.tensor(HEATS), torch.linspace(0.05, 1, times)).double()
    F = outputs(X)
    Y = F + noise * F.std(0) * torch.randn(F.shape, generator=generator, dtype=torch.float64)
    measured = torch.zeros(len(X), dtype=torch.bool)
    measured[torch.linspace(0, len(X) - 1, rare).round().long()] = True
    return X, Y, measured


def draw_slice(
    ax: Axes,
    heat: float,
    posteriors: dict[str, MultiOutputPosterior],
    center: Tensor,
    scale: Tensor,
) -> None:
    """The yield over time at one heat: the truth, and what the models believe of it."""
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    X = torch.stack([torch.full_like(times, heat), times], 1)
    for name, (color, style) in LOOKS.items():
        mean, std = (values[:, RARE] * scale for values in posteriors[name].marginals(X))
        low, high = center + mean - 1.645 * std, center + mean + 1.645 * std
        ax.fill_between(times, low, high, facecolor=(color, 0.2), edgecolor=(color, 0.7))
        ax.plot(times, center + mean, style, color=color, label=f"{name}, with 90 % band")
    ax.plot(times, outputs(X)[:, RARE], ":", color="black", label="truth")
    ax.set(title=f"Yield of B at heat {heat:g}", xlabel="time", xlim=(0, 1.02))


def draw_correlation(ax: Axes, correlation: Tensor) -> None:
    ax.imshow(correlation.numpy(), cmap="RdBu", vmin=-1, vmax=1)
    for i, row in enumerate(correlation.tolist()):
        for j, value in enumerate(row):
            color = "black" if abs(value) < 0.6 else "white"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)
    ax.set_xticks(range(len(OUTPUTS)), OUTPUTS, rotation=30, ha="right")
    ax.set_yticks(range(len(OUTPUTS)), OUTPUTS)
    ax.set_title("Learnt correlation, rank 2")


def main() -> None:
    parser = argparse.ArgumentParser(description="Several outputs, one of them rarely measured.")
    parser.add_argument("--times", type=int, default=10, help="runs at each of three heats")
    parser.add_argument("--rare", type=int, default=6, help="runs whose yield was measured")
    parser.add_argument("--noise", type=float, default=0.1, help="in standard deviations")
    parser.add_argument("--out", type=Path, default=Path("multi_output.png"), help="the picture")
    given = parser.parse_args()
    if not 2 <= given.rare < len(HEATS) * given.times:
        parser.error("--rare must be at least 2, and less than three times --times")
    if not 0 <= given.noise < float("inf"):
        parser.error(f"--noise must be a number of at least 0; got {given.noise}")
    if given.out.suffix[1:] not in FigureCanvasBase.filetypes:
        parser.error(f"--out must end like a picture, such as .png or .pdf; got {given.out}")

    X, Y, measured = runs(given.times, given.rare, given.noise)
    known = Y.clone()
    known[~measured, RARE] = torch.nan
    # Outputs share a mean, so each is standardised, by what was measured of it.
    center = known.nanmean(0)
    scale = (known - center).square().nanmean(0).sqrt()
    Z = (known - center) / scale

    compared = compare(MODELS, X, Z)
    print(f"Every value that was measured, predicted from the others:\n{compared}\n")

    never = ((Y - center) / scale)[~measured, RARE]
    print(f"The {len(never)} yields that were never measured, in the same units:")
    print(f"{'model':16}  {'NLPD':>8}  {'RMSE':>8}  in 90 % band")
    posteriors = {row.name: row.model.condition(X, Z) for row in compared}
    for name, posterior in posteriors.items():
        mean, std = (values[:, RARE] for values in posterior.predictive(X[~measured]))
        inside = coverage(mean, std, never)
        print(f"{name:16}  {nlpd(mean, std, never):8.4f}  {rmse(mean, never):8.4g}  {inside:12.0%}")
    correlation = posteriors["together, rank 2"].model.task_correlation
    print("\nLearnt correlation, rank 2:")
    for name, row in zip(OUTPUTS, correlation.tolist(), strict=True):
        print(f"{name:16}" + "".join(f"{value:7.2f}" for value in row))

    figure, axes = plt.subplots(1, 4, figsize=(15, 4.2), layout="constrained")
    for ax, heat in zip(axes, HEATS, strict=False):
        draw_slice(ax, heat, posteriors, center[RARE], scale[RARE])
        here = measured & (X[:, 0].sub(heat).abs() < 1e-6)
        ax.plot(X[here, 1], Y[here, RARE], "o", color="black", label="measured")
        ax.sharey(axes[0])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    draw_correlation(axes[3], correlation)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=110)
    plt.close(figure)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
