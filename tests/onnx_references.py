"""What layers compute that no single operator of ONNX does, as the operators that they are made of.

Each function takes the Keras layer and the shapes of its inputs, and gives operators whose weights
are the exported tensors under their names. Nothing here looks at the exported tensors: sizes come
from the layer's options alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.helper import make_node

__all__ = ["OPERATORS", "Model", "channels_first", "channels_last", "every", "node", "window"]

Array = npt.NDArray[Any]
Shape = Sequence[int]


@dataclass
class Model:
    """Operators, and how Keras's inputs and outputs are laid out for them.

    Attributes:
        nodes: the operators; the last one puts out `y`.
        before: Keras's inputs as the operators take them, named `x`, `x1`, `x2`.
        after: what the operators put out as Keras does.
        constants: tensors that are no weights of the layer.
        unused: exported tensors that only training uses.
        opset: the version of the operators.
    """

    nodes: list[onnx.NodeProto]
    before: Callable[..., list[Array]] = lambda *x: list(x)
    after: Callable[[Array], Array] = lambda y: y
    constants: dict[str, Array] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    opset: int = 21


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return make_node(op, list(inputs), [output], **attributes)


def channels_first(x: Array) -> list[Array]:
    return [np.moveaxis(x, -1, 1)]


def channels_last(y: Array) -> Array:
    return np.moveaxis(y, 1, -1)


def every(value: Any, rank: int) -> list[int]:
    """An option that Keras may give once for all axes."""
    return [value] * rank if isinstance(value, int) else list(value)


def window(layer: Any, shape: Shape) -> dict[str, list[int]]:
    """Strides, dilations and the zeros around the image as Keras's padding wants them."""
    rank = len(shape) - 2
    strides, dilations = every(layer.strides, rank), every(layer.dilation_rate, rank)
    kernel = every(layer.kernel_size, rank)
    return _window(shape[1:-1], kernel, strides, dilations, layer.padding)


