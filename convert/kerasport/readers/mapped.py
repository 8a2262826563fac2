"""A file's bytes, mapped into memory and never copied.

Weights can be larger than memory, and a conversion should cost what a copy costs. So a file is
mapped once, read-only, and arrays are views of the map: pages come in when they are looked at and
can be dropped at any time. A member of an archive that is stored as it is, is a part of the map;
a compressed one is unpacked to a temporary file without a name, which is mapped in its place.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.errors import MalformedError, UnknownFormatError, UsageError

__all__ = ["Region", "buffer", "mapped", "unpacked"]

Array = npt.NDArray[Any]

SPILL: Final = 64 << 20
"""Arrays that cannot be mapped and are larger than this are put in a temporary file."""

_STEP: Final = 4 << 20
_AHEAD: Final = 8 * _STEP


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """A stretch of mapped bytes: a whole file, or one member of an archive.

    Attributes:
        map: the map that it is a part of.
        start: where in the map it begins.
        size: how many bytes it has.
    """

    map: mmap.mmap
    start: int
    size: int

    def array(self, offset: int, *, dtype: np.dtype[Any], count: int) -> Array:
        """Elements at an offset; a view, not to be written to."""
        return np.frombuffer(self.map, dtype, count, self.start + offset)

    def read(self, offset: int, size: int) -> bytes:
        """A copy of at most `size` bytes at an offset."""
        start = self.start + min(max(offset, 0), self.size)
        return self.map[start : min(start + size, self.start + self.size)]

    def part(self, offset: int, size: int) -> Region:
        """A stretch of this one."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"{offset} + {size} is outside of {self.size} bytes")
        return Region(self.map, self.start + offset, size)

    def content(self) -> Iterator[memoryview]:
        """All bytes, in pieces that are valid until the next one is asked for."""
        with memoryview(self.map) as view:
            for start in range(self.start, self.start + self.size, _STEP):
                self._expect(start + _STEP)
                with view[start : min(start + _STEP, self.start + self.size)] as piece:
                    yield piece

    def _expect(self, start: int) -> None:
        """Ask the system to read what is wanted soon; a file in the cache is no work."""
        if hasattr(mmap, "MADV_WILLNEED") and start < self.start + self.size:
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            self.map.madvise(mmap.MADV_WILLNEED, page, min(_AHEAD, len(self.map) - page))

    def file(self) -> io.RawIOBase:
        """The region as a file to read from."""
        return _RegionFile(self)


class _RegionFile(io.RawIOBase):
    """A file object over a region; h5py reads through `seek` and `readinto`."""

    def __init__(self, region: Region) -> None:
        self._bytes = memoryview(region.map)[region.start : region.start + region.size]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, (0, self._at, len(self._bytes))[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: Any) -> int:
        found = self._bytes[self._at : self._at + len(into)]
        size = len(found)
        into[:size] = found
        self._at += size
        return size


def mapped(path: Path) -> Region:
    """A file's bytes.

    Args:
        path: the file.

    Raises:
        UsageError: there is no such file, it cannot be read, or it is a folder or a device.
        UnknownFormatError: it is empty.
    """
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise UsageError(f"{path}: expected a file, found {what}")
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if not size:
                raise UnknownFormatError(f"{path}: expected a model, found an empty file")
            return Region(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), 0, size)
    except OSError as error:
        raise UsageError(
            f"{path}: expected a readable file, found: {error.strerror or error}"
        ) from None


def unpacked(pieces: Iterable[bytes], *, size: int, where: str) -> Region:
    """Bytes that come in pieces, as a mapped temporary file without a name.

    Args:
        pieces: the bytes.
        size: how many there must be; reading stops beyond it.
        where: what they are called in errors.

    Raises:
        MalformedError: there are more or fewer than announced.
    """
    if not size:
        raise MalformedError(f"{where}: is empty")
    import tempfile

    with tempfile.TemporaryFile() as file:
        written = 0
        for piece in pieces:
            written += len(piece)
            if written > size:
                break
            file.write(piece)
        if written != size:
            more = "more" if written > size else f"{written}"
            raise MalformedError(f"{where}: announces {size} bytes and holds {more}")
        file.flush()
        return Region(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), 0, size)


def buffer(size: int) -> Array:
    """Room for `size` bytes, in a temporary file without a name where they are many."""
    if size <= SPILL:
        return np.empty(size, np.uint8)
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)
