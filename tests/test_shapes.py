"""Shapes that follow from a configuration are those that Keras computes by building the model.

The oracle is Keras: each model here is built, written as JSON, parsed, and every tensor's shape is
compared with `layer.output.shape`. For files that Keras 3 cannot read, the stored kernels are: what
goes into a layer must have as many channels as its kernel takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasport import shapes as module
from kerasport.api import read
from kerasport.architecture import Node, parse
from kerasport.errors import KerasportError
from kerasport.model import Layer
from kerasport.options import options
from kerasport.shapes import RULES, Call, Shape, inputs_of, outputs, shapes, walk

L = keras.layers
FIRST = {"data_format": "channels_first"}


def inferred(model: Any) -> dict[str, tuple[Call[Shape], ...]]:
    config = json.loads(model.to_json())
    graph = parse(config)
    assert graph is not None
    return shapes(graph, inputs_of(config))


def flat(value: Any) -> list[Any]:
    return [y for x in value for y in flat(x)] if isinstance(value, list | tuple) else [value]


def differences(model: Any) -> list[str]:
    """Where inference and Keras disagree about what a layer puts out."""
    found = inferred(model)
    wrong = []
    for layer in model.layers:
        if layer.name not in found:
            assert hasattr(layer, "layers"), f"{layer.name} is no model"
            continue
        expected = [tuple(x.shape) for x in flat(layer.output)]
        made = list(found[layer.name][0].outputs)
        if made != expected:
            wrong.append(f"{layer.name}: expected {expected}, found {made}")
    return wrong


# -------------------------------------------------------------------------------------- each layer

Made = Callable[[], Any]
SPACE = (11, 13, 12)
ZOO: dict[str, tuple[Made, tuple[tuple[int | None, ...], ...]]] = {}


def zoo(label: str, make: Made, *given: tuple[int | None, ...]) -> None:
    assert label not in ZOO
    ZOO[label] = (make, given)


def fill_the_zoo() -> None:
    for n in (1, 2, 3):
        image: tuple[int | None, ...] = (*SPACE[:n], 6)
        open_image: tuple[int | None, ...] = (None, *SPACE[1:n], 6)
        first: tuple[int | None, ...] = (6, *SPACE[:n])
        for padding in ("valid", "same"):
            for strides in (1, 2, 3):
                name = f"{n}D-{padding}-{strides}"
                options: dict[str, Any] = {"padding": padding, "strides": strides}
                conv, pool = getattr(L, f"Conv{n}D"), getattr(L, f"MaxPooling{n}D")
                back = getattr(L, f"Conv{n}DTranspose")
                mean = getattr(L, f"AveragePooling{n}D")
                zoo(f"Conv{name}", partial(conv, 5, 4, groups=1, **options), image)
                zoo(f"Conv{name}-open", partial(conv, 5, 4, **options), open_image)
                zoo(f"Conv{name}-first", partial(conv, 5, 4, **options, **FIRST), first)
                zoo(f"ConvTranspose{name}", partial(back, 5, 2, **options), open_image)
                zoo(f"ConvTranspose{name}-large", partial(back, 5, 5, **options), image)
                zoo(f"MaxPooling{name}", partial(pool, 2, **options), open_image)
                zoo(f"AveragePooling{name}", partial(mean, 3, **options), image)
                zoo(
                    f"AveragePooling{name}-first",
                    partial(mean, 2, **options, **FIRST),
                    first,
                )
                if n < 3:
                    depth = getattr(L, f"DepthwiseConv{n}D")
                    apart = getattr(L, f"SeparableConv{n}D")
                    zoo(
                        f"DepthwiseConv{name}",
                        partial(depth, 3, depth_multiplier=2, **options),
                        image,
                    )
                    zoo(f"SeparableConv{name}", partial(apart, 7, 3, **options), open_image)
            dilated = {"padding": padding, "dilation_rate": 3}
            zoo(f"Conv{n}D-{padding}-dilated", partial(conv, 5, 3, **dilated), image)
        more = {"strides": 3, "output_padding": 1}
        zoo(f"ConvTranspose{n}D-more", partial(back, 5, 4, **more), image)
        zoo(
            f"ConvTranspose{n}D-more-same",
            partial(back, 5, 3, padding="same", **more),
            open_image,
        )
        zoo(f"MaxPooling{n}D-default", partial(pool), image)
        for kind in ("Max", "Average"):
            for keepdims in (False, True):
                for form, shape in (("channels_last", open_image), ("channels_first", first)):
                    zoo(
                        f"Global{kind}Pooling{n}D-{keepdims}-{form}",
                        partial(
                            getattr(L, f"Global{kind}Pooling{n}D"),
                            keepdims=keepdims,
                            data_format=form,
                        ),
                        shape,
                    )
            zoo(
                f"Adaptive{kind}Pooling{n}D",
                partial(getattr(L, f"Adaptive{kind}Pooling{n}D"), 5),
                image,
            )
        zoo(f"UpSampling{n}D", partial(getattr(L, f"UpSampling{n}D"), 3), open_image)
        zoo(f"ZeroPadding{n}D", partial(getattr(L, f"ZeroPadding{n}D"), 2), open_image)
        zoo(f"Cropping{n}D", partial(getattr(L, f"Cropping{n}D"), 2), open_image)
        lstm = getattr(L, f"ConvLSTM{n}D")
        for every in (False, True):
            zoo(
                f"ConvLSTM{n}D-{every}",
                partial(lstm, 5, 3, return_sequences=every, strides=2),
                (4, *image),
            )
    zoo("Conv1D-causal", lambda: L.Conv1D(5, 3, padding="causal", strides=2), (11, 6))
    zoo("ZeroPadding1D-sides", lambda: L.ZeroPadding1D((1, 3)), (11, 6))
    zoo("ZeroPadding2D-sides", lambda: L.ZeroPadding2D(((1, 3), (0, 2))), (11, 13, 6))
    zoo("ZeroPadding2D-first", lambda: L.ZeroPadding2D((1, 3), **FIRST), (6, 11, 13))
    zoo("Cropping2D-sides", lambda: L.Cropping2D(((1, 3), (0, 2))), (11, 13, 6))
    zoo("Cropping3D-pairs", lambda: L.Cropping3D((1, 2, 3)), (11, 13, 12, 6))
    zoo("UpSampling2D-first", lambda: L.UpSampling2D((2, 3), **FIRST), (6, 11, 13))
    zoo("Resizing", lambda: L.Resizing(5, 7), (None, None, 3))
    zoo("CenterCrop", lambda: L.CenterCrop(5, 7), (11, 13, 3))
    zoo("RandomCrop", lambda: L.RandomCrop(5, 7), (11, 13, 3))
    zoo("Flatten", L.Flatten, (3, 5, 7))
    zoo("Flatten-open", L.Flatten, (None, 5))
    zoo("Reshape", lambda: L.Reshape((5, -1, 3)), (15, 7))
    zoo("Reshape-open", lambda: L.Reshape((-1, 7)), (None, 7))
    zoo("Reshape-fixed", lambda: L.Reshape((21, 5)), (15, 7))
    zoo("Permute", lambda: L.Permute((3, 1, 2)), (3, None, 7))
    zoo("RepeatVector", lambda: L.RepeatVector(5), (7,))
    zoo("Dense", lambda: L.Dense(5), (3, None, 7))
    zoo("EinsumDense", lambda: L.EinsumDense("abc,cde->abde", (None, 5, 11)), (None, 7))
    zoo("Embedding", lambda: L.Embedding(11, 5), (None,))
    zoo("Embedding-2", lambda: L.Embedding(11, 5), (3, 7))
    zoo("ReversibleEmbedding", lambda: L.ReversibleEmbedding(11, 5), (7,))
    cells: dict[str, Any] = {"SimpleRNN": L.SimpleRNN, "GRU": L.GRU, "LSTM": L.LSTM}
    for name, cell in cells.items():
        for every in (False, True):
            for state in (False, True):
                zoo(
                    f"{name}-{every}-{state}",
                    partial(cell, 5, return_sequences=every, return_state=state),
                    (None, 7),
                )
        for merge in ("concat", "sum", "ave", "mul", None):
            zoo(
                f"Bidirectional-{name}-{merge}",
                partial(L.Bidirectional, cell(5, return_sequences=True), merge_mode=merge),
                (None, 7),
            )
    zoo("Bidirectional-state", lambda: L.Bidirectional(L.LSTM(5, return_state=True)), (3, 7))
    zoo("RNN", lambda: L.RNN(L.LSTMCell(5), return_state=True), (3, 7))
    zoo(
        "RNN-stacked",
        lambda: L.RNN([L.GRUCell(5), L.LSTMCell(11)], return_sequences=True, return_state=True),
        (3, 7),
    )
    zoo("TimeDistributed", lambda: L.TimeDistributed(L.Conv2D(5, 3)), (4, 11, 13, 6))
    zoo("TimeDistributed-Flatten", lambda: L.TimeDistributed(L.Flatten()), (None, 11, 13, 6))
    zoo("SpectralNormalization", lambda: L.SpectralNormalization(L.Dense(5)), (7,))
    for name in ("Add", "Average", "Maximum", "Minimum", "Multiply"):
        zoo(name, getattr(L, name), (3, 5, 7), (3, 5, 7), (3, 1, 7))
        zoo(f"{name}-open", getattr(L, name), (None, 5), (7, 5))
        zoo(f"{name}-rank", getattr(L, name), (3, 5), (5,))
    zoo("Subtract", L.Subtract, (3, 5), (3, 5))
    zoo("Concatenate", L.Concatenate, (3, 5), (3, 7), (3, 11))
    zoo("Concatenate-1", lambda: L.Concatenate(axis=1), (3, 5), (7, 5))
    zoo("Concatenate-open", lambda: L.Concatenate(axis=1), (3, 5), (None, 5))
    zoo("Concatenate-open-2", lambda: L.Concatenate(axis=-1), (3, 5), (None, 5))
    zoo("Dot", lambda: L.Dot(axes=-1), (7,), (7,))
    zoo("Dot-2", lambda: L.Dot(axes=(2, 1)), (3, 5), (5, 7))
    zoo("Dot-3", lambda: L.Dot(axes=(1, 2)), (3, 5), (11, 3))
    zoo("MultiHeadAttention", lambda: L.MultiHeadAttention(3, 5), (4, 7), (6, 11))
    zoo(
        "MultiHeadAttention-out",
        lambda: L.MultiHeadAttention(3, 5, output_shape=13),
        (4, 7),
        (6, 7),
    )
    zoo("GroupedQueryAttention", lambda: L.GroupQueryAttention(5, 4, 2), (4, 7), (6, 7))
    zoo("Attention", L.Attention, (4, 7), (6, 7))
    zoo("AdditiveAttention", L.AdditiveAttention, (4, 7), (6, 7))
    zoo("CategoryEncoding", lambda: L.CategoryEncoding(11), (7,))
    zoo("CategoryEncoding-1", lambda: L.CategoryEncoding(11, output_mode="one_hot"), (7,))
    zoo("CategoryEncoding-2", lambda: L.CategoryEncoding(11, output_mode="one_hot"), (1,))
    zoo("MelSpectrogram", lambda: L.MelSpectrogram(sampling_rate=8000), (4096,))
    for mode in ("stft", "log"):
        for expand in (False, True):
            zoo(
                f"STFTSpectrogram-{mode}-{expand}",
                partial(
                    L.STFTSpectrogram,
                    mode=mode,
                    expand_dims=expand,
                    frame_length=64,
                    frame_step=20,
                    fft_length=128,
                ),
                (500, 3),
            )
    for name in ("BatchNormalization", "LayerNormalization", "UnitNormalization", "PReLU", "ReLU"):
        zoo(name, getattr(L, name), (3, 5, 7))


fill_the_zoo()


@pytest.mark.parametrize("label", ZOO)
def test_a_layer_puts_out_the_shape_that_keras_computes(label: str) -> None:
    make, given_ = ZOO[label]
    layer = make()
    name = type(layer).__name__
    words = name.endswith("Embedding") or name == "CategoryEncoding"
    inputs = [keras.Input(shape, dtype="int32" if words else None) for shape in given_]
    several = name in ("MultiHeadAttention", "GroupedQueryAttention")
    made = layer(*inputs) if several else layer(inputs if len(inputs) > 1 else inputs[0])
    assert differences(keras.Model(inputs, made)) == []


@pytest.mark.parametrize(
    ("equation", "shape", "given_"),
    [
        ("...x,xy->...y", 5, (2, 3, 11, 7)),
        ("abc,cd->adb", (5, None), (2, 3, 7)),
        ("abcd,bde->ace", (None, 11), (2, 3, 5, 7)),
        ("ab...,bc->ac...", (5, None), (2, 7, 3)),
    ],
)
def test_an_equation_gives_the_shape_that_it_computes(
    equation: str, shape: Any, given_: tuple[int, ...]
) -> None:
    """Keras says None where its option says so; what it puts out is known all the same."""
    layer = L.EinsumDense(equation, shape)
    made = layer(np.zeros(given_, np.float32))
    assert outputs("EinsumDense", layer.get_config(), inputs=[given_]) == (tuple(made.shape),)


def test_a_wrong_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: `same` taken for `valid`, and axes of a Dot the wrong way around."""
    right = module._window
    monkeypatch.setattr(module, "_window", lambda n, kernel, s, p: right(n, kernel, s, "valid"))
    x = keras.Input((11, 6))
    assert differences(keras.Model(x, L.Conv1D(5, 4, padding="same")(x)))
    assert not differences(keras.Model(x, L.Conv1D(5, 4, padding="valid")(x)))


