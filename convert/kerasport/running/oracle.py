"""What Keras computes, layer by layer, with whichever Keras the file was made for.

Each layer's own `call` is listened to while the model runs, so that layers of models inside models,
and each of several calls of one layer, are seen under the names that the configuration gives them.

A file of Keras 1 or 2 is opened with tf_keras where that is installed: Keras 3 opens some of them
and then computes another hard_sigmoid. No code from a file is run: a model with a Lambda is
refused, and whoever trusts it passes the model that they have opened themselves.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import parse
from kerasport.codegen.operations import OPERATIONS, TENSORFLOW, operation_of
from kerasport.errors import MissingExtraError, UnsupportedError
from kerasport.model import Snapshot
from kerasport.running.samples import Input

__all__ = ["Key", "Oracle", "hushed", "opened"]

Array = npt.NDArray[Any]
Key = tuple[tuple[str, int], ...]
"""One call of one layer: name and number of the call, for each model around it and for itself."""
JSON = Any
FLOATS: Final = frozenset({"bfloat16", "float16", "float32", "float64"})
DTYPES: Final[Mapping[str, str]] = {"f32": "float32", "f64": "float64"}


@dataclass(eq=False, slots=True)
class Oracle:
    """A Keras model, opened to be listened to.

    Attributes:
        model: the model.
        keras: the Keras that it is of.
        by: that Keras, with its version.
        notes: what was done to the model before it is run.
    """

    model: Any
    keras: Any
    by: str
    notes: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> list[Input]:
        """What the model takes, in its order.

        Raises:
            UnsupportedError: it has no inputs yet, or takes text.
        """
        tensors = getattr(self.model, "inputs", None)
        if not tensors:
            raise UnsupportedError(
                "the model does not say what it takes, as it was never built: call it once on its "
                "inputs, and save it or pass it as it is"
            )
        found: list[Input] = []
        for tensor in tensors:
            dtype = getattr(tensor.dtype, "name", tensor.dtype)
            history = getattr(tensor, "_keras_history", None)
            name = tensor.name if history is None else history[0].name
            if dtype == "string":
                raise UnsupportedError(f"{name}: takes text, which no PyTorch module does")
            found.append(Input(str(name), tuple(tensor.shape), str(dtype)))
        return found

    def run(self, arrays: Sequence[Array]) -> dict[Key, list[Array]]:
        """What each call of each layer gives.

        Args:
            arrays: the inputs, in the model's order.
        """
        records: dict[Key, list[Array]] = {}
        with self._quiet(), _listening(self.model, records, self._numpy):
            self.model(self._packed(arrays), training=False)
        return records

    def outputs(self, arrays: Sequence[Array]) -> list[Array]:
        """What the model gives.

        Args:
            arrays: the inputs, in the model's order.
        """
        with self._quiet():
            given = self.model(self._packed(arrays), training=False)
        return [self._numpy(x) for x in _flat(given) if x is not None]

    def cast(self, dtype: str) -> None:
        """Let the model compute in another dtype: the same weights in a model built for it.

        Args:
            dtype: `f32` or `f64`.

        Raises:
            UnsupportedError: the model cannot be built from its configuration.
        """
        wanted = DTYPES[dtype]
        config = self.model.get_config()
        used = sorted(_dtypes(config) - {wanted})
        if not used:
            return
        floatx = self.keras.backend.floatx()
        self.keras.backend.set_floatx(wanted)
        try:
            with self._quiet():
                made = type(self.model).from_config(_retyped(config, wanted))
                made.set_weights([np.asarray(w) for w in self.model.get_weights()])
        except Exception as error:  # whatever Keras and a user's classes may say
            raise UnsupportedError(
                f"the model cannot be built for {wanted}: {_last_line(error)}"
            ) from error
        finally:
            self.keras.backend.set_floatx(floatx)
        self.model = made
        self.notes.append(f"{self.by} computed in {wanted}; the model says {', '.join(used)}")

    def _packed(self, arrays: Sequence[Array]) -> Any:
        """The inputs in the structure that the model was built with."""
        tensors = [self._tensor(array) for array in arrays]
        model = getattr(self.model, "_functional", None) or self.model
        structure = getattr(model, "_inputs_struct", None)
        if structure is None:
            structure = getattr(model, "_nested_inputs", None)
        if isinstance(structure, Mapping):
            names = {id(x): n for n, x in enumerate(self.model.inputs)}
            if all(id(x) in names for x in structure.values()):
                return {key: tensors[names[id(x)]] for key, x in structure.items()}
        return tensors if len(tensors) > 1 else tensors[0]

    def _tensor(self, array: Array) -> Any:
        if hasattr(self.keras, "ops"):
            return self.keras.ops.convert_to_tensor(array)
        import tensorflow

        return tensorflow.convert_to_tensor(array)

    def _numpy(self, tensor: Any) -> Array:
        if hasattr(self.keras, "ops"):
            return np.asarray(self.keras.ops.convert_to_numpy(tensor))
        return np.asarray(tensor.numpy())

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if hasattr(self.keras, "ops") and self.keras.backend.backend() == "torch":
                import torch

                with torch.no_grad():
                    yield
            else:
                yield


def opened(snapshot: Snapshot, live: Any = None) -> Oracle:
    """The model of a snapshot, opened by Keras.

    Args:
        snapshot: what `kerasport.read` gave.
        live: the model itself, where it is one.

    Raises:
        MissingExtraError: there is no Keras to open it with.
        UnsupportedError: Keras does not open it, or would run code from the file.
    """
    if live is not None:
        name = "tf_keras" if _is_tf_keras(live) else "keras"
        return Oracle(live, *_imported(name))
    _refuse(snapshot)
    errors: list[tuple[str, Exception]] = []
    for name in _generations(snapshot):
        if importlib.util.find_spec(name) is None:
            continue
        keras, by = _imported(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = _loaded(snapshot, keras)
            return Oracle(model, keras, by, list(_forgotten(model, snapshot, by)))
        except Exception as error:  # Keras has no word of its own for a file that it cannot open
            errors.append((by, error))
    if not errors:
        raise MissingExtraError("keras", "run", "running the model that was converted")
    said = [f"{by}: {_last_line(error)}" for by, error in errors]
    advice = (
        "" if importlib.util.find_spec("tf_keras") else "; pip install tf_keras opens old files"
    )
    raise UnsupportedError(
        f"{snapshot.source.file}: no Keras here opens it{advice}. Open it yourself and call "
        "kerasport.verify_run(folder, against=model), or store vectors from elsewhere with "
        "--vectors FILE:",
        said,
    ) from errors[-1][1]


FORGETS: Final = "has forgotten of the file"
"""Is in the note on a model that Keras has not opened as it was."""


def _forgotten(model: Any, snapshot: Snapshot, by: str) -> Iterator[str]:
    """What Keras has left out of the file's configuration, which changes what it computes.

    Keras 3.15 opens low-rank factors in HDF5 with the alpha that it takes where nobody says any.
    """
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    said = (
        {} if graph is None else {node.name: node.config.get("lora_alpha") for node in graph.nodes}
    )
    for layer in getattr(model, "layers", ()):
        alpha, has = said.get(layer.name), getattr(layer, "lora_alpha", None)
        if getattr(layer, "lora_enabled", False) and alpha is not None and alpha != has:
            yield f"{by} {FORGETS}: lora_alpha {alpha} of {layer.name}, and computes with {has}"


def _refuse(snapshot: Snapshot) -> None:
    """Refuse what would run code, and what is no file of Keras's."""
    code = sorted(set(_code(snapshot.architecture)))
    if code:
        raise UnsupportedError(
            f"{snapshot.source.file}: has {', '.join(code)}, and Keras would run code from the "
            "file. If you trust it, open it yourself and call "
            "kerasport.verify_run(folder, against=model)"
        )
    if snapshot.source.backend == "theano" and any("Conv" in str(x.kind) for x in snapshot.layers):
        raise UnsupportedError(
            f"{snapshot.source.file}: was written by Keras on Theano, which turns the kernels of "
            "convolutions. No Keras of today does, so that none computes what this model did. "
            "Compare with stored outputs instead: --vectors FILE.npz"
        )
    if snapshot.source.path is None or snapshot.source.format not in _SUFFIXES:
        raise UnsupportedError(
            f"{snapshot.source.file}: expected a model that Keras opens (.keras, .h5), found "
            f"format {snapshot.source.format}. Open it yourself and call "
            "kerasport.verify_run(folder, against=model)"
        )


