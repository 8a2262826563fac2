"""A module that is built from the hints alone puts out what Keras does.

The references below see the exported tensors and the hints, and never the Keras layer: what the
hints leave out, they cannot know. And every hint is tried by ignoring it: the output must change
exactly where the hint says that it does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from kerasport import conventions
from kerasport.api import read
from kerasport.hints import HINTS, KINDS, TABLE, hints
from kerasport.identify import identify
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.transpose import plan
from kerasport.variants import plain

L = keras.layers
Array = npt.NDArray[Any]
Values = Mapping[str, Any]
Weights = Mapping[str, torch.Tensor]
Reference = Callable[[torch.Tensor, Weights, Values], torch.Tensor]
TOLERANCE = 1e-5  # float32 sums of some hundred terms, relative to the largest output


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


def activated(x: torch.Tensor, activation: Any, slope: float | None = None) -> torch.Tensor:
    match activation:
        case "hard_sigmoid":
            assert slope is not None
            return torch.clamp(slope * x + 0.5, 0, 1)
        case {"name": "LeakyReLU", "negative_slope": factor}:
            return F.leaky_relu(x, factor)
        case "linear":
            return x
    known = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
    known["softmax"] = lambda x: torch.softmax(x, -1)
    return known[activation](x)


def sides(pairs: Sequence[Sequence[int]]) -> list[int]:
    """As F.pad takes them: the last dimension first."""
    return [n for pair in reversed(pairs) for n in pair]


# ------------------------------------------------------------------------------------- references


def dense(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    return activated(F.linear(x, w["weight"], w.get("bias")), h["activation"])


def conv(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    for _ in range(h["time_distributed"]):
        return torch.stack([conv(s, w, {**h, "time_distributed": 0}) for s in x.unbind(1)], 1)
    own = {name.removeprefix("depthwise."): tensor for name, tensor in w.items()}
    apply = (F.conv1d, F.conv2d, F.conv3d)[own["weight"].ndim - 3]
    y = apply(
        F.pad(channels_first(x), sides(h["padding"])),
        own["weight"],
        own.get("bias"),
        stride=h["strides"],
        dilation=h["dilation"],
        groups=h["groups"],
    )
    if "pointwise.weight" in w:
        y = apply(y, w["pointwise.weight"], w.get("pointwise.bias"))
    return activated(channels_last(y), h["activation"], h.get("hard_sigmoid_slope"))


def conv_transpose(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    apply = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[w["weight"].ndim - 3]
    y = apply(
        channels_first(x),
        w["weight"],
        w.get("bias"),
        stride=h["strides"],
        dilation=h["dilation"],
        output_padding=h["output_padding"],
    )
    y = F.pad(y, [-n for n in sides(h["cropping"])])
    return activated(channels_last(y), h["activation"])


def batch_norm(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    axis = h["axis"] if isinstance(h["axis"], int) else h["axis"][0]
    y = F.batch_norm(
        x.movedim(axis, 1),
        w["running_mean"],
        w["running_var"],
        w.get("weight"),
        w.get("bias"),
        momentum=h["momentum"],
        eps=h["epsilon"],
    )
    return y.movedim(1, axis)


def layer_norm(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    axes = [h["axis"]] if isinstance(h["axis"], int) else h["axis"]
    last = list(range(-len(axes), 0))
    y = x.movedim(axes, last)
    y = F.layer_norm(y, y.shape[-len(axes) :], w.get("weight"), w.get("bias"), h["epsilon"])
    return y.movedim(last, axes)


def group_norm(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    y = F.group_norm(
        x.movedim(h["axis"], 1), h["groups"], w.get("weight"), w.get("bias"), h["epsilon"]
    )
    return y.movedim(1, h["axis"])


def embedding(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    return F.embedding(x.long(), w["weight"])


def recurrent(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    """Step by step, with whatever activations there are."""
    one = steps(x, w, h, "")
    if not h["bidirectional"]:
        return one if h["return_sequences"] else one[:, -1]
    two = steps(x.flip(1), w, h, "_reverse")
    one, two = (one, two.flip(1)) if h["return_sequences"] else (one[:, -1], two[:, -1])
    match h["merge_mode"]:
        case "concat":
            return torch.cat([one, two], -1)
        case "ave":
            return (one + two) / 2
        case "mul":
            return one * two
        case "sum":
            return one + two
    raise AssertionError


def steps(x: torch.Tensor, w: Weights, h: Values, suffix: str) -> torch.Tensor:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    ih, hh, *biases = (w.get(f"{name}{suffix}") for name in names)
    assert ih is not None
    assert hh is not None
    b_ih, b_hh = (torch.zeros(ih.shape[0]) if b is None else b for b in biases)
    if h["go_backwards"]:
        x = x.flip(1)
    state = cell = torch.zeros(x.shape[0], hh.shape[1])
    kind = ih.shape[0] // hh.shape[1]

    def gate(x: torch.Tensor) -> torch.Tensor:
        return activated(x, h["recurrent_activation"], h.get("hard_sigmoid_slope"))

    made = []
    for step in x.unbind(1):
        a, b = step @ ih.T + b_ih, state @ hh.T + b_hh
        if kind == 1:
            state = activated(a + b, h["activation"])
        elif kind == 3:
            (r_a, z_a, n_a), (r_b, z_b, n_b) = a.chunk(3, -1), b.chunk(3, -1)
            new = activated(n_a + gate(r_a + r_b) * n_b, h["activation"])
            update = gate(z_a + z_b)
            state = (1 - update) * new + update * state
        else:
            i, f, g, o = (a + b).chunk(4, -1)
            cell = gate(f) * cell + gate(i) * activated(g, h["activation"])
            state = gate(o) * activated(cell, h["activation"])
        made.append(state)
    return torch.stack(made, 1)


def attention(x: torch.Tensor, w: Weights, h: Values) -> torch.Tensor:
    heads, key, value = h["num_heads"], h["key_dim"], h["value_dim"]
    if "in_proj_weight" in w:
        weights = w["in_proj_weight"].chunk(3)
        biases = w["in_proj_bias"].chunk(3)
        out = F.linear, w["out_proj.weight"], w["out_proj.bias"]
    else:
        weights = tuple(w[f"{name}.weight"] for name in ("query", "key", "value"))
        biases = tuple(w[f"{name}.bias"] for name in ("query", "key", "value"))
        out = F.linear, w["attention_output.weight"], w["attention_output.bias"]
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (heads, width)).movedim(2, 1)
        for weight, bias, width in zip(weights, biases, (key, key, value), strict=True)
    )
    products = torch.softmax(q @ k.mT * h["scale"], -1) @ v
    apply, weight, bias = out
    y: torch.Tensor = apply(products.movedim(1, 2).flatten(2), weight, bias)
    return y


# ------------------------------------------------------------------------------------------- grid

Case = tuple[Callable[[], keras.Layer], tuple[int, ...], Reference]
CELLS: dict[str, Any] = {"SimpleRNN": L.SimpleRNN, "GRU": L.GRU, "LSTM": L.LSTM}


def _label(name: str, *options: Any) -> str:
    return f"{name}-{'-'.join(map(str, options))}".replace(" ", "")


def attends(**options: Any) -> keras.Layer:
    """Self-attention as a layer of one input."""
    x = keras.Input((5, 6))
    return keras.Model(x, L.MultiHeadAttention(**options)(x, x))


def grid() -> dict[str, Case]:
    """Layers over their options: how to build one, the shape of its input, its reference."""
    found: dict[str, Case] = {}

    def case(
        label: str, make: Callable[[], keras.Layer], shape: tuple[int, ...], by: Reference
    ) -> None:
        assert label not in found
        found[label] = (make, shape, by)

    for rank, size, stride, padding in product((1, 2, 3), (2, 3, 4), (1, 2, 3), ("valid", "same")):
        case(
            _label(f"Conv{rank}D", size, stride, padding),
            partial(
                getattr(L, f"Conv{rank}D"),
                5,
                size,
                strides=stride,
                padding=padding,
                activation="relu",
            ),
            (*(7, 8, 5)[:rank], 2),
            conv,
        )
    for size, dilation, padding in product((2, 3), (2, 3), ("valid", "same")):
        case(
            _label("Conv2D-dilated", size, dilation, padding),
            partial(
                L.Conv2D,
                4,
                (size, 2),
                dilation_rate=(dilation, 1),
                padding=padding,
                groups=2,
                use_bias=False,
            ),
            (11, 8, 6),
            conv,
        )
    for stride, dilation in ((1, 1), (2, 1), (1, 3)):
        case(
            _label("Conv1D-causal", stride, dilation),
            partial(
                L.Conv1D,
                5,
                3,
                strides=stride,
                dilation_rate=dilation,
                padding="causal",
                activation=L.LeakyReLU(0.2),
            ),
            (13, 2),
            conv,
        )
    for rank, size, stride, padding in product((1, 2), (3, 4), (1, 2, 3), ("valid", "same")):
        case(
            _label(f"DepthwiseConv{rank}D", size, stride, padding),
            partial(
                getattr(L, f"DepthwiseConv{rank}D"),
                size,
                strides=stride,
                padding=padding,
                depth_multiplier=2,
                activation="tanh",
            ),
            (*(8, 7)[:rank], 3),
            conv,
        )
        case(
            _label(f"SeparableConv{rank}D", size, stride, padding),
            partial(
                getattr(L, f"SeparableConv{rank}D"),
                5,
                size,
                strides=stride,
                padding=padding,
                depth_multiplier=2,
                activation="hard_sigmoid",
            ),
            (*(8, 7)[:rank], 3),
            conv,
        )
    case(
        "TimeDistributed-Conv2D",
        lambda: L.TimeDistributed(L.Conv2D(5, (4, 3), strides=(2, 3), padding="same")),
        (3, 8, 7, 2),
        conv,
    )
    for rank, size, stride, padding in product((1, 2, 3), (2, 3, 5), (1, 2, 4), ("valid", "same")):
        case(
            _label(f"Conv{rank}DTranspose", size, stride, padding),
            partial(
                getattr(L, f"Conv{rank}DTranspose"),
                5,
                size,
                strides=stride,
                padding=padding,
                activation="relu",
            ),
            (*(3, 4, 2)[:rank], 7),
            conv_transpose,
        )
    for size, more, padding in product((3, 4), (0, 1, 2), ("valid", "same")):
        if (size, more, padding) == (4, 0, "same"):
            continue  # TensorFlow itself refuses this one
        case(
            _label("Conv2DTranspose-output_padding", size, more, padding),
            partial(L.Conv2DTranspose, 5, size, strides=3, padding=padding, output_padding=more),
            (3, 4, 7),
            conv_transpose,
        )
    for axis, epsilon, scale in product((-1, 1), (1e-5, 1e-3, 0.1), (True, False)):
        case(
            _label("BatchNormalization", axis, epsilon, scale),
            partial(L.BatchNormalization, axis=axis, epsilon=epsilon, scale=scale, momentum=0.9),
            (3, 5, 7),
            batch_norm,
        )
    for axes, epsilon in product((-1, [-1], [1], [-2, -1], [1, 2, 3]), (1e-5, 1e-3, 0.1)):
        case(
            _label("LayerNormalization", axes, epsilon),
            partial(L.LayerNormalization, axis=axes, epsilon=epsilon),
            (3, 5, 7) if axes in ([1, 2, 3], [-2, -1]) else (5, 7),
            layer_norm,
        )
    for groups, epsilon in product((1, 3, -1), (1e-5, 0.1)):
        case(
            _label("GroupNormalization", groups, epsilon),
            partial(L.GroupNormalization, groups, epsilon=epsilon),
            (5, 7, 6),
            group_norm,
        )
    for activation in ("linear", "relu", "softmax", None):
        case(
            _label("Dense", activation),
            partial(L.Dense, 5, activation=activation),
            (7,),
            dense,
        )
    for name, back, every in product(CELLS, (False, True), (False, True)):
        case(
            _label(name, back, every),
            partial(CELLS[name], 5, go_backwards=back, return_sequences=every),
            (7, 3),
            recurrent,
        )
    for name in CELLS:
        case(
            _label(name, "relu"),
            partial(CELLS[name], 5, activation="relu", return_sequences=True),
            (4, 3),
            recurrent,
        )
        if name != "SimpleRNN":
            case(
                _label(name, "hard_sigmoid"),
                partial(CELLS[name], 5, recurrent_activation="hard_sigmoid", activation="linear"),
                (4, 3),
                recurrent,
            )
    for name, merge, every in product(CELLS, ("concat", "sum", "ave", "mul"), (False, True)):
        case(
            _label("Bidirectional", name, merge, every),
            partial(L.Bidirectional, CELLS[name](5, return_sequences=every), merge_mode=merge),
            (4, 3),
            recurrent,
        )
    case(
        "RNN-LSTMCell",
        lambda: L.RNN(L.LSTMCell(5, activation="relu"), return_sequences=True),
        (4, 3),
        recurrent,
    )

    case("MultiHeadAttention", lambda: attends(num_heads=3, key_dim=2), (5, 6), attention)
    case(
        "MultiHeadAttention-Linears",
        lambda: attends(num_heads=3, key_dim=7, value_dim=2),
        (5, 6),
        attention,
    )
    case("Embedding", lambda: L.Embedding(11, 3), (5,), embedding)
    return found


CASES = grid()


@cache
def built(label: str) -> tuple[Array, Array, dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Input, Keras's output, exported tensors and hints of a case."""
    make, shape, _ = CASES[label]
    rng = np.random.default_rng(5)
    layer = make()
    words = isinstance(layer, L.Embedding)
    model = keras.Sequential([keras.Input(shape, dtype="int32" if words else None), layer])
    for weight in model.weights:
        value = rng.normal(0, 0.6, weight.shape).astype("float32")
        # Small variances, so that epsilon counts.
        weight.assign(0.01 + value**2 / 10 if "variance" in weight.path else value)
    x = rng.normal(size=(3, *shape)).astype("float32")
    x = rng.integers(0, 11, x.shape).astype("int32") if words else x * np.float32(0.3)
    expected = np.asarray(model(x, training=False))
    steps = plan(read(model), to="torch")
    steps.refuse_losses()
    (path,) = steps.layers
    prefix = path.replace("/", ".") + "."
    tensors = {
        name.removeprefix(prefix): torch.tensor(tensor.numpy())
        for name, tensor in steps.apply().items()
    }
    return x, expected, tensors, dict(steps.layers[path]["hints"])


