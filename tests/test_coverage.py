"""Every layer of Keras that creates variables has a row in the tables, in every file it can be in.

The list of layers is not ours: it is what the installed Keras and tf_keras offer, and each class is
built to see whether it has variables. So a layer that a later Keras adds is missed here first. A
class that cannot be built is named with the reason.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

import kerasport
from benchmarks.applications import built as built_application
from benchmarks.applications import compared
from kerasport.conventions import NAMES, OLDER, convention
from kerasport.errors import KerasportError
from kerasport.kinds import CLASSES, facets
from kerasport.model import Snapshot
from kerasport.readers.live import read_model

L = keras.layers


@dataclass(frozen=True)
class Build:
    """How to build a class that needs to be told more than its name.

    Attributes:
        options: what its constructor needs.
        shapes: the shapes of its inputs, without the batch; None for those that its name implies.
        dtype: of its inputs.
        listed: it takes its inputs as one list.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    shapes: Sequence[tuple[int, ...]] | None = None
    dtype: str = "float32"
    listed: bool = False


TWO = Build(shapes=[(8, 3), (8, 3)], listed=True)
TWICE = Build(shapes=[(8, 3), (8, 3)])
IMAGE = [(8, 8, 3)]


def _builds(package: Any) -> dict[str, Build]:
    layers = package.layers
    mine = package is keras
    kernels = {"filters": 5, "kernel_size": 3}
    found = {
        "Activation": Build({"activation": "relu"}),
        "CategoryEncoding": Build({"num_tokens": 5}, [(4,)], "int32"),
        "CenterCrop": Build({"height": 4, "width": 4}, IMAGE),
        "Dense": Build({"units": 5}),
        "Dot": Build({"axes": 2}, [(8, 3), (8, 3)], listed=True),
        "EinsumDense": Build(
            {"equation": "abc,cd->abd", "output_shape": (None, 5), "bias_axes": "d"}
        ),
        "Embedding": Build({"input_dim": 7, "output_dim": 3}, [(4,)], "int32"),
        "ReversibleEmbedding": Build(
            {"input_dim": 7, "output_dim": 3, "tie_weights": False}, [(4,)], "int32"
        ),
        "GroupNormalization": Build({"groups": 3}),
        "Hashing": Build({"num_bins": 5}, [(4,)], "int32"),
        "HashedCrossing": Build({"num_bins": 5}, [(1,), (1,)], "int32", listed=True),
        "Lambda": Build({"function": _same}),
        "MelSpectrogram": Build({"fft_length": 16, "sequence_stride": 8}, [(64,)]),
        "STFTSpectrogram": Build({"frame_length": 16}, [(64, 1)]),
        "Permute": Build({"dims": (2, 1)}),
        "RandomCrop": Build({"height": 4, "width": 4}, IMAGE),
        "RepeatVector": Build({"n": 2}, [(8,)]),
        "Rescaling": Build({"scale": 2.0}),
        "Reshape": Build({"target_shape": (24,)}),
        "Resizing": Build({"height": 4, "width": 4}, IMAGE),
        "Discretization": Build({"bin_boundaries": [0.0, 1.0]} if mine else {"num_bins": 3}),
        **{
            name: Build(kernels)
            for name in dir(layers)
            if any(word in name for word in ("Conv1D", "Conv2D", "Conv3D", "Convolution"))
            or name.startswith(("ConvLSTM", "LocallyConnected"))
        },
        **{name: Build({"kernel_size": 3}) for name in ("DepthwiseConv1D", "DepthwiseConv2D")},
        **{f"ConvLSTM{n}D": Build(kernels, [(4, *(8, 8, 8)[:n], 3)]) for n in (1, 2, 3)},
        **{name: Build({"units": 5}) for name in ("GRU", "LSTM", "SimpleRNN")},
        **{name: Build({"units": 5}) for name in ("CuDNNGRU", "CuDNNLSTM")},
        **dict.fromkeys(
            ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"), TWO
        ),
        **{
            name: Build({"use_scale": True}, [(8, 3), (8, 3)], listed=True)
            for name in ("Attention", "AdditiveAttention")
        },
        "MultiHeadAttention": Build({"num_heads": 2, "key_dim": 5}, TWICE.shapes),
        **{
            name: Build(
                {"head_dim": 5, "num_query_heads": 4, "num_key_value_heads": 2}, TWICE.shapes
            )
            for name in ("GroupQueryAttention", "GroupedQueryAttention")
        },
        **{
            f"SpatialDropout{n}D": Build({"rate": 0.5}, [(8, 8, 8, 3)[-n - 1 :]]) for n in (1, 2, 3)
        },
        **{name: Build({"rate": 0.5}) for name in ("Dropout", "AlphaDropout", "GaussianDropout")},
        "GaussianNoise": Build({"stddev": 0.5}),
        "LayerScale": Build({"init_values": 0.1, "projection_dim": 3}),
        "StochasticDepth": Build({"drop_path_rate": 0.5}),
        **{
            f"Adaptive{how}Pooling{n}D": Build({"output_size": 2})
            for how in ("Average", "Max")
            for n in (1, 2, 3)
        },
        **{
            f"{name}{n}D": Build({"pool_size": 2})
            for name in ("AveragePooling", "AvgPool")
            for n in (1, 2, 3)
        },
        "TimeDistributed": Build({"layer": layers.Dense(5)}),
        "Bidirectional": Build({"layer": layers.LSTM(5)}),
        "RNN": Build({"cell": layers.LSTMCell(5)}),
        "SpectralNormalization": Build({"layer": layers.Dense(5)}),
        "IntegerLookup": Build({"vocabulary": [3, 5]}, [(4,)], "int64"),
        "StringLookup": Build({"vocabulary": ["a", "b"]}, [(4,)], "string"),
        "TextVectorization": Build({"vocabulary": ["a", "b"]}, [()], "string"),
        "RandomFourierFeatures": Build({"output_dim": 5}, [(3,)]),
    }
    images: dict[str, dict[str, Any]] = {
        "RandomBrightness": {"factor": 0.1},
        "RandomContrast": {"factor": 0.1},
        "RandomRotation": {"factor": 0.1},
        "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
        "RandomZoom": {"height_factor": 0.1},
        "RandomHeight": {"factor": 0.1},
        "RandomWidth": {"factor": 0.1},
        "RandomFlip": {},
        "RandomColorDegeneration": {"factor": 0.1},
        "RandomHue": {"factor": 0.1},
        "RandomPosterization": {"factor": 4},
        "RandomSaturation": {"factor": 0.1},
        "RandomSharpness": {"factor": 0.1},
        "Pipeline": {"layers": [layers.RandomFlip()]},
    }
    for name in (
        *("AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix"),
        *("Equalization", "MixUp", "RandAugment", "RandomColorJitter", "RandomElasticTransform"),
        *("RandomErasing", "RandomGaussianBlur", "RandomGrayscale", "RandomInvert"),
        *("RandomPerspective", "RandomShear", "Solarization"),
    ):
        images.setdefault(name, {})
    return found | {name: Build(options, IMAGE) for name, options in images.items()}


