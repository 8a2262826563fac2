"""Weights that Keras 3 keeps in HDF5 by themselves: `.weights.h5`, of tf_keras too.

Groups are named after classes and attributes, variables are numbered (`layers/dense_1/vars/0`), and
nothing says what class a layer is, unless the architecture is given from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasport.architecture import parse
from kerasport.errors import KerasportError, UnknownFormatError
from kerasport.model import Snapshot, Source
from kerasport.readers import hdf5
from kerasport.readers.mapped import mapped
from kerasport.readers.naming import numbered
from kerasport.readers.stored import Group

__all__ = ["matches", "read"]


def matches(path: Path) -> bool:
    """Whether a file is HDF5 with numbered variables.

    Args:
        path: the file.
    """
    try:
        region = mapped(path)
        if region.read(0, 8) != hdf5.SIGNATURE:
            return False
        with hdf5.opened(region, path.name) as root:
            return has_variables(root)
    except KerasportError:
        return False


def has_variables(root: Any) -> bool:
    """Whether a group `vars` or a container of layers is at the root, or `vars` just below."""
    from h5py import h5g, h5l, h5o

    names: list[bytes] = []
    root.links.iterate(names.append)
    if b"vars" in names or {b"layers", b"_layer_checkpoint_dependencies"} & set(names):
        return not {b"model_weights", b"optimizer_weights"} & set(names)
    for name in names[:1000]:
        if root.links.get_info(name).type == h5l.TYPE_HARD:
            child = h5o.open(root, name)
            if isinstance(child, h5g.GroupID) and b"vars" in child:
                return True
    return False


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a weights file.

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
    if not any(_is_variables(group) for group in _groups(root)):
        raise UnknownFormatError(f"{path}: expected weights of Keras, found HDF5 without any")
    graph = parse(architecture) if architecture is not None else None
    name = graph.name if graph else path.name.split(".")[0]
    stored = numbered(root, graph, name=name, given=architecture is not None)
    return Snapshot(
        Source(path.name, "keras-weights", nbytes=region.size, content=region.content),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


def _groups(root: Group) -> Any:
    stack = [root]
    while stack:
        group = stack.pop()
        yield group
        stack.extend(group.groups.values())


def _is_variables(group: Group) -> bool:
    return group.path.rpartition("/")[2] == "vars"
