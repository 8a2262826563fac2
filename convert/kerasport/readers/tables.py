"""The table of tensors, as `schemas/tensors.v1.md` has it, from batches of Arrow columns.

Only the columns that say what a tensor is are read at first. Its numbers are decoded when asked
for, one batch at a time, and the batch is kept until another one is needed: tensors read in order
cost each batch once, and a tensor of many parts is streamed without ever being whole.

A table that another tool has rewritten has lost its manifest but not its columns; layout, role and
trainable are taken from them then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport import manifest
from kerasport.errors import LayoutError, MalformedError, MissingExtraError
from kerasport.layout import Layout
from kerasport.model import DTYPES, StateDict, Tensor, dtype_named
from kerasport.readers import targets
from kerasport.readers.targets import Array

__all__ = ["FACTS", "NUMBERS", "Batches", "arrow", "faults", "state"]

# What must be there, and what is used where there is no manifest.
FACTS: Final = ("name", "shape", "dtype", "start")
DETAILS: Final = ("layout", "role", "trainable")
NUMBERS: Final = ("values", "values64", "data")


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "arrow", "reading Arrow or Parquet") from error
    return pyarrow


def faults() -> tuple[type[Exception], ...]:
    """What pyarrow raises at broken files."""
    error: type[Exception] = arrow().ArrowException
    return (error, OSError, ValueError, KeyError, IndexError)


@dataclass(slots=True)
class Batches:
    """The batches of one file; the one decoded last is kept.

    Attributes:
        path: the file, for errors.
        count: how many batches there are.
        decode: gives columns of one batch, by name.
    """

    path: Path
    count: int
    decode: Callable[[int, Sequence[str]], Mapping[str, Any]]
    last: tuple[int, Mapping[str, Any]] = field(default=(-1, {}))

    def numbers(self, index: int) -> Mapping[str, Any]:
        """The columns with numbers of one batch."""
        if self.last[0] != index:
            self.last = (-1, {})  # let go of the old one before the new one is decoded
            self.last = (index, self.columns(index, NUMBERS))
        return self.last[1]

    def columns(self, index: int, names: Sequence[str]) -> Mapping[str, Any]:
        """Some columns of one batch."""
        try:
            return self.decode(index, names)
        except faults() as error:
            raise self.broken(f"batch {index}: {error}") from error

    def rows(self, index: int, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows of some columns of one batch, as Python's own values."""
        columns = self.columns(index, names)
        try:
            return list(zip(*(columns[name].to_pylist() for name in names), strict=True))
        except faults() as error:  # text that is no UTF-8
            raise self.broken(f"batch {index}: {error}") from error

    def broken(self, what: str) -> MalformedError:
        """The error for a file that breaks the schema."""
        return MalformedError(
            f"{self.path}: expected the table of schemas/tensors.v1.md, found a fault: {what}"
        )


@dataclass(slots=True)
class _Tensor:
    """One tensor while its rows are collected; parts are (batch, row, start)."""

    dtype: str
    shape: tuple[int, ...]
    details: Mapping[str, Any]
    parts: list[tuple[int, int, int]] = field(default_factory=list)


def state(batches: Batches, *, names: Sequence[str], metadata: Mapping[bytes, bytes]) -> StateDict:
    """The tensors of a table.

    Args:
        batches: its batches.
        names: its columns.
        metadata: its key-value metadata.

    Raises:
        MalformedError: columns are missing or do not fit together.
    """
    missing = [name for name in (*FACTS, *NUMBERS) if name not in names]
    if missing:
        raise batches.broken(f"no column {', '.join(missing)}")
    document = None
    if b"kerasport" in metadata:
        text = metadata[b"kerasport"].decode("utf-8", "replace")
        document = manifest.parse(text, where=f"{batches.path}: manifest")
    details = [name for name in DETAILS if name in names]
    found: dict[str, _Tensor] = {}
    for index in range(batches.count):
        rows = batches.rows(index, [*FACTS, *details])
        for row, (name, shape, dtype, start, *rest) in enumerate(rows):
            if not (isinstance(name, str) and targets.is_shape(shape) and dtype in DTYPES):
                raise batches.broken(f"a row with name {name!r}, shape {shape}, dtype {dtype!r}")
            tensor = found.setdefault(
                name, _Tensor(dtype, tuple(shape), dict(zip(details, rest, strict=True)))
            )
            if (tensor.parts and tensor.parts[-1][2] >= start) or tensor.shape != tuple(shape):
                raise batches.broken(f"{name}: two rows that are not parts of one tensor")
            if start != 0 and not tensor.parts:
                raise batches.broken(f"{name}: no part that starts at 0")
            tensor.parts.append((index, row, start))
    tensors = [_tensor(batches, name, rows) for name, rows in found.items()]
    return targets.state(batches.path, tensors, document=document)


def _tensor(batches: Batches, name: str, rows: _Tensor) -> Tensor:
    dtype = dtype_named(rows.dtype)
    size = math.prod(rows.shape)
    key = {"f32": "values", "f64": "values64"}.get(rows.dtype, "data")
    ends = [start for _, _, start in rows.parts[1:]] + [size]
    if ends[-1] < rows.parts[-1][2]:
        raise batches.broken(f"{name}: a part that starts after its end")

    unreadable: tuple[type[Exception], ...] = (*faults(), AttributeError, TypeError)

    def part(number: int) -> Array:
        index, row, start = rows.parts[number]
        try:
            scalar = batches.numbers(index)[key][row]
            if key == "data":
                flat = np.frombuffer(scalar.as_buffer() or b"", np.uint8).view(dtype)
            else:
                flat = scalar.values.to_numpy(zero_copy_only=True).astype(dtype, casting="no")
        except unreadable as error:
            raise batches.broken(f"{name}: no {key}: {error}") from error
        if flat.size != ends[number] - start:
            raise batches.broken(
                f"{name}: {flat.size:,} elements in {key} where {ends[number] - start:,} belong"
            )
        return flat

    def pieces(start: int, stop: int) -> Iterator[tuple[int, Array]]:
        for number, (_, _, first) in enumerate(rows.parts):
            low, high = max(first, start), min(ends[number], stop)
            if low < high:
                yield low - start, part(number)[low - first : high - first]

    def fill(start: int, stop: int, buffer: Array) -> None:
        for at, piece in pieces(start, stop):
            buffer[at : at + piece.size] = piece

    def load() -> Array:
        if len(rows.parts) == 1:
            return part(0)
        whole = np.empty(size, dtype)
        fill(0, size, whole)
        return whole

    details = rows.details
    try:
        layout = None if details.get("layout") is None else Layout.parse(details["layout"])
    except LayoutError as error:
        raise batches.broken(f"{name}: {error}") from error
    return Tensor(
        name,
        dtype,
        rows.shape,
        load,
        layout=layout,
        role=details.get("role") or "",
        trainable=details.get("trainable"),
        fill=fill if len(rows.parts) > 1 else None,
    )
