"""Pictures of a run, in plain matplotlib: each function takes a study and returns the Axes.

    from bbmmopt.plots import plot_acquisition

    plot_acquisition("study.db").figure.savefig("acquisition.png")

A study is an Optimizer, a Study, or where one is stored: "study.db", or "study.db#name" of several
in one file. `plot_x` draws what `x_data` gives, with the same arguments, as plain arrays.

The names below are imported when they are first used (PEP 562): a history needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bbmmopt.plots.acquisition import acquisition_data, plot_acquisition
    from bbmmopt.plots.animate import animate_acquisition
    from bbmmopt.plots.calibration import calibration_data, plot_calibration
    from bbmmopt.plots.contours import contours_data, plot_contours
    from bbmmopt.plots.curves import curves_data, plot_curves
    from bbmmopt.plots.edf import edf_data, plot_edf
    from bbmmopt.plots.history import history_data, plot_history
    from bbmmopt.plots.importance import importance_data, plot_importance
    from bbmmopt.plots.parallel import parallel_data, plot_parallel
    from bbmmopt.plots.pareto import pareto_belief_data, pareto_data, plot_pareto
    from bbmmopt.plots.posterior import plot_posterior, posterior_data
    from bbmmopt.plots.table import Table
    from bbmmopt.plots.timeline import plot_timeline, timeline_data

# A name that is added here stands in three places: above, and in the two tables below.
__all__ = [
    "Table",
    "acquisition_data",
    "animate_acquisition",
    "calibration_data",
    "contours_data",
    "curves_data",
    "edf_data",
    "history_data",
    "importance_data",
    "parallel_data",
    "pareto_belief_data",
    "pareto_data",
    "plot_acquisition",
    "plot_calibration",
    "plot_contours",
    "plot_curves",
    "plot_edf",
    "plot_history",
    "plot_importance",
    "plot_parallel",
    "plot_pareto",
    "plot_posterior",
    "plot_timeline",
    "posterior_data",
    "timeline_data",
]

_NAMES = {
    "bbmmopt.plots.acquisition": ("acquisition_data", "plot_acquisition"),
    "bbmmopt.plots.animate": ("animate_acquisition",),
    "bbmmopt.plots.calibration": ("calibration_data", "plot_calibration"),
    "bbmmopt.plots.contours": ("contours_data", "plot_contours"),
    "bbmmopt.plots.curves": ("curves_data", "plot_curves"),
    "bbmmopt.plots.edf": ("edf_data", "plot_edf"),
    "bbmmopt.plots.history": ("history_data", "plot_history"),
    "bbmmopt.plots.importance": ("importance_data", "plot_importance"),
    "bbmmopt.plots.parallel": ("parallel_data", "plot_parallel"),
    "bbmmopt.plots.pareto": ("pareto_belief_data", "pareto_data", "plot_pareto"),
    "bbmmopt.plots.posterior": ("plot_posterior", "posterior_data"),
    "bbmmopt.plots.table": ("Table",),
    "bbmmopt.plots.timeline": ("plot_timeline", "timeline_data"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name from its module, and keep it so that this runs once per name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOME.keys())
