"""A page of the dashboard in a browser, and what it did."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from playwright.sync_api import Page, expect

from bbmmopt.dashboard import DashboardServer
from tests.bbmmopt.dashboards import TOKEN


@dataclass
class Seen:
    """A page, and what it did besides.

    Attributes:
        page: The page.
        complaints: What it wrote to the console as an error, and exceptions.
        requests: Where it sent requests to.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def plot(self, kind: str) -> list[dict]:
        """What is drawn of a picture, a dict for each trace; none while there is nothing."""
        script = "(id) => document.getElementById(id)?.data ?? []"
        return self.page.evaluate(f"JSON.parse(JSON.stringify(({script})('plot-{kind}')))")

    def trace(self, kind: str, name: str) -> dict:
        """One of them."""
        return next(trace for trace in self.plot(kind) if trace.get("name") == name)

    def settled(self, kind: str) -> None:
        """Wait until a picture is drawn as of what is stored, and nothing is being computed."""
        card = self.page.locator(".card", has=self.page.locator(f"#plot-{kind}"))
        expect(card.locator(".plot .main-svg").first).to_be_attached()
        expect(card).not_to_have_class(re.compile("busy"))

    def open(self, server: DashboardServer, study: str, tab: str = "overview", token: str = TOKEN):
        """Look at a study."""
        self.page.goto("about:blank")  # or only the part after # would change
        where = urlencode({"token": token, "study": study, "tab": tab})
        self.page.goto(f"{server.origin}/#{where}")

    def until(self, is_so: Callable[[], bool], most: int = 200) -> None:
        """Wait until something is so, which no locator can tell."""
        for _ in range(most):
            if is_so():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("that did not happen")
