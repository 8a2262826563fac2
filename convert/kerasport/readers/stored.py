"""What a container of any format holds, before anything is understood: groups, tensors, words.

HDF5, a NumPy archive and a live model differ in how bytes are reached and in nothing else that
matters here. Each becomes this tree, and one module (`naming`) makes layers of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from kerasport.model import Tensor

__all__ = ["Group", "natural"]

_DIGITS: Final = re.compile(r"(\d+)")


@dataclass(slots=True, eq=False)
class Group:
    """One group: its own tensors, the groups in it, and what is written beside them.

    Attributes:
        path: where it is in its container, without a leading slash; empty for the root.
        groups: the groups in it, by name.
        tensors: the tensors in it, by name.
        texts: its attributes that are text or lists of text.
        twins: tensors that are a second name for one that is elsewhere, with the other's path.
        ordered: whether the names stand in the order of their making.
    """

    path: str
    groups: dict[str, Group] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    texts: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    twins: dict[str, tuple[Tensor, str]] = field(default_factory=dict)
    ordered: bool = False

    def all(self) -> Iterator[Tensor]:
        """Every tensor in it and below, twins not counted."""
        stack = [self]
        while stack:
            group = stack.pop()
            yield from group.tensors.values()
            stack.extend(group.groups.values())

    def text(self, name: str) -> str | None:
        """An attribute that is one text."""
        found = self.texts.get(name)
        return found if isinstance(found, str) else None

    def list(self, name: str) -> tuple[str, ...] | None:
        """An attribute that is a list of texts; Keras cuts long ones into `name0`, `name1`, …."""
        if name in self.texts:
            found = self.texts[name]
            return (found,) if isinstance(found, str) else found
        parts: list[str] = []
        number = 0
        while (part := self.texts.get(f"{name}{number}")) is not None:
            parts += (part,) if isinstance(part, str) else part
            number += 1
        return tuple(parts) if number else None


def natural(name: str) -> tuple[bool, tuple[tuple[int, int, str], ...]]:
    """A key that sorts names as people do, and private ones last, as Keras visits them.

    Numbers are compared by their digits: they may be of any length, and Python refuses long ones.

    >>> sorted(["_b", "conv_10", "conv_2", "conv"], key=natural)
    ['conv', 'conv_2', 'conv_10', '_b']
    """
    words = (word for word in _DIGITS.split(name) if word)
    return name.startswith("_"), tuple(
        (0, len(word.lstrip("0")), word.lstrip("0")) if word.isdecimal() else (1, 0, word)
        for word in words
    )
