"""Tune a small neural network on handwritten digits; trials that look bad are stopped early.

    python examples/tune_pytorch.py

Optimizer, learning rate, depth, width and dropout, and momentum where it is there: 40 networks, two
at a time, each in a process with one thread. After every epoch a network reports its loss on images
it was not trained on, and after 3, 9 and 27 epochs the better third goes on. What the others would
have ended with is forecast from those that did, and the model learns from that.

Every trial is kept in tune_pytorch/study.db. Stop it whenever you like, or kill it, and run it
again to go on: up to --trials in all. Afterwards tune_pytorch/ holds curves.png and history.png.
Needs scikit-learn for the images, as the extra `examples` installs it. The default takes about half
a minute.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bbmmopt import (
    Categorical,
    Integer,
    Real,
    Space,
    SuccessiveHalving,
    TotalTrials,
    Trial,
    TrialPruned,
    minimize,
)
from bbmmopt.plots import plot_curves, plot_history

SPACE = Space(
    {
        "optimizer": Categorical(["adam", "sgd"]),
        "rate": Real(1e-4, 1, log=True),
        "momentum": Real(0, 0.99, when={"optimizer": "sgd"}),  # asked for only when it matters
        "depth": Integer(1, 3),
        "width": Integer(8, 128, log=True),
        "dropout": Real(0, 0.6),
    }
)
BATCH = 64


@cache  # each worker process reads the images once
def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """1797 images of 64 pixels and the digit each shows: to train on, to choose by, to test on."""
    pixels, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    parts = zip(("train", "choose", "test"), order.split([1077, 360, 360]), strict=True)
    return {name: (images[rows], labels[rows]) for name, rows in parts}


def network(depth: int, width: int, dropout: float) -> nn.Module:
    """A perceptron with so many hidden layers."""
    sizes = [64, *[width] * depth]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def train_epoch(model: nn.Module, steps: torch.optim.Optimizer) -> None:
    """Go through the images to train on once, in random order."""
    images, labels = digits()["train"]
    model.train()
    for rows in torch.randperm(len(images)).split(BATCH):
        steps.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        steps.step()


@torch.no_grad()
def measure(model: nn.Module, part: str) -> tuple[float, float]:
    """Mean cross-entropy, in nats, and share of images misread."""
    images, labels = digits()[part]
    model.eval()
    scores = model(images)
    wrong = scores.argmax(1) != labels
    return float(nn.functional.cross_entropy(scores, labels)), float(wrong.double().mean())


def training(
    epochs: int,
    optimizer: str,
    rate: float,
    depth: int,
    width: int,
    dropout: float,
    momentum: float = 0.0,
) -> Iterator[nn.Module]:
    """A network, after each epoch. The same arguments give the same one."""
    torch.set_num_threads(1)  # enough for so small a network, and the other cores have work
    torch.manual_seed(0)
    model = network(depth, width, dropout)
    if optimizer == "adam":
        steps = torch.optim.Adam(model.parameters(), lr=rate)
    else:
        steps = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    for _ in range(epochs):
        train_epoch(model, steps)
        yield model


def loss(epochs: int, trial: Trial, **params: Any) -> float:
    """What is to be small: the loss after the last epoch."""
    now = math.nan
    for epoch, model in enumerate(training(epochs, **params), start=1):
        now, _ = measure(model, "choose")
        if not math.isfinite(now):
            raise FloatingPointError(f"diverged in epoch {epoch}")  # a failed trial; others go on
        trial.report(epoch, now)
        if epoch < epochs and trial.should_stop():
            raise TrialPruned(f"not among the better third after {epoch} epochs")
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description="Tune a network on handwritten digits.")
    parser.add_argument("--trials", type=int, default=40, help="in all, earlier runs included")
    parser.add_argument("--epochs", type=int, default=30, help="of a network that is not stopped")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()

    folder = Path("tune_pytorch")
    folder.mkdir(exist_ok=True)
    result = minimize(
        partial(loss, given.epochs),
        SPACE,
        name="loss",
        stop=TotalTrials(given.trials),
        budget=given.trials,
        workers=given.workers,
        executor="processes",
        early_stopping=SuccessiveHalving(min_steps=3, reduction=3),
        storage=folder / "study.db",
        study=f"{given.epochs} epochs",
        seed=0,
        progress=True,
    )

    study, best = result.optimizer, result.best
    states = Counter(str(trial.state) for trial in study.trials)
    epochs = sum(max(curve, default=0) for curve in study.curves.values())
    print(f"{len(study.trials)} networks: {', '.join(f'{n} {s}' for s, n in states.items())}")
    print(f"{epochs} epochs, of {given.epochs * len(study.trials)} without stopping any early")
    print(f"best is number {best.number}: loss {best.values['loss']:.4f}")
    for name, value in best.params.items():
        print(f"  {name} {value:.4g}" if isinstance(value, float) else f"  {name} {value}")
    *_, model = training(given.epochs, **best.params)
    test_loss, error = measure(model, "test")
    print(f"on images that played no part so far: loss {test_loss:.4f}, {error:.1%} misread")

    for name, plot in [("curves", partial(plot_curves, log=True)), ("history", plot_history)]:
        figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
        plot(study, ax=ax)
        figure.savefig(folder / f"{name}.png", dpi=150)
        plt.close(figure)
        print(f"wrote {folder / name}.png")


if __name__ == "__main__":
    main()
