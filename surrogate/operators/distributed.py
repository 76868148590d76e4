"""K = k(X, X), its rows shared out among the processes of torch.distributed.

Every process ("rank") runs the same program on the same data, and holds all of them. Only products
with K are shared: each rank computes its own rows, and the parts are gathered. All else is done on
every rank alike, so ranks must agree to the last bit in what they do next. They say what that is
before each exchange: where they differ, all raise the same error instead of waiting for each other.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
import torch.distributed as dist
from torch import Tensor, nn

from surrogate.operators.base import CovarianceOperator, LinearOperator, check_columns
from surrogate.operators.kernel import KernelOperator
from surrogate.transfers import to_device

_UNIT = 128  # rows that are not split: a multiple of the tiles of a GPU
_LEAST_UNITS = 4  # of them for each rank, below which any row may be the first of a part
_WIDTH = 8  # numbers that a rank tells at a time

_BACKENDS = {"cpu": ("gloo", "mpi", "ucc"), "cuda": ("nccl",)}  # that gather what is there


class RanksDisagree(RuntimeError):
    """Ranks that have to do the same were about to do different things, or with other numbers."""


class _Step(Enum):
    """What a rank can be about to do, and what of it has to be the same on all of them."""

    FIT = (
        "begins a fit",
        ("the number of observations", "X", "y", "the noise", "the model", "the options"),
    )
    OPERATOR = (
        "looks at its data",
        (
            "the number of observations",
            "X",
            "the kernel",
            "the parameters of the kernel",
            "the noise",
            "what computes K",
        ),
    )
    PRODUCT = ("multiplies with K", ("the number of vectors", "the vectors", "what computes K"))
    PULLBACK = ("asks for gradients", ("the number of vectors", "the vectors"))
    RANK = ("chooses a preconditioner", ())
    STOP = ("asks whether to stop", ())


@dataclass(frozen=True)
class Ranks:
    """The processes of the default group of torch.distributed, and this one among them.

    Attributes:
        number: Which this is, from 0 on.
        count: How many there are.
        device: Where the data of this one are.
    """

    number: int
    count: int
    device: torch.device

    @staticmethod
    def of(device: torch.device) -> Ranks:
        """The ranks there are, for data on a device.

        Raises:
            ValueError: If there is no group of processes, or it cannot gather what is there.
        """
        if not dist.is_available():
            raise ValueError(
                "distributed=True needs torch.distributed, which this build of torch is without; "
                "install another one, or leave out distributed."
            )
        backend = "nccl" if device.type == "cuda" else "gloo"
        if not dist.is_initialized():
            raise ValueError(
                "distributed=True needs a group of processes. Start the script by `torchrun "
                "--nproc-per-node 2 script.py`, and call torch.distributed.init_process_group("
                f"{backend!r}) in it before anything else."
            )
        config = dict(pair.split(":") for pair in dist.get_backend_config().split(","))
        found, wanted = config.get(device.type), _BACKENDS.get(device.type)
        if found is None or (wanted is not None and found not in wanted):
            raise ValueError(
                f"data on {device} are gathered by {backend}; the group of processes was made "
                f"for {dist.get_backend_config()}. Call "
                f"torch.distributed.init_process_group({backend!r})."
            )
        return Ranks(dist.get_rank(), dist.get_world_size(), device)

    def part(self, n: int, number: int | None = None) -> slice:
        """Which of n rows are those of a rank, of this one unless told."""
        number = self.number if number is None else number
        unit = _UNIT if n >= _LEAST_UNITS * _UNIT * self.count else 1
        units = -(-n // unit)
        first, last = (unit * (units * r // self.count) for r in (number, number + 1))
        return slice(min(first, n), min(last, n))

    def gather(self, part: Tensor) -> Tensor:
        """The parts of all ranks, which have one shape, under each other: (ranks, ...)."""
        out = part.new_empty(self.count, *part.shape)
        if part.numel():
            dist.all_gather(list(out), part.contiguous())
        return out

    def gather_columns(self, part: Tensor, n: int) -> Tensor:
        """The parts (t, h) of all ranks beside each other, shape (t, n)."""
        sizes = [len(range(n)[self.part(n, r)]) for r in range(self.count)]
        padded = nn.functional.pad(part, (0, max(sizes) - part.shape[1]))
        parts = self.gather(padded)
        return torch.cat([p[:, :size] for p, size in zip(parts, sizes, strict=True)], 1)

    def total(self, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sums over ranks, added up in the order of ranks: the same bits on each of them."""
        if not parts:
            return ()
        first, *others = self.gather(torch.cat([p.reshape(-1) for p in parts]))
        for other in others:
            first = first + other
        found = first.split([p.numel() for p in parts])
        return tuple(f.view(p.shape) for f, p in zip(found, parts, strict=True))

    def check_fit(
        self, X: Tensor, y: Tensor, noise: Tensor, parameters: Sequence[Tensor], options: str
    ) -> None:
        """Raise RanksDisagree unless all ranks begin the same fit.

        Args:
            X, y, noise: Of n observations.
            parameters: Of the model.
            options: What else decides about how it goes, in words.
        """
        self.agree(
            _Step.FIT,
            len(X),
            _fingerprint(X),
            _fingerprint(y),
            _fingerprint(noise),
            _fingerprint_of_all(parameters),
            _code(options),
        )

    def least(self, value: int) -> int:
        """The least of the values that ranks have chosen, by the memory of their devices."""
        return min(said[0] for said in self.agree(_Step.RANK, value))

    def asking_the_first(self, stop: Callable[[], bool]) -> Callable[[], bool]:
        """A `stop` that asks rank 0 alone, whose answer all ranks get."""

        def ask() -> bool:
            here = bool(stop()) if self.number == 0 else False
            return bool(self.agree(_Step.STOP, int(here))[0][0])

        return ask

    @torch.no_grad()
    def agree(self, step: _Step, *told: int | Tensor) -> list[list[int]]:
        """What each rank tells, once all are at the same step with the same numbers.

        Raises:
            RanksDisagree: If not, on all ranks with the same words. One that ends, or never comes
                here, is noticed by torch.distributed, at the latest after the group's `timeout`.
        """
        steps = list(_Step)
        values = [steps.index(step), *told, *[0] * (_WIDTH - 1 - len(told))]
        there = [isinstance(v, Tensor) and v.device.type != "cpu" for v in values]
        known = [0 if away else int(v) for v, away in zip(values, there, strict=True)]
        row = to_device(torch.tensor(known), self.device)
        for i, value in enumerate(values):
            if there[i]:
                row[i] = value
        first, *others = said = self.gather(row).tolist()  # all that the host waits for
        for r, row in enumerate(others, start=1):
            if row[0] != first[0]:
                raise RanksDisagree(
                    f"rank {r} {steps[row[0]].value[0]}, while rank 0 {steps[first[0]].value[0]}: "
                    f"{_SAME}"
                )
        names = step.value[1]
        differing = [
            f"rank {r} differs from rank 0 in {', '.join(found)}"
            for r, row in enumerate(others, start=1)
            if (found := _differing(names, row[1:], first[1:]))
        ]
        if differing:
            raise RanksDisagree(f"{'; '.join(differing)}: {_SAME}")
        return [row[1:] for row in said]


