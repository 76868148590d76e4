"""A PostgreSQL server for benchmarks and tests, on loopback, in a folder of its own."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import LiteralString, Self, cast

import psycopg
from psycopg import sql

_USER = "bbmmopt"
_PATIENCE = 60.0  # seconds to wait for a server that starts or stops


class PostgresServer:
    """Runs a server of its own from an installed PostgreSQL; a context manager.

        with PostgresServer() as server:
            storage = open_storage(server.url("campaign"))

    PostgreSQL refuses to run as root; there it runs as the user `postgres`, which must then be
    able to reach the folder.

    Args:
        folder: Where to put the data; None for a temporary folder, removed at the end.
        fsync: Whether a commit waits for the disk, as it does for everybody else.
        settings: More settings of the server, such as {"max_connections": 5}.

    Raises:
        RuntimeError: If PostgreSQL is not installed, or the server does not start.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        fsync: bool = True,
        settings: dict[str, object] | None = None,
    ) -> None:
        self._programs = find_programs()
        self._temporary = tempfile.mkdtemp(prefix="postgres-") if folder is None else None
        self._folder = Path(self._temporary or folder or "").absolute()
        self._settings = {"fsync": "on" if fsync else "off", **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._made: set[str] = set()
        self.password = secrets.token_hex(16)
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._create()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(mode="immediate")
        if self._temporary is not None:
            shutil.rmtree(self._temporary)

    def url(self, name: str, *, user: str = _USER, password: str | None = None) -> str:
        """The URL of a database of that name, created if this server was not asked for it before.

        Args:
            name: Of the database.
            user: Who connects.
            password: Of that user; None for that of the server's owner.
        """
        if name not in self._made:
            self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            self._made.add(name)
        return (
            f"postgresql+psycopg://{user}:{password or self.password}@127.0.0.1:{self.port}/{name}"
        )

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> list[tuple]:
        """Run a statement as the server's owner, outside of a transaction; the rows it gives."""
        with self.connect(database) as connection:
            cursor = connection.execute(cast("LiteralString | sql.Composed", statement))
            return cursor.fetchall() if cursor.description else []

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the server's owner, committing each statement."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=_USER,
            password=self.password,
            dbname=database,
            autocommit=True,
        )

    def start(self) -> None:
        """Start it, again after `stop` or `kill`, on the same port; return when it answers."""
        ports = [self.port] if self.port else [_free_port() for _ in range(3)]
        for self.port in ports:
            self._process = self._run("postgres", "-D", str(self._data), *self._options())
            if self._answers():
                return
            # Another program may have taken the port meanwhile.
        raise RuntimeError(f"PostgreSQL did not start. Its log ends:\n{self.log()[-2000:]}")

    def stop(self, mode: str = "fast") -> None:
        """Shut it down.

        Args:
            mode: "fast" ends the sessions of clients; "immediate" leaves the rest to recovery.
        """
        signals = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        if self._process is not None:
            self._process.send_signal(signals[mode])
            self._process.wait(_PATIENCE)
            self._process = None

    def kill(self) -> None:
        """Kill -9 all its processes at once, as when the machine fails. `start` recovers."""
        if self._process is None:
            return
        pid = self._process.pid
        self._process.send_signal(signal.SIGSTOP)  # or it would clean up after its children
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self._process.kill()
        self._process.wait(_PATIENCE)
        self._process = None

    def log(self) -> str:
        """What the server has said so far."""
        path = self._folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _options(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self._settings,
        }
        return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

    def _create(self) -> None:
        """The data directory, synced to the disk only by what the server writes later."""
        self._folder.mkdir(parents=True, exist_ok=True)
        account = _account()
        if account is not None:
            os.chown(self._folder, account.pw_uid, account.pw_gid)
            closed = [p for p in self._folder.parents if not p.stat().st_mode & 0o001]
            if closed:
                raise RuntimeError(
                    f"PostgreSQL runs as {account.pw_name}, who cannot enter {closed[-1]}. "
                    f"Give another folder, or None for a temporary one."
                )
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        if account is not None:
            os.chown(password, account.pw_uid, account.pw_gid)
        arguments = ["--no-sync", "--encoding=UTF8", "--locale=C", f"--username={_USER}"]
        arguments += ["--auth=scram-sha-256", f"--pwfile={password}", "-D", str(self._data)]
        if self._run("initdb", *arguments).wait(_PATIENCE):
            raise RuntimeError(f"initdb failed:\n{self.log()[-2000:]}")

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        account = _account()
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs[program], *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C in a terminal is not for the server
                user=account and account.pw_uid,
                group=account and account.pw_gid,
                extra_groups=None if account is None else [],
            )

    def _answers(self) -> bool:
        """Wait until it does; False if it ended."""
        give_up = time.monotonic() + _PATIENCE
        assert self._process is not None
        while time.monotonic() < give_up:
            try:
                self.connect().close()
                return True
            except psycopg.OperationalError:
                if self._process.poll() is not None:
                    self._process = None
                    return False
                time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL does not answer. Its log ends:\n{self.log()[-2000:]}")


def find_programs() -> dict[str, str]:
    """Paths of initdb and postgres, of the newest version that is installed.

    Raises:
        RuntimeError: If they are not.
    """
    # Debian puts the server's programs where no PATH leads.
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3])
    )
    found = shutil.which("initdb") or (str(installed[-1]) if installed else None)
    if found is None:
        raise RuntimeError("there is no PostgreSQL server. Install the system package postgresql.")
    home = Path(found).resolve().parent
    return {name: str(home / name) for name in ("initdb", "postgres")}


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as; None for ourselves."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
