"""HDF5 as a tree of mapped tensors, with everything refused that no Keras ever wrote.

An HDF5 file is a small file system, and what strangers can do with one has been done to Keras:
links that lead to other files, datasets whose values lie in other files, shapes of terabytes with
nothing behind them, groups that contain themselves. All of it is refused here, before any value is
read, so that no reader above has to think about it.

The tree is built with h5py's low-level calls and reads no values. A dataset that lies in one piece
becomes a view of the mapped file; h5py is asked again only for what is chunked or compressed, and
every file it opens is closed before this module returns, since an HDF5 file that outlives its map
crashes the interpreter.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.errors import KerasportError, MalformedError, UnsupportedError
from kerasport.model import Tensor, dtype_name, dtype_named
from kerasport.readers.mapped import Region, buffer
from kerasport.readers.stored import Group

__all__ = ["SIGNATURE", "opened", "tree"]

Array = npt.NDArray[Any]
Native = Any  # h5py's low-level objects have no type information

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

MAX_DEPTH: Final = 256
"""How deep groups may nest. 64 models inside one another need 130."""

MAX_TEXT: Final = 64 << 20
"""How many bytes one attribute may announce, and how many texts it may list."""

_OBJECT: Final = 16
"""The size of the head of a collection of texts, and of each object in it, as all files have it."""

FLOOR: Final = 1 << 20
EXPANSION: Final = 1100
"""A dataset larger than the floor may be this many times what is stored; deflate reaches 1032."""

FILTERS: Final = {1, 2, 3, 4, 5, 6, 32000}
"""Deflate, shuffle, fletcher32, szip, nbit, scaleoffset, lzf: what h5py itself can undo."""

TEXTS: Final = ("layer_names", "weight_names")
WORDS: Final = frozenset({"backend", "keras_version", "model_config", "name"})


@contextmanager
def opened(region: Region, where: str) -> Iterator[Native]:
    """The root group of an HDF5 file; closed on the way out.

    HDF5 reads through the map. Given the path it would be a third faster on files of 100,000
    datasets, and would refuse a file that the caller has open, or read one that was just replaced.

    Args:
        region: the file's bytes.
        where: what it is called in errors.

    Raises:
        MalformedError: it is truncated, or otherwise no HDF5.
    """
    import h5py

    with _blaming(where), h5py.File(_Guarded(region), "r") as file:
        yield h5py.h5g.open(file.id, b"/")


class _Guarded(io.RawIOBase):
    """A file as HDF5 reads it, in which a collection of texts that would never end is blank.

    Texts of any length lie in collections (`GCOL`), as objects one behind the other. The library
    goes from one to the next by the size that is written there, and where that is nothing it
    stays where it is for ever. Instead of such a collection it finds zeros, and complains.
    """

    def __init__(self, region: Region) -> None:
        self._file = region.file()
        self._region = region

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, into: Any) -> int:
        at = self._file.tell()
        size: int = self._file.readinto(into) or 0
        if bytes(into[:4]) == b"GCOL" and not _ends(self._region, at):
            into[:size] = bytes(size)
        return size


def _ends(region: Region, at: int) -> bool:
    """Whether the objects of a collection lead from its beginning to its end."""
    if at + _OBJECT > region.size:
        return False
    size = int.from_bytes(region.read(at + 8, 8), "little")
    if size > region.size - at:
        return False
    data = region.read(at, size)
    place = _OBJECT
    while place + _OBJECT <= size:
        number = int.from_bytes(data[place : place + 2], "little")
        own = int.from_bytes(data[place + 8 : place + _OBJECT], "little")
        # Object 0 is the room that is left, its own head included.
        step = own if not number else _OBJECT + -(-own // 8) * 8
        if step < _OBJECT:
            return False
        place += step
    return True


@contextmanager
def _blaming(where: str) -> Iterator[None]:
    """Whatever the HDF5 library finds wrong is wrong with the file."""
    try:
        yield
    except KerasportError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        reason = str(error).strip("'\"").splitlines()[:1] or [type(error).__name__]
        raise MalformedError(
            f"{where}: expected a sound HDF5 file, found: {reason[0][:300]}. "
            "Was it cut off on the way?"
        ) from None


def tree(region: Region, *, where: str, assume_dtype: np.dtype[Any] | None = None) -> Group:
    """All groups and tensors of an HDF5 file, without reading any values.

    Args:
        region: the file's bytes.
        where: what it is called in errors.
        assume_dtype: what values are that HDF5 knows only as so many bytes.

    Raises:
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told, or cannot be undone.
    """
    import h5py

    with opened(region, where) as root:
        return _Walk(region, where, assume_dtype, h5py).tree(root)


@dataclass(slots=True)
class _Walk:
    """One pass over a file; keeps account of what it has seen and of what the file announces."""

    region: Region
    where: str
    assume: np.dtype[Any] | None
    h5: Native
    dtypes: dict[bytes, np.dtype[Any] | None] = field(default_factory=dict)
    seen: dict[int, str] = field(default_factory=dict)
    mapped: int = 0
    packed: int = 0

    def tree(self, root: Native) -> Group:
        h5 = self.h5
        top = Group("", texts=self.texts(root, ""))
        self.seen[h5.h5o.get_info(root).addr] = "/"
        # Depth first, so that few objects are open at a time: HDF5 slows down with many.
        stack = [(top, root, iter(self.links(root, top)))]
        while stack:
            group, node, links = stack[-1]
            link = next(links, None)
            if link is None:
                stack.pop()
                continue
            name, address = link
            path = f"{group.path}/{name}" if group.path else name
            child = h5.h5o.open(node, name.encode())
            if isinstance(child, h5.h5g.GroupID):
                if address in self.seen:
                    raise self.bad(path, f"the same group as {self.seen[address]}")
                if len(stack) > MAX_DEPTH:
                    raise self.bad(path[:200], f"nested deeper than {MAX_DEPTH} groups")
                self.seen[address] = path
                inside = Group(path, texts=self.texts(child, path))
                group.groups[name] = inside
                stack.append((inside, child, iter(self.links(child, inside))))
            elif isinstance(child, h5.h5d.DatasetID):
                first = self.seen.setdefault(address, path)
                tensor = self.tensor(child, path, counted=first == path)
                if first == path:
                    group.tensors[name] = tensor
                else:
                    group.twins[name] = (tensor, first)
        return top

    def bad(self, path: str, reason: str) -> MalformedError:
        return MalformedError(f"{self.where}: /{path}: {reason}")

    def links(self, node: Native, group: Group) -> list[tuple[str, int]]:
        """The names in a group with the addresses they lead to; only hard links lead anywhere."""
        h5l = self.h5.h5l
        found: list[tuple[int, bytes, int, int]] = []
        tracked: list[bool] = []

        def note(name: bytes, info: Native) -> None:  # `info` is the same object each time
            tracked.append(info.corder_valid)
            found.append((info.corder if info.corder_valid else 0, name, info.type, info.u))

        node.links.iterate(note, info=True)
        group.ordered = bool(found) and all(tracked)
        if group.ordered:
            found.sort()
        links = []
        for _, raw, kind, address in found:
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                raise self.bad(f"{group.path}/{raw!r}", "a name that is not UTF-8") from None
            if kind != h5l.TYPE_HARD:
                what = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
                raise self.bad(
                    f"{group.path}/{name}".lstrip("/"),
                    f"{what.get(kind, 'a link')}, not followed",
                )
            links.append((name, address))
        return links

    def texts(self, node: Native, path: str) -> dict[str, str | tuple[str, ...]]:
        """The attributes that Keras writes names and configurations into."""
        h5a = self.h5.h5a
        count = h5a.get_num_attrs(node)
        if not count:
            return {}
        if count > 65536:
            raise self.bad(path, f"{count} attributes")
        names: list[bytes] = []
        h5a.iterate(node, names.append)
        texts: dict[str, str | tuple[str, ...]] = {}
        for raw in names:
            name = raw.decode(errors="replace")
            if name in WORDS or name.rstrip("0123456789") in TEXTS:
                found = self.text(h5a.open(node, raw), f"{path}@{name}")
                if found is not None:
                    texts[name] = found
        return texts

    def text(self, attribute: Native, path: str) -> str | tuple[str, ...] | None:
        shape = attribute.shape
        if shape is None or 0 in shape:
            return ()
        kind = attribute.get_type()
        if not isinstance(kind, self.h5.h5t.TypeStringID):
            return None
        if len(shape) > 1:
            raise self.bad(path, f"expected a text or a list of texts, found {len(shape)} axes")
        if attribute.get_storage_size() > MAX_TEXT or math.prod(shape) * kind.get_size() > MAX_TEXT:
            raise self.bad(path, f"an attribute of more than {MAX_TEXT >> 20} MiB")
        values = np.empty(shape, kind.dtype)
        attribute.read(values)
        try:
            words = [w.decode() if isinstance(w, bytes) else str(w) for w in values.reshape(-1)]
        except UnicodeDecodeError:
            raise self.bad(path, "a text that is not UTF-8") from None
        return tuple(words) if shape else words[0]

    def tensor(self, dataset: Native, path: str, *, counted: bool) -> Tensor:
        shape = dataset.shape
        if shape is None:
            raise self.bad(path, "a dataset without a shape")
        dtype = self.dtype(dataset, path)
        size = math.prod(shape) * dtype.itemsize
        if size >= 1 << 62:
            raise self.bad(path, f"announces {_spec(dtype, shape)}, more than any file holds")
        offset = dataset.get_offset()
        stored = dataset.get_storage_size()
        native = dtype.newbyteorder("=")
        load: Callable[[], Array]
        if offset is None:
            self.check_packed(dataset, path, dtype=dtype, size=size, stored=stored)
            self.packed += size * counted
            load = _packed(self.region, self.where, path=path, dtype=dtype, shape=shape)
        else:
            if stored != size or offset + size > self.region.size:
                room = min(stored, max(0, self.region.size - offset))
                raise self.bad(
                    path, f"announces {_spec(dtype, shape)}, {size} bytes, and stores {room}"
                )
            self.mapped += size * counted
            load = _view(self.region, offset, dtype=dtype, shape=shape)
        if self.mapped > self.region.size:
            raise self.bad(path, "the datasets overlap: they announce more than the file holds")
        if self.packed > EXPANSION * self.region.size + 64 * FLOOR:
            raise self.bad(path, "the packed datasets announce far more than the file holds")
        return Tensor(path, native, shape, load, stored=path)

    def check_packed(
        self, dataset: Native, path: str, *, dtype: np.dtype[Any], size: int, stored: int
    ) -> None:
        """Refuse values that lie elsewhere, or that are far more than what is stored of them."""
        h5d = self.h5.h5d
        made = dataset.get_create_plist()
        layout = made.get_layout()
        if layout == h5d.VIRTUAL:
            raise self.bad(path, "a virtual dataset, whose values lie in other datasets")
        if made.get_external_count():
            raise self.bad(path, "a dataset whose values lie in another file")
        if layout == h5d.CONTIGUOUS and size:
            raise self.bad(path, f"announces {size} bytes and stores none")
        if layout != h5d.CHUNKED:
            return
        for number in range(made.get_nfilters()):
            code, _, _, name = made.get_filter(number)
            if code not in FILTERS:
                label = name.decode(errors="replace") or code
                raise UnsupportedError(
                    f"{self.where}: /{path}: packed with the filter {label!r}, which h5py alone "
                    "cannot undo; repack it with h5repack -f GZIP=1"
                )
        chunk = math.prod(made.get_chunk()) * dtype.itemsize
        if max(size, chunk) > max(FLOOR, EXPANSION * stored):
            raise self.bad(path, f"announces {max(size, chunk)} bytes and stores {stored}")

    def dtype(self, dataset: Native, path: str) -> np.dtype[Any]:
        """The dtype of a dataset as stored, big-endian ones included."""
        kind = dataset.get_type()
        key = kind.encode()
        if key not in self.dtypes:
            self.dtypes[key] = self.known(kind, path)
        found = self.dtypes[key]
        return found if found is not None else self.opaque(dataset, path, kind.get_size())

    def known(self, kind: Native, path: str) -> np.dtype[Any] | None:
        """The dtype of an HDF5 type; None for so many bytes of unknown meaning."""
        h5t = self.h5.h5t
        if isinstance(kind, h5t.TypeOpaqueID):
            return None
        if isinstance(kind, h5t.TypeFloatID) and kind.get_size() <= 2:
            fields = (kind.get_size(), kind.get_order() == h5t.ORDER_LE, *kind.get_fields())
            # Sign, exponent and fraction where bfloat16 has them: HDF5 2 writes it as a float.
            if fields == (2, True, 15, 7, 8, 0, 7):
                return dtype_named("bf16")
        dtype: np.dtype[Any] = kind.dtype
        plain: np.dtype[Any] = np.dtype(dtype.str)
        numeric = plain.kind in "biufc" and dtype.subdtype is None and dtype.names is None
        if not numeric or h5t.check_ref_dtype(dtype):
            raise self.bad(path, f"expected numbers, found values of type {dtype}")
        if not h5t.py_create(dtype, logical=True).equal(kind):
            raise UnsupportedError(
                f"{self.where}: /{path}: numbers of {kind.get_precision()} bits in "
                f"{kind.get_size()} bytes, which no tensor format holds"
            )
        dtype_name(plain.newbyteorder("="))
        return plain

    def opaque(self, dataset: Native, path: str, size: int) -> np.dtype[Any]:
        """What bytes mean: as the attribute of Keras 3 says, or as the caller says."""
        h5a = self.h5.h5a
        if size == 2 and h5a.exists(dataset, b"dtype"):
            word = self.text(h5a.open(dataset, b"dtype"), f"{path}@dtype")
            if word == "bfloat16":
                return dtype_named("bf16")
        if self.assume is not None and self.assume.itemsize == size:
            return self.assume
        hint = {1: "f8_e4m3fn or f8_e5m2", 2: "bf16"}.get(size)
        if hint is None:
            raise self.bad(path, f"expected numbers, found values of {size} bytes each")
        raise UnsupportedError(
            f"{self.where}: /{path}: values of {size} bytes each, and the file does not say of "
            f"what type; if you know it, say so: --assume-dtype {hint}"
        )


def _spec(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{dtype_name(dtype.newbyteorder('='))}[{','.join(map(str, shape))}]"


def _view(
    region: Region, offset: int, *, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Callable[[], Array]:
    """Reads a dataset that lies in one piece: a view, or a swapped copy of a big-endian one."""
    count = math.prod(shape)

    def load() -> Array:
        return _native(region.array(offset, dtype=dtype, count=count)).reshape(shape)

    return load


def _packed(
    region: Region, where: str, *, path: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Callable[[], Array]:
    """Reads a dataset that is chunked, compressed or kept in the header, through h5py."""

    def load() -> Array:
        from h5py import h5d, h5s

        raw = buffer(math.prod(shape) * dtype.itemsize)
        if raw.size:
            with opened(region, where) as root:
                dataset = h5d.open(root, path.encode())
                # The file's own type in memory too: bytes come as they are, whatever they mean.
                values = raw.view(np.dtype((np.void, dtype.itemsize))).reshape(shape)
                dataset.read(h5s.ALL, h5s.ALL, values, mtype=dataset.get_type())
        return _native(raw.view(dtype)).reshape(shape)

    return load


def _native(values: Array) -> Array:
    """The same numbers in this machine's byte order."""
    if values.dtype.isnative:
        return values
    swapped = buffer(values.nbytes).view(values.dtype.newbyteorder("="))
    swapped[...] = values
    return swapped
