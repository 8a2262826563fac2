"""One variable under two names: what is certain of it, and what only looks like it.

A model may use one variable in two places: a layer called by two models, an embedding that is the
output's matrix too. Written twice, the two would part as soon as somebody trains on. It is certain

- in a live model, where it is one object: the reader says so by `Tensor.same_as`;
- by configuration, where one layer stands in two models: its second place holds no tensors;
- in an archive of ours, whose manifest remembers it.

It is not certain where a file merely holds the same values twice, as `.keras` files do with a
shared variable. Equal values are no proof: two layers of one seed begin alike, and so does a copy
that is to be trained apart. So they are reported, and are one only for who says so. Nor is every
equality worth a word: biases of zeros are equal everywhere. What is reported has one dtype and
shape, at least `SMALLEST` elements, not all of them the same, and the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from kerasport.architecture import Graph, parse
from kerasport.model import Named, Note, Snapshot, Tensor

__all__ = ["SMALLEST", "equal", "equal_notes", "second_places", "tied"]

SMALLEST: Final = 16
_HEAD: Final = 256


def second_places(snapshot: Snapshot) -> dict[str, str]:
    """The paths under which the configuration has a layer or model a second time → the first.

    Args:
        snapshot: with its architecture.
    """
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    return {} if graph is None else dict(_repeats(graph, ""))


def _repeats(graph: Graph, prefix: str) -> Iterator[tuple[str, str]]:
    for node in graph.nodes:
        path = prefix + node.name
        if node.same_as is not None and node.same_as != path:
            yield path, node.same_as
        elif node.graph is not None:
            yield from _repeats(node.graph, f"{path}/")


def equal(snapshot: Snapshot) -> dict[str, Tensor]:
    """The names of tensors that hold what one before them holds → that one.

    Tensors of which it is certain are left out, as are those that any two models share.
    """
    first: dict[tuple[object, ...], list[Tensor]] = {}
    alike: dict[str, Tensor] = {}
    for tensor in snapshot.tensors:
        if tensor.size >= SMALLEST and not tensor.same_as:
            first.setdefault((tensor.dtype, tensor.shape), []).append(tensor)
    for tensors in (found for found in first.values() if len(found) > 1):
        heads: dict[bytes, list[Tensor]] = {}
        for tensor in tensors:
            heads.setdefault(next(tensor.slabs(_HEAD)).tobytes(), []).append(tensor)
        for candidates in (found for found in heads.values() if len(found) > 1):
            alike |= _classes(candidates)
    return alike


def _classes(candidates: list[Tensor]) -> dict[str, Tensor]:
    """Which of these tensors equal an earlier one; those of one value throughout do not count."""
    firsts: list[Tensor] = []
    found: dict[str, Tensor] = {}
    for tensor in candidates:
        if _constant(tensor):
            continue
        twin = next((first for first in firsts if _same(first, tensor)), None)
        if twin is None:
            firsts.append(tensor)
        else:
            found[tensor.name] = twin
    return found


def _same(one: Tensor, other: Tensor) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.slabs(), other.slabs(), strict=True))


def _constant(tensor: Tensor) -> bool:
    value = b""
    for slab in tensor.slabs():
        value = value or slab[:1].tobytes()
        if slab.tobytes() != value * slab.size:
            return False
    return True


def equal_notes(snapshot: Snapshot) -> tuple[Note, ...]:
    """A note on each tensor that holds what another one holds, which may be no accident."""
    return tuple(
        Note(
            "equal",
            name,
            f"holds the same values as {first.name}; if they are one variable, --tied content "
            "writes it once",
        )
        for name, first in equal(snapshot).items()
    )


def tied(snapshot: Snapshot) -> Snapshot:
    """The snapshot in which tensors of equal content are one variable under several names.

    Args:
        snapshot: of a file; in a live model it is known which variables are one.
    """
    twins: Mapping[str, Tensor] = equal(snapshot)
    if not twins:
        return snapshot
    layers = tuple(
        replace(
            layer,
            weights=Named(
                "role",
                {
                    role: replace(tensor, same_as=_place(twins[tensor.name]))
                    if tensor.name in twins
                    else tensor
                    for role, tensor in layer.weights.items()
                },
            ),
        )
        for layer in snapshot.layers
    )
    return replace(snapshot, layers=layers)


def _place(tensor: Tensor) -> str:
    return tensor.stored or tensor.name
