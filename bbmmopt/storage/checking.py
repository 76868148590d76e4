"""What is wrong with a database, if anything."""

import sqlalchemy as sa

from bbmmopt.storage import schema

_studies, _trials = schema.studies, schema.trials
_reports, _events = schema.reports, schema.events


def damage(connection: sa.Connection) -> list[str]:
    """What SQLite finds wrong with its file; a server checks its own."""
    if connection.dialect.name != "sqlite":
        return []
    found = [text for (text,) in connection.exec_driver_sql("PRAGMA integrity_check")]
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return [f"SQLite: {text}." for text in found if text != "ok"] + [
        f"SQLite: a row of {row[0]} belongs to no study." for row in orphans
    ]


def disagreements(connection: sa.Connection) -> list[str]:
    """What does not fit together between the tables of each study.

    From its first event on, each revision of a study is one event or one report, and a trial's is
    one of them.
    """
    found = []
    written = sa.union_all(
        *(sa.select(table.c.study, table.c.revision) for table in (_events, _reports))
    ).subquery()
    for study in connection.execute(sa.select(_studies).order_by(_studies.c.id)):
        of = written.c.study == study.id
        low, high, count = connection.execute(
            sa.select(
                sa.func.min(written.c.revision), sa.func.max(written.c.revision), sa.func.count()
            ).where(of)
        ).one()
        if count and (high != study.revision or count != high - low + 1):
            found.append(
                f"study {study.name!r}: {count} events and reports stand for the revisions "
                f"{low} to {study.revision}."
            )
        late = sa.select(_trials.c.number).where(
            _trials.c.study == study.id, _trials.c.revision > study.revision
        )
        found += [
            f"study {study.name!r}: trial {number} is of a later revision than the study."
            for number in connection.execute(late).scalars()
        ]
        lost = sa.select(_reports.c.number).where(
            _reports.c.study == study.id,
            ~sa.exists().where(_trials.c.study == study.id, _trials.c.number == _reports.c.number),
        )
        found += [
            f"study {study.name!r}: there are reports of trial {number}, but no such trial."
            for number in connection.execute(lost.distinct()).scalars()
        ]
    return found
