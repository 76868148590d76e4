"""What is sent to a database over and over, put together once: it takes longer than sending.

Parameters of conditions have names that no column has: `of_study`, `of_number`, `since` …
"""

from typing import Any

import sqlalchemy as sa

from bbmmopt.storage import schema
from bbmmopt.storage.rows import COLUMNS

_studies, _trials = schema.studies, schema.trials


def _later(table: sa.Table, columns: list[sa.Column[Any]]) -> sa.Select[Any]:
    """Rows of a study that were written after a revision, oldest first."""
    return (
        sa.select(*columns)
        .where(table.c.study == sa.bindparam("of_study"), table.c.revision > sa.bindparam("since"))
        .order_by(table.c.revision)
    )


def _first(condition: sa.ColumnElement[bool], order: sa.Column[Any]) -> sa.Select[Any]:
    """The first trial of a study that meets a condition."""
    here = _trials.c.study == sa.bindparam("of_study")
    return sa.select(*COLUMNS).where(here, condition).order_by(order).limit(1)


_HERE = _trials.c.study == sa.bindparam("of_study")
_ONE = _HERE & (_trials.c.number == sa.bindparam("of_number"))

LOOK = sa.select(
    _studies.c.id,
    _studies.c.revision,
    _studies.c.generation,
    sa.select(sa.func.max(schema.versions.c.version)).scalar_subquery().label("version"),
).where(_studies.c.name == sa.bindparam("of_study"))
LOCK = LOOK.with_for_update(of=_studies)

TRIAL = sa.select(*COLUMNS).where(_ONE)
FIRST_OF_STATE = _first(_trials.c.state == sa.bindparam("of_state"), _trials.c.number)
FIRST_LEASE = _first(_trials.c.lease_until.is_not(None), _trials.c.lease_until)
HIGHEST = sa.select(sa.func.max(_trials.c.number)).where(_HERE)
PAGE = (
    sa.select(*COLUMNS)
    .where(
        _HERE,
        _trials.c.number >= sa.bindparam("of_number"),
        _trials.c.state.in_(sa.bindparam("of_states", expanding=True)),
    )
    .order_by(_trials.c.number)
)
CHANGES = _later(_trials, COLUMNS)
REPORTS = _later(schema.reports, list(schema.reports.c))
EVENTS = _later(schema.events, list(schema.events.c))
EVENTS_OF = EVENTS.where(schema.events.c.kind.in_(sa.bindparam("of_kinds", expanding=True)))
LATEST_EVENT = (
    sa.select(*schema.events.c)
    .where(
        schema.events.c.study == sa.bindparam("of_study"),
        schema.events.c.revision > sa.bindparam("since"),
        schema.events.c.kind == sa.bindparam("of_kind"),
    )
    .order_by(schema.events.c.revision.desc())
    .limit(1)
)

ADD_TRIAL = _trials.insert()
ADD_REPORT = schema.reports.insert()
ADD_EVENT = schema.events.insert()
# With the state that was read: should two ever come here at once, one finds nothing.
CHANGE_TRIAL = _trials.update().where(_ONE, _trials.c.state == sa.bindparam("of_state"))
RENEW = _trials.update().where(_ONE)
CHANGE_STUDY = _studies.update().where(_studies.c.id == sa.bindparam("of_study"))
