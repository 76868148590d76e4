"""Which stored study a text such as "study.db", or "study.db#name", means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from bbmmopt.storage.base import Storage
from bbmmopt.storage.errors import UnknownStudy
from bbmmopt.storage.open import open_storage
from bbmmopt.storage.records import StudyRecord


def split_place(text: str) -> tuple[str, str | None]:
    """Path or URL, and study if one is named; a file whose name has a # is a path alone."""
    if "#" not in text or Path(text).expanduser().is_file():
        return text, None
    where, _, study = text.rpartition("#")
    return where, study or None


def file_of(where: str) -> Path | None:
    """The file that a path or an SQLite URL means; None for a database server."""
    if "://" not in where:
        return Path(os.path.expanduser(where))
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(\?.*)?", where)
    if match is None or "uri=" in (match[2] or ""):
        return None
    return Path(os.path.expanduser(match[1]))


@contextmanager
def existing_study(
    where: str | Storage, study: str | None = None
) -> Iterator[tuple[Storage, StudyRecord]]:
    """A study that is stored already, and its storage, which is closed again if it was opened here.

    Args:
        where: A path, a database URL or a Storage. No file is made.
        study: Its name; left out, it is the only one there.

    Raises:
        UnknownStudy: If there is no such file or study, or it is not clear which is meant.
        StorageError: If the storage cannot be opened.
    """
    file = None if isinstance(where, Storage) else file_of(where)
    if file is not None and not file.is_file():
        hint = " That is a directory: name the file in it." if file.is_dir() else ""
        raise UnknownStudy(f"there is no file {str(where)!r}.{hint}")
    opened = open_storage(where)
    with nullcontext() if isinstance(where, Storage) else opened:
        names = opened.studies()
        listed = ", ".join(map(repr, names)) or "none"
        if study is None and len(names) != 1:
            raise UnknownStudy(f"say which study, as in 'path#study'; there are: {listed}.")
        name = names[0] if study is None else study
        record = opened.study(name)
        if record is None:
            raise UnknownStudy(f"there is no study {name!r}; there are: {listed}.")
        yield opened, record