def _window(
    space: Shape, kernel: Shape, strides: Shape, dilations: Shape, padding: str
) -> dict[str, list[int]]:
    starts, ends = [], []
    for n, k, s, d in zip(space, kernel, strides, dilations, strict=True):
        reach = (k - 1) * d + 1
        total = max((math.ceil(n / s) - 1) * s + reach - n, 0) if padding == "same" else 0
        starts.append(reach - 1 if padding == "causal" else total // 2)
        ends.append(total - total // 2)
    return {"strides": list(strides), "dilations": list(dilations), "pads": starts + ends}


# -------------------------------------------------------------------------------------- attention


def attention(layer: Any, *shapes: Shape) -> Model:
    """Scores are products times a scale, or the sum of a tanh."""
    if layer.score_mode == "dot":
        nodes = [
            node("Einsum", ["x", "x2"], "products", equation="btc,bsc->bts"),
            node("Mul", ["products", "scale"], "scores"),
        ]
        constants: dict[str, Array] = {}
    else:
        nodes = _sums()
        scaled = "pairs"
        if layer.use_scale:
            nodes.append(node("Mul", ["pairs", "scale"], "scaled"))
            scaled = "scaled"
        nodes += [
            node("Tanh", [scaled], "bent"),
            node("ReduceSum", ["bent", "last"], "sums", keepdims=0),
            node("Mul", ["sums", "concat_score_weight"], "scores"),
        ]
        constants = {**PAIRS, "last": np.array([-1])}
    return Model([*nodes, *_mixed("scores", "x1")], constants=constants)


PAIRS = {"second": np.array([2]), "first": np.array([1])}


def _sums() -> list[onnx.NodeProto]:
    """Each query plus each key."""
    return [
        node("Unsqueeze", ["x", "second"], "queries"),
        node("Unsqueeze", ["x2", "first"], "keys"),
        node("Add", ["queries", "keys"], "pairs"),
    ]


def _mixed(scores: str, values: str) -> list[onnx.NodeProto]:
    return [
        node("Softmax", [scores], "weights", axis=-1),
        node("MatMul", ["weights", values], "y"),
    ]


def additive_attention(layer: Any, *shapes: Shape) -> Model:
    nodes = [
        *_sums(),
        node("Tanh", ["pairs"], "bent"),
        node("Einsum", ["bent", "scale"], "scores", equation="btsc,c->bts"),
    ]
    return Model([*nodes, *_mixed("scores", "x1")], constants=dict(PAIRS))


def _product(x: str, name: str, bias: bool, output: str = "") -> list[onnx.NodeProto]:
    """MatMul, and Add where there is a bias."""
    output = output or f"{name}.all"
    nodes = [node("MatMul", [x, f"{name}.B"], f"{name}.plain" if bias else output)]
    if bias:
        nodes.append(node("Add", [f"{name}.plain", f"{name}.C"], output))
    return nodes


def _projected(layer: Any, gate: bool) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for name, x in (("query", "x"), ("value", "x1"), ("key", "x2")):
        nodes += _product(x, name, layer.use_bias)
        shape = "heads" if name == "query" else f"{name}.groups"
        nodes.append(node("Reshape", [f"{name}.all", shape], f"{name}.heads"))
    if gate:
        nodes += _product("x", "gate", layer.use_bias)
        nodes.append(node("Sigmoid", ["gate.all"], "open"))
    return nodes


def _put_out(layer: Any, gate: bool, output: str = "y") -> list[onnx.NodeProto]:
    nodes = [node("Reshape", ["mixed", "flat"], "features")]
    if gate:
        nodes.append(node("Mul", ["features", "open"], "gated"))
    return [*nodes, *_product("gated" if gate else "features", "output", layer.use_bias, output)]


def heads(layer: Any, *shapes: Shape) -> Model:
    """Attention by head; positions along several axes are one, or batches."""
    gate = layer._use_gate
    nodes = [
        *_projected(layer, gate),
        node("Einsum", ["query.heads", "key.heads"], "raw", equation="bthk,bshk->bhts"),
        node("Mul", ["raw", "factor"], "scaled"),
        node("Softmax", ["scaled"], "weights", axis=-1),
        node("Einsum", ["weights", "value.heads"], "mixed", equation="bhts,bshk->bthk"),
        *_put_out(layer, gate, "all"),
        node("Reshape", ["all", "output.shape"], "y"),
    ]
    count = layer.num_heads
    output = tuple(layer._output_shape or (shapes[0][-1],))
    constants = {
        **dict.fromkeys(("heads", "value.groups", "key.groups"), np.array([0, 0, count, -1])),
        "flat": np.array([0, 0, -1]),
        "factor": np.array(1 / math.sqrt(layer.key_dim), np.float32),
        "output.shape": np.array([0, 0, *output]),
    }
    if len(shapes[0]) == 3:
        return Model(nodes, constants=constants)
    batch, rows, columns, _ = shapes[0]
    both = tuple(layer.attention_axes or (1, 2)) == (1, 2)
    lead = (batch, rows * columns) if both else (batch * rows, columns)
    return Model(
        nodes,
        lambda *x: [one.reshape(*lead, -1) for one in x],
        lambda y: y.reshape(batch, rows, columns, -1),
        constants,
    )


def grouped_attention(layer: Any, *shapes: Shape) -> Model:
    """A head of keys serves as many heads of queries, one after the other."""
    groups, repeats = layer.num_key_value_heads, layer.num_repeats
    nodes = [
        *_projected(layer, layer.use_gate),
        node("Einsum", ["query.heads", "key.heads"], "raw", equation="btgrk,bsgk->bgrts"),
        node("Mul", ["raw", "factor"], "scaled"),
        node("Softmax", ["scaled"], "weights", axis=-1),
        node("Einsum", ["weights", "value.heads"], "mixed", equation="bgrts,bsgk->btgrk"),
        *_put_out(layer, layer.use_gate),
    ]
    constants = {
        "heads": np.array([0, 0, groups, repeats, layer.head_dim]),
        **dict.fromkeys(("value.groups", "key.groups"), np.array([0, 0, groups, layer.head_dim])),
        "flat": np.array([0, 0, groups * repeats * layer.head_dim]),
        "factor": np.array(1 / math.sqrt(layer.head_dim), np.float32),
    }
    return Model(nodes, constants=constants)


# ---------------------------------------------------------------------------------- normalization


def _axes(layer: Any, shape: Shape) -> list[int]:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    return [axis % len(shape) for axis in axes]


def rms_normalization(layer: Any, shape: Shape) -> Model:
    first = min(_axes(layer, shape))
    return Model(
        [node("RMSNormalization", ["x", "scale"], "y", axis=first, epsilon=layer.epsilon)],
        opset=23,
    )


def scaled_normalization(layer: Any, shape: Shape) -> Model:
    """`rms_scaling` divides by the deviation without taking the mean off."""
    nodes = [
        node("ReduceMean", ["x", "axes"], "mean"),
        node("Sub", ["x", "mean"], "off"),
        node("ReduceSumSquare", ["off", "axes"], "squares"),
        node("Div", ["squares", "count"], "variance"),
        node("Add", ["variance", "epsilon"], "more"),
        node("Sqrt", ["more"], "root"),
        node("Div", ["x", "root"], "plain"),
        node("Mul", ["plain", "Scale"], "y"),
    ]
    axes = _axes(layer, shape)
    count = math.prod(shape[axis] for axis in axes)
    constants = {
        "axes": np.array(axes),
        "count": np.array(count, np.float32),
        "epsilon": np.array(layer.epsilon, np.float32),
    }
    return Model(nodes, constants=constants)


def normalization(layer: Any, shape: Shape) -> Model:
    kept = {axis % len(shape) for axis in layer.axis}
    nodes = [
        node("Reshape", ["mean", "wide"], "m"),
        node("Reshape", ["variance", "wide"], "v"),
        node("Sqrt", ["v"], "root"),
        node("Max", ["root", "least"], "deviation"),
    ]
    if layer.invert:
        nodes += [node("Mul", ["x", "deviation"], "plain"), node("Add", ["plain", "m"], "y")]
    else:
        nodes += [node("Sub", ["x", "m"], "plain"), node("Div", ["plain", "deviation"], "y")]
    constants = {
        "wide": np.array([n if axis in kept else 1 for axis, n in enumerate(shape)]),
        "least": np.array(1e-7, np.float32),
    }
    return Model(nodes, constants=constants, unused=frozenset({"count"}))


def spectral(layer: Any, shape: Shape) -> Model:
    """Outside of training, the layer inside as it is."""
    unused = frozenset({"vector_u"})
    match type(layer.layer).__name__:
        case "Dense":
            weights = ["layer.B", "layer.C"]
            return Model([node("Gemm", ["x", *weights], "y", transB=1)], unused=unused)
        case "Conv2D":
            conv = node("Conv", ["x", "layer.W", "layer.B"], "y")
            return Model([conv], channels_first, channels_last, unused=unused)
        case _:
            return Model([node("Gather", ["layer.data", "x"], "y")], unused=unused)


def batch_axes(layer: Any, shape: Shape) -> Model:
    """All normalized axes as one; with renorm, beside the statistics that only training uses."""
    virtual = getattr(layer, "virtual_batch_size", None)  # with a dimension of its own
    axes = [axis - 1 if virtual else axis for axis in layer.axis]
    others = [n for n in range(len(shape)) if n not in axes]
    order = [*others, *axes]
    wide = [shape[n] for n in order]
    inputs = ["x", "scale", "B", "input_mean", "input_var"]
    statistics = {"moving_stddev", "renorm_mean", "renorm_stddev"}
    return Model(
        [node("BatchNormalization", inputs, "y", epsilon=layer.epsilon)],
        lambda x: [x.transpose(order).reshape(-1, math.prod(shape[n] for n in axes))],
        lambda y: y.reshape(wide).transpose([order.index(n) for n in range(len(shape))]),
        unused=frozenset(statistics if layer.renorm else ()),
    )


# -------------------------------------------------------------------------------- other products


def spectrogram(layer: Any, shape: Shape) -> Model:
    parts = [part for part, other in (("real", "imag"), ("imag", "real")) if layer.mode != other]
    attributes = _window(shape[1:-1], [layer.frame_length], [layer._frame_step], [1], layer.padding)
    nodes = [node("Conv", ["x", f"{part}.W"], part, **attributes) for part in parts]
    constants: dict[str, Array] = {}
    if layer.mode == "magnitude":
        nodes += [
            *(node("Mul", [part, part], f"{part}.squared") for part in parts),
            node("Sum", [f"{part}.squared" for part in parts], "power"),
            node("Max", ["power", "least"], "some"),
            node("Sqrt", ["some"], "y"),
        ]
        constants = {"least": np.array(1e-7, np.float32)}
    else:
        nodes.append(node("Concat", parts, "y", axis=1))
    return Model(nodes, channels_first, channels_last, constants)


def there_and_back(layer: Any, shape: Shape) -> Model:
    nodes = [node("Gather", ["data", "x"], "embedded")]
    if layer.tie_weights:
        nodes.append(node("Transpose", ["data"], "reverse.B"))
    return Model([*nodes, node("MatMul", ["embedded", "reverse.B"], "y")])


def conv_lstm(layer: Any, shape: Shape) -> Model:
    """The steps one after the other: a convolution of the input, one of the step before."""
    rank = len(shape) - 3
    steps = shape[1]
    around = window(layer, [shape[0], *shape[2:]])
    kernel = every(layer.kernel_size, rank)
    same = [(k - 1) // 2 for k in kernel] + [k // 2 for k in kernel]
    weights = ["input.W", "input.B"] if layer.use_bias else ["input.W"]
    hard = layer.recurrent_activation.__name__ == "hard_sigmoid"
    gate = {"op": "HardSigmoid", "alpha": 1 / 6, "beta": 0.5} if hard else {"op": "Sigmoid"}
    nodes: list[onnx.NodeProto] = [make_node("Split", ["x"], [f"x.{t}" for t in range(steps)])]
    nodes[0].attribute.extend([onnx.helper.make_attribute("axis", 0)])
    nodes[0].attribute.extend([onnx.helper.make_attribute("num_outputs", steps)])
    for t in range(steps):
        nodes.append(node("Squeeze", [f"x.{t}", "zeroth"], f"step.{t}"))
        total = f"from_input.{t}"
        nodes.append(node("Conv", [f"step.{t}", *weights], total, **around))
        if t:
            nodes += [
                node("Conv", [f"h.{t - 1}", "recurrent.W"], f"from_before.{t}", pads=same),
                node("Add", [total, f"from_before.{t}"], f"total.{t}"),
            ]
            total = f"total.{t}"
        names = [f"{name}.{t}" for name in ("i", "f", "new", "o")]
        nodes.append(make_node("Split", [total], names, axis=1, num_outputs=4))
        for name in ("i", "f", "o"):
            nodes.append(node(inputs=[f"{name}.{t}"], output=f"{name}.gate.{t}", **gate))
        nodes += [
            node("Tanh", [f"new.{t}"], f"new.bent.{t}"),
            node("Mul", [f"i.gate.{t}", f"new.bent.{t}"], f"c.{t}" if not t else f"c.new.{t}"),
        ]
        if t:
            nodes += [
                node("Mul", [f"f.gate.{t}", f"c.{t - 1}"], f"c.kept.{t}"),
                node("Add", [f"c.new.{t}", f"c.kept.{t}"], f"c.{t}"),
            ]
        nodes += [
            node("Tanh", [f"c.{t}"], f"c.bent.{t}"),
            node("Mul", [f"o.gate.{t}", f"c.bent.{t}"], f"h.{t}"),
            node("Unsqueeze", [f"h.{t}", "zeroth"], f"y.{t}"),
        ]
    nodes.append(node("Concat", [f"y.{t}" for t in range(steps)], "y", axis=0))
    return Model(
        nodes,
        lambda x: [np.moveaxis(np.moveaxis(x, -1, 2), 1, 0)],
        lambda y: np.moveaxis(np.moveaxis(y, 0, 1), 2, -1),
        {"zeroth": np.array([0])},
    )


def locally_connected(layer: Any, shape: Shape) -> Model:
    """The windows side by side, and a convolution with a group for each position."""
    rank = len(shape) - 2
    first = layer.data_format == "channels_first"
    space = shape[2:] if first else shape[1:-1]
    kernel, strides = every(layer.kernel_size, rank), every(layer.strides, rank)
    out = [(n - k) // s + 1 for n, k, s in zip(space, kernel, strides, strict=True)]
    positions = math.prod(out)

    def before(x: Array) -> list[Array]:
        x = x if first else np.moveaxis(x, -1, 1)
        axes = tuple(range(2, 2 + rank))
        views = np.lib.stride_tricks.sliding_window_view(x, kernel, axes)
        views = views[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
        return [np.moveaxis(views, 1, 1 + rank).reshape(len(x), -1, 1)]

    def after(y: Array) -> Array:
        y = y.reshape(-1, *out, layer.filters)
        return np.moveaxis(y, -1, 1) if first else y

    inputs = ["x", "W", "B"] if layer.use_bias else ["x", "W"]
    return Model([node("Conv", inputs, "y", group=positions)], before, after)


def random_features(layer: Any, shape: Shape) -> Model:
    return Model(
        [
            node("Div", ["x", "kernel_scale"], "scaled"),
            node("Gemm", ["scaled", "B", "C"], "angles", transB=1),
            node("Cos", ["angles"], "y"),
        ]
    )


def quantiles(layer: Any, shape: Shape) -> Model:
    return Model([node("Identity", ["summary"], "y")])


def scaled_channels(layer: Any, shape: Shape) -> Model:
    return Model([node("Mul", ["x", "gamma"], "y")])


def highway(layer: Any, shape: Shape) -> Model:
    def gemm(name: str, output: str) -> onnx.NodeProto:
        weights = [f"{name}.B", f"{name}.C"] if layer.use_bias else [f"{name}.B"]
        return node("Gemm", ["x", *weights], output, transB=1)

    nodes = [
        gemm("linear", "act"),
        gemm("carry", "t"),
        node("Tanh", ["act"], "bent"),
        node("Sigmoid", ["t"], "gate"),
        node("Sub", ["bent", "x"], "change"),
        node("Mul", ["change", "gate"], "some"),
        node("Add", ["x", "some"], "y"),
    ]
    return Model(nodes)


def maxout(layer: Any, shape: Shape) -> Model:
    nodes = [
        node("Gemm", ["x", "B", *(["C"] if layer.use_bias else [])], "all", transB=1),
        node("Reshape", ["all", "pieces"], "apart"),
        node("ReduceMax", ["apart", "first"], "y", keepdims=0),
    ]
    constants = {"pieces": np.array([0, layer.pieces, -1]), "first": np.array([1])}
    return Model(nodes, constants=constants)


def parametric_softplus(layer: Any, shape: Shape) -> Model:
    nodes = [
        node("Mul", ["x", "beta"], "scaled"),
        node("Softplus", ["scaled"], "bent"),
        node("Mul", ["bent", "alpha"], "y"),
    ]
    return Model(nodes, channels_first, channels_last)


def s_shaped(layer: Any, shape: Shape) -> Model:
    nodes = [
        node("Abs", ["t_right"], "width"),
        node("Add", ["t_left", "width"], "right"),
        node("Sub", ["x", "t_left"], "over_left"),
        node("Sub", ["x", "right"], "over_right"),
        node("Mul", ["a_left", "over_left"], "down"),
        node("Add", ["t_left", "down"], "low"),
        node("Mul", ["a_right", "over_right"], "up"),
        node("Add", ["right", "up"], "high"),
        node("LessOrEqual", ["x", "t_left"], "is_low"),
        node("GreaterOrEqual", ["x", "right"], "is_high"),
        node("Where", ["is_low", "low", "x"], "lower"),
        node("Where", ["is_high", "high", "lower"], "y"),
    ]
    return Model(nodes, channels_first, channels_last)


# ------------------------------------------------------------------------------------- recurrence


def _step(layer: Any, prefix: str, x: str, y: str) -> onnx.NodeProto:
    """One recurrent layer, whichever way Keras calls it."""
    name = type(layer).__name__.removesuffix("Cell").removeprefix("CuDNN")
    more: dict[str, Any] = {"hidden_size": layer.units}
    if name == "GRU":
        more["linear_before_reset"] = int(getattr(layer, "reset_after", True))
    inputs = [x, f"{prefix}W", f"{prefix}R"]
    if getattr(layer, "use_bias", True):
        inputs.append(f"{prefix}B")
    return node({"SimpleRNN": "RNN"}.get(name, name), inputs, y, **more)


def cell(layer: Any, *shapes: Shape) -> Model:
    step = _step(layer, "", "x", "y")
    while len(step.input) < 5:
        step.input.append("")
    step.input.extend(["x1", "x2"][: len(shapes) - 1])
    return Model([step], lambda *x: [one[None] for one in x], lambda y: y[0, 0])


def _in_turn(layers: Mapping[str, Any], x: str, y: str) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for number, (name, layer) in enumerate(layers.items()):
        last = number + 1 == len(layers)
        all_directions = f"{name}.y"
        nodes.append(_step(layer, f"{name}.", x, all_directions))
        x = y if last else f"{name}.x"
        nodes.append(node("Squeeze", [all_directions, "first"], x))
    return nodes


def _steps_first(x: Array) -> list[Array]:
    return [np.moveaxis(x, 1, 0)]


def stacked(layer: Any, shape: Shape) -> Model:
    constants = {"first": np.array([1])}
    if not hasattr(layer, "forward_layer"):
        layers = {part.name: part for part in layer.cell.cells}
        return Model(
            _in_turn(layers, "x", "y"), _steps_first, lambda y: y.swapaxes(0, 1), constants
        )
    return _both_ways(
        *(
            {f"{side}.{part.name}": part for part in rnn.cell.cells}
            for side, rnn in (
                ("forward_layer", layer.forward_layer),
                ("backward_layer", layer.backward_layer),
            )
        )
    )


def unlike(layer: Any, shape: Shape) -> Model:
    return _both_ways(
        {"forward_layer": layer.forward_layer}, {"backward_layer": layer.backward_layer}
    )


def _both_ways(there: Mapping[str, Any], back: Mapping[str, Any]) -> Model:
    nodes = [*_in_turn(there, "x", "there"), *_in_turn(back, "x1", "back")]
    nodes += [
        node("Slice", ["back", "end", "start", "zeroth", "minus"], "turned"),
        node("Concat", ["there", "turned"], "y", axis=-1),
    ]
    constants = {
        "first": np.array([1]),
        "zeroth": np.array([0]),
        "minus": np.array([-1]),
        "end": np.array([-1]),
        "start": np.array([-(1 << 31)]),
    }
    return Model(
        nodes,
        lambda x: [np.moveaxis(x, 1, 0), np.moveaxis(x[:, ::-1], 1, 0)],
        lambda y: y.swapaxes(0, 1),
        constants,
    )


def steps_of_steps(layer: Any, shape: Shape) -> Model:
    own = layer.layer.forward_layer
    inputs = ["x", "W", "R", "B"] if own.use_bias else ["x", "W", "R"]
    return Model(
        [node("LSTM", inputs, "y", hidden_size=own.units, direction="bidirectional")],
        lambda x: [np.moveaxis(x.reshape(-1, *x.shape[2:]), 1, 0)],
        lambda y: np.moveaxis(y, 2, 0).reshape(*shape[:3], -1),
    )


def steps_normalized(layer: Any, shape: Shape) -> Model:
    inputs = ["x", "scale", "B", "input_mean", "input_var"]
    return Model(
        [node("BatchNormalization", inputs, "y", epsilon=layer.layer.epsilon)],
        lambda x: [x.reshape(-1, shape[-1])],
        lambda y: y.reshape(shape),
    )


OPERATORS: Mapping[str, Callable[..., Model]] = {
    "Attention": attention,
    "AdditiveAttention": additive_attention,
    "GroupedQueryAttention": grouped_attention,
    "GatedGroupedQueryAttention": grouped_attention,
    "MultiHeadAttention": heads,
    "MultiHeadAttentionLinears": heads,
    "MultiHeadAttentionAxes": heads,
    "GatedMultiHeadAttention": heads,
    "RMSNormalization": rms_normalization,
    "LayerNormalizationScaled": scaled_normalization,
    "Normalization": normalization,
    "SpectralNormalization": spectral,
    "BatchNormalizationAxes": batch_axes,
    "BatchNormalizationRenorm": batch_axes,
    "STFTSpectrogram": spectrogram,
    **dict.fromkeys(("TiedEmbedding", "ReversibleEmbedding"), there_and_back),
    **{f"ConvLSTM{n}D": conv_lstm for n in (1, 2, 3)},
    **{f"LocallyConnected{n}D": locally_connected for n in (1, 2)},
    "RandomFourierFeatures": random_features,
    "Discretization": quantiles,
    "Highway": highway,
    "LayerScale": scaled_channels,
    "MaxoutDense": maxout,
    "ParametricSoftplus": parametric_softplus,
    "SReLU": s_shaped,
    **{f"{kind}Cell": cell for kind in ("SimpleRNN", "GRU", "GRUResetBefore", "LSTM")},
    "StackedCells": stacked,
    "UnlikeDirections": unlike,
    "TimeDistributedLSTM": steps_of_steps,
    "TimeDistributedNormalization": steps_normalized,
}
