"""ONNX initializers, mapped in place; values outside of the model only from its own folder.

The onnx library parses a model by copying it, twice what the model weighs, before the first tensor
can be asked for. A protobuf message is a list of fields with lengths, so the few that hold tensors
are followed here and everything else is stepped over. Every length is checked against the message
that it lies in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kerasport import manifest
from kerasport.errors import MalformedError, UnsupportedError
from kerasport.model import StateDict, Tensor, dtype_named
from kerasport.readers import targets
from kerasport.readers.targets import Bytes

__all__ = ["matches", "read"]

_DTYPES: Final[Mapping[int, str]] = {
    1: "f32",
    2: "u8",
    3: "i8",
    4: "u16",
    5: "i16",
    6: "i32",
    7: "i64",
    9: "bool",
    10: "f16",
    11: "f64",
    12: "u32",
    13: "u64",
    14: "c64",
    15: "c128",
    16: "bf16",
    17: "f8_e4m3fn",
    19: "f8_e5m2",
}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_ENOUGH = 16  # bytes of a graph, to be taken for one that was cut off
_EXTERNAL: Final = 1
# float_data, int32_data, string_data, int64_data, double_data, uint64_data
_TYPED_DATA: Final = frozenset({4, 5, 6, 7, 10, 11})


def matches(path: Path) -> bool:
    """True if the content is an ONNX model: fields to the end, a version and a graph among them.

    One that was cut off within its graph counts too, so that the reader can say so.
    """
    numbers: set[int] = set()
    try:
        data = targets.mapped(path)
        if data.size < 4 or data[0] != 8:
            return False
        for number, _ in _fields(data, 0, data.size):
            numbers.add(number)
    except _CutOffError as error:
        if error.left < _ENOUGH:
            return False
        numbers.add(error.number)
    except (MalformedError, OSError, ValueError):
        return False
    return {1, 7} <= numbers <= {*range(1, 9), 14, 20, 25, 26}


def read(path: Path) -> StateDict:
    """Read the initializers of an ONNX model.

    Args:
        path: the model.

    Returns:
        The tensors, mapped in place, in the order of the model.

    Raises:
        MalformedError: the model breaks the format's rules, or points out of its folder.
        UnsupportedError: a dtype, or a way to store values, that kerasport does not know.
        UsageError: the file cannot be read.
    """
    data = targets.mapped(path)
    try:
        graphs, document = _model(path, data)
        tensors = _Tensors(path, data)
        found = [tensor for span in graphs for tensor in tensors.of_graph(span)]
    except UnicodeDecodeError as error:
        raise MalformedError(f"{path}: expected UTF-8 text, found {error.reason}") from error
    except _WireError as error:
        raise MalformedError(
            f"{path}: expected an ONNX model, found a fault: {error}. Is the file complete?"
        ) from error
    return targets.state(path, found, document=document)


class _WireError(MalformedError):
    """A field that does not fit the message that it lies in."""


class _CutOffError(_WireError):
    """A field that is longer than what is left, its number, and how many bytes are left."""

    def __init__(self, message: str, number: int, *, left: int) -> None:
        self.number = number
        self.left = left
        super().__init__(message)


Span = tuple[int, int]


def _varint(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            break
        digit = int(data[at])
        at += 1
        number |= (digit & 0x7F) << shift
        if digit < 0x80:
            return number & (1 << 64) - 1, at
    raise _WireError(f"a number without an end at byte {at}")


def _fields(data: Bytes, start: int, stop: int) -> Iterator[tuple[int, int | Span]]:
    """The fields of a message: each number with its value, or with the span of its content."""
    at = start
    while at < stop:
        key, at = _varint(data, at, stop)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise _WireError(f"a field numbered {number} before byte {at}")
        if wire == _VARINT:
            value, at = _varint(data, at, stop)
            yield number, value
            continue
        if wire == _LENGTH:
            length, at = _varint(data, at, stop)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _WireError(f"a field of wire type {wire} before byte {at}")
        if length > stop - at:
            message = f"{length:,} bytes declared at byte {at}, {stop - at:,} are left"
            raise _CutOffError(message, number, left=stop - at)
        yield number, (at, at + length)
        at += length


def _text(data: Bytes, span: int | Span) -> str:
    start, stop = _span(span)
    return data[start:stop].tobytes().decode()


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise _WireError("a number where a message belongs")
    return value


def _int(value: int | Span) -> int:
    if not isinstance(value, int):
        raise _WireError("a message where a number belongs")
    return value


def _pair(data: Bytes, span: int | Span) -> tuple[str, str]:
    found = {number: _text(data, value) for number, value in _fields(data, *_span(span))}
    return found.get(1, ""), found.get(2, "")


def _model(path: Path, data: Bytes) -> tuple[list[Span], dict[str, Any] | None]:
    graphs: list[Span] = []
    document: dict[str, Any] | None = None
    for number, value in _fields(data, 0, data.size):
        if number == 7:
            graphs.append(_span(value))
        elif number == 14:
            key, text = _pair(data, value)
            if key == "kerasport":
                document = manifest.parse(text, where=f"{path}: manifest")
    if not graphs:
        raise _WireError("no graph")
    return graphs, document


@dataclass(slots=True)
class _Proto:
    """The fields of one TensorProto."""

    dims: list[int] = field(default_factory=list)
    dtype: int = 0
    name: str = ""
    raw: Span | None = None
    external: dict[str, str] = field(default_factory=dict)
    location: int = 0
    typed: bool = False


@dataclass(slots=True)
class _Tensors:
    """The initializers of one model; files of external data are mapped once."""

    path: Path
    data: Bytes
    files: dict[str, Bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def of_graph(self, span: Span) -> Iterator[Tensor]:
        for number, value in _fields(self.data, *span):
            if number == 5:
                yield self._tensor(self._proto(_span(value)))

    def _proto(self, span: Span) -> _Proto:
        proto = _Proto()
        for number, value in _fields(self.data, *span):
            if number == 1:
                proto.dims += [value] if isinstance(value, int) else self._packed(value)
            elif number == 2:
                proto.dtype = _int(value)
            elif number == 8:
                proto.name = _text(self.data, value)
            elif number == 9:
                proto.raw = _span(value)
            elif number == 13:
                key, text = _pair(self.data, value)
                proto.external[key] = text
            elif number == 14:
                proto.location = _int(value)
            elif number in _TYPED_DATA:
                proto.typed = True
        return proto

    def _packed(self, span: Span) -> list[int]:
        at, stop = span
        numbers: list[int] = []
        while at < stop:
            number, at = _varint(self.data, at, stop)
            numbers.append(number)
        return numbers

    def _tensor(self, proto: _Proto) -> Tensor:
        name = proto.name
        if name in self.names:
            raise MalformedError(f"{self.path}: expected each initializer once, found {name} twice")
        self.names.add(name)
        if not targets.is_shape(proto.dims):
            raise MalformedError(f"{self.path}: {name}: expected a shape, found {proto.dims[:8]}")
        if proto.dtype not in _DTYPES:
            raise UnsupportedError(
                f"{self.path}: {name}: expected a known data type, found number {proto.dtype}"
            )
        if proto.typed:
            raise UnsupportedError(
                f"{self.path}: {name}: expected its values as raw_data, found them in a field "
                "of their type. Save the model anew with onnx.numpy_helper"
            )
        dtype, shape = dtype_named(_DTYPES[proto.dtype]), tuple(proto.dims)
        needed = math.prod(shape) * dtype.itemsize
        if proto.location == _EXTERNAL:
            data, start, length = self._external(proto, needed)
        else:
            start, stop = proto.raw or (0, 0)
            data, length = self.data, stop - start
        if length != needed:
            raise MalformedError(
                f"{self.path}: {name}: expected {needed:,} bytes for its shape {list(shape)}, "
                f"found {length:,}. The file is damaged"
            )
        return Tensor(name, dtype, shape, targets.view(data, dtype, shape, start=start))

    def _external(self, proto: _Proto, needed: int) -> tuple[Bytes, int, int]:
        location = proto.external.get("location", "")
        if location not in self.files:
            self.files[location] = targets.mapped(self._inside(proto.name, location))
        data = self.files[location]
        start = self._number(proto, "offset", 0)
        length = self._number(proto, "length", needed)
        if start + length > data.size:
            raise MalformedError(
                f"{self.path}: {proto.name}: expected {length:,} bytes at {start:,} of {location}, "
                f"found {data.size:,} in all. Is the file complete?"
            )
        return data, start, length

    def _number(self, proto: _Proto, key: str, default: int) -> int:
        text = proto.external.get(key)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise MalformedError(
                f"{self.path}: {proto.name}: expected a number as {key}, found {text[:40]!r}"
            )
        return int(text)

    def _inside(self, name: str, location: str) -> Path:
        """The file of external data, if it lies in the model's folder, links followed."""
        folder = self.path.parent.resolve()
        parts = Path(location).parts
        bad = not parts or "\\" in location or ":" in location or "\0" in location
        if bad or ".." in parts or Path(location).is_absolute():
            inside = False
        else:
            inside = (folder / location).resolve().is_relative_to(folder)
        if not inside:
            raise MalformedError(
                f"{self.path}: {name}: expected external data in the model's own folder, "
                f"found {location[:60]!r}. A model must not lead out of its folder"
            )
        if not (folder / location).is_file():
            raise MalformedError(
                f"{self.path}: {name}: expected its values in {location}, found no such file. "
                "Fetch it together with the model"
            )
        return folder / location
