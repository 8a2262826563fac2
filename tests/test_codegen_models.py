"""Whole models, trained and old ones: the generated module gives what their framework gave.

The corpus is found by `KERASPORT_CORPUS`. Most of its files no Keras of today opens; of some the
outputs are stored beside them, of one a TFLite port gives them.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import torch

import kerasport
from generated import Array, built, deviation, flat, ran, randomized
from kerasport.architecture import parse
from kerasport.codegen.module import module
from kerasport.model import Snapshot

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CORPUS = Path(os.environ.get("KERASPORT_CORPUS", "/nonexistent"))
TOLERANCE = 1e-5
in_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="KERASPORT_CORPUS names no folder")


def library(name: str) -> Any:
    """A framework; its own warnings at import are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


# ----------------------------------------------------------------------------------------- fixtures

FILES = sorted(
    path
    for model in ("cnn", "sequence", "attention")
    for path in FIXTURES.glob(f"{model}.*")
    if path.suffix in (".keras", ".h5") and "weights" not in path.name
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name))
def test_a_fixture_gives_what_it_gave_when_it_was_trained(path: Path, tmp_path: Path) -> None:
    name = path.name.partition(".")[0]
    io = np.load(FIXTURES / f"{name}{'.tf_keras' if 'tf_keras' in path.name else ''}.io.npz")
    made, about = built(kerasport.read(path), tmp_path)
    assert deviation(ran(made, about, [io["inputs"]])[0], io["outputs"]) < TOLERANCE


def test_there_are_fixtures() -> None:
    assert len(FILES) == 13


# ------------------------------------------------------------------------------------------- corpus


def architectures() -> list[Path]:
    """The files of the corpus that hold an architecture."""
    found = []
    for path in sorted(CORPUS.rglob("*")):
        if path.suffix not in (".h5", ".hdf5", ".keras") or "inputs_and_outputs" in path.name:
            continue
        written = kerasport.read(path).architecture
        if written is not None and parse(written) is not None:
            found.append(path)
    return found


WITH_ARCHITECTURE = architectures() if CORPUS.is_dir() else []
OF_A_USERS_OWN = {"model_lambda.h5", "w_space_to_depth_simple_tensorflow_2.h5"}


def inputs_for(about: Any, snapshot: Snapshot) -> list[Array]:
    """Random inputs of the shapes that the module says it takes."""
    rng = np.random.default_rng(0)
    text = about.source.partition('"""')[2].partition('"""')[0]
    shapes = re.findall(r"^Takes \w+: (N[ ?\d]*)$", text, re.MULTILINE)
    embedding = "nn.Embedding(" in about.source
    made = []
    for shape, order in zip(shapes, about.inputs, strict=True):
        sizes = [3 if word == "N" else 16 if word == "?" else int(word) for word in shape.split()]
        x = rng.integers(0, 2, sizes) if embedding else rng.normal(size=sizes)
        made.append((x.transpose(np.argsort(order)) if order else x).astype(np.float32))
    return made


