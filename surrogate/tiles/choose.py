"""Which tiles multiply: fused ones where there are, else those of torch, on the same device."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from surrogate.tiles.base import Tiles
from surrogate.tiles.formula import Formula
from surrogate.tiles.fused import TritonTiles
from surrogate.tiles.layout import can_compute
from surrogate.tiles.plain import KernelLike, TorchTiles
from surrogate.workspace import Workspace

TilesName = Literal["auto", "torch", "triton"]

_LEAST_CAPABILITY = (8, 0)  # of a GPU whose tensor cores know the types that are used
_COMPUTES = {"forward", "evaluate", "linearise"}  # what a kernel of one's own may say anew
_LEAST_TRITON = (3, 5)  # before, it does not multiply matrices in float64


def tiles_for(
    kernel: KernelLike,
    X: Tensor,
    name: TilesName = "auto",
    *,
    float32: bool = True,
    workspace: Workspace | None = None,
) -> Tiles:
    """What multiplies with k(X, X).

    Args:
        kernel: k.
        X: Shape (n, d), float64.
        name: "torch", "triton", or "auto": Triton for data on an NVIDIA GPU and kernels that it
            can be used for, torch for all others.
        float32: Whether fused tiles may be computed in float32.
        workspace: Scratch memory of those of torch.

    Raises:
        ValueError: If there is no such name, or Triton is asked for and cannot be used.
    """
    if name not in get_args(TilesName):
        raise ValueError(f"tiles must be one of {get_args(TilesName)}; got {name!r}.")
    obstacle = _obstacle(kernel, X.device, name)
    formula = None if obstacle else _formula(kernel)
    if formula is not None:
        dtype = torch.float32 if float32 else torch.float64
        shapes = [p.shape for p in cast(nn.Module, kernel).parameters()]
        return TritonTiles(formula, shapes, X, dtype)
    if name == "triton":
        raise ValueError(f"tiles='triton' cannot be used: {obstacle}. Pass tiles='auto'.")
    return TorchTiles(kernel, X, workspace)


def is_fused(kernel: KernelLike, device: torch.device, name: TilesName = "auto") -> bool:
    """Whether `tiles_for` would take fused ones."""
    return _obstacle(kernel, device, name) is None


def _obstacle(kernel: KernelLike, device: torch.device, name: TilesName) -> str | None:
    """Why `tiles_for` would not take fused ones, in words; None where it would."""
    if name == "torch":
        return "torch was asked for"
    if name == "auto" and device.type == "cpu":
        return "the data are on the CPU, where Triton runs only if it is asked for by name"
    return why_not_fused(kernel, device)


def why_not_fused(kernel: KernelLike, device: torch.device) -> str | None:
    """What keeps Triton from computing it there, in words; None where nothing does."""
    if device.type == "cpu":
        if not _is_interpreted():
            return "the data are on the CPU, and Triton is for NVIDIA GPUs"
    elif device.type != "cuda" or torch.version.cuda is None:
        return f"the data are on {device}, and Triton is for NVIDIA GPUs"
    elif torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    elif not _can_build():
        return (
            "Triton builds its driver with a C compiler and the headers of Python, and finds none "
            "(on Debian: apt install gcc python3-dev)"
        )
    if find_spec("triton") is None:
        return "Triton is not installed (pip install 'bbmmopt[gpu]')"
    version = _triton_version()
    if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_TRITON:
        least = ".".join(map(str, _LEAST_TRITON))
        return f"Triton {version} is older than {least}, which PyTorch 2.9 came with"
    formula = _formula(kernel)
    if formula is None:
        return f"{type(kernel).__name__}, or a part of it, is no kernel that is fused"
    return None if can_compute(formula) else "the kernel has too many parts to be fused"


@cache
def _can_build() -> bool:
    """Whether there is what Triton builds its driver with, when it first meets a GPU."""
    compiler = os.environ.get("CC") or which("clang") or which("gcc")
    return bool(compiler) and (Path(sysconfig.get_path("include")) / "Python.h").exists()


def _formula(kernel: KernelLike) -> Formula | None:
    """What the kernel says it is, unless some part of it inherits what it says.

    A class that was made from one of ours may compute something else.
    """
    if not isinstance(kernel, nn.Module) or not hasattr(kernel, "formula"):
        return None
    for part in kernel.modules():
        says = [c for c in type(part).__mro__ if "formula" in vars(c)]
        computes = [c for c in type(part).__mro__ if _COMPUTES & vars(c).keys()]
        if says and computes and not issubclass(says[0], computes[0]):
            return None
    return cast(Callable[[], Formula | None], kernel.formula)()


@cache
def _triton_version() -> str:
    import triton

    return triton.__version__


def _is_interpreted() -> bool:
    """Whether Triton runs on the CPU, as its tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"
