"""A layer is what its class or its stored tensors say; where they leave a choice, it is asked.

Shapes are those that Keras's `build` methods give, written out; keys are those of its files:
numbered under attribute paths in Keras 3, names of some year before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import kerasport
from kerasport.errors import UnsupportedError, UsageError
from kerasport.identify import identify
from kerasport.kinds import facets
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.transpose import plan

Shapes = Mapping[str, tuple[int, ...]]


def a_layer(
    shapes: Shapes,
    class_name: str | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    path: str = "it",
) -> Layer:
    """A layer as a reader delivers it."""
    weights = {
        key: Tensor.of(f"{path}/{key}", np.zeros(shape, np.float32), stored=f"{path}/{key}")
        for key, shape in shapes.items()
    }
    return Layer(path, class_name, config or {}, weights)


def known(
    shapes: Shapes, class_name: str | None = None, config: Mapping[str, Any] | None = None
) -> Layer:
    """The layer, identified."""
    layer = a_layer(shapes, class_name, config)
    (found,) = identify(Snapshot(Source("some.h5", "legacy"), (layer,))).layers
    return found


# --------------------------------------------------------------------- kinds inferred from shapes


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("Dense", {"kernel": (3, 5), "bias": (5,)}),
        ("Dense", {"0": (3, 5), "1": (5,)}),
        ("Dense", {"kernel": (5, 5), "bias": (5,)}),
        ("Conv1D", {"kernel": (2, 3, 5), "bias": (5,)}),
        ("Conv1DTranspose", {"kernel": (2, 3, 5), "bias": (3,)}),
        ("Conv2D", {"kernel": (2, 7, 3, 5), "bias": (5,)}),
        ("Conv2DTranspose", {"kernel": (2, 7, 3, 5), "bias": (3,)}),
        ("Conv3D", {"kernel": (2, 7, 11, 3, 5), "bias": (5,)}),
        ("Conv3DTranspose", {"kernel": (2, 7, 11, 3, 5), "bias": (3,)}),
        ("DepthwiseConv2D", {"depthwise_kernel": (2, 7, 3, 5), "bias": (15,)}),
        (
            "SeparableConv2D",
            {"depthwise_kernel": (2, 7, 3, 5), "pointwise_kernel": (1, 1, 15, 11), "bias": (11,)},
        ),
        ("SeparableConv1D", {"depthwise_kernel": (2, 3, 5), "pointwise_kernel": (1, 15, 11)}),
        ("Embedding", {"embeddings": (11, 5)}),
        (
            "BatchNormalization",
            {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)},
        ),
        ("BatchNormalization", {"moving_mean": (3,), "moving_variance": (3,)}),
        ("BatchNormalization", {"beta": (3,), "moving_mean": (3,), "moving_variance": (3,)}),
        ("LSTM", {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (20,)}),
        ("LSTM", {"kernel": (3, 20), "recurrent_kernel": (5, 20)}),
        ("LSTM", {"cell/0": (3, 20), "cell/1": (5, 20), "cell/2": (20,)}),
        ("SimpleRNN", {"kernel": (3, 5), "recurrent_kernel": (5, 5), "bias": (5,)}),
        ("GRU", {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (2, 15)}),
        ("GRUResetBefore", {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (15,)}),
        (
            "BidirectionalLSTM",
            {
                f"{side}_lstm/{name}": shape
                for side in ("forward", "backward")
                for name, shape in (
                    ("kernel", (3, 20)),
                    ("recurrent_kernel", (5, 20)),
                    ("bias", (20,)),
                )
            },
        ),
        (
            "MultiHeadAttention",
            {
                "query/kernel": (7, 2, 3),
                "query/bias": (2, 3),
                "key/kernel": (11, 2, 3),
                "key/bias": (2, 3),
                "value/kernel": (13, 2, 5),
                "value/bias": (2, 5),
                "attention_output/kernel": (2, 5, 17),
                "attention_output/bias": (17,),
            },
        ),
    ],
)
def test_a_kind_is_inferred_where_it_alone_fits(kind: str, shapes: Shapes) -> None:
    layer = known(shapes)
    assert (layer.kind, layer.inferred) == (kind, True)
    assert layer.note == ""
    plain = plan(Snapshot(Source("some.h5", "legacy"), (layer,)), to="torch")
    assert [note.kind for note in plain.notes if note.kind == "inferred"] == ["inferred"]


@pytest.mark.parametrize(
    ("kinds", "shapes"),
    [
        (("Conv1D", "Conv1DTranspose"), {"kernel": (2, 5, 5), "bias": (5,)}),
        (("Conv2D", "Conv2DTranspose"), {"kernel": (3, 3, 5, 5), "bias": (5,)}),
        (("Conv3D", "Conv3DTranspose"), {"kernel": (3, 3, 3, 5, 5), "bias": (5,)}),
        (("Conv2D", "Conv2DTranspose"), {"kernel": (2, 7, 3, 5)}),
        (("GRU", "GRUResetBefore"), {"kernel": (3, 15), "recurrent_kernel": (5, 15)}),
        (("LayerNormalization", "GroupNormalization"), {"gamma": (3,), "beta": (3,)}),
        (("Dense", "Embedding", "PReLU2D"), {"0": (3, 5)}),
    ],
)
def test_where_several_kinds_fit_the_note_lists_them_and_says_how_to_settle_it(
    kinds: tuple[str, ...], shapes: Shapes
) -> None:
    layer = known(shapes)
    assert (layer.kind, layer.inferred) == (None, False)
    for kind in kinds:
        assert kind in layer.note
    assert "names no class" in layer.note
    assert "--kind 'it=" in layer.note
    assert "--config" in layer.note
    with pytest.raises(UnsupportedError) as caught:
        plan(Snapshot(Source("some.h5", "legacy"), (layer,)), to="torch").refuse_losses()
    assert layer.note in str(caught.value)


@pytest.mark.parametrize(
    "shapes",
    [
        {"kernel": (3, 5), "bias": (7,)},
        {"kernel": (3, 20), "recurrent_kernel": (5, 21), "bias": (20,)},
        {"kernel": (3, 25), "recurrent_kernel": (5, 25), "bias": (25,)},
        {"weight": (3, 5)},
        {"kernel": (3, 5), "bias": (5,), "extra": (5,)},
        {"depthwise_kernel": (2, 7, 3, 5), "bias": (5,)},
        # A recurrent layer without gates is no more than this, but stores it in its cell.
        {"0": (5, 5), "1": (5, 5), "2": (5,)},
    ],
)
def test_where_no_kind_fits_nothing_is_guessed(shapes: Shapes) -> None:
    """The twin of inference: one number or name off, and no kind is right."""
    layer = known(shapes)
    assert (layer.kind, layer.inferred) == (None, False)
    assert layer.note == "no kind in the tables fits the stored tensors"


def test_a_name_decides_nothing() -> None:
    """A layer called conv2d may be anything; the note may offer it first, no more."""
    shapes = {"kernel": (3, 3, 5, 5), "bias": (5,)}
    for path in ("conv2d_transpose_1", "conv2d"):
        layer = a_layer(shapes, path=path)
        (found,) = identify(Snapshot(Source("some.h5", "legacy"), (layer,))).layers
        assert found.kind is None


@pytest.mark.parametrize(
    ("path", "shapes", "offered"),
    [
        ("conv2d", {"kernel": (3, 3, 5, 5), "bias": (5,)}, "Conv2D"),
        ("conv2d_transpose_1", {"kernel": (3, 3, 5, 5), "bias": (5,)}, "Conv2DTranspose"),
        ("block/layernorm1", {"0": (5,), "1": (5,)}, "LayerNormalization"),
        ("encoder/pos_emb", {"0": (7, 5)}, "Embedding"),
        ("projection", {"0": (7, 5)}, "Dense"),
    ],
)
def test_the_answer_that_the_path_speaks_of_is_offered_first(
    path: str, shapes: Shapes, offered: str
) -> None:
    layer = a_layer(shapes, path=path)
    (found,) = identify(Snapshot(Source("some.h5", "legacy"), (layer,))).layers
    assert f"--kind '{path}={offered}'" in found.note


# ------------------------------------------------------------------------------ --kind: the answer


def ask(kinds: Mapping[str, str]) -> Snapshot:
    """Three convolutions whose kind the file leaves open, and one layer of a known class."""
    square = {"kernel": (3, 3, 5, 5), "bias": (5,)}
    paths = ("block1_conv", "block2_conv", "up")
    layers = [a_layer(square, path=path) for path in paths]
    layers.append(a_layer({"0": (3, 5), "1": (5,)}, "Dense", path="head"))
    return identify(Snapshot(Source("some.h5", "legacy"), tuple(layers)), kinds)


def test_a_pattern_names_the_kind_of_the_layers_that_it_fits() -> None:
    found = ask({"block*_conv": "Conv2D", "up": "Conv2DTranspose"})
    kinds = {path: layer.kind for path, layer in found.items()}
    assert kinds == {
        "block1_conv": "Conv2D",
        "block2_conv": "Conv2D",
        "up": "Conv2DTranspose",
        "head": "Dense",
    }
    assert not any(layer.inferred for layer in found.values())


def test_a_pattern_leaves_other_layers_open() -> None:
    """The twin: without an answer the question stays."""
    found = ask({"block1*": "Conv2D"})
    assert [layer.kind for layer in found.values()] == ["Conv2D", None, None, "Dense"]


def test_the_first_pattern_that_fits_counts() -> None:
    found = ask({"block1_conv": "Conv2DTranspose", "*_conv": "Conv2D"})
    assert [layer.kind for layer in found.values()][:2] == ["Conv2DTranspose", "Conv2D"]


def test_a_pattern_may_name_a_class() -> None:
    """People know classes, `Convolution2D` of Keras 1 among them, not our kinds."""
    assert ask({"up": "Convolution2D"})["up"].kind == "Conv2D"


def test_a_kind_that_does_not_fit_is_refused_with_the_reason() -> None:
    found = ask({"up": "Dense"})["up"]
    assert found.kind is None
    assert found.note == (
        "the stored tensors (kernel f32[3,3,5,5], bias f32[5]) do not fit; Dense: kernel: layout "
        "'in out' does not fit shape [3,3,5,5]: expected 2 axes, found 4 (bound so far: nothing)"
    )


def test_a_pattern_without_a_layer_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        ask({"black*": "Conv2D"})
    assert str(caught.value) == (
        "--kind black*=Conv2D: no layer has such a path. See: kerasport inspect"
    )


@pytest.mark.parametrize(
    ("kind", "near"),
    [
        ("Conv2d", "Conv2D, Conv3D, Conv1D"),
        ("LSTMM", "LSTM, LSTMCell, "),
        ("Convolution2DTransposed", "Convolution2DTranspose, "),
        ("?", "Dense, Conv2D, LSTM; Bidirectional(LSTM) says what a wrapper holds"),
        ("Bidirectional(Foo)", "Bidirectional, "),
        ("Dense(LSTM)", ""),
        ("Bidirectional(LSTM", ""),
        ("Bidirectional(LSTM))", ""),
        ("(" * 9999, ""),
    ],
)
def test_a_kind_that_does_not_exist_is_refused_with_the_nearest(kind: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask({"up": kind})
    told = f"--kind up={kind}: expected the class or kind of a layer, such as {near}"
    assert str(caught.value).startswith(told)
    assert len(str(caught.value)) < len(kind) + 200


def _asked(layer: Any, tmp_path: Path, kind: str, shape: tuple[int, ...] = (7, 3)) -> list[Any]:
    """A layer in a file of weights, as it is with an answer, and with the architecture."""
    model = keras.Sequential([keras.Input(shape), layer])
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.json").write_text(model.to_json())
    told = kerasport.read(tmp_path / "m.weights.h5", kinds={layer.name: kind})
    known = kerasport.read(tmp_path / "m.weights.h5", config=tmp_path / "m.json")
    return [told, known]


def _same_kinds(told: Snapshot, known: Snapshot) -> None:
    """The same kinds, roles and sentences; and the bytes that these say."""
    assert [layer.kind for layer in told.layers] == [layer.kind for layer in known.layers]
    assert None not in {layer.kind for layer in told.layers}
    for one, other in zip(told.tensors, known.tensors, strict=True):
        assert (one.role, str(one.layout), one.at) == (other.role, str(other.layout), other.at)
        np.testing.assert_array_equal(one.numpy(), other.numpy())


GRU_BEFORE = {"reset_after": False}
RECURRENT: list[tuple[str, Any, list[str]]] = [
    ("GRU", L.GRU(5, name="it"), ["GRU"]),
    ("GRU", L.GRU(5, **GRU_BEFORE, name="it"), ["GRU", "GRUResetBefore"]),
    ("GRU", L.GRU(5, use_bias=False, name="it"), ["GRU"]),
    ("LSTM", L.LSTM(5, name="it"), ["LSTM"]),
    ("SimpleRNN", L.SimpleRNN(5, name="it"), ["SimpleRNN"]),
]


@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize(("name", "layer", "kinds"), RECURRENT)
def test_a_class_is_the_one_of_its_kinds_that_fits(
    name: str, layer: Any, kinds: list[str], both: bool, tmp_path: Path
) -> None:
    layer = type(layer).from_config(layer.get_config())
    names = kinds
    if both:
        layer = L.Bidirectional(layer, name="it")
        names = [f"Bidirectional{kinds[-1]}"]
        if layer.forward_layer.use_bias:
            names += [f"Bidirectional({name})", "Bidirectional"]
    for wanted in names:
        _same_kinds(*_asked(layer, tmp_path, wanted))


WRAPPED: list[tuple[str, Any, tuple[int, ...]]] = [
    ("RNN", lambda: L.RNN(L.LSTMCell(5), name="it"), (7, 3)),
    ("RNN(GRUCell)", lambda: L.RNN(L.GRUCell(5, **GRU_BEFORE), name="it"), (7, 3)),
    ("TimeDistributed(Dense)", lambda: L.TimeDistributed(L.Dense(5), name="it"), (7, 3)),
    (
        "TimeDistributed(Bidirectional(LSTM))",
        lambda: L.TimeDistributed(L.Bidirectional(L.LSTM(5)), name="it"),
        (4, 7, 3),
    ),
    ("Bidirectional", lambda: L.Bidirectional(L.ConvLSTM1D(5, 3), name="it"), (4, 8, 3)),
    (
        "SpectralNormalization(Conv2D)",
        lambda: L.SpectralNormalization(L.Conv2D(5, 3), name="it"),
        (8, 8, 3),
    ),
]


@pytest.mark.parametrize(("kind", "make", "shape"), WRAPPED)
def test_a_wrapper_is_named_with_what_it_holds(
    kind: str, make: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    _same_kinds(*_asked(make(), tmp_path, kind, shape))


def test_a_layer_normalized_along_several_axes_is_named_by_its_class(tmp_path: Path) -> None:
    layer = L.LayerNormalization(axis=[1, 2], name="it")
    _same_kinds(*_asked(layer, tmp_path, "LayerNormalization"))


def test_a_wrapper_by_itself_asks_what_it_holds(tmp_path: Path) -> None:
    told, _ = _asked(L.TimeDistributed(L.Dense(5), name="it"), tmp_path, "TimeDistributed")
    assert (told["it"].kind, told["it"].note) == (
        None,
        "TimeDistributed stores its layer's weights: say what it holds, such as --kind "
        "'it=TimeDistributed(Dense)'",
    )


def test_a_class_that_fits_in_two_kinds_is_asked_for_again(tmp_path: Path) -> None:
    """Without biases, nothing stored shows where the reset gate is."""
    layer = L.Bidirectional(L.GRU(5, use_bias=False), name="it")
    told, _ = _asked(layer, tmp_path, "Bidirectional(GRU)")
    assert (told["it"].kind, told["it"].note) == (
        None,
        "the stored tensors fit several kinds of Bidirectional(GRU): BidirectionalGRU, "
        "BidirectionalGRUResetBefore; say which with --kind 'it=BidirectionalGRU'",
    )


def test_a_class_of_which_no_kind_fits_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The twin: an LSTM is no GRU in either way."""
    told, _ = _asked(L.LSTM(5, name="it"), tmp_path, "GRU")
    assert told["it"].kind is None
    assert "do not fit; GRU: " in told["it"].note