# Layers without a meaning for shapes: abstract ones, ones that are made of code, cells, and text.
NO_SHAPE = {
    *("Layer", "Wrapper", "Lambda", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"),
    *("SimpleRNNCell", "GRUCell", "LSTMCell", "StackedRNNCells", "InputSpec", "Input", "Pipeline"),
    *("TextVectorization", "HashedCrossing", "MaxNumBoundingBoxes", "FeatureSpace"),
}


def test_every_layer_of_keras_has_a_rule() -> None:
    classes = {x.__name__ for x in vars(L).values() if isinstance(x, type)}
    assert len(classes) > 100
    assert classes - RULES.keys() - NO_SHAPE == set()
    assert NO_SHAPE & RULES.keys() <= {"Wrapper"}


# ------------------------------------------------------------------------------------ whole models


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        "ResNet50",
        "EfficientNetB0",
        "DenseNet121",
        "Xception",
        "NASNetMobile",
        "ConvNeXtTiny",
    ],
)
def test_models_of_keras_applications_have_the_shapes_that_keras_computes(name: str) -> None:
    open_ = {} if name == "NASNetMobile" else {"include_top": False, "input_shape": (None, None, 3)}
    for kwargs in ({}, open_):
        model = getattr(keras.applications, name)(weights=None, **kwargs)
        found = inferred(model)
        assert len(found) > 100
        assert differences(model) == []


