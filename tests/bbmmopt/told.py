"""Studies with trials of given outcomes and times, for the test files of pictures."""

from collections.abc import Sequence

from bbmmopt import Real, Study, Trial

START = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


def study_of(trials: Sequence[dict], **options) -> Study:
    """A study in memory that holds these trials, of which only what matters is given.

    Times are in seconds from START; a value is that of the only objective.
    """
    study = Study({"x": Real(0, 1)}, **{"minimize": "loss", "seed": 0} | options)
    for number, given in enumerate(trials):
        fields = dict(given)
        value = fields.pop("value", None)
        if value is not None:
            fields["values"] = {study.problem.names[0]: value}
        if "state" not in fields:
            fields["state"] = "complete" if "values" in fields else "failed"
        for name in ("started", "finished"):
            if name in fields:
                fields[name] += START
        study.storage.add(study.study, Trial(number, {"x": 0.5}, **fields))
    return study


def study_told(values: Sequence[float | None], **options) -> Study:
    """The same of values alone, one result a second; None is a failed trial."""
    return study_of(
        [{"value": v, "started": float(i), "finished": i + 1.0} for i, v in enumerate(values)],
        **options,
    )
