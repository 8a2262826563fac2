"""Attention in all its kinds, with what masks it."""

from __future__ import annotations

from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.linear import bias
from kerasport.codegen.text import call, literal
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError

JSON = Any
Result = Value | tuple[Value, ...]


def attention_inputs(c: Case) -> tuple[Value, Value, Value]:
    """Query, value and key, however they are given."""
    first = list(c.args)
    query = c.named.get("query", first[0] if first else None)
    if isinstance(query, list):
        found = [value for value in query if isinstance(value, Value)]
        query, value = found[0], found[1]
        key = found[2] if len(found) > 2 else value
        return query, value, key
    value = c.named.get("value", first[1] if len(first) > 1 else None)
    key = c.named.get("key", first[2] if len(first) > 2 else None)
    if not (isinstance(query, Value) and isinstance(value, Value)):
        raise UnsupportedError(f"{c.path}: expected a query and a value")
    return query, value, key if isinstance(key, Value) else value


def mask_arguments(c: Case, query: Value, value: Value, key: Value) -> dict[str, str | None]:
    """What `attention_mask` is to be told."""

    def of(name: str, given: str) -> str | None:
        found = c.named.get(name)
        return found.text if isinstance(found, Value) else given or None

    own = c.named.get("attention_mask")
    return {
        "query_mask": of("query_mask", query.mask),
        "key_mask": of("key_mask", key.mask if key is not value else ""),
        "value_mask": of("value_mask", value.mask),
        "mask": c.plain(own).text if isinstance(own, Value) else None,
        "causal": "True" if c.named.get("use_causal_mask") or c.o("causal") else None,
        "window": None if c.o("sliding_window") is None else literal(int(c.o("sliding_window"))),
    }


def multi_head(c: Case) -> Result:
    """Attention with projections, as one module of PyTorch where its heads fill the width."""
    query, value, key = (c.fed(v, "") for v in attention_inputs(c))
    query, value, key = (c.plain(v) for v in (query, value, key))
    if c.rank(query) != 3:
        raise UnsupportedError(f"{c.path}: attention over several axes")
    masks = mask_arguments(c, query, value, key)
    scores = bool(c.named.get("return_attention_scores"))
    query, key = c.once(query), c.once(key)
    mask = None
    if any(masks.values()):
        made = call("attention_mask", query.text, key.text, **masks)
        mask = c.body.temporary(made, "mask")
    heads, width = int(c.o("num_heads")), int(c.o("key_dim"))
    dropout = c.o("dropout", 0)
    rate = literal(float(dropout)) if dropout else None
    out = query.mask
    if "in_proj_weight" in c.tensors:
        module = c.module(
            call(
                "nn.MultiheadAttention",
                str(heads * width),
                str(heads),
                dropout=rate,
                bias=bias(c),
                batch_first="True",
            )
        )
        args = [query.text, key.text, value.text]
        each = mask and f"{mask}.repeat_interleave({heads}, 0)"
        if scores:
            text = call(module, *args, attn_mask=each, average_attn_weights="False")
            return seen(c, text, f"{module}.out_proj", mask, out)
        text = f"{call(module, *args, attn_mask=each, need_weights='False')}[0]"
        return shaped(c, seeing(c, text, f"{module}.out_proj", mask), out)
    parts = attention_parts(c, query, value, key)
    module = c.module(
        call("MultiHeadAttention", str(heads), *parts, bias=bias(c), dropout=rate, gate=gate(c))
    )
    text = call(module, query.text, key.text, value.text, *([mask] if mask else []))
    last = f"{module}.attention_output"
    if scores:
        return seen(c, text, last, mask, out)
    return shaped(c, seeing(c, f"{text}[0]", last, mask), out)


def seeing(c: Case, text: str, last: str, mask: str | None) -> str:
    """The output, where a query that sees no key at all gets what the last projection adds.

    With its scores given or dropped out, Keras 3 makes them zero there; else they are all alike.
    """
    zeroes = c.o("dropout", 0) or c.named.get("return_attention_scores")
    if mask is None or c.file.keras < 3 or not zeroes:
        return text
    nothing = f"{last}.bias" if c.o("use_bias", True) else "0.0"
    return f"torch.where({mask}.amax(-1, keepdim=True) < 0, {nothing}, {text})"


def seen(c: Case, text: str, last: str, mask: str | None, out: str) -> tuple[Value, Value]:
    """The output, and the scores of each head."""
    names = c.body.unpacked(text, c.body.many(2, "attended"))
    scores = names[1]
    if mask is not None and c.file.keras >= 3:
        scores = f"{scores}.masked_fill({mask}.unsqueeze(1) < 0, 0.0)"
    return shaped(c, seeing(c, names[0], last, mask), out), Value(scores, matrix=True)


def shaped(c: Case, text: str, mask: str) -> Value:
    """The output with its last axes apart, where there are several."""
    sizes = c.o("output_shape")
    if isinstance(sizes, list | tuple) and len(sizes) > 1:
        text = f"torch.unflatten({text}, -1, {literal(tuple(map(int, sizes)))})"
    return Value(text, mask=mask, matrix=True)


