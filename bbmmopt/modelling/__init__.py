"""From told trials to fitted posteriors: the one place that builds surrogate models."""

from bbmmopt.modelling.belief import Belief
from bbmmopt.modelling.data import Data, search_threads_for, threads_for, transform_of
from bbmmopt.modelling.ensemble import EnsembleModeller
from bbmmopt.modelling.model import make_model
from bbmmopt.modelling.modeller import Modeller
from bbmmopt.modelling.outputs import LABEL_ERROR, Beliefs, Known, Modellers
from bbmmopt.modelling.sparse import SparseModeller
from surrogate import one_thread

__all__ = [
    "LABEL_ERROR",
    "Belief",
    "Beliefs",
    "EnsembleModeller",
    "Data",
    "Known",
    "Modeller",
    "Modellers",
    "SparseModeller",
    "make_model",
    "one_thread",
    "search_threads_for",
    "threads_for",
    "transform_of",
]
