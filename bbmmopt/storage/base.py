"""Storage: records of studies and trials, and the rules of who may change what.

Each method is one transaction: when it returns, what it wrote is kept; when it raises, nothing
has changed. What two workers might do at once is a compare-and-set: look and write within one
transaction, so that one of them finds out that it came second. The rules stand here, once. A
store adds a `Session`: how one transaction reads and writes the trials of one study.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self

from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState, UnknownTrial, to_json


class StorageError(Exception):
    """The storage cannot do what it was asked; the message says what to do."""


class UnknownStudy(StorageError):
    """There is no study of that name in the storage."""


class NumberTaken(StorageError):
    """Another worker wrote a trial of this number first: sync, then ask again."""


@dataclass(frozen=True)
class StudyRecord:
    """What a study is, written once, when it is created.

    Attributes:
        name: Unique in the storage.
        problem: `Problem.to_json()`.
        seed: The seed all its random draws derive from.
        settings: Whatever else reproduces the run; any JSON.
        created: Seconds since 1970.
        version: The bbmmopt that created it.
    """

    name: str
    problem: dict[str, Any]
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    version: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise ValueError(f"a study needs a name of printable letters; got {self.name!r}.")


class Session(ABC):
    """One transaction on one study, for `Storage` to work with."""

    @abstractmethod
    def trial(self, number: int) -> Trial | None:
        """A trial, sharing nothing with what is stored; None if there is none."""

    @abstractmethod
    def first_waiting(self) -> Trial | None:
        """The waiting trial of the lowest number."""

    @abstractmethod
    def next_number(self) -> int:
        """One more than the highest number so far."""

    @abstractmethod
    def insert(self, trial: Trial) -> None:
        """Write a new trial and count up the revision; NumberTaken if there is one."""

    @abstractmethod
    def update(self, before: Trial, after: Trial) -> None:
        """Write a changed trial and count up the revision."""

    @abstractmethod
    def changes(self, since: int) -> tuple[list[Trial], int]:
        """Trials written after that revision, oldest change first, and the revision now."""


class Storage(ABC):
    """A store of studies and their trials. Safe to share between threads.

    Trials come back as they were written, but for `arguments`: objects are not stored, so it
    holds their labels.
    """

    @abstractmethod
    def create_study(self, record: StudyRecord) -> StudyRecord:
        """Write the study unless there is one of that name; return the one that is there.

        So any number of workers may start at once, and all get the record of the first.
        """

    @abstractmethod
    def study(self, name: str) -> StudyRecord | None:
        """The record of a study; None if there is no such study."""

    @abstractmethod
    def studies(self) -> list[str]:
        """Names of all studies, in the order of creation."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""

    @abstractmethod
    def _session(self, study: str, *, write: bool) -> AbstractContextManager[Session]:
        """A transaction: committed at the end of the block, undone if the block raises.

        No other writer of the study comes between the reads and the writes of one with write=True.
        Raises UnknownStudy.
        """

    def add(self, study: str, trial: Trial) -> Trial:
        """Write a new trial, in whichever state, under its own number.

        Raises:
            NumberTaken: If the study has a trial of that number.
            TypeError: If its notes are not JSON.
        """
        trial = _as_stored(trial)
        with self._session(study, write=True) as session:
            session.insert(trial)
        return trial

    def add_next(self, study: str, trial: Trial) -> Trial:
        """Write a new trial under the next free number, whatever its own; return it with that."""
        with self._session(study, write=True) as session:
            trial = _as_stored(replace(trial, number=session.next_number()))
            session.insert(trial)
        return trial

    def claim(
        self, study: str, *, worker: str | None, now: float, lease: float | None = None
    ) -> Trial | None:
        """Make the first waiting trial a running one and return it; None if nothing waits.

        However many workers claim at once, each trial goes to one of them.

        Args:
            study: Name of the study.
            worker: Who will run it.
            now: Seconds since 1970.
            lease: Seconds after which another worker may take it over; None for never.
        """
        with self._session(study, write=False) as session:
            if session.first_waiting() is None:
                return None  # most often so, and reading blocks nobody
        with self._session(study, write=True) as session:
            before = session.first_waiting()
            if before is None:
                return None
            after = replace(
                before,
                state=TrialState.RUNNING,
                worker=worker,
                started=now,
                lease_until=_lease_end(now, lease),
            )
            session.update(before, after)
        return after

    def reclaim(
        self,
        study: str,
        number: int,
        *,
        worker: str | None,
        previous_worker: str | None,
        now: float,
        lease: float | None = None,
        expired: bool = False,
    ) -> Trial | None:
        """Hand a running trial over to another worker; None if somebody else was first.

        With worker == previous_worker, a worker takes up its own trial again after a restart, or
        renews its lease.

        Args:
            study: Name of the study.
            number: Number of the trial.
            worker: Who will run it from now on.
            previous_worker: Who ran it when the caller looked; another one now means: too late.
            now: Seconds since 1970.
            lease: Seconds after which another worker may take it over; None for never.
            expired: Also require that the present lease has run out.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        with self._session(study, write=True) as session:
            before = _existing(session, study, number)
            if before.state != TrialState.RUNNING or before.worker != previous_worker:
                return None
            if expired and (before.lease_until is None or before.lease_until > now):
                return None
            after = replace(before, worker=worker, lease_until=_lease_end(now, lease))
            session.update(before, after)
        return after

    def finish(
        self,
        study: str,
        number: int,
        *,
        state: TrialState | str,
        values: Mapping[str, float] | None = None,
        standard_errors: Mapping[str, float | None] | None = None,
        constraints: Mapping[str, float] | None = None,
        reason: str | None = None,
        finished: float,
    ) -> Trial:
        """End a running trial, or a waiting one that nobody claimed; return it as it is then.

        The same outcome again changes nothing and returns the stored trial. Of two failures the
        first reason is kept. Who runs the trial makes no difference: a late result, of a worker
        whose lease ran out, is as good as any.

        Raises:
            TrialAlreadyTold: If it ended with another outcome.
            UnknownTrial: If there is no such trial.
            ValueError: If state is not an end state.
        """
        if not TrialState(state).finished:
            raise ValueError(f"a trial ends complete, failed or pruned; got {state!r}.")
        with self._session(study, write=True) as session:
            before = _existing(session, study, number)
            after = _as_stored(
                replace(
                    before,
                    state=TrialState(state),
                    values=None if values is None else dict(values),
                    standard_errors=dict(standard_errors or {}),
                    constraints=dict(constraints or {}),
                    reason=reason,
                    finished=finished,
                    lease_until=None,
                )
            )
            if before.state.finished:
                if not _same_outcome(before, after):
                    raise _already_told(before, after)
                return before
            session.update(before, after)
        return after

    def set_attrs(self, study: str, number: int, attrs: Mapping[str, Any]) -> Trial:
        """Add these to the trial's notes, replacing those of the same name.

        Raises:
            UnknownTrial: If there is no such trial.
            TypeError: If they are not JSON.
        """
        with self._session(study, write=True) as session:
            before = _existing(session, study, number)
            after = _as_stored(replace(before, attrs={**before.attrs, **attrs}))
            session.update(before, after)
        return after

    def trial(self, study: str, number: int) -> Trial:
        """One trial.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        with self._session(study, write=False) as session:
            return _existing(session, study, number)

    def changes(self, study: str, since: int = 0) -> tuple[list[Trial], int]:
        """The trials written after revision `since`, oldest change first, and the revision now.

        The revision counts the writes to a study. A caller that passes back what it was given
        last reads each change once; since=0 reads all trials.
        """
        with self._session(study, write=False) as session:
            return session.changes(since)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_stored(trial: Trial) -> Trial:
    """What reading the trial will give: plain types, and nothing shared with the caller."""
    return Trial.from_json(trial.to_json())


