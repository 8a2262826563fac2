"""Files to convert, of any size and in every container that Keras has written.

Keras itself would hold a model in memory several times before it is saved, so the files are made
with h5py, layer by layer. That Keras loads them is a part of the benchmark: the usual script does.
"""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = Any
FLOAT = 4


@dataclass(frozen=True)
class Layer:
    """A layer: its Keras class, its options, and the shape of each of its weights."""

    class_name: str
    options: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    child: str = ""

    @property
    def nbytes(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values()) * FLOAT


@dataclass(frozen=True)
class Model:
    """Layers one behind the other, and the shape of what goes in."""

    layers: list[Layer]
    inputs: tuple[int, ...]
    dtype: str = "float32"


def _dense(inputs: int, units: int) -> Layer:
    return Layer("Dense", {"units": units}, {"kernel": (inputs, units), "bias": (units,)})


def convolutions(size: int) -> Model:
    """Convolutions of 3 x 3 for three fifths of the bytes, then two wide Dense layers."""
    channels = 32
    while 2 * FLOAT * 9 * channels**2 * 4 < size and channels < 1024:
        channels *= 2
    kernel = FLOAT * 9 * channels**2
    options = {"filters": channels, "kernel_size": [3, 3], "padding": "same"}
    shapes = {"kernel": (3, 3, channels, channels), "bias": (channels,)}
    layers = [Layer("Conv2D", options, shapes) for _ in range(max(1, int(size * 0.6) // kernel))]
    left = max(0, size - len(layers) * kernel) // FLOAT
    width = max(1, left // (2 * channels))
    layers += [
        Layer("GlobalAveragePooling2D", {}),
        _dense(channels, width),
        _dense(width, channels),
    ]
    return Model(layers, (8, 8, channels))


def matrices(size: int) -> Model:
    """Square Dense layers."""
    side = 4096 if size >= 4096**2 * FLOAT else math.isqrt(size // FLOAT)
    return Model(
        [_dense(side, side) for _ in range(max(1, size // (side * side * FLOAT)))], (side,)
    )


def one_matrix(size: int) -> Model:
    """One Dense layer with rows that are longer than a buffer is wide."""
    side = math.isqrt(size // FLOAT)
    return Model([_dense(side, side)], (side,))


def embedding(size: int) -> Model:
    """One giant table, which stays as it is."""
    options = {"input_dim": size // FLOAT // 1024, "output_dim": 1024}
    shapes = {"embeddings": (options["input_dim"], 1024)}
    return Model([Layer("Embedding", options, shapes)], (7,))


def recurrent(size: int) -> Model:
    """LSTM layers."""
    units = 1024 if size > 8 * 1024**2 * FLOAT else 128
    shapes = {
        "kernel": (units, 4 * units),
        "recurrent_kernel": (units, 4 * units),
        "bias": (4 * units,),
    }
    layer = Layer("LSTM", {"units": units, "return_sequences": True}, shapes, "cell")
    return Model([layer] * max(1, size // layer.nbytes), (5, units))


def tiny(tensors: int) -> Model:
    """Dense layers of three units, two tensors each."""
    return Model([_dense(3, 3)] * (tensors // 2), (3,))


def half(make: Callable[[int], Model], size: int, dtype: str) -> Model:
    """A model of two-byte numbers."""
    made = make(2 * size)
    return Model(made.layers, made.inputs, dtype)


def write(model: Model, path: Path) -> Path:
    """Write a model under its suffix: `.keras`, `.weights.h5`, or `.h5` as Keras 2 did."""
    if path.name.endswith(".keras"):
        with tempfile.NamedTemporaryFile(suffix=".h5", dir=path.parent) as weights:
            _write_weights(model, Path(weights.name))
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
                archive.writestr("config.json", json.dumps(_config(model)))
                archive.write(weights.name, "model.weights.h5")
    elif path.name.endswith(".weights.h5"):
        _write_weights(model, path)
    else:
        _write_legacy(model, path)
    return path


def _named(model: Model) -> Iterator[tuple[str, Layer]]:
    words = {"Conv2D": "conv2d", "LSTM": "lstm", "GlobalAveragePooling2D": "pooling"}
    counts: Counter[str] = Counter()
    for layer in model.layers:
        stem = words.get(layer.class_name, layer.class_name.lower())
        yield f"{stem}_{counts[stem]}" if counts[stem] else stem, layer
        counts[stem] += 1


def _config(model: Model) -> dict[str, Any]:
    policy = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": model.dtype},
        "registered_name": None,
    }
    inputs = {"batch_shape": [None, *model.inputs], "dtype": model.dtype, "name": "input_layer"}
    layers = [_serialized("InputLayer", inputs)]
    layers += [
        _serialized(layer.class_name, {"name": name, "dtype": policy, **layer.options})
        for name, layer in _named(model)
    ]
    made = {"name": "sequential", "trainable": True, "dtype": policy, "layers": layers}
    return _serialized("Sequential", made, "keras")


def _serialized(
    class_name: str, config: Mapping[str, Any], module: str = "keras.layers"
) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": dict(config),
        "registered_name": None,
    }


class _Values:
    """Normal numbers, the same few millions again and again: making more takes too long."""

    def __init__(self, dtype: str) -> None:
        rng = np.random.default_rng(0)
        kept = np.float32 if dtype == "bfloat16" else np.dtype(dtype)
        self.block = (rng.standard_normal(1 << 22, dtype=np.float32) / 32).astype(kept)
        self.shift = 0
        if dtype == "bfloat16":  # h5py knows it as two bytes, as Keras stores it
            self.block = self.block.view(np.uint16)[1::2].copy().view("V2")

    def into(self, group: Any, name: str, shape: tuple[int, ...]) -> None:
        data = group.create_dataset(name, shape, self.block.dtype)
        if self.block.dtype.kind == "V":
            data.attrs["dtype"] = "bfloat16"
        # No two tensors begin alike, as those of a trained model do not.
        self.shift = (self.shift + 104_729) % (self.block.size // 2)
        block = self.block[self.shift :]
        size = math.prod(shape)
        if size <= block.size:
            data[...] = block[:size].reshape(shape)
            return
        rows = max(1, block.size // math.prod(shape[1:]))
        for start in range(0, shape[0], rows):
            stop = min(start + rows, shape[0])
            part = (stop - start, *shape[1:])
            data[start:stop] = np.resize(block, math.prod(part)).reshape(part)


def _write_weights(model: Model, path: Path) -> None:
    import h5py

    values = _Values(model.dtype)
    with h5py.File(path, "w", libver="latest") as file:
        numbers = {"conv2d": "conv2d", "pooling": "global_average_pooling2d"}
        for name, layer in _named(model):
            stem, _, number = name.partition("_")
            folder = f"layers/{numbers.get(stem, stem)}{'_' if number else ''}{number}"
            own = file.create_group(f"{folder}/{layer.child}/vars".replace("//", "/"))
            file.require_group(f"{folder}/vars").attrs["name"] = name
            for place, shape in enumerate(layer.shapes.values()):
                values.into(own, str(place), shape)


def _write_legacy(model: Model, path: Path) -> None:
    import h5py

    values = _Values(model.dtype)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3.15.1"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(_config(model))
        top = file.create_group("model_weights")
        top.attrs["layer_names"] = [name.encode() for name, _ in _named(model)]
        for name, layer in _named(model):
            group = top.create_group(name)
            inner = f"{name}/{layer.class_name.lower()}_cell" if layer.child else name
            names = [f"{inner}/{role}:0" for role in layer.shapes]
            group.attrs["weight_names"] = [weight.encode() for weight in names]
            for weight, shape in zip(names, layer.shapes.values(), strict=True):
                values.into(group, weight, shape)
