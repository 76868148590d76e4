"""The dashboard: a page, served on this machine alone, that shows the studies of a storage.

`bbmmopt dashboard study.db` starts it. Needs the extra `dashboard`: Starlette and uvicorn to serve
it, and the script of Plotly to draw with; nothing comes from outside.
"""

try:
    import plotly as _plotly  # noqa: F401
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"bbmmopt.dashboard needs Starlette, uvicorn and Plotly, of which one is not there "
        f"({error}): pip install 'bbmmopt[dashboard]'."
    ) from error

from bbmmopt.dashboard.app import application
from bbmmopt.dashboard.server import DashboardServer, PortTaken

__all__ = ["DashboardServer", "PortTaken", "application"]
