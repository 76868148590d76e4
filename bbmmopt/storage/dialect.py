"""Dialect: what is particular to one kind of database, for `Database` to work with."""

from abc import ABC, abstractmethod
from typing import Any

from sqlalchemy import URL, Connection, Engine


class Dialect(ABC):
    """One database of one kind.

    Attributes:
        url: Opens the same database again, in another process too. May hold a password.
        name: For messages; never with a password.
    """

    url: URL
    name: str

    @abstractmethod
    def engine(self) -> Engine:
        """A new pool of connections, each set up when it is made."""

    @abstractmethod
    def prepare(self, engine: Engine) -> None:
        """What is done once, when the database is opened."""

    @abstractmethod
    def options(self, *, write: bool) -> dict[str, Any]:
        """Execution options of a connection, by what its transaction is for."""

    @abstractmethod
    def advice(self, cause: str, state: str | None, *, lost: bool, committing: bool) -> str:
        """What to do about an error of the driver.

        Args:
            cause: What the driver says.
            state: Its SQLSTATE, where there is one.
            lost: Whether the connection is gone.
            committing: Whether it came while the transaction was being committed.
        """

    @abstractmethod
    def back_up(self, suffix: str, connection: Connection) -> str:
        """See `Database.back_up`."""

    def forget(self) -> None:  # noqa: B027
        """Called when no connection is open, or none may be."""

    def check_in_place(self, *, after_commit: bool = False) -> None:  # noqa: B027
        """Raise StorageError if what is open is not what its name stands for any more."""

    def comes_back(self, cause: str) -> bool:
        """Whether an error in connecting is one that time may mend."""
        return False

    def keep_others_out(self, connection: Connection) -> None:  # noqa: B027
        """Until the end of the transaction, whoever else wants the same waits."""
