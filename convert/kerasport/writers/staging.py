"""Files appear whole or not at all, and not before they were read again.

A conversion that dies half-way must leave the user's old file as it was. So each file is written to
a hidden sibling, the staged siblings are read again and compared with the hashes taken while
writing, and only then do they take their names, in the order in which they were opened: the one
that points to the others is opened last. If a later one cannot take its name, the earlier ones give
theirs back.

A conversion should cost what a copy costs, and hashing alone costs that much again. So the values
of one file are a `Flow`: they are put together in a buffer of a few megabytes, which goes from one
thread to the next, each doing one thing while its bytes are in the cache: written to the file, read
again from there and compared, hashed. Meanwhile the next buffer is filled. NumPy, BLAKE3, the C
library and the system all work without Python's lock, so two cores are kept busy, and nothing is
read twice from memory that was read once. What stays as it is stored is not even put into a buffer:
it is written from where its source is mapped, which costs half of what `copy_file_range` and
`sendfile` do. The file gets its room beforehand: pages of a file whose place on the disk is known
cost half as much to write.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from kerasport import manifest
from kerasport.errors import KerasportError, UnsupportedError, UsageError, VerificationError
from kerasport.model import StateDict, Tensor, dtype_name

__all__ = [
    "Flow",
    "Staging",
    "compare",
    "declared",
    "digests",
    "foreign",
    "pad",
    "refuse_shards",
    "reserve",
    "room",
    "supported",
]

Bytes = npt.NDArray[np.uint8]
# How many bytes are written, read again and hashed at a time: few enough to stay in the cache.
SLAB: int = 4 << 20
# A buffer is filled while others are written, read again and hashed.
_BUFFERS: Final = 4
# A slab should hold this many rows of a tensor, so that a transposition reads so many neighbours at
# a time; a buffer grows for long rows, up to a limit.
_ROWS: Final = 384
_LONG: Final = 32 << 10
_LARGEST: Final = 16 << 20
# From this size on a tensor is worth a buffer that is aligned to its elements.
_LARGE: Final = 64 << 10
# From this size on what stays as it is goes past the buffers, straight from the source's pages.
_LENT: Final = 1 << 20
# How much is written at a time.
_STEP: Final = 256 << 10
# NumPy compares numbers, which it copies first where they lie at odd places; C compares bytes.
_C: Final = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
_C.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
# What a full disk, a quota, a read-only or forbidden place say. Any other OSError is not ours.
_DISK: Final = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)


class Staging:
    """The files of one target on their way to their names.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Staging(Path(folder, "model.bin")) as staging:
    ...         _ = staging.open(Path(folder, "model.bin")).write(b"weights")
    ...         _ = staging.publish()
    ...     Path(folder, "model.bin").read_bytes()
    b'weights'
    """

    def __init__(self, target: Path, *, make_folder: bool = False) -> None:
        """Check that `target` can be a file.

        Args:
            target: the file, or the first of them.
            make_folder: whether the folder that all files are in is part of the target: where it
                is not there, it appears with them, and not without.

        Raises:
            UsageError: its folder does not exist, or it is a folder itself.
        """
        folder = target.parent
        made = make_folder and not folder.exists() and folder.parent.is_dir()
        self._made = folder if made else None
        if self._made is None and not folder.is_dir():
            raise UsageError(
                f"{target}: expected a folder to write to, found none. Make the folder first"
            )
        if target.is_dir():
            raise UsageError(f"{target}: expected the name of a file, found a folder. Name a file")
        self._target = target
        self._staged: dict[Path, Path] = {}
        self._files: dict[Path, BinaryIO] = {}

    def __enter__(self) -> Staging:
        return self

    def open(self, target: Path) -> BinaryIO:
        """A new file, for writing and reading, that will be named `target`."""
        beside = self._made if target.parent == self._made else target
        part = beside.with_name(f".kerasport-{os.urandom(8).hex()}.part")
        file = part.open("x+b")  # closed by `reopen` or by `__exit__`
        self._staged[target], self._files[target] = part, file
        return file

    def flow(
        self,
        target: Path,
        tensors: Iterable[Tensor],
        *,
        start: int = 0,
        also: Callable[[str, Bytes], object] | None = None,
    ) -> Flow:
        """A new file that will be named `target`, as a `Flow` into it from `start` on."""
        return Flow(self.open(target), tensors, where=target, start=start, also=also)

    def reopen(self, target: Path) -> BinaryIO:
        """What was written for `target`, opened anew for reading; no more can be written."""
        self._files[target].close()
        self._files[target] = file = self._staged[target].open("rb")
        return file

    def part(self, target: Path) -> Path:
        """Where the file that will be named `target` is until then."""
        return self._staged[target]

    def publish(self, *, stale: Iterable[Path] = ()) -> tuple[Path, ...]:
        """Give the files their names, then remove what an earlier write left under other names.

        Raises:
            UsageError: a file cannot take its name; the old ones are back in place.
        """
        self._close()
        targets = tuple(self._staged)
        undo: list[Callable[[], object]] = []
        aside: list[Path] = []
        try:
            if self._made is not None:
                self._made.mkdir()
                undo.append(self._made.rmdir)
            for target in targets[:-1]:
                if target.exists():
                    old = target.with_name(f".kerasport-{os.urandom(8).hex()}.old")
                    _keep(target, old)
                    aside.append(old)
                    undo.append(_mover(old, target))
                    self._staged[target].replace(target)
                else:
                    self._staged[target].replace(target)
                    undo.append(target.unlink)
            self._staged[targets[-1]].replace(targets[-1])
        except BaseException:
            for step in reversed(undo):
                with suppress(OSError):
                    step()
            raise
        self._staged.clear()
        for leftover in (*aside, *(path for path in stale if path not in targets)):
            leftover.unlink(missing_ok=True)
        return targets

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # what cannot be flushed is thrown away anyway
            self._close()
        for part in self._staged.values():
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _DISK:
            raise UsageError(
                f"{self._target}: expected a place that can be written, found: "
                f"{error.strerror}. Nothing was changed; free space or choose another place"
            ) from error

    def _close(self) -> None:
        files, self._files = self._files, {}
        failure: OSError | None = None
        for file in files.values():
            try:
                file.close()
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure


def _keep(target: Path, old: Path) -> None:
    """Give a file a second name, or a new one where the file system has no hard links."""
    try:
        old.hardlink_to(target)
    except OSError:
        target.replace(old)


def _mover(old: Path, new: Path) -> Callable[[], object]:
    def move() -> None:
        old.replace(new)
        # A rename onto another name of the same file does nothing at all.
        old.unlink(missing_ok=True)

    return move


def room(size: int) -> Bytes:
    """Memory for so many bytes, which the system has back as soon as it is let go.

    What is freed otherwise may stay with the process, and threads keep theirs apart: a conversion
    would grow by what its threads have ever held.
    """
    if size < mmap.PAGESIZE or not hasattr(mmap, "MAP_PRIVATE"):
        return np.empty(size, np.uint8)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = mmap.mmap(-1, size, flags=private)
    if size >= SLAB and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system that has none
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def digests(tensors: Iterable[Tensor]) -> dict[str, str]:
    """The content hash of each tensor, by name; one slab is hashed while the next one is made."""
    tensors = list(tensors)
    with Flow(None, tensors) as flow:
        for tensor in tensors:
            flow.values(tensor)
    return flow.hashes


@dataclass(slots=True)
class _Piece:
    """A stretch of a buffer that holds values of one tensor."""

    tensor: Tensor
    start: int
    stop: int
    last: bool


@dataclass(slots=True)
class _Buffer:
    """A buffer on its way: what it holds, and where in the file that belongs.

    It may hold no bytes of its own and show those of a source instead, which are `lent`.
    """

    room: Bytes
    offset: int
    size: int = 0
    pieces: list[_Piece] = field(default_factory=list)
    lent: Bytes | None = None

    @property
    def content(self) -> Bytes:
        return self.room[: self.size] if self.lent is None else self.lent


class _Lane(Thread):
    """A thread that does one thing to every buffer, in order, and passes it on."""

    def __init__(self, work: Callable[[_Buffer], None], then: SimpleQueue[_Buffer | None]) -> None:
        super().__init__(daemon=True)
        self.buffers: SimpleQueue[_Buffer | None] = SimpleQueue()
        self.error: BaseException | None = None
        self._work = work
        self._then = then
        self.start()

    def run(self) -> None:
        while (buffer := self.buffers.get()) is not None:
            if self.error is None:
                try:
                    self._work(buffer)
                except BaseException as error:  # raised again where the flow is used
                    self.error = error
            self._then.put(buffer)


class Flow:
    """The values of one file on their way there, front to back.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     with Flow(file, []) as flow:
    ...         flow.put(b"head")
    ...         flow.values(Tensor.of("b", np.zeros(2, np.float32)))
    ...     file.seek(0), len(file.read()), flow.offset, list(flow.hashes)
    (0, 12, 12, ['b'])

    Attributes:
        offset: where in the file the next byte belongs.
        hashes: the content hash of each tensor by name, complete when the flow has ended.
    """

    def __init__(
        self,
        file: BinaryIO | None,
        tensors: Iterable[Tensor],
        *,
        where: Path = Path(),
        start: int = 0,
        also: Callable[[str, Bytes], object] | None = None,
    ) -> None:
        """Make room.

        Args:
            file: where the bytes go; None to hash them only.
            tensors: those that will come, for the size of the file and of the buffers.
            where: what the file is called in errors.
            start: where in the file the first byte belongs.
            also: is shown the values of every tensor, with its name, in a thread of its own.
        """
        self.offset = start
        self.hashes: dict[str, str] = {}
        self._file = file
        self._where = where
        self._also = also
        self._open: dict[str, manifest.Hasher] = {}
        self._capacity, total = SLAB, start
        for tensor in tensors:
            self._capacity = max(self._capacity, _best(tensor))
            total += tensor.nbytes
        self._reserved = total if file is not None and reserve(file, total) else 0
        self._lanes: list[_Lane] = []
        self._free: SimpleQueue[_Buffer | None] = SimpleQueue()
        self._made = 0
        self._filling: _Buffer | None = None

    def __enter__(self) -> Flow:
        return self

    def put(self, content: bytes) -> None:
        """The next bytes, which are no tensor's."""
        for start in range(0, len(content), self._capacity):
            part = content[start : start + self._capacity]
            self._room(len(part))[:] = np.frombuffer(part, np.uint8)

    def values(self, tensor: Tensor) -> None:
        """The next bytes are a tensor's: C order, little endian.

        Raises:
            KerasportError: the tensor gives other values than it declares; a reader's bug.
        """
        flat = None if tensor.fill else declared(tensor)
        if flat is not None and flat.nbytes >= _LENT and not foreign(tensor.dtype):
            self._lend(tensor, flat)
            return
        width, size = tensor.dtype.itemsize, tensor.size
        aligned = self._filling is None or tensor.nbytes < _LARGE or not self._filling.size % width
        if self._filling is not None and (tensor.nbytes > self._left or not aligned):
            self._pass_on()
        step = _whole_rows(tensor, max(1, self._capacity // width))
        for start in range(0, size, step) if size else (0,):
            stop = min(start + step, size)
            room = self._room((stop - start) * width)
            if flat is not None:
                room[:] = flat[start:stop].view(np.uint8)
            elif size and tensor.fill is not None:
                tensor.fill(start, stop, room.view(tensor.dtype))
            if foreign(tensor.dtype):
                room.view(tensor.dtype).byteswap(inplace=True)
            assert self._filling is not None
            end = self._filling.size
            self._filling.pieces.append(_Piece(tensor, end - room.size, end, stop == size))
            if tensor.watch is not None:
                tensor.watch(room.size)

    def _lend(self, tensor: Tensor, flat: npt.NDArray[Any]) -> None:
        """The next bytes are these values, as they are."""
        if self._filling is not None:
            self._pass_on()
        content = flat.view(np.uint8)
        for start in range(0, content.size, SLAB):
            lent = content[start : start + SLAB]
            lent[:: mmap.PAGESIZE].max()  # its pages come in here, and not where it is written
            self._filling = self._next()
            self._filling.size, self._filling.lent = lent.size, lent
            last = start + SLAB >= content.size
            self._filling.pieces.append(_Piece(tensor, 0, lent.size, last))
            self.offset += lent.size
            self._pass_on()
            if tensor.watch is not None:
                tensor.watch(lent.size)

    def patch(self, offset: int, content: bytes) -> None:
        """Bytes that follow from the hashes, where room was left or behind the end of a flow."""
        assert self._file is not None
        self._file.seek(offset)
        self._file.write(content)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._filling is not None:
            if self._lanes:
                self._pass_on()
            else:  # all of it fits one buffer: not worth a thread
                for work in self._works():
                    work(self._filling)
        for lane in self._lanes:
            if error is not None and lane.error is None:
                lane.error = error  # nothing more needs to be done
        for lane in self._lanes:
            lane.buffers.put(None)
            lane.join()
        if error is None:
            self._check()
            if self._file is not None and self._reserved > self.offset:
                self._file.truncate(self.offset)

    @property
    def _left(self) -> int:
        return 0 if self._filling is None else len(self._filling.room) - self._filling.size

    def _works(self) -> list[Callable[[_Buffer], None]]:
        works: list[Callable[[_Buffer], None]] = []
        if self._file is not None:
            works += [self._write, self._read_again]
        return [*works, self._hash, *([] if self._also is None else [self._show])]

    def _room(self, size: int) -> Bytes:
        """Room for the next bytes, in the buffer that is being filled or in a new one."""
        if size > self._left and self._filling is not None and self._filling.size:
            self._pass_on()
        if self._filling is None:
            self._filling = self._next()
        start = self._filling.size
        self._filling.size += size
        self.offset += size
        return self._filling.room[start : start + size]

    def _next(self) -> _Buffer:
        if self._made < _BUFFERS:
            self._made += 1
            return _Buffer(room(self._capacity), self.offset)
        used = self._free.get()
        assert used is not None
        self._check()
        return _Buffer(used.room, self.offset)

    def _pass_on(self) -> None:
        """Give the buffer to the first thread; start the threads if it is the first buffer."""
        if not self._lanes:
            then = self._free
            for work in reversed(self._works()):
                self._lanes.insert(0, _Lane(work, then))
                then = self._lanes[0].buffers
        self._check()
        self._lanes[0].buffers.put(self._filling)
        self._filling = None

    def _check(self) -> None:
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error

    def _write(self, buffer: _Buffer) -> None:
        assert self._file is not None
        put_at(self._file, buffer.content, buffer.offset)

    def _read_again(self, buffer: _Buffer) -> None:
        """Compare a buffer with the file, through a map of it: nothing is copied.

        Raises:
            VerificationError: the file holds something else.
        """
        assert self._file is not None
        if not buffer.size:
            return
        page = buffer.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        size = buffer.offset + buffer.size - page
        problem = VerificationError(f"{self._where}: does not read back; nothing was changed")
        try:
            pages = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=page)
        except ValueError:  # the file is shorter than what was written to it
            raise problem from None
        found = np.frombuffer(pages, np.uint8)[buffer.offset - page :]
        if _equal(found, buffer.content):
            if buffer.lent is not None:
                # The hash is to tell of the target, whatever becomes of the source meanwhile.
                buffer.lent = found
            return
        for piece in buffer.pieces:
            hashes = []
            for content in (buffer.content, found):
                hasher = manifest.hasher()
                hasher.update(content[piece.start : piece.stop])
                hashes.append(hasher.hexdigest())
            compare(piece.tensor.name, *hashes, where=self._where)
        raise problem

    def _hash(self, buffer: _Buffer) -> None:
        for piece in buffer.pieces:
            name = piece.tensor.name
            hasher = self._open.pop(name, None) or manifest.hasher()
            hasher.update(buffer.content[piece.start : piece.stop])
            if piece.last:
                self.hashes[name] = hasher.hexdigest()
            else:
                self._open[name] = hasher

    def _show(self, buffer: _Buffer) -> None:
        assert self._also is not None
        for piece in buffer.pieces:
            self._also(piece.tensor.name, buffer.content[piece.start : piece.stop])


def _best(tensor: Tensor) -> int:
    """The size of buffer that suits a tensor with long rows."""
    if len(tensor.shape) < 2 or tensor.fill is None:
        return 0
    row = tensor.nbytes // max(1, tensor.shape[0])
    return min(_ROWS * row, _LARGEST) if row > _LONG else 0


def _whole_rows(tensor: Tensor, step: int) -> int:
    """At most so many elements, cut between two rows if a row is not longer than that."""
    row = tensor.size // max(1, tensor.shape[0]) if tensor.shape else 1
    return step // row * row if 0 < row <= step else step


def reserve(file: BinaryIO, size: int) -> bool:
    """Make room for a file, where the system can."""
    if not size or not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in _DISK:
            raise
        return False  # this file system cannot
    return True


def put_at(file: BinaryIO, content: Bytes, offset: int) -> None:
    """Write bytes at a place, a few pages at a time.

    What is written in one call is kept by the system in pages as large as that, for which a machine
    that lends its free memory out has to ask for it back: ten times as slow, where that happens.
    """
    file.seek(offset)
    for start in range(0, content.size, _STEP):
        file.write(content[start : start + _STEP].data)
    file.flush()


def _equal(left: Bytes, right: Bytes) -> bool:
    """Whether two contiguous stretches hold the same bytes."""
    return (
        left.size == right.size and _C.memcmp(left.ctypes.data, right.ctypes.data, left.size) == 0
    )


def foreign(dtype: np.dtype[Any]) -> bool:
    """True where the values lie in memory in another byte order than in every target."""
    return dtype.byteorder == ">" or (sys.byteorder == "big" and dtype.byteorder == "=")


def declared(tensor: Tensor) -> npt.NDArray[Any]:
    """The values of a tensor, if they are what it declares."""
    flat = tensor.flat()
    if flat.dtype != tensor.dtype:
        raise KerasportError(f"{tensor.name}: declared {tensor.spec}, gives {flat.dtype}")
    if flat.size != tensor.size:
        raise KerasportError(f"{tensor.name}: declared {tensor.spec}, gives {flat.size} elements")
    return flat


def compare(name: str, written: str, found: str, *, where: Path) -> None:
    """Refuse a tensor whose hash is not the one that was written.

    Raises:
        VerificationError: the hashes differ.
    """
    if written != found:
        raise VerificationError(
            f"{where}: {name}: expected the hash {written[:16]}…, found {found[:16]}… after "
            "writing. Disk or memory is at fault, or the source changed; nothing was replaced"
        )


def supported(state: StateDict, names: Iterable[str], *, target: str) -> None:
    """Refuse tensors whose dtype the target has no name for, all at once.

    Raises:
        UnsupportedError: at least one is not among `names`.
    """
    known = frozenset(names)
    problems = [
        f"{tensor.name}: {tensor.spec}"
        for tensor in state.values()
        if dtype_name(tensor.dtype) not in known
    ]
    if problems:
        raise UnsupportedError(
            f"{target} cannot hold these dtypes. Cast them with --dtype, "
            "or write Parquet or Arrow, which hold every dtype:",
            problems,
        )


def refuse_shards(max_shard_size: int | None, *, target: str) -> None:
    """Refuse a shard size for a format that is one file.

    Raises:
        UsageError: there is one.
    """
    if max_shard_size is not None:
        raise UsageError(
            f"{target}: expected no maximum shard size, found {max_shard_size}. "
            "Only safetensors is written in shards; leave out --max-shard-size"
        )


def pad(offset: int, alignment: int) -> int:
    """How many bytes are missing until the next multiple of `alignment`.

    >>> pad(65, 64), pad(64, 64)
    (63, 0)
    """
    return -offset % alignment
