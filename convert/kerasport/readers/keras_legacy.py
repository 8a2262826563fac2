"""HDF5 as Keras 1 and 2 and tf.keras wrote it, and as Keras 3 still can: whole models or weights.

Attributes list the layers (`layer_names`) and each layer's weights (`weight_names`) in order; HDF5
itself would give them alphabetically. A whole model keeps the weights under `model_weights` and its
configuration in the attribute `model_config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport.architecture import config_of, parse
from kerasport.errors import KerasportError, MalformedError, UnknownFormatError
from kerasport.model import Omission, Snapshot, Source, Tensor
from kerasport.readers import hdf5, lookups
from kerasport.readers.mapped import mapped
from kerasport.readers.naming import Stored, named
from kerasport.readers.stored import Group, natural

__all__ = ["matches", "read"]

TOP: Final = "top_level_model_weights"
_KERAS_1: Final = re.compile(r"_([WUb](_[a-z])?|running_std|alphas)(_\d+)?(:\d+)?$")


def matches(path: Path) -> bool:
    """Whether a file is HDF5 that lists layers; also if it is HDF5 too broken to tell.

    Args:
        path: the file.
    """
    try:
        region = mapped(path)
    except KerasportError:
        return False
    if region.read(0, 8) != hdf5.SIGNATURE:
        return False
    try:
        with hdf5.opened(region, path.name) as root:
            return _lists_layers(root)
    except KerasportError:
        return True


def _lists_layers(root: Any) -> bool:
    from h5py import h5a, h5g, h5l, h5o

    if any(h5a.exists(root, name) for name in (b"layer_names", b"layer_names0", b"model_config")):
        return True
    name = b"model_weights"
    if name not in root or root.links.get_info(name).type != h5l.TYPE_HARD:
        return False
    group = h5o.open(root, name)
    return isinstance(group, h5g.GroupID) and any(
        h5a.exists(group, name) for name in (b"layer_names", b"layer_names0")
    )


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of an older HDF5 file.

    Args:
        path: the file.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: what values are that the file knows only as so many bytes.

    Raises:
        UsageError: there is no such file, or the architecture does not fit it.
        UnknownFormatError: it is HDF5 without weights of Keras.
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    region = mapped(path)
    root = hdf5.tree(region, where=path.name, assume_dtype=assume_dtype)
    weights = root.groups.get("model_weights", root)
    names = weights.list("layer_names")
    if names is None:
        raise UnknownFormatError(f"{path}: expected weights of Keras, found HDF5 without any")
    given = architecture is not None
    text = root.text("model_config") or weights.text("model_config")
    if architecture is None and text is not None:
        architecture = config_of(text, f"{path.name}@model_config")
    graph = parse(architecture) if architecture is not None else None

    version = root.text("keras_version") or weights.text("keras_version")
    backend = root.text("backend") or weights.text("backend")
    used: set[str] = set()
    groups = [(name, _weights(weights, name, used, path.name)) for name in names]
    top = _weights(weights, TOP, used, path.name) if TOP in weights.groups else []
    stored = named(groups, graph, given=given, ordered=True)
    if top:
        name = graph.name if graph else _name_of(architecture) or path.name.split(".")[0]
        top_layers = named([(name, top)], None)
        stored = Stored(
            [*stored.layers, *top_layers.layers], [*stored.omitted, *top_layers.omitted]
        ).finished()
    _account(root, stored, used)
    return Snapshot(
        Source(
            path.name,
            "keras-legacy",
            keras_version=version,
            backend=backend or _backend_by_names(groups, version),
            nbytes=region.size,
            content=region.content,
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
        tables=lookups.tables(graph, (), lambda path: b"", places={}, where=path.name),
    )


def _backend_by_names(
    groups: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]], version: str | None
) -> str | None:
    """The backend of a file of Keras 1, which says so only in how it names weights.

    TensorFlow puts the number of an output behind the name of a variable (`dense_1_W:0`), Theano
    leaves names as Keras gave them.
    """
    names = [name for _, weights in groups for name, _ in weights]
    if not (version or "1").startswith("1") or not any(map(_KERAS_1.search, names)):
        return None
    return "tensorflow" if any(name.endswith(":0") for name in names) else "theano"


def _name_of(architecture: Mapping[str, Any] | None) -> str | None:
    config = architecture.get("config") if architecture else None
    name = config.get("name") if isinstance(config, Mapping) else None
    return name if isinstance(name, str) else None


def _weights(weights: Group, name: str, used: set[str], where: str) -> list[tuple[str, Tensor]]:
    """A layer's weights by name, in the order in which it lists them."""
    group = _below(weights, name)
    if group is None:
        raise MalformedError(f"{where}: the file lists a layer {name!r} and does not hold it")
    found = []
    for weight in group.list("weight_names") or ():
        above, _, own = weight.rpartition("/")
        parent = _below(group, above) if above else group
        tensor = parent.tensors.get(own) if parent is not None else None
        if tensor is None and parent is not None and own in parent.twins:
            tensor = parent.twins[own][0]
        if tensor is None:
            raise MalformedError(
                f"{where}: the layer {name!r} lists a weight {weight!r} and does not hold it"
            )
        if tensor.stored in used:
            raise MalformedError(f"{where}: the weight /{tensor.stored} is listed twice")
        used.add(tensor.stored)
        found.append((weight, tensor))
    return found


def _below(group: Group, path: str) -> Group | None:
    """A group by the words of its path; names with slashes are several words."""
    found: Group | None = group
    for word in path.split("/"):
        found = found.groups.get(word) if found is not None else None
    return found


def _account(root: Group, stored: Stored, used: set[str]) -> None:
    """List what no layer lists: the optimizer's state, and whatever else is there."""
    state = root.groups.get("optimizer_weights")
    optimizer = {tensor.stored: tensor for tensor in state.all()} if state else {}
    names = state.list("weight_names") if state else None
    first = {f"optimizer_weights/{name}": place for place, name in enumerate(names or ())}
    places = sorted(
        optimizer.values(), key=lambda t: (first.get(t.stored, len(first)), natural(t.stored))
    )
    stored.omitted.extend(Omission(tensor, "optimizer state") for tensor in places)
    used = used | optimizer.keys()
    rest = (tensor for tensor in root.all() if tensor.stored not in used)
    stored.omit(rest, "no layer lists it")
    for twin, other in _twins(root):
        if twin.stored not in used:
            stored.omit([twin], f"shared with {other}")


def _twins(root: Group) -> Iterator[tuple[Tensor, str]]:
    stack = [root]
    while stack:
        group = stack.pop()
        yield from group.twins.values()
        stack.extend(group.groups.values())
