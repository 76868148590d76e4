"""Where studies are kept: records in, records out, never tensors."""

from bbmmopt.storage.base import Storage
from bbmmopt.storage.errors import NumberTaken, StorageError, StudyRevised, UnknownStudy
from bbmmopt.storage.memory import MemoryStorage
from bbmmopt.storage.open import open_storage
from bbmmopt.storage.records import Event, Report, StudyRecord

__all__ = [
    "open_storage",
    "Storage",
    "MemoryStorage",
    "StudyRecord",
    "Report",
    "Event",
    "StorageError",
    "StudyRevised",
    "UnknownStudy",
    "NumberTaken",
]
