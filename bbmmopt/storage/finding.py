"""Finding: one thing to say of a storage."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: What.
        state: ok; warning: somebody should know; problem: something does not work, or will not.
        says: How it is.
        advice: What to do, unless it is ok.
    """

    about: str
    state: Literal["ok", "warning", "problem"]
    says: str
    advice: str = ""
