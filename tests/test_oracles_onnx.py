"""Keras's forward pass equals ONNX operators' with the exported initializers, layer by layer.

Every model here is the operators that a layer is made of and the exported tensors under their
names; it runs in ONNX Runtime and in ONNX's own reference evaluator, which are two readings of the
same specification. Attributes come from the Keras layer's options and the shape of its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info
from onnx.reference import ReferenceEvaluator

import onnx_references
import oracles
from kerasport.conventions import Absent, convention, rows
from kerasport.errors import UnsupportedError
from kerasport.variants import plain
from onnx_references import Model, channels_first, channels_last, node, window
from oracles import GRID, TOLERANCE, Array, Built, Trial, deviation

# What no operator has weights for; the table must say so, and why.
ABSENT = {
    "LocallyConnectedFull": "multiply the kernel by the mask",
    "LocallyConnectedSparse": "build a sparse tensor",
}
TRIALS = [trial for trial in GRID if trial.family not in ABSENT]


def dense(layer: Any, shape: Sequence[int]) -> Model:
    own = getattr(layer, "layer", layer)
    inputs = ["x", "B", "C"] if own.use_bias else ["x", "B"]
    return Model(
        [node("Gemm", inputs, "y", transB=1)],
        lambda x: [x.reshape(-1, shape[-1])],
        lambda y: y.reshape(*shape[:-1], -1),
    )


def conv(layer: Any, shape: Sequence[int]) -> Model:
    inputs = ["x", "W", "B"] if layer.use_bias else ["x", "W"]
    return Model(
        [node("Conv", inputs, "y", group=layer.groups, **window(layer, shape))],
        channels_first,
        channels_last,
    )


def transposed(layer: Any, shape: Sequence[int]) -> Model:
    sizes = layer.compute_output_shape(tuple(shape))[1:-1]
    starts, ends, more = [], [], []
    for n, s, k, size in zip(shape[1:-1], layer.strides, layer.kernel_size, sizes, strict=True):
        full = (n - 1) * s + k
        extra = max(size - full, 0)
        crop = max(full - size, 0)
        start = crop // 2 if layer.padding == "same" else 0
        starts.append(start)
        ends.append(crop - start)
        more.append(extra)
    return Model(
        [
            node(
                "ConvTranspose",
                ["x", "W", "B"] if layer.use_bias else ["x", "W"],
                "y",
                strides=list(layer.strides),
                pads=starts + ends,
                output_padding=more,
            )
        ],
        channels_first,
        channels_last,
    )


def depthwise(layer: Any, shape: Sequence[int]) -> Model:
    inputs = ["x", "W", "B"] if layer.use_bias else ["x", "W"]
    return Model(
        [node("Conv", inputs, "y", group=shape[-1], **window(layer, shape))],
        channels_first,
        channels_last,
    )


def separable(layer: Any, shape: Sequence[int]) -> Model:
    point = ["h", "pointwise.W", *(["pointwise.B"] if layer.use_bias else [])]
    around = window(layer, shape)
    return Model(
        [
            node("Conv", ["x", "depthwise.W"], "h", group=shape[-1], **around),
            node("Conv", point, "y"),
        ],
        channels_first,
        channels_last,
    )


def batch_normalization(layer: Any, shape: Sequence[int]) -> Model:
    inputs = ["x", "scale", "B", "input_mean", "input_var"]
    return Model(
        [node("BatchNormalization", inputs, "y", epsilon=layer.epsilon)],
        lambda x: [np.moveaxis(x, layer.axis, 1)],
        lambda y: np.moveaxis(y, 1, layer.axis),
    )


def layer_normalization(layer: Any, shape: Sequence[int]) -> Model:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    inputs = ["x", "Scale", "B"] if layer.center else ["x", "Scale"]
    # The operator wants a scale even where the layer has no weights at all.
    ones = {} if layer.scale or layer.center else {"Scale": np.ones([shape[a] for a in axes], "f4")}
    axis = min(a % len(shape) for a in axes)
    return Model(
        [node("LayerNormalization", inputs, "y", axis=axis, epsilon=layer.epsilon)],
        constants=ones,
    )


def group_normalization(layer: Any, shape: Sequence[int]) -> Model:
    affine = layer.scale or layer.center
    n = shape[-1]
    constants = {} if affine else {"scale": np.ones(n, "f4"), "bias": np.zeros(n, "f4")}
    return Model(
        [
            node(
                "GroupNormalization",
                ["x", "scale", "bias"],
                "y",
                epsilon=layer.epsilon,
                num_groups=n if layer.groups == -1 else layer.groups,
            )
        ],
        channels_first,
        channels_last,
        constants,
    )


def embedding(layer: Any, shape: Sequence[int]) -> Model:
    return Model([node("Gather", ["data", "x"], "y")])


def prelu(layer: Any, shape: Sequence[int]) -> Model:
    return Model([node("PRelu", ["x", "slope"], "y")], channels_first, channels_last)


def recurrent(layer: Any, shape: Sequence[int]) -> Model:
    both = hasattr(layer, "merge_mode")
    own = layer.forward_layer if both else layer
    own = own.cell if type(own).__name__ == "RNN" else own
    name = type(own).__name__.removesuffix("Cell").removeprefix("CuDNN")
    extra: dict[str, Any] = {}
    if name == "SimpleRNN":
        extra["activations"] = [own.activation.__name__.title()] * (2 if both else 1)
    if name == "GRU":
        extra["linear_before_reset"] = int(getattr(own, "reset_after", True))
    back = getattr(layer, "go_backwards", False)
    inputs = ["x", "W", "R", "B"] if getattr(own, "use_bias", True) else ["x", "W", "R"]

    def after(y: Array) -> Array:  # time, direction, batch, unit
        y = np.moveaxis(y, 2, 0)
        if back:
            y = y[:, ::-1]
        if both and layer.merge_mode != "concat":
            a, b = y[:, :, 0], y[:, :, 1]
            return {"sum": a + b, "ave": (a + b) / 2, "mul": a * b}[layer.merge_mode]
        return y.reshape(*y.shape[:2], -1)

    return Model(
        [
            node(
                {"SimpleRNN": "RNN"}.get(name, name),
                inputs,
                "y",
                hidden_size=own.units,
                direction="bidirectional" if both else "reverse" if back else "forward",
                **extra,
            )
        ],
        lambda x: [np.moveaxis(x, 1, 0)],
        after,
    )


def distributed(layer: Any, shape: Sequence[int]) -> Model:
    steps = conv(layer.layer, shape[1:])
    return Model(
        steps.nodes,
        lambda x: channels_first(x.reshape(-1, *shape[2:])),
        lambda y: channels_last(y).reshape(*shape[:2], *channels_last(y).shape[1:]),
    )


def einsum(layer: Any, shape: Sequence[int]) -> Model:
    biased = bool(layer.bias_axes)
    output = "plain" if biased else "y"
    nodes = [node("Einsum", ["x", "Inputs.1"], output, equation=layer.equation)]
    if biased:
        nodes.append(node("Add", ["plain", "B"], "y"))
    return Model(nodes)


CUDNN = ("CuDNNGRU", "CuDNNLSTM")
OPERATORS: Mapping[str, Callable[..., Model]] = {
    "Dense": dense,
    **{f"Conv{n}D": conv for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": transposed for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": separable for n in (1, 2)},
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "Embedding": embedding,
    "PReLU": prelu,
    "PReLUPerPosition": prelu,
    "PReLUShared": prelu,
    **{f"{b}{kind}": recurrent for b in ("", "Bidirectional") for kind in oracles.AROUND},
    "TimeDistributedConv": distributed,
    **{f"{b}{kind}": recurrent for b in ("", "Bidirectional") for kind in CUDNN},
    "EinsumDense": einsum,
    "EinsumDenseBatched": einsum,
    **onnx_references.OPERATORS,
}


def onnx_outputs(trial: Trial, built: Built) -> dict[str, Array]:
    """What ONNX Runtime and the reference evaluator put out with the exported initializers."""
    shapes = [x.shape for x in built.inputs]
    model = OPERATORS[trial.family](built.layer, *(shapes if len(shapes) > 1 else shapes[:1]))
    exported = oracles.exported(built.layer, "onnx")
    made = {name for n in model.nodes for name in n.output}
    wanted = {name for n in model.nodes for name in n.input if name} - made | model.unused
    feeds = dict(zip(("x", "x1", "x2"), model.before(*built.inputs), strict=False))
    feeds = {name: np.ascontiguousarray(x) for name, x in feeds.items()}
    assert exported.keys() == wanted - feeds.keys() - model.constants.keys()
    initializers = [
        onnx.numpy_helper.from_array(np.asarray(x), name)
        for name, x in {**exported, **model.constants}.items()
    ]
    proto = make_model(
        make_graph(
            model.nodes,
            "trial",
            [
                make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
                for name, x in feeds.items()
            ],
            [make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            initializers,
        ),
        opset_imports=[make_opsetid("", model.opset)],
        ir_version=10,
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString(), _quiet())
    found = {"runtime": session.run(None, feeds)[0]}
    if "relu" not in trial.label:  # the reference evaluator of onnx 1.23 has no RNN with Relu
        found["reference"] = ReferenceEvaluator(proto).run(None, feeds)[0]
    return {name: model.after(y) for name, y in found.items()}


def _quiet() -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    return settings


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_onnx_puts_out_what_keras_does(trial: Trial) -> None:
    """A wrong sentence, name or synthesised value would put out other numbers."""
    built = trial.build()
    for evaluator, y in onnx_outputs(trial, built).items():
        assert deviation(y, built.output) < TOLERANCE, evaluator


@pytest.mark.parametrize("trial", [t for t in GRID if t.family in ABSENT], ids=str)
def test_what_no_operator_holds_is_refused_with_its_reason(trial: Trial) -> None:
    """Weights of which most do not count must not be written as if all did."""
    layer = trial.build().layer
    with pytest.raises(UnsupportedError, match=ABSENT[trial.family]):
        oracles.exported(layer, "onnx")


SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
# One slip for each family: the trial on which it must show, the row and the wrong sentences.
SLIPS: list[tuple[str, str, dict[str, str]]] = [
    ("Dense-5,5,bias,rank=2", "Dense", {"B": "in out"}),
    *[
        (
            f"Conv{n}D-square,strides=1,padding=valid,groups=1,bias",
            f"Conv{n}D",
            {"W": f"in out {k}"},
        )
        for n, k in SPATIAL.items()
    ],
    ("Conv2D-square,strides=1,padding=same,groups=2,bias", "Conv2D", {"W": "out in kw kh"}),
    *[
        (
            f"Conv{n}DTranspose-square,strides=2,padding=same,bias",
            f"Conv{n}DTranspose",
            {"W": f"out in {k}"},
        )
        for n, k in SPATIAL.items()
    ],
    *[
        (
            f"{name}Conv{n}D-square,mult=3,strides=1,padding=valid,bias",
            f"{name}Conv{n}D",
            {slot: f"(mult in) 1 {SPATIAL[n]}"},
        )
        for n in (1, 2)
        for name, slot in (("Depthwise", "W"), ("Separable", "depthwise.W"))
    ],
    (
        "BatchNormalization-scale,center,epsilon=0.001,rank=2",
        "BatchNormalization",
        {"input_var": "-channel"},
    ),
    (
        "LayerNormalization-axis=-1,scale,center,epsilon=0.001",
        "LayerNormalization",
        {"Scale": "-channel"},
    ),
    (
        "GroupNormalization-groups=2,scale,center,rank=3",
        "GroupNormalization",
        {"scale": "-channel"},
    ),
    ("Embedding-5,5,rank=1", "Embedding", {"data": "embed token"}),
    (
        "PReLUPerPosition-shared_axes=(),rank=3,channels=3",
        "PReLU2D",
        {"slope": "length channel"},
    ),
    ("SimpleRNN-SimpleRNN,5,5,bias,no_go_backwards", "SimpleRNN", {"R": "1 hidden unit"}),
    ("GRU-GRU,5,5,bias,no_go_backwards", "GRU", {"W": "1 ([r z h] unit) in"}),
    ("GRU-GRU,5,5,bias,no_go_backwards", "GRU", {"B": "1 ([recurrent input] [z r h] unit)"}),
    (
        "GRUResetBefore-GRUResetBefore,5,5,bias,no_go_backwards",
        "GRUResetBefore",
        {"R": "1 ([r z h] unit) hidden"},
    ),
    ("LSTM-LSTM,5,5,bias,no_go_backwards", "LSTM", {"W": "1 ([i f c o] unit) in"}),
    ("LSTM-LSTM,5,5,bias,no_go_backwards", "LSTM", {"B": "1 ([input recurrent] [i o c f] unit)"}),
    *[
        (
            f"Bidirectional{kind}-{kind},5,5,bias,merge=concat",
            f"Bidirectional{kind}",
            {"W": f"[backward forward] {unit} in", "R": f"[backward forward] {unit} hidden"},
        )
        for kind, unit in (
            ("SimpleRNN", "unit"),
            ("GRU", "([z r h] unit)"),
            ("GRUResetBefore", "([z r h] unit)"),
            ("LSTM", "([i o f c] unit)"),
        )
    ],
    ("TimeDistributedConv-1,5,5,bias", "Conv1D", {"W": "in out k"}),
    ("MultiHeadAttention-2,2,bias", "MultiHeadAttention", {"query.B": "(head key) query_in"}),
    ("MultiHeadAttention-2,2,bias", "MultiHeadAttention", {"value.B": "value_in (value head)"}),
    (
        "EinsumDense-abc,dce->abde,bias=de,shape=(None,7,7)",
        "EinsumDense",
        {"Inputs.1": "in_c out_d out_e"},
    ),
    (
        "EinsumDenseBatched-abc,bcd->abd,bias=bd,shape=(3,3)",
        "EinsumDenseBatched",
        {"Inputs.1": "in_c batch_b out_d"},
    ),
    ("AdditiveAttention-scaled", "AdditiveAttention", {"scale": "-channel"}),
    (
        "GroupedQueryAttention-2,2,1,2,2,2,bias",
        "GroupedQueryAttention",
        {"query.B": "query_in (key head)"},
    ),
    (
        "GatedGroupedQueryAttention-2,2,1,2,2,2,bias",
        "GatedGroupedQueryAttention",
        {"gate.B": "query_in (key head)"},
    ),
    (
        "GatedMultiHeadAttention-3,3,3,3,None,bias",
        "GatedMultiHeadAttention",
        {"gate.B": "query_in (value head)"},
    ),
    ("RMSNormalization-axis=-1,epsilon=1e-06", "RMSNormalization", {"scale": "-channel"}),
    ("Normalization-axis=-1,no_invert", "Normalization", {"mean": "-channel"}),
    (
        "BatchNormalizationAxes-axis=[1,3],scale,center",
        "BatchNormalizationAxes",
        {"input_mean": "(axis_3 axis_1)"},
    ),
    (
        "BatchNormalizationRenorm-axis=[1,3],scale,center",
        "BatchNormalizationRenorm",
        {"input_var": "(axis_3 axis_1)"},
    ),
    ("STFTSpectrogram-stft,padding=valid", "STFTSpectrogram", {"imag.W": "out 1 -k"}),
    (
        "ReversibleEmbedding-Reversible,5,5,no_tied",
        "ReversibleEmbedding",
        {"reverse.B": "token embed"},
    ),
    ("TiedEmbedding-Reversible,5,5,tied", "TiedEmbedding", {"data": "embed token"}),
    *[
        (
            f"ConvLSTM{n}D-square,bias",
            f"ConvLSTM{n}D",
            {"recurrent.W": f"([i f c o] hidden) unit {k}"},
        )
        for n, k in SPATIAL.items()
    ],
    *[
        (
            f"LocallyConnected{n}D-square,channels_last,strides=1,bias",
            f"LocallyConnected{n}D",
            {"W": f"(position out) ({SPATIAL[n]} in) 1"},
        )
        for n in (1, 2)
    ],
    ("RandomFourierFeatures-gaussian", "RandomFourierFeatures", {"C": "-out"}),
    ("Discretization-bins", "Discretization", {"summary": "[weight value] bin"}),
    ("LayerScale-image", "LayerScale", {"gamma": "-channel"}),
    (
        "ParametricSoftplus-rank=2,shared_axes=()",
        "ParametricSoftplus1D",
        {"alpha": "-channel"},
    ),
    ("SReLU-rank=2,shared_axes=()", "SReLU1D", {"t_right": "-channel"}),
    ("Highway-5,bias", "Highway", {"carry.B": "in out"}),
    ("MaxoutDense-3,3,3,bias", "MaxoutDense", {"B": "(out piece) in"}),
    ("CuDNNLSTM-5,5", "CuDNNLSTM", {"W": "1 ([i f c o] unit) in as 1 ([i f c o] row col)"}),
    ("CuDNNGRU-5,5", "CuDNNGRU", {"R": "1 ([r z h] unit) hidden"}),
    *[
        (
            f"Bidirectional{kind}-5,5",
            f"Bidirectional{kind}",
            {"R": f"[backward forward] ({gates} unit) hidden"},
        )
        for kind, gates in (("CuDNNLSTM", "[i o f c]"), ("CuDNNGRU", "[z r h]"))
    ],
    ("SimpleRNNCell-5,5,bias", "SimpleRNNCell", {"R": "1 hidden unit"}),
    ("GRUCell-5,5,bias", "GRUCell", {"W": "1 ([r z h] unit) in"}),
    ("GRUResetBeforeCell-5,5,bias", "GRUResetBeforeCell", {"W": "1 ([r z h] unit) in"}),
    ("LSTMCell-5,5,bias", "LSTMCell", {"W": "1 ([i f c o] unit) in"}),
    ("StackedCells-three,bias", "LSTM", {"R": "1 ([i o f c] hidden) unit"}),
    ("UnlikeDirections-bias", "GRU", {"R": "1 ([r z h] unit) hidden"}),
]
# What has no order to be wrong about, or is not used outside of training.
UNSLIPPED = {"Attention", "SpectralNormalization"}


@pytest.mark.parametrize(
    ("name", "kind", "sentences"), SLIPS, ids=[f"{s[1]}-{s[2]}" for s in SLIPS]
)
def test_a_wrong_sentence_puts_out_other_numbers(
    name: str, kind: str, sentences: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the oracle: a slip in the table that keeps every shape must be seen."""
    (trial,) = (trial for trial in GRID if str(trial) == name)
    built = trial.build()
    monkeypatch.setitem(convention("onnx"), kind, oracles.misread("onnx", kind, sentences))
    for evaluator, y in onnx_outputs(trial, built).items():
        assert deviation(y, built.output) > 1e-2, evaluator


def test_every_kind_of_the_tables_is_on_trial() -> None:
    """A kind without an oracle would be a claim without proof.

    Those of quantized layers, low-rank factors, lookups and peepholes are in test_quantized.py,
    test_lora.py, test_lookups.py and test_peepholes.py.
    """
    elsewhere = {
        *("Lookup", "LSTMPeephole", "LSTMPeepholeCell", "BidirectionalLSTMPeephole"),
        *("LSTMProjected", "LSTMPeepholeProjected"),
    }
    tried = Counter(x.kind for t in GRID for x in oracles.snapshot(t.build().layer).layers)
    assert set(convention("keras")) == set(convention("onnx"))
    assert {*tried} | elsewhere == {kind for kind in convention("keras") if plain(kind) == kind}
    absent = {
        kind
        for kind, row in convention("onnx").items()
        if all(isinstance(case.slots, Absent) for case in rows(row))
    }
    families = {kind.rstrip("1234D") for kind in tried if kind and kind not in absent}
    assert families == {kind.rstrip("1234D") for _, kind, _ in SLIPS} | UNSLIPPED
    assert len(TRIALS) > 1100
