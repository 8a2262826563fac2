"""Files appear whole or not at all, and not before they were read again.

A conversion that dies half-way must leave the user's old file as it was. So each file is written to
a hidden sibling, the staged siblings are read again and compared with the hashes taken while
writing, and only then do they take their names, in the order in which they were opened: the one
that points to the others is opened last. If a later one cannot take its name, the earlier ones give
theirs back.
"""

from __future__ import annotations

import errno
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from kerasport import manifest
from kerasport.errors import KerasportError, UnsupportedError, UsageError, VerificationError
from kerasport.model import SLAB, StateDict, Tensor, dtype_name

__all__ = [
    "Staging",
    "blocks",
    "check",
    "compare",
    "digest",
    "pad",
    "refuse_shards",
    "stream",
    "supported",
]

Bytes = npt.NDArray[np.uint8]
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

    def __init__(self, target: Path) -> None:
        """Check that `target` can be a file.

        Raises:
            UsageError: its folder does not exist, or it is a folder itself.
        """
        if not target.parent.is_dir():
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
        part = target.with_name(f".kerasport-{secrets.token_hex(8)}.part")
        file = part.open("x+b")  # closed by `reopen` or by `__exit__`
        self._staged[target], self._files[target] = part, file
        return file

    def reopen(self, target: Path) -> BinaryIO:
        """What was written for `target`, opened anew for reading; no more can be written."""
        self._files[target].close()
        self._files[target] = file = self._staged[target].open("rb")
        return file

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
            for target in targets[:-1]:
                if target.exists():
                    old = target.with_name(f".kerasport-{secrets.token_hex(8)}.old")
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


def blocks(tensor: Tensor) -> Iterator[Bytes]:
    """The bytes of a tensor as every target stores them: C order, little endian, slab by slab.

    Raises:
        KerasportError: the tensor gives other values than it declares; a reader's bug.
    """
    swap = tensor.dtype.byteorder == ">" or (
        sys.byteorder == "big" and tensor.dtype.byteorder == "="
    )
    left = tensor.nbytes
    for slab in tensor.slabs(SLAB):
        if slab.dtype != tensor.dtype:
            raise KerasportError(f"{tensor.name}: declared {tensor.spec}, gives {slab.dtype}")
        flat: Bytes = (slab.byteswap() if swap else slab).view(np.uint8)
        left -= flat.size
        yield flat
    if left:
        raise KerasportError(f"{tensor.name}: declared {tensor.spec}, gives {left} bytes fewer")


def stream(file: BinaryIO, tensor: Tensor, *, also: Callable[[Bytes], object] | None = None) -> str:
    """Write a tensor's bytes and return their hash; `also` is shown every slab."""
    hasher = manifest.hasher()
    for block in blocks(tensor):
        file.write(block.data)
        hasher.update(block)
        if also is not None:
            also(block)
    return hasher.hexdigest()


def digest(tensor: Tensor) -> str:
    """The content hash of a tensor."""
    hasher = manifest.hasher()
    for block in blocks(tensor):
        hasher.update(block)
    return hasher.hexdigest()


def check(
    file: BinaryIO, spans: Iterable[tuple[Tensor, int]], *, hashes: Mapping[str, str], where: Path
) -> None:
    """Read tensors again, each from its offset, and compare their hashes.

    Raises:
        VerificationError: a tensor is not what was written.
    """
    buffer: Any = memoryview(bytearray(min(SLAB, 1 << 20)))
    for tensor, offset in spans:
        hasher = manifest.hasher()
        file.seek(offset)
        left = tensor.nbytes
        while left and (count := file.readinto(buffer[: min(left, len(buffer))])):  # type: ignore[attr-defined]  # every binary file that `open` gives has it
            hasher.update(buffer[:count])
            left -= count
        compare(tensor.name, hashes[tensor.name], hasher.hexdigest(), where=where)


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