def given_by_keras(path: Path, inputs: list[Array]) -> list[Array] | None:
    """What Keras gives, or None where it cannot open the file, or compute it on a CPU.

    Of an old file tf_keras is asked: Keras 3 opens some, and then means another hard_sigmoid.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("keras",) if path.suffix == ".keras" else ("tf_keras", "keras"):
            try:
                model = library(name).models.load_model(path, compile=False)
                found = flat(model(inputs if len(inputs) > 1 else inputs[0]))
            except Exception:
                continue
            return [np.asarray(y) for y in found]
    return None


@in_corpus
def test_the_corpus_has_models() -> None:
    assert len(WITH_ARCHITECTURE) >= 45


@in_corpus
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", WITH_ARCHITECTURE, ids=lambda path: str(path.name))
def test_a_model_of_the_corpus_runs(path: Path, tmp_path: Path) -> None:
    """And where Keras opens the file, it gives the same."""
    snapshot = kerasport.read(path)
    made, about = built(snapshot, tmp_path)
    inputs = inputs_for(about, snapshot)
    if path.name in OF_A_USERS_OWN:
        with pytest.raises(NotImplementedError, match="of class Lambda"):
            ran(made, about, inputs)
        return
    found = ran(made, about, inputs)
    assert all(np.isfinite(y).all() for y in found)
    if snapshot.source.backend == "theano":  # Keras with TensorFlow does not turn its kernels
        return
    wanted = given_by_keras(path, inputs)
    for a, b in zip(found, wanted or (), strict=wanted is not None):
        assert deviation(a, b) < TOLERANCE


def stored() -> Iterator[tuple[Path, Path]]:
    """Models with the file of inputs and outputs beside them."""
    for path in sorted(CORPUS.rglob("*_inputs_and_outputs.h5")):
        model = path.with_name(path.name.replace("_inputs_and_outputs", "_model"))
        with h5py.File(path) as file:
            if model.exists() and "predictions" in file:  # others hold what it was to learn
                yield model, path


STORED = list(stored()) if CORPUS.is_dir() else []


@in_corpus
@pytest.mark.parametrize(("path", "io"), STORED, ids=lambda path: str(path.name))
def test_an_old_model_gives_the_outputs_stored_beside_it(
    path: Path, io: Path, tmp_path: Path
) -> None:
    """No Keras of today opens them; these are the numbers that the Keras of then gave."""
    made, about = built(kerasport.read(path), tmp_path)
    with h5py.File(io) as file:
        inputs = _arrays(file["inputs"])
        wanted = _arrays(file["predictions"])
    found = ran(made, about, [x.astype(np.float32) for x in inputs])
    assert len(found) == len(wanted) > 0
    for a, b in zip(found, wanted, strict=True):
        assert deviation(a, b) < TOLERANCE


def _arrays(item: Any) -> list[Array]:
    return [item[()]] if isinstance(item, h5py.Dataset) else [item[key][()] for key in sorted(item)]


@in_corpus
def test_there_are_stored_outputs() -> None:
    assert len(STORED) == 3


@in_corpus
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_agrees_with_its_port_to_tflite(tmp_path: Path) -> None:
    """The port was made by others, from the very file that is read here."""
    tf = library("tensorflow")
    interpreter = tf.lite.Interpreter(
        str(CORPUS / "mlperf_tiny" / "port_tflite" / "pretrainedResnet.tflite")
    )
    interpreter.allocate_tensors()
    (given,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    made, about = built(kerasport.read(CORPUS / "mlperf_tiny" / "pretrainedResnet.h5"), tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = (rng.random(given["shape"]) * 255).astype(np.float32)
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        wanted = interpreter.get_tensor(gives["index"])
        assert deviation(ran(made, about, [x])[0], wanted) < TOLERANCE


# ------------------------------------------------------------------------------- models of tf_keras


def _own_operations(k: Any, tf: Any) -> Any:
    x = k.Input((5, 4, 3))
    y = k.layers.Conv2D(4, 2, padding="same")(x)
    y = y * 2 + 1 - y / 3
    y = tf.nn.relu(1.0 - y)
    z = tf.reduce_mean(y, axis=[1, 2], keepdims=True)
    y = tf.concat([y - z, x], axis=-1)
    y = tf.expand_dims(y[:, 1:, ::2], -1)
    y = tf.squeeze(y, -1)
    y = tf.where(y > 0.1, y, tf.square(y))
    y = tf.transpose(y, [0, 2, 1, 3])
    y = tf.reshape(y, [-1, 8, 7])
    y = tf.matmul(y, tf.ones((7, 2))) + tf.clip_by_value(tf.reduce_sum(y, -1, keepdims=True), 0, 1)
    y = tf.maximum(tf.exp(-tf.abs(y)), 0.1)
    return k.Model(x, [tf.nn.softmax(y), tf.reduce_max(y, 1), tf.sqrt(y)])


def _hard_sigmoid(k: Any, tf: Any) -> Any:
    x = k.Input((7, 5))
    y = k.layers.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True)(x)
    y = k.layers.Bidirectional(
        k.layers.GRU(3, recurrent_activation="hard_sigmoid", reset_after=False)
    )(y)
    return k.Model(x, k.layers.Dense(3, activation="hard_sigmoid")(y))


def _old_layers(k: Any, tf: Any) -> Any:
    x = k.Input((9, 7, 3))
    y = k.layers.LocallyConnected2D(4, (3, 2), strides=(2, 1))(x)
    y = k.layers.LeakyReLU(alpha=0.2)(y)
    y = k.layers.ThresholdedReLU(theta=0.3)(y)
    y = k.layers.experimental.preprocessing.Rescaling(0.5)(y)
    y = k.layers.Reshape((4, -1))(y)
    y = k.layers.LocallyConnected1D(3, 2)(y)
    return k.Model(x, k.layers.Dense(2)(k.layers.Flatten()(y)))


def _shared(k: Any, tf: Any) -> Any:
    i = k.Input((6, 5, 3))
    tower = k.Sequential([k.layers.Conv2D(4, 2), k.layers.Flatten(), k.layers.Dense(3)])
    a, b = k.Input((6, 5, 3)), k.Input((6, 5, 3))
    inner = k.Model(i, tower(i))
    return k.Model([a, b], k.layers.Subtract()([inner(a), inner(b)]))


def _masked(k: Any, tf: Any) -> Any:
    x = k.Input((6, 3))
    y = k.layers.Masking()(tf.nn.relu(x - 1.0))
    y = k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True))(y)
    return k.Model(x, k.layers.GRU(2)(k.layers.Dropout(0.3)(y)))


def _channels_first(k: Any, tf: Any) -> Any:
    x = k.Input((3, 7, 5))
    y = k.layers.ZeroPadding2D(1, data_format="channels_first")(x)
    y = k.layers.BatchNormalization(axis=1)(y)
    y = k.layers.Permute((2, 3, 1))(y)
    y = k.layers.Permute((3, 1, 2))(y)
    return k.Model(x, k.layers.Dense(2)(k.layers.Flatten(data_format="channels_first")(y)))


def _states(k: Any, tf: Any) -> Any:
    x, y = k.Input((6, 3)), k.Input((4, 2))
    _, h, c = k.layers.LSTM(5, return_state=True)(x)
    z = k.layers.LSTM(5, return_sequences=True)(y, initial_state=[h, c])
    return k.Model([x, y], k.layers.Attention()([z, z]))


TF_KERAS: dict[str, Callable[[Any, Any], Any]] = {
    make.__name__.strip("_"): make
    for make in (
        *(_own_operations, _hard_sigmoid, _old_layers, _shared, _masked, _channels_first),
        _states,
    )
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("way", ["live", "h5", "keras"])
@pytest.mark.parametrize("name", TF_KERAS)
def test_a_model_of_tf_keras_gives_what_it_gives(name: str, way: str, tmp_path: Path) -> None:
    k, tf = library("tf_keras"), library("tensorflow")
    k.backend.clear_session()
    model = TF_KERAS[name](k, tf)
    randomized(model)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(2, *i.shape[1:])).astype(np.float32) for i in model.inputs]
    wanted = flat(model(inputs if len(inputs) > 1 else inputs[0]))
    if way == "live":
        snapshot = kerasport.read(model)
    else:
        path = tmp_path / f"model.{way}"
        model.save(path)
        snapshot = kerasport.read(path)
    made, about = built(snapshot, tmp_path)
    for a, b in zip(ran(made, about, inputs), wanted, strict=True):
        assert deviation(a, np.asarray(b)) < TOLERANCE


# -------------------------------------------------------------------------------- big architectures


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "DenseNet121"])
def test_an_application_gives_what_keras_gives(name: str, tmp_path: Path) -> None:
    """All of them: tests/benchmarks/modules.py."""
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    try:
        modules = importlib.import_module("modules")
    finally:
        sys.path.pop(0)
    keras.backend.clear_session()
    found = dict(modules.compared(name, tmp_path, sizes=(64, 49)))
    assert len(found) == 2
    assert max(found.values()) < 1e-4


def test_a_channels_first_model_of_keras_3_takes_what_it_took(tmp_path: Path) -> None:
    """TensorFlow convolves no such images on a CPU; the rest of the layers it knows."""
    i = keras.Input((3, 7, 5))
    x = keras.layers.ZeroPadding2D(1, data_format="channels_first")(i)
    x = keras.layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(i, keras.layers.Dense(2)(x))
    randomized(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 5)).astype(np.float32)
    made, about = built(kerasport.read(model), tmp_path)
    assert about.inputs == ((),)
    assert deviation(ran(made, about, [x])[0], np.asarray(model(x))) < TOLERANCE
    assert module(kerasport.read(model)).source == about.source
    assert isinstance(made, torch.nn.Module)
