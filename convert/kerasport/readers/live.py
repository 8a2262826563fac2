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
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import config_of, parse, snake_case
from kerasport.errors import UnsupportedError, UsageError
from kerasport.model import Note, Snapshot, Source, Tensor, dtype_named
from kerasport.readers import lookups
from kerasport.readers.naming import numbered
from kerasport.readers.stored import Group

__all__ = ["read_model"]

Array = npt.NDArray[Any]

_PACKAGES: Final = re.compile(r"(keras|tf_keras)(?=\.|$)")
_TORCH_ONLY: Final = {"bfloat16": "bf16", "float8_e4m3fn": "f8_e4m3fn", "float8_e5m2": "f8_e5m2"}


def read_model(model: object, *, merge_lora: bool = False) -> Snapshot:
    """The layers of a live model, as its own saved file would hold them.

    There are two exceptions. Keras merges low-rank factors when it saves, and here they stay apart;
    and Keras 3.15 forgets the zero points of GPTQ and AWQ, which are here.

    Args:
        model: a model of Keras 3 or tf_keras that has been built, or a layer by itself.
        merge_lora: let Keras merge low-rank factors into the weights beside them.

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
    root, merged, learned = _saved(model, saving, apart=not merge_lora)
    lookups.grouped(root, learned)
    if not any(kind.__name__ == "Model" for kind in type(model).__mro__):
        architecture, root = _alone(model, architecture, root)
    graph = parse(architecture) if architecture is not None else None
    name = graph.name if graph else str(getattr(model, "name", "") or type(model).__name__)
    stored = numbered(root, graph, name=name)
    version = getattr(sys.modules.get(package), "__version__", None)
    return Snapshot(
        Source(type(model).__name__, "live", keras_version=version, backend=_backend(package)),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
        notes=tuple(Note("merged", name, "with its low-rank factors, by Keras") for name in merged),
        tables=lookups.tables(
            graph, learned, learned.__getitem__, places=stored.places, where=type(model).__name__
        ),
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


def _alone(
    layer: object, config: Mapping[str, Any] | None, root: Group
) -> tuple[Mapping[str, Any], Group]:
    """A layer by itself, as the only one of a model."""
    kind, name = type(layer), str(getattr(layer, "name", "layer"))
    entry = config or {"class_name": kind.__name__, "module": kind.__module__}
    own = entry.get("config")
    entry = {**entry, "config": {**(own if isinstance(own, Mapping) else {}), "name": name}}
    group = Group("", {"layers": Group("layers", {snake_case(kind.__name__): root})})
    return {"class_name": "Sequential", "config": {"name": name, "layers": [entry]}}, group


def _saved(
    model: object, saving: Any, *, apart: bool
) -> tuple[Group, list[str], dict[str, list[Any]]]:
    """What the model's own Keras saves, as a tree.

    And the layers whose factors it merged, and the vocabularies that layers have learned, under the
    paths of the files that Keras would write them to.
    """
    root = Group("")
    store = _store_class(saving)(root)
    visited = _Visited(store)
    known = "visited_saveables" if hasattr(saving, "_walk_saveable") else "visited_trackables"
    try:
        saving._save_state(
            model, weights_store=store, assets_store=None, inner_path="", **{known: visited}
        )
    except (TypeError, AttributeError, NotImplementedError) as error:
        raise UnsupportedError(
            f"{type(model).__name__}: its Keras cannot save it: {error}; "
            "save it to a file and read that"
        ) from error
    merged: list[str] = []
    learned: dict[str, list[Any]] = {}
    for layer in getattr(model, "_flatten_layers", lambda: ())():
        group = visited.groups.get(id(layer))
        if group is not None and hasattr(layer, "get_vocabulary"):
            place = group.path.removesuffix("/vars")
            learned[f"{place}/vocabulary.txt"] = [_token(word) for word in layer.get_vocabulary()]
        lora = getattr(layer, "lora_enabled", False)
        own = _own_variables(layer) if lora or _forgetful(layer) else []
        if group is None or not own:
            continue
        if lora and not apart:
            merged.append(str(layer.path))
            continue
        group.tensors.clear()
        variables = _Variables(group, store.seen)
        for number, variable in enumerate(own):
            variables[str(number)] = variable
    return root, merged, learned


def _token(word: Any) -> Any:
    """A word of a vocabulary as plain data."""
    if isinstance(word, bytes):
        return word.decode("utf-8", "replace")
    return int(word) if isinstance(word, int | np.integer) else str(word)


class _Visited(set[int]):
    """What Keras has saved, by the object's identity, and into which group it went."""

    def __init__(self, store: Any) -> None:
        super().__init__()
        self.groups: dict[int, Group] = {}
        self._store = store

    def add(self, saved: int) -> None:
        super().add(saved)
        self.groups[saved] = self._store.last


def _forgetful(layer: Any) -> bool:
    return getattr(layer, "quantization_mode", None) in ("gptq", "awq")


def _own_variables(layer: Any) -> list[Any]:
    """A layer's variables in the order of its file, and behind them its low-rank factors.

    Nothing for a class that keeps its variables in a way of its own: then what Keras saves counts.
    """
    spec = getattr(layer, "variable_serialization_spec", {None: ("kernel", "bias")})
    names = spec.get(getattr(layer, "quantization_mode", None), ())
    weight = "embeddings" if "embeddings" in names else "kernel"
    own = [getattr(layer, f"_{n}" if n == weight else n, None) for n in names]
    factors = [getattr(layer, f"lora_{weight}_{end}", None) for end in "ab"]
    found = [variable for variable in (*own, *factors) if variable is not None]
    everything = [*layer._trainable_variables, *layer._non_trainable_variables]
    return found if {id(v) for v in found} == {id(v) for v in everything} else []


def _store_class(saving: Any) -> Any:
    """A store that writes down what it is given; Keras 3 wants it to be one of its own kind."""

    class Store(saving.NpzIOStore):  # type: ignore[misc]
        def __init__(self, root: Group) -> None:
            self.root = root
            self.seen: dict[int, tuple[Any, str]] = {}
            self.last = root

        def __bool__(self) -> bool:
            return True

        def make(self, path: str, metadata: Mapping[str, str] | None = None) -> _Variables:
            group = _below(self.root, f"{path}/vars".lstrip("/"))
            if metadata:
                group.texts = dict(metadata)
            self.last = group
            return _Variables(group, self.seen)

    return Store


def _below(group: Group, path: str) -> Group:
    for word in path.split("/"):
        inside = f"{group.path}/{word}".lstrip("/")
        group = group.groups.setdefault(word, Group(inside))
    return group


class _Variables(dict[str, Any]):
    """What a layer saves its variables into: a dict that puts them in the tree."""

    def __init__(self, group: Group, seen: dict[int, tuple[Any, str]]) -> None:
        super().__init__()
        self._group = group
        self._seen = seen  # each variable with its first place, and alive, so that no id is reused

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        above, _, own = key.rpartition("/")
        group = _below(self._group, above) if above else self._group
        path = f"{group.path}/{own}"
        first = path
        if hasattr(value, "shape") and not isinstance(value, np.generic):  # an object of its own
            _, first = self._seen.setdefault(id(value), (value, path))
        tensor = _tensor(path, value)
        group.tensors[own] = tensor if first == path else replace(tensor, same_as=first)


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
