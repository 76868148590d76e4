"""What a storage holds besides trials: the record of a study, reports, events."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StudyRecord:
    """What a study is.

    Attributes:
        name: Unique in the storage.
        problem: `Problem.to_json()`.
        seed: The seed all its random draws derive from.
        settings: Whatever else reproduces the run; any JSON.
        created: Seconds since 1970.
        version: The bbmmopt that created it.
        generation: How often problem or settings were changed since.
    """

    name: str
    problem: dict[str, Any]
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    created: float = 0.0
    version: str = ""
    generation: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise ValueError(f"a study needs a name of printable letters; got {self.name!r}.")


@dataclass(frozen=True)
class Report:
    """A value that a running trial reported on its way.

    Attributes:
        number: The trial.
        step: How far it had come, 0, 1, 2 …: epochs, say.
        value: What it measured there, in the user's units and sign; may be NaN or infinite.
        time: Seconds since 1970.
        revision: Of the study when it was written.
    """

    number: int
    step: int
    value: float
    time: float
    revision: int


@dataclass(frozen=True)
class Event:
    """One write to a study. Events are only ever added.

    Attributes:
        revision: Counts the writes of the study; reports, which are no events, count too.
        time: Seconds since 1970.
        kind: created, asked, enqueued, added, claimed, reclaimed, told, refused, noted, retried,
            stopped or revised.
        number: The trial; None where it is about the study.
        worker: Who runs or ran the trial, where that is known.
        detail: What there is to say besides, in JSON types: of "told", the outcome; of "refused",
            the outcome that came second and was not taken; of "stopped", the reason.
    """

    revision: int
    time: float
    kind: str
    number: int | None
    worker: str | None
    detail: dict[str, Any]
