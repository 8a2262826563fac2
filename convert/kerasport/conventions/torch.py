"""What `torch.nn` calls its parameters and how it lays them out.

Source: the documentation of each module's `Variables` in torch.nn, PyTorch 2.13. Where Keras has a
layer and `torch.nn` has none, the tensors are those of the standard modules that it is made of: a
separable convolution is two convolutions, an attention layer whose heads do not add up to the
embedding is four `nn.Linear`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kerasport.conventions import Absent, Case, Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
GATES = {"LSTM": "[i f c o]", "GRU": "[r z h]", "SimpleRNN": ""}
BIAS = Slot("bias", "out")
AFFINE = ("gamma", "beta")


def _recurrent(kind: str) -> tuple[Slot, ...]:
    unit = f"({GATES[kind]} unit)" if GATES[kind] else "unit"
    return (
        Slot("weight_ih_l0", f"{unit} in", "kernel"),
        Slot("weight_hh_l0", f"{unit} hidden", "recurrent_kernel"),
        Slot("bias_ih_l0", unit, "bias", "input"),
        Slot("bias_hh_l0", unit, "bias", "recurrent", fill=0.0),
    )


def _cell(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """A cell has the parameters of its layer, without the number of the layer."""
    return tuple(replace(slot, name=slot.name.removesuffix("_l0")) for slot in slots)


def _bidirectional(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    return tuple(
        replace(slot, name=slot.name + suffix, at=f"{slot.at} {direction}".strip())
        for direction, suffix in (("forward", ""), ("backward", "_reverse"))
        for slot in slots
    )


RECURRENT = {kind: _recurrent(kind) for kind in GATES}
RESET_BEFORE = Absent(
    "torch.nn.GRU applies the reset gate after the recurrent product, this layer (reset_after="
    "False) before it; write it with --to keras, or as ONNX (linear_before_reset=0)"
)
PER_POSITION = Absent(
    "torch.nn.PReLU holds one slope per channel, this layer one per position; train it with "
    "shared_axes, or write it with --to keras or --to onnx"
)

TABLE: Mapping[str, Row] = {
    "Dense": (Slot("weight", "out in", "kernel"), BIAS),
    **{f"Conv{n}D": (Slot("weight", f"out in {k}", "kernel"), BIAS) for n, k in SPATIAL.items()},
    **{
        f"Conv{n}DTranspose": (Slot("weight", f"in out {k}", "kernel"), BIAS)
        for n, k in SPATIAL.items()
    },
    **{
        f"DepthwiseConv{n}D": (
            Slot("weight", f"(in mult) 1 {SPATIAL[n]}", "kernel"),
            Slot("bias", "(in mult)"),
        )
        for n in (1, 2)
    },
    **{
        f"SeparableConv{n}D": (
            Slot("depthwise.weight", f"(in mult) 1 {SPATIAL[n]}", "depthwise_kernel"),
            Slot("pointwise.weight", f"out (in mult){' 1' * n}", "pointwise_kernel"),
            Slot("pointwise.bias", "out", "bias"),
        )
        for n in (1, 2)
    },
    "BatchNormalization": (
        Slot("weight", "channel", "gamma", fill=1.0, needs=AFFINE),
        Slot("bias", "channel", "beta", fill=0.0, needs=AFFINE),
        Slot("running_mean", "channel", "moving_mean"),
        Slot("running_var", "channel", "moving_variance"),
        Slot("num_batches_tracked", "", fill=0, needs=(), dtype="i64"),
    ),
    "LayerNormalization": (
        Slot("weight", "{normalized}", "gamma", fill=1.0, needs=AFFINE),
        Slot("bias", "{normalized}", "beta"),
    ),
    "GroupNormalization": (
        Slot("weight", "channel", "gamma", fill=1.0, needs=AFFINE),
        Slot("bias", "channel", "beta", fill=0.0, needs=AFFINE),
    ),
    "EinsumDense": (
        Slot("weight", "({outputs}) ({inputs})", "kernel"),
        Slot("bias", "({outputs})"),
    ),
    "EinsumDenseBatched": Absent(
        "torch.nn.Linear holds one matrix for all positions and adds one bias per output, the "
        "equation of this layer asks for more; write it with --to keras and use torch.einsum"
    ),
    "Embedding": (Slot("weight", "token embed", "embeddings"),),
    "PReLU1D": (Slot("weight", "channel", "alpha"),),
    "PReLU2D": (
        Case((Slot("weight", "(length channel)", "alpha"),), where=("length = 1",)),
        Case(PER_POSITION),
    ),
    "PReLU3D": (
        Case((Slot("weight", "(height width channel)", "alpha"),), where=("height width = 1",)),
        Case(PER_POSITION),
    ),
    "PReLU4D": (
        Case(
            (Slot("weight", "(depth height width channel)", "alpha"),),
            where=("depth height width = 1",),
        ),
        Case(PER_POSITION),
    ),
    **RECURRENT,
    "GRUResetBefore": RESET_BEFORE,
    **{f"{kind}Cell": _cell(slots) for kind, slots in RECURRENT.items()},
    "GRUResetBeforeCell": RESET_BEFORE,
    **{f"Bidirectional{kind}": _bidirectional(slots) for kind, slots in RECURRENT.items()},
    "BidirectionalGRUResetBefore": RESET_BEFORE,
    "MultiHeadAttention": (
        Case(
            (
                Slot("in_proj_weight", "([q k v] head key) embed", "kernel"),
                Slot("in_proj_bias", "([q k v] head key)", "bias"),
                Slot("out_proj.weight", "out (head key)", "output"),
                Slot("out_proj.bias", "out", "output_bias"),
            ),
            where=("query_in = key_in = value_in = out = head key", "key = value"),
            same={"query_in": "embed", "key_in": "embed", "value_in": "embed", "value": "key"},
        ),
        Case(
            (
                Slot("query.weight", "(head key) query_in", "kernel", "q"),
                Slot("query.bias", "(head key)", "bias", "q"),
                Slot("key.weight", "(head key) key_in", "kernel", "k"),
                Slot("key.bias", "(head key)", "bias", "k"),
                Slot("value.weight", "(head value) value_in", "kernel", "v"),
                Slot("value.bias", "(head value)", "bias", "v"),
                Slot("attention_output.weight", "out (head value)", "output"),
                Slot("attention_output.bias", "out", "output_bias"),
            )
        ),
    ),
}

# Attributes of torch.nn.Module: a submodule of such a name would shadow or break the module.
RESERVED = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double
    dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu load_state_dict modules mtia named_buffers named_children named_modules
    named_parameters parameters register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
    register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory state_dict to to_empty train training type xpu
    zero_grad
    """.split()  # noqa: SIM905 as words it can be read
)
