"""Where studies are kept: records in, records out, never tensors."""

from bbmmopt.storage.base import NumberTaken, Storage, StorageError, StudyRecord, UnknownStudy
from bbmmopt.storage.memory import MemoryStorage
from bbmmopt.storage.open import open_storage

__all__ = [
    "open_storage",
    "Storage",
    "MemoryStorage",
    "StudyRecord",
    "StorageError",
    "UnknownStudy",
    "NumberTaken",
]
