"""The addresses of the dashboard: files of the page, what it asks for, what it changes."""

from __future__ import annotations

import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bbmmopt.dashboard import changes
from bbmmopt.dashboard.describing import described, point_from
from bbmmopt.dashboard.guard import Guard
from bbmmopt.dashboard.hub import Hub
from bbmmopt.dashboard.lanes import Closed, Superseded, in_thread
from bbmmopt.dashboard.pictures import KINDS, Gallery
from bbmmopt.dashboard.rows import MOST, Query, details, row
from bbmmopt.dashboard.strict import JSON, body_of, object_of, text_of
from bbmmopt.storage import StorageError, UnknownStudy
from bbmmopt.study import NoCompleteTrial, Study
from bbmmopt.trial import TrialAlreadyTold, TrialState, UnknownTrial

_STATIC = Path(__file__).parent / "static"

# What an error means to the page. The first that fits counts.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownStudy, 404),
    (UnknownTrial, 404),
    (TrialAlreadyTold, 409),
    (Superseded, 409),
    (Closed, 503),
    (StorageError, 503),
    (ValueError, 422),
    (TypeError, 422),
    (RecursionError, 422),
)
_WORDS = {
    RecursionError: "what was sent is nested too deeply.",
    Superseded: "the page has asked for something else since.",
    Closed: "the dashboard is ending.",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def application(hub: Hub, *, token: str, host: str = "127.0.0.1") -> Starlette:
    """The dashboard as an ASGI application.

    Args:
        hub: The studies.
        token: What the page must bring along.
        host: Where the server listens: requests that call it by another name are refused.
    """
    api = {
        "studies": _studies,
        "study": _study,
        "notes": _notes,
        "trials": _trials,
        "trial": _trial,
        "picture": _picture,
    }
    posts = {"enqueue": changes.enqueue, "tell": changes.tell, "stop": changes.stop}
    plotly = Path(str(files("plotly"))) / "package_data" / "plotly.min.js"
    app = Starlette(
        routes=[
            *(Route(f"/api/{name}", _answered(endpoint)) for name, endpoint in api.items()),
            *(
                Route(f"/api/{name}", _answered(partial(_change, change)), methods=["POST"])
                for name, change in posts.items()
            ),
            Route("/", _file(_STATIC / "index.html")),
            Route("/plotly.min.js", _file(plotly)),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[
            Middleware(Guard, token=token, host=host),
            Middleware(GZipMiddleware, minimum_size=4096, compresslevel=4),
        ],
        exception_handlers={HTTPException: _refused},
    )
    app.state.hub = hub
    return app


# --------------------------------------------------------------------------------------
# What every answer has in common
# --------------------------------------------------------------------------------------


def _file(path: Path) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return FileResponse(path)

    return endpoint


def _answered(endpoint: Callable[[Request], Awaitable[Any]]) -> Endpoint:
    """The endpoint, with errors as {"error": message} and a status that means something."""

    async def answered(request: Request) -> Response:
        try:
            answer = await endpoint(request)
        except HTTPException:
            raise
        except Exception as error:
            return _failure(error)
        return answer if isinstance(answer, Response) else JSON(answer)

    return answered


def _failure(error: Exception) -> JSON:
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return JSON({"error": _WORDS.get(kind, str(error)), "kind": kind.__name__}, status)
    traceback.print_exception(error)
    message = f"unexpected {type(error).__name__}: {error} (the terminal shows where)."
    return JSON({"error": message, "kind": "unexpected"}, 500)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and error.detail == "Not Found":
        return JSON({"error": f"there is nothing at {request.url.path}."}, 404)
    if error.status_code == 405:
        message = f"{request.method} is not for {request.url.path}."
        return JSON({"error": message}, 405, headers=error.headers)
    return JSON({"error": error.detail}, error.status_code)


def _hub(request: Request) -> Hub:
    return request.app.state.hub


async def _gallery(request: Request) -> Gallery:
    return await _hub(request).gallery(_wanted(request, "study"))


def _wanted(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise HTTPException(400, f"{name}= is missing in the address.")
    return value


def _integer(request: Request, name: str, default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(_wanted(request, name))
    except ValueError:
        raise HTTPException(400, f"{name}= must be an integer; got {text!r}.") from None


# --------------------------------------------------------------------------------------
# Looking
# --------------------------------------------------------------------------------------


async def _studies(request: Request) -> Any:
    """What there is to choose from."""
    return await in_thread(_hub(request).overview)


async def _study(request: Request) -> Any:
    """A study: its problem, how it stands."""
    live = (await _gallery(request)).live
    return await in_thread(lambda: {"summary": live.summary()} | described(live))


async def _notes(request: Request) -> Response:
    """A stream of server-sent events: how the study stands, whenever that changes."""
    live = (await _gallery(request)).live

    async def events() -> AsyncIterator[str]:
        async for note in live.notes():
            yield ": still here\n\n" if note is None else f"data: {text_of(note)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def _trials(request: Request) -> Any:
    """A page of the trial table."""
    given = request.query_params
    live = (await _gallery(request)).live
    query = Query(
        given.get("sort", "number"),
        given.get("descending", "1") == "1",
        tuple(TrialState(state) for state in given.getlist("state")) or tuple(TrialState),
        given.get("text", ""),
    )
    start = max(0, _integer(request, "start", 0))
    most = min(max(1, _integer(request, "most", 50)), MOST)

    def page() -> dict[str, Any]:
        stamp, study = live.look(), live.study
        trials = study.trials
        found = query.of(trials)
        return {
            "rows": [row(trial, study.problem) for trial in found[start : start + most]],
            "start": start,
            "matching": len(found),
            "total": len(trials),
            "revision": stamp.trials,
        }

    return await live.light.run(page, f"{given.get('page', '')} trials")


async def _trial(request: Request) -> Any:
    """Everything about one trial."""
    live, number = (await _gallery(request)).live, _integer(request, "number")

    def found() -> dict[str, Any]:
        study = live.study
        trial = live.storage.trial(live.name, number)
        return details(trial, study.problem, study.explain(number))

    return await in_thread(found)


async def _picture(request: Request) -> Any:
    """The numbers of a picture."""
    given = request.query_params
    gallery, kind = await _gallery(request), _wanted(request, "kind")
    if kind not in KINDS:
        raise HTTPException(404, f"there is no picture {kind!r}; there are {', '.join(KINDS)}.")
    wanted = object_of(given.get("options", "{}"), "options=")
    unknown = wanted.keys() - set(KINDS[kind].options)
    if unknown:
        listed = ", ".join(KINDS[kind].options) or "no options"
        raise HTTPException(400, f"{kind} takes {listed}; got {', '.join(sorted(unknown))}.")
    options = {name: value for name, value in wanted.items() if value is not None}
    if not isinstance(options.get("fixed", {}), dict):
        raise HTTPException(400, "fixed must be a JSON object, {name: value}.")
    for name, value in options.items():
        if name != "fixed" and not isinstance(value, str):
            raise HTTPException(400, f"{name} must be a text; got {type(value).__name__}.")
    if "fixed" in options:
        options["fixed"] = point_from(gallery.live.study, options["fixed"])
    page = given.get("page")
    try:
        return await gallery.picture(
            kind,
            options,
            have=_integer(request, "have", 0),
            shown=_integer(request, "shown", -1),
            slot=None if page is None else f"{page} {kind}",
        )
    except NoCompleteTrial as error:
        # Nothing is wrong: there is nothing to draw yet.
        return {"nothing": re.sub(r"^plot_\w+ needs", "This picture needs", str(error))}


# --------------------------------------------------------------------------------------
# Changing
# --------------------------------------------------------------------------------------


async def _change(
    change: Callable[[Study, dict[str, Any]], dict[str, Any]], request: Request
) -> Any:
    """Do what the page asks for, and have all pages told."""
    if _hub(request).read_only:
        raise HTTPException(403, "this dashboard only shows: it was started with --read-only.")
    sent = await body_of(request)
    if not isinstance(sent.get("study"), str):
        raise HTTPException(400, "'study' is missing: send the name of a study.")
    live = (await _hub(request).gallery(sent["study"])).live
    answer = await in_thread(lambda: change(live.study, sent))
    live.hurry()
    return {"done": answer}