def _existing(session: Session, study: str, number: int) -> Trial:
    trial = session.trial(number)
    if trial is None:
        raise UnknownTrial(f"study {study!r} has no trial {number}.")
    return trial


def _lease_end(now: float, lease: float | None) -> float | None:
    return None if lease is None else now + lease


def _same_outcome(told: Trial, again: Trial) -> bool:
    """Whether the second telling changes nothing."""
    if told.state == again.state == TrialState.FAILED:
        return True  # a second attempt fails with another traceback
    # As JSON, because nan != nan.
    return told.state == again.state and all(
        to_json(getattr(told, name)) == to_json(getattr(again, name))
        for name in ("values", "standard_errors", "constraints")
    )


def _already_told(told: Trial, now: Trial) -> TrialAlreadyTold:
    return TrialAlreadyTold(
        f"trial {told.number} was told already: {_outcome(told)}; now it was told "
        f"{_outcome(now)}. The first is kept. If both are measurements, add the second as a "
        f"trial of its own."
    )


def _outcome(trial: Trial) -> str:
    """complete with error = 0.5 ± 0.1"""
    if trial.values is None:
        return trial.state + (f" ({trial.reason})" if trial.reason else "")
    errors = trial.standard_errors
    told = [
        f"{name} = {value!r}" + (f" ± {errors[name]!r}" if errors.get(name) is not None else "")
        for name, value in (trial.values | trial.constraints).items()
    ]
    return f"{trial.state} with {', '.join(told)}"
