"""Session: how one transaction reads and writes the trials of one study."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from bbmmopt.storage.records import Event, Report, StudyRecord
from bbmmopt.trial import Trial, TrialState


class Session(ABC):
    """One transaction on one study, for `Storage` to work with. What writes counts the revision."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """How often the study was revised."""

    @property
    @abstractmethod
    def revision(self) -> int:
        """How often the study was written to."""

    @abstractmethod
    def trial(self, number: int) -> Trial | None:
        """A trial, sharing nothing with what is stored; None if there is none."""

    @abstractmethod
    def first_waiting(self) -> Trial | None:
        """The waiting trial of the lowest number."""

    @abstractmethod
    def first_lease(self) -> Trial | None:
        """The running trial whose lease ends first; None if no trial has one."""

    @abstractmethod
    def next_number(self) -> int:
        """One more than the highest number so far."""

    @abstractmethod
    def insert(self, trial: Trial, kind: str) -> None:
        """Write a new trial and an event of that kind; NumberTaken if there is one."""

    @abstractmethod
    def update(self, before: Trial, after: Trial, kind: str, detail: Mapping[str, Any]) -> None:
        """Write a changed trial and an event of that kind."""

    @abstractmethod
    def renew(self, number: int, lease_until: float) -> None:
        """Move the end of a lease. Counts for nobody else: neither revision nor event."""

    @abstractmethod
    def add_report(self, number: int, step: int, value: float) -> None:
        """Write a report."""

    @abstractmethod
    def add_event(self, kind: str, trial: Trial | None, detail: Mapping[str, Any]) -> None:
        """Write an event by itself."""

    @abstractmethod
    def latest_event(self, kind: str, since: int) -> tuple[Event | None, int]:
        """The newest event of a kind that was written after that revision, and the revision now."""

    @abstractmethod
    def revise(self, record: StudyRecord) -> None:
        """Write problem, settings and generation of the study."""

    @abstractmethod
    def changes(self, since: int) -> tuple[list[Trial], int]:
        """Trials written after that revision, oldest change first, and the revision now."""

    @abstractmethod
    def page(self, start: int, most: int, states: Collection[TrialState]) -> list[Trial]:
        """So many trials at most of these states, by number, from `start` on."""

    @abstractmethod
    def reports(self, since: int, most: int | None) -> tuple[list[Report], int]:
        """So many reports at most that were written after that revision, oldest first; and the
        revision up to which these are all."""

    @abstractmethod
    def events(self, since: int, most: int | None, kinds: Collection[str] | None) -> list[Event]:
        """So many events at most, of these kinds if they are named, that were written after that
        revision, oldest first."""
