"""The dashboard: a page, served on this machine alone, that shows the studies of a storage.

`bbmmopt dashboard study.db` starts it. Needs the extra `dashboard`: Starlette and uvicorn to serve
it, and the script of Plotly to draw with; nothing comes from outside.
"""

from bbmmopt.dashboard.app import application
from bbmmopt.dashboard.server import DashboardServer, PortTaken

__all__ = ["DashboardServer", "PortTaken", "application"]