def _same(x: Any) -> Any:
    return x


# Classes that are no layer by themselves, or not on this machine.
NOT_BUILT = {
    "InputLayer": "is the model's input and has nothing else",
    "Layer": "has what its subclasses give it",
    "FlaxLayer": "runs a module of Flax, whose variables are not Keras's",
    "JaxLayer": "runs a function of JAX, whose variables are not Keras's",
    "TorchModuleWrapper": "runs a module of PyTorch, which needs no conversion",
    "TFSMLayer": "runs a SavedModel, which is read by itself",
    "MaxNumBoundingBoxes": "takes bounding boxes, and computes with them alone",
    "AbstractRNNCell": "has what its subclasses give it",
    "Wrapper": "has what its subclasses give it, and the layer inside",
    "Equalization": "runs on images alone, and has nothing but its options",
    "tf_keras.SpectralNormalization": "asks tf.keras for a class, which is Keras 3 here; its "
    "variables are those of Keras 3",
    "PreprocessingLayer": "has what its subclasses give it",
    "DenseFeatures": "has the variables of the feature columns that it is given, by their names",
    "DynamicLookup": "keeps its vocabulary as text, which no tensor format holds",
    "DynamicEmbedding": "keeps its vocabulary as text, which no tensor format holds",
}
# A cell is proven inside the loop that calls it.
CELLS = ("GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells")


