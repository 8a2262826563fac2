"""Parquet files with the table of tensors, decoded one row group at a time.

What the table holds is said in `tables`. A row group that declares far more numbers than it stores
bytes is refused before it is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kerasport.errors import MalformedError
from kerasport.model import StateDict
from kerasport.readers import tables, targets

__all__ = ["matches", "read"]

_MAGIC = b"PAR1"
# So much is decoded without a question; beyond it, so many times of what is stored.
_FREE: Final = 1 << 28
_RATIO: Final = 1024
_WIDEST: Final = 8


def matches(path: Path) -> bool:
    """True if the content begins as a Parquet file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read(path: Path) -> StateDict:
    """Read the tensors of a Parquet file.

    Raises:
        MalformedError: the file is broken or hostile, or holds another table.
        MissingExtraError: pyarrow is not installed.
    """
    pa = tables.arrow()
    import pyarrow.parquet as pq

    _refuse_bombs(path)
    try:
        reader = pq.ParquetFile(pa.memory_map(str(path)), pre_buffer=False)
        names, metadata = reader.schema_arrow.names, reader.metadata
    except tables.faults() as error:
        raise MalformedError(
            f"{path}: expected a Parquet file, found a fault: {error}. Is the file complete?"
        ) from error

    def decode(index: int, names: Sequence[str]) -> Mapping[str, Any]:
        table = reader.read_row_group(index, columns=list(names), use_threads=False)
        return {name: table.column(name).combine_chunks() for name in names}

    batches = tables.Batches(path, metadata.num_row_groups, decode)
    return tables.state(batches, names=names, metadata=metadata.metadata or {})


def _refuse_bombs(path: Path) -> None:
    """Refuse columns that declare far more values than they store bytes.

    The footer is read here, because pyarrow ends the process when it is asked for the sizes of a
    column whose footer is damaged.
    """
    data = targets.mapped(path)
    length = int.from_bytes(data[-8:-4].tobytes(), "little")
    if data.size < 12 or data[-4:].tobytes() != _MAGIC or length > data.size - 12:
        raise MalformedError(
            f"{path}: expected a Parquet file with a footer at its end, found none. "
            "Is the file complete?"
        )
    try:
        footer = _Thrift(data[-8 - length : -8].tobytes()).struct()
        for group in footer[4]:
            for chunk in group[1]:
                _refuse_bomb(path, chunk[3])
    except (IndexError, KeyError, TypeError, RecursionError) as error:
        raise MalformedError(
            f"{path}: expected a Parquet footer, found a fault: {error!r}. Is the file complete?"
        ) from error


def _refuse_bomb(path: Path, column: Mapping[int, Any]) -> None:
    values, plain, stored = column[5], column[6], column[7]
    decoded = max(plain, values * _WIDEST)
    if decoded > max(_FREE, stored * _RATIO):
        name = b".".join(column[3]).decode("utf-8", "replace")
        raise MalformedError(
            f"{path}: {name}: expected about as many bytes as are stored, found {decoded:,} "
            f"declared for {stored:,}. The file is hostile, or compressed beyond reason"
        )


class _Thrift:
    """Thrift's compact protocol as a Parquet footer needs it: structs as dicts by number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._int()
            fields[number] = self._value(head & 15, inside=False)
        return fields

    def _value(self, kind: int, *, inside: bool) -> Any:
        if kind in (1, 2):  # a field's type is its value; an item of a list has a byte
            return self._byte() == 1 if inside else kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._int()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, inside=True) for _ in range(count)]
        if kind == 12:
            return self.struct()
        raise IndexError(f"type {kind}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise IndexError("text beyond the end")
        return self._data[self._at - length : self._at]

    def _varint(self) -> int:
        number = shift = 0
        while (digit := self._byte()) & 0x80:
            if shift > 63:
                raise IndexError("a number without an end")
            number |= (digit & 0x7F) << shift
            shift += 7
        return number | digit << shift

    def _int(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
