"""What a picture is drawn of: an Optimizer, a stored study, or the file where one is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath

from bbmmopt.optimizer import Optimizer
from bbmmopt.study import Study
from bbmmopt.study.stored import StoredStudy

Source = StoredStudy | str | PathLike[str]


@contextmanager
def stored(source: Source) -> Iterator[StoredStudy]:
    """The study to look at: trials, what they reported, the problem; no model.

    Args:
        source: An Optimizer, a Study, "study.db", or "study.db#name" of several in one file. What
            was opened here is closed again.

    Raises:
        TypeError: If it is none of these.
        UnknownStudy, StorageError: As in `Optimizer.open`.
    """
    if isinstance(source, StoredStudy):
        yield source
        return
    with Study.open(*_where(source)) as study:
        yield study


@contextmanager
def modelled(source: Source) -> Iterator[Optimizer]:
    """The same with its model: an Optimizer as it is, of everything else one that is opened here.

    Args:
        source: As in `stored`.
    """
    if isinstance(source, Optimizer):
        yield source
    elif isinstance(source, StoredStudy):
        # Its storage goes on being used by who opened it.
        yield Optimizer.open(source.storage, source.study)
    else:
        with Optimizer.open(*_where(source)) as optimizer:
            yield optimizer


def _where(source: str | PathLike[str]) -> tuple[str, str]:
    """Storage and study."""
    if not isinstance(source, str | PathLike):
        raise TypeError(
            f"expected an Optimizer, a Study, or where one is stored such as 'study.db'; got "
            f"{source!r}."
        )
    where, mark, study = fspath(source).rpartition("#")
    return (where, study) if mark else (study, "default")