_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "keras": (".keras",),
    "keras-legacy": (".h5", ".hdf5"),
    "keras-weights": (".weights.h5",),
}


def _generations(snapshot: Snapshot) -> tuple[str, ...]:
    version = snapshot.source.keras_version or ""
    if version.startswith("3") or (not version and snapshot.source.format != "keras-legacy"):
        return ("keras",)
    return ("tf_keras", "keras")


def _loaded(snapshot: Snapshot, keras: Any) -> Any:
    path = snapshot.source.path
    assert path is not None
    with TemporaryDirectory() as folder:
        if not path.name.endswith(_SUFFIXES[snapshot.source.format]):
            # Keras goes by the name: an HDF5 file that is called .keras needs another.
            link = Path(folder, f"model{_SUFFIXES[snapshot.source.format][0]}")
            link.symlink_to(path.absolute())
            path = link
        if snapshot.source.format == "keras-weights" or not _has_architecture(snapshot):
            model = keras.models.model_from_json(json.dumps(snapshot.architecture))
            model.load_weights(path)
            return model
        return keras.models.load_model(path, compile=False)


def _has_architecture(snapshot: Snapshot) -> bool:
    """Whether the file itself says how the model is built."""
    if snapshot.source.format != "keras-legacy":
        return True
    import h5py

    with h5py.File(snapshot.source.path, "r") as file:
        return "model_config" in file.attrs


