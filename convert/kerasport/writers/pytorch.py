"""A PyTorch state dict, written without PyTorch, for `torch.load(weights_only=True)`.

A `.pt` is a zip archive of stored members: a pickle that says which tensor lies where, and one
member of raw values per tensor. `torch.save` would need PyTorch and the whole model in memory, and
numbers its files at random. So both are written here: the archive front to back, the values of each
member at a multiple of 64 bytes as `torch.load(mmap=True)` wants them, and the pickle from the
dozen opcodes that a state dict needs. The members are those of `torch.save` without its random
`serialization_id`, and without `.format_version`, a promise about gaps that nothing here needs.

The manifest lies beside it, as `NAME.pt.json`, since every PyTorch reader expects the archive to
hold its own members only.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from kerasport import manifest
from kerasport.errors import VerificationError
from kerasport.model import StateDict, Tensor, dtype_name
from kerasport.writers import staging
from kerasport.writers.staging import Bytes, Flow, Staging

__all__ = ["STORAGES", "UNTYPED", "write"]

# Dtypes with a storage class of their own, as old as PyTorch; and the later ones, which name the
# dtype beside an untyped storage.
STORAGES: Final[Mapping[str, str]] = {
    "bool": "BoolStorage",
    "u8": "ByteStorage",
    "i8": "CharStorage",
    "i16": "ShortStorage",
    "i32": "IntStorage",
    "i64": "LongStorage",
    "f16": "HalfStorage",
    "f32": "FloatStorage",
    "f64": "DoubleStorage",
    "bf16": "BFloat16Storage",
    "c64": "ComplexFloatStorage",
    "c128": "ComplexDoubleStorage",
}
UNTYPED: Final[Mapping[str, str]] = {
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "f8_e4m3fn": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
}
_ALIGNMENT: Final = 64
# From here on, sizes and offsets are written in the extended fields of zip64.
_ZIP64: int = 0xFFFFFFFF
_MANY: Final = 0xFFFF
# Up to this size the checksum is taken before the values are written.
_SMALL: Final = 64 << 10
_DATE: Final = 0x21  # 1 January 1980, the first day that a zip archive knows


def write(state: StateDict, path: Path, *, max_shard_size: int | None = None) -> tuple[Path, ...]:
    """Write tensors as a PyTorch archive, and their manifest as `NAME.json` beside it.

    >>> import tempfile, numpy as np
    >>> state = StateDict("torch", {"b": Tensor.of("b", np.zeros(2, np.float32))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in write(state, Path(folder, "model.pt"))]
    ['model.pt', 'model.pt.json']

    Args:
        state: the tensors.
        path: the archive to write.
        max_shard_size: must be None; a PyTorch archive is one file.

    Returns:
        The files written, the archive first.

    Raises:
        UnsupportedError: a dtype that PyTorch lacks.
        UsageError: the target cannot be written, or a shard size is given.
        VerificationError: what was written does not read back.
    """
    staging.refuse_shards(max_shard_size, target="a PyTorch archive")
    staging.supported(state, [*STORAGES, *UNTYPED], target="PyTorch")
    with Staging(path) as staged:
        archive = _Archive()
        with staged.flow(path, state.values(), also=archive.sum_up) as flow:
            archive.begin(flow)
            archive.add(b"archive/data.pkl", _pickle(state.tensors, state.aliases))
            archive.add(b"archive/byteorder", b"little")
            for number, tensor in enumerate(state.values()):
                archive.values(b"archive/data/%d" % number, tensor)
            archive.add(b"archive/version", b"3\n")
        archive.finish(flow)
        text = manifest.text(state, flow.hashes)
        staged.open(path.with_name(f"{path.name}.json")).write(text.encode() + b"\n")
        _check_members(staged.reopen(path), archive.members, where=path)
        return staged.publish()


class _Member(NamedTuple):
    name: bytes
    crc: int
    size: int
    header: int


class _Archive:
    """A zip archive of stored, aligned members, written front to back."""

    def __init__(self) -> None:
        self.members: list[_Member] = []
        self._sums: dict[str, int] = {}
        self._places: dict[str, int] = {}

    def begin(self, flow: Flow) -> None:
        """Take the file to write to."""
        self._flow = flow

    def add(self, name: bytes, content: bytes) -> None:
        """Write one small member."""
        self._head(name, len(content), zlib.crc32(content))
        self._flow.put(content)

    def values(self, name: bytes, tensor: Tensor) -> None:
        """Write a tensor's values as a member."""
        if tensor.nbytes > min(_SMALL, staging.SLAB) or staging.foreign(tensor.dtype):
            # The checksum is known when the values have flowed.
            self._places[tensor.name] = len(self.members)
            self._head(name, tensor.nbytes, 0)
            self._flow.values(tensor)
            return
        if tensor.fill is None:
            held = tensor.flat()
        else:
            held = np.empty(tensor.size, tensor.dtype)
            tensor.fill(0, tensor.size, held)
        self._head(name, tensor.nbytes, zlib.crc32(held.view(np.uint8).data))
        self._flow.values(replace(tensor, load=lambda: held, fill=None))

    def sum_up(self, name: str, block: Bytes) -> None:
        """Take the checksum of a tensor further."""
        if name in self._places:
            self._sums[name] = zlib.crc32(block.data, self._sums.get(name, 0))

    def finish(self, flow: Flow) -> None:
        """Write the checksums that were not known beforehand, then the directory."""
        for name, place in self._places.items():
            member = self.members[place]._replace(crc=self._sums[name])
            self.members[place] = member
            flow.patch(member.header + 14, struct.pack("<I", member.crc))
        directory = b"".join(map(_central, self.members))
        end = _end(len(self.members), start=flow.offset, size=len(directory))
        flow.patch(flow.offset, directory + end)

    def _head(self, name: bytes, size: int, crc: int) -> None:
        large = size >= _ZIP64
        extra = struct.pack("<2H2Q", 1, 16, size, size) if large else b""
        # The filler is an extra field too, of four bytes at least, as in PyTorch's own archives.
        end = self._flow.offset + 30 + len(name) + len(extra) + 4
        filler = staging.pad(end, _ALIGNMENT)
        extra += b"FB" + struct.pack("<H", filler) + b"Z" * filler
        shown = 0xFFFFFFFF if large else size
        self.members.append(_Member(name, crc, size, self._flow.offset))
        self._flow.put(
            struct.pack(
                "<4s5H3I2H",
                b"PK\3\4",
                45 if large else 20,
                0,
                0,
                0,
                _DATE,
                crc,
                shown,
                shown,
                len(name),
                len(extra),
            )
            + name
            + extra
        )


def _central(member: _Member) -> bytes:
    wide: list[int] = []
    size, header = member.size, member.header
    if size >= _ZIP64:
        wide += [size, size]
        size = 0xFFFFFFFF
    if header >= _ZIP64:
        wide.append(header)
        header = 0xFFFFFFFF
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    needs = 45 if wide else 20
    fields = (needs, needs, 0, 0, 0, _DATE, member.crc, size, size, len(member.name), len(extra))
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", *fields, 0, 0, 0, 0, header) + member.name + extra


def _end(count: int, *, start: int, size: int) -> bytes:
    wide = b""
    if count >= _MANY or start >= _ZIP64 or size >= _ZIP64:
        fields = (44, 45, 45, 0, 0, count, count, size, start)
        wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", *fields)
        wide += struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
        count, size, start = _MANY, 0xFFFFFFFF, 0xFFFFFFFF
    return wide + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, start, 0)


