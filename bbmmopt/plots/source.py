"""What a picture is drawn of: an Optimizer, a stored study, or the file where one is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING

from bbmmopt.space.checks import shown
from bbmmopt.storage import Storage
from bbmmopt.storage.places import existing_study, split_place
from bbmmopt.study import StoredStudy, Study

if TYPE_CHECKING:
    from bbmmopt.optimizer import Optimizer

Source = StoredStudy | str | PathLike[str]


@contextmanager
def stored(source: Source) -> Iterator[StoredStudy]:
    """The study to look at: trials, what they reported, the problem; no model.

    Args:
        source: An Optimizer; a Study; or where one is stored: "study.db", the only one in a file or
            a database ("postgresql+psycopg://user@host/name"), or "study.db#name", one of several.
            What was opened here is closed again.

    Raises:
        TypeError: If it is none of these.
        UnknownStudy: If there is no such file or study, or it is not clear which is meant.
        StorageError: If the storage cannot be opened.
    """
    if isinstance(source, StoredStudy):
        yield source
        return
    with _opened(source) as (storage, name):
        yield Study.open(storage, name)


@contextmanager
def modelled(source: Source) -> Iterator[Optimizer]:
    """The same with its model: an Optimizer as it is, of everything else one that is opened here.

    Args:
        source: As in `stored`.

    Raises:
        TypeError, UnknownStudy, StorageError: As `stored`.
        StudyDiffers: If the study was changed since the Study was opened.
    """
    from bbmmopt.optimizer import Optimizer  # with torch, which `stored` does without

    if isinstance(source, Optimizer):
        yield source
    elif isinstance(source, StoredStudy):
        # By its own problem, which may hold functions that no storage has. Its storage goes on
        # being used by who opened it.
        yield Optimizer(
            source.problem, storage=source.storage, study=source.study, device=source.device
        )
    else:
        with _opened(source) as (storage, name):
            yield Optimizer.open(storage, name)


@contextmanager
def _opened(source: str | PathLike[str]) -> Iterator[tuple[Storage, str]]:
    """Storage and name of a study."""
    if not isinstance(source, str | PathLike):
        raise TypeError(
            f"expected an Optimizer, a Study, or where one is stored such as 'study.db'; got "
            f"{shown(source)} ({type(source).__name__})."
        )
    with existing_study(*split_place(fspath(source))) as (storage, record):
        yield storage, record.name
