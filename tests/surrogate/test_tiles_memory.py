"""Fused tiles: the same bits each time, and what is done where a device has too little room."""

import math
from collections.abc import Callable

import pytest
import torch
from oracles import normal, uniform

import surrogate.tiles.fused as fusing
from surrogate import Matern52
from surrogate.tiles.layout import FAR, SPREAD
from tests.surrogate.tile_cases import (
    BOTH,
    GRADIENT_TOLERANCE,
    TOLERANCE,
    Slopes,
    assert_product,
    dense,
    fused,
)

EVERY_TYPE = pytest.mark.parametrize("dtype", BOTH, ids=["float32", "float64"])
DIMS = pytest.mark.parametrize("make", [lambda: Matern52(3, 0.7), lambda: Matern52(10, 1.3)])


@EVERY_TYPE
@DIMS
def test_the_same_twice_to_the_last_bit(make, dtype, rng):
    kernel = make()
    X, V = uniform(rng, 80, kernel.dims), normal(rng, 80, 3)
    first, second = fused(kernel, X, dtype), fused(kernel, X.clone(), dtype)
    assert torch.equal(first.product(V), second.product(V))
    assert torch.equal(first.product(V), first.product(V))
    for ours, again in zip(first.pullback(V, V), second.pullback(V, V), strict=True):
        assert torch.equal(ours, again)


@EVERY_TYPE
@DIMS
def test_how_sums_are_cut_into_shares_changes_rounding_alone(make, dtype, rng, monkeypatch):
    kernel = make()
    X, V, A = uniform(rng, 130, kernel.dims), normal(rng, 130, 2), normal(rng, 130, 2)
    K, slopes = dense(kernel, X, X).detach(), Slopes.of(kernel, X, A, V)
    for programs, share in ((1, 64), (1, 2**14)):
        monkeypatch.setattr(fusing, "_PROGRAMS", programs)
        monkeypatch.setattr(fusing, "_SHARE", share)
        tiles = fused(kernel, X, dtype)
        assert_product(tiles.product(V), K, V, TOLERANCE[dtype])
        slopes.check(kernel, tiles.pullback(A, V), GRADIENT_TOLERANCE[dtype])


def test_shares_are_added_up_in_float64(rng, monkeypatch):
    monkeypatch.setattr(fusing, "_SHARE", 64)

    def launch(sums: torch.Tensor, part: slice, share: int, block: fusing.Block) -> None:
        sums[0], sums[1:] = 1.0, 2.0**-25  # nothing beside 1 in float32

    ((part, total),) = fused(Matern52(3), uniform(rng, 130, 3))._summed(
        slice(10, 20), 16, 16, launch
    )
    assert part == slice(10, 20)
    assert torch.equal(total, torch.full((10, 16), 1.0 + 2.0**-24, dtype=torch.float64))


@DIMS
def test_little_scratch_memory_gives_the_same_bits(make, rng, monkeypatch):
    kernel = make()
    X, V = uniform(rng, 200, kernel.dims), normal(rng, 200, 2)
    plenty = fused(kernel, X)
    product, gradients = plenty.product(V), plenty.pullback(V, V)
    monkeypatch.setattr(fusing, "_SCRATCH", 1)
    launches = count_launches(monkeypatch)
    little = fused(kernel, X)
    assert torch.equal(little.product(V), product)
    assert len(launches) > 1
    for ours, expected in zip(little.pullback(V, V), gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)


def count_launches(monkeypatch, before: Callable[[fusing.Block], None] = lambda block: None):
    """The blocks of all launches from here on; `before` each of them."""
    launched, launch = [], fusing.Block.launch

    def told(self, *rest):
        before(self)
        launched.append(self)
        launch(self, *rest)

    monkeypatch.setattr(fusing.Block, "launch", told)
    return launched


def test_a_tile_too_large_for_the_device_gives_way_to_the_next_smaller_one(rng, monkeypatch):
    from triton.runtime.errors import OutOfResources

    kernel, X, V = Matern52(3, 0.7), uniform(rng, 140, 3), normal(rng, 140, 2)

    def fails_above(rows: int):
        def before(block: fusing.Block) -> None:
            if block.rows * block.columns > rows:
                raise OutOfResources(2 * rows, rows, "shared memory")

        return before

    K, slopes = dense(kernel, X, X).detach(), Slopes.of(kernel, X, V, V)
    for most in (64 * 64, 32 * 32, 16 * 16):
        with monkeypatch.context() as patch:
            launched = count_launches(patch, fails_above(most))
            tiles = fused(kernel, X)
            assert_product(tiles.product(V), K, V, TOLERANCE[torch.float32])
            slopes.check(kernel, tiles.pullback(V, V), GRADIENT_TOLERANCE[torch.float32])
            assert {b.rows * b.columns for b in launched} == {most}
    count_launches(monkeypatch, fails_above(0))
    with pytest.raises(OutOfResources, match="shared memory"):
        fused(kernel, X).product(V)


