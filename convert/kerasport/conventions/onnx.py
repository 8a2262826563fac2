"""What ONNX operators call their weight inputs and how they lay them out.

Source: the operator schemas of the ai.onnx domain, opset 21. A tensor is named after its operator's
input: `conv1.W`, `dense.B`, `lstm.R`. Layers without an operator of their own are the operators
that they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kerasport.conventions import Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
GATES = {
    "LSTM": "[i o f c]",
    "GRU": "[z r h]",
    "GRUResetBefore": "[z r h]",
    "SimpleRNN": "",
}
CHANNEL_FIRST = {
    1: "channel",
    2: "channel length",
    3: "channel height width",
    4: "channel depth height width",
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
        replace(slot, layout=f"[forward backward]{slot.layout.removeprefix('1')}") for slot in slots
    )


RECURRENT = {kind: _recurrent(kind) for kind in GATES}

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
    # The operators require scale and B, where Keras may leave them out.
    "BatchNormalization": (
        Slot("scale", "channel", "gamma", fill=1.0, needs=()),
        Slot("B", "channel", "beta", fill=0.0, needs=()),
        Slot("input_mean", "channel", "moving_mean"),
        Slot("input_var", "channel", "moving_variance"),
    ),
    "LayerNormalization": (
        Slot("Scale", "{normalized}", "gamma", fill=1.0, needs=("gamma", "beta")),
        Slot("B", "{normalized}", "beta"),
    ),
    "GroupNormalization": (
        Slot("scale", "channel", "gamma", fill=1.0, needs=("gamma", "beta")),
        Slot("bias", "channel", "beta", fill=0.0, needs=("gamma", "beta")),
    ),
    # Einsum takes the kernel as Keras has it, and Add the bias.
    "EinsumDense": (Slot("Inputs.1", "{kernel}", "kernel"), Slot("B", "{bias}", "bias")),
    "EinsumDenseBatched": (Slot("Inputs.1", "{kernel}", "kernel"), Slot("B", "{bias}", "bias")),
    # Gather.
    "Embedding": (Slot("data", "token embed", "embeddings"),),
    # PRelu broadcasts its slope against `channel height width`.
    **{f"PReLU{n}D": (Slot("slope", axes, "alpha"),) for n, axes in CHANNEL_FIRST.items()},
    **RECURRENT,
    **{f"{kind}Cell": slots for kind, slots in RECURRENT.items()},
    **{f"Bidirectional{kind}": _bidirectional(slots) for kind, slots in RECURRENT.items()},
    # MatMul and Add around com.microsoft- or ai.onnx Attention, which itself has no weights.
    "MultiHeadAttention": (
        Slot("query.B", "query_in (head key)", "kernel", "q"),
        Slot("query.C", "(head key)", "bias", "q"),
        Slot("key.B", "key_in (head key)", "kernel", "k"),
        Slot("key.C", "(head key)", "bias", "k"),
        Slot("value.B", "value_in (head value)", "kernel", "v"),
        Slot("value.C", "(head value)", "bias", "v"),
        Slot("output.B", "(head value) out", "output"),
        Slot("output.C", "out", "output_bias"),
    ),
}
