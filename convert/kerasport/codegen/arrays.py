"""Operations on whole arrays: NumPy's, as `keras.ops` and TensorFlow have them.

Axes are counted in Keras's order, so these find them where they are, or put the tensor in that
order first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

from kerasport.codegen.operands import Operation, axes_of, constant, straight
from kerasport.codegen.text import literal, prose
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.shapes import Shape

__all__ = ["ARRAYS"]

Result = Value | tuple[Value, ...]


def reduction(name: str) -> Callable[[Operation], Value]:
    """Sums and their like, over axes that are found where they are."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        keep = bool(op.option(2, "keepdims", "keep_dims", default=False))
        axes = axes_of(op, x.rank, op.option(1, "axis"))
        tail = ", keepdim=True" if keep else ""
        if axes is None:
            if x.rank is None:
                raise UnsupportedError(f"{op.c.path}: a sum over all of an unknown shape")
            axes = list(range(x.rank))
        shape = None
        if x.shape is not None:
            shape = tuple(
                (1 if n in axes else size)
                for n, size in enumerate(x.shape)
                if keep or n not in axes
            )
        if not keep:
            rest = [n for n in x.order if n not in axes]
            if rest != sorted(rest):
                x = x.straight()
        dims = sorted(x.axis(n) for n in axes)
        order = x.order if keep else ()
        if name == "prod" and len(dims) > 1:
            text = "".join([x.text, *(f".prod({dim}{tail})" for dim in reversed(dims))])
            return Value(text, shape=shape, order=order)
        where = literal(dims[0]) if len(dims) == 1 else literal(tuple(dims))
        where = f"dim={where}" if name == "norm" else where
        tail += ", correction=0" if name in ("var", "std") else ""
        text = f"{x.text}.{name}({where}{tail})"
        return Value(text, shape=shape, order=order)

    return rule


def arg_reduction(name: str) -> Callable[[Operation], Value]:
    def rule(op: Operation) -> Value:
        x = straight(op)
        # NumPy counts through the whole array then, and TensorFlow along its first axis.
        axis = op.option(1, "axis", "dimension", default=0 if _is_tensorflow(op) else None)
        keep = bool(op.option(2, "keepdims", default=False)) and not _is_tensorflow(op)
        if not isinstance(axis, int | None):
            raise UnsupportedError(f"{op.c.path}: {op.name} over no single axis")
        if axis is None:
            if keep:
                raise UnsupportedError(f"{op.c.path}: {op.name} over all axes that are kept")
            return Value(f"{x.text}.flatten().{name}()", shape=())
        shape: Shape = None
        if x.shape is not None:
            place = axis % len(x.shape)
            shape = (*x.shape[:place], *([1] if keep else []), *x.shape[place + 1 :])
        return Value(f"{x.text}.{name}({int(axis)}{', keepdim=True' if keep else ''})", shape=shape)

    return rule


def _is_tensorflow(op: Operation) -> bool:
    """Whether it is a function of TensorFlow's, which differs from NumPy's of that name."""
    return op.c.o.class_name == "TFOpLambda"


def reshape(op: Operation) -> Value:
    """Another shape, in Keras's order."""
    x = straight(op)
    wanted = op.option(1, "newshape", "shape", "target_shape")
    if not isinstance(wanted, list | tuple):
        raise UnsupportedError(f"{op.c.path}: reshaping to a shape that is computed")
    texts = [size_text(n) for n in wanted]
    shape = tuple(n if isinstance(n, int) and n >= 0 else None for n in wanted)
    if x.shape is not None and shape[:1] == (None,) and wanted[0] in (None, -1):
        shape = (x.shape[0], *shape[1:])
    return Value(f"{x.text}.reshape({', '.join(texts)})", shape=shape)


def size_text(n: Any) -> str:
    """An extent as an expression."""
    if isinstance(n, Value):
        return n.text
    return "-1" if n is None else literal(int(n))


def expand_dims(op: Operation) -> Value:
    x = straight(op)
    axis = op.option(1, "axis", default=-1)
    if isinstance(axis, list):
        if len(axis) != 1:
            raise UnsupportedError(f"{op.c.path}: several new axes at once")
        axis = axis[0]
    shape = None
    if x.shape is not None:
        place = axis % (len(x.shape) + 1)
        shape = (*x.shape[:place], 1, *x.shape[place:])
    return Value(f"{x.text}.unsqueeze({int(axis)})", shape=shape)


