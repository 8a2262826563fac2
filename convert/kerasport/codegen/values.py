"""What the writer of a module knows of a tensor, and how it is put in another order.

Keras keeps channels last, PyTorch keeps them first. A generated module keeps each tensor as its
maker gave it, and remembers which of Keras's axes each dimension is; it is put in another order
where something needs that, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kerasport.flatten import Features, Image, Rest, Row, Steps
from kerasport.shapes import Shape

__all__ = ["Value", "image_order", "permuted", "unflattened"]

Known = Any
"""What `flatten` knows of the tensor."""


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor in a forward pass.

    Attributes:
        text: the variable that it is in.
        shape: its shape in Keras's order, batch included; None where unknown.
        order: which of Keras's axes each dimension is; empty where it is in Keras's order.
        features: what the last axis is made of, where that is in PyTorch's order.
        mask: the variable that says which steps count, or nothing.
        known: what `flatten` knows of it.
        matrix: whether it is no image, however many dimensions it has.
    """

    text: str
    shape: Shape = None
    order: tuple[int, ...] = ()
    features: Features | None = None
    mask: str = ""
    known: Known = None
    matrix: bool = False

    @property
    def rank(self) -> int | None:
        """How many dimensions it has."""
        if self.shape is not None:
            return len(self.shape)
        return len(self.order) or None

    def axis(self, axis: int) -> int:
        """The dimension of one of Keras's axes, which may be counted from the end.

        >>> Value("x", (None, 5, 7, 3), (0, 3, 1, 2)).axis(-1)
        1
        """
        if not self.order:
            return axis
        return self.order.index(axis % len(self.order))

    def size(self, axis: int) -> int | None:
        """The extent of one of Keras's axes."""
        return None if self.shape is None or axis >= len(self.shape) else self.shape[axis]

    def at(self, order: Sequence[int]) -> Value:
        """The value in another order; the text is an expression then."""
        mine = self.order or tuple(range(len(order)))
        straight = tuple(order) == tuple(range(len(order)))
        text = permuted(self.text, [mine.index(axis) for axis in order])
        return replace(self, text=text, order=() if straight else tuple(order))

    def straight(self) -> Value:
        """The value in Keras's order."""
        return self if not self.order else self.at(range(len(self.order)))


def image_order(rank: int) -> tuple[int, ...]:
    """Channels first: the last axis behind the batch.

    >>> image_order(4)
    (0, 3, 1, 2)
    """
    return (0, rank - 1, *range(1, rank - 1))


def permuted(text: str, dims: Sequence[int]) -> str:
    """An expression with its dimensions in another order.

    >>> permuted("x", [0, 2, 1]), permuted("x", [0, 3, 1, 2]), permuted("x", [0, 1])
    ('x.transpose(1, 2)', 'x.permute(0, 3, 1, 2)', 'x')
    """
    moved = [n for n, dim in enumerate(dims) if n != dim]
    if not moved:
        return text
    if len(moved) == 2:
        return f"{text}.transpose({moved[0]}, {moved[1]})"
    return f"{text}.permute({', '.join(map(str, dims))})"


def unflattened(text: str, features: Features) -> str | None:
    """An expression whose last axis is in Keras's order again; None where that is more than one.

    >>> unflattened("x", Image(6, Rest(5)))
    'torch.unflatten(x, -1, (5, 6)).transpose(-1, -2).flatten(-2)'
    """
    match features:
        case Rest():
            return text
        case Image(space, channels):
            apart = f"torch.unflatten({text}, -1, ({_size(channels)}, {space})).transpose(-1, -2)"
            inner = unflattened(apart, channels)
        case Steps(count, one):
            inner = unflattened(f"torch.unflatten({text}, -1, ({count}, {_size(one)}))", one)
        case Row():
            return None
    return inner and f"{inner}.flatten(-2)"


def _size(features: Features) -> int:
    match features:
        case Rest(size):
            return size
        case Image(count, inner) | Steps(count, inner):
            return count * _size(inner)
        case Row(parts):
            return sum(map(_size, parts))
