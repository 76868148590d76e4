"""A second device made of this machine's memory, on which mixing devices fails as it would on CUDA.

    with pretended_device() as device:
        X = X.to(device)  # from here on, X @ on_the_cpu raises, and X.numpy() does
        ...
    device.reads  # how often the host had to wait for a number

Tensors there say that they are on "meta", which every build of torch knows; their numbers are kept
in ordinary tensors and computed with by the same kernels, so results are those of the CPU to the
last bit.

Stricter than CUDA in one way: indices must be on the device too, for those on the CPU would be
copied there silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
_ATEN = torch.ops.aten

# The shape of what they return depends on numbers, which the host therefore waits for.
_DATA_DEPENDENT = {"nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select"}
# torch looks at their status on the host before it returns.
_CHECKED = {"_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_solve_ex", "linalg_lstsq"}


class PretendedTensor(torch.Tensor):
    """A tensor that says it is elsewhere.

    Attributes:
        numbers: Its numbers.
    """

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> PretendedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=DEVICE,
        )
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.numbers})"

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of the pretended device to numpy; use .cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a tensor of the pretended device was used outside of its scope")


class PretendedDevice(TorchDispatchMode):
    """What goes on there, as long as the scope is open.

    Attributes:
        reads: How often a number was read or a shape depended on one: the host then waits.
        downloads: Numbers copied to the CPU, for each copy.
        uploads: Numbers copied from the CPU, for each copy.
        calls: How often each operation ran there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.downloads: list[int] = []
        self.uploads: list[int] = []
        self.calls: Counter[str] = Counter()

    @property
    def waits(self) -> int:
        """How often the host waited: for reads, and for copies to it."""
        return self.reads + len(self.downloads)

    def forget(self) -> None:
        """Count from 0 again."""
        self.reads, self.downloads, self.uploads = 0, [], []
        self.calls.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = _leaves([*args, *kwargs.values()])
        tensors = [a for a in leaves if isinstance(a, torch.Tensor)]
        there = [t for t in tensors if isinstance(t, PretendedTensor)]
        name = func._schema.name.partition("::")[2]
        wanted = kwargs.get("device")
        if name == "_to_copy":
            return self._moved(func, args[0], kwargs)
        if name == "_local_scalar_dense":
            self.reads += bool(there)
            return func(*_each(_numbers, args))
        if name == "copy_":
            return self._copied(func, args, kwargs)
        # Left to a view, signs would be lost: inside of here nobody looks whether it is one.
        func = {"_conj": _ATEN.conj_physical.default, "_neg_view": _ATEN.neg.default}.get(
            name, func
        )
        if wanted is not None:
            kwargs["device"] = CPU
        is_there = bool(there) if wanted is None else torch.device(wanted) == DEVICE
        if is_there:
            self._check(name, leaves)
            self.calls[name] += 1
            self.reads += name in _DATA_DEPENDENT or name in _CHECKED or _is_masked(name, args)
        elif there:
            raise RuntimeError(f"{name}: a tensor of the pretended device where one of the CPU is")
        out = func(*_each(_numbers, args), **_each(_numbers, kwargs))
        if not is_there:
            return out
        known = {id(t.numbers): t for t in there}  # what was written into stays the tensor it is
        return _each(lambda o: _outer(o, known), out)

    def _moved(self, func: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        was_there = isinstance(source, PretendedTensor)
        wanted = kwargs.pop("device", None)
        goes_there = was_there if wanted is None else torch.device(wanted) == DEVICE
        if goes_there and not was_there:
            self.uploads.append(source.numel())
        if was_there and not goes_there:
            self.downloads.append(source.numel())
        moved = func(_numbers(source), **kwargs, device=CPU)
        return PretendedTensor(moved) if goes_there else moved

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        target, source = args[:2]
        if isinstance(target, PretendedTensor) and not isinstance(source, PretendedTensor):
            self.uploads.append(source.numel())
        if isinstance(source, PretendedTensor) and not isinstance(target, PretendedTensor):
            self.downloads.append(source.numel())
        func(*_each(_numbers, args), **kwargs)
        return target

    @staticmethod
    def _check(name: str, leaves: list[Any]) -> None:
        tensors = [t for t in leaves if isinstance(t, torch.Tensor)]
        near = [t for t in tensors if not isinstance(t, PretendedTensor) and t.ndim]
        if near:
            shapes = ", ".join(str(tuple(t.shape)) for t in near)
            raise RuntimeError(f"{name}: tensors on two devices; on the CPU: {shapes}")
        if any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise RuntimeError(f"{name}: a generator of the CPU for the pretended device")


def _is_masked(name: str, args: Any) -> bool:
    """Whether rows are chosen by truth values, of which the host must know how many there are."""
    if not name.startswith(("index", "_index_put", "_unsafe_index")) or len(args) < 2:
        return False
    chosen = args[1] if isinstance(args[1], list | tuple) else []
    return any(isinstance(t, torch.Tensor) and t.dtype == torch.bool for t in chosen)


def _leaves(values: Any) -> list[Any]:
    """What these hold, and lists among them. That of torch takes several times as long."""
    found = []
    for value in values:
        if isinstance(value, list | tuple):
            found += _leaves(value)
        else:
            found.append(value)
    return found


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """The same with a function of each of its leaves in their place."""
    if isinstance(value, list | tuple):
        made = [_each(function, part) for part in value]
        return made if isinstance(value, list) else tuple(made)
    if isinstance(value, dict):
        return {name: _each(function, part) for name, part in value.items()}
    return function(value)


def _numbers(value: Any) -> Any:
    return value.numbers if isinstance(value, PretendedTensor) else value


def _outer(value: Any, known: dict[int, PretendedTensor]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    found = known.get(id(value))
    return PretendedTensor(value) if found is None else found


class _Making(TorchFunctionMode):
    """Tensors made of numbers of Python: torch itself would make those on "meta" empty."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        wanted = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and wanted is not None:
            if torch.device(wanted) == DEVICE and not isinstance(args[0], torch.Tensor):
                return func(*args, **{**kwargs, "device": CPU}).to(DEVICE)
        elif func is torch.Tensor.new_tensor and isinstance(args[0], PretendedTensor):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs}).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def pretended_device() -> Iterator[PretendedDevice]:
    """Open a scope in which `torch.device("meta")` holds numbers and is no part of the CPU."""
    with PretendedDevice() as device, _Making():
        yield device
