"""Operations between layers: `keras.ops` in a functional graph, and TensorFlow's in tf.keras.

Keras 3 records an operation as a class with its options, tf.keras as the name of a function with
its arguments. Both come down to one table here. What is done to each number by itself keeps the
order of its input; everything else is done in Keras's order, since its axes are counted in that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kerasport.codegen import activations
from kerasport.codegen.body import Case
from kerasport.codegen.text import literal, prose
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.shapes import Shape

__all__ = ["TENSORFLOW", "keras_operation"]

JSON = Any
Result = Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, with its operands by position and its options by name."""

    c: Case
    name: str
    args: Sequence[Any]
    named: Mapping[str, Any]

    def operand(self, place: int, *names: str) -> Any:
        """An argument by position, or by one of its names."""
        if place < len(self.args):
            return self.args[place]
        return next((self.named[name] for name in names if name in self.named), None)

    def option(self, place: int, *names: str, default: Any = None) -> Any:
        """An option, which may be given by position too."""
        found = self.operand(place, *names)
        return default if found is None else found

    @property
    def x(self) -> Value:
        """The first operand."""
        found = self.operand(
            0, "x", "x1", "inputs", "input", "input_tensor", "tensor", "a", "features"
        )
        if not isinstance(found, Value):
            found = self.operand(0, "logits", "images", "image", "params", "value", "input_tensor")
        if not isinstance(found, Value):
            raise UnsupportedError(f"{self.c.path}: expected {self.name} to take a tensor first")
        return found


def keras_operation(c: Case) -> Result:
    """An operation of `keras.ops`, whose options are those of its configuration."""
    options = {key: value for key, value in c.o.given.items() if key != "name"}
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", c.o.class_name).lower()
    return performed(Operation(c, name, c.args, {**options, **c.named}))


def tensorflow_function(c: Case) -> Result:
    """A TFOpLambda, whose configuration has the name of its function."""
    function = str(c.o("function", ""))
    name = function.rpartition(".")[2].strip("_").lower()
    named = {key: value for key, value in c.named.items() if key != "name"}
    return performed(Operation(c, TF_NAMES.get(name, name), c.args, named))


def performed(op: Operation) -> Result:
    """What an operation gives."""
    rule = OPERATIONS.get(op.name)
    if rule is None:
        raise UnsupportedError(
            f"{op.c.path}: the operation {prose(op.name)}, which has no counterpart in the table"
        )
    return rule(op)


# ------------------------------------------------------------------------------------ elementwise


def aligned(op: Operation, operands: Sequence[Any]) -> tuple[list[str], Value]:
    """Operands as expressions in one order, and a value that has that order."""
    values = [op.c.body.natural(v) for v in operands if isinstance(v, Value)]
    if not values:
        raise UnsupportedError(f"{op.c.path}: expected {op.name} to take a tensor")
    scalars = all(isinstance(v, Value | bool | int | float) for v in operands)
    ranks = {v.rank for v in values}
    order: tuple[int, ...] = ()
    if scalars and len(ranks) == 1 and None not in ranks:
        orders = {v.order for v in values}
        rank = next(iter(ranks)) or 0
        order = orders.pop() if len(orders) == 1 else () if rank <= 3 else max(orders, key=len)
    given = iter(values)
    texts: list[str] = []
    first = values[0]
    for v in operands:
        if isinstance(v, Value):
            own = next(given)
            texts.append((own.at(order) if order else own.straight()).text)
        else:
            texts.append(constant(v, first.text))
    shape = broadcast([v.shape for v in values])
    return texts, Value("", shape=shape, order=order, mask="")


def constant(value: Any, near: str) -> str:
    """A constant as an expression, an array as a tensor on the device of another one."""
    if isinstance(value, list):
        return f"{near}.new_tensor({literal(value)})"
    return literal(value)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of tensors that go together as NumPy's do."""
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(map(len, known))
    made: list[int | None] = []
    for column in zip(*[(1,) * (rank - len(shape)) + tuple(shape) for shape in known], strict=True):
        sizes = {n for n in column if n != 1}
        made.append(1 if not sizes else next((n for n in sizes if n is not None), None))
    return tuple(made)


Form = Callable[[list[str]], str]


def operator(symbol: str, *names: str) -> Callable[[Operation], Value]:
    """Two operands with a symbol between them."""

    def rule(op: Operation) -> Value:
        texts, like = aligned(op, [op.operand(0, "x", "x1"), op.operand(1, "y", "x2")])
        return replace(like, text=f"{texts[0]} {symbol} {texts[1]}")

    del names
    return rule