def values(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {"time_distributed": 0, "recurrent_activation": None} | {
        name: hint["value"] for name, hint in found.items()
    }


def error(label: str, given: Values) -> float:
    x, expected, tensors, _ = built(label)
    with torch.no_grad():
        found = CASES[label][2](torch.tensor(x), tensors, given).numpy()
    if found.shape != expected.shape:
        return math.inf
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("label", CASES)
def test_a_module_built_from_hints_puts_out_what_keras_does(label: str) -> None:
    assert error(label, values(built(label)[3])) < TOLERANCE


# What a PyTorch user who has not heard of the hint would do.
USUAL: dict[str, Any] = {
    "activation": "linear",
    "affine": True,
    "axis": -1,
    "bidirectional": False,
    "cropping": [[0, 0]] * 3,
    "dilation": [1] * 3,
    "dropout": 0,
    "epsilon": 1e-5,
    "go_backwards": False,
    "groups": 1,
    "attention_axes": None,
    "mask_zero": False,
    "masking": False,
    "merge_mode": "concat",
    "momentum": 0.1,
    "num_batches_tracked": 0,
    "output_padding": [0] * 3,
    "padding": [[0, 0]] * 3,
    "recurrent_activation": "sigmoid",
    "recurrent_dropout": 0,
    "reset_after": True,
    "return_sequences": True,
    "return_state": False,
    "rms_scaling": False,
    "sliding_window": None,
    "stateful": False,
    "strides": [1] * 3,
    "time_distributed": 0,
}
# These are the module's own: there is no doing without them, or no default to fall back to.
WITHOUT_DEFAULT = {
    "batch_first",
    "hard_sigmoid_slope",
    "key_dim",
    "num_heads",
    "scale",
    "value_dim",
}


@pytest.mark.parametrize("label", CASES)
def test_a_hint_is_marked_where_ignoring_it_changes_results(label: str) -> None:
    """Both ways: a mark that is missing misleads, one that is idle hides the others."""
    found = built(label)[3]
    for name, hint in found.items():
        if name in WITHOUT_DEFAULT:
            continue
        usual = USUAL[name]
        if isinstance(hint["value"], list) and isinstance(usual, list):
            usual = usual[: len(hint["value"])]
        if name == "activation" and CASES[label][2] is recurrent:
            usual = "tanh"
        if name == "axis" and isinstance(hint["value"], list):
            usual = list(range(-len(hint["value"]), 0))
        try:
            wrong = error(label, values(found) | {name: usual})
        except (RuntimeError, ValueError):
            wrong = math.inf  # a module that does not even run
        if hint["changes_results"]:
            # An axis is marked too where it is the last one in Keras and not in the target.
            assert wrong > 1e-4 or name == "axis", f"{name} is marked"
        else:
            assert wrong < TOLERANCE, f"{name} is not marked"


# --------------------------------------------------------------------------------- what hints say


def said(to: str, layer: keras.Layer, shape: tuple[int | None, ...]) -> dict[str, Any]:
    """The values of one layer's hints."""
    model = keras.Sequential([keras.Input(shape), layer])
    (found,) = hints(read(model), to=to).values()
    return {name: hint["value"] for name, hint in found.items()}


def configured(
    class_name: str,
    config: dict[str, Any],
    weights: Mapping[str, tuple[int, ...]],
    *,
    version: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The hints of a layer in a file of some version of Keras, without an architecture."""
    tensors = {
        role: Tensor.of(f"x/{role}", np.zeros(shape, np.float32)) for role, shape in weights.items()
    }
    layer = Layer("x", class_name, config, tensors)
    found = identify(Snapshot(Source("m.h5", "h5", keras_version=version), (layer,)))
    assert found["x"].kind is not None, found["x"].note
    return hints(found, to="torch")["x"]


LSTM = {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (20,)}


@pytest.mark.parametrize(
    ("keras_says", "torch_needs"), [(0.99, 0.01), (0.9, 0.1), (0.997, 0.003), (0.5, 0.5)]
)
def test_momentum_is_one_minus_that_of_keras_to_the_last_digit(
    keras_says: float, torch_needs: float
) -> None:
    """In binary, 1 - 0.99 is 0.010000000000000009. ONNX counts as Keras does."""
    layer = L.BatchNormalization(momentum=keras_says)
    assert said("torch", layer, (5,))["momentum"] == torch_needs
    layer = L.BatchNormalization(momentum=keras_says)
    assert said("onnx", layer, (5,))["momentum"] == keras_says


def test_same_padding_of_an_unknown_size_is_a_rule_and_not_a_number() -> None:
    strided = L.Conv2D(5, (3, 4), strides=2, padding="same")
    assert said("torch", strided, (None, 7, 2))["padding"] == "same"
    strided = L.Conv2D(5, (3, 4), strides=(1, 2), padding="same")
    assert said("torch", strided, (None, 7, 2))["padding"] == [[1, 1], [1, 2]]
    plain = L.Conv2D(5, 3, padding="same")
    assert said("torch", plain, (None, None, 2))["padding"] == [[1, 1], [1, 1]]


def test_a_layer_that_is_called_on_unlike_sizes_has_no_one_padding() -> None:
    conv = L.Conv1D(5, 3, strides=2, padding="same")
    x, y, z = keras.Input((8, 2)), keras.Input((9, 2)), keras.Input((10, 2))

    def padding(*inputs: Any) -> Any:
        model = keras.Model(list(inputs), [conv(x) for x in inputs])
        (found,) = hints(read(model), to="torch").values()
        return found["padding"]["value"]

    assert padding(x, y) == "same"
    assert padding(x, z) == [[0, 1]]
    assert padding(y) == [[1, 1]]


def test_padding_inside_a_model_inside_a_model_is_known() -> None:
    inner = keras.Sequential([L.ZeroPadding2D(((0, 1), (0, 0))), L.Conv2D(3, 3, 2, padding="same")])
    model = keras.Sequential([keras.Input((7, 8, 2)), keras.Sequential([inner])])
    (found,) = hints(read(model), to="torch").values()
    assert found["padding"] == {"value": [[0, 1], [0, 1]], "changes_results": True}


@pytest.mark.parametrize(
    ("version", "slope"),
    [("1.2.2", 0.2), ("2.1.6-tf", 0.2), ("2.15.0", 0.2), ("3.4.1", 1 / 6), (None, None)],
)
def test_hard_sigmoid_has_the_slope_of_the_keras_that_wrote_the_file(
    version: str | None, slope: float | None
) -> None:
    """Where the file does not say, the slope is open, and a layer without one has no such hint."""
    config = {"units": 5, "recurrent_activation": "hard_sigmoid"}
    found = configured("LSTM", config, LSTM, version=version)
    assert found["hard_sigmoid_slope"] == {"value": slope, "changes_results": True}
    assert found["recurrent_activation"] == {"value": "hard_sigmoid", "changes_results": True}
    found = configured("LSTM", {**config, "recurrent_activation": "sigmoid"}, LSTM, version=version)
    assert "hard_sigmoid_slope" not in found


@pytest.mark.parametrize(
    ("version", "gates"),
    [
        ("1.2.2", "hard_sigmoid"),
        ("2.2.4", "hard_sigmoid"),
        ("2.3.1", "sigmoid"),
        (None, "sigmoid"),
    ],
)
def test_gates_that_a_configuration_leaves_out_are_those_of_its_keras(
    version: str | None, gates: str
) -> None:
    found = configured("LSTM", {"units": 5}, LSTM, version=version)
    assert found["recurrent_activation"]["value"] == gates


def test_options_of_keras_1_are_understood() -> None:
    config = {
        "nb_filter": 5,
        "nb_row": 3,
        "nb_col": 4,
        "subsample": [2, 1],
        "border_mode": "valid",
        "activation": "relu",
        "dim_ordering": "tf",
    }
    weights = {"kernel": (3, 4, 2, 5), "bias": (5,)}
    found = configured("Convolution2D", config, weights, version="1.2.2")
    assert {name: hint["value"] for name, hint in found.items()} == {
        "strides": [2, 1],
        "padding": [[0, 0], [0, 0]],
        "dilation": [1, 1],
        "groups": 1,
        "activation": "relu",
    }


def test_a_file_without_configurations_has_the_hints_of_its_kinds_alone() -> None:
    """An epsilon that nobody wrote down is not guessed."""
    found = configured("LSTM", {}, LSTM)
    assert {name: hint["value"] for name, hint in found.items()} == {
        "bidirectional": False,
        "batch_first": True,
    }


@pytest.mark.parametrize("class_name", ["LSTM", "GRU"])
def test_steps_to_be_skipped_are_announced_to_the_layers_that_skip_them(class_name: str) -> None:
    def masking(*before: keras.Layer) -> bool:
        own = getattr(L, class_name)(3, name="own")
        model = keras.Sequential([keras.Input((5, 7)), *before, own])
        value = hints(read(model), to="torch")["own"]["masking"]
        assert value["changes_results"] is value["value"]
        return bool(value["value"])

    assert masking(L.Masking(), L.Dropout(0.5), L.Dense(3))
    assert masking(L.Masking(), L.LSTM(3, return_sequences=True))
    assert masking(L.Masking(), L.Bidirectional(L.GRU(3, return_sequences=True)))
    assert not masking()
    assert not masking(L.Masking(), L.LSTM(3), L.RepeatVector(2))


def test_stacked_cells_have_hints_of_their_own() -> None:
    cells = [L.GRUCell(3, activation="relu"), L.LSTMCell(5, recurrent_activation="tanh")]
    model = keras.Sequential([keras.Input((4, 2)), L.RNN(cells, name="own")])
    first, second = hints(read(model), to="torch").values()
    assert first["activation"] == {"value": "relu", "changes_results": True}
    assert first["recurrent_activation"] == {"value": "sigmoid", "changes_results": False}
    assert second["activation"] == {"value": "tanh", "changes_results": False}
    assert second["recurrent_activation"] == {"value": "tanh", "changes_results": True}


def test_an_embedding_that_masks_says_so() -> None:
    model = keras.Sequential(
        [keras.Input((5,)), L.Embedding(7, 3, mask_zero=True, name="words"), L.LSTM(2, name="own")]
    )
    found = hints(read(model), to="torch")
    assert found["words"]["mask_zero"] == {"value": True, "changes_results": True}
    assert found["own"]["masking"] == {"value": True, "changes_results": True}


def test_a_vector_that_becomes_an_image_says_in_which_order() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(70, name="seed"), L.ReLU(), L.Reshape((5, 7, 2))]
    )
    assert hints(read(model), to="torch")["seed"]["reshape"] == {
        "value": [5, 7, 2],
        "changes_results": True,
    }


MOMENTS = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.mark.parametrize(
    ("data_format", "marked"), [("channels_last", True), ("channels_first", False)]
)
def test_normalization_over_axis_one_is_usual_only_where_channels_come_first(
    data_format: str, marked: bool
) -> None:
    layers: list[tuple[str, dict[str, Any]]] = [
        ("InputLayer", {"batch_shape": [None, 3, 5, 7]}),
        ("BatchNormalization", {"axis": 1}),
        ("GlobalMaxPooling2D", {"data_format": data_format}),
    ]
    entries = [{"class_name": name, "config": {"name": name, **c}} for name, c in layers]
    weights = {name: Tensor.of(name, np.zeros(3, np.float32)) for name in MOMENTS}
    layer = Layer("BatchNormalization", "BatchNormalization", {"axis": 1}, weights)
    architecture = {"class_name": "Sequential", "config": {"name": "m", "layers": entries}}
    found = Snapshot(Source("m.h5", "h5"), (layer,), architecture=architecture)
    (said,) = hints(identify(found), to="torch").values()
    assert said["axis"] == {"value": 1, "changes_results": marked}


# ---------------------------------------------------------------------------------- ONNX operators

INPUTS = ("W", "scale", "Scale", "B", "bias", "C", "input_mean", "input_var")


def onnx_output(model: keras.Model, x: Array) -> Array:
    """What ONNX Runtime puts out for the one operator that the hints describe."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    found = plan(read(model), to="onnx")
    (path,) = found.layers
    (operator,) = found.layers[path]["hints"]["operators"]["value"]
    weights = {name: t.numpy() for name, t in found.apply().items()}
    recurrent = operator["op"] in ("GRU", "LSTM", "RNN")
    order = ("W", "R", "B") if recurrent else INPUTS
    rank = 4 if recurrent else x.ndim
    inputs = [f"{path}.{name}" for name in order if f"{path}.{name}" in weights]
    node = helper.make_node(operator["op"], ["x", *inputs], ["y"], **operator["attributes"])
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in weights.items()],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(built)
    session = onnxruntime.InferenceSession(built.SerializeToString())
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


ONNX: dict[str, tuple[Callable[[], keras.Layer], tuple[int | None, ...]]] = {
    "Conv": (lambda: L.Conv2D(5, (3, 4), strides=(2, 1), padding="same"), (8, 7, 2)),
    "Conv-open": (lambda: L.Conv2D(5, (3, 4), strides=2, padding="same"), (None, None, 2)),
    "Conv-groups": (lambda: L.Conv1D(6, 3, dilation_rate=2, groups=2, padding="same"), (11, 4)),
    "Conv-causal": (lambda: L.Conv1D(6, 3, padding="causal"), (11, 4)),
    "Depthwise": (lambda: L.DepthwiseConv2D(3, strides=2, padding="same"), (8, 7, 3)),
    "ConvTranspose": (lambda: L.Conv2DTranspose(5, 4, strides=3, padding="same"), (3, 4, 7)),
    "ConvTranspose-short": (lambda: L.Conv1DTranspose(5, 2, strides=3), (4, 7)),
    "BatchNormalization": (lambda: L.BatchNormalization(epsilon=0.1), (5, 7, 3)),
    "GroupNormalization": (lambda: L.GroupNormalization(3, epsilon=0.1), (5, 7, 6)),
    "LayerNormalization": (lambda: L.LayerNormalization(axis=[1, 2], epsilon=0.1), (5, 7)),
    "Dense": (lambda: L.Dense(5), (7,)),
    "LSTM": (lambda: L.LSTM(5, return_sequences=True), (4, 3)),
    "LSTM-hard": (
        lambda: L.LSTM(5, recurrent_activation="hard_sigmoid", return_sequences=True),
        (4, 3),
    ),
    "GRU": (lambda: L.GRU(5, return_sequences=True, activation="relu"), (4, 3)),
    "GRU-before": (lambda: L.GRU(5, return_sequences=True, reset_after=False), (4, 3)),
    "RNN-linear": (lambda: L.SimpleRNN(5, return_sequences=True, activation=None), (4, 3)),
    "Bidirectional": (
        lambda: L.Bidirectional(
            L.LSTM(5, return_sequences=True, activation="elu", recurrent_activation="hard_sigmoid")
        ),
        (4, 3),
    ),
}


@pytest.mark.parametrize("label", ONNX)
def test_an_operator_with_the_attributes_of_the_hints_puts_out_what_keras_does(label: str) -> None:
    make, shape = ONNX[label]
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    rng = np.random.default_rng(3)
    for weight in model.weights:
        value = rng.normal(0, 0.6, weight.shape).astype("float32")
        weight.assign(0.01 + value**2 / 10 if "variance" in weight.path else value)
    x = rng.normal(size=(2, *(8 if n is None else n for n in shape))).astype("float32")
    expected = np.asarray(model(x, training=False))
    if hasattr(layer, "return_sequences") or hasattr(layer, "merge_mode"):
        y = onnx_output(model, x.swapaxes(0, 1).copy())  # steps, directions, batch, units
        found = np.concatenate([y[:, n] for n in range(y.shape[1])], -1).swapaxes(0, 1)
    elif x.ndim == 2 or isinstance(layer, L.LayerNormalization):
        found = onnx_output(model, x)
    else:
        found = np.moveaxis(onnx_output(model, np.moveaxis(x, -1, 1).copy()), 1, -1)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() / max(1.0, np.abs(expected).max()) < TOLERANCE


# --------------------------------------------------------------------------------------- contract


def test_every_kind_has_its_hints_and_every_hint_its_words() -> None:
    kinds = {kind: None for kind in conventions.convention("keras") if plain(kind) == kind}
    assert KINDS.keys() >= {kind for kind in kinds if not kind.startswith("Bidirectional")}
    assert KINDS.keys() <= kinds.keys()
    assert HINTS.keys() == TABLE.keys()
    assert {name for names in KINDS.values() for name in names} <= HINTS.keys()
    assert list(HINTS) == sorted(HINTS)


@pytest.mark.parametrize("to", conventions.NAMES)
def test_hints_are_plain_data(to: str) -> None:
    x = keras.Input((8, 9, 2))
    y = L.Conv2D(3, 3, activation=L.LeakyReLU(0.1))(x)
    y = L.Dense(4, activation="softmax")(L.Flatten()(L.BatchNormalization()(y)))
    found = hints(read(keras.Model(x, y)), to=to)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for layer in found.values():
        for name, hint in layer.items():
            assert name in HINTS
            assert hint.keys() == {"value", "changes_results"}
            assert type(hint["changes_results"]) is bool


HOSTILE: tuple[Any, ...] = (None, [], {}, "x", -1, 0, 1e999, [None], [[]], {"class_name": 3}, True)


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("name", ["strides", "padding", "activation", "data_format", "groups"])
def test_a_configuration_that_makes_no_sense_gives_fewer_hints(name: str, value: Any) -> None:
    """A file comes from strangers: hints are advice, and must not stand in the way of weights."""
    config = {"kernel_size": [3, 4], "filters": 5, name: value}
    found = configured("Conv2D", config, {"kernel": (3, 4, 2, 5), "bias": (5,)})
    assert "dilation" in found
    json.dumps(found, allow_nan=False)
