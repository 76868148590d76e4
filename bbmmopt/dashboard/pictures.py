"""Pictures: the numbers behind each, by the data functions of `bbmmopt.plots`, as the page asks."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from bbmmopt.dashboard.live import Live, Part
from bbmmopt.dashboard.strict import plain
from bbmmopt.dashboard.thinning import kept, thinned
from bbmmopt.storage import StudyRevised

_CACHED = 32  # pictures that are kept of a study
_VERSIONS = 3  # of each, so that only what is new is sent
_MARKS = 500  # trials that are marked on a slice


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        function: Of `bbmmopt.plots`: its numbers.
        options: What the page may choose.
        part: What of the study it shows, which says when it is out of date.
        model: Whether a model is fitted for it.
        most: How many trials are drawn at most, but for those that must not be left out; None for
            all.
        latest: Whether these are the latest ones; else they are spread over all.
    """

    function: str
    options: tuple[str, ...] = ()
    part: Part = "trials"
    model: bool = False
    most: int | None = None
    latest: bool = False


KINDS = {
    "history": Kind("history_data", ("name",), most=4000),
    "parallel": Kind("parallel_data", most=1500),
    "pareto": Kind("pareto_data", most=4000),
    "belief": Kind("pareto_belief_data", model=True),
    "timeline": Kind("timeline_data", most=2000, latest=True),
    "curves": Kind("curves_data", part="everything", most=200, latest=True),
    "importance": Kind("importance_data", ("name",), part="told", model=True),
    "calibration": Kind("calibration_data", ("name",), part="told", model=True, most=3000),
    "posterior": Kind("posterior_data", ("x", "y", "name", "fixed"), model=True),
    "acquisition": Kind("acquisition_data", ("x", "y", "fixed", "acquisition"), model=True),
}


@dataclass(frozen=True)
class Computed:
    """The numbers of a picture.

    Attributes:
        version: No two are alike.
        revision: Of the part of the study that it shows.
        columns: {name: values}, as JSON.
        facts: What else there is to say, as JSON.
        seconds: How long it took.
    """

    version: int
    revision: int
    columns: dict[str, list[Any]]
    facts: dict[str, Any]
    seconds: float

    def since(self, before: Computed | None) -> dict[str, Any]:
        """What to send to a page that has an earlier version: rows after those that are alike."""
        keep = 0
        if before is not None and before.columns.keys() == self.columns.keys():
            pairs = zip(self.columns.values(), before.columns.values(), strict=True)
            keep = min((_alike(now, then) for now, then in pairs), default=0)
        return {
            "version": self.version,
            "revision": self.revision,
            "keep": keep,
            "columns": {name: values[keep:] for name, values in self.columns.items()},
            "facts": self.facts,
            "seconds": self.seconds,
        }


class Gallery:
    """The pictures of a study: each computed once for what was told, one at a time.

    Args:
        live: The study.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self._cache: OrderedDict[str, list[Computed]] = OrderedDict()
        # Not from 1: a page may have one of a server that was started anew since.
        self._versions = count(secrets.randbelow(2**48))
        self._lock = threading.Lock()  # around the cache: two lanes and the event loop use it
        live.on_reopen.append(self._forget)

    async def picture(
        self, kind: str, options: Mapping[str, Any], *, have: int, shown: int, slot: str | None
    ) -> dict[str, Any]:
        """What to send of a picture.

        Where there is one that the page does not show yet, it is sent at once, though the study
        may have gone on since its revision: the page asks again then.

        Args:
            kind: One of KINDS.
            options: What its function is called with.
            have: Version that the page has; 0 for none.
            shown: Revision of what it shows; -1 for nothing.
            slot: Of the page: a later request of it takes the place of this one.

        Raises:
            Superseded, Closed: As in `Lane.run`.
            ValueError, TypeError: If the function refuses its arguments, or there is nothing to
                show yet.
        """
        key = json.dumps([kind, plain(options)], sort_keys=True)
        known = self._known(key)
        if not known or known[-1].revision <= shown:
            lane = self.live.heavy if KINDS[kind].model else self.live.light
            known = await lane.run(lambda: self._compute(kind, dict(options), key), slot)
        return _sent(known, have)

    def _known(self, key: str) -> list[Computed]:
        """What there is of a picture, oldest first."""
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key, [])

    def _forget(self) -> None:
        with self._lock:
            self._cache.clear()

    def _compute(self, kind: str, options: dict[str, Any], key: str) -> list[Computed]:
        """`_known`, with the picture as of now. In the thread of its lane."""
        revision = getattr(self.live.look(), KINDS[kind].part)
        known = self._known(key)
        if known and known[-1].revision >= revision:
            return known  # another page has asked for it
        began = time.perf_counter()
        try:
            columns, facts = self._numbers(kind, options)
        except StudyRevised:
            self.live.reopen()
            columns, facts = self._numbers(kind, options)
        seconds = time.perf_counter() - began
        computed = Computed(next(self._versions), revision, columns, facts, seconds)
        with self._lock:
            self._cache[key] = known = [*known, computed][-_VERSIONS:]
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return known

    def _numbers(
        self, kind: str, options: dict[str, Any]
    ) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        from bbmmopt import plots  # matplotlib, and torch for some, when the first one is drawn

        of = KINDS[kind]
        study = self.live.optimizer if of.model else self.live.study
        table = getattr(plots, of.function)(study, **options)
        columns, facts = dict(table), dict(table.facts)
        if of.most is not None:
            facts["trials"] = len(np.unique(columns["trial"]))
            always = kept(kind, columns, facts, study.problem)
            columns = thinned(columns, of.most, always, latest=of.latest)
        if kind in ("posterior", "acquisition"):
            facts["marks"] = self._marks(facts, best=kind == "posterior")
            facts["objectives"] = len(study.problem.objectives)
        return {name: plain(values) for name, values in columns.items()}, plain(facts)

    def _marks(self, facts: Mapping[str, Any], *, best: bool) -> list[dict[str, Any]]:
        """The latest trials that have a place on a slice, and whether they lie on it.

        Args:
            facts: What the slice is.
            best: Whether the best are marked, which are kept then however old they are.
        """
        axes = [facts["x"], *([facts["y"]] if facts["y"] is not None else [])]
        found: list[dict[str, Any]] = []
        problem, trials = self.live.study.problem, self.live.study.trials
        front = {trial.number for trial in problem.pareto_front_of(trials)} if best else set()
        if front and len(problem.objectives) == 1:
            front = {min(front)}  # of those that are equal the first, as `best` has it
        for trial in reversed(trials):
            if any(axis not in trial.params for axis in axes):
                continue
            if len(found) >= _MARKS and trial.number not in front:
                continue
            held = facts["held"].items()
            found.append(
                {
                    "number": trial.number,
                    "state": str(trial.state),
                    "x": trial.params[axes[0]],
                    "y": trial.params[axes[1]] if len(axes) > 1 else None,
                    "values": trial.values,
                    "constraints": trial.constraints,
                    "feasible": problem.is_feasible(trial) if trial.values is not None else None,
                    "on": all(trial.params.get(name) == value for name, value in held),
                    "best": trial.number in front,
                }
            )
        return found


def _sent(known: list[Computed], have: int) -> dict[str, Any]:
    before = next((computed for computed in known if computed.version == have), None)
    return known[-1].since(before)


def _alike(now: list[Any], then: list[Any]) -> int:
    """How many of the first values are the same in both."""
    least = min(len(now), len(then))
    if now[:least] == then[:least]:
        return least
    return next(k for k in range(least) if now[k] != then[k])