def nested() -> keras.Model:
    """A model in a model in a model, one of them called twice, one under TimeDistributed."""
    inner = keras.Sequential(
        [keras.Input((None, None, 2)), L.Conv2D(3, 3, strides=2, name="conv"), L.ReLU()],
        name="inner",
    )
    x = keras.Input((None, None, 2))
    padded = L.ZeroPadding2D(1, name="pad")(x)
    middle = keras.Model(x, [inner(padded), L.ReLU()(x)], name="middle")
    a, b, c = keras.Input((11, 13, 2)), keras.Input((8, 9, 2)), keras.Input((5, 11, 13, 2))
    u, v = middle(a)[0], middle(b)[0]
    w = L.TimeDistributed(inner, name="each")(c)
    y = L.Flatten(name="end")(w)
    return keras.Model([a, b, c], [L.GlobalMaxPooling2D()(u), L.GlobalMaxPooling2D()(v), y])


def test_models_in_models_are_entered_once_for_each_call() -> None:
    found = inferred(nested())
    padded = [call.outputs[0] for call in found["middle/pad"]]
    assert padded == [(None, 13, 15, 2), (None, 10, 11, 2)]
    # The innermost model is called inside the middle one, twice, and once under TimeDistributed.
    made = [call.outputs[0] for call in found["middle/inner/conv"]]
    assert made == [(None, 6, 7, 3), (None, 4, 5, 3)]
    assert [call.outputs[0] for call in found["each/conv"]] == [(None, 5, 6, 3)]
    assert found["end"][0].inputs == ((None, None, 5, 6, 3),)


