"""Layers that make one tensor of several, which must be in one order for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.text import literal, prose
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.flatten import Rest

JSON = Any
Result = Value | tuple[Value, ...]


def custom_scale(c: Case) -> Value:
    """What InceptionResNetV2 adds its branches with."""
    values, _ = common(c, tensors_of(c))
    scale = literal(float(c.o("scale", 1.0)))
    return Value(f"{values[0].text} + {values[1].text} * {scale}", order=values[0].order)


def common(c: Case, values: Sequence[Value]) -> tuple[list[Value], int | None]:
    """Several tensors in one order of dimensions; fewer dimensions are filled behind the batch."""
    features = {value.features for value in values if value.size(-1 % (value.rank or 1)) != 1}
    alike = len(features) <= 1 and all(value.features in features for value in values)
    if not alike:
        values = [c.body.natural(value) for value in values]
    ranks = {value.rank for value in values}
    if None in ranks:
        return [value.straight() for value in values], None
    rank = max(n for n in ranks if n is not None)
    orders = [value.order for value in values if value.rank == rank]
    moved = [order for order in orders if order]
    straight = () in orders
    order = moved[0] if moved and not (straight and rank <= 3) else ()
    made: list[Value] = []
    for value in values:
        if value.rank == rank:
            made.append(value.at(order) if order else value.straight())
            continue
        value = value.straight()
        missing = rank - (value.rank or 0)
        # Keras fills in dimensions behind the batch.
        axes = [0, *[None] * missing, *range(1, value.rank or 0)]
        wanted = order or tuple(range(rank))
        placed = [axes[axis] for axis in wanted]
        real = [axis for axis in placed if axis is not None]
        text = value.at(real).text
        index = ", ".join("None" if axis is None else ":" for axis in placed)
        made.append(replace(value, text=f"{text}[{index}]", order=order))
    return made, rank


def tensors_of(c: Case) -> list[Value]:
    """The tensors that a layer takes."""
    return list(c.inputs)


def merged_mask(c: Case) -> str:
    """Where any of the tensors counts."""
    masks = [value.mask for value in c.inputs]
    if not masks or not all(masks):
        return ""
    if len(set(masks)) == 1:
        return masks[0]
    return c.body.temporary(" | ".join(masks), "mask")


def merge(form: Callable[[list[str]], str]) -> Callable[[Case], Value]:
    """A rule that puts tensors in one order and then together."""

    def rule(c: Case) -> Value:
        values, _ = common(c, tensors_of(c))
        text = form([value.text for value in values])
        widest = max(values, key=lambda value: len(value.order))
        features = next((value.features for value in values if value.features), None)
        return Value(text, order=widest.order, features=features, mask=merged_mask(c))

    return rule


def chained(operator: str) -> Callable[[list[str]], str]:
    """Tensors with a symbol between them."""
    return lambda texts: f" {operator} ".join(texts)


def nested_calls(function: str) -> Callable[[list[str]], str]:
    """Tensors in a function of two."""

    def form(texts: list[str]) -> str:
        made = texts[0]
        for text in texts[1:]:
            made = f"{function}({made}, {text})"
        return made

    return form


def averaged(texts: list[str]) -> str:
    """The mean of tensors."""
    return f"({' + '.join(texts)}) / {len(texts)}"


def concatenate(c: Case) -> Value:
    """Tensors end to end."""
    axis = int(c.o("axis", -1))
    return concatenated(c, tensors_of(c), axis)


def concatenated(c: Case, values: list[Value], axis: int) -> Value:
    """Tensors end to end along one of Keras's axes."""
    features = [value.features for value in values]
    rank = values[0].rank
    row = None
    if any(features):
        last = axis in (-1, (rank or 0) - 1)
        parts = [
            v.features or (Rest(n) if (n := v.shape and v.shape[-1]) else None) for v in values
        ]
        if not last or None in parts:
            values = [c.body.natural(value) for value in values]
        else:
            row = row_of([part for part in parts if part is not None])
            values = [replace(value, features=None) for value in values]
    values, rank = common(c, values)
    order = values[0].order
    dim = values[0].axis(axis) if rank is not None else axis
    texts = ", ".join(value.text for value in values)
    masks = [value.mask for value in values]
    mask = ""
    if any(masks) and rank is not None and axis in (-1, rank - 1):
        present = list(dict.fromkeys(mask for mask in masks if mask))
        mask = present[0] if len(present) == 1 else c.body.temporary(" & ".join(present), "mask")
    return Value(f"torch.cat(({texts}), dim={dim})", order=order, features=row, mask=mask)


def row_of(parts: Sequence[Any]) -> Any:
    """Features end to end."""
    from kerasport.flatten import _row

    made = _row(parts)
    return None if isinstance(made, Rest) else made


def dot(c: Case) -> Value:
    """Products summed over one axis of each."""
    a, b = (c.plain(value) for value in tensors_of(c)[:2])
    ranks = (c.rank(a), c.rank(b))
    axes = c.o("axes", -1)
    pair = [axes, axes] if isinstance(axes, int) else list(axes)
    first, second = (int(n) % rank for n, rank in zip(pair, ranks, strict=True))
    texts = [a.text, b.text]
    if c.o("normalize"):
        texts = [f"F.normalize({a.text}, dim={first})", f"F.normalize({b.text}, dim={second})"]
    letters = iter("cdefghijklm")
    left = ["b" if n == 0 else "a" if n == first else next(letters) for n in range(ranks[0])]
    right = ["b" if n == 0 else "a" if n == second else next(letters) for n in range(ranks[1])]
    made = ["b", *(x for x in left[1:] if x != "a"), *(x for x in right[1:] if x != "a")]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(made)}"
    text = f"torch.einsum({literal(equation)}, {texts[0]}, {texts[1]})"
    return Value(f"{text}.unsqueeze(-1)" if len(made) == 1 else text)


def old_merge(c: Case) -> Value:
    """The layer Merge of Keras 1."""
    match str(c.o("mode", "sum")):
        case "sum":
            return merge(chained("+"))(c)
        case "mul":
            return merge(chained("*"))(c)
        case "ave":
            return merge(averaged)(c)
        case "max":
            return merge(nested_calls("torch.maximum"))(c)
        case "concat":
            return concatenate(c)
        case "dot":
            return dot(c)
        case other:
            raise UnsupportedError(f"{c.path}: merging by {prose(other)}")
