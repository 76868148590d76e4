"""Posteriors as tables in a notebook. Everything is escaped; colours are those of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from surrogate.models.exact import ExactGP
    from surrogate.models.posterior import PosteriorInfo

_LINE = "1px solid rgba(128,128,128,.35)"
_CELL = f"text-align:left;vertical-align:top;padding:.2em .9em .2em 0;border-bottom:{_LINE}"
_TABLE = "border-collapse:collapse;margin:.3em 0 .6em;font-size:90%;color:inherit"
_MOST = 12  # numbers that are listed


def facts(heading: str, pairs: Mapping[str, object]) -> str:
    """A heading over names and what there is to say of each; what is None is left out."""
    body = "".join(
        f'<tr><th style="{_CELL};font-weight:400;opacity:.7">{escape(name)}</th>'
        f'<td style="{_CELL}">{escape(str(value))}</td></tr>'
        for name, value in pairs.items()
        if value is not None
    )
    table = f'<table style="{_TABLE}"><tbody>{body}</tbody></table>'
    return f"<div><strong>{escape(heading)}</strong></div>{table}"


def posterior_html(name: str, model: ExactGP, info: PosteriorInfo) -> str:
    """The model with its parameters, and how the linear algebra was done, and how well.

    Args:
        name: Of the posterior's class.
        model: Its model.
        info: Its `info`.
    """
    accuracy = str(info.weights) if info.weights is not None else "no iterations: exact"
    algebra = {
        "solver": f"{info.solver}: {info.reason}",
        "solve": accuracy,
        "jitter": f"{info.jitter:.3g}" if info.jitter else "none",
        "rank of the root": info.rank or "not needed yet",
        "K kept as": info.storage,
        "arithmetic": info.arithmetic,
    }
    report = model.report
    fitted: dict[str, object] = {}
    if report is not None:
        estimate = report.likelihood
        fitted = {
            "log marginal likelihood": _with_error(
                float(estimate.value), estimate.lower, estimate.upper, estimate.standard_error
            ),
            "fit": f"{report.message}, {report.evaluations} evaluations"
            + ("" if report.converged else " (not converged)"),
        }
    what = f"{name} of {type(model).__name__} given {info.n} observations"
    with torch.no_grad():
        return f"<div>{facts(what, dict(_parameters(model)) | fitted | algebra)}</div>"


def _with_error(value: float, lower: float, upper: float, standard_error: float) -> str:
    """A likelihood in nats, with its bracket and standard error as far as there are any."""
    text = f"{value:.6g} nats"
    if upper > lower:
        text += f", between {lower:.6g} and {upper:.6g}"
    return text + (f", standard error {standard_error:.2g}" if standard_error else "")


def _parameters(model: ExactGP) -> Iterator[tuple[str, str]]:
    """What the kernel is, and the parameters of each of its parts, in the units they are meant."""
    for path, module in model.named_modules():
        own = [
            f"{name.removeprefix('log_')} {_numbers(p.exp() if name.startswith('log_') else p)}"
            for name, p in module.named_parameters(recurse=False)
        ]
        if own:
            yield path or "mean", f"{_described(module) if path else ''}{'; '.join(own)}"


def _described(module: nn.Module) -> str:
    extra = module.extra_repr()
    return f"{type(module).__name__}({extra}): "


def _numbers(values: Tensor) -> str:
    if values.ndim == 0:
        return f"{float(values):.4g}"
    flat = [float(value) for value in values.flatten()]
    if len(flat) <= _MOST:
        return "[" + ", ".join(f"{value:.4g}" for value in flat) + "]"
    return f"{len(flat)} numbers from {min(flat):.4g} to {max(flat):.4g}"