# -------------------------------------------------------------------------------- classes by name


@pytest.mark.parametrize("shapes", [{"0": (3, 5), "1": (5,)}, {"kernel": (3, 5), "bias": (5,)}])
def test_a_known_class_gives_roles_to_numbers_and_names(shapes: Shapes) -> None:
    layer = known(shapes, "Dense", {"use_bias": True})
    assert (layer.kind, layer.inferred) == ("Dense", False)
    assert list(layer.weights) == ["kernel", "bias"]
    assert str(layer.weights["kernel"].layout) == "in out"
    assert layer.weights["kernel"].name == "it/kernel"
    assert layer.sizes == {"in": 3, "out": 5}


def test_an_unknown_class_is_kept_with_its_reason() -> None:
    layer = known({"0": (3, 5)}, "Foo")
    assert (layer.kind, layer.note) == (None, "the class Foo is in no table")
    assert list(layer.weights) == ["0"]
    snapshot = Snapshot(Source("some.keras", "keras"), (layer,))
    assert plan(snapshot, to="keras").problems == ()
    with pytest.raises(UnsupportedError) as caught:
        plan(snapshot, to="onnx").refuse_losses()
    told, _, advice = str(caught.value).partition("\n\n")
    assert told == (
        "some.keras cannot be written as onnx without loss:\n"
        "  it: the class Foo is in no table (stored: 0 f32[3,5])"
    )
    assert "[Foo.keras]" in advice


