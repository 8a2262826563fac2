"""What a pickle would build, as a description: nothing is imported and nothing is called.

A pickle is a program, and `pickle.loads` runs it. The `.npz` files of Keras hold pickles, of arrays
or of whole variables with their backend's objects around the values, and Keras itself cannot load
them any more. Here `pickletools` takes a pickle apart, names stay names, and calls become nodes of
a tree in which the arrays can be looked for. Their bytes stay where they are in the file.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from kerasport.model import dtype_named

__all__ = ["Bytes", "Made", "NdArray", "arrays", "described"]

_LIMIT: Final = 1 << 24
"""How many nodes a description may have."""

_PUSHED: Final = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_HEADS: Final[Mapping[str, int]] = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9}
_RECONSTRUCT: Final = frozenset(
    f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")
)
_BEYOND: Final[Mapping[str, str]] = {
    "ml_dtypes bfloat16": "bf16",
    "ml_dtypes float8_e4m3fn": "f8_e4m3fn",
    "ml_dtypes float8_e5m2": "f8_e5m2",
}


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of the pickle, by where they are."""

    offset: int
    size: int


@dataclass(slots=True, eq=False)
class Made:
    """An object that the pickle would make: what would be called, with what, and its state."""

    what: Any
    arguments: Any = ()
    state: Any = None


@dataclass(frozen=True, slots=True)
class Name:
    """A global that the pickle names; it stays a name."""

    name: str


@dataclass(frozen=True, slots=True)
class NdArray:
    """An array of NumPy as a pickle describes it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    columns_first: bool
    data: Bytes | list[Any]


class _Mark:
    """Where the arguments of an opcode begin."""


_MARK: Final = _Mark()


@dataclass(slots=True)
class _Machine:
    """A stack and a memo, as the pickle wants them."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    count: int = 0

    def run(self, data: bytes) -> Any:
        for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
            self.count += 1
            if self.count > _LIMIT:
                raise ValueError("more opcodes than any weights need")
            if opcode.name == "STOP":
                (result,) = self.stack
                return result
            self.step(opcode.name, argument, position or 0)
        raise ValueError("no end")

    def step(self, code: str, argument: Any, position: int) -> None:
        stack = self.stack
        match code:
            case "PROTO" | "FRAME":
                pass
            case _ if code in _PUSHED:
                stack.append(argument)
            case _ if code in _HEADS:
                stack.append(Bytes(position + _HEADS[code], len(argument)))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append({"T": tuple, "L": list, "D": dict, "S": list}[code[6]]())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self.to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(code[-1])
                items = [stack.pop() for _ in range(count)]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                items = [stack.pop()] if code == "APPEND" else self.to_mark()
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = self.to_mark() if code == "SETITEMS" else [stack.pop(-2), stack.pop()]
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(Name(argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(Name(f"{module} {attribute}"))
            case "REDUCE" | "NEWOBJ":
                arguments, what = stack.pop(), stack.pop()
                stack.append(Made(what, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case _:
                raise ValueError(f"the opcode {code}, which no weights need")

    def to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def described(data: bytes) -> Any:
    """What a pickle would build.

    Args:
        data: the pickle.

    Raises:
        ValueError: it is no sound pickle, or more than one of plain data.
    """
    try:
        return _Machine().run(data)
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a pickle that contradicts itself: {error}") from None


def arrays(value: Any) -> Iterator[NdArray]:
    """Every array in a description, each once, however deep.

    Args:
        value: what `described` gave.
    """
    stack, seen = [value], set[int]()
    while stack:
        node = stack.pop()
        if isinstance(node, Made | dict | list | tuple):
            if id(node) in seen:
                continue
            seen.add(id(node))
        match node:
            case Made(Name(name), _, state) if name in _RECONSTRUCT:
                yield _array(state)
            case Made(what, arguments, state):
                stack += (state, arguments, what)
            case dict():
                stack.extend(node.values())
            case list() | tuple():
                stack.extend(node)


def _array(state: Any) -> NdArray:
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array without its state")
    _, shape, dtype, columns_first, data = state
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array whose shape is no tuple of numbers")
    if not isinstance(data, Bytes | list) or type(columns_first) is not bool:
        raise ValueError("an array without its bytes")
    return NdArray(_dtype(dtype), shape, columns_first, data)


def _dtype(made: Any) -> np.dtype[Any]:
    if not isinstance(made, Made) or made.what != Name("numpy dtype"):
        raise ValueError("an array of no known dtype")
    name = made.arguments[0]
    if isinstance(name, Name) and name.name in _BEYOND:
        return dtype_named(_BEYOND[name.name])
    order = made.state[1] if isinstance(made.state, tuple) and len(made.state) > 1 else "|"
    if not isinstance(name, str) or order not in ("<", ">", "|"):
        raise ValueError("an array of no known dtype")
    try:
        dtype: np.dtype[Any] = np.dtype(f"{order}{name}")
    except TypeError:
        raise ValueError(f"an array of the dtype {name[:50]!r}") from None
    if dtype.kind not in "biufc":
        raise ValueError(f"an array of the dtype {name[:50]!r}")
    return dtype
