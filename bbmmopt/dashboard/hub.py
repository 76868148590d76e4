"""Hub: the studies of one storage, opened when somebody looks at them."""

from __future__ import annotations

import threading
from typing import Any

from bbmmopt.dashboard.lanes import in_thread
from bbmmopt.dashboard.live import Live
from bbmmopt.dashboard.pictures import Gallery
from bbmmopt.storage import Storage


class Hub:
    """What the dashboard serves.

    Args:
        storage: Where the studies are.
        name: What to call the storage, without a password.
        first: The study to show first; None for the first one there is.
        read_only: Whether nothing may be changed from the page.
    """

    def __init__(
        self, storage: Storage, *, name: str, first: str | None = None, read_only: bool = False
    ) -> None:
        self.storage, self.name, self.first, self.read_only = storage, name, first, read_only
        self._lock = threading.Lock()
        self._galleries: dict[str, Gallery] = {}

    async def gallery(self, study: str) -> Gallery:
        """A study and its pictures.

        Raises:
            UnknownStudy: If there is no such study.
        """
        known = self._galleries.get(study)
        return known if known is not None else await in_thread(lambda: self._opened(study))

    def _opened(self, study: str) -> Gallery:
        with self._lock:
            if study not in self._galleries:
                self._galleries[study] = Gallery(Live(self.storage, study))
            return self._galleries[study]

    def overview(self) -> dict[str, Any]:
        """What there is to choose from."""
        return {
            "storage": self.name,
            "studies": self.storage.studies(),
            "first": self.first,
            "read_only": self.read_only,
        }

    @property
    def busy(self) -> bool:
        """Whether something is being computed."""
        return any(g.live.light.busy or g.live.heavy.busy for g in [*self._galleries.values()])

    def close(self) -> None:
        """End all streams and computations."""
        for gallery in [*self._galleries.values()]:
            gallery.live.close()
