"""Storages and studies as state machines: twins that must agree, and a plain dict that knows."""

import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bbmmopt.space import Integer, Real, Space
from bbmmopt.storage import MemoryStorage, NumberTaken, Storage, StudyRecord, open_storage
from bbmmopt.study import Study
from bbmmopt.trial import Trial, TrialAlreadyTold, TrialState, UnknownTrial
from tests.bbmmopt.fuzz import any_json, attempt, examples

REFUSALS = (NumberTaken, TrialAlreadyTold, UnknownTrial, ValueError, TypeError)

numbers = st.integers(0, 6) | st.sampled_from([-1, 2**62, 2**63, 2**70])
values = st.floats(width=16) | st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, 5e-324])
workers = st.none() | st.sampled_from(["a", "b", "", "été 🎉", "\ud800", "\x00"])
leases = st.none() | st.sampled_from([1.0, 10.0])
notes = st.dictionaries(st.text("$ab", max_size=2), any_json, max_size=2)
states = st.sampled_from(list(TrialState))


class Twins(RuleBasedStateMachine):
    """Memory and an SQLite file, to which the same things happen."""

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.now = 1000.0
        self.memory = MemoryStorage()
        self.memory.clock = self.clock
        self.open()
        for storage in (self.memory, self.sqlite):
            storage.create_study(StudyRecord("s", {}, 0))
        self.seen = 0

    def open(self) -> None:
        self.sqlite = open_storage(self.home / "study.db")
        self.sqlite.clock = self.clock

    def clock(self) -> float:
        return self.now

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.sqlite.close()
            shutil.rmtree(self.home)

    def both(self, action: Callable[[Storage], Any]) -> Any:
        """What both say, a result or a refusal."""
        (one, no), (other, neither) = (
            attempt(lambda storage=storage: action(storage), *REFUSALS)
            for storage in (self.memory, self.sqlite)
        )
        assert no == neither
        assert alike(one) == alike(other)
        return one

    @rule(number=numbers, state=states, worker=workers, lease=leases, attrs=notes, value=values)
    def add(self, number, state, worker, lease, attrs, value):
        trial = Trial(
            number,
            {"x": value, "n": 2**60, "$": "\ud800"},
            state,
            {"f": value} if state == TrialState.COMPLETE else None,
            attrs=attrs,
            worker=worker,
            lease=lease if state == TrialState.RUNNING else None,
        )
        self.both(lambda storage: storage.add("s", trial))

    @rule(state=states, attrs=notes)
    def add_next(self, state, attrs):
        self.both(lambda storage: storage.add_next("s", Trial(0, {}, state, attrs=attrs)))

    @rule(worker=workers, lease=leases)
    def claim(self, worker, lease):
        self.both(lambda storage: storage.claim("s", worker=worker, lease=lease))

    @rule(number=numbers, worker=workers, previous=workers, lease=leases)
    def reclaim(self, number, worker, previous, lease):
        self.both(
            lambda storage: storage.reclaim(
                "s", number, worker=worker, previous_worker=previous, lease=lease
            )
        )

    @rule(number=numbers, worker=workers)
    def renew(self, number, worker):
        self.both(lambda storage: storage.renew("s", number, worker=worker))

    @rule(number=numbers, state=states, value=values, error=st.none() | values, reason=st.text())
    def finish(self, number, state, value, error, reason):
        complete = state == TrialState.COMPLETE
        self.both(
            lambda storage: storage.finish(
                "s",
                number,
                state=state,
                values={"f": value} if complete else None,
                standard_errors={"f": error} if complete else None,
                reason=None if complete else reason,
                finished=2.0,
            )
        )

    @rule(number=numbers, attrs=notes | st.just({"a": {1}}))
    def set_attrs(self, number, attrs):
        self.both(lambda storage: storage.set_attrs("s", number, attrs))

    @rule(number=numbers, step=st.integers(0, 3), value=values)
    def report(self, number, step, value):
        self.both(lambda storage: storage.report("s", number, step, value))

    @rule(number=numbers, reason=st.text())
    def log_retry(self, number, reason):
        self.both(lambda storage: storage.log_retry("s", number, reason))

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(number=numbers)
    def look(self, number):
        self.both(lambda storage: storage.trial("s", number))

    @rule()
    def open_again(self):
        self.sqlite.close()
        self.open()

    @rule()
    def read_all(self):
        self.both(lambda storage: storage.changes("s"))
        self.both(lambda storage: storage.reports("s"))
        self.both(lambda storage: storage.events("s"))
        assert self.both(lambda storage: storage.check()) == []

    @invariant()
    def what_is_new_is_told_alike(self):
        if hasattr(self, "sqlite"):
            self.both(lambda storage: storage.events("s", self.seen))
            _, self.seen = self.both(lambda storage: storage.changes("s", self.seen))


