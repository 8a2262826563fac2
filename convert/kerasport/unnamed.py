"""A list of arrays without names, given to the layers of an architecture in order.

`model.get_weights()` goes through the layers in model order and through each layer's variables in
the order of its class, in every version of Keras; saved by NumPy, nothing but that order is left.
So with an architecture the list has one reading: each layer takes as many arrays as its class and
options say. It holds only if the numbers add up and every array fits its place; else nothing is
taken, since one layer too many or too few would shift all that follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from kerasport.architecture import Leaf, parse
from kerasport.errors import UsageError
from kerasport.identify import identify, stored_keys
from kerasport.model import Layer, Snapshot, Tensor

__all__ = ["in_order"]

_LISTED: Final = re.compile(r"arr_\d+$")


def in_order(snapshot: Snapshot) -> Snapshot:
    """The snapshot, whose arrays have their layers if it is a list and an architecture is known.

    Args:
        snapshot: as a reader delivers it.

    Raises:
        UsageError: the architecture does not fit the list.
    """
    if snapshot.architecture is None or not _is_list(snapshot):
        return snapshot
    (listed,) = snapshot.layers
    arrays = list(listed.weights.items())
    wanted = list(_wanted(snapshot.architecture, snapshot.source.file))
    count = sum(len(keys) for _, keys in wanted)
    if count != len(arrays):
        raise UsageError(
            f"{snapshot.source.file}: the architecture has {count} weights and the file "
            f"{len(arrays)} arrays. Is it the model whose get_weights() was saved?"
        )
    given = iter(arrays)
    layers: list[Layer] = []
    for leaf, keys in wanted:
        own = {key: next(given) for key in keys}
        weights = {key: _tensor(leaf, key, tensor) for key, (_, tensor) in own.items()}
        layers.append(Layer(leaf.path, leaf.node.class_name, leaf.node.config, weights))
        _refuse_misfit(snapshot, layers[-1], [name for name, _ in own.values()])
    return replace(snapshot, layers=tuple(layers))


def _is_list(snapshot: Snapshot) -> bool:
    layers = snapshot.layers
    return len(layers) == 1 and all(map(_LISTED.match, layers[0].weights))


def _wanted(architecture: Mapping[str, Any], where: str) -> Iterator[tuple[Leaf, list[str]]]:
    """Each layer that has weights, with their keys in order."""
    graph = parse(architecture)
    if graph is None:
        raise UsageError(f"{where}: the architecture lists no layers, so that none can be counted")
    for leaf in graph.leaves():
        if leaf.node.same_as is not None:
            continue
        if leaf.node.custom:
            raise UsageError(
                f"{where}: nothing says how many arrays belong to {leaf.path}, a layer of the "
                f"class {leaf.node.class_name}; save the model's weights with their names"
            )
        if keys := stored_keys(leaf.node.class_name, leaf.node.config):
            yield leaf, keys


def _tensor(leaf: Leaf, key: str, tensor: Tensor) -> Tensor:
    return replace(tensor, name=f"{leaf.path}/{key}", trainable=leaf.trainable)


def _refuse_misfit(snapshot: Snapshot, layer: Layer, names: list[str]) -> None:
    """An array that does not fit its place shows that the list is of another model."""
    found = identify(replace(snapshot, layers=(layer,), omitted=(), architecture=None)).layers
    for one in found:
        if one.kind is None:
            raise UsageError(
                f"{snapshot.source.file}: {', '.join(names)} would be the weights of {layer.path}, "
                f"and do not fit it: {one.note}"
            )
