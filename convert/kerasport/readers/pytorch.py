"""PyTorch state dicts, read without PyTorch and without running their pickle.

A pickle is a program, and `pickle.loads` runs it. Here `pickletools` takes it apart, and a machine
of two dozen opcodes carries out what a state dict needs: build dictionaries and tuples, name a
storage, put a tensor together from one. Any other opcode, any other name, is refused; nothing is
imported and nothing is called.

The values are mapped in place: members of the archive are stored, never compressed.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport import manifest
from kerasport.errors import MalformedError, UnsupportedError
from kerasport.model import StateDict, Tensor, dtype_named
from kerasport.readers import targets
from kerasport.readers.targets import Array, Bytes

__all__ = ["matches", "read"]

_PICKLE_LIMIT: Final = 1 << 28
_MANIFEST_LIMIT: Final = 1 << 30

_DTYPES: Final[Mapping[str, str]] = {
    "torch BoolStorage": "bool",
    "torch ByteStorage": "u8",
    "torch CharStorage": "i8",
    "torch ShortStorage": "i16",
    "torch IntStorage": "i32",
    "torch LongStorage": "i64",
    "torch HalfStorage": "f16",
    "torch FloatStorage": "f32",
    "torch DoubleStorage": "f64",
    "torch BFloat16Storage": "bf16",
    "torch ComplexFloatStorage": "c64",
    "torch ComplexDoubleStorage": "c128",
    # of an untyped storage, the dtype is named beside it
    "torch.storage UntypedStorage": "u8",
    "torch uint16": "u16",
    "torch uint32": "u32",
    "torch uint64": "u64",
    "torch float8_e4m3fn": "f8_e4m3fn",
    "torch float8_e5m2": "f8_e5m2",
}
_ORDERED: Final = "collections OrderedDict"
_TYPED: Final = "torch._utils _rebuild_tensor_v2"
_UNTYPED: Final = "torch._utils _rebuild_tensor_v3"
_PARAMETER: Final = "torch._utils _rebuild_parameter"
_CALLED: Final = frozenset({_ORDERED, _TYPED, _UNTYPED, _PARAMETER})


def matches(path: Path) -> bool:
    """True if the content is a zip archive with a PyTorch pickle."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if head[:4] != b"PK\3\4":
                return False
            if b"/data.pkl" in head[30:]:  # PyTorch's own first member
                return True
            with zipfile.ZipFile(file) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def read(path: Path) -> StateDict:
    """Read a PyTorch state dict, and the manifest beside it.

    Of a checkpoint that holds one state dict beside an epoch or an optimizer it is that one.

    Args:
        path: the archive; its manifest is `NAME.json` in the same folder, if it is there.

    Returns:
        The tensors, mapped in place.

    Raises:
        MalformedError: the archive is broken, or its pickle is more than a state dict.
        UnsupportedError: it is of a big-endian machine.
        UsageError: the file cannot be read.
    """
    data = targets.mapped(path)
    members = _members(path, data)
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise MalformedError(
            f"{path}: expected one member data.pkl, found {len(roots)}. Was it saved by torch.save?"
        )
    root = roots[0]
    if members.get(f"{root}byteorder", data[:0]).tobytes() not in (b"", b"little"):
        raise UnsupportedError(f"{path}: expected little-endian values, found big-endian ones")
    pickled = members[f"{root}data.pkl"]
    if pickled.size > _PICKLE_LIMIT:
        raise MalformedError(
            f"{path}: expected a pickle of at most {_PICKLE_LIMIT:,} bytes, "
            f"found {pickled.size:,}. This is no state dict"
        )

    def storage(key: str) -> Bytes:
        if f"{root}data/{key}" not in members:
            raise ValueError(f"expected the member data/{key}, found none")
        return members[f"{root}data/{key}"]

    try:
        found = _unpickled(pickled.tobytes(), storage)
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise MalformedError(
            f"{path}: expected the pickle of a state dict, found a fault: {error}. "
            "Save the model's state_dict() alone"
        ) from error
    return targets.state(path, _tensors(path, found), document=_beside(path))


