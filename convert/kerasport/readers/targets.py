"""What the readers of our own targets share: mapped bytes, and the manifest's word on each tensor.

A target is read like any stranger's file. Its container says where the values are, the manifest
says what they mean; where the two disagree, the file is refused. Without a manifest the tensors are
there all the same, of convention `unknown`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.errors import LayoutError, MalformedError, UsageError
from kerasport.layout import Layout
from kerasport.model import StateDict, Tensor, dtype_name

__all__ = ["UNKNOWN", "is_shape", "mapped", "state", "view"]

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
JSON = Any
UNKNOWN: Final = "unknown"
_LONGEST_SHAPE: Final = 64  # as many dimensions as NumPy has


def mapped(path: Path) -> Bytes:
    """The bytes of a file, in place and read-only.

    Raises:
        UsageError: it cannot be opened.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: expected a file, found a folder, a device or a pipe")
        with path.open("rb") as file:
            if not file.seek(0, 2):
                return np.empty(0, np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from error


def view(
    data: Bytes, dtype: np.dtype[Any], shape: tuple[int, ...], *, start: int
) -> Callable[[], Array]:
    """The function that gives one tensor of mapped bytes; the caller has checked that it fits."""
    stop = start + math.prod(shape) * dtype.itemsize
    return lambda: data[start:stop].view(dtype).reshape(shape)


def is_shape(shape: JSON) -> bool:
    """True for a list of extents, as JSON holds them.

    >>> is_shape([2, 3]), is_shape([2, -1]), is_shape([True])
    (True, False, False)
    """
    return (
        isinstance(shape, list)
        and len(shape) <= _LONGEST_SHAPE
        and all(type(extent) is int and 0 <= extent < 1 << 63 for extent in shape)
    )


def state(
    path: Path, tensors: Iterable[Tensor], *, document: Mapping[str, JSON] | None
) -> StateDict:
    """The tensors of a file, in model order, with what the manifest says of them.

    Args:
        path: the file, for errors.
        tensors: as the container describes them.
        document: the manifest, or None.

    Raises:
        MalformedError: the manifest and the container disagree.
    """
    found = {tensor.name: tensor for tensor in tensors}
    if document is None:
        return StateDict(UNKNOWN, found)
    entries = document["tensors"]
    aliases = document.get("aliases", {})
    problems = [
        f"{name}: has no entry in the manifest"
        for name in found
        if name not in entries and aliases.get(name) not in found
    ]
    problems += [f"{name}: is missing in the file" for name in entries if name not in found]
    described: dict[str, Tensor] = {}
    for name, entry in entries.items():
        if name in found:
            try:
                described[name] = _described(found[name], entry)
            except (LayoutError, MalformedError) as error:
                problems.append(f"{name}: {error}")
    if problems:
        shown = "\n  ".join(sorted(problems)[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise MalformedError(
            f"{path}: the manifest does not describe the file's tensors. One of the two was "
            f"changed; convert the source anew:\n  {shown}{more}"
        )
    return StateDict(document["convention"], described, document)


def _described(tensor: Tensor, entry: Mapping[str, JSON]) -> Tensor:
    shape = tuple(entry["shape"])
    if entry["dtype"] != dtype_name(tensor.dtype) or shape != tensor.shape:
        spec = f"{entry['dtype']}[{','.join(map(str, shape))}]"
        raise MalformedError(f"the manifest says {spec}, the file holds {tensor.spec}")
    return Tensor(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        tensor.load,
        layout=None if entry["layout"] is None else Layout.parse(entry["layout"]),
        at=frozenset(entry["at"]),
        role=entry["role"],
        trainable=entry["trainable"],
        stored=tensor.stored,
        fill=tensor.fill,
    )
