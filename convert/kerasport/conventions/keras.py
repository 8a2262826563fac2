"""What Keras calls its weights and how it lays them out.

Words in braces stand for axes that the layer's own configuration names: see `kinds.Facet.axes`. The
order of a row is the order of the layer's variables, which is all that a `.weights.h5` or `.keras`
file keeps (`vars/0`, `vars/1`). Sources: the `build` methods in `keras/src/layers` of Keras 3.15,
and tf_keras 2.21 for the names of legacy files.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import POSITIONS, Case, Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
GATES = {"LSTM": "[i f c o]", "GRU": "[z r h]", "GRUResetBefore": "[z r h]", "SimpleRNN": ""}
CUDNN = {"CuDNNLSTM": "[i f c o]", "CuDNNGRU": "[z r h]"}
BIAS = Slot("bias", "out", when="use_bias")


def _gates(kind: str, axis: str) -> str:
    """A dimension that holds all gates of a recurrent layer, or the units of one without."""
    return f"({GATES[kind]} {axis})" if GATES[kind] else axis


def _recurrent(kind: str) -> tuple[Slot, ...]:
    unit = _gates(kind, "unit")
    pinned = kind != "GRU"
    return (
        Slot("kernel", f"in {unit}"),
        Slot("recurrent_kernel", f"hidden {unit}"),
        Slot(
            "bias",
            unit if pinned else f"[input recurrent] {unit}",
            at="input" if pinned else "",
            when="use_bias",
        ),
    )


def _cudnn(gates: str) -> tuple[Slot, ...]:
    """As cuDNN keeps it: each gate's matrix is `unit in`, stored in an array of shape `in unit`."""
    return (
        Slot("kernel", f"in ({gates} unit) as row ({gates} col)"),
        Slot("recurrent_kernel", f"unit ({gates} hidden)"),
        Slot("bias", f"([input recurrent] {gates} unit)"),
    )


def _convolutional(rank: int) -> tuple[Slot, ...]:
    """A step of an LSTM whose products are convolutions."""
    filters = "([i f c o] unit)"
    return (
        Slot("kernel", f"{SPATIAL[rank]} in {filters}"),
        Slot("recurrent_kernel", f"{SPATIAL[rank]} hidden {filters}"),
        Slot("bias", filters, when="use_bias"),
    )


def _bidirectional(slots: tuple[Slot, ...], child: str = "cell") -> tuple[Slot, ...]:
    return tuple(
        slot._replace(
            name=f"{direction}/{slot.name}",
            weight=slot.of,
            at=f"{slot.at} {direction}".strip(),
            child=f"{direction}_layer/{child}".rstrip("/"),
        )
        for direction in ("forward", "backward")
        for slot in slots
    )


# What a layer puts out at one step it takes in at the next.
STEP = ("hidden = unit",)
RECURRENT = {kind: _recurrent(kind) for kind in GATES}
PEEPHOLES = tuple(
    Slot(f"{gate}_gate_peephole_weights", "unit", "peephole", gate[0])
    for gate in ("input", "forget", "output")
)
PROJECTION = Slot("projection_kernel", "unit hidden", "projection")
# Of tf.keras 2.0 to 2.15: the gates see the state, the output gate the new one.
RECURRENT["LSTMPeephole"] = (*RECURRENT["LSTM"], *PEEPHOLES)
ONCE = {kind: _cudnn(gates) for kind, gates in CUDNN.items()}


def _projection(name: str, inputs: str, outputs: str) -> tuple[Slot, Slot]:
    """One of the dense layers inside an attention, each with weights of its own."""
    child = f"{name.removeprefix('attention_')}_dense"
    return (
        Slot(f"{name}/kernel", f"{inputs} {outputs}", child=child),
        Slot(f"{name}/bias", outputs, child=child, when="use_bias"),
    )


def _normalized(axes: str) -> tuple[Slot, ...]:
    return (
        Slot("gamma", axes, when="scale"),
        Slot("beta", axes, when="center"),
        Slot("moving_mean", axes, trainable=False),
        Slot("moving_variance", axes, trainable=False),
    )


ATTENTION = (
    Slot("query/kernel", "query_in head key", "kernel", "q", child="query_dense"),
    Slot("query/bias", "head key", "bias", "q", child="query_dense", when="use_bias"),
    Slot("key/kernel", "key_in head key", "kernel", "k", child="key_dense"),
    Slot("key/bias", "head key", "bias", "k", child="key_dense", when="use_bias"),
    Slot("value/kernel", "value_in head value", "kernel", "v", child="value_dense"),
    Slot("value/bias", "head value", "bias", "v", child="value_dense", when="use_bias"),
    Slot("attention_output/kernel", "head value {output}", "output", child="output_dense"),
    Slot("attention_output/bias", "{output}", "output_bias", child="output_dense", when="use_bias"),
)
GROUPED = (
    *_projection("query", "query_in", "head key"),
    *_projection("key", "key_in", "group key"),
    *_projection("value", "value_in", "group key"),
    *_projection("attention_output", "head key", "out"),
)