def _check_members(file: BinaryIO, members: Iterable[_Member], *, where: Path) -> None:
    """Read the directory with another reader than our writer, and compare."""
    with zipfile.ZipFile(file) as archive:
        found = [
            (info.filename.encode(), info.CRC, info.file_size, info.header_offset)
            for info in archive.infolist()
        ]
    if found != [tuple(member) for member in members]:
        raise VerificationError(
            f"{where}: the archive's directory does not read back; nothing was changed"
        )


def _pickle(tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> bytes:
    """An `OrderedDict` of tensors, as `torch.save` pickles it.

    A tensor of several names stands under each of them and shares its storage with itself: PyTorch
    reads one tensor, and a module whose parameters are tied loads it as it loads its own.
    """
    memo: dict[bytes, int] = {}
    places = {name: number for number, name in enumerate(tensors)}
    named = [(name, number, tensors[name]) for name, number in places.items()]
    named += [
        (alias, places[name], tensors[name])
        for alias, name in aliases.items()
        if name in places and alias not in places
    ]
    return b"".join(_opcodes(named, memo))


def _opcodes(tensors: Iterable[tuple[str, int, Tensor]], memo: dict[bytes, int]) -> Iterator[bytes]:
    def once(opcodes: bytes) -> bytes:
        """The first time the opcodes, afterwards a reference to what they made."""
        if opcodes in memo:
            return b"h%c" % memo[opcodes]
        memo[opcodes] = len(memo)
        return opcodes + b"q%c" % memo[opcodes]

    ordered = _global("collections OrderedDict")
    yield b"\x80\x02" + once(ordered) + b")R("
    for name, number, tensor in tensors:
        dtype = dtype_name(tensor.dtype)
        storage = _global(f"torch {STORAGES[dtype]}" if dtype in STORAGES else _UNTYPED_STORAGE)
        numel = tensor.size if dtype in STORAGES else tensor.nbytes
        yield _text(name)
        yield once(_global(_TYPED_TENSOR if dtype in STORAGES else _UNTYPED_TENSOR))
        yield b"((" + once(_text("storage")) + once(storage) + _text(str(number))
        yield once(_text("cpu")) + _number(numel) + b"tQ"
        yield _number(0) + _tuple(tensor.shape) + _tuple(_strides(tensor.shape))
        yield b"\x89" + once(ordered) + b")R"
        if dtype in UNTYPED:
            yield once(_global(f"torch {UNTYPED[dtype]}"))
        yield b"tR"
    yield b"u."


_UNTYPED_STORAGE: Final = "torch.storage UntypedStorage"
_TYPED_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
_UNTYPED_TENSOR: Final = "torch._utils _rebuild_tensor_v3"


def _global(name: str) -> bytes:
    module, _, attribute = name.partition(" ")
    return f"c{module}\n{attribute}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(number: int) -> bytes:
    if number < 1 << 8:
        return struct.pack("<cB", b"K", number)
    if number < 1 << 31:
        return struct.pack("<ci", b"J", number)
    return struct.pack("<cBq", b"\x8a", 8, number)


def _tuple(numbers: tuple[int, ...]) -> bytes:
    if not numbers:
        return b")"
    return b"(" + b"".join(map(_number, numbers)) + b"t"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))
