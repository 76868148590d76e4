"""`bbmmopt dashboard`: a page that shows the studies of a storage as they run."""

from __future__ import annotations

import html
import os
import sys
import tempfile
import webbrowser
from pathlib import Path

import click

from bbmmopt.cli.arguments import StudyCommand, on_storage
from bbmmopt.cli.completing import study_names
from bbmmopt.cli.errors import BAD_INPUT, NO_STUDY, Failure
from bbmmopt.cli.opening import existing_storage, named


@click.command(cls=StudyCommand)
@on_storage
@click.option(
    "--study",
    metavar="NAME",
    shell_complete=study_names,
    help="Which study to show first; the page lets you choose. Left out: the first one.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Where to listen; 0 for any port that is free.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Another address lets other machines connect, without encryption.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--read-only", is_flag=True, help="Show, and let nothing be changed from the page.")
def dashboard(
    where: str, study: str | None, port: int, host: str, no_browser: bool, read_only: bool
) -> None:
    """Show the studies of STORAGE in a browser, as they run. Ctrl-C ends it.

    The history, the trials, what the model believes and where it would go next, all kept up to date
    while workers run. From the page, trials can be put in line and told, and runs stopped.

    \b
      bbmmopt dashboard study.db
      bbmmopt dashboard study.db --port 9000 --no-browser     # and on your own machine:
      ssh -N -L 9000:127.0.0.1:9000 lab                       # then open the address printed

    Who has the address, which ends in a secret token, may look and change; nobody else, web pages
    and other users of this machine included. Needs: pip install 'bbmmopt[dashboard]'.
    """
    with existing_storage(where) as storage:
        names = storage.studies()
        if study is not None and study not in names:
            there = f"it holds: {', '.join(names)}" if names else "it holds none yet"
            raise Failure(f"there is no study {study!r} in {named(where)}; {there}.", NO_STUDY)
        try:
            from bbmmopt.dashboard import DashboardServer, PortTaken
        except ImportError as error:
            raise Failure(str(error), BAD_INPUT) from error
        from bbmmopt.dashboard.guard import is_loopback
        from bbmmopt.dashboard.hub import Hub

        hub = Hub(storage, name=named(where), first=study, read_only=read_only)
        try:
            server = DashboardServer(hub, host=host, port=port)
        except PortTaken as error:
            raise Failure(str(error), BAD_INPUT) from error
        if not is_loopback(host):
            click.echo(
                f"Warning: machines that reach {host} can connect, and what is sent is not "
                f"encrypted: who listens in learns the token. Better keep to 127.0.0.1 and use a "
                f"tunnel: ssh -L {port}:127.0.0.1:{port} …",
                err=True,
            )
        click.echo(f"Dashboard of {named(where)}, until Ctrl-C:\n  {server.url}")
        with tempfile.TemporaryDirectory(prefix="bbmmopt-") as folder:
            if not no_browser and _has_screen():
                webbrowser.open(_door(Path(folder), server.url))
            server.run()
    if hub.busy:
        # A model is being fitted in a thread that nothing can stop, and Python would end under it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _door(folder: Path, url: str) -> str:
    """The address of a file that leads to the dashboard.

    Other users of the machine see with what a browser was started, so the token is not in that;
    the folder is for its owner alone.
    """
    door = folder / "dashboard.html"
    place = html.escape(url)
    door.write_text(
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={place}">'
        f'<a href="{place}">bbmmopt</a>',
        encoding="utf-8",
    )
    return door.as_uri()


def _has_screen() -> bool:
    """Whether there is a window to open; without, Python might take the terminal for a browser."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
