"""What the callbacks of scikit-learn are told of a search, and say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Progress:
    """The search as a task, and each batch of candidates as a part of it.

    Args:
        search: The search.
        context: Of its `fit`; None before scikit-learn 1.9, which has no callbacks.

    Attributes:
        stop_reason: That a callback wants the search stopped; None while none does.
    """

    def __init__(self, search: Any, context: Any) -> None:
        self._search, self._context = search, context
        self.stop_reason: str | None = None
        if context is not None:
            # How many batches there will be depends on what a storage holds, and on stop rules.
            self._context = context.subcontext(task_name="search", max_subtasks=None)

    def __enter__(self) -> None:
        if self._context is not None:
            self._context.call_on_fit_task_begin(estimator=self._search)

    def __exit__(self, *_: object) -> None:
        if self._context is not None:
            self._context.call_on_fit_task_end(estimator=self._search)

    @contextmanager
    def batch(self, candidates: int) -> Iterator[dict[str, Any]]:
        """While a batch is evaluated; what `evaluate_candidates` has to be told along.

        Args:
            candidates: How many there are in the batch.
        """
        if self._context is None:
            yield {}
            return
        fits = candidates * self._search.n_splits_
        batch = self._context.subcontext(
            task_name="batch", max_subtasks=fits, sequential_subtasks=False
        ).call_on_fit_task_begin(estimator=self._search)
        try:
            yield {"callback_ctx": batch}
        finally:
            if batch.call_on_fit_task_end(estimator=self._search):
                self.stop_reason = "a callback of scikit-learn asked for it"