TABLE: Mapping[str, Row] = {
    "Dense": (Slot("kernel", "in out"), BIAS),
    **{f"Conv{n}D": (Slot("kernel", f"{k} in out"), BIAS) for n, k in SPATIAL.items()},
    **{f"Conv{n}DTranspose": (Slot("kernel", f"{k} out in"), BIAS) for n, k in SPATIAL.items()},
    **{
        f"DepthwiseConv{n}D": (
            Slot("kernel", f"{SPATIAL[n]} in mult", aliases=("depthwise_kernel",)),
            Slot("bias", "(in mult)", when="use_bias"),
        )
        for n in (1, 2)
    },
    **{
        f"SeparableConv{n}D": (
            Slot("depthwise_kernel", f"{SPATIAL[n]} in mult"),
            Slot("pointwise_kernel", f"{'1 ' * n}(in mult) out"),
            BIAS,
        )
        for n in (1, 2)
    },
    # One kernel a position of the window; `implementation=1` of tf.keras.
    **{
        f"LocallyConnected{n}D": (
            Slot("kernel", "position {window} out"),
            Slot("bias", "{bias}", when="use_bias"),
        )
        for n in (1, 2)
    },
    # `implementation=2` and 3.
    **{
        f"LocallyConnected{n}DFull": (
            Slot("kernel", "{kernel}"),
            Slot("bias", "{bias}", when="use_bias"),
        )
        for n in (1, 2)
    },
    **{
        f"LocallyConnected{n}DSparse": (
            Slot("kernel", "entry"),
            Slot("bias", "{bias}", when="use_bias"),
        )
        for n in (1, 2)
    },
    **{f"ConvLSTM{n}D": (Case(_convolutional(n), where=STEP),) for n in SPATIAL},
    # Keras 1 alone has these: `x W + b`, mixed with x by a gate; and the largest of several.
    "Highway": (
        Slot("W", "in out"),
        Slot("W_carry", "in out"),
        Slot("b", "out", when="use_bias"),
        Slot("b_carry", "out", when="use_bias"),
    ),
    "MaxoutDense": (Slot("W", "piece in out"), Slot("b", "piece out", when="use_bias")),
    "BatchNormalization": _normalized("channel"),
    "BatchNormalizationAxes": _normalized("{normalized}"),
    "BatchNormalizationRenorm": (
        *_normalized("{normalized}"),
        Slot("moving_stddev", "{normalized}", trainable=False),
        Slot("renorm_mean", "{normalized}", trainable=False),
        Slot("renorm_stddev", "{normalized}", trainable=False),
    ),
    "LayerNormalization": (
        Slot("gamma", "{normalized}", when="scale"),
        Slot("beta", "{normalized}", when="center"),
    ),
    "GroupNormalization": (
        Slot("gamma", "channel", when="scale"),
        Slot("beta", "channel", when="center"),
    ),
    # Of ConvNeXt in keras.applications, which gives the variable no name.
    "LayerScale": (Slot("gamma", "channel", aliases=("variable", "Variable")),),
    "RMSNormalization": (Slot("scale", "{normalized}"),),
    "Normalization": (
        Slot("mean", "{normalized}", trainable=False),
        Slot("variance", "{normalized}", trainable=False),
        Slot("count", "", trainable=False),
    ),
    # Beside the layer inside, whose kernel's last axis it has.
    "SpectralNormalization": (Slot("vector_u", "1 feature", trainable=False),),
    "Discretization": (Slot("summary", "[value weight] bin", trainable=False),),
    # Beside its vocabulary, where it weighs tokens by how rare they are.
    "Lookup": (Slot("idf_weights", "token", trainable=False),),
    "STFTSpectrogram": (
        Slot("real_kernel", "k 1 out", when="real"),
        Slot("imag_kernel", "k 1 out", when="imag"),
    ),
    "RandomFourierFeatures": (
        Slot("kernel_scale", "1"),
        Slot("unscaled_kernel", "in out", trainable=False),
        Slot("bias", "out", trainable=False),
    ),
    "EinsumDense": (Slot("kernel", "{kernel}"), Slot("bias", "{bias}", when="bias_axes")),
    "EinsumDenseBatched": (Slot("kernel", "{kernel}"), Slot("bias", "{bias}", when="bias_axes")),
    "Embedding": (Slot("embeddings", "token embed"),),
    "TiedEmbedding": (Slot("embeddings", "token embed"),),
    "ReversibleEmbedding": (
        Slot("embeddings", "token embed"),
        Slot("reverse_embeddings", "embed token"),
    ),
    **{f"PReLU{n}D": (Slot("alpha", axes),) for n, axes in POSITIONS.items()},
    # Of Keras 1, and in keras-contrib afterwards.
    **{
        f"ParametricSoftplus{n}D": (Slot("alphas", axes), Slot("betas", axes))
        for n, axes in POSITIONS.items()
    },
    **{
        f"SReLU{n}D": tuple(Slot(name, axes) for name in ("t_left", "a_left", "t_right", "a_right"))
        for n, axes in POSITIONS.items()
    },
    **{kind: (Case(slots, where=STEP),) for kind, slots in RECURRENT.items()},
    **{f"{kind}Cell": (Case(slots, where=STEP),) for kind, slots in RECURRENT.items()},
    # Of TensorFlow 1 alone.
    "LSTMProjected": (*RECURRENT["LSTM"], PROJECTION),
    "LSTMPeepholeProjected": (*RECURRENT["LSTMPeephole"], PROJECTION),
    **{
        f"Bidirectional{kind}": (Case(_bidirectional(slots), where=STEP),)
        for kind, slots in RECURRENT.items()
    },
    **{kind: (Case(slots, where=STEP),) for kind, slots in ONCE.items()},
    **{
        f"Bidirectional{kind}": (Case(_bidirectional(slots, ""), where=STEP),)
        for kind, slots in ONCE.items()
    },
    "MultiHeadAttention": ATTENTION,
    "GatedMultiHeadAttention": (*ATTENTION, *_projection("gate", "query_in", "head value")),
    "GroupedQueryAttention": GROUPED,
    "GatedGroupedQueryAttention": (*GROUPED, *_projection("gate", "query_in", "head key")),
    "Attention": (
        Slot("scale", "", when="use_scale"),
        Slot("concat_score_weight", "", when="concat"),
    ),
    "AdditiveAttention": (Slot("scale", "channel", when="use_scale"),),
}
