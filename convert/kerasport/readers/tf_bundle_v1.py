"""Checkpoints of format V1: one file, or one for each machine, whose index has the values in it.

TensorFlow wrote it until 2016, and does still where `SaverDef.V1` is asked for. The first entry of
each file lists its tensors, with their shapes and the slices of them that are there; every other
entry is one slice. Several files are one checkpoint, `NAME-00000-of-00002` and so on, which
TensorFlow calls `NAME-?????-of-00002`; a variable that was partitioned may lie in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from kerasport.errors import KerasportError, MalformedError, UnsupportedError, UsageError
from kerasport.readers.mapped import mapped
from kerasport.readers.tf_bundle import MAX_SHARDS, OBJECT, Bundle, Entry
from kerasport.readers.tf_messages import DTYPES, SAVED_SLICES, numpy_dtype, shape_of
from kerasport.readers.tf_proto import Buffer, Message, decode
from kerasport.readers.tf_slices import box_of, check_cover, joined, slice_key, words_of
from kerasport.readers.tf_table import entries, is_table
from kerasport.readers.tf_tensor import values_of

__all__ = ["bundle_v1", "files_v1", "name_v1"]

Array = npt.NDArray[Any]

_ONE_OF: Final = re.compile(r"(.+)-(\d{5}|\?{5})-of-(\d{5})$")


def files_v1(path: Path) -> tuple[Path, ...]:
    """The files of the checkpoint of format V1 that a path leads to; none where it leads to none.

    Args:
        path: the file, one of several, the beginning of their names, or TensorFlow's pattern.

    Raises:
        UsageError: it is the beginning of the names of several checkpoints.
    """
    if path.is_file():
        found = _ONE_OF.match(path.name)
        if not _is_v1(path):
            return ()
        return _all(path.with_name(found[1]), found[3]) if found else (path,)
    pattern = _ONE_OF.match(path.name)
    name = path.with_name(pattern[1]) if pattern else path
    counts = [pattern[3]] if pattern else _counts(name)
    some = [count for count in counts if any(map(_is_v1, _all(name, count)[:1]))]
    if len(some) > 1:
        names = ", ".join(f"{name.name}-?????-of-{count}" for count in some)
        raise UsageError(f"{path}: there are several checkpoints of this name: {names}")
    return _all(name, some[0]) if some else ()


def name_v1(path: Path) -> str:
    """What a checkpoint is called, without what tells its files apart.

    >>> name_v1(Path("model.ckpt-7-00000-of-00002"))
    'model.ckpt-7'

    Args:
        path: one of its files.
    """
    found = _ONE_OF.match(path.name)
    return found[1] if found else path.name


def _counts(name: Path) -> list[str]:
    """How many files there are of a name, by what the first one is called."""
    try:
        beside = [found for p in name.parent.iterdir() if (found := _ONE_OF.match(p.name))]
    except OSError:
        return []
    return sorted(found[3] for found in beside if found[1] == name.name and not int(found[2]))


def _all(name: Path, count: str) -> tuple[Path, ...]:
    number = min(int(count), MAX_SHARDS)
    return tuple(name.with_name(f"{name.name}-{n:05d}-of-{count}") for n in range(number))


def _is_v1(path: Path) -> bool:
    try:
        region = mapped(path)
        first = next(entries(region, where=path.name), None) if is_table(region) else None
    except KerasportError:
        return False
    # The first message is that of the tensors' shapes; in format V2 it is a header of numbers.
    return first is not None and first[0] == b"" and bytes(first[1][:1]) == b"\x0a"


class _Listed(NamedTuple):
    """A tensor with the slices of it that were found so far."""

    dtype: int
    shape: tuple[int, ...]
    boxes: list[tuple[slice, ...]]
    loads: list[Callable[[], Array]]


def bundle_v1(paths: Sequence[Path]) -> Bundle:
    """The tensors of a checkpoint of format V1. Reads its files once, for their checksums.

    Args:
        paths: its files, all of them.

    Raises:
        UsageError: one is not there.
        MalformedError: it is broken or hostile, or its files contradict one another.
    """
    for path in paths:
        if not path.is_file():
            raise UsageError(
                f"{path.with_name(name_v1(path))}: expected {len(paths)} files, and {path.name} "
                "is not there. Without it there are no values"
            )
    regions = [mapped(path) for path in paths]
    found: dict[str, _Listed] = {}
    for path, region in zip(paths, regions, strict=True):
        whole = dict(entries(region, where=path.name))
        meta = decode(whole.get(b"", b""), SAVED_SLICES, where=path.name)["meta"]
        if meta is None:
            raise MalformedError(f"{path.name}: expected the shapes of the tensors, found none")
        for message in meta["tensors"]:
            _add(found, message, whole)
    named: dict[str, Entry] = {}
    for name, one in sorted(found.items()):
        check_cover(one.boxes, one.shape, where=name)
        dtype = numpy_dtype(one.dtype, where=name)
        load = _unreadable(name)
        if dtype is not None:
            load = joined(list(zip(one.boxes, one.loads, strict=True)), dtype, one.shape)
        kept = OBJECT if dtype is None else dtype
        named[name] = Entry(name, kept, DTYPES[one.dtype], one.shape, load)
    return Bundle(named, regions)


def _add(found: dict[str, _Listed], message: Message, whole: Mapping[bytes, Buffer]) -> None:
    """What one file holds of one tensor."""
    name = message["name"] or ""
    number, shape = message["dtype"] or 0, shape_of(message["shape"], where=name)
    dtype = numpy_dtype(number, where=name)
    one = found.setdefault(name, _Listed(number, shape, [], []))
    if (one.dtype, one.shape) != (number, shape):
        raise MalformedError(
            f"{name}: is {DTYPES[number]}{list(shape)} in one file and "
            f"{DTYPES[one.dtype]}{list(one.shape)} in another"
        )
    for part in message["slices"]:
        box = box_of(part, shape, where=name)
        stored = whole.get(slice_key(name, part))
        data = None if stored is None else decode(stored, SAVED_SLICES, where=name)["data"]
        if data is None or data["data"] is None:
            raise MalformedError(f"{name}: lists a slice {words_of(box)} and does not hold it")
        one.boxes.append(box)
        if dtype is not None:
            extents = tuple(s.stop - s.start for s in box)
            load = values_of(data["data"], dtype=dtype, shape=extents, where=name, all_written=True)
            one.loads.append(load)


def _unreadable(name: str) -> Callable[[], Array]:
    def load() -> Array:
        raise UnsupportedError(f"{name}: holds no numbers")

    return load