def test_all_that_is_unknown_is_reported_at_once() -> None:
    layers = [a_layer({"0": (3,)}, name, path=path) for path, name in (("b", "Foo"), ("a", "Bar"))]
    snapshot = identify(Snapshot(Source("some.keras", "keras"), tuple(layers)))
    assert [p.partition(":")[0] for p in plan(snapshot, to="torch").problems] == ["a", "b"]


@pytest.mark.parametrize(
    ("class_name", "shapes", "reason"),
    [
        ("Dense", {"0": (2, 7, 3, 5), "1": (5,)}, "Dense: kernel: layout 'in out' does not fit"),
        ("Dense", {"0": (3, 5), "1": (7,)}, "Dense: bias: layout 'out' does not fit shape [7]"),
        ("Dense", {"0": (3, 5), "1": (5,), "2": (5,)}, "Dense: expected kernel, bias"),
        ("LSTM", {"0": (3, 20), "1": (5, 20)}, "LSTM: expected kernel, recurrent_kernel, bias"),
        ("LSTM", {"cell/0": (3, 20), "cell/1": (7, 20), "cell/2": (20,)}, "LSTM: expected hidden"),
        ("LSTM", {"cell/0": (3, 21), "cell/1": (5, 21), "cell/2": (21,)}, "no possible extent"),
    ],
)
def test_a_known_class_with_other_tensors_says_what_does_not_fit(
    class_name: str, shapes: Shapes, reason: str
) -> None:
    layer = known(shapes, class_name)
    assert layer.kind is None
    assert reason in layer.note
    assert layer.weights.keys() == shapes.keys()


