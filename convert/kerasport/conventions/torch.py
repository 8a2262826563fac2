"""What `torch.nn` calls its parameters and how it lays them out.

Source: the documentation of each module's `Variables` in torch.nn, PyTorch 2.13. Where Keras has a
layer and `torch.nn` has none, the tensors are those of the standard modules that it is made of: a
separable convolution is two convolutions, an attention layer whose heads do not add up to the
embedding is four `nn.Linear`.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import CHANNEL_FIRST, Absent, Case, Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
GATES = {"LSTM": "[i f c o]", "GRU": "[r z h]", "SimpleRNN": ""}
CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
BIAS = Slot("bias", "out")
# Where PyTorch has two biases and adds them: this one is added to that one.
ADDED = {"recurrent": "input"}
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
    return tuple(slot._replace(name=slot.name.removesuffix("_l0")) for slot in slots)


def _cudnn(kind: str) -> tuple[Slot, ...]:
    """The same tensors, from matrices that lie as cuDNN keeps them."""
    gates = GATES[CUDNN[kind]]
    unit = f"({gates} unit)"
    return (
        Slot("weight_ih_l0", f"{unit} in as ({gates} row col)", "kernel"),
        Slot("weight_hh_l0", f"{unit} hidden", "recurrent_kernel"),
        Slot("bias_ih_l0", unit, "bias", "input"),
        Slot("bias_hh_l0", unit, "bias", "recurrent"),
    )


def _bidirectional(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    return tuple(
        slot._replace(name=slot.name + suffix, at=f"{slot.at} {direction}".strip())
        for direction, suffix in (("forward", ""), ("backward", "_reverse"))
        for slot in slots
    )


def _normalized(axes: str, module: str = "") -> tuple[Slot, ...]:
    return (
        Slot(f"{module}weight", axes, "gamma", fill=1.0, needs=AFFINE),
        Slot(f"{module}bias", axes, "beta", fill=0.0, needs=AFFINE),
        Slot(f"{module}running_mean", axes, "moving_mean"),
        Slot(f"{module}running_var", axes, "moving_variance"),
        Slot(f"{module}num_batches_tracked", "", fill=0, needs=(), dtype="i64"),
    )


def _linear(name: str, inputs: str, outputs: str) -> tuple[Slot, Slot]:
    """One of the `nn.Linear` inside an attention, each with weights of its own."""
    return (
        Slot(f"{name}.weight", f"({outputs}) ({inputs})", f"{name}/kernel"),
        Slot(f"{name}.bias", f"({outputs})", f"{name}/bias"),
    )


RECURRENT = {kind: _recurrent(kind) for kind in GATES}
# nn.LSTM beside parameters of a module of one's own: `c` is the state that gates i and f add, each
# by its weights, before they see it, and o after.
RECURRENT["LSTMPeephole"] = (
    *RECURRENT["LSTM"],
    *(Slot(f"weight_c{gate}_l0", "unit", "peephole", gate) for gate in "ifo"),
)
ONCE = {kind: _cudnn(kind) for kind in CUDNN}
FOUR_LINEARS = (
    Slot("query.weight", "(head key) query_in", "kernel", "q"),
    Slot("query.bias", "(head key)", "bias", "q"),
    Slot("key.weight", "(head key) key_in", "kernel", "k"),
    Slot("key.bias", "(head key)", "bias", "k"),
    Slot("value.weight", "(head value) value_in", "kernel", "v"),
    Slot("value.bias", "(head value)", "bias", "v"),
    Slot("attention_output.weight", "({output}) (head value)", "output"),
    Slot("attention_output.bias", "({output})", "output_bias"),
)
GROUPED = (
    *_linear("query", "query_in", "head key"),
    *_linear("key", "key_in", "group key"),
    *_linear("value", "value_in", "group key"),
    *_linear("attention_output", "head key", "out"),
)
RESET_BEFORE = Absent(
    "torch.nn.GRU applies the reset gate after the recurrent product, this layer (reset_after="
    "False) before it; write it with --module, which adds a class that does, with --to keras, or "
    "as ONNX (linear_before_reset=0)"
)
PEEPHOLES = Absent(
    "this LSTM has peepholes and a projection, no module of torch.nn is near it; write it with "
    "--to keras"
)
MASKED = Absent(
    "this layer (implementation=2) stores a value for every input and output and masks most of "
    "them, no module of torch.nn has such a mask; write it with --to keras and multiply the "
    "kernel by the mask"
)
ENTRIES = Absent(
    "this layer (implementation=3) stores the values of a sparse matrix in a row, no module of "
    "torch.nn does; write it with --to keras and build a torch.sparse tensor from it"
)
PER_POSITION = Absent(
    "torch.nn.PReLU holds one slope per channel, this layer one per position; train it with "
    "shared_axes, or write it with --module, which adds a class that does, --to keras or --to onnx"
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
    # A convolution with a group a position, of what nn.Unfold makes of the windows.
    "LocallyConnected1D": (
        Slot("weight", "(position out) (in k) 1", "kernel"),
        Slot("bias", "(position out)"),
    ),
    "LocallyConnected2D": (
        Slot("weight", "(position out) (in kh kw) 1", "kernel"),
        Slot("bias", "(row column out)"),
    ),
    **{f"LocallyConnected{n}DFull": MASKED for n in (1, 2)},
    **{f"LocallyConnected{n}DSparse": ENTRIES for n in (1, 2)},
    # Two convolutions, of the input and of the step before.
    **{
        f"ConvLSTM{n}D": (
            Slot("input.weight", f"([i f c o] unit) in {k}", "kernel"),
            Slot("input.bias", "([i f c o] unit)", "bias"),
            Slot("recurrent.weight", f"([i f c o] unit) hidden {k}", "recurrent_kernel"),
        )
        for n, k in SPATIAL.items()
    },
    # Two nn.Linear, of the layer and of its gate.
    "Highway": (
        Slot("linear.weight", "out in", "W"),
        Slot("linear.bias", "out", "b"),
        Slot("carry.weight", "out in", "W_carry"),
        Slot("carry.bias", "out", "b_carry"),
    ),
    # One nn.Linear with `piece` times as many outputs, of which the largest count.
    "MaxoutDense": (Slot("weight", "(piece out) in", "W"), Slot("bias", "(piece out)", "b")),
    "BatchNormalization": _normalized("channel"),
    # nn.BatchNorm1d of all normalized axes as one.
    "BatchNormalizationAxes": _normalized("({normalized})"),
    # nn.BatchNorm beside the statistics that only training uses.
    "BatchNormalizationRenorm": (
        *_normalized("({normalized})", "norm."),
        Slot("moving_stddev", "({normalized})"),
        Slot("renorm_mean", "({normalized})"),
        Slot("renorm_stddev", "({normalized})"),
    ),
    "LayerNormalization": (
        Slot("weight", "{normalized}", "gamma", fill=1.0, needs=AFFINE),
        Slot("bias", "{normalized}", "beta"),
    ),
    "GroupNormalization": (
        Slot("weight", "channel", "gamma", fill=1.0, needs=AFFINE),
        Slot("bias", "channel", "beta", fill=0.0, needs=AFFINE),
    ),
    # A parameter of a module of one's own: x * gamma.
    "LayerScale": (Slot("gamma", "channel"),),
    "RMSNormalization": (Slot("weight", "{normalized}", "scale"),),
    # Buffers of a module of one's own: (x - mean) / max(sqrt(variance), 1e-7).
    "Normalization": (
        Slot("mean", "{normalized}"),
        Slot("variance", "{normalized}"),
        Slot("count", ""),
    ),
    "SpectralNormalization": (Slot("vector_u", "1 feature"),),
    "Discretization": (Slot("summary", "[value weight] bin"),),
    # Two nn.Conv1d over single channels.
    "STFTSpectrogram": (
        Slot("real.weight", "out 1 k", "real_kernel"),
        Slot("imag.weight", "out 1 k", "imag_kernel"),
    ),
    # cos(linear(x / kernel_scale)).
    "RandomFourierFeatures": (
        Slot("kernel_scale", "1"),
        Slot("linear.weight", "out in", "unscaled_kernel"),
        Slot("linear.bias", "out", "bias"),
    ),
    "EinsumDense": (
        Slot("weight", "({outputs}) ({inputs})", "kernel"),
        Slot("bias", "({outputs})"),
    ),
    "EinsumDenseBatched": Absent(
        "torch.nn.Linear holds one matrix for all positions and adds one bias per output, the "
        "equation of this layer asks for more; write it with --module, which adds a class that "
        "does, or with --to keras and use torch.einsum"
    ),
    "Embedding": (Slot("weight", "token embed", "embeddings"),),
    "Lookup": (Slot("idf_weights", "token"),),
    # nn.Embedding, and nn.Linear on the way back: with one parameter, or with two.
    "TiedEmbedding": (
        Slot("embedding.weight", "token embed", "embeddings"),
        Slot("reverse.weight", "token embed", "embeddings"),
    ),
    "ReversibleEmbedding": (
        Slot("embedding.weight", "token embed", "embeddings"),
        Slot("reverse.weight", "token embed", "reverse_embeddings"),
    ),
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
    # Parameters of modules of one's own.
    **{
        f"ParametricSoftplus{n}D": (Slot("alpha", axes, "alphas"), Slot("beta", axes, "betas"))
        for n, axes in CHANNEL_FIRST.items()
    },
    **{
        f"SReLU{n}D": tuple(Slot(name, axes) for name in ("t_left", "a_left", "t_right", "a_right"))
        for n, axes in CHANNEL_FIRST.items()
    },
    **RECURRENT,
    "LSTMProjected": (*RECURRENT["LSTM"], Slot("weight_hr_l0", "hidden unit", "projection")),
    "LSTMPeepholeProjected": PEEPHOLES,
    "GRUResetBefore": RESET_BEFORE,
    **{f"{kind}Cell": _cell(slots) for kind, slots in RECURRENT.items()},
    "GRUResetBeforeCell": RESET_BEFORE,
    **{f"Bidirectional{kind}": _bidirectional(slots) for kind, slots in RECURRENT.items()},
    "BidirectionalGRUResetBefore": RESET_BEFORE,
    **ONCE,
    **{f"Bidirectional{kind}": _bidirectional(slots) for kind, slots in ONCE.items()},
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
        Case(FOUR_LINEARS),
    ),
    "GatedMultiHeadAttention": (*FOUR_LINEARS, *_linear("gate", "query_in", "head value")),
    "GroupedQueryAttention": GROUPED,
    "GatedGroupedQueryAttention": (*GROUPED, *_linear("gate", "query_in", "head key")),
    # Parameters of a module of one's own; torch.nn has no such layers.
    "Attention": (Slot("scale", ""), Slot("concat_score_weight", "")),
    "AdditiveAttention": (Slot("scale", "channel"),),
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