def reason(package: Any, name: str) -> str | None:
    """Why a class is not built."""
    return NOT_BUILT.get(f"{package.__name__}.{name}", NOT_BUILT.get(name))


@cache
def classes(package: Any) -> Mapping[str, type]:
    """The layer classes that a Keras offers, by name, each once."""
    places = [package.layers]
    if package is tf_keras:
        places += [tf_keras.layers.experimental, tf_keras.layers.experimental.preprocessing]
        rnn = "tf_keras.src.layers.rnn"
        places += [import_module(f"{rnn}.{name}") for name in ("cudnn_gru", "cudnn_lstm")]
    else:  # in tf_keras it is made anew by every call
        places.append(import_module("keras.src.applications.convnext"))
    found: dict[str, type] = {}
    for place in places:
        for name, value in vars(place).items():
            public = inspect.isclass(value) and not name.startswith("_")
            layer = public and issubclass(value, package.layers.Layer)
            if layer and not issubclass(value, package.Model):
                found.setdefault(name, value)
    return found


def built(package: Any, name: str, made: type) -> Any:
    """A model around one layer of the class."""
    build = _builds(package).get(name, Build())
    if name in CELLS:
        cell = made(5) if name != "StackedRNNCells" else made([package.layers.LSTMCell(5)])
        build, layer = Build(), package.layers.RNN(cell)
    else:
        layer = made(**build.options)
    shapes = build.shapes
    if shapes is None:
        rank = next((n for n in (1, 2, 3) if f"{n}D" in name), 1)
        shapes = [(*(8, 8, 8)[:rank], 3)]
    inputs = [package.Input(shape, dtype=build.dtype) for shape in shapes]
    outputs = layer(inputs) if build.listed else layer(*inputs)
    return package.Model(inputs, outputs)


def lacking(snapshot: Snapshot) -> list[str]:
    """What the tables do not know of a snapshot."""
    return [f"{layer.path}: {layer.note}" for layer in snapshot.layers if layer.kind is None]


def uncovered(package: Any, found: Mapping[str, type]) -> dict[str, list[str]]:
    """The classes that create variables and have no row, with what is wrong."""
    wrong: dict[str, list[str]] = {}
    for name, made in found.items():
        if reason(package, name) is not None:
            continue
        model = built(package, name, made)
        if not model.weights:
            continue
        snapshot = kerasport.read(model)
        problems = lacking(snapshot)
        if sum(1 for _ in snapshot.tensors) < len({id(w) for w in model.weights}):
            problems.append("weights are missing")
        if problems:
            wrong[name] = problems
    return wrong


