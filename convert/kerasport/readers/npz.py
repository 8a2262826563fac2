"""NumPy archives: the list that `model.get_weights()` gives, named arrays, and Keras 3's own.

`np.savez` stores one `.npy` member an array, uncompressed, so the values are mapped in place. A
list has no names (`arr_0`, `arr_1`), and only an architecture says what its arrays are.

What Keras 3 writes with `weights_format="npz"` has a member for each layer, and in it a pickle of
the layer's variables. Keras's own loader refuses pickles, and so cannot read what it wrote; here
pickles are taken apart and never run (see `pickled`).
"""

from __future__ import annotations

import ast
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import parse
from kerasport.errors import KerasportError, MalformedError, UnknownFormatError, UnsupportedError
from kerasport.model import Layer, Snapshot, Source, Tensor, dtype_name
from kerasport.readers.mapped import Region, mapped
from kerasport.readers.naming import Stored, named, numbered
from kerasport.readers.pickled import Bytes, Made, NdArray, arrays, described
from kerasport.readers.stored import Group, natural
from kerasport.readers.zipped import Archive, names

__all__ = ["matches", "read", "tree"]

Array = npt.NDArray[Any]
SUFFIX: Final = ".npy"
MANIFEST: Final = "kerasport.npy"
ROOT: Final = "__root__"
LISTED: Final = re.compile(r"arr_\d+$")
MAX_HEADER: Final = 1 << 16
MAX_PICKLE: Final = 1 << 31
_MAGIC: Final = b"\x93NUMPY"
_OBJECT: Final = "|O"


def matches(path: Path) -> bool:
    """Whether a file is an archive of arrays and of nothing else.

    An archive that was cut off counts too if its first member is an array, so that the reader can
    say what is wrong with it.

    Args:
        path: the file.
    """
    try:
        region = mapped(path)
        found = names(region)
    except KerasportError:
        return False
    if found is None:
        return _begins_with_an_array(region)
    if not found or MANIFEST in found:  # a state dict that a package of others wrote
        return False
    return all(name.endswith(SUFFIX) for name in found)