def _imported(name: str) -> tuple[Any, str]:
    """A Keras, and what it is called with its version."""
    if name == "keras" and importlib.util.find_spec("tensorflow") is None:
        for backend in ("torch", "jax"):
            if importlib.util.find_spec(backend) is not None:
                os.environ.setdefault("KERAS_BACKEND", backend)
                break
    with warnings.catch_warnings(), nullcontext() if name in sys.modules else hushed():
        warnings.simplefilter("ignore")
        try:
            keras = importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(name, "run", "running the Keras model") from error
    by = f"{name} {keras.__version__}"
    return keras, f"{by} ({keras.backend.backend()})" if hasattr(keras, "ops") else by


@contextmanager
def hushed() -> Iterator[None]:
    """Keep back what native code writes to stderr while a framework starts; it looks for a GPU.

    Where that fails, it is shown.
    """
    try:
        saved = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(saved, said.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _is_tf_keras(model: Any) -> bool:
    return any(base.__module__.startswith("tf_keras.") for base in type(model).__mro__)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or ['no reason given'])[0][:200]}"


# ------------------------------------------------------------------------------ configurations


_CODE: Final = frozenset(
    {
        *("ClassMethod", "FlaxLayer", "InstanceMethod", "InstanceProperty", "JaxLayer", "Lambda"),
        *("TFSMLayer", "TorchModuleWrapper"),
    }
)


def _code(config: JSON) -> Iterator[str]:
    """What of a configuration Keras would run as code: a Lambda, or any function of TensorFlow's.

    A function that a module can have is harmless; others write files.
    """
    stack = [config]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            name = str(part.get("class_name", "")).rpartition(">")[2]
            inner = part.get("config")
            function = str(inner.get("function", "")) if isinstance(inner, Mapping) else ""
            if name in _CODE:
                yield f"a {name}"
            known = operation_of(name, {"function": function}) in OPERATIONS
            if name in TENSORFLOW and function and not known:
                yield f"the function {function[:60]}"
            stack.extend(part.values())
        elif isinstance(part, list | tuple):
            stack.extend(part)


def _is_policy(part: Mapping[str, JSON]) -> bool:
    return str(part.get("class_name", "")).endswith("Policy") and isinstance(
        part.get("config"), Mapping
    )


