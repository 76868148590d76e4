"""Pictures of a run, in plain matplotlib: each function takes an Optimizer and returns the Axes.

from bbmmopt import Optimizer
from bbmmopt.plots import plot_acquisition

plot_acquisition(Optimizer.open("study.db")).figure.savefig("acquisition.png")
"""

from bbmmopt.plots.acquisition import plot_acquisition
from bbmmopt.plots.history import plot_history
from bbmmopt.plots.posterior import plot_posterior

__all__ = ["plot_acquisition", "plot_history", "plot_posterior"]
