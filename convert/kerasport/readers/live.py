"""A model that is in memory: Keras 3 on any backend, or tf_keras.

Keras is here already, or there would be no model, and it is the caller's: nothing is imported. The
model's own Keras is asked to save the model, into a store that only writes down what it is given,
and so the result has the very paths, keys and order of the file that Keras would have written.

A snapshot is of one moment. TensorFlow and JAX keep values in arrays that are never changed in
place, so holding those costs nothing and stays true when training goes on; PyTorch and NumPy change
theirs, so these are copied.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import config_of, parse
from kerasport.errors import UnsupportedError, UsageError
from kerasport.model import Snapshot, Source, Tensor, dtype_named
from kerasport.readers.naming import numbered
from kerasport.readers.stored import Group

__all__ = ["read_model"]

Array = npt.NDArray[Any]

_PACKAGES: Final = re.compile(r"(keras|tf_keras)(?=\.|$)")
_TORCH_ONLY: Final = {"bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3fn", "float8_e5m2": "f8_e5m2"}


def read_model(model: object) -> Snapshot:
    """The layers of a live model, as its own saved file would hold them.

    Args:
        model: a model of Keras 3 or tf_keras that has been built.

    Raises:
        UsageError: it is no model of Keras, or has no weights yet.
        UnsupportedError: its Keras cannot save it.
    """
    package = _package(model)
    saving = sys.modules.get(f"{package}.src.saving.saving_lib")
    if saving is None:
        raise UsageError(
            f"{type(model).__name__}: expected a model of Keras 3 or tf_keras, found one of a "
            "version whose saving is not known; save it to a file and read that"
        )
    if not getattr(model, "built", True):
        raise UsageError(
            f"{type(model).__name__}: the model has no weights yet: build it, or call it on data"
        )
    architecture = _configuration(model, saving)
    root = _saved(model, saving)
    graph = parse(architecture) if architecture is not None else None
    name = graph.name if graph else str(getattr(model, "name", "") or type(model).__name__)
    stored = numbered(root, graph, name=name)
    version = getattr(sys.modules.get(package), "__version__", None)
    return Snapshot(
        Source(type(model).__name__, "live", keras_version=version, backend=_backend(package)),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


def _package(model: object) -> str:
    """The package whose model it is, by the first of its classes that Keras made."""
    for kind in type(model).__mro__:
        found = _PACKAGES.match(kind.__module__)
        if found:
            return found[1]
    raise UsageError(
        f"expected a path, or a live model of Keras 3 or tf_keras, found {type(model).__name__}"
    )


def _backend(package: str) -> str | None:
    if package == "tf_keras":
        return "tensorflow"
    backend = getattr(sys.modules.get("keras.src.backend.config"), "backend", None)
    return str(backend()) if callable(backend) else "tensorflow"


def _configuration(model: object, saving: Any) -> Mapping[str, Any] | None:
    """The configuration as a saved file would hold it; None for a model that cannot give one."""
    switch = getattr(saving, "_SAVING_V3_ENABLED", None)  # tf_keras writes two dialects
    before = getattr(switch, "value", False)
    try:
        if switch is not None:
            switch.value = True
        with saving.ObjectSharingScope():
            text = json.dumps(saving.serialize_keras_object(model))
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    finally:
        if switch is not None:
            switch.value = before
    return config_of(text, type(model).__name__)


def _saved(model: object, saving: Any) -> Group:
    """What the model's own Keras saves, as a tree."""
    root = Group("")
    store = _store_class(saving)(root)
    known = "visited_saveables" if hasattr(saving, "_walk_saveable") else "visited_trackables"
    try:
        saving._save_state(
            model, weights_store=store, assets_store=None, inner_path="", **{known: set()}
        )
    except (TypeError, AttributeError, NotImplementedError) as error:
        raise UnsupportedError(
            f"{type(model).__name__}: its Keras cannot save it: {error}; "
            "save it to a file and read that"
        ) from error
    return root


def _store_class(saving: Any) -> Any:
    """A store that writes down what it is given; Keras 3 wants it to be one of its own kind."""

    class Store(saving.NpzIOStore):  # type: ignore[misc]
        def __init__(self, root: Group) -> None:
            self.root = root

        def __bool__(self) -> bool:
            return True

        def make(self, path: str, metadata: Mapping[str, str] | None = None) -> _Variables:
            group = _below(self.root, f"{path}/vars".lstrip("/"))
            if metadata:
                group.texts = dict(metadata)
            return _Variables(group)

    return Store


def _below(group: Group, path: str) -> Group:
    for word in path.split("/"):
        inside = f"{group.path}/{word}".lstrip("/")
        group = group.groups.setdefault(word, Group(inside))
    return group


class _Variables(dict[str, Any]):
    """What a layer saves its variables into: a dict that puts them in the tree."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        above, _, own = key.rpartition("/")
        group = _below(self._group, above) if above else self._group
        path = f"{group.path}/{own}"
        group.tensors[own] = _tensor(path, value)


def _tensor(path: str, variable: Any) -> Tensor:
    trainable = getattr(variable, "trainable", None)
    value = _value(variable, path)
    if isinstance(value, np.ndarray):
        dtype, shape = value.dtype, value.shape
        load: Callable[[], Array] = lambda: value  # noqa: E731
    else:
        dtype, shape = _dtype(value), tuple(int(extent) for extent in value.shape)
        load = _loading(value)
    flag = trainable if isinstance(trainable, bool) else None
    return Tensor(path, dtype, shape, load, stored=path, trainable=flag)


def _value(variable: Any, path: str) -> Any:
    """The values of this moment: an array that nothing changes, of NumPy or of the backend."""
    value = variable
    if type(variable).__module__.startswith("keras."):
        value = variable.value
    if hasattr(value, "read_value"):  # a variable of TensorFlow
        value = value.read_value()
    if value is None:
        raise UsageError(f"{path}: the variable has no value yet: call the model on data")
    if hasattr(value, "detach"):
        return _of_torch(value)
    if isinstance(value, np.ndarray | np.generic | int | float | bool | list | tuple):
        return np.array(value)
    return value


def _of_torch(value: Any) -> Array:
    """A copy of a PyTorch tensor; NumPy does not know all of its dtypes, so bytes are taken."""
    value = value.detach().cpu().contiguous()
    name = str(value.dtype).removeprefix("torch.")
    if name not in _TORCH_ONLY:
        return np.array(value.numpy())
    dtype = dtype_named(_TORCH_ONLY[name])
    torch: Any = sys.modules["torch"]
    bits = torch.int16 if dtype.itemsize == 2 else torch.uint8
    return np.array(value.view(bits).numpy()).view(dtype)


def _dtype(value: Any) -> np.dtype[Any]:
    known = getattr(value.dtype, "as_numpy_dtype", value.dtype)
    dtype: np.dtype[Any] = np.dtype(known)
    return dtype


def _loading(value: Any) -> Callable[[], Array]:
    def load() -> Array:
        return np.asarray(value.numpy() if hasattr(value, "numpy") else value)

    return load
