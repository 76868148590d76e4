"""What goes to the page and comes from it: strict JSON that JavaScript reads as it was meant."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MOST_BYTES = 64 * 1024  # of what a page may send
_EXACT = 2**53  # up to here JavaScript tells integers apart


class JSON(Response):
    """A response of strict JSON: NaN and infinities are null, integers beyond 2^53 are texts."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body. In ASCII, so that lone surrogates of a name survive."""
        return text_of(content).encode("ascii")


def text_of(content: Any) -> str:
    """One line of strict JSON."""
    return json.dumps(plain(content), allow_nan=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    """A value with nothing but what JSON and JavaScript can hold."""
    if value is None or isinstance(value, bool | np.bool_):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | np.integer):
        number = int(value)
        return number if -_EXACT <= number <= _EXACT else str(number)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        found = value.astype(object)
        found[~np.isfinite(value)] = None
        return found.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent.

    Raises:
        HTTPException: 413 if it is too large, 415 if it is not said to be JSON, 400 if it is none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON, with Content-Type: application/json.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"at most {MOST_BYTES} bytes can be sent at once.")
    return object_of(body, "what was sent")


def object_of(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object of a text.

    Raises:
        HTTPException: 400 if it is none.
    """
    try:
        found = json.loads(text, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"{what} is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise HTTPException(400, f"{what} must be a JSON object, {{…}}.")
    return found


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large for a float")
    return value
