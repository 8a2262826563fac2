"""Copies of strided boxes, in tiles that fit the cache.

A transposition reads along one axis and writes along another. NumPy walks the whole array in one of
the two orders, so that on the other side each element costs a cache line: 0.6 GB/s for a large
float32 matrix. Cutting the box into tiles that are wide on *both* sides, and turning each tile in a
scratch buffer that stays in the cache, gives 3 to 4 GB/s in plain NumPy.

`Copy` says what goes where, in elements. `fill` carries out a list of them, `clipped` cuts a list
down to one slab of the target, so that a tensor of any size is written through a small buffer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

__all__ = ["Copy", "bits", "clipped", "fill"]

Flat = npt.NDArray[Any]

# A tile is at least this many elements wide on the side that it is read and on the one that it is
# written: two cache lines of float16, and short enough for a tile to stay in a 256 KiB cache.
RUN = 128
# Below this many elements a copy fits the cache as it is.
SMALL = RUN * RUN


@dataclass(frozen=True, slots=True)
class Copy:
    """One strided box: `shape` elements read at one set of strides, written at another.

    Offsets and strides count elements. Axes are sorted by the target's stride, the largest first.
    Made by `Copy.of`, it is in its simplest form: axes of extent one are gone, and axes that lie
    together on both sides are one, so that a copy that moves nothing around is one axis of
    stride one.
    """

    source: int
    shape: tuple[int, ...]
    source_offset: int
    source_strides: tuple[int, ...]
    target_offset: int
    target_strides: tuple[int, ...]

    @classmethod
    def of(
        cls,
        source: int,
        axes: Iterable[tuple[int, int, int]],
        source_offset: int = 0,
        target_offset: int = 0,
    ) -> Copy:
        """The simplest copy with these axes, each given as (extent, source stride, target stride).

        The target is walked forward: an axis reversed on both sides is reversed on neither.

        >>> Copy.of(0, [(2, 12, 12), (3, 4, 4), (4, 1, 1)]).shape
        (24,)
        """
        kept: list[tuple[int, int, int]] = []
        for extent, read, write in axes:
            if write < 0:
                source_offset += (extent - 1) * read
                target_offset += (extent - 1) * write
                read, write = -read, -write
            if extent != 1:
                kept.append((extent, read, write))
        kept.sort(key=lambda axis: -axis[2])
        merged: list[tuple[int, int, int]] = []
        for extent, read, write in kept:
            if merged and merged[-1][1:] == (extent * read, extent * write):
                merged[-1] = (merged[-1][0] * extent, read, write)
            else:
                merged.append((extent, read, write))
        return cls(
            source,
            tuple(axis[0] for axis in merged),
            source_offset,
            tuple(axis[1] for axis in merged),
            target_offset,
            tuple(axis[2] for axis in merged),
        )

    @property
    def elements(self) -> int:
        """How many elements it moves."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """True where one run of elements becomes one run of elements, in the same order."""
        return self.source_strides == self.target_strides and self.source_strides in ((), (1,))

    def inverted(self, source: int = 0) -> Copy:
        """The same box on the way back, read from tensor number `source`."""
        axes = zip(self.shape, self.target_strides, self.source_strides, strict=True)
        return Copy.of(source, axes, self.target_offset, self.source_offset)


def fill(target: Flat, copies: Iterable[Copy], sources: Sequence[Flat]) -> None:
    """Carry out the copies.

    Args:
        target: a contiguous array of one dimension, written in place.
        copies: what goes where.
        sources: contiguous arrays of one dimension, of the target's dtype.
    """
    views = [bits(source) for source in sources]
    for copy in copies:
        _move(bits(target), copy, views[copy.source])


def bits(array: Flat) -> Flat:
    """The same elements as whole numbers of the same width, where there is such a type.

    Values are moved and compared, never computed with: so every dtype is fast, NaN equals itself,
    and -0.0 is not 0.0.
    """
    return array.view(f"u{array.itemsize}") if array.itemsize in (1, 2, 4, 8) else array


def clipped(copies: Iterable[Copy], start: int, stop: int) -> Iterator[Copy]:
    """What the copies write to elements `start` to `stop` of the target, counted from `start`."""
    for copy in copies:
        yield from _clipped(copy, start, stop)


def _clipped(copy: Copy, start: int, stop: int) -> Iterator[Copy]:
    first = copy.target_offset
    last = first + sum(
        (n - 1) * stride for n, stride in zip(copy.shape, copy.target_strides, strict=True)
    )
    if last < start or first >= stop or not copy.elements:
        return
    if start <= first and last < stop:
        yield replace(copy, target_offset=first - start)
        return
    # Along the axis of the largest stride the box is a row of disjoint intervals of the target: at
    # most two of them are cut by the slab's ends, the ones in between lie inside.
    (extent, *_), (stride, *_), (step, *_) = copy.shape, copy.target_strides, copy.source_strides
    span = last - first - (extent - 1) * stride
    low = max(0, -((first + span - start) // stride))
    high = min(extent, (stop - 1 - first) // stride + 1)
    inner_low = max(low, -((first - start) // stride))
    inner_high = min(high, (stop - 1 - span - first) // stride + 1)
    if inner_low >= inner_high:
        inner_low = inner_high = high

    def rows(begin: int, end: int) -> Copy:
        return replace(
            copy,
            shape=(end - begin, *copy.shape[1:]),
            source_offset=copy.source_offset + begin * step,
            target_offset=first + begin * stride,
        )

    def cut(index: int) -> Copy:
        row = rows(index, index + 1)
        return replace(
            row,
            shape=row.shape[1:],
            source_strides=row.source_strides[1:],
            target_strides=row.target_strides[1:],
        )

    for index in range(low, inner_low):
        yield from _clipped(cut(index), start, stop)
    if inner_low < inner_high:
        inside = rows(inner_low, inner_high)
        yield replace(inside, target_offset=inside.target_offset - start)
    for index in range(inner_high, high):
        yield from _clipped(cut(index), start, stop)


def _move(target: Flat, copy: Copy, source: Flat) -> None:
    if not copy.elements:
        return
    if copy.contiguous:
        n = copy.elements
        target[copy.target_offset : copy.target_offset + n] = source[
            copy.source_offset : copy.source_offset + n
        ]
        return
    writing = _strided(target, copy.shape, copy.target_offset, copy.target_strides, write=True)
    reading = _strided(source, copy.shape, copy.source_offset, copy.source_strides, write=False)
    if copy.elements <= SMALL or _fastest(copy.source_strides) == _fastest(copy.target_strides):
        np.copyto(writing, reading)
        return
    tile = _tile(copy)
    order = sorted(range(len(tile)), key=lambda axis: -abs(copy.source_strides[axis]))
    scratch = np.empty([tile[axis] for axis in order], target.dtype)
    back = [order.index(axis) for axis in range(len(tile))]
    steps = [range(0, extent, step) for extent, step in zip(copy.shape, tile, strict=True)]
    for corner in product(*steps):
        box = tuple(slice(low, low + step) for low, step in zip(corner, tile, strict=True))
        read = reading[box].transpose(order)
        held = scratch[tuple(slice(0, n) for n in read.shape)]
        np.copyto(held, read)
        np.copyto(writing[box], held.transpose(back))


def _fastest(strides: Sequence[int]) -> int:
    return min(range(len(strides)), key=lambda axis: abs(strides[axis]))


def _tile(copy: Copy) -> list[int]:
    """Extents of a tile that holds runs of `RUN` elements in the source and in the target."""
    tile = [1] * len(copy.shape)
    for strides in (copy.target_strides, copy.source_strides):
        run = 1
        for axis in sorted(range(len(tile)), key=lambda axis: abs(strides[axis])):
            tile[axis] = max(tile[axis], min(copy.shape[axis], -(-RUN // run)))
            run *= tile[axis]
            if run >= RUN:
                break
    return tile


def _strided(
    flat: Flat, shape: Sequence[int], offset: int, strides: Sequence[int], *, write: bool
) -> Flat:
    """A view of a box, after a check that it lies inside the array."""
    reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    lowest = offset + sum(r for r in reach if r < 0)
    highest = offset + sum(r for r in reach if r > 0)
    if lowest < 0 or highest >= flat.size:
        raise IndexError(f"box {lowest}..{highest} lies outside of {flat.size} elements")
    return as_strided(
        flat[offset:], shape, [stride * flat.itemsize for stride in strides], writeable=write
    )
