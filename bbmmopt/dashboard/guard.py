"""Who may talk to the dashboard: the page that it served, opened with the token it printed.

The threats: another web page in the same browser, which can send requests to loopback but not read
this page's token; a name of an attacker's that is made to mean 127.0.0.1 (DNS rebinding), which the
Host header gives away; other users of the machine, who can connect but do not know the token.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bbmmopt.dashboard.strict import JSON

# Plotly sets styles in the page, and saves pictures as blobs. Scripts are our files and no others.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LOOKING = ("GET", "HEAD")


class Guard:
    """Lets requests through that come from the dashboard's own page.

    Args:
        app: What they go to.
        token: What every request to the API must carry.
        host: Where the server listens, as it was given.
    """

    def __init__(self, app: ASGIApp, *, token: str, host: str) -> None:
        self._app, self._token, self._host = app, token, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_api = scope["path"].startswith("/api/")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                # Files are asked for anew each time, and not sent again if they are the same.
                headers["Cache-Control"] = "no-store" if is_api else "no-cache"
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope), is_api)
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, method: str, headers: Headers, is_api: bool) -> JSON | None:
        """Why a request is not let through; None if it is."""
        host = headers.get("host", "")
        if not is_ours(host, self._host):
            advice = "Open the address that the dashboard printed when it started."
            return _refused(403, f"this dashboard does not go by the name {host!r}. {advice}")
        if not is_api:
            return None
        if method not in _LOOKING and not _same_origin(headers, host):
            return _refused(403, "changes are taken from the dashboard's own page only.")
        sent = headers.get("authorization", "").encode("latin-1", "replace")
        if not secrets.compare_digest(sent, f"Bearer {self._token}".encode()):
            response = _refused(
                401,
                "the token is missing or wrong: open the address that the dashboard printed when "
                "it started, which ends in #token=…",
            )
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return None


def is_ours(header: str, bound: str) -> bool:
    """Whether a Host header means this server, which nobody else's name can.

    An address does, because only names can be made to mean another machine.

    Args:
        header: What the browser takes this server for, a port included.
        bound: Where the server listens, as it was given.
    """
    if "@" in header:
        return False
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        names = {"localhost", bound.lower()}
        return name in names or (not is_loopback(bound) and name == socket.gethostname().lower())
    return address.is_loopback or not is_loopback(bound)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can connect to it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether a change is asked for by our page, or by no page at all."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return False
    return headers.get("sec-fetch-site", "same-origin") == "same-origin"


def _refused(status: int, message: str) -> JSON:
    return JSON({"error": message}, status)
