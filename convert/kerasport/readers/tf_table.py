"""The sorted string table that a checkpoint's index is: LevelDB's, with TensorFlow's checksums.

A table is a list of blocks and, at its end, a footer that says where the block is which lists them.
In a block each key is stored as what it adds to the key before it. Keys come sorted; a table whose
keys do not is broken, and one whose keys would take many times the space of the file is hostile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kerasport.errors import MalformedError, UnsupportedError
from kerasport.readers.mapped import Region
from kerasport.readers.tf_crc import crc32c, masked
from kerasport.readers.tf_proto import Buffer, varint

__all__ = ["MAGIC", "entries", "is_table"]

MAGIC: Final = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER: Final = 48
_TRAILER: Final = 5
_LARGE: Final = 1 << 20
_MAX_KEYS: Final = 256 << 20
"""How many bytes the keys of one table may take when they are written out."""


def is_table(region: Region) -> bool:
    """Whether a file ends as such a table does.

    Args:
        region: the file.
    """
    return region.size >= _FOOTER and region.read(region.size - 8, 8) == MAGIC


def entries(region: Region, *, where: str) -> Iterator[tuple[bytes, Buffer]]:
    """Every key with its value, in order.

    Args:
        region: the file.
        where: what it is called in errors.

    Raises:
        MalformedError: it is no such table, truncated, or one of its checksums is wrong.
        UnsupportedError: it is compressed.
    """
    if not is_table(region):
        raise MalformedError(
            f"{where}: expected the index of a checkpoint, which ends in a footer of {_FOOTER} "
            f"bytes; found {region.size} bytes without one. It is truncated, or another file"
        )
    footer = region.read(region.size - _FOOTER, _FOOTER)
    at = 0
    handle = (0, 0)
    for _ in range(2):  # the first one is of a block with statistics, which TensorFlow leaves empty
        handle, at = _handle(footer, at, where=where)
    last: bytes | None = None
    total = 0
    for _, found in _block(region, handle, where=where):
        place, _ = _handle(found, 0, where=where)
        for key, value in _block(region, place, where=where):
            if last is not None and key <= last:
                raise MalformedError(f"{where}: the keys are not in order: {key!r} after {last!r}")
            total += len(key)
            if total > _MAX_KEYS:
                raise MalformedError(f"{where}: the keys take more than {_MAX_KEYS >> 20} MiB")
            last = key
            yield key, value


def _handle(data: Buffer, at: int, *, where: str) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at, len(data), where=where)
    size, at = varint(data, at, len(data), where=where)
    return (offset, size), at


def _block(
    region: Region, handle: tuple[int, int], *, where: str
) -> Iterator[tuple[bytes, Buffer]]:
    """The entries of one block, once its checksum has been found right."""
    offset, size = handle
    if offset + size + _TRAILER > region.size or size < 4:
        raise MalformedError(
            f"{where}: a block of {size} bytes at {offset}, outside of the file's {region.size}"
        )
    start = region.start + offset
    # Small blocks are copied, since Python is quicker with bytes; large ones hold values.
    view = memoryview(region.map)[start : start + size + _TRAILER]
    data: Buffer = view if size > _LARGE else bytes(view)
    stored = int.from_bytes(data[-4:], "little")
    if masked(crc32c(view[:-4])) != stored:
        raise MalformedError(f"{where}: the checksum of the block at {offset} is wrong")
    if data[size]:
        what = "snappy" if data[size] == 1 else f"method {data[size]}"
        raise UnsupportedError(
            f"{where}: the block at {offset} is compressed ({what}), which TensorFlow never does. "
            "Load the checkpoint in TensorFlow and save it again"
        )
    restarts = int.from_bytes(data[size - 4 : size], "little")
    end = size - 4 * (restarts + 1)
    if end < 0:
        raise MalformedError(f"{where}: the block at {offset} announces {restarts} restarts")
    at = 0
    key = b""
    while at < end:
        shared, at = varint(data, at, end, where=where)
        fresh, at = varint(data, at, end, where=where)
        length, at = varint(data, at, end, where=where)
        if shared > len(key) or fresh + length > end - at:
            raise MalformedError(f"{where}: the block at {offset} has an entry that overruns it")
        key = key[:shared] + bytes(data[at : at + fresh])
        at += fresh
        yield key, data[at : at + length]
        at += length