# Where a Keras keeps classes that it does not offer.
INSIDE = {
    keras: ("layers", "applications", "legacy"),
    tf_keras: ("layers", "applications", "legacy_tf_layers", "feature_column"),
}
# Of those, the ones whose names no table has.
NOT_OFFERED = {
    "AlphaDropout": "has no variables",
    "ConvLSTMCell": "is the cell of a ConvLSTM, which stores its variables",
    "CustomScaleLayer": "multiplies by a number of its configuration",
    "FeatureSpace": "holds layers under the names of features, each with a row of its own",
    "StochasticDepth": "has no variables",
    **dict.fromkeys(("TFDConcat", "TFDIdentity"), "has no variables"),
    **dict.fromkeys(("RandomHeight", "RandomWidth", "ThresholdedReLU"), "has no variables"),
    **dict.fromkeys(
        ("ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "TFOpLambda"),
        "is an operation of TensorFlow",
    ),
    **dict.fromkeys(("Dropout", "Flatten"), "has no variables"),
    **{f"{kind}Pooling{n}D": "has no variables" for kind in ("Average", "Max") for n in (1, 2, 3)},
    **dict.fromkeys(
        ("LayerRNNCell", "RNNCell", "Layer", "_RNNCellWrapper", "_RNNCellWrapperV1"),
        "has what its subclasses give it",
    ),
    "LSTMCell": "of TensorFlow 1 is TF1LSTMCell to its readers",
    "MultiRNNCell": "of TensorFlow 1 is its cells to its readers",
    "SequenceFeatures": "has the variables of the feature columns that it is given, by their names",
    "VariableScopeLayer": "has the variables that a function of TensorFlow 1 makes",
}


def hidden(package: Any, places: Iterable[str]) -> dict[str, str]:
    """The layer classes in a Keras that it does not offer and that none it offers is made of."""
    offered = set(classes(package).values())
    found: dict[str, str] = {}
    for place in places:
        top = import_module(f"{package.__name__}.src.{place}")
        for info in walk_packages(top.__path__, f"{top.__name__}."):
            if info.name.endswith("_test"):
                continue
            for value in vars(import_module(info.name)).values():
                if not inspect.isclass(value) or not issubclass(value, package.layers.Layer):
                    continue
                ours = value.__module__.startswith(f"{package.__name__}.src.{place}.")
                base = any(issubclass(other, value) for other in offered)
                if ours and not base and not issubclass(value, package.Model):
                    found[value.__name__] = value.__module__
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_layer_that_is_not_offered_has_a_row_or_a_reason(package: Any) -> None:
    """Files hold them too: cells, wrappers, and what `tf.compat.v1` offers under the same names."""
    found = hidden(package, INSIDE[package])
    assert sorted(name for name in found if name not in CLASSES and name not in NOT_OFFERED) == []
    assert len(found) > 5


def test_a_hidden_layer_without_a_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin, and every reason is one for a class that is there."""
    found = {**hidden(keras, INSIDE[keras]), **hidden(tf_keras, INSIDE[tf_keras])}
    assert NOT_OFFERED.keys() <= found.keys()
    module = import_module("keras.src.layers.core.dense")
    planted = type("Planted", (keras.layers.Layer,), {"__module__": module.__name__})
    monkeypatch.setattr(module, "Planted", planted, raising=False)
    assert "Planted" in hidden(keras, INSIDE[keras])


@pytest.mark.filterwarnings("ignore")  # of the layers about their options
@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_every_layer_that_creates_variables_has_a_row(package: Any) -> None:
    """A layer without one could be read from a file and written nowhere."""
    found = classes(package)
    assert len(found) > 100
    assert uncovered(package, found) == {}
    known = {
        *classes(keras),
        *classes(tf_keras),
        *(f"tf_keras.{name}" for name in classes(tf_keras)),
    }
    assert set(NOT_BUILT) <= known


def test_a_layer_without_a_row_is_noticed() -> None:
    """The twin: a class that nobody has heard of creates variables, and says that it is Keras's."""

    class Planted(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.first = self.add_weight(shape=(7, 5, 3), name="first")
            self.second = self.add_weight(shape=(11,), name="second")

        def call(self, x: Any) -> Any:
            return x + self.first[0, 0] * self.second[0]

    Planted.__module__ = "keras.src.layers.planted"
    assert list(uncovered(keras, {"Planted": Planted})) == ["Planted"]


# ------------------------------------------------------------------------- and in the files of each


FORMATS = (".keras", ".weights.h5", ".h5")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_every_layer_is_the_same_from_memory_and_from_its_files(
    package: Any, tmp_path: Path
) -> None:
    """Formats keep other names and orders; a row must know all of them."""
    tried = 0
    for name, made in classes(package).items():
        if reason(package, name) is None:
            model = built(package, name, made)
            tried += _same_from_files(model, tmp_path / name) if model.weights else 0
    assert tried > 100


def _same_from_files(model: Any, folder: Path) -> int:
    """Save the model in every format, and compare; returns in how many."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    for weight in model.weights:
        if None not in tuple(weight.shape):
            weight.assign(rng.integers(1, 99, tuple(weight.shape)))
    live = _tensors(kerasport.read(model))
    for suffix in FORMATS:
        path, config = folder / f"model{suffix}", None
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        if suffix == ".weights.h5":
            config = folder / "model.json"
            config.write_text(model.to_json())
        found = kerasport.read(path, config=config)
        assert lacking(found) == [], path
        stored = _tensors(found)
        assert stored.keys() == live.keys(), path
        for key, array in live.items():
            np.testing.assert_array_equal(stored[key], array, f"{path}: {key}")
    return len(FORMATS)


Layers = Any  # the module `layers` of one of the two


def _backwards(layers: Layers) -> Any:
    back = layers.GRU(7, go_backwards=True)
    return layers.Bidirectional(layers.LSTM(5), backward_layer=back)


def _alike(layers: Layers) -> Any:
    back = layers.LSTM(5, go_backwards=True, name="the_way_back")
    return layers.Bidirectional(layers.LSTM(5), backward_layer=back)


def _stack(layers: Layers) -> Any:
    return layers.StackedRNNCells([layers.LSTMCell(5), layers.GRUCell(7), layers.LSTMCell(3)])


def _without_bias(layers: Layers) -> Any:
    return layers.Bidirectional(layers.GRU(5, use_bias=False, reset_after=False))


# Layers in layers, and options that change what is stored. A name, a layer, its input.
FURTHER: Mapping[str, tuple[Any, tuple[int, ...]]] = {
    "stacked": (lambda layers: layers.RNN(_stack(layers)), (4, 3)),
    "listed": (lambda layers: layers.RNN([layers.LSTMCell(5), layers.GRUCell(7)]), (4, 3)),
    "stacked_both": (lambda layers: layers.Bidirectional(layers.RNN(_stack(layers))), (4, 3)),
    "unlike": (_backwards, (4, 3)),
    "alike": (_alike, (4, 3)),
    "without_bias": (_without_bias, (4, 3)),
    "convolutional_both": (lambda layers: layers.Bidirectional(layers.ConvLSTM1D(5, 3)), (4, 8, 3)),
    "steps": (lambda layers: layers.TimeDistributed(layers.Conv2D(5, 3)), (4, 8, 8, 3)),
    "steps_both": (
        lambda layers: layers.TimeDistributed(layers.Bidirectional(layers.LSTM(5))),
        (2, 4, 3),
    ),
    "steps_of_steps": (
        lambda layers: layers.TimeDistributed(layers.TimeDistributed(layers.BatchNormalization())),
        (2, 4, 3),
    ),
    "centered": (lambda layers: layers.BatchNormalization(scale=False), (4, 3)),
    "axes": (lambda layers: layers.LayerNormalization(axis=[1, 2], center=False), (4, 3)),
    "everything": (lambda layers: layers.Normalization(axis=None), (4, 3)),
    "shared": (lambda layers: layers.PReLU(shared_axes=[1]), (4, 8, 3)),
    "multiplied": (lambda layers: layers.SeparableConv2D(5, 3, depth_multiplier=2), (8, 8, 3)),
    "equation": (
        lambda layers: layers.EinsumDense("...xy,xyz->...z", 5, bias_axes="z"),
        (2, 4, 3),
    ),
}
OF_KERAS: Mapping[str, tuple[Any, tuple[int, ...]]] = {
    "spectral_steps": (
        lambda layers: layers.TimeDistributed(layers.SpectralNormalization(layers.Dense(5))),
        (4, 3),
    ),
    "spectral_image": (lambda layers: layers.SpectralNormalization(layers.Conv2D(5, 3)), (8, 8, 3)),
    "behind": (
        lambda layers: layers.EinsumDense("ab...,bc->ac...", (5, None, None), bias_axes="c"),
        (4, 3, 2),
    ),
}
OF_TF_KERAS: Mapping[str, tuple[Any, tuple[int, ...]]] = {
    "renorm": (lambda layers: layers.BatchNormalization(renorm=True), (4, 3)),
    "normalized_axes": (lambda layers: layers.BatchNormalization(axis=[1, 3]), (4, 5, 3)),
    "full": (lambda layers: layers.LocallyConnected1D(5, 3, implementation=2), (8, 3)),
    "sparse": (lambda layers: layers.LocallyConnected2D(5, 3, implementation=3), (8, 8, 3)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_what_is_inside_of_layers_is_the_same_from_memory_and_from_files(
    package: Any, tmp_path: Path
) -> None:
    """Wrappers and cells are stored by attributes, by scopes, and by names of their own."""
    for name, (make, shape) in {
        **FURTHER,
        **(OF_KERAS if package is keras else OF_TF_KERAS),
    }.items():
        inputs = package.Input(shape)
        model = package.Model(inputs, make(package.layers)(inputs))
        _same_from_files(model, tmp_path / name)


def _tensors(snapshot: Snapshot) -> dict[tuple[str | None, str, str], Any]:
    return {
        (layer.kind, layer.path, role): tensor.numpy()
        for layer in snapshot.layers
        for role, tensor in layer.weights.items()
    }


# ----------------------------------------------------------------------------------------- tables


OPTIONS: list[dict[str, Any]] = [
    {},
    {"axis": [1, 2]},
    {"renorm": True},
    {"implementation": 2},
    {"use_gate": True, "tie_weights": False, "mode": "imag", "kernel_size": 3},
]


def test_every_class_leads_to_rows_in_every_convention() -> None:
    """A class that names a kind without a row would break where it is first met."""
    older = {kind for name in OLDER for kind in convention(name)}
    wrong = {
        (kind, to)
        for name in CLASSES
        for config in OPTIONS
        for facet in facets(name, config)
        for kind in facet.kinds
        for to in NAMES
        if kind not in convention(to) and kind not in older
    }
    assert wrong == set()


# ----------------------------------------------------------------------------------------- corpus


CORPUS = os.environ.get("KERASPORT_CORPUS")
# Layers of their authors' own, in files that name classes.
CUSTOM: dict[str, str] = {}


@pytest.mark.skipif(not CORPUS, reason="KERASPORT_CORPUS is not set")
def test_every_layer_class_in_the_corpus_has_a_row() -> None:
    """What people have saved over ten years, by the names that it had then."""
    seen = list(_corpus_classes(sorted(Path(str(CORPUS)).rglob("*"))))
    names = {name for name, _ in seen}
    assert {"Conv2D", "LSTM", "SeparableConv2D", "Convolution2D", "PReLU"} <= names
    assert sorted({name for name, kind in seen if kind is None} - CUSTOM.keys()) == []


def _corpus_classes(paths: Iterable[Path]) -> Iterable[tuple[str, str | None]]:
    for path in paths:
        if path.suffix not in (".h5", ".hdf5", ".keras"):
            continue
        try:
            snapshot = kerasport.read(path)
        except KerasportError:
            continue  # no file of Keras's, which the readers' tests say
        for layer in snapshot.layers:
            if layer.class_name is not None:
                yield layer.class_name, layer.kind


def test_the_live_reader_is_what_reads_models() -> None:
    """What is compared above is what users get."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(5, name="only")])
    assert list(read_model(model)) == ["only"]


# --------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small", "ConvNeXtTiny"])
def test_a_model_of_keras_applications_converts_from_memory_and_from_its_file(
    name: str, tmp_path: Path
) -> None:
    """A sample; `python -m benchmarks.applications` runs all of them."""
    found = compared(built_application(name), tmp_path)
    assert found.problems == ()
    assert found.placed == found.stored > 100


def test_a_byte_that_differs_between_memory_and_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: the file is saved with other weights than those in memory."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(5, name="only")])
    save = model.save

    def other(path: Path) -> None:
        before = model.get_weights()
        model.set_weights([before[0] + 1, before[1]])
        save(path)
        model.set_weights(before)

    monkeypatch.setattr(model, "save", other)
    assert compared(model, tmp_path).problems == ("only.weight: other bytes",)