def _beside(path: Path) -> dict[str, Any] | None:
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return None
    data = targets.mapped(beside)
    if data.size > _MANIFEST_LIMIT:
        raise MalformedError(f"{beside}: expected a manifest, found {data.size:,} bytes")
    try:
        return manifest.parse(data.tobytes().decode(), where=str(beside))
    except UnicodeDecodeError as error:
        raise MalformedError(f"{beside}: expected UTF-8, found {error.reason}") from error


def _members(path: Path, data: Bytes) -> dict[str, Bytes]:
    """The bytes of each member, in place."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise MalformedError(
            f"{path}: expected a zip archive, found a fault: {error}. Is the file complete?"
        ) from error
    members: dict[str, Bytes] = {}
    for info in infos:
        name, start = info.filename, info.header_offset
        if name in members:
            raise MalformedError(f"{path}: expected each member once, found {name!r} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise MalformedError(
                f"{path}: {name}: expected a stored member, found a compressed one. "
                "Save it with torch.save"
            )
        if info.flag_bits & 1:
            raise MalformedError(f"{path}: {name}: expected plain bytes, found encrypted ones")
        head = data[start : start + 30].tobytes() if start >= 0 else b""
        if len(head) < 30 or head[:4] != b"PK\3\4":
            raise MalformedError(f"{path}: {name}: expected a member at {start}, found none")
        start += 30 + sum(struct.unpack_from("<2H", head, 26))
        if start + info.file_size > data.size:
            raise MalformedError(
                f"{path}: {name}: expected {info.file_size:,} bytes at {start}, found the end of "
                "the file. Is the file complete?"
            )
        members[name] = data[start : start + info.file_size]
    return members


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that a pickle names; it stays a name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    data: Bytes


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor as a pickle describes it; sizes and strides count elements."""

    dtype: str
    data: Bytes
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_MARK: Final = object()
_CONSTANTS: Final[Mapping[str, Any]] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
_LITERALS: Final = frozenset(
    {
        *("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"),
        "BINFLOAT",  # the learning rate of a checkpoint
    }
)
_IGNORED: Final = frozenset({"PROTO", "FRAME"})