@pytest.mark.parametrize("class_name", ["EinsumDense", "TimeDistributed", "Bidirectional", "RNN"])
def test_a_class_whose_configuration_is_missing_says_so(class_name: str) -> None:
    """Two axes can be anything; only an equation, or the layer inside, says what they are."""
    layer = known({"0": (3, 5)}, class_name, {})
    assert layer.kind is None
    assert layer.note == (f"the configuration of this {class_name} does not say which kind it is")
    assert known({"0": (3, 5)}, "EinsumDense", {"equation": "ab,bc->ac"}).kind == "EinsumDense"


# -------------------------------------------------------------------- options that are not there


VECTORS = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("numbered", [True, False])
def test_a_batch_normalization_has_what_its_options_say(
    scale: bool, center: bool, numbered: bool
) -> None:
    """Gamma and beta have one shape: swapped, nothing would complain."""
    present = [v for v, on in zip(VECTORS, (scale, center, True, True), strict=True) if on]
    shapes = {str(n) if numbered else v: (3,) for n, v in enumerate(present)}
    layer = known(shapes, "BatchNormalization", {"scale": scale, "center": center})
    assert list(layer.weights) == present
    assert [t.trainable for t in layer.weights.values()][-2:] == [False, False]


def test_names_stand_in_for_options() -> None:
    shapes = {"beta": (3,), "moving_mean": (3,), "moving_variance": (3,)}
    assert list(known(shapes, "BatchNormalization").weights) == list(shapes)


