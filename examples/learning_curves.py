"""Real learning curves, most of them stopped early: where would they have ended?

    python examples/learning_curves.py --out learning_curves.png

Small neural networks learn to read digits, an epoch at a time, each with its own learning rate,
penalty and width. Some are trained to the end, the others are stopped after a few epochs; one
model of all curves forecasts the rest of each. What truly came is trained too, to compare with.
Needs scikit-learn, as the extra `examples` installs it. The default takes about 20 seconds.

The model sees the logit of the error, so no band leaves (0, 1), over the logarithm of the epoch,
for most happens early. It is a sum of two: a smooth function of settings and epoch, and rougher
deviations by which even similar settings differ, and which last from one epoch to the next. It was
chosen on the curves of --seed 0. On those of 11, 12 and 13, its 90 % bands held 75, 88 and 88 % of
the final errors: a little too narrow.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from surrogate import Matern12, Matern52, MultiOutputGP, fit

SETTINGS = 3  # log learning rate, log penalty, log width, each scaled to [0, 1]
TRUE, FORECAST = "#D55E00", "#0072B2"


def train(settings: Tensor, epochs: int, seed: int) -> Tensor:
    """Error on half of the digits after each epoch, trained on the other: shape (n, epochs)."""
    images, digits = load_digits(return_X_y=True)
    X, X_held, y, y_held = train_test_split(
        images / 16, digits, test_size=0.5, random_state=seed, stratify=digits
    )
    errors = torch.empty(len(settings), epochs, dtype=torch.float64)
    for i, (rate, penalty, width) in enumerate(settings.tolist()):
        network = MLPClassifier(
            round(8 * 16**width),
            learning_rate_init=10 ** (-4 + 2.5 * rate),
            alpha=10 ** (-5 + 5 * penalty),
            batch_size=32,
            random_state=0,
        )
        for epoch in range(epochs):
            network.partial_fit(X, y, classes=np.arange(10))
            wrong = float((network.predict(X_held) != y_held).sum())
            errors[i, epoch] = (wrong + 0.5) / (len(y_held) + 1)  # never 0 or 1
    return errors


def forecast(settings: Tensor, errors: Tensor, level: float = 0.9) -> Tensor:
    """Low end of the band, median and high end, (3, n, epochs); errors (n, epochs) have gaps."""
    seen = errors.logit()
    center = seen.nanmean()
    scale = (seen - center).square().nanmean().sqrt()
    epochs = torch.arange(1, errors.shape[1] + 1, dtype=torch.float64)
    model = MultiOutputGP(
        [Matern52(SETTINGS), Matern12(SETTINGS)],
        outputs=epochs.log() / epochs[-1].log(),
        output_kernel=[Matern52(1), Matern12(1)],
        noise="shared",
    )
    table = (seen - center) / scale
    model = fit(model, settings, table)
    print(f"fitted {model.report.n} errors in {model.report.seconds:.1f} s, {model.report.solver}")
    mean, std = model.condition(settings, table).predictive(settings)
    z = torch.special.ndtri(torch.tensor([(1 - level) / 2, 0.5, (1 + level) / 2]).double())
    return (center + scale * (mean + z.reshape(3, 1, 1) * std)).sigmoid()


def draw(ax: Axes, errors: Tensor, stop: int, bands: Tensor) -> None:
    """One curve: what was seen, the forecast, and what came."""
    epochs = range(1, len(errors) + 1)
    low, median, high = bands[:, stop:]
    rest = epochs[stop:]
    ax.plot(epochs[:stop], errors[:stop], "o-", color="black", markersize=2.5, label="seen")
    ax.fill_between(rest, low, high, color=FORECAST, alpha=0.25, linewidth=0, label="90 % band")
    ax.plot(rest, median, "--", color=FORECAST, label="forecast")
    ax.plot(rest, errors[stop:], color=TRUE, linewidth=1, label="what came")
    ax.set(xscale="log", yscale="log")
    ax.set_xticks([n for n in (1, 2, 5, 10, 20, 50, 100) if n <= len(errors)])
    ax.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def main() -> None:
    parser = argparse.ArgumentParser(description="Learning curves of networks, forecast.")
    parser.add_argument("--settings", type=int, default=40, help="networks to train")
    parser.add_argument("--complete", type=int, default=16, help="of these to the end")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1, help="of settings, digits and stops")
    parser.add_argument("--panels", type=int, default=12, help="curves drawn, at most")
    parser.add_argument("--out", type=Path, default=Path("learning_curves.png"), help="the picture")
    given = parser.parse_args()
    if not 1 <= given.complete < given.settings:
        parser.error("--complete must be at least 1 and less than --settings")
    if given.epochs < 8 or given.panels < 1:
        parser.error("--epochs must be at least 8 and --panels at least 1")
    if given.out.suffix[1:] not in FigureCanvasBase.filetypes:
        parser.error(f"--out must end like a picture, such as .png or .pdf; got {given.out}")

    sobol = torch.quasirandom.SobolEngine(SETTINGS, scramble=True, seed=given.seed)
    settings = sobol.draw(given.settings).double()
    errors = train(settings, given.epochs, given.seed)
    generator = torch.Generator().manual_seed(given.seed)
    stops = torch.randint(4, max(6, given.epochs // 3), (given.settings,), generator=generator)
    stops[: given.complete] = given.epochs
    ahead = torch.arange(given.epochs) >= stops.unsqueeze(1)  # (n, epochs)
    bands = forecast(settings, errors.where(~ahead, torch.nan))

    print("\n rate     penalty  width  stopped  last error  final error  (90 % band)       true")
    stopped = range(given.complete, given.settings)
    for i in stopped:
        rate, penalty, width = settings[i].tolist()
        low, median, high = bands[:, i, -1].tolist()
        print(
            f"{10 ** (-4 + 2.5 * rate):.1e}  {10 ** (-5 + 5 * penalty):.1e}  "
            f"{round(8 * 16**width):5d}  {stops[i]:7d}  {errors[i, stops[i] - 1]:10.3f}  "
            f"{median:11.3f}  ({low:.3f} to {high:.3f})  {errors[i, -1]:.3f}"
        )

    inside = (errors >= bands[0]) & (errors <= bands[2])
    final, all_ahead = inside[given.complete :, -1].double().mean(), inside[ahead].double().mean()
    print(f"\ninside the 90 % band: {final:.0%} of final errors, {all_ahead:.0%} of all to come")
    last = errors.gather(1, stops.unsqueeze(1) - 1).squeeze(1)
    for name, guess in [("forecast", bands[1, :, -1]), ("last error seen", last)]:
        off = (guess / errors[:, -1]).log()[given.complete :].abs().median().exp()
        print(f"median distance from the true final error: a factor of {off:.2f} by the {name}")

    shown = min(given.panels, len(stopped))
    rows, columns = -(-shown // 4), min(4, shown)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3 * columns + 1, 2.3 * rows + 1),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for ax in axes.flat[shown:]:
        ax.set_visible(False)
    for ax, i in zip(axes.flat, stopped, strict=False):
        draw(ax, errors[i], int(stops[i]), bands[:, i])
        rate, _, width = settings[i].tolist()
        ax.set_title(f"rate {10 ** (-4 + 2.5 * rate):.1e}, width {round(8 * 16**width)}", size=9)
    for ax in axes.flat[shown - columns : shown]:
        ax.tick_params(labelbottom=True)  # also above an empty panel
    figure.supxlabel("epoch")
    figure.supylabel("share of digits misread")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=120)
    plt.close(figure)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
