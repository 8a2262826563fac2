"""Slices of partitioned variables: where each lies in the whole, and the key that finds it.

Training on several machines cuts large variables into pieces, and a checkpoint holds each piece by
itself. They are put together when they are asked for, and only if they hold every element once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.errors import MalformedError
from kerasport.readers.mapped import buffer
from kerasport.readers.tf_proto import Message

__all__ = ["box_of", "check_cover", "joined", "slice_key", "words_of"]

Array = npt.NDArray[Any]
Box = tuple[slice, ...]

_MAX_SLICES: Final = 8192


def box_of(message: Message, shape: tuple[int, ...], *, where: str) -> Box:
    """The part of a tensor that a slice is.

    Args:
        message: the decoded slice.
        shape: the whole tensor's extents.
        where: what is being read, for errors.

    Raises:
        MalformedError: it lies outside of the tensor.
    """
    extents = message["extent"]
    if len(extents) != len(shape):
        raise MalformedError(f"{where}: a slice with {len(extents)} axes, expected {len(shape)}")
    box = []
    for extent, size in zip(extents, shape, strict=True):
        start, length = extent["start"] or 0, extent["length"]
        stop = size if length is None else start + length
        if not 0 <= start <= stop <= size:
            raise MalformedError(f"{where}: a slice from {start} to {stop} of {size}")
        box.append(slice(start, stop))
    return tuple(box)


def check_cover(boxes: Sequence[Box], shape: tuple[int, ...], *, where: str) -> None:
    """Refuse slices that do not hold every element once.

    Args:
        boxes: the slices.
        shape: the whole tensor's extents.
        where: what is being read, for errors.

    Raises:
        MalformedError: they overlap or leave a gap, or there are absurdly many.
    """
    if len(boxes) > _MAX_SLICES:
        raise MalformedError(f"{where}: is cut into more than {_MAX_SLICES} slices")
    sizes = [math.prod(s.stop - s.start for s in box) for box in boxes]
    held = [box for box, size in zip(boxes, sizes, strict=True) if size]
    places = (len(held), len(shape))
    starts = np.array([[s.start for s in box] for box in held], np.int64).reshape(places)
    stops = np.array([[s.stop for s in box] for box in held], np.int64).reshape(places)
    twice = any(
        bool(np.all((starts[i] < stops[:i]) & (starts[:i] < stops[i]), axis=1).any())
        for i in range(len(held))
    )
    if sum(sizes) != math.prod(shape) or twice:
        raise MalformedError(f"{where}: its slices do not make up {list(shape)}")


def words_of(box: Box) -> str:
    """A slice as TensorFlow and Python write it.

    >>> words_of((slice(0, 2), slice(3, 5)))
    '[0:2,3:5]'

    Args:
        box: the part of a tensor.
    """
    return f"[{','.join(f'{s.start}:{s.stop}' for s in box)}]"


def slice_key(name: str, part: Message) -> bytes:
    """The key under which the index keeps one slice, in an encoding that sorts as numbers do.

    Args:
        name: the tensor's.
        part: the decoded slice.
    """
    text = name.encode().replace(b"\0", b"\0\xff")  # 0xFF, the other one to escape, is no UTF-8
    rank = len(part["extent"])
    key = bytearray(b"\0" + text + b"\0\x01" + _ordered(rank))
    for extent in part["extent"]:
        key += _ordered_signed(extent["start"] or 0)
        key += _ordered_signed(-1 if extent["length"] is None else extent["length"])
    return bytes(key)


def _ordered(number: int) -> bytes:
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def _ordered_signed(number: int) -> bytes:
    """A number whose first bits say how many bytes it has, the sign being one of them."""
    size = (number if number >= 0 else ~number).bit_length() // 7 + 1
    head = (0xFFFF << (16 - size) & 0xFFFF).to_bytes(2, "big")
    body = bytearray(number.to_bytes(10, "big", signed=True)[10 - size :])
    for place, bits in enumerate(head[:size]):
        body[place] ^= bits
    return bytes(body)


def joined(
    loads: Sequence[tuple[Box, Callable[[], Array]]],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
) -> Callable[[], Array]:
    """What puts a tensor together from its slices.

    Args:
        loads: each slice with what gives its values.
        dtype: the tensor's dtype.
        shape: its extents.
    """
    if len(loads) == 1:
        return loads[0][1]

    def load() -> Array:
        array = buffer(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
        for box, part in loads:
            array[box] = part()
        return array

    return load