@pytest.mark.parametrize(
    ("class_name", "shapes", "roles"),
    [
        ("Dense", {"0": (3, 5)}, ["kernel"]),
        ("BatchNormalization", {"0": (3,), "1": (3,)}, ["moving_mean", "moving_variance"]),
        ("LSTM", {"cell/0": (3, 20), "cell/1": (5, 20)}, ["kernel", "recurrent_kernel"]),
    ],
)
def test_without_options_the_number_of_tensors_decides(
    class_name: str, shapes: Shapes, roles: list[str]
) -> None:
    """Configurations of old files, and `--kind`, say nothing of `use_bias`."""
    layer = known(shapes, class_name, {})
    assert layer.kind is not None
    assert list(layer.weights) == roles


@pytest.mark.parametrize("class_name", ["BatchNormalization", "LayerNormalization", None])
def test_gamma_is_not_told_from_beta_by_guessing(class_name: str | None) -> None:
    """Three numbered vectors are gamma or beta and two statistics; either would load."""
    count = 1 if class_name == "LayerNormalization" else 3
    layer = known({str(n): (3,) for n in range(count)}, class_name)
    assert layer.kind is None
    assert not layer.inferred
    if class_name:
        rest = "" if count == 1 else ", moving_mean, moving_variance"
        assert layer.note == (
            f"the stored tensors fit {class_name} with gamma{rest} as beta{rest}; give the "
            "architecture with --config"
        )


def test_a_gru_keeps_other_biases_with_reset_after() -> None:
    after = {"cell/0": (3, 15), "cell/1": (5, 15), "cell/2": (2, 15)}
    before = {**after, "cell/2": (15,)}
    assert known(after, "GRU", {"reset_after": True}).kind == "GRU"
    assert known(before, "GRU", {"reset_after": False}).kind == "GRUResetBefore"
    assert known(after, "GRU", {"reset_after": False}).kind is None
    assert known(before, "GRU", {"reset_after": True}).kind is None


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_the_rank_of_its_slope_says_which_prelu_it_is(rank: int) -> None:
    assert known({"0": (7, 5, 3, 2)[:rank]}, "PReLU", {}).kind == f"PReLU{rank}D"


# ---------------------------------------------------------------------------------------- wrappers


def wrapped(name: str, inner: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "class_name": name,
        "config": {"layer": {"class_name": inner, "config": dict(config or {})}},
    }


def test_a_wrapper_is_of_the_kind_of_what_it_wraps() -> None:
    (found,) = facets("TimeDistributed", wrapped("", "Dense", {"use_bias": False})["config"])
    assert found is not None
    assert (found.kinds, found.child, found.config) == (("Dense",), "layer", {"use_bias": False})


