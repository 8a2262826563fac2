"""Operations between layers: the generated module gives what Keras, or tf.keras, gives.

A trial is a functional model with operations in it: `keras.ops`, which Keras records by class, and
TensorFlow's functions, which tf.keras records by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
import tf_keras
import torch

import kerasport
from generated import Trial, built, compared
from kerasport.architecture import FLAGLESS, parse
from kerasport.codegen.module import module

L = keras.layers
ops = keras.ops
OLD = tf_keras.layers
IMAGE = (7, 5, 3)
TOLERANCE = 1e-5

KERAS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda x: (x * 2 + 1 - x / 3) ** 2,
    "right-hand": lambda x: 1 - x,
    "divide": lambda x: 1 / (x * x + 1),
    "negative": lambda x: -x,
    "images": lambda x: L.Conv2D(3, 1)(x) * 2 + x,
    "mean": lambda x: ops.mean(L.Conv2D(4, 1)(x), axis=(1, 2)),
    "mean-keep": lambda x: (
        L.Conv2D(4, 1)(x) - ops.mean(L.Conv2D(4, 1)(x), axis=(1, 2), keepdims=True)
    ),
    "sum": lambda x: ops.sum(x, axis=-1),
    "max": lambda x: ops.max(x, axis=1),
    "min": lambda x: ops.min(x, axis=[1, 2]),
    "var": lambda x: ops.var(x, axis=-1, keepdims=True),
    "std": lambda x: ops.std(x, axis=2),
    "reshape": lambda x: ops.reshape(L.Conv2D(4, 1)(x), (-1, 35, 4)),
    "transpose": lambda x: ops.transpose(L.Conv2D(4, 1)(x), (0, 2, 3, 1)),
    "expand": lambda x: ops.expand_dims(x, -1),
    "squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
    "concat": lambda x: ops.concatenate([L.Conv2D(4, 1)(x), x], axis=-1),
    "concat-1": lambda x: ops.concatenate([L.Conv2D(3, 1)(x), x], axis=1),
    "stack": lambda x: ops.stack([x, x * 2], axis=1),
    "split": lambda x: ops.split(x, 3, axis=-1)[1],
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    "slice": lambda x: L.Conv2D(4, 1)(x)[:, 1:-1, ::2, 0],
    "ellipsis": lambda x: x[..., 1:],
    "relu": lambda x: ops.relu(x),
    "sigmoid": lambda x: ops.sigmoid(x),
    "softmax": lambda x: ops.softmax(L.Conv2D(4, 1)(x), axis=-1),
    "gelu": lambda x: ops.gelu(x),
    "elu-alpha": lambda x: ops.elu(x, 0.3),
    "celu-alpha": lambda x: ops.celu(x, 0.3),
    "hard_shrink-threshold": lambda x: ops.hard_shrink(x, 0.3),
    "soft_shrink-threshold": lambda x: ops.soft_shrink(x, 0.3),
    "squareplus-b": lambda x: ops.squareplus(x, 2),
    "threshold": lambda x: ops.threshold(x, 0.2, 0.7),
    "sparsemax": lambda x: ops.sparsemax(L.Conv2D(4, 1)(x), axis=1),
    "sparse_plus": lambda x: ops.sparse_plus(x),
    "sparse_sigmoid": lambda x: ops.sparse_sigmoid(x),
    "normalize-order": lambda x: ops.normalize(L.Conv2D(4, 1)(x), axis=1, order=1),
    "normalize-epsilon": lambda x: ops.normalize(x * 1e-3, epsilon=0.01),
    "round-decimals": lambda x: ops.round(x, 1),
    "argmax-all": lambda x: x * ops.cast(ops.argmax(L.Conv2D(4, 1)(x)), "float32"),
    "argmax-keep": lambda x: ops.argmax(L.Conv2D(4, 1)(x), axis=2, keepdims=True),
    "pad-value": lambda x: ops.pad(x, [[0, 0], [1, 1], [2, 0], [0, 1]], constant_values=3.0),
    "pad-reflect": lambda x: ops.pad(x, [[0, 0], [1, 1], [2, 0], [0, 1]], mode="reflect"),
    "pad-symmetric": lambda x: ops.pad(x, [[0, 0], [1, 1], [2, 0], [0, 1]], mode="symmetric"),
    "split-places": lambda x: ops.concatenate(ops.split(x, [1, 3], axis=1)[::-1], axis=1),
    "prod-axes": lambda x: ops.prod(L.Conv2D(4, 1)(x), axis=(2, 3), keepdims=True),
    "cumsum-all": lambda x: ops.cumsum(L.Conv2D(4, 1)(x)),
    "diff": lambda x: ops.diff(L.Conv2D(4, 1)(x), axis=1),
    "logical-floats": lambda x: ops.logical_xor(ops.relu(x), ops.relu(x - 1)),
    "logical-number": lambda x: ops.logical_or(ops.relu(x), 0.0),
    "divide_no_nan": lambda x: ops.divide_no_nan(x, ops.relu(x)),
    "fmod": lambda x: ops.fmod(x, 0.3),
    "heaviside": lambda x: ops.heaviside(ops.relu(x), x * x),
    "dot-number": lambda x: ops.dot(x, 2.0),
    "full_like": lambda x: ops.full_like(x, 2.0),
    "nan_to_num": lambda x: ops.nan_to_num(ops.sqrt(x), nan=0.5),
    "gelu-exact": lambda x: ops.gelu(x, approximate=False),
    "clip": lambda x: ops.clip(x, -0.5, 0.7),
    "sqrt": lambda x: ops.sqrt(ops.abs(x)),
    "exp": lambda x: ops.exp(x),
    "maximum": lambda x: ops.maximum(x, 0.2),
    "minimum": lambda x: ops.minimum(x, x * x),
    "where": lambda x: ops.where(x > 0, x, 0.5),
    "cast": lambda x: ops.cast(x > 0, "float32"),
    "einsum": lambda x: ops.einsum("abcd,abcd->abc", x, x),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "flip": lambda x: ops.flip(L.Conv2D(4, 1)(x), axis=2),
    "repeat": lambda x: ops.repeat(x, 2, axis=1),
    "tanh": lambda x: ops.tanh(x) + ops.softplus(x) + ops.silu(x),
    "logical": lambda x: ops.cast(ops.logical_and(x > 0, x < 1), "float32"),
    "square": lambda x: ops.square(x) + ops.rsqrt(ops.abs(x) + 1),
    "tan": lambda x: ops.tan(x / 2) + ops.arctan(x) + ops.sinh(x) + ops.cosh(x) + ops.trunc(x),
    "arcs": lambda x: ops.arcsin(ops.tanh(x)) + ops.arccos(ops.tanh(x)) + ops.arcsinh(x),
    "logs": lambda x: ops.log2(x * x + 1) + ops.log10(x * x + 1) + ops.exp2(x),
    "angles": lambda x: ops.arctan2(x, x * x + 1) + ops.hypot(x, x) + ops.logaddexp(x, 1 - x),
    "prod": lambda x: ops.prod(x, axis=-1),
    "logsumexp": lambda x: ops.logsumexp(L.Conv2D(4, 1)(x), axis=(1, 2), keepdims=True),
    "amax": lambda x: ops.amax(x, axis=2) - ops.amin(x, axis=2),
    "average": lambda x: ops.average(x, axis=1),
    "count-nonzero": lambda x: ops.cast(ops.count_nonzero(ops.relu(x), axis=1), "float32"),
    "norm": lambda x: ops.norm(L.Conv2D(4, 1)(x), axis=-1, keepdims=True),
    "cumsum": lambda x: ops.cumsum(L.Conv2D(4, 1)(x), axis=2),
    "cumprod": lambda x: ops.cumprod(x, axis=-1),
    "sort": lambda x: ops.sort(L.Conv2D(4, 1)(x), axis=1),
    "argsort": lambda x: ops.cast(ops.argsort(x, axis=-1), "float32"),
    "swapaxes": lambda x: L.Conv2D(2, 1)(ops.swapaxes(L.Conv2D(4, 1)(x), 1, 2)),
    "moveaxis": lambda x: ops.moveaxis(L.Conv2D(4, 1)(x), -1, 1),
    "moveaxis-two": lambda x: ops.moveaxis(x, (1, 3), (3, 2)),
    "ravel": lambda x: ops.ravel(L.Conv2D(4, 1)(x)),
    "unstack": lambda x: ops.add(*ops.unstack(L.Conv2D(2, 1)(x), axis=3)),
    "tile": lambda x: L.Dense(2)(ops.tile(L.Conv2D(4, 1)(x), (1, 2, 1, 3))),
    "roll": lambda x: ops.roll(L.Conv2D(4, 1)(x), 2, axis=1),
    "broadcast": lambda x: x + ops.broadcast_to(ops.mean(x, axis=0, keepdims=True), (3, 7, 5, 3)),
    "tril": lambda x: ops.tril(x) - ops.triu(x, 1),
    "take": lambda x: ops.take(L.Conv2D(4, 1)(x), [2, 0, 2], axis=2),
    "take-one": lambda x: ops.take(x, 2, axis=-1),
    "take-tensor": lambda x: ops.take(x, ops.argmax(ops.mean(x, axis=(0, 1)), axis=0), axis=1),
    "take-along": lambda x: ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1),
    "one-hot": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 4),
    "top-k": lambda x: ops.top_k(L.Conv2D(4, 1)(x), 2)[0],
    "top-k-places": lambda x: ops.cast(ops.top_k(x, 2)[1], "float32"),
    "dot": lambda x: ops.dot(ops.mean(x, axis=(1, 2)), ops.transpose(ops.mean(x, axis=(1, 2)))),
    "tensordot": lambda x: ops.tensordot(x, L.Conv2D(4, 1)(x), axes=((0, 2), (0, 2))),
}

TENSORFLOW: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda x: (x * 2 + 1 - x / 3) ** 2,
    "reduce": lambda x: tf.reduce_mean(x, axis=[1, 2]) + tf.reduce_max(x, axis=(1, 2)),
    "logsumexp": lambda x: tf.reduce_logsumexp(x, axis=-1, keepdims=True),
    "prod": lambda x: tf.reduce_prod(x, axis=1),
    "concat": lambda x: tf.concat([OLD.Conv2D(4, 1)(x), x], axis=-1),
    "split": lambda x: tf.split(x, 3, axis=-1)[1],
    "unstack": lambda x: tf.unstack(x, axis=-1)[2],
    "transpose": lambda x: tf.transpose(OLD.Conv2D(4, 1)(x), [0, 3, 1, 2]),
    "reshape": lambda x: tf.reshape(OLD.Conv2D(4, 1)(x), (-1, 35, 4)),
    "gather": lambda x: tf.gather(OLD.Conv2D(4, 1)(x), [1, 3], axis=-1),
    "gather-first": lambda x: tf.gather(x, [2, 0]),
    "tile": lambda x: tf.tile(x, [1, 2, 1, 3]),
    "cumsum": lambda x: tf.cumsum(x, axis=1),
    "sort": lambda x: tf.sort(x, axis=1),
    "sort-down": lambda x: tf.sort(x, axis=-1, direction="DESCENDING"),
    "one-hot": lambda x: tf.one_hot(tf.argmax(x, axis=-1), 4),
    "top-k": lambda x: tf.math.top_k(x, 2)[0],
    "roll": lambda x: tf.roll(x, 2, 1),
    "norm": lambda x: tf.norm(x, axis=-1),
    "tensordot": lambda x: tf.tensordot(x, OLD.Conv2D(4, 1)(x), axes=[[0, 2], [0, 2]]),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "trigonometry": lambda x: tf.atan(x) + tf.sinh(x) + tf.math.atan2(x, x * x + 1),
    "activations": lambda x: tf.nn.relu(x) + tf.nn.softmax(OLD.Conv2D(3, 1)(x)) + tf.sigmoid(x),
    "slice": lambda x: x[:, 1:-1, ::2, 0],
    "bias": lambda x: tf.nn.bias_add(x, [1.0, 2.0, 3.0]),
    "squared": lambda x: tf.math.squared_difference(x, 1.5),
    "l2": lambda x: tf.math.l2_normalize(x, axis=-1),
    "where": lambda x: tf.where(x > 0, x, -x),
    "stack": lambda x: tf.stack([x, x * 2], axis=2),
    "expand": lambda x: tf.squeeze(tf.expand_dims(x, 1), 1),
}


def _legacy(model: Any, path: Path) -> Path:
    """The model as a legacy HDF5 file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