def test_a_layer_that_is_called_twice_has_two_calls() -> None:
    dense = L.Dense(5, name="shared")
    x, y = keras.Input((3, 7)), keras.Input((7,))
    found = inferred(keras.Model([x, y], [dense(x), dense(y)]))["shared"]
    assert [call.inputs for call in found] == [((None, 3, 7),), ((None, 7),)]
    assert [call.outputs for call in found] == [((None, 3, 5),), ((None, 5),)]


def test_a_layer_at_two_places_has_the_calls_of_both() -> None:
    """tf_keras numbers the objects that appear more than once, and stores them once."""
    config = {"name": "d", "units": 5}
    dense = {"class_name": "Dense", "config": config, "shared_object_id": 1, "name": "d"}
    layers = [
        {
            "class_name": "InputLayer",
            "config": {"name": "i", "batch_shape": [None, 5]},
            "name": "i",
            "inbound_nodes": [],
        },
        {**dense, "inbound_nodes": [[["i", 0, 0, {}]]]},
        {
            "class_name": "Sequential",
            "name": "inner",
            "config": {"name": "inner", "layers": [dense]},
            "inbound_nodes": [[["d", 0, 0, {}]]],
        },
    ]
    ends = {"input_layers": [["i", 0, 0]], "output_layers": [["inner", 0, 0]]}
    graph = parse({"class_name": "Functional", "config": {"name": "m", "layers": layers, **ends}})
    assert graph is not None
    found = shapes(graph)
    assert found["d"] == found["inner/d"]
    assert len(found["d"]) == 2


