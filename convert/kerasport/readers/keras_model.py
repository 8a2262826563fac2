"""A whole model of Keras 3, in an archive or in a folder: configuration, metadata and weights.

The parts have the same names wherever they are. The weights are one HDF5 file, or several with an
index, or NumPy's format; a folder that Keras was asked to write without zipping has NumPy's under
the name of HDF5, so what they are is told by their first bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from kerasport.architecture import config_of, parse
from kerasport.errors import MalformedError
from kerasport.model import Snapshot, Source
from kerasport.readers import hdf5, keras_sharded, lookups
from kerasport.readers.documents import document
from kerasport.readers.mapped import Region
from kerasport.readers.naming import Stored, numbered
from kerasport.readers.stored import Group

__all__ = ["CONFIG", "METADATA", "WEIGHTS", "Parts", "snapshot"]

CONFIG: Final = "config.json"
METADATA: Final = "metadata.json"
WEIGHTS: Final = ("model.weights.h5", "model.weights.npz", "model.weights.json")
# What KerasHub keeps beside a backbone: the layers of a task that are not the backbone's.
TASK: Final = "task.weights.h5"


@dataclass(frozen=True, slots=True)
class Parts:
    """The files that a model is made of, wherever they are.

    Attributes:
        where: what the model's file or folder is called.
        format: the name of the format.
        names: what the files are called.
        small: the bytes of a small one.
        region: the mapped bytes of a large one.
    """

    where: str
    format: str
    names: tuple[str, ...]
    small: Callable[[str], bytes]
    region: Callable[[str], Region]


def snapshot(
    parts: Parts,
    *,
    architecture: Mapping[str, Any] | None,
    assume_dtype: np.dtype[Any] | None,
    nbytes: int,
    content: Callable[[], Iterator[bytes | memoryview]],
) -> Snapshot:
    """The layers of a model.

    Args:
        parts: its files.
        architecture: a configuration to use instead of the model's own.
        assume_dtype: what values are that HDF5 knows only as so many bytes.
        nbytes: the size of all files.
        content: yields the bytes of all files.

    Raises:
        UsageError: the given architecture does not fit.
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    given = architecture is not None
    if CONFIG in parts.names:
        own = config_of(parts.small(CONFIG), f"{parts.where}/{CONFIG}")
        architecture = own if architecture is None else architecture
    graph = parse(architecture) if architecture is not None else None
    name = graph.name if graph else parts.where.split(".")[0]
    weights = next((name for name in WEIGHTS if name in parts.names), None)
    if weights is None:
        raise MalformedError(
            f"{parts.where}: expected the weights in one of {', '.join(WEIGHTS)}, found none"
        )
    root = _tree(parts, weights, assume_dtype)
    assets = [n.removeprefix(lookups.ASSETS) for n in parts.names if n.startswith(lookups.ASSETS)]
    assets = [path for path in assets if path and not path.endswith("/")]
    lookups.grouped(root, assets)
    stored = numbered(root, graph, name=name, given=given)
    tables = lookups.tables(
        graph,
        assets,
        lambda path: parts.small(f"{lookups.ASSETS}{path}"),
        places=stored.places,
        where=parts.where,
    )
    if TASK in parts.names:
        task = numbered(_tree(parts, TASK, assume_dtype), None, name="task")
        stored = Stored([*stored.layers, *task.layers], [*stored.omitted, *task.omitted]).finished()
    return Snapshot(
        Source(
            parts.where,
            parts.format,
            keras_version=_metadata(parts).get("keras_version"),
            nbytes=nbytes,
            content=content,
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
        tables=tables,
    )


def _tree(parts: Parts, name: str, assume_dtype: np.dtype[Any] | None) -> Group:
    where = f"{parts.where}/{name}"
    if name.endswith(".json"):
        index = keras_sharded.index(parts.small(name), where)
        return keras_sharded.tree(index, parts.region, where=where, assume_dtype=assume_dtype)
    region = parts.region(name)
    if region.read(0, 4) == b"PK\x03\x04":
        from kerasport.readers import npz  # what most archives do not hold

        return npz.tree(region, where=where)
    return hdf5.tree(region, where=where, assume_dtype=assume_dtype)


def _metadata(parts: Parts) -> dict[str, str]:
    """What the model says of its making; nothing depends on it."""
    if METADATA not in parts.names:
        return {}
    found = document(parts.small(METADATA), f"{parts.where}/{METADATA}")
    return {key: value for key, value in found.items() if isinstance(value, str)}
