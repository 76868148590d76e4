"""Study: a problem, its trials and what was told of them; everything but suggesting.

Imports no torch, so that telling and listing do not wait for it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bbmmopt.storage import NumberTaken
from bbmmopt.study.ledger import checked_worker
from bbmmopt.study.stored import StoredStudy
from bbmmopt.trial import Trial, TrialState


class FailedTrialWarning(UserWarning):
    """A told value cannot be used, and the trial was recorded as failed."""


class Study(StoredStudy):
    """Everything about a run but its suggestions: the trials, telling, enqueueing, the best.

    `Optimizer` adds `ask`, and says what the arguments are: they are the same. By itself a study is
    what to open in order to look, or to tell a result from a process that need not load a model.
    """

    # ----------------------------------------------------------------------- what to run

    def enqueue(self, params: Mapping[str, Any]) -> Trial:
        """Put a point in line: the next `ask` hands it out before anything of its own.

        Args:
            params: A value for every active parameter.

        Raises:
            ValueError: If the point is not in the space, naming parameter, value and range.
        """
        params = self.space.validate(params, where="enqueue")
        trial = Trial(
            0, params, TrialState.WAITING, created=time.time(), origin={"phase": "enqueued"}
        )
        with self._lock:
            return self._ledger.remember(self.storage.add_next(self.study, trial))

    def claim(self, *, worker: str | None = None, lease: float | None = None) -> Trial | None:
        """Take a trial that is there and that nobody runs: its lease ran out, or it is in line.

        `ask` does so before it suggests a new one.

        Args:
            worker: Who will run it.
            lease: As in `ask`.

        Returns:
            The trial, running; None if there is none.
        """
        worker, lease = checked_worker(worker, lease)
        with self._lock:
            self._ledger.sync()
            trial = self.storage.claim(self.study, worker=worker, lease=lease)
            return None if trial is None else self._ledger.hand_out(trial)

    def begin(
        self, suggested: Trial, *, worker: str | None = None, lease: float | None = None
    ) -> Trial | None:
        """Make a trial of what `preview` suggested.

        Args:
            suggested: As `preview` returned it.
            worker: Who will run it.
            lease: As in `ask`.

        Returns:
            The trial, running; None if another one has its number by now.

        Raises:
            TypeError, ValueError: If it is not what `preview` returned; nothing is stored then.
        """
        worker, lease = checked_worker(worker, lease)
        if not isinstance(suggested, Trial) or suggested.state != TrialState.WAITING:
            raise TypeError(f"begin needs a Trial that preview returned; got {suggested!r}.")
        self.space.validate(suggested.params, where="begin")
        now = time.time()
        trial = replace(
            suggested,
            state=TrialState.RUNNING,
            created=now,
            started=now,
            worker=worker,
            lease=lease,
        )
        with self._lock:
            self._ledger.sync()
            if trial.number > self._ledger.next_number:
                raise ValueError(
                    f"trial {trial.number} was suggested for another study: the next trial of "
                    f"study {self.study!r} is {self._ledger.next_number}."
                )
            try:
                stored = self.storage.add(self.study, trial, generation=self._generation)
            except NumberTaken:
                return None
            return self._ledger.hand_out(stored)

    def take_over(
        self, trial: Trial, *, worker: str | None = None, lease: float | None = None
    ) -> Trial | None:
        """Run a trial again whose worker is known to be gone: it is handed out to you now.

        Args:
            trial: A running trial, as `trials` showed it.
            worker: Who will run it from now on.
            lease: As in `ask`.

        Returns:
            The trial; None if it has ended, or somebody else took it over first.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        if not isinstance(trial, Trial):
            raise TypeError(f"take_over needs a Trial, as optimizer.trials shows; got {trial!r}.")
        worker, lease = checked_worker(worker, lease)
        with self._lock:
            taken = self.storage.reclaim(
                self.study,
                trial.number,
                worker=worker,
                previous_worker=trial.worker,
                lease=lease,
            )
            return None if taken is None else self._ledger.hand_out(taken)

    # ----------------------------------------------------------------------------- telling

    def tell(
        self,
        trial: Trial | int,
        value: Any = None,
        *,
        failed: str | None = None,
        pruned: str | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> Trial:
        """Record what came out. When this returns, the result is stored.

        Everything is checked before anything changes: after an error the trial is still running
        and can be told again.

        Args:
            trial: The trial, or its number.
            value: A number; (mean, standard error); or {objective: either} when there are several.
                NaN, or an infinity on the bad side, records the trial as failed and warns.
            failed: Why there is no value, instead of one (nor constraints).
            pruned: Why the trial was given up on its way, instead of a value: what it reported
                until then stays.
            constraints: {constraint: value} if the problem has any and `value` does not say.

        Returns:
            The trial as it is now.

        Raises:
            TypeError: If the value is not a number.
            ValueError: If names are missing or unknown, an infinity is on the good side, or the
                trial is not one of this study.
            UnknownTrial: If there is no such trial.
            TrialAlreadyTold: If it was told before with another outcome.
        """
        number = self._number(trial)
        if isinstance(trial, Trial):
            self._check_own(trial)
        reasons = {TrialState.FAILED: failed, TrialState.PRUNED: pruned}
        for state, reason in reasons.items():
            if reason is None:
                continue
            other = failed is not None and pruned is not None
            if value is not None or constraints is not None or other:
                raise ValueError(
                    f"trial {number}: give a value (and constraints), failed=… or pruned=…, "
                    f"not two of them."
                )
            if not isinstance(reason, str) or not reason:
                raise TypeError(
                    f'trial {number}: {state}= takes the reason, as in {state}="diverged"; '
                    f"got {reason!r}."
                )
            return self._finish(number, state, {"reason": reason})
        return self._finish(number, *self._outcome(value, constraints, number))

    def _outcome(
        self, value: Any, constraints: Mapping[str, float] | None, number: int | None
    ) -> tuple[TrialState, dict[str, Any]]:
        """End state and outcome of a told value, checked; warns of one that counts as failed."""
        told = self.problem.check_values(value, trial_number=number, constraints=constraints)
        if told.failure is not None:
            where = "add_trial" if number is None else f"trial {number}"
            message = f"{where}: {told.failure}; recorded as failed."
            warnings.warn(message, FailedTrialWarning, stacklevel=3)
            return TrialState.FAILED, {"reason": told.failure}
        return TrialState.COMPLETE, {
            "values": told.values,
            "standard_errors": told.standard_errors,
            "constraints": told.constraints,
        }

    def _check_own(self, trial: Trial) -> None:
        """Refuse a trial of another study, or one whose params were changed since."""
        with self._lock:
            if trial.number not in self._ledger.trials:
                self._ledger.sync(revised=True)
            stored = self._ledger.trials.get(trial.number)
        if stored is not None and stored.params != trial.params:
            raise ValueError(
                f"this trial has {trial.params}, but trial {trial.number} of study {self.study!r} "
                f"has {stored.params}: it belongs to another study, or its params were changed. "
                f"Tell by number, tell({trial.number}, …), if that is the one that was run."
            )

    def _finish(self, number: int, state: TrialState, outcome: dict[str, Any]) -> Trial:
        fields = {"values": None, "standard_errors": {}, "constraints": {}, "reason": None}
        with self._lock:
            trial = self.storage.finish(
                self.study, number, state=state, finished=time.time(), **(fields | outcome)
            )
            return self._ledger.remember(trial)

    def add_trial(
        self,
        params: Mapping[str, Any],
        value: Any,
        *,
        constraints: Mapping[str, float] | None = None,
        outside: bool = False,
    ) -> Trial:
        """Record a result that was not asked for: from the literature, a log, an earlier study.

        Args:
            params: A value for every active parameter.
            value: As in `tell`.
            constraints: As in `tell`.
            outside: Accept numbers beyond the bounds of the space: they teach the model, and are
                never proposed.

        Raises:
            TypeError, ValueError: As in `tell` and `enqueue`; nothing is recorded then.
        """
        params = self.space.validate(params, where="add_trial", outside=outside)
        state, outcome = self._outcome(value, constraints, None)
        now = time.time()
        trial = Trial(
            0,
            params,
            state,
            created=now,
            started=now,
            finished=now,
            origin={"phase": "told"},
            **outcome,
        )
        with self._lock:
            return self._ledger.remember(self.storage.add_next(self.study, trial))

    # -------------------------------------------------------------------------- on the way

    def report(self, trial: Trial | int, step: int, value: float) -> None:
        """Say how far a running trial has come; see `Trial.report`."""
        self._reporter.report(self._number(trial), step, value)

    def should_stop(self, trial: Trial | int) -> str | None:
        """Why a running trial should not go on, after the study's `early_stopping`; else None."""
        return self._reporter.should_stop(self._number(trial))

    def renew(self, trial: Trial) -> bool:
        """Let the lease of a running trial begin anew.

        Returns:
            Whether the trial is still this worker's: False if it has ended, or somebody took it
            over. A result may be told all the same, and counts if it is the first.

        Raises:
            UnknownTrial: If there is no such trial.
        """
        if not isinstance(trial, Trial):
            raise TypeError(f"renew needs the Trial that ask returned; got {trial!r}.")
        return self.storage.renew(self.study, trial.number, worker=trial.worker)

    def stop(self, reason: str = "no more is needed") -> None:
        """Have the runs of this study end, in whichever process: they finish what they began.

        `minimize` and `run` look for this before they start a trial, `stop_reason` tells other
        loops. Nothing is locked: a run that begins later begins as always, and `ask` works.

        Args:
            reason: Why, for the log of events and for whoever started the runs.

        Raises:
            TypeError: If the reason is no text.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise TypeError(f"the reason to stop is a sentence or a word; got {reason!r}.")
        self.storage.stop(self.study, reason)

    def log_retry(self, trial: Trial | int, reason: str) -> None:
        """Write into the log of events that an attempt went wrong and another follows."""
        self.storage.log_retry(self.study, self._number(trial), reason)

    def set_attrs(self, trial: Trial | int, attrs: Mapping[str, Any]) -> Trial:
        """Add notes to a trial, in whichever state; those of the same name are replaced.

        Args:
            trial: The trial, or its number.
            attrs: {name: anything that JSON can hold}.

        Raises:
            TypeError: If they are not JSON.
            UnknownTrial: If there is no such trial.
        """
        if not isinstance(attrs, Mapping):
            raise TypeError(f"set_attrs takes {{name: note}}; got {attrs!r}.")
        with self._lock:
            return self._ledger.remember(
                self.storage.set_attrs(self.study, self._number(trial), attrs)
            )
