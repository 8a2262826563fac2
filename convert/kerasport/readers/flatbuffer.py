"""FlatBuffers, as far as reading a few tables takes: fields by number, every offset checked.

A table begins with the way to its vtable, which says where each of its fields lies; what is no
number is reached by an offset, and several offsets may lead to one place. So a small file can
announce far more than it holds, and what has been read is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kerasport.errors import MalformedError

__all__ = ["Buffer", "Table", "root"]

_FLOOR = 1 << 24


class Buffer:
    """The bytes of a file, and how many of them may still be read.

    Args:
        data: the bytes.
        where: what they are called in errors.
    """

    def __init__(self, data: memoryview, where: str) -> None:
        self.data = data
        self.where = where
        self.left = _FLOOR + 8 * len(data)

    def number(self, at: int, size: int, *, signed: bool = False) -> int:
        """The number at a place; it must lie inside."""
        if at < 0 or at + size > len(self.data):
            raise MalformedError(f"{self.where}: an offset leads to {at}, outside of the file")
        return int.from_bytes(self.data[at : at + size], "little", signed=signed)

    def vector(self, at: int, size: int) -> tuple[int, int]:
        """Where the elements of a vector begin, each of so many bytes, and how many there are."""
        start = at + self.number(at, 4)
        count = self.number(start, 4)
        if start + 4 + count * size > len(self.data):
            raise MalformedError(
                f"{self.where}: announces {count} elements at {start}, more than the file holds"
            )
        return start + 4, count

    def spend(self, count: int) -> None:
        """Count what is read, since the same bytes may be reached again and again."""
        self.left -= count
        if self.left < 0:
            raise MalformedError(f"{self.where}: its tables refer to the same bytes too often")


class Table(NamedTuple):
    """One table, by the place where it begins."""

    buffer: Buffer
    at: int

    def field(self, number: int) -> int:
        """Where a field lies; 0 where the table has none of that number."""
        vtable = self.at - self.buffer.number(self.at, 4, signed=True)
        self.buffer.spend(8)
        if 4 + 2 * number + 2 > self.buffer.number(vtable, 2):
            return 0
        offset = self.buffer.number(vtable + 4 + 2 * number, 2)
        return self.at + offset if offset else 0

    def number(self, number: int, size: int, *, signed: bool = False) -> int:
        """A field that is a number; 0 where it is not there."""
        place = self.field(number)
        return self.buffer.number(place, size, signed=signed) if place else 0

    def numbers(self, number: int, size: int = 4, *, most: int = 1 << 16) -> list[int]:
        """A field that is a list of signed numbers."""
        place = self.field(number)
        start, count = self.buffer.vector(place, size) if place else (0, 0)
        if count > most:
            raise MalformedError(f"{self.buffer.where}: a list of {count} numbers at {start}")
        self.buffer.spend(count * size)
        return [self.buffer.number(start + size * i, size, signed=True) for i in range(count)]

    def text(self, number: int) -> str:
        """A field that is a text."""
        start, size = self.span(number)
        self.buffer.spend(size)
        return str(self.buffer.data[start : start + size], "utf-8", "backslashreplace")

    def span(self, number: int, size: int = 1) -> tuple[int, int]:
        """Where a list lies, and how many elements of so many bytes it has."""
        place = self.field(number)
        return self.buffer.vector(place, size) if place else (0, 0)

    def table(self, number: int) -> Table | None:
        """A field that is a table."""
        place = self.field(number)
        return Table(self.buffer, place + self.buffer.number(place, 4)) if place else None

    def tables(self, number: int) -> Iterator[Table]:
        """A field that is a list of tables."""
        start, count = self.span(number, 4)
        for place in range(start, start + 4 * count, 4):
            self.buffer.spend(4)
            yield Table(self.buffer, place + self.buffer.number(place, 4))


def root(data: memoryview, where: str) -> Table:
    """The table that a file begins with.

    Args:
        data: the file.
        where: what it is called in errors.

    Raises:
        MalformedError: there is none; and so do all that read on, where an offset leads outside.
    """
    buffer = Buffer(data, where)
    return Table(buffer, buffer.number(0, 4))