def test_a_wrapper_in_a_wrapper_is_followed() -> None:
    inner = wrapped("TimeDistributed", "Conv2D")
    (found,) = facets("TimeDistributed", {"layer": inner})
    assert found is not None
    assert (found.kinds, found.child) == (("Conv2D",), "layer/layer")


def test_a_bidirectional_layer_is_two_of_its_kind() -> None:
    (found,) = facets("Bidirectional", wrapped("", "GRU", {"reset_after": True})["config"])
    assert found is not None
    assert found.kinds == ("BidirectionalGRU",)


@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        ("Bidirectional", wrapped("", "Dense")["config"]),
        ("Bidirectional", {}),
        ("TimeDistributed", {"layer": "Dense"}),
        ("TimeDistributed", {"layer": {"class_name": ["Dense"], "config": {}}}),
        ("TimeDistributed", wrapped("", "Foo")["config"]),
        ("RNN", {"cell": None}),
        ("Foo", {}),
    ],
)
def test_a_wrapper_of_what_is_not_known_is_not_known(
    class_name: str, config: Mapping[str, Any]
) -> None:
    """Configurations come from strangers: anything may stand where a layer should."""
    assert facets(class_name, config) == ()


def test_an_rnn_around_a_cell_is_the_layer_of_that_cell() -> None:
    config = {"cell": {"class_name": "LSTMCell", "config": {"units": 5, "use_bias": False}}}
    layer = known({"cell/0": (3, 20), "cell/1": (5, 20)}, "RNN", config)
    assert layer.kind == "LSTM"


@pytest.mark.parametrize("prefix", ["layer/", ""])
def test_wrapped_tensors_are_found_below_the_wrapper(prefix: str) -> None:
    """Keras 3 files have the attribute path, older ones have names alone."""
    keys = ("0", "1") if prefix else ("kernel", "bias")
    shapes = {f"{prefix}{keys[0]}": (3, 5), f"{prefix}{keys[1]}": (5,)}
    layer = known(shapes, "TimeDistributed", wrapped("", "Dense", {"use_bias": True})["config"])
    assert layer.kind == "Dense"
    assert list(layer.weights) == ["kernel", "bias"]


def test_both_directions_are_told_apart() -> None:
    """Swapped, every shape would fit."""
    keys = [f"{side}_layer/cell/{n}" for side in ("forward", "backward") for n in range(3)]
    shapes = dict(zip(keys, [(3, 20), (5, 20), (20,)] * 2, strict=True))
    layer = known(shapes, "Bidirectional", wrapped("", "LSTM", {"use_bias": True})["config"])
    assert layer.kind == "BidirectionalLSTM"
    stored = {role: tensor.stored for role, tensor in layer.weights.items()}
    assert stored["forward/kernel"] == "it/forward_layer/cell/0"
    assert stored["backward/bias"] == "it/backward_layer/cell/2"
    assert layer.weights["backward/bias"].at == {"backward", "input"}


# --------------------------------------------------------------------------------------- einsum


@pytest.mark.parametrize(
    ("equation", "bias_axes", "kind", "kernel"),
    [
        ("abc,cd->abd", "d", "EinsumDense", "in_c out_d"),
        ("abc,cde->abde", "de", "EinsumDense", "in_c out_d out_e"),
        ("abcd,cde->abe", None, "EinsumDense", "in_c in_d out_e"),
        ("...x,xy->...y", "y", "EinsumDense", "in_x out_y"),
        ("abc,bcd->abd", "d", "EinsumDenseBatched", "batch_b in_c out_d"),
        ("abc,cde->abde", "e", "EinsumDenseBatched", "in_c out_d out_e"),
    ],
)
def test_the_equation_names_the_axes(
    equation: str, bias_axes: str | None, kind: str, kernel: str
) -> None:
    (found,) = facets("EinsumDense", {"equation": equation, "bias_axes": bias_axes})
    assert found is not None
    assert found.kinds == (kind,)
    assert found.axes["kernel"] == kernel


@pytest.mark.parametrize("equation", ["", "ab", "ab,bc", "ab->ba", "a,b,c->abc", "->", None, 5])
def test_what_is_no_equation_of_two_operands_is_not_known(equation: object) -> None:
    assert facets("EinsumDense", {"equation": equation}) == ()


