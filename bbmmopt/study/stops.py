"""Stops: whether somebody wants a study to be stopped."""

from __future__ import annotations

from bbmmopt.storage import Storage


class Stops:
    """Whether `Study.stop` is called from now on, by whichever process.

    Args:
        storage: Where the study is.
        study: Its name.
    """

    def __init__(self, storage: Storage, study: str) -> None:
        self._storage, self._study = storage, study
        self._reason, self._seen = storage.stop_asked(study, None)

    def reason(self) -> str | None:
        """Why the study should stop; None while nobody wants that. Reads what is new."""
        if self._reason is None:
            self._reason, self._seen = self._storage.stop_asked(self._study, self._seen)
        return self._reason