def function(form: str) -> Callable[[Operation], Value]:
    """One operand in an expression with `{x}`."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        return replace(x, text=form.format(x=x.text), mask="")

    return rule


def two(form: str) -> Callable[[Operation], Value]:
    """Two operands in an expression with `{0}` and `{1}`, numbers as tensors."""

    def rule(op: Operation) -> Value:
        operands = [op.operand(0, "x", "x1"), op.operand(1, "y", "x2")]
        texts, like = aligned(op, operands)
        if not all(isinstance(operand, Value) for operand in operands):
            near = next(v.text for v in operands if isinstance(v, Value))
            texts = [
                text if isinstance(operand, Value) else f"{near}.new_tensor({text})"
                for text, operand in zip(texts, operands, strict=True)
            ]
        return replace(like, text=form.format(*texts))

    return rule


def activation(name: str) -> Callable[[Operation], Value]:
    """One of Keras's activations."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        axis = op.named.get("axis", -1)
        if not isinstance(axis, int):
            raise UnsupportedError(f"{op.c.path}: {op.name} over several axes")
        text = activations.activated(x.text, name, dim=x.axis(axis), keras=3)
        return replace(x, text=text, mask="")

    return rule


def gelu(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    usual = op.c.o.class_name == "Gelu"  # keras.ops.gelu approximates by default
    tanh = op.option(1, "approximate", default=usual)
    text = f'F.gelu({x.text}, approximate="tanh")' if tanh else f"F.gelu({x.text})"
    return replace(x, text=text, mask="")


def leaky_relu(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    slope = op.option(1, "negative_slope", "alpha", default=0.2)
    return replace(x, text=f"F.leaky_relu({x.text}, {literal(float(slope))})", mask="")


def clip(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    low = op.option(1, "x_min", "clip_value_min", "a_min")
    high = op.option(2, "x_max", "clip_value_max", "a_max")
    if isinstance(low, Value) or isinstance(high, Value):
        raise UnsupportedError(f"{op.c.path}: clipping by tensors")
    return replace(x, text=f"{x.text}.clamp({literal(low)}, {literal(high)})", mask="")


def relu(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    return replace(x, text=activations.relu(x.text, op.named), mask="")


def where(op: Operation) -> Value:
    condition = op.operand(0, "condition")
    operands = [condition, op.operand(1, "x", "x1"), op.operand(2, "y", "x2")]
    texts, like = aligned(op, operands)
    return replace(like, text=f"torch.where({', '.join(texts)})")


def cast(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    names = {"float32": "float", "float16": "half", "bfloat16": "bfloat16", "float64": "double"}
    names |= {"int32": "int", "int64": "long", "bool": "bool", "uint8": "byte"}
    wanted = op.option(1, "dtype")
    if isinstance(wanted, Mapping):
        wanted = wanted.get("config", {}).get("name")
    if wanted not in names:
        raise UnsupportedError(f"{op.c.path}: casting to {prose(str(wanted))}")
    return replace(x, text=f"{x.text}.{names[wanted]}()", mask="")


def identity(op: Operation) -> Value:
    return op.x


# ---------------------------------------------------------------------------------- whole tensors


def straight(op: Operation, value: Any = None) -> Value:
    """An operand in Keras's order."""
    return op.c.plain(op.x if value is None else value)


def axes_of(op: Operation, rank: int | None, written: Any) -> list[int] | None:
    """Axes as a list, counted from the front where the rank is known."""
    if written is None:
        return None
    axes = [int(n) for n in (written if isinstance(written, list | tuple) else [written])]
    return axes if rank is None else [n % rank for n in axes]


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
        text = (
            f"{x.text}.{name}({literal(dims[0]) if len(dims) == 1 else literal(tuple(dims))}{tail})"
        )
        if name in ("var", "std"):
            text = text.replace(f".{name}(", f".{name}(", 1)[:-1] + ", correction=0)"
        return Value(text, shape=shape, order=order)

    return rule


def arg_reduction(name: str) -> Callable[[Operation], Value]:
    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        axis = op.option(1, "axis", default=-1)
        x = x.straight()
        shape = x.shape and tuple(n for i, n in enumerate(x.shape) if i != axis % len(x.shape))
        return Value(f"{x.text}.{name}({int(axis)})", shape=shape)

    return rule


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


def transpose(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    axes = op.option(1, "axes", "perm")
    rank = op.c.rank(x)
    axes = list(range(rank))[::-1] if axes is None else [int(n) % rank for n in axes]
    order = x.order or tuple(range(rank))
    made = tuple(axes.index(axis) for axis in order)
    shape = x.shape and tuple(x.shape[n] for n in axes)
    done = made == tuple(range(rank))
    return replace(x, order=() if done else made, shape=shape, mask="")


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
    if not isinstance(parts, int) or x.shape is None or x.shape[axis] is None:
        raise UnsupportedError(f"{op.c.path}: splitting into parts of unlike sizes")
    size = (x.shape[axis] or 0) // parts
    shape = list(x.shape)
    shape[axis] = size
    return tuple(
        Value(f"{x.text}.narrow({axis}, {n * size}, {size})", shape=tuple(shape))
        for n in range(parts)
    )


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
    if mode != "constant" or not isinstance(sides, list):
        raise UnsupportedError(f"{op.c.path}: padding by {prose(mode)}")
    pairs = [(n, n) if isinstance(n, int) else (int(n[0]), int(n[1])) for n in sides]
    flat = [n for pair in reversed(pairs) for n in pair]
    shape = x.shape and tuple(
        None if n is None else n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)
    )
    return Value(f"F.pad({x.text}, {literal(tuple(flat))})", shape=shape)


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


def norm(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    axis = op.option(1, "axis", default=-1)
    if not isinstance(axis, int):
        raise UnsupportedError(f"{op.c.path}: normalizing over several axes")
    text = f"F.normalize({x.text}, dim={x.axis(axis)}, eps=1e-06)"
    return replace(x, text=text, mask="")


def add_n(op: Operation) -> Value:
    values = op.operand(0, "inputs")
    texts, like = aligned(op, values if isinstance(values, list) else [values])
    return replace(like, text=" + ".join(texts))


def power(op: Operation) -> Value:
    texts, like = aligned(op, [op.operand(0, "x", "x1"), op.operand(1, "y", "x2")])
    simple = all(re.fullmatch(r"-?[\w.]+", text) for text in texts)
    return replace(like, text=f"{' ** ' if not simple else '**'}".join(texts))


def depth_to_space(op: Operation) -> Value:
    raise UnsupportedError(f"{op.c.path}: {op.name}")


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


TF_NAMES: Final[Mapping[str, str]] = {
    "truediv": "divide",
    "div": "divide",
    "realdiv": "divide",
    "mul": "multiply",
    "sub": "subtract",
    "neg": "negative",
    "pow": "power",
    "addv2": "add",
    "reduce_mean": "mean",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_prod": "prod",
    "reduce_std": "std",
    "reduce_variance": "var",
    "concat": "concatenate",
    "concatv2": "concatenate",
    "batchmatmul": "matmul",
    "batchmatmulv2": "matmul",
    "clip_by_value": "clip",
    "getitem": "get_item",
    "swish": "silu",
    "l2_normalize": "normalize",
    "reverse": "flip",
    "rsqrt": "rsqrt",
    "abs": "absolute",
    "bias_add": "add",
    "where_v2": "where",
    "stop_gradient": "stop_gradient",
    "arg_max": "argmax",
}

OPERATIONS: Final[Mapping[str, Callable[[Operation], Result]]] = {
    "add": operator("+"),
    "subtract": operator("-"),
    "multiply": operator("*"),
    "divide": operator("/"),
    "true_divide": operator("/"),
    "floor_divide": operator("//"),
    "mod": operator("%"),
    "power": power,
    "greater": operator(">"),
    "greater_equal": operator(">="),
    "less": operator("<"),
    "less_equal": operator("<="),
    "equal": operator("=="),
    "not_equal": operator("!="),
    "logical_and": operator("&"),
    "logical_or": operator("|"),
    "maximum": two("torch.maximum({0}, {1})"),
    "minimum": two("torch.minimum({0}, {1})"),
    "squared_difference": two("({0} - {1}).square()"),
    **{
        name: function(f"torch.{name}({{x}})")
        for name in (
            *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "sign", "sin", "cos"),
            *("erf", "floor", "ceil", "round", "reciprocal", "logical_not", "isnan"),
        )
    },
    "absolute": function("torch.abs({x})"),
    "abs": function("torch.abs({x})"),
    "negative": function("-{x}"),
    "stop_gradient": identity,
    "identity": identity,
    "zeros_like": function("torch.zeros_like({x})"),
    "ones_like": function("torch.ones_like({x})"),
    **{
        name: activation(name)
        for name in (
            *("sigmoid", "tanh", "softmax", "log_softmax", "elu", "selu", "celu", "silu"),
            *("softplus", "softsign", "hard_sigmoid", "hard_silu", "hard_tanh", "relu6"),
            *("log_sigmoid", "hard_shrink", "soft_shrink", "tanh_shrink", "squareplus", "glu"),
        )
    },
    "relu": relu,
    "leaky_relu": leaky_relu,
    "gelu": gelu,
    "clip": clip,
    "where": where,
    "cast": cast,
    "add_n": add_n,
    "mean": reduction("mean"),
    "sum": reduction("sum"),
    "max": reduction("amax"),
    "min": reduction("amin"),
    "var": reduction("var"),
    "std": reduction("std"),
    "any": reduction("any"),
    "all": reduction("all"),
    "argmax": arg_reduction("argmax"),
    "argmin": arg_reduction("argmin"),
    "reshape": reshape,
    "transpose": transpose,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "concatenate": concatenate,
    "stack": stack,
    "split": split,
    "matmul": matmul,
    "einsum": einsum,
    "get_item": slicing,
    "pad": pad,
    "flip": flip,
    "repeat": repeat,
    "normalize": norm,
    "space_to_depth": space_to_depth,
}

TENSORFLOW: Final[Mapping[str, Callable[[Case], Result]]] = {
    "TFOpLambda": tensorflow_function,
    "SlicingOpLambda": tensorflow_function,
}
