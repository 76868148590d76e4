"""The server: one process on one port, which ends when it is told to."""

from __future__ import annotations

import errno
import secrets
import socket
from contextlib import suppress

import uvicorn
from uvicorn.config import Config

from bbmmopt.dashboard.app import application
from bbmmopt.dashboard.hub import Hub

_PATIENCE = 3  # seconds in which changes under way may be written when the server ends


class PortTaken(OSError):
    """The server cannot listen where it should; the message says what to do."""


class DashboardServer:
    """A dashboard that listens.

    Args:
        hub: What it serves.
        host: Where to listen: an address of this machine, or its name.
        port: At which port; 0 for any that is free.
        token: What the page must bring along; a random one if left out.

    Attributes:
        url: What to open in a browser; the token is in it.

    Raises:
        PortTaken: If it cannot listen there.
    """

    def __init__(
        self, hub: Hub, *, host: str = "127.0.0.1", port: int = 0, token: str | None = None
    ) -> None:
        self._hub = hub
        self._socket = _listening(host, port)
        token = secrets.token_urlsafe(24) if token is None else token
        named = "localhost" if host in ("0.0.0.0", "::", "") else host
        named = f"[{named}]" if ":" in named else named
        self.origin = f"http://{named}:{self._socket.getsockname()[1]}"
        self.url = f"{self.origin}/#token={token}"
        app = application(hub, token=token, host=host)
        self._server = _Server(
            Config(
                app,
                log_config=None,
                log_level="error",  # strangers could fill the terminal with warnings
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=_PATIENCE,
            ),
            hub,
        )

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM or `stop`."""
        # uvicorn ends properly, and passes the signal on then.
        with suppress(KeyboardInterrupt), self._socket:
            self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """Give up the port of a server that does not run."""
        self._socket.close()

    def stop(self) -> None:
        """Have `run` return, from another thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn, which would wait for streams that never end by themselves."""

    def __init__(self, config: Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams and computations, then the connections."""
        self._hub.close()
        await super().shutdown(sockets)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        advice = "Give another --host."
        if error.errno == errno.EADDRINUSE:
            advice = "Another program, maybe another dashboard, has that port: give another --port."
        elif error.errno == errno.EACCES:
            advice = "Ports below 1024 are for the system: give another --port."
        reason = error.strerror or error
        raise PortTaken(f"cannot listen on {host}:{port}: {reason}. {advice}") from error