def test_models_of_tf_keras_have_the_shapes_that_it_computes() -> None:
    import tf_keras

    T = tf_keras.layers
    x = T.Input((11, 13, 3))
    y = T.Conv2D(5, 3, strides=2, padding="same")(x)
    y = T.LocallyConnected2D(4, 2)(T.ZeroPadding2D(((1, 0), (2, 1)))(y))
    y = T.Conv2DTranspose(7, 3, strides=2)(T.BatchNormalization()(y))
    y = T.Reshape((-1, 133))(y)
    y = T.Bidirectional(T.LSTM(5, return_sequences=True))(y)
    y, *_ = T.GRU(7, return_sequences=True, return_state=True)(y)
    y = T.ThresholdedReLU()(T.Attention()([y, y]))
    y = T.Dense(2)(T.Flatten()(y))
    assert differences(tf_keras.Model(x, y)) == []
    first = tf_keras.Sequential([T.Dense(5, input_shape=(7,)), T.Dense(3)])
    assert differences(first) == []


def test_options_of_keras_1_are_understood() -> None:
    layers: list[tuple[str, dict[str, Any]]] = [
        ("ZeroPadding2D", {"padding": [1, 2], "batch_input_shape": [None, 3, 20, 30], **TH}),
        ("Convolution2D", {"nb_filter": 5, "nb_row": 3, "nb_col": 4, **STEP, **TH}),
        ("AtrousConvolution2D", {"nb_filter": 7, "nb_row": 2, "nb_col": 2, **ATROUS, **TH}),
        ("MaxPooling2D", {"pool_size": [2, 2], "border_mode": "same", **TH}),
        ("Permute", {"dims": [2, 3, 1]}),
        ("TimeDistributed", {"layer": {"class_name": "Dense", "config": {"output_dim": 11}}}),
        ("Reshape", {"target_shape": [35, 11]}),
        ("Convolution1D", {"nb_filter": 2, "filter_length": 3, "subsample_length": 2}),
        ("MaxPooling1D", {"pool_length": 2, "stride": 3, "border_mode": "valid"}),
        ("UpSampling1D", {"length": 2}),
        ("LSTM", {"output_dim": 13, "return_sequences": True}),
        ("TimeDistributedDense", {"output_dim": 3}),
        ("Flatten", {}),
        ("MaxoutDense", {"output_dim": 17}),
    ]
    entries: list[dict[str, Any]] = [
        {"class_name": name, "config": {"name": f"{n}", **config}}
        for n, (name, config) in enumerate(layers)
    ]
    graph = parse({"class_name": "Sequential", "config": entries})
    assert graph is not None
    assert [call.outputs[0] for (call,) in shapes(graph).values()] == [
        (None, 3, 22, 34),
        (None, 5, 10, 16),
        (None, 7, 8, 14),
        (None, 7, 4, 7),
        (None, 4, 7, 7),
        (None, 4, 7, 11),
        None,  # 4 × 7 × 11 are not 35 × 11
        *[None] * 7,
    ]
    entries[6]["config"]["target_shape"] = [28, 11]
    graph = parse({"class_name": "Sequential", "config": entries})
    assert graph is not None
    assert [call.outputs[0] for (call,) in shapes(graph).values()][6:] == [
        (None, 28, 11),
        (None, 13, 2),
        (None, 4, 2),
        (None, 8, 2),
        (None, 8, 13),
        (None, 8, 3),
        (None, 24),
        (None, 17),
    ]