def gate(c: Case) -> str | None:
    """`True` where the layer has a gate."""
    return "True" if c.o("use_gate") else None


def grouped_query(c: Case) -> Result:
    """Attention whose query has more heads than its key and value."""
    query, value, key = (c.plain(v) for v in attention_inputs(c))
    masks = mask_arguments(c, query, value, key)
    query, key = c.once(query), c.once(key)
    mask = None
    if any(masks.values()):
        made = call("attention_mask", query.text, key.text, **masks)
        mask = c.body.temporary(made, "mask")
    heads, groups = (
        int(c.o("num_query_heads", c.o("num_query_heads", 1))),
        int(c.o("num_key_value_heads", 1)),
    )
    dropout = c.o("dropout", 0)
    given = [v.shape[-1] if v.shape else None for v in (query, key, value)]
    names = [f"{name}.weight" for name in ("query", "key", "value")]
    widths = [
        c.tensors[name][1] if name in c.tensors else size
        for name, size in zip(names, given, strict=True)
    ]
    if None in widths:
        raise UnsupportedError(f"{c.path}: how many features this attention takes is not known")
    module = c.module(
        call(
            "GroupedQueryAttention",
            str(heads),
            str(groups),
            *map(str, widths),
            str(int(c.o("head_dim"))),
            str(widths[0]),
            bias=bias(c),
            dropout=literal(float(dropout)) if dropout else None,
            gate=gate(c),
        )
    )
    text = call(module, query.text, key.text, value.text, *([mask] if mask else []))
    last = f"{module}.attention_output"
    if c.named.get("return_attention_scores"):
        return seen(c, text, last, mask, query.mask)
    return Value(seeing(c, f"{text}[0]", last, mask), mask=query.mask)


def attention_parts(c: Case, query: Value, value: Value, key: Value) -> list[str]:
    """Features of query, key, value as they come and per head, and of the output."""
    width = int(c.o("key_dim"))
    deep = int(c.o("value_dim") or width)
    shape = c.o("output_shape")
    given = [v.shape[-1] if v.shape else None for v in (query, key, value)]
    names = [f"{name}.weight" for name in ("query", "key", "value")]
    widths = [
        c.tensors[name][1] if name in c.tensors else size
        for name, size in zip(names, given, strict=True)
    ]
    if "attention_output.weight" in c.tensors:
        out: int | None = c.tensors["attention_output.weight"][0]
    else:
        out = (shape[-1] if isinstance(shape, list) else shape) or given[0]
    if None in widths or out is None:
        raise UnsupportedError(f"{c.path}: how many features this attention takes is not known")
    return [
        literal((widths[0], width)),
        literal((widths[1], width)),
        literal((widths[2], deep)),
        str(out),
    ]


def attention(c: Case) -> Result:
    """Dot-product attention without projections."""
    values = c.args[0] if c.args and isinstance(c.args[0], list) else list(c.inputs)
    found = [c.plain(value) for value in values if isinstance(value, Value)]
    query, value = c.once(found[0]), c.once(found[1])
    key = c.once(found[2]) if len(found) > 2 else value
    given = c.named.get("mask")
    masks = (
        [m.text if isinstance(m, Value) else None for m in given]
        if isinstance(given, list)
        else [query.mask or None, value.mask or None]
    )
    causal = c.named.get("use_causal_mask") or c.o("causal")
    scores = attention_scores(c, query, key)
    if masks[1:2] != [None] or causal:
        added = call(
            "attention_mask",
            query.text,
            key.text,
            value_mask=masks[1] if len(masks) > 1 else None,
            causal="True" if causal else None,
        )
        scores = f"{scores} + {c.body.temporary(added, 'mask')}"
    wanted = bool(c.named.get("return_attention_scores"))
    weights = f"torch.softmax({scores}, dim=-1)"
    weights = c.body.temporary(weights)
    text = f"{weights} @ {value.text}"
    if masks[0]:
        text = f"({text}) * {masks[0]}.unsqueeze(-1)"
    made = Value(text, mask=masks[0] or "")
    return (made, Value(weights, matrix=True)) if wanted else made


def attention_scores(c: Case, query: Value, key: Value) -> str:
    """How well queries and keys fit, before the softmax."""
    pair = f"{query.text}, {key.text}"
    if c.o.class_name == "AdditiveAttention":
        if c.o("use_scale", True):
            width = c.tensors["scale"][0] if "scale" in c.tensors else c.channels()
            return f"{c.module(call('AdditiveScore', str(width)))}({pair})"
        return f"torch.tanh({query.text}.unsqueeze(2) + {key.text}.unsqueeze(1)).sum(-1)"
    if c.o("score_mode") == "concat":
        scaled = "True" if c.o("use_scale") else None
        return f"{c.module(call('ConcatScore', scaled=scaled))}({pair})"
    if c.o("use_scale"):
        return f"{c.module('DotScore()')}({pair})"
    return f"{query.text} @ {key.text}.transpose(1, 2)"