def test_a_tile_that_fails_later_than_the_first_time_adds_up_nothing_twice(rng, monkeypatch):
    from triton.runtime.errors import OutOfResources

    kernel, X, V = Matern52(3, 0.7), uniform(rng, 200, 3), normal(rng, 200, 2)
    expected = fused(kernel, X, torch.float64).pullback(V, V)
    monkeypatch.setattr(fusing, "_SCRATCH", 1)
    tried: list[fusing.Block] = []

    def before(block: fusing.Block) -> None:
        tried.append(block)
        if len(tried) == 2:
            raise OutOfResources(2, 1, "shared memory")

    launched = count_launches(monkeypatch, before)
    received = fused(kernel, X, torch.float64).pullback(V, V)
    assert launched[0].rows > launched[1].rows
    for ours, whole in zip(received, expected, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-12, atol=1e-12)


def test_memory_that_runs_out_is_asked_for_in_smaller_pieces(rng, monkeypatch):
    kernel, X, V = Matern52(3, 0.7), uniform(rng, 300, 3), normal(rng, 300, 2)
    whole = fused(kernel, X)
    expected = whole.product(V)
    sizes: list[int] = []

    def before(most: int) -> Callable[..., torch.Tensor]:
        def new_empty(self, *shape, **kwargs):
            if len(shape) == 3:  # that of sums
                sizes.append(math.prod(shape))
                if sizes[-1] > most:
                    raise torch.OutOfMemoryError("no memory")
            return torch.empty(shape, **{"dtype": self.dtype, **kwargs})

        return new_empty

    monkeypatch.setattr(torch.Tensor, "new_empty", before(70 * 16 * 5))
    tiles = fused(kernel, X)
    assert torch.equal(tiles.product(V), expected)
    tried = len(sizes)
    tiles.product(V)  # what failed is not tried again
    assert max(sizes[tried:]) <= 70 * 16 * 5
    monkeypatch.setattr(torch.Tensor, "new_empty", before(0))
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        fused(kernel, X).product(V)


def test_gradients_of_many_pairs_of_vectors_take_a_few_at_a_time(rng, monkeypatch):
    kernel, X = Matern52(3, 0.7), uniform(rng, 60, 3)
    A, B = normal(rng, 60, 70), normal(rng, 60, 70)
    expected = Slopes.of(kernel, X, A, B)
    wide: list[int] = []
    launch = fusing.Block.launch

    def told(self, kernel, grid, arguments, known):
        wide.append(known["P"])
        launch(self, kernel, grid, arguments, known)

    monkeypatch.setattr(fusing.Block, "launch", told)
    expected.check(kernel, fused(kernel, X).pullback(A, B), GRADIENT_TOLERANCE[torch.float32])
    assert wide == [64, 64, 16]
    none = fused(kernel, X).pullback(A[:, :0], B[:, :0])
    assert not any(bool(gradient.any()) for gradient in none)


@pytest.mark.parametrize(("dtype", "spread"), [(torch.float64, 1.0), (torch.float32, 60.0)])
def test_many_coordinates_are_gone_through_in_a_loop(dtype, spread, rng):
    """As they are where distances are not made of products, beyond a few of them."""
    X, V = spread * uniform(rng, 70, 12), normal(rng, 70, 2)
    kernel = Matern52(12, 1.5 * spread**0.2)
    tiles = fused(kernel, X, dtype)
    assert [f.padded for f in tiles.layout.factors] == [FAR if spread > 1 else SPREAD]
    assert_product(tiles.product(V), dense(kernel, X, X).detach(), V, TOLERANCE[dtype])
    Slopes.of(kernel, X, V, V).check(kernel, tiles.pullback(V, V), GRADIENT_TOLERANCE[dtype])


def test_more_points_than_can_be_counted_are_refused(rng, monkeypatch):
    monkeypatch.setattr("surrogate.tiles.layout._MOST_NUMBERS", 1000)
    with pytest.raises(ValueError, match="200 points are too many for tiles='triton'; use tiles="):
        fused(Matern52(3), uniform(rng, 200, 3))
