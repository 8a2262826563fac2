"""A checkpoint's tensors: an index of names, and files of bytes that the index points into.

This format, V2, is what TensorFlow has written since 2016: `PREFIX.index`, and as many data files
as `PREFIX.data-00000-of-00001` says. The index is read whole and its checksums are checked. Tensors
stay where they are, as views of the mapped files; the first time that the values of one are asked
for, its checksum is checked too, which costs about half a second a gigabyte. A variable that was
partitioned is put together from its slices when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kerasport.errors import MalformedError, UnsupportedError, UsageError
from kerasport.model import Tensor
from kerasport.readers.mapped import Region, mapped
from kerasport.readers.tf_crc import crc32c, masked
from kerasport.readers.tf_messages import (
    BUNDLE_ENTRY,
    BUNDLE_HEADER,
    DTYPES,
    STRING,
    numpy_dtype,
    shape_of,
)
from kerasport.readers.tf_proto import Buffer, Message, decode, varint
from kerasport.readers.tf_slices import box_of, check_cover, joined, slice_key, words_of
from kerasport.readers.tf_table import entries

__all__ = ["MAX_SHARDS", "OBJECT", "Bundle", "Entry", "bundle"]

Array = npt.NDArray[Any]

OBJECT: Final = np.dtype(object)
"""The dtype of what is no number: texts, and resources, which have no values."""

MAX_SHARDS: Final = 100_000
_BIG_ENDIAN: Final = 1


class Entry(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        name: what the checkpoint calls it.
        dtype: its dtype; `OBJECT` where it is no number.
        kind: TensorFlow's name for its dtype.
        shape: its extents.
        load: gives its values.
        crc: what tells equal values without reading them: the checksums of its parts.
    """

    name: str
    dtype: np.dtype[Any]
    kind: str
    shape: tuple[int, ...]
    load: Callable[[], Array]
    crc: tuple[int, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers of a dtype that tensors can have."""
        return self.dtype is not OBJECT

    @property
    def why_not(self) -> str:
        """Why its values are no weights, where they are no numbers."""
        if self.kind == "string":
            return "text, not numbers"
        if self.kind in ("resource", "variant"):
            return f"a {self.kind}, which has no values of its own"
        return f"numbers of dtype {self.kind}, which no other format has"

    def tensor(self, name: str, *, trainable: bool | None = None) -> Tensor:
        """The entry as a tensor of a model.

        Args:
            name: what it is called there.
            trainable: whether it is trained, where that is known.
        """
        return Tensor(
            name, self.dtype, self.shape, self.load, trainable=trainable, stored=self.name
        )


@dataclass(frozen=True, eq=False)
class Bundle:
    """The tensors of one checkpoint by name, sorted, and the bytes of its files.

    Attributes:
        entries: every tensor; the slices of partitioned ones are not counted.
        regions: its files.
    """

    entries: Mapping[str, Entry]
    regions: Sequence[Region]

    @property
    def nbytes(self) -> int:
        """How many bytes its files take."""
        return sum(region.size for region in self.regions)

    def content(self) -> Iterator[memoryview]:
        """All bytes of all files."""
        for region in self.regions:
            yield from region.content()

    def text(self, name: str) -> bytes | None:
        """The value of a scalar that is text; None where there is none of that name.

        Args:
            name: what the checkpoint calls it.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry.kind != "string" or entry.shape:
            raise MalformedError(f"{name}: expected one text, found {entry.kind}{entry.shape}")
        found: bytes = entry.load().item()
        return found


@dataclass(eq=False)
class _Reader:
    """Reads the entries of one index, and maps the data files as they are needed."""

    index: Path
    shards: int = 1
    regions: dict[int, Region | None] = field(default_factory=dict)
    checked: set[tuple[int, int, int]] = field(default_factory=set)

    def region(self, shard: int, *, where: str) -> Region | None:
        """One data file; None where it is empty."""
        if not 0 <= shard < self.shards:
            raise MalformedError(
                f"{where}: is in data file {shard}, and there are {self.shards} of them"
            )
        if shard not in self.regions:
            path = _shard(self.index, shard, self.shards)
            if not path.is_file():
                raise UsageError(
                    f"{self.index}: expected the data file {path.name} beside it, found "
                    "none. Without it there are no values"
                )
            self.regions[shard] = mapped(path) if path.stat().st_size else None
        return self.regions[shard]

    def entry(self, name: str, message: Message, whole: Mapping[bytes, Buffer]) -> Entry:
        """One tensor, whose every offset and size has been found to fit."""
        number = message["dtype"]
        dtype = numpy_dtype(number, where=name)
        shape = shape_of(message["shape"], where=name)
        kind = DTYPES[number]
        if message["slices"]:
            if dtype is None:
                raise MalformedError(f"{name}: a tensor of {kind} cannot be partitioned")
            return self.partitioned(name, message, whole, dtype=dtype, shape=shape)
        where = f"{self.index.name}: {name}"
        offset, size, stored = (message[key] or 0 for key in ("offset", "size", "crc32c"))
        region = self.region(message["shard_id"] or 0, where=where)
        held = region.size if region is not None else 0
        if offset < 0 or size < 0 or offset + size > held:
            raise MalformedError(
                f"{where}: {size} bytes at {offset}, outside of the data file's {held}"
            )
        if dtype is not None and size != math.prod(shape) * dtype.itemsize:
            raise MalformedError(
                f"{where}: {size} bytes cannot be {kind}{list(shape)}, which takes "
                f"{math.prod(shape) * dtype.itemsize}"
            )
        if number == STRING and size < math.prod(shape):
            raise MalformedError(f"{where}: {size} bytes cannot be {math.prod(shape)} texts")
        part = region.part(offset, size) if region is not None else None

        def load() -> Array:
            if number == STRING:
                return _texts(part, shape, stored, where=where)
            if dtype is None:
                raise UnsupportedError(f"{where}: {kind} has no values that can be read")
            if part is None or not size:
                return np.empty(shape, dtype)
            if (place := (part.start, size, id(part.map))) not in self.checked:
                _check(part, stored, where=where)
                self.checked.add(place)
            return part.array(0, dtype=dtype, count=math.prod(shape)).reshape(shape)

        return Entry(name, OBJECT if dtype is None else dtype, kind, shape, load, (stored,))

    def partitioned(
        self,
        name: str,
        message: Message,
        whole: Mapping[bytes, Buffer],
        *,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> Entry:
        """A tensor that is put together from its slices."""
        boxes = [box_of(part, shape, where=name) for part in message["slices"]]
        check_cover(boxes, shape, where=name)
        parts: list[Entry] = []
        for part, box in zip(message["slices"], boxes, strict=True):
            found = whole.get(slice_key(name, part))
            if found is None:
                raise MalformedError(f"{name}: lists a slice {words_of(box)} and does not hold it")
            entry = self.entry(
                f"{name}{words_of(box)}", decode(found, BUNDLE_ENTRY, where=name), whole={}
            )
            if entry.dtype != dtype or entry.shape != tuple(s.stop - s.start for s in box):
                raise MalformedError(
                    f"{name}: the slice {words_of(box)} is {entry.kind}{list(entry.shape)}"
                )
            parts.append(entry)
        loads = [(box, part.load) for box, part in zip(boxes, parts, strict=True)]
        crc = tuple(crc for part in parts for crc in part.crc)
        return Entry(name, dtype, DTYPES[message["dtype"]], shape, joined(loads, dtype, shape), crc)


def bundle(path: Path) -> Bundle:
    """The tensors of a checkpoint of format V2. Reads the index and no values.

    Args:
        path: its index, beside which its data files are.

    Raises:
        UsageError: a file is missing.
        MalformedError: the index is broken or hostile, or points outside of the data.
        UnsupportedError: it was written by a newer format, or on a big-endian machine.
    """
    index = mapped(path)
    where = path.name
    header: Message | None = None
    found: dict[bytes, Buffer] = {}
    for key, value in entries(index, where=where):
        if key == b"":
            header = decode(value, BUNDLE_HEADER, where=where)
        else:
            found[key] = value
    if header is None:
        raise MalformedError(f"{where}: expected the header of a checkpoint, found none")
    reader = _Reader(path, _shards(header, where=where))
    named: dict[str, Entry] = {}
    for raw, value in found.items():
        if raw.startswith(b"\0"):
            continue  # a slice; the tensor that it is part of knows it
        name = raw.decode("utf-8", "backslashreplace")
        named[name] = reader.entry(name, decode(value, BUNDLE_ENTRY, where=name), found)
    data = [region for _, region in sorted(reader.regions.items()) if region is not None]
    return Bundle(named, [index, *data])


def _shards(header: Message, *, where: str) -> int:
    """The number of data files that a header announces."""
    version = header["version"] or {}
    if (version.get("min_consumer") or 0) > 1:
        raise UnsupportedError(
            f"{where}: expected a checkpoint that readers of version 1 understand, found one for "
            f"version {version['min_consumer']}"
        )
    if header["endianness"] == _BIG_ENDIAN:
        raise UnsupportedError(
            f"{where}: expected numbers with the lowest byte first, found a checkpoint of a "
            "big-endian machine. Load it in TensorFlow and save it again"
        )
    shards = header["num_shards"] or 0
    if not 0 < shards <= MAX_SHARDS:
        raise MalformedError(f"{where}: announces {shards} data files")
    return shards


def _shard(index: Path, shard: int, shards: int) -> Path:
    prefix = index.name.removesuffix(".index")
    return index.with_name(f"{prefix}.data-{shard:05d}-of-{shards:05d}")


def _check(part: Region, stored: int, *, where: str) -> None:
    found = masked(crc32c(part.array(0, dtype=np.dtype(np.uint8), count=part.size)))
    if found != stored:
        raise MalformedError(
            f"{where}: the checksum of the values is {found:08x}, and the index says {stored:08x}"
        )


def _texts(part: Region | None, shape: tuple[int, ...], stored: int, *, where: str) -> Array:
    """Texts: all their lengths, a checksum of the lengths, then all their bytes."""
    count = math.prod(shape)
    array = np.empty(count, OBJECT)
    if part is None:
        return array.reshape(shape)
    data = part.read(0, part.size)
    lengths = []
    at = 0
    for _ in range(count):
        length, at = varint(data, at, len(data), where=where)
        lengths.append(length)
    fixed = b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths)
    guard = data[at : at + 4]
    at += 4
    if at + sum(lengths) != len(data) or masked(crc32c(fixed)) != int.from_bytes(guard, "little"):
        raise MalformedError(f"{where}: the lengths of the texts are not what they were")
    if masked(crc32c(fixed + guard + data[at:])) != stored:
        raise MalformedError(f"{where}: the checksum of the texts is wrong")
    for number, length in enumerate(lengths):
        array[number] = data[at : at + length]
        at += length
    return array.reshape(shape)
