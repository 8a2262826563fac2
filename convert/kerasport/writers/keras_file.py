"""A Keras file with other weights: the file that the model is in, copied, and its values replaced.

What makes a file loadable is more than weights: the groups that Keras looks for, their attributes,
the configuration, the state of the optimizer, vocabularies. None of it is written anew. The file is
copied byte for byte, and each dataset gets its values where it lies: those in one piece by their
place in the file, slab by slab, those that are chunked or compressed by h5py. The same two files
give the same bytes. In a `.keras` archive the HDF5 file is a member, which is put together beside
the archive and packed with the others as they are, with the times that they had.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from kerasport import manifest
from kerasport.errors import UnsupportedError, UsageError, VerificationError
from kerasport.model import Tensor
from kerasport.writers.staging import Staging, foreign

__all__ = ["MEMBER", "write"]

Array = npt.NDArray[Any]
Native = Any  # h5py's low-level objects have no type information

MEMBER: Final = "model.weights.h5"
_ZIP: Final = b"PK\x03\x04"
_STEP: Final = 4 << 20


def write(tensors: Mapping[str, Tensor], path: Path, *, like: Path) -> tuple[Path, ...]:
    """Write a copy of a Keras file in which these tensors have new values.

    Args:
        tensors: the new values, by the place in the HDF5 file.
        path: the target: `.keras` or `.weights.h5` of a `.keras` file, otherwise as the file is.
        like: the file to copy: a `.keras` archive, or an HDF5 file.

    Returns:
        The file written.

    Raises:
        UsageError: the target's suffix is of another kind of file, or it cannot be written.
        UnsupportedError: the file stores a tensor in another form than it is known in.
        VerificationError: what was read again is not what was written.
    """
    with like.open("rb") as file:
        packed = file.read(4) == _ZIP
    _refuse_suffix(path, like, packed=packed)
    with Staging(path) as staging:
        target = staging.open(path)
        if not packed:
            with like.open("rb") as file:
                shutil.copyfileobj(file, target, _STEP)
            _fill(target, tensors, where=path)
        else:
            with zipfile.ZipFile(like) as archive:
                if MEMBER not in archive.namelist():
                    raise UnsupportedError(
                        f"{like}: expected its weights in {MEMBER}, found an archive without it. "
                        "Save the model again with Keras"
                    )
                if path.name.endswith(".weights.h5"):
                    _unpack(archive, target)
                    _fill(target, tensors, where=path)
                else:
                    with tempfile.TemporaryFile(dir=path.parent) as body:
                        _unpack(archive, body)
                        _fill(body, tensors, where=path)
                        _pack(archive, body, target, where=path)
        return staging.publish()


def _refuse_suffix(path: Path, like: Path, *, packed: bool) -> None:
    """Keras goes by the suffix when it loads: it must be that of what the file is."""
    if packed:
        allowed: tuple[str, ...] = (".keras", ".weights.h5")
    elif like.name.endswith(".weights.h5"):
        allowed = (".weights.h5",)
    else:
        allowed = tuple(dict.fromkeys((like.suffix, ".h5", ".hdf5")))
    fits = path.name.lower().endswith(allowed)
    if fits and not packed and not like.name.endswith(".weights.h5"):
        fits = not path.name.endswith(".weights.h5")  # Keras would look for its newer layout
    if not fits:
        raise UsageError(
            f"{path}: expected a name that ends in {' or '.join(allowed)}, as a copy of "
            f"{like.name} has it, found {path.suffix!r}"
        )


def _unpack(archive: zipfile.ZipFile, body: BinaryIO) -> None:
    with archive.open(MEMBER) as member:
        shutil.copyfileobj(member, body, _STEP)


def _pack(archive: zipfile.ZipFile, body: BinaryIO, target: BinaryIO, *, where: Path) -> None:
    """The archive's members in their order, the weights from `body`, and a look at the result."""
    size = body.seek(0, 2)
    digest = manifest.hasher()
    with zipfile.ZipFile(target, "w") as packed:
        packed.comment = archive.comment
        for info in archive.infolist():
            new = zipfile.ZipInfo(info.filename, info.date_time)
            new.compress_type, new.external_attr = info.compress_type, info.external_attr
            new.create_system, new.comment = info.create_system, info.comment
            new.file_size = size if info.filename == MEMBER else info.file_size
            if info.filename == MEMBER:
                body.seek(0)
            with (
                packed.open(new, "w") as into,
                _again(body) if info.filename == MEMBER else archive.open(copy(info)) as out_of,
            ):
                while piece := out_of.read(_STEP):
                    into.write(piece)
                    if info.filename == MEMBER:
                        digest.update(piece)
    found = manifest.hasher()
    try:
        with zipfile.ZipFile(target) as packed, packed.open(MEMBER) as member:
            while piece := member.read(_STEP):
                found.update(piece)
    except zipfile.BadZipFile as error:
        raise VerificationError(f"{where}: {error}; nothing was changed") from None
    if found.hexdigest() != digest.hexdigest():
        raise VerificationError(f"{where}: does not read back; nothing was changed")


