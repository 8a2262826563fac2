"""Copies of strided boxes, in tiles that fit the cache.

A transposition reads along one axis and writes along another. NumPy walks the whole array in one of
the two orders, so that on the other side each element costs a cache line: 0.5 GB/s for a large
float32 matrix. So the box is cut into tiles that are wide on *both* sides. A tile is read in the
source's order into a scratch buffer, whose rows are padded so that no two of them fight for one
line of the cache, and is written from there in the target's order, a few dozen rows at a time: each
line of those stays in the first cache until every element of it is used. That gives 3 to 4 GB/s in
plain NumPy, which is what a compiled transposition reaches here, and works for any strides.

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

__all__ = ["Copy", "bits", "cast", "clipped", "fill"]

Flat = npt.NDArray[Any]

# How many rows of the scratch buffer are turned at a time: as many lines stay in a 32 KiB cache.
RUN = 256
# How many elements a tile reads in one run, where the source has them.
WIDE = 1024
# How many elements a tile has at most: the scratch buffer stays in the second or third cache.
TILE = 1 << 18
# Below this many elements a copy fits the cache as it is.
SMALL = 1 << 15
# Inner loops shorter than this cost more to begin than to run.
SHORT = 16
# Elements that lie this many bytes apart share a line of the cache with their neighbours.
NEAR = 16
# Between the rows of the scratch buffer, in bytes: rows a power of two apart share cache lines.
PADDING = 64


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
    writing = _strided(target, copy.shape, copy.target_offset, copy.target_strides, write=True)
    reading = _strided(source, copy.shape, copy.source_offset, copy.source_strides, write=False)
    # Where what lies together in the target lies within a cache line in the source, no line is
    # read more often than it is used.
    near = not copy.shape or abs(copy.source_strides[-1]) * target.itemsize <= NEAR
    if near or copy.elements <= SMALL:
        np.copyto(writing, reading)
        return
    tile, run = _tile(copy)
    rows = [axis for axis in range(len(tile)) if axis not in run]
    order = [*rows, *run]
    lead = 1 + min(
        range(len(rows)), key=lambda row: abs(copy.source_strides[rows[row]]), default=-1
    )
    back = [order.index(axis) for axis in range(len(tile))]
    scratch = _scratch([tile[axis] for axis in order], len(rows), target.dtype)
    steps = [range(0, extent, step) for extent, step in zip(copy.shape, tile, strict=True)]
    for corner in product(*steps):
        box = tuple(slice(low, low + step) for low, step in zip(corner, tile, strict=True))
        read = reading[box].transpose(order)
        held = scratch[tuple(slice(0, n) for n in read.shape)]
        for index in np.ndindex(read.shape[lead : len(rows)]):
            where = (*(slice(None),) * lead, *index)
            np.copyto(held[where], read[where])
        _turn(writing[box], held.transpose(back), run)


def _tile(copy: Copy) -> tuple[list[int], list[int]]:
    """A tile's extents, and the axes along which it is read, slowest first."""
    tile = [1] * len(copy.shape)
    run: list[int] = []
    length = 1
    for axis in sorted(range(len(tile) - 1), key=lambda axis: abs(copy.source_strides[axis])):
        if run and abs(copy.source_strides[axis]) != length:
            break  # the next one lies elsewhere
        run.insert(0, axis)
        tile[axis] = min(copy.shape[axis], -(-WIDE // length))
        length *= tile[axis]
        if length >= WIDE:
            break
    for axis in reversed(range(len(tile))):
        tile[axis] = min(copy.shape[axis], max(1, TILE // length) * tile[axis])
        length = math.prod(tile)
    return tile, run


def _scratch(shape: Sequence[int], rows: int, dtype: np.dtype[Any]) -> Flat:
    """Room for a tile whose first `rows` axes are padded apart from one another."""
    strides = [dtype.itemsize] * len(shape)
    step = dtype.itemsize
    for axis in reversed(range(len(shape))):
        if axis == rows - 1:
            step += PADDING
        strides[axis] = step
        step *= shape[axis]
    return as_strided(np.empty(step // dtype.itemsize, dtype), shape, strides)


def _turn(writing: Flat, held: Flat, run: Sequence[int]) -> None:
    """Write a tile along the target, in pieces whose rows stay in the cache."""
    axis = held.ndim - 1
    length = 1
    while axis not in run and axis and length * held.shape[axis] < RUN:
        length *= held.shape[axis]
        axis -= 1
    if axis not in run:
        # Move the axis that is cut to the front, where slicing is cheap.
        order = [axis, *(other for other in range(held.ndim) if other != axis)]
        writing, held = writing.transpose(order), held.transpose(order)
        step = -(-RUN // length)
        for low in range(0, len(held), step):
            np.copyto(writing[low : low + step], held[low : low + step])
    elif length >= SHORT:
        np.copyto(writing, held)
    else:
        for index in np.ndindex(held.shape[axis + 1 :]):
            np.copyto(writing[(..., *index)], held[(..., *index)])


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


def cast(values: Flat, dtype: np.dtype[Any]) -> Flat:
    """Floats in another dtype, each rounded once, to the nearest and from the middle to the even.

    NumPy's types do so by themselves. Those of ml_dtypes come from float64 by way of float32, as in
    PyTorch and TensorFlow too, and a value that the first rounding puts in the middle is rounded a
    second time, the wrong way. So that the second is right, the first leaves a mark: what is not
    exact ends in a one ("round to odd").

    >>> cast(np.array([0.1]), np.dtype("f4"))
    array([0.1], dtype=float32)
    """
    with np.errstate(all="ignore"):
        if values.dtype != np.float64 or dtype.isbuiltin == 1:
            return values.astype(dtype)
        near = values.astype(np.float32)
        exact = (near == values) | ~np.isfinite(values)
        beyond = np.abs(near.astype(np.float64)) > np.abs(values)
        under = np.where(beyond, np.nextafter(near, np.float32(0)), near)
        odd = (under.view(np.uint32) | 1).view(np.float32)
        return np.where(exact, near, odd).astype(dtype)
