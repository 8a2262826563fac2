"""The values of a tensor that stands inside of a message: in a graph, or in an old checkpoint.

They are raw bytes, which are used where they lie in the file, or a list of numbers, of which the
last one counts for all that are missing. So a message of ten bytes can announce any number of
values; there is a limit to what is believed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.errors import MalformedError
from kerasport.readers.tf_proto import Message

__all__ = ["values_of"]

Array = npt.NDArray[Any]

MAX_REPEATED: Final = 1 << 31
"""How many bytes a tensor may take of which not all values are written out."""

# Which field has the numbers of a dtype, and the dtype of the list's elements, where not its own.
_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "float32": ("float_val", ""),
    "float64": ("double_val", ""),
    "complex64": ("scomplex_val", ""),
    "complex128": ("dcomplex_val", ""),
    "int64": ("int64_val", ""),
    "bool": ("bool_val", ""),
    "uint32": ("uint32_val", ""),
    "uint64": ("uint64_val", ""),
    "float16": ("half_val", "uint16"),
    "bfloat16": ("half_val", "uint16"),
    "float8_e5m2": ("float8_val", ""),
    "float8_e4m3fn": ("float8_val", ""),
}


def values_of(
    message: Message,
    *,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    where: str,
    all_written: bool = False,
) -> Callable[[], Array]:
    """What gives the values of a tensor in a message, once they have been found to fit.

    Args:
        message: a decoded `TensorProto`.
        dtype: its dtype.
        shape: its extents.
        where: what is being read, for errors.
        all_written: whether every value must stand there, as it does in a checkpoint.

    Raises:
        MalformedError: there are more or fewer values than the shape has room for.
    """
    size = math.prod(shape)
    if content := message["content"]:
        if len(content) != size * dtype.itemsize:
            raise MalformedError(
                f"{where}: {len(content)} bytes cannot be {dtype}{list(shape)}, which takes "
                f"{size * dtype.itemsize}"
            )
        return lambda: np.frombuffer(content, dtype, size).reshape(shape)
    listed = _listed(message, dtype, where=where)
    if len(listed) > size:
        raise MalformedError(f"{where}: {len(listed)} values for {dtype}{list(shape)}")
    if len(listed) < size and (all_written or size * dtype.itemsize > MAX_REPEATED):
        raise MalformedError(
            f"{where}: announces {dtype}{list(shape)} and holds {len(listed)} values of it"
        )
    if len(listed) == size:
        return lambda: listed.reshape(shape)

    def repeated() -> Array:
        array = np.zeros(size, dtype)
        if len(listed):
            array[: len(listed)] = listed
            array[len(listed) :] = listed[-1]
        return array.reshape(shape)

    return repeated


def _listed(message: Message, dtype: np.dtype[Any], *, where: str) -> Array:
    name, stored = _FIELDS.get(dtype.name, ("int_val", ""))
    values = message[name]
    if all(isinstance(value, int) for value in values):
        try:
            return np.array(values, stored or dtype).view(dtype)
        except OverflowError:
            raise MalformedError(f"{where}: a number that is no {dtype}") from None
    raw = values[0] if len(values) == 1 else b"".join(values)
    if len(raw) % dtype.itemsize:
        raise MalformedError(f"{where}: {len(raw)} bytes are no whole number of {dtype}")
    return np.frombuffer(raw, dtype)
