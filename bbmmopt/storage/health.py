"""What there is to say of a database, good and bad: looks at everything, changes nothing."""

import os
import shutil
from pathlib import Path

import sqlalchemy as sa

from bbmmopt.storage import schema
from bbmmopt.storage.checking import damage, disagreements
from bbmmopt.storage.database import Database
from bbmmopt.storage.errors import StorageError
from bbmmopt.storage.finding import Finding
from bbmmopt.storage.mounts import file_system, network_file_system
from bbmmopt.storage.sqlite import has_log

_PATIENCE = 5.0  # seconds to wait for a lock, or for a server
_MB = 2**20
_LEAST_SPACE, _LITTLE_SPACE = 16 * _MB, 256 * _MB
_LONG_LOG = 256 * _MB  # of a database whose log is taken in as it should be: some MB


def examine(where: str | os.PathLike[str], file: Path | None) -> list[Finding]:
    """Everything about a database but its studies. Ends at the first thing that hides the rest.

    Args:
        where: Path or URL.
        file: The file that this means; None for a server.
    """
    found = [] if file is None else _of_file(file)
    if any(finding.about == "file" and finding.state == "problem" for finding in found):
        return found
    try:
        database = Database(where, _PATIENCE, read_only=True)
    except StorageError as error:
        return [*found, Finding("opens", "problem", str(error))]
    try:
        with database.transaction(write=False) as connection:
            found.append(Finding("opens", "ok", database.name))
            found += [] if file is not None else _of_server(connection)
            version = schema.version_of(connection)
            found.append(_of_schema(version))
            if version is None:
                return found
            found += [] if file is None else [_of_journal(file)]
            wrong = damage(connection)
            if version == schema.SCHEMA_VERSION and not wrong:
                wrong = disagreements(connection)
    except StorageError as error:
        return [*found, Finding("integrity", "problem", str(error))]
    finally:
        database.close()
    advice = "Go back to a copy, or save what can be read: bbmmopt export, sqlite3 FILE .recover."
    found += [Finding("integrity", "problem", text, advice) for text in wrong]
    return found if wrong else [*found, Finding("integrity", "ok", "nothing is damaged")]


def _of_schema(version: int | None) -> Finding:
    if version is None:
        return Finding(
            "schema", "problem", "there are no tables, so no study", "Make one: bbmmopt create."
        )
    says = f"version {version}"
    if version < schema.SCHEMA_VERSION:
        return Finding(
            "schema",
            "warning",
            f"{says}, of an older bbmmopt; this one has {schema.SCHEMA_VERSION}",
            "Whatever opens it next, but doctor, makes a backup and brings it up to date.",
        )
    if version > schema.SCHEMA_VERSION:
        return Finding(
            "schema",
            "problem",
            f"{says}, of a newer bbmmopt; this one has {schema.SCHEMA_VERSION}",
            "Upgrade bbmmopt.",
        )
    return Finding("schema", "ok", says)


# --------------------------------------------------------------------------------------
# SQLite
# --------------------------------------------------------------------------------------


def _of_file(file: Path) -> list[Finding]:
    path = Path(os.path.realpath(file))
    try:
        is_there = path.is_file() or path.is_dir()
    except OSError as error:
        return [Finding("file", "problem", f"{file}: {error.strerror}", "Check the path.")]
    if not is_there:
        advice = "Check the path, or make a study: bbmmopt create."
        return [Finding("file", "problem", f"there is no file {file}", advice)]
    if path.is_dir():
        advice = "Give the path of a file, such as study.db."
        return [Finding("file", "problem", f"{file} is a directory", advice)]
    return [*_access(path), *_sizes(path), _of_file_system(path), _of_space(path)]


def _access(path: Path) -> list[Finding]:
    if not os.access(path, os.R_OK):
        advice = "Let this user read it: chmod, or ask its owner."
        return [Finding("file", "problem", f"{path} cannot be read by this user", advice)]
    closed = [place for place in (path, path.parent) if not os.access(place, os.W_OK)]
    if closed:
        says = f"{path} can be read, but {closed[0]} cannot be written by this user"
        advice = "Trials can be looked at, but not asked for or told: make both writable."
        return [Finding("file", "warning", says, advice)]
    return [Finding("file", "ok", f"{path} can be read and written")]


