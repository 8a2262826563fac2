"""What Keras calls its weights and how it lays them out.

Words in braces stand for axes that the layer's own configuration names: see `kinds.Facet.axes`. The
order of a row is the order of the layer's variables, which is all that a `.weights.h5` or `.keras`
file keeps (`vars/0`, `vars/1`). Sources: the `build` methods in `keras/src/layers` of Keras 3.15,
and tf_keras 2.21 for the names of legacy files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kerasport.conventions import Case, Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
GATES = {"LSTM": "[i f c o]", "GRU": "[z r h]", "GRUResetBefore": "[z r h]", "SimpleRNN": ""}
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


def _bidirectional(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    return tuple(
        replace(
            slot,
            name=f"{direction}/{slot.name}",
            weight=slot.of,
            at=f"{slot.at} {direction}".strip(),
            child=f"{direction}_layer/cell",
        )
        for direction in ("forward", "backward")
        for slot in slots
    )


# What a layer puts out at one step it takes in at the next.
STEP = ("hidden = unit",)
RECURRENT = {kind: _recurrent(kind) for kind in GATES}

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
    "BatchNormalization": (
        Slot("gamma", "channel", when="scale"),
        Slot("beta", "channel", when="center"),
        Slot("moving_mean", "channel", trainable=False),
        Slot("moving_variance", "channel", trainable=False),
    ),
    "LayerNormalization": (
        Slot("gamma", "{normalized}", when="scale"),
        Slot("beta", "{normalized}", when="center"),
    ),
    "GroupNormalization": (
        Slot("gamma", "channel", when="scale"),
        Slot("beta", "channel", when="center"),
    ),
    "EinsumDense": (Slot("kernel", "{kernel}"), Slot("bias", "{bias}", when="bias_axes")),
    "EinsumDenseBatched": (Slot("kernel", "{kernel}"), Slot("bias", "{bias}", when="bias_axes")),
    "Embedding": (Slot("embeddings", "token embed"),),
    "PReLU1D": (Slot("alpha", "channel"),),
    "PReLU2D": (Slot("alpha", "length channel"),),
    "PReLU3D": (Slot("alpha", "height width channel"),),
    "PReLU4D": (Slot("alpha", "depth height width channel"),),
    **{kind: (Case(slots, where=STEP),) for kind, slots in RECURRENT.items()},
    **{f"{kind}Cell": (Case(slots, where=STEP),) for kind, slots in RECURRENT.items()},
    **{
        f"Bidirectional{kind}": (Case(_bidirectional(slots), where=STEP),)
        for kind, slots in RECURRENT.items()
    },
    "MultiHeadAttention": (
        Slot("query/kernel", "query_in head key", "kernel", "q", child="query_dense"),
        Slot("query/bias", "head key", "bias", "q", child="query_dense", when="use_bias"),
        Slot("key/kernel", "key_in head key", "kernel", "k", child="key_dense"),
        Slot("key/bias", "head key", "bias", "k", child="key_dense", when="use_bias"),
        Slot("value/kernel", "value_in head value", "kernel", "v", child="value_dense"),
        Slot("value/bias", "head value", "bias", "v", child="value_dense", when="use_bias"),
        Slot("attention_output/kernel", "head value out", "output", child="output_dense"),
        Slot("attention_output/bias", "out", "output_bias", child="output_dense", when="use_bias"),
    ),
}
