"""Storage: records of studies and trials, and the rules of who may change what.

Each method is one transaction: when it returns, what it wrote is kept; when it raises, nothing
has changed. What two workers might do at once is a compare-and-set: look and write within one
transaction, so that one of them finds out that it came second. The rules stand here, once. A
store adds a `Session`: how one transaction reads and writes the trials of one study.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

from bbmmopt.storage.errors import StudyRevised
from bbmmopt.storage.outcomes import already_told, outcome_of, same_outcome
from bbmmopt.storage.records import Event, Report, StudyRecord
from bbmmopt.storage.session import Session
from bbmmopt.trial import Trial, TrialState, UnknownTrial, to_json

_MOST_NUMBERS = 2**63  # what a database counts to

# The event that a new trial is, by its state.
_BORN = {TrialState.WAITING: "enqueued", TrialState.RUNNING: "asked"} | dict.fromkeys(
    (TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED), "added"
)


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

    @property
    @abstractmethod
    def address(self) -> str | None:
        """What `open_storage` opens it by in another process; None if none can."""

    @property
    def busy_timeout(self) -> float:
        """Seconds to wait for what may be over soon: others who write, a server's restart."""
        return 0.0

    @abstractmethod
    def clock(self) -> float:
        """Seconds since 1970 by the clock that leases go by, which nobody sets while they last.

        Monotonic, in step for all processes of a machine; on a server, the server's.
        """

    @abstractmethod
    def check(self) -> list[str]:
        """What is wrong with the storage, a sentence each; nothing if all is well."""

    @abstractmethod
    def _session(self, study: str, *, write: bool) -> AbstractContextManager[Session]:
        """A transaction: committed at the end of the block, undone if the block raises.

        No other writer of the study comes between the reads and the writes of one with write=True.
        Raises UnknownStudy.
        """

    def add(self, study: str, trial: Trial, *, generation: int | None = None) -> Trial:
        """Write a new trial, in whichever state, under its own number.

        Args:
            study: Name of the study.
            trial: The trial. If it has a lease, that begins now.
            generation: Of the study that the trial was made for; None for any.

        Raises:
            NumberTaken: If the study has a trial of that number.
            StudyRevised: If the study is of another generation.
            TypeError: If its notes are not JSON.
        """
        if trial.lease is not None:
            trial = replace(trial, lease_until=self._lease_end(trial.lease))
        trial = _as_stored(trial)
        with self._session(study, write=True) as session:
            _check_generation(session, study, generation)
            session.insert(trial, _BORN[trial.state])
        return trial

    def add_next(self, study: str, trial: Trial) -> Trial:
        """Write a new trial under the next free number, whatever its own; return it with that."""
        with self._session(study, write=True) as session:
            trial = _as_stored(replace(trial, number=session.next_number()))
            session.insert(trial, _BORN[trial.state])
        return trial

    def add_all(
        self, study: str, trials: Iterable[Trial], *, unless: Callable[[Trial], bool]
    ) -> list[Trial]:
        """Write new trials under the next free numbers: all of them, or none.

        Args:
            study: Name of the study.
            trials: The trials, whatever their numbers.
            unless: None are written if this is so of any trial that is there.

        Returns:
            The trials with their numbers.
        """
        ready = [_as_stored(trial) for trial in trials]
        with self._session(study, write=True) as session:
            if any(unless(trial) for trial in session.changes(0)[0]):
                return []
            first = session.next_number()
            added = [replace(trial, number=first + k) for k, trial in enumerate(ready)]
            for trial in added:
                session.insert(trial, _BORN[trial.state])
        return added

    def claim(self, study: str, *, worker: str | None, lease: float | None = None) -> Trial | None:
        """Make a trial that nobody runs a running one and return it; None if there is none.

        First those whose lease ran out, the one that ran out first before the others; then those
        that wait, in order of their numbers. However many workers claim at once, each trial goes
        to one of them.

        Args:
            study: Name of the study.
            worker: Who will run it.
            lease: Seconds after which another worker may take it over; None for never.
        """
        _check_worker(worker)
        with self._session(study, write=False) as session:
            leased = session.first_lease()
            if leased is None and session.first_waiting() is None:
                return None  # most often so, and reading blocks nobody
        now = self.clock() if leased is not None else 0.0
        until = self._lease_end(lease)
        with self._session(study, write=True) as session:
            before = session.first_lease()
            if before is None or before.lease_until is None or before.lease_until > now:
                before = session.first_waiting()
            if before is None:
                return None
            again = before.state == TrialState.RUNNING
            after = replace(
                before,
                state=TrialState.RUNNING,
                worker=worker,
                started=before.started if again else time.time(),
                lease=lease,
                lease_until=until,
            )
            detail = {"from": before.worker} if again else {}
            session.update(before, after, "reclaimed" if again else "claimed", detail)
        return after

    def reclaim(
        self,
        study: str,
        number: int,
        *,
        worker: str | None,
        previous_worker: str | None,
        lease: float | None = None,
    ) -> Trial | None:
        """Hand a running trial over to another worker; None if somebody else was first.

        With worker == previous_worker, a worker takes up its own trial again after a restart.

        Args:
            study: Name of the study.
            number: Number of the trial.
            worker: Who will run it from now on.
            previous_worker: Who ran it when the caller looked; another one now means: too late.
            lease: Seconds after which another worker may take it over; None for never.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        _check_worker(worker)
        until = self._lease_end(lease)
        with self._session(study, write=True) as session:
            before = _existing(session, study, number)
            if before.state != TrialState.RUNNING or before.worker != previous_worker:
                return None
            after = replace(before, worker=worker, lease=lease, lease_until=until)
            session.update(before, after, "reclaimed", {"from": before.worker})
        return after

    def renew(self, study: str, number: int, *, worker: str | None) -> bool:
        """Let the lease of a running trial begin anew; whether it still is this worker's.

        Nothing happens to a trial without a lease.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        now = self.clock()
        with self._session(study, write=True) as session:
            trial = _existing(session, study, number)
            if trial.state != TrialState.RUNNING or trial.worker != worker:
                return False
            if trial.lease is not None:
                session.renew(number, now + trial.lease)
        return True

    def report(self, study: str, number: int, step: int, value: float) -> Trial:
        """Write down how far a trial has come; return it as it is stored.

        A report renews the lease of a running trial. Of several reports at a step, as when a trial
        was begun again, all are kept and the last one counts.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        trial = self.trial(study, number)
        now = self.clock() if trial.lease is not None else None
        with self._session(study, write=True) as session:
            trial = _existing(session, study, number)
            session.add_report(number, step, value)
            if trial.lease is not None and now is not None and trial.state == TrialState.RUNNING:
                session.renew(number, now + trial.lease)
        return trial

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
        whose lease ran out, is as good as any. Of two different outcomes the first is kept, and
        the second is in the log of events.

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
                    lease=None,
                    lease_until=None,
                )
            )
            if not before.state.finished:
                session.update(before, after, "told", outcome_of(after))
                return after
            if same_outcome(before, after):
                return before
            session.add_event("refused", before, outcome_of(after))
        raise already_told(before, after)

    def set_attrs(self, study: str, number: int, attrs: Mapping[str, Any]) -> Trial:
        """Add these to the trial's notes, replacing those of the same name.

        Raises:
            UnknownTrial: If there is no such trial.
            TypeError: If they are not JSON.
        """
        with self._session(study, write=True) as session:
            before = _existing(session, study, number)
            after = _as_stored(replace(before, attrs={**before.attrs, **attrs}))
            session.update(before, after, "noted", {"names": sorted(attrs)})
        return after

    def log_retry(self, study: str, number: int, reason: str) -> None:
        """Write down that an attempt at a running trial went wrong, and that another follows.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        with self._session(study, write=True) as session:
            trial = _existing(session, study, number)
            session.add_event("retried", trial, {"reason": to_json(reason)})

    def stop(self, study: str, reason: str) -> None:
        """Write down that nothing more should be started in a study, for its runs to find."""
        with self._session(study, write=True) as session:
            session.add_event("stopped", None, {"reason": to_json(reason)})

    def stop_asked(self, study: str, since: int | None) -> tuple[str | None, int]:
        """Why a study should stop, if that was written after a revision; and the revision now.

        Args:
            study: Name of the study.
            since: The revision; None for now, after which nothing was written yet.
        """
        with self._session(study, write=False) as session:
            if since is None:
                return None, session.revision
            event, now = session.latest_event("stopped", since)
        return None if event is None else event.detail["reason"], now

    def revise(self, record: StudyRecord, *, detail: Mapping[str, Any]) -> StudyRecord:
        """Replace problem and settings of a study; return its record of the next generation.

        Args:
            record: The record as it was read, but with another problem or other settings.
            detail: For the log of events: what has changed.

        Raises:
            StudyRevised: If somebody else revised it since.
        """
        after = replace(record, generation=record.generation + 1)
        with self._session(record.name, write=True) as session:
            _check_generation(session, record.name, record.generation)
            session.revise(after)
            session.add_event("revised", None, detail)
        return after

    def trial(self, study: str, number: int) -> Trial:
        """One trial.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        with self._session(study, write=False) as session:
            return _existing(session, study, number)

    def changes(
        self, study: str, since: int = 0, *, generation: int | None = None
    ) -> tuple[list[Trial], int]:
        """The trials written after revision `since`, oldest change first, and the revision now.

        The revision counts the writes to a study. A caller that passes back what it was given
        last reads each change once; since=0 reads all trials.

        Raises:
            StudyRevised: If the study is not of this generation; None is any.
        """
        with self._session(study, write=False) as session:
            _check_generation(session, study, generation)
            return session.changes(since)

    def page(
        self, study: str, start: int, most: int, states: Collection[TrialState] = tuple(TrialState)
    ) -> list[Trial]:
        """So many trials at most of these states, by number, from number `start` on."""
        with self._session(study, write=False) as session:
            return session.page(start, most, states)

    def reports(
        self, study: str, since: int = 0, *, most: int | None = None
    ) -> tuple[list[Report], int]:
        """The reports written after revision `since`, oldest first, so many at most; and the
        revision up to which these are all."""
        with self._session(study, write=False) as session:
            return session.reports(since, most)

    def events(
        self,
        study: str,
        since: int = 0,
        *,
        most: int | None = None,
        kinds: Collection[str] | None = None,
    ) -> list[Event]:
        """The events written after revision `since`, oldest first, so many at most.

        Args:
            study: Name of the study.
            since: A revision.
            most: How many; None for all.
            kinds: Only events of these kinds; None for all.
        """
        with self._session(study, write=False) as session:
            return session.events(since, most, kinds)

    def _lease_end(self, lease: float | None) -> float | None:
        return None if lease is None else self.clock() + lease

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_stored(trial: Trial) -> Trial:
    """What reading the trial will give: plain types, and nothing shared with the caller."""
    if isinstance(trial.number, int) and not 0 <= trial.number < _MOST_NUMBERS:
        raise ValueError(
            f"the number of a trial is an integer from 0 to 2**63 - 1; got {trial.number}."
        )
    _check_worker(trial.worker)
    return Trial.from_json(trial.to_json())


def _check_worker(worker: str | None) -> None:
    """Refuse a name that a database could not keep."""
    if worker is not None and not worker.isprintable():
        raise ValueError(f"the name of a worker is made of printable letters; got {worker!r}.")


def _existing(session: Session, study: str, number: int) -> Trial:
    trial = session.trial(number)
    if trial is None:
        raise UnknownTrial(f"study {study!r} has no trial {number}.")
    return trial


def _check_generation(session: Session, study: str, generation: int | None) -> None:
    if generation is not None and generation != session.generation:
        raise StudyRevised(
            f"the problem or settings of study {study!r} were changed meanwhile by another "
            f"process: open the study again, with the problem as it is now or by its name alone, "
            f"Optimizer.open(storage, {study!r}). Trials under way can be told as before."
        )