TH = {"dim_ordering": "th"}
STEP = {"subsample": [2, 2], "border_mode": "valid"}
ATROUS = {"atrous_rate": [2, 2], "border_mode": "valid"}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sum", (None, 5, 7)),
        ("concat", (None, 5, 14)),
        ("dot", (None, 5, 5)),
        ("<lambda>", None),
    ],
)
def test_the_merge_of_keras_1_says_what_it_does(mode: str, expected: Shape) -> None:
    config = {"mode": mode, "concat_axis": -1, "dot_axes": -1}
    assert outputs("Merge", config, inputs=[(None, 5, 7), (None, 5, 7)]) == (expected,)


# -------------------------------------------------------------------------- what cannot be inferred


@keras.saving.register_keras_serializable("tests.shapes")
class Halved(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer of a user's own."""

    def call(self, x: Any) -> Any:
        return x[:, ::2]


def test_inference_goes_on_behind_an_unknown_layer_where_keras_wrote_a_shape() -> None:
    x = keras.Input((7, 5))
    y = L.Dense(3, name="dense")(Halved(name="own")(x))
    found = inferred(keras.Model(x, L.Flatten(name="end")(y)))
    assert found["own"] == (Call(((None, 7, 5),), (None,)),)
    assert found["dense"] == (Call(((None, 4, 5),), ((None, 4, 3),)),)
    assert found["end"][0].outputs == ((None, 12),)


def test_a_users_layer_with_a_name_of_keras_is_not_taken_for_it() -> None:
    assert outputs("tests>Flatten", {}, inputs=[(None, 3, 5)]) == (None,)
    assert outputs("Flatten", {}, inputs=[(None, 3, 5)]) == ((None, 15),)


def test_operations_work_element_by_element_or_are_unknown() -> None:
    x = keras.Input((7, 5))
    y = keras.ops.relu(x) + x
    z = keras.ops.mean(y, axis=1)
    found = inferred(keras.Model(x, [y, z]))
    assert [calls[0].outputs for calls in found.values()][1:] == [
        ((None, 7, 5),),
        ((None, 7, 5),),
        (None,),
    ]


SOMETHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
NAMES = sorted(
    {
        *("units", "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate"),
        *("pool_size", "cropping", "size", "target_shape", "dims", "n", "axis", "axes", "layer"),
        *("cell", "equation", "output_shape", "merge_mode", "output_padding", "output_size"),
        *("nb_row", "nb_col", "height", "width", "output_dim", "return_sequences", "mode"),
    }
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(RULES)),
    st.dictionaries(st.sampled_from(NAMES), SOMETHING, max_size=6),
    st.lists(
        st.none() | st.lists(st.none() | st.integers(0, 9), max_size=5).map(tuple), max_size=3
    ),
)
def test_no_configuration_makes_inference_raise(
    name: str, config: dict[str, Any], given_: list[Shape]
) -> None:
    for shape in outputs(name, config, inputs=given_):
        assert shape is None or all(n is None or type(n) is int for n in shape)


# ------------------------------------------------------------------------------------ large models