def alike(found: Any) -> Any:
    """Without the times, which two calls never share; as text, because nan != nan."""
    if isinstance(found, list | tuple):
        return [alike(item) for item in found]
    if isinstance(found, Trial):
        data = found.to_json()
        return repr(data | {"started": data["started"] is None, "created": 0})
    return repr(asdict(found) | {"time": 0}) if hasattr(found, "revision") else repr(found)


class ManyHands(RuleBasedStateMachine):
    """A study that two processes have open, and close, and a dict that knows all it was told."""

    space = Space({"x": Real(0, 1), "n": Integer(0, 9)})

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.studies = [self.open(), self.open()]
        self.known: dict[int, tuple[str, float | None, dict[str, Any]]] = {}

    def open(self) -> Study:
        return Study(self.space, minimize="f", seed=0, storage=self.home / "study.db")

    def teardown(self) -> None:
        for study in getattr(self, "studies", []):
            study.close()
        if hasattr(self, "home"):
            shutil.rmtree(self.home)

    hands = st.integers(0, 1)
    points = st.fixed_dictionaries({"x": st.floats(0, 1), "n": st.integers(0, 9)})
    told = st.floats(-1e6, 1e6)

    def wrote(self, trial: Trial, value: float | None = None) -> None:
        """Remember a new trial."""
        assert trial.number == len(self.known)
        self.known[trial.number] = (trial.state, value, trial.params)

    @rule(hand=hands, point=points)
    def enqueue(self, hand, point):
        self.wrote(self.studies[hand].enqueue(point))

    @rule(hand=hands, point=points, value=told)
    def add_trial(self, hand, point, value):
        self.wrote(self.studies[hand].add_trial(point, value), value)

    @rule(hand=hands)
    def claim(self, hand):
        study = self.studies[hand]
        trial = study.storage.claim(study.study, worker=f"worker {hand}")
        waiting = [n for n, (state, *_) in self.known.items() if state == "waiting"]
        assert (trial and trial.number) == min(waiting, default=None)
        if trial is not None:
            self.known[trial.number] = ("running", None, trial.params)

    @precondition(lambda self: self.known)
    @rule(hand=hands, data=st.data(), value=told, failed=st.booleans())
    def tell(self, hand, data, value, failed):
        number = data.draw(st.sampled_from(sorted(self.known)))
        state, before, params = self.known[number]
        outcome = {"failed": "no"} if failed else {"value": value}
        trial, refused = attempt(lambda: self.studies[hand].tell(number, **outcome))
        if state in ("waiting", "running"):
            after = ("failed", None, params) if failed else ("complete", value, params)
            self.known[number] = after
            assert (trial.state, trial.value) == after[:2]
        else:
            same = state == "failed" if failed else before == value
            assert (refused is None) == same

    @precondition(lambda self: self.known)
    @rule(hand=hands, data=st.data(), value=st.sampled_from([None, "1", (1, -1), {"g": 1}, 1j]))
    def tell_nonsense(self, hand, data, value):
        number = data.draw(st.sampled_from(sorted(self.known)))
        _, refused = attempt(lambda: self.studies[hand].tell(number, value))
        assert refused is not None

    @rule(hand=hands, point=points, wrong=st.sampled_from(["x", "n", "m"]))
    def enqueue_nonsense(self, hand, point, wrong):
        _, refused = attempt(lambda: self.studies[hand].enqueue(point | {wrong: 77}))
        assert refused is not None

    @rule(hand=hands)
    def close_and_open(self, hand):
        self.studies[hand].close()
        self.studies[hand] = self.open()

    @invariant()
    def nothing_told_is_lost(self):
        for study in getattr(self, "studies", []):
            found = {t.number: (t.state, t.value, t.params) for t in study.trials}
            assert found == self.known
            complete = [v for state, v, _ in self.known.values() if state == "complete"]
            assert not complete or study.best.value == min(complete)


TestTwins = Twins.TestCase
TestTwins.settings = settings(examples(15), stateful_step_count=25)
TestManyHands = ManyHands.TestCase
TestManyHands.settings = settings(examples(12), stateful_step_count=25)