def _unpickled(pickled: bytes, storage: Callable[[str], Bytes]) -> Any:
    """What the pickle builds, for as long as it builds nothing but a state dict."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
        code = opcode.name
        if code in _LITERALS:
            stack.append(argument)
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code == "GLOBAL":
            stack.append(_named(argument))
        elif code == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_named(f"{module} {attribute}"))
        elif code == "MARK":
            stack.append(_MARK)
        elif code == "TUPLE":
            stack.append(tuple(_to_mark(stack)))
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(code[-1])
            items = stack[-count:]
            if len(items) != count or any(item is _MARK for item in items):
                raise ValueError(f"{code} without items")
            stack[-count:] = [tuple(items)]
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code == "EMPTY_DICT":
            stack.append({})
        elif code == "EMPTY_LIST":
            stack.append([])
        elif code in ("APPEND", "APPENDS"):
            items = [stack.pop()] if code == "APPEND" else _to_mark(stack)
            if not isinstance(stack[-1], list):
                raise ValueError(f"items for {type(stack[-1]).__name__}")
            stack[-1].extend(items)
        elif code == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _put(stack[-1], [key, value])
        elif code == "SETITEMS":
            items = _to_mark(stack)
            _put(stack[-1], items)
        elif code == "BINPERSID":
            stack.append(_storage(stack.pop(), storage))
        elif code == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_called(function, arguments))
        elif code == "BUILD":
            stack.pop()  # attributes, such as the versions of modules
            _put(stack[-1], [])
        elif code == "STOP":
            (result,) = stack
            return result
        elif code not in _IGNORED:
            raise ValueError(f"the opcode {code}, which no state dict needs")
    raise ValueError("no end")


def _named(name: Any) -> _Name:
    if name not in _DTYPES and name not in _CALLED:
        shown = str(name)[:100].replace(" ", ".")
        raise ValueError(f"the name {shown}, which no state dict needs; nothing was executed")
    return _Name(name)


def _to_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _put(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError(f"items for {type(target).__name__}")
    target.update(zip(items[::2], items[1::2], strict=True))


def _storage(identity: Any, storage: Callable[[str], Bytes]) -> _Storage:
    kind, name, key, _, count = identity
    if kind != "storage" or not isinstance(name, _Name) or name.name not in _DTYPES:
        raise ValueError("a storage of no known type")
    if type(key) is not str or not key.isalnum():
        raise ValueError("a storage without a key")
    data, dtype = storage(key), _DTYPES[name.name]
    if type(count) is not int or count * dtype_named(dtype).itemsize != data.size:
        raise ValueError(f"data/{key} of {data.size:,} bytes where {count} elements are declared")
    return _Storage(dtype, data)


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Name) or function.name not in _CALLED:
        raise ValueError("a call of something that is no function of a state dict")
    if function.name == _ORDERED:
        if arguments:
            raise ValueError("an OrderedDict with arguments")
        return {}
    if function.name == _PARAMETER:
        stored = arguments[0]
        if not isinstance(stored, _Stored):
            raise ValueError("a parameter without a tensor")
        return stored
    storage, offset, shape, strides, *rest = arguments
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    dtype = storage.dtype
    if function.name == _UNTYPED:
        named = rest[2]
        if not isinstance(named, _Name) or named.name not in _DTYPES:
            raise ValueError("a tensor of no known dtype")
        dtype = _DTYPES[named.name]
    stored = _Stored(dtype, storage.data, offset, shape, strides)
    _refuse_outside(stored)
    return stored


def _refuse_outside(stored: _Stored) -> None:
    """Refuse a tensor whose elements are not all inside its storage."""
    numbers = (stored.offset, *stored.shape, *stored.strides)
    if len(stored.shape) != len(stored.strides) or not targets.is_shape(list(numbers)):
        raise ValueError("a tensor whose offset, shape or strides are no numbers")
    if not math.prod(stored.shape):
        return
    steps = zip(stored.shape, stored.strides, strict=True)
    last = stored.offset + sum((extent - 1) * stride for extent, stride in steps)
    if (last + 1) * dtype_named(stored.dtype).itemsize > stored.data.size:
        raise ValueError(f"a tensor that reaches element {last} outside of its storage")
    if math.prod(stored.shape) * dtype_named(stored.dtype).itemsize > stored.data.size:
        raise ValueError("a tensor that has more elements than its storage")


def _tensors(path: Path, found: Any) -> Iterator[Tensor]:
    if not isinstance(found, dict):
        raise MalformedError(
            f"{path}: expected a state dict, found {type(found).__name__.strip('_')}. "
            "Save the model's state_dict() alone"
        )
    for name, stored in _inside(path, found).items():
        if not isinstance(name, str) or not isinstance(stored, _Stored):
            raise MalformedError(
                f"{path}: expected a flat state dict of tensors, found "
                f"{type(stored).__name__.strip('_')} under {str(name)[:60]!r}. "
                "Save the model's state_dict() alone"
            )
        dtype = dtype_named(stored.dtype)
        yield Tensor(name, dtype, stored.shape, _loader(stored, dtype))


def _inside(path: Path, found: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The state dict in a checkpoint that holds an epoch and an optimizer beside it."""
    if any(isinstance(value, _Stored) for value in found.values()):
        return found
    inside = {
        str(name): value
        for name, value in found.items()
        if isinstance(value, dict)
        and value
        and all(isinstance(stored, _Stored) for stored in value.values())
    }
    if len(inside) > 1:
        raise MalformedError(
            f"{path}: expected one state dict, found several: {', '.join(sorted(inside)[:5])}. "
            "Save the one that is meant alone"
        )
    return next(iter(inside.values()), found)


def _loader(stored: _Stored, dtype: np.dtype[Any]) -> Callable[[], Array]:
    start = stored.offset * dtype.itemsize
    strides = [stride * dtype.itemsize for stride in stored.strides]
    if not math.prod(stored.shape):
        return lambda: np.empty(stored.shape, dtype)
    return lambda: np.ndarray(stored.shape, dtype, stored.data.data, start, strides)
