"""Orbax checkpoints of Keras: a folder a step, and in it the variables by their paths.

`keras.callbacks.OrbaxCheckpoint` writes the model's variables as a tree whose first words say what
they are for, and whose others are the path that each variable was made under; beside it, the
model's configuration. The arrays themselves lie in Zarr, most of them inside of a database of
Google's (OCDBT), which TensorStore reads. What a variable's path leaves out, the model around a
layer or the wrapper around another, follows from the configuration.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import Graph, config_of, parse
from kerasport.errors import (
    MalformedError,
    MissingExtraError,
    UnknownFormatError,
    UnsupportedError,
)
from kerasport.model import Snapshot, Source, Tensor
from kerasport.readers.documents import document, file_bytes
from kerasport.readers.mapped import mapped
from kerasport.readers.naming import Stored, named

__all__ = ["matches", "read"]

Array = npt.NDArray[Any]

MARK: Final = "_CHECKPOINT_METADATA"
TREE: Final = "_METADATA"
PYTREE: Final = "pytree"
CONFIG: Final = "model_config/_strings.json"
WEIGHTS: Final = ("trainable_variables", "non_trainable_variables")
STATE: Final = {"optimizer_variables": "optimizer state", "metrics_variables": "metric state"}

_MAX_FILES: Final = 1_000_000
_MAX_RANK: Final = 64
_EXPANSION: Final = 1100
_FLOOR: Final = 64 << 20
"""An array may take this much, and beyond it so many times what all files of the step take."""
_DTYPES: Final = frozenset(
    (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128", "bfloat16"),
        *("float8_e4m3fn", "float8_e5m2", "int4", "uint4"),
    )
)


def matches(path: Path) -> bool:
    """Whether a path is a folder of Orbax, of one step or of several.

    Args:
        path: the folder.
    """
    try:
        return _step(path) is not None
    except OSError:
        return False


def _step(path: Path) -> Path | None:
    """The folder of one step; of several, that of the latest."""
    if not path.is_dir():
        return None
    if (path / MARK).is_file() or (path / PYTREE / TREE).is_file():
        return path
    steps = [item for item in path.iterdir() if re.fullmatch(r"\d{1,18}", item.name)]
    steps = [item for item in steps if (item / MARK).is_file() or (item / PYTREE / TREE).is_file()]
    return max(steps, key=lambda item: int(item.name), default=None)


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of an Orbax checkpoint that Keras wrote.

    Args:
        path: its folder, of which the latest step is taken, or the folder of a step.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: not needed, since Zarr says what its values are.

    Raises:
        UsageError: there is no such folder, or the architecture does not fit.
        UnknownFormatError: it is none, or not of Keras.
        MalformedError: it is broken or hostile.
        MissingExtraError: TensorStore is not installed.
    """
    step = _step(path)
    if step is None:
        raise UnknownFormatError(f"{path}: expected an Orbax checkpoint, found no step of one")
    tree = document(file_bytes(step / PYTREE / TREE), TREE)
    leaves = list(_leaves(tree, path))
    files = _files(step)
    store = _Store(step / PYTREE, tree, sum(file.stat().st_size for file in files))
    given = architecture is not None
    architecture = architecture if given else _config(step)
    graph = parse(architecture) if architecture is not None else None
    groups: dict[str, list[tuple[str, Tensor]]] = {}
    stored = Stored()
    state: dict[str, list[Tensor]] = {}
    around = _around(graph)
    for words in leaves:
        tensor = store.tensor(words)
        what, *own = words
        if what in STATE:
            state.setdefault(STATE[what], []).append(tensor)
            continue
        if graph is not None and len(own) > 2 and own[0] == graph.name and own[0] not in around:
            own = own[1:]  # a model that was built late is in the paths of its variables
        top = around.get(own[0], own[0])
        name = "/".join(own if own[0] == top else (top, *own))
        trained = replace(tensor, trainable=what == WEIGHTS[0])
        groups.setdefault(top, []).append((name, trained))
    stored = named(list(groups.items()), graph, given=given)
    for reason, tensors in state.items():
        stored.omit(tensors, reason)

    def content() -> Iterator[memoryview]:
        for file in files:
            if file.stat().st_size:
                yield from mapped(file).content()

    return Snapshot(
        Source(path.name, "keras-orbax", nbytes=store.size, content=content),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


def _leaves(tree: Mapping[str, Any], path: Path) -> Iterator[tuple[str, ...]]:
    """The paths of all arrays, each beginning with what Keras keeps it for."""
    leaves = tree.get("tree_metadata")
    if not isinstance(leaves, dict) or not leaves:
        raise MalformedError(f"{path.name}: {TREE}: expected a tree of arrays, found none")
    for key, leaf in leaves.items():
        found = leaf.get("key_metadata") if isinstance(leaf, dict) else None
        if not isinstance(found, list):
            raise MalformedError(f"{path.name}: {TREE}: {key[:100]}: expected its path")
        words = tuple(part.get("key") if isinstance(part, dict) else None for part in found)
        if len(words) < 2 or words[0] not in (*WEIGHTS, *STATE):
            raise UnknownFormatError(
                f"{path}: expected an Orbax checkpoint of Keras, found one of another library: it "
                f"holds {key[:100]}. Load it there, and save the arrays with NumPy"
            )
        if not all(isinstance(word, str) and word for word in words):
            raise MalformedError(f"{path.name}: {TREE}: {key[:100]}: expected a path of names")
        yield tuple(map(str, words))


def _files(step: Path) -> list[Path]:
    """All files of a step, sorted; a link may lead anywhere, so there must be none."""
    found: list[Path] = []
    for folder, folders, files in os.walk(step):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() or (name in files and not path.is_file()):
                raise MalformedError(
                    f"{path}: expected a file or folder, found a link or a device. If you trust "
                    "it, copy the folder with cp -rL"
                )
        found += (Path(folder, name) for name in files)
        if len(found) > _MAX_FILES:
            raise MalformedError(f"{step}: more than {_MAX_FILES} files")
    return sorted(found)


def _config(step: Path) -> Mapping[str, Any] | None:
    path = step / CONFIG
    if not path.is_file():
        return None
    text = document(file_bytes(path), CONFIG).get("config")
    return config_of(text.encode(), CONFIG) if isinstance(text, str) else None


def _around(graph: Graph | None) -> dict[str, str]:
    """What variables' paths may begin with → the layer of the model that they belong to."""
    found: dict[str, str] = {}
    for leaf in graph.leaves() if graph else ():
        top = leaf.path.partition("/")[0]
        names = [leaf.node.name]
        for key in ("layer", "backward_layer"):
            inner = leaf.node.config.get(key)
            config = inner.get("config") if isinstance(inner, Mapping) else None
            name = config.get("name") if isinstance(config, Mapping) else None
            if isinstance(name, str):
                names += (name, f"forward_{name}", f"backward_{name}")
        for name in names:
            found.setdefault(name, top)
    for node in graph.nodes if graph else ():
        found[node.name] = node.name
    return found


class _Store:
    """The arrays of a step, which TensorStore reads when their values are asked for."""

    def __init__(self, folder: Path, tree: Mapping[str, Any], size: int) -> None:
        try:
            import tensorstore
        except ImportError:
            raise MissingExtraError("tensorstore", "orbax", "Reading Orbax checkpoints") from None
        self.folder = folder
        self.size = size
        self.open: Callable[..., Any] = tensorstore.open
        self.driver, self.file = (
            ("zarr3", "zarr.json") if tree.get("use_zarr3") else ("zarr", ".zarray")
        )
        base = {"driver": "file", "path": f"{folder.absolute()}/"}
        self.base: Mapping[str, Any] = (
            {"driver": "ocdbt", "base": base} if tree.get("use_ocdbt", True) else base
        )
        with self.faults("its database"):
            self.keys = tensorstore.KvStore.open(dict(self.base)).result()

    def faults(self, name: str) -> _Faults:
        return _Faults(f"{self.folder.parent.name}/{PYTREE}: {name}")

    def tensor(self, words: Sequence[str]) -> Tensor:
        """One array; what is said of it is checked, and none of its values are read."""
        name = ".".join(words)
        with self.faults(name):
            found = self.keys.read(f"{name}/{self.file}").result()
        if found.state != "value":
            raise MalformedError(f"{TREE} lists {name}, and there is no such array")
        said = document(bytes(found.value), f"{name}/{self.file}")
        shape = said.get("shape")
        if (
            not isinstance(shape, list)
            or len(shape) > _MAX_RANK
            or not all(type(extent) is int and 0 <= extent < 1 << 62 for extent in shape)
        ):
            raise MalformedError(f"{name}: expected a shape, found {str(shape)[:100]}")
        dtype = _dtype(said.get("data_type", said.get("dtype")), name)
        if math.prod(shape) * dtype.itemsize > _EXPANSION * self.size + _FLOOR:
            raise MalformedError(
                f"{name}: announces {dtype}{shape}, more than {self.size} bytes can hold"
            )

        def load() -> Array:
            kvstore = {**self.base, "path": f"{name}/"}
            if self.base["driver"] == "file":
                kvstore = {"driver": "file", "path": f"{self.base['path']}{name}/"}
            with self.faults(name):
                array = self.open({"driver": self.driver, "kvstore": kvstore}, open=True, read=True)
                values: Array = array.result().read().result()
            if values.dtype != dtype or list(values.shape) != shape:
                raise MalformedError(f"{name}: expected {dtype}{shape}, found another array")
            return values

        return Tensor("/".join(words), dtype, tuple(shape), load, stored=name)


class _Faults:
    """Whatever TensorStore finds wrong is wrong with the checkpoint."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | OSError | KeyError | TypeError):
            reason = str(error).strip("'\"").splitlines()[:1] or [type(error).__name__]
            raise MalformedError(
                f"{self.where}: expected sound arrays, found: {reason[0][:300]}"
            ) from None


def _dtype(name: Any, where: str) -> np.dtype[Any]:
    if isinstance(name, str) and re.fullmatch(r"[<|][biufc]\d{1,2}", name):
        name = np.dtype(name).name
    if not isinstance(name, str) or name not in _DTYPES:
        found = str(name)[:100]
        raise UnsupportedError(f"{where}: expected numbers of a known dtype, found {found}")
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name, name))
