"""Devices: which may be computed on, and what is said where one fails.

Imports torch where it is used: the command line names errors without waiting for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# How errors begin, or what they name, that are a device's and have no type of their own in torch.
_OF_A_DEVICE = re.compile(
    r"\b(CUDA|HIP|XPU|MPS|Triton|NCCL)( \w+)? error\b|\bCU(BLAS|SOLVER|SPARSE|DNN)_STATUS_"
    r"|\b(cublas|cusolver|cusparse|cuDNN|hipBLAS|MAGMA)\w* error\b|\bout of memory\b",
    re.IGNORECASE,
)


class DeviceError(RuntimeError):
    """A device was lost, or its memory was not enough, in the middle of a computation.

    Nothing that was told is lost: it was stored before the device had any part in it.
    """


def usable(device: str | torch.device) -> torch.device:
    """The device of that name, with its index, once a number was there and back.

    Args:
        device: "cpu", "cuda", "cuda:1", or a torch.device; "auto" for a GPU where there is one.

    Raises:
        TypeError: If it is neither.
        ValueError: If it cannot be used, and why.
    """
    import torch

    if not isinstance(device, str | torch.device):
        raise TypeError(
            f'device must be a string such as "cpu", "cuda" or "auto", or a torch.device; '
            f"got {device!r}."
        )
    name = str(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        one = torch.ones(1, dtype=torch.float64, device=name)
        float(one.cpu())
    # An AssertionError where torch was built without it, an ImportError where it is a plugin.
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        found = torch.cuda.device_count()
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(found))])
        built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        reason = (
            str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no reason"
        )
        raise ValueError(
            f"device {name!r} cannot be used: {reason}. torch {torch.__version__}, built {built}, "
            f'finds: {there}. Pass one of these, or "auto" for a GPU where there is one; torch.cuda'
            f".is_available() says whether there is."
        ) from error
    return one.device


@contextmanager
def told_apart(device: torch.device, doing: str) -> Iterator[None]:
    """A scope in which the errors of a device are raised as `DeviceError`, all others as they are.

    Args:
        device: Where is computed.
        doing: What, for the message: "fitting the model".
    """
    try:
        yield
    except RuntimeError as error:
        if device.type == "cpu" or isinstance(error, DeviceError):  # explained further inside
            raise
        import torch

        is_full = isinstance(error, torch.cuda.OutOfMemoryError)
        is_lost = isinstance(error, getattr(torch, "AcceleratorError", ()))  # of torch 2.8 and on
        if not (is_full or is_lost or _OF_A_DEVICE.search(str(error))):
            raise
        first = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        if is_full or "out of memory" in first.lower():
            raise DeviceError(
                f"the device {device} ran out of memory while {doing} ({first}). Nothing that was "
                f"told is lost. Free memory there, of other programs or of tensors of your own, "
                f"and ask again; or open the study again for a device with more of it, or with "
                f'device="cpu".'
            ) from error
        raise DeviceError(
            f"the device {device} was lost while {doing} ({first}). Nothing that was told is lost: "
            f'open the study again, Optimizer(…, storage=…, device="cpu"), or in a new process '
            f"with the device once it works. A study in memory is in optimizer.storage, which can "
            f"be passed on as storage=…."
        ) from error
