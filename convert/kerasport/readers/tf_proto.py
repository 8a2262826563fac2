"""Protocol buffers, as far as reading a few messages takes: the wire format and tables of fields.

A message is a run of numbered fields, each with a length or a size of its own, so a reader that
knows ten of a message's fields skips the others without understanding them. That is all that is
needed here, and it keeps protobuf with its generated classes out. Every length is checked against
the bytes that are there before it is used, nesting has a limit, and nothing is allocated that the
file does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kerasport.errors import MalformedError

__all__ = ["Buffer", "Field", "Message", "decode", "varint"]

Buffer = bytes | memoryview
Message = Mapping[str, Any]

MAX_DEPTH: Final = 100
"""How many messages may lie inside one another; protobuf's own limit."""

_SMALL: Final = 1 << 16

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SIZES: Final = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        name: what it is called in the decoded message.
        kind: `int`, `fixed32`, `text`, `bytes` (as they are, for messages that are read later or
            never, and for packed numbers of a fixed size), or the fields of a message.
        many: whether it may occur more than once; it is a list then.
    """

    name: str
    kind: str | Mapping[int, Field]
    many: bool = False


def varint(data: Buffer, at: int, end: int, *, where: str) -> tuple[int, int]:
    """A number of variable length, and where it ends.

    >>> varint(bytes([0xAC, 0x02]), 0, 2, where="example")
    (300, 2)

    Args:
        data: the bytes.
        at: where it begins.
        end: where it must have ended.
        where: what is being read, for errors.

    Raises:
        MalformedError: it does not end in time, or is larger than 64 bits.
    """
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    number = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, at
        shift += 7
        if shift > 63:
            break
    if at >= end and shift <= 63:
        raise MalformedError(f"{where}: ends in the middle of a number")
    raise MalformedError(f"{where}: a number of more than 64 bits")


def decode(data: Buffer, fields: Mapping[int, Field], *, where: str, depth: int = 0) -> Message:
    r"""The fields of a message by name; None or an empty tuple where a field is not there.

    >>> decode(b"\x08\x05", {1: Field("count", "int")}, where="example")
    {'count': 5}

    Args:
        data: the message.
        fields: the fields that are wanted, by number; the others are skipped.
        where: what is being read, for errors.
        depth: how many messages it lies in.

    Raises:
        MalformedError: it is no message with such fields.
    """
    if depth > MAX_DEPTH:
        raise MalformedError(f"{where}: more than {MAX_DEPTH} messages inside one another")
    if len(data) <= _SMALL:
        data = bytes(data)  # much quicker to read, and nothing that must stay where it is mapped
    found: dict[str, Any] = {}
    at, end = 0, len(data)
    while at < end:
        # Most numbers are of one byte, and this loop is where the time goes.
        tag, at = (data[at], at + 1) if data[at] < 0x80 else varint(data, at, end, where=where)
        wire, field = tag & 7, fields.get(tag >> 3)
        value: Any
        if tag < 8:
            raise MalformedError(f"{where}: a field with the number 0")
        if wire == VARINT:
            value, at = varint(data, at, end, where=where)
        else:
            if wire == BYTES:
                if at < end and data[at] < 0x80:
                    size, at = data[at], at + 1
                else:
                    size, at = varint(data, at, end, where=where)
            elif wire in _SIZES:
                size = _SIZES[wire]
            else:
                raise MalformedError(f"{where}: expected a field, found wire type {wire}")
            start, at = at, at + size
            if at > end:
                raise MalformedError(
                    f"{where}: a field of {size} bytes where {end - start} are left; it is "
                    "truncated"
                )
            value = data[start:at] if field is not None else None
        if field is None:
            continue
        name, kind, many = field
        if wire == BYTES and kind == "text":
            value = str(value, "utf-8", "surrogateescape")
        elif kind != "bytes" or wire == VARINT:
            value = _read(field, wire, value, where=where, depth=depth)
        if not many:
            found[name] = value
        elif isinstance(value, list):
            found.setdefault(name, []).extend(value)
        elif name in found:
            found[name].append(value)
        else:
            found[name] = [value]
    for name, _, many in fields.values():
        if name not in found:
            found[name] = () if many else None
    return found


def _read(field: Field, wire: int, value: Any, *, where: str, depth: int) -> Any:
    """The value of one occurrence of a field that is no text, or a list of packed numbers."""
    kind = field.kind
    if wire == BYTES:
        if not isinstance(kind, str):
            return decode(value, kind, where=where, depth=depth + 1)
        if kind == "int" and field.many:
            return _packed(value, where=where)
    elif wire == VARINT and kind == "int":
        return value - (1 << 64) if value >> 63 else value
    elif kind == "fixed32" and wire == FIXED32:
        return int.from_bytes(value, "little")
    raise MalformedError(f"{where}: the field {field.name!r} has wire type {wire}, unexpected")


def _packed(data: Buffer, *, where: str) -> list[int]:
    numbers = []
    at = 0
    while at < len(data):
        number, at = varint(data, at, len(data), where=where)
        numbers.append(number - (1 << 64) if number >> 63 else number)
    return numbers
