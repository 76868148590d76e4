"""The tables of a database, and how those of an older bbmmopt become them."""

import sqlalchemy as sa

# Counts the layouts of the tables. A new one needs a migration from each before it.
SCHEMA_VERSION = 2

metadata = sa.MetaData()

versions = sa.Table("bbmmopt_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))

studies = sa.Table(
    "bbmmopt_studies",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("seed", sa.Text, nullable=False),  # text: a seed may have more than 64 bits
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),  # counts the writes to the study
    sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

trials = sa.Table(
    "bbmmopt_trials",
    metadata,
    sa.Column("study", sa.ForeignKey("bbmmopt_studies.id"), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),  # that of the study at the last change
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("created", sa.Double),
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    sa.Column("params", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("attrs", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("lease", sa.Double),
    sa.Index("bbmmopt_trials_by_revision", "study", "revision"),
    sa.Index("bbmmopt_trials_by_state", "study", "state", "number"),
)
leases = sa.Index(
    "bbmmopt_trials_by_lease",
    trials.c.study,
    trials.c.lease_until,
    sqlite_where=trials.c.lease_until.is_not(None),
    postgresql_where=trials.c.lease_until.is_not(None),
)

# What running trials reported; only ever added to.
reports = sa.Table(
    "bbmmopt_reports",
    metadata,
    sa.Column("study", sa.ForeignKey("bbmmopt_studies.id"), primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double),  # NULL for NaN, which SQLite cannot hold
    sa.Column("time", sa.Double, nullable=False),
)

# One for each write to a study but reports; only ever added to.
events = sa.Table(
    "bbmmopt_events",
    metadata,
    sa.Column("study", sa.ForeignKey("bbmmopt_studies.id"), primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger),
    sa.Column("worker", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
)

# For each time this machine was started, the wall time at which its monotonic clock showed 0.
clocks = sa.Table(
    "bbmmopt_clocks",
    metadata,
    sa.Column("boot", sa.Text, primary_key=True),
    sa.Column("zero", sa.Double, nullable=False),
)


def create(connection: sa.Connection) -> None:
    """Create what is missing of the tables, in the transaction that the connection is in.

    Looks again which there are: another process may have been first.
    """
    metadata.create_all(connection)
    if connection.execute(sa.select(versions.c.version)).first() is None:
        connection.execute(versions.insert().values(version=SCHEMA_VERSION))


def version_of(connection: sa.Connection) -> int | None:
    """The layout of the tables that are there; None if there are none."""
    if not sa.inspect(connection).has_table(versions.name):
        return None
    return connection.execute(sa.select(sa.func.max(versions.c.version))).scalar_one()


def migrate(connection: sa.Connection, version: int) -> None:
    """Turn tables of an older layout into today's, in the transaction of the connection."""
    for step in range(version, SCHEMA_VERSION):
        _MIGRATIONS[step](connection)
    connection.execute(versions.insert().values(version=SCHEMA_VERSION))


def _to_2(connection: sa.Connection) -> None:
    """Reports, events, generations of a study, leases that can be renewed."""
    double = sa.Double().compile(connection.dialect)
    connection.exec_driver_sql(
        "ALTER TABLE bbmmopt_studies ADD COLUMN generation BIGINT DEFAULT 0 NOT NULL"
    )
    connection.exec_driver_sql(f"ALTER TABLE bbmmopt_trials ADD COLUMN lease {double}")
    for table in (reports, events, clocks):
        table.create(connection)
    leases.create(connection)


_MIGRATIONS = {1: _to_2}
