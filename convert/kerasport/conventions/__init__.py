"""A convention is a table: for each kind of layer, the tensors it is stored as, as sentences.

Each row lists the `Slot`s of one kind. Slots of two conventions that name the same weight hold the
same numbers, and the way between them follows from their sentences: N + M tables serve every pair
of conventions. What a convention cannot hold is `Absent` with the reason, never a missing row.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from kerasport.errors import UsageError

__all__ = [
    *("CHANNEL_FIRST", "NAMES", "OLDER", "POSITIONS"),
    *("Absent", "Case", "Row", "Slot", "convention", "rows"),
]

NAMES = ("keras", "onnx", "torch")
# What files of other years are in, and nothing is written in.
OLDER = ("keras1", "tf1", "tflite", "theano")
# The axes of a layer that has a weight for each position and channel: as Keras has them, where the
# braces stand for the model's order, and with the channels first. By how many there are.
POSITIONS: Mapping[int, str] = {
    1: "channel",
    2: "{length channel}",
    3: "{height width channel}",
    4: "{depth height width channel}",
}
CHANNEL_FIRST: Mapping[int, str] = {
    1: "channel",
    2: "channel length",
    3: "channel height width",
    4: "channel depth height width",
}


class Slot(NamedTuple):
    """One tensor of a kind of layer, in one convention.

    Attributes:
        name: what the convention calls it, relative to the layer: `kernel`, `weight_ih_l0`.
        layout: the sentence of its dimensions.
        weight: the weight whose numbers it holds; its own name where that is the weight's. Of
            several, separated by spaces, where a file holds them as one.
        at: the block labels at which it is pinned, separated by spaces.
        fill: the value of the pieces that the source has not; None where there must be a source.
        needs: weights of which at least one must be there for the slot to exist; the slot's own
            weight unless it says otherwise. Empty: it always exists.
        dtype: its dtype, where that is not the layer's.
        when: the Keras option without which the layer has no such weight.
        child: the attribute path below the layer where Keras 3 stores it.
        aliases: names that it had in other versions of Keras.
        trainable: False for state that is not trained.
    """

    name: str
    layout: str
    weight: str = ""
    at: str = ""
    fill: float | None = None
    needs: tuple[str, ...] | None = None
    dtype: str = ""
    when: str = ""
    child: str = ""
    aliases: tuple[str, ...] = ()
    trainable: bool = True

    @property
    def of(self) -> str:
        """The weight whose numbers it holds."""
        return self.weight or self.name

    @property
    def pins(self) -> frozenset[str]:
        """The block labels at which it is pinned."""
        return frozenset(self.at.split())


@dataclass(frozen=True, slots=True)
class Absent:
    """The convention cannot hold this kind of layer, and why, and what to do instead."""

    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """Slots that hold under a condition on the sizes of the layer's axes.

    Attributes:
        slots: the slots, or why there are none.
        where: equations between products of axes and numbers, such as `head key = query_in`;
            `out/2` is half an axis, rounded up.
        same: axes that the equations make one, as old name → new name.
        options: options of the layer, or of the file, under which the slots are stored so.
    """

    slots: tuple[Slot, ...] | Absent
    where: tuple[str, ...] = ()
    same: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """True where all equations hold; one about an axis that the layer lacks does not."""
        return all(
            len(products := {_product(side, sizes) for side in equation.split("=")}) == 1
            and None not in products
            for equation in self.where
        )


Row = tuple[Slot, ...] | Absent | tuple[Case, ...]


def _product(side: str, sizes: Mapping[str, int]) -> int | None:
    words = side.split()
    if not all(word.isdigit() or word.removesuffix("/2") in sizes for word in words):
        return None
    return math.prod(int(word) if word.isdigit() else _extent(word, sizes) for word in words)


def _extent(word: str, sizes: Mapping[str, int]) -> int:
    size = sizes[word.removesuffix("/2")]
    return -(-size // 2) if word.endswith("/2") else size


@cache
def convention(name: str) -> Mapping[str, Row]:
    """The table of a convention, by its name.

    Raises:
        UsageError: there is no such convention.

    >>> convention("torch")["Dense"][0].layout
    'out in'
    """
    if name not in (*NAMES, *OLDER):
        raise UsageError(f"unknown convention {name!r}: expected one of {', '.join(NAMES)}")
    table: Mapping[str, Row] = importlib.import_module(f"{__name__}.{name}").TABLE
    if name in OLDER:
        return table
    quantized = getattr(importlib.import_module(f"{__name__}.quantized"), name.upper())
    lora = importlib.import_module(f"{__name__}.lora")
    table = {**table, **quantized}
    return {**table, **lora.with_factors(table, to=name)}


def rows(row: Row) -> Iterator[Case]:
    """A row as the list of its cases, the first that holds being the one that counts."""
    if isinstance(row, Absent):
        yield Case(row)
        return
    plain = tuple(item for item in row if isinstance(item, Slot))
    if plain or not row:
        yield Case(plain)
    yield from (item for item in row if isinstance(item, Case))
