"""The arguments of a layer's call, whichever Keras wrote them.

Keras 3 writes `args` and `kwargs` and marks its tensors; those before wrote lists of `[layer, call,
tensor, kwargs]`, and marked constants instead. Here both become a list and a dict, in which tensors
are `Ref`s and everything else is JSON data, slices excepted.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasport.architecture import Node, Ref
from kerasport.errors import MalformedError
from kerasport.shapes import Shape

__all__ = ["Arguments", "arguments"]

JSON = Any


@dataclass(frozen=True, slots=True)
class Arguments:
    """What one call of a layer is given.

    Attributes:
        args: by position.
        named: by name.
        shapes: the shapes that the configuration says the tensors have.
    """

    args: list[Any] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)
    shapes: dict[Ref, Shape] = field(default_factory=dict)


def arguments(node: Node, number: int, *, names: Container[str]) -> Arguments:
    """The arguments of one call.

    Args:
        node: the layer.
        number: which of its calls.
        names: the names of the layers of its model.
    """
    refs = node.inputs[number] if number < len(node.inputs) else ()
    if number >= len(node.calls):  # a Sequential's layer
        return Arguments(list(refs))
    try:
        return _Reader(iter(refs), names).call(node.calls[number])
    except StopIteration:
        raise MalformedError(
            f"{node.name}: the arguments of its calls contradict one another"
        ) from None


class _Reader:
    """Reads one call; takes its tensors in the order in which the architecture found them."""

    def __init__(self, refs: Iterator[Ref], names: Container[str]) -> None:
        self.refs = refs
        self.names = names
        self.shapes: dict[Ref, Shape] = {}

    def call(self, written: JSON) -> Arguments:
        if isinstance(written, Mapping) and "args" in written:
            found = {key: self.value(value) for key, value in written.items()}
            named = found.get("kwargs")
            args = found["args"] if isinstance(found["args"], list) else [found["args"]]
            return Arguments(args, named if isinstance(named, dict) else {}, self.shapes)
        if isinstance(written, Mapping):  # a dict of tensors
            return Arguments([self.value(written)], {}, self.shapes)
        entries = [written] if _is_entry(written) else written
        if not (isinstance(entries, list) and all(map(_is_entry, entries))):
            return Arguments([self.value(written)], {}, self.shapes)
        values: list[Any] = []
        named = {}
        for entry in entries:
            values.append(entry[2] if entry[0] == "_CONSTANT_VALUE" else next(self.refs))
            found = self.value(entry[3]) if len(entry) > 3 else {}
            named = named or found
        return Arguments(values if len(values) == 1 else [values], named, self.shapes)

    def value(self, written: JSON) -> Any:
        match written:
            case {"class_name": "__keras_tensor__", "config": config}:
                ref = next(self.refs)
                shape = config.get("shape")
                self.shapes[ref] = tuple(shape) if isinstance(shape, list) else None
                return ref
            case {"class_name": "__slice__", "config": config}:
                return slice(config.get("start"), config.get("stop"), config.get("step"))
            case {"class_name": "__ellipsis__"}:
                return Ellipsis
            case {"class_name": "__numpy__" | "__tensor__", "config": {"value": value}}:
                return self.value(value)
            case Mapping() if written.keys() == {"start", "stop", "step"}:
                found = [self.value(written[key]) for key in ("start", "stop", "step")]
                return slice(*found)
            case Mapping():
                return {key: self.value(value) for key, value in written.items()}
            case [str(), int(), int(), *_] if _is_entry(written) and self.is_ref(written):
                ref = next(self.refs)
                self.value(written[3:])
                return ref
            case ["_CONSTANT_VALUE", _, value, *rest]:
                self.value(rest)
                return value
            case list():
                return [self.value(item) for item in written]
            case _:
                return written

    def is_ref(self, written: list[JSON]) -> bool:
        keyworded = len(written) == 4 and isinstance(written[3], Mapping)
        return written[0] != "_CONSTANT_VALUE" and (written[0] in self.names or keyworded)


def _is_entry(written: JSON) -> bool:
    return (
        isinstance(written, list)
        and len(written) in (3, 4)
        and isinstance(written[0], str)
        and isinstance(written[1], int)
    )
