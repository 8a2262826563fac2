"""Layers that rearrange numbers, in Keras's order or in the one that weights were put in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.text import literal
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.options import Options

JSON = Any
Result = Value | tuple[Value, ...]


def flatten(c: Case) -> Value:
    """All features in one axis."""
    x = c.x
    known = c.known[0]
    if x.rank == 1:
        return Value(f"{x.text}.unsqueeze(-1)")
    if x.rank == 2:
        return replace(x, mask="")
    return vector(c, x, known)


def vector(c: Case, x: Value, known: Any) -> Value:
    """All features of an image in one axis, in PyTorch's order where that is followed."""
    before = x.known
    if c.file.orders is not None and known is not None and known.features and not known.lost:
        rank = c.rank(x)
        if x.features is None or not x.order:
            if c.o.channels_first:
                x = x.straight()
            elif before is not None and before.channel:
                last, place = rank - 1, before.channel
                order = [n for n in range(rank) if n != last]
                order.insert(place, last)
                x = x.at(order)
        return Value(f"{x.text}.flatten(1)", features=known.features)
    if x.order and x.shape is not None and not x.features and set(x.shape[1:-1]) == {1}:
        return Value(f"{x.text}.flatten(1)")  # a single pixel has one order
    x = c.plain(x)
    if c.o.channels_first and c.o.class_name == "Flatten":
        rank = c.rank(x)
        x = replace(x.at((0, *range(2, rank), 1)), order=())
    return Value(f"{x.text}.flatten(1)")


def reshape(c: Case) -> Value:
    """Another shape, in Keras's order."""
    wanted = [int(n) for n in c.o("target_shape")]
    x = c.x
    if len(wanted) == 1:
        if x.rank == 2:
            return replace(x, mask="")
        return vector(replace_class(c, "Reshape"), x, c.known[0])
    x = c.plain(x)
    if x.rank == 2:
        return Value(f"torch.unflatten({x.text}, 1, {literal(tuple(wanted))})")
    if -1 not in wanted:
        return Value(f"{x.text}.reshape(-1, {', '.join(map(str, wanted))})")
    return Value(f"torch.unflatten({x.text}.flatten(1), 1, {literal(tuple(wanted))})")


def replace_class(c: Case, name: str) -> Case:
    """The same call as one of another class."""
    return replace(c, o=Options(name, {}))


def permute(c: Case) -> Value:
    """Axes in another order: nothing is moved until something needs it."""
    dims = [0, *(int(n) for n in c.o("dims"))]
    x = c.body.natural(c.x)
    order = x.order or tuple(range(len(dims)))
    if sorted(dims) != sorted(order):
        raise UnsupportedError(f"{c.path}: expected a permutation of the axes")
    made = tuple(dims.index(axis) for axis in order)
    straight = made == tuple(range(len(made)))
    return replace(x, order=() if straight else made, shape=None, mask="")


def repeat_vector(c: Case) -> Value:
    """A vector as every step of a sequence."""
    n = int(c.o("n"))
    return replace(c.x, text=f"{c.x.text}.unsqueeze(1).expand(-1, {n}, -1)", shape=None, mask="")
