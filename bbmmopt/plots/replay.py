"""Replay: a study once more, in memory, write by write."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from bbmmopt.optimizer import Optimizer
from bbmmopt.storage import MemoryStorage, StudyRecord
from bbmmopt.study import StoredStudy
from bbmmopt.trial import Trial, TrialState

_BORN = ("asked", "enqueued", "added")


class Replay:
    """What was known of a study at earlier moments, in the order of its log of events.

    Attributes:
        optimizer: The study as it was then: in memory, of the same problem, seed and settings as
            the study has now. It suggests what the study's own did.
        moments: {number: revision of the study} of when trials were suggested, from the first one
            on for which a result was there; of a study to which results were only added, of when
            they were.

    Args:
        study: The study, which stays as it is.
    """

    def __init__(self, study: StoredStudy) -> None:
        trials = {trial.number: trial for trial in study.trials}
        self._storage, self._name = MemoryStorage(), study.study
        settings = dict(study.settings)
        self._storage.create_study(
            StudyRecord(self._name, study.problem.to_json(), study.seed, settings)
        )
        self.optimizer = Optimizer(study.problem, storage=self._storage, study=self._name)
        # What was written, by revision.
        writes: dict[int, Callable[[], object]] = {}
        known: list[int] = []
        born: dict[str, dict[int, int]] = {kind: {} for kind in _BORN}
        for event in study.events():
            trial = trials.get(-1 if event.number is None else event.number)
            if trial is None:
                continue
            if event.kind in _BORN:
                born[event.kind][trial.number] = event.revision
                begun = trial if event.kind == "added" else _begun(trial)
                writes[event.revision] = partial(self._storage.add, self._name, begun)
            elif event.kind == "told":
                writes[event.revision] = partial(self._finish, trial)
            if event.kind in ("added", "told") and trial.state == TrialState.COMPLETE:
                known.append(event.revision)
        for report in study.storage.reports(study.study)[0]:
            values = report.number, report.step, report.value
            writes[report.revision] = partial(self._storage.report, self._name, *values)
        self._writes = deque(sorted(writes.items()))
        self.moments: Mapping[int, int] = {
            number: revision
            for number, revision in (born["asked"] or born["added"]).items()
            if revision > min(known, default=math.inf)
        }

    def before(self, revision: float = math.inf) -> Optimizer:
        """The study before a write of it; of revisions that rise from call to call.

        Args:
            revision: Of that write; left out, as the study is now.
        """
        while self._writes and self._writes[0][0] < revision:
            _, write = self._writes.popleft()
            write()
        return self.optimizer

    def _finish(self, trial: Trial) -> None:
        self._storage.finish(
            self._name,
            trial.number,
            state=trial.state,
            values=trial.values,
            standard_errors=trial.standard_errors,
            constraints=trial.constraints,
            reason=trial.reason,
            finished=trial.finished or 0.0,
        )


def _begun(trial: Trial) -> Trial:
    """The trial as it was while it ran."""
    return replace(
        trial,
        state=TrialState.RUNNING,
        values=None,
        standard_errors={},
        constraints={},
        reason=None,
        finished=None,
        lease=None,
        lease_until=None,
    )