_SAME = (
    "all ranks must run the same program with the same data, options and seeds, on devices of one "
    "kind with as many threads, down to the last bit. Load or draw the data in the same way on "
    "each, and decide nothing by time or by the number of a rank."
)


def _differing(names: Sequence[str], row: list[int], first: list[int]) -> list[str]:
    return [name for name, here, there in zip(names, row, first, strict=False) if here != there]


def _fingerprint(values: Tensor) -> Tensor:
    """A number that tells whether values (n,) or (n, t) are the same to the last bit, shape ().

    Of their bits as integers, with weights by which an exchange of rows or columns is noticed.
    """
    values = values.detach().to(torch.float64)
    bits = (values if values.ndim == 2 else values.unsqueeze(1)).view(torch.int64)
    return (bits.sum(1) * _odd(bits, 0)).sum() + (bits.sum(0) * _odd(bits, 1)).sum()


def _odd(bits: Tensor, dim: int) -> Tensor:
    return 2 * torch.arange(bits.shape[dim], device=bits.device) + 1


def _fingerprint_of_all(values: Sequence[Tensor]) -> Tensor:
    flat = [v.detach().to(torch.float64).reshape(-1) for v in values]
    return _fingerprint(torch.cat(flat) if flat else torch.empty(0, dtype=torch.float64))