# ------------------------------------------------------------------ kinds of few files, and parts


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("CuDNNLSTM", {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (40,)}),
        ("CuDNNGRU", {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (30,)}),
        (
            "BidirectionalCuDNNLSTM",
            {
                f"{side}_lstm/{name}": shape
                for side in ("forward", "backward")
                for name, shape in (
                    ("kernel", (3, 20)),
                    ("recurrent_kernel", (5, 20)),
                    ("bias", (40,)),
                )
            },
        ),
        ("ConvLSTM1D", {"kernel": (2, 3, 20), "recurrent_kernel": (2, 5, 20), "bias": (20,)}),
        ("ConvLSTM2D", {"cell/0": (2, 7, 3, 20), "cell/1": (2, 7, 5, 20), "cell/2": (20,)}),
        ("MaxoutDense", {"W": (7, 3, 5), "b": (7, 5)}),
        ("Normalization", {"mean": (3,), "variance": (3,), "count": ()}),
    ],
)
def test_a_rare_kind_is_inferred_where_it_alone_fits(kind: str, shapes: Shapes) -> None:
    """A bias of twice the length is cuDNN's, and its matrices lie otherwise than Keras's."""
    layer = known(shapes)
    assert (layer.kind, layer.inferred) == (kind, True)


@pytest.mark.parametrize(
    "shapes", [{"0": (7, 3, 5), "1": (7, 5)}, {"0": (1, 5)}, {"0": (2, 1, 5), "1": (2, 1, 5)}]
)
def test_numbers_alone_are_never_a_kind_of_few_files(shapes: Shapes) -> None:
    """The twin: without names, the same arrays may be anything of a user's own."""
    assert known(shapes).kind is None


def attention(heads: int, groups: int) -> Shapes:
    return {
        "query/kernel": (7, heads, 3),
        "key/kernel": (7, groups, 3),
        "value/kernel": (7, groups, 3),
        "attention_output/kernel": (heads, 3, 7),
    }


def test_of_two_kinds_that_do_the_same_the_special_one_is_taken() -> None:
    """Grouped attention with a group a head is attention; a file names neither."""
    assert known(attention(4, 4)).kind == "MultiHeadAttention"
    assert known(attention(4, 2)).kind == "GroupedQueryAttention"


SPECTRAL = {"layer": {"class_name": "Dense", "config": {"name": "inside", "use_bias": True}}}


def spectral(twin: float) -> Snapshot:
    """A Dense whose kernel is stored twice, the second time plus `twin`."""
    kernel = np.arange(15, dtype=np.float32).reshape(3, 5)
    arrays = {
        "layer/0": kernel,
        "layer/1": np.zeros(5, np.float32),
        "0": kernel + np.float32(twin),
        "1": np.zeros((1, 5), np.float32),
    }
    weights = {key: Tensor.of(f"it/{key}", array) for key, array in arrays.items()}
    layer = Layer("it", "SpectralNormalization", SPECTRAL, weights)
    return identify(Snapshot(Source("some.keras", "keras"), (layer,)))


def test_a_weight_that_is_stored_twice_is_taken_once() -> None:
    """Keras 3 stores the kernel with the wrapper and with the layer inside."""
    found = spectral(0)
    assert {path: layer.kind for path, layer in found.items()} == {
        "it/layer": "Dense",
        "it": "SpectralNormalization",
    }
    assert list(found["it"].weights) == ["vector_u"]
    assert [str(omission) for omission in found.omitted] == ["it/0: shared with it/layer/0"]


def test_what_differs_is_no_repetition() -> None:
    """The twin: one value off, and dropping it would lose a weight."""
    found = spectral(1)
    assert found.omitted == ()
    assert found["it"].kind is None
    assert list(found["it"].weights) == ["0", "1"]


def test_a_spectral_layer_of_an_older_file_is_told_apart_by_names() -> None:
    shapes = {"inside/kernel": (3, 5), "inside/bias": (5,), "vector_u": (1, 5)}
    layer = a_layer(shapes, "SpectralNormalization", SPECTRAL)
    found = identify(Snapshot(Source("some.h5", "legacy"), (layer,)))
    assert {path: list(layer.weights) for path, layer in found.items()} == {
        "it/layer": ["kernel", "bias"],
        "it": ["vector_u"],
    }


UNLIKE = {
    "layer": {"class_name": "LSTM", "config": {"name": "forward_lstm"}},
    "backward_layer": {"class_name": "GRU", "config": {"name": "gru", "reset_after": True}},
}


@pytest.mark.parametrize("back", ["gru", "backward_gru"])
def test_unlike_directions_are_two_layers(back: str) -> None:
    """Keras 3 leaves a layer that was given for the way back its own name."""
    shapes = {
        "forward_lstm/kernel": (3, 20),
        "forward_lstm/recurrent_kernel": (5, 20),
        "forward_lstm/bias": (20,),
        f"{back}/kernel": (3, 21),
        f"{back}/recurrent_kernel": (7, 21),
        f"{back}/bias": (2, 21),
    }
    layer = a_layer(shapes, "Bidirectional", UNLIKE)
    found = identify(Snapshot(Source("some.h5", "legacy"), (layer,)))
    assert {path: layer.kind for path, layer in found.items()} == {
        "it/forward_layer": "LSTM",
        "it/backward_layer": "GRU",
    }


