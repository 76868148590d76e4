"""`bbmmopt …`: ask and tell on a storage, from a shell, a lab robot, any language."""

from bbmmopt.cli.commands import main

__all__ = ["main"]
