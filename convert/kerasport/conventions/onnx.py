"""What ONNX operators call their weight inputs and how they lay them out.

Source: the operator schemas of the ai.onnx domain, opset 21. A tensor is named after its operator's
input: `conv1.W`, `dense.B`, `lstm.R`. Layers without an operator of their own are the operators
that they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import CHANNEL_FIRST, Absent, Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
GATES = {
    "LSTM": "[i o f c]",
    "GRU": "[z r h]",
    "GRUResetBefore": "[z r h]",
    "SimpleRNN": "",
}


def _recurrent(kind: str) -> tuple[Slot, ...]:
    """W, R and B of the operators RNN, GRU and LSTM: num_directions is their first dimension."""
    unit = f"({GATES[kind]} unit)" if GATES[kind] else "unit"
    bias = f"([input recurrent] {GATES[kind]} unit)"
    return (
        Slot("W", f"1 {unit} in", "kernel"),
        Slot("R", f"1 {unit} hidden", "recurrent_kernel"),
        Slot("B", f"1 {bias}", "bias", fill=0.0),
    )


def _bidirectional(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    return tuple(
        slot._replace(
            layout=" as ".join(
                f"[forward backward]{part.removeprefix('1')}" for part in slot.layout.split(" as ")
            ),
        )
        for slot in slots
    )


RECURRENT = {kind: _recurrent(kind) for kind in GATES}
RECURRENT["LSTMPeephole"] = (*RECURRENT["LSTM"], Slot("P", "1 ([i o f] unit)", "peephole"))
CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}


def _cudnn(kind: str) -> tuple[Slot, ...]:
    """The same tensors, from matrices that lie as cuDNN keeps them."""
    gates = GATES[CUDNN[kind]]
    return (
        Slot("W", f"1 ({gates} unit) in as 1 ({gates} row col)", "kernel"),
        Slot("R", f"1 ({gates} unit) hidden", "recurrent_kernel"),
        Slot("B", f"1 ([input recurrent] {gates} unit)", "bias"),
    )


def _normalized(axes: str, operator: str = "") -> tuple[Slot, ...]:
    """The operator requires scale and B, where Keras may leave them out."""
    return (
        Slot(f"{operator}scale", axes, "gamma", fill=1.0, needs=()),
        Slot(f"{operator}B", axes, "beta", fill=0.0, needs=()),
        Slot(f"{operator}input_mean", axes, "moving_mean"),
        Slot(f"{operator}input_var", axes, "moving_variance"),
    )


def _product(name: str, inputs: str, outputs: str, operator: str = "") -> tuple[Slot, Slot]:
    """MatMul and Add, the dense layers inside an attention."""
    return (
        Slot(f"{operator or name}.B", f"({inputs}) ({outputs})", f"{name}/kernel"),
        Slot(f"{operator or name}.C", f"({outputs})", f"{name}/bias"),
    )


ONCE = {kind: _cudnn(kind) for kind in CUDNN}
PROJECTED = Absent(
    "this LSTM multiplies its output by a matrix before the next step takes it in (a projection), "
    "the operator LSTM does not; write it with --to torch (proj_size) or --to keras"
)
ATTENTION = (
    Slot("query.B", "query_in (head key)", "kernel", "q"),
    Slot("query.C", "(head key)", "bias", "q"),
    Slot("key.B", "key_in (head key)", "kernel", "k"),
    Slot("key.C", "(head key)", "bias", "k"),
    Slot("value.B", "value_in (head value)", "kernel", "v"),
    Slot("value.C", "(head value)", "bias", "v"),
    Slot("output.B", "(head value) ({output})", "output"),
    Slot("output.C", "({output})", "output_bias"),
)
GROUPED = (
    *_product("query", "query_in", "head key"),
    *_product("key", "key_in", "group key"),
    *_product("value", "value_in", "group key"),
    *_product("attention_output", "head key", "out", "output"),
)
MASKED = Absent(
    "this layer (implementation=2) stores a value for every input and output and masks most of "
    "them, which no operator's weights do; write it with --to keras and multiply the kernel by "
    "the mask"
)
ENTRIES = Absent(
    "this layer (implementation=3) stores the values of a sparse matrix in a row, which no "
    "operator's weights do; write it with --to keras and build a sparse tensor from it"
)

TABLE: Mapping[str, Row] = {
    # Gemm with transB=1.
    "Dense": (Slot("B", "out in", "kernel"), Slot("C", "out", "bias")),
    **{
        f"Conv{n}D": (Slot("W", f"out in {k}", "kernel"), Slot("B", "out", "bias"))
        for n, k in SPATIAL.items()
    },
    # ConvTranspose.
    **{
        f"Conv{n}DTranspose": (Slot("W", f"in out {k}", "kernel"), Slot("B", "out", "bias"))
        for n, k in SPATIAL.items()
    },
    # Conv with group = in.
    **{
        f"DepthwiseConv{n}D": (
            Slot("W", f"(in mult) 1 {SPATIAL[n]}", "kernel"),
            Slot("B", "(in mult)", "bias"),
        )
        for n in (1, 2)
    },
    **{
        f"SeparableConv{n}D": (
            Slot("depthwise.W", f"(in mult) 1 {SPATIAL[n]}", "depthwise_kernel"),
            Slot("pointwise.W", f"out (in mult){' 1' * n}", "pointwise_kernel"),
            Slot("pointwise.B", "out", "bias"),
        )
        for n in (1, 2)
    },
    # Conv with a group a position, of the windows side by side.
    "LocallyConnected1D": (
        Slot("W", "(position out) (in k) 1", "kernel"),
        Slot("B", "(position out)", "bias"),
    ),
    "LocallyConnected2D": (
        Slot("W", "(position out) (in kh kw) 1", "kernel"),
        Slot("B", "(row column out)", "bias"),
    ),
    **{f"LocallyConnected{n}DFull": MASKED for n in (1, 2)},
    **{f"LocallyConnected{n}DSparse": ENTRIES for n in (1, 2)},
    # Conv of the input and Conv of the step before.
    **{
        f"ConvLSTM{n}D": (
            Slot("input.W", f"([i f c o] unit) in {k}", "kernel"),
            Slot("input.B", "([i f c o] unit)", "bias"),
            Slot("recurrent.W", f"([i f c o] unit) hidden {k}", "recurrent_kernel"),
        )
        for n, k in SPATIAL.items()
    },
    # Gemm with transB=1.
    "Highway": (
        Slot("linear.B", "out in", "W"),
        Slot("linear.C", "out", "b"),
        Slot("carry.B", "out in", "W_carry"),
        Slot("carry.C", "out", "b_carry"),
    ),
    "MaxoutDense": (Slot("B", "(piece out) in", "W"), Slot("C", "(piece out)", "b")),
    "BatchNormalization": _normalized("channel"),
    # BatchNormalization of all normalized axes as one.
    "BatchNormalizationAxes": _normalized("({normalized})"),
    # BatchNormalization, and the statistics that only training uses.
    "BatchNormalizationRenorm": (
        *_normalized("({normalized})"),
        Slot("moving_stddev", "({normalized})"),
        Slot("renorm_mean", "({normalized})"),
        Slot("renorm_stddev", "({normalized})"),
    ),
    "LayerNormalization": (
        Slot("Scale", "{normalized}", "gamma", fill=1.0, needs=("gamma", "beta")),
        Slot("B", "{normalized}", "beta"),
    ),
    "GroupNormalization": (
        Slot("scale", "channel", "gamma", fill=1.0, needs=("gamma", "beta")),
        Slot("bias", "channel", "beta", fill=0.0, needs=("gamma", "beta")),
    ),
    # Mul.
    "LayerScale": (Slot("gamma", "channel"),),
    # RMSNormalization, of opset 23.
    "RMSNormalization": (Slot("scale", "{normalized}"),),
    # Sub and Div by the root.
    "Normalization": (
        Slot("mean", "{normalized}"),
        Slot("variance", "{normalized}"),
        Slot("count", ""),
    ),
    "SpectralNormalization": (Slot("vector_u", "1 feature"),),
    "Discretization": (Slot("summary", "[value weight] bin"),),
    # Conv over single channels.
    "STFTSpectrogram": (
        Slot("real.W", "out 1 k", "real_kernel"),
        Slot("imag.W", "out 1 k", "imag_kernel"),
    ),
    # Div, Gemm with transB=1, Cos.
    "RandomFourierFeatures": (
        Slot("kernel_scale", "1"),
        Slot("B", "out in", "unscaled_kernel"),
        Slot("C", "out", "bias"),
    ),
    # Einsum takes the kernel as Keras has it, and Add the bias.
    "EinsumDense": (Slot("Inputs.1", "{kernel}", "kernel"), Slot("B", "{bias}", "bias")),
    "EinsumDenseBatched": (Slot("Inputs.1", "{kernel}", "kernel"), Slot("B", "{bias}", "bias")),
    # Gather.
    "Embedding": (Slot("data", "token embed", "embeddings"),),
    # Gather, and MatMul on the way back: of the same, transposed, or of another matrix.
    "TiedEmbedding": (Slot("data", "token embed", "embeddings"),),
    "ReversibleEmbedding": (
        Slot("data", "token embed", "embeddings"),
        Slot("reverse.B", "embed token", "reverse_embeddings"),
    ),
    # An attribute of TfIdfVectorizer, whose other attributes are the vocabulary.
    "Lookup": (Slot("weights", "token", "idf_weights"),),
    # PRelu broadcasts its slope against `channel height width`.
    **{f"PReLU{n}D": (Slot("slope", axes, "alpha"),) for n, axes in CHANNEL_FIRST.items()},
    # Mul, Softplus, Mul.
    **{
        f"ParametricSoftplus{n}D": (Slot("alpha", axes, "alphas"), Slot("beta", axes, "betas"))
        for n, axes in CHANNEL_FIRST.items()
    },
    # Clip of what is moved by the left threshold, and PRelu-like slopes on both sides of it.
    **{
        f"SReLU{n}D": tuple(Slot(name, axes) for name in ("t_left", "a_left", "t_right", "a_right"))
        for n, axes in CHANNEL_FIRST.items()
    },
    **RECURRENT,
    **{f"{kind}Cell": slots for kind, slots in RECURRENT.items()},
    **{f"Bidirectional{kind}": _bidirectional(slots) for kind, slots in RECURRENT.items()},
    "LSTMProjected": PROJECTED,
    "LSTMPeepholeProjected": PROJECTED,
    **ONCE,
    **{f"Bidirectional{kind}": _bidirectional(slots) for kind, slots in ONCE.items()},
    # MatMul and Add around com.microsoft- or ai.onnx Attention, which itself has no weights.
    "MultiHeadAttention": ATTENTION,
    "GatedMultiHeadAttention": (*ATTENTION, *_product("gate", "query_in", "head value")),
    "GroupedQueryAttention": GROUPED,
    "GatedGroupedQueryAttention": (*GROUPED, *_product("gate", "query_in", "head key")),
    # Mul of the scores, or of their tanh.
    "Attention": (Slot("scale", ""), Slot("concat_score_weight", "")),
    "AdditiveAttention": (Slot("scale", "channel"),),
}
