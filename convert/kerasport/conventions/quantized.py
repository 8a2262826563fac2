"""Layers whose weights Keras has quantized: what each scheme stores, and as what it is passed on.

The numbers of a quantized layer are passed on as they are: whole numbers, scales, zero points, and
the group of each input, each under a name of its own. Two numbers of four bits lie in one byte and
stay in it: `pair` is an axis of such bytes. What the numbers mean is a module hint, `quantization`;
whoever wants floats asks for them with `--dequantize`.

The rows of Keras are in the order of `variable_serialization_spec` in `keras/src/layers/core` of
Keras 3.15, which is that of the files. Those of a target follow from them: a name for each weight,
and a sentence for each sentence. Names in PyTorch are those of compressed-tensors, in ONNX those
that ONNX Runtime's quantizer gives.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import Absent, Case, Row, Slot

__all__ = ["KERAS", "ONNX", "TORCH"]


def _state(name: str, layout: str, dtype: str = "", *aliases: str) -> Slot:
    """A tensor that is not trained."""
    return Slot(name, layout, dtype=dtype, aliases=aliases, trainable=False)


def _scales(layout: str, *, name: str = "kernel", zero: str = "") -> tuple[Slot, ...]:
    """Scales, and zero points of some dtype where there are any."""
    scale = _state(f"{name}_scale", layout)
    return (scale, _state(f"{name}_zero", layout, zero, "zero_point")) if zero else (scale,)


BIAS = Slot("bias", "out", when="use_bias")
HISTORY = tuple(
    slot
    for what in ("inputs", "kernel", "outputs_grad")
    for slot in (
        Slot(f"{what}_scale", "", dtype="f32"),
        Slot(f"{what}_amax_history", "step", dtype="f32"),
    )
)
# The group of each input; Keras keeps these whole numbers as floats.
GROUPS = _state("g_idx", "in", "f32")
WHOLE = _state("quantized_kernel", "out in", "u8", "kernel")
PACKED = _state("quantized_kernel", "pair in", "u8", "kernel")
# Keras 3.15 leaves the zero points out when it saves.
UNSIGNED = tuple(
    slot._replace(when="zeros") if slot.dtype else slot for slot in _scales("out group", zero="u8")
)

DENSE: Mapping[str, tuple[Slot, ...]] = {
    "Int8": (_state("kernel", "in out", "i8"), BIAS, *_scales("out")),
    "Int4": (_state("kernel", "in pair", "i8"), BIAS, *_scales("out")),
    "Int4Grouped": (
        *(_state("kernel", "in pair", "i8"), BIAS),
        *(*_scales("group out", zero="i8"), GROUPS),
    ),
    "Float8": (Slot("kernel", "in out"), BIAS, *HISTORY),
    "GPTQ": (BIAS, WHOLE, *UNSIGNED, GROUPS),
    "GPTQ4": (BIAS, PACKED, *UNSIGNED, GROUPS),
    "AWQ": (BIAS, PACKED, *UNSIGNED, _state("awq_scales", "in"), GROUPS),
}

# A kernel of any equation, with its own axes or as a matrix of the axes that are summed over (in
# its own order, whatever it is) and the others.
EINSUM_BIAS = Slot("bias", "{bias}", when="bias_axes")
EINSUM: Mapping[str, tuple[Slot, ...]] = {
    "Int8": (_state("kernel", "{kernel}", "i8"), EINSUM_BIAS, *_scales("{scale}")),
    "Float8": (Slot("kernel", "{kernel}"), EINSUM_BIAS, *HISTORY),
    **{
        word: tuple(
            EINSUM_BIAS
            if slot is BIAS
            else slot._replace(layout=slot.layout.replace("in", "row").replace("out", "column"))
            for slot in slots
        )
        for word, slots in DENSE.items()
        if word not in ("Int8", "Float8")
    },
}

EMBEDDING: Mapping[str, tuple[Slot, ...]] = {
    "Int8": (_state("embeddings", "token embed", "i8"), *_scales("token", name="embeddings")),
    "Int4": (_state("embeddings", "token pair", "i8"), *_scales("token", name="embeddings")),
    "Int4Grouped": (
        _state("embeddings", "token pair", "i8"),
        *_scales("token group", name="embeddings", zero="i8"),
        GROUPS._replace(layout="embed"),
    ),
}
REVERSE: Mapping[str, tuple[Slot, ...]] = {
    "Int8": (
        _state("reverse_embeddings", "embed token", "i8"),
        *_scales("token", name="reverse_embeddings"),
    ),
    "Int4": (
        _state("reverse_embeddings", "pair token", "i8"),
        *_scales("token", name="reverse_embeddings"),
    ),
    "Int4Grouped": (
        _state("reverse_embeddings", "pair token", "i8"),
        # Zero points are floats here, where those of the way forth are whole numbers.
        _state("reverse_embeddings_scale", "group token"),
        _state("reverse_embeddings_zero", "group token"),
    ),
}

SLOTS: Mapping[str, tuple[Slot, ...]] = {
    **{f"Dense{word}": slots for word, slots in DENSE.items()},
    **{f"EinsumDense{word}": slots for word, slots in EINSUM.items()},
    **{f"EinsumDenseBatched{word}": slots for word, slots in EINSUM.items()},
    **{
        f"{kind}{word}": slots
        for kind in ("Embedding", "TiedEmbedding")
        for word, slots in EMBEDDING.items()
    },
    **{f"ReversibleEmbedding{word}": (*slots, *REVERSE[word]) for word, slots in EMBEDDING.items()},
}


def _row(slots: tuple[Slot, ...]) -> Row:
    """The slots, and how many bytes make a row where a tensor says how many numbers do."""
    axes = {word for slot in slots for word in slot.layout.split()}
    wide = next((axis for axis in ("out", "column", "embed") if axis in axes), "")
    return (Case(slots, where=(f"pair = {wide}/2",)),) if wide and "pair" in axes else slots


KERAS: Mapping[str, Row] = {kind: _row(slots) for kind, slots in SLOTS.items()}


def _target(
    kinds: Mapping[str, str],
    suffixes: Mapping[str, str],
    layouts: Mapping[str, str],
    bias: str = "bias",
) -> dict[str, Row]:
    """The rows of a target.

    Args:
        kinds: the beginning of a kind → what the target calls the weight; the first one counts.
        suffixes: what stands behind that name for `whole`, `packed`, `scale`, `zero`, `g_idx`.
        layouts: a sentence of Keras → the target's, where it is another.
        bias: what the target calls the bias.
    """

    def name(slot: Slot, weight: str) -> str:
        role = slot.name
        if role.startswith("reverse_"):
            weight, role = REVERSED[weight], role.removeprefix("reverse_")
        if role == "bias":
            return "B" if weight == "Inputs.1" else bias
        if role in ("kernel", "quantized_kernel", "embeddings"):
            quantized = "packed" if "pair" in slot.layout else "whole" if slot.dtype else ""
            return weight + suffixes.get(quantized, "")
        if role == "g_idx":
            return weight + suffixes["g_idx"]
        for end in ("scale", "zero"):
            if role in (f"kernel_{end}", f"embeddings_{end}"):
                return weight + suffixes[end]
        return role

    return {
        kind: tuple(
            Slot(
                name(slot, next(w for begin, w in kinds.items() if kind.startswith(begin))),
                layouts.get(slot.layout, slot.layout),
                slot.name,
            )
            for slot in slots
        )
        for kind, slots in SLOTS.items()
    }


# What each target calls the weight of the way back.
REVERSED = {"embedding.weight": "reverse.weight", "data": "reverse.B"}
OUT_FIRST = {
    "in out": "out in",
    "in pair": "pair in",
    "group out": "out group",
    "row pair": "pair row",
    "group column": "column group",
}
ENDS = {"packed": "_packed", "scale": "_scale", "zero": "_zero_point", "g_idx": "_g_idx"}
BATCHED = Absent(
    "torch.nn.Linear holds one matrix for all positions and adds one bias per output, the "
    "equation of this layer asks for more; write it with --to keras and use torch.einsum"
)

TORCH: Mapping[str, Row] = {
    **_target(
        {
            **dict.fromkeys(("ReversibleEmbedding", "TiedEmbedding"), "embedding.weight"),
            "": "weight",
        },
        ENDS,
        {
            **OUT_FIRST,
            "{kernel}": "({outputs}) ({inputs})",
            "{scale}": "({outputs})",
            "{bias}": "({outputs})",
            "embed token": "token embed",
            "group token": "token group",
        },
    ),
    **{kind: BATCHED for kind in SLOTS if kind.startswith("EinsumDenseBatched")},
}
ONNX: Mapping[str, Row] = _target(
    {
        "Einsum": "Inputs.1",
        **dict.fromkeys(("ReversibleEmbedding", "TiedEmbedding", "Embedding"), "data"),
        "": "B",
    },
    {**ENDS, "whole": "_quantized"},
    OUT_FIRST,
    bias="C",
)