@contextmanager
def _again(file: BinaryIO) -> Iterator[BinaryIO]:
    """A file that stays open."""
    yield file


def _fill(file: BinaryIO, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Put the values into the HDF5 file, and read them again."""
    import h5py

    file.flush()
    with h5py.File(file, "r") as root:
        stored = {place: _Dataset(root.id, place, tensor) for place, tensor in tensors.items()}
    problems = [problem for dataset in stored.values() for problem in dataset.problems]
    if problems:
        raise UnsupportedError(f"{where}: the file stores these in another form:", problems)
    apart = {p: d for p, d in stored.items() if d.offset is None and tensors[p].size}
    if apart:
        with h5py.File(file, "r+") as root:
            for place, dataset in apart.items():
                dataset.write(root.id, tensors[place])
        with h5py.File(file, "r") as root:
            for place, dataset in apart.items():
                if not dataset.holds(root.id, tensors[place]):
                    raise VerificationError(f"{where}: {place} does not read back")
    for place, dataset in stored.items():
        if dataset.offset is not None:
            digest = _put(file, tensors[place], dataset)
            if _digest(file, dataset.offset, tensors[place].nbytes) != digest:
                raise VerificationError(f"{where}: {place} does not read back; nothing was changed")


def _put(file: BinaryIO, tensor: Tensor, dataset: _Dataset) -> str:
    assert dataset.offset is not None
    digest = manifest.hasher()
    file.seek(dataset.offset)
    for slab in tensor.slabs(_STEP):
        content = dataset.bytes_of(slab)
        file.write(content.data)
        digest.update(content)
    file.flush()
    return digest.hexdigest()


def _digest(file: BinaryIO, offset: int, size: int) -> str:
    digest = manifest.hasher()
    file.seek(offset)
    while size and (piece := file.read(min(size, _STEP))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


class _Dataset:
    """One dataset: where its values lie, and in which byte order."""

    def __init__(self, root: Native, place: str, tensor: Tensor) -> None:
        from h5py import h5d, h5t

        dataset = h5d.open(root, place.encode())
        kind = dataset.get_type()
        self._place = place
        self._swapped = (
            isinstance(kind, h5t.TypeFloatID | h5t.TypeIntegerID)
            and kind.get_size() > 1
            and (kind.get_order() == h5t.ORDER_BE) != foreign(tensor.dtype)
        )
        self.offset: int | None = dataset.get_offset()
        self.problems: list[str] = []
        if dataset.shape != tensor.shape or kind.get_size() != tensor.dtype.itemsize:
            extents = ",".join(map(str, dataset.shape))
            self.problems.append(
                f"{tensor.name}: is {tensor.spec}, and stored in [{extents}] values of "
                f"{kind.get_size()} bytes"
            )

    def bytes_of(self, values: Array) -> npt.NDArray[np.uint8]:
        """The values as the file has them."""
        values = np.ascontiguousarray(values).reshape(-1)
        return (values.byteswap() if self._swapped else values).view(np.uint8)

    def write(self, root: Native, tensor: Tensor) -> None:
        """Let h5py put the values where it keeps them."""
        from h5py import h5d, h5s

        dataset = h5d.open(root, self._place.encode())
        values = self.bytes_of(tensor.numpy()).view(np.dtype((np.void, tensor.dtype.itemsize)))
        kind = dataset.get_type()
        dataset.write(h5s.ALL, h5s.ALL, values.reshape(tensor.shape), mtype=kind)

    def holds(self, root: Native, tensor: Tensor) -> bool:
        """Whether h5py finds the values again."""
        from h5py import h5d, h5s

        dataset = h5d.open(root, self._place.encode())
        found = np.empty(tensor.shape, np.dtype((np.void, tensor.dtype.itemsize)))
        dataset.read(h5s.ALL, h5s.ALL, found, mtype=dataset.get_type())
        return found.tobytes() == self.bytes_of(tensor.numpy()).tobytes()