@pytest.mark.parametrize("name", KERAS)
def test_the_module_of_an_operation_gives_what_keras_gives(name: str, tmp_path: Path) -> None:
    trial = Trial(name, KERAS[name], (IMAGE,))
    assert compared(trial.model(), trial.inputs(), tmp_path) < TOLERANCE


@pytest.mark.parametrize("name", TENSORFLOW)
def test_the_module_of_an_operation_gives_what_tensorflow_gives(name: str, tmp_path: Path) -> None:
    trial = Trial(name, TENSORFLOW[name], (IMAGE,), keras=tf_keras)
    assert compared(trial.model(), trial.inputs(), tmp_path) < TOLERANCE


def test_a_legacy_file_of_keras_3_makes_the_module_that_its_archive_makes(tmp_path: Path) -> None:
    """There, no operation says which module it is from, and some have the names of layers."""
    for name, make in KERAS.items():
        model = Trial(name, make, (IMAGE,)).model()
        archive = tmp_path / f"{name}.keras"
        model.save(archive)
        legacy = _legacy(model, tmp_path / f"{name}.h5")
        sources = [module(kerasport.read(path)).source for path in (archive, legacy)]
        codes = [source[source.index("import") :] for source in sources]  # behind the docstring
        assert codes[0].replace(archive.name, legacy.name) == codes[1], name