def _code(words: str) -> int:
    return zlib.crc32(words.encode())


class DistributedKernelOperator(CovarianceOperator):
    """k(X, X) of which each rank multiplies its own rows, storing none of them.

    To be made, and used, by all ranks at once. Entries that are asked for one by one (rows, blocks,
    the diagonal) are computed by every rank for itself.

    With tiles of torch, r ranks evaluate the kernel n² times together; one process alone, which
    uses each entry for two products, half as often. Fused tiles gain in full.

    Args:
        K: All of it, in tiles.
        noise: Variances that will be added to its diagonal, shape (n,): ranks must agree in them
            too.

    Attributes:
        ranks: The processes.

    Raises:
        ValueError: If K is stored, or there is no group of processes for its device.
        RanksDisagree: If ranks hold different data or parameters, or compute in different ways.
    """

    def __init__(self, K: KernelOperator, noise: Tensor | None = None) -> None:
        if K.storage != "tiles":
            raise ValueError(
                f"K is shared out among ranks in tiles, storing nothing; got one stored in "
                f"{K.storage}. Pass KernelOperator(kernel, X, storage='tiles')."
            )
        self.ranks = Ranks.of(K.device)
        self._K, self.n, self.roundoff = K, K.n, K.roundoff
        kernel = K.kernel
        parts = list(kernel.modules()) if isinstance(kernel, nn.Module) else [kernel]
        state = [*kernel.parameters(), *kernel.buffers()] if isinstance(kernel, nn.Module) else []
        self.ranks.agree(
            _Step.OPERATOR,
            self.n,
            _fingerprint(K.X),
            _code(" ".join(type(part).__qualname__ for part in parts)),
            _fingerprint_of_all(state),
            _fingerprint(K.X.new_empty(0) if noise is None else noise),
            _code(K.tiles.name),
        )

    def __repr__(self) -> str:
        return f"DistributedKernelOperator(n={self.n}, ranks={self.ranks.count})"

    @property
    def device(self) -> torch.device:
        return self._K.device

    @property
    def arithmetic(self) -> str:
        return f"{self._K.tiles.name} on {self.ranks.count} ranks"

    @torch.no_grad()
    def matmul(self, V: Tensor) -> Tensor:
        check_columns("V", V, self.n)
        own = self._K.tiles.product(V, self.ranks.part(self.n))
        # After the product was begun: a GPU need not wait for the host in between.
        arithmetic = _code(self._K.tiles.name)
        self.ranks.agree(_Step.PRODUCT, V.shape[1], _fingerprint(V), arithmetic)
        return self.ranks.gather_columns(own.mT, self.n).mT

    @torch.no_grad()
    def pullback(self, A: Tensor, B: Tensor) -> tuple[Tensor, ...]:
        own = self._K.pullback(A, B, self.ranks.part(self.n))
        self.ranks.agree(_Step.PULLBACK, A.shape[1], _fingerprint(torch.cat([A, B])))
        return self.ranks.total(own)

    def diagonal(self) -> Tensor:
        return self._K.diagonal()

    def rows(self, index: Tensor) -> Tensor:
        return self._K.rows(index)

    def blocks(self, index: Tensor) -> Tensor:
        return self._K.blocks(index)

    @property
    def coordinates(self) -> Tensor:
        return self._K.coordinates

    @property
    def precise(self) -> LinearOperator:
        inner = self._K.precise
        if inner is self._K:
            return self
        assert isinstance(inner, KernelOperator)
        other = copy.copy(self)
        other._K, other.roundoff = inner, inner.roundoff
        return other