def test_a_tensor_of_no_part_leaves_the_layer_unrecognised() -> None:
    layer = known({"somewhere/kernel": (3, 20)}, "Bidirectional", UNLIKE)
    assert layer.kind is None
    assert layer.note == "a tensor belongs to no part of this Bidirectional"


@pytest.mark.parametrize(
    ("order", "layout"),
    [("channels_first", "channel height width"), ("channels_last", "height width channel")],
)
def test_slopes_lie_as_the_images_of_the_model_do(order: str, layout: str) -> None:
    """PReLU has no `data_format` of its own; the convolutions around it have."""
    slopes = a_layer({"0": (7, 5, 3)}, "PReLU", {"shared_axes": None}, path="slopes")
    conv = a_layer({"0": (2, 2, 3, 7)}, "Conv2D", {"data_format": order, "use_bias": False})
    found = identify(Snapshot(Source("some.keras", "keras"), (conv, slopes)))
    assert str(found["slopes"].weights["alpha"].layout) == layout
    assert found["slopes"].config == {"shared_axes": None}


def test_a_bias_behind_an_ellipsis_has_a_dimension_for_each_axis_of_it() -> None:
    config = {"equation": "ab...,bc->ac...", "bias_axes": "c"}
    layer = known({"0": (3, 5), "1": (5, 1, 1)}, "EinsumDense", config)
    assert str(layer.weights["bias"].layout) == "out_c 1 1"
    assert known({"0": (3, 5), "1": (7, 1, 1)}, "EinsumDense", config).kind is None


@pytest.mark.parametrize("gate", [True, False])
def test_a_gate_is_one_more_projection(gate: bool) -> None:
    shapes = {
        "query_dense/0": (7, 2, 3),
        "key_dense/0": (7, 2, 3),
        "value_dense/0": (7, 2, 3),
        "output_dense/0": (2, 3, 7),
        **({"_gate_dense/0": (7, 2, 3)} if gate else {}),
    }
    config = {"use_bias": False, "use_gate": gate}
    layer = known(shapes, "MultiHeadAttention", config)
    assert layer.kind == ("GatedMultiHeadAttention" if gate else "MultiHeadAttention")
    other = a_layer(shapes, "MultiHeadAttention", {**config, "use_gate": not gate})
    kinds = {x.kind for x in identify(Snapshot(Source("x.keras", "keras"), (other,))).layers}
    assert kinds.isdisjoint({"GatedMultiHeadAttention", "MultiHeadAttention"})


STACK: Mapping[str, Shapes] = {
    "lstm_cell": {"kernel": (5, 16), "recurrent_kernel": (4, 16), "bias": (16,)},
    "gru_cell": {"kernel": (4, 9), "recurrent_kernel": (3, 9), "bias": (2, 9)},
    "simple_rnn_cell": {"kernel": (3, 2), "recurrent_kernel": (2, 2), "bias": (2,)},
}


def stacked(around: str, *, numbered: bool, **more: Shapes) -> Snapshot:
    """A layer that stacks cells, as Keras 3 stores it by number and others by name."""
    shapes = {
        f"{around}/{cell}/{place if numbered else name}": shape
        for cell, weights in {**STACK, **more}.items()
        for place, (name, shape) in enumerate(weights.items())
    }
    return identify(Snapshot(Source("some.h5", "legacy"), (a_layer(shapes, path="rnn"),)))


@pytest.mark.parametrize(
    ("around", "numbered"), [("cell/cells", True), ("stacked_rnn_cells", False)]
)
def test_stacked_cells_are_inferred_one_by_one(around: str, numbered: bool) -> None:
    """The attributes are those of `keras.layers.RNN.cell` and `StackedRNNCells.cells`."""
    layers = stacked(around, numbered=numbered).layers
    assert {layer.path: layer.kind for layer in layers} == {
        "rnn/lstm_cell": "LSTMCell",
        "rnn/gru_cell": "GRUCell",
        "rnn/simple_rnn_cell": "SimpleRNNCell",
    }
    assert all(layer.inferred for layer in layers)


def test_a_stack_with_a_cell_that_nothing_fits_stays_one_unknown_layer() -> None:
    for odd in ({"kernel": (2, 7, 3)}, {"kernel": (7, 3), "bias": (3,)}):
        (layer,) = stacked("stacked_rnn_cells", numbered=False, odd=odd).layers
        assert (layer.path, layer.kind) == ("rnn", None)
    (layer,) = stacked("elsewhere", numbered=True).layers
    assert layer.kind is None