def test_a_layer_is_no_operation_because_an_operation_has_its_name(tmp_path: Path) -> None:
    x = keras.Input((5,))
    y = L.Multiply()([L.Add()([x, L.Dense(5)(x)]), L.Reshape((5,))(x)])
    path = _legacy(keras.Model(x, [y, x + y]), tmp_path / "model.h5")
    architecture = kerasport.read(path).architecture
    assert architecture is not None
    graph = parse(architecture)
    assert graph is not None
    assert [node.class_name for node in graph.nodes if node.operation] == ["Add"]
    assert [node.class_name for node in graph.nodes].count("Add") == 2


def test_a_layer_that_writes_no_flag_is_no_operation(tmp_path: Path) -> None:
    """Which those are, Keras says: a layer of each class is built, and its configuration read."""
    flagless = set()
    for name in dir(L):
        made = _plain(getattr(L, name))
        if made is not None and "trainable" not in made.get_config():
            flagless.add(name)
    assert flagless >= {"SpatialDropout2D", "Discretization"}
    assert flagless <= FLAGLESS
    x = keras.Input((7, 5, 3))
    y = L.SpatialDropout2D(0.5)(L.Conv2D(4, 1)(x))
    path = _legacy(keras.Model(x, L.Conv2D(2, 1)(y)), tmp_path / "model.h5")
    made = module(kerasport.read(path))
    assert "Dropout2d(0.5)" in made.source
    assert not made.notes


def _plain(kind: Any) -> Any:
    """A layer of a class, made of the arguments that most of them take, or None."""
    if not isinstance(kind, type) or not issubclass(kind, L.Layer):
        return None
    inner = L.Dense(2)
    for given in ((), (2,), (2, 2), (0.5,), (inner,), (L.LSTM(2),), (L.LSTMCell(2),), ([inner],)):
        with suppress(Exception):
            return kind(*given)
    return None


def test_an_operation_that_no_rule_has_is_a_stub_that_names_it(tmp_path: Path) -> None:
    x = keras.Input((5,))
    model = keras.Model(x, L.Dense(2)(ops.sort(ops.median(x, axis=1, keepdims=True))))
    loaded, made = built(kerasport.read(model), tmp_path)
    assert any("Median" in note for note in made.notes)
    with pytest.raises(NotImplementedError, match="Median"):
        loaded(torch.zeros(3, 5))
