"""What an operation between layers is given: tensors and constants, by position or by name.

Keras 3 records an operation as a class with its options, tf.keras as the name of a function with
its arguments; the rules of both ask here. Tensors that go together element by element are put in
one order; where axes are counted, they are put in Keras's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.text import literal
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.shapes import Shape

__all__ = ["Operation", "aligned", "axes_of", "broadcast", "constant", "straight"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, with its operands by position and its options by name."""

    c: Case
    name: str
    args: Sequence[Any]
    named: Mapping[str, Any]

    def operand(self, place: int, *names: str) -> Any:
        """An argument by position, or by one of its names."""
        if place < len(self.args):
            return self.args[place]
        return next((self.named[name] for name in names if name in self.named), None)

    def option(self, place: int, *names: str, default: Any = None) -> Any:
        """An option, which may be given by position too."""
        found = self.operand(place, *names)
        return default if found is None else found

    @property
    def x(self) -> Value:
        """The first operand."""
        found = self.operand(
            0, "x", "x1", "inputs", "input", "input_tensor", "tensor", "a", "features"
        )
        if not isinstance(found, Value):
            found = self.operand(0, "logits", "images", "image", "params", "value", "input_tensor")
        if not isinstance(found, Value):
            raise UnsupportedError(f"{self.c.path}: expected {self.name} to take a tensor first")
        return found


def aligned(op: Operation, operands: Sequence[Any]) -> tuple[list[str], Value]:
    """Operands as expressions in one order, and a value that has that order."""
    values = [op.c.body.natural(v) for v in operands if isinstance(v, Value)]
    if not values or any(v is None for v in operands):
        raise UnsupportedError(f"{op.c.path}: expected {op.name} to take tensors and numbers")
    scalars = all(isinstance(v, Value | bool | int | float) for v in operands)
    ranks = {v.rank for v in values}
    order: tuple[int, ...] = ()
    if scalars and len(ranks) == 1 and None not in ranks:
        orders = {v.order for v in values}
        rank = next(iter(ranks)) or 0
        order = orders.pop() if len(orders) == 1 else () if rank <= 3 else max(orders, key=len)
    given = iter(values)
    texts: list[str] = []
    first = values[0]
    for v in operands:
        if isinstance(v, Value):
            own = next(given)
            texts.append((own.at(order) if order else own.straight()).text)
        else:
            texts.append(constant(v, first.text))
    shape = broadcast([v.shape for v in values])
    return texts, Value("", shape=shape, order=order, mask="")


def constant(value: Any, near: str) -> str:
    """A constant as an expression, an array as a tensor on the device of another one."""
    if isinstance(value, list):
        return f"{near}.new_tensor({literal(value)})"
    return literal(value)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of tensors that go together as NumPy's do."""
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, known))
    made: list[int | None] = []
    for column in zip(*[(1,) * (rank - len(shape)) + tuple(shape) for shape in known], strict=True):
        sizes = {n for n in column if n != 1}
        made.append(1 if not sizes else next((n for n in sizes if n is not None), None))
    return tuple(made)


def straight(op: Operation, value: Any = None) -> Value:
    """An operand in Keras's order."""
    return op.c.plain(op.x if value is None else value)


def axes_of(op: Operation, rank: int | None, written: Any) -> list[int] | None:
    """Axes as a list, counted from the front where the rank is known."""
    if written is None:
        return None
    axes = [int(n) for n in (written if isinstance(written, list | tuple) else [written])]
    return axes if rank is None else [n % rank for n in axes]
