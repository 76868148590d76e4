"""Which storage a `storage=` argument means."""

import os

from bbmmopt.storage.base import Storage
from bbmmopt.storage.memory import MemoryStorage


def open_storage(where: "str | os.PathLike[str] | Storage | None" = None) -> Storage:
    """Open or create a storage.

    Args:
        where: None for one in memory, which ends with the process; a path for an SQLite file; a URL
            of one ("sqlite:///study.db") or of a PostgreSQL database
            ("postgresql+psycopg://user@host/name"); or a Storage, which is returned as it is.

    Raises:
        StorageError: If it cannot be opened, saying what to do.
    """
    if where is None:
        return MemoryStorage()
    if isinstance(where, Storage):
        return where
    if not isinstance(where, str | os.PathLike) or not os.fspath(where):
        raise TypeError(
            f"storage must be None, a path, a database URL or a Storage; got {where!r} "
            f"({type(where).__name__})."
        )
    # SQLAlchemy takes a fifth of a second to import: only those who use it pay.
    from bbmmopt.storage.sql import SQLStorage

    return SQLStorage(where)
