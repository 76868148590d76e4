"""Shape, device and finiteness checks: one wording for every error at the door."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def as_matrix(
    name: str, X: Tensor, columns: int | None = None, device: torch.device | None = None
) -> Tensor:
    """Return X as a float64 tensor, or raise unless it is a finite (n, d) matrix.

    Args:
        name: What the caller calls it, for the message.
        X: Anything `torch.as_tensor` takes.
        columns: The d that is expected, if any.
        device: Where it is expected to be, if anywhere: that of the other data.

    Raises:
        ValueError: If X is not two-dimensional, has another number of columns, is not finite, or is
            a tensor on another device.
    """
    X = on_device(name, X, device)
    if X.ndim != 2:
        raise ValueError(
            f"{name} must have shape (n, d), one row per observation; got {tuple(X.shape)}. "
            f"For a single input column, pass {name}.unsqueeze(-1)."
        )
    if columns is not None and X.shape[1] != columns:
        raise ValueError(
            f"{name} must have {columns} column(s), as the model does; got shape {tuple(X.shape)}. "
            f"Pass the inputs the model was made for, or make the kernel with dims={X.shape[1]}."
        )
    check_finite(name, X)
    return X


def as_points(X: Tensor, columns: int, device: torch.device | None = None) -> Tensor:
    """Return points to predict at, shape (..., d), as a float64 tensor.

    Raises:
        ValueError: Unless the last axis has the columns of the training inputs, and a tensor is on
            their device, if one is given.
    """
    X = on_device("X", X, device)
    if not X.ndim or X.shape[-1] != columns:
        raise ValueError(
            f"X must have {columns} column(s), as the training inputs do; "
            f"got shape {tuple(X.shape)}."
        )
    return X


def as_targets(name: str, y: Tensor, n: int, device: torch.device | None = None) -> Tensor:
    """Return y as a float64 tensor, or raise unless it is a finite (n,) vector, on `device`."""
    y = on_device(name, y, device)
    if y.shape != (n,):
        raise ValueError(
            f"{name} must have one value per row of X: expected shape ({n},), "
            f"got {tuple(y.shape)}. For a single column, pass {name}.squeeze(-1)."
        )
    check_finite(name, y)
    return y


def as_noise(noise: Tensor | None, n: int, device: torch.device | None = None) -> Tensor:
    """Return per-observation noise variances (n,), NaN where they are to be learnt.

    Raises:
        ValueError: If the shape is wrong, a variance is negative or infinite, or a tensor is on
            another device.
    """
    if noise is None:
        return torch.full((n,), torch.nan, dtype=torch.float64, device=device)
    noise = on_device("noise", noise, device)
    if noise.shape != (n,):
        raise ValueError(
            f"noise must hold one variance per observation: expected shape ({n},), "
            f"got {tuple(noise.shape)}. Use NaN where the noise is not known."
        )
    if bool((noise < 0).any() | noise.isinf().any()):
        raise ValueError(
            "noise holds variances, which are finite and at least 0; "
            f"got {noise[(noise < 0) | noise.isinf()].tolist()[:5]}. "
            "Use NaN where the noise is not known."
        )
    return noise


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError, with a count, if any entry is NaN or infinite."""
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise ValueError(
            f"{name} has {bad} NaN or infinite value(s) out of {values.numel()}. "
            f"Drop those observations."
        )


def on_device(name: str, values: Tensor, device: torch.device | None) -> Tensor:
    """Return values as a float64 tensor on `device`; what is no tensor yet is put there.

    Raises:
        ValueError: If it is a tensor on another device. Nothing is moved silently.
    """
    if device is None:
        return torch.as_tensor(values, dtype=torch.float64)
    if not isinstance(values, Tensor):
        return torch.as_tensor(values, dtype=torch.float64).to(device)
    if values.device != device:
        raise ValueError(
            f"{name} must be on {device}, where the other data are; it is on {values.device}. "
            f"Pass {name}.to({str(device)!r})."
        )
    return values.to(torch.float64)


def check_parameters(model: nn.Module) -> None:
    """Raise ValueError unless all that a model learns or keeps is on the CPU."""
    for name, kept in [*model.named_parameters(), *model.named_buffers()]:
        if kept.device.type != "cpu":
            raise ValueError(
                f"the parameters of a model stay on the CPU, wherever the data are; {name} is on "
                f"{kept.device}. Pass the model.to('cpu'): it computes where X is."
            )
