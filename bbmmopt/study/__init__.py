"""A study: what is stored of it, telling, reporting, extending; everything but suggesting."""

from bbmmopt.study.extension import OldTrialsWarning
from bbmmopt.study.settings import StudyDiffers
from bbmmopt.study.stored import NoCompleteTrial, StoredStudy
from bbmmopt.study.study import FailedTrialWarning, Study

__all__ = [
    "FailedTrialWarning",
    "NoCompleteTrial",
    "OldTrialsWarning",
    "StoredStudy",
    "Study",
    "StudyDiffers",
]
