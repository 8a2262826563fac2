"""Layers that multiply by a matrix or look a row of it up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.text import call, literal
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError

JSON = Any
Result = Value | tuple[Value, ...]


def dense(c: Case) -> Value:
    """A linear layer."""
    x = c.fed(c.x).straight()
    units = int(c.o("units"))
    width = c.tensors["weight"][1] if "weight" in c.tensors else c.channels()
    module = c.module(call("nn.Linear", str(width), str(units), bias=bias(c)))
    return Value(c.activated(f"{module}({x.text})"), mask=x.mask)


def bias(c: Case) -> str | None:
    """`False` where the layer has no bias."""
    return None if c.o("use_bias", True) else "False"


def einsum_dense(c: Case) -> Value:
    """A linear layer between any axes."""
    x = c.fed(c.x, _einsum_axis(c)).straight()
    source, kernel, made = einsum_axes(c, x)
    shape = c.tensors.get("weight")
    if shape is None:
        raise UnsupportedError(f"{c.path}: the kernel of this EinsumDense is not in the file")
    summed = [axis for axis in source if axis in kernel and axis not in made]
    new = [axis for axis in made if axis in kernel and axis not in source]
    kept = [axis for axis in source if axis not in summed]
    layer = c.layer
    if layer is not None and layer.kind == "EinsumDenseBatched":
        wide = c.tensors.get("bias")
        module = call(
            "EinsumDense",
            literal(f"{source},{kernel}->{made}"),
            literal(shape),
            bias=None if wide is None else literal(wide),
        )
        return Value(c.activated(f"{c.module(module)}({x.text})"), mask=x.mask)
    has_bias = None if "bias" in c.tensors else "False"
    module = c.module(call("nn.Linear", str(shape[1]), str(shape[0]), bias=has_bias))
    moved = x.at([source.index(axis) for axis in (*kept, *summed)]).text
    if len(summed) > 1:
        moved += f".flatten({len(kept)})"
    text = f"{module}({moved})"
    if len(new) > 1 and layer is not None:
        sizes = [layer.sizes[f"out_{axis}"] for axis in new]
        text = f"torch.unflatten({text}, -1, {literal(tuple(sizes))})"
    order = [(*kept, *new).index(axis) for axis in made]
    back = tuple(order.index(n) for n in range(len(order)))
    y = Value("y", order=back)
    straight = (
        replace(y, text=text, order=back).straight() if back != tuple(range(len(back))) else y
    )
    return Value(c.activated(straight.text if straight is not y else text), mask=x.mask)


def _einsum_axis(c: Case) -> str:
    orders = (c.file.orders or {}).get(c.body.home(c.path), {})
    return next(iter(orders), "in")


def einsum_axes(c: Case, x: Value) -> tuple[str, str, str]:
    """The letters of the equation's three parts, those that `...` stands for among them."""
    equation = str(c.o("equation", "")).replace(" ", "")
    terms, _, made = equation.partition("->")
    source, _, kernel = terms.partition(",")
    if not all(part.replace("...", "").isalpha() for part in (source, kernel, made)):
        raise UnsupportedError(f"{c.path}: the equation of this EinsumDense is none")
    if "..." in source:
        free = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in equation]
        letters = "".join(free[: c.rank(x) - len(source) + 3])
        source, made = source.replace("...", letters), made.replace("...", letters)
    return source, kernel, made


def embedding(c: Case) -> Value:
    """Rows of a table."""
    tokens, width = c.tensors.get("weight") or (int(c.o("input_dim")), int(c.o("output_dim")))
    x = c.plain(c.x)
    mask = ""
    if c.o("mask_zero"):
        x = c.once(x)
        mask = c.body.temporary(f"{x.text} != 0", "mask")
    module = c.module(call("nn.Embedding", str(tokens), str(width)))
    return Value(f"{module}({x.text}.long())", mask=mask)


def highway(c: Case) -> Value:
    """A linear layer and its gate."""
    x = c.once(c.plain(c.x))
    width = c.tensors["linear.weight"][0] if "linear.weight" in c.tensors else c.channels()
    module = c.module(call("Highway", str(width), bias=bias(c)))
    made = c.activated(f"{module}.linear({x.text})")
    return Value(f"{module}({x.text}, {made})", mask=x.mask)


def maxout(c: Case) -> Value:
    """The largest of several linear layers."""
    x = c.plain(c.x)
    units, pieces = int(c.o("units")), int(c.o("nb_feature", 4))
    width = c.tensors["weight"][1] if "weight" in c.tensors else c.channels()
    module = c.module(call("nn.Linear", str(width), str(units * pieces), bias=bias(c)))
    return Value(f"torch.unflatten({module}({x.text}), -1, ({pieces}, {units})).amax(-2)")


def reversible(c: Case) -> Value:
    """Rows of a table, or the way back."""
    tokens, width = int(c.o("input_dim")), int(c.o("output_dim"))
    tied = bool(c.o("tie_weights", True))
    kind = "nn.Embedding" if tied else "ReversibleEmbedding"
    module = c.module(call(kind, str(tokens), str(width)))
    if not (c.named.get("reverse") or (len(c.args) > 1 and c.args[1] is True)):
        x = c.plain(c.x)
        mask = ""
        if c.o("mask_zero"):
            x = c.once(x)
            mask = c.body.temporary(f"{x.text} != 0", "mask")
        table = module if tied else f"{module}.embedding"
        return Value(f"{table}({x.text}.long())", mask=mask)
    x = c.plain(c.x)
    text = f"F.linear({x.text}, {module}.weight)" if tied else f"{module}.reverse({x.text})"
    cap = c.o("logit_soft_cap")
    if cap is not None:
        cap = literal(float(cap))
        text = f"{cap} * torch.tanh({text} / {cap})"
    shape = x.shape and (*x.shape[:-1], tokens)
    return Value(text, shape=shape)