def _is_float(name: JSON) -> bool:
    return isinstance(name, str) and (name in FLOATS or name.startswith("mixed_"))


def _dtypes(config: JSON) -> set[str]:
    """The floating-point dtypes and policies that a configuration names."""
    found: set[str] = set()
    stack = [config]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            names = [part.get("dtype")]
            if _is_policy(part):
                names.append(part["config"].get("name"))
            found.update(str(name) for name in names if _is_float(name))
            stack.extend(part.values())
        elif isinstance(part, list | tuple):
            stack.extend(part)
    return found


def _retyped(part: JSON, dtype: str) -> JSON:
    """A configuration whose layers all compute in one dtype."""
    if isinstance(part, Mapping):
        if _is_policy(part) and _is_float(part["config"].get("name")):
            return dtype
        return {
            key: dtype if key == "dtype" and _is_float(value) else _retyped(value, dtype)
            for key, value in part.items()
        }
    if isinstance(part, list | tuple):
        return type(part)(_retyped(item, dtype) for item in part)
    return part


# ----------------------------------------------------------------------------------- listening


@dataclass(eq=False, slots=True)
class _Frame:
    """A model that is running: which call of it, and how often each of its layers was called."""

    key: Key
    model: Any
    counts: dict[str, int] = field(default_factory=dict)


@contextmanager
def _listening(model: Any, records: dict[Key, list[Array]], numpy: Any) -> Iterator[None]:
    """Note what each layer gives while the model runs; afterwards its layers are as they were."""
    numbers: dict[tuple[int, int], list[int]] = {}
    frames = [_Frame((), model)]
    patched: list[tuple[Any, str, Any]] = []
    seen: set[int] = set()

    def listen(layer: Any, attribute: str) -> None:
        original = getattr(layer, attribute)
        patched.append((layer, attribute, layer.__dict__.get(attribute)))

        def heard(*args: Any, **named: Any) -> Any:
            frame = frames[-1]
            count = frame.counts.get(layer.name, 0)
            frame.counts[layer.name] = count + 1
            order = numbers.get((id(frame.model), id(layer)), [])
            key = (*frame.key, (layer.name, order[count] if count < len(order) else count))
            frames.append(_Frame(key, layer))
            try:
                given = original(*args, **named)
            finally:
                frames.pop()
            records[key] = [numpy(x) for x in _flat(given) if x is not None]
            return given

        layer.__dict__[attribute] = heard

    stack = [model]
    while stack:
        outer = stack.pop()
        for layer in _layers(outer):
            numbers[id(outer), id(layer)] = _order(outer, layer)
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            listen(layer, "call")
            if getattr(layer, "quantization_mode", None) is not None:
                listen(layer, "quantized_call")
            stack.append(layer)
    try:
        yield
    finally:
        for layer, attribute, before in reversed(patched):
            if before is None:
                layer.__dict__.pop(attribute, None)
            else:
                layer.__dict__[attribute] = before


def _graph(model: Any) -> Any:
    return getattr(model, "_functional", None) or model


def _layers(model: Any) -> Sequence[Any]:
    """The layers of a model, operations too; none where it is no model of layers."""
    graph = _graph(model)
    if not hasattr(graph, "_nodes_by_depth"):
        return ()
    found: Sequence[Any] = getattr(graph, "_operations", None) or graph.layers
    return [layer for layer in found if type(layer).__name__ != "InputLayer"]


def _order(model: Any, layer: Any) -> list[int]:
    """Which number the configuration gives to each call of a layer, in the order of running."""
    nodes = getattr(_graph(model), "_nodes_by_depth", {})
    mine = [
        node
        for depth in sorted(nodes, reverse=True)
        for node in nodes[depth]
        if getattr(node, "operation", getattr(node, "layer", None)) is layer
    ]
    places = [
        next((n for n, inbound in enumerate(layer._inbound_nodes) if inbound is node), 0)
        for node in mine
    ]
    return [sorted(places).index(place) for place in places]


def _flat(given: Any) -> Iterator[Any]:
    if isinstance(given, Mapping):
        for part in given.values():
            yield from _flat(part)
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _flat(part)
    else:
        yield given