class Counted:
    """Follows nothing, and counts."""

    unknown = None

    def __init__(self) -> None:
        self.calls = 0

    def layer(self, node: Node, inputs: tuple[None, ...], *, path: str, call: int) -> Call[None]:
        self.calls += 1
        return Call(inputs, (None,))

    def enter(self, value: None) -> None: ...

    def leave(self, value: None) -> None: ...


def test_a_model_of_ten_thousand_layers_is_walked_once() -> None:
    layers = [
        {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 3]}},
        *(
            {"class_name": "Dense", "config": {"name": f"d{n}", "units": n % 7 + 1}}
            for n in range(10_000)
        ),
    ]
    graph = parse({"class_name": "Sequential", "config": {"name": "m", "layers": layers}})
    assert graph is not None
    assert shapes(graph)["d9999"][0].outputs == ((None, 9999 % 7 + 1),)
    counted = Counted()
    walk(graph, (), counted)
    assert counted.calls == 10_001


def test_models_that_call_models_twice_do_not_take_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty models, each calling the next one twice, make 2⁴⁰ calls of the innermost layer."""
    monkeypatch.setattr(module, "MAX_CALLS", 1000)
    model: dict[str, Any] = {"class_name": "ReLU", "name": "r", "config": {"name": "r"}}
    for depth in range(40):
        inner = {**model, "inbound_nodes": [[["i", 0, 0, {}]], [[model["name"], 0, 0, {}]]]}
        config = {
            "name": f"m{depth}",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "name": "i",
                    "config": {"name": "i", "batch_shape": [None, 3]},
                    "inbound_nodes": [],
                },
                inner,
            ],
            "input_layers": [["i", 0, 0]],
            "output_layers": [[model["name"], 1, 0]],
        }
        model = {"class_name": "Functional", "name": f"m{depth}", "config": config}
    graph = parse(model)
    assert graph is not None
    counted = Counted()
    walk(graph, (), counted)
    assert 500 < counted.calls <= 1000


# ------------------------------------------------------------------------------------------ corpus

CORPUS = os.environ.get("KERASPORT_CORPUS", "")


def checks(layer: Layer, call: Call[Shape]) -> Iterator[tuple[int | None, int]]:
    """The channels that go in and come out, as inferred and as the stored kernel has them."""
    o = options(layer.class_name or "", layer.config)
    kind = layer.kind or ""
    (taken, *_), (made, *_) = call.inputs, call.outputs
    if taken is None or made is None or o("layer") is not None:
        return
    if kind == "Dense" or kind in ("LSTM", "GRU", "GRUResetBefore", "SimpleRNN"):
        yield taken[-1], layer.sizes["in"]
        yield made[-1], layer.sizes.get("out", layer.sizes.get("unit", 0))
    elif kind.startswith(("Conv", "Depthwise", "Separable")):
        last = 1 if o.channels_first else -1
        yield taken[last], layer.sizes["in"] * (o("groups", 1) if kind.startswith("Conv") else 1)
        yield made[last], layer.sizes.get("out", layer.sizes["in"] * layer.sizes.get("mult", 0))


@pytest.mark.skipif(not CORPUS, reason="KERASPORT_CORPUS names no corpus")
def test_shapes_in_the_corpus_agree_with_the_stored_kernels() -> None:
    """Files of every Keras there was; a kernel says how many channels go in and come out."""
    files = [
        path
        for path in sorted(Path(CORPUS).rglob("*"))
        if path.suffix in (".h5", ".hdf5", ".keras") and path.stat().st_size < 1 << 28
    ]
    assert files
    checked = 0
    wrong = []
    for path in files:
        try:
            snapshot = read(path)
        except KerasportError:
            continue
        graph = None if snapshot.architecture is None else parse(snapshot.architecture)
        if graph is None:
            continue
        found = shapes(graph, inputs_of(snapshot.architecture))
        for layer in snapshot.layers:
            for call in found.get(layer.path, ()):
                if not call.inputs:
                    continue
                for inferred_, stored in checks(layer, call):
                    checked += 1
                    if inferred_ not in (None, stored):
                        wrong.append(f"{path.name} {layer.path}: {inferred_} is not {stored}")
    assert wrong == []
    assert checked > 100