def _sizes(path: Path) -> list[Finding]:
    log = Path(f"{path}-wal")
    beside = [other for other in path.parent.iterdir() if other.name.startswith(f"{path.name}.")]
    unfinished = [other.name for other in beside if other.name.endswith(".partial")]
    backups = [other.name for other in beside if ".before-v" in other.name]
    says = _size(path.stat().st_size)
    length = log.stat().st_size if log.exists() else 0
    if length:
        says += f", and {_size(length)} in its log"
    if set(backups) - set(unfinished):
        says += f"; backups beside it: {', '.join(sorted(set(backups) - set(unfinished)))}"
    found = [Finding("size", "ok", says)]
    if length > _LONG_LOG:
        says = f"the log {log.name} has {_size(length)}, and should have some MB"
        advice = "A program that reads for hours keeps it from being taken in: end that program."
        found = [Finding("size", "warning", says, advice)]
    if unfinished:
        says = f"{', '.join(unfinished)}: a backup that was not finished"
        found.append(Finding("backup", "warning", says, "Remove it: the study itself is whole."))
    return found


def _of_file_system(path: Path) -> Finding:
    kind = network_file_system(path.parent)
    if kind is None:
        return Finding("file system", "ok", file_system(path.parent) or "not known")
    says = f"{kind}, which more than one machine uses"
    advice = (
        "Move the study to a local disk, or use PostgreSQL. Else use it as sqlite:///PATH?"
        "journal=delete: slower, and only as safe as the locks of this file system."
    )
    return Finding("file system", "warning", says, advice)


def _of_space(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    says = f"{_size(free)} free"
    if free < _LITTLE_SPACE:
        state = "problem" if free < _LEAST_SPACE else "warning"
        return Finding("space", state, says, "Free some space, before a result cannot be written.")
    return Finding("space", "ok", says)


def _of_journal(file: Path) -> Finding:
    # By the header: who reads a file as if it never changed is told of no log.
    if has_log(file):
        return Finding("journal", "ok", "write-ahead log; a commit waits for the disk (FULL)")
    return Finding("journal", "ok", "rollback journal; a commit waits for the disk (EXTRA)")


def _size(size: float) -> str:
    """123.4 MB"""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


# --------------------------------------------------------------------------------------
# PostgreSQL
# --------------------------------------------------------------------------------------

_ASKED = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS pages,
    current_setting('synchronous_commit') AS commit, pg_database_size(current_database()) AS size
"""


def _of_server(connection: sa.Connection) -> list[Finding]:
    row = connection.execute(sa.text(_ASKED)).one()
    found = [Finding("server", "ok", f"PostgreSQL {row.version}")]
    if row.standby:
        advice = "Give the address of the primary."
        found = [Finding("server", "problem", "a standby, which can only be read", advice)]
    settings = {"fsync": row.fsync, "full_page_writes": row.pages}
    off = [name for name, value in settings.items() if value == "off"]
    if off:
        says = f"{' and '.join(off)} off: a power cut may lose or damage what was told"
        found.append(Finding("journal", "warning", says, "Turn it on in postgresql.conf."))
    else:
        found.append(Finding("journal", "ok", f"a commit waits for the disk ({row.commit})"))
    found.append(Finding("size", "ok", _size(row.size)))
    return [*found, *_of_rights(connection)]


def _of_rights(connection: sa.Connection) -> list[Finding]:
    tables = [name for name in schema.metadata.tables if sa.inspect(connection).has_table(name)]
    closed = [
        name
        for name in tables
        for right in ("INSERT", "UPDATE")
        if not connection.execute(sa.select(sa.func.has_table_privilege(name, right))).scalar_one()
    ]
    if not closed:
        return []
    says = f"this user may not write {', '.join(dict.fromkeys(closed))}"
    return [Finding("rights", "warning", says, "GRANT ALL ON these tables, as their owner.")]