def squeeze(op: Operation) -> Value:
    x = straight(op)
    axis = op.option(1, "axis")
    axes = axes_of(op, x.rank, axis)
    if axes is None:
        if x.shape is None or None in x.shape[1:]:
            raise UnsupportedError(f"{op.c.path}: squeezing an unknown shape")
        axes = [n for n, size in enumerate(x.shape) if size == 1]
    shape = x.shape and tuple(size for n, size in enumerate(x.shape) if n not in axes)
    text = x.text
    for n in sorted(axes, reverse=True):
        text = f"{text}.squeeze({n})"
    return Value(text, shape=shape)


def concatenate(op: Operation) -> Value:
    """Tensors end to end."""
    from kerasport.codegen.merges import concatenated

    values = op.operand(0, "xs", "values", "arrays")
    if not isinstance(values, list) or not all(isinstance(v, Value) for v in values):
        raise UnsupportedError(f"{op.c.path}: putting constants beside tensors")
    axis = int(op.option(1, "axis", default=-1))
    values = [op.c.body.natural(v) for v in values]
    rank = values[0].rank
    made = concatenated(op.c, values, axis)
    shape = None
    if rank is not None and all(v.shape is not None for v in values):
        sizes = [v.shape[axis] for v in values if v.shape is not None]
        whole = list(values[0].shape or ())
        whole[axis] = None if None in sizes else sum(n for n in sizes if n is not None)
        shape = tuple(whole)
    return replace(made, shape=shape, mask="")


def stack(op: Operation) -> Value:
    values = op.operand(0, "x", "values", "arrays")
    if not isinstance(values, list) or not all(isinstance(v, Value) for v in values):
        raise UnsupportedError(f"{op.c.path}: stacking constants and tensors")
    axis = int(op.option(1, "axis", default=0))
    parts = [straight(op, v) for v in values]
    shape = parts[0].shape
    if shape is not None:
        place = axis % (len(shape) + 1)
        shape = (*shape[:place], len(parts), *shape[place:])
    texts = ", ".join(v.text for v in parts)
    return Value(f"torch.stack(({texts}), dim={axis})", shape=shape)