def _begins_with_an_array(region: Region) -> bool:
    head = region.read(0, min(region.size, 1 << 12))
    size = int.from_bytes(head[26:28], "little")
    return head[:4] == b"PK\x03\x04" and head[30 : 30 + size].endswith(SUFFIX.encode())


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a NumPy archive.

    Args:
        path: the file.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: what values are that the file knows only as so many bytes.

    Raises:
        UsageError: there is no such file, or the architecture does not fit it.
        UnknownFormatError: it is no archive of arrays.
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    region = mapped(path)
    if not matches(path):
        raise UnknownFormatError(f"{path}: expected an archive of NumPy arrays and nothing else")
    archive = Archive(region, path.name)
    graph = parse(architecture) if architecture is not None else None
    name = graph.name if graph else path.name.split(".")[0]
    found = {
        member.removesuffix(SUFFIX): _member(archive, member, assume_dtype)
        for member in archive.members
    }
    if any(array.dtype is None for array in found.values()):
        stored = numbered(_tree(found), graph, name=name, given=architecture is not None)
    elif all(map(LISTED.match, found)):
        listed = {key: found[key].tensor(key) for key in sorted(found, key=natural)}
        stored = Stored([Layer(name, None, {}, listed, note=_UNNAMED)])
    else:
        groups: dict[str, list[tuple[str, Tensor]]] = {}
        for key in found:
            groups.setdefault(key.split("/")[0], []).append((key, found[key].tensor(key)))
        stored = named(list(groups.items()), graph, given=architecture is not None)
    return Snapshot(
        Source(path.name, "numpy", nbytes=region.size, content=region.content),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


_UNNAMED: Final = (
    "the file is a list of arrays without names; give the architecture with --config, and they are "
    "given to its layers in order"
)


def tree(region: Region, *, where: str) -> Group:
    """The variables of a store of Keras 3 in NumPy's format.

    Args:
        region: its bytes.
        where: what it is called in errors.

    Raises:
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds values in a backend's own format.
    """
    archive = Archive(region, where)
    return _tree(
        {member.removesuffix(SUFFIX): _member(archive, member, None) for member in archive.members}
    )


@dataclass(frozen=True, slots=True)
class _Npy:
    """One member: an array, or a pickle where its dtype is None."""

    region: Region
    where: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    columns_first: bool
    start: int

    def tensor(self, name: str) -> Tensor:
        assert self.dtype is not None, "asked only of arrays"
        size = math.prod(self.shape) * self.dtype.itemsize
        if size != self.region.size - self.start:
            raise MalformedError(
                f"{self.where}: announces {size} bytes and stores {self.region.size - self.start}"
            )
        load = _view(self.region, self.start, self.dtype, self.shape, self.columns_first)
        return Tensor(name, self.dtype.newbyteorder("="), self.shape, load, stored=name)


def _member(archive: Archive, member: str, assume: np.dtype[Any] | None) -> _Npy:
    """What the header of a member says; it is a literal of Python and is read as nothing else."""
    region = archive.region(member)
    where = f"{archive.where}/{member}"
    head = region.read(0, 12)
    width = 2 if head[6:7] == b"\x01" else 4
    if head[:6] != _MAGIC or len(head) < 12 or head[6] not in (1, 2, 3):
        raise MalformedError(f"{where}: expected an array of NumPy")
    (length,) = struct.unpack(f"<{'H' if width == 2 else 'I'}", head[8 : 8 + width])
    start = 8 + width + length
    if length > MAX_HEADER or start > region.size:
        raise MalformedError(f"{where}: announces a header of {length} bytes")
    try:
        header = ast.literal_eval(region.read(8 + width, length).decode().strip())
        descr, columns_first, shape = (header[key] for key in ("descr", "fortran_order", "shape"))
        sound = type(columns_first) is bool and isinstance(descr, str)
        if not sound or not isinstance(shape, tuple) or len(header) != 3:
            raise ValueError("another dictionary")
        if not all(type(extent) is int and 0 <= extent < 1 << 48 for extent in shape):
            raise ValueError("a shape of impossible extents")
        dtype = None if descr == _OBJECT else _dtype(descr, assume, where)
    except KerasportError:
        raise
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise MalformedError(f"{where}: expected the header of an array: {error}") from None
    return _Npy(region, where, dtype, shape, columns_first, start)


def _dtype(descr: str, assume: np.dtype[Any] | None, where: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(descr)
    if dtype.kind == "V":  # bfloat16 and float8 as NumPy saves them
        if assume is not None and assume.itemsize == dtype.itemsize:
            return assume
        hint = {1: "f8_e4m3fn or f8_e5m2", 2: "bf16"}.get(dtype.itemsize)
        if hint is None:
            raise ValueError(f"values of {dtype.itemsize} bytes each")
        raise UnsupportedError(
            f"{where}: values of {dtype.itemsize} bytes each, and the file does not say of what "
            f"type; if you know it, say so: --assume-dtype {hint}"
        )
    if dtype.kind not in "biufc":
        raise ValueError(f"values of type {descr}")
    dtype_name(dtype.newbyteorder("="))
    return dtype


def _view(
    region: Region,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    columns_first: bool,
) -> Callable[[], Array]:
    def load() -> Array:
        values = region.array(start, dtype=dtype, count=math.prod(shape))
        values = values.reshape(shape, order="F" if columns_first else "C")
        return values if dtype.isnative else values.astype(dtype.newbyteorder("="))

    return load


# ---- Keras 3 -------------------------------------------------------------------------------------


def _tree(members: Mapping[str, _Npy]) -> Group:
    """Members by the paths of their layers, each a dictionary of numbered variables."""
    root = Group("", ordered=True)
    for path, member in members.items():
        group = root
        for word in (*([] if path == ROOT else path.split("/")), "vars"):
            group = group.groups.setdefault(word, Group(f"{group.path}/{word}".lstrip("/")))
        for key, tensor in _variables(member, group.path):
            if key in group.tensors:
                raise MalformedError(f"{member.where}: the variable {key!r} is there twice")
            group.tensors[key] = tensor
    return root


def _variables(member: _Npy, path: str) -> list[tuple[str, Tensor]]:
    if member.dtype is not None or member.shape != ():
        raise MalformedError(f"{member.where}: expected the variables of a layer, found an array")
    size = member.region.size - member.start
    if size > MAX_PICKLE:
        raise UnsupportedError(f"{member.where}: a pickle of {size >> 20} MiB, too large to read")
    try:
        found = described(member.region.read(member.start, size))
        outer = found.state[4] if isinstance(found, Made) and found.state else None
        if not isinstance(outer, list) or len(outer) != 1 or not isinstance(outer[0], dict):
            raise ValueError("no dictionary of variables")
        return [
            (str(key), _variable(member, value, f"{path}/{key}")) for key, value in outer[0].items()
        ]
    except KerasportError:
        raise
    except ValueError as error:
        raise MalformedError(
            f"{member.where}: expected the variables of a layer, found {error}; nothing was run"
        ) from None


def _variable(member: _Npy, value: Any, path: str) -> Tensor:
    """An array, or a variable of Keras with one array somewhere in its value."""
    trainable = None
    if isinstance(value, Made) and isinstance(value.state, dict):
        trainable = value.state.get("_trainable")
        value = value.state.get("_value", value)
    found = list(arrays(value))
    if len(found) != 1:
        raise UnsupportedError(
            f"{member.where}: a variable whose value is in its backend's own format, not NumPy's; "
            "save the model as .keras with the weights in HDF5"
        )
    (array,) = found
    return Tensor(
        path,
        array.dtype.newbyteorder("="),
        array.shape,
        _pickled(member, array),
        stored=path,
        trainable=trainable if isinstance(trainable, bool) else None,
    )


def _pickled(member: _Npy, array: NdArray) -> Callable[[], Array]:
    data = array.data
    if not isinstance(data, Bytes) or data.size != math.prod(array.shape) * array.dtype.itemsize:
        size = data.size if isinstance(data, Bytes) else "no"
        shown = ",".join(map(str, array.shape))
        raise ValueError(f"an array of shape [{shown}] with {size} bytes")
    start = member.start + data.offset
    return _view(member.region, start, array.dtype, array.shape, array.columns_first)