def split(op: Operation) -> tuple[Value, ...]:
    x = op.c.once(straight(op))
    parts = op.option(1, "indices_or_sections", "num_or_size_splits")
    axis = int(op.option(2, "axis", default=0))
    whole = None if x.shape is None else x.shape[axis]
    if x.shape is None or whole is None:
        raise UnsupportedError(f"{op.c.path}: splitting an axis of unknown size")
    if isinstance(parts, int):
        starts = [n * (whole // parts) for n in range(parts)]
    elif not isinstance(parts, list) or not all(isinstance(n, int) for n in parts):
        raise UnsupportedError(f"{op.c.path}: splitting at places that are computed")
    elif _is_tensorflow(op):  # the sizes, of which one may be left open
        open_ = whole - sum(n for n in parts if n >= 0)
        starts = [0, *accumulate(n if n >= 0 else open_ for n in parts[:-1])]
    else:  # the places
        starts = [0, *(n % whole if n < 0 else n for n in parts)]
    made: list[Value] = []
    for start, stop in zip(starts, [*starts[1:], whole], strict=True):
        shape = list(x.shape)
        shape[axis] = stop - start
        made.append(Value(f"{x.text}.narrow({axis}, {start}, {stop - start})", shape=tuple(shape)))
    return tuple(made)


def matmul(op: Operation) -> Value:
    a, b = op.operand(0, "x1", "a"), op.operand(1, "x2", "b")
    first = a if isinstance(a, Value) else b
    if not isinstance(first, Value):
        raise UnsupportedError(f"{op.c.path}: expected {op.name} to take a tensor")
    near = straight(op, first).text
    texts = [straight(op, v).text if isinstance(v, Value) else constant(v, near) for v in (a, b)]
    for place, name in enumerate(("transpose_a", "transpose_b")):
        if op.named.get(name):
            texts[place] = f"{texts[place]}.transpose(-1, -2)"
    shape = None
    if isinstance(a, Value) and a.shape is not None:
        last: Any = None
        if isinstance(b, Value) and b.shape is not None:
            last = b.shape[-2 if op.named.get("transpose_b") else -1]
        elif isinstance(b, list) and b and isinstance(b[0], list):
            last = len(b[0])
        rows = a.shape[-1] if op.named.get("transpose_a") else a.shape[-2]
        shape = (*a.shape[:-2], rows, last)
    return Value(f"{texts[0]} @ {texts[1]}", shape=shape)


def einsum(op: Operation) -> Value:
    equation = str(op.named.get("subscripts") or op.operand(0, "equation"))
    values = [arg for arg in op.args if isinstance(arg, Value)]
    values += [v for arg in op.args if isinstance(arg, list) for v in arg if isinstance(v, Value)]
    texts = ", ".join(straight(op, v).text for v in values)
    if not re.fullmatch(r"[A-Za-z,.\s]*->[A-Za-z.\s]*", equation):
        raise UnsupportedError(f"{op.c.path}: the equation {prose(equation)}")
    return Value(f"torch.einsum({literal(equation.replace(' ', ''))}, {texts})")


def slicing(op: Operation) -> Value:
    x = straight(op)
    spec = op.option(1, "slice_spec", "key")
    items = spec if isinstance(spec, list) else [spec]
    texts: list[str] = []
    shape: list[int | None] | None = [] if x.shape is not None else None
    sizes = list(x.shape or ())
    backwards: list[int] = []
    for place, item in enumerate(items):
        if item is Ellipsis or item == "...":
            texts.append("...")
            if shape is not None:
                rest = sum(1 for later in items[place + 1 :] if later is not None)
                while len(sizes) > rest:
                    shape.append(sizes.pop(0))
            continue
        if item is None:
            texts.append("None")
            if shape is not None:
                shape.append(1)
            continue
        size = sizes.pop(0) if sizes else None
        if isinstance(item, slice):
            if isinstance(item.step, int) and item.step < 0:
                if (item.start, item.stop, item.step) != (None, None, -1) or len(items) != len(
                    texts
                ) + 1 + len(items[place + 1 :]):
                    raise UnsupportedError(f"{op.c.path}: slicing backwards by steps")
                backwards.append(place)
                texts.append(":")
            else:
                texts.append(slice_text(op, item))
            if shape is not None:
                shape.append(extent(item, size))
            continue
        if not isinstance(item, int) or isinstance(item, bool):
            raise UnsupportedError(f"{op.c.path}: slicing by a tensor")
        texts.append(str(item))
    text = f"{x.text}[{', '.join(texts)}]"
    if backwards:
        if any(not isinstance(item, slice) for item in items):
            raise UnsupportedError(f"{op.c.path}: slicing backwards beside numbers")
        text += f".flip({', '.join(map(str, backwards))})"
    return Value(text, shape=None if shape is None else (*shape, *sizes))


def slice_text(op: Operation, item: slice) -> str:
    bounds = (item.start, item.stop, item.step)
    if not all(n is None or isinstance(n, int) for n in bounds):
        raise UnsupportedError(f"{op.c.path}: slicing at a place that is computed")
    start, stop, step = ("" if n is None else literal(n) for n in bounds)
    return f"{start}:{stop}" + (f":{step}" if step else "")


def extent(item: slice, size: int | None) -> int | None:
    return None if size is None else len(range(size)[item])


def pad(op: Operation) -> Value:
    x = straight(op)
    sides = op.option(1, "pad_width", "paddings")
    mode = str(op.option(2, "mode", default="constant")).lower()
    value = op.option(3, "constant_values", default=0)
    if mode not in ("constant", "reflect", "symmetric") or not isinstance(sides, list):
        raise UnsupportedError(f"{op.c.path}: padding by {prose(mode)}")
    if not isinstance(value, int | float):
        raise UnsupportedError(f"{op.c.path}: padding with a value that is computed")
    pairs = [(n, n) if isinstance(n, int) else (int(n[0]), int(n[1])) for n in sides]
    flat = [n for pair in reversed(pairs) for n in pair]
    shape = x.shape and tuple(
        None if n is None else n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)
    )
    if mode != "constant":
        mirror = literal(tuple(pairs))
        return Value(f"mirrored({x.text}, {mirror}, edge={mode == 'symmetric'})", shape=shape)
    given = "" if value == 0 else f", value={literal(float(value))}"
    return Value(f"F.pad({x.text}, {literal(tuple(flat))}{given})", shape=shape)


def flip(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    axes = axes_of(op, x.rank, op.option(1, "axis", default=None))
    dims = sorted(x.axis(n) for n in (axes if axes is not None else range(op.c.rank(x))))
    return replace(x, text=f"{x.text}.flip({', '.join(map(str, dims))})", mask="")


def repeat(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    count, axis = op.option(1, "repeats"), op.option(2, "axis")
    if not (isinstance(count, int) and isinstance(axis, int)):
        raise UnsupportedError(f"{op.c.path}: repeating by counts of its own")
    shape = None
    if x.shape is not None:
        grown = list(x.shape)
        size = grown[axis]
        grown[axis] = None if size is None else size * count
        shape = tuple(grown)
    return replace(
        x, text=f"{x.text}.repeat_interleave({count}, {x.axis(axis)})", shape=shape, mask=""
    )


def average(op: Operation) -> Value:
    if op.operand(1, "weights") is not None:
        raise UnsupportedError(f"{op.c.path}: an average with weights")
    return reduction("mean")(op)


def along(form: str) -> Callable[[Operation], Value]:
    """What is done along one axis and changes no shape, in an expression with `{axis}`."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        axis = op.option(1, "axis", default=None if form.startswith("{x}.cum") else -1)
        if op.named.get("exclusive") or op.named.get("reverse"):
            raise UnsupportedError(f"{op.c.path}: {op.name} backwards or without the first")
        if op.named.get("direction", "ASCENDING") != "ASCENDING":
            form_ = form.replace("{axis})", "{axis}, descending=True)")
        else:
            form_ = form
        if axis is None:  # of all numbers, one after the other
            return Value(form_.format(x=f"{x.straight().text}.flatten()", axis=0))
        if not isinstance(axis, int):
            raise UnsupportedError(f"{op.c.path}: {op.name} over no single axis")
        return replace(x, text=form_.format(x=x.text, axis=x.axis(axis)), mask="")

    return rule


def reordered(op: Operation, axes: Sequence[int]) -> Value:
    """The axes in another order, which only what is known of them changes."""
    x = op.c.body.natural(op.x)
    order = x.order or tuple(range(len(axes)))
    made = tuple(axes.index(axis) for axis in order)
    shape = x.shape and tuple(x.shape[n] for n in axes)
    done = made == tuple(range(len(axes)))
    return replace(x, order=() if done else made, shape=shape, mask="")


def transpose(op: Operation) -> Value:
    axes = op.option(1, "axes", "perm")
    rank = op.c.rank(op.c.body.natural(op.x))
    return reordered(op, list(range(rank))[::-1] if axes is None else [int(n) % rank for n in axes])


def swapaxes(op: Operation) -> Value:
    rank = op.c.rank(op.c.body.natural(op.x))
    axes = list(range(rank))
    one, other = (int(op.option(n, f"axis{n}")) % rank for n in (1, 2))
    axes[one], axes[other] = axes[other], axes[one]
    return reordered(op, axes)


def moveaxis(op: Operation) -> Value:
    rank = op.c.rank(op.c.body.natural(op.x))
    sources = axes_of(op, rank, op.option(1, "source")) or []
    targets = axes_of(op, rank, op.option(2, "destination")) or []
    axes = [n for n in range(rank) if n not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        axes.insert(target, source)
    return reordered(op, axes)


def ravel(op: Operation) -> Value:
    return Value(f"{straight(op).text}.flatten()", shape=(None,))


def tile(op: Operation) -> Value:
    x = straight(op)
    counts = op.option(1, "repeats", "multiples")
    counts = [counts] if isinstance(counts, int) else counts
    if not isinstance(counts, list | tuple) or not all(isinstance(n, int) for n in counts):
        raise UnsupportedError(f"{op.c.path}: tiling by counts that are computed")
    shape: Shape = None
    if x.shape is not None:
        rank = max(len(x.shape), len(counts))
        sizes = [1] * (rank - len(x.shape)) + list(x.shape)
        by = [1] * (rank - len(counts)) + list(counts)
        shape = tuple(None if n is None else n * k for n, k in zip(sizes, by, strict=True))
    return Value(f"{x.text}.tile({literal(tuple(counts))})", shape=shape)


def roll(op: Operation) -> Value:
    x = straight(op)
    shift, axis = op.option(1, "shift"), op.option(2, "axis")
    if axis is None:
        raise UnsupportedError(f"{op.c.path}: rolling over all axes at once")
    return replace(x, text=f"{x.text}.roll({literal(shift)}, {literal(axis)})", mask="")


def broadcast_to(op: Operation) -> Value:
    x = straight(op)
    wanted = op.option(1, "shape")
    if not isinstance(wanted, list | tuple) or not all(isinstance(n, int) for n in wanted):
        raise UnsupportedError(f"{op.c.path}: spreading to a shape that is computed")
    return Value(f"{x.text}.broadcast_to({literal(tuple(wanted))})", shape=tuple(wanted))


def triangle(name: str) -> Callable[[Operation], Value]:
    """The lower or upper triangle of the last two axes."""

    def rule(op: Operation) -> Value:
        x = straight(op)
        return replace(x, text=f"{x.text}.{name}({int(op.option(1, 'k', default=0))})", mask="")

    return rule


def take(op: Operation) -> Value:
    """The places of one axis that a list or a tensor names."""
    x = straight(op)
    indices = op.operand(1, "indices")
    axis = op.option(2, "axis", default=0 if op.c.o.class_name == "TFOpLambda" else None)
    if not isinstance(axis, int) or op.named.get("batch_dims"):
        raise UnsupportedError(f"{op.c.path}: taking from no single axis")
    if isinstance(indices, Value):
        places = straight(op, indices)
        index, taken = f"{places.text}.long()", places.shape
    else:
        listed = [indices] if isinstance(indices, int) else indices
        if not isinstance(listed, list) or not all(isinstance(n, int) for n in listed):
            raise UnsupportedError(f"{op.c.path}: taking by a list of lists")
        taken = () if isinstance(indices, int) else (len(listed),)
        index = literal(indices)
    shape: Shape = None
    if x.shape is not None and taken is not None:
        place = axis % len(x.shape)
        shape = (*x.shape[:place], *taken, *x.shape[place + 1 :])
    if axis < 0:
        return Value(f"{x.text}[{', '.join(['...', index, *[':'] * (-axis - 1)])}]", shape=shape)
    return Value(f"{x.text}[{', '.join([*[':'] * axis, index])}]", shape=shape)


def take_along_axis(op: Operation) -> Value:
    x = straight(op)
    indices = op.operand(1, "indices")
    axis = op.option(2, "axis", default=-1)
    if not isinstance(indices, Value) or not isinstance(axis, int):
        raise UnsupportedError(f"{op.c.path}: taking along no single axis")
    places = straight(op, indices)
    text = f"torch.take_along_dim({x.text}, {places.text}.long(), {axis})"
    return Value(text, shape=places.shape)


def one_hot(op: Operation) -> Value:
    x = straight(op)
    count = op.option(1, "num_classes", "depth")
    odd = op.option(4, "axis", default=-1) != -1 or any(
        op.named.get(name) not in (None, usual)
        for name, usual in (("on_value", 1), ("off_value", 0))
    )
    if not isinstance(count, int) or odd:
        raise UnsupportedError(f"{op.c.path}: one-hot numbers along another axis")
    text = f"F.one_hot({x.text}.long(), {count}).float()"
    return Value(text, shape=x.shape and (*x.shape, count))


def top_k(op: Operation) -> tuple[Value, ...]:
    x = straight(op)
    k = int(op.option(1, "k", default=1))
    names = op.c.body.unpacked(f"{x.text}.topk({k})", op.c.body.many(2, "top"))
    shape = x.shape and (*x.shape[:-1], k)
    return tuple(Value(name, shape=shape) for name in names)


def unstack(op: Operation) -> tuple[Value, ...]:
    x = straight(op)
    axis = int(op.option(2, "axis", default=0))
    size = None if x.shape is None else x.shape[axis]
    if size is None:
        raise UnsupportedError(f"{op.c.path}: taking apart an axis of unknown size")
    names = op.c.body.unpacked(f"{x.text}.unbind({axis})", op.c.body.many(size, "part"))
    place = axis % len(x.shape or ())
    shape = x.shape and (*x.shape[:place], *x.shape[place + 1 :])
    return tuple(Value(name, shape=shape) for name in names)


def vector_norm(op: Operation) -> Value:
    kind = op.option(1, "ord")
    if kind not in (None, 2, "euclidean"):
        raise UnsupportedError(f"{op.c.path}: a norm of order {prose(str(kind))}")
    axes = axes_of(op, None, op.option(2, "axis"))
    if axes is None or len(axes) != 1:
        raise UnsupportedError(f"{op.c.path}: a norm over no single axis")
    keep = bool(op.option(3, "keepdims", default=False))
    named = {"axis": axes, "keepdims": keep}
    return reduction("norm")(replace(op, args=op.args[:1], named={**op.named, **named}))


def tensordot(op: Operation) -> Value:
    a, b, axes = op.operand(0, "x1", "a"), op.operand(1, "x2", "b"), op.option(2, "axes", default=2)
    if not (isinstance(a, Value) and isinstance(b, Value)):
        raise UnsupportedError(f"{op.c.path}: a product of a tensor and a constant")
    a, b = straight(op, a), straight(op, b)
    if a.shape is None or b.shape is None:
        raise UnsupportedError(f"{op.c.path}: a product of tensors of unknown shape")
    if isinstance(axes, int):
        pairs = [list(range(len(a.shape) - axes, len(a.shape))), list(range(axes))]
    else:
        pairs = [
            axes_of(op, len(v.shape or ()), n) or [] for v, n in zip((a, b), axes, strict=True)
        ]
    rest = [
        size
        for v, used in zip((a, b), pairs, strict=True)
        for n, size in enumerate(v.shape or ())
        if n not in used
    ]
    text = f"torch.tensordot({a.text}, {b.text}, dims={literal(tuple(map(tuple, pairs)))})"
    return Value(text, shape=tuple(rest))


def dot(op: Operation) -> Value:
    """NumPy's dot product, which is a matrix product where the second one is a matrix or less."""
    b = op.operand(1, "x2", "b")
    if isinstance(b, Value) and (straight(op, b).rank or 9) > 2:
        raise UnsupportedError(f"{op.c.path}: a dot product with more than a matrix")
    if isinstance(b, int | float):
        return replace(op.x, text=f"{op.x.text} * {literal(b)}", mask="")
    return matmul(op)


def diff(op: Operation) -> Value:
    """What each place has more than the one before it."""
    x = straight(op)
    times, axis = int(op.option(1, "n", default=1)), int(op.option(2, "axis", default=-1))
    return Value(f"{x.text}.diff({times}, {axis})")


def space_to_depth(op: Operation) -> Value:
    x = straight(op)
    block = int(op.option(1, "block_size"))
    text = (
        f"torch.unflatten(torch.unflatten({x.text}, 1, (-1, {block})), 3, (-1, {block}))"
        f".permute(0, 1, 3, 2, 4, 5).flatten(3)"
    )
    shape: Shape = None
    if x.shape is not None and len(x.shape) == 4:
        n, h, w, channels = x.shape
        shape = (
            n,
            None if h is None else h // block,
            None if w is None else w // block,
            None if channels is None else channels * block * block,
        )
    return Value(text, shape=shape)


ARRAYS: Final[Mapping[str, Callable[[Operation], Result]]] = {
    "mean": reduction("mean"),
    "sum": reduction("sum"),
    "prod": reduction("prod"),
    "max": reduction("amax"),
    "amax": reduction("amax"),
    "min": reduction("amin"),
    "amin": reduction("amin"),
    "var": reduction("var"),
    "std": reduction("std"),
    "any": reduction("any"),
    "all": reduction("all"),
    "count_nonzero": reduction("count_nonzero"),
    "logsumexp": reduction("logsumexp"),
    "average": average,
    "norm": vector_norm,
    "argmax": arg_reduction("argmax"),
    "argmin": arg_reduction("argmin"),
    "cumsum": along("{x}.cumsum({axis})"),
    "cumprod": along("{x}.cumprod({axis})"),
    "sort": along("{x}.sort({axis}).values"),
    "argsort": along("{x}.argsort({axis})"),
    "reshape": reshape,
    "ravel": ravel,
    "transpose": transpose,
    "swapaxes": swapaxes,
    "moveaxis": moveaxis,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "split": split,
    "tile": tile,
    "roll": roll,
    "broadcast_to": broadcast_to,
    "tril": triangle("tril"),
    "triu": triangle("triu"),
    "take": take,
    "take_along_axis": take_along_axis,
    "one_hot": one_hot,
    "top_k": top_k,
    "matmul": matmul,
    "dot": dot,
    "tensordot": tensordot,
    "einsum": einsum,
    "get_item": slicing,
    "pad": pad,
    "flip": flip,
    "diff": diff,
    "repeat": repeat,
    "space_to_depth": space_to_depth,
}
